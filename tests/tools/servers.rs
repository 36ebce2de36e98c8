//! The reference server and the Python SDK's: tools, progress, cancels, crowds, kills.

use std::cell::Cell;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::Command as StdCommand;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use quoit::process::Command;
use quoit::{Cores, Runtime, Scope};
use quoit_pool::stdio::{
    McpConfig, McpSession, Peer, RpcError, SessionError, ToolResult, ToolServers, ending,
};
use quoit_pool::{Key, SessionPool};
use serde_json::{Value, json};
use tests::{children, in_child, quietly, quietly_of};

/// Longer than a server takes to start on a machine that does much else.
const LONG: Duration = Duration::from_secs(300);

/// The servers that were installed: how each is started, by name.
pub(crate) fn partners() -> Vec<(&'static str, Command)> {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let partners: PathBuf = tests.join("../target/partners");
    let mut found = Vec::new();
    let everything = partners.join("node/node_modules/.bin/mcp-server-everything");
    if everything.exists() {
        found.push(("everything", Command::new(everything)));
    }
    let python = partners.join("python/bin/python");
    if python.exists() {
        let mut command = Command::new(python);
        command.arg(tests.join("tools/server.py"));
        found.push(("python", command));
    }
    for (_, command) in &mut found {
        command.ending(ending());
    }
    found
}

/// The server of that name; `None`, and a word about it, if it is not installed.
fn partner(name: &str) -> Option<Command> {
    let found = partners().into_iter().find(|(found, _)| *found == name);
    if found.is_none() {
        let _ = writeln!(
            io::stderr(),
            "left out: .ci/setup installs the server {name:?}"
        );
    }
    found.map(|(_, command)| command)
}

/// A client that can do what servers ask for.
struct Client;

impl Peer for Client {
    async fn request(&self, method: &str, _: Value) -> Result<Value, RpcError> {
        match method {
            "roots/list" => Ok(json!({"roots": [{"uri": "file:///srv", "name": "srv"}]})),
            "sampling/createMessage" => Ok(json!({
                "role": "assistant", "model": "none",
                "content": {"type": "text", "text": "as you say"},
            })),
            "elicitation/create" => Ok(json!({"action": "decline"})),
            _ => Err(RpcError::method_not_found(method)),
        }
    }
}

async fn start(command: &Command) -> McpSession {
    let capabilities = json!({"roots": {}, "sampling": {}, "elicitation": {}});
    let Value::Object(capabilities) = capabilities else {
        unreachable!("it is written as one")
    };
    let config = McpConfig::default()
        .client("quoit tests", "1")
        .capabilities(capabilities);
    let session = McpSession::start(command, config, Client).await;
    session.unwrap_or_else(|error| panic!("{error}"))
}

/// What the reference server's tools are called with, by name; the others with nothing.
fn arguments(tool: &str) -> Value {
    match tool {
        "echo" => json!({"message": "again"}),
        "get-annotated-message" => json!({"messageType": "debug", "includeImage": true}),
        "get-structured-content" => json!({"location": "Chicago"}),
        "get-sum" => json!({"a": 2, "b": 40}),
        "gzip-file-as-resource" => json!({
            "name": "a.gz", "data": "data:text/plain;base64,YQ==", "outputType": "resource",
        }),
        "trigger-long-running-operation" => json!({"duration": 1, "steps": 4}),
        "trigger-sampling-request" => json!({"prompt": "say it", "maxTokens": 10}),
        "simulate-research-query" => json!({"topic": "rings"}),
        _ => json!({}),
    }
}

#[test]
fn all_tools_of_the_reference_server_answer() {
    let Some(command) = partner("everything") else {
        return;
    };
    quietly(|_| async move {
        let session = start(&command).await;
        let tools = session.list_tools().await.expect("it has tools");
        assert!(tools.len() > 10, "{tools:?}");
        for tool in &tools {
            let name = &tool.name;
            let steps = Rc::new(Cell::new(0));
            let hears = {
                let steps = Rc::clone(&steps);
                move |_| steps.set(steps.get() + 1)
            };
            let called = session.call_tool_with_progress(name, arguments(name), hears);
            let result = called
                .await
                .unwrap_or_else(|error| panic!("{name}: {error}"));
            if result.is_error {
                // It can only be called as a task of the server's.
                let text = result.text();
                assert!(
                    text.contains("requires task augmentation"),
                    "{name}: {text}"
                );
                continue;
            }
            assert!(!result.content.is_empty(), "{name}");
            match &name[..] {
                "echo" => assert!(result.text().contains("again"), "{result:?}"),
                "get-sum" => assert!(result.text().contains("42"), "{result:?}"),
                "get-structured-content" => {
                    let data = result.structured.expect("it has a schema");
                    assert!(data["temperature"].is_number(), "{data}");
                }
                "get-tiny-image" => {
                    let mut types = result.content.iter().map(|part| &part["type"]);
                    assert!(types.any(|kind| kind == "image"));
                }
                "trigger-long-running-operation" => assert_eq!(steps.get(), 4),
                "trigger-sampling-request" => {
                    assert!(result.text().contains("as you say"), "{result:?}");
                }
                _ => {}
            }
        }
        session.close().await.expect("nobody cancels it");
    });
}

#[test]
fn call_of_the_reference_server_is_cancelled_in_the_middle() {
    let Some(command) = partner("everything") else {
        return;
    };
    quietly(|_| async move {
        let session = start(&command).await;
        for round in 0..5 {
            let scope = Scope::new();
            let handle = scope.handle();
            let arguments = json!({"duration": 2, "steps": 20});
            let cancels = move |_| {
                let _ = handle.cancel();
            };
            let name = "trigger-long-running-operation";
            let called = scope.run(session.call_tool_with_progress(name, arguments, cancels));
            assert!(matches!(called.await, Ok(None)));
            let text = format!("round {round}");
            let echo = session.call_tool("echo", json!({"message": text})).await;
            assert!(echo.expect("it goes on").text().contains(&text));
        }
        assert_eq!(session.rpc().in_flight(), 0);
        session.close().await.expect("nobody cancels it");
    });
}

#[test]
fn tools_of_the_python_server_answer_and_hear_of_cancels() {
    let Some(command) = partner("python") else {
        return;
    };
    quietly(|_| async move {
        let session = start(&command).await;
        let tools = session.list_tools().await.expect("it has tools");
        let mut names: Vec<_> = tools.iter().map(|tool| &tool.name[..]).collect();
        names.sort_unstable();
        assert_eq!(
            names,
            ["add", "cancels", "count", "echo", "fail", "scope", "wait"]
        );
        let call = async |name: &str, arguments: Value| -> ToolResult {
            session
                .call_tool(name, arguments)
                .await
                .expect("it goes on")
        };
        assert_eq!(call("add", json!({"a": 40, "b": 2})).await.text(), "42");
        assert_eq!(call("echo", json!({"text": "ä\n"})).await.text(), "ä\n");
        assert!(call("fail", json!({})).await.is_error);

        let steps = Rc::new(Cell::new(0));
        let hears = {
            let steps = Rc::clone(&steps);
            move |step: quoit_pool::stdio::Progress| {
                steps.set(steps.get() + 1);
                assert_eq!(
                    (step.progress, step.total),
                    (f64::from(steps.get()), Some(7.0))
                );
            }
        };
        let counted = session.call_tool_with_progress("count", json!({"to": 7}), hears);
        assert_eq!(counted.await.expect("it goes on").text(), "7");
        assert_eq!(steps.get(), 7);

        for round in 1..=5 {
            let scope = Scope::new();
            let handle = scope.handle();
            let cancels = move |_| {
                let _ = handle.cancel();
            };
            let waited = scope.run(session.call_tool_with_progress("wait", json!({}), cancels));
            assert!(matches!(waited.await, Ok(None)));
            // It notices on its next turn.
            while call("cancels", json!({})).await.text() != round.to_string() {}
        }
        session.close().await.expect("nobody cancels it");
    });
}

/// A pool of both kinds.
fn pool(partners: Vec<(&'static str, Command)>) -> SessionPool<ToolServers> {
    let servers = ToolServers::new(move |key| {
        let found = partners.iter().find(|(name, _)| *name == key.server());
        let mut command = found?.1.clone();
        command.env("TENANT", key.scope());
        Some(command)
    });
    let pool = SessionPool::builder(servers)
        .max_sessions(64)
        .open_timeout(LONG)
        .grace(Duration::from_secs(60))
        .backoff(Duration::from_millis(1), Duration::from_millis(10));
    pool.build().expect("a pool")
}

/// Calls the session of a key until it answers, though it may be killed meanwhile.
async fn ask(pool: &SessionPool<ToolServers>, key: &Key, text: &str) -> (String, usize) {
    let mut failures = 0;
    loop {
        let arguments = match key.server() {
            "python" => json!({"text": text}),
            _ => json!({"message": text}),
        };
        let answered = match pool.lease(key).await {
            Ok(lease) => {
                let answered = lease.call(async move |session| {
                    let result = session.call_tool("echo", arguments).await?;
                    Ok::<_, SessionError>(result.text())
                });
                answered.await
            }
            // It was killed before it was open.
            Err(error) => Err(SessionError::Start(io::Error::other(error.to_string()))),
        };
        match answered {
            Ok(text) => return (text, failures),
            Err(_) => failures += 1,
        }
        assert!(failures < 1_000, "{key} does not answer");
        quoit::yield_now().await.expect("nobody cancels");
    }
}

/// Fifty sessions at once, from two cores, some of which are killed again and again.
fn crowd(sessions: usize, kills: usize) {
    let partners = partners();
    let names: Vec<_> = partners.iter().map(|(name, _)| *name).collect();
    let builder = Runtime::builder().cores(Cores::Count(2));
    quietly_of(builder, move |handle| async move {
        let pool = pool(partners);
        let answers = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..sessions)
            .map(|n| {
                let (pool, answers) = (pool.clone(), Arc::clone(&answers));
                let key = Key::new(names[n % names.len()], format!("scope {n}"));
                let core = handle.cores()[n % 2];
                quoit::spawn(async move {
                    quoit::on(core, move || async move {
                        for call in 0..20 {
                            let text = format!("{key}, call {call}");
                            let (answer, _) = ask(&pool, &key, &text).await;
                            assert!(answer.ends_with(&text), "{answer:?} to {text:?}");
                            answers.fetch_add(1, Ordering::Relaxed);
                        }
                        Ok::<_, io::Error>(())
                    })
                    .await
                })
            })
            .collect();
        for kill in 0..kills {
            // One now and then, whichever it is.
            while answers.load(Ordering::Relaxed) < kill * sessions * 18 / kills {
                quoit::time::sleep(Duration::from_millis(1))
                    .await
                    .expect("nobody cancels");
            }
            let servers: Vec<u32> = children()
                .into_iter()
                .filter(|&pid| is_server(pid))
                .collect();
            if !servers.is_empty() {
                let random = quoit::random().expect("the machine has some") as usize;
                let pid = servers[random % servers.len()].to_string();
                let _ = StdCommand::new("kill").args(["-KILL", &pid]).status();
            }
        }
        for task in tasks {
            task.await.expect("no panic").expect("no error");
        }
        assert_eq!(answers.load(Ordering::Relaxed), sessions * 20);
        pool.close_all().await.expect("nobody cancels");
        let left: Vec<u32> = children()
            .into_iter()
            .filter(|&pid| is_server(pid))
            .collect();
        assert_eq!(left, [0_u32; 0]);
    });
    assert_eq!(children(), [0_u32; 0]);
}

/// Whether a child is no guardian.
fn is_server(pid: u32) -> bool {
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    !String::from_utf8_lossy(&words).contains("quoit-guardian")
}

#[test]
fn fifty_sessions_from_two_cores_get_their_own_answers() {
    if partners().is_empty() {
        return drop(partner("python"));
    }
    in_child(
        "servers::fifty_sessions_from_two_cores_get_their_own_answers",
        || crowd(50, 0),
    );
}

#[test]
fn servers_that_are_killed_are_replaced_and_no_answer_goes_astray() {
    if partners().is_empty() {
        return drop(partner("python"));
    }
    in_child(
        "servers::servers_that_are_killed_are_replaced_and_no_answer_goes_astray",
        || match std::env::var_os("QUOIT_LONG") {
            // A server takes most of a second to start.
            None => crowd(16, 8),
            Some(_) => crowd(50, 25),
        },
    );
}
