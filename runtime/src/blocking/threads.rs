//! `Pool`: the threads of a runtime that jobs run on, and the line before them.
//!
//! A job stands in line under a ticket until a thread takes it or its waiter takes it back; whoever
//! takes it out of the line has it, and sees to its end. A job is put in front of a thread of its own
//! as long as there may be more threads; one that has nothing to do leaves after a while.
//!
//! The line has no limit: whoever waits for a job holds a future, and a job whose future is gone
//! stands in no line. Its lock is held for a few instructions, never while foreign code runs.
//!
//! In a simulation there are no threads. What stands for one takes a job, and carries it out at a
//! drawn time later, outside of all cores; there are as many of them as there would be threads.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::Usage;
use crate::driver::sys::Affinity;
use crate::task::current;

/// How long a thread waits for another job.
const KEEP: Duration = Duration::from_secs(10);

/// Work for a thread. Dropped, it was not done.
pub(super) trait Work: Send {
    /// Does it. Never panics.
    fn run(self: Box<Self>);

    /// There is no thread for it.
    fn refuse(self: Box<Self>, error: io::Error);
}

/// A place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket(u64);

/// Threads, and the jobs that wait for one.
pub(crate) struct Pool {
    line: Mutex<Line>,
    calls: Condvar,
    limit: usize,
    keep: Duration,
    /// Where the runtime was built: a thread started by a core must not stay on that core.
    affinity: Option<Affinity>,
}

#[derive(Default)]
struct Line {
    /// In the order of their tickets, which is that of their coming.
    jobs: BTreeMap<Ticket, Box<dyn Work>>,
    next_ticket: u64,
    /// Threads that live, those that are being started included.
    threads: usize,
    /// Threads that have no job; they will look at the line before they leave.
    idle: usize,
    /// Threads that were ever started.
    started: u64,
    closed: bool,
}

/// What a pool lives by: dropped with the last core, it ends the pool.
#[derive(Debug)]
pub(crate) struct PoolOwner(Arc<Pool>);

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("limit", &self.limit)
            .finish_non_exhaustive()
    }
}

impl PoolOwner {
    /// Makes a pool of at most so many threads, none of which is started.
    pub(crate) fn new(limit: usize) -> Self {
        Self(Arc::new(Pool::new(limit, KEEP)))
    }

    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.0
    }
}

impl Drop for PoolOwner {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Where the calling thread may run; of a core's, which is pinned, where its runtime was built.
pub(crate) fn affinity_of_the_host() -> Option<Affinity> {
    let on_a_core = current::try_with(|core| core.blocking.pool().affinity);
    on_a_core.unwrap_or_else(|| Affinity::current().ok())
}

impl Pool {
    fn new(limit: usize, keep: Duration) -> Self {
        Self {
            line: Mutex::default(),
            calls: Condvar::new(),
            limit,
            keep,
            affinity: affinity_of_the_host(),
        }
    }

    /// Puts a job into the line, and sees to a thread for it.
    pub(super) fn submit(self: &Arc<Self>, job: Box<dyn Work>) -> Ticket {
        let mut line = self.lock();
        let ticket = Ticket(line.next_ticket);
        line.next_ticket += 1;
        if line.closed {
            drop(line);
            drop(job);
            return ticket;
        }
        line.jobs.insert(ticket, job);
        if line.jobs.len() > line.idle && line.threads < self.limit {
            line.threads += 1;
            line.idle += 1;
            let number = line.started;
            line.started += 1;
            drop(line);
            if let Err(error) = self.start(number) {
                self.not_started(&error);
            }
        } else if line.idle > 0 {
            drop(line);
            self.calls.notify_one();
        }
        ticket
    }

    /// Takes a job out of the line, if it stands there still.
    pub(super) fn take_back(&self, ticket: Ticket) -> Option<Box<dyn Work>> {
        self.lock().jobs.remove(&ticket)
    }

    /// Ends the pool: what stands in line is dropped, and threads leave with the job they have.
    fn close(&self) {
        let mut line = self.lock();
        line.closed = true;
        let jobs = std::mem::take(&mut line.jobs);
        drop(line);
        self.calls.notify_all();
        drop(jobs);
    }

    pub(crate) fn usage(&self) -> Usage {
        let line = self.lock();
        Usage {
            threads: line.threads,
            busy: line.threads - line.idle,
            queued: line.jobs.len(),
        }
    }

    fn start(self: &Arc<Self>, number: u64) -> io::Result<()> {
        let pool = Arc::clone(self);
        #[cfg(feature = "sim")]
        if let Some(world) = crate::sim::world() {
            world.thread_starts()?;
            world.work(move || pool.serve_simulated());
            return Ok(());
        }
        std::thread::Builder::new()
            .name(format!("quoit-blocking-{number}"))
            .spawn(move || {
                pool.leave_the_core();
                pool.serve();
            })
            .map(drop)
    }

    /// Lets the calling thread, which a core may have started, run where the runtime was built.
    pub(crate) fn leave_the_core(&self) {
        if let Some(affinity) = self.affinity {
            // It works on the wrong processors as well.
            let _ = affinity.restore();
        }
    }

    /// A thread could not be started. If there is no other, nobody will look at the line.
    fn not_started(&self, error: &io::Error) {
        let mut line = self.lock();
        line.threads -= 1;
        line.idle -= 1;
        let stranded = if line.threads == 0 {
            std::mem::take(&mut line.jobs)
        } else {
            BTreeMap::new()
        };
        drop(line);
        for job in stranded.into_values() {
            job.refuse(match error.raw_os_error() {
                Some(code) => io::Error::from_raw_os_error(code),
                None => error.kind().into(),
            });
        }
    }

    /// The life of a thread. It was counted as idle when it was started.
    fn serve(&self) {
        let mut line = self.lock();
        loop {
            if let Some((_, job)) = line.jobs.pop_first() {
                line.idle -= 1;
                drop(line);
                job.run();
                line = self.lock();
                line.idle += 1;
                continue;
            }
            if line.closed {
                break;
            }
            let (woken, timeout) = self
                .calls
                .wait_timeout(line, self.keep)
                .unwrap_or_else(PoisonError::into_inner);
            line = woken;
            if timeout.timed_out() && line.jobs.is_empty() {
                break;
            }
        }
        line.idle -= 1;
        line.threads -= 1;
    }

    /// A thread of a simulation takes a job, or leaves.
    #[cfg(feature = "sim")]
    fn serve_simulated(self: Arc<Self>) {
        let mut line = self.lock();
        line.idle -= 1;
        let Some((_, job)) = line.jobs.pop_first() else {
            line.threads -= 1;
            return;
        };
        drop(line);
        let Some(world) = crate::sim::world() else {
            return;
        };
        world.work(move || {
            job.run();
            self.lock().idle += 1;
            self.serve_simulated();
        });
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        // A thread that panicked while it held the lock left nothing half done.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Runs a closure, or says why not.
    struct Call<F: FnOnce() + Send>(Option<F>, mpsc::Sender<&'static str>);

    impl<F: FnOnce() + Send> Work for Call<F> {
        fn run(mut self: Box<Self>) {
            if let Some(work) = self.0.take() {
                work();
                let _ = self.1.send("ran");
            }
        }

        fn refuse(mut self: Box<Self>, _: io::Error) {
            self.0 = None;
            let _ = self.1.send("refused");
        }
    }

    impl<F: FnOnce() + Send> Drop for Call<F> {
        fn drop(&mut self) {
            if self.0.is_some() {
                let _ = self.1.send("dropped");
            }
        }
    }

    fn pool(limit: usize, keep: Duration) -> Arc<Pool> {
        Arc::new(Pool::new(limit, keep))
    }

    fn until(pool: &Pool, reached: impl Fn(Usage) -> bool) {
        while !reached(pool.usage()) {
            std::thread::yield_now();
        }
    }

    #[test]
    fn idle_thread_leaves_and_another_one_comes() {
        let pool = pool(1, Duration::from_millis(1));
        let (tell, told) = mpsc::channel();
        for _ in 0..3 {
            pool.submit(Box::new(Call(Some(|| ()), tell.clone())));
            assert_eq!(told.recv(), Ok("ran"));
            until(&pool, |usage| usage.threads == 0);
        }
        assert_eq!(pool.lock().started, 3);
    }

    #[test]
    fn idle_thread_is_used_again() {
        let pool = pool(8, KEEP);
        let (tell, told) = mpsc::channel();
        for _ in 0..10 {
            pool.submit(Box::new(Call(Some(|| ()), tell.clone())));
            assert_eq!(told.recv(), Ok("ran"));
            until(&pool, |usage| usage.busy == 0);
        }
        assert_eq!(pool.lock().started, 1);
        pool.close();
        until(&pool, |usage| usage.threads == 0);
    }

    #[test]
    fn jobs_that_need_each_other_get_a_thread_each() {
        let pool = pool(3, KEEP);
        let (tell, told) = mpsc::channel();
        let barrier = Arc::new(std::sync::Barrier::new(3));
        for _ in 0..3 {
            let barrier = Arc::clone(&barrier);
            let work = move || {
                barrier.wait();
            };
            pool.submit(Box::new(Call(Some(work), tell.clone())));
        }
        for _ in 0..3 {
            assert_eq!(told.recv(), Ok("ran"));
        }
        pool.close();
    }

    #[test]
    fn line_is_first_come_first_served() {
        let pool = pool(1, KEEP);
        let (tell, told) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let (order, ran) = mpsc::channel();
        let wait = move || gate.recv().expect("the test goes on");
        pool.submit(Box::new(Call(Some(wait), tell.clone())));
        until(&pool, |usage| usage.busy == 1);
        let submit = |number| {
            let order = order.clone();
            let work = move || order.send(number).expect("the test listens");
            pool.submit(Box::new(Call(Some(work), tell.clone())))
        };
        let tickets: Vec<Ticket> = (0..5).map(submit).collect();
        assert_eq!(pool.usage().queued, 5);
        drop(pool.take_back(tickets[2]).expect("it stands in line"));
        assert!(pool.take_back(tickets[2]).is_none());
        assert_eq!(pool.usage().queued, 4);
        assert_eq!(told.recv(), Ok("dropped"));
        go.send(()).expect("it waits");
        assert_eq!([(); 4].map(|()| ran.recv()), [Ok(0), Ok(1), Ok(3), Ok(4)]);
        pool.close();
    }

    #[test]
    fn closed_pool_drops_what_stands_in_line_and_what_comes() {
        let pool = pool(1, KEEP);
        let (tell, told) = mpsc::channel();
        let (go, gate) = mpsc::channel::<()>();
        let wait = move || gate.recv().expect("the test goes on");
        pool.submit(Box::new(Call(Some(wait), tell.clone())));
        until(&pool, |usage| usage.busy == 1);
        pool.submit(Box::new(Call(Some(|| ()), tell.clone())));
        pool.close();
        assert_eq!(told.recv(), Ok("dropped"));
        pool.submit(Box::new(Call(Some(|| ()), tell.clone())));
        assert_eq!(told.recv(), Ok("dropped"));
        go.send(()).expect("it waits");
        assert_eq!(told.recv(), Ok("ran"));
        until(&pool, |usage| usage.threads == 0);
    }
}
