//! Tasks that are cancelled, and what stands in for scopes.

use std::future::pending;
use std::hint::black_box;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::micro::{Random, each};
use tokio::io::AsyncReadExt;
use tokio::sync::Notify;
use tokio::task::{JoinSet, yield_now};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Runs nothing under a child token, so many times; nanoseconds each.
pub(crate) fn enter_and_exit(times: u32) -> f64 {
    crate::runtime().block_on(async {
        let outer = CancellationToken::new();
        let begin = Instant::now();
        for _ in 0..times {
            let scope = outer.child_token();
            black_box(scope.run_until_cancelled(async {}).await);
        }
        each(begin, times)
    })
}

/// Runs nothing under a timeout, so many times; nanoseconds each.
pub(crate) fn enter_and_exit_with(times: u32, limit: Duration) -> f64 {
    crate::runtime().block_on(async {
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

/// Asks whether a token is cancelled, so many times; nanoseconds per check.
pub(crate) fn checks(times: u32) -> f64 {
    let token = CancellationToken::new();
    let begin = Instant::now();
    for _ in 0..times {
        black_box(black_box(&token).is_cancelled());
    }
    each(begin, times)
}

/// Parks so many tasks, each under a timeout of its own if there is one, and aborts all; nanoseconds per task,
/// until all have ended. On an aged runtime, as many others have ended before in any order.
pub(crate) fn tasks(count: u32, is_aged: bool, limit: Option<Duration>) -> f64 {
    crate::runtime().block_on(async {
        if is_aged {
            age(count).await;
        }
        let mut set = JoinSet::new();
        for _ in 0..count {
            match limit {
                None => set.spawn(pending()),
                Some(limit) => set.spawn(async move {
                    let _ = timeout(limit, pending::<()>()).await;
                }),
            };
        }
        until_parked(count).await;
        let begin = Instant::now();
        set.abort_all();
        while set.join_next().await.is_some() {}
        each(begin, count)
    })
}

async fn age(count: u32) {
    let mut parked: Vec<_> = (0..count)
        .map(|_| {
            let event = std::sync::Arc::new(Notify::new());
            let waits = std::sync::Arc::clone(&event);
            (event, tokio::spawn(async move { waits.notified().await }))
        })
        .collect();
    let mut random = Random::new(7);
    while !parked.is_empty() {
        let place = random.below(parked.len() as u64) as usize;
        let (event, task) = parked.swap_remove(place);
        event.notify_one();
        task.await.expect("it ends well");
    }
}

/// Lets so many tasks that were just started be polled once: a turn takes at least sixteen.
async fn until_parked(count: u32) {
    for _ in 0..=count / 16 {
        yield_now().await;
    }
}

/// Begins so many reads, each of a socket of its own, and aborts all; nanoseconds per read.
///
/// The kernel has heard of none of them: tokio waits until a socket can be read.
pub(crate) fn receives(count: u32) -> f64 {
    let pairs: Vec<_> = (0..count)
        .map(|_| UnixStream::pair().expect("descriptors enough: `ulimit -n` has to allow two each"))
        .collect();
    crate::runtime().block_on(async {
        let mut set = JoinSet::new();
        for (socket, _) in &pairs {
            let socket = socket.try_clone().expect("a descriptor");
            socket.set_nonblocking(true).expect("an option");
            let mut socket = tokio::net::UnixStream::from_std(socket).expect("a socket");
            set.spawn(async move { socket.read(&mut [0; 64]).await });
        }
        until_parked(count).await;
        let begin = Instant::now();
        set.abort_all();
        while set.join_next().await.is_some() {}
        each(begin, count)
    })
}
