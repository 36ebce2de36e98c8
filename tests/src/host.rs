//! Hosts of child processes, to be killed: a test runs itself again as the host, and sees what is left.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use quoit::time::Instant;

use crate::runs;

/// Says that a test's process is the host that will be killed.
const HOST: &str = "QUOIT_TEST_HOST";

/// Returns whether this process is the host of a test, which is told by its full name.
pub fn is_host(test: &str) -> bool {
    env::var(HOST).is_ok_and(|name| name == test)
}

/// A host that runs, with what it has started.
#[derive(Debug)]
pub struct Host {
    process: Child,
    /// The numbers that it has said.
    pub pids: Vec<u32>,
}

impl Host {
    /// Starts this test once more, as a host, and reads so many lines of it that say `pid` and a number.
    ///
    /// # Panics
    ///
    /// If it ends before.
    pub fn start(test: &str, numbers: usize) -> Self {
        let mut process = Command::new(env::current_exe().expect("this program has a path"))
            .args([test, "--exact", "--nocapture", "--test-threads=1"])
            .env(HOST, test)
            .stdout(Stdio::piped())
            .spawn()
            .expect("it is there");
        let said = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut pids = Vec::new();
        for line in said.lines() {
            if let Some((_, pid)) = line.expect("text").rsplit_once("pid ") {
                pids.push(pid.parse().expect("a number"));
            }
            if pids.len() == numbers {
                break;
            }
        }
        if pids.len() < numbers {
            let status = process.wait().expect("it is ours");
            panic!("the host of {test} has ended, {status}; it said {pids:?}");
        }
        Self { process, pids }
    }

    /// Kills it, and returns how long anything that it has named has lived after that.
    ///
    /// # Panics
    ///
    /// If something of it is still there half a minute later.
    pub fn kill(mut self) -> Duration {
        let killed = Instant::now();
        self.process.kill().expect("it lives");
        self.process.wait().expect("it is ours");
        let host_was_gone = Instant::now();
        loop {
            let left: Vec<_> = self.pids.iter().filter(|&&pid| runs(pid)).collect();
            if left.is_empty() {
                return killed.elapsed();
            }
            assert!(
                host_was_gone.elapsed() < Duration::from_secs(30),
                "{left:?} of {:?} are left",
                self.pids
            );
            std::thread::yield_now();
        }
    }
}

/// Kills so many hosts of a test, each when it has named so many processes, and looks how long those have
/// lived.
///
/// # Panics
///
/// If half of them took a second, which is what is promised: a machine that does much else may take longer
/// now and then.
pub fn kill_hosts(test: &str, times: usize, numbers: usize) {
    let mut lives = Vec::new();
    for _ in 0..times {
        let host = Host::start(test, numbers);
        for &pid in &host.pids {
            assert!(runs(pid), "{pid} has not waited for the end of its host");
        }
        lives.push(host.kill());
    }
    lives.sort();
    let (most, half) = (lives[times - 1], lives[times / 2]);
    let _ = writeln!(
        std::io::stderr(),
        "of {times} hosts, the last process lived for {half:?} (median), {most:?} (most)"
    );
    assert!(half < Duration::from_secs(1), "{lives:?}");
}
