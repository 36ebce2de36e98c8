//! Clients that others wrote, against the server: curl, openssl, h2load, wrk, Python and Node.
//!
//! A client that is not installed is left out, and that is said; `.ci/setup` installs them. Each load has an
//! end.

mod curl;
mod load;
mod node;
mod openssl;
mod partner;
mod python;
mod site;
