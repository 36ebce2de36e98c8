//! Ctrl-C: the first ends the turn that is taken and lets no other begin, so that there is a report of what was measured
//! before; the second ends the program at once.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::process;
use std::sync::Arc;
use std::thread;

use quoit::signal::{Signal, Signals};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::outcome::complain;

/// Tells whether somebody wants no more turns. As a descriptor it has something to be read from then on.
#[derive(Debug, Clone)]
pub struct Interrupt(Arc<OwnedFd>);

/// What a shell returns of a program that SIGINT has ended.
const ENDED: i32 = 128 + 2;

impl Interrupt {
    /// Listens from now on. To be called before other threads are started: those would be ended by the signal.
    ///
    /// # Errors
    ///
    /// Those of `pthread_sigmask(3)`, of `eventfd(2)`, and of starting a thread.
    pub fn listen() -> io::Result<Self> {
        let signals = Signals::block(&[Signal::Interrupt])?;
        let told = Arc::new(eventfd(0, EventfdFlags::CLOEXEC)?);
        let tells = Arc::clone(&told);
        thread::Builder::new()
            .name("interrupt".to_owned())
            .spawn(move || listen(&signals, &tells))?;
        Ok(Self(told))
    }

    /// Returns whether it came.
    #[must_use]
    pub fn came(&self) -> bool {
        let mut told = [PollFd::new(&self.0, PollFlags::IN)];
        poll(&mut told, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for Interrupt {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn listen(signals: &Signals, tells: &OwnedFd) {
    let told = signals.wait().and_then(|_| {
        complain("interrupted: the report is of what was measured; once more ends at once");
        rustix::io::write(tells, &1_u64.to_ne_bytes())?;
        signals.wait()
    });
    if let Err(error) = told {
        complain(format_args!("Ctrl-C cannot be waited for: {error}"));
    }
    // What was started ends with this program.
    process::exit(ENDED);
}
