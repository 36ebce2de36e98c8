//! A send where a filter of system calls leaves the ring, and none of the calls that would do without it.
//!
//! Here, since to set a filter is unsafe.

use std::io::Read;
use std::mem::offset_of;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::thread;

use crate::op::{SharedFd, Stream};

/// Lets the kernel refuse `sendto(2)` to this thread from now on. `seccomp(2)`.
fn refuse_sendto() {
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
        step(jump, libc::SYS_sendto as u32, 1),
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
        refuse_sendto();
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
