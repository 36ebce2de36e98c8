//! What lies between a producer and its consumer, on one core: one item, and how it ends.

use std::any::Any;
use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use quoit::{Cancelled, run_until_cancelled};

/// How a producer ended.
#[derive(Debug)]
pub(super) enum End<E> {
    /// It has said all it had to say, or was told to stop.
    Finished,
    Failed(E),
    Panicked(Box<dyn Any + Send>),
}

#[derive(Debug)]
struct Inside<T, E> {
    item: Option<T>,
    end: Option<End<E>>,
    /// The end was told, or nobody wants it.
    over: bool,
    /// Nobody takes items any more.
    left: bool,
    consumer: Option<Waker>,
    /// Who waits to send: a producer may have several at it.
    producers: Vec<Waker>,
}

#[derive(Debug)]
pub(super) struct Pipe<T, E>(RefCell<Inside<T, E>>);

impl<T, E> Pipe<T, E> {
    pub(super) fn new() -> Rc<Self> {
        Rc::new(Self(RefCell::new(Inside {
            item: None,
            end: None,
            over: false,
            left: false,
            consumer: None,
            producers: Vec::new(),
        })))
    }

    /// Wakes outside of the borrow: a waker may be anybody's.
    fn wake(&self, which: impl FnOnce(&mut Inside<T, E>) -> Option<Waker>) {
        let waker = which(&mut self.0.borrow_mut());
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// The producer has ended.
    pub(super) fn finish(&self, end: End<E>) {
        self.wake(|inside| {
            inside.end = Some(end);
            inside.consumer.take()
        });
    }

    /// Takes the next item, or after all of them how the producer ended; `None` after that.
    pub(super) fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Result<T, End<E>>>> {
        // A waker may be anybody's code, also where it is cloned or dropped.
        let waker = cx.waker().clone();
        let mut inside = self.0.borrow_mut();
        if let Some(item) = inside.item.take() {
            let producers = std::mem::take(&mut inside.producers);
            drop(inside);
            producers.into_iter().for_each(Waker::wake);
            return Poll::Ready(Some(Ok(item)));
        }
        if inside.over {
            return Poll::Ready(None);
        }
        match inside.end.take() {
            Some(end) => {
                inside.over = true;
                Poll::Ready(match end {
                    End::Finished => None,
                    end => Some(Err(end)),
                })
            }
            None => {
                let before = inside.consumer.replace(waker);
                drop(inside);
                drop(before);
                Poll::Pending
            }
        }
    }

    /// Nobody takes items any more: the one that waits is dropped, and the producer hears of it.
    pub(super) fn leave(&self) {
        let mut inside = self.0.borrow_mut();
        inside.left = true;
        let (item, producers) = (inside.item.take(), std::mem::take(&mut inside.producers));
        drop(inside);
        drop(item);
        producers.into_iter().for_each(Waker::wake);
    }

    /// Takes how the producer ended, if nobody was told.
    pub(super) fn take_end(&self) -> Option<End<E>> {
        self.0.borrow_mut().end.take()
    }
}

/// Says that a producer has ended, also where it is dropped with its core.
#[derive(Debug)]
pub(super) struct Ending<T, E> {
    pipe: Rc<Pipe<T, E>>,
    told: bool,
}

impl<T, E> Ending<T, E> {
    pub(super) fn new(pipe: &Rc<Pipe<T, E>>) -> Self {
        Self {
            pipe: Rc::clone(pipe),
            told: false,
        }
    }

    pub(super) fn tell(mut self, end: End<E>) {
        self.told = true;
        self.pipe.finish(end);
    }
}

impl<T, E> Drop for Ending<T, E> {
    fn drop(&mut self) {
        if !self.told {
            self.pipe.finish(End::Finished);
        }
    }
}

/// Polls the user's code; a panic in it comes back.
pub(super) fn poll_caught<F: Future>(
    future: Pin<&mut F>,
    cx: &mut Context<'_>,
) -> Poll<Result<F::Output, Box<dyn Any + Send>>> {
    match catch_unwind(AssertUnwindSafe(|| future.poll(cx))) {
        Ok(polled) => polled.map(Ok),
        Err(payload) => Poll::Ready(Err(payload)),
    }
}

/// Where a producer puts its items.
#[derive(Debug)]
pub struct Items<T, E> {
    pipe: Rc<Pipe<T, E>>,
}

impl<T, E> Items<T, E> {
    pub(super) fn new(pipe: &Rc<Pipe<T, E>>) -> Self {
        Self {
            pipe: Rc::clone(pipe),
        }
    }

    /// Hands an item over, once the one before it was taken: a consumer that does not ask holds its producer
    /// up here. An item for a consumer that has left is dropped, and so is one that comes after the producer's end.
    ///
    /// # Errors
    ///
    /// [`Cancelled`]: the consumer has left, or the producer is cancelled otherwise. The item is dropped.
    pub async fn send(&self, item: T) -> Result<(), Cancelled> {
        let mut item = Some(item);
        run_until_cancelled(poll_fn(|cx| {
            let waker = cx.waker().clone();
            let mut inside = self.pipe.0.borrow_mut();
            let nobody_takes = inside.left || inside.end.is_some() || inside.over;
            if nobody_takes && !quoit::is_cancelled() {
                // What is shielded hears of no cancel, and is not held up by nobody.
                drop(inside);
                drop(item.take());
                return Poll::Ready(());
            }
            if nobody_takes || inside.item.is_some() {
                if !inside.producers.iter().any(|known| known.will_wake(&waker)) {
                    inside.producers.push(waker);
                }
                return Poll::Pending;
            }
            inside.item = item.take();
            let consumer = inside.consumer.take();
            drop(inside);
            if let Some(consumer) = consumer {
                consumer.wake();
            }
            Poll::Ready(())
        }))
        .await
    }
}
