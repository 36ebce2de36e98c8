//! Tool servers in a pool, and the protocol they speak; on the real ring, with `scripted-child` as the server.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use quoit::process::Command;
use quoit::time::Instant;
use quoit::{Cores, Runtime, Scope, spawn};
use quoit_pool::stdio::{
    MCP_VERSION, McpConfig, McpSession, RpcConfig, SessionError, ToolServers, Why, ending,
};
use quoit_pool::{Key, Lease, LeaseError, SessionPool};
use serde_json::json;
use tests::{
    allow_descriptors, children, descriptors, exists, gauges, in_child, on_ring, poll_once,
    quietly, quietly_of,
};

use crate::stdio::{kill, scripted, stubborn};

/// How often a crowd of sessions comes and goes.
const ROUNDS: usize = 20;

async fn start(command: &Command) -> Result<McpSession, SessionError> {
    McpSession::start(command, McpConfig::default(), ()).await
}

/// The servers that there are, by name.
fn servers() -> ToolServers {
    ToolServers::new(|key| {
        let mut command = match key.server() {
            "good" => scripted(&[]),
            "silent" => scripted(&["--silent", "--stays"]),
            "stubborn" => stubborn(),
            _ => return None,
        };
        command.ending(ending());
        Some(command)
    })
}

async fn pid(lease: &Lease<ToolServers>) -> u32 {
    let pid = lease.call(async |session| Ok::<_, SessionError>(session.rpc().pid()));
    pid.await.expect("it is open")
}

async fn count(lease: &Lease<ToolServers>, to: u64) -> Result<serde_json::Value, SessionError> {
    lease
        .call(async move |session| {
            let result = session.call_tool("count", json!({"to": to})).await?;
            Ok(result.structured.expect("it counts"))
        })
        .await
}

#[test]
fn server_is_greeted_and_its_tools_are_listed_and_called() {
    quietly(|_| async {
        let session = start(&scripted(&[])).await.expect("it greets");
        assert_eq!(session.version(), MCP_VERSION);
        assert_eq!(session.server_info()["name"], "scripted");
        assert_eq!(session.capabilities(), &json!({"tools": {}}));
        assert_eq!(session.instructions(), Some("ask"));
        let seen = session
            .rpc()
            .call("seen", json!({}))
            .await
            .expect("it goes on");
        assert_eq!(
            seen,
            json!([{"jsonrpc": "2.0", "method": "notifications/initialized"}])
        );

        let tools = session.list_tools().await.expect("two pages");
        let names: Vec<_> = tools.iter().map(|tool| &tool.name[..]).collect();
        assert_eq!(names, ["count", "fail"]);
        assert_eq!(tools[0].input_schema, json!({"type": "object"}));

        let heard = Rc::new(RefCell::new(Vec::new()));
        let hears = {
            let heard = Rc::clone(&heard);
            move |step: quoit_pool::stdio::Progress| {
                heard
                    .borrow_mut()
                    .push((step.progress, step.total, step.message));
            }
        };
        let counted = session.call_tool_with_progress("count", json!({"to": 3}), hears);
        let counted = counted.await.expect("it goes on");
        assert_eq!(
            (counted.text(), counted.is_error),
            ("counted".to_owned(), false)
        );
        assert_eq!(counted.structured, Some(json!({"n": 3})));
        let step = |n: u32| (f64::from(n), Some(3.0), Some(n.to_string()));
        let heard = Rc::into_inner(heard)
            .expect("nobody listens any more")
            .into_inner();
        assert_eq!(heard, [step(1), step(2), step(3)]);

        let failed = session
            .call_tool("fail", json!({}))
            .await
            .expect("an answer");
        assert!(failed.is_error);
        let odd = session.call_tool("odd", json!({})).await;
        assert!(matches!(odd, Err(SessionError::Unexpected(_))), "{odd:?}");
        session.ping().await.expect("it answers");
        let asked = session.rpc().call("ask", json!({"method": "ping"})).await;
        assert_eq!(asked.expect("it goes on")["result"], json!({}));
        session.close().await.expect("nobody cancels it");
    });
}

#[test]
fn server_of_another_version_is_refused_and_gone() {
    quietly(|_| async {
        let older = start(&scripted(&["--version", "2024-11-05"])).await;
        let older = older.expect("what is used here is the same");
        assert_eq!(older.version(), "2024-11-05");
        older.close().await.expect("nobody cancels it");
        let strange = start(&scripted(&["--version", "1999-01-01"])).await;
        let Err(SessionError::Unexpected(what)) = strange else {
            panic!("{strange:?}");
        };
        assert!(what.contains("1999-01-01"), "{what}");
    });
}

#[test]
fn p007_opening_that_hangs_is_given_up_with_its_child() {
    in_child(
        "tool_servers::p007_opening_that_hangs_is_given_up_with_its_child",
        || {
            quietly(|_| async {
                let pool = SessionPool::builder(servers()).build().expect("a pool");
                let key = Key::new("silent", "one");
                let waiters: Vec<_> = (0..3)
                    .map(|_| {
                        let (pool, key) = (pool.clone(), key.clone());
                        spawn(async move {
                            let scope = Scope::new().timeout(Duration::from_millis(300));
                            let leased = scope.run(async {
                                pool.lease(&key).await.map(drop)?;
                                Ok::<_, LeaseError<SessionError>>(())
                            });
                            matches!(leased.await, Ok(None))
                        })
                    })
                    .collect();
                for waiter in waiters {
                    assert!(waiter.await.expect("no panic"), "it was cancelled");
                }
                // Its owner ends it.
                while pool.metrics().sessions > 0 {
                    quoit::yield_uncancellable().await;
                }
                assert_eq!(children().len(), 1, "the guardian alone");
                assert!(pool.keys().is_empty());
            });
            assert_eq!(children(), [0_u32; 0]);
        },
    );
}

#[test]
fn p018_server_that_was_killed_is_replaced() {
    quietly(|_| async {
        let pool = SessionPool::builder(servers()).build().expect("a pool");
        let key = Key::new("good", "one");
        let lease = pool.lease(&key).await.expect("it opens");
        let first = pid(&lease).await;
        let call = lease.call(async move |session| {
            let stuck = session.rpc().call("never", json!({}));
            kill(first);
            stuck.await
        });
        let failed = call.await.expect_err("it was killed");
        let SessionError::Ended(ended) = &failed else {
            panic!("{failed:?}");
        };
        assert!(matches!(ended.why, Why::Exited), "{ended}");
        assert!(ended.to_string().contains("signal: 9"), "{ended}");
        drop(lease);
        let lease = pool.lease(&key).await.expect("another");
        assert_ne!(pid(&lease).await, first);
        assert_eq!(count(&lease, 2).await.expect("it works"), json!({"n": 2}));
        drop(lease);
        pool.close_all().await.expect("nobody cancels");
        assert!(!exists(first));
    });
}

#[test]
fn server_without_a_program_is_told_so() {
    quietly(|_| async {
        let pool = SessionPool::builder(servers()).build().expect("a pool");
        let leased = pool.lease(&Key::new("other", "one")).await;
        let Err(LeaseError::Open(error)) = leased else {
            panic!("{leased:?}");
        };
        let text = error.to_string();
        assert!(
            text.contains(r#"no program for the server "other""#),
            "{text}"
        );
    });
}

#[test]
fn p023_server_that_heeds_nothing_is_gone_when_the_pool_was_closed() {
    quietly(|_| async {
        let grace = Duration::from_millis(600);
        let pool = SessionPool::builder(servers()).grace(grace);
        let pool = pool.build().expect("a pool");
        let lease = pool.lease(&Key::new("stubborn", "one")).await;
        let lease = lease.expect("it opens");
        let pid = pid(&lease).await;
        drop(lease);
        let began = Instant::now();
        assert_eq!(pool.close_all().await, Ok(1));
        assert!(began.elapsed() >= grace / 2);
        assert!(!exists(pid));
    });
}

#[test]
fn servers_do_not_outlive_their_runtime() {
    in_child("tool_servers::servers_do_not_outlive_their_runtime", || {
        for grace in [Duration::ZERO, Duration::from_secs(60)] {
            let runtime = Runtime::builder()
                .cores(Cores::Count(1))
                .grace_period(grace)
                .build()
                .expect("tests need io_uring");
            let handle = runtime.handle();
            let pool = SessionPool::builder(servers()).build().expect("a pool");
            let inner = pool.clone();
            let opened = handle.spawn(handle.cores()[0], move || async move {
                // One in the pool, one that a task has, one that was leaked.
                let lease = inner.lease(&Key::new("good", "one")).await;
                let pooled = pid(&lease.expect("it opens")).await;
                let kept = start(&scripted(&[])).await.expect("it greets");
                let leaked = start(&scripted(&[])).await.expect("it greets");
                let pids = [pooled, kept.rpc().pid(), leaked.rpc().pid()];
                drop(spawn(async move {
                    kept.rpc().call("never", json!({})).await.map(drop)
                }));
                if grace.is_zero() {
                    std::mem::forget(leaked);
                }
                pids
            });
            let pids = opened.expect("room").wait().expect("no panic");
            drop(runtime);
            drop(pool);
            assert!(
                pids.iter().all(|&pid| !exists(pid)),
                "{pids:?} with {grace:?}"
            );
            assert_eq!(children(), [0_u32; 0]);
        }
    });
}

#[test]
fn session_is_called_from_other_cores() {
    let builder = Runtime::builder().cores(Cores::Count(2));
    quietly_of(builder, |handle| async move {
        let pool = SessionPool::builder(servers()).build().expect("a pool");
        let key = Key::new("good", "one");
        let here = pool.lease(&key).await.expect("it opens");
        let there = {
            let pool = pool.clone();
            quoit::on(handle.cores()[1], move || async move {
                let lease = pool.lease(&key).await.expect("it is open");
                let counted = count(&lease, 5).await.expect("it works");
                // A cancel over there reaches the call here.
                let scope = Scope::new().timeout(Duration::from_millis(20));
                let held = scope.run(
                    lease.call(async |session| session.rpc().call("hold", json!({"n": 1})).await),
                );
                assert!(matches!(held.await, Ok(None)));
                Ok::<_, std::io::Error>(counted)
            })
        };
        assert_eq!(there.await.expect("no error"), json!({"n": 5}));
        let released = here.call(async |session| session.rpc().call("release", json!({})).await);
        assert_eq!(released.await.expect("it works"), 1);
        drop(here);
        pool.close_all().await.expect("nobody cancels");
    });
}

#[test]
fn p026_crowds_of_sessions_leave_nothing_behind() {
    in_child(
        "tool_servers::p026_crowds_of_sessions_leave_nothing_behind",
        || {
            allow_descriptors();
            on_ring(|handle| async move {
                let rpc = RpcConfig::default();
                let servers = servers().config(McpConfig::default().rpc(rpc));
                let pool = SessionPool::builder(servers)
                    .max_sessions(256)
                    .open_timeout(Duration::from_secs(300))
                    .grace(Duration::from_secs(120));
                let pool = pool.build().expect("a pool");
                // With it the guardian begins.
                drop(
                    pool.lease(&Key::new("good", "first"))
                        .await
                        .expect("it opens"),
                );
                pool.close_all().await.expect("nobody cancels");
                let held = async || {
                    let core = gauges(&handle).await;
                    let (children, descriptors) = (children().len(), descriptors());
                    (children, descriptors, core.op_slots, core.tasks)
                };
                let before = held().await;
                for round in 0..ROUNDS {
                    let crowd: Vec<_> = (0..256)
                        .map(|n| {
                            let pool = pool.clone();
                            spawn(async move {
                                let key = Key::new("good", format!("scope {n}"));
                                let lease = pool.lease(&key).await.expect("it opens");
                                count(&lease, n).await
                            })
                        })
                        .collect();
                    for (n, task) in crowd.into_iter().enumerate() {
                        let counted = task.await.expect("no panic").expect("it works");
                        assert_eq!(counted, json!({"n": n}), "round {round}");
                    }
                    assert_eq!(pool.close_all().await, Ok(256), "round {round}");
                    assert_eq!(held().await, before, "round {round}");
                }
            });
            assert_eq!(children(), [0_u32; 0]);
        },
    );
}

/// A server that greets, and whose first answer after that has this result.
fn answering(result: &str) -> Command {
    let mut command = Command::new("sh");
    let script = r#"
        read -r hello
        echo '{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18"}}'
        read -r initialized
        read -r asked
        printf '{"jsonrpc":"2.0","id":1,"result":%s}\n' "$0"
        read -r more
    "#;
    command.args(["-c", script, result]);
    command
}

#[test]
fn list_that_is_none_is_an_error_whatever_it_is() {
    quietly(|_| async {
        let results = [
            "[]",
            "7",
            "true",
            "null",
            "{}",
            r#""none""#,
            r#"{"tools":7}"#,
            r#"{"tools":[7]}"#,
        ];
        for result in results {
            let session = start(&answering(result)).await.expect("it greets");
            let listed = session.list_tools().await;
            assert!(
                matches!(listed, Err(SessionError::Unexpected(_))),
                "{result}: {listed:?}"
            );
            session.close().await.expect("nobody cancels it");
        }
    });
}

/// As the number of an answer, that of a progress may be written as one of floating point.
#[test]
fn progress_may_write_its_token_in_another_way() {
    quietly(|_| async {
        for token in ["0", "0.0", "0e1"] {
            let mut command = Command::new("sh");
            let script = r#"
                read -r hello
                echo '{"jsonrpc":"2.0","id":0,"result":{"protocolVersion":"2025-06-18"}}'
                read -r initialized
                read -r asked
                told='{"jsonrpc":"2.0","method":"notifications/progress","params"'
                printf '%s:{"progressToken":%s,"progress":1}}\n' "$told" "$0"
                echo '{"jsonrpc":"2.0","id":1,"result":{"content":[]}}'
                read -r more
            "#;
            command.args(["-c", script, token]);
            let session = start(&command).await.expect("it greets");
            let heard = Rc::new(RefCell::new(Vec::new()));
            let hears = Rc::clone(&heard);
            let called = session.call_tool_with_progress("any", json!({}), move |progress| {
                hears.borrow_mut().push(progress.progress);
            });
            called.await.expect("an answer");
            assert_eq!(*heard.borrow(), [1.0], "{token}");
            session.close().await.expect("nobody cancels it");
        }
    });
}

/// Somebody holds a call and polls it no more.
#[test]
fn p023_server_is_gone_when_the_pool_was_closed_whatever_becomes_of_calls() {
    quietly(|_| async {
        let pool = SessionPool::builder(servers()).grace(Duration::from_millis(200));
        let pool = pool.build().expect("it is set up right");
        let lease = pool.lease(&Key::new("stubborn", "one")).await.expect("one");
        let pid = pid(&lease).await;
        let mut call =
            Box::pin(lease.call(async |session| session.rpc().call("never", json!({})).await));
        assert!(poll_once(call.as_mut()).await.is_pending());
        assert_eq!(pool.close_all().await, Ok(1));
        assert!(!exists(pid), "{pid} is left");
        let called = call.await;
        assert!(called.is_err(), "{called:?}");
    });
}
