//! What the programs here share: draws under the seed, bytes that are known again wherever they
//! turn up, and clients on cores of their own.

use std::net::SocketAddr;
use std::sync::OnceLock;
use std::time::Duration;

use bytes::Bytes;
use quoit::sim::{Fault, Faults, Sim};
use quoit::time::{Instant, sleep};
use quoit::{CoreId, Cores, RemoteHandle, Runtime};
pub(crate) use tests::at_most;

/// How much text there is.
const TEXT: usize = 1 << 21;

/// Whether operations may fail that would not have failed without the faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum World {
    /// They may not: everything must be as it should.
    Kind,
    /// They may: everything must be as it should, or an error.
    Harsh,
}

impl World {
    pub(crate) fn of(self, sim: Sim) -> Sim {
        let faults = match (self, sim.seed() % 3) {
            (Self::Kind, 0) => Faults::benign(),
            // A slow network.
            (Self::Kind, 1) => Faults::benign()
                .rate(Fault::LateArrival, 0.5)
                .rate(Fault::PeerStalls, 0.05)
                .rate(Fault::OneByteSegments, 0.05)
                .rate(Fault::BacklogFull, 0.1),
            // A kernel that does everything by halves.
            (Self::Kind, _) => Faults::benign()
                .rate(Fault::ShortRead, 0.3)
                .rate(Fault::ShortWrite, 0.3)
                .rate(Fault::CompletionInterrupted, 0.1)
                .rate(Fault::MultishotEnds, 0.2)
                .rate(Fault::NoBuffers, 0.1)
                .rate(Fault::HeldBack, 0.2),
            (Self::Harsh, 0) => Faults::some(),
            // A bad network.
            (Self::Harsh, 1) => Faults::some()
                .rate(Fault::PeerReset, 0.03)
                .rate(Fault::ReceiveFails, 0.01)
                .rate(Fault::SendFails, 0.01)
                .rate(Fault::ConnectRefused, 0.1),
            // A machine that has hardly anything left.
            (Self::Harsh, _) => Faults::some()
                .rate(Fault::AcceptNoDescriptor, 0.3)
                .rate(Fault::AcceptAborted, 0.1)
                .rate(Fault::AcceptFails, 0.1)
                .rate(Fault::SocketRefused, 0.05)
                .rate(Fault::OpenFails, 0.1)
                .rate(Fault::NoBuffers, 0.2)
                .rate(Fault::SubmissionQueueFull, 0.1)
                .rate(Fault::CompletionOverflow, 0.1),
        };
        sim.faults(faults)
    }

    /// Passes on what went well; an error is for a harsh world.
    #[track_caller]
    pub(crate) fn allows<T, E: std::fmt::Debug>(self, outcome: Result<T, E>) -> Option<T> {
        match outcome {
            Ok(value) => Some(value),
            Err(error) => {
                assert_eq!(self, Self::Harsh, "nothing may fail here: {error:?}");
                None
            }
        }
    }
}

/// Draws from `0..bound`.
pub(crate) fn below(bound: usize) -> usize {
    let drawn = quoit::random().expect("a simulation always has some");
    (drawn % bound as u64) as usize
}

/// Draws yes once in so many times.
pub(crate) fn one_in(times: usize) -> bool {
    below(times) == 0
}

/// Draws a size: mostly small, and now and then more than all buffers between two sockets hold.
pub(crate) fn size() -> usize {
    match below(8) {
        0 => 0,
        1..5 => 1 + below(2_000),
        5 | 6 => below(40_000),
        _ => below(300_000),
    }
}

/// Lets up to so many milliseconds pass.
pub(crate) async fn pause_up_to(milliseconds: usize) {
    let duration = Duration::from_micros(below(milliseconds * 1_000) as u64);
    // Cancelled, it only ends sooner.
    let _ = sleep(duration).await;
}

/// Returns a piece of a text in which no word comes twice. Pieces that begin elsewhere differ.
pub(crate) fn text(from: usize, length: usize) -> &'static [u8] {
    static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();
    let whole = WHOLE.get_or_init(|| {
        let mut whole = Vec::with_capacity(TEXT);
        for word in 0..(TEXT / 4) as u32 {
            whole.extend_from_slice(&word.wrapping_mul(0x9e37_79b1).to_le_bytes());
        }
        whole
    });
    let from = from % (TEXT / 2);
    &whole[from..from + length]
}

/// Draws a piece of the text.
pub(crate) fn some_text() -> Bytes {
    Bytes::from_static(text(below(TEXT / 2), size()))
}

/// Cores for clients, beside those of the server.
#[derive(Debug)]
pub(crate) struct Clients {
    runtime: Runtime,
    cores: Vec<CoreId>,
    running: Vec<RemoteHandle<()>>,
}

impl Clients {
    pub(crate) fn on(cores: usize) -> Self {
        let runtime = Runtime::builder()
            .cores(Cores::Count(cores))
            .build()
            .expect("no fault refuses a ring here");
        let cores = runtime.handle().cores();
        Self {
            runtime,
            cores,
            running: Vec::new(),
        }
    }

    /// Starts a client.
    pub(crate) fn start<F>(&mut self, client: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + 'static,
    {
        let core = self.cores[self.running.len() % self.cores.len()];
        let started = self.runtime.handle().spawn(core, client);
        self.running.push(started.expect("the mailbox has room"));
    }

    /// Waits until every client has ended.
    pub(crate) fn end(self) {
        for client in self.running {
            if let Err(error) = client.wait() {
                match error {
                    quoit::RemoteError::Panicked(panic) => std::panic::resume_unwind(panic),
                    _ => panic!("a client was lost: {error}"),
                }
            }
        }
        self.runtime.shutdown(Duration::ZERO);
    }
}

/// Lets virtual time pass on the program's own thread.
pub(crate) fn pass(duration: Duration) {
    quoit::block_on(sleep(duration))
        .expect("no fault refuses a ring here")
        .expect("nobody cancels the main future");
}

/// Returns how long `work` takes in virtual time.
pub(crate) fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let before = Instant::now();
    let value = work();
    (value, before.elapsed())
}

/// Where all servers here listen.
pub(crate) fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8080))
}
