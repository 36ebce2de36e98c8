//! `with_stream`: a block and its producer, in one task.

use std::fmt;
use std::future::poll_fn;
use std::panic::resume_unwind;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use futures_core::Stream;
use quoit::{CarriesCancelled, ForeignWait, Scope};

use super::pipe::{End, Items, Pipe, poll_caught};

/// Runs a producer and a block that takes its items, and ends after both.
///
/// Both run in the caller's task, the producer in a scope of its own, and may borrow. When the block ends, in
/// whatever way (it has all it wants, breaks off, fails, panics), the producer is cancelled, and this ends
/// when the producer has: what it had opened is closed by then.
///
/// ```
/// use quoit::Cancelled;
/// use quoit_pool::{Items, LentStream, with_stream};
///
/// quoit::block_on(async {
///     let words = vec!["one".to_owned(), "two".to_owned()];
///     let first = with_stream(
///         async |items: Items<&str, Cancelled>| {
///             for word in &words {
///                 items.send(word).await?;
///             }
///             Ok(())
///         },
///         async |stream: &mut LentStream<&str, Cancelled>| stream.next().await.transpose(),
///     );
///     assert_eq!(first.await, Ok(Some("one")));
/// })?;
/// # Ok::<_, quoit::BuildError>(())
/// ```
///
/// The future that this returns is all there is: if it is dropped, both are, where they stand.
///
/// # Errors
///
/// The block's own. If it ended well, what the producer failed with and nobody was told: not that it was
/// cancelled for having been left.
///
/// # Panics
///
/// With what the block panicked with, after the producer's end; else with what the producer panicked with,
/// if the block has not met that. When polled off a core.
pub async fn with_stream<T, E, R, F>(
    produce: impl AsyncFnOnce(Items<T, E>) -> Result<(), E>,
    consume: impl AsyncFnOnce(&mut LentStream<T, E>) -> Result<R, F>,
) -> Result<R, F>
where
    E: CarriesCancelled,
    F: From<E>,
{
    let pipe = Pipe::new();
    let scope = Scope::new();
    let mut producer = pin!(scope.run(produce(Items::new(&pipe))));
    let mut stream = LentStream {
        pipe: Rc::clone(&pipe),
        wait: ForeignWait::default(),
    };
    let mut producing = true;
    let mut poll_producer = |cx: &mut Context<'_>| {
        if !producing {
            return Poll::Ready(());
        }
        let ended = ready!(poll_caught(producer.as_mut(), cx));
        producing = false;
        pipe.finish(match ended {
            // None: it was left, and took it.
            Ok(Ok(_)) => End::Finished,
            Ok(Err(error)) => End::Failed(error),
            Err(payload) => End::Panicked(payload),
        });
        Poll::Ready(())
    };
    let consumed = {
        let mut consumer = pin!(consume(&mut stream));
        poll_fn(|cx| {
            // First, so that it begins before it is asked for.
            let _ = poll_producer(cx);
            poll_caught(consumer.as_mut(), cx)
        })
        .await
    };
    // First the cancel: whoever waits to send is to hear of that.
    scope.cancel();
    pipe.leave();
    poll_fn(&mut poll_producer).await;
    match (consumed, pipe.take_end()) {
        (Err(payload), _) => resume_unwind(payload),
        (Ok(Ok(_)), Some(End::Panicked(payload))) => resume_unwind(payload),
        (Ok(Ok(value)), Some(End::Failed(error))) => match error.rest() {
            // It was left, and says so.
            Err(_) => Ok(value),
            Ok(error) => Err(error.into()),
        },
        (Ok(outcome), _) => outcome,
    }
}

/// The items of a producer that runs beside its block; see [`with_stream`].
pub struct LentStream<T, E> {
    pipe: Rc<Pipe<T, E>>,
    wait: ForeignWait,
}

impl<T, E> fmt::Debug for LentStream<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LentStream").finish_non_exhaustive()
    }
}

impl<T, E: CarriesCancelled> LentStream<T, E> {
    /// Waits for the next item; `None` after the last one or the producer's error.
    ///
    /// # Errors
    ///
    /// The producer's, once, after all that it had sent. The block's [`Cancelled`](quoit::Cancelled).
    ///
    /// # Panics
    ///
    /// With what the producer panicked with, once.
    pub async fn next(&mut self) -> Option<Result<T, E>> {
        poll_fn(|cx| Pin::new(&mut *self).poll_next(cx)).await
    }
}

impl<T, E: CarriesCancelled> Stream for LentStream<T, E> {
    type Item = Result<T, E>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        let pipe = &this.pipe;
        match ready!(this.wait.poll(cx, |cx| pipe.poll_next(cx))) {
            Ok(Some(Ok(item))) => Poll::Ready(Some(Ok(item))),
            Ok(Some(Err(End::Failed(error)))) => Poll::Ready(Some(Err(error))),
            Ok(Some(Err(End::Panicked(payload)))) => resume_unwind(payload),
            Ok(None | Some(Err(End::Finished))) => Poll::Ready(None),
            Err(cancelled) => Poll::Ready(Some(Err(cancelled.into()))),
        }
    }
}

impl<T, E> Unpin for LentStream<T, E> {}
