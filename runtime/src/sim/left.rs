//! What a core has left lying about: looked for whenever it waits, and when it has ended.
//!
//! Nothing of this makes a program wrong at once. A timer that nobody waits for wakes the core for
//! nothing, a park that nobody took out of the tree is memory that does not come back.

use crate::core_state::{Core, TimerTarget};

use super::kernel::ring::{Ring, Stage};

/// What was left, if anything, under the name of the check.
pub(super) type Left = Option<(&'static str, String)>;

/// Looks at a core that waits in the kernel: every timer must still be waited for.
pub(super) fn by_a_park(core: &Core) -> Left {
    let tree = core.tree.borrow();
    let timers = core.timers.borrow();
    if timers.forgotten(&*tree) > 0 {
        let what = "a deadline is armed for a wait or scope that is over";
        return Some(("timers", what.to_owned()));
    }
    let stale = timers.targets().find(|target| match target {
        TimerTarget::Grace(node) | TimerTarget::Foreign(node) => !tree.has_owner(*node),
        TimerTarget::Pause(slot) => !core.tasks.borrow().is_alive(*slot),
        TimerTarget::Alarm(_) => false,
    })?;
    let what = match stale {
        TimerTarget::Grace(_) | TimerTarget::Foreign(_) => "scope",
        TimerTarget::Pause(_) => "task",
        TimerTarget::Alarm(_) => "wait",
    };
    let what = format!("a timer is armed for a {what} that is over");
    Some(("timers", what))
}

/// Looks at the ring of a core that has ended.
pub(super) fn by_an_end(ring: &Ring) -> Left {
    let unasked = ring.in_flight.values().find(|op| {
        // What a worker carries out cannot be asked.
        op.user_data != crate::kernel_op::slab::WAKE && op.stage == Stage::Armed && !op.asked
    });
    if let Some(op) = unasked {
        let name = op.request.kind().name();
        let what = format!("a core has ended, and nobody has asked its {name} to end");
        return Some(("ops", what));
    }
    None
}

/// Counts what a core that has ended has in its books still. A program may keep a scope or the handle
/// of a task for longer than their core lives, so this is no failure by itself.
pub(super) fn in_the_books(core: &Core) -> u64 {
    let tree = core.tree.borrow();
    let slots = core.tasks.borrow().occupied();
    tree.park_count() as u64 + tree.node_count() as u64 - 1 + u64::from(slots)
}
