//! Words for wakes and cancels: their room exists beforehand.
//!
//! A cell stands for one task slot or one scope node of a core. Cells lie in chunks that are
//! allocated by the owner when it first uses their index, and never moved or freed. A sender marks
//! the cell; if it was not queued yet, it links the cell into the owner's queue. The owner takes
//! the whole queue at once.
//!
//! Invariants:
//! - A cell stands in the queue at most once: who turns `queued` on links it, and only the owner
//!   turns it off, before it reads what the cell says. So nothing said after that read is missed.
//! - Marks of an older generation do nothing, but for a wake that races with the end of its task:
//!   that is one spurious poll.

use std::sync::OnceLock;

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

/// No index.
const END: u32 = u32::MAX;

/// A cell's place in the queue.
#[derive(Debug)]
pub(crate) struct Link {
    queued: AtomicBool,
    next: AtomicU32,
}

impl Link {
    fn new() -> Self {
        Self {
            queued: AtomicBool::new(false),
            next: AtomicU32::new(END),
        }
    }
}

/// A queue of cells by index: many put in, the owner takes all.
///
/// A stack underneath. There is no trouble with an index that left and came back in between (ABA):
/// nobody takes a single one.
#[derive(Debug)]
struct Queue {
    head: AtomicU32,
}

impl Queue {
    fn new() -> Self {
        Self {
            head: AtomicU32::new(END),
        }
    }

    /// Links a cell, unless it stands in the queue already. Returns whether it did.
    fn put(&self, index: u32, link: &Link) -> bool {
        // AcqRel: what was marked before is visible to the owner once it has turned `queued` off,
        // also where the link was made by somebody before us.
        if link.queued.swap(true, Ordering::AcqRel) {
            return false;
        }
        let mut head = self.head.load(Ordering::Relaxed);
        loop {
            link.next.store(head, Ordering::Relaxed);
            // Release: pairs with the Acquire in `take_all`, which then reads `next`.
            match self
                .head
                .compare_exchange_weak(head, index, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(seen) => head = seen,
            }
        }
    }

    fn is_empty(&self) -> bool {
        self.head.load(Ordering::Relaxed) == END
    }

    /// Takes everything, oldest first, into `into`; `link` finds a cell's link.
    fn take_all<'a>(&self, into: &mut Vec<u32>, link: impl Fn(u32) -> &'a Link) {
        let begin = into.len();
        // Acquire: pairs with the Release in `put`.
        let mut at = self.head.swap(END, Ordering::Acquire);
        while at != END {
            into.push(at);
            let link = link(at);
            at = link.next.load(Ordering::Relaxed);
            // From here on the cell may be queued again. AcqRel: what was marked before shows.
            link.queued.swap(false, Ordering::AcqRel);
        }
        into[begin..].reverse();
    }
}

/// Cells in chunks of doubling size, each allocated once.
#[derive(Debug)]
struct Chunks<C> {
    chunks: [OnceLock<Box<[C]>>; CHUNKS],
}

const FIRST_CHUNK: u32 = 64;
const CHUNKS: usize = 27;

impl<C> Chunks<C> {
    const fn new() -> Self {
        Self {
            chunks: [const { OnceLock::new() }; CHUNKS],
        }
    }

    /// Which chunk an index lies in, and where.
    fn locate(index: u32) -> (usize, usize) {
        let shifted = u64::from(index) + u64::from(FIRST_CHUNK);
        let chunk = shifted.ilog2() - FIRST_CHUNK.ilog2();
        (
            chunk as usize,
            (shifted - (u64::from(FIRST_CHUNK) << chunk)) as usize,
        )
    }

    fn get(&self, index: u32) -> Option<&C> {
        let (chunk, at) = Self::locate(index);
        self.chunks.get(chunk)?.get()?.get(at)
    }

    fn all(&self) -> impl Iterator<Item = &C> {
        self.chunks
            .iter()
            .filter_map(OnceLock::get)
            .flat_map(|chunk| chunk.iter())
    }

    /// Returns the cell, with room made for it. Only the owner calls this.
    fn ensure(&self, index: u32, new: impl Fn() -> C) -> &C {
        let (chunk, at) = Self::locate(index);
        let cells = self.chunks[chunk].get_or_init(|| {
            (0..(FIRST_CHUNK as usize) << chunk)
                .map(|_| new())
                .collect()
        });
        &cells[at]
    }
}

/// One cell per task slot.
#[derive(Debug)]
pub(crate) struct WakeCells {
    cells: Chunks<WakeCell>,
    queue: Queue,
}

#[derive(Debug)]
struct WakeCell {
    generation: AtomicU32,
    link: Link,
}

impl WakeCells {
    pub(crate) fn new() -> Self {
        Self {
            cells: Chunks::new(),
            queue: Queue::new(),
        }
    }

    /// Forgets what is queued: a new life begins. Owner only.
    pub(crate) fn begin_life(&self) {
        self.take(&mut Vec::new());
    }

    /// Makes room for a task slot; returns the generation to go on with. Owner only.
    pub(crate) fn ensure(&self, index: u32) -> u32 {
        let cell = self.cells.ensure(index, || WakeCell {
            generation: AtomicU32::new(0),
            link: Link::new(),
        });
        cell.generation.load(Ordering::Relaxed)
    }

    /// Publishes that the slot's task has ended. Owner only.
    pub(crate) fn set_generation(&self, index: u32, generation: u32) {
        if let Some(cell) = self.cells.get(index) {
            cell.generation.store(generation, Ordering::Relaxed);
        }
    }

    /// Marks a task as woken. True if the owner has to be told that there is mail.
    pub(crate) fn wake(&self, index: u32, generation: u32) -> bool {
        let Some(cell) = self.cells.get(index) else {
            return false;
        };
        // Relaxed: a waker reached this thread after its task began, by whatever brought it here.
        cell.generation.load(Ordering::Relaxed) == generation && self.queue.put(index, &cell.link)
    }

    pub(crate) fn has_mail(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes the woken tasks, oldest first. Owner only.
    pub(crate) fn take(&self, into: &mut Vec<u32>) {
        self.queue.take_all(into, |index| {
            &self.cells.get(index).expect("queued cells exist").link
        });
    }
}

/// One cell per scope node that has a handle.
#[derive(Debug)]
pub(crate) struct CancelCells {
    cells: Chunks<CancelCell>,
    queue: Queue,
}

/// Bits of `state`: 0..32 a word of the canceller's own, 32 whether there is one, 33 whether the
/// scope is cancelled, 34..64 the generation. One word, so that the first cause is decided, and
/// decided for the right scope, by one exchange.
#[derive(Debug)]
struct CancelCell {
    state: AtomicU64,
    link: Link,
}

const HAS_WORD: u64 = 1 << 32;
const CANCELLED: u64 = 1 << 33;
const GENERATION_SHIFT: u32 = 34;
/// The generation that no scope has: `announce` leaves it out.
const RETIRED: u64 = (1 << (64 - GENERATION_SHIFT)) - 1;

/// What became of a cancel that was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Delivered,
    Already,
    Gone,
}

/// A cancel that the owner took out of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RemoteCancel {
    pub(crate) index: u32,
    /// As cells know it: see [`RemoteCancel::is_of`].
    generation: u64,
    pub(crate) word: Option<u32>,
}

impl RemoteCancel {
    /// Returns whether it means the node of this generation.
    pub(crate) fn is_of(self, generation: u32) -> bool {
        self.generation == cell_generation(generation)
    }
}

fn cell_generation(generation: u32) -> u64 {
    u64::from(generation) % RETIRED
}

impl CancelCells {
    pub(crate) fn new() -> Self {
        Self {
            cells: Chunks::new(),
            queue: Queue::new(),
        }
    }

    /// Opens a node's cell for handles. Owner only; once or more per node.
    pub(crate) fn announce(&self, index: u32, generation: u32) {
        let retired = || CancelCell {
            state: AtomicU64::new(RETIRED << GENERATION_SHIFT),
            link: Link::new(),
        };
        let cell = self.cells.ensure(index, retired);
        let generation = cell_generation(generation);
        if cell.state.load(Ordering::Relaxed) >> GENERATION_SHIFT != generation {
            cell.state
                .store(generation << GENERATION_SHIFT, Ordering::Release);
        }
    }

    /// Closes all cells and forgets what is queued: a new life begins. Owner only.
    pub(crate) fn begin_life(&self) {
        self.take(&mut Vec::new(), |_| {});
        for cell in self.cells.all() {
            cell.state
                .store(RETIRED << GENERATION_SHIFT, Ordering::Release);
        }
    }

    /// Closes a node's cell: handles find it gone. Owner only.
    pub(crate) fn retire(&self, index: u32) {
        if let Some(cell) = self.cells.get(index) {
            cell.state
                .store(RETIRED << GENERATION_SHIFT, Ordering::Release);
        }
    }

    /// Marks a scope as cancelled; the first cause stays.
    pub(crate) fn cancel(&self, index: u32, generation: u32, word: Option<u32>) -> Sent {
        let Some(cell) = self.cells.get(index) else {
            return Sent::Gone;
        };
        let before = cell_generation(generation) << GENERATION_SHIFT;
        let after = before | CANCELLED | word.map_or(0, |word| HAS_WORD | u64::from(word));
        match cell
            .state
            .compare_exchange(before, after, Ordering::AcqRel, Ordering::Relaxed)
        {
            Ok(_) => {
                self.queue.put(index, &cell.link);
                Sent::Delivered
            }
            Err(seen) if seen >> GENERATION_SHIFT == before >> GENERATION_SHIFT => Sent::Already,
            Err(_) => Sent::Gone,
        }
    }

    pub(crate) fn has_mail(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Takes the cancels, oldest first, calling `each`; a cell whose node has gone says nothing.
    /// Owner only.
    pub(crate) fn take(&self, scratch: &mut Vec<u32>, mut each: impl FnMut(RemoteCancel)) {
        scratch.clear();
        self.queue.take_all(scratch, |index| {
            &self.cells.get(index).expect("queued cells exist").link
        });
        for &index in scratch.iter() {
            let state = self
                .cells
                .get(index)
                .expect("queued cells exist")
                .state
                .load(Ordering::Acquire);
            if state & CANCELLED != 0 {
                let word = (state & HAS_WORD != 0).then_some(state as u32);
                each(RemoteCancel {
                    index,
                    generation: state >> GENERATION_SHIFT,
                    word,
                });
            }
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn indexes_fill_the_chunks_without_a_gap() {
        let mut expected = (0, 0);
        for index in 0..100_000 {
            assert_eq!(Chunks::<u8>::locate(index), expected);
            expected.1 += 1;
            if expected.1 == (FIRST_CHUNK as usize) << expected.0 {
                expected = (expected.0 + 1, 0);
            }
        }
        assert!(Chunks::<u8>::locate(u32::MAX - 1).0 < CHUNKS);
    }

    #[test]
    fn a_task_woken_often_is_queued_once() {
        let cells = WakeCells::new();
        let generation = cells.ensure(70);
        assert!(cells.wake(70, generation));
        assert!(!cells.wake(70, generation));
        assert!(
            !cells.wake(70, generation + 1),
            "another generation is a stranger"
        );
        let mut woken = Vec::new();
        cells.take(&mut woken);
        assert_eq!(woken, [70]);
        assert!(!cells.has_mail());
        assert!(
            cells.wake(70, generation),
            "taken out, it can be queued again"
        );
    }

    #[test]
    fn messages_of_one_sender_keep_their_order() {
        let cells = WakeCells::new();
        for index in [3, 1, 2, 64, 200] {
            let generation = cells.ensure(index);
            cells.wake(index, generation);
        }
        let mut woken = Vec::new();
        cells.take(&mut woken);
        assert_eq!(woken, [3, 1, 2, 64, 200]);
    }

    #[test]
    fn the_first_cause_of_a_cancel_stays() {
        let cells = CancelCells::new();
        cells.announce(5, 9);
        assert_eq!(cells.cancel(5, 9, Some(7)), Sent::Delivered);
        assert_eq!(cells.cancel(5, 9, None), Sent::Already);
        assert_eq!(cells.cancel(5, 8, None), Sent::Gone);
        let mut seen = Vec::new();
        cells.take(&mut Vec::new(), |cancel| seen.push(cancel));
        assert_eq!(
            seen,
            [RemoteCancel {
                index: 5,
                generation: 9,
                word: Some(7)
            }]
        );
        cells.retire(5);
        assert_eq!(cells.cancel(5, 9, None), Sent::Gone);
    }

    #[test]
    fn a_cancel_whose_scope_ended_says_nothing() {
        let cells = CancelCells::new();
        cells.announce(5, 9);
        cells.cancel(5, 9, None);
        cells.retire(5);
        cells.announce(5, 10);
        cells.take(&mut Vec::new(), |cancel| {
            panic!("{cancel:?} hit a stranger")
        });
        assert_eq!(cells.cancel(5, 10, None), Sent::Delivered);
    }
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    /// Two senders mark the same cell while the owner takes: at the end both marks were seen.
    #[test]
    fn loom_every_mark_is_taken() {
        loom::model(|| {
            let shared = Arc::new((Queue::new(), Link::new(), AtomicU32::new(0)));
            let senders: Vec<_> = (0..2)
                .map(|sender| {
                    let shared = shared.clone();
                    loom::thread::spawn(move || {
                        let (queue, link, marks) = &*shared;
                        marks.fetch_or(1 << sender, Ordering::Relaxed);
                        queue.put(0, link);
                    })
                })
                .collect();
            let (queue, link, marks) = &*shared;
            let mut seen = 0;
            let mut look = || {
                let mut taken = Vec::new();
                queue.take_all(&mut taken, |_| link);
                if !taken.is_empty() {
                    seen |= marks.load(Ordering::Relaxed);
                }
            };
            look();
            for sender in senders {
                sender.join().unwrap();
            }
            look();
            assert_eq!(seen, 0b11);
            assert!(queue.is_empty());
        });
    }

    /// Two cells, put by two senders while the owner takes: each is taken, none twice at a time.
    #[test]
    fn loom_links_of_two_cells_hold() {
        loom::model(|| {
            let shared = Arc::new((Queue::new(), [Link::new(), Link::new()]));
            let senders: Vec<_> = (0..2)
                .map(|cell| {
                    let shared = shared.clone();
                    loom::thread::spawn(move || {
                        let (queue, links) = &*shared;
                        queue.put(cell as u32, &links[cell]);
                    })
                })
                .collect();
            let (queue, links) = &*shared;
            let mut taken = Vec::new();
            queue.take_all(&mut taken, |index| &links[index as usize]);
            for sender in senders {
                sender.join().unwrap();
            }
            queue.take_all(&mut taken, |index| &links[index as usize]);
            taken.sort_unstable();
            assert_eq!(taken, [0, 1]);
        });
    }
}
