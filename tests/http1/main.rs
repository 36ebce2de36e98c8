//! HTTP/1.1 by the letter: a case for each thing that RFC 9110 and RFC 9112 ask of a server and that
//! can be seen from outside.
//!
//! A case is bytes that are sent to a real server, and what comes back ([`case::Expected`]). What holds of
//! every answer, such as its date and that it says its length once, is checked with each of them.

mod answers;
mod case;
mod chunking;
mod expectations;
mod fields;
mod framing;
mod host;
mod lenient;
mod limits;
mod lines;
mod methods;
mod persistence;
mod server;
mod targets;
mod versions;
