//! The runtime without this and that of the ring's set-up, as older kernels lack it.

use std::net::Shutdown;
use std::rc::Rc;
use std::sync::mpsc;
use std::time::Duration;

use quoit::time::{Instant, sleep};
use quoit::{Builder, Cores, RingFeature, Runtime, Scope, op, spawn};
use quoit_net::{TcpListener, TcpStream};
use tests::{Outside, bytes, on_both, on_core_of, receive_all};

/// Everything that a program cannot do without.
fn works(builder: Builder) {
    on_core_of(builder.clone(), |handle| async move {
        // Sockets.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr();
        let peer = spawn(async move {
            let sent = bytes(300_000, 1);
            let stream = Rc::new(TcpStream::connect(address).await.expect("it listens"));
            let reader = Rc::clone(&stream);
            let reading = spawn(async move { receive_all(&reader).await });
            let (outcome, sent) = stream.write_all(sent).await;
            outcome.expect("connected");
            stream.shutdown(Shutdown::Write).expect("connected");
            assert!(reading.await.expect("no panic") == sent);
        });
        let stream = listener.accept().await.expect("somebody connects");
        while let Some(chunk) = stream.recv().await.expect("an orderly end") {
            stream.write_all(chunk).await.0.expect("connected");
        }
        stream.close().await.expect("no error");
        peer.await.expect("the echo was true");

        // Timers, and deadlines of ops in the kernel.
        let begin = Instant::now();
        let pause = Duration::from_millis(3);
        sleep(pause).await.expect("not cancelled");
        assert!(begin.elapsed() >= pause);
        let outcome = Scope::new().timeout(pause).run(listener.accept()).await;
        assert!(matches!(outcome, Ok(None)));

        // More requests than the queue has room for.
        let tasks: Vec<_> = (0..1_000).map(|_| spawn(op::nop())).collect();
        for task in tasks {
            task.await.expect("it ended").expect("not cancelled");
        }

        // What comes from outside wakes a parked core.
        let core = handle.cores()[0];
        let (tell, told) = mpsc::channel();
        let inner = handle.clone();
        let outside = Outside::run_when_parked(&handle, move || {
            let task = inner.spawn(core, move || async move { tell.send(7) });
            drop(task.expect("there is room"));
        });
        while told.try_recv() != Ok(7) {
            sleep(pause).await.expect("not cancelled");
        }
        outside.join().await;
    });
    on_both(|| {
        let builder = builder.clone().cores(Cores::All);
        let runtime = builder.build().expect("cores");
        runtime.run(|_| op::nop()).expect("every core works");
    });
}

#[test]
fn the_runtime_works_with_everything() {
    works(Runtime::builder());
}

#[test]
fn the_runtime_works_without_any_one_feature() {
    for feature in RingFeature::ALL {
        eprintln!("without {feature:?}");
        works(Runtime::builder().without(feature));
    }
}

#[test]
fn the_runtime_works_without_any_feature() {
    let plain = RingFeature::ALL
        .into_iter()
        .fold(Runtime::builder(), Builder::without);
    works(plain);
}
