//! What a server cannot tell any client, and tells its owner.

use std::fmt;
use std::io;
use std::iter;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::BoxError;
use crate::{Address, stdio};

/// Something went wrong, and the server goes on.
#[derive(Debug)]
#[non_exhaustive]
pub enum Trouble<'a> {
    /// No connection can be accepted now, for lack of descriptors or memory. They wait in the kernel
    /// until it is tried again.
    Accept {
        /// What the kernel said.
        error: &'a io::Error,
        /// When it is tried again.
        pause: Duration,
    },
    /// A connection ended early, and not because its client went away.
    Connection {
        /// Whose it was.
        peer: &'a Address,
        /// What was wrong.
        error: &'a BoxError,
    },
    /// A handler failed, and its client was answered with 500; or, in HTTP/2, the body of its answer, and the stream
    /// was reset. In HTTP/1 a body that fails takes its connection along, and that is told.
    Request {
        /// Whose request it was.
        peer: &'a Address,
        /// What it failed with.
        error: &'a BoxError,
    },
}

impl fmt::Display for Trouble<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept { error, pause } => {
                write!(f, "cannot accept: {error}; waiting {pause:?}")
            }
            Self::Connection { peer, error } => {
                write!(f, "the connection of {peer} ended early: ")?;
                write_with_causes(f, error)
            }
            Self::Request { peer, error } => {
                write!(f, "a request of {peer} failed: ")?;
                write_with_causes(f, error)
            }
        }
    }
}

/// Says what is behind an error as well, unless the error has said so: hyper's say no more than where it was.
fn write_with_causes(f: &mut fmt::Formatter<'_>, error: &BoxError) -> fmt::Result {
    let mut said = error.to_string();
    f.write_str(&said)?;
    let mut causes = iter::successors(error.source(), |&error| error.source());
    causes.try_for_each(|cause| {
        let cause = cause.to_string();
        if said.contains(&cause) {
            return Ok(());
        }
        write!(f, ": {cause}")?;
        said = cause;
        Ok(())
    })
}

/// Who is told.
#[derive(Clone)]
pub(super) struct Listener(Arc<dyn Fn(&Trouble<'_>) + Send + Sync>);

impl Listener {
    pub(super) fn new(listener: impl Fn(&Trouble<'_>) + Send + Sync + 'static) -> Self {
        Self(Arc::new(listener))
    }

    pub(super) fn tell(&self, trouble: &Trouble<'_>) {
        undisturbed(|| (self.0)(trouble));
    }
}

/// Tells somebody of something. A panic there is not the failure of what is told of; the panic hook has said it.
pub(super) fn undisturbed(tell: impl FnOnce()) {
    let _ = catch_unwind(AssertUnwindSafe(tell));
}

impl Default for Listener {
    fn default() -> Self {
        // Not `eprintln!`: on a core it waits for whoever reads, and panics once nobody does.
        Self::new(|trouble| stdio::stderr().write(format!("quoit: {trouble}\n")))
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Listener")
    }
}
