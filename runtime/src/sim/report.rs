//! What a failed run says of itself.

use std::fmt::Write;
use std::rc::Rc;

use super::world::World;
use crate::core_state::Core;

/// What everybody waits for when nobody can go on.
pub(crate) fn deadlock(living: &[(usize, Rc<Core>)]) -> String {
    format!(
        "nobody can go on: every core waits, no timer is armed, and nothing is on its way.\n{}",
        cores(living)
    )
}

/// The scope trees of all cores, with what each op waits for.
pub(crate) fn cores(living: &[(usize, Rc<Core>)]) -> String {
    let mut text = String::new();
    for (place, core) in living {
        let _ = writeln!(text, "core {place}:");
        for line in core.describe() {
            let _ = writeln!(text, "  {line}");
        }
    }
    if living.is_empty() {
        text.push_str("no core is left\n");
    }
    text
}

/// The whole report.
pub(crate) fn failure(world: &World, check: &str, what: &str) -> String {
    let kernel = world.kernel.borrow();
    let mut text = format!(
        "the simulation found a failure ({check}) after {} steps, at {:?} of virtual time:\n{what}\n",
        world.steps(),
        std::time::Duration::from_nanos(kernel.now),
    );
    text.push_str("the last events:\n");
    for event in kernel.trace.tail() {
        let _ = writeln!(text, "  {event}");
    }
    text
}

/// The line that repeats a run.
pub(crate) fn replay(seed: u64) -> String {
    let test = std::thread::current().name().map(str::to_owned);
    let package = std::env::var("CARGO_PKG_NAME").ok();
    let program = std::env::args().next().unwrap_or_default();
    match (test, package) {
        (Some(test), Some(package)) if test != "main" => {
            format!("QUOIT_SIM_SEED={seed:#x} cargo test -p {package} -- --exact {test}")
        }
        _ => format!("QUOIT_SIM_SEED={seed:#x} {program}"),
    }
}
