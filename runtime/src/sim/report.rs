//! What a failed run says of itself.

use std::fmt::Write;
use std::rc::Rc;

use super::world::World;
use crate::core_state::Core;

/// What everybody waits for when nobody can go on.
pub(crate) fn deadlock(living: &[(usize, Rc<Core>)]) -> String {
    format!(
        "nobody can go on: every core waits, no timer comes due, and nothing is on its way. (Threads of the program's \
         own are no part of it; `sim::after` takes their place.)\n{}",
        cores(living)
    )
}

/// The scope trees of all cores, with what each op waits for.
pub(crate) fn cores(living: &[(usize, Rc<Core>)]) -> String {
    let mut text = String::new();
    for (place, core) in living {
        let _ = write!(text, "core {place}{}", core.dump());
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
    let thread = std::thread::current();
    let package = std::env::var("CARGO_PKG_NAME").ok();
    let program = std::env::args().next().unwrap_or_default();
    line(seed, thread.name(), package.as_deref(), &program)
}

fn line(seed: u64, thread: Option<&str>, package: Option<&str>, program: &str) -> String {
    // A test has a thread of its own, by its name.
    let test = thread.filter(|name| *name != "main");
    match (test, package) {
        (Some(test), Some(package)) => {
            // Our own tests of the simulation are there with the feature alone.
            let own = package == env!("CARGO_PKG_NAME");
            let features = if own { " --features sim" } else { "" };
            format!("QUOIT_SIM_SEED={seed:#x} cargo test -p {package}{features} -- --exact {test}")
        }
        // Started by hand: where cargo puts the programs of tests, it takes their names.
        (Some(test), None) if is_of_tests(program) => {
            format!("QUOIT_SIM_SEED={seed:#x} {program} --exact {test}")
        }
        _ => format!("QUOIT_SIM_SEED={seed:#x} {program}"),
    }
}

fn is_of_tests(program: &str) -> bool {
    let folder = std::path::Path::new(program).parent();
    folder.is_some_and(|folder| folder.ends_with("deps"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_runs_one_test_however_it_was_started() {
        let (test, program) = (Some("net::echoes"), "target/debug/deps/server-0123");
        assert_eq!(
            line(8, test, Some("server"), program),
            "QUOIT_SIM_SEED=0x8 cargo test -p server -- --exact net::echoes"
        );
        assert_eq!(
            line(8, test, Some("quoit"), program),
            "QUOIT_SIM_SEED=0x8 cargo test -p quoit --features sim -- --exact net::echoes"
        );
        assert_eq!(
            line(8, test, None, program),
            "QUOIT_SIM_SEED=0x8 target/debug/deps/server-0123 --exact net::echoes"
        );
        // No test: a thread or a program of somebody's own.
        assert_eq!(
            line(8, test, None, "bin/server"),
            "QUOIT_SIM_SEED=0x8 bin/server"
        );
        assert_eq!(
            line(8, Some("main"), Some("server"), "bin/server"),
            "QUOIT_SIM_SEED=0x8 bin/server"
        );
    }
}
