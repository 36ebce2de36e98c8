//! Single steps of an actor: pipes, files, ops that are given up, and other cores.

use std::future::poll_fn;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::{Poll, Waker};
use std::time::Duration;

use quoit::fs::OpenOptions;
use quoit::op;
use quoit::time::{Instant, sleep};
use quoit::{CarriesCancelled, Closed, Scope, on, spawn, yield_now};
use quoit_net::tcp::TcpStream;
use tests::poll_once;

use super::workload::{Dice, Here, Plan, Weather, joined, transferred};

/// Yields, hands a wait over, or does as foreign code that wakes itself.
pub(super) async fn lets_others_run(here: &Here, dice: &mut Dice) -> io::Result<()> {
    match dice.roll(4) {
        0 => return Ok(yield_now().await?),
        1 => return handed_over(here, dice).await,
        _ => {}
    }
    let mut woken = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut woken, true) {
            return Poll::Ready(Ok(()));
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

/// A wait that was begun in one place and is ended in another.
async fn handed_over(here: &Here, dice: &mut Dice) -> io::Result<()> {
    let (begun, limit) = (Instant::now(), dice.micros(1_000));
    let long = limit + Duration::from_millis(10);
    if dice.roll(2) == 0 {
        // The end comes to the task that waits now.
        let mut wait = Box::pin(sleep(limit));
        if let Poll::Ready(ended) = poll_once(wait.as_mut()).await {
            return Ok(ended?);
        }
        joined(spawn(wait).await)??;
    } else {
        // A cancel comes from the scope that is around now.
        let inner = Scope::new();
        let mut wait = Box::pin(inner.run(sleep(long)));
        if let Poll::Ready(ended) = poll_once(wait.as_mut()).await {
            return Ok(ended.map(drop)?);
        }
        Scope::new().timeout(limit).run(wait).await?;
    }
    let late = begun.elapsed().saturating_sub(limit);
    let in_time = late.is_zero() || here.plan.weather != Weather::Calm;
    assert!(in_time, "a wait that was handed over ended {late:?} late");
    Ok(())
}

/// A sleep: never too short, and as long as it should be where nobody is held up.
pub(super) async fn sleeps(here: &Here, dice: &mut Dice) -> io::Result<()> {
    let (begun, duration) = (Instant::now(), dice.micros(3_000));
    sleep(duration).await?;
    let elapsed = begun.elapsed();
    assert!(elapsed >= duration, "a sleep ended early");
    let in_time = elapsed == duration || here.plan.weather != Weather::Calm;
    assert!(in_time, "a sleep of {duration:?} took {elapsed:?}");
    Ok(())
}

/// Ops that are begun and given up, before or after they have ended.
pub(super) async fn dropped_early(here: &Here, dice: &mut Dice) -> io::Result<()> {
    let (read, write) = op::pipe()?;
    let path = format!("/given-up-{}", dice.roll(1 << 40));
    match dice.roll(6) {
        0 => give_up(dice, op::read(&read, vec![0; 64])).await,
        1 => give_up(dice, op::poll(&read, libc::POLLIN as u32)).await,
        2 => give_up(dice, quoit::fs::File::create(path)).await,
        3 => give_up(dice, TcpStream::connect(here.address)).await,
        4 => give_up(dice, op::close(read.clone())).await,
        _ => give_up(dice, op::close(read)).await,
    }
    if dice.roll(2) == 0 {
        drop(write);
    }
    Ok(yield_now().await?)
}

/// Polls once, waits maybe, and drops.
async fn give_up<F: Future>(dice: &mut Dice, op: F) {
    let pause = dice.roll(3);
    let after = dice.micros(400);
    let mut op = pin!(op);
    if poll_once(op.as_mut()).await.is_pending() {
        // It may end meanwhile, and nobody looks. A cancel makes the pause shorter.
        match pause {
            0 => {}
            1 => drop(yield_now().await),
            _ => drop(sleep(after).await),
        }
    }
}

/// A task on another core, and somebody who waits for it here as foreign code does: by a waker.
pub(super) async fn on_another_core(here: &Here, dice: &mut Dice) -> io::Result<()> {
    let cores = here.runtime.cores();
    let (there, home) = (cores[dice.roll(cores.len() as u64) as usize], here.core);
    let answer = Arc::new(Answer::default());
    let (promise, back, runtime) = (
        Promise(Arc::clone(&answer)),
        dice.roll(2) == 0,
        here.runtime.clone(),
    );
    let at_once = dice.roll(2) == 0;
    let pause = dice.micros(if at_once { 1 } else { 200 });
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
        && joined(busy.await).is_ok_and(|in_time| !in_time)
    {
        // Unless the other core was held up, the answer was there long before.
        let held_up = here.plan.weather != Weather::Calm || !at_once;
        assert!(held_up, "an answer came only when the core was idle");
    }
    Ok(())
}

/// A child on another core, which takes its time, and maybe a little more once it is cancelled.
pub(super) async fn called_from_another_core(here: &Here, dice: &mut Dice) -> io::Result<()> {
    let cores = here.runtime.cores();
    let there = cores[dice.roll(cores.len() as u64) as usize];
    let (pause, goodbye) = (dice.micros(600), dice.micros(200));
    let patience = dice.micros(800);
    let call = on(there, move || async move {
        op::nop().await?;
        let ended = sleep(pause).await;
        if ended.is_err() {
            Scope::new().shielded().run(sleep(goodbye)).await?;
        }
        Ok::<_, io::Error>(ended?)
    });
    let ended: Option<()> = Scope::new().timeout(patience).run(call).await?;
    let in_time = ended.is_some() || pause >= patience || here.plan.weather != Weather::Calm;
    assert!(in_time, "a child on another core was cancelled too early");
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

/// A file is closed while somebody else still reads it: the read has its result, or is told.
pub(super) async fn close_while_in_use(here: &Here, dice: &mut Dice) -> io::Result<()> {
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
            error.cancelled().is_some() || is_closed(&error) || here.plan.is_rough(),
            "reading failed: {error}"
        );
    }
    Ok(())
}

fn is_closed(error: &io::Error) -> bool {
    error.get_ref().is_some_and(|inner| inner.is::<Closed>())
}

/// Bytes through a pipe: what was written is what is read.
pub(super) async fn through_a_pipe(dice: &mut Dice, plan: &Plan) -> io::Result<()> {
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
                    error.cancelled().is_some() || plan.is_rough(),
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
pub(super) async fn in_a_file(here: &Here, dice: &mut Dice) -> io::Result<()> {
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
