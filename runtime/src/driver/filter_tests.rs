//! Ops where a filter of system calls leaves the ring, and none of the calls that would do without it.
//!
//! Here, since to set a filter is unsafe.

use std::env;
use std::fs::File;
use std::io::{self, Read};
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;

use crate::op::{self, PipeReader, PipeWriter, SharedFd, Stream};

/// Lets the kernel refuse this system call to this thread from now on. `seccomp(2)`.
fn refuse(call: libc::c_long) {
    let [load, jump, answer] = [
        libc::BPF_LD | libc::BPF_W | libc::BPF_ABS,
        libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K,
        libc::BPF_RET | libc::BPF_K,
    ];
    let step = |code: u32, k: u32, jf: u8| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf,
        k,
    };
    let number = offset_of!(libc::seccomp_data, nr) as u32;
    let mut steps = [
        step(load, number, 0),
        step(jump, call as u32, 1),
        step(answer, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32, 0),
        step(answer, libc::SECCOMP_RET_ALLOW, 0),
    ];
    let program = libc::sock_fprog {
        len: steps.len() as u16,
        filter: steps.as_mut_ptr(),
    };
    // SAFETY: takes no pointer.
    let agreed = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(agreed, 0);
    // SAFETY: the program and its steps outlive the call, which copies them.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &program) };
    assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
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
fn file_ops_that_a_filter_refuses_go_by_the_ring() {
    let calls = [
        libc::SYS_preadv2,
        libc::SYS_pwritev2,
        libc::SYS_fstat,
        libc::SYS_newfstatat,
        libc::SYS_fcntl,
    ];
    for call in calls {
        let program = env::current_exe().expect("it has a name");
        let file = File::open(program).expect("it is there");
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
