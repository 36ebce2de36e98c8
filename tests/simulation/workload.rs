//! Random programs: what one seed makes of tasks, scopes, timers, sockets, pipes, files and cores.
//!
//! A program is a number of *actors* on each core. Each draws what it does from a stream of its own,
//! so that what a program does, does not depend on the order in which it is done. Whatever an actor
//! waits for comes by itself, or has a deadline: a program that does not end is a failure.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::net::{Shutdown, SocketAddr};
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use quoit::buf::Interrupted;
use quoit::fs::OpenOptions;
use quoit::op;
use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{
    CancelHandle, CarriesCancelled, CoreId, Cores, Handle, JoinError, Reason, Runtime, Scope,
    spawn, yield_now,
};
use quoit_net::ShardedListener;
use quoit_net::tcp::{TcpListener, TcpStream};
use tests::poll_once;

use super::ledger::{Lane, Ledger};

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

    fn micros(&mut self, below: u64) -> Duration {
        Duration::from_micros(self.roll(below))
    }
}

/// What all actors of a program share, over all cores.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) seed: u64,
    /// Whether operations fail that would not by themselves: then less can be demanded.
    pub(super) failures: bool,
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
    fn dice(&self) -> Dice {
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
pub(super) fn run(seed: u64, failures: bool) -> Arc<Plan> {
    let mut dice = Dice::new(seed, 0);
    let cores = 1 + dice.roll(3) as usize;
    let plan = Arc::new(Plan {
        seed,
        failures,
        ledger: Ledger::default(),
        handles: Mutex::default(),
        next_actor: Mutex::new(0),
        acting: AtomicUsize::new(cores),
        cut_short: AtomicBool::new(false),
    });
    let runtime = Runtime::builder()
        .cores(Cores::Count(cores))
        .submission_entries(8 << dice.roll(3))
        .receive_buffers(4 << dice.roll(2), 512 << dice.roll(4))
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
            failures || error.cancelled().is_some(),
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
struct Here {
    plan: Arc<Plan>,
    address: SocketAddr,
    event: Event,
    core: CoreId,
    runtime: Handle,
    served: RefCell<Vec<quoit::JoinHandle<()>>>,
}

impl Here {
    /// An actor ends well, or cancelled, or by a fault that was asked for.
    fn settle(&self, ended: io::Result<()>) -> io::Result<()> {
        match ended {
            Err(error) if error.cancelled().is_none() => {
                let may_fail = self.plan.failures || self.plan.cut_short.load(Ordering::Relaxed);
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
            // How it ends is the sender's to judge.
            let _ = receive_lane(&plan, stream).await;
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
                assert!(here.plan.failures, "accept failed: {error}");
                sleep(Duration::from_millis(1)).await?;
            }
        }
    }
}

/// The receiving end of a lane: whatever cancels come, every byte is received once, in order.
async fn receive_lane(plan: &Plan, stream: TcpStream) -> io::Result<()> {
    let mut lane: Option<Lane> = None;
    let mut head = Vec::new();
    let mut dice = Dice::new(plan.seed, 77);
    // A reader who keeps what he was given must not starve the others.
    let mut hoard = Vec::new();
    let keeps = dice.roll(3) == 0;
    loop {
        let received = match dice.roll(4) {
            // A wait that may be cut off, and is taken up again.
            0 => {
                let wait = Scope::new().timeout(dice.micros(300));
                match wait.run(stream.recv()).await? {
                    Some(received) => received,
                    None => continue,
                }
            }
            // A wait that is dropped at once, and is taken up again.
            1 => {
                let mut wait = pin!(stream.recv());
                match poll_once(wait.as_mut()).await {
                    Poll::Ready(received) => received?,
                    Poll::Pending => {
                        yield_now().await?;
                        continue;
                    }
                }
            }
            2 => {
                let (count, bytes) = stream.read(vec![0; 1 + dice.roll(700) as usize]).await;
                match count? {
                    0 => None,
                    count => {
                        take(plan, &mut lane, &mut head, &bytes[..count]);
                        continue;
                    }
                }
            }
            _ => stream.recv().await?,
        };
        let Some(chunk) = received else {
            if let Some(lane) = lane {
                plan.ledger.ended(&lane);
            }
            return Ok(());
        };
        take(plan, &mut lane, &mut head, &chunk);
        if keeps && hoard.len() < 12 {
            hoard.push(chunk);
        }
        if dice.roll(8) == 0 {
            // A slow reader, who keeps what he has.
            let pause = dice.micros(2_000);
            sleep(pause).await?;
        }
    }
}

fn take(plan: &Plan, lane: &mut Option<Lane>, head: &mut Vec<u8>, mut bytes: &[u8]) {
    if lane.is_none() {
        let missing = (8 - head.len()).min(bytes.len());
        head.extend_from_slice(&bytes[..missing]);
        bytes = &bytes[missing..];
        if let Ok(number) = head[..].try_into() {
            *lane = Some(plan.ledger.lane(u64::from_le_bytes(number)));
        }
    }
    if let Some(lane) = lane {
        plan.ledger.received(lane, bytes);
    }
}

/// An actor: some steps, one after the other, each drawn.
async fn act(here: &Rc<Here>, mut dice: Dice, depth: u32) -> io::Result<()> {
    for _ in 0..1 + dice.roll(5) {
        let step = dice.roll(if depth < 3 { 15 } else { 10 });
        match step {
            0 => yield_now().await?,
            1 => sleep(dice.micros(3_000)).await?,
            2 => op::nop().await?,
            3 => dropped_early(here, &mut dice).await?,
            4 => through_a_pipe(&mut dice, &here.plan).await?,
            5 => in_a_file(here, &mut dice).await?,
            6 => {
                if let Some(handle) = here.plan.any_handle(&mut dice) {
                    handle.cancel();
                }
            }
            7 => send_lane(here, &mut dice).await?,
            8 => on_another_core(here, &mut dice).await?,
            9 => close_while_in_use(here, &mut dice).await?,
            10 => {
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
            11 => here.event.wait().await?,
            12 => {
                let wait = Scope::new().timeout(dice.micros(400));
                let never = Event::new();
                let waited: Option<()> = wait.run(never.wait()).await?;
                assert!(waited.is_none(), "nobody sets this");
            }
            _ => in_a_scope(here, &mut dice, depth).await?,
        }
    }
    Ok(())
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

/// Ops that are begun and given up.
async fn dropped_early(here: &Here, dice: &mut Dice) -> io::Result<()> {
    let (read, write) = op::pipe()?;
    let path = format!("/given-up-{}", dice.roll(1 << 40));
    match dice.roll(5) {
        0 => give_up(op::read(&read, vec![0; 64])).await,
        1 => give_up(op::poll(&read, libc::POLLIN as u32)).await,
        2 => give_up(quoit::fs::File::create(path)).await,
        3 => give_up(TcpStream::connect(here.address)).await,
        _ => give_up(op::close(read.clone())).await,
    }
    if dice.roll(2) == 0 {
        drop(write);
    }
    Ok(yield_now().await?)
}

/// Polls once, and drops.
async fn give_up<F: Future>(op: F) {
    let mut op = pin!(op);
    let _ = poll_once(op.as_mut()).await;
}

/// A task on another core, and somebody who waits for it here as foreign code does: by a waker.
async fn on_another_core(here: &Here, dice: &mut Dice) -> io::Result<()> {
    let cores = here.runtime.cores();
    let (there, home) = (cores[dice.roll(cores.len() as u64) as usize], here.core);
    let answer = Arc::new(Answer::default());
    let (promise, back, runtime) = (
        Promise(Arc::clone(&answer)),
        dice.roll(2) == 0,
        here.runtime.clone(),
    );
    let pause = dice.micros(200);
    let sent = here.runtime.spawn(there, move || async move {
        if sleep(pause).await.is_ok() && back {
            // The answer comes by way of a closure that runs here.
            drop(runtime.spawn(home, move || async move { drop(promise) }));
        }
    });
    if sent.is_err() {
        // That core has ended.
        return Ok(());
    }
    let busy = (dice.roll(2) == 0).then(|| {
        // Somebody who keeps the core busy meanwhile.
        let answer = Arc::clone(&answer);
        spawn(async move {
            for _ in 0..2_000 {
                if answer.is_given() || yield_now().await.is_err() {
                    return true;
                }
            }
            false
        })
    });
    answer.wait().await;
    if let Some(busy) = busy
        && pause < Duration::from_micros(1)
    {
        assert!(
            joined(busy.await)?,
            "an answer came only when the core was idle"
        );
    }
    Ok(())
}

/// Something that is given once, on any core.
#[derive(Debug, Default)]
struct Answer(Mutex<(bool, Option<Waker>)>);

impl Answer {
    fn is_given(&self) -> bool {
        self.0.lock().expect("nobody panics with it").0
    }

    async fn wait(&self) {
        poll_fn(|cx| {
            let mut answer = self.0.lock().expect("nobody panics with it");
            if answer.0 {
                return Poll::Ready(());
            }
            answer.1 = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Gives an answer when it is dropped, so in every case.
struct Promise(Arc<Answer>);

impl Drop for Promise {
    fn drop(&mut self) {
        let waker = {
            let mut answer = self.0.0.lock().expect("nobody panics with it");
            answer.0 = true;
            answer.1.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A file is closed while somebody else still reads it.
async fn close_while_in_use(here: &Here, dice: &mut Dice) -> io::Result<()> {
    let path = format!("/shared-{}-{}", here.core.index(), dice.roll(1 << 40));
    let options = OpenOptions::new().read(true).write(true).create(true);
    let file = options.open(&path).await?;
    let other = file.clone();
    let reader = spawn(async move { other.read_at(vec![0; 100], 0).await.0 });
    if dice.roll(2) == 0 {
        yield_now().await?;
    }
    file.close().await?;
    if let Err(error) = joined(reader.await)? {
        assert!(
            error.cancelled().is_some() || here.plan.failures,
            "reading failed: {error}"
        );
    }
    Ok(())
}

/// Bytes through a pipe: what was written is what is read.
async fn through_a_pipe(dice: &mut Dice, plan: &Plan) -> io::Result<()> {
    let (read, write) = op::pipe()?;
    let bytes: Vec<u8> = (0..1 + dice.roll(6_000)).map(|at| at as u8).collect();
    let expected = bytes.clone();
    let writer = spawn(async move {
        let mut written = 0;
        while written < bytes.len() {
            match op::write(&write, bytes[written..].to_vec()).await.0 {
                Ok(count) => written += count,
                Err(_) => break,
            }
        }
        written
    });
    let mut received = Vec::new();
    loop {
        if dice.roll(4) == 0 {
            op::poll(&read, libc::POLLIN as u32).await?;
        }
        let (count, buf) = op::read(&read, vec![0; 1 + dice.roll(3_000) as usize]).await;
        match count {
            Ok(0) => break,
            Ok(count) => received.extend_from_slice(&buf[..count]),
            Err(error) => {
                assert!(
                    error.cancelled().is_some() || plan.failures,
                    "a pipe failed: {error}"
                );
                return Err(error);
            }
        }
    }
    let written = joined(writer.await)?;
    assert_eq!(received.len(), written, "a pipe lost bytes");
    assert_eq!(received[..], expected[..written], "a pipe changed bytes");
    Ok(())
}

/// Bytes in a file: what was written is what is read.
async fn in_a_file(here: &Here, dice: &mut Dice) -> io::Result<()> {
    let path = format!("/file-{}-{}", here.core.index(), dice.roll(1 << 40));
    let options = OpenOptions::new().read(true).write(true).create(true);
    let file = options.open(&path).await?;
    let bytes: Vec<u8> = (0..dice.roll(5_000)).map(|at| at as u8 ^ 0x5a).collect();
    let (result, bytes) = file.write_all_at(bytes, 0).await;
    let written = match &result {
        Ok(()) => bytes.len(),
        Err(error) => transferred(error),
    };
    let read = {
        let (count, buf) = file.read_at(vec![0; 6_000], 0).await;
        let mut buf = buf;
        buf.truncate(count?);
        buf
    };
    assert_eq!(read[..], bytes[..read.len()], "a file changed bytes");
    assert!(read.len() <= written, "a file has more than was written");
    result?;
    match dice.roll(3) {
        0 => file.sync_data().await?,
        1 => {
            let status = quoit::fs::metadata(&path).await?;
            assert_eq!(status.len(), bytes.len() as u64, "a file's size is wrong");
        }
        _ => {}
    }
    file.close().await
}

/// The sending end of a lane: what an op says it has sent is what arrives.
async fn send_lane(here: &Here, dice: &mut Dice) -> io::Result<()> {
    let plan = &here.plan;
    let stream = TcpStream::connect(here.address).await?;
    let lane = plan.ledger.open();
    let mut sent = 0;
    let mut whole = true;
    // The number of the lane goes first, as a whole or not at all.
    let (result, _) = stream.write_all(lane.number().to_le_bytes().to_vec()).await;
    if let Err(error) = result {
        plan.ledger.sent(&lane, 0, false);
        return Err(error);
    }
    let mut failure = None;
    for _ in 0..1 + dice.roll(4) {
        let bytes = lane.bytes(sent, 1 + dice.roll(9_000) as usize);
        let length = bytes.len();
        let patience = dice.micros(3_000);
        let sending = async {
            let (result, _) = match dice.roll(3) {
                0 => {
                    let half = length / 2;
                    let parts = vec![bytes[..half].to_vec(), bytes[half..].to_vec()];
                    let (result, _) = stream.write_all_vectored(parts).await;
                    (result.map(|()| length), Vec::new())
                }
                1 => stream.write(bytes).await,
                _ => {
                    let (result, bytes) = stream.write_all(bytes).await;
                    (result.map(|()| length), bytes)
                }
            };
            match result {
                Ok(count) => Ok(count),
                // Not a byte is forgotten, whatever ended it.
                Err(error) => match transferred(&error) {
                    0 => Err(error),
                    count => Ok(count),
                },
            }
        };
        match Scope::new().timeout(patience).run(sending).await {
            Ok(Some(count)) => sent += count,
            Ok(None) => {}
            Err(error) => {
                whole = error.cancelled().is_some();
                failure = Some(error);
                break;
            }
        }
    }
    plan.ledger.sent(&lane, sent, whole && !plan.failures);
    if dice.roll(2) == 0 {
        stream.shutdown(Shutdown::Write)?;
    }
    failure.map_or(Ok(()), Err)
}

/// A task that panicked has found something; one whose end could not be waited for has not.
fn joined<T>(ended: Result<T, JoinError>) -> io::Result<T> {
    match ended {
        Err(error @ JoinError::Panicked(_)) => error.resume(),
        ended => ended.map_err(io::Error::from),
    }
}

fn transferred(error: &io::Error) -> usize {
    let inner = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<Interrupted>());
    inner.map_or(0, |interrupted| interrupted.transferred)
}
