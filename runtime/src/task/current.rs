//! The one pointer to the core whose turn it is.
//!
//! Set while a core's turn runs, on the thread that runs it. Every op finds its core here.

use std::cell::Cell;
use std::ptr;

use crate::core_state::Core;
use crate::mailbox;

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
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;

    use crate::core_loop::MainPoll;
    use crate::sim::world::{Place, World};

    thread_local! {
        /// The simulation that runs on this thread. It stands beside the core, not in it: it is there
        /// before the first core, and what it simulates is asked for off a core as well.
        static WORLD: RefCell<Option<Rc<World>>> = const { RefCell::new(None) };

        /// The future of `block_on` further down the stack, whose core waits for what runs here.
        static LENT: Cell<Lent> = const { Cell::new(None) };
    }

    type Lent = Option<(Place, *mut MainPoll<'static>)>;

    struct Restore(Lent);

    impl Drop for Restore {
        fn drop(&mut self) {
            LENT.set(self.0);
        }
    }

    /// Runs `f`, which may block: meanwhile others may poll `main` by [`with_lent`].
    pub(crate) fn lend<R>(main: Option<(Place, MainPoll<'_>)>, f: impl FnOnce() -> R) -> R {
        let mut main = main;
        let lent = main.as_mut().map(|(place, poll)| {
            let poll: *mut MainPoll<'_> = poll;
            (*place, poll.cast::<MainPoll<'static>>())
        });
        let _restore = Restore(LENT.replace(lent));
        f()
    }

    /// Runs `f` with the main future that was lent, which nobody else has until `f` returns.
    pub(crate) fn with_lent<R>(f: impl FnOnce(Option<(Place, MainPoll<'_>)>) -> R) -> R {
        let lent = LENT.take();
        let _restore = Restore(lent);
        match lent {
            None => f(None),
            Some((place, poll)) => {
                // SAFETY: the pointer was made from the local that `lend` holds for as long as it is
                // set: `Restore` takes it away before that call returns, also when it unwinds. Who
                // uses it has taken it away first, so there is one reference at a time; and `f` is
                // given no lifetime by which it could keep what it points to.
                let poll = unsafe { &mut *poll };
                f(Some((place, &mut **poll)))
            }
        }
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
pub(crate) use simulation::{lend, simulate, with_lent, world};

/// Runs `f` with the core whose turn it is.
///
/// # Panics
///
/// Off a core.
#[inline]
#[track_caller]
pub(crate) fn with<R>(f: impl FnOnce(&Core) -> R) -> R {
    // Not by way of `try_with`: what `f` returns would be moved once more, in an `Option`.
    let core = CURRENT.get();
    if core.is_null() {
        off_core();
    }
    // SAFETY: the pointer was made from the reference that `enter` holds for as long as it is set; see `try_with`.
    f(unsafe { &*core })
}

/// As [`with`], for what belongs to the core of this identity; nothing off a core, if that one has ended.
///
/// # Panics
///
/// Off a core, while that one goes on.
#[track_caller]
pub(crate) fn with_unless_ended<R>(home: u64, f: impl FnOnce(&Core) -> R) -> Option<R> {
    if CURRENT.get().is_null() && mailbox::has_ended(home) {
        return None;
    }
    Some(with(f))
}

#[cold]
#[track_caller]
fn off_core() -> ! {
    panic!(
        "this needs a quoit core, and this thread is not running one: call it from a task \
         (inside Runtime::run, block_on or spawn)"
    )
}

/// Runs `f` with the core whose turn it is, if there is one.
#[inline]
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
