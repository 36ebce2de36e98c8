//! Clients that send much and ask for little: each is told to calm down, within a bounded number of
//! frames, and nobody else notices. Clients that say much, and ask for as much, are served.

use std::sync::mpsc;

use quoit_net::http::{Server, Trouble};

use crate::client::{Client, frame};
use crate::codes::*;
use crate::hpack::{self, GET, with};
use crate::servers::{LARGE, STREAMS, answer, patient};

/// So many frames no flood comes to. A client that is never told to calm down gets there in seconds.
const MOST: usize = 40_000;

/// How many frames are sent between two looks at what came.
const BATCH: usize = 100;

impl Client {
    /// Sends what `next` makes, as often as the server allows.
    pub(crate) fn flood(&mut self, mut next: impl FnMut() -> Vec<u8>) {
        for _ in 0..MOST / BATCH {
            let batch: Vec<u8> = (0..BATCH).flat_map(|_| next()).collect();
            self.raw(&batch).settle();
            if self.said_goodbye().is_some_and(|code| code != NO_ERROR) {
                return self.is_told_to_calm_down();
            }
        }
        panic!("{self:?}\n{MOST} frames were taken");
    }

    /// The connection ends with ENHANCE_YOUR_CALM, and the server goes on.
    fn is_told_to_calm_down(&mut self) {
        self.ends_with(ENHANCE_YOUR_CALM);
        Self::open("10.5").goes_on(1);
    }
}

/// Floods with one frame, again and again.
macro_rules! floods {
    ($($name:ident: |$client:ident| $begin:expr => $frame:expr;)*) => {$(
        #[test]
        fn $name() {
            let mut $client = Client::open("10.5");
            $begin;
            let again = $frame;
            $client.flood(|| again.clone());
        }
    )*};
}

floods! {
    s10_5_pings: |c| c.forget() => frame(PING, NONE, 0, &[0; 8]);
    s10_5_pongs: |c| c.forget() => frame(PING, ACK, 0, &[0; 8]);
    s10_5_settings: |c| c.forget() => frame(SETTINGS, NONE, 0, b"");
    s10_5_settings_with_many_values: |c| c.forget() => frame(SETTINGS, NONE, 0, &[0, 3, 0, 0, 0, 9].repeat(500));
    s10_5_settings_that_resize_windows: |c| c.get(1, "/wait") => [
        frame(SETTINGS, NONE, 0, &[0, 4, 0, 0, 0, 9]),
        frame(SETTINGS, NONE, 0, &[0, 4, 0, 0, 0, 8]),
    ].concat();
    s10_5_priorities: |c| c.forget() => frame(PRIORITY, NONE, 1, b"\0\0\0\x03\x0f");
    s10_5_priorities_of_an_open_stream: |c| c.get(1, "/wait") => frame(PRIORITY, NONE, 1, b"\0\0\0\x03\x0f");
    s10_5_unknown_frames: |c| c.forget() => frame(0xfa, NONE, 0, b"grease");
    s10_5_large_unknown_frames: |c| c.forget() => frame(0xfa, NONE, 0, &[0; LARGEST]);
    s10_5_goodbyes: |c| c.get(1, "/wait") => frame(GOAWAY, NONE, 0, &[0; 8]);
    s10_5_windows_of_the_connection: |c| c.forget() => frame(WINDOW_UPDATE, NONE, 0, &[0, 0, 0, 1]);
    s10_5_windows_of_a_stream: |c| c.get(1, "/wait") => frame(WINDOW_UPDATE, NONE, 1, &[0, 0, 0, 1]);
    s10_5_resets_of_one_stream: |c| c.get(1, "/wait") => frame(RST_STREAM, NONE, 1, &[0, 0, 0, 8]);
    s10_5_empty_data: |c| c.post(1, "/wait") => frame(DATA, NONE, 1, b"");
    s10_5_empty_data_that_is_read: |c| c.post(1, "/echo") => frame(DATA, NONE, 1, b"");
    s10_5_data_of_padding: |c| c.post(1, "/echo") => frame(DATA, PADDED, 1, b"\0");
    s10_5_data_of_one_byte: |c| c.post(1, "/wait") => frame(DATA, NONE, 1, b"!");
}

/// Numbers for streams that nobody has opened.
fn streams() -> impl Iterator<Item = u32> {
    (1..).step_by(2)
}

/// A field block is bounded in the number of its frames, also where they are empty.
#[test]
fn s10_5_continuations() {
    for part in [&b""[..], &[0; 1000]] {
        let mut client = Client::open("10.5");
        client.frame(HEADERS, END_STREAM, 1, b"");
        client.raw(&frame(CONTINUATION, NONE, 1, part).repeat(1000));
        client.ends_with_any(&[ENHANCE_YOUR_CALM, PROTOCOL_ERROR, COMPRESSION_ERROR]);
        Client::open("10.5").goes_on(1);
    }
}

/// Requests that are reset as soon as they are made (CVE-2023-44487).
#[test]
fn s10_5_resets_at_once() {
    let mut client = Client::open("10.5");
    let block = hpack::encode(&hpack::request("GET", "/wait"));
    let mut stream = streams();
    client.flood(|| {
        let stream = stream.next().expect("there are enough");
        let mut both = frame(HEADERS, WHOLE, stream, &block);
        both.extend(frame(RST_STREAM, NONE, stream, &CANCEL.to_be_bytes()));
        both
    });
}

/// Requests that are reset as soon as their handlers have begun.
#[test]
fn s10_5_resets_once_begun() {
    const AT_ONCE: usize = 10;
    let mut client = Client::open("10.5");
    let mut streams = streams();
    for _ in 0..MOST / AT_ONCE {
        let some: Vec<u32> = streams.by_ref().take(AT_ONCE).collect();
        for &stream in &some {
            client.get(stream, "/wait");
        }
        client.frame(PING, NONE, 0, &[0; 8]);
        while let Some(frame) = client.read() {
            if frame.kind == PING {
                break;
            }
        }
        for &stream in &some {
            client.number(RST_STREAM, stream, CANCEL);
        }
        if client.said_goodbye().is_some() {
            return client.is_told_to_calm_down();
        }
    }
    panic!("{client:?}\nall were taken");
}

/// Requests that the server resets, for what is wrong with them.
#[test]
fn s10_5_malformed_requests() {
    let mut client = Client::open("10.5");
    let block = hpack::encode(&with(&GET, &[("connection", "close")]));
    let mut streams = streams();
    client.flood(|| {
        let stream = streams.next().expect("there are enough");
        frame(HEADERS, WHOLE, stream, &block)
    });
}

/// Requests that the client makes the server reset once their handlers have begun (CVE-2025-8671).
#[test]
fn s10_5_requests_that_the_server_is_made_to_reset() {
    let mut client = Client::open("10.5");
    let block = hpack::encode(&with(
        &hpack::request("POST", "/wait"),
        &[("content-length", "1")],
    ));
    let mut streams = streams();
    client.flood(|| {
        let stream = streams.next().expect("there are enough");
        let mut both = frame(HEADERS, END_HEADERS, stream, &block);
        both.extend(frame(DATA, NONE, stream, b"more than that"));
        both
    });
}

/// Requests beyond the number of streams that may be open.
#[test]
fn s10_5_refused_requests() {
    let mut client = Client::open("10.5");
    let block = hpack::encode(&hpack::request("GET", "/wait"));
    let mut streams = streams();
    client.flood(|| {
        let stream = streams.next().expect("there are enough");
        frame(HEADERS, WHOLE, stream, &block)
    });
    let refused = |stream| client.code_of_reset(stream) == Some(REFUSED_STREAM);
    assert!(refused(2 * STREAMS + 1), "{client:?}");
}

/// Fields without a name (CVE-2019-9516) are no fields: the first ends it.
#[test]
fn s10_5_fields_without_names() {
    let mut client = Client::open("10.5");
    let fields = vec![("", ""); 1000];
    client.fields(END_STREAM, 1, &with(&GET, &fields));
    client.resets_or_ends(1, PROTOCOL_ERROR);
}

/// The owner of the server hears why a connection was ended.
#[test]
fn s10_5_owner_is_told() {
    let (tell, told) = mpsc::channel();
    let server = patient().on_trouble(move |trouble: &Trouble<'_>| {
        tell.send(trouble.to_string()).expect("somebody listens");
    });
    let server = server.serve(answer).expect("a server");
    let mut client = Client::open_at(server.local_addr(), "10.5");
    client.flood(|| frame(PING, NONE, 0, &[0; 8]));
    drop(client);
    let heard = told.recv().expect("a word");
    assert!(heard.contains("frames that ask for nothing"), "{heard}");
}

/// What others have begun on the connection ends with it, and what they do elsewhere does not.
#[test]
fn s10_5_other_connections_go_on() {
    let mut other = Client::open("10.5");
    other.post(1, "/echo").data(NONE, 1, b"be");
    let mut client = Client::open("10.5");
    client.get(1, "/wait");
    client.flood(|| frame(PING, NONE, 0, &[0; 8]));
    other.data(END_STREAM, 1, b"fore").answers_with(1, "before");
}

// --- clients that say much, and ask for as much ---

/// A PING, a priority and settings with each request.
#[test]
fn s10_5_talkative_client_is_served() {
    let mut client = Client::open("10.5");
    for (count, stream) in streams().take(3_000).enumerate() {
        client.frame(0x10, NONE, 0, b"\0\0\0\x01u=1");
        client.get(stream, "/").frame(PING, NONE, 0, &[0; 8]);
        client.wait_for(|frame| frame.kind == PING);
        client.answers(stream, 200);
        client.body(stream);
        if count % 10 == 0 {
            client.settings(&[]);
        }
        client.forget();
    }
    client.goes_on(6_001);
}

/// A window for the stream and one for the connection with each frame of an answer.
#[test]
fn s10_5_client_that_gives_windows_often_is_served() {
    let mut client = Client::open("10.5");
    for stream in streams().take(200) {
        client.get(stream, "/large");
        let mut came = 0;
        while came < LARGE {
            let data = client.wait_for(|frame| frame.kind == DATA);
            came += data.payload.len();
            let mut left = data.payload.len();
            // In many small steps.
            while left > 0 {
                let step = left.min(1024);
                left -= step;
                client.number(WINDOW_UPDATE, 0, step as u32);
                client.number(WINDOW_UPDATE, stream, step as u32);
            }
        }
        client.forget();
    }
    client.goes_on(401);
}

/// A body in many pieces, each with a PING.
#[test]
fn s10_5_client_that_pings_as_it_sends_is_served() {
    let mut client = Client::open("10.5");
    client.post(1, "/echo");
    const COUNT: usize = 5_000;
    for _ in 0..COUNT {
        client
            .upload(NONE, 1, &[b'd'; 1000])
            .frame(PING, NONE, 0, &[0; 8]);
    }
    client.upload(END_STREAM, 1, b"");
    client.settings(&[(INITIAL_WINDOW_SIZE, 1 << 24)]);
    client.number(WINDOW_UPDATE, 0, 1 << 24);
    assert_eq!(client.body(1).len(), COUNT * 1000);
}

/// Some requests among many are given up.
#[test]
fn s10_5_client_that_gives_up_now_and_then_is_served() {
    let mut client = Client::open("10.5");
    for (count, stream) in streams().take(6_000).enumerate() {
        if count % 2 == 0 {
            client
                .get(stream, "/wait")
                .number(RST_STREAM, stream, CANCEL);
        } else {
            client.goes_on(stream);
            client.body(stream);
            client.forget();
        }
    }
    client.goes_on(12_001);
}

/// The limit of streams is what it was set to, and one that forbids all is refused.
#[test]
fn limit_of_streams_is_what_it_was_set_to() {
    let server = patient().max_concurrent_streams(2).serve(answer);
    let server = server.expect("a server");
    let mut client = Client::open_at(server.local_addr(), "5.1.2");
    client.get(1, "/wait").get(3, "/wait").get(5, "/");
    client.resets(5, REFUSED_STREAM);
    let none = patient().max_concurrent_streams(0).serve(answer);
    let refused = none.map(|_: Server| ()).expect_err("nobody could ask");
    assert_eq!(refused.kind(), std::io::ErrorKind::InvalidInput);
    assert!(
        refused.to_string().contains("max_concurrent_streams"),
        "{refused}"
    );
}
