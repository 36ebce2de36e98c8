//! hyper's tasks on ours.

use std::future::Future;

use quoit::{Cancelled, Group};

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

/// Starts what hyper spawns for one connection in that connection's group, and ends it with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct InGroup(pub(super) Group<Cancelled>);

impl<F> hyper::rt::Executor<F> for InGroup
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, future: F) {
        let daemon = async {
            future.await;
            Ok(())
        };
        drop(self.0.spawn_daemon(daemon));
    }
}
