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

use std::num::NonZeroU32;
use std::sync::OnceLock;
use std::time::Duration;

#[cfg(loom)]
use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use crate::time::Instant;

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

    #[inline]
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
pub(crate) struct WakeCell {
    generation: AtomicU32,
    link: Link,
}

impl WakeCell {
    /// Returns the generation to go on with. Owner only.
    pub(crate) fn generation(&self) -> NonZeroU32 {
        let generation = NonZeroU32::new(self.generation.load(Ordering::Relaxed));
        generation.expect("none is zero")
    }

    /// Publishes that the slot's task has ended. Owner only.
    #[inline]
    pub(crate) fn set_generation(&self, generation: NonZeroU32) {
        self.generation.store(generation.get(), Ordering::Relaxed);
    }
}

impl WakeCells {
    pub(crate) fn new() -> Self {
        Self {
            cells: Chunks::new(),
            queue: Queue::new(),
        }
    }

    /// Makes room for a task slot, and returns its cell. Owner only.
    pub(crate) fn ensure(&self, index: u32) -> &WakeCell {
        self.cells.ensure(index, || WakeCell {
            generation: AtomicU32::new(1),
            link: Link::new(),
        })
    }

    /// Returns whether a task has not ended, as far as this thread can tell.
    pub(crate) fn knows(&self, index: u32, generation: u32) -> bool {
        // Relaxed: a waker reached this thread after its task began, by whatever brought it here.
        self.cells
            .get(index)
            .is_some_and(|cell| cell.generation.load(Ordering::Relaxed) == generation)
    }

    /// Marks a task as woken. True if the owner has to be told that there is mail.
    pub(crate) fn wake(&self, index: u32) -> bool {
        self.cells
            .get(index)
            .is_some_and(|cell| self.queue.put(index, &cell.link))
    }

    #[inline]
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
    queues: BySender<Queue>,
}

/// Who sends: the thread that owns the cells, be it in a signal handler, or another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sender {
    Owner,
    Other,
}

/// One for the owner's own messages, and one for those of all others.
///
/// Between turning `queued` on and linking the cell a thread may be stopped, and whoever comes
/// meanwhile leaves the linking to it. What the owner tells itself must not wait for that: its next
/// op is to see it. So the owner waits for itself alone.
#[derive(Debug)]
struct BySender<T> {
    owner: T,
    other: T,
}

impl<T> BySender<T> {
    fn new(new: impl Fn() -> T) -> Self {
        Self {
            owner: new(),
            other: new(),
        }
    }

    fn of(&self, sender: Sender) -> &T {
        match sender {
            Sender::Owner => &self.owner,
            Sender::Other => &self.other,
        }
    }
}

/// Bits of `state`: 0..32 a word of the canceller's own or one that stands for the reason, 32 which
/// of the two, 33 whether the scope is cancelled, 34 whether the cancel has a grace of its own, 35 whether that is written
/// down, 36 whether the owner has cancelled, 37..64 the generation. One word, so that the first cause is decided, and
/// decided for the right scope, by one exchange. Cancelled and not written, without a grace, it has nothing to say: the
/// owner knows.
///
/// The graces and `deadline` carry a tag of the generation, so that whoever comes late writes into no
/// stranger's: see [`Tagged`].
#[derive(Debug)]
struct CancelCell {
    state: AtomicU64,
    graces: BySender<Tagged>,
    deadline: Tagged,
    links: BySender<Link>,
}

const OWN_WORD: u64 = 1 << 32;
const CANCELLED: u64 = 1 << 33;
const HAS_GRACE: u64 = 1 << 34;
const WRITTEN: u64 = 1 << 35;
const BY_OWNER: u64 = 1 << 36;
const GENERATION_SHIFT: u32 = 37;
/// The generation that no scope has: `announce` leaves it out.
const RETIRED: u64 = (1 << (64 - GENERATION_SHIFT)) - 1;

/// A number for the scope of one generation. Below 50 bits: 0 for none, or one more than the number;
/// above, the generation's last bits. A number for a scope that has gone finds another tag; one that
/// is 2^14 generations late, within one exchange, would not.
#[derive(Debug)]
struct Tagged(AtomicU64);

const TAG_SHIFT: u32 = 50;
/// The largest number that fits.
const LARGEST: u64 = (1 << TAG_SHIFT) - 2;

impl Tagged {
    fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    fn empty(generation: u64) -> u64 {
        generation << TAG_SHIFT
    }

    /// Empties it, for a new generation. Owner only.
    fn begin(&self, generation: u64) {
        self.0.swap(Self::empty(generation), Ordering::Relaxed);
    }

    /// Writes a number, unless the scope is another by now.
    fn write(&self, generation: u64, number: u64) -> bool {
        let empty = Self::empty(generation);
        let mut seen = self.0.load(Ordering::Relaxed);
        while seen >> TAG_SHIFT == empty >> TAG_SHIFT {
            let new = empty | (number.min(LARGEST) + 1);
            // Release: pairs with the Acquire in `take`.
            match self
                .0
                .compare_exchange_weak(seen, new, Ordering::Release, Ordering::Relaxed)
            {
                Ok(_) => return true,
                Err(now) => seen = now,
            }
        }
        false
    }

    /// Takes the number. Owner only.
    fn take(&self) -> Option<u64> {
        let mut seen = self.0.load(Ordering::Relaxed);
        loop {
            let number = (seen & (LARGEST + 1)).checked_sub(1)?;
            let empty = seen >> TAG_SHIFT << TAG_SHIFT;
            match self
                .0
                .compare_exchange_weak(seen, empty, Ordering::Acquire, Ordering::Relaxed)
            {
                Ok(_) => return Some(number),
                Err(now) => seen = now,
            }
        }
    }
}

/// What became of a message to a scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Delivered,
    Already,
    Gone,
}

/// A cancel, as it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Cancel {
    /// Why, in a word; the canceller's own if `is_own`.
    pub(crate) word: u32,
    pub(crate) is_own: bool,
    /// Of the scope, unless said otherwise.
    pub(crate) grace: Option<Duration>,
}

/// What the owner took out of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ScopeMail {
    pub(crate) index: u32,
    /// As cells know it: see [`ScopeMail::is_of`].
    generation: u64,
    pub(crate) cancel: Option<Cancel>,
    pub(crate) deadline: Option<Instant>,
}

impl ScopeMail {
    /// Returns whether it means the node of this generation.
    pub(crate) fn is_of(self, generation: u32) -> bool {
        self.generation == cell_generation(generation)
    }
}

fn cell_generation(generation: u32) -> u64 {
    u64::from(generation) % RETIRED
}

impl CancelCell {
    fn retired() -> Self {
        Self {
            state: AtomicU64::new(RETIRED << GENERATION_SHIFT),
            graces: BySender::new(Tagged::new),
            deadline: Tagged::new(),
            links: BySender::new(Link::new),
        }
    }

    /// Takes the cell for a node. Owner only; once or more per node.
    fn announce(&self, generation: u64) {
        if self.state.load(Ordering::Relaxed) >> GENERATION_SHIFT != generation {
            self.graces.other.begin(generation);
            self.deadline.begin(generation);
            // A store would do, since an exchange that began before cannot come after it. The models
            // know that of a swap alone.
            self.state
                .swap(generation << GENERATION_SHIFT, Ordering::Release);
        }
    }

    /// Closes the cell: whoever comes late finds the node gone. Owner only.
    fn retire(&self) {
        self.state
            .swap(RETIRED << GENERATION_SHIFT, Ordering::Release);
    }

    /// Marks the scope as cancelled; the first cause stays.
    ///
    /// The owner does not wait for one who has yet to write his grace down: of the two it is the first.
    fn cancel(&self, generation: u64, cancel: Cancel, sender: Sender) -> Sent {
        let marked = generation << GENERATION_SHIFT
            | CANCELLED
            | u64::from(cancel.word)
            | if cancel.is_own { OWN_WORD } else { 0 }
            | if sender == Sender::Owner { BY_OWNER } else { 0 }
            | cancel.grace.map_or(WRITTEN, |_| HAS_GRACE);
        let mut before = generation << GENERATION_SHIFT;
        // AcqRel: pairs with the Acquire in `read`.
        while let Err(seen) =
            self.state
                .compare_exchange(before, marked, Ordering::AcqRel, Ordering::Relaxed)
        {
            if seen >> GENERATION_SHIFT != generation {
                return Sent::Gone;
            }
            let is_being_written = seen & (HAS_GRACE | WRITTEN | BY_OWNER) == HAS_GRACE;
            if sender == Sender::Other || !is_being_written {
                return Sent::Already;
            }
            before = seen;
        }
        if let Some(grace) = cancel.grace {
            // Rounded up: less grace than was granted would be worse than more.
            let micros = grace.as_nanos().div_ceil(1000);
            if sender == Sender::Owner {
                // Who interrupts it here leaves this alone.
                self.graces.owner.begin(generation);
            }
            self.graces
                .of(sender)
                .write(generation, u64::try_from(micros).unwrap_or(LARGEST));
            let written = marked | WRITTEN;
            let told =
                self.state
                    .compare_exchange(marked, written, Ordering::AcqRel, Ordering::Relaxed);
            match told {
                Ok(_) => {}
                Err(seen) if seen >> GENERATION_SHIFT == generation => return Sent::Already,
                Err(_) => return Sent::Gone,
            }
        }
        Sent::Delivered
    }

    /// Returns whether it says that the scope is cancelled, and the owner has yet to read that.
    fn says_cancelled(&self) -> bool {
        let state = self.state.load(Ordering::Relaxed);
        state & (CANCELLED | WRITTEN) == CANCELLED | WRITTEN
    }

    /// Notes that the scope was cancelled without a message; one that was sent before stays. Owner only.
    fn note_cancelled(&self, generation: u64) {
        let before = generation << GENERATION_SHIFT;
        // Nothing is read because of it: a cancel without `WRITTEN` says nothing.
        let _ = self.state.compare_exchange(
            before,
            before | CANCELLED,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// Leaves a deadline; the last one counts.
    fn set_deadline(&self, generation: u64, deadline: Instant) -> Sent {
        let state = self.state.load(Ordering::Acquire);
        if state >> GENERATION_SHIFT != generation {
            return Sent::Gone;
        }
        if state & CANCELLED != 0 {
            // It is read before a cancel, and came after this one.
            return Sent::Already;
        }
        // In units of 1024 ns, rounded up: no deadline is early.
        let units = deadline.as_nanos().div_ceil(DEADLINE_UNIT);
        if self.deadline.write(generation, units) {
            Sent::Delivered
        } else {
            Sent::Gone
        }
    }

    /// Reads what has been said. Owner only.
    fn read(&self, index: u32) -> ScopeMail {
        let state = self.state.load(Ordering::Acquire);
        let generation = state >> GENERATION_SHIFT;
        let cancelled = state & (CANCELLED | WRITTEN) == CANCELLED | WRITTEN;
        let cancel = cancelled.then(|| {
            let sender = if state & BY_OWNER != 0 {
                Sender::Owner
            } else {
                Sender::Other
            };
            let has_grace = state & HAS_GRACE != 0;
            let grace = has_grace.then(|| self.graces.of(sender).take()).flatten();
            // Read once. As in `announce`, a store would do: what is written down nobody else changes.
            self.state.swap(
                generation << GENERATION_SHIFT | CANCELLED,
                Ordering::Relaxed,
            );
            Cancel {
                word: state as u32,
                is_own: state & OWN_WORD != 0,
                grace: grace.map(|micros| match micros {
                    LARGEST => Duration::MAX,
                    _ => Duration::from_micros(micros),
                }),
            }
        });
        let deadline = self.deadline.take().map(|units| {
            if units == LARGEST {
                Instant::NEVER
            } else {
                Instant::from_nanos(units.saturating_mul(DEADLINE_UNIT))
            }
        });
        ScopeMail {
            index,
            generation,
            cancel,
            deadline,
        }
    }
}

/// Nanoseconds.
const DEADLINE_UNIT: u64 = 1024;

impl BySender<Queue> {
    /// Links a cell, unless it stands there already by this sender.
    fn put(&self, index: u32, cell: &CancelCell, sender: Sender) {
        self.of(sender).put(index, cell.links.of(sender));
    }

    /// Each op asks: both at once, since no index has all its bits set.
    #[inline]
    fn is_empty(&self) -> bool {
        let [owner, other] =
            [&self.owner, &self.other].map(|queue| queue.head.load(Ordering::Relaxed));
        owner & other == END
    }

    /// Takes everything, the oldest of each sender first; a cell may be there twice.
    fn take_all<'a>(&self, into: &mut Vec<u32>, cell: impl Fn(u32) -> &'a CancelCell) {
        for sender in [Sender::Owner, Sender::Other] {
            self.of(sender)
                .take_all(into, |index| cell(index).links.of(sender));
        }
    }
}

impl CancelCells {
    pub(crate) fn new() -> Self {
        Self {
            cells: Chunks::new(),
            queues: BySender::new(Queue::new),
        }
    }

    /// Opens a node's cell for handles. Owner only; once or more per node.
    pub(crate) fn announce(&self, index: u32, generation: u32) {
        self.cells
            .ensure(index, CancelCell::retired)
            .announce(cell_generation(generation));
    }

    /// Closes all cells and forgets what is queued: a new life begins. Owner only.
    pub(crate) fn begin_life(&self) {
        self.take(&mut Vec::new(), |_| {});
        for cell in self.cells.all() {
            cell.retire();
        }
    }

    /// Closes a node's cell: handles find it gone. Owner only.
    pub(crate) fn retire(&self, index: u32) {
        if let Some(cell) = self.cells.get(index) {
            cell.retire();
        }
    }

    /// Notes that a node was cancelled without a message: handles find that. Owner only.
    pub(crate) fn note_cancelled(&self, index: u32, generation: u32) {
        if let Some(cell) = self.cells.get(index) {
            cell.note_cancelled(cell_generation(generation));
        }
    }

    /// Marks a scope as cancelled; the first cause stays.
    pub(crate) fn cancel(
        &self,
        index: u32,
        generation: u32,
        cancel: Cancel,
        sender: Sender,
    ) -> Sent {
        self.send(index, sender, |cell| {
            cell.cancel(cell_generation(generation), cancel, sender)
        })
    }

    /// Leaves a deadline for a scope; the last one counts.
    pub(crate) fn set_deadline(
        &self,
        index: u32,
        generation: u32,
        deadline: Instant,
        sender: Sender,
    ) -> Sent {
        self.send(index, sender, |cell| {
            cell.set_deadline(cell_generation(generation), deadline)
        })
    }

    fn send(&self, index: u32, sender: Sender, mark: impl FnOnce(&CancelCell) -> Sent) -> Sent {
        let Some(cell) = self.cells.get(index) else {
            return Sent::Gone;
        };
        let sent = mark(cell);
        // Whoever was first may have yet to link the cell. Its owner, told that, sees it at its next op all the same.
        let is_unseen = sent == Sent::Already && sender == Sender::Owner && cell.says_cancelled();
        if sent == Sent::Delivered || is_unseen {
            self.queues.put(index, cell, sender);
        }
        sent
    }

    #[inline]
    pub(crate) fn has_mail(&self) -> bool {
        !self.queues.is_empty()
    }

    /// Takes the mail, oldest first, calling `each`; a cell whose node has gone says nothing.
    /// Owner only.
    pub(crate) fn take(&self, scratch: &mut Vec<u32>, mut each: impl FnMut(ScopeMail)) {
        scratch.clear();
        self.queues.take_all(scratch, |index| {
            self.cells.get(index).expect("queued cells exist")
        });
        for &index in scratch.iter() {
            let cell = self.cells.get(index).expect("queued cells exist");
            let mail = cell.read(index);
            if mail.cancel.is_some() || mail.deadline.is_some() {
                each(mail);
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
        let generation = cells.ensure(70).generation().get();
        assert!(cells.knows(70, generation));
        assert!(
            !cells.knows(70, generation + 1) && !cells.knows(71, generation + 1),
            "another generation is a stranger"
        );
        assert!(cells.wake(70));
        assert!(!cells.wake(70));
        let mut woken = Vec::new();
        cells.take(&mut woken);
        assert_eq!(woken, [70]);
        assert!(!cells.has_mail());
        assert!(cells.wake(70), "taken out, it can be queued again");
    }

    #[test]
    fn messages_of_one_sender_keep_their_order() {
        let cells = WakeCells::new();
        for index in [3, 1, 2, 64, 200] {
            cells.ensure(index);
            cells.wake(index);
        }
        let mut woken = Vec::new();
        cells.take(&mut woken);
        assert_eq!(woken, [3, 1, 2, 64, 200]);
    }

    #[test]
    fn the_first_cause_of_a_cancel_stays() {
        let cells = CancelCells::new();
        cells.announce(5, 9);
        let first = Cancel {
            word: 7,
            is_own: true,
            grace: Some(Duration::from_millis(3)),
        };
        assert_eq!(cells.cancel(5, 9, first, Sender::Other), Sent::Delivered);
        assert_eq!(cells.cancel(5, 9, PLAIN, Sender::Other), Sent::Already);
        assert_eq!(cells.cancel(5, 8, PLAIN, Sender::Other), Sent::Gone);
        assert_eq!(
            taken(&cells),
            [ScopeMail {
                index: 5,
                generation: 9,
                cancel: Some(first),
                deadline: None,
            }]
        );
        cells.retire(5);
        assert_eq!(cells.cancel(5, 9, PLAIN, Sender::Other), Sent::Gone);
    }

    #[test]
    fn a_grace_without_end_has_none() {
        let cells = CancelCells::new();
        for (generation, grace) in [(9, Duration::MAX), (10, Duration::from_secs(1 << 24))] {
            cells.announce(5, generation);
            let cancel = Cancel {
                grace: Some(grace),
                ..PLAIN
            };
            cells.cancel(5, generation, cancel, Sender::Other);
            assert_eq!(taken(&cells)[0].cancel, Some(cancel));
            cells.retire(5);
        }
    }

    #[test]
    fn a_scope_that_was_cancelled_without_a_message_gets_none() {
        let cells = CancelCells::new();
        cells.announce(5, 9);
        let deadline = Instant::from_nanos(1 << 20);
        let sent = cells.set_deadline(5, 9, deadline, Sender::Other);
        assert_eq!(sent, Sent::Delivered);
        cells.note_cancelled(5, 9);
        let with_grace = Cancel {
            grace: Some(Duration::from_secs(1)),
            ..PLAIN
        };
        for cancel in [PLAIN, with_grace] {
            assert_eq!(cells.cancel(5, 9, cancel, Sender::Other), Sent::Already);
        }
        let late = cells.set_deadline(5, 9, deadline, Sender::Other);
        assert_eq!(late, Sent::Already);
        let mail = taken(&cells);
        assert_eq!((mail.len(), mail[0].cancel), (1, None));
        assert_eq!(mail[0].deadline, Some(deadline), "it was there before");
        assert!(!cells.has_mail());
        // One that came first stays, and the next scope knows of nothing.
        cells.announce(5, 10);
        assert_eq!(cells.cancel(5, 10, PLAIN, Sender::Other), Sent::Delivered);
        cells.note_cancelled(5, 10);
        assert_eq!(taken(&cells)[0].cancel, Some(PLAIN));
        cells.note_cancelled(5, 9);
        cells.announce(5, 11);
        cells.note_cancelled(5, 10);
        assert_eq!(cells.cancel(5, 11, PLAIN, Sender::Other), Sent::Delivered);
    }

    #[test]
    fn a_cancel_whose_scope_ended_says_nothing() {
        let cells = CancelCells::new();
        cells.announce(5, 9);
        cells.cancel(5, 9, PLAIN, Sender::Other);
        cells.set_deadline(5, 9, Instant::from_nanos(1), Sender::Other);
        cells.retire(5);
        cells.announce(5, 10);
        assert_eq!(taken(&cells), []);
        let late = Instant::from_nanos(1);
        assert_eq!(cells.set_deadline(5, 9, late, Sender::Other), Sent::Gone);
        assert_eq!(cells.cancel(5, 10, PLAIN, Sender::Other), Sent::Delivered);
    }

    #[test]
    fn of_several_deadlines_the_last_counts_and_none_is_early() {
        let cells = CancelCells::new();
        cells.announce(5, 9);
        for nanos in [5_000_000, 1_000_001] {
            let deadline = Instant::from_nanos(nanos);
            assert_eq!(
                cells.set_deadline(5, 9, deadline, Sender::Other),
                Sent::Delivered
            );
        }
        let mail = taken(&cells);
        let deadline = mail[0].deadline.expect("it was set").as_nanos();
        assert!((1_000_001..1_000_001 + DEADLINE_UNIT).contains(&deadline));
        assert_eq!((mail.len(), mail[0].cancel), (1, None));
        cells.set_deadline(5, 9, Instant::NEVER, Sender::Other);
        assert_eq!(taken(&cells)[0].deadline, Some(Instant::NEVER));
        assert_eq!(taken(&cells), []);
    }

    const PLAIN: Cancel = Cancel {
        word: 0,
        is_own: false,
        grace: None,
    };

    fn taken(cells: &CancelCells) -> Vec<ScopeMail> {
        let mut seen = Vec::new();
        cells.take(&mut Vec::new(), |mail| seen.push(mail));
        seen
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

    /// A cell with its queues, as one node after the other uses it.
    struct Cells {
        cell: CancelCell,
        queues: BySender<Queue>,
    }

    impl Cells {
        fn of(generation: u64) -> Arc<Self> {
            let cell = CancelCell::retired();
            cell.announce(generation);
            Arc::new(Self {
                cell,
                queues: BySender::new(Queue::new),
            })
        }

        /// As `CancelCells::cancel`.
        fn cancel(&self, generation: u64, word: u32, grace: Option<Duration>) -> Sent {
            self.cancel_as(Sender::Other, generation, word, grace)
        }

        /// As `CancelCells::cancel`, called by the owner.
        fn cancel_own(&self, generation: u64, word: u32, grace: Option<Duration>) -> Sent {
            self.cancel_as(Sender::Owner, generation, word, grace)
        }

        fn cancel_as(
            &self,
            sender: Sender,
            generation: u64,
            word: u32,
            grace: Option<Duration>,
        ) -> Sent {
            let cancel = Cancel {
                word,
                is_own: true,
                grace,
            };
            self.after(self.cell.cancel(generation, cancel, sender), sender)
        }

        /// As `CancelCells::set_deadline`.
        fn set_deadline(&self, generation: u64, deadline: Instant) -> Sent {
            self.after(self.cell.set_deadline(generation, deadline), Sender::Other)
        }

        fn after(&self, sent: Sent, sender: Sender) -> Sent {
            let is_unseen =
                sent == Sent::Already && sender == Sender::Owner && self.cell.says_cancelled();
            if sent == Sent::Delivered || is_unseen {
                self.queues.put(0, &self.cell, sender);
            }
            sent
        }

        /// As `CancelCells::take`: what it finds of this generation.
        fn take(&self, generation: u64) -> Option<ScopeMail> {
            let mut taken = Vec::new();
            self.queues.take_all(&mut taken, |_| &self.cell);
            taken.first()?;
            let mail = self.cell.read(0);
            (mail.generation == generation).then_some(mail)
        }
    }

    const LONG: Duration = Duration::from_millis(7);
    const SHORT: Duration = Duration::from_millis(3);

    /// Two cancel while the owner takes: one of them is the first, and the owner sees his word with
    /// his grace, once.
    #[test]
    fn loom_the_first_cause_wins_with_its_own_grace() {
        for other in [None, Some(SHORT)] {
            loom::model(move || {
                let cells = Cells::of(4);
                let cancellers: Vec<_> = [(1, Some(LONG)), (2, other)]
                    .into_iter()
                    .map(|(word, grace)| {
                        let cells = cells.clone();
                        loom::thread::spawn(move || cells.cancel(4, word, grace))
                    })
                    .collect();
                let seen = cells.take(4).and_then(|mail| mail.cancel);
                let mut sent = cancellers.into_iter().map(|sender| sender.join().unwrap());
                let sent = [sent.next(), sent.next()];
                let won = match sent {
                    [Some(Sent::Delivered), Some(Sent::Already)] => (1, Some(LONG)),
                    [Some(Sent::Already), Some(Sent::Delivered)] => (2, other),
                    other => panic!("{other:?}"),
                };
                let cancel = seen.or_else(|| cells.take(4).and_then(|mail| mail.cancel));
                let cancel = cancel.expect("a cancel was lost");
                assert_eq!((cancel.word, cancel.grace), won);
            });
        }
    }

    /// A scope is cancelled by itself while somebody else cancels it: either is the first, and the other is known not
    /// to be.
    #[test]
    fn loom_a_cancel_beside_the_scopes_own_is_first_or_already() {
        for grace in [None, Some(LONG)] {
            loom::model(move || {
                let cells = Cells::of(4);
                let canceller = {
                    let cells = cells.clone();
                    loom::thread::spawn(move || cells.cancel(4, 1, grace))
                };
                let before = cells.take(4).and_then(|mail| mail.cancel);
                cells.cell.note_cancelled(4);
                let sent = canceller.join().unwrap();
                let cancel = before.or_else(|| cells.take(4).and_then(|mail| mail.cancel));
                match sent {
                    Sent::Already => assert_eq!(cancel, None),
                    Sent::Delivered => {
                        let cancel = cancel.expect("a cancel was lost");
                        assert_eq!((cancel.word, cancel.grace), (1, grace));
                    }
                    Sent::Gone => panic!("it is there"),
                }
            });
        }
    }

    /// A scope is cancelled with a grace, and its deadline is moved, while it ends and another begins
    /// in its place: nothing of that is the other's, and what the other is told arrives.
    #[test]
    fn loom_what_comes_late_is_not_the_next_scopes() {
        loom::model(|| {
            let cells = Cells::of(4);
            let late = {
                let cells = cells.clone();
                loom::thread::spawn(move || {
                    cells.cancel(4, 1, Some(LONG));
                    cells.set_deadline(4, Instant::from_nanos(1));
                })
            };
            let before = cells.take(4);
            if let Some(cancel) = before.and_then(|mail| mail.cancel) {
                assert_eq!((cancel.word, cancel.grace), (1, Some(LONG)));
            }
            cells.cell.retire();
            cells.cell.announce(5);
            if let Some(mail) = cells.take(5) {
                assert_eq!((mail.cancel, mail.deadline), (None, None));
            }
            assert_eq!(cells.cancel_own(5, 2, Some(SHORT)), Sent::Delivered);
            // Whoever comes late may be about to link the cell; the owner does not wait for him.
            let mail = cells.take(5).expect("a cancel was lost");
            let cancel = mail.cancel.expect("a cancel was not seen at once");
            assert_eq!((cancel.word, cancel.grace), (2, Some(SHORT)));
            late.join().unwrap();
            let last = cells.take(5).and_then(|mail| mail.deadline);
            assert_eq!(mail.deadline.or(last), None);
        });
    }

    /// A scope that begins in the place of another is cancelled by somebody else, while the other is
    /// cancelled late: it has its own cause and its own grace.
    #[test]
    fn loom_a_cancel_reaches_the_scope_it_means() {
        for grace in [None, Some(SHORT)] {
            loom::model(move || {
                let cells = Cells::of(4);
                let late = {
                    let cells = cells.clone();
                    loom::thread::spawn(move || cells.cancel(4, 1, Some(LONG)))
                };
                cells.cell.retire();
                cells.cell.announce(5);
                let meant = {
                    let cells = cells.clone();
                    loom::thread::spawn(move || cells.cancel(5, 2, grace))
                };
                let seen = cells.take(5).and_then(|mail| mail.cancel);
                late.join().unwrap();
                assert_eq!(meant.join().unwrap(), Sent::Delivered);
                let cancel = seen.or_else(|| cells.take(5).and_then(|mail| mail.cancel));
                let cancel = cancel.expect("a cancel was lost");
                assert_eq!((cancel.word, cancel.grace), (2, grace));
            });
        }
    }

    /// The deadline is moved twice while the owner takes: the last that one thread said is the last
    /// that is seen.
    #[test]
    fn loom_the_last_deadline_counts() {
        loom::model(|| {
            let cells = Cells::of(4);
            let mover = {
                let cells = cells.clone();
                loom::thread::spawn(move || {
                    for unit in [5, 9] {
                        let deadline = Instant::from_nanos(unit * DEADLINE_UNIT);
                        assert_eq!(cells.set_deadline(4, deadline), Sent::Delivered);
                    }
                })
            };
            let first = cells.take(4).and_then(|mail| mail.deadline);
            mover.join().unwrap();
            let last = cells.take(4).and_then(|mail| mail.deadline).or(first);
            assert_eq!(last, Some(Instant::from_nanos(9 * DEADLINE_UNIT)));
        });
    }

    /// The owner cancels a scope whose deadline somebody else moves at that moment, and may not have
    /// linked yet: the owner's next look sees its own cancel, and a deadline that came before is not lost.
    #[test]
    fn loom_the_owner_sees_its_own_cancel_at_once() {
        loom::model(|| {
            let cells = Cells::of(4);
            let deadline = Instant::from_nanos(5 * DEADLINE_UNIT);
            let mover = {
                let cells = cells.clone();
                loom::thread::spawn(move || cells.set_deadline(4, deadline))
            };
            assert_eq!(cells.cancel_own(4, 2, None), Sent::Delivered);
            let mail = cells.take(4).expect("a cancel was lost");
            let cancel = mail.cancel.expect("a cancel was not seen at once");
            assert_eq!((cancel.word, cancel.grace), (2, None));
            let moved = mover.join().unwrap();
            let last = cells.take(4).and_then(|mail| mail.deadline);
            let expected = match moved {
                Sent::Delivered => Some(deadline),
                Sent::Already => None,
                Sent::Gone => panic!("the scope is there"),
            };
            assert_eq!(mail.deadline.or(last), expected);
        });
    }

    /// The owner cancels a scope while somebody else does, who may not have written his grace down or linked the cell:
    /// the owner's next look sees a cancel, of whoever was told that he was the first.
    #[test]
    fn loom_the_owner_sees_a_cancel_at_once_whoever_was_first() {
        for grace in [None, Some(LONG)] {
            for own in [None, Some(SHORT)] {
                loom::model(move || {
                    let cells = Cells::of(4);
                    let other = {
                        let cells = cells.clone();
                        loom::thread::spawn(move || cells.cancel(4, 1, grace))
                    };
                    let sent = cells.cancel_own(4, 2, own);
                    let mail = cells.take(4).expect("a cancel was not seen at once");
                    let cancel = mail.cancel.expect("a cancel was not seen at once");
                    let expected = match sent {
                        Sent::Delivered => (2, own),
                        Sent::Already => (1, grace),
                        Sent::Gone => panic!("the scope is there"),
                    };
                    assert_eq!((cancel.word, cancel.grace), expected);
                    let first = [sent, other.join().unwrap()];
                    assert!(
                        first == [Sent::Delivered, Sent::Already]
                            || first == [Sent::Already, Sent::Delivered],
                        "{first:?}"
                    );
                    let last = cells.take(4).and_then(|mail| mail.cancel);
                    assert_eq!(last, None, "it is said once");
                });
            }
        }
    }

    /// As `CoreShared::wake_task` does it: the word by which the core parks is full at first, and two wake, the same
    /// task or each its own, while the owner takes and parks.
    fn two_wake_by_word_and_queue(same: bool) {
        use super::super::park::{ParkWord, Wake};
        struct Both {
            park: ParkWord,
            queue: Queue,
            links: [Link; 2],
            said: [AtomicU32; 2],
        }
        impl Both {
            fn wake(&self, at: usize) -> bool {
                match self.park.leave_wake(5 + at as u32) {
                    Wake::Left { must_wake } => must_wake,
                    Wake::NoRoom => {
                        self.queue.put(at as u32, &self.links[at]) && self.park.must_wake()
                    }
                }
            }
            fn has(&self) -> bool {
                self.park.has_wakes() || !self.queue.is_empty()
            }
            fn take(&self) -> Vec<u32> {
                let mut all: Vec<_> = self.park.take_wakes().collect();
                if !self.queue.is_empty() {
                    let mut more = Vec::new();
                    self.queue
                        .take_all(&mut more, |index| &self.links[index as usize]);
                    all.extend(more.into_iter().map(|at| at + 5));
                }
                all
            }
        }
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(3);
        builder.check(move || {
            let both = Arc::new(Both {
                park: ParkWord::new(),
                queue: Queue::new(),
                links: [Link::new(), Link::new()],
                said: [AtomicU32::new(0), AtomicU32::new(0)],
            });
            both.park.leave_wake(0);
            both.park.leave_wake(1);
            let senders: Vec<_> = (0..2)
                .map(|own: usize| {
                    let both = both.clone();
                    loom::thread::spawn(move || {
                        both.said[own].store(1, Ordering::Relaxed);
                        both.wake(if same { 0 } else { own })
                    })
                })
                .collect();
            let mut seen = [false; 2];
            let mut look = || {
                let taken = both.take();
                for own in 0..2 {
                    if taken.contains(&(5 + if same { 0 } else { own as u32 })) {
                        let said = both.said[own].load(Ordering::Relaxed) == 1;
                        assert!(said || same);
                        seen[own] |= said;
                    }
                }
            };
            look();
            both.park.publish();
            let slept = !both.has();
            if !slept {
                both.park.withdraw();
            }
            let woken: usize = senders
                .into_iter()
                .map(|sender| usize::from(sender.join().unwrap()))
                .sum();
            assert!(woken <= 1, "woken twice");
            assert!(!slept || !both.has() || woken == 1, "parked over a wake");
            look();
            assert_eq!(seen, [true; 2], "lost");
            assert!(!both.has());
        });
    }

    #[test]
    fn loom_two_who_wake_the_same_by_word_or_queue_are_heard() {
        two_wake_by_word_and_queue(true);
    }

    #[test]
    fn loom_two_who_wake_by_word_or_queue_are_heard() {
        two_wake_by_word_and_queue(false);
    }
}
