//! Items between two executors, each on a pinned thread, through the channel that glommio has for it.

use std::time::Instant;

use common::micro::each;
use common::scenarios::{beside_busy, on_two};
use glommio::channels::shared_channel::new_bounded;

use crate::Glommio;

/// Sends an item to the other executor and back so many times; nanoseconds per round trip. The threads park in
/// between, or each has a task that yields all the time.
pub(crate) fn round_trips(times: u32, is_busy: bool) -> f64 {
    let (to, there) = new_bounded(1);
    let (back, here) = new_bounded(1);
    let answers = move || {
        beside_busy::<Glommio, _>(is_busy, async move {
            let there = there.connect().await;
            let back = back.connect().await;
            while let Some(number) = there.recv().await {
                assert!(back.send(number).await.is_ok(), "it is taken");
            }
        })
    };
    let asks = move || {
        beside_busy::<Glommio, _>(is_busy, async move {
            let to = to.connect().await;
            let here = here.connect().await;
            let begin = Instant::now();
            for number in 0..times {
                assert!(to.send(number).await.is_ok(), "it is taken");
                assert_eq!(here.recv().await, Some(number));
            }
            each(begin, times)
        })
    };
    on_two::<Glommio, _, _, _, _>(asks, answers).0
}

/// Sends so many items one way, with up to 1 024 on their way; nanoseconds per item.
pub(crate) fn stream(items: u32) -> f64 {
    let (sender, receiver) = new_bounded(1024);
    let takes = move || async move {
        let receiver = receiver.connect().await;
        let mut next = 0;
        while let Some(number) = receiver.recv().await {
            assert_eq!(number, next);
            next += 1;
        }
        (next, Instant::now())
    };
    let sends = move || async move {
        let sender = sender.connect().await;
        let begin = Instant::now();
        for number in 0..items {
            assert!(sender.send(number).await.is_ok(), "it is taken");
        }
        begin
    };
    let (begin, (taken, end)) = on_two::<Glommio, _, _, _, _>(sends, takes);
    assert_eq!(taken, items);
    (end - begin).as_nanos() as f64 / f64::from(items)
}
