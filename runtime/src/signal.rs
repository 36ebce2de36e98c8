//! Signals, as messages instead of interruptions.
//!
//! A signal that is *blocked* waits until somebody asks for it. Block the signals early in `main`,
//! before any other thread is started, so that every thread inherits that; then wait for them, on a
//! thread of your own or on a core. quoit itself never touches a signal unless asked here.

use std::fmt;
use std::io;

use crate::driver::{self, sys};
use crate::op::{self, SharedFd};

/// A signal that a program may wait for. `signal(7)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM: please end.
    Terminate,
    /// SIGHUP: the terminal went away, or read the configuration again.
    HangUp,
    /// SIGQUIT.
    Quit,
    /// SIGUSR1.
    User1,
    /// SIGUSR2.
    User2,
}

const KNOWN: [(Signal, i32, &str); 6] = [
    (Signal::Interrupt, libc::SIGINT, "SIGINT"),
    (Signal::Terminate, libc::SIGTERM, "SIGTERM"),
    (Signal::HangUp, libc::SIGHUP, "SIGHUP"),
    (Signal::Quit, libc::SIGQUIT, "SIGQUIT"),
    (Signal::User1, libc::SIGUSR1, "SIGUSR1"),
    (Signal::User2, libc::SIGUSR2, "SIGUSR2"),
];

impl Signal {
    pub(crate) fn number(self) -> i32 {
        self.row().1
    }

    fn of(number: i32) -> Option<Self> {
        KNOWN.iter().find(|row| row.1 == number).map(|row| row.0)
    }

    fn row(self) -> &'static (Self, i32, &'static str) {
        KNOWN
            .iter()
            .find(|row| row.0 == self)
            .expect("every signal has a row")
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.row().2)
    }
}

/// Signals that are blocked, and so can be waited for.
#[derive(Debug, Clone)]
pub struct Signals {
    numbers: Vec<i32>,
}

impl Signals {
    /// Blocks these signals for the calling thread and those it starts from now on.
    ///
    /// # Errors
    ///
    /// Those of `pthread_sigmask(3)`; `Unsupported` in a simulation, whose kernel knows no signals.
    pub fn block(signals: &[Signal]) -> io::Result<Self> {
        not_simulated()?;
        let numbers: Vec<i32> = signals.iter().map(|signal| signal.number()).collect();
        sys::block_signals(&numbers)?;
        Ok(Self { numbers })
    }

    /// Waits for one of them, on a thread that has nothing else to do: it blocks. `sigwait(3)`.
    ///
    /// # Errors
    ///
    /// Those of `sigwait(3)`; `WouldBlock` on a core's own thread, `Unsupported` in a simulation.
    pub fn wait(&self) -> io::Result<Signal> {
        not_simulated()?;
        if crate::CoreId::current().is_some() {
            let what = "a core cannot block to wait for a signal: await Signals::stream";
            return Err(io::Error::new(io::ErrorKind::WouldBlock, what));
        }
        loop {
            if let Some(signal) = Signal::of(sys::wait_for_signal(&self.numbers)?) {
                return Ok(signal);
            }
        }
    }

    /// Opens them as a stream, to be read on a core. `signalfd(2)`.
    ///
    /// # Errors
    ///
    /// Those of `signalfd(2)`; `Unsupported` in a simulation.
    pub fn stream(&self) -> io::Result<SignalStream> {
        not_simulated()?;
        let fd = sys::signal_descriptor(&self.numbers)?;
        Ok(SignalStream {
            fd: sys::owned(fd).into(),
        })
    }
}

/// Signals as they come in.
#[derive(Debug)]
pub struct SignalStream {
    fd: SharedFd,
}

impl SignalStream {
    /// Waits for the next signal. Cancelled or dropped, it takes none.
    ///
    /// # Errors
    ///
    /// [`Cancelled`](crate::Cancelled), and those of `signalfd(2)`.
    pub async fn next(&self) -> io::Result<Signal> {
        loop {
            // Waiting and taking are two steps, and the second takes no time: a wait that is given up takes nothing.
            op::poll(&self.fd, libc::POLLIN as u32).await?;
            let taken = sys::take_signal(self.fd.open_number()?)?;
            if let Some(signal) = taken.and_then(Signal::of) {
                return Ok(signal);
            }
        }
    }
}

/// Fails in a simulation, which no signal of the machine reaches.
fn not_simulated() -> io::Result<()> {
    if driver::is_simulated() {
        let what = "the simulated kernel knows no signals: do there what yours ask for, such as a shutdown, by `sim::after`";
        return Err(io::Error::new(io::ErrorKind::Unsupported, what));
    }
    Ok(())
}
