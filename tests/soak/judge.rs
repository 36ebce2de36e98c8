//! Who starts everybody, and in the end holds what clients saw against what the server says.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;
use std::time::Duration;

use quoit::time::Instant;
use tests::http_client::pause;
use tests::{Again, Dice, End};

use crate::book::Entry;
use crate::client::{self, Orders, PATIENCE};
use crate::curl::{self, Site, Way};
use crate::{NAME, ROLE, SHORT, resets, server};

/// How many processes of clients there are at a time, and how many threads of raw sockets.
const CLIENTS: usize = 3;
const RESETTING: usize = 2;

/// How long a client lives at the most, in milliseconds.
const LONGEST_LIFE: usize = 2000;

/// How many numbers can be used up in a second: clients that are killed at once have hardly begun theirs.
const NUMBERS_PER_SECOND: u64 = 60 * client::NUMBERS;

/// How much more memory may be resident at the end than after the first round, in KiB: what an allocator
/// keeps of the most that was needed at once, which may be more in a later round. That is 2 MiB for each of
/// four cores: a body of 1 MiB as it was gathered, and as it was read ahead.
const MORE_KIB: u64 = 4 * 2 * 1024;

/// The same where the first round was too short for all of it to have come together: 4 MiB for each.
const MORE_KIB_SOON: u64 = 4 * 4 * 1024;

/// How long the first round is, at the most: what an allocator keeps has come together by then.
const FIRST: Duration = Duration::from_secs(30);

/// How many rounds there are besides, until everything has happened that is to happen.
const MORE_ROUNDS: u32 = 10;

/// What came of a request, as its client says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Its client was killed before it could say more.
    Asked,
    Answered(u16),
    Cut,
    /// Its client has left it on purpose.
    Left,
}

/// What all clients say, and how many of them there were.
#[derive(Debug, Default)]
struct Ledger {
    seen: Mutex<BTreeMap<u64, Seen>>,
    next: AtomicU64,
    lived: AtomicU64,
    killed: AtomicU64,
    curls: AtomicU64,
}

impl Ledger {
    /// Takes so many numbers, and returns the first.
    fn take(&self, numbers: u64) -> u64 {
        self.next.fetch_add(numbers, Ordering::Relaxed)
    }

    fn note(&self, number: u64, now: Seen) {
        let before = self.seen().insert(number, now);
        let expected = (now != Seen::Asked).then_some(Seen::Asked);
        assert_eq!(before, expected, "{number} is told twice, or was not asked");
    }

    fn seen(&self) -> MutexGuard<'_, BTreeMap<u64, Seen>> {
        self.seen.lock().expect("no panic")
    }

    /// Notes that the client with these numbers lived until its end: nothing is open.
    fn lived(&self, numbers: impl Iterator<Item = u64>) {
        let seen = self.seen();
        for number in numbers {
            let outcome = seen.get(&number);
            assert_ne!(outcome, Some(&Seen::Asked), "{number} was never answered");
        }
        self.lived.fetch_add(1, Ordering::Relaxed);
    }
}

/// Numbers by name.
type Figures = BTreeMap<String, u64>;

/// Where the servers are, and how clients are started.
#[derive(Debug)]
struct Field<'a> {
    clear: SocketAddr,
    encrypted: SocketAddr,
    certificate: &'a str,
    folder: &'a Path,
    ledger: &'a Ledger,
    has_curl: bool,
}

/// Runs the soak.
pub(crate) fn judge(time: Duration, seed: u64) {
    println!("a soak of {time:?}: QUOIT_SOAK_SEED={seed}");
    let mut dice = Dice::new(seed);
    let key = rcgen::KeyPair::generate().expect("a key");
    let params = rcgen::CertificateParams::new(["site.test".to_owned()]).expect("a name");
    let certificate = params.self_signed(&key).expect("a certificate").pem();
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("cert.pem"), &certificate).expect("a new file");
    let longest = time + SHORT * MORE_ROUNDS;
    let numbers = longest.as_secs() * NUMBERS_PER_SECOND;
    let mut server = Again::start(
        Again::command(NAME)
            .env(ROLE, format!("server {numbers}"))
            .env(server::CERTIFICATE, &certificate)
            .env(server::KEY, key.serialize_pem()),
    );
    let addresses = server.line_behind("@addresses ");
    let (clear, encrypted) = addresses.split_once(' ').expect("two");
    let ledger = Ledger::default();
    let field = Field {
        clear: clear.parse().expect("an address"),
        encrypted: encrypted.parse().expect("an address"),
        certificate: &certificate,
        folder: folder.path(),
        ledger: &ledger,
        has_curl: curl::is_here(),
    };

    let idle = look(&mut server);
    let first = FIRST.min(time / 2);
    field.round(first, Dice::new(dice.seed()));
    let before = at_rest(&mut server, &idle);
    field.round(time - first, Dice::new(dice.seed()));
    let mut counters = figures(&mut server, "counters");
    // On a machine with much else to do a short soak may have seen too little.
    for _ in 0..MORE_ROUNDS {
        let happened = happened(&ledger, &ledger.seen(), &counters);
        if happened.iter().all(|&(_, times)| times > 0) {
            break;
        }
        field.round(SHORT, Dice::new(dice.seed()));
        counters = figures(&mut server, "counters");
    }
    let after = at_rest(&mut server, &idle);
    let counters = figures(&mut server, "counters");
    check(&read_book(&mut server), &ledger, &counters);
    let (before, after) = (before["resident_kib"], after["resident_kib"]);
    println!(
        "{} clients lived, {} were killed, {} of them curls; {before} KiB after the first round, \
         {after} KiB at the end",
        ledger.lived.load(Ordering::Relaxed),
        ledger.killed.load(Ordering::Relaxed),
        ledger.curls.load(Ordering::Relaxed),
    );
    let more = if first < FIRST {
        MORE_KIB_SOON
    } else {
        MORE_KIB
    };
    assert!(
        after <= before + more,
        "{before} KiB were resident after the first round, and {after} KiB are now"
    );
    server.end();
}

impl Field<'_> {
    /// Lets clients come and go for a while; returns when all have gone.
    fn round(&self, time: Duration, mut dice: Dice) {
        let until = Instant::now() + time;
        thread::scope(|threads| {
            let mut start = |life: fn(&Self, Instant, &mut Dice)| {
                let mut dice = Dice::new(dice.seed());
                threads.spawn(move || {
                    while Instant::now() < until {
                        life(self, until, &mut dice);
                    }
                });
            };
            (0..CLIENTS).for_each(|_| start(Self::client));
            (0..RESETTING).for_each(|_| start(Self::reset));
            if self.has_curl {
                start(Self::curl);
            }
        });
    }

    /// A client's process, from its beginning to its end, or until it is killed.
    fn client(&self, until: Instant, dice: &mut Dice) {
        let left = until.duration_since(Instant::now());
        let life = (100 + dice.below(LONGEST_LIFE - 100)) as u64;
        let orders = Orders {
            seed: dice.seed(),
            first: self.ledger.take(client::NUMBERS),
            milliseconds: life.min(left.as_millis() as u64),
            clear: self.clear,
            encrypted: self.encrypted,
        };
        let killed_after = (!dice.one_in(3)).then(|| dice.below(life as usize) as u64);
        let mut command = Again::command(NAME);
        command
            .env(ROLE, orders.role())
            .env(server::CERTIFICATE, self.certificate);
        let killed_after = killed_after.map(Duration::from_millis);
        let end = Again::start(&mut command).hear_out(killed_after, |line| self.heard(line));
        match end {
            End::Lived => self
                .ledger
                .lived(orders.first..orders.first + client::NUMBERS),
            End::Killed => drop(self.ledger.killed.fetch_add(1, Ordering::Relaxed)),
        }
    }

    /// Notes what a client says.
    fn heard(&self, line: &str) {
        let Some(said) = line.strip_prefix('@') else {
            return;
        };
        let mut words = said.split_whitespace();
        let word = words.next().expect("a word");
        let mut number = || words.next().and_then(|word| word.parse::<u64>().ok());
        let about = number().expect("a number");
        let now = match word {
            "asked" => Seen::Asked,
            "answered" => {
                let status = number().and_then(|status| u16::try_from(status).ok());
                Seen::Answered(status.expect("a status"))
            }
            "cut" => Seen::Cut,
            "left" => Seen::Left,
            _ => panic!("{line}"),
        };
        self.ledger.note(about, now);
    }

    /// A request on a raw socket, which is left.
    fn reset(&self, _until: Instant, dice: &mut Dice) {
        let number = self.ledger.take(1);
        self.ledger.note(number, Seen::Asked);
        resets::leave_one(self.clear, number, dice);
        self.ledger.note(number, Seen::Left);
    }

    /// A curl.
    fn curl(&self, _until: Instant, dice: &mut Dice) {
        let (way, count) = Way::drawn(dice);
        let first = self.ledger.take(count);
        let numbers: Vec<u64> = (first..first + count).collect();
        for &number in &numbers {
            self.ledger.note(number, Seen::Asked);
        }
        let site = Site {
            clear: self.clear,
            encrypted: self.encrypted,
            folder: self.folder,
        };
        let (right, lives) = curl::ask(site, way, &numbers, dice);
        for number in right {
            self.ledger.note(number, Seen::Answered(200));
        }
        self.ledger.curls.fetch_add(1, Ordering::Relaxed);
        if lives {
            self.ledger.lived(numbers.into_iter());
        } else {
            self.ledger.killed.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Holds the book, what clients say and the counters against each other.
fn check(book: &[Entry], ledger: &Ledger, counters: &Figures) {
    let seen = ledger.seen();
    let mut told_by_class = [0_u64; 6];
    let (mut told, mut whole) = (0, 0);
    for &entry in book {
        let Entry {
            number,
            begun,
            ended,
            status,
            ..
        } = entry;
        assert!(seen.contains_key(&number), "nobody has asked {number}");
        assert!(begun <= 1, "handled twice: {entry:?}");
        assert_eq!(begun, ended, "a handler is left: {entry:?}");
        assert_eq!(entry.told, 1, "told of once: {entry:?}");
        // What no handler has seen was refused, or its client had gone before it could be.
        match begun {
            0 => assert!(matches!(status, 0 | 400..=499), "{entry:?}"),
            _ => assert!(!matches!(status, 400..=499), "{entry:?}"),
        }
        told += 1;
        whole += u64::from(entry.whole);
        told_by_class[usize::from(status / 100)] += 1;
    }
    let by_number: BTreeMap<u64, &Entry> = book.iter().map(|entry| (entry.number, entry)).collect();
    let mut counts = BTreeMap::new();
    for (number, seen) in &*seen {
        let entry = by_number.get(number);
        let status = entry.map(|entry| (entry.status, entry.whole));
        let name = match *seen {
            Seen::Answered(read) => {
                assert_eq!(
                    status,
                    Some((read, true)),
                    "{number} was answered: {entry:?}"
                );
                "answered"
            }
            Seen::Cut => {
                assert_eq!(status, Some((200, false)), "{number} was cut: {entry:?}");
                "cut"
            }
            Seen::Asked if status.is_none() => "killed before it was read",
            Seen::Asked => "killed",
            Seen::Left if status.is_none() => "left before it was read",
            Seen::Left => "left",
        };
        *counts.entry(name).or_default() += 1_u64;
    }
    println!("{counts:?}");
    let count = |name| counts.get(name).copied().unwrap_or(0);
    let read = |status: u16| {
        let is_it = |seen: &&Seen| **seen == Seen::Answered(status);
        seen.values().filter(is_it).count() as u64
    };

    // Each request was answered as a whole, given up, or failed within its answer.
    let requests = counters["requests_http1"] + counters["requests_http2"];
    assert_eq!(requests, told, "each is told of: {counters:?}");
    assert_eq!(counters["measured"], whole, "{counters:?}");
    let failed_within = counters["failed"] - told_by_class[5];
    assert_eq!(
        requests,
        whole + counters["given_up"] + failed_within,
        "{counters:?}"
    );
    assert_eq!(counters["refused"], told_by_class[4], "{counters:?}");
    assert_eq!(counters["late"], 0);
    for class in 1..6 {
        let answers = counters[&format!("answers_{class}xx")];
        assert_eq!(answers, told_by_class[class], "{class}xx: {counters:?}");
    }
    // And what clients have read is among it.
    assert!(count("cut") <= failed_within, "{counters:?}");
    assert!(read(413) + read(400) <= counters["refused"]);
    assert!(read(500) <= told_by_class[5]);
    for (what, times) in happened(ledger, &seen, counters) {
        assert!(times > 0, "there were no {what}: {counts:?}");
    }
    // Nothing that always has to be zero is not.
    for name in ["orphan_faults", "failed_wakes", "quarantined"] {
        assert_eq!(counters[name], 0, "{name}");
    }
}

/// Returns what is to happen in a soak, and how often it has.
fn happened(
    ledger: &Ledger,
    seen: &BTreeMap<u64, Seen>,
    counters: &Figures,
) -> [(&'static str, u64); 11] {
    let count = |wanted: &[Seen]| seen.values().filter(|seen| wanted.contains(seen)).count() as u64;
    [
        ("requests of HTTP/1", counters["requests_http1"]),
        ("requests of HTTP/2", counters["requests_http2"]),
        ("upgrades", count(&[Seen::Answered(101)])),
        ("answers", count(&[Seen::Answered(200)])),
        ("failures", count(&[Seen::Answered(500)])),
        (
            "refusals",
            count(&[Seen::Answered(400), Seen::Answered(413)]),
        ),
        ("cuts", count(&[Seen::Cut])),
        ("requests that were left", count(&[Seen::Left])),
        ("clients that lived", ledger.lived.load(Ordering::Relaxed)),
        (
            "clients that were killed",
            ledger.killed.load(Ordering::Relaxed),
        ),
        ("requests that were given up", counters["given_up"]),
    ]
}

/// Waits until the server is what it was before anybody came (descriptors, threads, lines of its dump, and
/// every gauge of each core, lent receive buffers among them), but for its memory; returns what it is.
fn at_rest(server: &mut Again, idle: &Figures) -> Figures {
    let begun = Instant::now();
    loop {
        let now = look(server);
        let is_other = |(name, value): &(&String, &u64)| {
            *name != "resident_kib" && idle.get(*name) != Some(*value)
        };
        let left: Vec<_> = now.iter().filter(is_other).collect();
        if left.is_empty() {
            return now;
        }
        if begun.elapsed() > 2 * PATIENCE {
            server.tell("dump");
            while let Some(line) = server.line().filter(|line| !line.starts_with("@dumped")) {
                print!("{line}");
            }
            panic!("something is left: {left:?}, where there was {idle:?}");
        }
        pause(Duration::from_millis(50));
    }
}

fn look(server: &mut Again) -> Figures {
    figures(server, "look")
}

/// Asks for figures; those with the same name are added up.
fn figures(server: &mut Again, what: &str) -> Figures {
    server.tell(what);
    let mut figures = Figures::new();
    for figure in server.line_behind(&format!("@{what} ")).split_whitespace() {
        let (name, value) = figure.split_once('=').expect("a name and a number");
        let value: u64 = value.parse().expect("a number");
        *figures.entry(name.to_owned()).or_default() += value;
    }
    figures
}

fn read_book(server: &mut Again) -> Vec<Entry> {
    server.tell("book");
    let mut entries = Vec::new();
    while let Some(line) = server.line().filter(|line| !line.starts_with("@closed")) {
        if let Some(page) = line.strip_prefix("@page ") {
            entries.push(Entry::of_line(page));
        }
    }
    entries
}
