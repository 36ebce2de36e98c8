//! `Output`: what lines are written to, and where in a line it is.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;

use rustix::event::{PollFd, PollFlags, poll};

/// Takes lines. After one that was not written to its end, by us or by who wrote there before, the next
/// begins on a line of its own.
pub(super) struct Output {
    file: Box<dyn Sink>,
    /// The last byte there is not the end of a line; `None` until we have looked.
    is_torn: Option<bool>,
}

/// What can be written to at its end.
pub(super) trait Sink: Write + Send {
    /// Returns whether it ends in the middle of a line, as far as that can be seen.
    fn is_torn(&self) -> bool;

    /// Waits where it has no room, and has said so instead of waiting.
    fn wait(&self);
}

impl Sink for File {
    fn wait(&self) {
        // What is wrong with it is told by the next write.
        let _ = poll(&mut [PollFd::new(self, PollFlags::OUT)], None);
    }

    fn is_torn(&self) -> bool {
        let last = || {
            let found = self.metadata().ok().filter(std::fs::Metadata::is_file)?;
            let at = found.len().checked_sub(1)?;
            // The same file, whatever its name is by now: ours may be open for writing alone.
            let file = Self::open(format!("/proc/self/fd/{}", self.as_raw_fd())).ok()?;
            let mut last = [0];
            file.read_exact_at(&mut last, at).ok()?;
            Some(last[0])
        };
        last().is_some_and(|last| last != b'\n')
    }
}

impl Output {
    pub(super) fn new(file: Box<dyn Sink>) -> Self {
        Self {
            file,
            is_torn: None,
        }
    }

    /// Writes whole lines; on a failure, says how many of them are not there as a whole.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        let mut rest = lines;
        if rest.is_empty() {
            return Ok(());
        }
        // Not before there is something to write: until then others may write there.
        let is_torn = self.is_torn.unwrap_or_else(|| self.file.is_torn());
        self.is_torn = Some(is_torn);
        if is_torn {
            self.write_some(b"\n")
                .map_err(|error| (count(rest), error))?;
        }
        while !rest.is_empty() {
            let written = self
                .write_some(rest)
                .map_err(|error| (count(rest), error))?;
            rest = &rest[written..];
        }
        Ok(())
    }

    fn write_some(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match self.file.write(bytes) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.is_torn = Some(bytes[written - 1] != b'\n');
                    return Ok(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.file.wait(),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn count(lines: &[u8]) -> u64 {
    lines.iter().filter(|&&byte| byte == b'\n').count() as u64
}

impl fmt::Debug for Output {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Output")
            .field("is_torn", &self.is_torn)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// A disk with room for so many bytes.
    #[derive(Debug, Clone, Default)]
    struct Disk(Arc<Mutex<(usize, Vec<u8>)>>);

    impl Disk {
        fn make_room(&self, bytes: usize) {
            self.0.lock().expect("no panic").0 += bytes;
        }

        fn text(&self) -> String {
            let disk = self.0.lock().expect("no panic");
            String::from_utf8(disk.1.clone()).expect("text")
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (room, written) = &mut *self.0.lock().expect("no panic");
            let taken = bytes.len().min(*room);
            if taken == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            *room -= taken;
            written.extend_from_slice(&bytes[..taken]);
            Ok(taken)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Sink for Disk {
        fn wait(&self) {
            unreachable!("a disk has no such error");
        }

        fn is_torn(&self) -> bool {
            let text = self.text();
            !text.is_empty() && !text.ends_with('\n')
        }
    }

    fn lost(outcome: Result<(), (u64, io::Error)>) -> u64 {
        outcome.expect_err("the disk is full").0
    }

    #[test]
    fn lines_that_are_not_whole_are_counted_and_set_apart() {
        let disk = Disk::default();
        let mut output = Output::new(Box::new(disk.clone()));
        assert_eq!(lost(output.write(b"one\ntwo\n")), 2, "no room at all");
        disk.make_room(6);
        assert_eq!(lost(output.write(b"one\ntwo\nthree\n")), 2, "one fits");
        assert_eq!(lost(output.write(b"four\n")), 1);
        disk.make_room(100);
        output.write(b"five\n").expect("there is room");
        output.write(b"").expect("nothing to write");
        output.write(b"six\n").expect("there is room");
        assert_eq!(disk.text(), "one\ntw\nfive\nsix\n");
    }

    #[test]
    fn a_break_that_ended_at_a_line_leaves_no_empty_line() {
        let disk = Disk::default();
        let mut output = Output::new(Box::new(disk.clone()));
        disk.make_room(4);
        assert_eq!(lost(output.write(b"one\ntwo\n")), 1);
        disk.make_room(100);
        output.write(b"three\n").expect("there is room");
        assert_eq!(disk.text(), "one\nthree\n");
    }

    /// The new output is made while the old one still writes, as when a file is opened again.
    #[test]
    fn what_another_left_in_the_middle_of_a_line_is_set_apart() {
        let disk = Disk::default();
        let mut old = Output::new(Box::new(disk.clone()));
        let mut new = Output::new(Box::new(disk.clone()));
        disk.make_room(6);
        assert_eq!(lost(old.write(b"one\ntwo\n")), 1);
        drop(old);
        disk.make_room(100);
        new.write(b"three\n").expect("there is room");
        new.write(b"four\n").expect("there is room");
        assert_eq!(disk.text(), "one\ntw\nthree\nfour\n");
    }

    #[test]
    fn a_file_is_torn_if_its_last_line_has_no_end() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("log");
        for (text, is_torn) in [("", false), ("one\n", false), ("one\ntw", true)] {
            std::fs::write(&path, text).expect("a new file");
            let file = File::options()
                .append(true)
                .open(&path)
                .expect("it is there");
            assert_eq!(file.is_torn(), is_torn, "{text:?}");
        }
        let (_reader, writer) = io::pipe().expect("a pipe");
        let pipe = File::from(OwnedFd::from(writer));
        assert!(!pipe.is_torn(), "what a pipe had is gone");
    }

    /// Somebody else who has the same pipe wanted that.
    #[test]
    fn a_pipe_that_does_not_block_gets_every_line() {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        rustix::io::ioctl_fionbio(&writer, true).expect("a flag");
        let mut output = Output::new(Box::new(File::from(OwnedFd::from(writer))));
        // More than a pipe takes at once.
        let lines = "a line\n".repeat(100_000);
        let written = std::thread::scope(|threads| {
            let writing = threads.spawn(|| {
                let written = output.write(lines.as_bytes());
                drop(output);
                written.map_err(|(lost, error)| format!("{lost} lost: {error}"))
            });
            let mut read = String::new();
            reader.read_to_string(&mut read).expect("text");
            (writing.join().expect("no panic"), read)
        });
        assert_eq!(written.0, Ok(()));
        assert!(written.1 == lines);
    }
}
