//! Why a kernel refused a ring, and what to do about it. Pure.

use std::io;

/// Says in words what a refusal of `io_uring_setup(2)` means on a machine with these facts.
///
/// `disabled` is what `/proc/sys/kernel/io_uring_disabled` holds, if it is there (kernel 6.6).
pub(crate) fn remedy(error: &io::Error, disabled: Option<&str>, memlock: Option<u64>) -> String {
    match error.raw_os_error() {
        Some(libc::ENOSYS) => "this kernel has no io_uring, or a seccomp filter hides it \
             (containers often do): allow the system calls io_uring_setup, io_uring_enter and \
             io_uring_register, on Linux 6.1 or newer"
            .to_owned(),
        Some(libc::EPERM | libc::EACCES) => match disabled.map(str::trim) {
            Some("2") => "io_uring is switched off for everybody on this machine: \
                 set sysctl kernel.io_uring_disabled=0"
                .to_owned(),
            Some("1") => "io_uring is switched off for processes without privileges: \
                 set sysctl kernel.io_uring_disabled=0, or put this process into the group named \
                 by sysctl kernel.io_uring_group"
                .to_owned(),
            _ => "a seccomp filter or security module forbids io_uring to this process: \
                 allow the system calls io_uring_setup, io_uring_enter and io_uring_register"
                .to_owned(),
        },
        Some(libc::ENOMEM) => format!(
            "there is no memory for another ring, or none that may be locked (RLIMIT_MEMLOCK is {}): raise it \
             with ulimit -l or LimitMEMLOCK=, or ask for fewer submission entries and receive buffers",
            memlock.map_or_else(
                || "unknown".to_owned(),
                |bytes| format!("{} KiB", bytes / 1024)
            ),
        ),
        Some(libc::EMFILE) => "this process has no descriptor left: raise ulimit -n".to_owned(),
        Some(libc::ENFILE) => {
            "this machine has no descriptor left: raise sysctl fs.file-max".to_owned()
        }
        Some(libc::EINVAL) => "the kernel does not know what was asked for: Linux 6.1 or newer is \
             needed"
            .to_owned(),
        _ => "`quoit doctor` says what this machine offers".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn remedy_for(errno: i32, disabled: Option<&str>) -> String {
        remedy(
            &io::Error::from_raw_os_error(errno),
            disabled,
            Some(64 * 1024),
        )
    }

    #[test]
    fn each_refusal_names_its_own_remedy() {
        assert!(remedy_for(libc::ENOSYS, None).contains("seccomp"));
        assert!(remedy_for(libc::EPERM, Some("2\n")).contains("io_uring_disabled=0"));
        assert!(remedy_for(libc::EPERM, Some("1\n")).contains("io_uring_group"));
        assert!(remedy_for(libc::EPERM, Some("0\n")).contains("seccomp"));
        assert!(remedy_for(libc::ENOMEM, None).contains("RLIMIT_MEMLOCK is 64 KiB"));
        assert!(remedy_for(libc::EMFILE, None).contains("ulimit -n"));
    }
}
