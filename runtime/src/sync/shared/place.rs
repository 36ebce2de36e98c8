//! The owner's side of a wait: an op of a core, or a thread that blocks.
//!
//! An op stands in a line of this folder and in its core's scope tree. A cancel reaches it through
//! the tree, and gives the wait up there and then, before the task is polled: from that moment whoever
//! hands out skips it. The other cores know the seat, and nothing of the tree.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use super::seat::Wait;
use crate::core_state::Core;
use crate::scope::Cancelled;
use crate::scope::park::{self, Look, Park};
use crate::scope::tree::{Purpose, Relay};
use crate::sync::slots::Index;
use crate::task::current;
use crate::task::waker::wake_from_anywhere;
use crate::time::Instant;

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

    /// Looks at the active scope, as every op does at its first poll; and lets others go first, where the task has had
    /// much at once in this poll. Then it has not begun, and looks again.
    pub(super) fn entry(&self, cx: &Context<'_>) -> Poll<Result<(), Cancelled>> {
        current::with(|core| {
            let yields = core.had_much_at_once();
            if yields {
                // As every op that yields.
                core.notice_deadlines();
            }
            let entry = park::entry(core, cx.waker());
            if yields && let Poll::Ready(Ok(())) = entry {
                core.yield_for_more(cx.waker());
                return Poll::Pending;
            }
            entry
        })
    }

    /// Notes that so much was there for the op, which need not stand in line.
    #[inline]
    pub(super) fn note_at_once(&self, count: usize) {
        current::with(|core| core.note_at_once(count));
    }

    /// It stands in line from now on, with this wait and number.
    pub(super) fn stand(&mut self, wait: Wait, number: Index) {
        let link = Rc::new(Link {
            wait,
            waker: Cell::new(None),
            cause: Cell::new(None),
            is_looking: Cell::new(false),
        });
        self.stands = Some(Stands { number, link });
    }

    /// Registers the wait of an op with its scope.
    pub(super) fn register(&mut self, cx: &Context<'_>) {
        let stands = self.stands.as_ref().expect("it stands in line");
        stands.link.waker.set(Some(cx.waker().clone()));
        let relay: Rc<Link> = Rc::clone(&stands.link);
        current::with(|core| {
            self.park
                .register_relayed(core, cx.waker(), Purpose::Remote, relay);
        });
    }

    /// Runs `f` for the owner, who is being polled and need not be woken by a cancel that `f` comes upon.
    pub(super) fn looking<R>(&self, f: impl FnOnce() -> R) -> R {
        let Some(Stands { link, .. }) = &self.stands else {
            return f();
        };
        link.is_looking.set(true);
        let result = f();
        link.is_looking.set(false);
        result
    }

    /// Returns how the wait of an op stands. `is_handed` looks into its line, and leaves another waker there.
    pub(super) fn look(
        &mut self,
        cx: &Context<'_>,
        is_handed: impl FnOnce(Index, &mut Option<Waker>) -> bool,
    ) -> Look {
        let stands = self.stands.as_ref().expect("it stands in line");
        let link = &stands.link;
        current::with(|core| {
            link.is_looking.set(true);
            // The tree never ends this wait, it only tells of a cancel.
            self.park.look(core, cx.waker());
            link.is_looking.set(false);
            let mut waker = link.renew_waker(cx.waker());
            if is_handed(stands.number, &mut waker) {
                return Look::Ready;
            }
            // Whoever has the lock of the line after this sees that it was given up, if it was.
            link.cause.get().map_or(Look::Waiting, Look::Aborted)
        })
    }

    /// Blocks this thread until it was handed something.
    pub(super) fn block(&self, is_handed: impl Fn(Index) -> bool) {
        let stands = self.stands.as_ref().expect("it stands in line");
        let is_handed = || is_handed(stands.number);
        #[cfg(feature = "sim")]
        if let Some(world) = crate::sim::world() {
            return world.drive(|| is_handed().then_some(()));
        }
        while !is_handed() {
            thread::park();
        }
    }

    /// Ends the wait, if there is one; `leave` takes it out of its line.
    pub(super) fn end<R>(&mut self, leave: impl FnOnce(Index) -> R) -> Option<R> {
        let Stands { number, link } = self.stands.take()?;
        self.park.end();
        // A cancel that is still to be carried out wakes nobody for a wait that has ended.
        drop(link.waker.take());
        let result = leave(number);
        // Nobody else knows the wait any more.
        if let Ok(link) = Rc::try_unwrap(link) {
            let next = link.wait.next();
            // A thread that ends keeps none.
            SPARE.try_with(|spare| spare.set(Some(next))).ok();
        }
        Some(result)
    }
}

thread_local! {
    /// The next wait on the last seat of this thread that became free.
    static SPARE: Cell<Option<Wait>> = const { Cell::new(None) };
}

/// Returns a wait that nobody knows yet.
pub(super) fn new_wait() -> Wait {
    let spare = SPARE.try_with(Cell::take).ok().flatten();
    spare.unwrap_or_else(Wait::new)
}

/// Where the scope tree gives a wait up.
struct Link {
    wait: Wait,
    /// The one that lies in the line, until a cancel has woken it.
    waker: Cell<Option<Waker>>,
    cause: Cell<Option<Cancelled>>,
    /// The owner is being polled, and need not be woken.
    is_looking: Cell<bool>,
}

impl Link {
    /// Returns a waker for the line, if it is to have another than it has.
    fn renew_waker(&self, waker: &Waker) -> Option<Waker> {
        let known = self.waker.take();
        let known = known.filter(|known| known.will_wake(waker));
        let is_known = known.is_some();
        self.waker.set(known.or_else(|| Some(waker.clone())));
        (!is_known).then(|| waker.clone())
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("wait", &self.wait)
            .field("cause", &self.cause)
            .finish_non_exhaustive()
    }
}

impl Relay for Link {
    fn relay(&self, cause: Cancelled, _: Option<Instant>) {
        self.wait.give_up();
        self.cause.set(Some(cause));
        if !self.is_looking.get()
            && let Some(waker) = self.waker.take()
        {
            wake_from_anywhere(waker);
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
