//! The one pointer to the core whose turn it is.
//!
//! Set while a core's turn runs, on the thread that runs it. Every op finds its core here.

use std::cell::Cell;
use std::ptr;

use crate::core_state::Core;

thread_local! {
    static CURRENT: Cell<*const Core> = const { Cell::new(ptr::null()) };
}

/// Runs `f` as a turn of `core`.
pub(crate) fn enter<R>(core: &Core, f: impl FnOnce() -> R) -> R {
    with_current(core, f)
}

/// Runs `f` as no core's turn, also where a core waits for it.
#[cfg(feature = "sim")]
pub(crate) fn outside<R>(f: impl FnOnce() -> R) -> R {
    with_current(ptr::null(), f)
}

fn with_current<R>(core: *const Core, f: impl FnOnce() -> R) -> R {
    struct Restore(*const Core);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(core));
    f()
}

#[cfg(feature = "sim")]
mod simulation {
    use std::cell::RefCell;
    use std::rc::Rc;

    use crate::sim::world::World;

    thread_local! {
        /// The simulation that runs on this thread. It stands beside the core, not in it: it is there
        /// before the first core, and what it simulates is asked for off a core as well.
        static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };
    }

    /// Lets this thread run a simulation until the guard is dropped.
    ///
    /// # Panics
    ///
    /// If it runs one already, or a core.
    pub(crate) fn simulate(world: Rc<World>) -> Simulating {
        assert!(
            super::CURRENT.get().is_null(),
            "a simulation was begun on a thread that runs a core"
        );
        WORLD.with_borrow_mut(|here| {
            // Looked at first: the one that runs goes on, whoever catches this.
            assert!(
                here.is_none(),
                "a simulation was begun on a thread that runs one already"
            );
            *here = Some(world);
        });
        Simulating(())
    }

    /// This thread runs a simulation.
    pub(crate) struct Simulating(());

    impl Drop for Simulating {
        fn drop(&mut self) {
            let world = WORLD.take();
            drop(world);
        }
    }

    /// Returns the simulation that runs on this thread.
    pub(crate) fn world() -> Option<Rc<World>> {
        // A thread that ends has none.
        WORLD
            .try_with(|world| world.borrow().clone())
            .ok()
            .flatten()
    }
}

#[cfg(feature = "sim")]
pub(crate) use simulation::{simulate, world};

/// Runs `f` with the core whose turn it is.
///
/// # Panics
///
/// Off a core.
#[track_caller]
pub(crate) fn with<R>(f: impl FnOnce(&Core) -> R) -> R {
    match try_with(f) {
        Some(result) => result,
        None => panic!(
            "this needs a quoit core, and this thread is not running one: call it from a task \
             (inside Runtime::run, block_on or spawn)"
        ),
    }
}

/// Runs `f` with the core whose turn it is, if there is one.
pub(crate) fn try_with<R>(f: impl FnOnce(&Core) -> R) -> Option<R> {
    let core = CURRENT.get();
    if core.is_null() {
        return None;
    }
    // SAFETY: the pointer was made from the reference that `enter` holds for as long as it is set:
    // `Restore` takes it away before that call returns, also when it unwinds. The reference made
    // here does not leave `f`, which runs inside that call, on the same thread.
    Some(f(unsafe { &*core }))
}
