//! Honest clients beside attackers, and beside honest neighbours who move as many bytes.
//!
//! The two take turns: a round beside neighbours and a round under attack make a pair, and which of them
//! comes first changes from pair to pair. What counts is by how much the attack was slower, in the median
//! of so many pairs, each held against its own neighbours: a machine with other things to do slows both
//! down, and how many pairs there are does not depend on how they go.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use quoit::time::Instant;
use tests::http_client::pause;

use crate::flood::{Flood, PACE};
use crate::victim::{Figures, Victim};
use crate::wire::{self, Client};

/// How many honest clients there are, and how many requests each makes in a round.
const HONEST: usize = 2;
const REQUESTS: usize = 100;

/// How many pairs of rounds there are. Odd, so that one of them is the median.
const PAIRS: usize = 15;

/// How many times as long the honest may take under attack: they keep more than half of their rate.
const MOST_SLOWER: f64 = 2.0;

/// What the neighbours of one attacker do at each of their steps: all ask, and then all are answered. Their
/// steps and those of attackers come in the same pace, so that both move as many bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Neighbours {
    /// How many there are.
    pub(crate) count: usize,
    /// How many bytes each sends.
    pub(crate) bytes: usize,
    pub(crate) stay: Stay,
}

/// For how long a neighbour stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stay {
    /// It keeps its connection.
    Keeps,
    /// It comes for one request.
    Comes,
}

/// How an attack shall go.
pub(crate) struct Contest {
    /// What is fair to compare it with.
    pub(crate) neighbours: Neighbours,
    /// How much memory the server may take for it, in KiB; the test says why.
    pub(crate) memory_kib: u64,
    /// Whether the server ends such connections by itself.
    pub(crate) ends: Ends,
}

/// Whether the server ends the connections of attackers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ends {
    /// It does, before the attack is over.
    Always,
    /// Not by itself: they do no harm.
    Maybe,
}

/// How much the memory of a process may grow by itself: what the allocator keeps ahead, pages of the
/// program that are first used under attack, what honest neighbours make it keep (a body of 1 MiB at most
/// at a time for each of them, and what is gathered of it).
const LEEWAY_KIB: u64 = 8 * 1024;

impl Contest {
    /// Lets `attackers`, each on a thread of its own, attack while honest clients ask; returns them as
    /// they are at the end.
    pub(crate) fn fight(self, victim: &mut Victim, attackers: Vec<Flood>) {
        self.fight_over(victim, attackers, |address, _| {
            Client::over(wire::connect(address).expect("it listens"))
        });
    }

    /// As above, where clients connect like this.
    pub(crate) fn fight_over(
        self,
        victim: &mut Victim,
        mut attackers: Vec<Flood>,
        connect: fn(SocketAddr, &str) -> Client,
    ) {
        let (address, certificate) = (victim.address, victim.certificate.clone());
        let greet = || connect(address, &certificate);
        let greet_all = || (0..HONEST).map(|_| greet()).collect::<Vec<Client>>();
        let mut honest = greet_all();
        let others = attackers.len();
        let fair_round = |honest: &mut [Client]| {
            let mut neighbours: Vec<_> = (0..others).map(|_| Vec::new()).collect();
            beside(honest, &mut neighbours, |it| {
                self.neighbours.step(it, greet)
            })
        };
        // Pages and pools that come with the first requests are there in all rounds.
        fair_round(&mut honest);
        fair_round(&mut honest);
        // Without any client: one that is idle may or may not have left its last send to be looked at.
        drop(honest);
        let before = at_rest(victim);
        let resident = victim.resident_kib();
        victim.forget_peak();

        let mut honest = greet_all();
        let mut pairs = Vec::new();
        for pair in 0..PAIRS {
            let fair_first = (pair % 2 == 0).then(|| fair_round(&mut honest));
            let unfair = beside(&mut honest, &mut attackers, Flood::step);
            let fair = fair_first.unwrap_or_else(|| fair_round(&mut honest));
            pairs.push((fair, unfair));
        }
        // Limits of time may take longer than all rounds.
        let begun = Instant::now();
        while self.ends == Ends::Always && ended_of(&attackers) == 0 {
            assert!(
                begun.elapsed() < wire::PATIENCE,
                "the server ends no connection of attackers"
            );
            attackers.iter_mut().for_each(Flood::step);
        }
        let peak = victim.peak_kib();
        let taken: u64 = attackers.iter().map(|flood| flood.taken).sum();
        let ended = ended_of(&attackers);
        let slower = median(
            pairs
                .iter()
                .map(|(fair, unfair)| unfair.as_secs_f64() / fair.as_secs_f64()),
        );
        println!(
            "{slower:.2} times as long under attack; {} KiB more of {}; {ended} ended, {taken} bytes",
            peak.saturating_sub(resident),
            self.memory_kib + LEEWAY_KIB,
        );
        assert!(
            slower < MOST_SLOWER,
            "{HONEST} honest clients took {slower:.2} times as long under attack for {REQUESTS} requests \
             each: beside neighbours and under attack {pairs:?}"
        );
        assert!(taken > 0 || ended > 0, "nobody has attacked");
        assert!(
            peak <= resident + self.memory_kib + LEEWAY_KIB,
            "the server had {peak} KiB, and {resident} KiB before: the attack is to cost {} KiB at most",
            self.memory_kib
        );
        drop(attackers);
        // Those who were there all the while are still served.
        honest.iter_mut().for_each(|client| client.echo(100));
        drop(honest);
        victim.is_as_before(&before);
    }
}

impl Neighbours {
    fn step(self, clients: &mut Vec<Client>, greet: impl Fn() -> Client) {
        if self.stay == Stay::Comes {
            clients.clear();
        }
        while clients.len() < self.count {
            clients.push(greet());
        }
        clients
            .iter_mut()
            .for_each(|client| client.give(self.bytes));
        clients
            .iter_mut()
            .for_each(|client| client.is_counted(self.bytes));
        pause(PACE);
    }
}

/// Lets honest clients make their requests while others do theirs; returns how long it took.
fn beside<T: Send>(
    honest: &mut [Client],
    others: &mut [T],
    step: impl Fn(&mut T) + Sync,
) -> Duration {
    let is_over = AtomicBool::new(false);
    let (is_over, step) = (&is_over, &step);
    thread::scope(|threads| {
        for other in others {
            threads.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    step(other);
                }
            });
        }
        let _guard = SetWhenDropped(is_over);
        let begun = Instant::now();
        thread::scope(|threads| {
            for client in honest {
                threads.spawn(move || {
                    for round in 0..REQUESTS {
                        client.echo(round % 100);
                    }
                });
            }
        });
        begun.elapsed()
    })
}

/// Ends the others also if an honest client has not got its answer.
struct SetWhenDropped<'a>(&'a AtomicBool);

impl Drop for SetWhenDropped<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Returns the gauges once there are no connections.
fn at_rest(victim: &mut Victim) -> Figures {
    let mut before = victim.gauges();
    loop {
        pause(Duration::from_millis(50));
        let now = victim.gauges();
        if now == before && now["connections"] == 0 {
            return now;
        }
        before = now;
    }
}

fn ended_of(attackers: &[Flood]) -> u64 {
    attackers.iter().map(|flood| flood.ended).sum()
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
