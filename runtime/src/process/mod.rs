//! Child processes, which end with the scope that started them.
//!
#![doc = include_str!("guide.md")]
//!
//! In reading order: `command` is what shall run, `start` how it is started, `child` what one has then,
//! `ending` in which steps it ends, `running` who signals and reaps it, `output` all that it writes,
//! `not_started` why there is none, `guardian` who ends it when this process is killed.

mod child;
mod command;
mod ending;
pub(crate) mod guardian;
mod not_started;
mod output;
mod running;
mod start;

pub use child::Child;
pub use command::{Command, Group, Stdio};
pub use ending::Ending;
pub use not_started::{NotStarted, Why};
pub use output::{Output, OutputTooLong};
