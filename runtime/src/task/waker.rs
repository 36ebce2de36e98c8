//! Waking: an integer, from this core or any thread.
//!
//! The data of a task's waker is no pointer but the task's address packed into a word: core, slot,
//! generation. Clone is a copy and drop does nothing, so there is no count to overflow and nothing
//! that a forgotten waker keeps alive. A waker that outlived its task finds another generation and
//! does nothing.
//!
//! Nothing depends on recognising a waker by its vtable, whose address differs between codegen units: one that is
//! recognised is woken on a shorter way.

use std::num::{NonZeroU32, NonZeroU64};
use std::ptr;
use std::task::{RawWaker, RawWakerVTable, Waker};

use super::current;
use crate::mailbox;
use crate::panics::contained;

// Bits 0..28 generation, 28..52 slot, 52..64 core.
const GENERATION_BITS: u32 = 28;
const SLOT_BITS: u32 = 24;

/// The last generation that fits a waker; the first is one.
const LAST_GENERATION: u32 = (1 << GENERATION_BITS) - 1;

/// How many tasks a core may have at a time.
pub(crate) const MAX_TASKS: u32 = 1 << SLOT_BITS;

const _: () = assert!(
    usize::BITS == 64,
    "quoit needs 64-bit pointers: a waker is one word"
);
const _: () = assert!(mailbox::MAX_CORES <= 1 << (64 - GENERATION_BITS - SLOT_BITS));

/// A task's address, in the word that its waker is. None is zero, since no generation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TaskId(NonZeroU64);

impl TaskId {
    /// The first address of all.
    pub(crate) const FIRST: Self = Self(NonZeroU64::MIN);

    #[inline]
    pub(crate) fn new(core: u32, slot: u32, generation: NonZeroU32) -> Self {
        debug_assert!(slot < MAX_TASKS && generation.get() <= LAST_GENERATION);
        let place =
            u64::from(core) << (GENERATION_BITS + SLOT_BITS) | u64::from(slot) << GENERATION_BITS;
        Self(NonZeroU64::from(generation) | place)
    }

    #[inline]
    pub(crate) fn slot(self) -> u32 {
        slot_of(self.0.get())
    }

    #[inline]
    pub(crate) fn generation(self) -> u32 {
        generation_of(self.0.get())
    }

    /// Makes the waker of the task.
    #[inline]
    pub(crate) fn waker(self) -> Waker {
        let word = usize::try_from(self.0.get()).expect("64-bit targets only");
        // SAFETY: the functions of the vtable take the data as a number and touch no memory by it, so
        // the contract of `RawWaker` holds for any number, on any thread.
        unsafe { Waker::from_raw(RawWaker::new(ptr::without_provenance(word), &VTABLE)) }
    }
}

/// Returns the generation behind this one.
#[inline]
pub(crate) fn generation_after(generation: NonZeroU32) -> NonZeroU32 {
    NonZeroU32::new((generation.get() + 1) & LAST_GENERATION).unwrap_or(NonZeroU32::MIN)
}

/// Returns the task of this core that a waker wakes, if it is seen at a glance: the waker of another core, one of a
/// library, and our own with another copy of the vtable are not, and are woken as any waker is.
#[inline]
pub(crate) fn task_of(waker: &Waker, core: u32) -> Option<TaskId> {
    if !ptr::eq(waker.vtable(), &VTABLE) {
        return None;
    }
    let word = NonZeroU64::new(waker.data().addr() as u64)?;
    (core_of(word.get()) == core).then_some(TaskId(word))
}

/// Returns whether a waker wakes this task, if that is seen as by [`task_of`].
#[inline]
pub(crate) fn wakes(waker: &Waker, task: TaskId) -> bool {
    ptr::eq(waker.vtable(), &VTABLE) && waker.data().addr() as u64 == task.0.get()
}

#[inline]
fn core_of(word: u64) -> u32 {
    (word >> (GENERATION_BITS + SLOT_BITS)) as u32
}

#[inline]
fn slot_of(word: u64) -> u32 {
    (word >> GENERATION_BITS) as u32 & (MAX_TASKS - 1)
}

#[inline]
fn generation_of(word: u64) -> u32 {
    word as u32 & LAST_GENERATION
}

/// Wakes somebody from whatever thread. In foreign code no scope is active, and a panic of it is nobody's.
pub(crate) fn wake_from_anywhere(waker: Waker) {
    if ptr::eq(waker.vtable(), &VTABLE) {
        return waker.wake();
    }
    let mut left = Some(waker);
    current::try_with(|core| left.take().map(|waker| core.wake(waker)));
    if let Some(waker) = left {
        contained(|| waker.wake());
    }
}

static VTABLE: RawWakerVTable = RawWakerVTable::new(clone, wake, wake, drop);

fn clone(word: *const ()) -> RawWaker {
    RawWaker::new(word, &VTABLE)
}

fn drop(_: *const ()) {}

fn wake(word: *const ()) {
    let word = word.addr() as u64;
    let core = core_of(word);
    let slot = slot_of(word);
    let generation = generation_of(word);
    let local = current::try_with(|current| {
        let here = current.number() == core;
        if here {
            current.tasks.borrow_mut().wake(slot, generation);
        }
        here
    });
    if local != Some(true)
        && let Some(shared) = mailbox::core(core)
    {
        shared.wake_task(slot, generation);
    }
}
