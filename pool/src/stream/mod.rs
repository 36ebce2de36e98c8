//! Streams of items that an async producer makes, and that end cleanly however they are left.
//!
//! The type says who owns what:
//!
//! | | runs | may borrow | left early |
//! |---|---|---|---|
//! | [`OwnedStream`] | in a task of its own | no: it owns all it uses | its producer is cancelled, and ends by itself |
//! | [`LentStream`], in [`with_stream`] | in the block's task | yes | its producer is cancelled, and the block ends after it |
//!
//! What a producer opens it closes itself, behind the point where it was held up; what it was given, by
//! reference or as one of several owners, stays as it was. A producer is cancelled once and polled to its
//! end, on its core: its clean-up runs once, not twice.

mod lent;
mod owned;
mod pipe;

pub use lent::{LentStream, with_stream};
pub use owned::OwnedStream;
pub use pipe::{ItemPermit, Items};
