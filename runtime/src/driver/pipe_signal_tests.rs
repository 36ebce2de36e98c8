//! A write to a pipe or socket that nobody reads, in a program that SIGPIPE would end: one whose `main` is not Rust's.
//!
//! Here, since to take a signal's effect back is unsafe.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Command;

use crate::op::{self, PipeWriter, SharedFd, Stream};

/// Says that this is the process that may be ended.
const MAY_END: &str = "QUOIT_TEST_MAY_END";

#[test]
fn write_that_nobody_reads_ends_no_program() {
    let me = "driver::pipe_signal_tests::write_that_nobody_reads_ends_no_program";
    if std::env::var_os(MAY_END).is_none() {
        let program = std::env::current_exe().expect("this program has a path");
        let mut again = Command::new(program);
        let output = again.args([me, "--exact"]).env(MAY_END, "1").output();
        let output = output.expect("it is there");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {said}", output.status);
        assert!(said.contains("1 passed"), "{said}");
        return;
    }
    // SAFETY: takes no pointer, and installs no handler.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
    let written = crate::block_on(async {
        let (ours, theirs) = UnixStream::pair()?;
        drop(theirs);
        let ours = Stream::new(SharedFd::from(OwnedFd::from(ours)));
        // Twice in a poll: the second is submitted.
        let sent = [(); 2].map(|()| ours.send_all("lost"));
        for sent in sent {
            let error = sent.await.0.expect_err("nobody reads");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
        let (reader, writer) = op::pipe()?;
        drop(reader);
        let writer = PipeWriter::new(writer)?;
        let error = writer.write_all("lost").await.0;
        let error = error.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        // Beside another task: the second is submitted.
        drop(crate::spawn(async {}));
        writer.write_all("lost").await.0
    });
    let error = written
        .expect("tests need io_uring")
        .expect_err("nobody reads");
    assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
}
