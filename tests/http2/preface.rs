//! RFC 9113, section 3.4: the connection preface.

use std::io::Read;
use std::io::Write;
use std::net::{Shutdown, TcpStream};

use crate::client::{Client, PREFACE, frame};
use crate::codes::*;
use crate::servers;

/// The first frame of a server is its SETTINGS, sent before anything of the client's is needed but the
/// preface.
#[test]
fn s3_4_server_begins_with_settings() {
    let mut client = Client::silent(servers::shared(), "3.4");
    client.raw(PREFACE).settings(&[]);
    let first = client.read().expect("a frame");
    assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0));
    assert_eq!(first.payload.len() % 6, 0);
}

/// A client may send requests right behind its preface.
#[test]
fn s3_4_request_behind_the_preface_is_answered() {
    let mut client = Client::silent(servers::shared(), "3.4");
    client.raw(PREFACE).settings(&[]);
    client
        .get(1, "/at-once")
        .answers_with(1, "GET http://test/at-once");
}

/// What is no preface is no HTTP/2. GOAWAY may be omitted; here it is answered as the HTTP/1 it may be,
/// and the connection ends.
#[test]
fn s3_4_invalid_preface_ends_the_connection() {
    for nonsense in [
        "INVALID CONNECTION PREFACE\r\n\r\n",
        "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
    ] {
        let mut stream = TcpStream::connect(servers::shared()).expect("it listens");
        stream
            .write_all(nonsense.as_bytes())
            .expect("it takes that");
        stream.shutdown(Shutdown::Write).expect("it is open");
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).expect("an orderly end");
        let text = String::from_utf8_lossy(&answer);
        assert!(text.starts_with("HTTP/1.1 400"), "{nonsense:?}: {text}");
    }
}

/// The preface must be followed by SETTINGS, which may be empty. hyper takes frames before it; what is
/// no frame at that place is none later.
#[test]
fn s3_4_nonsense_behind_the_preface_ends_the_connection() {
    let mut client = Client::silent(servers::shared(), "3.4");
    client.raw(PREFACE);
    // As a frame it would have 5.5 million bytes.
    client.raw(b"This is no SETTINGS frame.");
    client.ends_with_or_unspecific(FRAME_SIZE_ERROR);
}

/// A preface may come in any pieces, and with the first frames in one.
#[test]
fn s3_4_preface_in_pieces_is_a_preface() {
    for size in [1, 5, 23, 24, 25, 33] {
        let mut client = Client::silent(servers::shared(), "3.4");
        let said = [PREFACE, &frame(SETTINGS, NONE, 0, b"")].concat();
        for piece in said.chunks(size) {
            client.raw(piece);
        }
        client.get(1, "/pieces").answers(1, 200);
    }
}

/// A client that closes its side before a whole preface came is let go without a word.
#[test]
fn s3_4_end_within_the_preface_is_an_end() {
    let mut stream = TcpStream::connect(servers::shared()).expect("it listens");
    stream.write_all(&PREFACE[..10]).expect("it takes that");
    stream.shutdown(Shutdown::Write).expect("it is open");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an orderly end");
    assert_eq!(answer, b"");
}

/// A client that closes its side behind its settings is let go in order.
#[test]
fn s3_4_end_behind_the_preface_is_an_end() {
    let mut stream = TcpStream::connect(servers::shared()).expect("it listens");
    stream.write_all(PREFACE).expect("it takes that");
    stream
        .write_all(&frame(SETTINGS, NONE, 0, b""))
        .expect("it takes that");
    stream.shutdown(Shutdown::Write).expect("it is open");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("an orderly end");
    assert_eq!(answer[3], SETTINGS, "{answer:?}");
}
