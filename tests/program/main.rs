//! The program `quoit`, as a process: what it serves, what it refuses, and how it ends.

mod access_log;
mod command_line;
mod defaults;
mod documents;
mod files;
mod options;
mod program;
mod signals;
mod tls;
