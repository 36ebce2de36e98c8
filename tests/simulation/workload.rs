//! Random programs: what one seed makes of tasks, scopes, timers, sockets, pipes, files and cores.
//!
//! A program is a number of *actors* on each core. Each draws what it does from a stream of its own,
//! so that what a program does, does not depend on the order in which it is done. Whatever an actor
//! waits for comes by itself, or has a deadline: a program that does not end is a failure.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use quoit::buf::Interrupted;
use quoit::op;
use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{
    CancelHandle, CarriesCancelled, CoreId, Cores, Group, Handle, JoinError, Reason, Runtime,
    Scope, group, spawn,
};
use quoit_net::ShardedListener;
use quoit_net::tcp::{TcpListener, TcpStream};

use super::ledger::Ledger;
use super::{lanes, promises, steps};

/// Numbers that decide what an actor does.
#[derive(Debug, Clone)]
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn new(seed: u64, actor: u64) -> Self {
        let mut dice = Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ actor);
        dice.roll(2);
        dice
    }

    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (word ^ (word >> 31)) % sides
    }

    pub(super) fn micros(&mut self, below: u64) -> Duration {
        Duration::from_micros(self.roll(below))
    }
}

/// What a program has to bear, and so what can be demanded of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weather {
    /// Nothing goes wrong, and nobody is held up.
    Calm,
    /// Nothing fails that would not by itself.
    Benign,
    /// Operations fail.
    Rough,
}

/// What all actors of a program share, over all cores.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    pub(super) weather: Weather,
    pub(super) ledger: Ledger,
    /// Scopes that anybody may cancel, from any core.
    handles: Mutex<Vec<CancelHandle>>,
    next_actor: Mutex<u64>,
    /// Cores whose actors have not all ended: until then every core serves.
    acting: AtomicUsize,
    /// The program comes to its end, maybe before its time: peers may go away in the middle.
    cut_short: AtomicBool,
}

impl Plan {
    pub(super) fn is_rough(&self) -> bool {
        self.weather == Weather::Rough
    }

    pub(super) fn dice(&self) -> Dice {
        let mut next = self.next_actor.lock().expect("nobody panics with it");
        *next += 1;
        Dice::new(self.seed, *next)
    }

    fn offer(&self, handle: CancelHandle) {
        let mut handles = self.handles.lock().expect("nobody panics with it");
        handles.push(handle);
        if handles.len() > 16 {
            handles.remove(0);
        }
    }

    fn any_handle(&self, dice: &mut Dice) -> Option<CancelHandle> {
        let handles = self.handles.lock().expect("nobody panics with it");
        let count = handles.len() as u64;
        (count > 0).then(|| handles[dice.roll(count) as usize])
    }
}

/// Runs the program of a seed to its end. Called inside of a simulation.
pub(super) fn run(seed: u64, weather: Weather) -> Arc<Plan> {
    let mut dice = Dice::new(seed, 0);
    let cores = 1 + dice.roll(3) as usize;
    let plan = Arc::new(Plan {
        seed,
        weather,
        ledger: Ledger::default(),
        handles: Mutex::default(),
        next_actor: Mutex::new(0),
        acting: AtomicUsize::new(cores),
        cut_short: AtomicBool::new(false),
    });
    let runtime = Runtime::builder()
        .cores(Cores::Count(cores))
        .submission_entries(8 << dice.roll(3))
        .receive_buffers(4 << dice.roll(4), 512 << dice.roll(5))
        .grace_period(Duration::from_millis(dice.roll(50)))
        .build()
        .expect("nothing refuses a ring here");
    let port = ShardedListener::bind(
        "127.0.0.1:7000".parse().expect("an address"),
        &runtime.handle(),
    );
    let Ok(port) = port else {
        // Sockets may be refused; then this program is a short one.
        return plan;
    };
    if dice.roll(8) == 0 {
        let handle = runtime.handle();
        let after = dice.micros(20_000);
        let plan = Arc::clone(&plan);
        quoit::sim::after(after, move || {
            plan.cut_short.store(true, Ordering::Relaxed);
            handle.shutdown();
        });
    }
    let shared = Arc::clone(&plan);
    let handle = runtime.handle();
    let ended = runtime.run(move |core| {
        let (plan, port, handle) = (Arc::clone(&shared), port.clone(), handle.clone());
        async move { core_main(core, plan, port, handle).await }
    });
    if let Err(error) = ended {
        assert!(
            weather == Weather::Rough || error.cancelled().is_some(),
            "a core failed: {error}"
        );
    }
    plan
}

/// One core: a server, and actors that do what comes to their minds.
async fn core_main(
    core: CoreId,
    plan: Arc<Plan>,
    port: ShardedListener,
    runtime: Handle,
) -> io::Result<()> {
    let mut dice = Dice::new(plan.seed, 1_000 + core.index() as u64);
    let address = port.local_addr();
    let here = Rc::new(Here {
        plan,
        address,
        event: Event::new(),
        core,
        runtime,
        served: RefCell::default(),
    });
    let serving = Scope::new();
    let stop_serving = serving.handle();
    let server = {
        let (here, listener) = (Rc::clone(&here), port.take(core)?);
        spawn(async move { serving.run(serve(here, listener)).await })
    };
    let actors: Vec<_> = (0..1 + dice.roll(4))
        .map(|_| {
            let here = Rc::clone(&here);
            let dice = here.plan.dice();
            spawn(async move { act(&here, dice, 0).await })
        })
        .collect();
    here.event.set();
    for actor in actors {
        here.settle(joined(actor.await)?)?;
    }
    here.plan.acting.fetch_sub(1, Ordering::Relaxed);
    while here.plan.acting.load(Ordering::Relaxed) > 0 {
        sleep(Duration::from_millis(1)).await?;
    }
    // Only tasks that nobody waits for can still be about to connect.
    here.plan.cut_short.store(true, Ordering::Relaxed);
    stop_serving.cancel();
    here.settle(joined(server.await)?.map(drop))?;
    // What was sent is received to its end.
    loop {
        let served = here.served.borrow_mut().pop();
        match served {
            Some(served) => joined(served.await)?,
            None => return Ok(()),
        }
    }
}

/// What the actors of one core share.
pub(super) struct Here {
    pub(super) plan: Arc<Plan>,
    pub(super) address: SocketAddr,
    pub(super) event: Event,
    pub(super) core: CoreId,
    pub(super) runtime: Handle,
    pub(super) served: RefCell<Vec<quoit::JoinHandle<()>>>,
}

impl Here {
    /// An actor ends well, or cancelled, or by a fault that was asked for.
    fn settle(&self, ended: io::Result<()>) -> io::Result<()> {
        match ended {
            Err(error) if error.cancelled().is_none() => {
                let may_fail = self.plan.is_rough() || self.plan.cut_short.load(Ordering::Relaxed);
                assert!(may_fail, "an actor failed: {error}");
                Ok(())
            }
            ended => ended,
        }
    }
}

impl Here {
    /// Receives what a connection brings, to its end.
    fn receive(&self, stream: TcpStream) {
        let plan = Arc::clone(&self.plan);
        self.served.borrow_mut().push(spawn(async move {
            if let Err(error) = lanes::receive_lane(&plan, stream).await {
                let may_fail = plan.is_rough() || plan.cut_short.load(Ordering::Relaxed);
                let may_fail = may_fail || error.cancelled().is_some();
                assert!(may_fail, "receiving failed: {error}");
            }
        }));
    }
}

async fn serve(here: Rc<Here>, listener: TcpListener) -> io::Result<()> {
    loop {
        match listener.accept().await {
            Ok(stream) => here.receive(stream),
            Err(error) if error.cancelled().is_some() => {
                // Whoever has got through is served as well.
                for stream in listener.finish().await {
                    here.receive(stream);
                }
                return Err(error);
            }
            Err(error) => {
                assert!(here.plan.is_rough(), "accept failed: {error}");
                sleep(Duration::from_millis(1)).await?;
            }
        }
    }
}

/// An actor: some steps, one after the other, each drawn.
async fn act(here: &Rc<Here>, mut dice: Dice, depth: u32) -> io::Result<()> {
    for _ in 0..1 + dice.roll(5) {
        let step = dice.roll(if depth < 3 { 23 } else { 15 });
        match step {
            0 => steps::lets_others_run(here, &mut dice).await?,
            1 => steps::sleeps(here, &mut dice).await?,
            2 => op::nop().await?,
            3 => steps::dropped_early(here, &mut dice).await?,
            4 => steps::through_a_pipe(&mut dice, &here.plan).await?,
            5 => steps::in_a_file(here, &mut dice).await?,
            6 => {
                if let Some(handle) = here.plan.any_handle(&mut dice) {
                    handle.cancel();
                }
            }
            7 => lanes::send_lane(here, &mut dice).await?,
            8 => steps::on_another_core(here, &mut dice).await?,
            9 => steps::close_while_in_use(here, &mut dice).await?,
            10 => promises::cancelled_at_once(here, &mut dice).await?,
            11 => promises::orphans_end_with_their_scope(&mut dice).await?,
            12 => promises::sends_do_not_mix(here, &mut dice).await?,
            13 => promises::beside_a_busy_task(here).await?,
            14 => promises::dropped_listener(&mut dice).await?,
            15 => {
                let (child, rest) = (Rc::clone(here), here.plan.dice());
                let child = spawn(async move { act(&child, rest, depth + 1).await });
                match dice.roll(3) {
                    0 => drop(child),
                    1 => {
                        let wait = Scope::new().timeout(dice.micros(500));
                        let ended = wait.run(async { joined(child.await) }).await?;
                        if let Some(ended) = ended {
                            here.settle(ended)?;
                        }
                    }
                    _ => here.settle(joined(child.await)?)?,
                }
            }
            16 => here.event.wait().await?,
            17 => {
                let wait = Scope::new().timeout(dice.micros(400));
                let never = Event::new();
                let waited: Option<()> = wait.run(never.wait()).await?;
                assert!(waited.is_none(), "nobody sets this");
            }
            18 => in_a_group(here, &mut dice, depth).await?,
            19 => steps::called_from_another_core(here, &mut dice).await?,
            _ => in_a_scope(here, &mut dice, depth).await?,
        }
    }
    Ok(())
}

/// A group of actors: when one fails, all end.
async fn in_a_group(here: &Rc<Here>, dice: &mut Dice, depth: u32) -> io::Result<()> {
    let children = 1 + dice.roll(3);
    let rest = here.plan.dice();
    let ended = Box::pin(group(async |group: Group<io::Error>| {
        for _ in 0..children {
            let (child, rest) = (Rc::clone(here), here.plan.dice());
            drop(group.spawn(async move { act(&child, rest, depth + 1).await }));
        }
        act(here, rest, depth + 1).await
    }));
    here.settle(ended.await.map(drop).map_err(io::Error::from))
}

/// A scope that may be cancelled by anybody, have a deadline, or be shielded.
async fn in_a_scope(here: &Rc<Here>, dice: &mut Dice, depth: u32) -> io::Result<()> {
    let mut scope = Scope::new();
    let begun = Instant::now();
    let shielded = dice.roll(6) == 0;
    // A shield is never without its own deadline.
    let patience = (shielded || dice.roll(2) == 0).then(|| dice.micros(2_000));
    if let Some(patience) = patience {
        scope = scope.timeout(patience);
    }
    if shielded {
        scope = scope.shielded();
    }
    let handle = scope.handle();
    match dice.roll(4) {
        0 => here.plan.offer(handle),
        1 => {
            let after = dice.micros(1_000);
            quoit::sim::after(after, move || {
                handle.cancel();
            });
        }
        2 => {
            handle.cancel();
        }
        _ => {}
    }
    let rest = here.plan.dice();
    let ended = Box::pin(scope.run(act(here, rest, depth + 1))).await;
    let by_deadline = scope
        .cancelled()
        .is_some_and(|cancelled| cancelled.reason() == Reason::Deadline);
    if by_deadline {
        let patience = patience.expect("only a scope with a deadline ends by it");
        assert!(begun.elapsed() >= patience, "a deadline came early");
    }
    here.settle(ended.map(drop))
}

/// A task that panicked has found something; one whose end could not be waited for has not.
pub(super) fn joined<T>(ended: Result<T, JoinError>) -> io::Result<T> {
    match ended {
        Err(error @ JoinError::Panicked(_)) => error.resume(),
        ended => ended.map_err(io::Error::from),
    }
}

pub(super) fn transferred(error: &io::Error) -> usize {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Interrupted>());
    inner.map_or(0, |interrupted| interrupted.transferred)
}
