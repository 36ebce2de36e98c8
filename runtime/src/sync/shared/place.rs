//! The owner's side of a wait: an op of a core, or a thread that blocks.
//!
//! An op stands in a line of this folder and in its core's scope tree. A cancel reaches it through
//! the tree, and gives its seat up there and then, before the task is polled: from that moment whoever
//! hands out skips it. The other cores know the seat, and nothing of the tree.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use super::seat::{Seat, Standing};
use crate::core_state::Core;
use crate::scope::Cancelled;
use crate::scope::park::{self, Look, Park};
use crate::scope::tree::{Purpose, Relay};
use crate::sync::slots::Index;
use crate::task::current;

/// One place in a line, if it stands there.
#[derive(Debug, Default)]
pub(super) struct Place {
    stands: Option<Stands>,
    park: Park,
}

#[derive(Debug)]
struct Stands {
    number: Index,
    link: Rc<Link>,
}

impl Place {
    /// Returns its number in line.
    pub(super) fn number(&self) -> Option<Index> {
        let stands = self.stands.as_ref()?;
        // Only to be polled where it waits.
        current::with(|core| self.park.id(core));
        Some(stands.number)
    }

    /// Returns whether it stands in line already.
    pub(super) fn is_in_line(&self) -> bool {
        self.stands.is_some()
    }

    /// Looks at the active scope, as every op does at its first poll.
    pub(super) fn entry(&self, cx: &Context<'_>) -> Poll<Result<(), Cancelled>> {
        current::with(|core| park::entry(core, cx.waker()))
    }

    /// It stands in line from now on, with this seat and number.
    pub(super) fn stand(&mut self, seat: Arc<Seat>, number: Index) {
        let link = Rc::new(Link {
            seat,
            cause: Cell::new(None),
            is_looking: Cell::new(false),
        });
        self.stands = Some(Stands { number, link });
        drop(SPENT.take());
    }

    /// Registers the wait of an op with its scope.
    pub(super) fn register(&mut self, cx: &Context<'_>) {
        let stands = self.stands.as_ref().expect("it stands in line");
        let relay: Rc<Link> = Rc::clone(&stands.link);
        current::with(|core| {
            self.park
                .register_relayed(core, cx.waker(), Purpose::Remote, relay);
        });
    }

    /// Returns how the wait of an op stands.
    pub(super) fn look(&mut self, cx: &Context<'_>) -> Look {
        let stands = self.stands.as_ref().expect("it stands in line");
        let link = &stands.link;
        current::with(|core| {
            // For ever, whatever else the core has to tell: there is nobody left to wake this.
            if self.park.id(core).is_some() && link.seat.standing() == Standing::Handed {
                return Look::Ready;
            }
            link.is_looking.set(true);
            // The tree never ends this wait, it only tells of a cancel.
            self.park.look(core, cx.waker());
            link.is_looking.set(false);
            link.seat.set_waker(cx.waker());
            match link.seat.standing() {
                Standing::Waiting => Look::Waiting,
                Standing::Handed => Look::Ready,
                Standing::GivenUp => {
                    core.aborts_seen.set(core.aborts_seen.get() + 1);
                    let cause = link.cause.get();
                    Look::Aborted(cause.expect("a wait that was given up has a cause"))
                }
            }
        })
    }

    /// Blocks this thread until it was handed something.
    pub(super) fn block(&self) {
        let stands = self.stands.as_ref().expect("it stands in line");
        let seat = &stands.link.seat;
        #[cfg(feature = "sim")]
        if let Some(world) = crate::sim::world() {
            return world.drive(|| (seat.standing() != Standing::Waiting).then_some(()));
        }
        while seat.standing() == Standing::Waiting {
            thread::park();
        }
    }

    /// Ends the wait, if there is one: returns its number and how it stands, for the owner to take it
    /// out of its line.
    pub(super) fn end(&mut self) -> Option<(Index, Standing)> {
        let Stands { number, link } = self.stands.take()?;
        let standing = link.seat.end();
        self.park.end();
        Some((number, standing))
    }

    /// Ends a wait that was handed something, and has left its line.
    pub(super) fn end_handed(&mut self) {
        let Stands { number: _, link } = self.stands.take().expect("it stood in line");
        self.park.end();
        drop(SPENT.replace(Some(link)));
    }
}

thread_local! {
    /// The last seat of this thread that was handed something. Whoever did that has its cache line, and there is
    /// something to be done with what was handed over first.
    static SPENT: Cell<Option<Rc<Link>>> = const { Cell::new(None) };
}

/// Where the scope tree gives a seat up.
#[derive(Debug)]
struct Link {
    seat: Arc<Seat>,
    cause: Cell<Option<Cancelled>>,
    /// The owner is being polled, and need not be woken.
    is_looking: Cell<bool>,
}

impl Relay for Link {
    fn relay(&self, cause: Cancelled) {
        if self.seat.give_up() {
            self.cause.set(Some(cause));
            if !self.is_looking.get() {
                self.seat.wake();
            }
        }
    }
}

/// Returns the waker of a thread that blocks.
///
/// # Panics
///
/// On a core: it would block all that runs there.
#[track_caller]
pub(super) fn thread_waker() -> Waker {
    assert!(
        current::try_with(|_: &Core| ()).is_none(),
        "a call that blocks was made on a core, which it would block: await the other one instead"
    );
    Waker::from(Arc::new(Unpark(thread::current())))
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}
