//! Whether another thread of this process sleeps, as the kernel says.

use std::fs;
use std::path::PathBuf;
use std::thread;

/// A thread of this process, to be asked about by another one.
#[derive(Debug, Clone)]
pub struct Thread {
    stat: PathBuf,
}

impl Thread {
    /// The thread that calls this.
    ///
    /// # Panics
    ///
    /// If `/proc` is not there.
    pub fn current() -> Self {
        let own = fs::read_link("/proc/thread-self").expect("/proc");
        Self {
            stat: PathBuf::from("/proc").join(own).join("stat"),
        }
    }

    /// Waits until the thread sleeps in the kernel.
    ///
    /// # Panics
    ///
    /// If it has ended.
    pub fn wait_until_asleep(&self) {
        loop {
            let stat = fs::read_to_string(&self.stat).expect("the thread runs");
            // The state stands behind the name, which is in brackets and may hold anything.
            let state = stat.rsplit_once(") ").map(|(_, rest)| &rest[..1]);
            if state == Some("S") {
                return;
            }
            thread::yield_now();
        }
    }
}
