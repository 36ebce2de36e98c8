//! What all tasks of a program share: the model, numbers that are given once, and how much is left.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::task::Waker;
use std::time::Duration;

use quoit::sync::Event;
use quoit::time::Instant;
use quoit::{CancelHandle, CoreId, Group, Handle, Reason, Scope};

use super::failure::Failure;
use super::model::Model;
use super::pipes::Pipe;
use super::reference::{Node, Time};
use crate::workload::{Dice, Weather};

/// How long a program is left to itself; then all that it waits for comes.
pub(super) const UNTIL: Duration = Duration::from_secs(60);

/// Shared by all cores.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) weather: Weather,
    pub(super) panics: bool,
    model: Mutex<Model>,
    begun: Instant,
    runtime: OnceLock<Handle>,
    seed: u64,
    next: AtomicU32,
    next_dice: AtomicU64,
    /// How many bodies may still begin.
    budget: AtomicI64,
    /// One group has more children than one turn reaches by a cancel.
    crowd: AtomicBool,
    /// All that is waited for has come.
    pub(super) over: AtomicBool,
    /// Scopes that anybody may cancel.
    handles: Mutex<Vec<(CancelHandle, Node)>>,
    /// Cores whose actors have not all ended.
    pub(super) acting: AtomicUsize,
}

impl Plan {
    pub(super) fn new(seed: u64, weather: Weather, cores: usize, dice: &mut Dice) -> Self {
        let slack = match weather {
            Weather::Calm => Duration::ZERO,
            _ => Duration::from_millis(400),
        };
        let mut model = Model::new(cores, slack);
        model.talks = std::env::var_os("QUOIT_SIM_SEED").is_some();
        model.crowded = dice.roll(200) == 0;
        let crowded = model.crowded;
        Self {
            weather,
            panics: dice.roll(8) == 0,
            model: Mutex::new(model),
            begun: Instant::now(),
            runtime: OnceLock::new(),
            seed,
            next: AtomicU32::new(1),
            next_dice: AtomicU64::new(1),
            budget: AtomicI64::new(10 + dice.roll(60) as i64),
            crowd: AtomicBool::new(crowded),
            over: AtomicBool::new(false),
            handles: Mutex::default(),
            acting: AtomicUsize::new(cores),
        }
    }

    pub(super) fn set_runtime(&self, runtime: Handle) {
        self.runtime.set(runtime).expect("set once");
    }

    pub(super) fn runtime(&self) -> &Handle {
        self.runtime.get().expect("set before the first task")
    }

    /// Asks or tells the model, which learns what time it is.
    pub(super) fn with<R>(&self, f: impl FnOnce(&mut Model) -> R) -> R {
        let mut model = self.model.lock().expect("nobody panics with it");
        for (turns, metrics) in model.turns.iter_mut().zip(self.runtime().metrics()) {
            *turns = metrics.turns;
        }
        let now = self.now();
        model.tick(now);
        f(&mut model)
    }

    /// As [`Plan::with`], when no core lives any more.
    pub(super) fn with_at_end<R>(&self, f: impl FnOnce(&mut Model) -> R) -> R {
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        f(&mut model)
    }

    pub(super) fn now(&self) -> Time {
        self.begun.elapsed().as_nanos() as Time
    }

    pub(super) fn at(&self, time: Time) -> Instant {
        self.begun + Duration::from_nanos(time)
    }

    /// Gives a number that nobody else has.
    pub(super) fn number(&self) -> u32 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Gives a reason that nobody else has.
    pub(super) fn reason(&self) -> Reason {
        Reason::User(self.number())
    }

    pub(super) fn dice(&self) -> Dice {
        Dice::new(self.seed, self.next_dice.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns whether one more body may begin.
    pub(super) fn spend(&self) -> bool {
        self.budget.fetch_sub(1, Ordering::Relaxed) > 0 && !self.is_over()
    }

    /// Returns whether the group that asks is the one with many children.
    pub(super) fn has_crowd(&self) -> bool {
        self.crowd.swap(false, Ordering::Relaxed)
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn offer(&self, handle: CancelHandle, node: Node) {
        let mut handles = self.handles.lock().expect("nobody panics with it");
        handles.push((handle, node));
        if handles.len() > 24 {
            handles.remove(0);
        }
    }

    /// Cancels something by a handle. `here`: the core that this is done on, if it is one.
    pub(super) fn cancel_something(&self, dice: &mut Dice, here: Option<usize>) {
        let (handle, node) = {
            let handles = self.handles.lock().expect("nobody panics with it");
            let count = handles.len() as u64;
            if count == 0 {
                return;
            }
            // Rather one that was made just now.
            let back = dice.roll(count).min(dice.roll(count));
            handles[(count - 1 - back) as usize]
        };
        self.cancel_by(handle, node, dice, here);
    }

    pub(super) fn cancel_by(
        &self,
        handle: CancelHandle,
        node: Node,
        dice: &mut Dice,
        here: Option<usize>,
    ) {
        let (reason, grace) = match dice.roll(3) {
            0 => (Reason::Requested, None),
            1 => (self.reason(), Some(Duration::ZERO)),
            _ => (self.reason(), Some(dice.micros(4_000))),
        };
        let told = match grace {
            None => handle.cancel(),
            Some(grace) => handle.cancel_with(reason, grace),
        };
        self.with(|model| model.cancel_by_handle(node, reason, grace, here, told));
    }
}

thread_local! {
    /// Each core of the program that this thread simulates.
    static HERE: RefCell<Vec<Rc<Here>>> = const { RefCell::new(Vec::new()) };
}

/// Finds a core, for those who come from another one.
pub(super) fn here_of(core: CoreId) -> Rc<Here> {
    HERE.with_borrow(|all| {
        let found = all.iter().find(|here| here.core == core);
        Rc::clone(found.expect("every core has said so"))
    })
}

/// What the tasks of one core share.
#[derive(Debug)]
pub(super) struct Here {
    pub(super) plan: std::sync::Arc<Plan>,
    pub(super) core: CoreId,
    pub(super) shelf: RefCell<Shelf>,
}

/// What lies around on a core, for whoever comes by.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    pub(super) scopes: Vec<(Rc<Scope>, Node)>,
    pub(super) groups: Vec<(Group<Failure>, Node)>,
    pub(super) events: Vec<(Rc<Event>, u64)>,
    pub(super) foreign: Vec<Rc<Foreign>>,
    pub(super) pipes: Vec<Rc<Pipe>>,
}

impl Here {
    pub(super) fn begin(plan: std::sync::Arc<Plan>, core: CoreId) {
        let here = Rc::new(Self {
            plan,
            core,
            shelf: RefCell::default(),
        });
        HERE.with_borrow_mut(|all| all.push(here));
    }

    /// Forgets the cores of a program that has ended.
    pub(super) fn forget_all() {
        let all = HERE.take();
        drop(all);
    }

    pub(super) fn index(&self) -> usize {
        self.core.index()
    }

    /// Sets an event, if there is one.
    pub(super) fn set_an_event(&self, dice: &mut Dice) {
        let event = pick(&mut self.shelf.borrow_mut().events, dice);
        if let Some((event, number)) = event {
            event.set();
            self.plan.with(|model| model.told(number));
        }
    }

    /// Lets something foreign come, if there is any.
    pub(super) fn end_something_foreign(&self, dice: &mut Dice) {
        let foreign = pick(&mut self.shelf.borrow_mut().foreign, dice);
        if let Some(foreign) = foreign {
            foreign.end();
        }
    }

    /// Lets all come that somebody waits for, and the program run out.
    pub(super) fn end_all(&self) {
        let shelf = std::mem::take(&mut *self.shelf.borrow_mut());
        for (event, number) in shelf.events {
            event.set();
            self.plan.with(|model| model.told(number));
        }
        for foreign in shelf.foreign {
            foreign.end();
        }
        for pipe in shelf.pipes {
            pipe.close();
        }
    }
}

/// Takes one out.
pub(super) fn pick<T>(from: &mut Vec<T>, dice: &mut Dice) -> Option<T> {
    let count = from.len() as u64;
    (count > 0).then(|| from.swap_remove(dice.roll(count) as usize))
}

/// Something that the runtime knows nothing of: it keeps a waker, and uses it some day.
#[derive(Debug, Default)]
pub(super) struct Foreign(RefCell<(bool, Option<Waker>)>);

impl Foreign {
    pub(super) fn end(&self) {
        let waker = {
            let mut state = self.0.borrow_mut();
            state.0 = true;
            state.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    pub(super) async fn wait(&self) {
        std::future::poll_fn(|cx| {
            let mut state = self.0.borrow_mut();
            if state.0 {
                return std::task::Poll::Ready(());
            }
            state.1 = Some(cx.waker().clone());
            std::task::Poll::Pending
        })
        .await;
    }
}
