//! Hosts that are killed with SIGKILL while they have sessions: no server is left.
//!
//! A test runs itself again, as the host.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::process::{self, Command as StdCommand};
use std::time::Duration;

use quoit::process::Command;
use quoit::time::Instant;
use quoit_pool::stdio::{McpConfig, McpSession};
use serde_json::json;
use tests::runs;

use crate::servers::partners;

/// Says that a test's process is the host that will be killed.
const HOST: &str = "QUOIT_TEST_HOST";

/// How many sessions a host has.
const SESSIONS: usize = 4;

fn is_host(test: &str) -> bool {
    env::var(HOST).is_ok_and(|name| name == test)
}

/// Opens sessions, says the numbers of the servers, and calls until it is killed.
fn host(commands: &[Command]) {
    quoit::block_on(async {
        let mut sessions = Vec::new();
        for place in 0..SESSIONS {
            let command = &commands[place % commands.len()];
            let session = McpSession::start(command, McpConfig::default(), ()).await;
            let session = session.expect("it greets");
            let _ = writeln!(std::io::stdout(), "pid {}", session.rpc().pid());
            sessions.push(session);
        }
        let calls = sessions.into_iter().map(|session| {
            quoit::spawn(async move {
                loop {
                    session.list_tools().await.expect("it has tools");
                    let _ = session.call_tool("count", json!({"to": 3})).await;
                }
            })
        });
        for call in calls.collect::<Vec<_>>() {
            let _: () = call.await.expect("it goes on until it is killed");
        }
    })
    .expect("a core");
}

/// Starts a host, kills it when it has all its sessions, and returns how long a server of it has lived after
/// that.
fn kill_one(test: &str) -> Duration {
    let mut host = StdCommand::new(env::current_exe().expect("this program has a path"))
        .args([test, "--exact", "--nocapture", "--test-threads=1"])
        .env(HOST, test)
        .stdout(process::Stdio::piped())
        .spawn()
        .expect("it is there");
    let said = BufReader::new(host.stdout.take().expect("it is piped"));
    let mut pids: Vec<u32> = Vec::new();
    for line in said.lines() {
        if let Some((_, pid)) = line.expect("text").rsplit_once("pid ") {
            pids.push(pid.parse().expect("a number"));
        }
        if pids.len() == SESSIONS {
            break;
        }
    }
    assert_eq!(
        pids.len(),
        SESSIONS,
        "the host has ended: {:?}",
        host.try_wait()
    );
    for &pid in &pids {
        assert!(runs(pid), "{pid} has not waited for the end of its host");
    }
    let killed = Instant::now();
    host.kill().expect("it lives");
    host.wait().expect("it is ours");
    while pids.iter().any(|&pid| runs(pid)) {
        assert!(
            killed.elapsed() < Duration::from_secs(30),
            "{pids:?} are left"
        );
        std::thread::yield_now();
    }
    killed.elapsed()
}

fn kill_many(test: &str, times: usize) {
    let mut lives: Vec<_> = (0..times).map(|_| kill_one(test)).collect();
    lives.sort();
    let _ = writeln!(std::io::stderr(), "the last of a host lived for {lives:?}");
    // What is promised is a second; a machine that does much else may take longer now and then.
    assert!(lives[times / 2] < Duration::from_secs(1), "{lives:?}");
}

#[test]
fn no_server_outlives_a_host_that_was_killed() {
    let test = "hosts::no_server_outlives_a_host_that_was_killed";
    if is_host(test) {
        let mut command = Command::new("sh");
        // It heeds neither the end of its input nor a word.
        let script = "trap '' TERM; exec \"$0\" --stays";
        command.args(["-c", script, env!("CARGO_BIN_EXE_scripted-child")]);
        return host(&[Command::new(env!("CARGO_BIN_EXE_scripted-child")), command]);
    }
    kill_many(test, 100);
}

#[test]
fn no_server_of_others_outlives_a_host_that_was_killed() {
    let test = "hosts::no_server_of_others_outlives_a_host_that_was_killed";
    let commands: Vec<_> = partners().into_iter().map(|(_, command)| command).collect();
    if commands.is_empty() {
        let _ = writeln!(
            std::io::stderr(),
            "left out: .ci/setup installs the servers"
        );
        return;
    }
    if is_host(test) {
        return host(&commands);
    }
    kill_many(test, 5);
}
