//! Tasks of any core, and threads that run none, that wait for each other.
//!
//! | What for | Take | It keeps |
//! |---|---|---|
//! | one at a time, across an `await` | [`Mutex`] | the value |
//! | at most so many at a time | [`Semaphore`] | the permits |
//! | items, each for one receiver | [`channel`] | up to `n`, then senders wait |
//!
//! All of these are `Send` and `Sync`. Their calls are as those of one core's primitives are, at the
//! price of a lock that threads share: it is held for a few instructions, and no waker, no destructor
//! and no wait is among them. A channel takes it only while somebody waits. A
//! [`CancelHandle`](crate::CancelHandle) never takes it, and neither does a core that delivers a cancel.
//!
//! # What holds for all of them
//!
//! - **Cancelled** means that the call did not happen: nothing was taken or sent, no place in line is
//!   left, and what was to be sent comes back with the error. Every `async` call looks at its scope
//!   first, also where it could succeed at once.
//! - **One comes first.** One core hands something over, another cancels: what was handed over first
//!   is returned, whatever is cancelled before the task runs; one that was cancelled first is passed
//!   over.
//! - **Nothing is lost** with a future that is dropped, also at the end of its core: a permit, a lock
//!   or an item that it was handed goes to the next.
//! - **First come, first served**, whichever core they are on; `try_` calls overtake nobody.
//! - **One wake each**, and one more for a wait that is cancelled before it has seen what it was handed. Waking a
//!   task of another core neither blocks nor allocates.
//! - **Others have their turns.** What is always there when it is asked for, because another core sends or receives
//!   without end, does not keep this one: a task that has had 256 items or permits at once, in one poll, lets others go
//!   first before it has more. (Within a core, what need not wait does not yield.)
//! - **A thread that runs no core** stands in the same lines, by the calls named `_blocking`; there is
//!   no scope that would cancel it.
//!
//! A future that is leaked with something that it was handed keeps that for ever.
//!
//! ```
//! fn crosses<T: Send + Sync>(_: &T) {}
//! crosses(&quoit::sync::shared::Mutex::new(0));
//! crosses(&quoit::sync::shared::Semaphore::new(1));
//! crosses(&quoit::sync::shared::channel::bounded::<String>(1));
//! ```
//!
//! In reading order: `seat` is one wait, `line` the order of those who wait, `place` the owner's side;
//! `lock` what they lie under, `near` what lies in place there. `channel_state` is what a channel's sides share: a
//! `ring` of items, with a `gate` to either of its ends; `kept` says how an item lies there.

pub mod channel;
mod channel_state;
mod errors;
mod gate;
mod kept;
mod line;
mod lock;
mod mutex;
mod near;
mod place;
mod ring;
mod seat;
mod semaphore;
#[cfg(all(test, loom))]
mod testing;

pub use channel::{Receiver, Sender};
pub use errors::{TryRecvError, WouldBlock};
pub use mutex::{Mutex, MutexGuard};
pub use semaphore::{OwnedPermit, Permit, Semaphore};
