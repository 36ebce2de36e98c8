//! The HTTP server, from outside: what it answers, what it refuses, whom it lets go, how it ends.

mod authority;
mod between;
mod binding;
mod bulk;
mod cancels;
mod deadlines;
mod drain;
mod figures;
mod handle;
mod limits;
mod listening;
mod odd;
mod patience;
mod peers;
mod refusals;
mod service;
mod serving;
mod streams;
mod support;
mod taking;
mod tls;
mod upgrades;
