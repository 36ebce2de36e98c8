//! The live page of a server, in a real browser: what it shows is what the server did.

mod browser;
mod looks;
mod numbers;
mod scopes;
mod site;
mod states;
