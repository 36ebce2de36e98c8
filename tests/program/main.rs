//! The program `quoit`, as a process: what it serves, what it refuses, and how it ends.

mod command_line;
mod documents;
mod files;
mod program;
mod signals;
mod tls;
