//! Sessions on loan: child processes spoken to over pipes, and HTTP client connections.
//!
//! Nothing is here yet. What will be: a pool in which the task that opened a session closes it, on
//! its core, whatever happens to the caller who asked; which never opens a session twice, never
//! resurrects one that a close has overtaken, and never calls a busy connection idle.
