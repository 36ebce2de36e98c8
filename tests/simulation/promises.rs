//! Promises that are looked at on the spot: a cancel ends everything below it at once, a scope ends
//! when the kernel is done with it, sends of one socket do not mix, and nobody starves.

use std::cell::Cell;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use quoit::op;
use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{Cancelled, Scope, spawn, yield_now};
use quoit_net::tcp::{TcpListener, TcpStream};
use tests::poll_once;

use super::workload::{Dice, Here, Weather, joined};

/// Longer than anything here waits.
const LONG: Duration = Duration::from_millis(10);

/// How long a shield outlasts the cancel around it.
const SHIELDED: Duration = Duration::from_micros(500);

type Branch<'a> = Pin<Box<dyn Future<Output = io::Result<Duration>> + 'a>>;

/// A scope with several waits in it is cancelled: each ends at that moment, but for shielded ones.
pub(super) async fn cancelled_at_once(here: &Here, dice: &mut Dice) -> io::Result<()> {
    let (idle, _open) = op::pipe()?;
    let limit = Duration::from_micros(1 + dice.roll(2_000));
    let begun = Instant::now();
    let mut scope = Scope::new();
    if dice.roll(2) == 0 {
        scope = scope.timeout(limit);
    } else {
        let handle = scope.handle();
        quoit::sim::after(limit, move || {
            handle.cancel();
        });
    }
    let mut branches: Vec<Option<Branch<'_>>> = (0..2 + dice.roll(3))
        .map(|_| {
            let kind = dice.roll(6);
            let idle = &idle;
            let branch: Branch<'_> = Box::pin(async move {
                wait_long(kind, idle, begun, limit).await?;
                Ok(begun.elapsed())
            });
            Some(branch)
        })
        .collect();
    let mut latest = Duration::ZERO;
    let all = poll_fn(|cx| {
        for branch in &mut branches {
            if let Some(waits) = branch
                && let Poll::Ready(ended) = waits.as_mut().poll(cx)
            {
                *branch = None;
                latest = latest.max(ended.unwrap_or_default());
                if here.plan.weather == Weather::Calm && latest == Duration::ZERO {
                    let late = begun.elapsed().saturating_sub(limit);
                    assert_eq!(late, Duration::ZERO, "a cancel reached a wait late");
                }
            }
        }
        if branches.iter().all(Option::is_none) {
            // What this scope was cancelled by is told by whoever asks next.
            return Poll::Ready(quoit::check());
        }
        Poll::Pending
    });
    let ended = scope.run(all).await?;
    let elapsed = begun.elapsed();
    if here.plan.weather == Weather::Calm {
        let late = elapsed.saturating_sub(limit + SHIELDED);
        assert_eq!(late, Duration::ZERO, "a cancelled scope ended late");
    }
    if ended.is_none() {
        assert!(elapsed >= limit, "a scope was cancelled early");
    }
    Ok(())
}

/// Waits for what does not come. An error, unless it was shielded.
async fn wait_long(
    kind: u64,
    idle: &quoit::op::SharedFd,
    begun: Instant,
    limit: Duration,
) -> io::Result<()> {
    match kind {
        0 => sleep(LONG).await?,
        1 => drop(op::read(idle, vec![0; 8]).await.0?),
        2 => {
            let inner = Scope::new();
            // Made here, it is below this scope all the same.
            let _handle = inner.handle();
            inner.run(Event::new().wait()).await?;
        }
        3 => {
            let inner = Scope::new();
            let poll = inner.run(op::poll(idle, libc::POLLIN as u32));
            Scope::new().run(poll).await?;
        }
        4 => {
            let task = spawn(sleep(LONG));
            task.await??;
        }
        _ => {
            let deadline = begun + limit + SHIELDED;
            let shield = Scope::new().shielded().deadline(deadline);
            let ended = shield.run(sleep(LONG)).await?;
            assert!(ended.is_none(), "a shield was not cut off in its turn");
            assert!(Instant::now() >= deadline, "a shield did not hold");
        }
    }
    Ok(())
}

/// Ops are given up inside of a scope: when it has ended, the kernel has nothing of theirs.
pub(super) async fn orphans_end_with_their_scope(dice: &mut Dice) -> io::Result<()> {
    let (read, _open) = op::pipe()?;
    let kind = dice.roll(3);
    let body = async {
        match kind {
            0 => drop(poll_once(pin!(op::read(&read, vec![0; 8]))).await),
            1 => {
                let inner = Scope::new();
                let reading = inner.run(async { op::read(&read, vec![0; 8]).await.0 });
                drop(poll_once(pin!(reading)).await);
            }
            _ => {
                let (inner, outer) = (Scope::new(), Scope::new());
                let reading = inner.run(async { op::read(&read, vec![0; 8]).await.0 });
                drop(poll_once(pin!(outer.run(reading))).await);
            }
        }
        Ok::<_, Cancelled>(())
    };
    Scope::new().run(body).await?;
    assert!(
        read.is_unique(),
        "a scope has ended, and the kernel has an op of it"
    );
    Ok(())
}

/// Several tasks send on one stream, and give up now and then: no two sends mix.
pub(super) async fn sends_do_not_mix(here: &Here, dice: &mut Dice) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let stream = Rc::new(TcpStream::connect(listener.local_addr()).await?);
    let peer = listener.accept().await?;
    let cut = Rc::new(Cell::new(0));
    let receiver = spawn(receive_frames(peer));
    let senders: Vec<_> = (0..2 + dice.roll(2))
        .map(|sender| {
            let (stream, cut) = (Rc::clone(&stream), Rc::clone(&cut));
            let mut dice = here.plan.dice();
            spawn(async move {
                for number in 1..2 + dice.roll(4) {
                    let name = (sender * SENDS + number) as u8;
                    if !send_frame(&stream, name, &mut dice).await {
                        cut.set(cut.get() + 1);
                    }
                }
            })
        })
        .collect();
    drop(stream);
    for sender in senders {
        joined(sender.await)?;
    }
    let ended = joined(receiver.await)?;
    assert!(ended <= cut.get(), "a send that was whole was cut short");
    Ok(())
}

/// Sends a frame; false if it may have been cut short.
async fn send_frame(stream: &TcpStream, name: u8, dice: &mut Dice) -> bool {
    // Now and then more than the connection holds.
    let most = if dice.roll(16) == 0 { 200_000 } else { 3_000 };
    let length = 3 + dice.roll(most) as usize;
    let mut frame: Vec<u8> = (0..length).map(frame_byte).collect();
    frame[1] = name;
    frame[length - 1] = LAST;
    let patience = dice.micros(400);
    match dice.roll(4) {
        0 => {
            let mut sending = pin!(stream.write_all(frame));
            drop(poll_once(sending.as_mut()).await);
            // A cancel only makes it shorter.
            let _ = yield_now().await;
            false
        }
        1 => {
            let sending = async { stream.write_all(frame).await.0 };
            let sent = Scope::new().timeout(patience).run(sending).await;
            matches!(sent, Ok(Some(())))
        }
        2 => {
            let halves = vec![frame[..1].to_vec(), frame[1..].to_vec()];
            stream.write_all_vectored(halves).await.0.is_ok()
        }
        _ => matches!(stream.write_zero_copy(frame).await.0, Ok(count) if count == length),
    }
}

const LAST: u8 = 255;

/// More than one sender sends.
const SENDS: u64 = 8;

fn frame_byte(place: usize) -> u8 {
    if place == 0 {
        0
    } else {
        1 + ((place - 1) % 250) as u8
    }
}

/// Receives frames to the end; returns how many were cut short.
async fn receive_frames(stream: TcpStream) -> usize {
    let (mut place, mut cut) = (0, 0);
    let mut before = [0; 4];
    while let Ok(Some(chunk)) = stream.recv().await {
        for &byte in chunk.iter() {
            if byte == 0 && place > 0 {
                (place, cut) = (0, cut + 1);
            }
            if byte == LAST && place > 0 {
                place = 0;
                continue;
            }
            if place == 1 {
                let (sender, number) = (u64::from(byte) / SENDS, u64::from(byte) % SENDS);
                let last = before.get_mut(sender as usize).expect("a sender's name");
                assert!(number > *last, "a send followed what was sent after it");
                *last = number;
            } else {
                assert_eq!(byte, frame_byte(place), "two sends were mixed");
            }
            place += 1;
        }
    }
    cut
}

/// Ops go on while a task keeps the core busy.
pub(super) async fn beside_a_busy_task(here: &Here) -> io::Result<()> {
    if here.plan.weather != Weather::Calm {
        // What takes its time does not end while a core is busy: no time passes.
        return Ok(yield_now().await?);
    }
    let done = Rc::new(Cell::new(false));
    let seen = Rc::clone(&done);
    let busy = spawn(async move {
        for _ in 0..2_000 {
            if seen.get() || yield_now().await.is_err() {
                return true;
            }
        }
        false
    });
    let mut ended = Ok(());
    for _ in 0..6 {
        ended = ended.and(op::nop().await);
    }
    done.set(true);
    let in_time = joined(busy.await)?;
    assert!(in_time, "ops ended only when the core was idle");
    ended
}

/// A listener is dropped with connections that nobody has taken.
pub(super) async fn dropped_listener(dice: &mut Dice) -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut streams = Vec::new();
    {
        let mut first = pin!(listener.accept());
        drop(poll_once(first.as_mut()).await);
        for _ in 0..1 + dice.roll(3) {
            streams.push(TcpStream::connect(listener.local_addr()).await?);
        }
        if dice.roll(2) == 0 {
            sleep(dice.micros(200)).await?;
        }
    }
    if dice.roll(2) == 0 {
        // The wait that was given up is in nobody's way.
        drop(listener.accept().await?);
    }
    drop(listener);
    Ok(yield_now().await?)
}
