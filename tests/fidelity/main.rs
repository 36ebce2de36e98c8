//! The simulated kernel is held to the real one.
//!
//! A script is a list of steps on a few objects, made from a seed. It runs once on the real ring and
//! then on the simulated kernel under many seeds, until one of them has the same outcomes in the same
//! order. If none has, the model forbids what the kernel does, and the test fails with the script, what
//! the kernel answered and what the model came nearest to. In reading order: `compare` does that,
//! `random` and `outcome` are what scripts are made of and come to. `streams`, `ports`, `pipes`, `files` and
//! `cancels` have a kind of script each; `facts`, `families` and `limits` are what was measured on its own.
//!
//! How many scripts of each kind are run is `QUOIT_FIDELITY`, and from which seed on is
//! `QUOIT_FIDELITY_SEED`; without them it is a number that takes seconds:
//!
//! ```sh
//! QUOIT_FIDELITY=20000 cargo test -p tests --release --test fidelity
//! ```

mod cancels;
mod compare;
mod facts;
mod families;
mod files;
mod limits;
mod outcome;
mod paths;
mod pipes;
mod ports;
mod streams;
mod subjects;
