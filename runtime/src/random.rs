//! Random numbers that a seed can decide.

use std::io;

use crate::driver;

/// Draws a random number: from the system, or in a simulation from its seed. `getrandom(2)`.
///
/// For jitter, sampling and names. Not for secrets: a simulation's are no secret.
///
/// # Errors
///
/// Those of `getrandom(2)`: a kernel that cannot, which no Linux of the last ten years is.
pub fn random() -> io::Result<u64> {
    driver::random()
}
