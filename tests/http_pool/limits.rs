//! Limits, and who waits for how long.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use quoit::sync::Event;
use quoit::{Scope, spawn};
use quoit_pool::http::Error;
use tests::conform;

use crate::peer::{Host, end_of};
use crate::{close, patient, text, until};

#[test]
fn p049_who_waits_is_served_in_order_and_a_cancelled_one_passes_it_on() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let order = Rc::new(RefCell::new(Vec::new()));
        let noted = Rc::clone(&order);
        let serving = host.serve(move |_, mut peer| {
            let order = Rc::clone(&noted);
            async move {
                while let Some(head) = peer.head().await {
                    let path = head.split(' ').nth(1).expect("a target").to_owned();
                    order.borrow_mut().push(path.clone());
                    if path == "/first" {
                        peer.end().await;
                        return;
                    }
                    peer.answer(&path).await;
                }
            }
        });
        let client = patient().max_connections_per_origin(1).build();
        let client = client.expect("a client");
        let mut asking = Vec::new();
        for (place, path) in ["first", "second", "third"].into_iter().enumerate() {
            let (client, url) = (client.clone(), format!("{url}{path}"));
            let pool = client.pool().clone();
            asking.push(spawn(async move { text(&client, &url).await }));
            // Nobody says in which order tasks begin that were started together.
            let first = Rc::clone(&order);
            until(move || first.borrow().len() == 1 && pool.counts().waiting == place).await;
        }
        asking[0].cancel();
        for asking in asking.drain(..).skip(1) {
            asking.await.expect("no panic").expect("an answer");
        }
        assert_eq!(*order.borrow(), ["/first", "/second", "/third"]);
        assert_eq!(client.pool().counts().connects, 2);
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn p050_who_waits_too_long_leaves_the_line() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let go = Rc::new(Event::new());
        let may_go = Rc::clone(&go);
        let serving = host.serve(move |_, mut peer| {
            let go = Rc::clone(&may_go);
            async move {
                while peer.head().await.is_some() {
                    if go.wait().await.is_err() {
                        return;
                    }
                    peer.answer("at last").await;
                }
            }
        });
        let limit = Duration::from_millis(300);
        let builder = patient().max_connections_per_origin(1);
        let client = builder.pool_timeout(limit).build().expect("a client");
        let first = spawn({
            let (client, url) = (client.clone(), url.clone());
            async move { text(&client, &url).await }
        });
        until(|| client.pool().counts().connects == 1).await;
        let late = text(&client, &url).await;
        assert!(
            matches!(late, Err(Error::PoolTimeout { waited }) if waited == limit),
            "{late:?}"
        );
        assert_eq!(client.pool().counts().waiting, 0);
        go.set();
        first.await.expect("no panic").expect("an answer");
        // The room goes to whoever comes next.
        text(&client, &url).await.expect("an answer");
        assert_eq!(client.pool().counts().connects, 1);
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn at_the_limit_the_one_that_was_idle_longest_makes_room() {
    conform(|_| async {
        let hosts: Vec<_> = (0..3).map(|_| Host::new()).collect();
        let urls: Vec<_> = hosts.iter().map(Host::url).collect();
        let serving: Vec<_> = hosts
            .into_iter()
            .map(|host| host.serve(|_, peer| peer.count()))
            .collect();
        let client = patient().max_connections(2).build().expect("a client");
        for (url, number) in [(0, "0"), (1, "0"), (0, "1"), (2, "0"), (0, "2"), (1, "0")] {
            let answer = text(&client, &urls[url]).await.expect("an answer");
            assert_eq!(answer, number, "of {url}");
        }
        let counts = client.pool().counts();
        assert_eq!((counts.connects, counts.evictions), (4, 2), "{counts:?}");
        close(client).await;
        for serving in serving {
            end_of(serving).await;
        }
    });
}

#[test]
fn a_hundred_requests_at_once_use_as_many_connections_as_they_may() {
    conform(|_| async {
        let host = Host::new();
        let url = host.url();
        let serving = host.serve(|_, peer| peer.count());
        let client = patient().max_connections_per_origin(7).build();
        let client = client.expect("a client");
        let asking: Vec<_> = (0..100)
            .map(|_| {
                let (client, url) = (client.clone(), url.clone());
                spawn(async move { text(&client, &url).await })
            })
            .collect();
        for asking in asking {
            asking.await.expect("no panic").expect("an answer");
        }
        let counts = client.pool().counts();
        assert!(counts.connects <= 7, "{counts:?}");
        assert_eq!(counts.connects + counts.reuses, 100, "{counts:?}");
        close(client).await;
        end_of(serving).await;
    });
}

#[test]
fn a_request_has_its_time_to_the_end_of_its_answer() {
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
        let client = patient().build().expect("a client");
        let time = Duration::from_millis(300);
        let late = client.get(&url).timeout(time).send().await;
        assert!(matches!(late, Err(Error::TimedOut)), "{late:?}");
        // Its head is there in time, on most machines; the rest is not, on any.
        let late = match client.get(&url).timeout(time).send().await {
            Ok(answer) => answer.text().await,
            Err(error) => Err(error),
        };
        assert!(matches!(late, Err(Error::TimedOut)), "{late:?}");
        // A scope around is as good, and takes what is its own.
        let scope = Scope::new().timeout(time);
        let late = scope.run(text(&client, &url)).await;
        assert!(matches!(late, Ok(None)), "{late:?}");
        close(client).await;
        end_of(serving).await;
    });
}
