//! Every request to the kernel: what it does, and how it says no.

use std::future::{Future, poll_fn};
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::pin;
use std::process::Command;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use quoit::buf::SliceExt;
use quoit::fs::{EntryKind, File, Folder, OpenOptions};
use quoit::op::{self, PipeReader, PipeWriter, SharedFd};
use quoit::signal::{Signal, Signals};
use quoit::sim::{self, Fault, Faults, Sim};
use quoit::{Cancelled, CarriesCancelled, Scope, spawn, yield_now};
use rustix::fs::{OFlags, fcntl_setfl};
use tests::{
    Child, Kernel, Put, both_streams, bytes, content_of, descriptors, gauges, in_child, on_core,
    on_core_in, on_ring, poll_once, read_all, whole,
};

const READABLE: u32 = libc::POLLIN as u32;
const WRITABLE: u32 = libc::POLLOUT as u32;
const HUNG_UP: u32 = libc::POLLHUP as u32;

fn pipe() -> (SharedFd, SharedFd) {
    op::pipe().expect("a pipe")
}

/// Reads so many bytes from a pipe.
async fn read_exactly(fd: &SharedFd, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let (read, buf) = op::read(fd, vec![0; count - all.len()]).await;
        all.extend_from_slice(&buf[..read.expect("bytes")]);
    }
    all
}

fn kind<T>(outcome: io::Result<T>) -> io::ErrorKind {
    outcome.map(drop).expect_err("it fails").kind()
}

fn errno<T>(outcome: io::Result<T>) -> i32 {
    let error = outcome.map(drop).expect_err("it fails");
    error.raw_os_error().expect("the kernel's own word")
}

// --- descriptors that were told not to block: on the real ring, which can be told ---

/// Others who have the same pipe or socket may have told it, as shells and supervisors do.
#[test]
fn what_does_not_block_is_waited_for_all_the_same() {
    let tell = |fd: BorrowedFd<'_>| fcntl_setfl(fd, OFlags::NONBLOCK).expect("it is open");
    on_ring(move |handle| async move {
        let (reader, writer) = io::pipe().expect("a pipe");
        tell(reader.as_fd());
        tell(writer.as_fd());
        let (reader, writer) = (OwnedFd::from(reader), OwnedFd::from(writer));
        let (reader, writer) = (PipeReader::from(reader), SharedFd::from(writer));
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        tell(listener.as_fd());
        let listener = op::Listener::new(OwnedFd::from(listener).into());
        let mut word = Box::pin(reader.receive());
        let mut connection = Box::pin(listener.accept());
        assert!(poll_once(word.as_mut()).await.is_pending());
        assert!(poll_once(connection.as_mut()).await.is_pending());
        // Nothing comes of them meanwhile, again and again.
        let before = gauges(&handle).await.completions;
        assert!(poll_once(word.as_mut()).await.is_pending());
        assert!(poll_once(connection.as_mut()).await.is_pending());
        assert!(gauges(&handle).await.completions - before < 10);
        let theirs = TcpStream::connect(address).expect("it listens");
        tell(theirs.as_fd());
        let theirs = op::Stream::new(OwnedFd::from(theirs).into());
        let ours = op::Stream::new(connection.await.expect("one has come"));
        let length = 8 << 20;
        let sending = spawn(async move { theirs.send_all(vec![7; length]).await.0 });
        let (read, all) = ours.read_exact(vec![0; length]).await;
        read.expect("all of it");
        assert!(all == vec![7; length]);
        sending.await.expect("no panic").expect("all of it");
        let writer = PipeWriter::new(writer).expect("a signal can be blocked");
        let writing = spawn(async move { writer.write_all(vec![8; length]).await.0 });
        let mut count = word.await.expect("no error").map_or(0, |word| word.len());
        while let Some(more) = reader.receive().await.expect("no error") {
            assert!(more.iter().all(|&byte| byte == 8));
            count += more.len();
        }
        assert_eq!(count, length);
        writing.await.expect("no panic").expect("all of it");
    });
}

// --- nothing, and pipes ---

#[test]
fn a_nop_goes_to_the_kernel_and_back() {
    on_core(|handle| async move {
        let before = gauges(&handle).await;
        for _ in 0..10 {
            op::nop().await.expect("not cancelled");
        }
        let after = handle.metrics()[0];
        assert_eq!(after.submitted - before.submitted, 10);
        assert_eq!(after.completions - before.completions, 10);
    });
}

#[test]
fn requests_of_one_turn_go_in_one_entry() {
    on_core(|handle| async move {
        let before = gauges(&handle).await;
        let tasks: Vec<_> = (0..100).map(|_| spawn(op::nop())).collect();
        for task in tasks {
            task.await.expect("it ended").expect("not cancelled");
        }
        let after = handle.metrics()[0];
        assert_eq!(after.submitted - before.submitted, 100);
        // 100 tasks are looked after every 32 polls, and their requests may go out then. Which of
        // them come first in a turn is for the seed to say, so that there are more turns.
        let enters = after.enters - before.enters;
        let most = match Kernel::here() {
            Kernel::Real => 4,
            Kernel::Simulated => 10,
            Kernel::Unruly => 100,
        };
        assert!(enters <= most, "{enters} entries");
    });
}

#[test]
fn a_pipe_carries_bytes() {
    on_core(|_| async {
        let (reader, writer) = pipe();
        let (count, text) = op::write(&writer, String::from("through")).await;
        assert_eq!(text, "through");
        let written = whole(count, 7);
        let (count, buf) = op::read(&reader, Vec::with_capacity(16)).await;
        let read = whole(count, written);
        assert_eq!(buf, b"through"[..read]);
        let rest = read_exactly(&reader, written - read).await;
        assert_eq!(rest, b"through"[read..written]);
        // A read that waits is ended by the write.
        let inner = reader.clone();
        let waiting = spawn(async move { op::read(&inner, [0; 4]).await });
        op::nop().await.expect("it waits in the kernel");
        op::write(&writer, "!").await.0.expect("room");
        let (count, buf) = waiting.await.expect("it ended");
        assert_eq!((count.expect("a byte"), buf), (1, *b"!\0\0\0"));
        drop(writer);
        let (count, buf) = op::read(&reader, [9; 4]).await;
        assert_eq!((count.expect("an orderly end"), buf), (0, [9; 4]));
    });
}

#[test]
fn a_pipe_nobody_reads_breaks_and_the_buffer_comes_back() {
    on_core(|_| async {
        let (reader, writer) = pipe();
        drop(reader);
        let (outcome, buf) = op::write(&writer, vec![1, 2, 3]).await;
        assert_eq!(
            (kind(outcome), buf),
            (io::ErrorKind::BrokenPipe, vec![1, 2, 3])
        );
    });
}

#[test]
fn the_wrong_end_of_a_pipe_says_so() {
    on_core(|_| async {
        let (reader, writer) = pipe();
        assert_eq!(errno(op::read(&writer, [0; 4]).await.0), libc::EBADF);
        assert_eq!(errno(op::write(&reader, "x").await.0), libc::EBADF);
        assert_eq!(
            errno(op::receive_into(&reader, [0; 4]).await.0),
            libc::ENOTSOCK
        );
    });
}

#[test]
fn a_poll_says_what_a_descriptor_is_ready_for() {
    on_core(|_| async {
        let (reader, writer) = pipe();
        assert_eq!(op::poll(&writer, WRITABLE).await.expect("room"), WRITABLE);
        let mut wait = pin!(op::poll(&reader, READABLE));
        assert!(poll_once(wait.as_mut()).await.is_pending());
        op::nop().await.expect("it waits in the kernel");
        op::write(&writer, "x").await.0.expect("room");
        assert_eq!(wait.await.expect("a byte"), READABLE);
        op::read(&reader, [0; 1]).await.0.expect("a byte");
        drop(writer);
        assert_eq!(op::poll(&reader, READABLE).await.expect("the end"), HUNG_UP);
    });
}

#[test]
fn a_receive_into_a_buffer_of_ones_own_takes_what_is_there() {
    on_core(|_| async {
        let (ours, theirs) = both_streams().await;
        let ours = ours.fd();
        theirs.send_all("abc").await.0.expect("room");
        let mut all = Vec::new();
        while all.len() < 3 {
            let (count, buf) = op::receive_into(&ours, [0; 8]).await;
            all.extend_from_slice(&buf[..count.expect("bytes")]);
        }
        assert_eq!(all, b"abc");
        drop(theirs);
        assert_eq!(op::receive_into(&ours, [0; 8]).await.0.expect("the end"), 0);
    });
}

// --- descriptors ---

#[test]
fn an_op_keeps_its_descriptor_open() {
    on_core(|_| async {
        let (reader, writer) = pipe();
        let number = reader.as_raw_fd();
        let mut read = Box::pin({
            let reader = reader.clone();
            async move { op::read(&reader, [0; 4]).await }
        });
        assert!(poll_once(read.as_mut()).await.is_pending());
        op::nop().await.expect("it waits in the kernel");
        drop(reader);
        if !Kernel::here().is_simulated() {
            assert!(Path::new(&format!("/proc/self/fd/{number}")).exists());
        }
        op::write(&writer, "!").await.0.expect("somebody reads");
        let (count, buf) = read.await;
        assert_eq!((count.expect("a byte"), buf), (1, *b"!\0\0\0"));
    });
}

// On the real ring: they look at the descriptors of this process.

#[test]
fn a_close_closes_for_all_owners_and_a_drop_for_the_last() {
    in_child(
        "requests::a_close_closes_for_all_owners_and_a_drop_for_the_last",
        || {
            on_ring(|_| async {
                let before = descriptors();
                let (reader, writer) = pipe();
                assert_eq!(descriptors(), before + 2);
                let other = reader.clone();
                drop(reader);
                assert_eq!(descriptors(), before + 2);
                let last = other.clone();
                op::close(other).await.expect("no error");
                assert_eq!(descriptors(), before + 1);
                drop(last);
                let scope = Scope::new();
                scope.handle().cancel();
                let outcome = scope.run(op::close(writer)).await;
                assert!(matches!(outcome, Ok(Some(()))));
                assert_eq!(descriptors(), before);
                // Dropped before it was polled, or after: closed all the same.
                let (reader, writer) = pipe();
                drop(op::close(reader));
                let outcome = Scope::new()
                    .run(async {
                        let mut close = pin!(op::close(writer));
                        assert!(poll_once(close.as_mut()).await.is_pending());
                        Ok::<_, Cancelled>(())
                    })
                    .await;
                assert_eq!(outcome, Ok(Some(())));
                assert_eq!(descriptors(), before);
            });
        },
    );
}

// --- files ---

#[test]
fn what_was_written_at_an_offset_is_read_there() {
    on_core_in(&[], |_, folder| async move {
        let path = folder.join("file");
        let options = OpenOptions::new().read(true).write(true).create(true);
        let file = options.open(&path).await.expect("a new file");
        let written = whole(file.write_at("hello", 3).await.0, 5) as u64;
        let (outcome, _) = file
            .write_all_at(&b"hello"[written as usize..], 3 + written)
            .await;
        outcome.expect("room");
        let (count, buf) = file.read_at(vec![7; 16], 0).await;
        assert_eq!(buf, b"\0\0\0hello"[..whole(count, 8)]);
        let (count, buf) = file.read_at([0; 2], 4).await;
        let count = whole(count, 2);
        assert_eq!(buf[..count], b"el"[..count]);
        assert_eq!(file.read_at([0; 2], 8).await.0.expect("the end"), 0);
        assert_eq!(file.read_at([0; 2], 1 << 40).await.0.expect("the end"), 0);
        let part = b"ab..".to_vec().slice(2..);
        let (count, part) = file.read_at(part, 3).await;
        let count = whole(count, 2);
        assert_eq!(part.into_inner()[..2 + count], b"abhe"[..2 + count]);
        file.sync_data().await.expect("a file is synced");
        file.sync_all().await.expect("a file is synced");
        file.close().await.expect("no error");
        assert_eq!(content_of(&path).await, b"\0\0\0hello");
    });
}

#[test]
fn a_large_file_is_written_and_read_whole() {
    on_core_in(&[], |_, folder| async move {
        let path = folder.join("file");
        let file = File::create(&path).await.expect("a new file");
        let (outcome, sent) = file.write_all_at(bytes(8 << 20, 1), 100).await;
        outcome.expect("room");
        file.write_all_at(Vec::new(), 0).await.0.expect("nothing");
        let file = File::open(&path).await.expect("a file");
        assert!(read_all(&file, 100).await == sent);
    });
}

#[test]
fn how_a_file_is_opened_is_how_it_behaves() {
    on_core_in(&[Put::File("file", b"old")], |_, folder| async move {
        let path = folder.join("file");
        let read_only = File::open(&path).await.expect("a file");
        assert_eq!(errno(read_only.write_at("x", 0).await.0), libc::EBADF);
        let append = OpenOptions::new().append(true).open(&path).await;
        let append = append.expect("a file");
        append.write_all_at("er", 0).await.0.expect("room");
        assert_eq!(content_of(&path).await, b"older");
        assert_eq!(errno(append.read_at([0; 1], 0).await.0), libc::EBADF);
        let truncate = OpenOptions::new().write(true).truncate(true);
        drop(truncate.open(&path).await.expect("a file"));
        assert_eq!(content_of(&path).await, b"");
        let new = OpenOptions::new().write(true).create_new(true).mode(0o600);
        assert_eq!(kind(new.open(&path).await), io::ErrorKind::AlreadyExists);
        let other = folder.join("other");
        let other = new.open(&other).await.expect("a new file");
        let mode = other.metadata().expect("an open file has some").mode();
        assert_eq!(mode & 0o777, 0o600);
    });
}

#[test]
fn a_file_that_cannot_be_opened_says_why() {
    let entries = [Put::File("file", b""), Put::Link("loop", "loop")];
    on_core_in(&entries, |_, folder| async move {
        let missing = folder.join("missing");
        assert_eq!(kind(File::open(&missing).await), io::ErrorKind::NotFound);
        let below_a_file = folder.join("file/below");
        assert_eq!(
            kind(File::open(&below_a_file).await),
            io::ErrorKind::NotADirectory
        );
        assert_eq!(
            kind(File::create(&folder).await),
            io::ErrorKind::IsADirectory
        );
        let a_folder = File::open(&folder).await.expect("folders open too");
        assert_eq!(errno(a_folder.read_at([0; 4], 0).await.0), libc::EISDIR);
        assert_eq!(
            kind(Folder::open(folder.join("file")).await),
            io::ErrorKind::NotADirectory
        );
        let looped = File::open(folder.join("loop")).await;
        assert_eq!(errno(looped), libc::ELOOP);
        let long = folder.join("x".repeat(300));
        assert_eq!(errno(File::open(long).await), libc::ENAMETOOLONG);
    });
}

#[test]
fn switches_that_make_no_sense_together_are_refused() {
    on_core_in(&[], |handle, folder| async move {
        let before = handle.metrics()[0].submitted;
        let path = folder.join("file");
        for options in [
            OpenOptions::new(),
            OpenOptions::new().create(true),
            OpenOptions::new().read(true).create(true),
            OpenOptions::new().read(true).create_new(true),
            OpenOptions::new().read(true).truncate(true),
            OpenOptions::new().append(true).truncate(true),
        ] {
            let refused = options.open(&path).await;
            assert_eq!(kind(refused), io::ErrorKind::InvalidInput, "{options:?}");
        }
        let refused = File::open("a\0b").await;
        assert_eq!(kind(refused), io::ErrorKind::InvalidInput);
        assert_eq!(handle.metrics()[0].submitted, before, "none went out");
        assert_eq!(kind(File::open(&path).await), io::ErrorKind::NotFound);
    });
}

#[test]
fn metadata_is_what_the_kernel_says() {
    on_core_in(&[Put::File("file", b"12345")], |_, folder| async move {
        let path = folder.join("file");
        let file = File::open(&path).await.expect("a file");
        let found = file.metadata().expect("an open file has some");
        assert_eq!(found.len(), 5);
        assert!(found.is_file() && !found.is_folder() && !found.is_empty());
        if !Kernel::here().is_simulated() {
            let expected = std::fs::metadata(&path).expect("a file");
            assert_eq!(found.inode(), expected.ino());
            assert_eq!(found.mode(), expected.mode());
            assert_eq!(found.modified(), expected.modified().expect("a time"));
        }
        let folder = Folder::open(folder).await.expect("a folder");
        let found = folder.metadata().expect("an open folder has some");
        assert!(found.is_folder() && !found.is_file());
        let (reader, _writer) = pipe();
        let found = File::from(reader).metadata().expect("a pipe has some");
        assert!(!found.is_file() && !found.is_folder() && found.is_empty());
    });
}

#[test]
fn what_cannot_be_synced_says_so() {
    on_core(|_| async {
        let (reader, _writer) = pipe();
        let file = File::from(reader);
        assert_eq!(errno(file.sync_all().await), libc::EINVAL);
        assert_eq!(errno(file.sync_data().await), libc::EINVAL);
    });
}

#[test]
fn many_reads_of_one_file_go_at_once() {
    let content = bytes(1 << 20, 2);
    let expected = content.clone();
    on_core_in(&[Put::File("file", &content)], |_, folder| async move {
        let file = File::open(folder.join("file")).await.expect("a file");
        let tasks: Vec<_> = (0..256_usize)
            .map(|place| {
                let file = file.clone();
                spawn(async move { file.read_at([0; 4096], place as u64 * 4096).await })
            })
            .collect();
        for (part, task) in expected.chunks(4096).zip(tasks) {
            let (count, buf) = task.await.expect("it ended");
            let count = whole(count, 4096);
            assert!(buf[..count] == part[..count]);
        }
    });
}

// --- folders ---

#[test]
fn a_folder_opens_what_lies_beneath_it() {
    let entries = [
        Put::Folder("a"),
        Put::Folder("a/b"),
        Put::File("a/b/file", b"deep"),
        Put::Link("inside", "a/b/file"),
        Put::Link("a/b/sideways", "../b/./file"),
    ];
    on_core_in(&entries, |_, root| async move {
        let folder = Folder::open(&root).await.expect("a folder");
        let read = OpenOptions::new().read(true);
        for path in [
            "a/b/file",
            "a/../a/b/file",
            "./a//b/file",
            "inside",
            "a/b/sideways",
        ] {
            let file = folder.open_beneath(path, &read).await;
            let file = file.unwrap_or_else(|error| panic!("{path}: {error}"));
            assert_eq!(read_all(&file, 0).await, b"deep", "{path}");
        }
        let options = OpenOptions::new().write(true).create_new(true);
        let new = folder.open_beneath("a/new", &options).await;
        new.expect("room").write_at("x", 0).await.0.expect("room");
        assert_eq!(content_of(root.join("a/new")).await, b"x");
        let inner = folder.open_beneath("a/b", &read).await.expect("a folder");
        let inner = Folder::from(inner);
        assert_eq!(inner.entries().await.expect("a list").len(), 2);
    });
}

/// The kernel cannot tell then whether `..` leads out, and says so (`EAGAIN`).
#[test]
fn a_path_is_walked_again_where_somebody_renames_meanwhile() {
    let entries = [Put::Folder("a"), Put::File("file", b"here")];
    on_core_in(&entries, |_, root| async move {
        let folder = Folder::open(&root).await.expect("a folder");
        let read = OpenOptions::new().read(true);
        if Kernel::here() != Kernel::Real {
            for _ in 0..3 {
                sim::force(Fault::RenamedMeanwhile);
            }
        }
        let file = folder.open_beneath("a/../file", &read).await;
        let file = file.expect("it is there all the time");
        assert_eq!(read_all(&file, 0).await, b"here");
    });
}

/// Whoever renames without end holds nobody up for ever.
#[test]
fn a_path_is_not_walked_again_for_ever() {
    let always = Faults::none().rate(Fault::RenamedMeanwhile, 1.0);
    let ended = Sim::with_seed(0).faults(always).run(|| {
        quoit::block_on(async {
            let folder = Folder::open("/").await.expect("a folder");
            let read = OpenOptions::new().read(true);
            let refused = folder.open_beneath("a/../file", &read).await;
            assert_eq!(kind(refused), io::ErrorKind::WouldBlock);
        })
    });
    ended.value.expect("a ring");
}

#[test]
fn nothing_leads_out_of_a_folder() {
    let entries = [
        Put::File("secret", b"secret"),
        Put::Folder("root"),
        Put::Folder("root/sub"),
        Put::LinkHere("root/absolute", "secret"),
        Put::Link("root/relative", "../secret"),
        Put::Link("root/up", ".."),
        Put::Link("root/slash", "/"),
        Put::Link("root/sub-up", "sub/../../secret"),
        Put::Link("root/link-to-link", "relative"),
    ];
    on_core_in(&entries, |_, outer| async move {
        let root = outer.join("root");
        let folder = Folder::open(&root).await.expect("a folder");
        let secret = outer.join("secret").display().to_string();
        let inside = root.join("sub").display().to_string();
        for path in [
            "..",
            "../secret",
            "sub/../../secret",
            "sub/../../root/sub",
            secret.as_str(),
            inside.as_str(),
            "/",
            "absolute",
            "relative",
            "up",
            "up/secret",
            "slash",
            "slash/etc/passwd",
            "sub-up",
            "link-to-link",
        ] {
            for options in [
                OpenOptions::new().read(true),
                OpenOptions::new().write(true).create(true),
            ] {
                let refused = folder.open_beneath(path, &options).await;
                assert_eq!(kind(refused), io::ErrorKind::CrossesDevices, "{path}");
            }
        }
        assert_eq!(content_of(outer.join("secret")).await, b"secret");
    });
}

// On the real ring: `/proc` is its kernel's.

#[test]
fn links_of_the_kernel_that_are_no_paths_lead_nowhere() {
    on_ring(|_| async {
        let folder = Folder::open("/proc/self").await.expect("/proc");
        let read = OpenOptions::new().read(true);
        for path in ["root", "root/etc/passwd", "cwd", "exe", "fd/0"] {
            let refused = folder.open_beneath(path, &read).await;
            let error = refused.map(drop).expect_err(path);
            assert!(
                matches!(error.raw_os_error(), Some(libc::EXDEV | libc::ELOOP)),
                "{path}: {error}"
            );
        }
    });
}

#[test]
fn the_refusal_of_a_link_below_proc_is_the_documented_one() {
    on_ring(|_| async {
        let folder = Folder::open("/proc/self").await.expect("/proc");
        let read = OpenOptions::new().read(true);
        let refused = folder
            .open_beneath("root", &read)
            .await
            .expect_err("no path");
        // ELOOP, `openat2(2)`.
        assert_eq!(refused.raw_os_error(), Some(40));
    });
}

// On both again.

#[test]
fn a_folder_lists_all_its_entries_with_their_kinds() {
    // More than one slice of the listing holds.
    let names: Vec<String> = (0..1_500).map(|number| format!("{number:0>120}")).collect();
    let mut entries: Vec<_> = names.iter().map(|name| Put::File(name, b"")).collect();
    entries.push(Put::Folder("folder"));
    entries.push(Put::Link("link", "nowhere"));
    let mut expected: Vec<_> = names
        .iter()
        .map(|name| (name.clone(), EntryKind::File))
        .collect();
    expected.push(("folder".to_owned(), EntryKind::Folder));
    expected.push(("link".to_owned(), EntryKind::Link));
    on_core_in(&entries, |_, root| async move {
        let mut expected = expected;
        // A simulated machine has no sockets in its folders.
        let socket = root.join("socket");
        let bound = (!Kernel::here().is_simulated())
            .then(|| std::os::unix::net::UnixListener::bind(socket).expect("room"));
        if bound.is_some() {
            expected.push(("socket".to_owned(), EntryKind::Other));
        }
        let empty = Folder::open(root.join("folder")).await.expect("a folder");
        assert!(empty.entries().await.expect("a list").is_empty());
        let folder = Folder::open(root).await.expect("a folder");
        // Listed twice, at the same time: each has a position of its own.
        let other = folder.clone();
        let second = spawn(async move { other.entries().await });
        let lists = [folder.entries().await, second.await.expect("it ended")];
        for list in lists {
            let mut found: Vec<_> = list
                .expect("a list")
                .into_iter()
                .map(|entry| (entry.name.into_string().expect("text"), entry.kind))
                .collect();
            found.sort_by(|one, other| one.0.cmp(&other.0));
            assert!(found == expected);
        }
    });
}

#[test]
fn a_listing_in_a_cancelled_scope_is_cancelled() {
    on_core_in(&[], |_, root| async move {
        let folder = Folder::open(root).await.expect("a folder");
        let scope = Scope::new();
        scope.handle().cancel();
        let outcome = scope.run(folder.entries()).await;
        assert!(matches!(outcome, Ok(None)));
    });
}

// --- signals: on the real ring, which has some ---

#[test]
fn signals_arrive_as_messages() {
    // Blocked before the process has a second thread: nobody else is there to take them.
    let blocked = Child::new().under(["env", "--block-signal=USR1,USR2,TERM"]);
    blocked.run("requests::signals_arrive_as_messages", || {
        let all = [Signal::User1, Signal::User2, Signal::Terminate];
        let signals = Signals::block(&all).expect("known signals");
        let send = |name: &str| {
            let target = std::process::id().to_string();
            let status = Command::new("kill").args([name, target.as_str()]).status();
            assert!(status.expect("every machine has it").success());
        };
        send("-USR1");
        assert_eq!(signals.wait().expect("one is there"), Signal::User1);
        let other = signals.clone();
        let waiting = thread::spawn(move || other.wait());
        send("-TERM");
        let outcome = waiting.join().expect("no panic");
        assert_eq!(outcome.expect("it was sent"), Signal::Terminate);
        let for_core = signals.clone();
        on_ring(move |_| async move {
            let refused = for_core.wait();
            assert_eq!(kind(refused), io::ErrorKind::WouldBlock);
            let stream = for_core.stream().expect("a descriptor");
            let mut next = Box::pin(stream.next());
            assert!(poll_once(next.as_mut()).await.is_pending());
            thread::spawn(move || send("-USR2")).join().expect("sent");
            assert_eq!(next.await.expect("it was sent"), Signal::User2);
            // A wait that is cancelled takes none.
            let scope = Scope::new();
            let cancel = scope.handle();
            let outcome = scope
                .run(async {
                    let mut next = pin!(stream.next());
                    assert!(poll_once(next.as_mut()).await.is_pending());
                    thread::spawn(move || send("-USR1")).join().expect("sent");
                    cancel.cancel();
                    yield_now().await.expect_err("cancelled");
                    next.await
                })
                .await;
            let taken = outcome.expect("no error");
            if taken.is_none() {
                assert_eq!(stream.next().await.expect("it waits"), Signal::User1);
            }
            // Nor does one that is given up, however far it has come.
            let mut next = Box::pin(stream.next());
            assert!(poll_once(next.as_mut()).await.is_pending());
            thread::spawn(move || send("-USR2")).join().expect("sent");
            let mut polls = 0;
            let mut taken = poll_fn(|cx| {
                polls += 1;
                match next.as_mut().poll(cx) {
                    Poll::Ready(taken) => Poll::Ready(Some(taken)),
                    Poll::Pending if polls == 1 => Poll::Pending,
                    Poll::Pending => Poll::Ready(None),
                }
            })
            .await;
            drop(next);
            if taken.is_none() {
                let again = Scope::new().timeout(Duration::from_secs(5));
                let left = again.run(async { Ok::<_, Cancelled>(stream.next().await) });
                taken = left.await.expect("nobody else cancels");
            }
            let taken = taken.expect("it waits").expect("it was sent");
            assert_eq!(taken, Signal::User2);
        });
    });
}

// --- errors of a cancelled request ---

#[test]
fn a_cancelled_request_gives_its_buffer_back() {
    on_core(|_| async {
        let (reader, _writer) = pipe();
        let scope = Scope::new();
        scope.handle().cancel();
        let outcome = scope
            .run(async {
                let (outcome, buf) = op::read(&reader, vec![5; 32]).await;
                let error = outcome.expect_err("cancelled");
                assert!(error.cancelled().is_some());
                Ok::<_, io::Error>(buf)
            })
            .await;
        assert_eq!(outcome.expect("no error"), Some(vec![5; 32]));
    });
}

/// The kernel interrupts the thread that waits in the open, whose answer is none of those that a call gives. On the real
/// ring, which has FIFOs.
#[test]
fn an_open_that_waits_for_the_other_end_is_cancelled() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("fifo");
    let made = Command::new("mkfifo").arg(&path).status();
    assert!(made.expect("every machine has it").success());
    on_ring(move |_| async move {
        // What may create a file goes to a thread of the kernel's at once, and waits there for a reader.
        let options = OpenOptions::new().write(true).create(true);
        let opened = Scope::new()
            .timeout(Duration::from_millis(20))
            .run(options.open(path))
            .await;
        assert!(matches!(opened, Ok(None)), "{opened:?}");
    });
}

/// Uses the plain ends, so that the ops' side and the standard library's agree: on the real ring.
#[test]
fn bytes_that_were_written_by_request_are_there_for_everybody() {
    on_ring(|_| async {
        let (mut reader, writer) = io::pipe().expect("a pipe");
        let writer = SharedFd::from(OwnedFd::from(writer));
        op::write(&writer, "plain").await.0.expect("room");
        op::close(writer).await.expect("no error");
        let mut text = String::new();
        reader.read_to_string(&mut text).expect("an orderly end");
        assert_eq!(text, "plain");
    });
}
