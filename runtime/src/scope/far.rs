//! A scope on another core that may not be there yet: it can be cancelled before.
//!
//! ```text
//!   asker: write why ──► add ASKED ──┐ one of the two finds the
//!   far side: write where ──► add HERE ──┘ other's bit: that one sends the cancel
//! ```
//!
//! Both bits lie in one word and are added by a read-modify-write, so one of the two comes second,
//! and only that one sends: exactly one message, in whichever order.

#[cfg(loom)]
use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// Somebody has begun to ask; later ones leave it at that.
const CLAIMED: u32 = 1;
/// It is asked for, and why is written down.
const ASKED: u32 = 2;
/// The scope is there, and where is written down.
const HERE: u32 = 4;

/// The place where the two sides meet.
#[derive(Debug)]
pub(crate) struct Meeting {
    state: AtomicU32,
    /// The reason, and until when there is grace.
    why: [AtomicU64; 2],
    place: [AtomicU64; 2],
}

impl Meeting {
    pub(crate) fn new() -> Self {
        Self {
            state: AtomicU32::new(0),
            why: [AtomicU64::new(0), AtomicU64::new(0)],
            place: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }

    /// Asks for a cancel. If the scope is there, and nobody has asked before, says where: then the
    /// caller has to send it.
    pub(crate) fn ask(&self, why: [u64; 2]) -> Option<[u64; 2]> {
        if self.state.fetch_or(CLAIMED, Ordering::Relaxed) & CLAIMED != 0 {
            return None;
        }
        write(&self.why, why);
        // AcqRel: releases why to the other side, and acquires where.
        let before = self.state.fetch_or(ASKED, Ordering::AcqRel);
        (before & HERE != 0).then(|| read(&self.place))
    }

    /// Says where the scope is; once. If it was asked for before, says why: then the caller has to
    /// send the cancel.
    pub(crate) fn arrive(&self, place: [u64; 2]) -> Option<[u64; 2]> {
        write(&self.place, place);
        // AcqRel: releases where to the other side, and acquires why.
        let before = self.state.fetch_or(HERE, Ordering::AcqRel);
        (before & ASKED != 0).then(|| read(&self.why))
    }
}

fn write(words: &[AtomicU64; 2], values: [u64; 2]) {
    for (word, value) in words.iter().zip(values) {
        word.store(value, Ordering::Relaxed);
    }
}

fn read(words: &[AtomicU64; 2]) -> [u64; 2] {
    [0, 1].map(|at| words[at].load(Ordering::Relaxed))
}

#[cfg(all(test, loom))]
mod loom_tests {
    use super::*;
    use loom::sync::Arc;

    /// Two ask while the scope arrives: one message is sent, with what one of them wrote, to where
    /// it is.
    #[test]
    fn loom_one_cancel_is_sent_whoever_comes_first() {
        loom::model(|| {
            let meeting = Arc::new(Meeting::new());
            let askers: Vec<_> = [7, 8]
                .into_iter()
                .map(|why| {
                    let meeting = meeting.clone();
                    loom::thread::spawn(move || {
                        let place = meeting.ask([why, why + 2]);
                        assert!(place.is_none() || place == Some([3, 4]));
                        usize::from(place.is_some())
                    })
                })
                .collect();
            let why = meeting.arrive([3, 4]);
            assert!(matches!(why, None | Some([7, 9] | [8, 10])));
            let sent = askers.into_iter().map(|asker| asker.join().unwrap());
            assert_eq!(sent.sum::<usize>() + usize::from(why.is_some()), 1);
        });
    }
}
