//! Single ops of the kernel, and a few at once.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::rc::Rc;
use std::time::Duration;

use quoit::buf::{IoBufMut, Slice, SliceExt};
use quoit::op::{self, SharedFd};
use quoit::time::{Instant, sleep};
use quoit::{group, spawn};
use rustix::fs::{OFlags, fstatfs};
use tempfile::NamedTempFile;

use super::{Random, each, on_one};

/// Nothing, by way of the ring, so many times in a row; nanoseconds per round trip.
pub fn nop(times: u32) -> f64 {
    on_one(async {
        let begin = Instant::now();
        for _ in 0..times {
            op::nop().await.expect("nobody cancels");
        }
        each(begin, times)
    })
}

/// Eight bytes to `/dev/null`, so many times in a row, while so many tasks sleep; nanoseconds per write. Most go past
/// the ring: the task has the core for itself.
pub fn write_null(times: u32, sleepers: u32) -> f64 {
    on_one(async {
        let null = File::create("/dev/null").expect("it is there");
        let null = SharedFd::from(OwnedFd::from(null));
        let wrote = group(async |g| {
            for number in 0..sleepers {
                let long = Duration::from_secs(100 + u64::from(number));
                g.spawn_daemon(sleep(long));
            }
            quoit::yield_now().await?;
            let begin = Instant::now();
            for _ in 0..times {
                let (written, _) = op::write(&null, [0; 8]).await;
                assert_eq!(written.expect("it takes all"), 8);
            }
            Ok::<_, quoit::Cancelled>(each(begin, times))
        });
        wrote
            .await
            .expect("nobody cancels")
            .expect("nobody cancels")
    })
}

/// How large the file is that is read: it lies in the page cache.
const SIZE: u64 = 64 << 20;
const PIECE: u64 = 4096;

/// A file in the page cache.
fn cached() -> File {
    let mut file = tempfile::tempfile().expect("a folder to write to");
    fill(&mut file).expect("room");
    file
}

fn fill(file: &mut File) -> io::Result<()> {
    // By and by: to fill all of it in memory first takes valgrind as long as everything else.
    let some = vec![7; 1 << 20];
    for _ in 0..SIZE / some.len() as u64 {
        file.write_all(&some)?;
    }
    Ok(())
}

/// A file whose reads pass by the page cache.
fn direct() -> io::Result<File> {
    let mut file = NamedTempFile::new()?;
    fill(file.as_file_mut())?;
    file.as_file().sync_all()?;
    reopened(&file)
}

/// Looks whether the folder of temporary files takes direct reads.
///
/// # Errors
///
/// Why it does not.
pub fn takes_direct_reads() -> io::Result<()> {
    reopened(&NamedTempFile::new()?).map(drop)
}

/// Opens a file once more, so that its reads pass by the page cache.
fn reopened(file: &NamedTempFile) -> io::Result<File> {
    if fstatfs(file)?.f_type == TMPFS {
        let folder = std::env::temp_dir();
        let memory = format!("{} lies in memory: name another TMPDIR", folder.display());
        return Err(io::Error::new(io::ErrorKind::Unsupported, memory));
    }
    let flags = OFlags::DIRECT.bits().cast_signed();
    OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(file.path())
}

/// What the file system calls itself that takes direct reads, and has nothing but the page cache.
const TMPFS: rustix::fs::FsWord = 0x0102_1994;

/// Reads 4 KiB from random places of a cached file, so many at once; nanoseconds per read. One at once, most go past
/// the ring.
pub fn read_cached(at_once: u32, times: u32) -> f64 {
    read(
        cached(),
        at_once,
        times,
        || vec![0; PIECE as usize],
        |buf| buf,
    )
}

/// Reads 4 KiB from random places of a file past the page cache, so many at once; nanoseconds per read.
///
/// # Errors
///
/// If the folder of temporary files takes no direct reads.
pub fn read_direct(at_once: u32, times: u32) -> io::Result<f64> {
    let file = direct()?;
    Ok(read(file, at_once, times, aligned, |buf: Slice<_>| {
        let begin = buf.begin();
        buf.into_inner()[begin..begin + PIECE as usize].to_vec()
    }))
}

/// A buffer that begins where a block may begin, as direct reads want it.
fn aligned() -> Slice<Vec<u8>> {
    let buf = vec![0; 2 * PIECE as usize];
    let begin = buf.as_ptr().align_offset(PIECE as usize);
    buf.slice(begin..begin + PIECE as usize)
}

/// Reads at random places into buffers that `make` makes, of which `taken` takes what was read.
fn read<B: IoBufMut>(
    file: File,
    at_once: u32,
    times: u32,
    make: fn() -> B,
    taken: fn(B) -> Vec<u8>,
) -> f64 {
    let file = Rc::new(SharedFd::from(OwnedFd::from(file)));
    on_one(async {
        let begin = Instant::now();
        let readers = (0..at_once).map(|reader| {
            let file = Rc::clone(&file);
            spawn(async move {
                let mut random = Random::new(u64::from(reader) + 1);
                let mut buf = make();
                for _ in 0..times / at_once {
                    let place = random.below(SIZE / PIECE) * PIECE;
                    let (read, back) = op::read_at(&file, buf, place).await;
                    assert_eq!(read.expect("it is there"), PIECE as usize);
                    buf = back;
                }
                assert!(taken(buf).iter().all(|&byte| byte == 7));
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            reader.await.expect("it ends well");
        }
        each(begin, times / at_once * at_once)
    })
}
