//! What the kernel does for a ring: takes requests, tries them, and posts what came of it.

use super::ring::{InFlight, Stage};
use super::{Coming, FIRST_FD, Kernel, Kind, OpKey, RingId};
use crate::driver::{Completion, CompletionFlags};
use crate::kernel_op::request::Request;
use crate::sim::fault::Fault;
use crate::sim::trace::What;

/// What came of trying a request.
pub(super) enum Tried {
    /// It has ended.
    Done { result: i32, flags: u32 },
    /// It goes on, and has something to tell.
    More { result: i32, flags: u32 },
    /// It has to wait for its object.
    Blocked,
}

/// `IORING_CQE_F_BUFFER`, `IORING_CQE_F_MORE`, `IORING_CQE_F_NOTIF`, `IORING_CQE_F_BUF_MORE`; the number of a buffer comes
/// above 16 bits.
pub(super) const F_BUFFER: u32 = 1;
pub(super) const F_MORE: u32 = 2;
pub(super) const F_NOTIF: u32 = 8;
pub(super) const F_BUF_MORE: u32 = 16;

impl Kernel {
    /// Takes up to `most` requests out of the submission queue.
    pub(crate) fn submit(&mut self, id: RingId, most: usize) {
        for _ in 0..most {
            let ring = self.rings[id].as_mut().expect("a ring that enters");
            let Some((request, user_data)) = ring.submissions.pop_front() else {
                return;
            };
            self.accept_request(id, request, user_data);
        }
    }

    pub(super) fn accept_request(&mut self, id: RingId, request: Request, user_data: u64) {
        let key = self.next_op;
        self.next_op += 1;
        self.counts.submitted += 1;
        self.record(What::Submit {
            request: request.kind().name(),
            descriptor: request
                .descriptor()
                .map_or(-1, |fd| if fd >= FIRST_FD { fd - FIRST_FD } else { -1 }),
            number: key,
        });
        if let Request::Cancel { target } = request {
            self.cancel(id, target, user_data, key);
            return;
        }
        let ring = self.rings[id].as_mut().expect("a ring that enters");
        if ring.find(user_data).is_some() {
            let what = format!(
                "a {} got the number of a request in flight",
                request.kind().name()
            );
            return self.violated("one op per slot", what);
        }
        if ring.is_used_again(user_data) {
            let what = format!(
                "a {} got the number of the request before it",
                request.kind().name()
            );
            return self.violated("one op per slot", what);
        }
        let object = match request {
            Request::Open { directory, .. } | Request::Status { directory, .. }
                if directory == libc::AT_FDCWD =>
            {
                None
            }
            _ => match request.descriptor().map(|fd| self.look_up(fd)) {
                None => None,
                Some(Ok(object)) => Some(object),
                Some(Err(errno)) => {
                    self.post(id, key, request, user_data, -errno, 0);
                    return;
                }
            },
        };
        if let Some(object) = object {
            self.own(object);
        }
        let now = self.now;
        let op = InFlight {
            user_data,
            request,
            stage: Stage::Ready { at: now },
            object,
            also: Vec::new(),
            sent: 0,
            since: now,
            asked: false,
            tried: false,
            retry_at: now,
        };
        self.ring(id).insert(key, op);
        // What goes to a worker, or takes its time, others overtake.
        if let Some(delay) = self.drawn(Fault::Delay, 3_000_000) {
            let until = now + delay;
            let running = self.is_for_a_worker(id, key) && delay % 2 == 0;
            let ring = self.ring(id);
            let op = ring.in_flight.get_mut(&key).expect("inserted just above");
            op.stage = if running {
                Stage::Running { until }
            } else {
                Stage::Ready { at: until }
            };
            ring.look_at(key, until);
            self.after(delay, Coming::Moment);
        } else if self.comes(Fault::Punt) || self.choices.chance(1 << 13) {
            self.ring(id).look_at(key, now);
        } else {
            self.attempt(id, key);
        }
    }

    pub(super) fn ring(&mut self, id: RingId) -> &mut super::ring::Ring {
        self.rings[id]
            .as_mut()
            .expect("a ring of a core that lives")
    }

    /// Whether a request that is carried out cannot be stopped any more. Files; not sockets.
    pub(super) fn is_for_a_worker(&mut self, id: RingId, key: OpKey) -> bool {
        let Some(op) = self.ring(id).in_flight.get(&key) else {
            return false;
        };
        let (request, object) = (op.request, op.object);
        match request {
            Request::Open { .. } | Request::Status { .. } | Request::Sync { .. } => true,
            Request::Read { .. } | Request::Write { .. } => {
                object.is_some_and(|object| matches!(self.object(object).kind, Kind::File(_)))
            }
            _ => false,
        }
    }

    /// Does the deferred work of a ring: what its core would find on entering.
    pub(crate) fn run_deferred(&mut self, id: RingId) {
        self.ring(id).flush();
        let now = self.now;
        let mut due = self.ring(id).take_ready(now);
        let mut held_back = Vec::new();
        while !due.is_empty() {
            let next = self.choices.choose(due.len());
            let key = due.remove(next);
            if self.comes(Fault::HeldBack) {
                held_back.push(key);
                continue;
            }
            self.look_after(id, key);
        }
        for key in held_back {
            // Not before the core has been elsewhere.
            self.ring(id).look_at(key, now + 1);
            self.after(1, Coming::Moment);
        }
        let mut answers = Vec::new();
        self.ring(id).answers.retain(|(at, answer)| {
            if *at <= now {
                answers.push(*answer);
            }
            *at > now
        });
        for answer in answers {
            self.post_plain(id, answer);
        }
    }

    pub(super) fn look_after(&mut self, id: RingId, key: OpKey) {
        let now = self.now;
        let Some(op) = self.ring(id).in_flight.get(&key) else {
            return;
        };
        match op.stage {
            Stage::Armed => {}
            Stage::Ready { at } if at <= now => self.attempt(id, key),
            Stage::Running { until } if until <= now => self.attempt(id, key),
            Stage::Ends { at, result, flags } if at <= now => self.finish(id, key, result, flags),
            Stage::Ready { at } | Stage::Running { until: at } | Stage::Ends { at, .. } => {
                self.ring(id).look_at(key, at);
            }
        }
    }

    /// Tries a request until it has ended or has to wait.
    pub(super) fn attempt(&mut self, id: RingId, key: OpKey) {
        loop {
            let Some(op) = self.ring(id).in_flight.get(&key) else {
                return;
            };
            let (request, user_data) = (op.request, op.user_data);
            if !self.is_sound(user_data, &request) {
                let what = format!(
                    "the slot of a {} was emptied, or its memory given away, while the kernel had it",
                    request.kind().name()
                );
                self.violated("memory", what);
                self.forget(id, key);
                return;
            }
            match self.try_request(id, key) {
                Tried::Done { result, flags } => return self.finish(id, key, result, flags),
                Tried::More { result, flags } => {
                    let fits = self.post(id, key, request, user_data, result, flags | F_MORE);
                    if !fits {
                        // What cannot be posted ends a multishot request: the flag comes off again.
                        let ring = self.ring(id);
                        if let Some(last) = ring.overflow.back_mut() {
                            last.flags = CompletionFlags::from_bits(flags);
                        }
                        self.forget(id, key);
                        return;
                    }
                }
                Tried::Blocked => {
                    let op = self.ring(id).in_flight.get_mut(&key).expect("just tried");
                    op.stage = Stage::Armed;
                    op.tried = true;
                    let (object, also) = (op.object, op.also.clone());
                    for object in object.into_iter().chain(also) {
                        self.watch(object, id, key);
                    }
                    return;
                }
            }
        }
    }

    /// Asks the core whether the slot still keeps what the request names.
    pub(super) fn is_sound(&self, user_data: u64, request: &Request) -> bool {
        use crate::kernel_op::slab::About;
        match About::of(user_data) {
            About::Op(_) => crate::task::current::try_with(|core| {
                core.ops.borrow_mut().still_holds(user_data, request)
            })
            .unwrap_or(true),
            _ => true,
        }
    }

    // --- completions ---

    pub(super) fn finish(&mut self, id: RingId, key: OpKey, result: i32, flags: u32) {
        let Some(op) = self.ring(id).in_flight.get(&key) else {
            return;
        };
        let (request, user_data) = (op.request, op.user_data);
        if let Request::SendZeroCopy { .. } = request
            && flags & F_NOTIF == 0
        {
            // The result first; that the memory is free again, as a completion of its own.
            self.post(id, key, request, user_data, result, F_MORE);
            let late = self.drawn(Fault::LateNotification, 3_000_000).unwrap_or(0);
            let at = self.now + late;
            let ring = self.ring(id);
            let op = ring.in_flight.get_mut(&key).expect("looked at above");
            op.stage = Stage::Ends {
                at,
                result: 0,
                flags: F_NOTIF,
            };
            ring.look_at(key, at);
            self.after(late, Coming::Moment);
            return;
        }
        if !self.is_sound(user_data, &request) {
            self.violated(
                "memory",
                format!(
                    "the slot of a {} was emptied before its last completion",
                    request.kind().name()
                ),
            );
        }
        self.forget(id, key);
        self.post(id, key, request, user_data, result, flags);
    }

    /// Takes a request out of flight.
    pub(super) fn forget(&mut self, id: RingId, key: OpKey) {
        let Some(op) = self.ring(id).remove(key) else {
            return;
        };
        for object in op.object.iter().chain(&op.also) {
            self.unwatch(*object, id, key);
        }
        if let Some(object) = op.object {
            self.disown(object);
        }
    }

    pub(super) fn post(
        &mut self,
        id: RingId,
        number: OpKey,
        request: Request,
        user_data: u64,
        result: i32,
        flags: u32,
    ) -> bool {
        self.record(What::Complete {
            request: request.kind().name(),
            number,
            // A descriptor is told without what tells it from a real one.
            result: if result >= FIRST_FD {
                result - FIRST_FD
            } else {
                result
            },
            flags,
        });
        self.post_plain(
            id,
            Completion {
                user_data,
                result,
                flags: CompletionFlags::from_bits(flags),
            },
        )
    }

    pub(super) fn post_plain(&mut self, id: RingId, completion: Completion) -> bool {
        self.counts.completed += 1;
        let full = self.comes(Fault::CompletionOverflow);
        self.ring(id).post(completion, full)
    }

    /// Ends a ring: whatever is in flight is dropped.
    pub(crate) fn close_ring(&mut self, id: RingId) {
        let keys: Vec<OpKey> = self.ring(id).in_flight.keys().copied().collect();
        for key in keys {
            self.forget(id, key);
        }
        self.rings[id] = None;
    }
}
