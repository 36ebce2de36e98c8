//! Bodies that are made while they are sent: who makes them waits for a slow client, and ends with one that
//! has gone.

use std::convert::Infallible;
use std::future::{pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Either, Full};
use quoit::time::sleep;
use quoit::{Cancelled, Reason, Scope, spawn, yield_now};
use quoit_net::http::body::{self, Event, EventSender, SendError, Sender, StreamBody};
use quoit_net::http::{Incoming, Server};
use tests::http_client::{Client, pause, until};
use tests::{Serve, on_ring, poll_once};

use crate::peers::{self, get};
use crate::support::{LONG, at_rest, narrow, one_core};

const PIECE: usize = 16 * 1024;

/// Sends pieces for ever, and says how many, and why it ended.
async fn endless(
    sender: Sender,
    made: Arc<AtomicU64>,
    say: mpsc::Sender<Reason>,
) -> io::Result<()> {
    loop {
        if let Err(error) = sender.send(vec![b'x'; PIECE]).await {
            let cancelled = error.cancelled().expect("it is cancelled first");
            say.send(cancelled.reason()).expect("the test listens");
            return Err(error.into());
        }
        made.fetch_add(1, Ordering::Relaxed);
    }
}

fn endless_server() -> (Server, Arc<AtomicU64>, mpsc::Receiver<Reason>) {
    let made = Arc::new(AtomicU64::new(0));
    let (say, said) = mpsc::channel();
    let count = Arc::clone(&made);
    let server = one_core().options(narrow()).serve_boxed(move |_| {
        let (count, say) = (Arc::clone(&count), say.clone());
        let body = body::stream(|sender| endless(sender, count, say));
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    (server.expect("a server"), made, said)
}

/// A server of this body.
fn of(make: impl Fn() -> StreamBody + Clone + Send + 'static) -> Server {
    let server = one_core().on_trouble(|_| {}).serve_boxed(move |_| {
        let body = make();
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    server.expect("a server")
}

fn text_of(client: &mut Client) -> io::Result<String> {
    client.ask("GET", "/", "");
    let head = client.head();
    let mut came = Vec::new();
    client.body(&head, |bytes| came.extend_from_slice(bytes))?;
    Ok(String::from_utf8(came).expect("a text"))
}

#[test]
fn whoever_makes_a_body_waits_for_a_client_that_takes_nothing() {
    let (server, made, said) = endless_server();
    let mut client = Client::connect_narrow(server.local_addr());
    client.ask("GET", "/", "");
    let _head = client.head();
    let before = at_rest(&server);
    let count = made.load(Ordering::Relaxed);
    // What the sockets of both sides take, and a little.
    assert!(count > 0 && count < 256, "{count} pieces were made");
    pause(Duration::from_millis(100));
    assert_eq!(server.metrics(), before, "it waits, and does not ask");
    assert_eq!(made.load(Ordering::Relaxed), count);
    // As much as the client takes is made, about.
    let mut taken = 0;
    let _ = client.exactly(4 << 20, &mut |bytes: &[u8]| taken += bytes.len() as u64);
    until(|| made.load(Ordering::Relaxed) > taken / PIECE as u64);
    at_rest(&server);
    let count = made.load(Ordering::Relaxed) - taken / PIECE as u64;
    assert!(count < 256, "{count} pieces are ahead");

    drop(client);
    let reason = said.recv().expect("it is cancelled");
    assert_eq!(reason, Reason::Disconnected);
}

/// Of a body that is dropped: its producer is cancelled, and then nobody takes it any more.
#[test]
fn who_is_cancelled_before_the_body_is_gone_hears_of_that_also_where_there_was_room() {
    on_ring(|_| async {
        let (sender, mut body) = body::channel(1);
        sender.send("one").await.expect("there is room");
        let scope = Scope::new();
        let sent = scope.run(async {
            let mut second = pin!(sender.send("two"));
            assert!(poll_once(second.as_mut()).await.is_pending());
            let first = poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await;
            assert!(first.is_some_and(|first| first.is_ok()));
            // There is room for the second now, which it does not know yet.
            scope.cancel();
            drop(body);
            let error = second.await.expect_err("nobody takes it");
            let cancelled = error.cancelled().expect("it was cancelled first");
            assert_eq!(error.into_inner(), "two");
            Err::<(), _>(cancelled)
        });
        assert!(sent.await.expect("its own").is_none());
        let error = sender.send("three").await.expect_err("nobody takes it");
        assert!(error.cancelled().is_none());
    });
}

#[test]
fn whoever_waits_for_something_else_hears_that_the_client_has_gone() {
    let (say, said) = mpsc::channel();
    let server = of(move || {
        let say = say.clone();
        body::stream(async move |sender: Sender| {
            sender.send("a beginning").await?;
            let cancelled = sleep(LONG).await.expect_err("nobody waits so long");
            // It cleans up as any other task.
            let shield = Scope::new().shielded();
            let cleaned = shield.run(sleep(Duration::from_millis(1))).await;
            assert!(cleaned.is_ok(), "a shield holds");
            say.send(cancelled.reason()).expect("the test listens");
            Err::<(), _>(io::Error::from(cancelled))
        })
    });
    for leaves_by_reset in [false, true] {
        let mut client = Client::connect(server.local_addr());
        client.ask("GET", "/", "");
        let _head = client.head();
        if leaves_by_reset {
            tests::reset(client.into_socket());
        } else {
            drop(client);
        }
        assert_eq!(said.recv().expect("it is cancelled"), Reason::Disconnected);
    }
    let address = server.local_addr();
    on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2(address).await;
        let answer = sender
            .send_request(get(address, "/"))
            .await
            .expect("an answer");
        let mut body = answer.into_body();
        let first = body.frame().await.expect("a piece").expect("no error");
        assert_eq!(first.into_data().expect("data"), "a beginning");
        // Resets the stream alone.
        drop(body);
        let again = sender.send_request(get(address, "/")).await;
        drop(again.expect("the connection lives on"));
    });
    for _ in 0..2 {
        assert_eq!(said.recv().expect("it is cancelled"), Reason::Disconnected);
    }
}

#[test]
fn a_body_ends_with_its_producer() {
    let server = of(|| {
        body::stream(async |sender: Sender| {
            for count in 0..3 {
                sender.send(format!("{count},")).await?;
                sender.send("").await?;
                yield_now().await?;
            }
            Ok::<_, io::Error>(())
        })
    });
    let mut client = Client::connect(server.local_addr());
    for _ in 0..2 {
        assert_eq!(text_of(&mut client).expect("whole"), "0,1,2,");
    }
    let address = server.local_addr();
    on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2(address).await;
        let answer = sender
            .send_request(get(address, "/"))
            .await
            .expect("an answer");
        assert_eq!(peers::whole(answer).await, "0,1,2,");
    });
}

/// What a producer does after the end of its body is a task of the connection like any other.
#[test]
fn a_producer_goes_on_after_the_end_of_its_body() {
    let (say, said) = mpsc::channel();
    let server = of(move || {
        let say = say.clone();
        body::stream(async move |sender: Sender| {
            sender.send("all").await?;
            sender.end();
            sleep(Duration::from_millis(20)).await?;
            say.send(()).expect("the test listens");
            Ok::<_, io::Error>(())
        })
    });
    let mut client = Client::connect(server.local_addr());
    assert_eq!(text_of(&mut client).expect("whole"), "all");
    said.recv().expect("it was not cancelled");
}

#[test]
fn a_body_whose_producer_fails_is_no_whole_one() {
    async fn begin(sender: &Sender) -> io::Result<()> {
        Ok(sender.send("a beginning").await?)
    }
    let failing: [fn() -> StreamBody; 3] = [
        || {
            body::stream(async |sender: Sender| {
                begin(&sender).await?;
                Err::<(), _>(io::Error::other("no more"))
            })
        },
        || {
            body::stream(async |sender: Sender| {
                begin(&sender).await?;
                sender.fail("no more");
                Ok::<_, io::Error>(())
            })
        },
        || {
            body::stream(async |sender: Sender| {
                begin(&sender).await?;
                if !sender.is_gone() {
                    panic!("a panic of this test's own");
                }
                Ok::<_, io::Error>(())
            })
        },
    ];
    for make in failing {
        let server = of(make);
        let mut client = Client::connect(server.local_addr());
        let error = text_of(&mut client).expect_err("it is cut");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
        // The server lives on.
        let mut client = Client::connect(server.local_addr());
        let _ = text_of(&mut client).expect_err("it is cut");
    }
}

#[test]
fn nobody_makes_a_body_that_nobody_asked_for() {
    let made = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&made);
    let server = of(move || {
        let count = Arc::clone(&count);
        body::stream(async move |sender: Sender| {
            count.fetch_add(1, Ordering::Relaxed);
            sender.send("something").await
        })
    });
    let mut client = Client::connect(server.local_addr());
    client.ask("HEAD", "/", "");
    assert_eq!(client.head().status, 200);
    at_rest(&server);
    assert_eq!(made.load(Ordering::Relaxed), 0);
    assert_eq!(text_of(&mut client).expect("whole"), "something");
    assert_eq!(made.load(Ordering::Relaxed), 1);
}

#[test]
fn a_server_that_stops_cancels_its_producers() {
    let (server, _made, said) = endless_server();
    let mut client = Client::connect_narrow(server.local_addr());
    client.ask("GET", "/", "");
    let _head = client.head();
    at_rest(&server);
    let report = server.shutdown(Duration::from_millis(50));
    let report = report.expect("every core ended well");
    assert_eq!((report.finished, report.cut), (0, 1));
    let reason = said.recv().expect("it is cancelled");
    assert!(
        matches!(reason, Reason::Shutdown | Reason::Disconnected),
        "{reason:?}"
    );
    assert!(client.until_cut() > 0);
}

#[test]
fn what_a_producer_failed_with_is_told() {
    let (say, said) = mpsc::channel();
    let server = one_core()
        .on_trouble(move |trouble| say.send(trouble.to_string()).expect("the test listens"))
        .serve_boxed(|_| async {
            Ok::<_, Infallible>(Response::new(body::stream(async |_: Sender| {
                let inner = io::Error::other("the disk is gone");
                Err::<(), _>(io::Error::other(inner))
            })))
        })
        .expect("a server");
    let mut client = Client::connect(server.local_addr());
    let _ = text_of(&mut client).expect_err("it is cut");
    let told = said.recv().expect("it is told");
    assert!(told.contains(" ended early: "), "{told}");
    assert_eq!(told.matches("the disk is gone").count(), 1, "{told}");

    let address = server.local_addr();
    on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2(address).await;
        let answer = sender.send_request(get(address, "/")).await;
        let body = answer.expect("an answer").into_body().collect().await;
        let _ = body.expect_err("it is reset");
    });
    let told = said.recv().expect("it is told");
    assert!(told.contains(" failed: the disk is gone"), "{told}");
    drop(server);
    assert_eq!(said.iter().collect::<Vec<_>>(), [""; 0]);
}

/// Those of connections of its own, to a server behind this one, are no ends of its client's.
#[test]
fn what_a_producer_has_lost_itself_is_told_as_well() {
    const LOST: [io::ErrorKind; 5] = [
        io::ErrorKind::UnexpectedEof,
        io::ErrorKind::ConnectionReset,
        io::ErrorKind::ConnectionAborted,
        io::ErrorKind::BrokenPipe,
        io::ErrorKind::TimedOut,
    ];
    let (say, said) = mpsc::channel();
    let server = one_core()
        .on_trouble(move |trouble| say.send(trouble.to_string()).expect("the test listens"))
        .serve_boxed(|request: Request<Incoming>| async move {
            let number: usize = request.uri().path()[1..].parse().expect("a number");
            Ok::<_, Infallible>(Response::new(body::stream(async move |_: Sender| {
                Err::<(), _>(io::Error::new(LOST[number], "the other server is gone"))
            })))
        })
        .expect("a server");
    let address = server.local_addr();
    for number in 0..LOST.len() {
        let mut client = Client::connect(address);
        client.ask("GET", &format!("/{number}"), "");
        let head = client.head();
        let _ = client.body(&head, |_| {}).expect_err("it is cut");
    }
    until(|| server.handle().open_connections() == 0);
    on_ring(move |_| async move {
        let (mut sender, _connection) = peers::http2(address).await;
        for number in 0..LOST.len() {
            let answer = sender.send_request(get(address, &format!("/{number}")));
            let body = answer.await.expect("an answer").into_body().collect().await;
            let _ = body.expect_err("it is reset");
        }
    });
    drop(server);
    let told: Vec<_> = said.iter().collect();
    assert_eq!(told.len(), 2 * LOST.len(), "{told:?}");
    for (index, told) in told.iter().enumerate() {
        let how = match index < LOST.len() {
            true => " ended early: ",
            false => " failed: ",
        };
        assert!(told.contains(how), "{told}");
        assert!(told.contains("the other server is gone"), "{told}");
    }
}

/// A body that sends back what its client sends fails with it, and so does a handler, in words of its own.
#[test]
fn a_client_that_goes_away_in_an_upload_is_no_trouble() {
    let (say, said) = mpsc::channel();
    let (begin, begun) = mpsc::channel();
    let server = one_core()
        .on_trouble(move |trouble| say.send(trouble.to_string()).expect("the test listens"))
        .serve_boxed(move |request: Request<Incoming>| {
            let begin = begin.clone();
            async move {
                let is_echo = request.uri().path() == "/echo";
                let mut body = request.into_body();
                let first = body.frame().await.expect("a piece")?;
                begin.send(()).expect("the test listens");
                if is_echo {
                    return Ok::<_, io::Error>(Response::new(Either::Left(body)));
                }
                match body.frame().await {
                    Some(Err(error)) => Err(io::Error::new(error.kind(), "half an upload")),
                    _ => Ok(Response::new(Either::Right(Full::new(
                        first.into_data().expect("data"),
                    )))),
                }
            }
        })
        .expect("a server");
    for path in ["/echo", "/read"] {
        let client = Client::connect(server.local_addr());
        client.ask("POST", path, "content-length: 10\r\n");
        client.send(b"hello");
        begun.recv().expect("it is asked");
        drop(client);
    }
    until(|| server.handle().open_connections() == 0);
    drop(server);
    assert_eq!(said.iter().collect::<Vec<_>>(), [""; 0]);
}

// --- channels ---

#[test]
fn a_channel_is_sent_from_anywhere_on_the_core() {
    let (say, said) = mpsc::channel();
    let server = one_core().serve_boxed(move |_| {
        let (sender, body) = body::channel(2);
        let say = say.clone();
        drop(spawn(async move {
            let mut sent = 0;
            let ended = loop {
                match sender.send("tick,").await {
                    Ok(()) if sent == 2 => break Ok(()),
                    Ok(()) => sent += 1,
                    Err(error) => break Err(error.to_string()),
                }
            };
            // The first is sent to its end, for the rest nobody waits.
            drop(sender);
            say.send(ended).expect("the test listens");
        }));
        async { Ok::<_, Infallible>(Response::new(body)) }
    });
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr());
    assert_eq!(text_of(&mut client).expect("whole"), "tick,tick,tick,");
    assert_eq!(said.recv().expect("it ends"), Ok(()));
    client.ask("HEAD", "/", "");
    let _head = client.head();
    let error = said.recv().expect("it ends").expect_err("nobody takes it");
    assert!(error.contains("the client has gone"), "{error}");
}

#[test]
fn a_channel_has_room_for_so_many_pieces() {
    on_ring(|_| async {
        let (sender, mut body) = body::channel(2);
        let full = async {
            for piece in ["a", "b", "c"] {
                sender.send(piece).await?;
            }
            Ok::<_, io::Error>(())
        };
        let sent = Scope::new()
            .timeout(Duration::from_millis(5))
            .run(full)
            .await;
        assert!(
            sent.expect("no error").is_none(),
            "there is no room for the third"
        );
        let mut trailers = HeaderMap::new();
        trailers.insert("sum", "2".parse().expect("a value"));
        let sending = spawn(async move { sender.send_trailers(trailers).await });
        for piece in ["a", "b"] {
            let frame = body.frame().await.expect("a piece").expect("no error");
            assert_eq!(frame.into_data().expect("data"), piece);
        }
        let frame = body.frame().await.expect("trailers").expect("no error");
        assert_eq!(frame.into_trailers().expect("trailers")["sum"], "2");
        assert!(body.frame().await.is_none() && body.is_end_stream());
        sending.await.expect("no panic").expect("they were taken");
    });
}

#[test]
fn a_channel_that_fails_does_so_after_what_was_sent() {
    on_ring(|_| async {
        let (sender, mut body) = body::channel(2);
        sender.send("a").await.expect("there is room");
        sender.fail("no more");
        assert!(body.frame().await.expect("a piece").is_ok());
        let error = body
            .frame()
            .await
            .expect("an error")
            .expect_err("it was cut");
        assert_eq!(error.to_string(), "no more");
        assert!(body.frame().await.is_none());

        let (sender, body) = body::channel(1);
        sender.send("a").await.expect("there is room");
        let waiting = spawn(async move {
            let error = sender.send("b").await.expect_err("nobody takes it");
            (error, sender.is_gone())
        });
        yield_now().await.expect("not cancelled");
        drop(body);
        let (error, is_gone) = waiting.await.expect("no panic");
        assert!(is_gone);
        assert_eq!(error, SendError::Gone(Bytes::from("b")));
        assert_eq!(io::Error::from(error).kind(), io::ErrorKind::BrokenPipe);
    });
}

#[test]
fn what_is_cancelled_before_it_was_sent_comes_back() {
    on_ring(|_| async {
        let (sender, body) = body::channel(1);
        sender.send("a").await.expect("there is room");
        let scope = Scope::new();
        let handle = scope.handle();
        // In line for room, and then refused at once.
        let unsent = scope.run(async {
            let waiting = async { sender.send("b").await.expect_err("no room") };
            let cancel = async { handle.cancel() };
            let waiting = join(waiting, cancel).await.0;
            let refused = [sender.send("c").await, sender.send("").await];
            let refused = refused.map(|sent| sent.expect_err("it is cancelled"));
            Ok::<_, Cancelled>([waiting].into_iter().chain(refused).collect::<Vec<_>>())
        });
        let unsent = unsent.await.expect("no error").expect("a value");
        assert!(
            unsent.iter().all(|error| error.cancelled().is_some()),
            "{unsent:?}"
        );
        let unsent: Vec<Bytes> = unsent.into_iter().map(SendError::into_inner).collect();
        assert_eq!(unsent, ["b", "c", ""]);
        // None of them was sent.
        sender.end();
        let whole = body.collect().await.expect("no error");
        assert_eq!(whole.to_bytes(), "a");
    });
}

#[test]
fn trailers_that_were_not_sent_come_back() {
    on_ring(|_| async {
        let (sender, mut body) = body::channel(1);
        let mut trailers = HeaderMap::new();
        trailers.insert("sum", "2".parse().expect("a value"));
        let scope = Scope::new();
        scope.cancel();
        let sent = scope.run(async { Ok::<_, Cancelled>(sender.send_trailers(trailers).await) });
        let sent = sent.await.expect("no error").expect("a value");
        let error = sent.expect_err("it is cancelled");
        assert!(error.cancelled().is_some());
        assert_eq!(error.into_inner()["sum"], "2");
        let frame = body.frame().await.expect("an end");
        let _ = frame.expect_err("the body was cut with its sender");
    });
}

#[test]
#[should_panic(expected = "room for one piece at least")]
fn a_channel_without_room_is_refused() {
    drop(body::channel(0));
}

// --- events ---

async fn ticking(sender: EventSender) -> io::Result<()> {
    sender.comment("two of them").await?;
    for count in 0..2 {
        sender
            .send(Event::new(format!("tick\n{count}")).id(count.to_string()))
            .await?;
    }
    sender.while_waiting(LONG, async {}).await?;
    sender.send(Event::new("no").name("a\nb")).await
}

#[test]
fn events_are_sent_as_the_standard_says() {
    let server = one_core()
        .on_trouble(|_| {})
        .serve_boxed(|_| async { Ok::<_, Infallible>(body::events(ticking)) });
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr());
    client.ask("GET", "/", "");
    let head = client.head();
    assert_eq!(head.field("content-type"), Some("text/event-stream"));
    assert_eq!(head.field("cache-control"), Some("no-store"));
    let mut came = Vec::new();
    let ended = client.body(&head, |bytes| came.extend_from_slice(bytes));
    let text = String::from_utf8(came).expect("a text");
    let told = ":two of them\n\nid:0\ndata:tick\ndata:0\n\nid:1\ndata:tick\ndata:1\n\n";
    assert_eq!(text, told);
    let _ = ended.expect_err("the last cannot be written");
}

#[test]
fn comments_are_signs_of_life() {
    let server = one_core().serve_boxed(|_| async {
        Ok::<_, Infallible>(body::events(async |sender: EventSender| {
            let often = Duration::from_millis(5);
            sender.while_waiting(often, pending::<()>()).await
        }))
    });
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr());
    client.ask("GET", "/", "");
    let _head = client.head();
    let mut came = Vec::new();
    let chunk = "3\r\n:\n\n\r\n".repeat(3);
    let taken = client.exactly(chunk.len() as u64, &mut |bytes: &[u8]| {
        came.extend_from_slice(bytes)
    });
    taken.expect("they come");
    assert_eq!(String::from_utf8(came).expect("a text"), chunk);
}

/// Nothing to say is no stall: what is waited for is the producer, and not the client.
#[test]
fn a_silent_stream_of_http2_is_not_cut() {
    const PATIENCE: Duration = Duration::from_millis(50);
    async fn after_a_while(sender: Sender) -> Result<(), io::Error> {
        sender.send("a beginning").await?;
        sleep(PATIENCE * 12).await?;
        Ok(sender.send(", an end").await?)
    }
    async fn asks(address: SocketAddr) -> Result<Bytes, Cancelled> {
        let (mut sender, _connection) = peers::http2(address).await;
        let answer = sender
            .send_request(get(address, "/"))
            .await
            .expect("an answer");
        Ok(peers::whole(answer).await)
    }
    let server = one_core().stall_timeout(PATIENCE).idle_timeout(PATIENCE);
    let server = server
        .serve_boxed(|_| async { Ok::<_, Infallible>(Response::new(body::stream(after_a_while))) });
    let address = server.as_ref().expect("a server").local_addr();
    let came = on_ring(move |_| asks(address)).expect("not cancelled");
    assert_eq!(came, "a beginning, an end");
}
