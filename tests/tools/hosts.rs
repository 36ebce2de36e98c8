//! Hosts that are killed with SIGKILL while they have sessions: no server is left.
//!
//! A test runs itself again, as the host. `QUOIT_HOSTS` says how many hosts with the servers of others are
//! killed: each takes seconds to start them.

use std::io::Write;

use quoit::process::Command;
use quoit_pool::stdio::{McpConfig, McpSession};
use serde_json::json;
use tests::{is_host, kill_hosts};

use crate::servers::partners;

/// How many sessions a host has.
const SESSIONS: usize = 4;

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
    kill_hosts(test, 100, SESSIONS);
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
    let times = std::env::var("QUOIT_HOSTS").map_or(3, |times| times.parse().expect("a number"));
    kill_hosts(test, times, SESSIONS);
}
