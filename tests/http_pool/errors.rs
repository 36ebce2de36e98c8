//! What goes wrong before there is an answer: each says what it is.

use std::time::Duration;

use quoit::{spawn, time};
use quoit_net::http::body;
use quoit_pool::http::Error;
use tests::{conform, full_address, on_ring, refusing_address};

use crate::peer::{Host, end_of, trusting};
use crate::{close, patient, text, until};

#[test]
fn p051_nobody_listens() {
    conform(|_| async {
        let address = refusing_address().await;
        let client = patient().build().expect("a client");
        let refused = text(&client, &format!("http://{address}/")).await;
        match refused {
            Err(Error::Connect { origin, cause }) => {
                assert_eq!(origin, format!("http://{address}"));
                assert_eq!(cause.kind(), std::io::ErrorKind::ConnectionRefused);
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(client.pool().counts().failed_connects, 1);
        close(client).await;
    });
}

/// No resolver knows this one (RFC 6761, section 6.4), and asking takes a thread: on the real ring alone.
#[test]
fn p051_nobody_knows_the_name() {
    on_ring(|_| async {
        let client = patient().build().expect("a client");
        let unknown = text(&client, "http://nobody.invalid/").await;
        assert!(
            matches!(&unknown, Err(Error::Name { host, .. }) if host == "nobody.invalid"),
            "{unknown:?}"
        );
        close(client).await;
    });
}

#[test]
fn p051_the_server_is_somebody_else() {
    conform(|_| async {
        let host = Host::encrypted(&[b"http/1.1"]);
        let address = host.address();
        let serving = host.serve(|_, peer| peer.count());
        let builder = patient().tls(trusting());
        let builder = builder.addresses("other.test", &[address]);
        let builder = builder.addresses("site.test", &[address]);
        let client = builder.build().expect("a client");
        let wrong = text(&client, "https://other.test/").await;
        match &wrong {
            Err(Error::Tls { origin, cause }) => {
                assert_eq!(origin, "https://other.test");
                let cause = cause.to_string();
                assert!(cause.contains("not valid for name"), "{cause}");
            }
            other => panic!("{other:?}"),
        }
        let right = text(&client, "https://site.test/").await;
        assert_eq!(right.expect("an answer"), "0");
        assert_eq!(client.pool().counts().connections, 1);
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn p051_the_peer_speaks_something_else() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| async move {
            peer.say("SSH-2.0-somebody\r\n\r\n").await;
            peer.end().await;
        });
        let client = patient().build().expect("a client");
        let strange = text(&client, &url).await;
        assert!(matches!(strange, Err(Error::Protocol(_))), "{strange:?}");
        let builder = patient().http2_prior_knowledge();
        let strange = text(&builder.build().expect("a client"), &url).await;
        assert!(
            matches!(strange, Err(Error::Protocol(_) | Error::Lost(_))),
            "{strange:?}"
        );
        close(client).await;
        end_of(serving).await;
    });
}

/// The head was right, and what follows is no body: the peer has not gone, and is not understood.
#[test]
fn p051_the_peer_says_a_body_that_is_none() {
    for said in [
        "zz\r\n",
        "\r\n",
        "2\r\nabc\r\n",
        "1 2\r\na\r\n",
        "0\r\na b: c\r\n\r\n",
    ] {
        conform(move |_| async move {
            let host = Host::new();
            let url = host.url();
            let serving = host.serve(move |_, mut peer| async move {
                peer.head().await.expect("a request");
                let head = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
                peer.say(format!("{head}{said}")).await;
                peer.end().await;
            });
            let client = patient().build().expect("a client");
            let failed = text(&client, &url).await;
            assert!(
                matches!(failed, Err(Error::Protocol(_))),
                "{said:?}: {failed:?}"
            );
            until(|| client.pool().counts().connections == 0).await;
            close(client).await;
            end_of(serving).await;
        });
    }
}

#[test]
fn p051_the_peer_says_nothing_and_goes() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, mut peer| async move {
            peer.head().await;
        });
        let client = patient().build().expect("a client");
        let lost = text(&client, &url).await;
        assert!(matches!(lost, Err(Error::Lost(_))), "{lost:?}");
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn a_connect_has_its_time() {
    conform(|_| async {
        let (address, queue) = full_address().await;
        let builder = patient().connect_timeout(Duration::from_millis(100));
        let client = builder.build().expect("a client");
        let late = text(&client, &format!("http://{address}/")).await;
        match late {
            Err(Error::Connect { cause, .. }) => {
                assert_eq!(cause.kind(), std::io::ErrorKind::TimedOut);
            }
            other => panic!("{other:?}"),
        }
        close(client).await;
        drop(queue);
    });
}

/// Happy eyeballs: the second address is tried beside the first, which neither answers nor fails, and the
/// first is given up; one that fails is followed by the next at once.
#[test]
fn the_first_address_that_answers_is_taken() {
    conform(|_| async {
        let (silent, queue) = full_address().await;
        let refusing = refusing_address().await;
        let host = Host::new();
        let good = host.address();
        let serving = host.serve(|_, peer| peer.count());
        let builder = patient().addresses("slow.test", &[silent, good]);
        let builder = builder.addresses("quick.test", &[refusing, good, silent]);
        let client = builder.build().expect("a client");

        let begun = time::Instant::now();
        assert_eq!(
            text(&client, "http://slow.test/").await.expect("an answer"),
            "0"
        );
        assert!(
            begun.elapsed() >= Duration::from_millis(250),
            "the first has its time"
        );
        let asked = spawn({
            let client = client.clone();
            async move { text(&client, "http://quick.test/").await }
        });
        assert_eq!(asked.await.expect("no panic").expect("an answer"), "0");
        assert_eq!(client.pool().counts().connections, 2);
        close(client).await;
        end_of(serving).await;
        drop(queue);
    });
}

#[test]
fn all_who_wait_for_a_connect_hear_why_it_failed() {
    conform(|_| async {
        let address = refusing_address().await;
        let builder = patient().http2_prior_knowledge();
        let client = builder.build().expect("a client");
        let url = format!("http://{address}/");
        let asking: Vec<_> = (0..5)
            .map(|_| {
                let (client, url) = (client.clone(), url.clone());
                spawn(async move { text(&client, &url).await })
            })
            .collect();
        for asking in asking {
            let refused = asking.await.expect("no panic");
            assert!(matches!(refused, Err(Error::Connect { .. })), "{refused:?}");
        }
        assert_eq!(client.pool().counts().failed_connects, 1);
        close(client).await;
    });
}

#[test]
fn what_is_no_request_is_refused_with_what_to_say_instead() {
    conform(|_| async {
        let client = patient().build().expect("a client");
        let cases = [
            ("/path", "http://host/path"),
            ("http://te st/", "is no URL"),
            ("https://site.test/", "`ClientTls`"),
            ("ftp://site.test/", "http and https"),
            ("http://[site.test]/", "no address of IPv6"),
            ("http://[127.0.0.1]/", "no address of IPv6"),
            ("http://[fe80::1%25lo]/", "`ClientBuilder::addresses`"),
        ];
        for (url, said) in cases {
            match text(&client, url).await {
                Err(Error::Request(what)) => assert!(what.contains(said), "{url}: {what}"),
                other => panic!("{url}: {other:?}"),
            }
        }
        let split = client.get("http://site.test/").header("x-test", "a\nb");
        let split = split.send().await;
        assert!(matches!(split, Err(Error::Request(_))), "{split:?}");
        let long = client
            .get("http://site.test/")
            .query("long", &"x".repeat(1 << 16));
        match long.send().await {
            Err(Error::Request(what)) => assert!(what.contains("a query of 65541 bytes"), "{what}"),
            other => panic!("{other:?}"),
        }
        let get = || client.get("http://site.test/");
        for wrong in [
            get().header("host", "si te.test"),
            get().header("host", "site.test/path"),
            get().header("host", ""),
            get()
                .header("host", "one.test")
                .header("host", "other.test"),
        ] {
            match wrong.send().await {
                Err(Error::Request(what)) => assert!(what.contains("the field host"), "{what}"),
                other => panic!("{other:?}"),
            }
        }
        for (name, value) in [("host", "si te.test"), ("content-length", "5")] {
            let refused = patient().header(name, value).build();
            let refused = refused.expect_err("of no request").to_string();
            assert!(refused.contains(&format!("the field {name}")), "{refused}");
        }
        assert_eq!(client.pool().counts().connects, 0);
        let builder = patient().max_connections(0);
        let refused = builder.build().expect_err("no room at all").to_string();
        assert!(refused.contains("max_connections is 0"), "{refused}");
        let (zero, some) = (Duration::ZERO, Duration::from_secs(1));
        for (interval, limit, said) in [(zero, some, "interval"), (some, zero, "limit")] {
            let refused = patient().keep_alive(interval, limit).build();
            let refused = refused.expect_err("no ping is in time").to_string();
            assert!(refused.contains(said), "{refused}");
        }
    });
}

/// Less would leave the server waiting for the rest, and its client for the answer; more would be the next request.
#[test]
fn a_length_that_is_not_the_body_s_is_refused() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, mut peer| async move {
            while let Some(head) = peer.head().await {
                let has_body = head.contains("content-length: 5\r\n");
                if has_body {
                    peer.exactly(5).await;
                }
                peer.answer(if has_body { "five" } else { "none" }).await;
            }
        });
        let client = patient().build().expect("a client");
        let post = |length: &str| client.post(&url).header("content-length", length);
        for length in ["10", "4", "0", "5, 5", "+5", ""] {
            let refused = post(length).body("short").send().await;
            let Err(Error::Request(what)) = refused else {
                panic!("{length}: {refused:?}");
            };
            assert!(what.contains("the body has 5 bytes"), "{what}");
        }
        assert!(matches!(post("5").send().await, Err(Error::Request(_))));
        let right = post("5").body("short").send().await.expect("an answer");
        assert_eq!(right.text().await.expect("an answer"), "five");
        let none = post("0").send().await.expect("an answer");
        assert_eq!(none.text().await.expect("an answer"), "none");
        assert_eq!(client.pool().counts().connects, 1);
        close(client).await;
        end_of(serving).await;
    });
}

/// A body that is made while it is sent, in pieces of a byte, and not as long as the head says, or it itself.
#[test]
fn a_body_that_is_not_as_long_as_announced_is_its_requests_failure() {
    let cases = [(3, 5, "after 3 of the 5"), (7, 5, "longer than the 5")];
    for is_http2 in [false, true] {
        for (length, announced, said) in cases {
            conform(move |_| async move {
                let host = Host::new();
                let url = host.url();
                let serving = host.serve(|_, peer| peer.end());
                let client = match is_http2 {
                    true => patient().http2_prior_knowledge(),
                    false => patient(),
                };
                let client = client.build().expect("a client");
                let (sender, pieces) = body::channel(length);
                for _ in 0..length / 2 {
                    sender.send("x").await.expect("there is room");
                }
                sender
                    .send("x".repeat(length - length / 2))
                    .await
                    .expect("room");
                drop(sender);
                let asked = client
                    .post(&url)
                    .header("content-length", announced.to_string());
                let failed = asked.body(pieces).send().await;
                assert!(matches!(failed, Err(Error::Body(_))), "{failed:?}");
                let failed = failed.expect_err("its body failed").to_string();
                assert!(failed.contains(said), "{failed}");
                close(client).await;
                end_of(serving).await;
            });
        }
    }
    conform(|_| async {
        let client = patient().build().expect("a client");
        let (_sender, pieces) = body::channel(1);
        let asked = client
            .post("http://127.0.0.1:1/")
            .header("content-length", "some");
        let refused = asked.body(pieces).send().await;
        assert!(matches!(refused, Err(Error::Request(_))), "{refused:?}");
        assert_eq!(client.pool().counts().failed_connects, 0);
    });
}
