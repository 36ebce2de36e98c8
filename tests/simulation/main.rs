//! Whole programs on the simulated kernel, under seeds.

mod faults;
mod http;
mod lanes;
mod ledger;
mod orders;
mod programs;
mod regressions;
mod steps;
mod workload;
