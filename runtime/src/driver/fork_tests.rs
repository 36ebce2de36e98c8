//! A process that forks once it has had cores.
//!
//! Here, since to fork is unsafe.

use std::os::fd::BorrowedFd;
use std::process::Command;

use crate::driver::sys;
use crate::mailbox::Place;

/// Says that this is the process that may fork.
const MAY_FORK: &str = "QUOIT_TEST_MAY_FORK";

#[test]
fn who_wakes_a_core_of_a_fork_wakes_none_of_its_parent() {
    let me = "driver::fork_tests::who_wakes_a_core_of_a_fork_wakes_none_of_its_parent";
    if std::env::var_os(MAY_FORK).is_none() {
        let program = std::env::current_exe().expect("this program has a path");
        let mut again = Command::new(program);
        let output = again.args([me, "--exact"]).env(MAY_FORK, "1").output();
        let output = output.expect("it is there");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{}: {said}", output.status);
        assert!(said.contains("1 passed"), "{said}");
        return;
    }
    // A core's life that is over.
    let number = Place::take().expect("a place").shared.number();
    // SAFETY: nobody else does anything in this process: the child finds no lock taken.
    let child = unsafe { libc::fork() };
    assert!(child >= 0, "{}", std::io::Error::last_os_error());
    if child == 0 {
        let is_woken = Place::take().is_ok_and(|place| {
            place.shared.number() == number && sys::eventfd_add_one(place.shared.eventfd()).is_ok()
        });
        // SAFETY: ends the child, which has nothing that must be dropped.
        unsafe { libc::_exit(i32::from(!is_woken)) };
    }
    let mut status = 0;
    // SAFETY: the pointer is to a local of the right type.
    assert_eq!(unsafe { libc::waitpid(child, &raw mut status, 0) }, child);
    assert_eq!(status, 0);
    let shared = crate::mailbox::core(number).expect("it was taken once");
    // SAFETY: an entry keeps its eventfd for as long as the process lives.
    let eventfd = unsafe { BorrowedFd::borrow_raw(shared.eventfd()) };
    let count = rustix::io::read(eventfd, &mut [0; 8]);
    assert_eq!(count, Err(rustix::io::Errno::AGAIN));
}
