//! Channels and files of one executor.

use std::rc::Rc;
use std::time::{Duration, Instant};

use common::micro::{FILE, LONG, PIECE, Random, cached, each, path_of};
use common::scenarios::{Runtime, yield_now};
use glommio::channels::local_channel::new_bounded;
use glommio::io::BufferedFile;
use glommio::spawn_local;
use glommio::timer::Timer;

use crate::Glommio;

/// Sends an item there and back so many times; nanoseconds per round trip.
pub(crate) fn round_trips(times: u32) -> f64 {
    Glommio::block_on(async move {
        let (to, there) = new_bounded(1);
        let (back, here) = new_bounded(1);
        let other = spawn_local(async move {
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
        other.await;
        took
    })
}

/// Eight bytes to `/dev/null`, so many times in a row, while so many tasks sleep; nanoseconds per write.
pub(crate) fn write_null(times: u32, sleepers: u32) -> f64 {
    Glommio::block_on(async move {
        let null = BufferedFile::create("/dev/null").await;
        let null = null.expect("it is there");
        for number in 0..sleepers {
            let long = LONG + Duration::from_secs(u64::from(number));
            spawn_local(Timer::new(long)).detach();
        }
        yield_now().await;
        let begin = Instant::now();
        for _ in 0..times {
            let written = null.write_at(vec![0; 8], 0).await;
            assert_eq!(written.expect("it takes all"), 8);
        }
        each(begin, times)
    })
}

/// Reads 4 KiB from random places of a cached file, so many at once; nanoseconds per read.
pub(crate) fn read_cached(at_once: u32, times: u32) -> f64 {
    let file = cached();
    Glommio::block_on(async move {
        let file = BufferedFile::open(path_of(&file)).await;
        let file = Rc::new(file.expect("it is there"));
        let begin = Instant::now();
        let readers = (0..at_once).map(|reader| {
            let file = Rc::clone(&file);
            spawn_local(async move {
                let mut random = Random::new(u64::from(reader) + 1);
                for _ in 0..times / at_once {
                    let place = random.below(FILE / PIECE) * PIECE;
                    let read = file.read_at(place, PIECE as usize).await;
                    let read = read.expect("it is there");
                    assert_eq!((read.len(), read[0]), (PIECE as usize, 7));
                }
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            reader.await;
        }
        each(begin, times / at_once * at_once)
    })
}
