//! `Cancelled`: what an op in a cancelled scope answers, and how errors carry it.
//!
//! It is no error to be logged or retried: it travels up with `?` to the scope it was meant for,
//! which takes it. The constructor is private to the crate, so that nobody can claim to have been
//! cancelled who was not.

use std::error::Error;
use std::{fmt, io};

use crate::buf::Interrupted;

/// The op did not happen, because its scope is cancelled.
///
/// After `Cancelled` the op has had no lasting effect; buffers and values given to it come back.
/// Pass it on: the scope that was cancelled takes it when its body ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cancelled {
    reason: Reason,
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
    /// The runtime is shutting down, or another core's main task failed.
    Shutdown,
    /// A scope was used in a way that the types cannot forbid: run twice, or in another runtime
    /// than the one it belongs to. No scope takes this one.
    Misuse,
}

impl Cancelled {
    /// Returns why.
    pub const fn reason(self) -> Reason {
        self.reason
    }

    pub(crate) const fn new(reason: Reason) -> Self {
        Self { reason }
    }

    pub(crate) const fn requested() -> Self {
        Self::new(Reason::Requested)
    }

    pub(crate) const fn deadline() -> Self {
        Self::new(Reason::Deadline)
    }

    pub(crate) const fn shutdown() -> Self {
        Self::new(Reason::Shutdown)
    }

    pub(crate) const fn misuse() -> Self {
        Self::new(Reason::Misuse)
    }
}

impl fmt::Display for Cancelled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason {
            Reason::Requested => f.write_str("cancelled"),
            Reason::User(word) => write!(f, "cancelled with reason {word}"),
            Reason::Deadline => f.write_str("cancelled: the deadline passed"),
            Reason::Shutdown => f.write_str("cancelled: the runtime is shutting down"),
            Reason::Misuse => {
                f.write_str("cancelled: a scope was run twice, or outside its runtime")
            }
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
///     fn rest(self) -> Result<Self, Self> {
///         match self {
///             AskError::Cancelled(_) => Err(self),
///             AskError::Refused => Ok(self),
///         }
///     }
/// }
/// ```
pub trait CarriesCancelled: From<Cancelled> + Sized {
    /// Returns the cancellation inside, if there is one.
    fn cancelled(&self) -> Option<Cancelled>;

    /// Returns the error without the cancellations inside; `Err(self)` if nothing else is left.
    ///
    /// # Errors
    ///
    /// The error itself, where it is a cancellation and nothing more.
    fn rest(self) -> Result<Self, Self>;
}

impl CarriesCancelled for Cancelled {
    fn cancelled(&self) -> Option<Cancelled> {
        Some(*self)
    }

    fn rest(self) -> Result<Self, Self> {
        Err(self)
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
        inner.downcast_ref().copied()
    }

    fn rest(self) -> Result<Self, Self> {
        if self.cancelled().is_some() {
            Err(self)
        } else {
            Ok(self)
        }
    }
}

impl CarriesCancelled for Box<dyn Error + Send + Sync> {
    fn cancelled(&self) -> Option<Cancelled> {
        self.downcast_ref::<Cancelled>().copied().or_else(|| {
            self.downcast_ref::<io::Error>()
                .and_then(CarriesCancelled::cancelled)
        })
    }

    fn rest(self) -> Result<Self, Self> {
        if self.cancelled().is_some() {
            Err(self)
        } else {
            Ok(self)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn boxed_error_carries_it_at_both_depths() {
        let plain: Box<dyn Error + Send + Sync> = Cancelled::requested().into();
        let wrapped: Box<dyn Error + Send + Sync> = io::Error::from(Cancelled::requested()).into();
        let other: Box<dyn Error + Send + Sync> = "refused".into();
        assert_eq!(plain.cancelled(), Some(Cancelled::requested()));
        assert_eq!(wrapped.cancelled(), Some(Cancelled::requested()));
        assert_eq!(other.cancelled(), None);
    }
}
