//! Tasks of one core that wait for each other.
//!
//! [`Event`]: something happened, and stays so. Nothing here crosses cores: these types are neither
//! `Send` nor `Sync`.

mod event;
pub(crate) mod wait_list;

pub use event::Event;
