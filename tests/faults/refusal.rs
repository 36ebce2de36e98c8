//! A kernel that refuses io_uring: the error says why, and what to do.
//!
//! Each refusal is made for a process of its own, by the limits and filters that containers use.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::{env, fs, io};

use quoit::{BuildError, Runtime, block_on, doctor};
use tests::{Child, threads};

/// Starts a program with a filter that answers the three system calls of io_uring with an error.
const LAUNCHER: &str = r#"
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <unistd.h>

int main(int argc, char **argv) {
    unsigned error = argc > 2 ? (unsigned) atoi(argv[1]) : 0;
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 425, 0, 2),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, 427, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | error),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = { sizeof filter / sizeof *filter, filter };
    if (argc < 3 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        perror("launcher");
        return 125;
    }
    execv(argv[2], argv + 2);
    perror(argv[2]);
    return 126;
}
"#;

/// Returns the refusal, after checking that every way to a core tells the same.
fn refusal() -> (io::Error, String) {
    let before = threads();
    let error = Runtime::builder().build().expect_err("io_uring is refused");
    assert_eq!(threads(), before, "no thread is left behind");
    let text = error.to_string();
    let again = block_on(async {}).expect_err("io_uring is refused");
    assert_eq!(again.to_string(), text);
    let report = doctor::examine();
    assert!(!report.is_usable());
    let told = report.to_string();
    assert!(
        told.ends_with(&format!("verdict: quoit cannot run here. {text}")),
        "{told}"
    );
    let BuildError::Ring { error, remedy } = error else {
        panic!("{error:?}");
    };
    assert!(text.contains(&remedy) && text.contains(&error.to_string()));
    (error, text)
}

/// Runs `body` where the system calls of io_uring fail with `errno`.
fn where_calls_fail_with(errno: i32, test: &str, body: impl FnOnce()) {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("launcher.c");
    let launcher = folder.path().join("launcher");
    fs::write(&source, LAUNCHER).expect("room");
    let compiled = Command::new("gcc")
        .args([&source, Path::new("-o"), &launcher])
        .status();
    assert!(
        compiled.is_ok_and(|status| status.success()),
        "this test needs gcc and the kernel's headers"
    );
    let launcher = launcher.display().to_string();
    Child::new()
        .under([launcher, errno.to_string()])
        .run(test, body);
}

#[test]
fn a_filter_that_hides_io_uring_is_named() {
    let test = "refusal::a_filter_that_hides_io_uring_is_named";
    where_calls_fail_with(libc::ENOSYS, test, || {
        let (error, text) = refusal();
        assert_eq!(error.raw_os_error(), Some(libc::ENOSYS));
        assert!(text.contains("a seccomp filter hides it"), "{text}");
        assert!(text.contains("io_uring_setup"), "{text}");
    });
}

#[test]
fn a_filter_that_forbids_io_uring_is_named() {
    let test = "refusal::a_filter_that_forbids_io_uring_is_named";
    where_calls_fail_with(libc::EPERM, test, || {
        let (error, text) = refusal();
        assert_eq!(error.raw_os_error(), Some(libc::EPERM));
        let disabled = fs::read_to_string("/proc/sys/kernel/io_uring_disabled");
        if disabled.is_ok_and(|value| value.trim() == "0") {
            assert!(
                text.contains("a seccomp filter or security module"),
                "{text}"
            );
        }
        let other: io::Error = Runtime::builder().build().expect_err("refused").into();
        assert_eq!(other.kind(), io::ErrorKind::PermissionDenied);
    });
}

/// Runs `body` in a process that may lock so many KiB. The limit does not bind root, so the process gives its privileges
/// up, and is nobody else's: all processes of a user count. Others must be able to start it: a copy in a folder that is
/// open to all.
fn where_so_much_may_be_locked(kib: u32, test: &str, body: impl FnOnce()) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("ours");
    let copy = folder.path().join("faults");
    let mut child = Child::new();
    let root = fs::metadata("/proc/self").expect("/proc").uid() == 0;
    let become_nobody = if root {
        let own = env::current_exe().expect("this program has a path");
        fs::copy(own, &copy).expect("room");
        child = child.program(copy);
        let user = 1_000_000 + std::process::id();
        format!("setpriv --reuid={user} --regid={user} --clear-groups --bounding-set=-all")
    } else {
        String::new()
    };
    let script = format!("ulimit -l {kib}; exec {become_nobody} \"$@\"");
    child
        .under(["sh", "-c", script.as_str(), "sh"])
        .run(test, body);
}

#[test]
fn a_limit_on_locked_memory_is_named() {
    where_so_much_may_be_locked(0, "refusal::a_limit_on_locked_memory_is_named", || {
        let (error, text) = refusal();
        assert_eq!(error.raw_os_error(), Some(libc::ENOMEM));
        assert!(text.contains("RLIMIT_MEMLOCK is 0 KiB"), "{text}");
        assert!(text.contains("ulimit -l"), "{text}");
    });
}

/// The kernel counts the memory of a ring for a while after that was closed.
#[test]
fn a_ring_waits_for_the_memory_of_those_that_were_dropped() {
    let test = "refusal::a_ring_waits_for_the_memory_of_those_that_were_dropped";
    where_so_much_may_be_locked(256, test, || {
        for round in 0..30 {
            let built = block_on(async {}).map_err(|error| error.to_string());
            assert_eq!(built, Ok(()), "round {round}");
        }
    });
}

/// Those that find out what the kernel has are dropped as well.
#[test]
fn a_small_ring_waits_for_the_memory_of_those_that_were_tried() {
    let test = "refusal::a_small_ring_waits_for_the_memory_of_those_that_were_tried";
    where_so_much_may_be_locked(64, test, || {
        let smallest = Runtime::builder()
            .submission_entries(8)
            .completion_entries(8)
            .receive_buffers(4, 512);
        let built = smallest
            .block_on(async {})
            .map_err(|error| error.to_string());
        assert_eq!(built, Ok(()));
    });
}

#[test]
fn a_limit_on_descriptors_is_named() {
    let test = "refusal::a_limit_on_descriptors_is_named";
    Child::new()
        .under(["sh", "-c", "ulimit -n 16; exec \"$@\"", "sh"])
        .run(test, || {
            let mut taken = Vec::new();
            while let Ok(file) = fs::File::open("/dev/null") {
                taken.push(file);
            }
            let error = Runtime::builder().build().expect_err("none is left");
            let text = error.to_string();
            assert!(text.contains("ulimit -n"), "{text}");
            drop(taken);
            block_on(async {}).expect("there are enough again");
        });
}
