//! Tasks of one core that wait for each other.
//!
//! | What for | Take | It keeps |
//! |---|---|---|
//! | something happened, and stays so | [`Event`] | |
//! | one at a time, across an `await` | [`Mutex`] | the value |
//! | until the value behind a lock is as wanted | [`Condition`] with a [`Mutex`] | no notification |
//! | at most so many at a time | [`Semaphore`] | the permits |
//! | the first makes it, the others wait | [`OnceCell`] | the value |
//! | one value, once | [`oneshot`] | the value |
//! | items, each for one receiver | [`channel`] | up to `n`, then senders wait |
//! | items, each for every receiver | [`broadcast`] | up to `n`, then the oldest goes |
//! | the latest value | [`watch`] | the latest |
//!
//! Nothing here crosses cores, but for what lies in [`shared`]: these types are neither `Send` nor
//! `Sync`. Nor need the values be `'static`.
//!
//! # What holds for all of them
//!
//! - **Cancelled** means that the call did not happen: nothing was taken or sent, no place in line is
//!   left, and what was to be sent comes back with the error. Every call that may wait looks at its
//!   scope first, also where it could succeed at once.
//! - **What was handed over first is returned**, whatever is cancelled before the task runs again; the
//!   next op fails. One who was cancelled first is passed over.
//! - **Nothing is lost** with a future that is dropped: a permit, a lock, a turn, a notification or an
//!   item that it was handed goes to the next.
//! - **First come, first served.** What becomes free is handed to the first in line, not put down for
//!   whoever runs next; while somebody waits, nobody overtakes, and `try_` calls are refused.
//! - **One wake each**, however many wait, and in constant time for each of them.
//! - **What need not wait does not yield.** A loop that always finds what it asks for keeps the core;
//!   [`yield_now`](crate::yield_now) lets others run. Only what is [`shared`] with other cores, who may see to it that it
//!   always is there, yields now and then.
//!
//! ```compile_fail
//! fn send<T: Send>(_: T) {}
//! send(quoit::sync::Mutex::new(0));
//! ```

pub mod broadcast;
pub mod channel;
mod condition;
mod errors;
mod event;
mod mutex;
mod once_cell;
pub mod oneshot;
mod semaphore;
pub mod shared;
mod slots;
pub(crate) mod wait_list;
pub mod watch;

pub use condition::{Condition, WaitError};
pub use errors::{TryRecvError, WouldBlock};
pub use event::Event;
pub use mutex::{Mutex, MutexGuard, Poisoned, Section};
pub use once_cell::OnceCell;
pub use semaphore::{OwnedPermit, Permit, Semaphore};
