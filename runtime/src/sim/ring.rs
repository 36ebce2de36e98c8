//! `SimRing`: a ring of the simulated kernel, as the driver sees it.

use std::collections::BTreeSet;
use std::io;
use std::rc::Rc;

use super::fault::Fault;
use super::kernel::ring::{Provided, Ring};
use super::kernel::{Coming, RingId};
use super::trace::What;
use super::world::World;
use crate::buf::door::BufferRing;
use crate::driver::{Completion, Full, RingOptions, Wait};
use crate::kernel_op::request::Request;

/// One ring.
pub(crate) struct SimRing {
    world: Rc<World>,
    id: RingId,
    may_be_incremental: bool,
}

impl std::fmt::Debug for SimRing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SimRing")
            .field("id", &self.id)
            .finish_non_exhaustive()
    }
}

impl SimRing {
    pub(crate) fn new(world: Rc<World>, options: &RingOptions) -> io::Result<Self> {
        let mut kernel = world.kernel.borrow_mut();
        let errors = [libc::EPERM, libc::ENOSYS, libc::ENOMEM];
        if let Some(errno) = kernel.refused(Fault::SetupRefused, &errors) {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let ring = Ring::new(options.submission_entries, options.completion_entries);
        kernel.rings.push(Some(ring));
        let id = kernel.rings.len() - 1;
        drop(kernel);
        Ok(Self {
            world,
            id,
            may_be_incremental: options.features.incremental_buffers,
        })
    }

    pub(crate) fn id(&self) -> RingId {
        self.id
    }

    fn with<R>(&self, f: impl FnOnce(&mut Ring) -> R) -> R {
        let mut kernel = self.world.kernel.borrow_mut();
        f(kernel.rings[self.id].as_mut().expect("this ring is open"))
    }

    /// Whether its core waits in the kernel.
    pub(crate) fn is_waiting(&self) -> bool {
        self.with(|ring| ring.waiting.is_some())
    }

    pub(crate) fn choose(&self, count: usize) -> usize {
        self.world.kernel.borrow_mut().choices.choose(count)
    }

    pub(crate) fn may_still_write(&self) -> bool {
        self.with(|ring| !ring.in_flight.is_empty())
    }

    pub(crate) fn push(&mut self, request: &Request, user_data: u64) -> Result<(), Full> {
        let mut kernel = self.world.kernel.borrow_mut();
        // An empty queue always has room for one.
        let some = !kernel.rings[self.id]
            .as_ref()
            .expect("open")
            .submissions
            .is_empty();
        let pretend_full = some && kernel.comes(Fault::SubmissionQueueFull);
        let ring = kernel.rings[self.id].as_mut().expect("open");
        if pretend_full || ring.submissions.len() >= ring.submission_entries {
            return Err(Full);
        }
        ring.submissions.push_back((*request, user_data));
        Ok(())
    }

    pub(crate) fn enter(&mut self, wait: Wait) -> io::Result<()> {
        self.world.count_entry();
        let mut kernel = self.world.kernel.borrow_mut();
        {
            let ring = kernel.rings[self.id].as_mut().expect("open");
            ring.waiting = None;
            ring.interrupted = false;
        }
        let refused = if kernel.comes(Fault::EnterAgain) {
            Some(libc::EAGAIN)
        } else if kernel.comes(Fault::EnterBusy) {
            Some(libc::EBUSY)
        } else {
            None
        };
        if let Some(errno) = refused {
            return Err(io::Error::from_raw_os_error(errno));
        }
        let count = kernel.rings[self.id]
            .as_ref()
            .expect("open")
            .submissions
            .len();
        let partial = count > 1 && kernel.comes(Fault::PartialSubmit);
        kernel.submit(self.id, if partial { count / 2 } else { count });
        kernel.run_deferred(self.id);
        let idle = {
            let ring = kernel.rings[self.id].as_ref().expect("open");
            ring.completions.is_empty()
        };
        if let Wait::Until(deadline) = wait
            && idle
            && !partial
        {
            // A signal ends the wait, not the submission before it.
            if kernel.comes(Fault::EnterInterrupted) {
                kernel.rings[self.id].as_mut().expect("open").interrupted = true;
                return match count {
                    0 => Err(io::Error::from_raw_os_error(libc::EINTR)),
                    _ => Ok(()),
                };
            }
            kernel.rings[self.id].as_mut().expect("open").waiting = Some(wait);
            if let Some(nanos) = kernel.drawn(Fault::SpuriousWake, 2_000_000) {
                kernel.after(nanos, Coming::Interruption(self.id));
            }
            let until = deadline.map(|at| self.world.virtual_nanos(at));
            kernel.record(What::Park { until });
        }
        Ok(())
    }

    pub(crate) fn reap(&mut self) -> Option<Completion> {
        self.with(|ring| ring.completions.pop_front())
    }

    pub(crate) fn wants_enter(&mut self) -> bool {
        let now = self.world.kernel.borrow().now;
        self.with(|ring| {
            !ring.submissions.is_empty()
                || !ring.overflow.is_empty()
                || ring.next_work().is_some_and(|at| at <= now)
        })
    }

    pub(crate) fn has_completions(&mut self) -> bool {
        self.with(|ring| !ring.completions.is_empty())
    }

    pub(crate) fn unsubmitted(&mut self) -> u32 {
        self.with(|ring| ring.submissions.len() as u32)
    }

    pub(crate) fn overflowed(&mut self) -> bool {
        self.with(|ring| !ring.overflow.is_empty())
    }

    pub(crate) fn register_buffers(
        &mut self,
        ring_address: usize,
        entries: u16,
        _group: u16,
    ) -> io::Result<bool> {
        let mut kernel = self.world.kernel.borrow_mut();
        if kernel.comes(Fault::RegisterRefused) {
            return Err(io::Error::from_raw_os_error(libc::ENOMEM));
        }
        // The machine has to have it, and the program not to do without it.
        let incremental = kernel.incremental && self.may_be_incremental;
        kernel.rings[self.id].as_mut().expect("open").provided = Some(Provided {
            ring: BufferRing {
                address: ring_address,
                entries,
            },
            incremental,
            head: 0,
            filled: 0,
            looked_at: 0,
            lying: BTreeSet::new(),
        });
        Ok(incremental)
    }

    pub(crate) fn unregister_buffers(&mut self, _group: u16) -> io::Result<()> {
        match self.with(|ring| ring.provided.take()) {
            None => Err(io::Error::from_raw_os_error(libc::EINVAL)),
            Some(_) => Ok(()),
        }
    }
}

impl Drop for SimRing {
    fn drop(&mut self) {
        self.world.kernel.borrow_mut().close_ring(self.id);
    }
}
