//! `Target`: where the log goes, as it was said on the command line.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use super::output::Output;

/// A file, or standard output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    StandardOutput,
    File(PathBuf),
}

impl Target {
    /// `-` is standard output.
    pub(crate) fn new(path: PathBuf) -> Self {
        if path.as_os_str() == "-" {
            Self::StandardOutput
        } else {
            Self::File(path)
        }
    }

    pub(crate) fn is_file(&self) -> bool {
        matches!(self, Self::File(_))
    }

    /// Opens it, to write at its end. A file that is not there is made.
    pub(super) fn open(&self) -> io::Result<Output> {
        let file = match self {
            // Past the lock of the standard library, which a full pipe would keep from the others.
            Self::StandardOutput => io::stdout().as_fd().try_clone_to_owned().map(File::from),
            Self::File(path) => {
                // A pipe that is opened for writing alone holds us up until somebody reads. `fifo(7)`.
                let is_pipe = fs::metadata(path).is_ok_and(|found| found.file_type().is_fifo());
                let mut options = OpenOptions::new();
                options.append(true).create(!is_pipe).read(is_pipe);
                options.open(path)
            }
        };
        let file = file.map_err(|error| {
            let what = format!("cannot open the access log {self}: {error}");
            io::Error::new(error.kind(), what)
        })?;
        Ok(Output::new(Box::new(file)))
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StandardOutput => f.write_str("standard output"),
            Self::File(path) => path.display().fmt(f),
        }
    }
}
