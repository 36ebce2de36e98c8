//! Whole programs on the simulated kernel, under seeds.

mod faults;
mod http;
mod ledger;
mod programs;
mod regressions;
mod workload;
