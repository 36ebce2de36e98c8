//! Code that runs outside of all cores: on a thread, or as a script of the simulation.

use std::cell::RefCell;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use quoit::{Handle, sim, yield_now};

use crate::{Kernel, until_parked};

/// Something that runs outside of all cores.
#[derive(Debug)]
pub enum Outside<T> {
    /// On a thread of its own.
    Thread(thread::JoinHandle<T>),
    /// As a script; what it returned.
    Script(Rc<RefCell<Option<T>>>),
}

impl<T: Send + 'static> Outside<T> {
    /// Runs `closure` at once, while the calling core goes on.
    pub fn run(closure: impl FnOnce() -> T + Send + 'static) -> Self {
        if Kernel::here().is_simulated() {
            return Self::script(Duration::ZERO, closure);
        }
        Self::Thread(thread::spawn(closure))
    }

    /// Runs `closure` when the core of `handle`, which calls this, has parked. It has to park.
    pub fn run_when_parked(handle: &Handle, closure: impl FnOnce() -> T + Send + 'static) -> Self {
        if Kernel::here().is_simulated() {
            // Time passes when nobody can go on.
            return Self::script(Duration::from_nanos(1), closure);
        }
        let parks = handle.metrics()[0].parks;
        let handle = handle.clone();
        Self::Thread(thread::spawn(move || {
            until_parked(&handle, parks);
            closure()
        }))
    }

    fn script(delay: Duration, closure: impl FnOnce() -> T + 'static) -> Self {
        let returned = Rc::new(RefCell::new(None));
        let place = Rc::clone(&returned);
        sim::after(delay, move || {
            let value = closure();
            place.borrow_mut().replace(value);
        });
        Self::Script(returned)
    }

    /// Keeps this core busy until it has returned: a core that waited so would be parked.
    ///
    /// # Panics
    ///
    /// If it did.
    pub async fn join(self) -> T {
        match self {
            Self::Thread(thread) => thread.join().expect("no panic"),
            Self::Script(returned) => loop {
                if let Some(value) = returned.borrow_mut().take() {
                    return value;
                }
                yield_now().await.expect("nobody cancels");
            },
        }
    }
}
