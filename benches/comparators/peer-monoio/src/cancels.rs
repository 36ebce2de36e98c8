//! Tasks that are told to end, receives that are cancelled, and timeouts.

use std::hint::black_box;
use std::os::unix::net::UnixStream as StdStream;
use std::time::{Duration, Instant};

use common::micro::each;
use common::scenarios::{Runtime, age, yield_now};
use local_sync::oneshot;
use monoio::io::{CancelableAsyncReadRent, Canceller};
use monoio::net::UnixStream;
use monoio::time::timeout;

use crate::Monoio;

/// Runs nothing under a timeout, so many times; nanoseconds each.
pub(crate) fn enter_and_exit_with(times: u32, limit: Duration) -> f64 {
    Monoio::block_on(async move {
        let begin = Instant::now();
        for _ in 0..times {
            assert!(
                black_box(timeout(limit, async {}).await).is_ok(),
                "it ends at once"
            );
        }
        each(begin, times)
    })
}

/// Parks so many tasks, each under a timeout of its own if there is one, and tells all to end; nanoseconds per
/// task, until all have ended. On an aged runtime, as many others have ended before in any order.
pub(crate) fn tasks(count: u32, is_aged: bool, limit: Option<Duration>) -> f64 {
    Monoio::block_on(async move {
        if is_aged {
            age::<Monoio>(count).await;
        }
        let mut handles = Vec::with_capacity(count as usize);
        let mut senders = Vec::with_capacity(count as usize);
        for _ in 0..count {
            let (sender, ends) = oneshot::channel::<()>();
            senders.push(sender);
            handles.push(monoio::spawn(async move {
                match limit {
                    None => ends.await.is_err(),
                    Some(limit) => timeout(limit, ends).await.is_ok(),
                }
            }));
        }
        yield_now().await;
        let begin = Instant::now();
        drop(senders);
        for handle in handles {
            assert!(handle.await, "it was told");
        }
        each(begin, count)
    })
}

/// Begins so many receives, each of a socket of its own, and cancels all; nanoseconds per receive, until the
/// kernel has given all buffers back.
pub(crate) fn receives(count: u32) -> f64 {
    let pairs: Vec<_> = (0..count)
        .map(|_| StdStream::pair().expect("descriptors enough: `ulimit -n` has to allow two each"))
        .collect();
    Monoio::block_on(async move {
        let canceller = Canceller::new();
        let mut others = Vec::with_capacity(pairs.len());
        let receives = pairs.into_iter().map(|(socket, other)| {
            others.push(other);
            let mut socket = UnixStream::from_std(socket).expect("a socket");
            let handle = canceller.handle();
            monoio::spawn(async move { socket.cancelable_read(vec![0_u8; 64], handle).await.0 })
        });
        let receives: Vec<_> = receives.collect();
        // Until the kernel has all of them.
        monoio::time::sleep(Duration::from_millis(5)).await;
        let begin = Instant::now();
        canceller.cancel();
        for receive in receives {
            assert!(receive.await.is_err(), "it was cancelled");
        }
        each(begin, count)
    })
}
