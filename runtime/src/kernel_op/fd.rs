//! A descriptor stays open while an op uses it.
//!
//! Dropping the last owner closes it, at once. An op's slot is an owner until the kernel's final
//! completion, so a number is never reused while an op that names it is alive. Whoever closes it for all
//! its owners (`closing.rs`) waits for those ops.
//!
//! Who has the turn to send on it, and who waits for that, is kept here as well (`turn.rs`): so a socket is one piece
//! of memory.

use std::cell::{Cell, OnceCell};
use std::fmt;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd, RawFd};
use std::rc::Rc;

use super::at_once::AtOnce;
use crate::driver::sys;
use crate::sync::wait_list::WaitList;

/// The descriptor was closed while it was used, by another of its owners, with
/// [`op::close`](crate::op::close).
///
/// An op that waited on it ends with this error, and one that begins later fails with it. It comes
/// inside an [`io::Error`] of the kind `NotConnected`, where `error.get_ref()` finds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed;

impl fmt::Display for Closed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "the descriptor was closed by another of its owners: open it anew, or close it when all \
             have done with it",
        )
    }
}

impl std::error::Error for Closed {}

impl From<Closed> for io::Error {
    fn from(closed: Closed) -> Self {
        Self::new(io::ErrorKind::NotConnected, closed)
    }
}

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

/// A descriptor with several owners on one core: closed when the last is gone, or, for all of them,
/// by [`op::close`](crate::op::close).
#[derive(Debug, Clone)]
pub struct SharedFd(Rc<Shared>);

#[derive(Debug)]
struct Shared {
    /// `GONE` once it was closed.
    number: Cell<RawFd>,
    /// Ops that have not ended, and calls that work on the number.
    uses: Cell<u32>,
    closed: Cell<bool>,
    closer: Cell<Closer>,
    /// Somebody has the turn to send.
    is_sending: Cell<bool>,
    at_once: Cell<AtOnce>,
    /// Where its multishot op is, as the slots of ops have it: `slab.rs` says what that means.
    multishot: Cell<u32>,
    seldom: OnceCell<Box<Seldom>>,
}

/// A core has one for each of its sockets: with the counts of its `Rc` it fits five words.
#[cfg(not(random_layout))]
const _: () = assert!(size_of::<Shared>() <= 24);

/// What few descriptors have.
#[derive(Debug, Default)]
struct Seldom {
    /// The number of the close that waits.
    waiting_close: Cell<u64>,
    /// Those who wait for their turn to send.
    senders: WaitList,
}

/// Who closes a descriptor that was closed for all, once nothing uses it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Closer {
    /// Whatever used it last.
    LastUse,
    /// A close that looks for itself.
    Looks,
    /// A close that waits, and is told by a number of the core's.
    Waits,
}

impl SharedFd {
    pub(crate) fn new(mut descriptor: Descriptor) -> Self {
        let number = Cell::new(descriptor.0);
        descriptor.let_go();
        Self(Rc::new(Shared {
            number,
            uses: Cell::new(0),
            closed: Cell::new(false),
            closer: Cell::new(Closer::LastUse),
            is_sending: Cell::new(false),
            at_once: Cell::new(AtOnce::Unknown),
            multishot: Cell::new(u32::MAX),
            seldom: OnceCell::new(),
        }))
    }

    /// Returns whether nobody else owns it, be it a clone or an op in the kernel.
    pub fn is_unique(&self) -> bool {
        Rc::strong_count(&self.0) == 1
    }

    /// Returns whether it was closed for all its owners.
    pub(crate) fn is_closed(&self) -> bool {
        self.0.closed.get()
    }

    /// Returns the number, for a call that is over before anything else happens.
    pub(crate) fn open_number(&self) -> Result<RawFd, Closed> {
        if self.is_closed() {
            return Err(Closed);
        }
        Ok(self.0.number.get())
    }

    pub(crate) fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.0, &other.0)
    }

    /// Keeps the number from being closed while foreign code works on it.
    pub(crate) fn hold(&self) -> Result<Hold<'_>, Closed> {
        if self.is_closed() {
            return Err(Closed);
        }
        self.begin_use();
        Ok(Hold(self))
    }

    /// Returns what may be done on it past the ring.
    #[inline]
    pub(crate) fn at_once(&self) -> AtOnce {
        self.0.at_once.get()
    }

    pub(crate) fn set_at_once(&self, may: AtOnce) {
        self.0.at_once.set(may);
    }

    /// Counts an op that begins.
    pub(crate) fn begin_use(&self) {
        self.0.uses.set(self.0.uses.get() + 1);
    }

    /// Counts an op that has ended. If it was the last on a closed descriptor, that is closed here, or
    /// the number of the close that waits for this comes back.
    pub(crate) fn end_use(&self) -> Option<u64> {
        let uses = self.0.uses.get() - 1;
        self.0.uses.set(uses);
        if uses > 0 || !self.is_closed() {
            return None;
        }
        match self.0.closer.get() {
            Closer::LastUse => {
                drop(self.take());
                None
            }
            Closer::Looks => None,
            Closer::Waits => Some(self.seldom().waiting_close.get()),
        }
    }

    /// Returns whether no op and no call uses the number.
    pub(crate) fn is_unused(&self) -> bool {
        self.uses() == 0
    }

    pub(super) fn uses(&self) -> u32 {
        self.0.uses.get()
    }

    /// Returns where its multishot op is; see [`slab`](super::slab).
    pub(super) fn multishot(&self) -> &Cell<u32> {
        &self.0.multishot
    }

    /// Marks it closed for all; false if it was before.
    pub(crate) fn mark_closed(&self) -> bool {
        let first = !self.0.closed.replace(true);
        if first {
            self.set_closer(Closer::Looks);
        }
        first
    }

    pub(crate) fn set_closer(&self, closer: Closer) {
        self.0.closer.set(closer);
    }

    /// Lets a close wait, which is told by this number of the core's.
    pub(crate) fn set_waiting_close(&self, token: u64) {
        self.seldom().waiting_close.set(token);
        self.set_closer(Closer::Waits);
    }

    /// Returns whether somebody has the turn to send; `turn.rs` says who.
    #[inline]
    pub(super) fn is_sending(&self) -> &Cell<bool> {
        &self.0.is_sending
    }

    /// Returns those who wait for that turn, if anybody ever did.
    #[inline]
    pub(super) fn waiting_senders(&self) -> Option<&WaitList> {
        self.0.seldom.get().map(|seldom| &seldom.senders)
    }

    /// Returns those who wait for that turn, to wait among them.
    pub(super) fn senders(&self) -> &WaitList {
        &self.seldom().senders
    }

    #[cold]
    fn seldom(&self) -> &Seldom {
        self.0.seldom.get_or_init(Box::default)
    }

    /// Takes the number out of everybody's hands: it is whoever asks that closes it.
    pub(crate) fn take(&self) -> Option<Descriptor> {
        let number = self.0.number.replace(GONE);
        (number != GONE).then(|| Descriptor::new(number))
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let number = self.number.get();
        if number != GONE {
            sys::close(number);
        }
    }
}

/// The number, once it was closed by [`op::close`](crate::op::close), is -1.
impl AsRawFd for SharedFd {
    fn as_raw_fd(&self) -> RawFd {
        self.0.number.get()
    }
}

impl From<OwnedFd> for SharedFd {
    fn from(fd: OwnedFd) -> Self {
        Self::new(Descriptor::new(fd.into_raw_fd()))
    }
}

/// Fails while somebody else owns it, once it is closed, and with a simulated descriptor, whose number
/// means something else to the real kernel, or nothing.
impl TryFrom<SharedFd> for OwnedFd {
    type Error = SharedFd;

    fn try_from(shared: SharedFd) -> Result<Self, SharedFd> {
        #[cfg(feature = "sim")]
        if crate::sim::is_simulated(shared.as_raw_fd()) {
            return Err(shared);
        }
        if !shared.is_unique() || shared.is_closed() {
            return Err(shared);
        }
        let fd = shared.0.number.replace(GONE);
        // SAFETY: the number was ours alone, and we have just let go of it.
        Ok(unsafe { Self::from_raw_fd(fd) })
    }
}

/// A use of the number by foreign code; see [`SharedFd::hold`].
pub(crate) struct Hold<'a>(&'a SharedFd);

impl AsRawFd for Hold<'_> {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        let waits = self.0.end_use();
        debug_assert!(
            waits.is_none(),
            "a call is over before a close on the same thread waits for it"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> [SharedFd; 2] {
        let ends = sys::pipe().expect("a pipe");
        ends.map(|fd| SharedFd::new(Descriptor::new(fd)))
    }

    fn is_open(fd: RawFd) -> bool {
        sys::status(fd).is_ok()
    }

    #[test]
    fn whoever_uses_a_closed_descriptor_last_closes_it() {
        let [reader, _writer] = pipe();
        let number = reader.as_raw_fd();
        reader.begin_use();
        let other = reader.clone();
        assert!(reader.mark_closed() && !other.mark_closed());
        assert_eq!(other.open_number(), Err(Closed));
        // The close has gone away.
        reader.set_closer(Closer::LastUse);
        assert_eq!(other.as_raw_fd(), number);
        assert_eq!(reader.end_use(), None);
        assert_eq!(other.as_raw_fd(), GONE);
    }

    #[test]
    fn close_that_waits_is_told_of_the_last_use_alone() {
        let [reader, _writer] = pipe();
        reader.begin_use();
        reader.begin_use();
        assert!(reader.mark_closed());
        reader.set_waiting_close(7);
        assert_eq!(reader.end_use(), None);
        assert_eq!(reader.end_use(), Some(7));
        let descriptor = reader.take().expect("nobody has closed it");
        assert!(is_open(descriptor.as_raw_fd()));
        assert!(reader.take().is_none());
    }

    #[test]
    fn foreign_code_keeps_the_number_it_works_on() {
        let [reader, _writer] = pipe();
        let hold = reader.hold().expect("open");
        assert!(reader.mark_closed());
        reader.set_closer(Closer::LastUse);
        assert!(is_open(hold.as_raw_fd()));
        drop(hold);
        assert_eq!(reader.as_raw_fd(), GONE);
        assert!(reader.hold().is_err());
    }

    #[test]
    fn closed_descriptor_cannot_be_taken_out() {
        let [reader, _writer] = pipe();
        assert!(reader.mark_closed());
        assert!(OwnedFd::try_from(reader).is_err());
    }
}
