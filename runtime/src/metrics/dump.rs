//! The live scope trees of cores: who waits for what, since when, and what was cancelled.
//!
//! A core looks at itself ([`Core::dump`]) and makes plain data of what it finds, which may leave
//! the core; the text of it is in [`text`](super::text), the JSON in [`json`](super::json). Others
//! ask a core through its mailbox, and wait no longer than they said.
//!
//! Nothing is kept between two looks: it costs nothing until somebody asks.

use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use crate::CoreId;
use crate::core_state::Core;
use crate::kernel_op::slab::{OpId, OpView};
use crate::kernel_op::state::OpState;
use crate::mailbox::closures::Refused;
use crate::runtime::{Handle, RemoteHandle};
use crate::scope::Cancelled;
use crate::scope::tree::{Kind, Shield, View, Waiting, Waits};
use crate::signal::Signals;
use crate::task::current;
use crate::time::Instant;

/// The scope trees of cores at one moment of each: every task, scope and group, what is waited for
/// and since when, deadlines, shields, and what was cancelled.
///
/// [`Handle::dump`] asks all cores of a runtime, from any thread; [`ScopeDump::of_this_core`] looks
/// at the core it is called on, without waiting. The text is the `Display` form:
///
/// ```text
/// core 0: 3 tasks, 0 ready, 2 ops in the kernel, 1 timer armed
///   task 0 waits
///     a group of 2
///       for the end of a task, for 1.2s
///       task 1 waits, cancelled: something in its group failed, 1.1s ago
///         for a read on descriptor 12, which was asked to end, for 1.2s
///       task 2 waits, cancelled from outside
///         a scope, deadline in 3.8s, shielded
///           for a point in time, for 1.1s
/// ```
///
/// A line that begins with `for` is one wait. Beneath a task lie its scopes and groups, beneath a
/// group its tasks. A task or scope that *waits for something the runtime does not know* waits in a
/// future of another library. If it is cancelled, it is said how often it was woken in vain, and when
/// it is left alone it is called *unresponsive*. A task that asks again and again though it is refused
/// *swallows every cancel*. What lies more than 100 levels down is not set in further, but says how much deeper it is.
///
/// A core is occupied while it looks at itself, for about a microsecond per task and scope.
#[derive(Debug, Clone)]
pub struct ScopeDump {
    pub(super) cores: Vec<(usize, Result<CoreDump, Silence>)>,
}

/// Why a core said nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Silence {
    /// It did not come to it in time; whether it began a turn meanwhile.
    Busy { turned: bool },
    /// Its mailbox has no room.
    Full,
    /// It is no more.
    Ended,
    /// The caller is a core, which cannot wait for another.
    NotAsked,
}

/// One core.
#[derive(Debug, Clone)]
pub(crate) struct CoreDump {
    pub(super) tasks: u32,
    pub(super) ready: u32,
    pub(super) in_kernel: u32,
    pub(super) orphans: u32,
    pub(super) timers: usize,
    /// Each before those below it; the first is the root.
    pub(super) nodes: Vec<NodeDump>,
}

/// One task, scope or group.
#[derive(Debug, Clone)]
pub(crate) struct NodeDump {
    pub(super) depth: usize,
    /// Where in the list the node above stands.
    pub(super) parent: Option<usize>,
    pub(super) kind: Kind,
    pub(super) task: Option<TaskDump>,
    pub(super) cancelled: Option<(Cancelled, Duration)>,
    pub(super) refused: bool,
    pub(super) shield: Shield,
    pub(super) grace_left: Option<Duration>,
    pub(super) deadline_in: Option<Duration>,
    /// Tasks directly below, and how many more may come.
    pub(super) tasks: u32,
    pub(super) starting: u32,
    /// The owner is gone.
    pub(super) dropped: bool,
    /// It waits for the end of what was started inside.
    pub(super) ending: bool,
    pub(super) foreign: Option<Foreign>,
    pub(super) waits: Vec<WaitDump>,
    pub(super) orphans: Vec<String>,
}

/// What is known of a task besides.
#[derive(Debug, Clone, Copy)]
pub(super) struct TaskDump {
    pub(super) state: TaskState,
    /// How often it was refused, if that is being counted.
    pub(super) refusals: u64,
    pub(super) swallowing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskState {
    Running,
    Ready,
    /// It is made to pause, for having been refused too often.
    Pausing,
    Waiting,
}

/// A body that waits for something the runtime does not know.
#[derive(Debug, Clone, Copy)]
pub(super) struct Foreign {
    /// How often it was woken in vain, for being cancelled.
    pub(super) wakes: u32,
    /// It is left alone now.
    pub(super) unresponsive: bool,
}

/// One wait.
#[derive(Debug, Clone)]
pub(super) struct WaitDump {
    pub(super) what: String,
    pub(super) since: Duration,
    /// It was told of a cancel, and waits for the other side all the same.
    pub(super) told: bool,
}

impl ScopeDump {
    /// Looks at the core that this is called on, without waiting; `None` off a core.
    ///
    /// To ask another core from a task, look there:
    /// `on(core, async || Ok::<_, io::Error>(ScopeDump::of_this_core()))`.
    pub fn of_this_core() -> Option<Self> {
        current::try_with(|core| Self {
            cores: vec![(core.id.index(), Ok(core.dump()))],
        })
    }
}

impl Handle {
    /// Asks every core of the runtime for its scope tree, and waits for the answers: for all of them
    /// together no longer than `patience`. A core that has not answered by then is named as such; so
    /// is one that has ended, or whose mailbox is full.
    ///
    /// Called on a core, which cannot wait for another, it tells of that core alone and names the
    /// rest as not asked.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// let runtime = quoit::Runtime::builder().cores(quoit::Cores::Count(1)).build()?;
    /// let dump = runtime.handle().dump(Duration::from_secs(1));
    /// assert!(dump.to_string().starts_with("core 0: 0 tasks"));
    /// # Ok::<_, quoit::BuildError>(())
    /// ```
    pub fn dump(&self, patience: Duration) -> ScopeDump {
        let here = CoreId::current();
        let deadline = Instant::now() + patience;
        let ask = |core: CoreId| match here {
            Some(id) if id == core => Err(current::try_with(Core::dump).ok_or(Silence::Ended)),
            Some(_) => Err(Err(Silence::NotAsked)),
            None => self.ask(core).map_err(Err),
        };
        let asked: Vec<_> = self
            .cores()
            .into_iter()
            .map(|core| (core, ask(core)))
            .collect();
        let cores = asked.into_iter().map(|(core, asked)| {
            let answer = match asked {
                Ok(question) => question.answer(core, deadline),
                Err(known) => known,
            };
            (core.index(), answer)
        });
        ScopeDump {
            cores: cores.collect(),
        }
    }

    /// Writes [what the cores are doing](Handle::dump) to standard error each time one of these
    /// signals comes in, with a patience of a second.
    ///
    /// A thread waits for them, for as long as the process lives; it does not keep the process alive,
    /// and goes on when the runtime has ended: then the text says that.
    ///
    /// The signals have to be [blocked](Signals::block) before any other thread is started, thus
    /// before the runtime is built: a signal that one thread does not block goes there, and most
    /// signals end the process. A signal that something else waits for too is seen by one of the two.
    ///
    /// ```no_run
    /// use quoit::Runtime;
    /// use quoit::signal::{Signal, Signals};
    ///
    /// // The first thing in `main`.
    /// let signals = Signals::block(&[Signal::Quit])?;
    /// let runtime = Runtime::builder().build()?;
    /// runtime.handle().dump_on(signals)?;
    /// # Ok::<_, std::io::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `pthread_create(3)`; `Unsupported` in a simulation, which has no signals.
    pub fn dump_on(&self, signals: Signals) -> io::Result<()> {
        #[cfg(feature = "sim")]
        if crate::sim::is_running() {
            let what = "there are no signals in a simulation: call Handle::dump";
            return Err(io::Error::new(io::ErrorKind::Unsupported, what));
        }
        let handle = self.clone();
        crate::start_thread("quoit-dump", move || {
            while let Ok(signal) = signals.wait() {
                let dump = handle.dump(PATIENCE);
                // A standard error that nobody reads any more is no reason to end anything.
                let _ = io::stderr().write_all(format!("{signal}:\n{dump}").as_bytes());
            }
        })
    }

    fn ask(&self, core: CoreId) -> Result<Question, Silence> {
        let (sender, answer) = RemoteHandle::channel();
        let asking = Arc::new(());
        let still_asking = Arc::downgrade(&asking);
        let job = move || {
            // Nobody waits any more: a core that was busy for long has better things to do.
            if still_asking.strong_count() > 0 {
                sender.send(current::with(Core::dump));
            }
        };
        let turns = self.turns_of(core);
        self.send(core, Box::new(job))
            .map_err(|refused| match refused {
                Refused::Full => Silence::Full,
                Refused::Closed => Silence::Ended,
            })?;
        Ok(Question {
            answer,
            turns,
            handle: self.clone(),
            _asking: asking,
        })
    }
}

/// A core that was asked.
struct Question {
    answer: RemoteHandle<CoreDump>,
    /// The turns it had begun by then.
    turns: u64,
    handle: Handle,
    _asking: Arc<()>,
}

impl Question {
    fn answer(self, core: CoreId, deadline: Instant) -> Result<CoreDump, Silence> {
        match self.answer.wait_for(deadline - Instant::now()) {
            Ok(Ok(dump)) => Ok(dump),
            Ok(Err(_)) => Err(Silence::Ended),
            Err(_) => Err(Silence::Busy {
                turned: self.handle.turns_of(core) != self.turns,
            }),
        }
    }
}

/// How long a core is waited for when a signal asks.
const PATIENCE: Duration = Duration::from_secs(1);

impl Core {
    /// Looks at all tasks, scopes and groups of this core.
    pub(crate) fn dump(&self) -> CoreDump {
        let now = Instant::now();
        // Whoever asks from within a scope finds it there.
        self.open_new_tasks();
        let views = self.tree.borrow().views();
        let mut orphans = self.orphans_by_node();
        let mut nodes = Vec::with_capacity(views.len());
        // The nodes above the one that is looked at, and the task that each belongs to.
        let mut above: Vec<(usize, Option<TaskState>)> = Vec::new();
        for (place, view) in views.into_iter().enumerate() {
            above.truncate(view.depth);
            let (parent, outer) = above
                .last()
                .map_or((None, None), |&(at, task)| (Some(at), task));
            let account = crate::core_state::account(view.node);
            let task = match view.kind {
                // One that has ended has no slot any more.
                Kind::Task(slot) if !view.ghost => Some(self.dump_task(slot)),
                _ => None,
            };
            let runs_in = task.map_or(outer, |task| Some(task.state));
            above.push((place, runs_in));
            let is_task_idle = runs_in == Some(TaskState::Waiting);
            let node = self.dump_node(now, &view, is_task_idle);
            nodes.push(NodeDump {
                parent,
                task,
                orphans: orphans.remove(&account).unwrap_or_default(),
                ..node
            });
        }
        let ops = self.ops.borrow();
        let tasks = nodes.iter().filter(|node| node.task.is_some());
        CoreDump {
            tasks: tasks.count() as u32,
            ready: self.tasks.borrow().ready() as u32,
            in_kernel: ops.in_kernel(),
            orphans: ops.orphans(),
            timers: self.timers.borrow().len(),
            nodes,
        }
    }

    fn dump_node(&self, now: Instant, view: &View, is_task_idle: bool) -> NodeDump {
        let (wakes, unresponsive) = self.patience.borrow().attempts(view.node);
        NodeDump {
            depth: view.depth,
            parent: None,
            kind: view.kind,
            task: None,
            cancelled: view.cause.map(|(cause, at)| (cause, now - at)),
            refused: view.refused,
            shield: view.shield,
            grace_left: view.grace.map(|end| end - now),
            deadline_in: view.deadline.map(|at| at - now),
            tasks: view.tasks - view.promises,
            starting: view.promises,
            dropped: view.ghost,
            ending: view.ending,
            foreign: (view.bare && is_task_idle).then_some(Foreign {
                wakes,
                unresponsive: unresponsive && view.refused,
            }),
            waits: view
                .waits
                .iter()
                .map(|wait| self.dump_wait(now, wait))
                .collect(),
            orphans: Vec::new(),
        }
    }

    fn dump_task(&self, slot: u32) -> TaskDump {
        let patience = self.patience.borrow();
        let (refusals, pauses) = patience.refusals(slot);
        let tasks = self.tasks.borrow();
        let standing = tasks.standing(slot);
        let is_queued = standing.is_some_and(|(_, is_queued)| is_queued);
        let has_yielded = || {
            standing.is_some_and(|(task, _)| {
                let waker = task.waker();
                let yields = self.yields.borrow();
                yields.iter().any(|own| own.will_wake(&waker))
            })
        };
        let state = if self.running.get().is_some_and(|task| task.slot() == slot) {
            TaskState::Running
        } else if pauses {
            TaskState::Pausing
        } else if is_queued || has_yielded() {
            TaskState::Ready
        } else {
            TaskState::Waiting
        };
        TaskDump {
            state,
            refusals,
            swallowing: patience.is_swallowing(slot),
        }
    }

    fn dump_wait(&self, now: Instant, wait: &Waiting) -> WaitDump {
        let what = match wait.waits {
            Waits::Memory(purpose) if wait.told => {
                format!("{purpose}, which was told of the cancel")
            }
            Waits::Memory(purpose) => purpose.to_string(),
            Waits::Deaf(purpose) => format!("{purpose}, whatever is cancelled"),
            Waits::Kernel(op) => {
                let view = self.ops.borrow().view(OpId::from_user_data(op));
                view.map_or_else(|| "an op that is gone".to_owned(), described)
            }
        };
        WaitDump {
            what,
            since: now - wait.since,
            told: wait.told,
        }
    }

    fn orphans_by_node(&self) -> HashMap<u64, Vec<String>> {
        let mut orphans = HashMap::<_, Vec<_>>::new();
        for (account, op) in self.ops.borrow().orphan_views() {
            orphans.entry(account).or_default().push(described(op));
        }
        orphans
    }
}

/// Says what an op is.
fn described(op: OpView) -> String {
    let article = if op.name.starts_with(['a', 'e', 'i', 'o', 'u']) {
        "an"
    } else {
        "a"
    };
    let mut text = format!("{article} {}", op.name);
    if let Some(fd) = op.descriptor() {
        text += &format!(" on descriptor {fd}");
    }
    text += match op.state {
        OpState::Queued => ", which stands in line",
        OpState::InKernel { asked: Some(_) } => ", which was asked to end",
        OpState::Completed { .. } => ", which has ended",
        OpState::InKernel { asked: None } | OpState::Orphaned => "",
    };
    text
}
