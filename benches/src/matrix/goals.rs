//! What quoit is held against: a figure of a scenario, what it is compared with, and what has to come of it.
//!
//! Where a ring written by hand or a peer does the same, what counts is the ratio to that. Figures in nanoseconds, KiB
//! and the like depend on the machine.

use Bound::{AtLeast, AtMost};
use Figure::{Cpu, IdleCpu, IdleSwitches, Nanos, P50, PerConnection, Rate, User};
use Role::{Alike, WithOption};
use To::{BestPeer, Contender, Itself, Limit, Nothing};

use super::Figure;
use super::contenders::Role;
use super::table::number;

/// What shall be reached.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Goal {
    /// What people read.
    pub title: &'static str,
    /// The scenario whose figure counts.
    pub scenario: &'static str,
    /// The figure.
    pub figure: Figure,
    /// In which form quoit takes part.
    pub whose: Role,
    /// What it is compared with.
    pub to: To,
    /// What it has to be.
    pub bound: Bound,
}

/// What a figure of quoit's is compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum To {
    /// Nothing: the figure itself counts.
    Nothing,
    /// The limit of the scenario.
    Limit,
    /// The best peer, by this figure.
    BestPeer,
    /// The contender of this name.
    Contender(&'static str),
    /// quoit as it comes; what is compared is another form of it.
    Itself,
}

/// What a figure, or a ratio, has to be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    /// This much or more.
    AtLeast(f64),
    /// This much or less.
    AtMost(f64),
}

impl Bound {
    /// Returns whether a value is within it.
    #[must_use]
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    /// The bound as it is read.
    #[must_use]
    pub fn text(self) -> String {
        match self {
            Self::AtLeast(least) => format!("≥ {least}"),
            Self::AtMost(most) => format!("≤ {most}"),
        }
    }
}

impl Goal {
    /// The same of another form of quoit.
    const fn of(mut self, whose: Role) -> Self {
        self.whose = whose;
        self
    }

    /// The unit of what is compared; a ratio has none.
    #[must_use]
    pub fn unit(&self) -> &'static str {
        match (self.to, self.figure) {
            (To::Nothing, Figure::Nanos) => " ns",
            (To::Nothing, Figure::Cpu | Figure::User | Figure::P50 | Figure::P99) => " µs",
            (To::Nothing, Figure::PerConnection) => " KiB",
            (To::Nothing, Figure::IdleCpu) => " ms/s",
            _ => "",
        }
    }

    /// A figure as it is read, with its unit.
    #[must_use]
    pub fn text(&self, value: f64) -> String {
        format!("{}{}", self.number(value), self.unit())
    }

    /// A figure as it is read: with as many places as tell on which side of the bound it lies.
    #[must_use]
    pub fn number(&self, value: f64) -> String {
        let holds = self.bound.holds(value);
        let is_there = |text: &String| {
            text.parse()
                .is_ok_and(|told| self.bound.holds(told) == holds)
        };
        let longer = (2..20).map(|places| format!("{value:.places$}"));
        let mut texts = std::iter::once(number(value)).chain(longer);
        texts.find(is_there).unwrap_or_else(|| number(value))
    }
}

/// All of them.
#[rustfmt::skip]
pub const GOALS: [Goal; 51] = [
    goal("Echo 64 B, 64 connections: rate to the bare ring", "echo-c64", Rate, Limit, AtLeast(0.97)),
    goal("Echo 64 B, 512 connections: rate to the bare ring", "echo-c512", Rate, Limit, AtLeast(0.97)),
    goal("Echo 64 B, 16 under way in each of 64: rate to the bare ring", "echo-c64-d16", Rate, Limit, AtLeast(0.97)),
    goal("Echo 4 KiB, 64 connections: rate to the bare ring", "echo-4k", Rate, Limit, AtLeast(0.92)),
    goal("Echo 16 KiB: rate to the bare ring with incremental buffers", "echo-16k", Rate, Limit, AtLeast(0.9)),
    goal("Echo 16 KiB: rate to the best peer, with buffers of 16 KiB", "echo-16k", Rate, BestPeer, AtLeast(3.0)),
    goal("Echo, 64 connections: CPU of a message to the bare ring", "echo-c64", Cpu, Limit, AtMost(1.04)),
    goal("Echo, 512 connections: CPU of a message to the bare ring", "echo-c512", Cpu, Limit, AtMost(1.04)),
    goal("Echo, 16 under way in each of 64: CPU of a message to the bare ring", "echo-c64-d16", Cpu, Limit, AtMost(1.04)),
    goal("Echo, 30 000 a second: CPU of a message to the bare ring", "echo-open-30k", Cpu, Limit, AtMost(1.03)),
    goal("Echo, 80 000 a second: CPU of a message to the bare ring", "echo-open-80k", Cpu, Limit, AtMost(1.03)),
    goal("Echo, 64 connections: time in user space of a message", "echo-c64", User, Nothing, AtMost(0.1)),
    goal("Connections opened and closed: CPU of each to the bare ring", "echo-churn", Cpu, Limit, AtMost(1.05)),
    goal("Idle connections: wakes", "echo-idle", IdleSwitches, Nothing, AtMost(0.0)),
    goal("Idle connections: CPU", "echo-idle", IdleCpu, Nothing, AtMost(0.0)),
    goal("Idle connections: memory of each", "echo-idle", PerConnection, Nothing, AtMost(0.75)),
    goal("One connection, parked: p50 to the bare ring", "echo-c1", P50, Limit, AtMost(1.03)),
    goal("One connection, spinning before it parks: p50 to quoit parked", "echo-c1", P50, Itself, AtMost(0.45)).of(WithOption),
    goal("Round trip between parked cores, to futexes", "micro-cross_rt_parked", Nanos, Limit, AtMost(1.05)),
    goal("Round trip between busy cores", "micro-cross_rt_busy", Nanos, Nothing, AtMost(700.0)),
    goal("Stream between cores, in batches of 32: a message", "micro-cross_stream_32", Nanos, Nothing, AtMost(25.0)),
    goal("Stream between cores, one by one: a message", "micro-cross_stream", Nanos, Nothing, AtMost(80.0)),
    goal("Cancel 100 000 parked tasks: each", "micro-cancel_100k_tasks", Nanos, Nothing, AtMost(30.0)),
    goal("Cancel 100 000 parked tasks, after 100 000 others: each", "micro-cancel_100k_tasks_aged", Nanos, Nothing, AtMost(35.0)),
    goal("Cancel 100 000 parked tasks, with a timeout each: each", "micro-cancel_100k_tasks_aged_timeout", Nanos, Nothing, AtMost(60.0)),
    goal("Cancel 4 000 receives of the kernel, to the bare ring", "micro-cancel_4k_recv", Nanos, Limit, AtMost(1.15)),
    goal("Enter and leave a scope", "micro-scope_enter_exit", Nanos, Nothing, AtMost(12.0)),
    goal("Enter and leave a scope with a timeout", "micro-scope_timeout_enter_exit", Nanos, Nothing, AtMost(40.0)),
    goal("Ask whether the scope is cancelled", "micro-check", Nanos, Nothing, AtMost(2.0)),
    goal("Create and cancel 100 000 timers: each", "micro-timer_create_cancel_100k", Nanos, Nothing, AtMost(55.0)),
    goal("Lateness of a sleep of 1 ms, p50 to the bare ring", "micro-sleep_1ms_late_p50", Nanos, Limit, AtMost(1.3)),
    goal("Lateness of a sleep of 1 ms, p99 to the bare ring", "micro-sleep_1ms_late_p99", Nanos, Limit, AtMost(1.3)),
    goal("Spawn and join, 1 000 at a time", "micro-spawn_join_1k", Nanos, Nothing, AtMost(20.0)),
    goal("Spawn and join, 100 000 at a time", "micro-spawn_join_100k", Nanos, Nothing, AtMost(25.0)),
    goal("Yield, 1 task", "micro-yield_1", Nanos, Nothing, AtMost(12.0)),
    goal("Yield, 100 tasks", "micro-yield_100", Nanos, Nothing, AtMost(12.0)),
    goal("Round trip by the ring (nop), to the bare ring", "micro-op_nop", Nanos, Limit, AtMost(1.22)),
    goal("Write to /dev/null, to the bare ring", "micro-op_write_null", Nanos, Limit, AtMost(1.22)),
    goal("Write to /dev/null beside 10 000 timers, to the bare ring", "micro-op_write_null_10k_timers", Nanos, Limit, AtMost(1.4)),
    goal("Cached read of 4 KiB, one at once, to the bare ring", "micro-read_4k_cached_qd1", Nanos, Limit, AtMost(1.1)),
    goal("Cached read of 4 KiB, 32 at once, to the bare ring", "micro-read_4k_cached_qd32", Nanos, Limit, AtMost(1.05)),
    goal("Direct read of 4 KiB, one at once, to the bare ring", "micro-read_4k_direct_qd1", Nanos, Limit, AtMost(1.03)),
    goal("Direct read of 4 KiB, 32 at once, to the bare ring", "micro-read_4k_direct_qd32", Nanos, Limit, AtMost(1.03)),
    goal("hyper on quoit, HTTP/1.1, 512 connections: CPU of a request to the bare ring", "http1-c512", Cpu, Limit, AtMost(1.2)).of(Alike),
    goal("hyper on quoit, HTTP/1.1, 16 pipelined: rate to the bare ring", "http1-p16", Rate, Limit, AtLeast(0.86)).of(Alike),
    goal("hyper on quoit, HTTP/1.1, 16 pipelined: rate to the best peer", "http1-p16", Rate, BestPeer, AtLeast(1.0)).of(Alike),
    goal("hyper on quoit, HTTP/2, 16 connections, 32 streams each: rate to hyper on tokio", "http2", Rate, Contender("hyper on tokio"), AtLeast(1.15)).of(Alike),
    goal("quoit's server, HTTP/1.1, 512 connections: CPU of a request to the bare ring", "http1-c512", Cpu, Limit, AtMost(1.2)),
    goal("quoit's server, HTTP/1.1, 16 pipelined: rate to the bare ring", "http1-p16", Rate, Limit, AtLeast(0.86)),
    goal("quoit's server, HTTP/1.1, 16 pipelined: rate to the best peer", "http1-p16", Rate, BestPeer, AtLeast(1.0)),
    goal("quoit's server, HTTP/2, 16 connections, 32 streams each: rate to hyper on tokio", "http2", Rate, Contender("hyper on tokio"), AtLeast(1.15)),
];

const fn goal(
    title: &'static str,
    scenario: &'static str,
    figure: Figure,
    to: To,
    bound: Bound,
) -> Goal {
    Goal {
        title,
        scenario,
        figure,
        whose: Role::Ours,
        to,
        bound,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_never_read_as_one_beyond_its_bound() {
        let of = |bound| goal("A goal", "echo-c64", Rate, Limit, bound);
        for (bound, value, told) in [
            (AtLeast(0.97), 0.9655, "0.966"),
            (AtLeast(0.97), 0.9749, "0.97"),
            (AtLeast(0.97), 0.969_999, "0.969999"),
            (AtMost(1.04), 1.0431, "1.043"),
            (AtMost(1.04), 1.0399, "1.04"),
            (AtMost(0.0), 0.000_04, "0.00004"),
            (AtMost(0.0), 0.0, "0.00"),
        ] {
            assert_eq!(of(bound).text(value), told);
        }
    }
}
