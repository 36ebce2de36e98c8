//! What an op keeps in its slot, with its type forgotten.
//!
//! The payload lies in place, so that the kernel may use addresses into it. Small ones (every
//! plain buffer) lie in the slot itself, larger ones in a box of their own.

use std::any::TypeId;
use std::cell::UnsafeCell;
use std::fmt;
use std::mem::{self, MaybeUninit};
use std::os::fd::RawFd;

use super::kind::OpKind;
use super::request::Request;
use super::state::Asker;
use super::turn::SendTurn;
use crate::driver::Completion;

/// One kind of kernel op: what it asks, and what it makes of the answer.
pub(crate) trait Operation: 'static {
    /// What the op's future gives.
    type Output;

    /// What it is called and counted as.
    const KIND: OpKind;

    /// Makes the request. Addresses in it may point into `self`, which stays in place until the
    /// final completion.
    fn request(&mut self, fd: RawFd) -> Request;

    /// Has it done where it may wait: submitted as it is, it would keep the core waiting.
    fn set_apart(&mut self) {}

    /// Makes the output of the final completion.
    fn finish(self, outcome: Outcome) -> Self::Output;

    /// Disposes of a result that nobody will read.
    fn dispose(&mut self, _result: i32) {}

    /// Takes a completion of a multishot op, the final one included; says whether more are welcome.
    fn deliver(&mut self, _completion: Completion) -> Option<Asker> {
        unreachable!("only multishot ops are delivered to")
    }

    /// Gives up, once the result is known, what others wait for: before the final completion.
    fn early(&mut self) -> Option<SendTurn> {
        None
    }

    /// Says what the op's result is, if that came before the final completion.
    fn result(&mut self, last: i32) -> i32 {
        last
    }

    /// Whether completions go to `deliver` as they come.
    const MULTISHOT: bool = false;

    /// Whether it is measured how long it takes: an op that completes many times may wait for ever.
    const IS_TIMED: bool = !Self::MULTISHOT;

    /// Whether an op that was interrupted has done nothing, and is simply started again.
    fn restarts(&self) -> bool {
        true
    }
}

/// How an op ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The kernel's result.
    Done(u32),
    /// The kernel said no, or the op was cancelled.
    Failed(std::io::Error),
}

/// Storage for one payload.
pub(crate) struct Payload {
    words: UnsafeCell<MaybeUninit<[u64; WORDS]>>,
    kind: Option<&'static Kind>,
}

/// Room for every op of our own, and for plain buffers, parts of them, and arrays of 64 bytes.
const WORDS: usize = 9;

struct Kind {
    type_id: TypeId,
    op: OpKind,
    multishot: bool,
    is_timed: bool,
    request: unsafe fn(*mut u8, RawFd) -> Request,
    deliver: unsafe fn(*mut u8, Completion) -> Option<Asker>,
    early: unsafe fn(*mut u8) -> Option<SendTurn>,
    dispose: unsafe fn(*mut u8, i32),
    drop: unsafe fn(*mut u8),
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Payload")
            .field("occupied", &self.is_occupied())
            .finish()
    }
}

impl Payload {
    pub(crate) const fn vacant() -> Self {
        Self {
            words: UnsafeCell::new(MaybeUninit::uninit()),
            kind: None,
        }
    }

    /// Puts `operation` in, and asks it what the kernel shall do.
    #[inline]
    pub(crate) fn put<O: Operation>(&mut self, operation: O, fd: RawFd) -> Request {
        assert!(self.kind.is_none(), "a slot is put into once");
        let start = self.words.get().cast::<u8>();
        if fits::<O>() {
            // SAFETY: `fits` says that the storage is large and aligned enough, and it is vacant.
            unsafe { start.cast::<O>().write(operation) };
            self.kind = Some(const { &Kind::of::<O>() });
            // SAFETY: an `O` was just written there, and the storage is borrowed mutably.
            unsafe { &mut *start.cast::<O>() }.request(fd)
        } else {
            // SAFETY: a box is a word, so it fits, and the storage is vacant.
            unsafe { start.cast::<Boxed<O>>().write(Boxed(Box::new(operation))) };
            self.kind = Some(const { &Kind::of::<Boxed<O>>() });
            self.request(fd)
        }
    }

    /// Takes the operation out.
    ///
    /// The slab calls this only when the kernel is done with it.
    #[inline]
    pub(crate) fn take<O: Operation>(&mut self) -> O {
        let start = self.words.get().cast::<u8>();
        if fits::<O>() {
            self.check::<O>();
            self.kind = None;
            // SAFETY: the storage holds an `O`, as just checked, and counts as vacant from here on.
            unsafe { start.cast::<O>().read() }
        } else {
            self.check::<Boxed<O>>();
            self.kind = None;
            // SAFETY: as above.
            *unsafe { start.cast::<Boxed<O>>().read() }.0
        }
    }

    /// Looks at the operation.
    #[inline]
    pub(crate) fn get_mut<O: Operation>(&mut self) -> &mut O {
        let start = self.words.get().cast::<u8>();
        if fits::<O>() {
            self.check::<O>();
            // SAFETY: the storage holds an `O`, as just checked, and is borrowed mutably.
            unsafe { &mut *start.cast::<O>() }
        } else {
            self.check::<Boxed<O>>();
            // SAFETY: as above.
            let boxed = unsafe { &mut *start.cast::<Boxed<O>>() };
            &mut boxed.0
        }
    }

    pub(crate) fn request(&mut self, fd: RawFd) -> Request {
        let kind = self.kind.expect("a slot that is in use has a payload");
        // SAFETY: the storage holds what `kind` was made for.
        unsafe { (kind.request)(self.words.get().cast(), fd) }
    }

    /// Returns what the op is called and counted as; a slot that is in use has one. Looks at nothing
    /// that the kernel may be using.
    pub(crate) fn kind(&self) -> OpKind {
        self.kind.expect("a slot that is in use has a payload").op
    }

    pub(crate) fn is_occupied(&self) -> bool {
        self.kind.is_some()
    }

    #[inline]
    pub(crate) fn is_multishot(&self) -> bool {
        self.kind.is_some_and(|kind| kind.multishot)
    }

    #[inline]
    pub(crate) fn is_timed(&self) -> bool {
        self.kind.is_some_and(|kind| kind.is_timed)
    }

    pub(crate) fn deliver(&mut self, completion: Completion) -> Option<Asker> {
        let kind = self.kind.expect("a slot that is in use has a payload");
        // SAFETY: the storage holds what `kind` was made for.
        unsafe { (kind.deliver)(self.words.get().cast(), completion) }
    }

    /// Takes what an op of several completions gives up before its last.
    pub(crate) fn early(&mut self) -> Option<SendTurn> {
        let kind = self.kind.expect("a slot that is in use has a payload");
        // SAFETY: the storage holds what `kind` was made for.
        unsafe { (kind.early)(self.words.get().cast()) }
    }

    pub(crate) fn dispose(&mut self, result: i32) {
        let kind = self.kind.expect("a slot that is in use has a payload");
        // SAFETY: the storage holds what `kind` was made for.
        unsafe { (kind.dispose)(self.words.get().cast(), result) }
    }

    #[inline]
    fn check<O: Operation>(&self) {
        let kind = self.kind.expect("a slot that is in use has a payload");
        assert!(
            kind.type_id == const { TypeId::of::<O>() },
            "a ticket belongs to its op"
        );
    }
}

impl Drop for Payload {
    fn drop(&mut self) {
        if let Some(kind) = self.kind.take() {
            // SAFETY: the storage holds what `kind` was made for, and is not used afterwards.
            unsafe { (kind.drop)(self.words.get().cast()) };
        }
    }
}

/// An operation too large for the storage.
struct Boxed<O>(Box<O>);

impl<O: Operation> Operation for Boxed<O> {
    type Output = O::Output;
    const KIND: OpKind = O::KIND;

    fn request(&mut self, fd: RawFd) -> Request {
        self.0.request(fd)
    }

    fn finish(self, outcome: Outcome) -> O::Output {
        self.0.finish(outcome)
    }

    fn dispose(&mut self, result: i32) {
        self.0.dispose(result);
    }

    fn deliver(&mut self, completion: Completion) -> Option<Asker> {
        self.0.deliver(completion)
    }

    fn early(&mut self) -> Option<SendTurn> {
        self.0.early()
    }

    fn restarts(&self) -> bool {
        self.0.restarts()
    }

    const MULTISHOT: bool = O::MULTISHOT;
    const IS_TIMED: bool = O::IS_TIMED;
}

pub(super) const fn fits<O>() -> bool {
    size_of::<O>() <= WORDS * 8 && align_of::<O>() <= align_of::<u64>()
}

impl Kind {
    const fn of<O: Operation>() -> Self {
        /// # Safety
        ///
        /// `at` holds an `O`, which nobody else looks at meanwhile.
        unsafe fn operation<'a, O>(at: *mut u8) -> &'a mut O {
            // SAFETY: the caller says so.
            unsafe { &mut *at.cast::<O>() }
        }
        /// # Safety
        ///
        /// As for `operation`.
        unsafe fn request<O: Operation>(at: *mut u8, fd: RawFd) -> Request {
            // SAFETY: the caller says so.
            unsafe { operation::<O>(at) }.request(fd)
        }
        /// # Safety
        ///
        /// As for `operation`.
        unsafe fn deliver<O: Operation>(at: *mut u8, completion: Completion) -> Option<Asker> {
            // SAFETY: the caller says so.
            unsafe { operation::<O>(at) }.deliver(completion)
        }
        /// # Safety
        ///
        /// As for `operation`.
        unsafe fn early<O: Operation>(at: *mut u8) -> Option<SendTurn> {
            // SAFETY: the caller says so.
            unsafe { operation::<O>(at) }.early()
        }
        /// # Safety
        ///
        /// As for `operation`.
        unsafe fn dispose<O: Operation>(at: *mut u8, result: i32) {
            // SAFETY: the caller says so.
            unsafe { operation::<O>(at) }.dispose(result);
        }
        /// # Safety
        ///
        /// As for `operation`; what is there counts as vacant afterwards.
        unsafe fn drop_it<O>(at: *mut u8) {
            // SAFETY: the caller says so.
            unsafe { at.cast::<O>().drop_in_place() };
        }
        Self {
            type_id: TypeId::of::<O>(),
            op: O::KIND,
            multishot: O::MULTISHOT,
            is_timed: O::IS_TIMED,
            request: request::<O>,
            deliver: deliver::<O>,
            early: early::<O>,
            dispose: dispose::<O>,
            drop: drop_it::<O>,
        }
    }
}

/// Moves a payload out of its slot, to be dropped where no borrow is held.
pub(crate) fn lift(payload: &mut Payload) -> Payload {
    mem::replace(payload, Payload::vacant())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;

    struct Counted<const N: usize>(Rc<()>, [u8; N]);

    impl<const N: usize> Operation for Counted<N> {
        type Output = Rc<()>;
        const KIND: OpKind = OpKind::Nop;

        fn request(&mut self, _: RawFd) -> Request {
            Request::Nop
        }

        fn finish(self, _: Outcome) -> Rc<()> {
            self.0
        }
    }

    fn lives_and_ends<const N: usize>() {
        let count = Rc::new(());
        let mut payload = Payload::vacant();
        let request = payload.put(Counted(Rc::clone(&count), [7; N]), 0);
        assert_eq!(request, Request::Nop);
        assert_eq!(payload.request(0), Request::Nop);
        assert!(!payload.is_multishot());
        assert_eq!(payload.get_mut::<Counted<N>>().1, [7; N]);
        assert_eq!(Rc::strong_count(&count), 2);
        drop(payload.take::<Counted<N>>());
        assert_eq!(Rc::strong_count(&count), 1);
        payload.put(Counted(Rc::clone(&count), [8; N]), 0);
        drop(lift(&mut payload));
        assert_eq!(Rc::strong_count(&count), 1);
    }

    #[test]
    fn small_and_large_payloads_are_dropped_once() {
        lives_and_ends::<8>();
        lives_and_ends::<500>();
    }

    #[test]
    #[should_panic(expected = "a ticket belongs to its op")]
    fn a_payload_is_not_taken_as_another() {
        let mut payload = Payload::vacant();
        payload.put(Counted(Rc::new(()), [0; 8]), 0);
        drop(payload.take::<Counted<9>>());
    }
}
