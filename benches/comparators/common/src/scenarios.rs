//! The scenarios that are the same on every runtime with one thread, over what such a runtime offers.
//!
//! Each peer is compiled with its own copy of them, as if it had written them itself. tokio has its own, for
//! its tasks have to be `Send`.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use local_sync::{mpsc, oneshot};

use crate::micro::{LONG, Random, each};

/// What a runtime offers its tasks.
pub trait Runtime: 'static {
    /// The handle of a task.
    type Task<T: 'static>: Future<Output = Self::Joined<T>>;
    /// How a task ended.
    type Joined<T: 'static>;

    /// Runs one future on a runtime of the calling thread.
    fn block_on<F: Future<Output: 'static> + 'static>(future: F) -> F::Output;
    /// Starts a task.
    fn spawn<F: Future<Output: 'static> + 'static>(future: F) -> Self::Task<F::Output>;
    /// Returns what a task returned that ended well.
    fn output<T: 'static>(joined: Self::Joined<T>) -> T;
    /// Sleeps.
    fn sleep(duration: Duration) -> impl Future + 'static;
}

/// Lets the others go first: the task is woken at once.
pub fn yield_now() -> impl Future<Output = ()> {
    let mut has_yielded = false;
    poll_fn(move |cx| {
        if has_yielded {
            return Poll::Ready(());
        }
        has_yielded = true;
        cx.waker().wake_by_ref();
        Poll::Pending
    })
}

/// Starts so many tasks and waits for each, again and again; nanoseconds per task.
pub fn spawn_join<R: Runtime>(at_once: u32, times: u32) -> f64 {
    R::block_on(async move {
        let mut handles = Vec::with_capacity(at_once as usize);
        let begin = Instant::now();
        for _ in 0..times {
            handles.extend((0..at_once).map(|number| R::spawn(async move { number })));
            for (number, handle) in (0..).zip(handles.drain(..)) {
                assert_eq!(R::output(handle.await), number);
            }
        }
        each(begin, at_once * times)
    })
}

/// So many tasks yield in turn; nanoseconds per yield.
pub fn yields<R: Runtime>(tasks: u32, times: u32) -> f64 {
    R::block_on(async move {
        let begin = Instant::now();
        let yielding = (0..tasks).map(|_| {
            R::spawn(async move {
                for _ in 0..times {
                    yield_now().await;
                }
            })
        });
        for task in yielding.collect::<Vec<_>>() {
            R::output(task.await);
        }
        each(begin, tasks * times)
    })
}

/// Begins so many sleeps and gives all up; nanoseconds per sleep.
pub fn create_and_cancel<R: Runtime>(count: u32) -> f64 {
    R::block_on(async move {
        let mut cx = Context::from_waker(Waker::noop());
        let begin = Instant::now();
        let mut sleeps: Vec<_> = (0..count)
            .map(|number| Box::pin(R::sleep(LONG + Duration::from_nanos(u64::from(number)))))
            .collect();
        for sleep in &mut sleeps {
            assert!(sleep.as_mut().poll(&mut cx).is_pending());
        }
        sleeps.clear();
        each(begin, count)
    })
}

/// Sleeps a millisecond so many times; by how many nanoseconds each was late.
pub fn lateness<R: Runtime>(times: u32) -> Vec<f64> {
    R::block_on(async move {
        let nap = Duration::from_millis(1);
        let mut late = Vec::with_capacity(times as usize);
        for _ in 0..times {
            let begin = Instant::now();
            pin!(R::sleep(nap)).await;
            late.push((begin.elapsed() - nap).as_nanos() as f64);
        }
        late
    })
}

/// Sends an item there and back so many times; nanoseconds per round trip.
///
/// The channel is that of `local-sync`, made for runtimes with one thread.
pub fn local_round_trips<R: Runtime>(times: u32) -> f64 {
    R::block_on(async move {
        let (to, mut there) = mpsc::bounded::channel(1);
        let (back, mut here) = mpsc::bounded::channel(1);
        let other = R::spawn(async move {
            while let Some(number) = there.recv().await {
                assert!(back.send(number).await.is_ok(), "it is taken");
            }
        });
        let begin = Instant::now();
        for number in 0..times {
            assert!(to.send(number).await.is_ok(), "it is taken");
            assert_eq!(here.recv().await, Some(number));
        }
        let took = each(begin, times);
        drop(to);
        R::output(other.await);
        took
    })
}

/// Parks so many tasks and lets them end in an order that leaves the tables of the runtime as a long life does.
pub async fn age<R: Runtime>(count: u32) {
    let mut parked: Vec<_> = (0..count)
        .map(|_| {
            let (event, waits) = oneshot::channel::<()>();
            (event, R::spawn(async move { waits.await.is_ok() }))
        })
        .collect();
    yield_now().await;
    let mut random = Random::new(7);
    while !parked.is_empty() {
        let place = random.below(parked.len() as u64) as usize;
        let (event, task) = parked.swap_remove(place);
        event.send(()).expect("it waits");
        assert!(R::output(task.await), "it was told");
    }
}

/// A task that yields until it is told to end.
struct Busy<R: Runtime> {
    ends: Rc<Cell<bool>>,
    task: R::Task<()>,
}

impl<R: Runtime> Busy<R> {
    fn start() -> Self {
        let ends = Rc::new(Cell::new(false));
        let told = Rc::clone(&ends);
        let task = R::spawn(async move {
            while !told.get() {
                yield_now().await;
            }
        });
        Self { ends, task }
    }

    async fn end(self) {
        self.ends.set(true);
        R::output(self.task.await);
    }
}

/// Runs a scenario of two ends, each on a runtime of its own on a processor of its own; returns what they return.
pub fn on_two<R: Runtime, N: Future<Output = A> + 'static, A, F: Future<Output = B> + 'static, B>(
    near: impl FnOnce() -> N + Send + 'static,
    far: impl FnOnce() -> F + Send + 'static,
) -> (A, B)
where
    A: Send + 'static,
    B: Send + 'static,
{
    thread::scope(|threads| {
        let far = threads.spawn(move || {
            crate::pin(1);
            R::block_on(async { far().await })
        });
        let near = threads.spawn(move || {
            crate::pin(0);
            R::block_on(async { near().await })
        });
        (
            near.join().expect("no panic"),
            far.join().expect("no panic"),
        )
    })
}

/// Runs `work` as a task, beside one that yields all the time if `is_busy`.
pub async fn beside_busy<R: Runtime, T: 'static>(
    is_busy: bool,
    work: impl Future<Output = T> + 'static,
) -> T {
    let busy = is_busy.then(Busy::<R>::start);
    let output = R::output(R::spawn(work).await);
    if let Some(busy) = busy {
        busy.end().await;
    }
    output
}

/// Sends an item to the other thread and back so many times; nanoseconds per round trip. The threads park in
/// between, or each has a task that yields all the time.
///
/// The channel is that of `flume`, for a runtime that has none between threads.
pub fn round_trips<R: Runtime>(times: u32, is_busy: bool) -> f64 {
    let (to, there) = flume::bounded(1);
    let (back, here) = flume::bounded(1);
    let answers = move || {
        beside_busy::<R, _>(is_busy, async move {
            while let Ok(number) = there.recv_async().await {
                back.send_async(number).await.expect("it is taken");
            }
        })
    };
    let asks = move || {
        beside_busy::<R, _>(is_busy, async move {
            let begin = Instant::now();
            for number in 0..times {
                to.send_async(number).await.expect("it is taken");
                assert_eq!(here.recv_async().await, Ok(number));
            }
            each(begin, times)
        })
    };
    on_two::<R, _, _, _, _>(asks, answers).0
}

/// Sends so many items one way, with up to 1 024 on their way; nanoseconds per item.
pub fn stream<R: Runtime>(items: u32) -> f64 {
    let (sender, receiver) = flume::bounded(1024);
    let takes = move || async move {
        let mut next = 0;
        while let Ok(number) = receiver.recv_async().await {
            assert_eq!(number, next);
            next += 1;
        }
        (next, Instant::now())
    };
    let sends = move || async move {
        let begin = Instant::now();
        for number in 0..items {
            sender.send_async(number).await.expect("it is taken");
        }
        begin
    };
    let (begin, (taken, end)) = on_two::<R, _, _, _, _>(sends, takes);
    assert_eq!(taken, items);
    (end - begin).as_nanos() as f64 / f64::from(items)
}
