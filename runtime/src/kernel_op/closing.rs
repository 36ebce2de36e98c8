//! Closing a descriptor for all its owners, whatever they are doing with it.
//!
//! From its first poll, or from its drop, nobody begins anything on the descriptor; each op that this core
//! has on it is asked to end, and the number is free when the last of them has had its final completion.

use std::io;
use std::task::{Context, Poll};

use super::fd::{Closed, Closer, Descriptor, SharedFd};
use crate::core_state::Core;
use crate::scope::park::{Look, Park};
use crate::scope::tree::Purpose;
use crate::task::current;

/// The right to close a descriptor. Dropped, it is closed all the same, by whatever uses it last.
#[derive(Debug)]
pub(crate) struct Closing {
    fd: SharedFd,
    stage: Stage,
    park: Park,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    New,
    Waits,
    /// The number is not ours to close: it is somebody else's, or is closed already.
    Over,
}

impl Closing {
    pub(crate) fn new(fd: SharedFd) -> Self {
        Self {
            fd,
            stage: Stage::New,
            park: Park::new(),
        }
    }

    /// Waits until nothing uses the descriptor, and takes it. `None`: what uses it is no op of this
    /// core, and closes it when it ends. A cancel does not end this wait.
    pub(crate) fn poll_unused(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Option<Descriptor>>> {
        current::with(|core| {
            match self.stage {
                Stage::New => {
                    if !self.fd.mark_closed() {
                        self.stage = Stage::Over;
                        return Poll::Ready(Err(Closed.into()));
                    }
                    self.stage = Stage::Waits;
                    let ours = end_ops(core, &self.fd);
                    if !self.fd.is_unused() && ours {
                        self.park.register_deaf(core, cx.waker(), Purpose::Close);
                        let token = self.park.token().expect("registered just above");
                        self.fd.set_waiting_close(token);
                        return Poll::Pending;
                    }
                }
                Stage::Waits => match self.park.look(core, cx.waker()) {
                    Look::Ready => self.park.end(),
                    Look::Waiting | Look::Aborted(_) => return Poll::Pending,
                },
                Stage::Over => panic!("a close was polled after it had ended"),
            }
            if !self.fd.is_unused() {
                return Poll::Ready(Ok(None));
            }
            self.stage = Stage::Over;
            Poll::Ready(Ok(self.fd.take()))
        })
    }
}

impl Drop for Closing {
    fn drop(&mut self) {
        if self.stage == Stage::New {
            if !self.fd.mark_closed() {
                return;
            }
            current::try_with(|core| end_ops(core, &self.fd));
        } else if self.stage == Stage::Over {
            return;
        }
        self.fd.set_closer(Closer::LastUse);
        if self.fd.is_unused() {
            drop(self.fd.take());
        }
    }
}

/// Asks what this core has in hand on a descriptor to end; true if some of it takes its time.
fn end_ops(core: &Core, fd: &SharedFd) -> bool {
    if fd.is_unique() {
        return false;
    }
    let (told, kernel_holds) = core.ops.borrow_mut().close(fd);
    for notify in told {
        core.tell(notify);
    }
    // Whoever has the turn may keep it for long.
    if let Some(waiting) = fd.waiting_senders() {
        waiting.wake_all();
    }
    kernel_holds
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::future::{Future, poll_fn};
    use std::io::Write;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::pin::{Pin, pin};

    use super::*;
    use crate::op::{self, PipeReader, Stream};

    async fn begins(mut future: Pin<&mut impl Future>) {
        let polled = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx))).await;
        assert!(polled.is_pending(), "it waits");
    }

    /// How many ops a close would find, and whether without a search.
    fn found(fd: &SharedFd) -> (usize, bool) {
        current::with(|core| {
            let ops = core.ops.borrow();
            (ops.ops_on(fd).len(), ops.only_op_on(fd).is_some())
        })
    }

    #[test]
    fn a_receive_that_waits_is_found_without_a_search() {
        crate::block_on(async {
            let (reader, writer) = op::pipe().expect("a pipe");
            let reader = PipeReader::new(reader);
            let fd = reader.fd();
            assert_eq!(found(&fd), (0, true));
            for _ in 0..3 {
                let mut waits = pin!(reader.receive());
                begins(waits.as_mut()).await;
                assert_eq!(found(&fd), (1, true));
                op::write(&writer, "word").await.0.expect("there is room");
                drop(waits.await.expect("no error").expect("no end"));
                // In other slots than before.
                let mut others = [(); 3].map(|()| Box::pin(op::nop()));
                for other in &mut others {
                    begins(other.as_mut()).await;
                }
            }
            op::nop().await.expect("nobody cancels");
            let mut waits = pin!(reader.receive());
            begins(waits.as_mut()).await;
            let mut other = Box::pin(op::poll(&fd, libc::POLLERR as u32));
            begins(other.as_mut()).await;
            assert_eq!(found(&fd), (2, false));
            drop(other);
            assert_eq!(found(&fd), (2, false), "the kernel has both");
            while found(&fd) != (1, true) {
                op::nop().await.expect("nobody cancels");
            }
            op::close(fd).await.expect("no error");
            assert!(waits.await.is_err());
        })
        .expect("tests need io_uring");
    }

    #[test]
    fn receives_of_several_streams_over_one_descriptor_are_all_told() {
        crate::block_on(async {
            let (ours, mut theirs) = UnixStream::pair().expect("a pair");
            let fd = SharedFd::from(OwnedFd::from(ours));
            let streams = [(); 3].map(|()| Stream::new(fd.clone()));
            let mut waits = Vec::new();
            for stream in &streams {
                let mut wait = Box::pin(stream.receive());
                begins(wait.as_mut()).await;
                waits.push(wait);
            }
            assert_eq!(found(&fd), (3, false));
            theirs.write_all(b"word").expect("there is room");
            op::close(fd).await.expect("no error");
            let mut words = 0;
            for wait in waits {
                words += u32::from(wait.await.is_ok());
            }
            assert!(words <= 1, "one has got it, if it came first");
        })
        .expect("tests need io_uring");
    }
}
