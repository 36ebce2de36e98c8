//! Tasks, timers, channels and files of one runtime.

use std::future::Future;
use std::os::unix::fs::FileExt;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use common::micro::{FILE, LONG, PIECE, Random, cached, each};
use tokio::fs::OpenOptions;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio::task::{spawn_blocking, yield_now};
use tokio::time::sleep;

/// Starts so many tasks and waits for each, again and again; nanoseconds per task.
pub(crate) fn spawn_join(at_once: u32, times: u32) -> f64 {
    crate::runtime().block_on(async {
        let mut handles = Vec::with_capacity(at_once as usize);
        let begin = Instant::now();
        for _ in 0..times {
            handles.extend((0..at_once).map(|number| tokio::spawn(async move { number })));
            for (number, handle) in (0..).zip(handles.drain(..)) {
                assert_eq!(handle.await.expect("it ends well"), number);
            }
        }
        each(begin, at_once * times)
    })
}

/// So many tasks yield in turn; nanoseconds per yield.
pub(crate) fn yields(tasks: u32, times: u32) -> f64 {
    crate::runtime().block_on(async {
        let begin = Instant::now();
        let yielding = (0..tasks).map(|_| {
            tokio::spawn(async move {
                for _ in 0..times {
                    yield_now().await;
                }
            })
        });
        for task in yielding.collect::<Vec<_>>() {
            task.await.expect("it ends well");
        }
        each(begin, tasks * times)
    })
}

/// Begins so many sleeps and gives all up; nanoseconds per sleep.
pub(crate) fn create_and_cancel(count: u32) -> f64 {
    crate::runtime().block_on(async {
        let mut cx = Context::from_waker(Waker::noop());
        let begin = Instant::now();
        let mut sleeps: Vec<_> = (0..count)
            .map(|number| Box::pin(sleep(LONG + Duration::from_nanos(u64::from(number)))))
            .collect();
        for sleep in &mut sleeps {
            assert!(sleep.as_mut().poll(&mut cx).is_pending());
        }
        sleeps.clear();
        each(begin, count)
    })
}

/// Sleeps a millisecond so many times; by how many nanoseconds each was late.
pub(crate) fn lateness(times: u32) -> Vec<f64> {
    crate::runtime().block_on(async {
        let nap = Duration::from_millis(1);
        let mut late = Vec::with_capacity(times as usize);
        for _ in 0..times {
            let begin = Instant::now();
            pin!(sleep(nap)).await;
            late.push((begin.elapsed() - nap).as_nanos() as f64);
        }
        late
    })
}

/// Sends an item there and back so many times; nanoseconds per round trip.
pub(crate) fn round_trips(times: u32) -> f64 {
    crate::runtime().block_on(async {
        let (to, mut there) = mpsc::channel(1);
        let (back, mut here) = mpsc::channel(1);
        let other = tokio::spawn(async move {
            while let Some(number) = there.recv().await {
                back.send(number).await.expect("it is taken");
            }
        });
        let begin = Instant::now();
        for number in 0..times {
            to.send(number).await.expect("it is taken");
            assert_eq!(here.recv().await, Some(number));
        }
        let took = each(begin, times);
        drop(to);
        other.await.expect("it ends well");
        took
    })
}

/// Eight bytes to `/dev/null`, so many times in a row, while so many tasks sleep; nanoseconds per write.
///
/// A file of tokio is written to on a thread that may block; it flushes, or the write would only be begun.
pub(crate) fn write_null(times: u32, sleepers: u32) -> f64 {
    crate::runtime().block_on(async {
        for number in 0..sleepers {
            tokio::spawn(sleep(LONG + Duration::from_secs(u64::from(number))));
        }
        // Every one of them has been polled, and sleeps.
        for _ in 0..=sleepers / 16 {
            yield_now().await;
        }
        let null = OpenOptions::new().write(true).open("/dev/null").await;
        let mut null = null.expect("it is there");
        let begin = Instant::now();
        for _ in 0..times {
            assert_eq!(null.write(&[0; 8]).await.expect("it takes all"), 8);
            null.flush().await.expect("it takes all");
        }
        each(begin, times)
    })
}

/// Reads 4 KiB from random places of a cached file, so many at once; nanoseconds per read.
///
/// Each read is a job on a thread that may block, as the documentation of `tokio::fs` advises: a seek and a
/// read of its `File` would be two.
pub(crate) fn read_cached(at_once: u32, times: u32) -> f64 {
    let file = Arc::new(cached());
    crate::runtime().block_on(async {
        let begin = Instant::now();
        let readers = (0..at_once).map(|reader| {
            let file = Arc::clone(&file);
            tokio::spawn(async move {
                let mut random = Random::new(u64::from(reader) + 1);
                let mut buf = vec![0; PIECE as usize];
                for _ in 0..times / at_once {
                    let place = random.below(FILE / PIECE) * PIECE;
                    let file = Arc::clone(&file);
                    let read = spawn_blocking(move || {
                        let read = file.read_at(&mut buf, place);
                        (read, buf)
                    });
                    let (read, back) = read.await.expect("it ends well");
                    assert_eq!(read.expect("it is there"), PIECE as usize);
                    buf = back;
                }
                assert!(buf.iter().all(|&byte| byte == 7));
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            reader.await.expect("it ends well");
        }
        each(begin, times / at_once * at_once)
    })
}
