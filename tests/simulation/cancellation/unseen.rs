//! Waits that a cancel has ended and that nobody may ever look at: how often they let their task be refused.
//!
//! A task has a scope for itself, with waits of all kinds in it: some are told of the cancel, and some are not. It ends
//! them in all ways there are, in the middle of asking again and again, and is to pause when it was refused as often as
//! is free, and not before. The model is a sum ([`Free`]).

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use quoit::sync::{Event, shared};
use quoit::time::sleep;
use quoit::{Cancelled, JoinError, JoinHandle, Scope, on, op, spawn};
use tests::poll_once;

use super::failure::Outcome;
use super::foreign::FOREIGN_WAKES;
use super::ops::{self, At};
use crate::workload::{Dice, Weather};

/// Longer than any of these programs.
const LONG: Duration = Duration::from_secs(86_400);

/// What a task may be refused in its scope before it pauses.
#[derive(Debug)]
struct Free {
    free: u32,
    refused: u32,
}

impl Free {
    const NONE_ENDED: Self = Self {
        free: 1024,
        refused: 0,
    };

    /// A wait has ended. It has some refusals free if it was the cancel of this scope that it was told of, and its own
    /// task that has ended it.
    fn ended(&mut self, told: Told, ends: Ends) {
        if told == Told::TheScope && ends != Ends::ByAnother {
            self.free += 16;
        }
    }

    /// The task was refused for nothing: says what is wrong with that.
    fn refused(&mut self) -> Option<String> {
        self.refused += 1;
        let Self { free, refused } = *self;
        (refused > free).then(|| format!("was refused {refused} times for nothing, of {free}"))
    }

    /// The task has to pause: says what is wrong with that.
    fn paused(&self) -> Option<String> {
        let Self { free, refused } = *self;
        (refused < free).then(|| format!("has to pause after {refused} refusals of {free}"))
    }
}

/// Which scope's cancel it is that a wait was told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Nobody,
    TheScope,
    /// One inside that has ended since.
    Another,
}

/// How a wait ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    Looked,
    Dropped,
    InAShield,
    /// In a scope that is cancelled itself, and sees no other cancel.
    InAnotherCancel,
    /// By a branch of the task outside of the scope.
    Outside,
    ByAnother,
}

type Wait = Pin<Box<dyn Future<Output = ()>>>;

/// A child that is cancelled where nobody waits for it any more.
struct Joined(JoinHandle<Result<(), Cancelled>>);

impl Future for Joined {
    type Output = Result<Result<(), Cancelled>, JoinError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(cx)
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.0.cancel();
    }
}

/// Makes a wait of some kind, and tells the model what it may come to.
fn wait(at: &At, dice: &mut Dice) -> Wait {
    let core = at.here.index();
    at.plan().with(|model| model.counts.may_abort[core] += 1);
    match dice.roll(7) {
        0 => Box::pin(async { over(Event::new().wait()).await }),
        1 => Box::pin(async { over(shared::Semaphore::new(0).acquire()).await }),
        2 => Box::pin(async { over(Scope::new().run(sleep(LONG))).await }),
        3 => {
            at.plan().with(|model| model.counts.may_abort[core] += 1);
            let child = Joined(spawn(sleep(LONG)));
            Box::pin(over(child))
        }
        4 => {
            let cores = at.plan().runtime().cores();
            let there = cores[dice.roll(cores.len() as u64) as usize];
            at.plan().with(|model| {
                // By whichever of the two comes to it later.
                for core in [core, there.index()] {
                    model.counts.may_send[core] += 1;
                }
                model.counts.may_abort[there.index()] += 1;
                model.counts.may_wake[there.index()] += FOREIGN_WAKES;
            });
            let child = || async { io::Result::Ok(sleep(LONG).await?) };
            Box::pin(over(on(there, child)))
        }
        5 if at.plan().weather == Weather::Calm
            && let Ok((reader, writer)) = op::pipe() =>
        {
            Box::pin(async move {
                over(op::read(&reader, vec![0; 8])).await;
                drop(writer);
            })
        }
        _ => Box::pin(over(sleep(LONG))),
    }
}

/// Waits, for whatever is told then.
async fn over<T>(wait: impl Future<Output = T>) {
    let _told = wait.await;
}

/// The task, and its scope.
struct Asking<'a> {
    at: &'a At,
    scope: Scope,
    free: RefCell<Free>,
    has_paused: Cell<bool>,
    /// What its other branch is to drop.
    outside: RefCell<Vec<Wait>>,
}

/// Has waits in a scope that it cancels, ends them, and asks until it has to pause.
pub(super) async fn unseen(at: At, mut dice: Dice) -> Outcome {
    let asking = Asking {
        at: &at,
        scope: Scope::new().shielded(),
        free: RefCell::new(Free::NONE_ENDED),
        has_paused: Cell::new(false),
        outside: RefCell::default(),
    };
    let mut body = pin!(asking.scope.run(async {
        asking.body(&mut dice).await;
        Ok::<_, Cancelled>(())
    }));
    let ended = poll_fn(|cx| {
        let polled = body.as_mut().poll(cx);
        drop(asking.outside.take());
        polled
    });
    if ended.await != Ok(Some(())) {
        at.plan()
            .with(|model| model.violated("a body has lost its value".to_owned()));
    }
    Ok(at.plan().number())
}

impl Asking<'_> {
    async fn body(&self, dice: &mut Dice) {
        let mut waits = Vec::new();
        for _ in 0..dice.roll(8) {
            if let Some(begun) = self.begin(dice).await {
                waits.push(begun);
            }
        }
        self.scope.cancel();
        while !waits.is_empty() {
            match dice.roll(8) {
                0 => self.ask(1 + dice.roll(80) as u32).await,
                // All that was free before.
                1 => self.ask(1024).await,
                2 => ops::yields_uncancellable(self.at).await,
                _ => {
                    let (wait, told) = waits.swap_remove(dice.roll(waits.len() as u64) as usize);
                    self.end(wait, told, dice).await;
                }
            }
            if self.has_paused.get() {
                // It had to, since the others had yet to end; what they have free comes later.
                return;
            }
        }
        self.ask(u32::MAX).await;
    }

    /// Begins a wait; `None` where it has ended, or was given up before it was told of anything.
    async fn begin(&self, dice: &mut Dice) -> Option<(Wait, Told)> {
        let mut wait = wait(self.at, dice);
        match dice.roll(8) {
            // In a scope further in, which ends: it stands in this one then.
            0 => {
                let inner = Scope::new();
                let begun = inner.run(async { Ok::<_, Cancelled>(poll_once(wait.as_mut()).await) });
                let is_over = begun.await != Ok(Some(Poll::Pending));
                (!is_over).then_some((wait, Told::TheScope))
            }
            1 => {
                let inner = Scope::new();
                let begun = inner.run(async {
                    let begun = poll_once(wait.as_mut()).await;
                    inner.cancel();
                    Ok::<_, Cancelled>(begun)
                });
                let is_over = begun.await != Ok(Some(Poll::Pending));
                (!is_over).then_some((wait, Told::Another))
            }
            2 => {
                let shield = async {
                    let shield = Scope::new().shielded();
                    let body = async {
                        wait.await;
                        Ok::<_, Cancelled>(())
                    };
                    over(shield.run(body)).await;
                };
                let mut wait: Wait = Box::pin(shield);
                let is_over = poll_once(wait.as_mut()).await.is_ready();
                (!is_over).then_some((wait, Told::Nobody))
            }
            3 => {
                let _begun = poll_once(wait.as_mut()).await;
                None
            }
            _ => {
                let is_over = poll_once(wait.as_mut()).await.is_ready();
                (!is_over).then_some((wait, Told::TheScope))
            }
        }
    }

    /// Ends a wait in some way.
    async fn end(&self, wait: Wait, told: Told, dice: &mut Dice) {
        let ends = match dice.roll(9) {
            // Who was told of nothing would wait on.
            0 | 1 if told != Told::Nobody => Ends::Looked,
            2 => Ends::InAShield,
            3 => Ends::InAnotherCancel,
            4 => Ends::Outside,
            5 => Ends::ByAnother,
            _ => Ends::Dropped,
        };
        self.at
            .plan()
            .with(|model| model.note(|| format!("a wait told by {told:?} ends {ends:?}")));
        match ends {
            Ends::Looked => wait.await,
            Ends::Dropped => drop(wait),
            Ends::InAShield | Ends::InAnotherCancel => {
                let inner = Scope::new().shielded();
                let dropped = inner.run(async {
                    if ends == Ends::InAnotherCancel {
                        inner.cancel();
                    }
                    drop(wait);
                    Ok::<_, Cancelled>(())
                });
                dropped.await.expect("it has a value");
            }
            Ends::Outside => {
                self.outside.borrow_mut().push(wait);
                ops::yields_uncancellable(self.at).await;
            }
            Ends::ByAnother => drop(spawn(async { drop(wait) })),
        }
        self.free.borrow_mut().ended(told, ends);
    }

    /// Asks so often, or until it had to pause.
    async fn ask(&self, times: u32) {
        for _ in 0..times {
            let mut asks = pin!(sleep(LONG));
            poll_fn(|cx| self.poll(asks.as_mut(), cx)).await;
            if self.has_paused.get() {
                return;
            }
        }
    }

    fn poll(
        &self,
        asks: Pin<&mut impl Future<Output = Result<(), Cancelled>>>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let before = self.pauses();
        let polled = asks.poll(cx);
        let mut free = self.free.borrow_mut();
        let wrong = match &polled {
            // It pauses from here on, or others have a turn first.
            Poll::Pending if self.pauses() > before => {
                self.has_paused.set(true);
                free.paused()
            }
            Poll::Pending => None,
            Poll::Ready(Err(_)) if self.has_paused.get() => None,
            Poll::Ready(Err(_)) => free.refused(),
            Poll::Ready(Ok(())) => Some("was not refused".to_owned()),
        };
        if let Some(wrong) = wrong {
            self.has_paused.set(true);
            let text = format!("a task that has ended its waits {wrong}");
            self.at.plan().with(|model| model.violated(text));
        }
        polled.map(drop)
    }

    fn pauses(&self) -> u64 {
        self.at.plan().runtime().metrics()[self.at.here.index()].pauses
    }
}
