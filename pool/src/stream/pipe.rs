//! What lies between a producer and its consumer, on one core: one item, and how it ends.

use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use quoit::sync::{OwnedPermit, Semaphore};
use quoit::{Cancelled, op};

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
    /// With the room that it takes.
    item: Option<(T, OwnedPermit)>,
    end: Option<End<E>>,
    /// The end was told, or nobody wants it.
    over: bool,
    /// Nobody takes items any more.
    left: bool,
    consumer: Option<Waker>,
}

#[derive(Debug)]
pub(super) struct Pipe<T, E> {
    inside: RefCell<Inside<T, E>>,
    /// For one item. Who waits to send stands in its line: a producer may have several at it.
    room: Rc<Semaphore>,
}

impl<T, E> Pipe<T, E> {
    pub(super) fn new() -> Rc<Self> {
        let inside = Inside {
            item: None,
            end: None,
            over: false,
            left: false,
            consumer: None,
        };
        Rc::new(Self {
            inside: RefCell::new(inside),
            room: Rc::new(Semaphore::new(1)),
        })
    }

    /// Wakes outside of the borrow: a waker may be anybody's.
    fn wake(&self, which: impl FnOnce(&mut Inside<T, E>) -> Option<Waker>) {
        let waker = which(&mut self.inside.borrow_mut());
        if let Some(waker) = waker {
            op::wake(waker);
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
        let mut inside = self.inside.borrow_mut();
        if let Some((item, room)) = inside.item.take() {
            drop(inside);
            drop(room);
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
        let mut inside = self.inside.borrow_mut();
        inside.left = true;
        let item = inside.item.take();
        drop(inside);
        if let Some((item, room)) = item {
            // First the room: a destructor may panic.
            drop(room);
            drop(item);
        }
    }

    /// Returns whether no item is taken any more.
    fn is_closed(&self) -> bool {
        let inside = self.inside.borrow();
        inside.left || inside.end.is_some() || inside.over
    }

    fn put(&self, item: T, room: OwnedPermit) {
        if self.is_closed() {
            drop(room);
            drop(item);
            return;
        }
        self.wake(|inside| {
            inside.item = Some((item, room));
            inside.consumer.take()
        });
    }

    /// Takes how the producer ended, if nobody was told.
    pub(super) fn take_end(&self) -> Option<End<E>> {
        self.inside.borrow_mut().end.take()
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
    /// up here. Several that send do so in order. An item for a consumer that has left is dropped, and so is one that
    /// comes after the producer's end.
    ///
    /// # Errors
    ///
    /// [`Cancelled`]: the consumer has left, or the producer is cancelled otherwise. The item is dropped; whoever
    /// cannot do without it calls [`reserve`](Self::reserve) first.
    pub async fn send(&self, item: T) -> Result<(), Cancelled> {
        self.reserve().await?.send(item);
        Ok(())
    }

    /// Waits until there is room for an item, and keeps it: what is sent then waits for nobody, so no cancel loses
    /// it on the way.
    ///
    /// ```
    /// use std::cell::RefCell;
    /// use std::collections::VecDeque;
    /// use quoit::Cancelled;
    /// use quoit_pool::{Items, LentStream, with_stream};
    ///
    /// quoit::block_on(async {
    ///     let todo = RefCell::new(VecDeque::from([1, 2, 3]));
    ///     let first = with_stream(
    ///         async |items: Items<u32, Cancelled>| {
    ///             loop {
    ///                 let permit = items.reserve().await?;
    ///                 let Some(next) = todo.borrow_mut().pop_front() else {
    ///                     return Ok(());
    ///                 };
    ///                 permit.send(next);
    ///             }
    ///         },
    ///         async |stream: &mut LentStream<u32, Cancelled>| stream.next().await.transpose(),
    ///     );
    ///     assert_eq!(first.await, Ok(Some(1)));
    ///     assert_eq!(todo.into_inner(), [2, 3], "what nobody had room for is still there");
    /// })?;
    /// # Ok::<_, quoit::BuildError>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Cancelled`], as of [`send`](Self::send).
    pub async fn reserve(&self) -> Result<ItemPermit<'_, T, E>, Cancelled> {
        let room = Rc::clone(&self.pipe.room).acquire_owned().await?;
        if self.is_closed() {
            // It may have had the room just before the consumer left.
            quoit::check()?;
            // What is shielded hears of no cancel, and is not held up by nobody; nor is the core by it.
            quoit::yield_uncancellable().await;
        }
        Ok(ItemPermit {
            pipe: &self.pipe,
            room,
        })
    }

    /// Returns whether what is sent is dropped: the consumer has left, or the producer has ended.
    pub fn is_closed(&self) -> bool {
        self.pipe.is_closed()
    }
}

/// Room for one item, from [`Items::reserve`]. Dropped, it goes to the next who waits to send.
#[must_use = "dropped, it gives the room back"]
pub struct ItemPermit<'a, T, E> {
    pipe: &'a Pipe<T, E>,
    room: OwnedPermit,
}

impl<T, E> fmt::Debug for ItemPermit<'_, T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemPermit").finish_non_exhaustive()
    }
}

impl<T, E> ItemPermit<'_, T, E> {
    /// Hands an item over. For a consumer that has left meanwhile it is dropped.
    pub fn send(self, item: T) {
        self.pipe.put(item, self.room);
    }
}
