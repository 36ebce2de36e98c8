//! Leaf ops on descriptors: what sockets, files and other types are made of.
//!
//! Use `quoit-net` for sockets and [`crate::fs`] for files; come here to build something of your
//! own. Every op takes its buffers by value and gives them back, fails with
//! [`Cancelled`] in a cancelled scope and with [`Closed`] once its descriptor was
//! closed for all its owners, and panics off a core. The kernel's part is in the man page that each names.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use socket2::SockAddr;

pub use crate::driver::socket::{Credentials, Socket, SocketOption};
pub use crate::kernel_op::fd::SharedFd;
pub use crate::pipe::{PipeReader, PipeWriter};

use crate::buf::{BufResult, Chunk, Interrupted, IoBuf, IoBufMut, SliceExt};
use crate::driver::{socket, sys};
use crate::kernel_op::KernelOp;
use crate::kernel_op::closing::Closing;
use crate::kernel_op::fd::Descriptor;
use crate::kernel_op::multishot::{Multishot, NextWait, Queue};
use crate::kernel_op::ops;
use crate::kernel_op::request::CURRENT_POSITION;
use crate::kernel_op::send_all::SendAll;
use crate::kernel_op::turn::SendTurn;
use crate::scope::park;
use crate::task::current;
use crate::task::waker::wake_from_anywhere;
use crate::{Cancelled, Closed};

/// Goes to the kernel and back: for measuring, and to let a core's submissions out.
///
/// # Errors
///
/// Only [`Cancelled`].
pub async fn nop() -> io::Result<()> {
    KernelOp::new(ops::Nop, None).await
}

/// Reads from a descriptor at its own position: pipes, eventfds, terminals. `read(2)`.
///
/// The op may have taken bytes when its future is dropped; they are lost then. A [`PipeReader`] loses none.
///
/// # Errors
///
/// Those of `read(2)`.
pub async fn read<B: IoBufMut>(fd: &SharedFd, buf: B) -> BufResult<usize, B> {
    KernelOp::new(
        ops::Read {
            buf,
            offset: CURRENT_POSITION,
        },
        Some(fd.clone()),
    )
    .await
}

/// Reads at an offset. `pread(2)`.
///
/// For a task that has the core for itself, with nothing else to be submitted, what lies in the page cache is read past
/// the ring, up to 16 times in each of its polls, until that has asked for 256 KiB; the counter `direct_reads` says how
/// often. Not from a file that had `O_DIRECT` when it was first to be read so: to set it later lets such reads wait for
/// the disk.
///
/// # Errors
///
/// Those of `pread(2)`; but of something without positions, such as a pipe, it reads as [`read`]
/// does.
pub async fn read_at<B: IoBufMut>(fd: &SharedFd, buf: B, offset: u64) -> BufResult<usize, B> {
    if let Err(error) = check_offset(offset) {
        return (Err(error), buf);
    }
    KernelOp::new(ops::Read { buf, offset }, Some(fd.clone())).await
}

/// Writes to a descriptor at its own position. `write(2)`.
///
/// For a task that has the core for itself, with nothing else to be submitted, what a pipe or a device takes without
/// waiting is written past the ring, up to 16 times in each of its polls, until that has asked for 256 KiB; the counter
/// `direct_writes` says how often.
///
/// # Errors
///
/// Those of `write(2)`.
pub async fn write<B: IoBuf>(fd: &SharedFd, buf: B) -> BufResult<usize, B> {
    KernelOp::new(ops::Write::new(buf, CURRENT_POSITION), Some(fd.clone())).await
}

/// Writes at an offset. `pwrite(2)`.
///
/// # Errors
///
/// Those of `pwrite(2)`.
pub async fn write_at<B: IoBuf>(fd: &SharedFd, buf: B, offset: u64) -> BufResult<usize, B> {
    if let Err(error) = check_offset(offset) {
        return (Err(error), buf);
    }
    KernelOp::new(ops::Write::new(buf, offset), Some(fd.clone())).await
}

/// Files have signed sizes; the largest number stands for the file's own position.
fn check_offset(offset: u64) -> io::Result<()> {
    if i64::try_from(offset).is_ok() {
        return Ok(());
    }
    let what = format!("the offset {offset} lies past what a file can have");
    Err(io::Error::new(io::ErrorKind::InvalidInput, what))
}

/// Makes a pipe: the end to read from, and the one to write to. `pipe2(2)`.
///
/// # Errors
///
/// Those of `pipe2(2)`.
pub fn pipe() -> io::Result<(SharedFd, SharedFd)> {
    let ends = sys::pipe()?;
    let [read, write] = ends.map(|fd| SharedFd::new(Descriptor::new(fd)));
    Ok((read, write))
}

/// Waits until a descriptor is ready for one of `events` (`libc::POLLIN`, …); returns those it is
/// ready for. `poll(2)`.
///
/// # Errors
///
/// Those of `poll(2)`.
pub async fn poll(fd: &SharedFd, events: u32) -> io::Result<u32> {
    KernelOp::new(ops::PollFor(events), Some(fd.clone())).await
}

/// Closes a descriptor for all its owners, by way of the ring, where the kernel may take its time, and
/// reports its error. Closes it in every case: also in a cancelled scope, and when the future is dropped.
/// (Dropping a [`SharedFd`] is different: there is one owner less.)
///
/// From the first poll on, or the drop, what other owners begin on the descriptor fails with [`Closed`].
/// Ops that are under way, whoever waits for them, are asked to end, and end with [`Closed`] as well; one
/// that has a result by then gives that, and bytes that a stream had received come before its [`Closed`].
/// The number is free, and this future ends, when the kernel is done with them all: it waits as long as
/// an op on a file takes that cannot be stopped. A socket that lingers (`SO_LINGER`) does so behind it, and neither
/// this future nor the core waits for that; the core does where the last owner of such a socket is dropped.
///
/// # Errors
///
/// Those of `close(2)`; [`Closed`] if another owner has closed it before.
pub fn close(fd: SharedFd) -> impl Future<Output = io::Result<()>> {
    let mut closing = Closing::new(fd);
    async move {
        match poll_fn(|cx| closing.poll_unused(cx)).await? {
            Some(descriptor) => KernelOp::release(ops::Close::new(descriptor), None).await,
            None => Ok(()),
        }
    }
}

/// A connected stream socket, of any family.
///
/// Receiving goes through the core's provided buffers: a stream that waits owns no memory. One task
/// at a time may receive. Sends of several tasks go out one after the other, each as a whole.
///
/// Of a task that has the core for itself, with nothing else to be submitted, what the socket takes at once is sent past
/// the ring, once in each of its polls; the counter `direct_sends` says how often.
pub struct Stream {
    received: Multishot<ops::Received>,
    /// Bytes that were put back: what is left of a chunk that was read in part.
    rest: Cell<Option<Chunk>>,
}

/// Tasks that wait keep their streams, so each byte of one counts.
#[cfg(not(random_layout))]
const _: () = assert!(size_of::<Stream>() <= 56);

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stream")
            .field("received", &self.received)
            .finish_non_exhaustive()
    }
}

impl Stream {
    /// Takes over a connected socket.
    pub fn new(fd: SharedFd) -> Self {
        Self {
            received: Multishot::new(fd),
            rest: Cell::new(None),
        }
    }

    /// Connects a new socket.
    ///
    /// # Errors
    ///
    /// Those of `socket(2)` and `connect(2)`. The socket of a failed or cancelled attempt is closed.
    pub async fn connect(socket: Socket, address: SockAddr) -> io::Result<Self> {
        let fd = socket.into_shared();
        KernelOp::new(ops::Connect(address), Some(fd.clone())).await?;
        Ok(Self::new(fd))
    }

    /// Waits for bytes; `None` at the end of the stream.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`; `ResourceBusy` while another task waits. Cancelled, nothing is lost: what
    /// arrives is there for the next call.
    pub fn receive(&self) -> impl Future<Output = io::Result<Option<Chunk>>> {
        ReceiveNext {
            stream: self,
            wait: ReceiveWait::default(),
        }
    }

    /// Waits for bytes; [`Stream::receive`] as a poll, for adapters. `wait` belongs to this wait.
    ///
    /// # Errors
    ///
    /// As for [`Stream::receive`].
    pub fn poll_receive(
        &self,
        wait: &mut ReceiveWait,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Chunk>>> {
        let rest = self.rest.take();
        if rest.is_none() {
            return self.received.poll_next(&mut wait.0, cx);
        }
        self.rest.set(rest);
        if wait.0.is_registered() {
            self.received.end_wait(&mut wait.0);
        } else {
            // An op looks at its scope also when what it wants is there.
            ready!(current::with(|core| park::entry(core, cx.waker())))?;
        }
        match self.rest.take() {
            // Either may have woken somebody who polls where he is woken, and has taken it.
            None => self.received.poll_next(&mut wait.0, cx),
            rest => Poll::Ready(Ok(rest)),
        }
    }

    /// Ends a wait of [`Stream::poll_receive`] that is given up while the stream lives on.
    pub fn end_receive(&self, wait: &mut ReceiveWait) {
        self.received.end_wait(&mut wait.0);
    }

    /// Puts bytes back, to be received next, by a task that waits already or by the next call.
    ///
    /// # Panics
    ///
    /// If some were put back already.
    pub fn put_back(&self, chunk: Chunk) {
        if !chunk.is_empty() {
            let old = self.rest.replace(Some(chunk));
            assert!(
                old.is_none(),
                "bytes can be put back once before they are received"
            );
            self.received.nudge();
        }
    }

    /// Reads into a buffer, from its start: as much as is there, at least a byte; 0 at the end of
    /// the stream, or if the buffer has no room.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`. Cancelled, nothing is lost: what arrives is there for the next call.
    pub async fn read<B: IoBufMut>(&self, mut buf: B) -> BufResult<usize, B> {
        if buf.capacity() == 0 {
            return (nothing_on(self.received.fd()).await.map(|()| 0), buf);
        }
        match self.receive().await {
            Ok(Some(mut chunk)) => {
                let count = crate::buf::fill(&mut buf, &chunk);
                chunk.advance(count);
                self.put_back(chunk);
                (Ok(count), buf)
            }
            Ok(None) => (Ok(0), buf),
            Err(error) => (Err(error), buf),
        }
    }

    /// Reads until the buffer is full, from its start.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`, and `UnexpectedEof` if the stream ends before that. If some bytes came
    /// before a failure or a cancel, they are in the buffer, and the error holds an [`Interrupted`]
    /// that says how many; the next read goes on behind them.
    pub async fn read_exact<B: IoBufMut>(&self, mut buf: B) -> BufResult<(), B> {
        let wanted = buf.capacity();
        if wanted == 0 {
            return (nothing_on(self.received.fd()).await, buf);
        }
        let mut read = 0;
        while read < wanted {
            let (result, part) = self.read(buf.slice(read..)).await;
            buf = part.into_inner();
            match result {
                Ok(0) => {
                    let end = io::ErrorKind::UnexpectedEof.into();
                    return (Err(Interrupted::after(read, end)), buf);
                }
                Ok(count) => read += count,
                Err(error) => return (Err(Interrupted::after(read, error)), buf),
            }
        }
        (Ok(()), buf)
    }

    /// Sends what the socket takes; returns how much. `send(2)`.
    ///
    /// # Errors
    ///
    /// Those of `send(2)`; never a signal.
    pub async fn send<B: IoBuf>(&self, buf: B) -> BufResult<usize, B> {
        let turn = match SendTurn::take(self.received.fd()).await {
            Ok(turn) => turn,
            Err(cancelled) => return (Err(cancelled.into()), buf),
        };
        let send = ops::Send::some(buf, turn);
        let (result, buf, _turn) = KernelOp::new(send, Some(self.fd())).await;
        (result, buf)
    }

    /// Sends what the socket takes, out of the buffer itself instead of a copy; returns how much. The
    /// buffer comes back when the kernel is done with it, which for TCP is when the peer has
    /// acknowledged the bytes: later than [`Stream::send`] would give it back. Worth it for large
    /// buffers on a real network; on loopback the kernel copies all the same.
    /// `IORING_OP_SEND_ZC`, kernel 6.0.
    ///
    /// Until the peer has acknowledged them, nothing ends this op: bytes that have gone out cannot be
    /// called back, nor their memory. A scope that is cancelled waits for them, for as long as the peer takes
    /// nothing, or until the connection is gone; other sends of this stream do not. For peers
    /// that may stall use [`Stream::send`].
    ///
    /// # Errors
    ///
    /// Those of `send(2)`; never a signal. `EOPNOTSUPP` on a socket that cannot.
    pub async fn send_zero_copy<B: IoBuf>(&self, buf: B) -> BufResult<usize, B> {
        let turn = match SendTurn::take(self.received.fd()).await {
            Ok(turn) => turn,
            Err(cancelled) => return (Err(cancelled.into()), buf),
        };
        let operation = ops::SendZeroCopy::new(buf, turn);
        KernelOp::new(operation, Some(self.fd())).await
    }

    /// Sends all of a buffer.
    ///
    /// # Errors
    ///
    /// Those of `send(2)`. If some bytes went out before a failure or a cancel, the error holds an
    /// [`Interrupted`] that says how many.
    pub fn send_all<B: IoBuf>(&self, buf: B) -> impl Future<Output = BufResult<(), B>> {
        SendAll::new(self.received.fd(), buf)
    }

    /// Sends all of several buffers, in order, gathered into few calls. `sendmsg(2)`.
    ///
    /// # Errors
    ///
    /// As for [`Stream::send_all`].
    pub async fn send_all_vectored<B: IoBuf>(&self, mut bufs: Vec<B>) -> BufResult<(), Vec<B>> {
        let total: usize = bufs.iter().map(IoBuf::len).sum();
        if total == 0 {
            return (nothing_on(self.received.fd()).await, bufs);
        }
        let mut turn = match SendTurn::take(self.received.fd()).await {
            Ok(turn) => turn,
            Err(cancelled) => return (Err(cancelled.into()), bufs),
        };
        let mut sent = 0;
        let mut from = ops::Place::default();
        while sent < total {
            let result;
            let operation = ops::SendVectored::new(bufs, from, turn);
            (result, bufs, turn) = KernelOp::new(operation, Some(self.fd())).await;
            match result {
                Ok(0) => {
                    return (
                        Err(Interrupted::after(sent, io::ErrorKind::WriteZero.into())),
                        bufs,
                    );
                }
                Ok(count) => {
                    sent += count;
                    from = from.behind(&bufs, count);
                }
                Err(error) => return (Err(Interrupted::after(sent, error)), bufs),
            }
        }
        (Ok(()), bufs)
    }

    /// Begins to send all of a buffer, for adapters that hand bytes over and look at the outcome
    /// later. Nothing happens before the first poll.
    pub fn start_send(&self, buf: Vec<u8>) -> PendingSend {
        PendingSend(Pending::New { buf, fd: self.fd() })
    }

    /// Ends one or both directions; what was sent before still arrives. `shutdown(2)`.
    ///
    /// A plain system call, which never waits; the ring would hand it to a worker thread. A release,
    /// so it happens also in a cancelled scope.
    ///
    /// # Errors
    ///
    /// Those of `shutdown(2)`.
    pub fn shutdown(&self, how: Shutdown) -> io::Result<()> {
        socket::shutdown(self.number()?, how)
    }

    /// Closes the socket and waits until that is done; what was received and not taken is lost.
    /// Happens also in a cancelled scope. Dropping the stream closes it as well, but not for those
    /// who have its descriptor from [`Stream::fd`].
    ///
    /// # Errors
    ///
    /// As for [`close`].
    pub async fn close(self) -> io::Result<()> {
        drop(self.received.stop().await);
        let fd = self.fd();
        drop(self);
        close(fd).await
    }

    /// Returns how many bytes the peer of a TCP connection has acknowledged so far: whether a send
    /// that takes long gets anywhere. The beginning of a connection that was connected from here, and its end, count
    /// for a byte each.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`; `Unsupported` if the kernel does not say.
    pub fn bytes_acknowledged(&self) -> io::Result<u64> {
        sys::bytes_acknowledged(self.number()?)
    }

    /// Returns how many bytes were sent that the other side has yet to take; for families that
    /// do not acknowledge. On a Unix stream what the kernel keeps for them counts as well, and
    /// a message counts until it was taken as a whole. `SIOCOUTQ`, `unix(7)`.
    ///
    /// # Errors
    ///
    /// Those of `ioctl(2)`; `Unsupported` in a simulation.
    pub fn bytes_untaken(&self) -> io::Result<u64> {
        sys::bytes_untaken(self.number()?)
    }

    /// Returns who made the other end of a Unix stream: the one who connected, or who listened.
    /// `SO_PEERCRED`, `unix(7)`.
    ///
    /// # Errors
    ///
    /// Those of `getsockopt(2)`; `Unsupported` in a simulation.
    pub fn peer_credentials(&self) -> io::Result<Credentials> {
        let found = sys::peer_credentials(self.number()?)?;
        Ok(Credentials {
            pid: u32::try_from(found.pid).unwrap_or(0),
            uid: found.uid,
            gid: found.gid,
        })
    }

    /// Tells the socket something. `setsockopt(2)`.
    ///
    /// # Errors
    ///
    /// Those of `setsockopt(2)`.
    pub fn set(&self, option: SocketOption) -> io::Result<()> {
        socket::set(self.number()?, option)
    }

    /// Returns the address of this end. `getsockname(2)`.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`; and if it is no internet address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_addr(self.number()?)
    }

    /// Returns the peer's address. `getpeername(2)`.
    ///
    /// # Errors
    ///
    /// Those of `getpeername(2)`: the connection may be gone; and if it is no internet address.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        socket::peer_addr(self.number()?)
    }

    /// Runs `f` on the socket: for options of other kinds, and addresses of other families.
    ///
    /// # Errors
    ///
    /// `Unsupported` in a simulation, whose sockets the real kernel does not know.
    pub fn with_socket<R>(&self, f: impl FnOnce(&socket2::Socket) -> R) -> io::Result<R> {
        // `f` may close it: the number stays ours until it is done.
        let fd = self.fd();
        let hold = fd.hold()?;
        socket::with(hold.as_raw_fd(), f)
    }

    /// Returns the descriptor.
    pub fn fd(&self) -> SharedFd {
        self.received.fd().clone()
    }

    fn number(&self) -> Result<RawFd, Closed> {
        self.received.fd().open_number()
    }
}

/// Looks at the scope, as every op does at its first poll: for ops of your own that may have nothing to wait for.
///
/// Unlike [`check`](crate::check), this is an op: who ignores that it is refused, and asks again and again, is made to
/// yield now and then, and to pause in the end.
///
/// # Errors
///
/// [`Cancelled`].
///
/// # Panics
///
/// When polled off a core.
pub async fn entry() -> Result<(), Cancelled> {
    poll_fn(|cx| current::with(|core| park::entry(core, cx.waker()))).await
}

/// Does what every op does first, and nothing else: for one that has nothing to transfer.
pub(crate) async fn nothing_on(fd: &SharedFd) -> io::Result<()> {
    entry().await?;
    fd.open_number()?;
    Ok(())
}

/// Wakes somebody as ops do, from any thread: in a waker that is not the runtime's own no scope is active, and a panic
/// of it is nobody's. For ops of your own, when nothing is borrowed.
pub fn wake(waker: Waker) {
    wake_from_anywhere(waker);
}

/// A send that is on its way; see [`Stream::start_send`].
///
/// Gives how much was sent, and the buffer back; `ResourceBusy` if another send was on its way at
/// its first poll. Dropped early, the send is cancelled.
#[derive(Debug)]
#[must_use = "a send does nothing unless it is polled"]
pub struct PendingSend(Pending);

#[derive(Debug)]
enum Pending {
    New { buf: Vec<u8>, fd: SharedFd },
    Op(KernelOp<ops::Send<Vec<u8>>>),
    Ended,
}

impl PendingSend {
    /// Wakes nobody when all `length` bytes have gone out, until it is polled again. If they have not,
    /// it does: somebody has to send the rest.
    pub fn mute(&mut self, length: usize) {
        if let (Pending::Op(op), Ok(length)) = (&mut self.0, i32::try_from(length)) {
            op.mute(length);
        }
    }
}

impl Future for PendingSend {
    type Output = BufResult<usize, Vec<u8>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let Pending::New { .. } = self.0 {
            let Pending::New { buf, fd } = std::mem::replace(&mut self.0, Pending::Ended) else {
                unreachable!("looked at just above");
            };
            let Some(turn) = SendTurn::try_take(&fd) else {
                let what = "another send is on its way on this socket";
                let busy = io::Error::new(io::ErrorKind::ResourceBusy, what);
                return Poll::Ready((Err(busy), buf));
            };
            self.0 = Pending::Op(KernelOp::new(ops::Send::all_behind(buf, 0, turn), Some(fd)));
        }
        match &mut self.0 {
            Pending::Op(op) => Pin::new(op)
                .poll(cx)
                .map(|(result, buf, _turn)| (result, buf)),
            Pending::New { .. } | Pending::Ended => panic!("a send was polled after it had ended"),
        }
    }
}

/// A wait of [`Stream::poll_receive`]: keep it from poll to poll.
///
/// Give it back with [`Stream::end_receive`] if the wait is given up and the stream lives on.
#[derive(Debug, Default)]
pub struct ReceiveWait(NextWait);

struct ReceiveNext<'a> {
    stream: &'a Stream,
    wait: ReceiveWait,
}

impl Future for ReceiveNext<'_> {
    type Output = io::Result<Option<Chunk>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.stream.poll_receive(&mut this.wait, cx)
    }
}

impl Drop for ReceiveNext<'_> {
    fn drop(&mut self) {
        self.stream.end_receive(&mut self.wait);
    }
}

/// Receives once into a buffer of one's own, without the core's provided buffers. `recv(2)`.
///
/// The op may have taken bytes out of the socket when its future is dropped; they are lost then. A
/// [`Stream`] loses none.
///
/// # Errors
///
/// Those of `recv(2)`.
pub async fn receive_into<B: IoBufMut>(fd: &SharedFd, buf: B) -> BufResult<usize, B> {
    KernelOp::new(ops::Receive(buf), Some(fd.clone())).await
}

/// A listening stream socket, of any family.
#[derive(Debug)]
pub struct Listener {
    /// Takes all that come.
    all: Multishot<ops::Accepted<false>>,
    /// Takes one, and then the next: whoever waits for one stands at the end of the kernel's line again.
    one: Multishot<ops::Accepted<true>>,
}

impl Listener {
    /// Takes over a listening socket.
    pub fn new(socket: Socket) -> Self {
        let fd = socket.into_shared();
        Self {
            all: Multishot::new(fd.clone()),
            one: Multishot::new(fd),
        }
    }

    /// Waits for a connection. The kernel is asked once for all that come: some more than were waited
    /// for may have been taken from its queue.
    ///
    /// # Errors
    ///
    /// Those of `accept(2)`. After one, the next call tries again: with `EMFILE` wait a little
    /// first. Cancelled, nothing is lost: a connection that arrives is there for the next call.
    pub fn accept(&self) -> impl Future<Output = io::Result<SharedFd>> {
        AcceptNext {
            from: &self.all,
            wait: NextWait::default(),
        }
    }

    /// As [`Listener::accept`], but the kernel is asked for this one alone. For a socket that listeners
    /// of other cores have as well (see [`Socket::try_clone`]): the kernel gives each connection to one
    /// of those who wait, in turn, and wakes nobody else; of several who ask for all, it would give
    /// everything to the first. And for who can take no more than one: the rest stays with the kernel.
    ///
    /// A connection that [`Listener::accept`] has taken already is not found here, nor the other way
    /// round: [`Listener::pause`] in between.
    ///
    /// # Errors
    ///
    /// As for [`Listener::accept`].
    pub fn accept_one(&self) -> impl Future<Output = io::Result<SharedFd>> {
        AcceptNext {
            from: &self.one,
            wait: NextWait::default(),
        }
    }

    /// Takes no more connections from the kernel until the next [`Listener::accept`]: they wait in
    /// its queue. Returns those that had been taken and given to nobody. Happens also in a cancelled
    /// scope. While somebody waits for one, nothing is taken back, and nothing returned; who begins to wait while
    /// this goes on is told that another does (`ResourceBusy`).
    ///
    /// Where listeners of other cores wait on the same socket, the kernel may have woken this one for a
    /// connection, and it wakes none of them for that: if nothing is returned, have another take its
    /// [`Listener::accept_one`] back as well, and ask anew.
    pub async fn pause(&self) -> Vec<SharedFd> {
        if self.all.is_waited_for() || self.one.is_waited_for() {
            return Vec::new();
        }
        self.stop().await
    }

    async fn stop(&self) -> Vec<SharedFd> {
        let mut left = rest(self.all.stop().await);
        left.extend(rest(self.one.stop().await));
        left
    }

    /// Stops listening, and returns every connection that had been made and not yet taken: for a
    /// server that stops, and answers those before it goes. Happens also in a cancelled scope.
    pub async fn finish(self) -> Vec<SharedFd> {
        let mut left = self.stop().await;
        // Those that the kernel has made and nobody has accepted. By the ring, as always: a call that does not wait
        // is a matter of a flag, which others have as well who have the socket.
        if let Ok(number) = self.all.fd().open_number()
            && let Some(waiting) = socket::accept_waiting(number)
        {
            left.extend(waiting);
            return left;
        }
        loop {
            let waiting = rest(self.all.take_waiting().await);
            if waiting.is_empty() {
                return left;
            }
            left.extend(waiting);
        }
    }

    /// Returns the address it listens on. `getsockname(2)`.
    ///
    /// # Errors
    ///
    /// Those of `getsockname(2)`; and if it is no internet address.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        socket::local_addr(self.all.fd().open_number()?)
    }

    /// Returns the descriptor.
    pub fn fd(&self) -> SharedFd {
        self.all.fd().clone()
    }
}

/// Returns what lay in a queue.
fn rest<Q: Queue>(queue: Option<Q>) -> Vec<Q::Item> {
    queue.map_or_else(Vec::new, |mut queue| {
        std::iter::from_fn(|| queue.pop()).collect()
    })
}

struct AcceptNext<'a, const ONE: bool> {
    from: &'a Multishot<ops::Accepted<ONE>>,
    wait: NextWait,
}

impl<const ONE: bool> Future for AcceptNext<'_, ONE> {
    type Output = io::Result<SharedFd>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.from
            .poll_next(&mut this.wait, cx)
            .map(|accepted| match accepted {
                Ok(Some(fd)) => Ok(fd),
                Ok(None) => unreachable!("a listener has no end"),
                Err(error) => Err(error),
            })
    }
}

impl<const ONE: bool> Drop for AcceptNext<'_, ONE> {
    fn drop(&mut self) {
        self.from.end_wait(&mut self.wait);
    }
}
