//! Items between tasks of one core.

use quoit::sync::channel;
use quoit::{spawn, time::Instant};

use super::{each, on_one};

/// Sends an item there and back so many times; nanoseconds per round trip.
pub fn round_trips(times: u32) -> f64 {
    on_one(async {
        let (to, there) = channel::bounded(1);
        let (back, here) = channel::bounded(1);
        let other = spawn(async move {
            while let Ok(Some(number)) = there.recv().await {
                back.send(number).await.expect("it is taken");
            }
        });
        let begin = Instant::now();
        for number in 0..times {
            to.send(number).await.expect("it is taken");
            assert_eq!(here.recv().await, Ok(Some(number)));
        }
        let took = each(begin, times);
        drop(to);
        other.await.expect("it ends well");
        took
    })
}
