//! HTTP/1.1: connections that are used again, expire, or become something else.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use http::{Method, StatusCode, Version};
use quoit::spawn;
use quoit::sync::Event;
use quoit::time::sleep;
use quoit_net::http::body;
use quoit_pool::http::{Body, Error};
use tests::{Kernel, conform, descriptors, in_child, listening, on_ring};

use crate::peer::{Host, end_of, trusting};
use crate::{alone, close, patient, text, until};

#[test]
fn p040_two_requests_in_turn_share_a_connection() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| peer.count());
        let client = patient().build().expect("a client");
        for number in 0..5 {
            assert_eq!(
                text(&client, &url).await.expect("an answer"),
                number.to_string()
            );
        }
        let counts = client.pool().counts();
        assert_eq!((counts.connects, counts.reuses), (1, 4), "{counts:?}");
        close(client).await;
        end_of(serving).await;
    });
}

/// Whoever has read an answer gives its connection back with that: nothing else has to run first, so the next
/// request need not wait for it, nor connect.
#[test]
fn p040_a_connection_is_free_as_soon_as_its_answer_was_read() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| peer.count());
        let client = patient().build().expect("a client");
        for number in 0..3 {
            let answer = text(&client, &url).await.expect("an answer");
            assert_eq!(answer, number.to_string());
            let counts = client.pool().counts();
            assert_eq!((counts.idle, counts.connections), (1, 1), "{counts:?}");
        }
        close(client).await;
        end_of(serving).await;
    });
}

/// Without a length, the end of the connection is that of the answer: over TLS one that was said, since anybody on
/// the way can make the other (RFC 9112, section 9.8).
#[test]
fn an_answer_that_ends_with_its_connection_is_whole_if_the_peer_says_so() {
    for (is_encrypted, says_goodbye) in [(false, true), (true, true), (true, false)] {
        conform(move |_| async move {
            let host = if is_encrypted {
                Host::encrypted(&[b"http/1.1"])
            } else {
                Host::new()
            };
            let builder = patient().tls(trusting());
            let builder = builder.addresses("site.test", &[host.address()]);
            let client = builder.build().expect("a client");
            let url = host.url();
            let serving = host.serve(move |_, mut peer| async move {
                peer.head().await.expect("a request");
                peer.say("HTTP/1.1 200 OK\r\n\r\nhalf of").await;
                if says_goodbye {
                    peer.goodbye().await;
                }
            });
            match text(&client, &url).await {
                Ok(text) if says_goodbye => assert_eq!(text, "half of"),
                Err(Error::Lost(_)) if !says_goodbye => {}
                other => panic!("{other:?}, {is_encrypted}, {says_goodbye}"),
            }
            close(client).await;
            end_of(serving).await;
        });
    }
}

/// What has a length needs no goodbye to be whole.
#[test]
fn an_answer_with_a_length_is_whole_without_a_goodbye() {
    let chunked = "transfer-encoding: chunked\r\n\r\n5\r\nwhole\r\n0\r\n\r\n";
    for rest in ["content-length: 5\r\n\r\nwhole", chunked] {
        conform(move |_| async move {
            let host = Host::encrypted(&[b"http/1.1"]);
            let builder = patient().tls(trusting());
            let builder = builder.addresses("site.test", &[host.address()]);
            let client = builder.build().expect("a client");
            let url = host.url();
            let serving = host.serve(move |_, mut peer| async move {
                peer.head().await.expect("a request");
                peer.say(format!("HTTP/1.1 200 OK\r\n{rest}")).await;
            });
            for _ in 0..3 {
                let text = text(&client, &url).await;
                assert_eq!(text.expect("it is whole"), "whole");
            }
            close(client).await;
            end_of(serving).await;
        });
    }
}

#[test]
fn the_length_of_a_body_stays_what_it_was_while_it_is_read() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, mut peer| async move {
            peer.head().await.expect("a request");
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nabcde")
                .await;
        });
        let client = patient().build().expect("a client");
        let mut answer = client.get(&url).send().await.expect("an answer");
        assert_eq!(answer.content_length(), Some(5));
        while answer.chunk().await.expect("all of it").is_some() {
            assert_eq!(answer.content_length(), Some(5));
        }
        assert_eq!(answer.content_length(), Some(5));
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn p040_a_short_rest_that_is_there_is_taken_off_the_connection() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| peer.count());
        let client = patient().build().expect("a client");
        for _ in 0..3 {
            let answer = client.get(&url).send().await.expect("an answer");
            assert_eq!(answer.status(), StatusCode::OK);
            drop(answer);
        }
        let counts = client.pool().counts();
        if Kernel::here().counts_exactly() {
            assert_eq!(counts.connects, 1, "{counts:?}");
        }
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn p040_an_answer_that_is_long_or_late_costs_its_connection() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let heads = [
            "HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhalf",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ];
        let serving = host.serve(move |number, mut peer| async move {
            peer.head().await;
            match heads.get(number) {
                Some(head) => {
                    peer.say(head).await;
                    peer.end().await;
                }
                None => peer.answer("whole").await,
            }
        });
        let client = patient().build().expect("a client");
        for _ in heads {
            drop(client.get(&url).send().await.expect("an answer"));
        }
        assert_eq!(text(&client, &url).await.expect("an answer"), "whole");
        let counts = client.pool().counts();
        assert_eq!(counts.connects, 3, "{counts:?}");
        close(client).await;
        end_of(serving).await;
    });
}

/// The server has answered, and reads no more of a request that is still going out: nothing comes behind that.
#[test]
fn p040_an_answer_to_a_request_that_is_not_read_costs_its_connection() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let is_over = Rc::new(Event::new());
        let over = Rc::clone(&is_over);
        let serving = host.serve(move |number, mut peer| {
            let over = Rc::clone(&over);
            async move {
                if number > 0 {
                    return peer.count().await;
                }
                peer.head().await.expect("a request");
                peer.answer("enough").await;
                over.wait().await.expect("nobody cancels");
                peer.end().await;
            }
        });
        let client = patient().build().expect("a client");
        let body = vec![7; 32 << 20];
        let answer = client.post(&url).body(body).send().await.expect("a head");
        assert_eq!(answer.text().await.expect("all of it"), "enough");
        assert_eq!(text(&client, &url).await.expect("an answer"), "0");
        until(|| client.pool().counts().connections == 1).await;
        is_over.set();
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn p044_an_idle_timeout_of_zero_closes_at_once() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = spawn(async move {
            let mut peer = host.accept().await;
            peer.head().await.expect("a request");
            peer.answer("once").await;
            peer.end().await;
        });
        let client = patient().idle_timeout(Duration::ZERO).build();
        let client = client.expect("a client");
        assert_eq!(text(&client, &url).await.expect("an answer"), "once");
        serving.await.expect("the connection ends");
        until(|| client.pool().counts().connections == 0).await;
        assert_eq!(client.pool().counts().expiries, 1);
    });
}

#[test]
fn p044_a_connection_expires_at_its_time_and_not_if_it_is_used_before() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = spawn(async move {
            let peer = host.accept().await;
            peer.count().await;
        });
        let client = patient().idle_timeout(Duration::from_millis(50)).build();
        let client = client.expect("a client");
        let pause = if Kernel::here().counts_exactly() && Kernel::here().is_simulated() {
            Duration::from_millis(49)
        } else {
            Duration::from_millis(5)
        };
        let mut used = 0;
        for _ in 0..3 {
            if client.pool().counts().expiries > 0 {
                // A machine under load has taken that long; the simulated one has not.
                break;
            }
            text(&client, &url).await.expect("an answer");
            used += 1;
            if used < 3 {
                sleep(pause).await.expect("nobody cancels");
            }
        }
        if Kernel::here().is_simulated() && Kernel::here().counts_exactly() {
            assert_eq!((used, client.pool().counts().connects), (3, 1));
        }
        let unused = quoit::time::Instant::now();
        serving.await.expect("the connection ends");
        if Kernel::here() == Kernel::Simulated {
            assert_eq!(unused.elapsed(), Duration::from_millis(50));
        }
        until(|| client.pool().counts().connections == 0).await;
        assert_eq!(client.pool().counts().expiries, 1);
    });
}

#[test]
fn p044_without_a_timeout_a_connection_stays() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| peer.count());
        let client = patient().build().expect("a client");
        text(&client, &url).await.expect("an answer");
        if Kernel::here().is_simulated() {
            sleep(Duration::from_secs(100_000))
                .await
                .expect("nobody cancels");
        }
        assert_eq!(text(&client, &url).await.expect("an answer"), "1");
        assert_eq!(client.pool().counts().connects, 1);
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn p044_a_pool_that_keeps_none_closes_each() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| peer.count());
        let client = patient().max_idle(0).build().expect("a client");
        for _ in 0..2 {
            assert_eq!(text(&client, &url).await.expect("an answer"), "0");
            until(|| client.pool().counts().connections == 0).await;
        }
        let counts = client.pool().counts();
        assert_eq!((counts.connects, counts.evictions), (2, 2), "{counts:?}");
        end_of(serving).await;
    });
}

#[test]
fn p052_a_request_that_meets_a_closed_connection_is_sent_again_once() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let asked = Rc::new(Cell::new(0));
        let counted = Rc::clone(&asked);
        let serving = host.serve(move |number, mut peer| {
            let asked = Rc::clone(&counted);
            async move {
                peer.head().await.expect("a request");
                asked.set(asked.get() + 1);
                peer.answer("first").await;
                if number == 0 {
                    // The next request is read, and then there is nobody.
                    peer.head().await.expect("a second request");
                    asked.set(asked.get() + 1);
                    return;
                }
                peer.end().await;
            }
        });
        let client = patient().build().expect("a client");
        for _ in 0..2 {
            assert_eq!(text(&client, &url).await.expect("an answer"), "first");
        }
        let counts = client.pool().counts();
        assert_eq!((counts.connects, counts.retries), (2, 1), "{counts:?}");
        assert_eq!(asked.get(), 3, "the second was sent twice");
        close(client).await;
        end_of(serving).await;
    });
}

/// A server that went away without a word leaves all its connections behind: one is tried, and then none of them.
#[test]
fn p052_a_request_is_sent_again_once_however_many_connections_have_died() {
    const DEAD: usize = 6;
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let asked = Rc::new(Cell::new(0));
        let all_ask = Rc::new(Event::new());
        let (counted, may_answer) = (Rc::clone(&asked), Rc::clone(&all_ask));
        let serving = host.serve(move |number, mut peer| {
            let (asked, all_ask) = (Rc::clone(&counted), Rc::clone(&may_answer));
            async move {
                if number >= DEAD {
                    return peer.count().await;
                }
                peer.head().await.expect("a request");
                asked.set(asked.get() + 1);
                all_ask.wait().await.expect("nobody cancels");
                peer.answer("first").await;
                if peer.head().await.is_some() {
                    asked.set(asked.get() + 1);
                }
            }
        });
        let client = patient().build().expect("a client");
        let ask = |_| {
            let (client, url) = (client.clone(), url.clone());
            spawn(async move { text(&client, &url).await })
        };
        let asking: Vec<_> = (0..DEAD).map(ask).collect();
        until(|| asked.get() == DEAD).await;
        all_ask.set();
        for asking in asking {
            let first = asking.await.expect("no panic").expect("an answer");
            assert_eq!(first, "first");
        }
        until(|| client.pool().counts().idle == DEAD).await;
        assert_eq!(text(&client, &url).await.expect("an answer"), "0");
        assert_eq!(asked.get(), DEAD + 1, "one that was dead was asked");
        let counts = client.pool().counts();
        assert_eq!((counts.connects, counts.retries), (7, 1), "{counts:?}");
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn p052_a_request_whose_body_had_begun_is_not_sent_again() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(move |_, mut peer| async move {
            peer.head().await.expect("a request");
            peer.answer("first").await;
            peer.head().await.expect("a second request");
            peer.exactly(4).await.expect("its body");
        });
        let client = patient().build().expect("a client");
        text(&client, &url).await.expect("an answer");
        let second = client.post(&url).body("body").send().await;
        assert!(matches!(second, Err(Error::Lost(_))), "{second:?}");
        let counts = client.pool().counts();
        assert_eq!((counts.connects, counts.retries), (1, 0), "{counts:?}");
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn p054_a_pool_that_is_closed_ends_what_is_under_way() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|number, mut peer| async move {
            peer.head().await;
            if number == 1 {
                peer.say("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
                    .await;
            }
            peer.end().await;
        });
        let client = patient().max_connections(2).build().expect("a client");
        let mut asking = Vec::new();
        for _ in 0..3 {
            let (client, url) = (client.clone(), url.clone());
            asking.push(spawn(async move { text(&client, &url).await }));
        }
        until(|| client.pool().counts().connects == 2).await;
        client.pool().close().await.expect("nobody cancels");
        assert_eq!(client.pool().counts().connections, 0);
        for asking in asking {
            let ended = asking.await.expect("no panic");
            assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
        }
        let late = text(&client, &url).await;
        assert!(matches!(late, Err(Error::Closed)), "{late:?}");
        // And once more, which has nothing left to do.
        close(client).await;
        end_of(serving).await;
    });
}

/// Counted in a process of its own, where nobody else opens any.
#[test]
fn p054_descriptors_are_closed_when_the_close_returns() {
    let name = "http1::p054_descriptors_are_closed_when_the_close_returns";
    in_child(name, || {
        on_ring(|_| async {
            let (listener, address) = listening();
            let url = format!("http://{address}/");
            let client = patient().build().expect("a client");
            let before = descriptors();
            let asking: Vec<_> = (0..3)
                .map(|_| {
                    let (client, url) = (client.clone(), url.clone());
                    spawn(async move { text(&client, &url).await })
                })
                .collect();
            until(|| client.pool().counts().connects == 3).await;
            // Nobody answers, and nobody closes anything on this side.
            let accepted: Vec<_> = (0..3).map(|_| listener.accept()).collect();
            assert_eq!(descriptors(), before + 6);
            client.pool().close().await.expect("nobody cancels");
            assert_eq!(descriptors(), before + 3);
            for asking in asking {
                let ended = asking.await.expect("no panic");
                assert!(matches!(ended, Err(Error::Closed)), "{ended:?}");
            }
            drop(accepted);
        });
    });
}

#[test]
fn a_pool_that_is_dropped_closes_its_connections() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = spawn(async move {
            let peer = host.accept().await;
            peer.count().await;
        });
        let client = patient().build().expect("a client");
        text(&client, &url).await.expect("an answer");
        drop(client);
        serving.await.expect("the connection ends");
        alone().await;
    });
}

#[test]
fn p055_an_upgraded_stream_comes_with_what_was_read_already() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = spawn(async move {
            let mut peer = host.accept().await;
            let head = peer.head().await.expect("a request");
            assert!(head.contains("upgrade: echo\r\n"), "{head}");
            let head =
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n";
            peer.say(format!("{head}early")).await;
            let said = peer.exactly(4).await.expect("what the client says");
            peer.say(said).await;
            peer.end().await;
        });
        let client = patient().build().expect("a client");
        let request = client.get(&url).header("connection", "upgrade");
        let answer = request.header("upgrade", "echo").send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status(), StatusCode::SWITCHING_PROTOCOLS);
        let stream = answer.upgrade().await.expect("a stream");
        until(|| client.pool().counts().connections == 0).await;
        // What becomes of the pool is nothing to the stream.
        close(client).await;
        stream.write_all(b"ping").await.expect("connected");
        let mut came = Vec::new();
        while came.len() < 9 {
            let bytes = stream.recv().await.expect("connected");
            came.extend_from_slice(&bytes.expect("no end"));
        }
        assert_eq!(came, b"earlyping");
        drop(stream);
        serving.await.expect("the connection ends");
    });
}

#[test]
fn p055_an_answer_that_upgrades_nothing_leaves_the_connection_to_the_pool() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| peer.count());
        let client = patient().build().expect("a client");
        for _ in 0..2 {
            let request = client.get(&url).header("connection", "upgrade");
            let answer = request.header("upgrade", "echo").send().await;
            let refused = answer.expect("an answer").upgrade().await;
            let refused = refused.expect_err("nothing was upgraded").to_string();
            assert!(refused.contains("200"), "{refused}");
        }
        close(client).await;
        end_of(serving).await;
    });
}

/// Whatever the peer says before its answer is none, though it comes in the same piece, or before a 101.
#[test]
fn interim_answers_are_passed_over() {
    const INTERIM: &str =
        "HTTP/1.1 103 Early Hints\r\nlink: </style.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n";
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, mut peer| async move {
            let ends = [
                "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\ndone",
                "HTTP/1.1 204 No Content\r\n\r\n",
                "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: echo\r\n\r\n",
            ];
            for (turn, end) in ends.iter().enumerate() {
                peer.head().await.expect("a request");
                match turn {
                    0 => {
                        peer.say(INTERIM).await;
                        peer.say(end).await;
                    }
                    _ => drop(peer.say(format!("{INTERIM}{end}")).await),
                }
            }
            let said = peer.exactly(4).await.expect("what the client says");
            peer.say(said).await;
            peer.end().await;
        });
        let client = patient().build().expect("a client");
        let answer = client.get(&url).send().await.expect("an answer");
        assert_eq!(
            (answer.status(), answer.headers().len()),
            (StatusCode::OK, 1)
        );
        assert_eq!(answer.text().await.expect("all of it"), "done");
        let answer = client.get(&url).send().await.expect("an answer");
        assert_eq!(answer.status(), StatusCode::NO_CONTENT);
        drop(answer);
        let request = client.get(&url).header("connection", "upgrade");
        let answer = request.header("upgrade", "echo").send().await;
        let stream = answer.expect("an answer").upgrade().await;
        let stream = stream.expect("a stream");
        assert_eq!(client.pool().counts().connects, 1);
        close(client).await;
        stream.write_all(b"ping").await.expect("connected");
        let came = stream.recv().await.expect("connected").expect("no end");
        assert_eq!(came, b"ping"[..]);
        drop(stream);
        end_of(serving).await;
    });
}

#[test]
fn bodies_are_sent_whole_or_in_pieces() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = spawn(async move {
            let mut peer = host.accept().await;
            let head = peer.head().await.expect("a request");
            assert!(head.contains("content-length: 5\r\n"), "{head}");
            assert_eq!(peer.exactly(5).await.expect("a body"), b"whole");
            peer.answer("one").await;
            let head = peer.head().await.expect("a request");
            assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
            let chunks = b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n";
            assert_eq!(peer.exactly(chunks.len()).await.expect("a body"), chunks);
            peer.answer("two").await;
            peer.end().await;
        });
        let client = patient().build().expect("a client");
        let answer = client.post(&url).body("whole").send().await;
        let answer = answer.expect("an answer").text().await;
        assert_eq!(answer.expect("all of it"), "one");
        let (sender, pieces) = body::channel(1);
        let making = spawn(async move {
            for piece in ["one", "two"] {
                sender.send(piece).await.expect("somebody takes it");
            }
        });
        let answer = client.put(&url).body(pieces).send().await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.version(), Version::HTTP_11);
        assert_eq!(answer.text().await.expect("all of it"), "two");
        making.await.expect("it ends");
        assert_eq!(client.pool().counts().connects, 1);
        close(client).await;
        serving.await.expect("it ends");
    });
}

/// A server may answer with 411 where it expects content and is not told how much there is.
#[test]
fn a_request_without_content_says_so_where_some_is_expected() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, mut peer| async move {
            while let Some(head) = peer.head().await {
                let told = head
                    .lines()
                    .filter(|line| line.starts_with("content-length"));
                peer.answer(&told.collect::<Vec<_>>().join(" ")).await;
            }
        });
        let client = patient().build().expect("a client");
        let none = "content-length: 0";
        for (method, told) in [
            (Method::POST, none),
            (Method::PUT, none),
            (Method::PATCH, none),
            (Method::GET, ""),
            (Method::DELETE, ""),
            (Method::OPTIONS, ""),
        ] {
            for body in [Body::default(), Body::from("")] {
                let request = client.request(method.clone(), &url).body(body);
                let answer = request.send().await.expect("an answer");
                assert_eq!(answer.text().await.expect("all"), told, "{method}");
            }
        }
        let said = client.post(&url).header("content-length", "0").send().await;
        let said = said.expect("an answer").text().await;
        assert_eq!(said.expect("all"), none, "it is said once");
        close(client).await;
        end_of(serving).await;
    });
}

/// A request takes as long as it takes, unless somebody says otherwise: so long may a server read none of it.
#[test]
fn a_server_may_take_its_time_before_it_reads_a_body() {
    const LENGTH: usize = 16 << 20;
    conform(|_| async {
        if !Kernel::here().is_simulated() {
            // Nobody waits for so long.
            return;
        }
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, mut peer| async move {
            peer.head().await.expect("a request");
            sleep(Duration::from_secs(600))
                .await
                .expect("nobody cancels");
            peer.exactly(LENGTH).await.expect("all of it");
            peer.answer("taken").await;
            peer.end().await;
        });
        let client = patient().build().expect("a client");
        let answer = client.post(&url).body(vec![7; LENGTH]).send().await;
        let answer = answer.expect("an answer").text().await;
        assert_eq!(answer.expect("all of it"), "taken");
        let late = client.post(&url).body(vec![7; LENGTH]);
        let late = late.timeout(Duration::from_secs(100)).send().await;
        assert!(matches!(late, Err(Error::TimedOut)), "{late:?}");
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn a_body_that_fails_or_panics_is_its_requests_failure() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|number, mut peer| async move {
            peer.head().await;
            match number {
                0 | 1 => peer.end().await,
                _ => peer.answer("well").await,
            }
        });
        let client = patient().build().expect("a client");
        let (sender, pieces) = body::channel(1);
        sender.fail("no more of it");
        let failed = client.put(&url).body(pieces).send().await;
        let failed = failed.expect_err("its body failed").to_string();
        assert!(failed.contains("no more of it"), "{failed}");

        let panicking = Body::new(Panics);
        let failed = client.put(&url).body(panicking).send().await;
        let failed = failed.expect_err("its body panicked").to_string();
        assert!(failed.contains("as it should"), "{failed}");

        assert_eq!(text(&client, &url).await.expect("an answer"), "well");
        close(client).await;
        end_of(serving).await;
    });
}

struct Panics;

impl http_body::Body for Panics {
    type Data = bytes::Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, std::io::Error>>> {
        panic!("as it should")
    }
}

/// The answer was read to its end, and the body of its request goes on: that may take long, and nobody waits for it.
#[test]
fn a_connection_whose_request_goes_on_holds_nobody_up() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|number, mut peer| async move {
            if number > 0 {
                return peer.count().await;
            }
            peer.head().await;
            peer.answer("early").await;
            peer.end().await;
        });
        let client = patient().pool_timeout(Duration::from_secs(30)).build();
        let client = client.expect("a client");
        let (sender, pieces) = body::channel(1);
        let mut early = client.post(&url).body(pieces).send().await.expect("a head");
        while early.chunk().await.expect("a piece").is_some() {}
        assert_eq!(text(&client, &url).await.expect("an answer"), "0");
        drop((sender, early));
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn a_body_that_others_read_has_the_time_of_its_request() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, mut peer| async move {
            peer.head().await;
            peer.say("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf")
                .await;
            peer.end().await;
        });
        let client = patient().build().expect("a client");
        let request = client.get(&url).timeout(Duration::from_millis(200));
        let mut body = request.send().await.expect("a head").into_body();
        let failed = loop {
            let frame = std::future::poll_fn(|cx| {
                http_body::Body::poll_frame(std::pin::Pin::new(&mut body), cx)
            });
            match frame.await.expect("it does not end well") {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert!(matches!(failed, Error::TimedOut), "{failed:?}");
        until(|| client.pool().counts().connections == 0).await;
        close(client).await;
        end_of(serving).await;
    });
}

/// More than was asked for: nobody takes it for the answer to the next request.
#[test]
fn what_a_server_says_unasked_is_no_answer() {
    let table = [
        ("GET", "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nasked"),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\naskedHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong",
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong",
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong",
        ),
        // It answers as if it had been asked for a body.
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nwrong"),
    ];
    conform(move |_| async move {
        for (method, first) in table {
            for is_read in [true, false] {
                let host = Host::new();
                let url = host.url();
                let serving = host.serve(move |number, mut peer| async move {
                    if number > 0 {
                        return peer.count().await;
                    }
                    peer.head().await;
                    peer.say(first).await;
                    peer.end().await;
                });
                let client = patient().build().expect("a client");
                let method = http::Method::from_bytes(method.as_bytes()).expect("one");
                let answer = client.request(method, &url).send().await.expect("a head");
                if is_read {
                    answer.bytes().await.expect("all of it");
                } else {
                    drop(answer);
                }
                // Short answers may come in pieces: then the rest is there when the next is asked.
                until(|| client.pool().counts().connections == 0).await;
                assert_eq!(
                    text(&client, &url).await.expect("an answer"),
                    "0",
                    "{first}"
                );
                close(client).await;
                end_of(serving).await;
            }
        }
    });
}

/// A body that says how long it is, and not that it has ended.
struct Exact(Option<bytes::Bytes>);

impl http_body::Body for Exact {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        std::task::Poll::Ready(self.0.take().map(|bytes| Ok(http_body::Frame::data(bytes))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        http_body::SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

#[test]
fn a_body_of_known_length_that_does_not_say_its_end_costs_no_connection() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, mut peer| async move {
            while let Some(head) = peer.head().await {
                assert!(head.contains("content-length: 4"), "{head}");
                peer.exactly(4).await.expect("its body");
                peer.answer("taken").await;
            }
        });
        let client = patient().build().expect("a client");
        for is_read in [true, false, true] {
            let body = Body::new(Exact(Some(bytes::Bytes::from_static(b"body"))));
            let answer = client.post(&url).body(body).send().await.expect("a head");
            if is_read {
                assert_eq!(answer.text().await.expect("all of it"), "taken");
            }
        }
        if Kernel::here().counts_exactly() {
            assert_eq!(client.pool().counts().connects, 1);
        }
        close(client).await;
        end_of(serving).await;
    });
}
