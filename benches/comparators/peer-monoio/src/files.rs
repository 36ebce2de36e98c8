//! Writes to nowhere, and reads of a file that lies in the page cache.

use std::rc::Rc;
use std::time::{Duration, Instant};

use common::micro::{FILE, LONG, PIECE, Random, cached, each};
use common::scenarios::{Runtime, yield_now};
use monoio::fs::File;
use monoio::time::sleep;

use crate::Monoio;

/// What is written: monoio takes no array.
const EIGHT: &[u8; 8] = &[0; 8];

/// Eight bytes to `/dev/null`, so many times in a row, while so many tasks sleep; nanoseconds per write.
pub(crate) fn write_null(times: u32, sleepers: u32) -> f64 {
    let null = std::fs::File::create("/dev/null").expect("it is there");
    Monoio::block_on(async move {
        let null = File::from_std(null).expect("a file");
        for number in 0..sleepers {
            monoio::spawn(sleep(LONG + Duration::from_secs(u64::from(number))));
        }
        yield_now().await;
        let begin = Instant::now();
        for _ in 0..times {
            let (written, _) = null.write_at(EIGHT, 0).await;
            assert_eq!(written.expect("it takes all"), 8);
        }
        each(begin, times)
    })
}

/// Reads 4 KiB from random places of a cached file, so many at once; nanoseconds per read.
pub(crate) fn read_cached(at_once: u32, times: u32) -> f64 {
    let file = cached();
    Monoio::block_on(async move {
        let file = Rc::new(File::from_std(file).expect("a file"));
        let begin = Instant::now();
        let readers = (0..at_once).map(|reader| {
            let file = Rc::clone(&file);
            monoio::spawn(async move {
                let mut random = Random::new(u64::from(reader) + 1);
                let mut buf = vec![0; PIECE as usize];
                for _ in 0..times / at_once {
                    let place = random.below(FILE / PIECE) * PIECE;
                    let (read, back) = file.read_at(buf, place).await;
                    assert_eq!(read.expect("it is there"), PIECE as usize);
                    buf = back;
                }
                assert!(buf.iter().all(|&byte| byte == 7));
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            reader.await;
        }
        each(begin, times / at_once * at_once)
    })
}
