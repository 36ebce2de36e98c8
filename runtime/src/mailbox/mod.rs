//! What other cores and threads tell this one.
//!
//! Cores share nothing but their inboxes, and an inbox has two doors:
//!
//! - The door without a lock or a limit, for what must never be lost or wait: task wakes and scope
//!   cancels. Its room exists beforehand: a cell per task and per scope ([`cells`]). A sender marks
//!   the cell and links it into the owner's queue, once; the first few wakes that a core has not seen
//!   need no cell, and go with the word by which it parks ([`park`]). That neither blocks nor
//!   allocates, so it works in a signal handler.
//! - The bounded door for closures ([`closures`]), which gives a closure back when it is full.
//!
//! A core looks at both every turn. A parked core is woken, a running one is not ([`park`]).
//!
//! The table here is the one global of the library: it maps a core's number to its shared part.
//! Entries are recycled and never freed, and generations go on across reuse, so a waker or handle
//! that outlived its runtime finds a stranger and does nothing.

pub(crate) mod cells;
pub(crate) mod closures;
pub(crate) mod park;

use std::io;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering, fence};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::driver::sys;
use crate::metrics::{Counters, Latencies, ParkedTime};
use crate::task::current;
use crate::time::Instant;
pub(crate) use cells::{Cancel, Sent, WakeCell};
use cells::{CancelCells, Sender, WakeCells};
use closures::ClosureQueue;
use park::{ParkWord, Wake};

/// How many cores one process may have at a time, over all its runtimes.
pub(crate) const MAX_CORES: usize = 1 << 12;

/// What other threads see of a core.
#[derive(Debug)]
pub(crate) struct CoreShared {
    number: u32,
    /// Which life of this entry it is: odd while a core lives in it.
    incarnation: AtomicU32,
    pub(crate) wakes: WakeCells,
    pub(crate) cancels: CancelCells,
    pub(crate) park: ParkWord,
    /// The life that is meant, above; below, 0 to run on, or one more than the grace period in
    /// milliseconds. In one word, so that nobody stops a life that came after the one he meant.
    stop: AtomicU64,
    /// The door for closures of the life that is meant.
    door: Mutex<Option<(u32, Arc<ClosureQueue>)>>,
    /// The cores that this one has tried in vain to wake, a bit each, and whether there are any. A
    /// signal handler may set them.
    unwoken: [AtomicU64; MAX_CORES / 64],
    any_unwoken: AtomicBool,
    eventfd: AtomicI32,
    /// The process that has made it.
    maker: AtomicU32,
    pub(crate) counters: Counters,
    pub(crate) latencies: Latencies,
    pub(crate) parked: ParkedTime,
    /// When a sender last went to wake the core; 0 if the core has seen that.
    woken_at: AtomicU64,
}

static TABLE: [OnceLock<Box<CoreShared>>; MAX_CORES] = [const { OnceLock::new() }; MAX_CORES];

/// Which numbers are taken. Locked when a core begins or ends, never by a running one.
static TAKEN: Mutex<Vec<bool>> = Mutex::new(Vec::new());

/// How often a sender tries to wake a core.
const WAKE_ATTEMPTS: u32 = 3;

/// A number of one's own, for as long as a core lives.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) shared: &'static CoreShared,
    recycle: bool,
    /// The entry's own eventfd, while a simulated one stands in for it.
    #[cfg(feature = "sim")]
    real_eventfd: Option<i32>,
}

impl Place {
    /// Takes the lowest free number.
    pub(crate) fn take() -> io::Result<Self> {
        let mut taken = TAKEN
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let number = taken
            .iter()
            .position(|&taken| !taken)
            .unwrap_or(taken.len());
        if number >= MAX_CORES {
            return Err(io::Error::other(format!(
                "a process has at most {MAX_CORES} cores at a time"
            )));
        }
        let shared = TABLE[number].get_or_init(|| Box::new(CoreShared::new(number as u32)));
        shared.see_to_eventfd()?;
        if number == taken.len() {
            taken.push(false);
        }
        taken[number] = true;
        // A life before has left its count, of which the new one would be told.
        sys::empty_eventfd(shared.eventfd());
        shared.take_unwoken(|_| {});
        shared.take_wakes(&mut Vec::new());
        shared.cancels.begin_life();
        let life = shared.incarnation.load(Ordering::Relaxed).wrapping_add(1);
        shared.stop.store(u64::from(life) << 32, Ordering::Relaxed);
        // Pairs with the fence in `is_or_was`: who sees a figure of the new life sees whose it is.
        fence(Ordering::Release);
        // Release: who sees the new life sees it with a clean slate.
        shared.incarnation.store(life, Ordering::Release);
        Ok(Self {
            shared,
            recycle: true,
            #[cfg(feature = "sim")]
            real_eventfd: None,
        })
    }

    /// In a simulation the core is woken by a channel of the simulated kernel.
    #[cfg(not(feature = "sim"))]
    #[expect(
        clippy::unused_self,
        clippy::needless_pass_by_ref_mut,
        reason = "there is none without the feature"
    )]
    pub(crate) fn join_simulation(&mut self) {}

    /// In a simulation the core is woken by a channel of the simulated kernel.
    #[cfg(feature = "sim")]
    pub(crate) fn join_simulation(&mut self) {
        if let Some(world) = crate::sim::world() {
            let simulated = world.eventfd();
            let real = self.shared.eventfd.swap(simulated, Ordering::AcqRel);
            self.real_eventfd = Some(real);
        }
    }

    /// Lets nobody have this number again: the kernel may still use what belongs to it.
    pub(crate) fn never_recycle(&mut self) {
        self.recycle = false;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.incarnation.fetch_add(1, Ordering::Release);
        #[cfg(feature = "sim")]
        if let Some(real) = self.real_eventfd {
            let simulated = self.shared.eventfd.swap(real, Ordering::AcqRel);
            if let Some(world) = crate::sim::world_of(simulated) {
                world.close_eventfd(simulated);
            }
        }
        if self.recycle {
            let mut taken = TAKEN
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            taken[self.shared.number as usize] = false;
        }
    }
}

/// A grace period of seven weeks, in milliseconds, and all that are longer: they end with the last task.
const NO_END: u32 = u32::MAX - 1;

/// Returns whether the core of this identity has ended.
pub(crate) fn has_ended(identity: u64) -> bool {
    let shared = core((identity >> 32) as u32);
    shared.is_none_or(|shared| shared.incarnation() != identity as u32)
}

/// Returns the shared part of a core.
pub(crate) fn core(number: u32) -> Option<&'static CoreShared> {
    TABLE.get(number as usize)?.get().map(|shared| &**shared)
}

impl CoreShared {
    fn new(number: u32) -> Self {
        Self {
            number,
            incarnation: AtomicU32::new(0),
            wakes: WakeCells::new(),
            cancels: CancelCells::new(),
            park: ParkWord::new(),
            stop: AtomicU64::new(0),
            door: Mutex::new(None),
            unwoken: [const { AtomicU64::new(0) }; MAX_CORES / 64],
            any_unwoken: AtomicBool::new(false),
            eventfd: AtomicI32::new(-1),
            maker: AtomicU32::new(0),
            counters: Counters::default(),
            latencies: Latencies::default(),
            parked: ParkedTime::default(),
            woken_at: AtomicU64::new(0),
        }
    }

    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Returns which life of this entry it is.
    pub(crate) fn incarnation(&self) -> u32 {
        self.incarnation.load(Ordering::Acquire)
    }

    /// Returns whether no other life has begun after this one. What was read of the core before is its own then.
    pub(crate) fn is_or_was(&self, incarnation: u32) -> bool {
        fence(Ordering::Acquire);
        self.stop.load(Ordering::Relaxed) >> 32 == u64::from(incarnation)
    }

    /// Wakes a task of this core, from any thread.
    pub(crate) fn wake_task(&self, index: u32, generation: u32) {
        if !self.wakes.knows(index, generation) {
            return;
        }
        match self.park.leave_wake(index) {
            Wake::Left { must_wake: false } => {}
            Wake::Left { must_wake: true } => self.wake_parked(),
            Wake::NoRoom => {
                if self.wakes.wake(index) {
                    self.rouse();
                }
            }
        }
    }

    /// Takes the slots of woken tasks, oldest first but for those that come meanwhile. Owner only.
    pub(crate) fn take_wakes(&self, into: &mut Vec<u32>) {
        into.extend(self.park.take_wakes());
        if self.wakes.has_mail() {
            self.wakes.take(into);
        }
    }

    /// Cancels a scope of this core, from any thread.
    pub(crate) fn send_cancel(
        &self,
        incarnation: u32,
        index: u32,
        generation: u32,
        cancel: Cancel,
    ) -> Sent {
        if self.incarnation() != incarnation {
            return Sent::Gone;
        }
        let sent = self
            .cancels
            .cancel(index, generation, cancel, self.sender());
        if sent == Sent::Delivered {
            self.rouse();
        }
        sent
    }

    /// Sets the deadline of a scope of this core, from any thread.
    pub(crate) fn send_deadline(
        &self,
        incarnation: u32,
        index: u32,
        generation: u32,
        deadline: Instant,
    ) -> Sent {
        if self.incarnation() != incarnation {
            return Sent::Gone;
        }
        let sent = self
            .cancels
            .set_deadline(index, generation, deadline, self.sender());
        if sent == Sent::Delivered {
            self.rouse();
        }
        sent
    }

    /// Returns who sends to this core from this thread.
    fn sender(&self) -> Sender {
        let own = current::try_with(|core| core.number() == self.number);
        if own == Some(true) {
            Sender::Owner
        } else {
            Sender::Other
        }
    }

    /// Asks the core to stop: its root scope is cancelled, and what has not ended when the grace
    /// period is over is dropped. Of several calls the shortest grace counts.
    pub(crate) fn ask_to_stop(&self, incarnation: u32, grace: Duration) {
        // Rounded up: less grace than was granted would be worse than more.
        let millis = grace.as_nanos().div_ceil(1_000_000);
        let millis = u32::try_from(millis).map_or(NO_END, |millis| millis.min(NO_END));
        let word = u64::from(incarnation) << 32 | u64::from(millis + 1);
        let asked = self
            .stop
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |old| {
                let ours = old >> 32 == u64::from(incarnation);
                (ours && (old as u32 == 0 || word < old)).then_some(word)
            });
        if asked.is_ok() {
            self.rouse();
        }
    }

    /// Returns the grace period, if the core was asked to stop. For who knows that its life goes on.
    pub(crate) fn asked_to_stop(&self) -> Option<Duration> {
        match self.stop.load(Ordering::Acquire) as u32 {
            0 => None,
            word if word - 1 == NO_END => Some(Duration::MAX),
            word => Some(Duration::from_millis(u64::from(word - 1))),
        }
    }

    /// Returns whether the core was asked to stop in this life; it was if that is over.
    pub(crate) fn was_asked_to_stop(&self, incarnation: u32) -> bool {
        let word = self.stop.load(Ordering::Acquire);
        word >> 32 != u64::from(incarnation) || word as u32 != 0
    }

    /// Opens the door for closures of this life; or closes it, with `None`. Owner only.
    pub(crate) fn set_door(&self, closures: Option<Arc<ClosureQueue>>) {
        let new = closures.map(|closures| (self.incarnation(), closures));
        let old = {
            let mut door = self
                .door
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            std::mem::replace(&mut *door, new)
        };
        drop(old);
    }

    /// Returns the door for closures of a life, if it goes on.
    pub(crate) fn mailbox(&self, incarnation: u32) -> Option<Arc<ClosureQueue>> {
        let door = self
            .door
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let (life, closures) = door.as_ref()?;
        (*life == incarnation).then(|| Arc::clone(closures))
    }

    /// Makes sure that the core looks at its inbox: wakes it if it is parked.
    #[inline]
    pub(crate) fn rouse(&self) {
        if self.park.must_wake() {
            self.wake_parked();
        }
    }

    /// Wakes a core that was parked, by whoever took that away.
    ///
    /// Where the call fails that wakes it, the message lies where it was put, and the core counts as
    /// parked still: the next sender wakes it; and a sender that is a core tries again at its next
    /// turn, and before it parks itself.
    #[cold]
    fn wake_parked(&self) {
        let now = Instant::now().as_nanos();
        self.woken_at.store(now, Ordering::Relaxed);
        for _ in 0..WAKE_ATTEMPTS {
            self.counters.wake_calls.add_shared(1);
            if sys::eventfd_add_one(self.eventfd.load(Ordering::Acquire)).is_ok() {
                return;
            }
            self.counters.failed_wakes.add_shared(1);
        }
        self.park.restore();
        current::try_with(|sender| {
            let bit = 1 << (self.number % 64);
            sender.shared.unwoken[self.number as usize / 64].fetch_or(bit, Ordering::Relaxed);
            sender.shared.any_unwoken.store(true, Ordering::Relaxed);
        });
    }

    /// Returns when a sender went to wake the core that has parked at `parked`, if one did. Owner only.
    pub(crate) fn take_woken_at(&self, parked: Instant) -> Option<Instant> {
        if self.woken_at.load(Ordering::Relaxed) == 0 {
            return None;
        }
        // What a sender writes in this moment is lost: a measurement, and no message.
        let at = Instant::from_nanos(self.woken_at.swap(0, Ordering::Relaxed));
        // An older one was for a park that ended by itself.
        (at >= parked).then_some(at)
    }

    /// Wakes the cores that this one has tried in vain to wake. Owner only.
    pub(crate) fn wake_the_unwoken(&self) {
        if self.any_unwoken.load(Ordering::Relaxed) {
            self.take_unwoken(Self::rouse);
        }
    }

    fn take_unwoken(&self, mut each: impl FnMut(&'static Self)) {
        // Looked at anew by whoever fails from here on.
        self.any_unwoken.store(false, Ordering::Relaxed);
        for (number, word) in (0..).step_by(64).zip(&self.unwoken) {
            let mut bits = word.swap(0, Ordering::Relaxed);
            while bits != 0 {
                each(core(number + bits.trailing_zeros()).expect("it was to be woken"));
                bits &= bits - 1;
            }
        }
    }

    /// Returns whether tasks were woken.
    #[inline]
    pub(crate) fn has_wakes(&self) -> bool {
        self.park.has_wakes() || self.wakes.has_mail()
    }

    pub(crate) fn eventfd(&self) -> i32 {
        self.eventfd.load(Ordering::Acquire)
    }

    /// Sees to it that there is an eventfd, of this process alone: one that was there before a `fork(2)` would wake the
    /// cores of both sides. For who takes the entry.
    fn see_to_eventfd(&self) -> io::Result<()> {
        let process = std::process::id();
        if self.maker.load(Ordering::Relaxed) != process {
            let others = self.eventfd.swap(sys::eventfd()?, Ordering::AcqRel);
            self.maker.store(process, Ordering::Relaxed);
            if others >= 0 {
                sys::close(others);
            }
        }
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Returns what an eventfd has been told, as the kernel says it.
    fn count(eventfd: i32) -> String {
        let info = std::fs::read_to_string(format!("/proc/self/fdinfo/{eventfd}"));
        let info = info.expect("it is open");
        let line = info.lines().find(|line| line.starts_with("eventfd-count"));
        let (_, count) = line.and_then(|line| line.split_once(':')).expect("a count");
        count.trim().to_owned()
    }

    #[test]
    fn the_shortest_grace_counts_and_the_longest_has_no_end() {
        let place = Place::take().expect("a free number");
        let (shared, life) = (place.shared, place.shared.incarnation());
        assert_eq!(shared.asked_to_stop(), None);
        for (grace, counts) in [
            (Duration::MAX, Duration::MAX),
            (Duration::from_nanos(1), Duration::from_millis(1)),
            (Duration::from_secs(1), Duration::from_millis(1)),
            (Duration::ZERO, Duration::ZERO),
            (Duration::MAX, Duration::ZERO),
        ] {
            shared.ask_to_stop(life, grace);
            assert_eq!(shared.asked_to_stop(), Some(counts));
        }
    }

    /// Else its first park would end for nothing.
    #[test]
    fn a_new_core_is_not_told_of_the_wakes_of_the_one_before() {
        let is_same = || {
            let before = Place::take().expect("a free number");
            let number = before.shared.number();
            let eventfd = before.shared.eventfd();
            sys::eventfd_add_one(eventfd).expect("there is room");
            assert_eq!(count(eventfd), "1");
            drop(before);
            let next = Place::take().expect("a free number");
            // Another test may have been faster.
            let is_same = next.shared.number() == number;
            if is_same {
                assert_eq!(count(next.shared.eventfd()), "0");
            }
            is_same
        };
        assert!((0..1000).any(|_| is_same()), "never the same number again");
    }
}
