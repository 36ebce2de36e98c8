//! `stream`: a body whose pieces a task of its own makes.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame};
use quoit::{Cancelled, Group, JoinHandle, Reason};

use super::super::BoxError;
use super::pipe::{OnDrop, Receiver, Sender, pipe};

/// Makes a body of what `produce` sends.
///
/// It runs as a task that begins when the body is asked for first, as a child of the connection that the
/// body is sent on. A client that takes nothing holds it up at [`Sender::send`]; one piece waits for it.
///
/// - It returns, or calls [`Sender::end`]: the body ends.
/// - It fails or panics: the body is cut, so that the client does not take it for whole.
/// - The client goes away, resets its stream, or takes nothing for the stall timeout: it is cancelled,
///   for [`Reason::Disconnected`]. Its ops fail, and it ends as it sees fit.
/// - The server stops, and its patience ends: it is cancelled with the connection.
///
/// An answer to HEAD has no body, so `produce` is not called. In the body of a request, on a client's
/// side, it runs as a task of the core.
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use http::Response;
/// use quoit::time::sleep;
/// use quoit_net::http::body;
///
/// # fn answer() -> Response<body::StreamBody> {
/// Response::new(body::stream(async |sender: body::Sender| {
///     for count in 0..10 {
///         sender.send(format!("{count}\n")).await?;
///         sleep(Duration::from_secs(1)).await?;
///     }
///     Ok::<_, io::Error>(())
/// }))
/// # }
/// ```
pub fn stream<P, F, E>(produce: P) -> StreamBody
where
    P: FnOnce(Sender) -> F + 'static,
    F: Future<Output = Result<(), E>> + 'static,
    E: Into<BoxError>,
{
    let (sender, receiver) = pipe(1, OnDrop::Nothing);
    let ending = sender.ending();
    let producer = Box::pin(async move {
        let outcome = produce(sender).await;
        ending.told(outcome.map_err(Into::into));
    });
    StreamBody {
        receiver,
        producer: Producer::Waiting(producer),
    }
}

/// A body that a task makes; see [`stream`].
pub struct StreamBody {
    receiver: Receiver,
    producer: Producer,
}

type Making = Pin<Box<dyn Future<Output = ()>>>;

enum Producer {
    /// Nobody has asked for the body.
    Waiting(Making),
    /// A child of the connection.
    Child(JoinHandle<(), Cancelled>),
    /// A task of the core, where there is no connection.
    Task(JoinHandle<()>),
    Ended,
}

impl fmt::Debug for StreamBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamBody").finish_non_exhaustive()
    }
}

impl StreamBody {
    /// Starts the producer, if that was not done.
    fn start(&mut self) {
        self.producer = match std::mem::replace(&mut self.producer, Producer::Ended) {
            Producer::Waiting(making) => {
                let making = caught(making);
                // What the producer polls at once is no body of this connection; the next body is.
                let around = AROUND.take();
                let producer = match around {
                    Some(connection) => Producer::Child(connection.spawn_eager(async move {
                        making.await;
                        Ok(())
                    })),
                    None => Producer::Task(quoit::spawn(making)),
                };
                AROUND.set(around);
                producer
            }
            started => started,
        };
    }
}

/// A panic of a producer is an error of its body, and of nothing else.
async fn caught(mut making: Making) {
    poll_fn(|cx| {
        let polled = catch_unwind(AssertUnwindSafe(|| making.as_mut().poll(cx)));
        // What it panicked with was said by the panic hook.
        polled.unwrap_or(Poll::Ready(()))
    })
    .await;
}

impl Body for StreamBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        self.start();
        let polled = self.receiver.poll_frame(cx);
        if let Poll::Ready(None | Some(Err(_))) = polled {
            // It was told all; what it still does is its own business.
            self.producer = Producer::Ended;
        }
        polled
    }
}

impl Drop for StreamBody {
    fn drop(&mut self) {
        if self.receiver.has_ended() || IS_WHOLE.get() {
            return;
        }
        match &self.producer {
            Producer::Child(task) => task.cancel_for(Reason::Disconnected),
            Producer::Task(task) => task.cancel_for(Reason::Disconnected),
            Producer::Waiting(_) | Producer::Ended => {}
        }
    }
}

thread_local! {
    /// A body is dropped just now of which the client has all: the head had said how long it is.
    static IS_WHOLE: Cell<bool> = const { Cell::new(false) };

    /// The connection that asks a body for its next piece just now: bodies are made by handlers, who
    /// know nothing of connections, and polled by hyper, which knows nothing of ours.
    static AROUND: Cell<Option<Group<Cancelled>>> = const { Cell::new(None) };
}

/// Drops the body of an answer that was sent as a whole.
pub(in super::super) fn drop_whole(drop: impl FnOnce()) {
    struct Before(bool);
    impl Drop for Before {
        fn drop(&mut self) {
            IS_WHOLE.set(self.0);
        }
    }
    let _before = Before(IS_WHOLE.replace(true));
    drop();
}

/// Polls a body of an answer that is sent on this connection.
pub(in super::super) fn within<T>(connection: Group<Cancelled>, poll: impl FnOnce() -> T) -> T {
    struct Before(Option<Group<Cancelled>>);
    impl Drop for Before {
        fn drop(&mut self) {
            AROUND.set(self.0);
        }
    }
    let _before = Before(AROUND.replace(Some(connection)));
    poll()
}
