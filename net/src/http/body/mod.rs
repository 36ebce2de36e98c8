//! Bodies of answers that are made while they are sent.
//!
//! [`channel`] is a body with an end to write to; [`stream`] one with a task of its own that writes;
//! [`events`] an answer of server-sent events, which is a stream of [`Event`]s.
//!
//! ```text
//!   the producer ──send──► pieces, at most so many ──poll_frame──► hyper ──► the client
//!        ▲                                                            │
//!        └── waits while there is no room; cancelled when ◄── drops the body: the client has gone
//! ```
//!
//! Everything stays on its core. A client that takes nothing holds the producer up: at most as much as
//! the pieces waits here, and what the connection gathers and the kernel takes beyond them.

mod events;
mod pipe;
mod send_error;
mod stream;

pub use events::{Event, EventSender, events};
pub use pipe::{ChannelBody, Sender, channel};
pub use send_error::SendError;
pub use stream::{StreamBody, stream};
pub(super) use stream::{drop_whole, within};
