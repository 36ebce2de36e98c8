//! What the kernel does for a ring: takes requests, tries them, and posts what came of it.

use crate::buf::door;
use crate::driver::{Completion, CompletionFlags};
use crate::kernel_op::request::{Region, Request};
use crate::sim::fault::Fault;
use crate::sim::trace::What;

use super::files::FileCall;
use super::ring::{InFlight, Stage};
use super::{Coming, FIRST_FD, Kernel, Kind, OpKey, RingId};

/// What came of trying a request.
enum Tried {
    /// It has ended.
    Done { result: i32, flags: u32 },
    /// It goes on, and has something to tell.
    More { result: i32, flags: u32 },
    /// It has to wait for its object.
    Blocked,
}

/// `IORING_CQE_F_BUFFER`, `IORING_CQE_F_MORE`, `IORING_CQE_F_NOTIF`, `IORING_CQE_F_BUF_MORE`; the number of a buffer comes
/// above 16 bits.
const F_BUFFER: u32 = 1;
const F_MORE: u32 = 2;
const F_NOTIF: u32 = 8;
const F_BUF_MORE: u32 = 16;

/// What makes an `accept4(2)` fail that is nobody's fault: the network's own errors, a firewall's, and
/// no memory.
const ACCEPT_ERRORS: [i32; 11] = [
    libc::EPROTO,
    libc::ENETDOWN,
    libc::ENOPROTOOPT,
    libc::EHOSTDOWN,
    libc::ENONET,
    libc::EHOSTUNREACH,
    libc::EOPNOTSUPP,
    libc::ENETUNREACH,
    libc::EPERM,
    libc::ENOMEM,
    libc::ENOBUFS,
];
/// `recv(2)`, and what `tcp(7)` and `ip(7)` tell of a connection that the network has given up.
const RECEIVE_ERRORS: [i32; 4] = [
    libc::ENOMEM,
    libc::ETIMEDOUT,
    libc::EHOSTUNREACH,
    libc::ENETUNREACH,
];
/// `send(2)`, and as above.
const SEND_ERRORS: [i32; 5] = [
    libc::ENOMEM,
    libc::ENOBUFS,
    libc::ETIMEDOUT,
    libc::EHOSTUNREACH,
    libc::ENETUNREACH,
];
const CONNECT_PATIENCE: u64 = 127_000_000_000;
const SYN_RETRY: u64 = 1_000_000_000;

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

    fn accept_request(&mut self, id: RingId, request: Request, user_data: u64) {
        let key = self.next_op;
        self.next_op += 1;
        self.counts.submitted += 1;
        self.record(What::Submit {
            request: request.name(),
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
            let what = format!("a {} got the number of a request in flight", request.name());
            return self.violated("one op per slot", what);
        }
        if ring.is_used_again(user_data) {
            let what = format!(
                "a {} got the number of the request before it",
                request.name()
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
        };
        self.ring(id).in_flight.insert(key, op);
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

    fn ring(&mut self, id: RingId) -> &mut super::ring::Ring {
        self.rings[id]
            .as_mut()
            .expect("a ring of a core that lives")
    }

    /// Whether a request that is carried out cannot be stopped any more. Files; not sockets.
    fn is_for_a_worker(&mut self, id: RingId, key: OpKey) -> bool {
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

    fn look_after(&mut self, id: RingId, key: OpKey) {
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
    fn attempt(&mut self, id: RingId, key: OpKey) {
        loop {
            let Some(op) = self.ring(id).in_flight.get(&key) else {
                return;
            };
            let (request, user_data) = (op.request, op.user_data);
            if !self.is_sound(user_data, &request) {
                let what = format!(
                    "the slot of a {} was emptied, or its memory given away, while the kernel had it",
                    request.name()
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
    fn is_sound(&self, user_data: u64, request: &Request) -> bool {
        use crate::kernel_op::slab::About;
        match About::of(user_data) {
            About::Op(_) => crate::task::current::try_with(|core| {
                core.ops.borrow_mut().still_holds(user_data, request)
            })
            .unwrap_or(true),
            _ => true,
        }
    }

    fn try_request(&mut self, id: RingId, key: OpKey) -> Tried {
        let op = self.ring(id).in_flight.get(&key).expect("it is tried");
        let (request, object, sent, tried) = (op.request, op.object, op.sent, op.tried);
        let done = |result: Result<i32, i32>| Tried::Done {
            result: result.unwrap_or_else(|errno| -errno),
            flags: 0,
        };
        if may_be_interrupted(&request) && self.comes(Fault::CompletionInterrupted) {
            // What went out before is the answer, though all was asked for (`io_send`).
            return done(if sent > 0 {
                Ok(sent as i32)
            } else {
                Err(libc::EINTR)
            });
        }
        let Some(object) = object else {
            return match request {
                Request::Nop => done(Ok(0)),
                Request::Open { .. } | Request::Status { .. } => {
                    done(self.call_file(None, request))
                }
                _ => unreachable!("every other request names a descriptor"),
            };
        };
        match request {
            Request::Nop | Request::Cancel { .. } => unreachable!("names no descriptor"),
            Request::AcceptMulti { .. } => self.try_accept(object),
            Request::Connect { address, .. } => {
                let Some(address) = door::address(address) else {
                    return done(Err(libc::EAFNOSUPPORT));
                };
                match self.connect(object, address, !tried) {
                    Some(result) => done(result.map(|()| 0)),
                    None => {
                        let also = self.listeners_at(address);
                        let now = self.now;
                        let op = self.ring(id).in_flight.get_mut(&key).expect("it is tried");
                        op.also = also;
                        if now >= op.since + CONNECT_PATIENCE {
                            return done(Err(libc::ETIMEDOUT));
                        }
                        self.after(SYN_RETRY, Coming::Retry(id, key));
                        Tried::Blocked
                    }
                }
            }
            Request::Receive { into, .. } => {
                let most = self.shortened(object, into.length as usize, Fault::ShortRead);
                match self.receive_or_fail(object, most) {
                    None => Tried::Blocked,
                    Some(Err(errno)) => done(Err(errno)),
                    Some(Ok(bytes)) => {
                        door::write(into, &bytes);
                        done(Ok(bytes.len() as i32))
                    }
                }
            }
            Request::ReceiveMulti { .. } => self.try_receive_multi(id, object),
            Request::Send { from, all, .. } => self.try_send(id, key, object, &[from], all),
            Request::SendZeroCopy { from, .. } => self.try_send(id, key, object, &[from], false),
            Request::SendMessage { header, all, .. } => {
                let parts = door::parts(header);
                self.try_send(id, key, object, &parts, all)
            }
            Request::Read { into, offset, .. } => match self.object_mut(object).kind {
                Kind::Counter(0) => Tried::Blocked,
                Kind::Counter(ref mut count) => {
                    let bytes = std::mem::take(count).to_ne_bytes();
                    door::write(into, &bytes);
                    done(Ok(8))
                }
                Kind::Pipe(_) => {
                    let most = self.shortened(object, into.length as usize, Fault::ShortRead);
                    match self.read_pipe(object, most) {
                        None => Tried::Blocked,
                        Some(read) => done(read.map(|bytes| {
                            door::write(into, &bytes);
                            bytes.len() as i32
                        })),
                    }
                }
                // `sock_read_iter` looks at nothing for a read of nothing; `recv(2)` does.
                Kind::Socket(_) if into.length == 0 => done(Ok(0)),
                Kind::Socket(_) => {
                    let most = self.shortened(object, into.length as usize, Fault::ShortRead);
                    match self.receive_or_fail(object, most) {
                        None => Tried::Blocked,
                        Some(read) => done(read.map(|bytes| {
                            door::write(into, &bytes);
                            bytes.len() as i32
                        })),
                    }
                }
                Kind::File(_) => {
                    let mut most = into.length as usize;
                    if most > 1
                        && let Some(drawn) = self.drawn(Fault::ShortRead, most as u64 - 1)
                    {
                        most = drawn as usize + 1;
                    }
                    let read = self.call_file(Some(object), FileCall::read(most, offset));
                    if read.is_ok() {
                        door::write(into, &std::mem::take(&mut self.files.last_read));
                    }
                    done(read)
                }
            },
            Request::Write { from, offset, .. } => match self.object_mut(object).kind {
                Kind::Pipe(_) => {
                    let mut bytes = Vec::new();
                    door::read(from, &mut bytes);
                    // So few bytes go as a whole (PIPE_BUF, pipe(7)).
                    if bytes.len() > 4096
                        && let Some(drawn) = self.drawn(Fault::ShortWrite, bytes.len() as u64 - 1)
                    {
                        bytes.truncate(drawn as usize + 1);
                    }
                    match self.write_pipe(object, &bytes) {
                        None => Tried::Blocked,
                        Some(written) => done(written.map(|count| count as i32)),
                    }
                }
                Kind::Socket(_) => self.try_send(id, key, object, &[from], false),
                Kind::Counter(_) => done(Err(libc::EINVAL)),
                Kind::File(_) => {
                    let mut bytes = Vec::new();
                    door::read(from, &mut bytes);
                    if bytes.len() > 1
                        && let Some(drawn) = self.drawn(Fault::ShortWrite, bytes.len() as u64 - 1)
                    {
                        bytes.truncate(drawn as usize + 1);
                    }
                    done(self.call_file(Some(object), FileCall::write(bytes, offset)))
                }
            },
            Request::Sync { .. } | Request::Open { .. } | Request::Status { .. } => {
                done(self.call_file(Some(object), request))
            }
            Request::Close { fd } => {
                let error = self.refused(
                    Fault::CloseFails,
                    &[libc::EIO, libc::EINTR, libc::ENOSPC, libc::EDQUOT],
                );
                // The number is free either way (close(2)).
                let closed = self.close(fd).map(|()| 0);
                done(error.map_or(closed, Err))
            }
            Request::Poll { events, .. } => {
                if self.comes(Fault::PollFails) {
                    return done(Err(libc::ENOMEM));
                }
                // As poll(2) does, and RDHUP besides (`IO_POLL_UNMASK`, io_uring/poll.c).
                let always = (libc::POLLERR | libc::POLLHUP | libc::POLLRDHUP) as u32;
                match self.events(object) & (events | always) {
                    0 => Tried::Blocked,
                    ready => done(Ok(ready as i32)),
                }
            }
        }
    }

    fn events(&mut self, object: super::ObjectId) -> u32 {
        match self.object(object).kind {
            Kind::Socket(_) => self.socket_events(object),
            Kind::Pipe(_) => self.pipe_events(object),
            Kind::Counter(count) => {
                let readable = if count > 0 { libc::POLLIN } else { 0 };
                (readable | libc::POLLOUT) as u32
            }
            Kind::File(_) => (libc::POLLIN | libc::POLLOUT) as u32,
        }
    }

    fn try_accept(&mut self, object: super::ObjectId) -> Tried {
        let failed = |errno: i32| Tried::Done {
            result: -errno,
            flags: 0,
        };
        let taken = match self.take_connection(object) {
            None => return Tried::Blocked,
            Some(Err(errno)) => return failed(errno),
            Some(Ok(taken)) => taken,
        };
        let none_left = [libc::EMFILE, libc::ENFILE];
        if let Some(errno) = self.refused(Fault::AcceptNoDescriptor, &none_left) {
            // It is not lost: it waits for the next accept.
            self.put_connection_back(object, taken);
            return failed(errno);
        }
        if let Some(errno) = self.refused(Fault::AcceptFails, &ACCEPT_ERRORS) {
            self.put_connection_back(object, taken);
            return failed(errno);
        }
        if self.comes(Fault::AcceptAborted) {
            self.break_connection(taken);
            self.disown(taken);
            return failed(libc::ECONNABORTED);
        }
        match self.open(taken, "accept") {
            Err(errno) => {
                self.put_connection_back(object, taken);
                failed(errno)
            }
            Ok(fd) => {
                // The descriptor owns it now, not the queue.
                self.disown(taken);
                if self.comes(Fault::MultishotEnds) {
                    Tried::Done {
                        result: fd,
                        flags: 0,
                    }
                } else {
                    Tried::More {
                        result: fd,
                        flags: 0,
                    }
                }
            }
        }
    }

    /// Receives, unless the network or the machine fails.
    fn receive_or_fail(
        &mut self,
        object: super::ObjectId,
        most: usize,
    ) -> Option<Result<Vec<u8>, i32>> {
        if self.receivable(object) > 0
            && let Some(errno) = self.refused(Fault::ReceiveFails, &RECEIVE_ERRORS)
        {
            if errno != libc::ENOMEM {
                self.break_connection(object);
            }
            return Some(Err(errno));
        }
        self.receive(object, most)
    }

    fn try_receive_multi(&mut self, id: RingId, object: super::ObjectId) -> Tried {
        let last = |result, flags| Tried::Done { result, flags };
        let there = self.receivable(object);
        if there == 0 {
            return match self.receive_or_fail(object, 1) {
                None => Tried::Blocked,
                Some(Err(errno)) => last(-errno, 0),
                Some(Ok(bytes)) => {
                    debug_assert!(bytes.is_empty(), "nothing had arrived");
                    last(0, 0)
                }
            };
        }
        let pretend = self.comes(Fault::NoBuffers);
        let Some((number, address, room)) = self.provided(id).filter(|_| !pretend) else {
            return last(-libc::ENOBUFS, 0);
        };
        let most = self.shortened(object, room as usize, Fault::ShortRead);
        let bytes = match self.receive_or_fail(object, most) {
            None => return Tried::Blocked,
            Some(Err(errno)) => return last(-errno, 0),
            Some(Ok(bytes)) => bytes,
        };
        door::write(
            crate::kernel_op::request::RegionMut {
                address,
                length: room,
            },
            &bytes,
        );
        let goes_on = self.fill(id, bytes.len() as u32);
        let mut flags = F_BUFFER | u32::from(number) << 16;
        if goes_on {
            flags |= F_BUF_MORE;
        }
        let result = bytes.len() as i32;
        if self.comes(Fault::MultishotEnds) {
            last(result, flags)
        } else {
            Tried::More { result, flags }
        }
    }

    /// Returns the buffer that is next to be filled: its number, where, and how much room.
    fn provided(&mut self, id: RingId) -> Option<(u16, usize, u32)> {
        let twice = self.ring(id).provided.as_mut()?.put_in_twice();
        if let Some(number) = twice {
            let what = format!("buffer {number} was put in again before it was taken");
            self.violated("provided buffers", what);
        }
        let provided = self.ring(id).provided.as_ref()?;
        if provided.ring.tail() == provided.head {
            return None;
        }
        let (number, address, length) = provided.ring.entry(provided.head);
        let filled = provided.filled;
        Some((number, address + filled as usize, length - filled))
    }

    /// Notes that so much of the next buffer is filled; true if it will be filled further.
    fn fill(&mut self, id: RingId, count: u32) -> bool {
        let provided = self.ring(id).provided.as_mut().expect("filled just now");
        let (number, _, length) = provided.ring.entry(provided.head);
        provided.filled += count;
        let goes_on = provided.incremental && provided.filled < length;
        if !goes_on {
            provided.lying.remove(&number);
            provided.filled = 0;
            provided.head = provided.head.wrapping_add(1);
        }
        goes_on
    }

    fn shortened(&mut self, object: super::ObjectId, most: usize, fault: Fault) -> usize {
        let there = match self.object(object).kind {
            Kind::Socket(_) => self.receivable(object).min(most),
            _ => most,
        };
        if there < 2 {
            return most;
        }
        match self.drawn(fault, there as u64 - 1) {
            Some(drawn) => drawn as usize + 1,
            None => most,
        }
    }

    fn try_send(
        &mut self,
        id: RingId,
        key: OpKey,
        object: super::ObjectId,
        parts: &[Region],
        all: bool,
    ) -> Tried {
        let sent = self.ring(id).in_flight[&key].sent;
        let total: usize = parts.iter().map(|part| part.length as usize).sum();
        // What went out before a failure is the answer, not the failure.
        let ended = |result: i32| Tried::Done {
            result: if sent > 0 { sent as i32 } else { result },
            flags: 0,
        };
        if let Err(errno) = self.socket_mut(object).map(drop) {
            return ended(-errno);
        }
        let room = match self.sendable(object) {
            None => return Tried::Blocked,
            Some(Err(errno)) => return ended(-errno),
            Some(Ok(room)) => room,
        };
        if let Some(errno) = self.refused(Fault::SendFails, &SEND_ERRORS) {
            if !matches!(errno, libc::ENOMEM | libc::ENOBUFS) {
                self.break_connection(object);
            }
            return ended(-errno);
        }
        let mut bytes = Vec::new();
        let mut skip = sent;
        for part in parts {
            let skipped = skip.min(part.length as usize);
            skip -= skipped;
            let rest = Region {
                address: part.address + skipped,
                length: part.length - skipped as u32,
            };
            if rest.length > 0 {
                door::read(rest, &mut bytes);
            }
        }
        let mut count = bytes.len().min(room);
        if count > 1
            && let Some(drawn) = self.drawn(Fault::ShortWrite, count as u64 - 1)
        {
            count = drawn as usize + 1;
        }
        bytes.truncate(count);
        self.send(object, bytes);
        let sent = sent + count;
        if sent < total && all {
            self.ring(id)
                .in_flight
                .get_mut(&key)
                .expect("it is tried")
                .sent = sent;
            // Room for the rest may be there at once, if this was cut short.
            let now = self.now;
            let ring = self.ring(id);
            ring.in_flight.get_mut(&key).expect("it is tried").stage = Stage::Armed;
            if self.sendable_now(object) {
                self.ring(id).ready(key, now);
                let op = self.ring(id).in_flight.get_mut(&key).expect("it is tried");
                op.stage = Stage::Armed;
                return self.try_send(id, key, object, parts, all);
            }
            return Tried::Blocked;
        }
        Tried::Done {
            result: sent as i32,
            flags: 0,
        }
    }

    fn sendable_now(&mut self, object: super::ObjectId) -> bool {
        self.socket_events(object) & libc::POLLOUT as u32 != 0
    }

    // --- cancel requests ---

    fn cancel(&mut self, id: RingId, target: u64, user_data: u64, number: OpKey) {
        self.counts.cancels += 1;
        let now = self.now;
        let Some(key) = self.ring(id).find(target) else {
            self.answer(id, now, user_data, -libc::ENOENT, number);
            return;
        };
        let op = self.ring(id).in_flight.get_mut(&key).expect("just found");
        let (stage, name) = (op.stage, op.request.name());
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
    fn grant(&mut self, id: RingId, key: OpKey, user_data: u64, number: OpKey) {
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

    fn answer(&mut self, id: RingId, at: u64, user_data: u64, result: i32, number: OpKey) {
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

    // --- completions ---

    fn finish(&mut self, id: RingId, key: OpKey, result: i32, flags: u32) {
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
                    request.name()
                ),
            );
        }
        self.forget(id, key);
        self.post(id, key, request, user_data, result, flags);
    }

    /// Takes a request out of flight.
    fn forget(&mut self, id: RingId, key: OpKey) {
        let Some(op) = self.ring(id).in_flight.remove(&key) else {
            return;
        };
        for object in op.object.iter().chain(&op.also) {
            self.unwatch(*object, id, key);
        }
        if let Some(object) = op.object {
            self.disown(object);
        }
    }

    fn post(
        &mut self,
        id: RingId,
        number: OpKey,
        request: Request,
        user_data: u64,
        result: i32,
        flags: u32,
    ) -> bool {
        self.record(What::Complete {
            request: request.name(),
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

    fn post_plain(&mut self, id: RingId, completion: Completion) -> bool {
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

/// Requests that wait where a signal can reach them. A connect is not among them: the kernel waits for
/// it by readiness, and goes on with it.
fn may_be_interrupted(request: &Request) -> bool {
    matches!(
        request,
        Request::AcceptMulti { .. }
            | Request::Receive { .. }
            | Request::ReceiveMulti { .. }
            | Request::Send { .. }
            | Request::SendZeroCopy { .. }
            | Request::SendMessage { .. }
            | Request::Read { .. }
            | Request::Write { .. }
            | Request::Open { .. }
    )
}
