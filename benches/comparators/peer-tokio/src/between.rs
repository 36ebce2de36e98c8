//! Items and cancels between two runtimes, each on a pinned thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use common::asleep::Thread;
use common::micro::each;
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, yield_now};
use tokio_util::sync::CancellationToken;

/// A task that yields until it is told to end.
struct Busy {
    ends: Arc<AtomicBool>,
    task: JoinHandle<()>,
}

impl Busy {
    fn start() -> Self {
        let ends = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ends);
        let task = tokio::spawn(async move {
            while !told.load(Ordering::Relaxed) {
                yield_now().await;
            }
        });
        Self { ends, task }
    }

    async fn end(self) {
        self.ends.store(true, Ordering::Relaxed);
        self.task.await.expect("it ends well");
    }
}

/// Runs a scenario of two ends, each on a runtime of its own on a processor of its own; returns what the first
/// returns.
fn on_two<N: Future<Output = R>, R, F: Future<Output = T>, T>(
    near: impl FnOnce() -> N + Send,
    far: impl FnOnce() -> F + Send,
) -> (R, T)
where
    R: Send,
    T: Send,
{
    let on = |core| {
        common::pin(core);
        crate::runtime()
    };
    thread::scope(|threads| {
        let far = threads.spawn(move || on(1).block_on(async { far().await }));
        let near = threads.spawn(move || on(0).block_on(async { near().await }));
        (
            near.join().expect("no panic"),
            far.join().expect("no panic"),
        )
    })
}

/// Sends an item to the other runtime and back so many times; nanoseconds per round trip. The threads park in
/// between, or each has a task that yields all the time.
pub(crate) fn round_trips(times: u32, are_busy: bool) -> f64 {
    let (to, mut there) = mpsc::channel(1);
    let (back, mut here) = mpsc::channel(1);
    let answers = move || async move {
        let busy = are_busy.then(Busy::start);
        // A task as everywhere else: what is blocked on is polled less often.
        let answers = tokio::spawn(async move {
            while let Some(number) = there.recv().await {
                back.send(number).await.expect("it is taken");
            }
        });
        answers.await.expect("it ends well");
        if let Some(busy) = busy {
            busy.end().await;
        }
    };
    let asks = move || async move {
        let busy = are_busy.then(Busy::start);
        let asks = tokio::spawn(async move {
            let begin = Instant::now();
            for number in 0..times {
                to.send(number).await.expect("it is taken");
                assert_eq!(here.recv().await, Some(number));
            }
            each(begin, times)
        });
        let took = asks.await.expect("it ends well");
        if let Some(busy) = busy {
            busy.end().await;
        }
        took
    };
    on_two(asks, answers).0
}

/// Sends so many items one way, with up to 1 024 on their way; nanoseconds per item.
pub(crate) fn stream(items: u32) -> f64 {
    let (sender, mut receiver) = mpsc::channel(1024);
    let takes = move || async move {
        let mut next = 0;
        while let Some(number) = receiver.recv().await {
            assert_eq!(number, next);
            next += 1;
        }
        (next, Instant::now())
    };
    let sends = move || async move {
        let begin = Instant::now();
        for number in 0..items {
            sender.send(number).await.expect("it is taken");
        }
        begin
    };
    let (begin, (taken, end)) = on_two(sends, takes);
    assert_eq!(taken, items);
    (end - begin).as_nanos() as f64 / f64::from(items)
}

/// Cancels from one thread what waits on another, which is parked: nanoseconds until it runs, each of so many.
pub(crate) fn cancels(times: u32) -> Vec<f64> {
    let (tell, told) = std::sync::mpsc::channel();
    let (ran, runs) = std::sync::mpsc::channel();
    let waits = thread::spawn(move || {
        common::pin(1);
        crate::runtime().block_on(async move {
            for _ in 0..times {
                let token = CancellationToken::new();
                tell.send((Thread::current(), token.clone()))
                    .expect("it is taken");
                token.cancelled().await;
                ran.send(Instant::now()).expect("it is taken");
            }
        });
    });
    let cancels = thread::spawn(move || {
        common::pin(0);
        let took = told.iter().map(|(waiting, token)| {
            waiting.wait_until_asleep();
            let begin = Instant::now();
            token.cancel();
            (runs.recv().expect("it runs") - begin).as_nanos() as f64
        });
        took.collect()
    });
    waits.join().expect("no panic");
    cancels.join().expect("no panic")
}
