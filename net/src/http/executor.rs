//! hyper's tasks on ours.

use std::future::Future;

/// Starts what hyper spawns, on the core where it spawns it. Not a `Send` bound in sight.
#[derive(Debug, Clone, Copy, Default)]
pub struct Executor;

impl<F> hyper::rt::Executor<F> for Executor
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        drop(quoit::spawn(future));
    }
}
