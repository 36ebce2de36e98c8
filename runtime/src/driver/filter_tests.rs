//! Ops where a filter of system calls leaves the ring, and none of the calls that would do without it.
//!
//! Here, since to set a filter is unsafe.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::mem::offset_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::thread;

use super::sys;
use super::table::Table;
use crate::kernel_op::request::RegionMut;
use crate::op::{self, PipeReader, PipeWriter, SharedFd, Stream};
use crate::process::Command;

/// Lets the kernel refuse this system call to this thread from now on. `seccomp(2)`.
fn refuse(call: libc::c_long) {
    refuse_unless(call, 0);
}

/// As [`refuse`], unless its third argument has one of these bits.
fn refuse_unless(call: libc::c_long, bits: i32) {
    let [load, equal, has, answer] = [
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    ];
    let step = |code: u32, k, jt, jf| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    let number = offset_of!(libc::seccomp_data, nr) as u32;
    // The lower half, on a machine that is little-endian.
    let third = offset_of!(libc::seccomp_data, args) as u32 + 2 * size_of::<u64>() as u32;
    let mut steps = [
        step(load, number, 0, 0),
        step(equal, call as u32, 0, 3),
        step(load, third, 0, 0),
        step(has, bits as u32, 1, 0),
        step(answer, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0, 0),
        step(answer, libc::SECCOMP_RET_ALLOW, 0, 0),
    ];
    let filter = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: takes no pointer.
    let narrowed = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(narrowed, 0, "needed of who may not set one otherwise");
    // SAFETY: the kernel copies the filter, which is a local, before it returns.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &filter) };
    assert_eq!(set, 0, "the kernel has filters");
}

#[test]
fn send_that_a_filter_refuses_goes_by_the_ring() {
    let (ours, mut theirs) = UnixStream::pair().expect("two sockets");
    // On a thread of its own, with which the filter ends.
    let sent = thread::spawn(|| {
        refuse(libc::SYS_sendto);
        crate::block_on(async {
            let ours = Stream::new(SharedFd::from(OwnedFd::from(ours)));
            ours.send_all("word").await.0
        })
    });
    let sent = sent.join().expect("no panic");
    sent.expect("tests need io_uring").expect("somebody reads");
    let mut all = String::new();
    theirs.read_to_string(&mut all).expect("it ends");
    assert_eq!(all, "word");
}

#[test]
fn a_large_table_grows_where_a_filter_lets_no_mapping_move() {
    // On a thread of its own, with which the filters end.
    let grown = thread::spawn(|| {
        refuse(libc::SYS_mremap);
        refuse(libc::SYS_madvise);
        let mut table = Table::new();
        (0..2_000_000).for_each(|n: u64| table.extend(1, || n));
        table.iter().copied().eq(0..2_000_000)
    });
    assert!(grown.join().expect("no panic"));
}

/// Opens this program, as a file that is there.
fn program() -> File {
    let program = env::current_exe().expect("it has a name");
    File::open(program).expect("it is there")
}

#[test]
fn file_ops_that_a_filter_refuses_go_by_the_ring() {
    let calls = [
        libc::SYS_preadv2,
        libc::SYS_pwritev2,
        libc::SYS_statx,
        libc::SYS_fcntl,
    ];
    for call in calls {
        let file = program();
        let length = file.metadata().expect("it is open").len();
        // On a thread of its own, with which the filter ends.
        let done = thread::spawn(move || {
            refuse(call);
            crate::block_on(async {
                let file = SharedFd::from(OwnedFd::from(file));
                let (read, buf) = op::read_at(&file, [0; 4], 0).await;
                assert_eq!((read?, &buf), (4, b"\x7fELF"));
                let (read, _) = op::read_at(&file, [0; 9], length - 4).await;
                assert_eq!(read?, 4);
                let (reader, writer) = op::pipe()?;
                let (reader, writer) = (PipeReader::new(reader), PipeWriter::new(writer)?);
                writer.write_all("word").await.0?;
                assert_eq!(reader.receive().await?.as_deref(), Some(&b"word"[..]));
                Ok::<_, io::Error>(())
            })
        });
        let done = done.join().expect("no panic");
        done.expect("tests need io_uring")
            .expect("the ring does it");
    }
}

/// Who serves it may be another machine, or a program that waits for a task of this very core.
#[test]
fn nobody_is_asked_what_a_file_is_before_it_is_read() {
    let file = program();
    let length = file.metadata().expect("it is open").len();
    let end = length - 4;
    let parts = [0, end].map(|offset| {
        file.read_exact_at(&mut [0; 4], offset)
            .expect("it is that long");
        let mut byte = [0];
        let into = RegionMut {
            address: (&raw mut byte).expose_provenance(),
            length: 1,
        };
        sys::read_at_once(file.as_raw_fd(), into, offset)
    });
    if !parts.iter().all(Result::is_ok) {
        println!("left out: this program cannot be read without waiting: {parts:?}");
        return;
    }
    // On a thread of its own, with which the filters end.
    let direct = thread::spawn(move || {
        refuse(libc::SYS_fstat);
        refuse(libc::SYS_newfstatat);
        refuse_unless(libc::SYS_statx, libc::AT_STATX_DONT_SYNC);
        crate::block_on(async {
            let file = SharedFd::from(OwnedFd::from(file));
            for offset in [0, end] {
                // Each in a turn of its own: one that lasts for long has no second.
                op::nop().await.expect("nobody cancels");
                let (read, _) = op::read_at(&file, [0; 9], offset).await;
                assert!(read.is_ok_and(|count| count >= 4));
            }
            crate::Handle::current().expect("on a core").metrics()[0].direct_reads
        })
    });
    let direct = direct.join().expect("no panic");
    assert_eq!(direct.expect("tests need io_uring"), 2);
}

#[test]
fn a_child_that_a_filter_lets_nobody_wait_for_is_ended_and_the_error_says_so() {
    // On a thread of its own, with which the filter ends; those that it starts have it too.
    let started = thread::spawn(|| {
        refuse(libc::SYS_pidfd_open);
        crate::block_on(async { Command::new("cat").unguarded().spawn().await.map(drop) })
    });
    let started = started.join().expect("no panic");
    let error = started.expect("tests need io_uring").expect_err("refused");
    assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
    let said = error.to_string();
    assert!(said.starts_with("cat could not be started: "), "{said}");
    assert!(said.contains("allow pidfd_open"), "{said}");
}
