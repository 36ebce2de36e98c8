//! Each kind of request, carried out: what it does to its object, and what comes of it.

use std::os::fd::RawFd;

use super::file_calls::{FileCall, is_past_the_end};
use super::ring::Stage;
use super::work::{F_BUF_MORE, F_BUFFER, Tried};
use super::{Coming, Kernel, Kind, OpKey, RingId};
use crate::buf::door;
use crate::kernel_op::at_once::AtOnce;
use crate::kernel_op::request::{CURRENT_POSITION, Region, RegionMut, Request};
use crate::sim::fault::Fault;

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
    pub(super) fn try_request(&mut self, id: RingId, key: OpKey) -> Tried {
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
        if may_be_interrupted(&request) && sent == 0 && self.comes(Fault::EndedByOthers) {
            return done(Err(libc::ECANCELED));
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
        if let Kind::File(file) = &self.object(object).kind
            && file.flags & libc::O_PATH != 0
            && !matches!(
                request,
                Request::Open { .. } | Request::Status { .. } | Request::Close { .. }
            )
        {
            // It is a place to start from, and no file to work on (open(2)).
            return done(Err(libc::EBADF));
        }
        if let Request::Read {
            into: RegionMut { length, .. },
            offset,
            ..
        }
        | Request::Write {
            from: Region { length, .. },
            offset,
            ..
        } = request
        {
            // Files look at how they were opened first.
            let is_file = matches!(self.object(object).kind, Kind::File(_));
            if !is_file && is_past_the_end(offset, length as usize) {
                return done(Err(libc::EINVAL));
            }
            // `sock_read_iter`, `sock_write_iter`.
            let is_socket = matches!(self.object(object).kind, Kind::Socket(_));
            if is_socket && offset != CURRENT_POSITION && offset != 0 {
                return done(Err(libc::ESPIPE));
            }
        }
        match request {
            Request::Nop | Request::Cancel { .. } => unreachable!("names no descriptor"),
            Request::Accept { .. } => match self.try_accept(object) {
                Tried::More { result, .. } => Tried::Done { result, flags: 0 },
                tried => tried,
            },
            Request::AcceptMulti { .. } => self.try_accept(object),
            Request::Connect { address, .. } => {
                let Some(address) = door::address(address) else {
                    return done(Err(libc::EAFNOSUPPORT));
                };
                match self.connect(object, address, !tried) {
                    Some(result) => done(result.map(|()| 0)),
                    None => {
                        let also = self.listeners_at(object, address);
                        let now = self.now;
                        let op = self.ring(id).in_flight.get_mut(&key).expect("it is tried");
                        op.also = also;
                        if now >= op.since + CONNECT_PATIENCE {
                            return done(Err(libc::ETIMEDOUT));
                        }
                        // Once for each time, however often somebody is accepted meanwhile.
                        if op.retry_at <= now {
                            op.retry_at = now + SYN_RETRY;
                            self.after(SYN_RETRY, Coming::Retry(id, key));
                        }
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
            Request::ReceiveMulti { once, .. } => self.try_receive_multi(id, object, once),
            Request::Send { from, all, .. } => self.try_send(id, key, object, &[from], all),
            Request::SendZeroCopy { from, .. } => self.try_send(id, key, object, &[from], false),
            Request::SendMessage { header, all, .. } => {
                let parts = door::parts(header);
                self.try_send(id, key, object, &parts, all)
            }
            Request::Read { into, offset, .. } => match self.object_mut(object).kind {
                Kind::Counter(_) => unreachable!("it is watched, and not read"),
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
            Request::ReadProvided { .. } => self.try_read_provided(id, object),
            Request::Write { from, offset, .. } => match self.object_mut(object).kind {
                Kind::Pipe(_) => {
                    let bytes = self.for_a_pipe(from);
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
            Request::Close { fd, .. } => {
                let error = self.refused(
                    Fault::CloseFails,
                    &[libc::EIO, libc::EINTR, libc::ENOSPC, libc::EDQUOT],
                );
                // The number is free either way (close(2)).
                let closed = self.close(fd).map(|()| 0);
                done(error.map_or(closed, Err))
            }
            Request::PollMulti { .. } => {
                if self.comes(Fault::PollFails) {
                    return done(Err(libc::ENOMEM));
                }
                // Of a channel, which counts what came since it was told of.
                let told = match &mut self.object_mut(object).kind {
                    Kind::Counter(count) => std::mem::take(count),
                    _ => unreachable!("nothing else is watched"),
                };
                let result = i32::from(libc::POLLIN);
                match told {
                    0 => Tried::Blocked,
                    _ if self.comes(Fault::MultishotEnds) => Tried::Done { result, flags: 0 },
                    _ => Tried::More { result, flags: 0 },
                }
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

    pub(super) fn events(&mut self, object: super::ObjectId) -> u32 {
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

    pub(super) fn try_accept(&mut self, object: super::ObjectId) -> Tried {
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

    /// Reads from a pipe into a provided buffer.
    fn try_read_provided(&mut self, id: RingId, object: super::ObjectId) -> Tried {
        let last = |result, flags| Tried::Done { result, flags };
        if !matches!(self.object(object).kind, Kind::Pipe(_)) {
            return last(-libc::EINVAL, 0);
        }
        if self.events(object) & (libc::POLLIN | libc::POLLHUP) as u32 == 0 {
            return Tried::Blocked;
        }
        let pretend = self.comes(Fault::NoBuffers);
        let Some((number, address, room)) = self.provided(id).filter(|_| !pretend) else {
            return last(-libc::ENOBUFS, 0);
        };
        let most = self.shortened(object, room as usize, Fault::ShortRead);
        let bytes = match self.read_pipe(object, most) {
            None => return Tried::Blocked,
            Some(Err(errno)) => return last(-errno, 0),
            Some(Ok(bytes)) => bytes,
        };
        if bytes.is_empty() {
            return last(0, 0);
        }
        let length = room;
        door::write(
            crate::kernel_op::request::RegionMut { address, length },
            &bytes,
        );
        let goes_on = self.fill(id, bytes.len() as u32);
        let more = if goes_on { F_BUF_MORE } else { 0 };
        let flags = F_BUFFER | u32::from(number) << 16 | more;
        last(bytes.len() as i32, flags)
    }

    /// Receives, unless the network or the machine fails.
    pub(super) fn receive_or_fail(
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

    pub(super) fn try_receive_multi(
        &mut self,
        id: RingId,
        object: super::ObjectId,
        once: bool,
    ) -> Tried {
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
        if self.comes(Fault::MultishotEnds) || once {
            last(result, flags)
        } else {
            Tried::More { result, flags }
        }
    }

    /// Returns the buffer that is next to be filled: its number, where, and how much room.
    pub(super) fn provided(&mut self, id: RingId) -> Option<(u16, usize, u32)> {
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
    pub(super) fn fill(&mut self, id: RingId, count: u32) -> bool {
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

    pub(super) fn shortened(
        &mut self,
        object: super::ObjectId,
        most: usize,
        fault: Fault,
    ) -> usize {
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

    pub(super) fn try_send(
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
        if let Err(errno) = self.send_fails(object) {
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

    fn send_fails(&mut self, object: super::ObjectId) -> Result<(), i32> {
        let Some(errno) = self.refused(Fault::SendFails, &SEND_ERRORS) else {
            return Ok(());
        };
        if !matches!(errno, libc::ENOMEM | libc::ENOBUFS) {
            self.break_connection(object);
        }
        Err(errno)
    }

    /// Sends what there is room for, without a request.
    pub(crate) fn send_at_once(&mut self, fd: RawFd, from: Region) -> Result<usize, i32> {
        let object = self.look_up(fd)?;
        self.socket_mut(object).map(drop)?;
        let room = self.sendable(object).unwrap_or(Err(libc::EAGAIN))?;
        self.send_fails(object)?;
        let mut bytes = Vec::new();
        door::read(from, &mut bytes);
        let most = bytes.len().min(room);
        let count = self.drawn(Fault::ShortWrite, most as u64 + 1);
        let count = count.map_or(most, |drawn| drawn as usize);
        if count == 0 && most > 0 {
            // There was none just then.
            return Err(libc::EAGAIN);
        }
        bytes.truncate(count);
        self.send(object, bytes);
        Ok(count)
    }

    /// Says what of a descriptor may be done past the ring.
    pub(crate) fn at_once(&self, fd: RawFd) -> AtOnce {
        match self.look_up(fd).map(|object| &self.object(object).kind) {
            Ok(Kind::File(file)) if file.flags & libc::O_DIRECT == 0 => AtOnce::Reads,
            Ok(Kind::Pipe(_)) => AtOnce::Writes,
            _ => AtOnce::Nothing,
        }
    }

    /// Reads what of a file lies in the page cache, without a request.
    pub(crate) fn read_at_once(
        &mut self,
        fd: RawFd,
        into: RegionMut,
        offset: u64,
    ) -> Result<usize, i32> {
        let object = self.look_up(fd)?;
        if self.comes(Fault::Punt) {
            // It does not.
            return Err(libc::EAGAIN);
        }
        let mut cached = into.length as usize;
        let is_cut = self.faults.comes(Fault::ShortRead);
        if is_cut {
            // Some of it does. It is the ring's read that gives less.
            cached = self.faults.draw(Fault::ShortRead, cached as u64 + 1) as usize;
            self.faults.put_back(Fault::ShortRead);
        }
        let read = self.call_file(Some(object), FileCall::read(cached, offset));
        if read == Err(libc::EIO) {
            // It is the ring's that fails.
            self.faults.put_back(Fault::ReadFails);
        }
        let count = read?;
        door::write(into, &std::mem::take(&mut self.files.last_read));
        if is_cut {
            return Err(libc::EAGAIN);
        }
        Ok(count as usize)
    }

    /// Writes what a pipe has room for, without a request.
    pub(crate) fn write_at_once(&mut self, fd: RawFd, from: Region) -> Result<usize, i32> {
        let object = self.look_up(fd)?;
        if self.comes(Fault::Punt) {
            // Somebody else is at it.
            return Err(libc::EAGAIN);
        }
        let bytes = self.for_a_pipe(from);
        self.write_pipe(object, &bytes).unwrap_or(Err(libc::EAGAIN))
    }

    /// Takes the bytes of one write to a pipe.
    fn for_a_pipe(&mut self, from: Region) -> Vec<u8> {
        let mut bytes = Vec::new();
        door::read(from, &mut bytes);
        // So few bytes go as a whole (PIPE_BUF, pipe(7)).
        if bytes.len() > 4096
            && let Some(drawn) = self.drawn(Fault::ShortWrite, bytes.len() as u64 - 1)
        {
            bytes.truncate(drawn as usize + 1);
        }
        bytes
    }

    pub(super) fn sendable_now(&mut self, object: super::ObjectId) -> bool {
        self.socket_events(object) & libc::POLLOUT as u32 != 0
    }
}

/// Requests that wait where a signal can reach them. A connect is not among them: the kernel waits for
/// it by readiness, and goes on with it.
fn may_be_interrupted(request: &Request) -> bool {
    matches!(
        request,
        Request::Accept { .. }
            | Request::AcceptMulti { .. }
            | Request::Receive { .. }
            | Request::ReceiveMulti { .. }
            | Request::Send { .. }
            | Request::SendZeroCopy { .. }
            | Request::SendMessage { .. }
            | Request::Read { .. }
            | Request::ReadProvided { .. }
            | Request::Write { .. }
            | Request::Open { .. }
    )
}
