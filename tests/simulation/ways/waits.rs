//! An op that lasts until a moment, in one way or another.

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use quoit::sync::{Event, Semaphore, oneshot};
use quoit::time::{Alarm, Instant, sleep, sleep_until};
use quoit::{Cancelled, CarriesCancelled, JoinError, Scope, op, run_until_cancelled, spawn};
use tests::poll_once;

use super::choices::WAIT;
use super::play::Play;

impl Play {
    /// Waits until then, in one way or another.
    pub(super) async fn wait(&self, id: usize, until: Instant) -> Result<(), Cancelled> {
        let later = move || async move { sleep_until(until).await.expect("nobody cancels") };
        match self.ways.of(id, WAIT) {
            0 => sleep_until(until).await,
            1 => Box::pin(async { sleep(until.duration_since(Instant::now())).await }).await,
            2 => {
                let ended: Option<()> = Scope::new().run(sleep_until(until)).await?;
                ended.expect("nobody has cancelled this");
                Ok(())
            }
            3 => {
                let mut wait = Box::pin(sleep_until(until));
                let scope = Scope::new();
                let first = async { Ok::<_, Cancelled>(poll_once(wait.as_mut()).await) };
                let first = scope.run(first).await?;
                match first.expect("it gives a value") {
                    Poll::Ready(ended) => ended,
                    Poll::Pending => wait.await,
                }
            }
            4 => {
                let event = Event::new();
                let (mut one, mut other) = (Box::pin(event.wait()), Box::pin(sleep_until(until)));
                poll_fn(|cx| match one.as_mut().poll(cx) {
                    Poll::Pending => other.as_mut().poll(cx),
                    ended => ended,
                })
                .await
            }
            5 => run_until_cancelled(Alarm::at(until)).await,
            6 => {
                let event = Rc::new(Event::new());
                let sets = Rc::clone(&event);
                drop(spawn(async move {
                    later().await;
                    sets.set();
                }));
                event.wait().await
            }
            7 => match spawn(later()).await {
                Err(JoinError::Cancelled(cancelled)) => Err(cancelled),
                ended => {
                    ended.expect("it ends");
                    Ok(())
                }
            },
            8 => {
                let (sender, mut receiver) = oneshot::channel();
                drop(spawn(async move {
                    later().await;
                    let _ = sender.send(());
                }));
                match receiver.recv().await {
                    Err(oneshot::RecvError::Cancelled(cancelled)) => Err(cancelled),
                    ended => {
                        ended.expect("it is sent");
                        Ok(())
                    }
                }
            }
            9 => {
                let permits = Rc::new(Semaphore::new(1));
                let held = Rc::clone(&permits).acquire_owned().await?;
                drop(spawn(async move {
                    later().await;
                    drop(held);
                }));
                permits.acquire().await.map(drop)
            }
            10 => {
                let (reader, writer) = op::pipe().expect("a pipe");
                drop(spawn(async move {
                    later().await;
                    // Whoever was cancelled reads no more.
                    let _ = op::write(&writer, "x").await;
                }));
                match op::read(&reader, [0; 1]).await.0 {
                    Err(error) => Err(error.cancelled().expect("it fails in no other way")),
                    Ok(_) => Ok(()),
                }
            }
            _ => {
                let mut wait = Box::pin(sleep_until(until));
                poll_fn(|cx| with_fresh_waker(cx, |cx| wait.as_mut().poll(cx))).await
            }
        }
    }
}

/// Passes wakes on, and is another each time.
pub(super) struct Fresh(Waker);

impl Wake for Fresh {
    fn wake(self: Arc<Self>) {
        self.0.wake_by_ref();
    }
}

/// Polls with a waker of its own.
pub(super) fn with_fresh_waker<T>(cx: &Context<'_>, poll: impl FnOnce(&mut Context<'_>) -> T) -> T {
    let waker = Waker::from(Arc::new(Fresh(cx.waker().clone())));
    poll(&mut Context::from_waker(&waker))
}
