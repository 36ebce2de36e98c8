//! Reads and writes of a task that has the core for itself: past the ring, where they need not wait.

use std::fs;
use std::io::{self, IoSliceMut, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use quoit::buf::{Interrupted, SliceExt};
use quoit::fs::{File, OpenOptions};
use quoit::op::{self, PipeReader, PipeWriter, SharedFd};
use quoit::{Cancelled, CarriesCancelled, Handle, Scope, spawn, yield_now};
use rustix::fs::{Advice, CWD, Mode, OFlags, fadvise, mkfifoat};
use rustix::io::{ReadWriteFlags, preadv2};
use tests::{Child, Dice, Kernel, Put, bytes, on_core, on_core_in, on_ring, poll_once};

use crate::sends::{Way, on_and_on};

/// What a core has done so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Done {
    reads: u64,
    writes: u64,
    submitted: u64,
}

fn done(handle: &Handle) -> Done {
    let now = handle.metrics()[0];
    Done {
        reads: now.direct_reads,
        writes: now.direct_writes,
        submitted: now.submitted,
    }
}

/// Returns whether this kernel reads a file of this folder without waiting, and nothing keeps it from that by chance.
fn reads_at_once(path: &Path) -> bool {
    match Kernel::here() {
        Kernel::Simulated => true,
        Kernel::Unruly => false,
        Kernel::Real => {
            let file = fs::File::open(path).expect("it is there");
            let mut byte = [0];
            let read = preadv2(
                file,
                &mut [IoSliceMut::new(&mut byte)],
                0,
                ReadWriteFlags::NOWAIT,
            );
            if read.is_err() {
                println!(
                    "left out: files of {} cannot be read without waiting",
                    path.display()
                );
            }
            read.is_ok()
        }
    }
}

/// Opens a file, and lets the core have nothing left to submit.
async fn opened(path: &Path) -> File {
    let file = File::open(path).await.expect("it is there");
    settled().await;
    file
}

/// Lets out what opening has asked for.
async fn settled() {
    op::nop().await.expect("not cancelled");
}

#[test]
fn a_read_of_what_is_cached_goes_past_the_ring() {
    let content = bytes(10_000, 1);
    on_core_in(
        &[Put::File("file", &content)],
        |handle, folder| async move {
            let content = bytes(10_000, 1);
            let path = folder.join("file");
            let file = opened(&path).await;
            let (before, timed) = (done(&handle), timed(&handle));
            let (read, buf) = file.read_at(vec![0; 4_000], 100).await;
            let count = read.expect("no error");
            assert_eq!(buf[..count], content[100..100 + count]);
            if reads_at_once(&path) {
                assert_eq!(count, 4_000);
                let reads = before.reads + 1;
                assert_eq!(done(&handle), Done { reads, ..before });
                assert_eq!(self::timed(&handle), timed + 1);
            }
        },
    );
}

/// Returns of how many reads it is known how long they took.
fn timed(handle: &Handle) -> u64 {
    let snapshot = handle.snapshot();
    let reads = snapshot.cores[0].latency("op", Some("read"));
    reads.map_or(0, |reads| reads.count())
}

/// The file ends there: to ask the ring for more would be in vain.
#[test]
fn the_end_of_a_file_is_read_past_the_ring() {
    on_core_in(
        &[Put::File("file", &[7; 100])],
        |handle, folder| async move {
            let path = folder.join("file");
            let file = File::open(&path).await.expect("it is there");
            for (offset, left) in [(0, 100), (90, 10), (100, 0), (200, 0)] {
                // Each in a turn of its own: a machine that is busy may make one last for long.
                settled().await;
                let before = done(&handle);
                let (read, buf) = file.read_at(vec![0; 1_000], offset).await;
                let count = read.expect("no error");
                assert_eq!(buf[..count], vec![7; count]);
                if reads_at_once(&path) {
                    assert_eq!(count, left);
                    let reads = before.reads + 1;
                    assert_eq!(done(&handle), Done { reads, ..before });
                }
            }
        },
    );
}

/// Of what a core reads, some lies in the page cache and some does not: both come whole.
#[test]
fn a_read_of_what_is_cached_in_part_is_whole() {
    on_ring(|_| async {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        let content = bytes(1 << 20, 3);
        fs::write(&path, &content).expect("room");
        let known = fs::File::open(&path).expect("it is there");
        known.sync_all().expect("room");
        for keep in [0, 4096, 100_000, 1 << 19] {
            fadvise(&known, 0, None, Advice::DontNeed).expect("a file");
            fadvise(&known, 0, None, Advice::Random).expect("a file");
            let mut first = vec![0; keep];
            known.read_exact_at(&mut first, 0).expect("it is there");
            let file = File::open(&path).await.expect("it is there");
            let (read, buf) = file.read_at(vec![0; content.len()], 0).await;
            assert_eq!(read.expect("no error"), content.len(), "{keep} cached");
            assert!(buf == content, "{keep} cached: other bytes came");
        }
    });
}

/// Who reads on and on lets others have their turns: a poll has so many reads past the ring, and fewer long ones.
#[test]
fn a_poll_has_some_reads_past_the_ring_and_no_more() {
    on_core_in(
        &[Put::File("file", &[7; 100])],
        |handle, folder| async move {
            let path = folder.join("file");
            let file = File::open(&path).await.expect("it is there");
            for (length, at_most) in [(10, 16), (16 * 1024 - 1, 16), (64 * 1024, 4), (1 << 20, 1)] {
                settled().await;
                let before = done(&handle);
                let mut reads = 0;
                loop {
                    let mut read = pin!(file.read_at(vec![0; length], 0));
                    if poll_once(read.as_mut()).await.is_pending() {
                        // Before its end: a read that is interrupted begins anew, which may go past the ring.
                        assert_eq!(done(&handle).reads, before.reads + reads);
                        read.await.0.expect("no error");
                        break;
                    }
                    reads += 1;
                    assert!(reads <= at_most, "it goes on and on");
                }
                assert!(done(&handle).submitted > before.submitted);
                if reads_at_once(&path) {
                    assert_eq!(reads, at_most, "of {length} bytes");
                }
            }
            if reads_at_once(&path) {
                // The next poll has as many again.
                let mut read = pin!(file.read_at([0; 10], 0));
                assert!(poll_once(read.as_mut()).await.is_ready());
            }
        },
    );
}

#[test]
fn a_read_beside_another_ready_task_goes_by_the_ring() {
    on_core_in(
        &[Put::File("file", &[7; 100])],
        |handle, folder| async move {
            let file = opened(&folder.join("file")).await;
            let before = done(&handle);
            let other = spawn(async {});
            let mut read = pin!(file.read_at([0; 100], 0));
            assert!(poll_once(read.as_mut()).await.is_pending());
            // Before its end: by then the other has had its turn, and a read that is interrupted begins anew.
            assert_eq!(done(&handle).reads, before.reads);
            let (read, buf) = read.await;
            let count = read.expect("no error");
            assert_eq!(buf[..count], [7; 100][..count]);
            other.await.expect("no panic");
        },
    );
}

/// It would wait for the disk.
#[test]
fn a_direct_read_goes_by_the_ring() {
    on_core_in(
        &[Put::File("file", &[7; 8192])],
        |handle, folder| async move {
            let mut options = OpenOptions::new();
            options = options.read(true).custom_flags(libc::O_DIRECT);
            let Ok(file) = options.open(folder.join("file")).await else {
                println!(
                    "left out: files of {} cannot be read directly",
                    folder.display()
                );
                return;
            };
            settled().await;
            let before = done(&handle);
            let buf = vec![0; 8192];
            let begin = buf.as_ptr().align_offset(4096);
            let (read, _) = file.read_at(buf.slice(begin..begin + 4096), 0).await;
            assert!(read.is_ok_and(|count| count > 0));
            assert_eq!(done(&handle).reads, before.reads);
            assert!(done(&handle).submitted > before.submitted);
        },
    );
}

/// It would wait for as long as the file system is frozen.
#[test]
fn a_write_to_a_file_goes_by_the_ring() {
    on_core_in(&[], |handle, folder| async move {
        let file = File::create(folder.join("file")).await.expect("a new one");
        settled().await;
        let before = done(&handle);
        file.write_all_at("word", 0).await.0.expect("room");
        op::write(file.fd(), "more").await.0.expect("room");
        assert_eq!(done(&handle).writes, before.writes);
        assert!(done(&handle).submitted > before.submitted);
    });
}

/// At its own position another process may be about to read, for as long as it likes.
#[test]
fn a_read_at_a_files_own_position_goes_by_the_ring() {
    on_core_in(
        &[Put::File("file", &[7; 100])],
        |handle, folder| async move {
            let file = opened(&folder.join("file")).await;
            let before = done(&handle);
            let (read, _) = op::read(file.fd(), [0; 10]).await;
            assert!(read.is_ok_and(|count| count > 0));
            assert_eq!(done(&handle).reads, before.reads);
        },
    );
}

#[test]
fn errors_of_reads_are_those_of_the_ring() {
    on_core_in(&[Put::Folder("folder")], |_, folder| async move {
        let written = File::create(folder.join("file")).await.expect("a new one");
        let error = written.read_at([0; 10], 0).await.0;
        let error = error.expect_err("it is open for writing only");
        assert_eq!(error.raw_os_error(), Some(libc::EBADF));
        let below = File::open(folder.join("folder"))
            .await
            .expect("it is there");
        let error = below.read_at([0; 10], 0).await.0;
        let error = error.expect_err("it is a folder");
        assert_eq!(error.raw_os_error(), Some(libc::EISDIR));
    });
}

#[test]
fn a_cancelled_scope_reads_nothing() {
    on_core_in(
        &[Put::File("file", &[7; 100])],
        |handle, folder| async move {
            let file = opened(&folder.join("file")).await;
            let before = done(&handle);
            let scope = Scope::new();
            scope.cancel();
            let ended = scope.run(async {
                let (read, buf) = file.read_at([0; 10], 0).await;
                assert_eq!(buf, [0; 10]);
                assert!(
                    read.as_ref()
                        .is_err_and(|error| error.cancelled().is_some())
                );
                read
            });
            assert!(ended.await.expect("its own cancel").is_none());
            assert_eq!(done(&handle).reads, before.reads);
        },
    );
}

#[test]
fn a_cancelled_scope_writes_nothing_and_not_even_that() {
    on_core_in(&[], |_, folder| async move {
        let file = File::create(folder.join("file")).await.expect("a new one");
        for content in ["", "some"] {
            let scope = Scope::new();
            scope.cancel();
            let ended = scope.run(async { file.write_all_at(content, 0).await.0 });
            assert!(ended.await.expect("its own cancel").is_none());
        }
        assert!(file.metadata().expect("open").is_empty());
    });
}

#[test]
fn a_closed_file_is_not_read() {
    on_core_in(&[Put::File("file", &[7; 100])], |_, folder| async move {
        let file = File::open(folder.join("file")).await.expect("it is there");
        file.read_at([0; 10], 0).await.0.expect("no error");
        let other = file.clone();
        file.close().await.expect("no error");
        let error = other.read_at([0; 10], 0).await.0;
        let error = error.expect_err("it is closed for all");
        assert!(
            error
                .get_ref()
                .is_some_and(|inner| inner.is::<quoit::Closed>())
        );
    });
}

// --- at random ---

/// How long the file is that random readers read, while nobody changes it.
const LENGTH: usize = 30_000;

/// Reads somewhere, into a buffer of some kind; checks that what came is what lies there.
async fn read_somewhere(file: File, mut dice: Dice, changes: bool) -> io::Result<()> {
    let content = bytes(LENGTH, 1);
    let offset = match dice.below(8) {
        0 => LENGTH - 1 + dice.below(3),
        1 => i64::MAX as usize - dice.below(2),
        _ => dice.below(LENGTH),
    };
    let most = dice.one_of(&[0, 1, 100, 5_000, 2 * LENGTH]);
    let asked = dice.below(most + 1);
    let (read, came, asked) = match dice.below(4) {
        0 => {
            let (read, buf) = file.read_at([0; 64], offset as u64).await;
            (read, buf.to_vec(), 64)
        }
        1 => {
            let buf = vec![0; asked].into_boxed_slice();
            let (read, buf) = file.read_at(buf, offset as u64).await;
            (read, buf.into_vec(), asked)
        }
        2 => {
            let buf = vec![7; asked + 20];
            let (read, buf) = file.read_at(buf.slice(10..10 + asked), offset as u64).await;
            let buf = buf.into_inner();
            assert_eq!(buf[..10], [7; 10]);
            (read, buf[10..].to_vec(), asked)
        }
        _ => {
            let buf = Vec::with_capacity(asked);
            let asked = buf.capacity();
            let (read, buf) = file.read_at(buf, offset as u64).await;
            if let Ok(count) = read {
                assert_eq!(buf.len(), count);
            }
            (read, buf, asked)
        }
    };
    let there = content.get(offset..).unwrap_or(&[]);
    let count = match read {
        // So far from the beginning there is not even an end (`lseek(2)`).
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
            assert!(offset > LENGTH && asked > 0, "{asked} at {offset}: {error}");
            return Ok(());
        }
        read => read?,
    };
    assert_eq!(
        came[..count],
        there[..count],
        "{count} of {asked} at {offset}"
    );
    let most = asked.min(there.len());
    if !changes && Kernel::here().counts_exactly() {
        assert_eq!(count, most, "{asked} at {offset}");
    }
    // Nothing at all is the end.
    assert!(changes || count > 0 || most == 0, "{asked} at {offset}");
    Ok(())
}

async fn read_now_and_then(file: File, mut dice: Dice, changes: bool) {
    for _ in 0..30 {
        let mut read = pin!(read_somewhere(
            file.clone(),
            Dice::new(dice.seed()),
            changes
        ));
        match dice.below(5) {
            0 => drop(poll_once(read.as_mut()).await),
            1 => {
                let scope = Scope::new();
                let handle = scope.handle();
                if dice.flip() {
                    drop(spawn(async move { handle.cancel() }));
                } else {
                    handle.cancel();
                }
                scope.run(read).await.expect("its own cancel");
            }
            _ => read.await.expect("nobody cancels"),
        }
        match dice.below(4) {
            0 => settled().await,
            1 => yield_now().await.expect("nobody cancels"),
            _ => {}
        }
    }
}

/// Empties the file, and puts the same into it again.
async fn change(path: PathBuf, mut dice: Dice) {
    let content = bytes(LENGTH, 1);
    for _ in 0..5 {
        let file = File::create(&path).await.expect("it is there");
        let mut written = 0;
        while written < LENGTH {
            let part = (1 + dice.below(10_000)).min(LENGTH - written);
            let part = content[written..written + part].to_vec();
            let length = part.len();
            let (outcome, _) = file.write_all_at(part, written as u64).await;
            outcome.expect("room");
            written += length;
        }
    }
}

/// Some readers alone, who go past the ring, and some beside others, of a file that stays as it is or does not.
#[test]
fn random_reads_give_what_the_file_holds() {
    let content = bytes(LENGTH, 1);
    for seed in 0..10 {
        on_core_in(
            &[Put::File("file", &content)],
            move |handle, folder| async move {
                let mut dice = Dice::new(seed);
                let path = folder.join("file");
                let file = File::open(&path).await.expect("it is there");
                let changes = dice.one_in(3);
                let mut tasks = Vec::new();
                if changes {
                    tasks.push(spawn(change(path.clone(), Dice::new(dice.seed()))));
                }
                for _ in 0..dice.below(3) {
                    let dice = Dice::new(dice.seed());
                    tasks.push(spawn(read_now_and_then(file.clone(), dice, changes)));
                }
                read_now_and_then(file.clone(), Dice::new(dice.seed()), changes).await;
                for task in tasks {
                    task.await.expect("no panic");
                }
                read_now_and_then(file.clone(), dice, false).await;
                assert!(!reads_at_once(&path) || done(&handle).reads > 0);
                file.close().await.expect("no error");
            },
        );
    }
}

// --- pipes and devices ---

fn pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = op::pipe().expect("a pipe");
    (
        PipeReader::new(reader),
        PipeWriter::new(writer).expect("signals can be blocked"),
    )
}

#[test]
fn a_write_that_a_pipe_takes_goes_past_the_ring() {
    on_core(|handle| async move {
        let (reader, writer) = pipe();
        settled().await;
        let before = done(&handle);
        writer.write_all("word").await.0.expect("there is room");
        if Kernel::here() != Kernel::Unruly {
            let writes = before.writes + 1;
            assert_eq!(done(&handle), Done { writes, ..before });
        }
        let came = reader.receive().await.expect("no error");
        assert_eq!(came.as_deref(), Some(&b"word"[..]));
    });
}

/// What a pipe has no room for waits in the kernel, and comes behind what it took at once.
#[test]
fn a_write_that_a_pipe_takes_in_part_goes_on_by_the_ring() {
    on_core(|handle| async move {
        let (reader, writer) = pipe();
        settled().await;
        let before = done(&handle);
        let much = bytes(200_000, 1);
        let sent = much.clone();
        let writing = spawn(async move { writer.write_all(sent).await.0 });
        let mut came = Vec::new();
        while let Some(chunk) = reader.receive().await.expect("no error") {
            came.extend_from_slice(&chunk);
        }
        assert!(came == much, "other bytes came");
        writing.await.expect("no panic").expect("somebody reads");
        assert!(done(&handle).submitted > before.submitted);
    });
}

#[test]
fn a_write_to_a_full_pipe_waits_for_room() {
    on_core(|_| async {
        let (reader, writer) = pipe();
        let mut full = 0;
        let drained = loop {
            let mut write = pin!(writer.write([7; 4096]));
            if poll_once(write.as_mut()).await.is_pending() {
                // Either it is full, or the ring was asked for another reason.
                let drained = spawn(async move {
                    let mut drained = 0;
                    while let Some(chunk) = reader.receive().await.expect("no error") {
                        drained += chunk.len();
                    }
                    drained
                });
                full += write.await.0.expect("somebody reads");
                break drained;
            }
            full += 4096;
        };
        drop(writer);
        assert_eq!(drained.await.expect("no panic"), full);
    });
}

#[test]
fn a_write_to_a_pipe_that_nobody_reads_fails_once() {
    on_core(|_| async {
        let (reader, writer) = pipe();
        drop(reader);
        for _ in 0..3 {
            let error = writer.write("lost").await.0.expect_err("nobody reads");
            assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        }
    });
}

// --- on the ring alone: the simulated kernel has no devices ---

#[test]
fn a_device_that_need_not_wait_is_written_to_past_the_ring() {
    on_ring(|handle| async move {
        let null = fs::File::create("/dev/null").expect("it is there");
        let null = SharedFd::from(OwnedFd::from(null));
        settled().await;
        let before = done(&handle);
        let (written, _) = op::write(&null, [7; 100]).await;
        assert_eq!(written.expect("it takes all"), 100);
        let writes = before.writes + 1;
        assert_eq!(done(&handle), Done { writes, ..before });
    });
}

#[test]
fn a_device_that_may_wait_is_written_to_by_the_ring() {
    on_ring(|handle| async move {
        // A terminal is one.
        let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
        let terminal = rustix::pty::openpt(flags).expect("a terminal");
        let terminal = SharedFd::from(terminal);
        settled().await;
        let before = done(&handle);
        for _ in 0..2 {
            let (written, _) = op::write(&terminal, "word").await;
            assert_eq!(written.expect("there is room"), 4);
        }
        assert_eq!(done(&handle).writes, before.writes);
        assert!(done(&handle).submitted > before.submitted);
    });
}

/// The ring asks a terminal whether there is room, and then writes all where it is submitted.
#[test]
fn a_full_terminal_keeps_none_waiting_but_its_writer() {
    for as_a_file in [false, true] {
        full_terminal(as_a_file);
    }
}

fn full_terminal(as_a_file: bool) {
    const LENGTH: usize = 256 * 1024;
    on_ring(move |_| async move {
        let (screen, terminal) = terminal();
        let (tell, told) = mpsc::channel();
        let reading = thread::spawn(move || {
            // Read in the end all the same: a core that waits for it goes on then.
            let core_goes_on = told.recv_timeout(Duration::from_secs(10)).is_ok();
            let mut all = vec![0; LENGTH];
            let read = fs::File::from(screen).read_exact(&mut all);
            read.map(|()| (core_goes_on, all))
        });
        let all = vec![b'x'; LENGTH];
        let writing = spawn(async move {
            if as_a_file {
                return File::from(terminal).write_all_at(all, 0).await.0;
            }
            let writer = PipeWriter::new(terminal).expect("a signal can be blocked");
            writer.write_all(all).await.0
        });
        settled().await;
        tell.send(()).expect("it listens");
        writing.await.expect("no panic").expect("somebody reads");
        let (core_goes_on, all) = reading.join().expect("no panic").expect("all of it");
        assert!(core_goes_on);
        assert!(all == [b'x'; LENGTH]);
    });
}

#[test]
fn a_cancelled_write_to_a_full_terminal_says_how_much_it_took() {
    let test = "files::a_cancelled_write_to_a_full_terminal_says_how_much_it_took";
    let program = || {
        on_ring(|_| async {
            let (screen, terminal) = terminal();
            let writer = PipeWriter::new(terminal).expect("a signal can be blocked");
            let scope = Scope::new().timeout(Duration::from_millis(20));
            let written = scope.run(async {
                let (written, _) = writer.write_all(vec![b'x'; 1 << 20]).await;
                Ok::<_, Cancelled>(written.expect_err("nobody reads it"))
            });
            let error = written.await.expect("kept").expect("kept");
            assert!(error.cancelled().is_some(), "{error:?}");
            let interrupted = error.get_ref().and_then(|inner| inner.downcast_ref());
            let Some(Interrupted { transferred, .. }) = interrupted else {
                panic!("there was room for some: {error:?}");
            };
            drop(writer);
            // The last reader finds that nobody writes any more, which a terminal calls an error.
            let mut all = Vec::new();
            let end = fs::File::from(screen).read_to_end(&mut all);
            assert_eq!(end.expect_err("the end").raw_os_error(), Some(libc::EIO));
            assert_eq!(all.len(), *transferred);
        })
    };
    // A core that waits for a reader would wait for ever.
    Child::new().under(["timeout", "60"]).run(test, program);
}

/// Makes a terminal: who sees what is written, and where it is written to.
pub(crate) fn terminal() -> (OwnedFd, SharedFd) {
    let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
    let screen = rustix::pty::openpt(flags).expect("a terminal");
    rustix::pty::unlockpt(&screen).expect("it is ours");
    let name = rustix::pty::ptsname(&screen, Vec::new()).expect("it has a name");
    let options = OFlags::RDWR | OFlags::NOCTTY;
    let terminal = rustix::fs::open(name, options, Mode::empty()).expect("it is there");
    (screen, SharedFd::from(terminal))
}

// --- on and on ---

/// What is done again and again without the ring.
#[derive(Debug, Clone, Copy)]
enum Past {
    Reads,
    Writes,
}

impl Past {
    const ALL: [Self; 2] = [Self::Reads, Self::Writes];

    /// Opens what it is done on: something that is always there.
    fn open(self) -> SharedFd {
        let file = match self {
            Self::Reads => fs::File::open(std::env::current_exe().expect("it has a name")),
            Self::Writes => fs::File::create("/dev/null"),
        };
        SharedFd::from(OwnedFd::from(file.expect("it is there")))
    }

    async fn once(self, fd: SharedFd) -> io::Result<()> {
        match self {
            Self::Reads => op::read_at(&fd, [0; 64], 0).await.0.map(drop),
            Self::Writes => op::write(&fd, "word").await.0.map(drop),
        }
    }
}

#[test]
fn a_deadline_reaches_whoever_goes_past_the_ring_on_and_on() {
    for (past, way) in Past::ALL
        .into_iter()
        .flat_map(|past| Way::ALL.map(|way| (past, way)))
    {
        on_ring(move |_| async move {
            let fd = past.open();
            let scope = Scope::new().timeout(Duration::from_millis(3));
            let ended = scope.run(on_and_on(way, || past.once(fd.clone()))).await;
            assert!(matches!(ended, Ok(None)), "{past:?} {way:?}: {ended:?}");
        });
    }
}

#[test]
fn a_cancel_from_another_thread_reaches_whoever_goes_past_the_ring_on_and_on() {
    for (past, way) in Past::ALL
        .into_iter()
        .flat_map(|past| Way::ALL.map(|way| (past, way)))
    {
        on_ring(move |handle| async move {
            let fd = past.open();
            let scope = Scope::new();
            let cancel = scope.handle();
            let all = move || {
                let done = done(&handle);
                done.reads + done.writes + done.submitted
            };
            let before = all();
            let other = thread::spawn(move || {
                // It is in the midst of it.
                while all() < before + 20 {}
                cancel.cancel();
            });
            let ended = scope.run(on_and_on(way, || past.once(fd.clone()))).await;
            assert!(matches!(ended, Ok(None)), "{past:?} {way:?}: {ended:?}");
            other.join().expect("no panic");
        });
    }
}

#[test]
fn a_file_without_a_name_has_the_permissions_that_were_said() {
    on_core_in(&[], |_, folder| async move {
        let options = OpenOptions::new().write(true).mode(0o600);
        let options = options.custom_flags(libc::O_TMPFILE);
        let file = options.open(folder).await.expect("room");
        let mode = file.metadata().expect("open").mode();
        assert_eq!(mode & 0o7777, 0o600);
    });
}

/// It has no offsets, and may wait.
#[test]
fn a_fifo_that_was_opened_as_a_file_is_read_by_the_ring() {
    on_ring(|handle| async move {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("fifo");
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).expect("room");
        // Who has both ends waits for nobody.
        let mut both = fs::OpenOptions::new().read(true).write(true).open(&path);
        let both = both.as_mut().expect("it is there");
        let fifo = File::open(&path).await.expect("it is there");
        let before = done(&handle);
        for word in [b"one", b"two"] {
            both.write_all(word).expect("there is room");
            let (read, buf) = fifo.read_at([0; 3], 7).await;
            assert_eq!((read.expect("no error"), &buf), (3, word));
        }
        assert_eq!(done(&handle).reads, before.reads);
    });
}
