//! The HTTP client and its pool: against peers that say what they are told, byte by byte, and against our own
//! server; on the real ring, and where nothing forbids it in the simulation.
//!
//! A test that stands for a scenario is named after it.

mod cancels;
mod errors;
mod frames;
mod goodbyes;
mod http1;
mod http2;
mod limits;
mod node;
mod nonsense;
mod peer;
mod serving;
mod storms;

use std::time::Duration;

use quoit_pool::http::{Client, ClientBuilder, Error};

/// A time that no test waits for.
pub(crate) const LONG: Duration = Duration::from_secs(3600);

/// A client whose pool closes nothing by itself, and is patient.
pub(crate) fn patient() -> ClientBuilder {
    Client::builder()
        .idle_timeout(None)
        .pool_timeout(None)
        .connect_timeout(LONG)
        .without_keep_alive()
}

/// Asks for the text of an answer.
pub(crate) async fn text(client: &Client, url: &str) -> Result<String, Error> {
    client.get(url).send().await?.text().await
}

/// Closes the pool of a client.
pub(crate) async fn close(client: Client) {
    client.pool().close().await.expect("nobody cancels");
    assert_eq!(client.pool().counts().connections, 0);
}

/// Waits until the caller is the only task of its core: nobody else waits for a pool that was dropped.
pub(crate) async fn alone() {
    let handle = quoit::Handle::current().expect("on a core");
    while tests::gauges(&handle).await.tasks > 1 {}
}

/// Lets other tasks of the core go on until this is so: half a minute at most, which is long also for a
/// machine under load.
pub(crate) async fn until(is_so: impl Fn() -> bool) {
    let begun = quoit::time::Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < Duration::from_secs(30), "it never is so");
        let pause = quoit::time::sleep(Duration::from_micros(200));
        pause.await.expect("nobody cancels");
    }
}
