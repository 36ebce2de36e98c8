//! A descriptor stays open while an op uses it.
//!
//! Dropping the last owner closes it, at once. An op's slot is an owner until the kernel's final
//! completion, so a number is never reused while an op that names it is alive.

use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use crate::driver::sys;

/// A descriptor with one owner, closed when dropped.
#[derive(Debug)]
pub(crate) struct Descriptor(RawFd);

impl Descriptor {
    pub(crate) fn new(fd: RawFd) -> Self {
        debug_assert!(fd >= 0);
        Self(fd)
    }
}

impl Descriptor {
    /// Lets go of the number: somebody else has closed it.
    pub(crate) fn let_go(&mut self) {
        self.0 = GONE;
    }
}

/// No descriptor.
const GONE: RawFd = -1;

impl AsRawFd for Descriptor {
    fn as_raw_fd(&self) -> RawFd {
        self.0
    }
}

impl Drop for Descriptor {
    fn drop(&mut self) {
        if self.0 != GONE {
            sys::close(self.0);
        }
    }
}

/// A descriptor with several owners on one core: closed when the last is gone.
#[derive(Debug, Clone)]
pub struct SharedFd(Rc<Descriptor>);

impl SharedFd {
    pub(crate) fn new(descriptor: Descriptor) -> Self {
        Self(Rc::new(descriptor))
    }

    /// Returns whether nobody else owns it, be it a clone or an op in the kernel.
    pub fn is_unique(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }

    /// Gives the number out of our hands, if nobody else (no op) uses it.
    pub(crate) fn try_into_raw(self) -> Result<RawFd, Self> {
        Rc::try_unwrap(self.0).map_err(Self).map(|mut descriptor| {
            let fd = descriptor.0;
            descriptor.let_go();
            fd
        })
    }
}

impl AsRawFd for SharedFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0
    }
}

impl From<OwnedFd> for SharedFd {
    fn from(fd: OwnedFd) -> Self {
        Self::new(Descriptor::new(fd.into_raw_fd()))
    }
}

/// Fails while somebody else owns it, and with a simulated descriptor, whose number means something
/// else to the real kernel, or nothing.
impl TryFrom<SharedFd> for OwnedFd {
    type Error = SharedFd;

    fn try_from(shared: SharedFd) -> Result<Self, SharedFd> {
        #[cfg(feature = "sim")]
        if crate::sim::is_simulated(shared.as_raw_fd()) {
            return Err(shared);
        }
        let fd = shared.try_into_raw()?;
        // SAFETY: the number was ours alone, and we have just let go of it.
        Ok(unsafe { Self::from_raw_fd(fd) })
    }
}
