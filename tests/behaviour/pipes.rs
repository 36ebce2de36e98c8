//! The ends of a pipe as streams of bytes.

use std::fs;
use std::io::{self, Write};
use std::pin::pin;
use std::rc::Rc;

use quoit::buf::Interrupted;
use quoit::op::{self, PipeReader, PipeWriter};
use quoit::{Scope, spawn, yield_now};
use rustix::fs::{CWD, Mode, OFlags, mkfifoat};
use tests::{bytes, conform, on_ring, poll_once};

use crate::files::terminal;

fn pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = op::pipe().expect("a pipe");
    (
        PipeReader::new(reader),
        PipeWriter::new(writer).expect("signals can be blocked"),
    )
}

async fn all_of(reader: &PipeReader) -> Vec<u8> {
    let mut came = Vec::new();
    while let Some(chunk) = reader.receive().await.expect("no error") {
        came.extend_from_slice(&chunk);
    }
    came
}

#[test]
fn more_than_a_pipe_holds_goes_through_in_order() {
    conform(|_| async {
        let (reader, writer) = pipe();
        let much = bytes(1 << 20, 3);
        let sent = much.clone();
        let writing = spawn(async move { writer.write_all(sent).await.0 });
        assert!(all_of(&reader).await == much, "other bytes came");
        writing.await.expect("no panic").expect("all of it went");
        assert!(reader.receive().await.expect("still the end").is_none());
    });
}

#[test]
fn wait_that_is_given_up_loses_nothing() {
    conform(|_| async {
        let (reader, writer) = pipe();
        for way in 0..3 {
            match way {
                // Dropped while it waits, before and after the bytes have come.
                0 => assert!(poll_once(pin!(reader.receive())).await.is_pending()),
                1 => {
                    let mut wait = pin!(reader.receive());
                    assert!(poll_once(wait.as_mut()).await.is_pending());
                    let (result, _) = writer.write("first").await;
                    assert_eq!(result.expect("there is room"), 5);
                    yield_now().await.expect("nobody cancels");
                }
                _ => {
                    let scope = Scope::new();
                    let ended = scope.run(async {
                        let mut wait = pin!(reader.receive());
                        assert!(poll_once(wait.as_mut()).await.is_pending());
                        scope.cancel();
                        wait.await.map(drop)
                    });
                    // What has come is returned, if that was first.
                    drop(ended.await);
                    let (result, _) = writer.write("second").await;
                    assert_eq!(result.expect("there is room"), 6);
                }
            }
            if way == 1 {
                let mut got = Vec::new();
                while got.len() < 5 {
                    let (count, buf) = reader.read(vec![0; 5 - got.len()]).await;
                    got.extend_from_slice(&buf[..count.expect("it came")]);
                }
                assert_eq!(got, b"first");
            }
        }
        drop(writer);
        assert_eq!(all_of(&reader).await, b"second");
    });
}

// On the real ring: a simulation has neither.

#[test]
fn a_fifo_that_is_written_to_anew_is_read_on() {
    on_ring(|_| async {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("fifo");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).expect("room for a name");
        let flags = OFlags::RDONLY | OFlags::NONBLOCK;
        let reader = rustix::fs::open(&path, flags, Mode::empty()).expect("nobody is waited for");
        let reader = PipeReader::from(reader);
        for text in ["one", "another"] {
            assert!(reader.receive().await.expect("no error").is_none());
            let writer = fs::OpenOptions::new().write(true).open(&path);
            let mut writer = writer.expect("somebody reads");
            writer.write_all(text.as_bytes()).expect("room");
            let chunk = reader.receive().await.expect("no error");
            assert_eq!(chunk.as_deref(), Some(text.as_bytes()));
        }
        assert!(reader.receive().await.expect("no error").is_none());
    });
}

/// Ctrl-D is the end of what was typed before, and of nothing more.
#[test]
fn a_terminal_is_read_on_behind_an_end() {
    on_ring(|_| async {
        let (keys, terminal) = terminal();
        let reader = PipeReader::new(terminal);
        for (typed, read) in [
            ("one\n", Some("one\n")),
            ("\x04", None),
            ("two\n", Some("two\n")),
        ] {
            rustix::io::write(&keys, typed.as_bytes()).expect("room");
            let chunk = reader.receive().await.expect("no error");
            assert_eq!(chunk.as_deref(), read.map(str::as_bytes), "{typed:?}");
        }
    });
}

#[test]
fn chunk_is_read_in_parts() {
    conform(|_| async {
        let (reader, writer) = pipe();
        writer.write_all("abcdef").await.0.expect("there is room");
        drop(writer);
        let mut came = Vec::new();
        loop {
            let (count, buf) = reader.read(vec![0; 4]).await;
            match count.expect("no error") {
                0 => break,
                count => came.extend_from_slice(&buf[..count]),
            }
        }
        assert_eq!(came, b"abcdef");
    });
}

#[test]
fn write_that_nobody_reads_says_so() {
    conform(|_| async {
        let (reader, writer) = pipe();
        drop(reader);
        let (result, buf) = writer.write_all("lost").await;
        let error = result.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        assert_eq!(buf, "lost");
    });
}

#[test]
fn cancelled_write_says_how_much_went_in() {
    conform(|_| async {
        let (reader, writer) = pipe();
        let scope = Rc::new(Scope::new());
        let stop = scope.handle();
        let writing = spawn(async move {
            let mut went_in = 0;
            let body = async {
                let (result, buf) = writer.write_all(bytes(1 << 20, 5)).await;
                assert_eq!(buf.len(), 1 << 20);
                let error = result.expect_err("a pipe holds less");
                let part = error.get_ref().and_then(|inner| inner.downcast_ref());
                went_in = part.map_or(0, |part: &Interrupted| part.transferred);
                Err::<(), _>(error)
            };
            assert!(scope.run(body).await.expect("its own cancel").is_none());
            went_in
        });
        // Now a part has gone in, and the rest waits, or is about to.
        let readable = op::poll(&reader.fd(), libc::POLLIN as u32).await;
        readable.expect("it is written to");
        stop.cancel();
        let went_in = writing.await.expect("no panic");
        let came = all_of(&reader).await;
        assert!(!came.is_empty());
        assert_eq!(came.len(), went_in);
        assert!(bytes(1 << 20, 5).starts_with(&came), "other bytes came");
    });
}

#[test]
fn writes_of_several_tasks_do_not_mix() {
    conform(|_| async {
        let (reader, writer) = pipe();
        let writer = Rc::new(writer);
        let mut writing = Vec::new();
        for letter in [b'a', b'b', b'c'] {
            let writer = Rc::clone(&writer);
            writing.push(spawn(async move {
                writer.write_all(vec![letter; 100_000]).await.0
            }));
        }
        drop(writer);
        let came = all_of(&reader).await;
        let mut runs: Vec<u8> = came.clone();
        runs.dedup();
        assert_eq!(runs.len(), 3, "each is written as a whole");
        assert_eq!(came.len(), 300_000);
        for task in writing {
            task.await.expect("no panic").expect("it went in");
        }
    });
}
