//! `OwnedStream`: its producer is a task.

use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use quoit::{CancelHandle, CarriesCancelled, ForeignWait, JoinHandle, Scope};

use super::pipe::{End, Ending, Items, Pipe, poll_caught};

/// A stream whose items a task of this core makes, which owns all it uses.
///
/// The task begins when the stream is asked for first. It makes one item ahead, and waits at
/// [`Items::send`] until that is taken; meanwhile the core is quiet. When it fails, its error is the last
/// item.
///
/// Dropped early, the stream cancels its task and leaves it to the core, whose end waits for it within the
/// grace period; the core's [`shutdown`](quoit::Handle::shutdown) cancels it as any task. To wait for its end
/// use [`OwnedStream::close`], or a block: [`with_stream`](super::with_stream).
///
/// ```
/// use quoit::Cancelled;
/// use quoit_pool::{Items, OwnedStream};
///
/// quoit::block_on(async {
///     let mut numbers = OwnedStream::new(async |items: Items<u32, Cancelled>| {
///         for number in 0.. {
///             items.send(number).await?;
///         }
///         Ok(())
///     });
///     assert_eq!(numbers.next().await, Some(Ok(0)));
///     assert_eq!(numbers.next().await, Some(Ok(1)));
///     numbers.close().await;
/// })?;
/// # Ok::<_, quoit::BuildError>(())
/// ```
///
/// It is a [`futures_core::Stream`], so combinators work with it. It stays on its core.
#[must_use = "nothing is made before the stream is asked"]
pub struct OwnedStream<T, E> {
    pipe: Rc<Pipe<T, E>>,
    producer: Producer,
    wait: ForeignWait,
}

type Making = Pin<Box<dyn Future<Output = ()>>>;

enum Producer {
    /// Nobody has asked.
    Waiting(Making),
    Running {
        task: JoinHandle<()>,
        cancel: Option<CancelHandle>,
    },
    Ended,
}

impl Producer {
    /// Starts it, if nobody has asked before.
    fn begin(&mut self) {
        if let Self::Waiting(_) = self
            && let Self::Waiting(making) = std::mem::replace(self, Self::Ended)
        {
            let task = quoit::spawn(making);
            let cancel = task.cancel_handle();
            *self = Self::Running { task, cancel };
        }
    }
}

impl<T, E> fmt::Debug for OwnedStream<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match &self.producer {
            Producer::Waiting(_) => "waiting",
            Producer::Running { .. } => "running",
            Producer::Ended => "ended",
        };
        f.debug_struct("OwnedStream")
            .field("producer", &state)
            .finish_non_exhaustive()
    }
}

impl<T: 'static, E: CarriesCancelled + 'static> OwnedStream<T, E> {
    /// Makes a stream of what `produce` sends.
    pub fn new<P, F>(produce: P) -> Self
    where
        P: FnOnce(Items<T, E>) -> F + 'static,
        F: Future<Output = Result<(), E>> + 'static,
    {
        let pipe = Pipe::new();
        let items = Items::new(&pipe);
        let ending = Ending::new(&pipe);
        let making = Box::pin(async move {
            let mut producing = pin!(async { produce(items).await });
            let ended = poll_fn(|cx| poll_caught(producing.as_mut(), cx)).await;
            ending.tell(match ended {
                Ok(Ok(())) => End::Finished,
                Ok(Err(error)) => End::Failed(error),
                Err(payload) => End::Panicked(payload),
            });
        });
        Self {
            pipe,
            producer: Producer::Waiting(making),
            wait: ForeignWait::default(),
        }
    }

    /// Waits for the next item; `None` after the last one or the producer's error.
    ///
    /// # Errors
    ///
    /// The producer's, once, after all that it had sent. The caller's [`Cancelled`](quoit::Cancelled), and
    /// the stream can be asked again.
    ///
    /// # Panics
    ///
    /// With what the producer panicked with, once. Off a core.
    pub async fn next(&mut self) -> Option<Result<T, E>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }

    /// Cancels the producer and waits for its end, also in a cancelled scope. A producer that holds on, holds
    /// this on: bound it with a shield that has a timeout, inside of it.
    ///
    /// What the producer fails with then is nobody's any more.
    ///
    /// # Panics
    ///
    /// Off a core.
    pub async fn close(mut self) {
        if let Producer::Running { mut task, cancel } =
            std::mem::replace(&mut self.producer, Producer::Ended)
        {
            if let Some(cancel) = cancel {
                cancel.cancel();
            }
            self.pipe.leave();
            let waited = Scope::new().shielded();
            let ended = waited.run(async { Ok::<_, quoit::Cancelled>((&mut task).await) });
            drop(ended.await);
        }
    }
}

impl<T: 'static, E: CarriesCancelled + 'static> Stream for OwnedStream<T, E> {
    type Item = Result<T, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Self {
            pipe,
            producer,
            wait,
        } = &mut *self;
        // Where the wait is refused, the producer does not begin.
        let next = wait.poll(cx, |cx| {
            producer.begin();
            pipe.poll_next(cx)
        });
        match ready!(next) {
            Ok(None) => Poll::Ready(None),
            Ok(Some(Ok(item))) => Poll::Ready(Some(Ok(item))),
            Ok(Some(Err(End::Failed(error)))) => Poll::Ready(Some(Err(error))),
            Ok(Some(Err(End::Panicked(payload)))) => resume_unwind(payload),
            Ok(Some(Err(End::Finished))) => Poll::Ready(None),
            Err(cancelled) => Poll::Ready(Some(Err(cancelled.into()))),
        }
    }
}

impl<T, E> Unpin for OwnedStream<T, E> {}

impl<T, E> Drop for OwnedStream<T, E> {
    fn drop(&mut self) {
        if let Producer::Running {
            cancel: Some(cancel),
            ..
        } = &self.producer
        {
            cancel.cancel();
        }
        self.pipe.leave();
    }
}
