//! Items and cancels between two cores.

use std::cell::Cell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::thread;
use std::time::Duration;

use quoit::sync::Event;
use quoit::sync::shared::channel;
use quoit::time::Instant;
use quoit::{CancelHandle, JoinHandle, RemoteHandle, Scope, spawn, yield_now};

use super::{each, two};

/// A task that yields until it is told to end.
struct Busy {
    ends: Rc<Cell<bool>>,
    task: JoinHandle<()>,
}

impl Busy {
    fn start() -> Self {
        let ends = Rc::new(Cell::new(false));
        let told = Rc::clone(&ends);
        let task = spawn(async move {
            while !told.get() {
                yield_now().await.expect("nobody cancels");
            }
        });
        Self { ends, task }
    }

    async fn end(self) {
        self.ends.set(true);
        self.task.await.expect("it ends well");
    }
}

/// Sends an item to the other core and back so many times; nanoseconds per round trip. The cores park in
/// between, or each has a task that yields all the time.
pub fn round_trips(times: u32, are_busy: bool) -> f64 {
    let (runtime, handle) = two();
    let (to, there) = channel::bounded(1);
    let (back, here) = channel::bounded(1);
    let answers = handle.spawn(handle.cores()[1], move || async move {
        let busy = are_busy.then(Busy::start);
        while let Ok(Some(number)) = there.recv().await {
            back.send(number).await.expect("it is taken");
        }
        if let Some(busy) = busy {
            busy.end().await;
        }
    });
    let asks = handle.spawn(handle.cores()[0], move || async move {
        let busy = are_busy.then(Busy::start);
        let begin = Instant::now();
        for number in 0..times {
            to.send(number).await.expect("it is taken");
            assert_eq!(here.recv().await, Ok(Some(number)));
        }
        let took = each(begin, times);
        if let Some(busy) = busy {
            busy.end().await;
        }
        took
    });
    let took = asks.expect("room").wait().expect("it ends well");
    answers.expect("room").wait().expect("it ends well");
    runtime.shutdown(Duration::from_secs(5));
    took
}

/// Sends so many items one way, with up to 1 024 on their way; nanoseconds per item.
pub fn stream(items: u32) -> f64 {
    let (runtime, handle) = two();
    let (sender, receiver) = channel::bounded(1024);
    let takes = handle.spawn(handle.cores()[1], move || async move {
        let mut next = 0;
        while let Ok(Some(number)) = receiver.recv().await {
            assert_eq!(number, next);
            next += 1;
        }
        next
    });
    let sends = handle.spawn(handle.cores()[0], move || async move {
        let begin = Instant::now();
        for number in 0..items {
            sender.send(number).await.expect("it is taken");
        }
        begin
    });
    let begin = sends.expect("room").wait().expect("it ends well");
    let taken = takes.expect("room").wait().expect("it ends well");
    let took = each(begin, items);
    assert_eq!(taken, items);
    runtime.shutdown(Duration::from_secs(5));
    took
}

/// The same with up to 32 items at a time.
pub fn stream_in_batches(items: u32) -> f64 {
    let (runtime, handle) = two();
    let (sender, receiver) = channel::bounded(1024);
    let takes = handle.spawn(handle.cores()[1], move || async move {
        let mut batch = Vec::new();
        let mut next = 0;
        while let Ok(1..) = receiver.recv_many(&mut batch, BATCH).await {
            for number in batch.drain(..) {
                assert_eq!(number, next);
                next += 1;
            }
        }
        next
    });
    let sends = handle.spawn(handle.cores()[0], move || async move {
        let mut batch = VecDeque::new();
        let begin = Instant::now();
        for number in 0..items {
            batch.push_back(number);
            if batch.len() == BATCH || number == items - 1 {
                sender.send_many(&mut batch).await.expect("it is taken");
            }
        }
        begin
    });
    let begin = sends.expect("room").wait().expect("it ends well");
    let taken = takes.expect("room").wait().expect("it ends well");
    let took = each(begin, items);
    assert_eq!(taken, items);
    runtime.shutdown(Duration::from_secs(5));
    took
}

const BATCH: usize = 32;

/// Cancels from one core what waits on the other, which is parked: nanoseconds until it runs, each of so many.
pub fn cancels(times: u32) -> Vec<f64> {
    let (runtime, handle) = two();
    let [near, far] = handle.cores()[..] else {
        unreachable!("two cores");
    };
    let took = (0..times).map(|_| {
        let (sender, told): (_, RemoteHandle<(CancelHandle, u64)>) = RemoteHandle::channel();
        let own = handle.clone();
        let parks = move || own.metrics()[1].parks;
        let far_parks = parks.clone();
        let waits = handle.spawn(far, move || async move {
            let scope = Scope::new();
            // It waits before its core parks again.
            sender.send((scope.handle(), far_parks()));
            let outcome = scope.run(Event::new().wait()).await;
            assert_eq!(outcome, Ok(None), "the cancel is its scope's own");
            Instant::now()
        });
        let (cancel, before) = told.wait().expect("it was sent");
        while parks() == before {
            thread::yield_now();
        }
        let cancels = handle.spawn(near, move || async move {
            assert!(parks() > before, "what is cancelled is parked");
            let begin = Instant::now();
            cancel.cancel();
            begin
        });
        let begin = cancels.expect("room").wait().expect("it ran");
        let end = waits.expect("room").wait().expect("it ran");
        (end - begin).as_nanos() as f64
    });
    let took = took.collect();
    runtime.shutdown(Duration::from_secs(5));
    took
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_cancelled_from_another_core_is_parked() {
        // Between two processors, as `micro` wants them: with one there are no two cores.
        let processors = thread::available_parallelism().map_or(1, usize::from);
        if processors > 1 {
            // Each looks whether it is.
            assert_eq!(cancels(2_000).len(), 2_000);
        }
    }
}
