//! RFC 9113, section 6.4: RST_STREAM.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use quoit_net::http::Incoming;

use crate::client::Client;
use crate::codes::*;
use crate::{cases, servers};

cases! {
    "6.4" s6_4_reset_of_stream_zero: |c| c.number(RST_STREAM, 0, CANCEL) => ends_with(PROTOCOL_ERROR);
    "6.4" s6_4_reset_of_an_idle_stream: |c| c.number(RST_STREAM, 1, CANCEL) => ends_with(PROTOCOL_ERROR);
    "6.4" s6_4_reset_too_short: |c| c.get(1, "/wait").frame(RST_STREAM, NONE, 1, b"\0\0\x08") => ends_with_or_unspecific(FRAME_SIZE_ERROR);
    "6.4" s6_4_reset_too_long: |c| c.get(1, "/wait").frame(RST_STREAM, NONE, 1, b"\0\0\0\x08\0") => ends_with_or_unspecific(FRAME_SIZE_ERROR);
    "6.4" s6_4_reset_of_an_open_stream_ends_it: |c| c.post(1, "/wait").number(RST_STREAM, 1, CANCEL) => ignores();
    "6.4" s6_4_reset_of_a_half_closed_stream_ends_it: |c| c.get(1, "/wait").number(RST_STREAM, 1, CANCEL) => ignores();
    "6.4" s6_4_reset_twice_is_ignored: |c| c.get(1, "/wait").number(RST_STREAM, 1, CANCEL).number(RST_STREAM, 1, CANCEL) => ignores();
}

/// A stream that was reset makes room for another, and no answer comes on it.
#[test]
fn s6_4_reset_costs_its_stream_only() {
    let mut client = Client::open("6.4");
    client.get(1, "/wait").number(RST_STREAM, 1, NO_ERROR);
    client.goes_on(3);
    assert_eq!(
        client.code_of_reset(1),
        None,
        "a reset is not answered with one"
    );
}

/// A body that its client breaks off is not whole, whatever the client says of it.
#[test]
fn s6_4_reset_body_is_not_whole() {
    let heard = Arc::new(Mutex::new(Vec::new()));
    let hears = Arc::clone(&heard);
    let server = servers::patient().serve(move |request: Request<Incoming>| {
        let hears = Arc::clone(&hears);
        async move {
            let path = request.uri().path().to_owned();
            let body = request.into_body().collect().await;
            let body = body.map(|body| body.to_bytes());
            let is_whole = body.is_ok();
            hears.lock().expect("nobody panics").push((path, is_whole));
            Ok::<_, Infallible>(Response::new(Full::<Bytes>::default()))
        }
    });
    let server = server.expect("a server");
    let mut client = Client::open_at(server.local_addr(), "6.4");
    for (stream, code) in [(1, NO_ERROR), (3, CANCEL), (5, NO_ERROR)] {
        client.post(stream, "/cut").data(NONE, stream, b"half");
        if stream == 5 {
            // It has that, before more comes.
            client.settle();
        }
        client.number(RST_STREAM, stream, code);
    }
    client.post(7, "/whole").data(END_STREAM, 7, b"whole");
    client.answers(7, 200);
    server.shutdown(Duration::from_secs(30)).expect("an end");
    let heard = heard.lock().expect("nobody panics");
    assert!(
        heard
            .iter()
            .all(|(path, is_whole)| path == "/whole" || !is_whole),
        "{heard:?}"
    );
}
