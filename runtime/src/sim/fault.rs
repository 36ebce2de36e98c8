//! What can go wrong, how often, and where it is made to.
//!
//! A fault is something the real kernel or the world around it may do at any time. Each kind has a
//! rate, and draws from a stream of its own. Each can also be forced: at its n-th occasion, or at the
//! first occasion after the program has passed a named point.

use std::fmt;

use super::random::Stream;

macro_rules! faults {
    ($($(#[doc = $doc:literal])+ $name:ident = $rate:literal,)+) => {
        /// A kind of fault.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Fault {
            $($(#[doc = $doc])+ $name,)+
        }

        impl Fault {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name,)+];

            /// How often it comes in [`Faults::some`], of 65 536 occasions.
            const fn usual(self) -> u32 {
                match self {
                    $(Self::$name => $rate,)+
                }
            }
        }
    };
}

faults! {
    /// `io_uring_enter` is interrupted by a signal instead of waiting (`EINTR`).
    EnterInterrupted = 400,
    /// `io_uring_enter` has no memory for requests (`EAGAIN`).
    EnterAgain = 300,
    /// `io_uring_enter` takes nothing before completions are taken (`EBUSY`).
    EnterBusy = 300,
    /// `io_uring_enter` takes only some of the entries.
    PartialSubmit = 600,
    /// A wait in the kernel ends without a reason.
    SpuriousWake = 300,
    /// The submission queue has no room, whatever its size.
    SubmissionQueueFull = 600,
    /// The completion queue has no room, whatever its size: completions overflow.
    CompletionOverflow = 600,
    /// `io_uring_setup` is refused (`EPERM`, `ENOSYS`, `ENOMEM`).
    SetupRefused = 0,
    /// The ring of provided buffers is refused (`ENOMEM`).
    RegisterRefused = 0,
    /// A request takes its time.
    Delay = 3000,
    /// A request is left to a worker thread, and overtaken by others.
    Punt = 6000,
    /// Deferred work is not run all at once.
    HeldBack = 3000,
    /// A read or receive gives less than there is.
    ShortRead = 3000,
    /// A write or send takes less than there is room for.
    ShortWrite = 3000,
    /// A completion says that its request was interrupted: `EINTR`, or less than all was sent.
    CompletionInterrupted = 300,
    /// A multishot request ends early, with nothing but the missing "more" flag to tell.
    MultishotEnds = 1500,
    /// No provided buffer is to be had, though some lie there (`ENOBUFS`).
    NoBuffers = 600,
    /// A request that is asked to end goes through all the same, and the answer is "not found".
    CancelNotFound = 4000,
    /// A request that is asked to end goes through all the same: it was already running.
    CancelAlready = 4000,
    /// A request that is asked to end goes through all the same, and the answer says that it was
    /// ended.
    CancelledYetDone = 2000,
    /// The answer to a cancel request comes after the completion it caused.
    CancelAnsweredLast = 20000,
    /// A cancelled request takes its time to end.
    CancelledLate = 6000,
    /// The kernel keeps the memory of a zero-copy send for a while after it has told the result.
    LateNotification = 20000,
    /// A peer's machine resets the connection.
    PeerReset = 150,
    /// A peer vanishes without a word: no byte arrives any more, in either direction. Who has sent something is told
    /// after a quarter of an hour (`ETIMEDOUT`), and who keeps the connection alive as soon as that finds out.
    PeerVanishes = 0,
    /// A peer's machine takes nothing for a while.
    PeerStalls = 400,
    /// A connection is refused.
    ConnectRefused = 400,
    /// A connection cannot be made: unreachable, or no answer.
    ConnectUnreachable = 400,
    /// Bytes arrive one at a time.
    OneByteSegments = 600,
    /// Bytes arrive late.
    LateArrival = 3000,
    /// No descriptor is left for an accepted connection (`EMFILE`, `ENFILE`).
    AcceptNoDescriptor = 600,
    /// A connection was gone before it was accepted (`ECONNABORTED`).
    AcceptAborted = 600,
    /// Other failures of `accept(2)`: the network's, no memory.
    AcceptFails = 200,
    /// The listener's queue is full: connecting waits.
    BacklogFull = 600,
    /// No socket or pipe can be made: no descriptor, no memory.
    SocketRefused = 200,
    /// `recv(2)` fails without the peer's doing: no memory, or a time-out of the network.
    ReceiveFails = 150,
    /// `send(2)` fails without the peer's doing.
    SendFails = 150,
    /// A file cannot be read (`EIO`).
    ReadFails = 200,
    /// A file cannot be written (`EIO`, `ENOSPC`, `EDQUOT`).
    WriteFails = 400,
    /// A file cannot be opened: no descriptor, no memory, no permission.
    OpenFails = 400,
    /// What was written cannot be made durable (`EIO`, `ENOSPC`, `EDQUOT`).
    SyncFails = 600,
    /// Closing reports an error; the descriptor is closed all the same.
    CloseFails = 600,
    /// A file's status cannot be read.
    StatusFails = 300,
    /// Waiting for readiness fails (`ENOMEM`).
    PollFails = 200,
    /// A core gets no turn for a while.
    CoreStalls = 300,
    /// A parked core is woken late.
    LateWake = 2000,
    /// Others go on while a core that has found nothing to do is about to park.
    LastLook = 6000,
    /// A turn takes its time.
    SlowTurn = 2000,
    /// A core's mailbox is full.
    MailboxFull = 0,
    /// The call that wakes a parked core fails.
    WakeFails = 400,
    /// The wall clock is set.
    WallClockJumps = 400,
    /// A request ends as if it had been asked to, and it was not (`ECANCELED`): its descriptor's
    /// requests were, by somebody else.
    EndedByOthers = 0,
    /// No thread can be started for a blocking job (`EAGAIN`).
    ThreadRefused = 600,
    /// Somebody renames something while a path with `..` in it is walked beneath a folder: the kernel cannot tell
    /// whether it leads out (`EAGAIN`).
    RenamedMeanwhile = 0,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// How often each kind of fault comes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults {
    rates: Vec<u32>,
}

impl Default for Faults {
    fn default() -> Self {
        Self::none()
    }
}

impl Faults {
    /// None.
    pub fn none() -> Self {
        Self {
            rates: vec![0; Fault::ALL.len()],
        }
    }

    /// Everything that a program has to bear while its machine is in order, at rates that leave it
    /// room to get somewhere. Left out is what ends a program by rights, such as a ring that is
    /// refused.
    pub fn some() -> Self {
        Self {
            rates: Fault::ALL.iter().map(|fault| fault.usual()).collect(),
        }
    }

    /// What a program need not notice: order, delays, short transfers, interruptions, full queues. No
    /// operation fails that would not have failed without them.
    pub fn benign() -> Self {
        let mut faults = Self::some();
        for &fault in Fault::ALL {
            if fault.is_failure() {
                faults.rates[fault as usize] = 0;
            }
        }
        faults
    }

    /// Sets the rate of one kind: the share of its occasions, from 0 to 1.
    #[must_use]
    pub fn rate(mut self, fault: Fault, rate: f64) -> Self {
        self.rates[fault as usize] = (rate.clamp(0.0, 1.0) * 65_536.0) as u32;
        self
    }

    /// Returns the rate of one kind.
    pub fn rate_of(&self, fault: Fault) -> f64 {
        f64::from(self.rates[fault as usize]) / 65_536.0
    }

    /// Leaves one kind out.
    #[must_use]
    pub fn without(self, fault: Fault) -> Self {
        self.rate(fault, 0.0)
    }
}

impl Fault {
    /// Whether a program sees an operation fail.
    fn is_failure(self) -> bool {
        matches!(
            self,
            Self::SetupRefused
                | Self::RegisterRefused
                | Self::PeerReset
                | Self::PeerVanishes
                | Self::ConnectRefused
                | Self::ConnectUnreachable
                | Self::AcceptNoDescriptor
                | Self::AcceptAborted
                | Self::AcceptFails
                | Self::SocketRefused
                | Self::ReceiveFails
                | Self::SendFails
                | Self::ReadFails
                | Self::WriteFails
                | Self::OpenFails
                | Self::SyncFails
                | Self::CloseFails
                | Self::StatusFails
                | Self::PollFails
                | Self::MailboxFull
                | Self::EndedByOthers
                | Self::ThreadRefused
        )
    }
}

/// Where a fault is forced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Forced {
    /// At this occasion, counted from 0.
    Nth(u64),
    /// At the next occasion after the program has passed a point of this name.
    At(&'static str),
}

#[derive(Debug)]
struct Kind {
    rate: u32,
    stream: Stream,
    occasions: u64,
    fired: u64,
    forced: Vec<Forced>,
    /// Points have been passed for so many of them: to come at the next occasions.
    due: u64,
}

/// The faults of one run.
#[derive(Debug)]
pub(crate) struct FaultState {
    kinds: Vec<Kind>,
    quiet: bool,
}

impl FaultState {
    pub(crate) fn new(seed: u64, faults: &Faults, forced: &[(Fault, Forced)]) -> Self {
        let kinds = Fault::ALL
            .iter()
            .map(|&fault| Kind {
                rate: faults.rates[fault as usize],
                stream: Stream::new(seed, 1_000 + fault as u64),
                occasions: 0,
                fired: 0,
                forced: forced
                    .iter()
                    .filter(|(kind, _)| *kind == fault)
                    .map(|(_, place)| *place)
                    .collect(),
                due: 0,
            })
            .collect();
        Self {
            kinds,
            quiet: false,
        }
    }

    /// Says whether this kind of fault comes, now that there is an occasion for it.
    pub(crate) fn comes(&mut self, fault: Fault) -> bool {
        if self.quiet {
            return false;
        }
        let kind = &mut self.kinds[fault as usize];
        let occasion = kind.occasions;
        kind.occasions += 1;
        // Drawn in every case, so that forcing one does not shift the others.
        let mut comes = kind.rate > 0 && kind.stream.chance(kind.rate);
        if kind.due > 0 {
            kind.due -= 1;
            comes = true;
        } else if kind.forced.contains(&Forced::Nth(occasion)) {
            comes = true;
        }
        kind.fired += u64::from(comes);
        comes
    }

    /// Takes back that one has come: it comes at its next occasion.
    pub(crate) fn put_back(&mut self, fault: Fault) {
        let kind = &mut self.kinds[fault as usize];
        kind.occasions -= 1;
        kind.fired -= 1;
        kind.due += 1;
    }

    /// Draws a number for a fault that has come.
    pub(crate) fn draw(&mut self, fault: Fault, below: u64) -> u64 {
        self.kinds[fault as usize].stream.below(below)
    }

    /// The program passes a named point.
    pub(crate) fn pass(&mut self, point: &'static str) {
        for kind in &mut self.kinds {
            let here = |place: &&Forced| **place == Forced::At(point);
            kind.due += kind.forced.iter().filter(here).count() as u64;
        }
    }

    /// Lets one come at its next occasion.
    pub(crate) fn force(&mut self, fault: Fault) {
        self.kinds[fault as usize].due += 1;
    }

    /// Lets none come from now on.
    pub(crate) fn end(&mut self) {
        self.quiet = true;
    }

    /// Says how often each kind has come, and how often it could have.
    pub(crate) fn counts(&self) -> Vec<(Fault, u64, u64)> {
        let count = |(&fault, kind): (&Fault, &Kind)| (fault, kind.fired, kind.occasions);
        Fault::ALL.iter().zip(&self.kinds).map(count).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forced_fault_comes_at_its_occasion_and_no_other() {
        let forced = [(Fault::ShortRead, Forced::Nth(2))];
        let mut state = FaultState::new(1, &Faults::none(), &forced);
        let came: Vec<bool> = (0..5).map(|_| state.comes(Fault::ShortRead)).collect();
        assert_eq!(came, [false, false, true, false, false]);
        assert!(!state.comes(Fault::ShortWrite));
    }

    #[test]
    fn a_fault_at_a_point_comes_once_each_time_it_is_passed() {
        let forced = [(Fault::PeerReset, Forced::At("after the greeting"))];
        let mut state = FaultState::new(1, &Faults::none(), &forced);
        assert!(!state.comes(Fault::PeerReset));
        state.pass("elsewhere");
        assert!(!state.comes(Fault::PeerReset));
        state.pass("after the greeting");
        assert!(state.comes(Fault::PeerReset));
        assert!(!state.comes(Fault::PeerReset));
    }

    #[test]
    fn a_fault_that_is_put_back_comes_at_the_next_occasion_and_counts_once() {
        let forced = [(Fault::ShortRead, Forced::Nth(1))];
        let mut state = FaultState::new(1, &Faults::none(), &forced);
        assert!(!state.comes(Fault::ShortRead));
        assert!(state.comes(Fault::ShortRead));
        state.put_back(Fault::ShortRead);
        assert!(state.comes(Fault::ShortRead));
        assert!(!state.comes(Fault::ShortRead));
        assert!(state.counts().contains(&(Fault::ShortRead, 1, 3)));
    }

    #[test]
    fn each_kind_draws_from_a_stream_of_its_own() {
        let pattern = |faults: &Faults, others: bool| -> Vec<bool> {
            let mut state = FaultState::new(3, faults, &[]);
            (0..200)
                .map(|_| {
                    if others {
                        state.comes(Fault::Delay);
                    }
                    state.comes(Fault::ShortRead)
                })
                .collect()
        };
        let faults = Faults::some();
        assert_eq!(pattern(&faults, false), pattern(&faults, true));
    }
}
