//! Other people's code, whose panics must not reach the loop.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Runs foreign code; a panic in it comes back as what it panicked with.
pub(crate) fn caught<R>(f: impl FnOnce() -> R) -> Result<R, Box<dyn Any + Send>> {
    catch_unwind(AssertUnwindSafe(f))
}

/// Runs foreign code whose panic is nobody's: false if it panicked.
pub(crate) fn contained(f: impl FnOnce()) -> bool {
    match caught(f) {
        Ok(()) => true,
        Err(payload) => {
            discard(payload);
            false
        }
    }
}

/// Drops what somebody panicked with, which may panic as well; what that panics with is kept for
/// ever, since it could go on like this.
pub(crate) fn discard(payload: Box<dyn Any + Send>) {
    if let Err(next) = caught(|| drop(payload)) {
        std::mem::forget(next);
    }
}
