//! Processes that are killed, and what they leave behind: nothing.
//!
//! Tests that kill a host run themselves again, as the host.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{self, Command as StdCommand};
use std::time::Duration;

use quoit::process::{Command, Ending, Stdio};
use quoit::time::Instant;
use tests::runs;

/// Says that a test's process is the host that will be killed.
const HOST: &str = "QUOIT_TEST_HOST";

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3_600);

/// How often a host is killed.
const ROUNDS: usize = 20;

/// What a host of [`nothing_outlives_a_host_that_was_killed`] starts. Each says its number, and which of
/// them has the second word in its environment cleared.
const SCRIPTS: [&str; 6] = [
    // A child; one that heeds nothing.
    "echo pid $$; exec sleep 3600",
    "trap '' TERM HUP INT; echo pid $$; while :; do sleep 3600; done",
    // A grandchild in the child's group, whose parent is gone.
    "(sleep 3600 & echo pid $!); echo pid $$; exec sleep 3600",
    // One in a session of its own, whose parent lives.
    "setsid sh -c 'echo pid $$; exec sleep 3600' & echo pid $$; wait",
    // One in a session of its own, whose parent is gone, with children.
    "(setsid sh -c 'echo pid $$; sleep 3600 & echo pid $!; wait' &); echo pid $$; exec sleep 3600",
    // The same once more, from one level further down.
    "sh -c 'setsid sh -c \"setsid sleep 3600 & echo pid \\$!; echo pid \\$\\$; wait\" &'; echo pid $$; exec sleep 3600",
];

/// How many numbers the scripts say.
const NUMBERS: usize = 12;

/// Starts them all, and waits to be killed.
fn host() {
    quoit::block_on(async {
        let mut children = Vec::new();
        for script in SCRIPTS {
            let mut command = Command::new("sh");
            command.args(["-c", script]).stdin(Stdio::Null);
            command.ending(Ending::default().grace(LONG));
            children.push(command.spawn().await.expect("it is there"));
        }
        children[0].wait().await.expect("ours")
    })
    .expect("a core");
}

/// Starts this test once more, as a host, and reads so many numbers from what it says.
fn start_host(test: &str, numbers: usize) -> (process::Child, Vec<u32>) {
    let mut host = StdCommand::new(env::current_exe().expect("this program has a path"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(HOST, test)
        .stdout(process::Stdio::piped())
        .spawn()
        .expect("it is there");
    let said = BufReader::new(host.stdout.take().expect("it is piped"));
    let mut pids = Vec::new();
    for line in said.lines() {
        let line = line.expect("text");
        if let Some((_, pid)) = line.rsplit_once("pid ") {
            pids.push(pid.parse().expect("a number"));
        }
        if pids.len() == numbers {
            break;
        }
    }
    if pids.len() < numbers {
        let status = host.wait().expect("it is ours");
        panic!("the host of {test} has ended, {status}; it said {pids:?}");
    }
    (host, pids)
}

fn is_host(test: &str) -> bool {
    env::var(HOST).is_ok_and(|name| name == test)
}

/// Kills a host, and returns how long anything of it has lived after that.
fn kill(mut host: process::Child, pids: &[u32]) -> Duration {
    let killed = Instant::now();
    host.kill().expect("it lives");
    host.wait().expect("it is ours");
    let host_was_gone = Instant::now();
    loop {
        let left: Vec<_> = pids.iter().filter(|&&pid| runs(pid)).collect();
        if left.is_empty() {
            return killed.elapsed();
        }
        assert!(
            host_was_gone.elapsed() < Duration::from_secs(30),
            "{left:?} of {pids:?} are left"
        );
        std::thread::yield_now();
    }
}

#[test]
fn nothing_outlives_a_host_that_was_killed() {
    let test = "processes::nothing_outlives_a_host_that_was_killed";
    if is_host(test) {
        return host();
    }
    let mut lives: Vec<Duration> = Vec::new();
    for _ in 0..ROUNDS {
        let (host, pids) = start_host(test, NUMBERS);
        for &pid in &pids {
            assert!(runs(pid), "{pid} has not waited for the end of its host");
        }
        lives.push(kill(host, &pids));
    }
    lives.sort();
    let _ = writeln!(std::io::stderr(), "the last of a host lived for {lives:?}");
    // What is promised is a second; a machine that does much else may take longer now and then.
    assert!(lives[ROUNDS / 4] < Duration::from_secs(1), "{lives:?}");
}
