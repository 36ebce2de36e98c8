//! `Outbox`: what is to be written to a child, frame by frame. Pure.
//!
//! A frame goes into the pipe as a whole or not at all: it is taken out here by the one task that writes, which
//! nobody cancels in the middle. A caller that gives up takes its frame back while it is still here.
//!
//! Answers and cancels go before requests, and wait for no room: of cancels there are no more than requests that
//! were written, of answers no more than the child may ask for at once.

use std::collections::VecDeque;

use quoit::sync::OwnedPermit;

/// The frames that wait to be written.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    urgent: VecDeque<Urgent>,
    /// How many of these are answers.
    answers: usize,
    frames: VecDeque<Queued>,
    is_finished: bool,
}

/// A frame that goes before others.
#[derive(Debug)]
enum Urgent {
    Answer(Vec<u8>),
    Cancel(Vec<u8>),
}

/// A frame that was given room.
#[derive(Debug)]
pub(super) struct Queued {
    /// Which call it is, if it is one.
    pub(super) call: Option<u64>,
    pub(super) frame: Vec<u8>,
    /// Given back when it was written, or taken back.
    pub(super) room: OwnedPermit,
}

/// What the writer is to do.
#[derive(Debug)]
pub(super) enum Next {
    Write(Vec<u8>, Option<OwnedPermit>),
    Wait,
    /// There will be nothing more.
    End,
}

impl Outbox {
    pub(super) fn push(&mut self, queued: Queued) {
        self.frames.push_back(queued);
    }

    pub(super) fn push_answer(&mut self, frame: Vec<u8>) {
        self.answers += 1;
        self.urgent.push_back(Urgent::Answer(frame));
    }

    pub(super) fn push_cancel(&mut self, frame: Vec<u8>) {
        self.urgent.push_back(Urgent::Cancel(frame));
    }

    /// Takes back what was not begun. The caller drops it when nothing is borrowed.
    pub(super) fn take_back(&mut self, call: u64) -> Option<Queued> {
        let place = self
            .frames
            .iter()
            .position(|queued| queued.call == Some(call))?;
        self.frames.remove(place)
    }

    /// Ends after what is here.
    pub(super) fn finish(&mut self) {
        self.is_finished = true;
    }

    /// How many answers wait.
    pub(super) fn answers(&self) -> usize {
        self.answers
    }

    pub(super) fn next(&mut self) -> Next {
        match self.urgent.pop_front() {
            Some(Urgent::Answer(frame)) => {
                self.answers -= 1;
                return Next::Write(frame, None);
            }
            Some(Urgent::Cancel(frame)) => return Next::Write(frame, None),
            None => {}
        }
        match self.frames.pop_front() {
            Some(queued) => Next::Write(queued.frame, Some(queued.room)),
            None if self.is_finished => Next::End,
            None => Next::Wait,
        }
    }
}
