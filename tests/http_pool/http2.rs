//! HTTP/2: many requests on a connection, against a server that says frame by frame what it is told.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use ::bytes::Bytes;
use futures_util::future::join_all;
use http::Version;
use quoit::{JoinHandle, Scope, spawn};
use quoit_net::http::body;
use quoit_pool::http::{Body, Client, Error};
use tests::{Kernel, bytes, conform, gauges, poll_once};

use crate::frames::{
    CANCEL, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, Frames, HEADERS, NO_ERROR,
    REFUSED_STREAM, RST_STREAM,
};
use crate::peer::{Host, end_of, trusting};
use crate::{close, patient, text, until};

fn prior() -> Client {
    let builder = patient().http2_prior_knowledge();
    builder.build().expect("a client")
}

/// Starts so many requests at once.
fn ask(client: &Client, url: &str, count: usize) -> Vec<JoinHandle<Result<String, Error>>> {
    (0..count)
        .map(|_| {
            let (client, url) = (client.clone(), url.to_owned());
            spawn(async move { text(&client, &url).await })
        })
        .collect()
}

/// Answers each request when no further one may come, the oldest first; notes how many there were at most.
async fn answer_when_full(mut frames: Frames, limit: usize, total: usize, most: &Cell<usize>) {
    let mut open = VecDeque::new();
    let mut seen = 0;
    loop {
        while seen < total && open.len() < limit {
            let Some(stream) = frames.request().await else {
                return;
            };
            open.push_back(stream);
            seen += 1;
        }
        let beyond = frames.requests_beyond().await;
        most.set(most.get().max(open.len() + beyond));
        let Some(stream) = open.pop_front() else {
            return frames.end().await;
        };
        frames.answer(stream, "done").await;
    }
}

#[test]
fn p041_a_hundred_requests_at_once_share_one_connection_within_its_limit() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let most = Rc::new(Cell::new(0));
        let noted = Rc::clone(&most);
        let serving = host.serve(move |_, peer| {
            let most = Rc::clone(&noted);
            async move {
                let frames = Frames::greet(peer, 10).await.expect("a preface");
                answer_when_full(frames, 10, 100, &most).await;
            }
        });
        let client = prior();
        for asking in ask(&client, &url, 100) {
            let text = asking.await.expect("no panic").expect("an answer");
            assert_eq!(text, "done");
        }
        let counts = client.pool().counts();
        assert_eq!((counts.connects, counts.reuses), (1, 99), "{counts:?}");
        assert_eq!(most.get(), 10);
        close(client).await;
        end_of(serving).await;
    });
}

/// Those who wait for a stream, or for the connection before that, have theirs in the order in which they came.
#[test]
fn p041_requests_have_their_streams_in_order() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| async move {
            let frames = Frames::greet(peer, 3).await.expect("a preface");
            frames.serve().await;
        });
        let client = prior();
        let mut asking: Vec<_> = (0..20).map(|_| Box::pin(text(&client, &url))).collect();
        for asking in &mut asking {
            assert!(poll_once(asking.as_mut()).await.is_pending());
        }
        for (place, answer) in join_all(asking).await.into_iter().enumerate() {
            // Each is told the number of its stream.
            let stream = (2 * place + 1).to_string();
            assert_eq!(answer.expect("an answer"), stream);
        }
        assert_eq!(client.pool().counts().connects, 1);
        close(client).await;
        end_of(serving).await;
    });
}

/// Each request is told what comes last on its stream.
#[test]
fn interim_answers_are_passed_over() {
    /// `:status: 103`, by its name's place in the static table.
    const EARLY_HINTS: &[u8] = b"\x08\x03103";
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| async move {
            let mut frames = Frames::greet(peer, 10).await.expect("a preface");
            let first = frames.request().await.expect("a request");
            let second = frames.request().await.expect("another");
            for stream in [first, second, second] {
                frames.send(HEADERS, END_HEADERS, stream, EARLY_HINTS).await;
            }
            frames.answer(second, "done").await;
            frames.answer(first, "done").await;
            frames.end().await;
        });
        let client = prior();
        for asking in ask(&client, &url, 2) {
            let text = asking.await.expect("no panic").expect("an answer");
            assert_eq!(text, "done");
        }
        assert_eq!(client.pool().counts().connects, 1);
        close(client).await;
        end_of(serving).await;
    });
}

/// The peer says how many streams there may be when nobody waits for that, and then nothing more.
#[test]
fn p041_a_request_beside_one_that_takes_long_does_not_wait_for_it() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| async move {
            let mut frames = Frames::greet(peer, 10).await.expect("a preface");
            let long = frames.request().await.expect("a request");
            frames.head(long).await;
            let other = frames.request().await.expect("another");
            frames.answer(other, "done").await;
            frames.end().await;
        });
        let client = prior();
        let long = client.get(&url).send().await.expect("a head");
        // All that the peer has said was heard, and the connection is asleep.
        let handle = quoit::Handle::current().expect("on a core");
        gauges(&handle).await;
        assert_eq!(text(&client, &url).await.expect("an answer"), "done");
        assert_eq!(client.pool().counts().connects, 1);
        drop(long);
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn p042_an_origin_that_speaks_only_http1_gets_connections_up_to_the_limit() {
    conform(|_| async {
        let host = Host::encrypted(&[b"http/1.1"]);
        let (url, address) = (host.url(), host.address());
        let connections = Rc::new(Cell::new(0));
        let noted = Rc::clone(&connections);
        let serving = host.serve(move |_, peer| {
            noted.set(noted.get() + 1);
            peer.count()
        });
        let builder = patient().tls(trusting()).max_connections_per_origin(3);
        let client = builder.addresses("site.test", &[address]).build();
        let client = client.expect("a client");
        for asking in ask(&client, &url, 20) {
            asking.await.expect("no panic").expect("an answer");
        }
        let counts = client.pool().counts();
        assert!((1..=3).contains(&counts.connects), "{counts:?}");
        // One that is there when nobody waits for it any more has not been used.
        let unused = counts.connects + counts.reuses - 20;
        assert!(unused < counts.connects, "{counts:?}");
        assert!(connections.get() <= 3);
        close(client).await;
        end_of(serving).await;
    });
}

/// All have waited for the one connection that was to be for all of them.
#[test]
fn p042_requests_for_an_origin_that_speaks_only_http1_keep_their_order() {
    conform(|_| async {
        let host = Host::encrypted(&[b"http/1.1"]);
        let (url, address) = (host.url(), host.address());
        let order = Rc::new(RefCell::new(Vec::new()));
        let noted = Rc::clone(&order);
        let serving = host.serve(move |_, mut peer| {
            let order = Rc::clone(&noted);
            async move {
                while let Some(head) = peer.head().await {
                    let path = head.split(' ').nth(1).expect("a target").to_owned();
                    peer.answer(&path).await;
                    order.borrow_mut().push(path);
                }
            }
        });
        let builder = patient().tls(trusting()).max_connections_per_origin(1);
        let client = builder.addresses("site.test", &[address]).build();
        let client = client.expect("a client");
        let paths: Vec<_> = (0..10).map(|place| format!("/{place}")).collect();
        let urls: Vec<_> = paths
            .iter()
            .map(|path| format!("{}{path}", url.trim_end_matches('/')))
            .collect();
        let mut asking: Vec<_> = urls
            .iter()
            .map(|url| Box::pin(text(&client, url)))
            .collect();
        for asking in &mut asking {
            assert!(poll_once(asking.as_mut()).await.is_pending());
        }
        let answers: Result<Vec<_>, _> = join_all(asking).await.into_iter().collect();
        assert_eq!(answers.expect("answers"), paths);
        assert_eq!(*order.borrow(), paths);
        assert_eq!(client.pool().counts().connects, 1);
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn both_protocols_are_offered_and_the_better_one_is_spoken() {
    conform(|_| async {
        let host = Host::encrypted(&[b"h2", b"http/1.1"]);
        let (url, address) = (host.url(), host.address());
        let serving = host.serve(|_, peer| async move {
            let frames = Frames::greet(peer, 100).await.expect("a preface");
            frames.serve().await;
        });
        let builder = patient().tls(trusting());
        let client = builder.addresses("site.test", &[address]).build();
        let client = client.expect("a client");
        let answer = client.get(&url).send().await.expect("an answer");
        assert_eq!(answer.version(), Version::HTTP_2);
        assert_eq!(answer.text().await.expect("all of it"), "1");
        for asking in ask(&client, &url, 10) {
            asking.await.expect("no panic").expect("an answer");
        }
        assert_eq!(client.pool().counts().connects, 1);
        close(client).await;
        end_of(serving).await;
    });
}

/// The last stream ends while the next request is assigned: ever again, with an expiry that is due at once.
#[test]
fn p043_a_connection_is_used_until_nobody_asks() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| async move {
            if let Some(frames) = Frames::greet(peer, 100).await {
                frames.serve().await;
            }
        });
        let builder = patient().http2_prior_knowledge();
        let client = builder.idle_timeout(Duration::ZERO).build();
        let client = client.expect("a client");
        let askers: Vec<_> = (0..3)
            .map(|_| {
                let (client, url) = (client.clone(), url.clone());
                spawn(async move {
                    for _ in 0..20 {
                        text(&client, &url).await?;
                    }
                    Ok::<_, Error>(())
                })
            })
            .collect();
        for asker in askers {
            asker.await.expect("no panic").expect("every answer");
        }
        until(|| client.pool().counts().connections == 0).await;
        let counts = client.pool().counts();
        assert_eq!(counts.expiries, counts.connects, "{counts:?}");
        assert_eq!(counts.retries, 0, "{counts:?}");
        end_of(serving).await;
    });
}

#[test]
fn p045_what_a_goaway_leaves_out_is_sent_again_elsewhere() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|number, peer| async move {
            let mut frames = Frames::greet(peer, 100).await.expect("a preface");
            if number > 0 {
                return frames.serve().await;
            }
            let lower = frames.request().await.expect("a request");
            let higher = frames.request().await.expect("another");
            assert!(lower < higher);
            frames.go_away(lower).await;
            frames.answer(lower, "lower").await;
            // It takes nothing new, and ends after the last.
            frames.end().await;
        });
        let client = prior();
        let mut answers = Vec::new();
        for asking in ask(&client, &url, 2) {
            answers.push(asking.await.expect("no panic").expect("an answer"));
        }
        answers.sort();
        assert_eq!(answers, ["1", "lower"]);
        let counts = client.pool().counts();
        assert_eq!((counts.connects, counts.retries), (2, 1), "{counts:?}");
        until(|| client.pool().counts().connections == 1).await;
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn p045_a_refused_stream_is_sent_again() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| async move {
            let mut frames = Frames::greet(peer, 100).await.expect("a preface");
            let first = frames.request().await.expect("a request");
            frames.reset(first, REFUSED_STREAM).await;
            frames.serve().await;
        });
        let client = prior();
        assert_eq!(text(&client, &url).await.expect("an answer"), "3");
        let counts = client.pool().counts();
        assert_eq!((counts.connects, counts.retries), (1, 1), "{counts:?}");
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn p046_a_reset_is_one_requests_failure_and_nobody_elses() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| async move {
            let mut frames = Frames::greet(peer, 100).await.expect("a preface");
            let mut streams = Vec::new();
            for _ in 0..10 {
                streams.push(frames.request().await.expect("a request"));
            }
            frames.reset(streams[4], ENHANCE_YOUR_CALM).await;
            streams.remove(4);
            for stream in streams {
                frames.answer(stream, "well").await;
            }
            frames.serve().await;
        });
        let client = prior();
        let mut well = 0;
        for asking in ask(&client, &url, 10) {
            match asking.await.expect("no panic") {
                Ok(text) => {
                    assert_eq!(text, "well");
                    well += 1;
                }
                Err(Error::Reset { code }) => assert_eq!(code, ENHANCE_YOUR_CALM),
                Err(other) => panic!("{other:?}"),
            }
        }
        assert_eq!(well, 9);
        text(&client, &url).await.expect("an answer");
        assert_eq!(client.pool().counts().connects, 1);
        close(client).await;
        end_of(serving).await;
    });
}

/// A reset with NO_ERROR is for the rest of a request, behind a whole answer: before that it breaks the answer off.
#[test]
fn p046_an_answer_that_is_broken_off_without_an_error_is_not_whole() {
    // What comes before the reset, whether that ends the answer, and whether the request has a body that goes on.
    type Case = (
        &'static [u8],
        &'static str,
        bool,
        bool,
        Result<&'static str, u32>,
    );
    // `content-length: 10`, by its number in the static table.
    const TEN: &[u8] = b"\x0f\x0d\x0210";
    const CASES: [Case; 7] = [
        (b"", "half", false, false, Err(NO_ERROR)),
        (b"", "", false, false, Err(NO_ERROR)),
        (TEN, "half", false, false, Err(NO_ERROR)),
        (TEN, "half", false, true, Err(NO_ERROR)),
        (TEN, "all of ten", false, true, Ok("all of ten")),
        (b"", "whole", true, false, Ok("whole")),
        (b"", "whole", true, true, Ok("whole")),
    ];
    for (fields, said, ends, goes_on, comes) in CASES {
        conform(move |_| async move {
            let host = Host::new();
            let url = host.url();
            let serving = host.serve(move |_, peer| async move {
                let mut frames = Frames::greet(peer, 100).await.expect("a preface");
                let stream = frames.request().await.expect("a request");
                let head = [&[0x88], fields].concat();
                frames.send(HEADERS, END_HEADERS, stream, &head).await;
                let flags = if ends { END_STREAM } else { 0 };
                frames.send(DATA, flags, stream, said.as_bytes()).await;
                frames.reset(stream, NO_ERROR).await;
                frames.serve().await;
            });
            let client = prior();
            let (_sender, pieces) = body::channel(1);
            let asked = match goes_on {
                true => client.post(&url).body(pieces),
                false => client.get(&url),
            };
            let came = async { asked.send().await?.text().await };
            let came = came.await.map_err(|error| match error {
                Error::Reset { code } => code,
                other => panic!("{said:?}: {other:?}"),
            });
            let expected = comes.map(str::to_owned);
            assert_eq!(came, expected, "{said:?}, ends {ends}, goes on {goes_on}");
            text(&client, &url).await.expect("an answer");
            assert_eq!(client.pool().counts().connects, 1);
            close(client).await;
            end_of(serving).await;
        });
    }
}

#[test]
fn p047_a_limit_that_goes_down_and_up_is_kept() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| async move {
            let mut frames = Frames::greet(peer, 20).await.expect("a preface");
            let mut open = Vec::new();
            while open.len() < 20 {
                open.push(frames.request().await.expect("a request"));
            }
            // The client has heard of it when it has answered a ping that came behind it; a request that
            // comes before that came too early.
            frames.allow(1).await;
            for stream in open.drain(..) {
                frames.answer(stream, "of twenty").await;
            }
            for _ in 0..20 {
                let stream = frames.request().await.expect("a request");
                assert_eq!(frames.requests_beyond().await, 0, "one at a time");
                frames.answer(stream, "of one").await;
            }
            frames.allow(20).await;
            frames.serve().await;
        });
        let client = prior();
        for asking in ask(&client, &url, 60) {
            asking.await.expect("no panic").expect("an answer");
        }
        let counts = client.pool().counts();
        assert_eq!((counts.connects, counts.retries), (1, 0), "{counts:?}");
        close(client).await;
        end_of(serving).await;
    });
}

/// A server that never answers the first request, and counts: the client has to reset that, and nothing else.
#[test]
fn p048_a_cancelled_request_resets_its_stream_alone() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let codes = Rc::new(RefCell::new(Vec::new()));
        let noted = Rc::clone(&codes);
        let serving = host.serve(move |_, peer| {
            let codes = Rc::clone(&noted);
            async move {
                let mut frames = Frames::greet(peer, 100).await.expect("a preface");
                // Waiting for the head; in the body of the answer; in the body of the request.
                for stage in 0..3 {
                    let stream = frames.request().await.expect("a request");
                    if stage == 1 {
                        frames.head(stream).await;
                        frames.send(DATA, 0, stream, b"half").await;
                    }
                    let code = frames.reset_of(stream).await.expect("a reset");
                    codes.borrow_mut().push(code);
                }
                frames.serve().await;
            }
        });
        let client = prior();
        let soon = Duration::from_millis(20);
        for stage in 0..3 {
            let scope = Scope::new().timeout(soon);
            let (sender, pieces) = body::channel(1);
            let making = (stage == 2).then(|| {
                spawn(async move {
                    let piece = bytes(16 * 1024, 1);
                    while sender.send(piece.clone()).await.is_ok() {}
                })
            });
            let asking = async {
                let request = match stage {
                    2 => client.post(&url).body(pieces),
                    _ => client.get(&url),
                };
                request.send().await?.text().await
            };
            let ended = scope.run(asking).await;
            assert!(matches!(ended, Ok(None)), "{stage}: {ended:?}");
            if let Some(making) = making {
                making.await.expect("it hears that nobody wants it");
            }
            // It does not wait for the next request.
            until(|| codes.borrow().len() == stage + 1).await;
        }
        assert_eq!(text(&client, &url).await.expect("an answer"), "7");
        assert_eq!(*codes.borrow(), [CANCEL; 3]);
        let counts = client.pool().counts();
        assert_eq!((counts.connects, counts.connections), (1, 1), "{counts:?}");
        close(client).await;
        end_of(serving).await;
    });
}

/// The answer has begun while the request is still being sent: who drops it wants neither.
#[test]
fn p048_an_answer_that_is_dropped_ends_the_body_of_its_request() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let code = Rc::new(Cell::new(None));
        let noted = Rc::clone(&code);
        let serving = host.serve(move |_, peer| {
            let code = Rc::clone(&noted);
            async move {
                let mut frames = Frames::greet(peer, 100).await.expect("a preface");
                let stream = frames.request().await.expect("a request");
                frames.head(stream).await;
                code.set(frames.reset_of(stream).await);
                frames.serve().await;
            }
        });
        let client = prior();
        let (sender, pieces) = body::channel(1);
        sender
            .send("the first of many")
            .await
            .expect("there is room");
        let answer = client.post(&url).body(pieces).send().await;
        drop(answer.expect("an answer"));
        until(|| code.get().is_some()).await;
        assert_eq!(code.get(), Some(CANCEL));
        assert!(sender.is_gone());
        text(&client, &url).await.expect("an answer");
        assert_eq!(client.pool().counts().connects, 1);
        close(client).await;
        end_of(serving).await;
    });
}

/// Answers of which nothing is read, many times as much as the connection's window: the credit of each comes
/// back, or the last would not begin.
/// A body of pieces that are all there: what is left of it, and how much of that comes at a time.
struct Pieces(usize, usize);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Bytes>, Self::Error>>> {
        let length = self.0.min(self.1);
        self.0 -= length;
        Poll::Ready((length > 0).then(|| Ok(http_body::Frame::data(vec![7; length].into()))))
    }
}

/// The peer has room for 65 535 bytes, and gives no more; it allows one stream at a time.
#[test]
fn p048_a_body_that_the_window_holds_up_is_reset() {
    let bodies: [fn() -> Body; 4] = [
        || Body::new(Pieces(1 << 20, 40_000)),
        || Body::from(vec![7; 1 << 20]),
        // All but the last byte fits, and all but some of the last piece.
        || Body::from(vec![7; 65_536]),
        || Body::from(vec![7; 70_000]),
    ];
    for body in bodies {
        // It has all of the answer, or its head.
        for is_whole in [true, false] {
            conform(move |_| async move {
                let host = Host::new();
                let url = host.url();
                let code = Rc::new(Cell::new(None));
                let noted = Rc::clone(&code);
                let serving = host.serve(move |_, peer| {
                    let code = Rc::clone(&noted);
                    async move {
                        let mut frames = Frames::greet(peer, 1).await.expect("a preface");
                        let stream = frames.request().await.expect("a request");
                        match is_whole {
                            true => frames.answer(stream, "early").await,
                            false => frames.head(stream).await,
                        }
                        code.set(frames.reset_of(stream).await);
                        frames.serve().await;
                    }
                });
                let client = prior();
                let answer = client.post(&url).body(body()).send().await;
                let answer = answer.expect("a head");
                match is_whole {
                    true => assert_eq!(answer.text().await.expect("all of it"), "early"),
                    false => drop(answer),
                }
                until(|| code.get().is_some()).await;
                assert_eq!(code.get(), Some(CANCEL));
                assert_eq!(text(&client, &url).await.expect("an answer"), "3");
                assert_eq!(client.pool().counts().connects, 1);
                close(client).await;
                end_of(serving).await;
            });
        }
    }
}

/// Each byte of a body that is all there goes out once, in order, whatever its length.
#[test]
fn a_body_that_is_all_there_goes_out_in_pieces() {
    for length in [1, 16_384, 16_385, 16_386, 32_768, 32_769, 65_535] {
        conform(move |_| async move {
            let host = Host::new();
            let url = host.url();
            let sent = bytes(length, 5);
            let expected = sent.clone();
            let serving = host.serve(move |_, peer| {
                let expected = expected.clone();
                async move {
                    let mut frames = Frames::greet(peer, 1).await.expect("a preface");
                    let stream = frames.request().await.expect("a request");
                    let mut came = Vec::new();
                    loop {
                        let frame = frames.next().await.expect("a frame");
                        assert_eq!((frame.kind, frame.stream), (DATA, stream));
                        came.extend_from_slice(&frame.payload);
                        if frame.ends_stream() {
                            break;
                        }
                    }
                    assert!(came == expected, "{length}: {} came", came.len());
                    frames.answer(stream, "all").await;
                    frames.serve().await;
                }
            });
            let client = prior();
            let answer = client.post(&url).body(sent).send().await;
            let answer = answer.expect("a head").text().await;
            assert_eq!(answer.expect("all of it"), "all");
            close(client).await;
            end_of(serving).await;
        });
    }
}

#[test]
fn p048_the_window_of_a_request_that_is_left_comes_back() {
    conform(|_| async {
        const ROUNDS: usize = 40;
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(move |_, peer| async move {
            let mut frames = Frames::greet(peer, 100).await.expect("a preface");
            for _ in 0..ROUNDS {
                let Some(stream) = frames.request().await else {
                    return;
                };
                frames.head(stream).await;
                let much =
                    usize::try_from(frames.stream_window.min(400_000)).expect("it is positive");
                if !frames.pour_until_reset(stream, much).await {
                    return;
                }
            }
            frames.serve().await;
        });
        let client = prior();
        for _ in 0..ROUNDS {
            let mut answer = client.get(&url).send().await.expect("an answer");
            let piece = answer.chunk().await.expect("some of it");
            assert!(piece.is_some());
            drop(answer);
        }
        text(&client, &url).await.expect("an answer");
        assert_eq!(client.pool().counts().connects, 1);
        close(client).await;
        end_of(serving).await;
    });
}

/// The peer closes an idle connection, without a GOAWAY, when the next request has come. One beside others, or with a
/// body, is not sent again.
#[test]
fn p052_a_request_that_meets_a_closed_connection_is_sent_again_once() {
    #[derive(Debug, Clone, Copy, PartialEq)]
    enum Second {
        Alone,
        Beside,
        WithBody,
    }
    for second in [Second::Alone, Second::Beside, Second::WithBody] {
        conform(move |_| async move {
            let host = Host::new();
            let url = host.url();
            let serving = host.serve(move |number, peer| async move {
                let mut frames = Frames::greet(peer, 100).await.expect("a preface");
                if number > 0 {
                    return frames.serve().await;
                }
                let first = frames.request().await.expect("a request");
                frames.head(first).await;
                if second != Second::Beside {
                    frames.send(DATA, END_STREAM, first, b"first").await;
                }
                frames.request().await.expect("a second request");
            });
            let client = prior();
            let first = client.get(&url).send().await.expect("a head");
            let first = match second {
                Second::Beside => Some(first),
                _ => {
                    assert_eq!(first.text().await.expect("all of it"), "first");
                    None
                }
            };
            let asked = match second {
                Second::WithBody => client.put(&url).body("body"),
                _ => client.get(&url),
            };
            let said = asked.send().await;
            let counts = client.pool().counts();
            if second == Second::Alone {
                assert_eq!(said.expect("a head").text().await.expect("text"), "1");
                assert_eq!((counts.connects, counts.retries), (2, 1), "{counts:?}");
            } else {
                assert!(matches!(said, Err(Error::Lost(_))), "{second:?}: {said:?}");
                assert_eq!((counts.connects, counts.retries), (1, 0), "{counts:?}");
            }
            drop(first);
            close(client).await;
            end_of(serving).await;
        });
    }
}

#[test]
fn p053_a_peer_that_answers_no_ping_is_given_up() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| async move {
            let mut frames = Frames::greet(peer, 100).await.expect("a preface");
            frames.is_deaf = true;
            let first = frames.request().await.expect("a request");
            frames.head(first).await;
            frames.end().await;
        });
        let time = Duration::from_millis(100);
        let builder = patient().http2_prior_knowledge().keep_alive(time, time);
        let client = builder.build().expect("a client");
        let begun = quoit::time::Instant::now();
        let mut ended = Vec::new();
        for asking in ask(&client, &url, 3) {
            ended.push(asking.await.expect("no panic"));
        }
        if Kernel::here() == Kernel::Simulated {
            assert_eq!(
                begun.elapsed(),
                2 * time,
                "an interval, and a wait for the answer"
            );
        }
        for ended in ended {
            assert!(matches!(ended, Err(Error::PeerSilent)), "{ended:?}");
        }
        until(|| client.pool().counts().connections == 0).await;
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn a_peer_that_answers_pings_is_left_alone() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| async move {
            let mut frames = Frames::greet(peer, 100).await.expect("a preface");
            let first = frames.request().await.expect("a request");
            // Pings are answered while this waits, for many times the limit.
            let second = frames.request().await.expect("a request");
            frames.answer(first, "late").await;
            frames.answer(second, "soon").await;
            frames.serve().await;
        });
        let interval = Duration::from_millis(20);
        let limit = Duration::from_secs(30);
        let builder = patient()
            .http2_prior_knowledge()
            .keep_alive(interval, limit);
        let client = builder.build().expect("a client");
        let late = ask(&client, &url, 1).remove(0);
        let pause = quoit::time::sleep(Duration::from_millis(300));
        pause.await.expect("nobody cancels");
        assert_eq!(text(&client, &url).await.expect("an answer"), "soon");
        assert_eq!(late.await.expect("no panic").expect("an answer"), "late");
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn a_time_may_be_as_long_as_can_be() {
    const EVER: Duration = Duration::MAX;
    let soon = Duration::from_millis(1);
    for (interval, limit) in [(EVER, EVER), (EVER, soon), (soon, EVER)] {
        conform(move |_| async move {
            let host = Host::new();
            let url = host.url();
            let serving = host.serve(move |_, peer| async move {
                let mut frames = Frames::greet(peer, 100).await.expect("a preface");
                let stream = frames.request().await.expect("a request");
                if interval != EVER {
                    frames.ping().await.expect("a ping");
                }
                frames.answer(stream, "well").await;
                frames.serve().await;
            });
            let client = Client::builder().http2_prior_knowledge();
            let client = client.keep_alive(interval, limit).idle_timeout(EVER);
            let client = client.pool_timeout(EVER).connect_timeout(EVER);
            let client = client.timeout(EVER).build().expect("a client");
            let answer = text(&client, &url).await.expect("an answer");
            assert_eq!(answer, "well");
            close(client).await;
            end_of(serving).await;
        });
    }
}

#[test]
fn p054_a_pool_that_is_closed_ends_streams_and_those_who_wait_for_one() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let seen = Rc::new(Cell::new(0));
        let noted = Rc::clone(&seen);
        let serving = host.serve(move |_, peer| {
            let seen = Rc::clone(&noted);
            async move {
                let mut frames = Frames::greet(peer, 2).await.expect("a preface");
                let first = frames.request().await.expect("a request");
                frames.head(first).await;
                seen.set(1);
                frames.request().await.expect("a request");
                seen.set(2);
                frames.end().await;
            }
        });
        let client = prior();
        let asking = ask(&client, &url, 4);
        until(|| seen.get() == 2).await;
        client.pool().close().await.expect("nobody cancels");
        assert_eq!(client.pool().counts().connections, 0);
        for asking in asking {
            let ended = asking.await.expect("no panic");
            assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
        }
        end_of(serving).await;
    });
}

#[test]
fn a_body_goes_out_in_pieces_and_its_length_is_kept() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| async move {
            let mut frames = Frames::greet(peer, 100).await.expect("a preface");
            while let Some(stream) = frames.request().await {
                let mut size = 0;
                loop {
                    let frame = frames.next().await.expect("a body");
                    assert!(
                        frame.kind != HEADERS && frame.kind != RST_STREAM,
                        "{frame:?}"
                    );
                    if frame.kind == DATA {
                        size += frame.payload.len();
                        if frame.ends_stream() {
                            break;
                        }
                    }
                }
                frames.answer(stream, &size.to_string()).await;
            }
        });
        let client = prior();
        let answer = client.post(&url).body(vec![1; 30_000]).send().await;
        assert_eq!(
            answer.expect("an answer").text().await.expect("all of it"),
            "30000"
        );
        let (sender, pieces) = body::channel(2);
        let making = spawn(async move {
            for _ in 0..10 {
                sender.send(vec![2; 1000]).await.expect("somebody takes it");
            }
        });
        let answer = client.post(&url).body(pieces).send().await;
        assert_eq!(
            answer.expect("an answer").text().await.expect("all of it"),
            "10000"
        );
        making.await.expect("it ends");
        close(client).await;
        end_of(serving).await;
    });
}

/// The peer allows more streams while nobody waits for one: whoever comes next is not to wait for the first to end.
#[test]
fn p047_a_limit_that_was_raised_while_nobody_waited_counts() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let is_allowed = Rc::new(Cell::new(false));
        let noted = Rc::clone(&is_allowed);
        let serving = host.serve(move |_, peer| {
            let is_allowed = Rc::clone(&noted);
            async move {
                let mut frames = Frames::greet(peer, 1).await.expect("a preface");
                let first = frames.request().await.expect("a request");
                assert_eq!(frames.requests_beyond().await, 0);
                frames.allow(100).await;
                // The client has answered what came after that.
                assert_eq!(frames.requests_beyond().await, 0);
                is_allowed.set(true);
                let second = frames.request().await.expect("another request");
                frames.answer(second, "second").await;
                frames.answer(first, "first").await;
                frames.end().await;
            }
        });
        let builder = patient().http2_prior_knowledge();
        let client = builder.pool_timeout(Duration::from_secs(30)).build();
        let client = client.expect("a client");
        let first = ask(&client, &url, 1);
        until(|| is_allowed.get()).await;
        assert_eq!(text(&client, &url).await.expect("an answer"), "second");
        for asking in first {
            asking.await.expect("no panic").expect("an answer");
        }
        close(client).await;
        end_of(serving).await;
    });
}

/// The answer was read to its end, and the body of its request goes on: the connection is not idle.
#[test]
fn p043_a_connection_is_active_until_the_body_of_its_request_was_sent() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let heard = Rc::new(Cell::new(0));
        let noted = Rc::clone(&heard);
        let serving = host.serve(move |_, peer| {
            let heard = Rc::clone(&noted);
            async move {
                let mut frames = Frames::greet(peer, 100).await.expect("a preface");
                let stream = frames.request().await.expect("a request");
                frames.answer(stream, "early").await;
                while let Some(frame) = frames.next().await {
                    if frame.kind == DATA {
                        heard.set(heard.get() + frame.payload.len());
                    }
                    if frame.kind == RST_STREAM || frame.ends_stream() {
                        break;
                    }
                }
                frames.end().await;
            }
        });
        let builder = patient().http2_prior_knowledge();
        let client = builder.idle_timeout(Duration::ZERO).build();
        let client = client.expect("a client");
        let (sender, pieces) = body::channel(1);
        let mut early = client.post(&url).body(pieces).send().await.expect("a head");
        while early.chunk().await.expect("a piece").is_some() {}
        for sent in 1..=3 {
            sender.send(bytes(1_000, 1)).await.expect("it is wanted");
            until(|| heard.get() == sent * 1_000).await;
        }
        drop(sender);
        drop(early);
        until(|| client.pool().counts().connections == 0).await;
        assert_eq!(client.pool().counts().expiries, 1);
        end_of(serving).await;
    });
}
