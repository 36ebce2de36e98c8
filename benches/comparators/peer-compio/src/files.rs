//! Writes to nowhere, and reads of a file that lies in the page cache.

use std::rc::Rc;
use std::time::{Duration, Instant};

use common::micro::{FILE, LONG, PIECE, Random, cached, each, path_of};
use common::scenarios::{Runtime, yield_now};
use compio::BufResult;
use compio::fs::{File, OpenOptions};
use compio::io::{AsyncReadAt, AsyncWriteAt};
use compio::runtime::spawn;
use compio::time::sleep;

use crate::Compio;

/// Eight bytes to `/dev/null`, so many times in a row, while so many tasks sleep; nanoseconds per write.
pub(crate) fn write_null(times: u32, sleepers: u32) -> f64 {
    Compio::block_on(async move {
        let null = OpenOptions::new().write(true).open("/dev/null").await;
        let mut null = null.expect("it is there");
        for number in 0..sleepers {
            spawn(sleep(LONG + Duration::from_secs(u64::from(number)))).detach();
        }
        // A turn of the runtime takes a part of them.
        for _ in 0..=sleepers / 16 {
            yield_now().await;
        }
        let begin = Instant::now();
        for _ in 0..times {
            let BufResult(written, _) = null.write_at([0_u8; 8], 0).await;
            assert_eq!(written.expect("it takes all"), 8);
        }
        each(begin, times)
    })
}

/// Reads 4 KiB from random places of a cached file, so many at once; nanoseconds per read.
pub(crate) fn read_cached(at_once: u32, times: u32) -> f64 {
    let file = cached();
    Compio::block_on(async move {
        let file = Rc::new(File::open(path_of(&file)).await.expect("it is there"));
        let begin = Instant::now();
        let readers = (0..at_once).map(|reader| {
            let file = Rc::clone(&file);
            spawn(async move {
                let mut random = Random::new(u64::from(reader) + 1);
                let mut buf = vec![0; PIECE as usize];
                for _ in 0..times / at_once {
                    let place = random.below(FILE / PIECE) * PIECE;
                    let BufResult(read, back) = file.read_at(buf, place).await;
                    assert_eq!(read.expect("it is there"), PIECE as usize);
                    buf = back;
                }
                assert!(buf.iter().all(|&byte| byte == 7));
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            Compio::output(reader.await);
        }
        each(begin, times / at_once * at_once)
    })
}
