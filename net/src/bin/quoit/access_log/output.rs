//! `Output`: what lines are written to, and where in a line it is.

use std::fmt;
use std::io::{self, Write};

/// Takes lines. After one that it could not write to its end, the next begins on a line of its own.
pub(super) struct Output {
    file: Box<dyn Write + Send>,
    /// The last byte written was not the end of a line.
    is_torn: bool,
}

impl Output {
    pub(super) fn new(file: Box<dyn Write + Send>) -> Self {
        Self {
            file,
            is_torn: false,
        }
    }

    /// Writes whole lines; on a failure, says how many of them are not there as a whole.
    pub(super) fn write(&mut self, lines: &[u8]) -> Result<(), (u64, io::Error)> {
        let mut rest = lines;
        if self.is_torn && !rest.is_empty() {
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
                    self.is_torn = bytes[written - 1] != b'\n';
                    return Ok(written);
                }
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
}
