//! What a static file server decides before and after it touches a file.
//!
//! ```text
//!   path of the request ──► target ──► the caller opens the file, and asks what it is
//!                                                  │
//!                                  a folder ◄──────┴──────► a file
//!                                     │                        │
//!                                     ▼                        ▼
//!                        listing (escape, human)   validators (entity_tag)
//!                                                              │
//!                                                              ▼
//!                                                  conditional ──► range
//!                                                              │
//!                                                              ▼
//!                                                  content_type, the answer
//! ```
//!
//! Everything here is a function of its arguments: no file is opened, no clock is read, nothing
//! waits. What the outside knows, such as `now`, comes in as a parameter.

pub(crate) mod target;

pub(crate) mod entity_tag;
pub(crate) mod validators;

pub(crate) mod conditional;
pub(crate) mod range;

pub(crate) mod content_type;

pub(crate) mod escape;
pub(crate) mod human;
pub(crate) mod listing;
