//! What is asked. Each scenario has one kind of load, and the figures that are told of it, the main ones first.

use super::Figure;
use super::contenders::Discipline;

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scale {
    /// The main scenarios, two short rounds: under three minutes.
    Quick,
    /// All, under half an hour.
    Full,
}

/// What contenders are asked.
#[derive(Debug, Clone, PartialEq)]
pub struct Scenario {
    /// What `--only` finds, and JSON has.
    pub name: String,
    /// What people read.
    pub title: String,
    /// How it is asked.
    pub load: Load,
}

/// The kinds of load.
#[derive(Debug, Clone, PartialEq)]
pub enum Load {
    /// As many messages under way as there may be.
    Closed {
        /// How many connections there are.
        connections: usize,
        /// Bytes of a message.
        size: usize,
        /// Messages of a connection that are under way.
        depth: usize,
    },
    /// Messages when they are due, over 64 connections.
    Open {
        /// Messages a second.
        rate: u32,
    },
    /// Connections that are opened, used once and closed.
    Churn {
        /// How many at once.
        connections: usize,
    },
    /// Connections that say nothing.
    Idle {
        /// How many.
        connections: usize,
    },
    /// HTTP/1.1, by wrk.
    Http1 {
        /// How many connections there are.
        connections: usize,
        /// Requests of a connection that are under way.
        depth: usize,
    },
    /// HTTP/2, by h2load.
    Http2 {
        /// How many connections there are.
        connections: usize,
        /// Streams of a connection.
        streams: usize,
    },
    /// A part of the runtime, by its name.
    Micro(String),
}

impl Scenario {
    /// Who can be asked.
    #[must_use]
    pub fn discipline(&self) -> Discipline {
        match self.load {
            Load::Closed { .. } | Load::Open { .. } | Load::Churn { .. } | Load::Idle { .. } => {
                Discipline::Echo
            }
            Load::Http1 { .. } | Load::Http2 { .. } => Discipline::Http,
            Load::Micro(_) => Discipline::Micro,
        }
    }

    /// The figures that decide, which are drawn and compared.
    #[must_use]
    pub fn main_figures(&self) -> &'static [Figure] {
        match self.load {
            Load::Closed { connections: 1, .. } => &[Figure::P50, Figure::Cpu],
            Load::Open { .. } => &[Figure::P50, Figure::P99, Figure::Cpu],
            Load::Idle { .. } => &[Figure::PerConnection],
            Load::Micro(_) => &[Figure::Nanos],
            Load::Closed { .. } | Load::Churn { .. } | Load::Http1 { .. } | Load::Http2 { .. } => {
                &[Figure::Rate, Figure::Cpu]
            }
        }
    }

    /// All figures, in the order of the columns.
    #[must_use]
    pub fn figures(&self) -> &'static [Figure] {
        match self.load {
            Load::Idle { .. } => &[
                Figure::PerConnection,
                Figure::IdleSwitches,
                Figure::IdleCpu,
                Figure::Resident,
            ],
            Load::Micro(_) => &[Figure::Nanos],
            Load::Http2 { .. } | Load::Http1 { depth: 2.., .. } => &[
                Figure::Rate,
                Figure::Cpu,
                Figure::Switches,
                Figure::Resident,
            ],
            Load::Closed {
                connections: 64..,
                depth: 1,
                ..
            } => &[
                Figure::Rate,
                Figure::Cpu,
                Figure::User,
                Figure::Switches,
                Figure::P50,
                Figure::P99,
                Figure::P999,
                Figure::Resident,
            ],
            Load::Closed { .. } | Load::Open { .. } | Load::Churn { .. } | Load::Http1 { .. } => &[
                Figure::Rate,
                Figure::Cpu,
                Figure::Switches,
                Figure::P50,
                Figure::P99,
                Figure::P999,
                Figure::Resident,
            ],
        }
    }
}

/// Returns the scenarios of servers.
#[must_use]
pub fn all(scale: Scale) -> Vec<Scenario> {
    let closed = |connections, size, depth| Load::Closed {
        connections,
        size,
        depth,
    };
    let idle = Load::Idle {
        connections: 10_000,
    };
    // Those that a quick run takes are marked.
    let known = [
        (
            false,
            "echo-c1",
            "Echo, 64 B, 1 connection",
            closed(1, 64, 1),
        ),
        (
            true,
            "echo-c64",
            "Echo, 64 B, 64 connections",
            closed(64, 64, 1),
        ),
        (
            false,
            "echo-c512",
            "Echo, 64 B, 512 connections",
            closed(512, 64, 1),
        ),
        (
            true,
            "echo-c64-d16",
            "Echo, 64 B, 64 connections, 16 under way in each",
            closed(64, 64, 16),
        ),
        (
            false,
            "echo-4k",
            "Echo, 4 KiB, 64 connections",
            closed(64, 4096, 1),
        ),
        (
            true,
            "echo-16k",
            "Echo, 16 KiB, 16 connections",
            closed(16, 16 * 1024, 1),
        ),
        (
            true,
            "echo-churn",
            "Echo, connections opened and closed, 64 at once",
            Load::Churn { connections: 64 },
        ),
        (
            true,
            "echo-open-30k",
            "Echo, 30 000 messages a second, open loop",
            Load::Open { rate: 30_000 },
        ),
        (
            false,
            "echo-open-80k",
            "Echo, 80 000 messages a second, open loop",
            Load::Open { rate: 80_000 },
        ),
        (true, "echo-idle", "Idle connections", idle),
        (
            false,
            "http1-c64",
            "HTTP/1.1, 64 connections",
            Load::Http1 {
                connections: 64,
                depth: 1,
            },
        ),
        (
            true,
            "http1-c512",
            "HTTP/1.1, 512 connections",
            Load::Http1 {
                connections: 512,
                depth: 1,
            },
        ),
        (
            false,
            "http1-p16",
            "HTTP/1.1, 64 connections, 16 pipelined",
            Load::Http1 {
                connections: 64,
                depth: 16,
            },
        ),
        (
            true,
            "http2",
            "HTTP/2, 16 connections, 32 streams each",
            Load::Http2 {
                connections: 16,
                streams: 32,
            },
        ),
    ];
    let wanted = known
        .into_iter()
        .filter(|(is_quick, ..)| *is_quick || scale == Scale::Full);
    wanted
        .map(|(_, name, title, load)| Scenario {
            name: name.to_owned(),
            title: title.to_owned(),
            load,
        })
        .collect()
}

/// Returns the scenarios of parts, of those that our own program knows.
#[must_use]
pub fn micro(names: &[String], scale: Scale) -> Vec<Scenario> {
    let wanted = names
        .iter()
        .filter(|name| scale == Scale::Full || QUICK_PARTS.contains(&name.as_str()));
    wanted
        .map(|name| Scenario {
            name: format!("micro-{name}"),
            title: format!("Part: {}", name.replace('_', " ")),
            load: Load::Micro(name.clone()),
        })
        .collect()
}

/// Parts that tell the most in the least time.
const QUICK_PARTS: [&str; 6] = [
    "spawn_join_1k",
    "yield_100",
    "timer_create_cancel_100k",
    "op_write_null",
    "cross_rt_parked",
    "cancel_100k_tasks",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quick_run_is_a_part_of_a_full_one() {
        let (quick, full) = (all(Scale::Quick), all(Scale::Full));
        assert!(quick.len() < full.len());
        assert!(quick.iter().all(|scenario| full.contains(scenario)));
        let names = ["check".to_owned(), "yield_100".to_owned()];
        assert_eq!(micro(&names, Scale::Full).len(), 2);
        assert_eq!(micro(&names, Scale::Quick).len(), 1);
    }

    #[test]
    fn names_are_unique_and_main_figures_are_told() {
        let full = all(Scale::Full);
        for (index, scenario) in full.iter().enumerate() {
            assert!(
                full[..index]
                    .iter()
                    .all(|other| other.name != scenario.name)
            );
            for figure in scenario.main_figures() {
                assert!(
                    scenario.figures().contains(figure),
                    "{}: {figure:?}",
                    scenario.name
                );
            }
        }
    }
}
