//! A child that somebody else traces: a debugger that stands still hears of its end first, whenever it looks.
//!
//! Here, since to trace is unsafe.

use std::io::{self, BufRead, BufReader, Write, stdin};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::Handle;
use crate::time::sleep;

/// Says that this is the process whose child is traced.
const HOST: &str = "QUOIT_TEST_HOST_OF_TRACED";

#[test]
fn wait_for_a_traced_child_keeps_no_core_busy() {
    let me = "driver::trace_tests::wait_for_a_traced_child_keeps_no_core_busy";
    if std::env::var_os(HOST).is_some() {
        return host();
    }
    let program = std::env::current_exe().expect("this program has a path");
    let mut host = Command::new(program);
    let host = host.args([me, "--exact", "--nocapture"]).env(HOST, "1");
    let host = host.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut host = host.spawn().expect("it is there");
    let mut lines = BufReader::new(host.stdout.take().expect("it is piped")).lines();
    let mut said = |what: &str| {
        let found = lines.find_map(|line| {
            let line = line.expect("text");
            let (_, rest) = line.split_once(what)?;
            Some(rest.to_owned())
        });
        found.unwrap_or_else(|| panic!("it ended before it said {what}"))
    };
    let child: i32 = said("child ").parse().expect("a number");
    let none = std::ptr::null_mut::<libc::c_void>();
    // SAFETY: takes no memory of ours; the child is our child's, which waits for our word.
    if unsafe { libc::ptrace(libc::PTRACE_SEIZE, child, none, none) } != 0 {
        let error = io::Error::last_os_error();
        println!("left out: this process may not trace another ({error})");
    }
    let mut input = host.stdin.take().expect("it is piped");
    input.write_all(b"traced\n").expect("it reads");
    said("looked");
    // SAFETY: takes no pointer that is not null.
    unsafe { libc::waitpid(child, std::ptr::null_mut(), libc::__WALL) };
    assert!(host.wait().expect("it is ours").success());
}

fn host() {
    crate::block_on(async {
        let mut command = crate::process::Command::new("sleep");
        let mut child = command.arg("3600").spawn().await.expect("it is there");
        println!("\nchild {}", child.id());
        stdin().read_line(&mut String::new()).expect("text");
        child.kill();
        let core = Handle::current().expect("on a core");
        let waiting = crate::spawn(async move { child.wait().await });
        let polls = core.metrics()[0].polls;
        sleep(Duration::from_millis(300))
            .await
            .expect("not cancelled");
        let polls = core.metrics()[0].polls - polls;
        println!("\nlooked");
        let status = waiting.await.expect("no panic").expect("ours");
        assert!(!status.success());
        assert!(polls < 100, "{polls} polls while nothing happened");
    })
    .expect("tests need io_uring");
}
