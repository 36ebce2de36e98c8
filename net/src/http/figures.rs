//! What a server counts and measures, on each core of it.
//!
//! Each core writes its own; anybody reads them at any time. [`Figures`] is the core's end, [`Tally`]
//! everybody's.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::StatusCode;
use quoit::metrics::{CoreSnapshot, Count, CountKind, Latency, Reader, Recorder};

use super::handle::ConnectionCounts;

/// A number that only its core adds to.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    /// Adds one. As the one writer it needs no exchange.
    pub(super) fn add_one(&self) {
        let sum = self.get() + 1;
        self.0.store(sum, Ordering::Relaxed);
    }

    fn take_one(&self) {
        let rest = self.get() - 1;
        self.0.store(rest, Ordering::Relaxed);
    }

    fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// The figures of one core, where everybody may read them.
#[derive(Debug)]
pub(super) struct Tally {
    /// How many connections may be open.
    limit: u64,
    open: Counter,
    begun: Counter,
    full: Counter,
    pub(super) http1: Counter,
    pub(super) http2: Counter,
    /// By the first digit of the status, from 1 to 5.
    answers: [Counter; 5],
    pub(super) given_up: Counter,
    pub(super) refused: Counter,
    pub(super) failed: Counter,
    pub(super) late: Counter,
    request: Reader,
    first_byte: Reader,
}

impl Tally {
    pub(super) fn begin(&self) {
        self.open.add_one();
        self.begun.add_one();
    }

    pub(super) fn end(&self) {
        self.open.take_one();
    }

    pub(super) fn fill(&self) {
        self.full.add_one();
    }

    /// Counts an answer.
    pub(super) fn answer(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES.len());
        self.answers[class - 1].add_one();
    }

    pub(super) fn connections(&self) -> ConnectionCounts {
        ConnectionCounts {
            open: self.open.get(),
            begun: self.begun.get(),
            full: self.full.get(),
        }
    }

    /// Adds everything to what the core's runtime says of it.
    pub(super) fn add_to(&self, core: &mut CoreSnapshot) {
        let counter = |name: &'static str, help: &'static str, counter: &Counter| {
            Count::new(name, help, CountKind::Counter, counter.get())
        };
        let open = "Connections that are open now.";
        let limit = "Connections that may be open: past that, no more are accepted.";
        let requests = "Requests whose heads were read, by protocol.";
        let answers = "Answers that were begun, by the class of their status.";
        core.counts.extend([
            Count::new("connections", open, CountKind::Gauge, self.open.get()),
            Count::new("connections_limit", limit, CountKind::Gauge, self.limit),
            counter(
                "connections_accepted",
                "Connections that were accepted.",
                &self.begun,
            ),
            counter(
                "connections_full",
                "Times as many connections were open as may be, so that no more were accepted.",
                &self.full,
            ),
            counter("requests", requests, &self.http1).label("protocol", "http1"),
            counter("requests", requests, &self.http2).label("protocol", "http2"),
        ]);
        let by_class = self.answers.iter().zip(CLASSES);
        core.counts.extend(
            by_class.map(|(count, class)| counter("answers", answers, count).label("class", class)),
        );
        core.counts.extend([
            counter(
                "given_up",
                "Requests that ended before their answers were whole: the client went away, or was cut for being too slow.",
                &self.given_up,
            ),
            counter(
                "refused",
                "Requests that the server refused by itself: too large, too slow, or against the rules; and what was no request.",
                &self.refused,
            ),
            counter("failed", "Requests whose handlers, or bodies of answers, failed or panicked.", &self.failed),
            counter("late", "Requests whose handlers took longer than they may.", &self.late),
        ]);
        core.latencies.extend([
            Latency::new(
                "request",
                "How long requests took, from the turn in which a head was read until the last of the answer was taken over for sending.",
                self.request.read(),
            ),
            Latency::new(
                "first_byte",
                "How long connections took from being accepted until the first byte was sent.",
                self.first_byte.read(),
            ),
        ]);
    }
}

const CLASSES: [&str; 5] = ["1xx", "2xx", "3xx", "4xx", "5xx"];

/// Whether a core sends much at a time.
#[derive(Debug)]
pub(super) struct Bulk {
    /// How many connections have begun since it did.
    begun: Cell<u32>,
}

/// So many connections that begin, behind the last that something large was sent on, have hyper copy what it sends.
const UNTIL_SMALL: u32 = 64;

impl Bulk {
    /// Notes that something large is sent.
    pub(super) fn note(&self) {
        self.begun.set(0);
    }

    /// Notes that a connection begins. Returns whether what it sends will rather be small.
    pub(super) fn will_be_small(&self) -> bool {
        let begun = self.begun.get().saturating_add(1);
        self.begun.set(begun);
        begun > UNTIL_SMALL
    }
}

/// The figures of one core, as it writes them.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) bulk: Bulk,
    pub(super) tally: Arc<Tally>,
    pub(super) request: Recorder,
    pub(super) first_byte: Recorder,
}

impl Figures {
    /// Of a core that may have so many connections.
    pub(super) fn new(limit: usize) -> Self {
        let (request, request_reader) = Recorder::new();
        let (first_byte, first_byte_reader) = Recorder::new();
        let tally = Arc::new(Tally {
            limit: limit as u64,
            open: Counter::default(),
            begun: Counter::default(),
            full: Counter::default(),
            http1: Counter::default(),
            http2: Counter::default(),
            answers: Default::default(),
            given_up: Counter::default(),
            refused: Counter::default(),
            failed: Counter::default(),
            late: Counter::default(),
            request: request_reader,
            first_byte: first_byte_reader,
        });
        Self {
            bulk: Bulk {
                begun: Cell::new(UNTIL_SMALL),
            },
            tally,
            request,
            first_byte,
        }
    }
}
