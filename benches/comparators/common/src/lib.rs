//! What the measured programs share: their arguments, their sockets, and what they print.
//!
//! Nothing here runs while something is measured.

pub mod asleep;
pub mod echo;
pub mod micro;
pub mod place;
pub mod scenarios;

/// Keeps the calling thread on one processor.
///
/// # Panics
///
/// If there is no such processor.
pub fn pin(processor: usize) {
    let there = core_affinity::CoreId { id: processor };
    assert!(
        core_affinity::set_for_current(there),
        "this process may not run on processor {processor}"
    );
}
