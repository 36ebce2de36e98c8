//! Whole programs on the simulated kernel, under seeds.

mod bodies;
mod cancellation;
mod counters;
mod dates;
mod drain;
mod echo;
mod failures;
mod faults;
mod given_up;
mod hour;
mod http;
mod http2;
mod idle;
mod lanes;
mod ledger;
mod orders;
mod pings;
mod programs;
mod promises;
mod raw_client;
mod regressions;
mod site;
mod steps;
mod support;
mod upgrades;
mod workload;
