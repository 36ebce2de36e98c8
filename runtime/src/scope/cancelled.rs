//! `Cancelled`: what an op in a cancelled scope answers, and how errors carry it.
//!
//! It is no error to be logged or retried: it travels up with `?` to the scope it was meant for,
//! which takes it. The constructor is private to the crate, so that nobody can claim to have been
//! cancelled who was not.

use std::error::Error;
use std::num::NonZeroU64;
use std::{fmt, io};

use super::{GroupError, StartError};
use crate::buf::Interrupted;

/// The op did not happen, because its scope is cancelled.
///
/// After `Cancelled` the op has had no lasting effect; buffers and values given to it come back.
/// Pass it on: the scope that was cancelled takes it when its body ends with it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Cancelled {
    /// What kind of reason it is, and in the lower half what that comes with. Every op answers with one of these or
    /// without: in a register, not in memory in parts.
    word: NonZeroU64,
}

/// Why a scope was cancelled. The first cause stays, whatever comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Somebody called `cancel()`.
    Requested,
    /// Somebody called `cancel_with`, and this is their own word for why.
    User(u32),
    /// The scope's deadline passed.
    Deadline,
    /// Something in its group failed.
    Failure,
    /// It lost a race.
    Lost,
    /// All that it served had ended: a daemon of a group.
    Finished,
    /// What waited for it was dropped.
    Dropped,
    /// Whoever had asked for it has gone: a connection was closed or reset.
    Disconnected,
    /// Its group was leaked by the task that had opened it.
    Abandoned,
    /// The runtime is shutting down, or another core's main task failed.
    Shutdown,
    /// A scope was used in a way that the types cannot forbid. No scope takes this one: it ends as
    /// the failure of its task. Who cancels for this reason makes a request.
    Misuse(Misuse),
}

/// A use of scopes that the types cannot forbid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Misuse {
    /// A scope was run a second time.
    RunTwice,
    /// A scope was run in another runtime than the one its handle was made in.
    OtherRuntime,
    /// A scope was polled in one task and then in another.
    ForeignTask,
    /// Something was done in a scope that has ended.
    Ended,
    /// A task ended with a `Cancelled` while nothing around it was cancelled: somebody has kept one
    /// and returned it later.
    Stray,
    /// A task ended while a group that it had opened was still there, leaked.
    AbandonedGroup,
}

const USER: u32 = 10;
const MISUSE: u32 = 11;

/// The misuses, each in its place.
const MISUSES: [Misuse; 6] = [
    Misuse::RunTwice,
    Misuse::OtherRuntime,
    Misuse::ForeignTask,
    Misuse::Ended,
    Misuse::Stray,
    Misuse::AbandonedGroup,
];

impl Cancelled {
    /// Returns why.
    pub const fn reason(self) -> Reason {
        let word = self.word.get() as u32;
        match self.kind() {
            1 => Reason::Requested,
            2 => Reason::Deadline,
            3 => Reason::Failure,
            4 => Reason::Lost,
            5 => Reason::Finished,
            6 => Reason::Dropped,
            7 => Reason::Disconnected,
            8 => Reason::Abandoned,
            9 => Reason::Shutdown,
            USER => Reason::User(word),
            _ => Reason::Misuse(MISUSES[word as usize]),
        }
    }

    #[inline]
    pub(crate) const fn new(reason: Reason) -> Self {
        let (kind, word) = match reason {
            Reason::Requested => (1, 0),
            Reason::Deadline => (2, 0),
            Reason::Failure => (3, 0),
            Reason::Lost => (4, 0),
            Reason::Finished => (5, 0),
            Reason::Dropped => (6, 0),
            Reason::Disconnected => (7, 0),
            Reason::Abandoned => (8, 0),
            Reason::Shutdown => (9, 0),
            Reason::User(word) => (USER, word),
            Reason::Misuse(how) => (MISUSE, how as u32),
        };
        Self::of_parts(kind, word)
    }

    /// Makes the cause of a cancel for a reason that somebody gives. A misuse is nobody's reason to cancel: it is a
    /// request like any other.
    pub(crate) const fn for_reason(reason: Reason) -> Self {
        match reason {
            Reason::Misuse(_) => Self::new(Reason::Requested),
            given => Self::new(given),
        }
    }

    const fn of_parts(kind: u32, word: u32) -> Self {
        match NonZeroU64::new((kind as u64) << 32 | word as u64) {
            Some(word) => Self { word },
            None => panic!("each kind of reason has a number"),
        }
    }

    /// Makes one of this [kind](Self::kind), which comes with nothing.
    pub(crate) const fn of_kind(kind: u32) -> Self {
        Self::of_parts(kind, 0)
    }

    /// Returns the number of this kind of reason.
    pub(crate) const fn kind(self) -> u32 {
        (self.word.get() >> 32) as u32
    }

    #[cfg(test)]
    pub(crate) const fn requested() -> Self {
        Self::new(Reason::Requested)
    }

    pub(crate) const fn deadline() -> Self {
        Self::new(Reason::Deadline)
    }

    pub(crate) const fn shutdown() -> Self {
        Self::new(Reason::Shutdown)
    }

    pub(crate) const fn misuse(how: Misuse) -> Self {
        Self::new(Reason::Misuse(how))
    }

    /// Returns whether it is a failure by its own, which no scope takes.
    pub(crate) const fn is_misuse(self) -> bool {
        self.kind() == MISUSE
    }
}

impl fmt::Debug for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cancelled")
            .field("reason", &self.reason())
            .finish()
    }
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            Reason::Requested => f.write_str("cancelled"),
            Reason::User(word) => write!(f, "cancelled with reason {word}"),
            Reason::Deadline => f.write_str("cancelled: the deadline passed"),
            Reason::Failure => f.write_str("cancelled: something in its group failed"),
            Reason::Lost => f.write_str("cancelled: it lost a race"),
            Reason::Finished => f.write_str("cancelled: all that it served had ended"),
            Reason::Dropped => f.write_str("cancelled: what waited for it was dropped"),
            Reason::Abandoned => f.write_str("cancelled: its group was leaked"),
            Reason::Shutdown => f.write_str("cancelled: the runtime is shutting down"),
            Reason::Disconnected => f.write_str("cancelled: whoever had asked for it has gone"),
            Reason::Misuse(how) => f.write_str(match how {
                Misuse::RunTwice => "a scope was run a second time: make one for each run",
                Misuse::OtherRuntime => {
                    "a scope was run in another runtime than the one its handle was made in"
                }
                Misuse::ForeignTask => {
                    "a scope was polled in one task and then in another: it stays in its task"
                }
                Misuse::Ended => "something was done in a scope that has ended",
                Misuse::Stray => {
                    "a task ended with a `Cancelled` while nothing around it was cancelled: it was \
                     kept from elsewhere"
                }
                Misuse::AbandonedGroup => {
                    "a task ended while a group that it had opened was still there: it was leaked"
                }
            }),
        }
    }
}

impl Error for Cancelled {}

/// `io::Error` carries it as a custom error of kind `Other`: never `Interrupted`, which loops in
/// the standard library retry.
impl From<Cancelled> for io::Error {
    fn from(cancelled: Cancelled) -> Self {
        Self::other(cancelled)
    }
}

/// An error type that can carry a [`Cancelled`], so that a scope can recognise its own.
///
/// Implement it for an error enum of your own:
///
/// ```
/// use quoit::{Cancelled, CarriesCancelled};
///
/// #[derive(Debug)]
/// enum AskError {
///     Cancelled(Cancelled),
///     Refused,
/// }
///
/// impl From<Cancelled> for AskError {
///     fn from(cancelled: Cancelled) -> Self {
///         AskError::Cancelled(cancelled)
///     }
/// }
///
/// impl CarriesCancelled for AskError {
///     fn cancelled(&self) -> Option<Cancelled> {
///         match self {
///             AskError::Cancelled(cancelled) => Some(*cancelled),
///             AskError::Refused => None,
///         }
///     }
/// }
/// ```
pub trait CarriesCancelled: From<Cancelled> + Sized {
    /// Returns the cancellation inside, if there is one.
    fn cancelled(&self) -> Option<Cancelled>;

    /// Returns the error without the cancellations inside; `Err(self)` if nothing else is left.
    ///
    /// As it stands it is right for an error that is either a cancellation or something else. One that
    /// may be both, such as a list of failures, says here what is left of it.
    ///
    /// # Errors
    ///
    /// The error itself, where it is a cancellation and nothing more.
    fn rest(self) -> Result<Self, Self> {
        if self.cancelled().is_some() {
            Err(self)
        } else {
            Ok(self)
        }
    }
}

impl CarriesCancelled for Cancelled {
    fn cancelled(&self) -> Option<Cancelled> {
        Some(*self)
    }
}

impl CarriesCancelled for io::Error {
    fn cancelled(&self) -> Option<Cancelled> {
        // Not `source()`, which skips the error that is wrapped here.
        let inner = self.get_ref()?;
        if let Some(interrupted) = inner.downcast_ref::<Interrupted>() {
            // Part of it was done, and then it was cancelled: that is on its way out as well.
            return interrupted.cause.cancelled();
        }
        if let Some(group) = inner.downcast_ref::<GroupError<Self>>() {
            return group.cancelled();
        }
        if let Some(wrapped) = inner.downcast_ref::<Self>() {
            return wrapped.cancelled();
        }
        inner.downcast_ref().copied()
    }

    fn rest(self) -> Result<Self, Self> {
        if self.cancelled().is_none() {
            return Ok(self);
        }
        let has_more = |inner: &(dyn Error + Send + Sync + 'static)| {
            inner.is::<GroupError<Self>>() || inner.is::<Self>()
        };
        if !self.get_ref().is_some_and(has_more) {
            return Err(self);
        }
        let kind = self.kind();
        let Some(inner) = self.into_inner() else {
            return Ok(kind.into());
        };
        let inner = match inner.downcast::<GroupError<Self>>() {
            Ok(group) => return group.rest().map(Self::from).map_err(Self::from),
            Err(inner) => inner,
        };
        let wrap = |error: Self| Self::new(kind, error);
        match inner.downcast::<Self>() {
            Ok(wrapped) => wrapped.rest().map(wrap).map_err(wrap),
            Err(other) => Ok(Self::new(kind, other)),
        }
    }
}

/// What is looked into: the error and its sources, for a `Cancelled`, an `io::Error`, and a
/// `GroupError` or `StartError` of either or of boxed errors.
impl CarriesCancelled for Box<dyn Error + Send + Sync> {
    fn cancelled(&self) -> Option<Cancelled> {
        let mut next: Option<&(dyn Error + 'static)> = Some(&**self);
        while let Some(error) = next {
            if let Some(cancelled) = cancelled_in(error) {
                return Some(cancelled);
            }
            next = error.source();
        }
        None
    }

    fn rest(self) -> Result<Self, Self> {
        if self.cancelled().is_none() {
            return Ok(self);
        }
        let boxed = match self.downcast::<io::Error>() {
            Ok(error) => return split(*error),
            Err(boxed) => boxed,
        };
        let boxed = match boxed.downcast::<GroupError<io::Error>>() {
            Ok(group) => return split(*group),
            Err(boxed) => boxed,
        };
        let boxed = match boxed.downcast::<GroupError<Cancelled>>() {
            Ok(group) => return split(*group),
            Err(boxed) => boxed,
        };
        let boxed = match boxed.downcast::<GroupError<Self>>() {
            Ok(group) => return split(*group),
            Err(boxed) => boxed,
        };
        let boxed = match boxed.downcast::<StartError<io::Error>>() {
            Ok(start) => return split(*start),
            Err(boxed) => boxed,
        };
        let boxed = match boxed.downcast::<StartError<Self>>() {
            Ok(start) => return split(*start),
            Err(boxed) => boxed,
        };
        // An error of somebody else's cannot be taken apart; what failed is told all the same.
        match has_failures(&*boxed) {
            true => Ok(boxed),
            false => Err(boxed),
        }
    }
}

/// Returns whether an error, or a source of it, says what failed beside a cancellation.
fn has_failures(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if tells_failures(error) {
            return true;
        }
        next = error.source();
    }
    false
}

fn tells_failures(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<io::Error>() {
        // Not a source of it.
        return error.get_ref().is_some_and(|inner| has_failures(inner));
    }
    if let Some(group) = error.downcast_ref::<GroupError<io::Error>>() {
        return !group.errors().is_empty();
    }
    if let Some(group) = error.downcast_ref::<GroupError<Cancelled>>() {
        return !group.errors().is_empty();
    }
    let group = error.downcast_ref::<GroupError<Box<dyn Error + Send + Sync>>>();
    group.is_some_and(|group| !group.errors().is_empty())
}

fn cancelled_in(error: &(dyn Error + 'static)) -> Option<Cancelled> {
    if let Some(cancelled) = error.downcast_ref::<Cancelled>() {
        return Some(*cancelled);
    }
    if let Some(error) = error.downcast_ref::<io::Error>() {
        return error.cancelled();
    }
    if let Some(group) = error.downcast_ref::<GroupError<io::Error>>() {
        return group.cancelled();
    }
    if let Some(group) = error.downcast_ref::<GroupError<Cancelled>>() {
        return group.cancelled();
    }
    if let Some(group) = error.downcast_ref::<GroupError<Box<dyn Error + Send + Sync>>>() {
        return group.cancelled();
    }
    if let Some(start) = error.downcast_ref::<StartError<io::Error>>() {
        return start.cancelled();
    }
    if let Some(start) = error.downcast_ref::<StartError<Cancelled>>() {
        return start.cancelled();
    }
    error
        .downcast_ref::<StartError<Box<dyn Error + Send + Sync>>>()
        .and_then(CarriesCancelled::cancelled)
}

/// What is left of an error without its cancellations, boxed.
fn split<E>(error: E) -> Result<Box<dyn Error + Send + Sync>, Box<dyn Error + Send + Sync>>
where
    E: CarriesCancelled + Into<Box<dyn Error + Send + Sync>>,
{
    error.rest().map(Into::into).map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_the_reason_that_it_was_made_with() {
        let plain = [
            Reason::Requested,
            Reason::Deadline,
            Reason::Failure,
            Reason::Lost,
            Reason::Finished,
            Reason::Dropped,
            Reason::Disconnected,
            Reason::Abandoned,
            Reason::Shutdown,
        ];
        let words = [0, 1, u32::MAX].map(Reason::User);
        let misuses = MISUSES.map(Reason::Misuse);
        for reason in plain.into_iter().chain(words).chain(misuses) {
            let cancelled = Cancelled::new(reason);
            assert_eq!(cancelled.reason(), reason);
            let is_misuse = matches!(reason, Reason::Misuse(_));
            assert_eq!(cancelled.is_misuse(), is_misuse);
            // A handle says it in a word, which tells a misuse from nothing else.
            let sent = Reason::from_word(reason.to_word());
            let heard = if is_misuse { Reason::Requested } else { reason };
            assert_eq!(sent, heard);
        }
        assert_eq!(size_of::<Result<(), Cancelled>>(), 8);
    }

    #[test]
    fn io_error_carries_it_and_gives_it_back() {
        let error = io::Error::from(Cancelled::deadline());
        assert_eq!(error.cancelled(), Some(Cancelled::deadline()));
        assert_ne!(error.kind(), io::ErrorKind::Interrupted);
        assert!(error.rest().is_err());
        let other = io::Error::from_raw_os_error(libc::ECANCELED);
        assert_eq!(other.cancelled(), None, "the kernel's own word is not ours");
        assert!(other.rest().is_ok());
    }

    #[test]
    fn io_error_that_wraps_another_carries_what_that_does() {
        let error = io::Error::from(Cancelled::deadline());
        let wrapped = io::Error::new(io::ErrorKind::BrokenPipe, error);
        assert_eq!(wrapped.cancelled(), Some(Cancelled::deadline()));
        let wrapped = wrapped.rest().expect_err("nothing else is left");
        assert_eq!(wrapped.kind(), io::ErrorKind::BrokenPipe);
        let failed = vec![io::Error::other("failed")];
        let mixed = io::Error::from(GroupError::new(failed, Some(Cancelled::deadline())));
        let wrapped = io::Error::new(io::ErrorKind::BrokenPipe, mixed);
        assert_eq!(wrapped.cancelled(), Some(Cancelled::deadline()));
        let failure = wrapped.rest().expect("something failed");
        assert_eq!(failure.cancelled(), None);
        assert_eq!(failure.to_string(), "failed");
        let other = io::Error::other(io::Error::other("failed"));
        assert!(other.rest().is_ok());
    }

    #[test]
    fn boxed_error_carries_it_at_both_depths() {
        let plain: Box<dyn Error + Send + Sync> = Cancelled::requested().into();
        let wrapped: Box<dyn Error + Send + Sync> = io::Error::from(Cancelled::requested()).into();
        let other: Box<dyn Error + Send + Sync> = "refused".into();
        assert_eq!(plain.cancelled(), Some(Cancelled::requested()));
        assert_eq!(wrapped.cancelled(), Some(Cancelled::requested()));
        assert_eq!(other.cancelled(), None);
        // As the source of another error, which tells of a wait that was cancelled.
        let joined: Box<dyn Error + Send + Sync> = Wrapped(Cancelled::deadline()).into();
        assert_eq!(joined.cancelled(), Some(Cancelled::deadline()));
        assert!(joined.rest().is_err());
    }

    #[derive(Debug)]
    struct Wrapped(Cancelled);

    impl fmt::Display for Wrapped {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a wait was cancelled")
        }
    }

    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn what_a_group_failed_with_is_told_from_its_cancellation() {
        let failed = || io::Error::other("failed");
        let mixed = || GroupError::new(vec![failed()], Some(Cancelled::requested()));
        let error = io::Error::from(mixed());
        assert_eq!(error.cancelled(), Some(Cancelled::requested()));
        let rest = error.rest().expect("a failure is left");
        assert_eq!(
            (rest.cancelled(), rest.to_string()),
            (None, "failed".into())
        );
        let boxed: Box<dyn Error + Send + Sync> = mixed().into();
        let rest = boxed.rest().expect("a failure is left");
        assert_eq!(
            (rest.cancelled(), rest.to_string()),
            (None, "failed".into())
        );
        let alone = GroupError::<io::Error>::from(Cancelled::requested());
        let alone = io::Error::from(alone);
        assert!(alone.rest().is_err());
    }

    /// It cannot be taken out of an error of somebody else's, and is not dropped with the cancellation.
    #[test]
    fn what_failed_is_told_also_by_an_error_around_it() {
        type Boxed = Box<dyn Error + Send + Sync>;
        let mixed = || {
            let failed = vec![io::Error::other("failed")];
            GroupError::new(failed, Some(Cancelled::requested()))
        };
        let wrapped: [Boxed; 2] = [
            Around(mixed()).into(),
            Around(io::Error::from(mixed())).into(),
        ];
        for boxed in wrapped {
            assert_eq!(boxed.cancelled(), Some(Cancelled::requested()));
            let rest = boxed.rest().expect("a failure is left");
            assert_eq!(rest.to_string(), "around what failed");
        }
        let alone: Boxed = Around(GroupError::<io::Error>::from(Cancelled::requested())).into();
        assert!(alone.rest().is_err());
    }

    #[derive(Debug)]
    struct Around<E>(E);

    impl<E> fmt::Display for Around<E> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("around what failed")
        }
    }

    impl<E: Error + 'static> Error for Around<E> {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn boxed_error_is_looked_into_where_a_child_has_not_started() {
        type Boxed = Box<dyn Error + Send + Sync>;
        let failed: StartError<Boxed> = Cancelled::requested().into();
        let boxed: Boxed = failed.into();
        assert_eq!(boxed.cancelled(), Some(Cancelled::requested()));
        assert!(boxed.rest().is_err());
        let mixed = GroupError::new(
            vec![io::Error::other("refused")],
            Some(Cancelled::deadline()),
        );
        let boxed: Boxed = StartError::Failed(io::Error::from(mixed)).into();
        assert_eq!(boxed.cancelled(), Some(Cancelled::deadline()));
        let rest = boxed.rest().expect("a failure is left");
        assert_eq!(
            (rest.to_string().as_str(), rest.cancelled()),
            ("refused", None)
        );
    }
}
