//! Whole programs on the simulated kernel, under seeds.

mod http;
mod regressions;
