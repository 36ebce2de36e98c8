//! The simulated kernel: a whole program under a seed, in one thread and in virtual time.
//!
//! Bugs of servers need one order of events in a million. Here every order can be had on purpose and
//! replayed from a number: a program that uses quoit runs unchanged on a kernel that is ordinary code,
//! whose cores take turns by the seed's word, whose clock jumps when all of them wait, and in which
//! whatever the real kernel may do wrong, late, short or out of order happens as often as it is asked
//! to.
//!
//! ```
//! use std::time::Duration;
//! use quoit::sim::{Faults, Sim};
//!
//! for seed in 0..20 {
//!     Sim::with_seed(seed).cores(2).faults(Faults::some()).run(|| {
//!         // Any program: it may build runtimes, serve, connect, sleep for a day.
//!         quoit::block_on(quoit::time::sleep(Duration::from_secs(86_400))).unwrap().unwrap();
//!     });
//! }
//! ```
//!
//! [`guide`] shows how to test a server of one's own.
//!
//! # What is simulated
//!
//! - **Cores**: [`Runtime`](crate::Runtime), [`block_on`](crate::block_on) and everything above them
//!   make virtual cores while a simulation runs on the thread. Code outside of them, such as `main`,
//!   is the program; when it blocks (on a runtime, on a [`RemoteHandle`](crate::RemoteHandle)), the
//!   cores run. Threads of the program's own are real and not part of it: a scripted closure
//!   ([`after`]) takes their place.
//! - **Blocking jobs** ([`blocking`](crate::blocking)): a thread takes its job, and runs it at some later
//!   time, outside of all cores; what it computes takes no time.
//! - **Time**: [`Instant`](crate::time::Instant) stands still while anybody can go on and jumps to the
//!   next deadline when nobody can. The wall clock begins at 2030-01-01 and may be set by a fault.
//! - **The kernel**: the two queues of each ring with their limits and their overflow, deferred work,
//!   multishot requests, provided buffers (incremental under every other seed), cancel requests with
//!   all their answers, in either order. TCP sockets on any address but those that are kept for
//!   documents, with back-pressure, half close, reset, accept queues and shared ports; pipes; files
//!   and folders ([`Sim::file`]).
//! - **Randomness**: [`random`](crate::random) comes from the seed.
//!
//! # What is checked
//!
//! Every run fails, with the last events and the scopes of every core, when: memory or a descriptor
//! of a request in flight is let go; a slot, a descriptor or a provided buffer is lost; a core waits
//! with something undone; a core is woken twice, or takes steps that get nothing done; time stands
//! still for ever; nobody can go on; the program panics. The last line tells how to run it again.
//!
//! # Limits
//!
//! A job that blocks ([`JobContext::run_on_core`](crate::blocking::JobContext::run_on_core)) lies on the
//! stack above whoever waits below it, the program or another job: these go on after it. Cores and
//! scripts go on meanwhile.
//!
//! What is the machine's own is none of the simulation's. Ops on its descriptors fail with `EBADF`: sockets and
//! files are made inside. Unix sockets, child processes and [`signal`](crate::signal)s are refused, and so is an
//! HTTP client's look at a name; a listener that is told one still asks the machine's resolver.
//!
//! What a program draws from elsewhere (`std` hash maps, thread-local generators, the real clock) is not
//! under the seed, nor is what tells a [`CoreId`](crate::CoreId) from those of other runs: [`Outcome::trace`]
//! tells whether two runs were the same.

mod calls;
mod checks;
pub(crate) mod fault;
#[doc = include_str!("guide.md")]
pub mod guide {}
pub(crate) mod kernel;
mod left;
pub(crate) mod random;
pub(crate) mod report;
pub(crate) mod ring;
mod trace;
pub(crate) mod world;

use std::cell::RefCell;
use std::os::fd::RawFd;
use std::panic::resume_unwind;
use std::rc::Rc;
use std::time::Duration;

pub use fault::{Fault, Faults};
pub use kernel::Counts;
pub use trace::{Event, What};

use crate::panics::caught;
use crate::task::current;
use fault::{FaultState, Forced};
use kernel::Kernel;
use random::{Choices, Decision, Stream};
use world::{Limits, World};

/// How a simulation shall be.
#[derive(Debug, Clone)]
pub struct Sim {
    seed: u64,
    cores: usize,
    faults: Faults,
    forced: Vec<(Fault, Forced)>,
    limits: Limits,
    descriptors: usize,
    files: Vec<Stored>,
    keep_trace: bool,
    path: Option<Rc<RefCell<Vec<Decision>>>>,
}

#[derive(Debug, Clone)]
enum Stored {
    Bytes(String, Vec<u8>),
    Folder(String),
    Link(String, String),
}

/// What a run came to.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Outcome<T> {
    /// What the program returned.
    pub value: T,
    /// A number that is the same for the same run: of everything that happened, in order.
    pub trace: u64,
    /// How many events that was.
    pub events: u64,
    /// All of them, if [`Sim::keep_trace`] asked for it.
    pub history: Vec<Event>,
    /// How much virtual time has passed.
    pub elapsed: Duration,
    /// How many steps the scheduler took.
    pub steps: u64,
    /// How often each kind of fault has come, and how often it could have.
    pub faults: Vec<(Fault, u64, u64)>,
    /// What the kernel has done.
    pub counts: Counts,
}

impl<T> Outcome<T> {
    /// Returns how often a fault has come.
    pub fn came(&self, fault: Fault) -> u64 {
        let found = self.faults.iter().find(|(kind, _, _)| *kind == fault);
        found.map_or(0, |(_, came, _)| *came)
    }
}

impl Sim {
    /// A machine of two cores, without faults, on which this seed decides.
    pub fn with_seed(seed: u64) -> Self {
        Self {
            seed,
            cores: 2,
            faults: Faults::none(),
            forced: Vec::new(),
            limits: Limits {
                steps: 20_000_000,
                steps_per_instant: 200_000,
            },
            descriptors: 1 << 16,
            files: Vec::new(),
            keep_trace: false,
            path: None,
        }
    }

    /// Returns the seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// How many cores the machine has: what [`Cores::All`](crate::Cores::All) stands for. A program
    /// may ask for more. Default 2.
    #[must_use]
    pub fn cores(mut self, cores: usize) -> Self {
        self.cores = cores.max(1);
        self
    }

    /// What goes wrong, and how often. Default: nothing.
    #[must_use]
    pub fn faults(mut self, faults: Faults) -> Self {
        self.faults = faults;
        self
    }

    /// Lets a fault come at its `nth` occasion, counted from 0.
    #[must_use]
    pub fn force(mut self, fault: Fault, nth: u64) -> Self {
        self.forced.push((fault, Forced::Nth(nth)));
        self
    }

    /// Lets a fault come at its first occasion after the program has passed [`point`] with this name,
    /// each time.
    #[must_use]
    pub fn force_at(mut self, name: &'static str, fault: Fault) -> Self {
        self.forced.push((fault, Forced::At(name)));
        self
    }

    /// How many descriptors the program may have. Default 65 536.
    #[must_use]
    pub fn descriptors(mut self, limit: usize) -> Self {
        self.descriptors = limit;
        self
    }

    /// How many steps the run may take, over all cores. Default 20 million.
    #[must_use]
    pub fn max_steps(mut self, steps: u64) -> Self {
        self.limits.steps = steps;
        self
    }

    /// How many steps may be taken at one instant, before that counts as spinning. Default 200 000.
    #[must_use]
    pub fn max_steps_per_instant(mut self, steps: u64) -> Self {
        self.limits.steps_per_instant = steps;
        self
    }

    /// Puts a file on the machine, with the folders that lead to it.
    #[must_use]
    pub fn file(mut self, path: impl Into<String>, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.push(Stored::Bytes(path.into(), bytes.into()));
        self
    }

    /// Puts a folder on the machine.
    #[must_use]
    pub fn folder(mut self, path: impl Into<String>) -> Self {
        self.files.push(Stored::Folder(path.into()));
        self
    }

    /// Puts a symbolic link on the machine.
    #[must_use]
    pub fn link(mut self, path: impl Into<String>, target: impl Into<String>) -> Self {
        self.files.push(Stored::Link(path.into(), target.into()));
        self
    }

    /// Keeps every event, for [`Outcome::history`] and for the report of a failure.
    #[must_use]
    pub fn keep_trace(mut self) -> Self {
        self.keep_trace = true;
        self
    }

    /// Runs a program to its end.
    ///
    /// # Panics
    ///
    /// If a check fails, or the program panics: with a report, and a line that runs it again. On a
    /// thread that runs a core or a simulation already.
    pub fn run<T>(self, program: impl FnOnce() -> T) -> Outcome<T> {
        let seed = self.seed;
        let path = self.path.clone();
        let keep_trace = self.keep_trace;
        let world = self.world();
        let _here = current::simulate(Rc::clone(&world));
        let settle = || {
            world.settle();
            world.kernel.borrow().choices.check_end();
        };
        let ran = caught(program).and_then(|value| caught(settle).map(|()| value));
        if let Some(path) = path
            && let Choices::Path { taken, .. } = &world.kernel.borrow().choices
        {
            path.borrow_mut().clone_from(taken);
        }
        match ran {
            Ok(value) => {
                let mut kernel = world.kernel.borrow_mut();
                Outcome {
                    value,
                    trace: kernel.trace.hash(),
                    events: kernel.trace.count(),
                    history: kernel.trace.take_all(),
                    elapsed: Duration::from_nanos(kernel.now),
                    steps: world.steps(),
                    faults: kernel.faults.counts(),
                    counts: kernel.counts,
                }
            }
            Err(payload) => {
                if keep_trace {
                    for event in world.kernel.borrow_mut().trace.take_all() {
                        eprintln!("{event}");
                    }
                }
                eprintln!(
                    "SIM FAIL seed={seed:#x} step={} time={:?}; run it again with\n    {}",
                    world.steps(),
                    world.elapsed(),
                    report::replay(seed),
                );
                world.tear_down();
                resume_unwind(payload)
            }
        }
    }

    /// Runs one future to its end on a core of its own.
    ///
    /// # Panics
    ///
    /// As for [`Sim::run`].
    pub fn block_on<F: Future>(self, future: F) -> Outcome<F::Output> {
        self.run(|| crate::block_on(future).expect("no fault refuses a ring here"))
    }

    fn world(&self) -> Rc<World> {
        let choices = match &self.path {
            None => Choices::Random(Stream::new(self.seed, 1)),
            Some(path) => Choices::Path {
                taken: path.borrow().clone(),
                next: 0,
            },
        };
        let rates = match self.path {
            None => self.faults.clone(),
            Some(_) => Faults::none(),
        };
        let faults = FaultState::new(self.seed, &rates, &self.forced);
        let mut kernel = Kernel::new(self.seed, choices, faults, self.keep_trace);
        kernel.limit_descriptors(self.descriptors);
        let now = kernel.wall_nanos();
        for file in &self.files {
            match file {
                Stored::Bytes(path, bytes) => kernel.files.put(path, Some(bytes), now),
                Stored::Folder(path) => kernel.files.put(path, None, now),
                Stored::Link(path, target) => kernel.files.put_link(path, target, now),
            }
        }
        World::new(self.seed, kernel, self.limits, self.cores)
    }
}

/// Runs `program` under each seed of a range.
///
/// The environment decides otherwise for whoever looks into a failure: with `QUOIT_SIM_SEED` only
/// that seed is run, and every event is printed if it fails; with `QUOIT_SIM_SEEDS` so many seeds are
/// run, from the first of the range on.
///
/// # Panics
///
/// As the program does, at the first seed that fails; if the environment holds no number.
pub fn for_seeds(seeds: std::ops::Range<u64>, mut program: impl FnMut(Sim)) {
    if let Some(seed) = number("QUOIT_SIM_SEED") {
        return program(Sim::with_seed(seed).keep_trace());
    }
    let count = match number("QUOIT_SIM_SEEDS") {
        None => seeds.end.saturating_sub(seeds.start),
        Some(0) => panic!("QUOIT_SIM_SEEDS is 0, which would test nothing"),
        Some(count) => count,
    };
    for seed in seeds.start..seeds.start.saturating_add(count) {
        program(Sim::with_seed(seed));
    }
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var_os(variable)?;
    let text = text.to_string_lossy();
    let parsed = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    Some(parsed.unwrap_or_else(|_| panic!("{variable} is {text:?}, but must be a number")))
}

/// How far [`explore`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Explored {
    /// How many orders were run.
    pub orders: u64,
    /// Whether these were all there are.
    pub complete: bool,
}

/// Runs a small program in every order there is, up to a bound: which core takes its next step, which
/// ready task, which completion comes first. No faults come but those that are forced.
///
/// # Panics
///
/// As the program does, in the first order that fails; and if it decides by something other than the
/// simulation, so that an order cannot be repeated.
pub fn explore(most: u64, mut program: impl FnMut(Sim)) -> Explored {
    let path = Rc::new(RefCell::new(Vec::new()));
    let mut orders = 0;
    loop {
        if orders == most {
            return Explored {
                orders,
                complete: false,
            };
        }
        orders += 1;
        let mut sim = Sim::with_seed(0);
        sim.path = Some(Rc::clone(&path));
        program(sim);
        if !random::advance(&mut path.borrow_mut()) {
            return Explored {
                orders,
                complete: true,
            };
        }
    }
}

/// Returns whether a simulation runs on this thread.
pub fn is_running() -> bool {
    world().is_some()
}

/// Passes a point that faults may be forced at ([`Sim::force_at`]). Does nothing outside of a
/// simulation.
pub fn point(name: &'static str) {
    if let Some(world) = world() {
        world.pass(name);
    }
}

/// Lets a fault come at its next occasion. Does nothing outside of a simulation.
pub fn force(fault: Fault) {
    if let Some(world) = world() {
        world.force(fault);
    }
}

/// Lets no fault come from now on, so that a program can show that it has survived those before. Does
/// nothing outside of a simulation.
pub fn end_faults() {
    if let Some(world) = world() {
        world.end_faults();
    }
}

/// Writes a line into the trace. Does nothing outside of a simulation.
pub fn note(note: impl Into<String>) {
    if let Some(world) = world() {
        world.note(note.into());
    }
}

/// Runs `closure` outside of all cores when so much virtual time has passed: what a thread of the
/// program's own would do. It may wake, cancel, spawn and shut down, but not block.
///
/// # Panics
///
/// Outside of a simulation.
pub fn after(delay: Duration, closure: impl FnOnce() + 'static) {
    let world = world().expect("quoit::sim::after was called outside of a simulation");
    world.script(delay, Box::new(closure));
}

/// Returns the world of the simulation that runs on this thread.
pub(crate) fn world() -> Option<Rc<World>> {
    current::world()
}

/// Returns whether a descriptor is a simulated one.
pub(crate) fn is_simulated(fd: RawFd) -> bool {
    fd >= kernel::FIRST_FD
}

/// Returns the world that a descriptor belongs to.
pub(crate) fn world_of(fd: RawFd) -> Option<Rc<World>> {
    if is_simulated(fd) { world() } else { None }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;

    use super::*;
    use crate::op::{Listener, SharedFd, Socket, Stream};
    use crate::time::{Instant, sleep};
    use crate::{Cores, Runtime, block_on, spawn};

    #[test]
    fn a_simulated_program_sends_nothing_on_a_descriptor_of_the_machine() {
        let (ours, mut theirs) = UnixStream::pair().expect("two sockets");
        Sim::with_seed(1).block_on(async move {
            let ours = Stream::new(SharedFd::from(OwnedFd::from(ours)));
            let (outcome, _) = ours.send_all("out").await;
            let error = outcome.expect_err("no descriptor of the simulation");
            assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        });
        let mut all = Vec::new();
        theirs.read_to_end(&mut all).expect("it ends");
        assert_eq!(all, b"");
    }

    #[test]
    fn a_day_takes_the_time_of_its_work() {
        let outcome = Sim::with_seed(1).run(|| {
            block_on(async {
                let before = Instant::now();
                sleep(Duration::from_secs(86_400))
                    .await
                    .expect("nobody cancels");
                before.elapsed()
            })
            .expect("a ring")
        });
        assert_eq!(outcome.value, Duration::from_secs(86_400));
        assert!(outcome.steps < 100, "{} steps", outcome.steps);
    }

    #[test]
    fn cores_talk_over_sockets() {
        for_seeds(0..200, |sim| {
            let address = "127.0.0.1:7000".parse().expect("an address");
            sim.cores(2).faults(Faults::benign()).run(|| {
                let runtime = Runtime::builder().cores(Cores::All).build().expect("cores");
                runtime
                    .run(move |core| async move {
                        if core.index() == 0 {
                            let socket = Socket::tcp(address)?;
                            socket.bind(address)?;
                            socket.listen(16)?;
                            let listener = Listener::new(socket);
                            let stream = Stream::new(listener.accept().await?);
                            while let Some(chunk) = stream.receive().await? {
                                stream.send_all(chunk).await.0?;
                            }
                            return Ok(());
                        }
                        let stream = loop {
                            let socket = Socket::tcp(address)?;
                            match Stream::connect(socket, address.into()).await {
                                Ok(stream) => break stream,
                                Err(_) => sleep(Duration::from_millis(1)).await?,
                            }
                        };
                        let sent: Vec<u8> = (0..100_000_u32).map(|byte| byte as u8).collect();
                        let stream = Rc::new(stream);
                        let sender = Rc::clone(&stream);
                        let task = spawn(async move {
                            sender.send_all(sent).await.0?;
                            sender.shutdown(std::net::Shutdown::Write)
                        });
                        let mut received = Vec::new();
                        while let Some(chunk) = stream.receive().await? {
                            received.extend_from_slice(&chunk);
                        }
                        task.await.expect("it does not panic")?;
                        assert_eq!(received.len(), 100_000);
                        assert!(
                            received
                                .iter()
                                .enumerate()
                                .all(|(at, byte)| at as u8 == *byte)
                        );
                        Ok::<_, io::Error>(())
                    })
                    .expect("it works");
            });
        });
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn a_deadlock_is_reported() {
        Sim::with_seed(3).run(|| {
            block_on(async {
                let event = crate::sync::Event::new();
                event.wait().await
            })
        });
    }
}
