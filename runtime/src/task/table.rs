//! The tasks of a core, and which of them are ready to run.
//!
//! ```text
//!            spawn           begin              put back
//!  (vacant) ──────► idle ───────────► running ───────────► idle
//!                                        │ end
//!                                        ▼      output taken, or nobody will
//!                                      ended ─────────────────────────────────► (vacant)
//! ```
//!
//! Invariants:
//! - A task stands in the run queue at most once, be it among those that are ready or behind them, as one that has
//!   yielded; a slot that still stands there is not reused.
//! - A slot's generation goes on when its task is gone, here and in the cell that other threads
//!   see, and it goes on across the lives of a core.

use std::num::NonZeroU32;
use std::task::Poll;

use super::memory::TaskBox;
use super::probe::{Probe, Probing};
use super::queue::{Entry, RunQueue, make_room};
use super::waker::{MAX_TASKS, TaskId, generation_after};
use crate::driver::table::Table;
use crate::mailbox::{CoreShared, WakeCell};
use crate::scope::tree::{NodeId, ParkId};
use crate::slab::LowestFree;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Vacant,
    /// The task of `block_on`, whose future lies on the loop's stack.
    Main,
    Idle,
    Running,
    Ended,
}

struct Slot {
    object: Option<TaskBox>,
    /// Of a task that is new, the one that its own will lie under.
    node: NodeId,
    generation: NonZeroU32,
    state: State,
    /// It has no node: nobody has asked for one, and it has not been polled, or not to the end of its first poll.
    is_new: bool,
    /// It stands in the run queue, or behind all that are ready there, until [`TaskTable::resume`].
    queued: bool,
    /// Somebody has a handle and may still want the output.
    wanted: bool,
    joiner: Option<ParkId>,
    /// Where other threads wake it.
    cell: &'static WakeCell,
}

impl Slot {
    /// Keeps the task, which was taken to be polled: there is none that would have to be dropped.
    #[inline(always)]
    fn put(&mut self, object: TaskBox) {
        let polled = self.object.replace(object);
        debug_assert!(polled.is_none(), "it was polled");
        std::mem::forget(polled);
    }

    /// Its task is gone, here and for other threads.
    #[inline(always)]
    fn vacate(&mut self) {
        self.state = State::Vacant;
        self.generation = generation_after(self.generation);
        self.cell.set_generation(self.generation);
    }
}

/// What the loop takes out of the run queue: to be polled, and put back or ended.
pub(crate) struct Next {
    pub(crate) id: TaskId,
    pub(crate) of: Owner,
    /// `None` is the task of `block_on`.
    pub(crate) object: Option<TaskBox>,
    pub(crate) is_measured: bool,
}

/// The node that a task runs under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Itself(NodeId),
    /// The one that its own will lie under: it is new.
    Above(NodeId),
}

/// What the end of a task leaves to do.
pub(crate) struct AfterEnd {
    /// Nobody wants the output: to be dropped where no borrow is held.
    pub(crate) unwanted: Option<TaskBox>,
    /// Who waits for the end.
    pub(crate) joiner: Option<ParkId>,
}

/// What a handle finds that has not been told to wait for its task.
pub(crate) enum Unwaited {
    /// The task has ended, and is taken, for its output; none, if the end of the core has dropped it.
    Ended(Option<TaskBox>),
    /// It has not.
    Runs,
    /// It has been told so: this is the wait.
    Waited(ParkId),
}

/// What the end of a core finds.
pub(crate) enum Left {
    /// A task that has not ended.
    Task {
        id: TaskId,
        node: NodeId,
        object: TaskBox,
    },
    /// An output that nobody has taken.
    Output(TaskBox),
}

/// All tasks of one core.
pub(crate) struct TaskTable {
    shared: &'static CoreShared,
    /// The core's number.
    core: u32,
    slots: Table<Slot>,
    free: LowestFree,
    ready: RunQueue,
    /// Those that let others go first.
    yielded: Vec<Entry>,
    live: u32,
    /// How many of those are new.
    new: u32,
    /// How many slots it may have.
    most: u32,
    probing: Probing,
}

impl std::fmt::Debug for TaskTable {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TaskTable")
            .field("live", &self.live)
            .field("ready", &self.ready.len())
            .finish_non_exhaustive()
    }
}

impl TaskTable {
    pub(crate) fn new(shared: &'static CoreShared) -> Self {
        Self {
            core: shared.number(),
            shared,
            slots: Table::new(),
            free: LowestFree::default(),
            ready: RunQueue::default(),
            yielded: Vec::new(),
            live: 0,
            new: 0,
            most: MAX_TASKS,
            probing: Probing::default(),
        }
    }

    /// Has no more slots than now.
    #[cfg(test)]
    pub(crate) fn stop_growing(&mut self) {
        self.most = self.slots.len() as u32;
    }

    /// Puts a task into the slot that was reserved for it, ready to run.
    #[inline]
    pub(crate) fn insert(&mut self, slot: u32, object: TaskBox, node: NodeId) -> TaskId {
        let id = self.occupy(slot, Some(object), (node, false), State::Idle);
        self.live += 1;
        id
    }

    /// As [`TaskTable::insert`], of a task that has no node yet: one below `parent`.
    #[inline]
    pub(crate) fn insert_new(&mut self, slot: u32, object: TaskBox, parent: NodeId) -> TaskId {
        let id = self.occupy(slot, Some(object), (parent, true), State::Idle);
        self.live += 1;
        self.new += 1;
        id
    }

    /// As [`TaskTable::insert_new`], of a task that is polled by its maker, who puts it back or ends it.
    #[inline]
    pub(crate) fn insert_running(&mut self, slot: u32, parent: NodeId) -> TaskId {
        let id = self.occupy(slot, None, (parent, true), State::Running);
        self.live += 1;
        self.new += 1;
        id
    }

    /// Notes the node of a task that was new.
    pub(crate) fn opened(&mut self, slot: u32, node: NodeId) {
        let slot = &mut self.slots[slot as usize];
        debug_assert!(slot.is_new, "a task has one node");
        slot.is_new = false;
        slot.node = node;
        self.new -= 1;
    }

    /// Returns how many tasks have no node.
    #[inline]
    pub(crate) fn new_ones(&self) -> u32 {
        self.new
    }

    /// Returns the slots of tasks without a node that nobody polls, each with the node that its own will lie under.
    pub(crate) fn unpolled(&self) -> Vec<(u32, NodeId)> {
        let slot = |entry: &Entry| &self.slots[entry.slot() as usize];
        // From behind: whoever asks after each start comes upon the last, and does not go through all that are ready.
        let found = self.ready.last_of(self.new as usize, |entry| {
            let slot = slot(entry);
            slot.is_new && slot.state == State::Idle
        });
        let parent_of = |entry: Entry| (entry.slot(), slot(&entry).node);
        found.into_iter().map(parent_of).collect()
    }

    /// As [`TaskTable::insert`], of the task of `block_on`.
    pub(crate) fn insert_main(&mut self, slot: u32, node: NodeId) -> TaskId {
        self.occupy(slot, None, (node, false), State::Main)
    }

    /// Removes the task of `block_on`.
    pub(crate) fn remove_main(&mut self, id: TaskId) {
        let slot = &mut self.slots[id.slot() as usize];
        slot.state = State::Ended;
        slot.wanted = false;
        self.free_if_done(id.slot());
    }

    /// Makes a task ready, if it is this one and does not stand in the queue already; true if it did.
    #[inline]
    pub(crate) fn wake(&mut self, slot: u32, generation: u32) -> bool {
        let entry = self.enqueue(slot, generation);
        if let Some(entry) = entry {
            self.ready.push(entry);
        }
        entry.is_some()
    }

    /// As [`TaskTable::wake`], behind all that are ready, and those that will be before [`TaskTable::resume`].
    #[cold]
    pub(crate) fn wake_last(&mut self, id: TaskId) {
        let entry = self.enqueue(id.slot(), id.generation());
        self.yielded.extend(entry);
    }

    #[inline(always)]
    fn enqueue(&mut self, slot: u32, generation: u32) -> Option<Entry> {
        let found = self.slots.get_mut(slot as usize)?;
        let alive = matches!(found.state, State::Idle | State::Running | State::Main);
        let joins = found.generation.get() == generation && alive && !found.queued;
        joins.then(|| {
            found.queued = true;
            Entry::new(slot, self.probing.note(slot))
        })
    }

    /// Returns whether tasks have yielded that were not resumed.
    #[inline]
    pub(crate) fn has_yielded(&self) -> bool {
        !self.yielded.is_empty()
    }

    /// Makes ready who has yielded; false if nobody has.
    #[inline]
    pub(crate) fn resume(&mut self) -> bool {
        match self.yielded[..] {
            [] => return false,
            [alone] => {
                self.ready.append_one(alone);
                self.yielded.clear();
            }
            _ => self.ready.append(&mut self.yielded),
        }
        true
    }

    /// Makes ready whichever task has the slot now: the sender's cell compared the generations.
    pub(crate) fn wake_slot(&mut self, slot: u32) -> bool {
        self.slots
            .get(slot as usize)
            .map(|found| found.generation.get())
            .is_some_and(|generation| self.wake(slot, generation))
    }

    /// Returns whether the slot has a task that has not ended.
    #[cfg(feature = "sim")]
    pub(crate) fn is_alive(&self, slot: u32) -> bool {
        self.slots
            .get(slot as usize)
            .is_some_and(|found| matches!(found.state, State::Idle | State::Running | State::Main))
    }

    /// Returns whether somebody has a handle of a task and may still want its output.
    pub(crate) fn is_wanted(&self, id: TaskId) -> bool {
        self.find(id).is_some_and(|slot| slot.wanted)
    }

    /// Returns whether a task stands in the run queue, or is gone.
    pub(crate) fn is_queued(&self, id: TaskId) -> bool {
        self.find(id).is_none_or(|slot| slot.queued)
    }

    /// Returns how many slots are not vacant.
    #[cfg(feature = "sim")]
    pub(crate) fn occupied(&self) -> u32 {
        self.free.handed_out()
    }

    /// Returns how many tasks stand in the run queue.
    pub(crate) fn ready(&self) -> usize {
        self.ready.len()
    }

    /// Takes the ready task in this place of the queue; the first, unless somebody wants to see what another order does.
    #[inline(always)]
    pub(crate) fn next_ready(&mut self, mut place: usize) -> Option<Next> {
        loop {
            let entry = match std::mem::take(&mut place) {
                0 => self.ready.pop()?,
                place => self.ready.remove(place)?,
            };
            let index = entry.slot();
            let slot = &mut self.slots[index as usize];
            slot.queued = false;
            if slot.state == State::Idle {
                slot.state = State::Running;
            } else if slot.state != State::Main {
                self.pass_over(entry);
                continue;
            }
            return Some(Next {
                id: TaskId::new(self.core, index, slot.generation),
                of: match slot.is_new {
                    false => Owner::Itself(slot.node),
                    true => Owner::Above(slot.node),
                },
                object: slot.object.take(),
                is_measured: entry.is_measured(),
            });
        }
    }

    /// Returns whether no task stands in the run queue.
    #[inline(always)]
    pub(crate) fn is_nobody_queued(&self) -> bool {
        self.yielded.is_empty() && self.ready.is_empty()
    }

    /// Takes note that a task is polled again which has yielded and need not stand in the queue. Returns whether it is
    /// measured.
    #[inline]
    pub(crate) fn goes_on(&mut self, id: TaskId) -> bool {
        self.probing.note(id.slot())
    }

    /// Leaves out a task that ended while it stood in the queue.
    #[cold]
    fn pass_over(&mut self, entry: Entry) {
        let slot = &self.slots[entry.slot() as usize];
        assert!(
            slot.state == State::Ended,
            "a task that runs has left the queue, and a vacant slot never joins it"
        );
        if entry.is_measured() {
            self.probing.take(entry.slot());
        }
        self.free_if_done(entry.slot());
    }

    /// Returns what is to be measured of a task that is.
    pub(crate) fn take_probe(&mut self, id: TaskId) -> Option<Probe> {
        self.probing.take(id.slot())
    }

    /// Chooses which of the tasks that will become ready after a park is measured.
    pub(crate) fn plan_probe(&mut self) {
        self.probing.park();
    }

    /// Puts a polled task back; behind those that are ready, if it `yields` and has not been woken. Returns whether it
    /// stands in the queue.
    #[inline(always)]
    pub(crate) fn put_back(&mut self, id: TaskId, object: TaskBox, yields: bool) -> bool {
        let slot = &mut self.slots[id.slot() as usize];
        slot.state = State::Idle;
        slot.put(object);
        if yields && !slot.queued {
            slot.queued = true;
            let is_measured = self.probing.note(id.slot());
            self.yielded.push(Entry::new(id.slot(), is_measured));
            return true;
        }
        slot.queued
    }

    /// Records that a task ended; its output stays if somebody may want it.
    #[inline(always)]
    pub(crate) fn end(&mut self, id: TaskId, object: TaskBox) -> AfterEnd {
        self.live -= 1;
        let slot = &mut self.slots[id.slot() as usize];
        self.new -= u32::from(slot.is_new);
        slot.is_new = false;
        slot.state = State::Ended;
        // It stays: if a cancel came first, the joiner has still to be told why.
        let joiner = slot.joiner;
        if slot.wanted {
            slot.put(object);
            return AfterEnd {
                unwanted: None,
                joiner,
            };
        }
        if !slot.queued {
            slot.vacate();
            self.free.give_back(id.slot());
        }
        AfterEnd {
            unwanted: Some(object),
            joiner,
        }
    }

    /// Takes all tasks that have not ended out of the table, to be ended by the caller, and all
    /// outputs that nobody has taken. Nothing is ready any more.
    pub(crate) fn take_all(&mut self) -> Vec<Left> {
        self.ready.append(&mut self.yielded);
        while let Some(entry) = self.ready.pop() {
            self.slots[entry.slot() as usize].queued = false;
            // It is not polled any more: whoever has the slot next is not taken for it.
            if entry.is_measured() {
                self.probing.take(entry.slot());
            }
            self.free_if_done(entry.slot());
        }
        let mut left = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate() {
            let Some(object) = slot.object.take() else {
                continue;
            };
            left.push(match slot.state {
                State::Idle => {
                    slot.state = State::Running;
                    let id = TaskId::new(self.core, index as u32, slot.generation);
                    Left::Task {
                        id,
                        node: slot.node,
                        object,
                    }
                }
                _ => Left::Output(object),
            });
        }
        left
    }

    /// Returns the node of a task that has not ended, and whether that is the one above, of a new task.
    pub(crate) fn node_of(&self, id: TaskId) -> Option<(NodeId, bool)> {
        let slot = self.find(id)?;
        (slot.state != State::Ended).then_some((slot.node, slot.is_new))
    }

    /// Returns whether a task has ended.
    pub(crate) fn has_ended(&self, id: TaskId) -> bool {
        self.find(id).is_none_or(|slot| slot.state == State::Ended)
    }

    /// Takes a task that has ended, for its output, and the wait for that; pending if it has not. Its handle asks, which
    /// keeps its slot, until it has been given that. No task, if the end of the core has dropped it.
    #[inline(always)]
    pub(crate) fn take_ended(&mut self, id: TaskId) -> Poll<(Option<TaskBox>, Option<ParkId>)> {
        let slot = &mut self.slots[id.slot() as usize];
        assert!(
            slot.generation.get() == id.generation(),
            "a handle keeps its slot"
        );
        if slot.state != State::Ended {
            return Poll::Pending;
        }
        let joiner = slot.joiner.take();
        let object = slot.object.take();
        self.leave_ended(id.slot());
        Poll::Ready((object, joiner))
    }

    /// As [`TaskTable::take_ended`], where nobody waits for the end.
    #[inline(always)]
    pub(crate) fn take_unwaited(&mut self, id: TaskId) -> Unwaited {
        let slot = &mut self.slots[id.slot() as usize];
        assert!(
            slot.generation.get() == id.generation(),
            "a handle keeps its slot"
        );
        if let Some(park) = slot.joiner {
            return Unwaited::Waited(park);
        }
        if slot.state != State::Ended {
            return Unwaited::Runs;
        }
        let object = slot.object.take();
        self.leave_ended(id.slot());
        Unwaited::Ended(object)
    }

    /// Gives up the slot of a task that has ended and was taken.
    #[inline(always)]
    fn leave_ended(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        slot.wanted = false;
        if !slot.queued {
            slot.vacate();
            self.free.give_back(index);
        }
    }

    /// Returns the wait for the end of a task whose handle asks.
    #[inline]
    pub(crate) fn joiner(&self, id: TaskId) -> Option<ParkId> {
        let slot = &self.slots[id.slot() as usize];
        debug_assert_eq!(
            slot.generation.get(),
            id.generation(),
            "a handle keeps its slot"
        );
        slot.joiner
    }

    /// Notes whom to tell of the end.
    pub(crate) fn set_joiner(&mut self, id: TaskId, joiner: Option<ParkId>) {
        let slot = &mut self.slots[id.slot() as usize];
        debug_assert_eq!(
            slot.generation.get(),
            id.generation(),
            "a handle keeps its slot"
        );
        slot.joiner = joiner;
    }

    /// Notes that nobody will ask for the output; returns it if it is there.
    #[inline(always)]
    pub(crate) fn detach(&mut self, id: TaskId) -> Option<TaskBox> {
        let slot = &mut self.slots[id.slot() as usize];
        debug_assert_eq!(
            slot.generation.get(),
            id.generation(),
            "a handle keeps its slot"
        );
        slot.wanted = false;
        slot.joiner = None;
        if slot.state != State::Ended {
            return None;
        }
        let output = slot.object.take();
        self.free_if_done(id.slot());
        output
    }

    pub(crate) fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Returns how many tasks have not ended.
    pub(crate) fn live(&self) -> u32 {
        self.live
    }

    /// Returns the task that has the slot now, and whether it stands in the run queue.
    pub(crate) fn standing(&self, slot: u32) -> Option<(TaskId, bool)> {
        let found = self.slots.get(slot as usize)?;
        let id = TaskId::new(self.core, slot, found.generation);
        Some((id, found.queued))
    }

    /// Takes a slot for a task, which is put there next.
    #[inline(always)]
    pub(crate) fn reserve(&mut self) -> u32 {
        match self.free.take_near() {
            Some(index) => index,
            None => self.take_further_up(),
        }
    }

    /// Takes the first slot that is free, and makes more if none is.
    #[cold]
    fn take_further_up(&mut self) -> u32 {
        self.free.take().unwrap_or_else(|| self.grow())
    }

    #[inline(always)]
    fn occupy(
        &mut self,
        index: u32,
        object: Option<TaskBox>,
        (node, is_new): (NodeId, bool),
        state: State,
    ) -> TaskId {
        let queued = state != State::Running;
        let slot = &mut self.slots[index as usize];
        debug_assert!(slot.state == State::Vacant && slot.object.is_none());
        debug_assert!(!slot.queued && slot.joiner.is_none());
        // A vacant slot has none that would have to be dropped.
        std::mem::forget(std::mem::replace(&mut slot.object, object));
        slot.node = node;
        slot.is_new = is_new;
        slot.state = state;
        slot.queued = queued;
        slot.wanted = state != State::Main;
        let id = TaskId::new(self.core, index, slot.generation);
        if queued {
            let is_measured = self.probing.note(index);
            self.ready.push(Entry::new(index, is_measured));
        }
        id
    }

    /// Makes more slots, and takes the first of them.
    fn grow(&mut self) -> u32 {
        let first = self.slots.len() as u32;
        assert!(
            first < self.most,
            "a core can have 2^24 tasks at a time, and has as many"
        );
        let mut index = first;
        self.slots.extend(64, || {
            let cell = self.shared.wakes.ensure(index);
            index += 1;
            Slot {
                object: None,
                node: NodeId::from_parts(0, 0),
                generation: cell.generation(),
                state: State::Vacant,
                is_new: false,
                queued: false,
                wanted: false,
                joiner: None,
                cell,
            }
        });
        let most = self.slots.len();
        self.ready.make_room(most);
        make_room(&mut self.yielded, most);
        self.free.add_word();
        self.free.take().expect("room was just made")
    }

    fn find(&self, id: TaskId) -> Option<&Slot> {
        self.slots
            .get(id.slot() as usize)
            .filter(|slot| slot.generation.get() == id.generation())
    }

    #[inline(always)]
    fn free_if_done(&mut self, index: u32) {
        let slot = &mut self.slots[index as usize];
        if slot.state == State::Ended && !slot.wanted && !slot.queued {
            slot.vacate();
            self.free.give_back(index);
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::mailbox::Place;
    use crate::scope::tree::Tree;
    use crate::task::cell::boxed;

    fn object() -> TaskBox {
        boxed(std::future::pending::<()>())
    }

    /// Makes tasks ready until one is chosen to be measured; returns it.
    fn insert_until_chosen(table: &mut TaskTable, node: NodeId) -> TaskId {
        loop {
            let chosen = table.probing.chosen();
            let slot = table.reserve();
            let id = table.insert(slot, object(), node);
            if table.probing.chosen() > chosen {
                return id;
            }
        }
    }

    /// A task that has not ended, and one that has ended after it woke itself: both stand in the queue,
    /// and neither is polled any more.
    #[test]
    fn who_is_taken_out_of_the_queue_is_not_measured() {
        let place = Place::take().expect("a free number");
        let mut table = TaskTable::new(place.shared);
        let node = Tree::new(0).root();
        let ended = insert_until_chosen(&mut table, node);
        table.detach(ended);
        let object = table.slots[ended.slot() as usize].object.take();
        table.end(ended, object.expect("it does not run"));
        let alive = insert_until_chosen(&mut table, node);

        let left = table.take_all();

        let is_alive = |left: &Left| matches!(left, Left::Task { id, .. } if *id == alive);
        assert!(left.iter().any(is_alive));
        assert_eq!(table.probing.chosen(), 0);
        // Who has such a slot next is measured for itself.
        for slot in [ended.slot(), alive.slot()] {
            assert_eq!(table.probing.take(slot), None);
        }
    }
}
