//! What cancelling costs in tokio: tasks by the thousand, by aborting a `JoinSet` and by a
//! `CancellationToken` with a child token per task. One line per figure, as `cancel` prints them.

use std::future::pending;
use std::time::Instant;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

fn main() {
    let count: u32 = std::env::args().nth(1).map_or(100_000, |text| {
        text.parse().unwrap_or_else(|_| {
            eprintln!("cancel-tokio: {text:?} is not how many tasks are cancelled: write a number");
            std::process::exit(2)
        })
    });
    let rounds = 9;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime");
    let mut aborts = Vec::new();
    let mut tokens = Vec::new();
    for _ in 0..rounds {
        aborts.push(runtime.block_on(abort(count)));
        tokens.push(runtime.block_on(cancel(count)));
    }
    say("cancel parked tasks, each (JoinSet)", aborts);
    say("cancel parked tasks, each (child tokens)", tokens);
}

async fn abort(count: u32) -> f64 {
    let mut set = JoinSet::new();
    for _ in 0..count {
        set.spawn(pending::<()>());
    }
    tokio::task::yield_now().await;
    for _ in 0..count / 32 {
        tokio::task::yield_now().await;
    }
    let begin = Instant::now();
    set.abort_all();
    while set.join_next().await.is_some() {}
    each(begin, count)
}

async fn cancel(count: u32) -> f64 {
    let token = CancellationToken::new();
    let mut set = JoinSet::new();
    for _ in 0..count {
        let child = token.child_token();
        set.spawn(async move { child.cancelled().await });
    }
    for _ in 0..count / 32 {
        tokio::task::yield_now().await;
    }
    let begin = Instant::now();
    token.cancel();
    while set.join_next().await.is_some() {}
    each(begin, count)
}

fn each(begin: Instant, count: u32) -> f64 {
    begin.elapsed().as_nanos() as f64 / f64::from(count)
}

fn say(name: &str, mut values: Vec<f64>) {
    values.sort_by(f64::total_cmp);
    let (first, last) = (values[0], values[values.len() - 1]);
    let median = values[values.len() / 2];
    println!("{name:<44} {median:9.1} ns  ({first:.1} to {last:.1})");
}
