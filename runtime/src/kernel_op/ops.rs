//! Each kind of kernel op: what it asks, and what it makes of the answer.
//!
//! To add one: a variant in `request.rs`, its entry in `driver/encode.rs`, its payload here.

use std::collections::VecDeque;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::rc::Rc;

use io_uring::types::OpenHow;
use socket2::SockAddr;

use super::at_once;
use super::fd::{Descriptor, SharedFd};
use super::kind::OpKind;
use super::multishot::{End, Queue};
use super::payload::{Operation, Outcome};
use super::request::{Region, RegionMut, Request};
use super::state::Asker;
use super::turn::SendTurn;
use crate::buf::provided::{BufferPool, GROUP};
use crate::buf::{BufResult, Chunk, IoBuf, IoBufMut};
use crate::core_state::Core;
use crate::driver::{Completion, socket, sys};

/// The kernel takes and returns lengths as 32 bits, and at most this many bytes at once
/// (`MAX_RW_COUNT`, `read(2)`).
const MAX_BYTES: usize = 0x7fff_f000;

fn region<B: IoBuf>(buf: &B) -> Region {
    region_behind(buf, 0)
}

/// What lies behind the first `from` bytes.
fn region_behind<B: IoBuf>(buf: &B, from: usize) -> Region {
    Region {
        address: buf.as_ptr() as usize + from,
        // What has become shorter meanwhile, against the contract of `IoBuf`, has nothing there.
        length: buf.len().saturating_sub(from).min(MAX_BYTES) as u32,
    }
}

fn region_mut<B: IoBufMut>(buf: &mut B) -> RegionMut {
    RegionMut {
        address: buf.as_mut_ptr() as usize,
        length: buf.capacity().min(MAX_BYTES) as u32,
    }
}

impl Outcome {
    fn into_result(self) -> io::Result<u32> {
        match self {
            Self::Done(result) => Ok(result),
            Self::Failed(error) => Err(error),
        }
    }
}

/// Ends an op that filled a buffer.
fn filled<B: IoBufMut>(outcome: Outcome, mut buf: B) -> BufResult<usize, B> {
    match outcome.into_result() {
        Ok(count) => {
            // SAFETY: the kernel says that it wrote so many bytes to the buffer's start, and the
            // request asked for no more than its capacity.
            unsafe { buf.set_filled(count as usize) };
            (Ok(count as usize), buf)
        }
        Err(error) => (Err(error), buf),
    }
}

fn used<B>(outcome: Outcome, buf: B) -> BufResult<usize, B> {
    (outcome.into_result().map(|count| count as usize), buf)
}

/// Does nothing, by way of the kernel.
#[derive(Debug)]
pub(crate) struct Nop;

impl Operation for Nop {
    type Output = io::Result<()>;
    const KIND: OpKind = OpKind::Nop;

    fn request(&mut self, _: RawFd) -> Request {
        Request::Nop
    }

    fn finish(self, outcome: Outcome) -> io::Result<()> {
        outcome.into_result().map(drop)
    }
}

/// `recv(2)` into a buffer of the caller's.
#[derive(Debug)]
pub(crate) struct Receive<B>(pub(crate) B);

impl<B: IoBufMut> Operation for Receive<B> {
    type Output = BufResult<usize, B>;
    const KIND: OpKind = OpKind::Receive;

    fn request(&mut self, fd: RawFd) -> Request {
        Request::Receive {
            fd,
            into: region_mut(&mut self.0),
        }
    }

    fn finish(self, outcome: Outcome) -> Self::Output {
        filled(outcome, self.0)
    }
}

/// `send(2)`.
#[derive(Debug)]
pub(crate) struct Send<B> {
    pub(crate) buf: B,
    /// How many bytes of it are left out; `SOME`, which no buffer is as long as, stands for a send that need not be
    /// whole.
    from: usize,
    /// Ours until the kernel is done: sends of one socket do not mix.
    turn: SendTurn,
}

const SOME: usize = usize::MAX;

impl<B> Send<B> {
    /// Sends what the socket takes.
    pub(crate) fn some(buf: B, turn: SendTurn) -> Self {
        Self {
            buf,
            from: SOME,
            turn,
        }
    }

    /// Sends all that lies behind the first `from` bytes.
    #[inline]
    pub(crate) fn all_behind(buf: B, from: usize, turn: SendTurn) -> Self {
        debug_assert!(from != SOME);
        Self { buf, from, turn }
    }

    /// Returns how many bytes are left out of a send of all the others.
    #[inline]
    pub(crate) fn skipped(&self) -> usize {
        debug_assert!(self.from != SOME);
        self.from
    }

    /// Leaves out so many more.
    pub(crate) fn skip(&mut self, count: usize) {
        self.from += count;
    }
}

impl<B: IoBuf> Send<B> {
    /// Sends what the socket takes at once, past the ring; `None` if the ring is to do it. `send(2)`.
    #[inline(never)]
    pub(crate) fn at_once(&self, core: &Core, fd: &SharedFd) -> Option<io::Result<usize>> {
        at_once::send(core, fd, region_behind(&self.buf, self.skipped()))
    }
}

impl<B: IoBuf> Operation for Send<B> {
    type Output = (io::Result<usize>, B, SendTurn);
    const KIND: OpKind = OpKind::Send;

    fn request(&mut self, fd: RawFd) -> Request {
        let all = self.from != SOME;
        let skipped = if all { self.from } else { 0 };
        Request::Send {
            fd,
            from: region_behind(&self.buf, skipped),
            all,
        }
    }

    fn finish(self, outcome: Outcome) -> Self::Output {
        let (result, buf) = used(outcome, self.buf);
        (result, buf, self.turn)
    }
}

/// `send(2)` out of the buffer itself, which stays the kernel's until it says so: in a completion of
/// its own, behind the one with the result.
#[derive(Debug)]
pub(crate) struct SendZeroCopy<B> {
    buf: B,
    /// Ours until the bytes are taken; the memory is the kernel's for longer.
    turn: Option<SendTurn>,
    /// The first completion's, once another will follow.
    result: Option<i32>,
}

impl<B: IoBuf> SendZeroCopy<B> {
    pub(crate) fn new(buf: B, turn: SendTurn) -> Self {
        Self {
            buf,
            turn: Some(turn),
            result: None,
        }
    }
}

impl<B: IoBuf> Operation for SendZeroCopy<B> {
    type Output = BufResult<usize, B>;
    const KIND: OpKind = OpKind::SendZeroCopy;

    fn request(&mut self, fd: RawFd) -> Request {
        Request::SendZeroCopy {
            fd,
            from: region(&self.buf),
        }
    }

    fn deliver(&mut self, completion: Completion) -> Option<Asker> {
        if completion.flags.more() && !completion.flags.notification() {
            self.result = Some(completion.result);
        }
        None
    }

    fn early(&mut self) -> Option<SendTurn> {
        // One that was interrupted is started again, still in its turn.
        self.result
            .filter(|result| *result != -libc::EINTR)
            .and_then(|_| self.turn.take())
    }

    fn result(&mut self, last: i32) -> i32 {
        self.result.take().unwrap_or(last)
    }

    fn finish(self, outcome: Outcome) -> Self::Output {
        used(outcome, self.buf)
    }

    const MULTISHOT: bool = true;
    const IS_TIMED: bool = true;
}

/// `sendmsg(2)` of several buffers.
pub(crate) struct SendVectored<B> {
    bufs: Vec<B>,
    from: Place,
    parts: Vec<libc::iovec>,
    header: libc::msghdr,
    turn: SendTurn,
}

/// Where in several buffers what is left begins: so many of them, and so many bytes of the next, have gone out.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Place {
    buf: usize,
    byte: usize,
}

impl Place {
    /// Returns the place so many bytes further on.
    pub(crate) fn behind<B: IoBuf>(mut self, bufs: &[B], count: usize) -> Self {
        self.byte += count;
        while let Some(buf) = bufs.get(self.buf)
            && self.byte >= buf.len()
        {
            self.byte -= buf.len();
            self.buf += 1;
        }
        self
    }
}

impl<B: IoBuf> SendVectored<B> {
    /// Sends what lies from that place on.
    pub(crate) fn new(bufs: Vec<B>, from: Place, turn: SendTurn) -> Self {
        // SAFETY: all-zero is a valid message header: no name, no parts, no control data.
        let header: libc::msghdr = unsafe { std::mem::zeroed() };
        Self {
            bufs,
            from,
            parts: Vec::new(),
            header,
            turn,
        }
    }
}

impl<B: IoBuf> Operation for SendVectored<B> {
    type Output = (io::Result<usize>, Vec<B>, SendTurn);
    const KIND: OpKind = OpKind::SendVectored;

    fn request(&mut self, fd: RawFd) -> Request {
        // Made here, where the buffers have their final place.
        self.parts.clear();
        let mut skipped = self.from.byte;
        for buf in &self.bufs[self.from.buf..] {
            if self.parts.len() == MAX_PARTS {
                break;
            }
            // What has become shorter meanwhile, against the contract of `IoBuf`, has nothing there.
            let length = buf.len().saturating_sub(skipped);
            if length > 0 {
                self.parts.push(libc::iovec {
                    iov_base: buf.as_ptr().wrapping_add(skipped).cast_mut().cast(),
                    iov_len: length,
                });
            }
            skipped = 0;
        }
        self.header.msg_iov = self.parts.as_mut_ptr();
        self.header.msg_iovlen = self.parts.len();
        Request::SendMessage {
            fd,
            header: (&raw const self.header) as usize,
            all: true,
        }
    }

    fn finish(self, outcome: Outcome) -> Self::Output {
        let (result, bufs) = used(outcome, self.bufs);
        (result, bufs, self.turn)
    }
}

/// How many buffers one message may have (`UIO_MAXIOV`, `sendmsg(2)`).
const MAX_PARTS: usize = 1024;

/// `pread(2)`.
#[derive(Debug)]
pub(crate) struct Read<B> {
    pub(crate) buf: B,
    pub(crate) offset: u64,
}

impl<B: IoBufMut> Operation for Read<B> {
    type Output = BufResult<usize, B>;
    const KIND: OpKind = OpKind::Read;

    fn request(&mut self, fd: RawFd) -> Request {
        Request::Read {
            fd,
            into: region_mut(&mut self.buf),
            offset: self.offset,
        }
    }

    fn finish(self, outcome: Outcome) -> Self::Output {
        filled(outcome, self.buf)
    }
}

/// `pwrite(2)`.
#[derive(Debug)]
pub(crate) struct Write<B> {
    buf: B,
    offset: u64,
    apart: bool,
}

impl<B> Write<B> {
    pub(crate) fn new(buf: B, offset: u64) -> Self {
        Self {
            buf,
            offset,
            apart: false,
        }
    }
}

impl<B: IoBuf> Operation for Write<B> {
    type Output = BufResult<usize, B>;
    const KIND: OpKind = OpKind::Write;

    fn request(&mut self, fd: RawFd) -> Request {
        Request::Write {
            fd,
            from: region(&self.buf),
            offset: self.offset,
            apart: self.apart,
        }
    }

    fn set_apart(&mut self) {
        self.apart = true;
    }

    fn finish(self, outcome: Outcome) -> Self::Output {
        used(outcome, self.buf)
    }
}

/// `fsync(2)`.
#[derive(Debug)]
pub(crate) struct Sync {
    pub(crate) data_only: bool,
}

impl Operation for Sync {
    type Output = io::Result<()>;
    const KIND: OpKind = OpKind::Sync;

    fn request(&mut self, fd: RawFd) -> Request {
        Request::Sync {
            fd,
            data_only: self.data_only,
        }
    }

    fn finish(self, outcome: Outcome) -> io::Result<()> {
        outcome.into_result().map(drop)
    }
}

/// `connect(2)`.
#[derive(Debug)]
pub(crate) struct Connect(pub(crate) SockAddr);

impl Operation for Connect {
    type Output = io::Result<()>;
    const KIND: OpKind = OpKind::Connect;

    fn request(&mut self, fd: RawFd) -> Request {
        let address = Region {
            address: self.0.as_ptr() as usize,
            length: self.0.len(),
        };
        Request::Connect { fd, address }
    }

    fn finish(self, outcome: Outcome) -> io::Result<()> {
        outcome.into_result().map(drop)
    }

    /// An interrupted connect goes on in the background (`connect(2)`); on a Unix socket it has waited for room in the
    /// listener's queue, and done nothing.
    fn restarts(&self) -> bool {
        self.0.is_unix()
    }
}

/// `close(2)`: takes the descriptor, which is closed whatever becomes of the future.
///
/// Until the kernel says that it did, the number is ours: an op that waits in line, or was cancelled
/// before it ran, closes it by being dropped.
#[derive(Debug)]
pub(crate) struct Close {
    descriptor: Descriptor,
    apart: bool,
}

impl Close {
    pub(crate) fn new(descriptor: Descriptor) -> Self {
        // The ring would wait where it is submitted.
        let apart = socket::lingers(descriptor.as_raw_fd());
        Self { descriptor, apart }
    }
}

impl Operation for Close {
    type Output = io::Result<()>;
    const KIND: OpKind = OpKind::Close;

    fn request(&mut self, _: RawFd) -> Request {
        Request::Close {
            fd: self.descriptor.as_raw_fd(),
            apart: self.apart,
        }
    }

    fn finish(mut self, outcome: Outcome) -> io::Result<()> {
        match outcome {
            Outcome::Done(_) => {
                self.descriptor.let_go();
                Ok(())
            }
            Outcome::Failed(error) => {
                if error
                    .raw_os_error()
                    .is_some_and(|errno| errno != libc::ECANCELED)
                {
                    self.descriptor.let_go();
                }
                Err(error)
            }
        }
    }

    fn dispose(&mut self, result: i32) {
        if result != -libc::ECANCELED {
            // The number is free also after an error (`close(2)`).
            self.descriptor.let_go();
        }
    }

    /// The number is free also when the call says that it was interrupted (`close(2)`).
    fn restarts(&self) -> bool {
        false
    }
}

/// `openat2(2)`.
pub(crate) struct Open {
    pub(crate) path: CString,
    pub(crate) how: OpenHow,
}

impl Operation for Open {
    type Output = io::Result<SharedFd>;
    const KIND: OpKind = OpKind::Open;

    fn request(&mut self, directory: RawFd) -> Request {
        Request::Open {
            directory,
            path: self.path.as_ptr() as usize,
            how: (&raw const self.how) as usize,
        }
    }

    fn finish(self, outcome: Outcome) -> Self::Output {
        outcome
            .into_result()
            .map(|fd| SharedFd::new(Descriptor::new(fd as RawFd)))
    }

    fn dispose(&mut self, result: i32) {
        close_unread(result);
    }
}

/// `statx(2)`.
pub(crate) struct Status {
    pub(crate) path: CString,
    pub(crate) flags: i32,
    pub(crate) into: Box<libc::statx>,
}

impl Status {
    pub(crate) fn new(path: CString, flags: i32) -> Self {
        let into = Box::new(sys::empty_status());
        Self { path, flags, into }
    }
}

impl Operation for Status {
    type Output = io::Result<Box<libc::statx>>;
    const KIND: OpKind = OpKind::Status;

    fn request(&mut self, directory: RawFd) -> Request {
        Request::Status {
            directory,
            path: self.path.as_ptr() as usize,
            flags: self.flags,
            mask: libc::STATX_BASIC_STATS | libc::STATX_BTIME,
            into: (&raw mut *self.into) as usize,
        }
    }

    fn finish(self, outcome: Outcome) -> Self::Output {
        outcome.into_result().map(|_| self.into)
    }
}

/// `poll(2)` for one readiness.
#[derive(Debug)]
pub(crate) struct PollFor(pub(crate) u32);

impl Operation for PollFor {
    type Output = io::Result<u32>;
    const KIND: OpKind = OpKind::Poll;

    fn request(&mut self, fd: RawFd) -> Request {
        Request::Poll { fd, events: self.0 }
    }

    fn finish(self, outcome: Outcome) -> io::Result<u32> {
        outcome.into_result()
    }
}

fn close_unread(result: i32) {
    if result >= 0 {
        drop(Descriptor::new(result));
    }
}

/// Accepts: connections wait here for somebody to take them. Armed once it takes all that come, or with
/// `ONE` the next one.
#[derive(Debug)]
pub(crate) struct Accepted<const ONE: bool> {
    ready: VecDeque<Descriptor>,
    end: Option<End>,
}

/// Connections taken from the kernel and not yet by a task. Past this the rest stays in the
/// kernel's own accept queue.
const MAX_ACCEPTED: usize = 128;

impl<const ONE: bool> Operation for Accepted<ONE> {
    type Output = ();
    const KIND: OpKind = OpKind::Accept;

    fn request(&mut self, fd: RawFd) -> Request {
        if ONE {
            Request::Accept { fd }
        } else {
            Request::AcceptMulti { fd }
        }
    }

    fn finish(self, _: Outcome) {}

    fn deliver(&mut self, completion: Completion) -> Option<Asker> {
        match completion.result {
            fd if fd >= 0 => self.ready.push_back(Descriptor::new(fd)),
            error => self.end = Some(end_of(-error)),
        }
        (self.ready.len() >= MAX_ACCEPTED).then_some(Asker::Pause)
    }

    const MULTISHOT: bool = true;
}

impl<const ONE: bool> Queue for Accepted<ONE> {
    type Item = SharedFd;

    fn new(_: &Core) -> Self {
        Self {
            ready: VecDeque::new(),
            end: None,
        }
    }

    fn pop(&mut self) -> Option<SharedFd> {
        self.ready.pop_front().map(SharedFd::new)
    }

    fn end(&self) -> Option<End> {
        self.end
    }
}

/// Multishot receive: bytes wait here for somebody to take them.
#[derive(Debug)]
pub(crate) struct Received {
    pool: Rc<BufferPool>,
    /// The first in the queue lies here, so that a stream whose reader keeps up allocates nothing.
    first: Option<Chunk>,
    rest: Option<Box<Rest>>,
    /// What all of them count for.
    bytes: u32,
    end: Option<End>,
    /// It has got something.
    is_fed: bool,
    /// It takes one buffer at the most, since there are few.
    once: bool,
}

/// What is in the queue behind the first. In a box, which an idle stream does not have: so the op fits its slot.
#[derive(Debug, Default)]
struct Rest(VecDeque<Chunk>);

#[cfg(not(random_layout))]
const _: () = assert!(super::payload::fits::<Received>());

/// So do sends of parts of buffers, and reads into small arrays.
#[cfg(not(random_layout))]
const _: () = assert!(super::payload::fits::<Send<crate::buf::Slice<Vec<u8>>>>());
#[cfg(not(random_layout))]
const _: () = assert!(super::payload::fits::<Read<[u8; 64]>>());

/// Bytes taken from the kernel and not yet by a task. Past this the rest stays in the socket, and
/// in the end with the sender.
const MAX_RECEIVED: u32 = 256 * 1024;

/// What a chunk counts for at least: a thousand single bytes are a thousand chunks.
const LEAST: u32 = 512;

/// Returns what a chunk counts for: its bytes, but no more than all may have together, so that the sum fits.
#[inline]
fn weight_of(chunk: &Chunk) -> u32 {
    chunk.len().clamp(LEAST as usize, MAX_RECEIVED as usize) as u32
}

impl Operation for Received {
    type Output = ();
    const KIND: OpKind = OpKind::ReceiveMulti;

    fn request(&mut self, fd: RawFd) -> Request {
        Request::ReceiveMulti {
            fd,
            group: GROUP,
            once: self.once,
        }
    }

    fn finish(self, _: Outcome) {}

    fn deliver(&mut self, completion: Completion) -> Option<Asker> {
        let length = u32::try_from(completion.result).unwrap_or(0);
        if let Some(id) = completion.flags.buffer() {
            // Taken over even without bytes: it is ours to give back.
            let chunk = self
                .pool
                .take(id, length, completion.flags.buffer_goes_on());
            if length > 0 {
                self.is_fed = true;
                // The first is put together where it stays.
                let kept = match &mut self.first {
                    first @ None => first.insert(chunk),
                    Some(_) => {
                        let rest = &mut self.rest.get_or_insert_default().0;
                        rest.push_back(chunk);
                        rest.back_mut().expect("it was just put there")
                    }
                };
                self.bytes += weight_of(kept);
            }
        }
        match completion.result {
            0 => self.end = Some(End::Finished),
            1.. => {}
            error => self.end = Some(end_of(-error)),
        }
        if self.end == Some(End::Starved) {
            self.pool.note_scarcity();
        }
        (self.bytes >= MAX_RECEIVED).then_some(Asker::Pause)
    }

    const MULTISHOT: bool = true;
}

impl Queue for Received {
    type Item = Chunk;

    fn new(core: &Core) -> Self {
        Self {
            pool: Rc::clone(&core.buffers),
            first: None,
            rest: None,
            bytes: 0,
            end: None,
            is_fed: false,
            once: core.buffers.take_part_in_scarcity(),
        }
    }

    #[inline]
    fn pop(&mut self) -> Option<Chunk> {
        let chunk = self.first.take()?;
        self.bytes -= weight_of(&chunk);
        if self.rest.is_some() {
            self.move_up();
        }
        Some(chunk)
    }

    fn end(&self) -> Option<End> {
        self.end
    }

    fn gives_way(&mut self) -> bool {
        self.pool.is_scarce() && std::mem::take(&mut self.is_fed)
    }
}

impl Received {
    #[cold]
    fn move_up(&mut self) {
        self.first = self.rest.as_mut().and_then(|rest| rest.0.pop_front());
        if self.first.is_none() {
            // An idle stream keeps no memory.
            self.rest = None;
        }
    }
}

/// What an error of a multishot op means for it.
fn end_of(errno: i32) -> End {
    match errno {
        libc::ENOBUFS => End::Starved,
        // We paused it, or the kernel was interrupted: nothing is lost.
        libc::ECANCELED | libc::EINTR | libc::EAGAIN => End::Again,
        errno => End::Failed(errno),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local!(static ASKED: std::cell::Cell<usize> = const { std::cell::Cell::new(0) });

    /// Bytes that count how often they are asked for their number.
    struct Counted(&'static [u8]);

    // SAFETY: static bytes stay where they are and never change.
    unsafe impl IoBuf for Counted {
        fn as_ptr(&self) -> *const u8 {
            self.0.as_ptr()
        }

        fn len(&self) -> usize {
            ASKED.set(ASKED.get() + 1);
            self.0.len()
        }
    }

    /// Sends buffers as a socket would that takes this much at a time; returns the lengths of all parts, by call.
    fn lengths(mut bufs: Vec<Counted>, at_once: usize) -> Vec<Vec<usize>> {
        let [_reader, writer] = sys::pipe().expect("a pipe").map(Descriptor::new);
        let fd = SharedFd::new(writer);
        let mut turn = SendTurn::try_take(&fd).expect("nobody has it");
        let (mut from, mut calls) = (Place::default(), Vec::new());
        loop {
            let mut send = SendVectored::new(bufs, from, turn);
            send.request(0);
            let parts: Vec<_> = send.parts.iter().map(|part| part.iov_len).collect();
            let count = at_once.min(parts.iter().sum());
            if count == 0 {
                return calls;
            }
            calls.push(parts);
            (_, bufs, turn) = send.finish(Outcome::Done(count as u32));
            from = from.behind(&bufs, count);
        }
    }

    #[test]
    fn several_buffers_go_on_where_they_stopped() {
        let bufs = || ["", "ab", "", "", "cde", "f", ""].map(|text| Counted(text.as_bytes()));
        let by = |at_once| lengths(bufs().into(), at_once);
        assert_eq!(by(6), [[2, 3, 1]]);
        assert_eq!(by(2), [vec![2, 3, 1], vec![3, 1], vec![1, 1]]);
        let one_by_one: [&[usize]; 6] = [&[2, 3, 1], &[1, 3, 1], &[3, 1], &[2, 1], &[1, 1], &[1]];
        assert_eq!(by(1), one_by_one);
        assert!(lengths(Vec::new(), 1).is_empty());
    }

    #[test]
    fn very_many_buffers_cost_as_much_each_as_few() {
        const MANY: usize = 100 * MAX_PARTS;
        let bufs = (0..MANY).map(|_| Counted(b"x")).collect();
        ASKED.set(0);
        assert_eq!(lengths(bufs, usize::MAX).len(), 100);
        assert!(ASKED.get() < 5 * MANY, "{} times", ASKED.get());
    }
}
