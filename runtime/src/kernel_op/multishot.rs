//! One submission, many completions.
//!
//! A multishot op belongs to its stream or listener, not to the scope that reads from it. Its
//! completions land in a queue in the op's slot; receiving from it is a wait in memory, and a
//! cancel of that wait sends nothing to the kernel and loses nothing.
//!
//! The op is armed at the first wait and again whenever it has ended and somebody waits. When the
//! queue is full the op is asked to pause, so what nobody takes stays in the kernel.

use std::cell::Cell;
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::AsRawFd;
use std::task::{Context, Poll, ready};

use super::fd::{Closed, SharedFd};
use super::ops::Nop;
use super::payload::Operation;
use super::slab::{Notify, OpId};
use super::state::Asker;
use super::{KernelOp, Ticket};
use crate::core_state::Core;
use crate::scope::park::{self, Park};
use crate::scope::tree::Purpose;
use crate::task::current;

/// The queue in the slot of a multishot op.
pub(crate) trait Queue: Operation {
    /// What is waited for.
    type Item;

    /// Nothing comes behind an end, so that it need not be asked again.
    const ENDS_FOR_GOOD: bool = true;

    /// Makes the op anew, to be armed.
    fn new(core: &Core) -> Self;

    /// Takes the next item.
    fn pop(&mut self) -> Option<Self::Item>;

    /// Returns why the op has ended, once nothing is left in the queue.
    fn end(&self) -> Option<End>;

    /// Returns whether it has got something since it was armed, of which there is too little, and shall
    /// let others go first; says so once.
    fn gives_way(&mut self) -> bool {
        false
    }
}

/// Why a multishot op ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing more will come, unless the op says otherwise: [`Queue::ENDS_FOR_GOOD`].
    Finished,
    /// The kernel ended it without a reason, or we had paused it: arm it again.
    Again,
    /// No provided buffer was left: arm it again when there is one.
    Starved,
    /// An error; the op may be armed again.
    Failed(i32),
}

/// A stream of completions on one descriptor.
///
/// Dropped, it gives its op up.
pub(crate) struct Multishot<Q: Queue> {
    fd: SharedFd,
    armed: Cell<Option<Ticket>>,
    finished: Cell<bool>,
    waiting: Cell<bool>,
    queue: PhantomData<Q>,
}

impl<Q: Queue> fmt::Debug for Multishot<Q> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Multishot")
            .field("fd", &self.fd.as_raw_fd())
            .field("armed", &self.armed.get().is_some())
            .field("finished", &self.finished.get())
            .finish()
    }
}

impl<Q: Queue> Drop for Multishot<Q> {
    fn drop(&mut self) {
        if let Some(ticket) = self.armed.take() {
            ticket.give_up();
        }
    }
}

/// One wait for the next item: lives as long as the future that waits.
#[derive(Debug, Default)]
pub(crate) struct NextWait {
    park: Park,
    /// We are the one who waits; nobody else may.
    registered: bool,
}

impl NextWait {
    pub(crate) fn is_registered(&self) -> bool {
        self.registered
    }
}

impl<Q: Queue> Multishot<Q> {
    pub(crate) fn new(fd: SharedFd) -> Self {
        Self {
            fd,
            armed: Cell::new(None),
            finished: Cell::new(false),
            waiting: Cell::new(false),
            queue: PhantomData,
        }
    }

    /// Waits for the next item; `None` when nothing more will come.
    pub(crate) fn poll_next(
        &self,
        wait: &mut NextWait,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Q::Item>>> {
        current::with(|core| {
            let first = !wait.registered;
            if first {
                ready!(park::entry(core, cx.waker()))?;
                if self.waiting.get() {
                    return Poll::Ready(Err(busy()));
                }
            } else {
                match wait.park.look_last(core, cx.waker()) {
                    // Nothing has come since: it would have been told.
                    park::Look::Waiting if self.will_be_told(core, wait) => return Poll::Pending,
                    park::Look::Waiting => {}
                    // An item came first, and is in the queue.
                    park::Look::Ready => self.end_wait(wait),
                    park::Look::Aborted(cancelled) => {
                        self.end_wait(wait);
                        return Poll::Ready(Err(cancelled.into()));
                    }
                }
            }
            let mut armed = match self.take(core, cx) {
                Taken::Ready(found) => {
                    self.end_wait(wait);
                    return Poll::Ready(found);
                }
                Taken::Nothing(armed) => armed,
            };
            if !first && !wait.registered {
                // Woken for nothing, as by an op that the kernel has ended early. The wait that begins
                // now is a new one, under a scope that may have been cancelled meanwhile.
                ready!(park::entry(core, cx.waker()))?;
                // Cancels were taken in, which may have woken somebody who polls where he is woken: here, too.
                if self.waiting.get() {
                    return Poll::Ready(Err(busy()));
                }
                armed = self.op(core);
            }
            if armed.is_none() {
                self.arm(core)?;
            }
            self.begin_wait(core, wait, cx);
            Poll::Pending
        })
    }

    /// Ends a wait that its future gives up.
    pub(crate) fn end_wait(&self, wait: &mut NextWait) {
        if std::mem::take(&mut wait.registered) {
            self.waiting.set(false);
            wait.park.end();
        }
    }

    /// Lets whoever waits look again.
    pub(crate) fn nudge(&self) {
        if self.waiting.get() {
            current::try_with(|core| {
                if let Some(id) = self.op(core) {
                    let waiter = core.ops.borrow_mut().notify(id, Notify::Nobody);
                    core.tell(waiter);
                }
            });
        }
    }

    /// Returns whether somebody waits for the next item, or for the end of the op.
    pub(crate) fn is_waited_for(&self) -> bool {
        self.waiting.get()
    }

    /// Ends the op and waits until the kernel is done with it; returns what lies in the queue. Nobody waits for an item
    /// of it, and nobody may meanwhile: an op tells one of its end.
    pub(crate) async fn stop(&self) -> Option<Q> {
        let _stopping = Stopping {
            waiting: &self.waiting,
            before: self.waiting.replace(true),
        };
        std::future::poll_fn(|cx| {
            current::with(|core| {
                let Some(id) = self.op(core) else {
                    return Poll::Ready(None);
                };
                let told = core.ops.borrow_mut().cancel(id, Asker::Pause);
                core.tell(told);
                let completed = core.ops.borrow_mut().completed(id);
                match completed.or_else(|| super::note_waker(core, id, cx.waker())) {
                    Some(_) => Poll::Ready(self.disarm(core)),
                    None => Poll::Pending,
                }
            })
        })
        .await
    }

    /// Returns what the kernel has and gives at once. Nobody waits, and the op is not armed; it happens also in a
    /// cancelled scope.
    pub(crate) async fn take_waiting(&self) -> Option<Q> {
        current::with(|core| self.arm(core)).ok()?;
        // It is submitted behind the op: at its end the kernel has done what it can without waiting.
        let _ = KernelOp::release(Nop, None).await;
        self.stop().await
    }

    /// Returns the descriptor.
    pub(crate) fn fd(&self) -> &SharedFd {
        &self.fd
    }

    /// Returns the op, if it is armed.
    fn op(&self, core: &Core) -> Option<OpId> {
        self.armed.get().map(|ticket| ticket.id(core))
    }

    /// Returns whether the op goes on, and tells this wait of what comes next.
    #[inline]
    fn will_be_told(&self, core: &Core, wait: &NextWait) -> bool {
        match (self.op(core), wait.park.token()) {
            (Some(id), Some(token)) => core.ops.borrow_mut().will_tell(id, token),
            _ => false,
        }
    }

    /// Takes what is there.
    #[inline]
    fn take(&self, core: &Core, cx: &Context<'_>) -> Taken<Q::Item> {
        if self.finished.get() {
            return Taken::Ready(Ok(None));
        }
        let Some(id) = self.op(core) else {
            return Taken::Nothing(None);
        };
        let mut ops = core.ops.borrow_mut();
        if let Some(item) = ops.payload::<Q>(id).pop() {
            return Taken::Ready(Ok(Some(item)));
        }
        if ops.completed(id).is_none() {
            return Taken::Nothing(Some(id));
        }
        let end = ops.payload::<Q>(id).end();
        drop(ops);
        self.take_end(core, id, end.unwrap_or(End::Again), cx)
    }

    /// Sees what follows from the end of the op.
    #[cold]
    fn take_end(&self, core: &Core, id: OpId, end: End, cx: &Context<'_>) -> Taken<Q::Item> {
        match end {
            End::Starved if core.buffers.provided() == 0 && !self.fd.is_closed() => {
                core.buffers.wake_when_provided(cx.waker());
                Taken::Nothing(Some(id))
            }
            // The kernel serves those who ask for buffers in the order in which they ask, which is that in
            // which they were told how it went the last time. While there are too few, whoever got one asks
            // after those who did not: else the same would get all, again and again.
            End::Starved | End::Again if core.ops.borrow_mut().payload::<Q>(id).gives_way() => {
                core.wake_after_others(cx.waker());
                Taken::Nothing(Some(id))
            }
            End::Starved | End::Again => {
                drop(self.disarm(core));
                Taken::Nothing(None)
            }
            End::Finished => {
                drop(self.disarm(core));
                self.finished.set(Q::ENDS_FOR_GOOD);
                Taken::Ready(Ok(None))
            }
            End::Failed(errno) => {
                drop(self.disarm(core));
                Taken::Ready(Err(io::Error::from_raw_os_error(errno)))
            }
        }
    }

    /// Starts the op, which is not there.
    fn arm(&self, core: &Core) -> Result<(), Closed> {
        if self.fd.is_closed() {
            return Err(Closed);
        }
        let id = core.start(Q::new(core), Some(self.fd.clone()), Notify::Nobody);
        core.ops.borrow().note_multishot(id);
        let old = self.armed.replace(Some(Ticket::new(id, core)));
        debug_assert!(old.is_none(), "looked at by the caller");
        Ok(())
    }

    /// Frees the slot of an op that has ended; returns its queue.
    fn disarm(&self, core: &Core) -> Option<Q> {
        let ticket = self.armed.take()?;
        let collected = core.ops.borrow_mut().collect::<Q>(ticket.id(core));
        Some(collected.operation)
    }

    fn begin_wait(&self, core: &Core, wait: &mut NextWait, cx: &mut Context<'_>) {
        if !wait.registered {
            wait.registered = true;
            self.waiting.set(true);
            wait.park.register_memory(core, cx.waker(), Purpose::Item);
        }
        // The waker was cloned, which may be anybody's code: the op is asked for behind it.
        if let (Some(op), Some(token)) = (self.op(core), wait.park.token()) {
            let old = core.ops.borrow_mut().notify(op, Notify::Token(token));
            drop(old);
        }
    }
}

/// A wait for the end of an op: the only wait there is, but for one whose future was leaked.
struct Stopping<'a> {
    waiting: &'a Cell<bool>,
    before: bool,
}

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.waiting.set(self.before);
    }
}

/// What was found where items come.
enum Taken<T> {
    Ready(io::Result<Option<T>>),
    /// Nothing yet; the op, if it is there.
    Nothing(Option<OpId>),
}

/// Two tasks cannot wait for the same bytes.
fn busy() -> io::Error {
    io::Error::new(
        io::ErrorKind::ResourceBusy,
        "another task is already waiting on this socket: one task at a time may",
    )
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::kernel_op::ops::Accepted;
    use crate::time::sleep;
    use crate::{CancelHandle, Cancelled, Scope, block_on, op};
    use std::cell::RefCell;
    use std::future::{Future, poll_fn};
    use std::pin::Pin;
    use std::rc::Rc;
    use std::sync::Arc;
    use std::task::{Wake, Waker};
    use std::time::Duration;

    type Job = Box<dyn FnOnce()>;

    thread_local!(static JOB: RefCell<Option<Job>> = const { RefCell::new(None) });

    /// Somebody who does what he is woken for where he is woken.
    struct AtOnce;

    impl Wake for AtOnce {
        fn wake(self: Arc<Self>) {
            if let Some(job) = JOB.take() {
                job();
            }
        }
    }

    /// A scope in which somebody waits whose waker runs the job.
    fn waits_with_the_job() -> (CancelHandle, Pin<Box<dyn Future<Output = ()>>>) {
        let scope = Scope::new();
        let handle = scope.handle();
        let mut waits: Pin<Box<dyn Future<Output = ()>>> = Box::pin(async move {
            let nap = scope.run(async {
                sleep(Duration::from_secs(3_600)).await?;
                Ok::<_, Cancelled>(())
            });
            let _ = nap.await;
        });
        let waker = Waker::from(Arc::new(AtOnce));
        assert!(
            waits
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending()
        );
        (handle, waits)
    }

    /// Between the look that finds no op and the arming of one, cancels are taken in; one of them wakes somebody who
    /// arms it.
    #[test]
    fn an_op_that_is_armed_meanwhile_is_armed_once() {
        while_another_waits(false);
    }

    /// As above, and he goes on waiting: what comes next is his.
    #[test]
    fn who_waits_meanwhile_is_the_only_one() {
        while_another_waits(true);
    }

    fn while_another_waits(stays: bool) {
        block_on(async {
            let address = "127.0.0.1:0".parse().expect("an address");
            let socket = op::Socket::tcp(address).expect("a socket");
            socket.bind(address).expect("a port");
            socket.listen(16).expect("it listens");
            let accepts = Rc::new(Multishot::<Accepted<false>>::new(socket.into_shared()));
            let mut wait = NextWait::default();
            let begin = |wait: &mut NextWait, cx: &mut Context<'_>| {
                Poll::Ready(accepts.poll_next(wait, cx))
            };
            assert!(poll_fn(|cx| begin(&mut wait, cx)).await.is_pending());
            op::nop().await.expect("nobody cancels");
            let id = current::with(|core| {
                let id = accepts.op(core).expect("it is armed");
                let told = core.ops.borrow_mut().cancel(id, Asker::Pause);
                core.tell(told);
                id
            });
            while current::with(|core| core.ops.borrow_mut().completed(id).is_none()) {
                op::nop().await.expect("nobody cancels");
            }
            let (first, _first) = waits_with_the_job();
            let (second, _second) = waits_with_the_job();
            let theirs = Rc::new(RefCell::new(NextWait::default()));
            let (accepts_too, their_wait) = (Rc::clone(&accepts), Rc::clone(&theirs));
            JOB.set(Some(Box::new(move || {
                // Seen by the op that comes next: the entry of the new wait.
                second.cancel();
                JOB.set(Some(Box::new(move || {
                    let mut wait = their_wait.borrow_mut();
                    let cx = &mut Context::from_waker(Waker::noop());
                    assert!(accepts_too.poll_next(&mut wait, cx).is_pending());
                    if !stays {
                        accepts_too.end_wait(&mut wait);
                    }
                })));
            })));
            first.cancel();
            let began = poll_fn(|cx| begin(&mut wait, cx)).await;
            assert_eq!(matches!(began, Poll::Ready(Err(_))), stays, "{began:?}");
            assert!(JOB.take().is_none(), "both jobs were done");
            current::with(|core| assert_eq!(core.ops.borrow().orphans(), 0));
            accepts.end_wait(&mut wait);
            assert_eq!(accepts.waiting.get(), stays);
            accepts.end_wait(&mut theirs.borrow_mut());
        })
        .expect("a core");
    }
}
