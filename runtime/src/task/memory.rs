//! Where tasks lie: blocks of memory that a core keeps for the tasks to come.
//!
//! A core starts and ends tasks by the million, of few sizes. What an ended one leaves is kept for the next of its
//! size: a list per size, its links in the free blocks. Each block comes from the global allocator, with the layout of
//! its list, and may go back there from any thread.
//!
//! Invariants:
//! - A block in a list is in no use, has that list's size, and is in no other.
//! - A core that parks holds no more than [`KEPT`] bytes in a list: what is beyond has gone back to the allocator. While
//!   it has something to do it keeps what its tasks leave, for those that come next.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::Cell;
use std::fmt;
use std::mem::ManuallyDrop;
use std::pin::Pin;
use std::ptr::NonNull;

use super::cell::TaskObject;
use super::current;

/// The smallest size. It and the others are a word short of a multiple of the alignment, which is the word that
/// allocators such as glibc's keep beside a block.
const LEAST: usize = 24;

/// From one size to the next.
const STEP: usize = 16;

/// How many sizes are kept: up to a kibibyte.
const SIZES: usize = 64;

/// The alignment of what is kept.
const ALIGN: usize = 16;

/// Bytes of each size that a core keeps while it is parked.
const KEPT: usize = 1024 * 1024;

/// Blocks that go back to the allocator between two looks at what there is to do.
const SLICE: usize = 1024;

/// A task in its place, which it leaves when it is dropped.
pub(crate) struct TaskBox(NonNull<dyn TaskObject>);

/// Free blocks of one core, by size.
pub(crate) struct TaskMemory {
    lists: [List; SIZES],
    /// Some list may have more than its due.
    excess: Cell<bool>,
}

/// Free blocks of one size.
struct List {
    first: Cell<Option<NonNull<Free>>>,
    /// How many more there may be while the core is parked; below zero, how many are too many.
    room: Cell<isize>,
}

/// What lies in a block that is free.
struct Free {
    next: Option<NonNull<Self>>,
}

const _: () = assert!(size_of::<Free>() <= LEAST && align_of::<Free>() <= ALIGN);

/// Which list blocks of this layout are in, if they are kept.
#[inline]
fn list_of(layout: Layout) -> Option<usize> {
    let place = layout.size().saturating_sub(LEAST).div_ceil(STEP);
    (place < SIZES && layout.align() <= ALIGN).then_some(place)
}

/// How many blocks a list may have while the core is parked.
const fn most_of_place(place: usize) -> isize {
    (KEPT / size_of_place(place)) as isize
}

/// How large the blocks of a list are.
#[inline]
const fn size_of_place(place: usize) -> usize {
    LEAST + place * STEP
}

/// What all blocks of a list are allocated as.
#[inline]
fn layout_of(place: usize) -> Layout {
    let layout = Layout::from_size_align(size_of_place(place), ALIGN);
    layout.expect("a small size and a power of two")
}

/// Gives back a block that was taken for this layout.
struct GiveBack {
    block: NonNull<u8>,
    layout: Layout,
}

impl TaskBox {
    /// Puts a task into its place.
    #[inline]
    pub(crate) fn new<T: TaskObject + 'static>(object: T) -> Self {
        // Nothing fails from here on but for want of memory, which ends the process: a task that had to be dropped
        // then would be put together in memory first, and be read from there before it is written.
        let object = ManuallyDrop::new(object);
        let block = take(Layout::new::<T>()).cast::<T>();
        // SAFETY: the block has room for a `T`, is aligned for it, and nobody else knows of it.
        unsafe { block.write(ManuallyDrop::into_inner(object)) };
        Self(block)
    }

    /// Gives the place back, of a task whose output was taken: nothing is there that would have to be dropped.
    #[inline]
    pub(crate) fn leave(self) {
        let this = ManuallyDrop::new(self);
        // SAFETY: the task lies in its place, which nobody else reaches.
        let layout = Layout::for_value(unsafe { this.0.as_ref() });
        drop(GiveBack {
            block: this.0.cast(),
            layout,
        });
    }

    #[inline]
    pub(crate) fn as_mut(&mut self) -> Pin<&mut dyn TaskObject> {
        // SAFETY: the task lives until `drop`, and is reached through this owner alone.
        let object = unsafe { self.0.as_mut() };
        // SAFETY: it stays where it is until it is dropped there.
        unsafe { Pin::new_unchecked(object) }
    }
}

impl Drop for TaskBox {
    #[inline]
    fn drop(&mut self) {
        // SAFETY: the task lives until it is dropped in its place, below.
        let layout = Layout::for_value(unsafe { self.0.as_ref() });
        // Also if its destructor panics.
        let _give_back = GiveBack {
            block: self.0.cast(),
            layout,
        };
        // SAFETY: it is dropped once, by its owner.
        unsafe { self.0.drop_in_place() };
    }
}

impl fmt::Debug for TaskBox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TaskBox").finish_non_exhaustive()
    }
}

/// Returns a block for a value of this layout.
#[inline]
fn take(layout: Layout) -> NonNull<u8> {
    let Some(place) = list_of(layout) else {
        return allocate(layout);
    };
    current::try_with(|core| core.task_memory.lists[place].take())
        .flatten()
        .unwrap_or_else(|| allocate(layout_of(place)))
}

#[cold]
fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: no layout has a size of zero: a task has a state, and what is kept has some size.
    let block = unsafe { alloc(layout) };
    NonNull::new(block).unwrap_or_else(|| handle_alloc_error(layout))
}

impl Drop for GiveBack {
    #[inline]
    fn drop(&mut self) {
        let Some(place) = list_of(self.layout) else {
            // SAFETY: `take` has allocated it as this, and its value is gone.
            unsafe { dealloc(self.block.as_ptr(), self.layout) };
            return;
        };
        if current::try_with(|core| core.task_memory.keep(self.block, place)).is_none() {
            // SAFETY: `take` has allocated it as this, and its value is gone.
            unsafe { dealloc(self.block.as_ptr(), layout_of(place)) };
        }
    }
}

impl List {
    const fn new(place: usize) -> Self {
        Self {
            first: Cell::new(None),
            room: Cell::new(most_of_place(place)),
        }
    }

    #[inline]
    fn take(&self) -> Option<NonNull<u8>> {
        let block = self.first.get()?;
        // SAFETY: what is in the list was written there by `keep`, and is in no use.
        let free = unsafe { block.read() };
        self.first.set(free.next);
        self.room.set(self.room.get() + 1);
        Some(block.cast())
    }

    /// Keeps a block of this list's size.
    #[inline]
    fn keep(&self, block: NonNull<u8>) {
        let next = self.first.replace(Some(block.cast()));
        // SAFETY: the block is in no use, has room for this, and is aligned for it.
        unsafe { block.cast::<Free>().write(Free { next }) };
        self.room.set(self.room.get() - 1);
    }

    /// Returns whether this list has more than its due.
    #[inline]
    fn is_long(&self) -> bool {
        self.room.get() < 0
    }

    /// Returns how many blocks are in this list, at this place.
    fn kept(&self, place: usize) -> usize {
        (most_of_place(place) - self.room.get()) as usize
    }

    /// Gives a block back to the allocator; false if there is none.
    fn free(&self, place: usize) -> bool {
        let block = self.take();
        if let Some(block) = block {
            // SAFETY: all that is in a list was allocated with its layout, and is in no use.
            unsafe { dealloc(block.as_ptr(), layout_of(place)) };
        }
        block.is_some()
    }
}

impl TaskMemory {
    /// Keeps a block in the list at this place.
    #[inline]
    fn keep(&self, block: NonNull<u8>, place: usize) {
        let list = &self.lists[place];
        list.keep(block);
        if list.is_long() {
            self.excess.set(true);
        }
    }

    /// Returns whether more is kept than a parked core may.
    #[inline]
    pub(crate) fn has_excess(&self) -> bool {
        self.excess.get()
    }

    /// Gives a slice of that back.
    #[cold]
    pub(crate) fn trim(&self) {
        let mut left = SLICE;
        for (place, list) in self.lists.iter().enumerate() {
            while list.is_long() {
                if left == 0 {
                    return;
                }
                left -= 1;
                list.free(place);
            }
        }
        self.excess.set(false);
    }
}

impl Default for TaskMemory {
    fn default() -> Self {
        Self {
            lists: std::array::from_fn(List::new),
            excess: Cell::new(false),
        }
    }
}

impl fmt::Debug for TaskMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lists = self.lists.iter().enumerate();
        let kept = lists.map(|(place, list)| list.kept(place)).sum::<usize>();
        f.debug_struct("TaskMemory").field("kept", &kept).finish()
    }
}

impl Drop for TaskMemory {
    fn drop(&mut self) {
        for (place, list) in self.lists.iter().enumerate() {
            while list.free(place) {}
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::cell::RefCell;
    use std::future::pending;
    use std::hint::black_box;
    use std::rc::Rc;

    use super::*;
    use crate::panics::contained;
    use crate::task::cell::boxed;

    fn place_of(task: &TaskBox) -> *const u8 {
        task.0.as_ptr().cast_const().cast()
    }

    /// A task with so many bytes in it.
    fn task<const BYTES: usize>() -> TaskBox {
        task_with([1_u8; BYTES])
    }

    fn task_with<T: 'static>(value: T) -> TaskBox {
        boxed(async move {
            pending::<()>().await;
            black_box(&value);
        })
    }

    /// How many bytes lie in the longest list.
    fn most_kept() -> usize {
        current::with(|core| {
            let lists = core.task_memory.lists.iter().enumerate();
            let kept = lists.map(|(place, list)| list.kept(place) * size_of_place(place));
            kept.max().expect("there are lists")
        })
    }

    #[test]
    fn the_next_task_of_the_size_lies_where_one_has_ended() {
        crate::block_on(async {
            let ended = task::<100>();
            let place = place_of(&ended);
            drop(ended);
            let other_size = task::<200>();
            assert_ne!(place_of(&other_size), place);
            assert_eq!(place_of(&task::<100>()), place);
        })
        .expect("a core");
    }

    #[test]
    fn what_a_parked_core_keeps_has_a_bound() {
        crate::block_on(async {
            // More than a slice beyond the bound, of two sizes.
            let many = 2 * SLICE + KEPT / 900;
            let tasks: Vec<_> = (0..many).map(|_| [task::<900>(), task::<500>()]).collect();
            drop(tasks);
            assert!(most_kept() >= many * 900);
            // It parks when all of it has gone, and not before: on a machine that stalls the first sleeps end meanwhile.
            for _ in 0..1_000 {
                crate::time::sleep(std::time::Duration::from_millis(1))
                    .await
                    .expect("nobody cancels");
                if !current::with(|core| core.task_memory.has_excess()) {
                    break;
                }
            }
            let most = most_kept();
            assert!((KEPT - 1024..=KEPT).contains(&most), "{most}");
        })
        .expect("a core");
    }

    #[test]
    fn what_is_submitted_does_not_wait_for_memory_to_be_given_back() {
        crate::block_on(async {
            let (_reader, writer) = crate::op::pipe().expect("a pipe");
            let writer = crate::op::PipeWriter::new(writer).expect("signals can be blocked");
            let many = 8 * SLICE + KEPT / 900;
            let tasks: Vec<_> = (0..many).map(|_| task::<900>()).collect();
            drop(tasks);
            writer.write("x").await.0.expect("there is room");
            let most = most_kept();
            assert!(most > KEPT, "{most} are left when the answer comes");
        })
        .expect("a core");
    }

    #[test]
    fn sizes_and_alignments_beyond_are_the_allocators() {
        #[repr(align(64))]
        struct Line;
        crate::block_on(async {
            drop(task_with(Line));
            drop(task::<5_000>());
            current::with(|core| {
                let mut lists = core.task_memory.lists.iter().enumerate();
                assert!(lists.all(|(place, list)| list.kept(place) == 0));
            });
        })
        .expect("a core");
    }

    #[test]
    fn a_destructor_that_panics_keeps_no_memory() {
        struct Fails;
        impl Drop for Fails {
            fn drop(&mut self) {
                panic!("on purpose");
            }
        }
        crate::block_on(async {
            let fails = task_with(([0_u8; 100], Fails));
            let place = place_of(&fails);
            assert!(!contained(|| drop(fails)));
            assert_eq!(place_of(&task::<100>()), place);
        })
        .expect("a core");
    }

    /// A task of a size that starts two more while it is dropped, of sizes of their own, and looks whether its bytes
    /// are still what it has put there.
    struct Grows<const BYTES: usize> {
        bytes: [u8; BYTES],
        left: u8,
        started: Rc<RefCell<Vec<TaskBox>>>,
    }

    impl<const BYTES: usize> Drop for Grows<BYTES> {
        fn drop(&mut self) {
            assert!(self.bytes.iter().all(|&byte| byte == self.left));
            let Some(left) = self.left.checked_sub(1) else {
                return;
            };
            let small = grows::<24>(left, &self.started);
            let same = grows::<BYTES>(left, &self.started);
            self.started.borrow_mut().extend([small, same]);
            assert!(self.bytes.iter().all(|&byte| byte == self.left));
        }
    }

    fn grows<const BYTES: usize>(left: u8, started: &Rc<RefCell<Vec<TaskBox>>>) -> TaskBox {
        task_with(Grows {
            bytes: [left; BYTES],
            left,
            started: Rc::clone(started),
        })
    }

    #[test]
    fn tasks_that_are_started_while_others_are_dropped_lie_where_nobody_is() {
        crate::block_on(async {
            let started = Rc::default();
            let first = [
                grows::<1>(7, &started),
                grows::<200>(7, &started),
                grows::<1100>(7, &started),
            ];
            drop(first);
            let mut dropped = 0;
            loop {
                let half = started.borrow().len() / 2;
                let some = started.borrow_mut().split_off(half);
                if some.is_empty() {
                    break;
                }
                dropped += some.len();
                drop(some);
            }
            assert_eq!(dropped, 3 * ((1 << 8) - 2));
        })
        .expect("a core");
    }

    #[test]
    fn a_task_may_end_off_its_core() {
        let task = crate::block_on(async { task::<100>() }).expect("a core");
        drop(task);
    }
}
