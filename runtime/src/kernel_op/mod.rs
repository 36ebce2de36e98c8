//! One request to the kernel, from submission to final completion.
//!
//! In reading order: [`state`] is the life of an op as a pure state machine, [`request`] every op
//! as plain data, [`payload`] what an op keeps in its slot, [`slab`] the slots, [`fd`] descriptors
//! that stay open while ops use them, [`closing`] how one is closed under them, [`ops`] each kind of op,
//! [`kind`] what they are called and counted as, [`multishot`] one submission with many completions,
//! [`pipe`] what is special about pipes, [`turn`] whose turn it is to send, [`send_all`] sends that go on until all
//! is out, [`at_once`] what is done past the ring. `KernelOp`, here, is the future of an op with one completion.
//!
//! Invariants:
//! - The slot, not the future, owns the memory and keeps the descriptor open.
//! - `state`, `request`, `payload` and `slab` know nothing of tasks or scopes: they tell a `Waker`,
//!   or a number that somebody else gave them a meaning.

#![expect(unsafe_code, reason = "one of the four folders that may")]

pub(crate) mod at_once;
pub(crate) mod closing;
pub(crate) mod fd;
pub(crate) mod kind;
pub(crate) mod multishot;
pub(crate) mod ops;
pub(crate) mod payload;
pub(crate) mod pipe;
pub(crate) mod request;
pub(crate) mod send_all;
pub(crate) mod slab;
pub(crate) mod state;
pub(crate) mod turn;

use std::future::Future;
use std::io;
use std::num::NonZeroU64;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use crate::core_state::Core;
use crate::scope::park::{self, Park};
use crate::task::current;
use fd::{Closed, SharedFd};
use payload::{Operation, Outcome};
use slab::{Notify, OpId};
use state::Asker;

/// The way to an op in its slot. Whoever holds it gives the op up if nobody collects it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ticket {
    id: OpId,
    /// The core that has the slot, this time round: elsewhere the ticket means nothing.
    home: NonZeroU64,
}

impl Ticket {
    pub(crate) fn new(id: OpId, core: &Core) -> Self {
        let home = NonZeroU64::new(core.identity()).expect("the number of a life is odd");
        Self { id, home }
    }

    /// Returns the op's address.
    ///
    /// # Panics
    ///
    /// If this is not the core that started the op.
    #[inline]
    pub(crate) fn id(self, core: &Core) -> OpId {
        check_home(self.home.get(), core);
        self.id
    }

    /// Gives the op up, which becomes an orphan of the active scope.
    pub(crate) fn give_up(self) {
        // Elsewhere, or after the core's end, there is no such op: the core's end has dealt with it.
        current::try_with(|core| {
            if core.identity() == self.home.get() {
                core.abandon(self.id, core.active());
            }
        });
    }
}

#[inline]
fn check_home(home: u64, core: &Core) {
    assert!(
        home == core.identity(),
        "a kernel op was polled outside the runtime that started it"
    );
}

/// The future of an op with one completion.
#[derive(Debug)]
#[must_use = "an op does nothing unless it is awaited"]
pub(crate) struct KernelOp<O: Operation> {
    stage: Stage<O>,
}

#[derive(Debug)]
enum Stage<O> {
    New {
        operation: O,
        fd: Option<SharedFd>,
        entry: park::Entry,
    },
    Started(Started),
    Done,
}

/// An op in its slot, and its place in the scope tree.
#[derive(Debug)]
struct Started {
    park: Park,
    id: OpId,
    /// The core that has both, this time round.
    home: u64,
}

impl Started {
    /// Returns the op's address; see [`Ticket::id`].
    #[inline]
    fn id(&self, core: &Core) -> OpId {
        check_home(self.home, core);
        self.id
    }

    /// Returns whether the op has looked at its scope: one that did not is in no scope's list.
    fn entry(&self) -> park::Entry {
        match self.park.address() {
            Some(_) => park::Entry::Checked,
            None => park::Entry::Always,
        }
    }

    /// Returns the kernel's result and who had asked for the end, if the op has ended. If not, it follows whoever
    /// looks.
    #[inline]
    fn look<O: Operation>(
        &mut self,
        core: &Core,
        cx: &Context<'_>,
    ) -> Option<(i32, Option<Asker>)> {
        let id = self.id(core);
        let mut completed = core.ops.borrow_mut().completed(id);
        if completed.is_none() {
            completed = note_waker(core, id, cx.waker());
        }
        if completed.is_none() {
            self.park.follow(core, cx.waker());
            if O::MULTISHOT {
                let early = core.ops.borrow_mut().early::<O>(id);
                drop(early);
            }
        }
        completed
    }

    /// Leaves the tree, once the op was collected. Returns how it ended; or, if it was interrupted before it had done
    /// anything, and not by us, how it is to be started again.
    #[inline]
    fn end(
        &mut self,
        core: &Core,
        result: i32,
        asked: Option<Asker>,
        restarts: impl FnOnce() -> bool,
    ) -> Result<Outcome, park::Entry> {
        if result == -libc::EINTR && asked.is_none() && restarts() {
            let entry = self.entry();
            self.park.end_here(core);
            return Err(entry);
        }
        // The cause is read while the park still says under which scope the op stood.
        let outcome = outcome(result, asked, || self.park.cause(core));
        self.park.end_here(core);
        Ok(outcome)
    }
}

impl<O: Operation> KernelOp<O> {
    /// Makes the op; nothing happens before its first poll.
    #[inline]
    pub(crate) fn new(operation: O, fd: Option<SharedFd>) -> Self {
        Self {
            stage: Stage::New {
                operation,
                fd,
                entry: park::Entry::Checked,
            },
        }
    }

    /// Makes an op that even a cancelled scope starts: a release, such as closing.
    pub(crate) fn release(operation: O, fd: Option<SharedFd>) -> Self {
        Self {
            stage: Stage::New {
                operation,
                fd,
                entry: park::Entry::Always,
            },
        }
    }
}

impl<O: Operation> KernelOp<O> {
    /// Does not tell of a completion with this result, until the next poll. Of any other it does:
    /// somebody has to go on with what is left.
    pub(crate) fn mute(&mut self, expected: i32) {
        if let Stage::Started(started) = &self.stage {
            current::with(|core| {
                let id = started.id(core);
                core.ops.borrow_mut().notify_unless(id, expected);
            });
        }
    }
}

// The payload moves into the slot before anything points into it.
impl<O: Operation> Unpin for KernelOp<O> {}

impl<O: Operation> Drop for KernelOp<O> {
    #[inline]
    fn drop(&mut self) {
        if let Stage::Started(started) = &self.stage {
            started.give_up();
        }
    }
}

impl Started {
    #[cold]
    fn give_up(&self) {
        current::try_with(|core| {
            if core.identity() == self.home {
                // The orphan is charged to the scope it stood under, wherever it is dropped.
                core.abandon(self.id, self.park.node(core));
            }
        });
    }
}

impl<O: Operation> Future for KernelOp<O> {
    type Output = O::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<O::Output> {
        current::with(|core| {
            loop {
                match &mut self.stage {
                    Stage::New { entry, .. } => {
                        let refused = match entry.poll(core, cx.waker()) {
                            Poll::Pending => return Poll::Pending,
                            Poll::Ready(verdict) => verdict.err(),
                        };
                        let Stage::New {
                            mut operation,
                            fd,
                            entry,
                        } = std::mem::replace(&mut self.stage, Stage::Done)
                        else {
                            unreachable!("matched just above");
                        };
                        if let Some(cancelled) = refused {
                            return Poll::Ready(
                                operation.finish(Outcome::Failed(cancelled.into())),
                            );
                        }
                        if fd.as_ref().is_some_and(SharedFd::is_closed) {
                            return Poll::Ready(operation.finish(Outcome::Failed(Closed.into())));
                        }
                        if let Some(fd) = &fd
                            && let Some(outcome) = at_once::attempt(core, fd, &mut operation)
                        {
                            return Poll::Ready(operation.finish(outcome));
                        }
                        let started = Stage::Started(start(core, cx, operation, fd, entry));
                        // Of what was here nothing is left: it need not be asked whether to drop any.
                        std::mem::forget(std::mem::replace(&mut self.stage, started));
                        return Poll::Pending;
                    }
                    Stage::Started(started) => {
                        let Some((result, asked)) = started.look::<O>(core, cx) else {
                            return Poll::Pending;
                        };
                        let mut collected = core.ops.borrow_mut().collect::<O>(started.id);
                        let result = plain(collected.operation.result(result));
                        let outcome = match started
                            .end(core, result, asked, || collected.operation.restarts())
                        {
                            Ok(outcome) => outcome,
                            Err(entry) => {
                                self.stage = Stage::New {
                                    operation: collected.operation,
                                    fd: collected.fd,
                                    entry,
                                };
                                continue;
                            }
                        };
                        // Of what has ended nothing is left: it need not be asked whether to drop any.
                        std::mem::forget(std::mem::replace(&mut self.stage, Stage::Done));
                        drop(collected.fd);
                        return Poll::Ready(collected.operation.finish(outcome));
                    }
                    Stage::Done => panic!("a kernel op was polled after it had ended"),
                }
            }
        })
    }
}

/// Starts an op, and registers it under the active scope. What is known of it is put together where it stays: returned
/// through memory, it would be read before it is written.
#[inline(always)]
fn start<O: Operation>(
    core: &Core,
    cx: &Context<'_>,
    operation: O,
    fd: Option<SharedFd>,
    entry: park::Entry,
) -> Started {
    let id = put(core, cx.waker(), operation, fd);
    let park = match entry {
        park::Entry::Checked => Park::of_op(core, id.user_data()),
        park::Entry::Always => Park::new(),
    };
    Started {
        park,
        id,
        home: core.identity(),
    }
}

/// Puts an op into its slot.
#[inline(never)]
fn put<O: Operation>(core: &Core, waker: &Waker, operation: O, fd: Option<SharedFd>) -> OpId {
    let notify = Notify::Waker(waker.clone());
    // To copy it is foreign code, which may have closed the descriptor: then it ends as those do that were in line.
    let is_closed = fd.as_ref().is_some_and(SharedFd::is_closed);
    let id = core.start(operation, fd, notify);
    if is_closed {
        let told = core.ops.borrow_mut().cancel(id, Asker::Close);
        core.tell(told);
    }
    id
}

/// Lets an op wake who polls it. Returns its end, if that has come meanwhile: to copy a waker is foreign code.
#[inline]
fn note_waker(core: &Core, id: OpId, waker: &Waker) -> Option<(i32, Option<Asker>)> {
    if core.ops.borrow_mut().will_wake(id, waker) {
        return None;
    }
    let waker = waker.clone();
    let mut ops = core.ops.borrow_mut();
    let completed = ops.completed(id);
    if completed.is_none() {
        let stale = ops.notify(id, Notify::Waker(waker));
        drop(ops);
        drop(stale);
    }
    completed
}

/// Says `EINTR` for what the kernel calls an interrupted call within itself, and tells of in the completion of an open
/// (`ERESTARTSYS` and its like, `linux/errno.h`).
fn plain(result: i32) -> i32 {
    match result {
        -514..=-512 | -516 => -libc::EINTR,
        result => result,
    }
}

/// Names a final completion: a result is a result, whoever asked for the end; an op that ended
/// because its scope asked was cancelled, or because of a close was closed; anything else is what the
/// kernel says.
fn outcome(result: i32, asked: Option<Asker>, cause: impl FnOnce() -> crate::Cancelled) -> Outcome {
    if result >= 0 {
        return Outcome::Done(result as u32);
    }
    let ended_early = matches!(-result, libc::ECANCELED | libc::EINTR);
    Outcome::Failed(match asked {
        Some(Asker::Scope) if ended_early => cause().into(),
        Some(Asker::Close) if ended_early => Closed.into(),
        _ => io::Error::from_raw_os_error(-result),
    })
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::os::unix::net::UnixStream;
    use std::rc::Rc;

    use super::*;
    use crate::Cancelled;
    use crate::buf::IoBuf;
    use crate::op::{self, Stream};
    use crate::scope::cancelled::CarriesCancelled;

    fn is_cancelled(result: i32, asked: Option<Asker>) -> Option<bool> {
        match outcome(result, asked, Cancelled::requested) {
            Outcome::Done(_) => None,
            Outcome::Failed(error) => Some(error.cancelled().is_some()),
        }
    }

    #[test]
    fn only_an_end_that_our_scope_asked_for_is_called_cancelled() {
        assert_eq!(
            is_cancelled(-libc::ECANCELED, Some(Asker::Scope)),
            Some(true)
        );
        assert_eq!(is_cancelled(-libc::EINTR, Some(Asker::Scope)), Some(true));
        assert_eq!(is_cancelled(-libc::ECANCELED, None), Some(false));
        assert_eq!(is_cancelled(-libc::EINTR, None), Some(false));
        assert_eq!(is_cancelled(-libc::EPIPE, Some(Asker::Scope)), Some(false));
        assert_eq!(is_cancelled(7, Some(Asker::Scope)), None);
    }

    #[test]
    fn an_interruption_has_one_number() {
        for interrupted in [libc::EINTR, 512, 513, 514, 516] {
            assert_eq!(plain(-interrupted), -libc::EINTR);
        }
        for other in [-libc::ECANCELED, -511, -515, -517, 0, 7, 512, 516] {
            assert_eq!(plain(other), other);
        }
    }

    #[test]
    fn only_an_end_that_a_close_asked_for_is_called_closed() {
        let is_closed = |result, asked| match outcome(result, asked, Cancelled::requested) {
            Outcome::Done(_) => None,
            Outcome::Failed(error) => {
                Some(error.get_ref().is_some_and(|inner| inner.is::<Closed>()))
            }
        };
        assert_eq!(is_closed(-libc::ECANCELED, Some(Asker::Close)), Some(true));
        assert_eq!(is_closed(-libc::EINTR, Some(Asker::Close)), Some(true));
        assert_eq!(is_closed(-libc::EPIPE, Some(Asker::Close)), Some(false));
        assert_eq!(is_closed(-libc::ECANCELED, Some(Asker::Scope)), Some(false));
        assert_eq!(is_closed(7, Some(Asker::Close)), None);
    }

    /// A buffer that does not say where its bytes are.
    struct Panics;

    // SAFETY: it says nothing that could be wrong.
    unsafe impl IoBuf for Panics {
        fn as_ptr(&self) -> *const u8 {
            panic!("on purpose")
        }

        fn len(&self) -> usize {
            4
        }
    }

    /// A buffer that does not say it any more, once it was told so.
    struct PanicsThen(Rc<Cell<bool>>);

    // SAFETY: what it says is where static bytes are.
    unsafe impl IoBuf for PanicsThen {
        fn as_ptr(&self) -> *const u8 {
            assert!(!self.0.get(), "on purpose");
            b"word".as_ptr()
        }

        fn len(&self) -> usize {
            4
        }
    }

    /// It is asked again when there is room in the submission queue: by the loop.
    #[test]
    fn a_buffer_that_panics_in_line_costs_its_op_and_nothing_else() {
        crate::block_on(async {
            let (reader, writer) = op::pipe().expect("a pipe");
            let mut nops: Vec<_> = (0..600).map(|_| Box::pin(op::nop())).collect();
            let then = Rc::new(Cell::new(false));
            let mut write = Box::pin(op::write(&writer, PanicsThen(Rc::clone(&then))));
            std::future::poll_fn(|cx| {
                for nop in &mut nops {
                    assert!(nop.as_mut().poll(cx).is_pending());
                }
                assert!(write.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            then.set(true);
            let (written, buf) = write.await;
            let error = written.expect_err("it was never written");
            assert_eq!(error.raw_os_error(), Some(libc::EFAULT));
            for nop in nops {
                nop.await.expect("not cancelled");
            }
            then.set(false);
            op::write(&writer, buf).await.0.expect("all goes on");
            let (count, bytes) = op::read(&reader, [0; 8]).await;
            assert_eq!(&bytes[..count.expect("no error")], b"word");
        })
        .expect("tests need io_uring");
    }

    /// The op is in its slot by then, with the turn to send.
    #[test]
    fn an_op_whose_buffer_panics_leaves_nothing_behind() {
        crate::block_on(async {
            for is_alone in [false, true] {
                let (ours, _theirs) = UnixStream::pair().expect("a pair");
                let stream = Rc::new(Stream::new(SharedFd::from(OwnedFd::from(ours))));
                let occupied = || current::with(|core| core.ops.borrow().occupied());
                let before = occupied();
                let of = [(); 5].map(|()| Rc::clone(&stream));
                let [all, some, parts, whole, writes] = of;
                let sends: [Pin<Box<dyn Future<Output = ()>>>; 5] = [
                    Box::pin(async move { drop(all.send_all(Panics).await) }),
                    Box::pin(async move { drop(some.send(Panics).await) }),
                    Box::pin(async move { drop(parts.send_all_vectored(vec![Panics]).await) }),
                    Box::pin(async move { drop(whole.send_zero_copy(Panics).await) }),
                    Box::pin(async move { drop(op::write(&writes.fd(), Panics).await) }),
                ];
                for send in sends {
                    let sent = crate::spawn(async move {
                        if !is_alone {
                            drop(crate::spawn(async {}));
                        }
                        send.await;
                    });
                    assert!(sent.await.is_err(), "it panicked");
                    assert_eq!(occupied(), before);
                    let (sent, _) = stream.send_all("the turn is free").await;
                    sent.expect("there is room");
                }
                let fd = stream.fd();
                op::close(stream.fd()).await.expect("nothing uses it");
                assert_eq!(fd.as_raw_fd(), -1);
            }
        })
        .expect("tests need io_uring");
    }
}
