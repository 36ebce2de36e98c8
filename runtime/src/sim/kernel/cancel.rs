//! Cancel requests: found, not found, already running; and what becomes of the request they are about.
//!
//! No order is promised between the answer to a cancel request and the completion it causes.

use super::ring::Stage;
use super::{Coming, Kernel, OpKey, RingId};
use crate::driver::{Completion, CompletionFlags};
use crate::sim::fault::Fault;
use crate::sim::trace::What;

impl Kernel {
    pub(super) fn cancel(&mut self, id: RingId, target: u64, user_data: u64, number: OpKey) {
        self.counts.cancels += 1;
        let now = self.now;
        let Some(key) = self.ring(id).find(target) else {
            self.answer(id, now, user_data, -libc::ENOENT, number);
            return;
        };
        let op = self.ring(id).in_flight.get_mut(&key).expect("just found");
        let (stage, name) = (op.stage, op.request.kind().name());
        if std::mem::replace(&mut op.asked, true) {
            self.violated("cancel", format!("a {name} was asked to end twice"));
        }
        match stage {
            Stage::Running { .. } => {
                self.answer(id, now, user_data, -libc::EALREADY, number);
            }
            Stage::Ends { .. } => {
                // Asked before, and granted.
                self.answer(id, now, user_data, -libc::ENOENT, number);
            }
            Stage::Armed | Stage::Ready { .. } => {
                let ripe = matches!(stage, Stage::Ready { at } if at <= now);
                // It goes through just before, or while it is asked to end.
                let overtaken = if !ripe {
                    None
                } else if self.comes(Fault::CancelNotFound) {
                    Some(-libc::ENOENT)
                } else if self.comes(Fault::CancelAlready) {
                    Some(-libc::EALREADY)
                } else if self.comes(Fault::CancelledYetDone) {
                    Some(0)
                } else {
                    None
                };
                if overtaken.is_some() {
                    self.attempt(id, key);
                }
                // What has only made progress can be ended after all.
                let left = self.ring(id).in_flight.get(&key);
                let left =
                    left.is_some_and(|op| matches!(op.stage, Stage::Armed | Stage::Ready { .. }));
                match overtaken {
                    Some(result) if !left => self.answer(id, now, user_data, result, number),
                    _ => self.grant(id, key, user_data, number),
                }
            }
        }
    }

    /// Ends a request as it was asked to.
    pub(super) fn grant(&mut self, id: RingId, key: OpKey, user_data: u64, number: OpKey) {
        let now = self.now;
        let late = self.drawn(Fault::CancelledLate, 2_000_000).unwrap_or(0);
        let answered_last = self.comes(Fault::CancelAnsweredLast);
        let op = self.ring(id).in_flight.get_mut(&key).expect("found before");
        let result = if op.sent > 0 {
            op.sent as i32
        } else {
            -libc::ECANCELED
        };
        op.stage = Stage::Ends {
            at: now + late,
            result,
            flags: 0,
        };
        if late > 0 {
            self.ring(id).look_at(key, now + late);
            self.after(late, Coming::Moment);
            self.answer(id, now, user_data, 0, number);
        } else if answered_last {
            self.finish(id, key, result, 0);
            self.answer(id, now, user_data, 0, number);
        } else {
            self.answer(id, now, user_data, 0, number);
            self.finish(id, key, result, 0);
        }
    }

    pub(super) fn answer(
        &mut self,
        id: RingId,
        at: u64,
        user_data: u64,
        result: i32,
        number: OpKey,
    ) {
        self.record(What::Complete {
            request: "cancel",
            number,
            result,
            flags: 0,
        });
        let answer = Completion {
            user_data,
            result,
            flags: CompletionFlags::default(),
        };
        if at <= self.now {
            self.post_plain(id, answer);
        } else {
            self.ring(id).answers.push((at, answer));
        }
    }
}
