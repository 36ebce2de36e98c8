//! An HTTP client that keeps its connections: HTTP/1.1 and HTTP/2, over TCP, TLS and Unix sockets.
//!
//! ```text
//!   Client ──► RequestBuilder ──send──► a Lease: one request's place ──► Response
//!                                           │ asked, given, ended
//!                                           ▼
//!                          HttpPool: the Registry decides, Shared carries out
//!                                           │ connect, close
//!                                           ▼
//!                          an owner for each connection ──► hyper ──► a stream
//! ```
//!
//! What a lease is here is a stream, not a connection. In reading order: [`Client`], [`RequestBuilder`],
//! [`Response`] are what a user writes; `streams` is what one connection is, and `registry` what a pool
//! decides, both pure; `shared` carries that out; `connection` is the task that owns a connection; `wire` its
//! stream, and how it says goodbye; `connect` the way from a name to a stream.
//!
//! Nothing here is `Send`: each core has a pool of its own.

mod body;
mod client;
mod config;
mod connect;
mod connection;
mod error;
mod origin;
mod registry;
mod request;
mod response;
mod shared;
mod streams;
mod wire;

pub use body::Body;
pub use client::{Client, Counts, HttpPool};
pub use config::ClientBuilder;
pub use error::Error;
pub use request::RequestBuilder;
pub use response::{Response, ResponseBody};
