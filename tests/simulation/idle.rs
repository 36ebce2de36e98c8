//! Connections that are between two requests when the HTTP server is told to stop.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response};
use quoit::sim::{Fault, Faults, for_seeds};
use quoit::time::sleep;
use quoit::{Cancelled, Cores, RemoteHandle, RemoteSender, spawn};
use quoit_net::TcpStream;
use quoit_net::http::{Incoming, Server};
use quoit_net::tcp::TcpOptions;

use crate::raw_client::Answers;
use crate::site;
use crate::support::{Clients, World, address, pause_up_to, timed};

/// More than anything here takes.
const LONG: Duration = Duration::from_secs(60);

/// Stops a server once its client says so, which goes on to its end and is not cut off. Returns how long that took.
fn stop_beside<F>(
    server: Server,
    grace: Duration,
    client: impl FnOnce(RemoteSender<()>) -> F + Send + 'static,
) -> Duration
where
    F: Future<Output = ()> + 'static,
{
    let (tell, told) = RemoteHandle::<()>::channel();
    let mut clients = Clients::on(1);
    clients.start(move || client(tell));
    told.wait().expect("the client goes on");
    let (report, took) = timed(|| server.shutdown(grace));
    let report = report.expect("no core failed");
    assert_eq!((report.finished, report.cut), (1, 0), "after {took:?}");
    clients.end();
    took
}

/// What a streaming handler leaves of a request arrives after the handler has ended. It is no new
/// request, for which the server would wait.
#[test]
fn an_idle_connection_is_let_go_soon_whatever_was_asked_last() {
    for_seeds(0..20, |sim| {
        World::Kind.of(sim).run(|| {
            let server = site::serve(World::Kind, &Arc::default()).expect("a kind world");
            let took = stop_beside(server, LONG, |tell| async move {
                let stream = TcpStream::connect(address()).await.expect("it listens");
                let stream = Rc::new(stream);
                let head = "POST /through HTTP/1.1\r\nhost: site\r\ncontent-length: 5\r\n\r\n";
                stream.write_all(head).await.0.expect("it listens");
                let pause = sleep(Duration::from_millis(200)).await;
                pause.expect("nobody cancels");
                stream.write_all("12345").await.0.expect("it listens");
                let mut answers = Answers::on(&stream);
                let answer = answers.next().await.expect("an answer");
                assert_eq!(answer.expect("an answer").body, b"12345");
                tell.send(());
                let end = answers.next().await.expect("an orderly end");
                assert!(end.is_none(), "nobody asked for more");
            });
            assert!(took < Duration::from_secs(3), "the end took {took:?}");
        });
    });
}

/// Half of a request that comes while the one before it is being answered is begun, and is heard to
/// its end.
#[test]
fn a_request_that_began_during_an_answer_is_answered() {
    for_seeds(0..20, |sim| {
        World::Kind.of(sim).run(|| {
            let server = Server::bind(address())
                .cores(Cores::Count(1))
                .serve(|_| async {
                    sleep(Duration::from_millis(300)).await?;
                    Ok::<_, Cancelled>(Response::new("answered".to_owned()))
                });
            let server = server.expect("a kind world");
            stop_beside(server, LONG, |tell| async move {
                let stream = TcpStream::connect(address()).await.expect("it listens");
                let stream = Rc::new(stream);
                let request = "GET / HTTP/1.1\r\nhost: site\r\n\r\n";
                stream.write_all(request).await.0.expect("it listens");
                let pause = sleep(Duration::from_millis(150)).await;
                pause.expect("nobody cancels");
                stream.write_all(&request[..9]).await.0.expect("it listens");
                let mut answers = Answers::on(&stream);
                let answer = answers.next().await.expect("an answer");
                assert_eq!(answer.expect("an answer").body, b"answered");
                tell.send(());
                sleep(Duration::from_secs(2)).await.expect("nobody cancels");
                stream.write_all(&request[9..]).await.0.expect("it listens");
                let answer = answers.next().await.expect("an answer");
                assert_eq!(answer.expect("an answer").body, b"answered");
            });
        });
    });
}

/// What hyper still reads of a body that nobody has read, and nobody has any more behind its answer, is no new request.
#[test]
fn an_idle_connection_is_let_go_soon_whatever_was_left_unread() {
    for_seeds(0..1, |sim| {
        sim.run(|| {
            let server = Server::bind(address()).cores(Cores::Count(1)).serve(
                |request: Request<Incoming>| async {
                    sleep(Duration::from_millis(300)).await?;
                    let _task = spawn(async {
                        let _ = sleep(Duration::from_millis(100)).await;
                        drop(request);
                    });
                    Ok::<_, Cancelled>(Response::new("answered".to_owned()))
                },
            );
            let server = server.expect("it is free");
            let took = stop_beside(server, LONG, |tell| async move {
                let stream = TcpStream::connect(address()).await.expect("it listens");
                let stream = Rc::new(stream);
                let head = "POST / HTTP/1.1\r\nhost: site\r\ncontent-length: 2\r\n\r\n1";
                stream.write_all(head).await.0.expect("it listens");
                let pause = sleep(Duration::from_millis(150)).await;
                pause.expect("nobody cancels");
                stream.write_all("2").await.0.expect("it listens");
                let mut answers = Answers::on(&stream);
                let answer = answers.next().await.expect("an answer");
                assert_eq!(answer.expect("an answer").body, b"answered");
                sleep(Duration::from_secs(1)).await.expect("nobody cancels");
                tell.send(());
                let end = answers.next().await.expect("an orderly end");
                assert!(end.is_none(), "nobody asked for more");
            });
            assert!(took < Duration::from_secs(3), "the end took {took:?}");
        });
    });
}

/// A client that has all that it has asked for, and leaves late, misses nothing when its connection is cut.
#[test]
fn a_connection_that_owes_nothing_is_not_counted_as_cut() {
    const LARGE: usize = 40_000;
    for_seeds(0..1, |sim| {
        sim.run(|| {
            let server = Server::bind(address())
                .cores(Cores::Count(1))
                .options(TcpOptions::new().send_buffer(4096))
                .serve(|_| async { Ok::<_, Cancelled>(Response::new("x".repeat(LARGE))) });
            let server = server.expect("it is free");
            stop_beside(server, Duration::from_secs(2), |tell| async move {
                let options = TcpOptions::new().receive_buffer(4096);
                let stream = TcpStream::connect_with(address(), &options).await;
                let stream = Rc::new(stream.expect("it listens"));
                let head = "GET / HTTP/1.1\r\nhost: site\r\n\r\n";
                stream.write_all(head).await.0.expect("it listens");
                sleep(Duration::from_secs(1)).await.expect("nobody cancels");
                tell.send(());
                sleep(Duration::from_secs(1)).await.expect("nobody cancels");
                let mut answers = Answers::on(&stream);
                let answer = answers.next().await.expect("an answer");
                assert_eq!(answer.expect("an answer").body.len(), LARGE);
                let end = answers.next().await.expect("an orderly end");
                assert!(end.is_none(), "nobody asked for more");
                sleep(LONG).await.expect("nobody cancels");
            });
        });
    });
}

/// A head that has begun is not late while the answer before it is being taken, also where the core looks at the clock
/// before that head would be due and has its turn behind it.
#[test]
fn a_head_is_not_late_behind_an_answer_however_late_the_core_is() {
    const LARGE: usize = 40_000;
    let get = "GET / HTTP/1.1\r\nhost: site\r\n\r\n";
    for_seeds(0..100, |sim| {
        let faults = Faults::none().rate(Fault::CoreStalls, 0.3);
        sim.faults(faults).run(|| {
            let server = Server::bind(address())
                .cores(Cores::Count(1))
                .options(TcpOptions::new().send_buffer(4096))
                .head_timeout(Duration::from_secs(2))
                .serve(|_| async { Ok::<_, Cancelled>(Response::new("x".repeat(LARGE))) });
            let server = server.expect("it is free");
            let mut clients = Clients::on(1);
            clients.start(|| async {
                let options = TcpOptions::new().receive_buffer(4096);
                let stream = TcpStream::connect_with(address(), &options).await;
                let stream = Rc::new(stream.expect("it listens"));
                // What is armed for the first head rings a little before the second one would be late.
                for part in [&get[..9], &get[9..], &get[..9]] {
                    stream.write_all(part).await.0.expect("it listens");
                    pause_up_to(10).await;
                }
                sleep(Duration::from_secs(4)).await.expect("nobody cancels");
                let mut answers = Answers::on(&stream);
                let answer = answers.next().await.expect("an answer");
                assert_eq!(answer.expect("an answer").body.len(), LARGE);
                stream.write_all(&get[9..]).await.0.expect("it listens");
                let answer = answers.next().await.expect("an answer");
                assert_eq!(answer.expect("an answer").body.len(), LARGE);
            });
            clients.end();
            let snapshot = server.handle().snapshot();
            assert_eq!(snapshot.cores[0].count("late", None), Some(0));
        });
    });
}

/// Half of a request that comes behind an answer is begun as well, and so is an answer of which the client has taken
/// nothing.
#[test]
fn what_began_behind_an_answer_comes_to_its_end() {
    let get = "GET / HTTP/1.1\r\nhost: site\r\n\r\n";
    let unread = "POST / HTTP/1.1\r\nhost: site\r\ncontent-length: 1\r\n\r\nx";
    let ways = [(get, 9), (unread, 9), (get, get.len()), (unread, get.len())];
    for ((first, half), size) in ways
        .into_iter()
        .flat_map(|way| [(way, 10), (way, 3_000_000)])
    {
        for_seeds(0..1, |sim| {
            sim.run(|| {
                let server =
                    Server::bind(address())
                        .cores(Cores::Count(1))
                        .serve(move |_| async move {
                            Ok::<_, Cancelled>(Response::new("x".repeat(size)))
                        });
                let server = server.expect("it is free");
                stop_beside(server, LONG, move |tell| async move {
                    let stream = TcpStream::connect(address()).await.expect("it listens");
                    let stream = Rc::new(stream);
                    let mut answers = Answers::on(&stream);
                    stream.write_all(first).await.0.expect("it listens");
                    let answer = answers.next().await.expect("an answer");
                    assert_eq!(answer.expect("an answer").body.len(), size);
                    sleep(Duration::from_secs(1)).await.expect("nobody cancels");
                    stream.write_all(&get[..half]).await.0.expect("it listens");
                    sleep(Duration::from_secs(1)).await.expect("nobody cancels");
                    tell.send(());
                    sleep(Duration::from_secs(2)).await.expect("nobody cancels");
                    stream.write_all(&get[half..]).await.0.expect("it listens");
                    let answer = answers.next().await.expect("an answer");
                    assert_eq!(answer.expect("an answer").body.len(), size);
                });
            });
        });
    }
}
