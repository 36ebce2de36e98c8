//! The runtime without this and that of the ring's set-up, as older kernels lack it.

use std::io::{Read, Write};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use quoit::time::{Instant, sleep};
use quoit::{Builder, Cores, RingFeature, Runtime, Scope, op, spawn};
use quoit_net::TcpListener;
use tests::{bytes, on_ring_of};

/// Everything that a program cannot do without.
fn works(builder: Builder) {
    let (tell, told) = mpsc::channel();
    on_ring_of(builder.clone(), move |handle| async move {
        // Sockets.
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr();
        let peer = thread::spawn(move || {
            let sent = bytes(300_000, 1);
            let mut stream = std::net::TcpStream::connect(address).expect("it listens");
            let mut reader = stream.try_clone().expect("a descriptor");
            let reading = thread::spawn(move || {
                let mut all = Vec::new();
                reader.read_to_end(&mut all).expect("an orderly end");
                all
            });
            stream.write_all(&sent).expect("connected");
            stream
                .shutdown(std::net::Shutdown::Write)
                .expect("connected");
            assert!(reading.join().expect("no panic") == sent);
        });
        let stream = listener.accept().await.expect("somebody connects");
        while let Some(chunk) = stream.recv().await.expect("an orderly end") {
            stream.write_all(chunk).await.0.expect("connected");
        }
        stream.close().await.expect("no error");
        peer.join().expect("the echo was true");

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

        // Wakes from another thread, of a parked core.
        let parks = handle.metrics()[0].parks;
        let core = handle.cores()[0];
        let other = thread::spawn(move || {
            tests::until_parked(&handle, parks);
            let task = handle.spawn(core, || async { 7 }).expect("there is room");
            tell.send(task.wait().expect("it ended"))
                .expect("the test listens");
        });
        // The other thread needs this core, so it is not waited for by blocking.
        while !other.is_finished() {
            sleep(pause).await.expect("not cancelled");
        }
        other.join().expect("no panic");
    });
    assert_eq!(told.recv(), Ok(7));
    let runtime = builder.cores(Cores::All).build().expect("cores");
    runtime.run(|_| op::nop()).expect("every core works");
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
