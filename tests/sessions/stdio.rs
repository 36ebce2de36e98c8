//! Sessions with child processes, on the real ring: in a simulation there are no processes.
//!
//! The child is `scripted-child`, which does as it is asked. After every test the core is quiet, and no process is
//! left.

use std::cell::{Cell, RefCell};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::future::join;
use quoit::process::{Command, Ending};
use quoit::sync::Event;
use quoit::time::Instant;
use quoit::{Handle, Scope, spawn};
use quoit_pool::stdio::{
    CancelWord, Ended, Framing, Peer, RpcConfig, RpcError, RpcSession, SessionError, Why,
};
use serde_json::{Value, json};
use tests::{exists, gauges, in_child, one_core, poll_once, quietly, quietly_of, resident_kib};

use crate::kind::settle;

/// Longer than anything takes that ends.
const LONG: Duration = Duration::from_secs(30);

/// The child, told this at its start.
pub(crate) fn scripted(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_scripted-child"));
    command.args(arguments);
    command
}

/// The child, deaf to SIGTERM, which outlives the end of its input.
pub(crate) fn stubborn() -> Command {
    let mut command = Command::new("sh");
    let script = "trap '' TERM; exec \"$0\" --stays";
    command.args(["-c", script, env!("CARGO_BIN_EXE_scripted-child")]);
    command
}

async fn start(command: &Command) -> RpcSession {
    let config = RpcConfig::default().cancel_word(CancelWord::Mcp);
    let session = RpcSession::start(command, config, ()).await;
    session.expect("it is built with the tests")
}

async fn close(session: RpcSession) {
    let pid = session.pid();
    session.close().await.expect("nobody cancels it");
    assert!(!exists(pid), "{pid} was not reaped");
}

/// Kills a process, and does not wait for its end.
pub(crate) fn kill(pid: u32) {
    let mut command = std::process::Command::new("kill");
    let killed = command.args(["-KILL", &pid.to_string()]).status();
    assert!(killed.expect("it is there").success());
}

fn ended<T: std::fmt::Debug>(result: Result<T, SessionError>) -> Arc<Ended> {
    match result {
        Err(SessionError::Ended(ended)) => ended,
        other => panic!("the session goes on: {other:?}"),
    }
}

/// Calls a method that ends the session, while another call waits: both fail with the same.
async fn breaks(config: RpcConfig, method: &str, params: Value) -> Arc<Ended> {
    let session = RpcSession::start(&scripted(&[]), config, ()).await;
    let session = Rc::new(session.expect("it is built with the tests"));
    let waiting = {
        let session = Rc::clone(&session);
        spawn(async move { session.call("never", Value::Null).await })
    };
    while session.in_flight() == 0 {
        quoit::yield_uncancellable().await;
    }
    let failed = ended(session.call(method, params).await);
    session.gone().await.expect("nobody cancels");
    assert!(!session.is_open());
    let other = ended(waiting.await.expect("no panic"));
    assert!(Arc::ptr_eq(&failed, &other), "{failed} and {other}");
    let later = ended(session.call("echo", Value::Null).await);
    assert!(Arc::ptr_eq(&failed, &later), "{failed} and {later}");
    close(Rc::into_inner(session).expect("nobody calls any more")).await;
    failed
}

#[test]
fn answers_reach_their_calls_in_whatever_order_they_come() {
    quietly(|_| async {
        for framing in [Framing::Lines, Framing::ContentLength] {
            let command = match framing {
                Framing::ContentLength => scripted(&["--length"]),
                _ => scripted(&[]),
            };
            let config = RpcConfig::default().framing(framing).queue(4);
            let session = RpcSession::start(&command, config, ()).await;
            let session = Rc::new(session.expect("it is built with the tests"));
            let held: Vec<_> = (0..100)
                .map(|n| {
                    let session = Rc::clone(&session);
                    spawn(async move {
                        let params = json!({"n": n, "text": "a\nb"});
                        (params.clone(), session.call("hold", params).await)
                    })
                })
                .collect();
            while session.in_flight() < 100 {
                quoit::yield_uncancellable().await;
            }
            let released = session.call("release", Value::Null).await;
            assert_eq!(released.expect("it goes on"), 100);
            for call in held {
                let (asked, answered) = call.await.expect("no panic");
                assert_eq!(answered.expect("it goes on"), asked);
            }
            let batch = session.call("batch", Value::Null).await;
            assert_eq!(batch.expect("it goes on"), "in a batch");
            let refused = session.call("refuse", json!([])).await;
            let Err(SessionError::Refused(error)) = refused else {
                panic!("{refused:?}");
            };
            assert_eq!((error.code, error.data), (-32_000, Some(json!([1]))));
            assert_eq!((session.in_flight(), session.late_answers()), (0, 0));
            close(Rc::into_inner(session).expect("nobody calls any more")).await;
        }
    });
}

/// A call is cancelled while the child holds its answer back; what the child is told then, as its protocol says
/// it.
fn late_answer(arguments: &'static [&str], config: RpcConfig, told: Value) {
    quietly(move |_| async move {
        let session = RpcSession::start(&scripted(arguments), config, ()).await;
        let session = session.expect("it is built with the tests");
        let scope = Scope::new();
        let handle = scope.handle();
        let call = scope.run(async { session.call("hold", json!({"n": 1})).await });
        {
            let mut call = pin!(call);
            assert!(poll_once(call.as_mut()).await.is_pending());
            // The child has it: what was sent after it was answered.
            session.call("echo", json!([])).await.expect("it goes on");
            handle.cancel();
            assert!(matches!(call.await, Ok(None)));
        }
        assert_eq!(session.in_flight(), 0);
        let seen = session.call("seen", Value::Null).await;
        assert_eq!(seen.expect("it goes on"), told);
        // The late answer comes before this one's.
        let released = session.call("release", Value::Null).await;
        assert_eq!(released.expect("it goes on"), 1);
        assert_eq!(session.late_answers(), 1);
        let echo = session.call("echo", json!({"n": 2})).await;
        assert_eq!(echo.expect("it goes on"), json!({"n": 2}));
        close(session).await;
    });
}

#[test]
fn p020_late_answer_is_thrown_away_and_the_child_was_told() {
    let config = RpcConfig::default();
    let mcp = json!([{
        "jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 0},
    }]);
    late_answer(&[], config.clone().cancel_word(CancelWord::Mcp), mcp);
    let lsp = json!([{"jsonrpc": "2.0", "method": "$/cancelRequest", "params": {"id": 0}}]);
    let measured = config.clone().framing(Framing::ContentLength);
    late_answer(&["--length"], measured.cancel_word(CancelWord::Lsp), lsp);
    // One whose protocol has no word for it.
    late_answer(&[], config, json!([]));
}

#[test]
fn p020_no_answer_goes_astray_however_callers_give_up() {
    quietly(|_| async {
        let session = start(&scripted(&[])).await;
        let mut given_up = 0;
        for n in 0..2_000_u64 {
            let mut call = Box::pin(session.call("echo", json!({"n": n})));
            let mut answer = None;
            for _ in 0..=quoit::random().expect("the machine has some") % 32 {
                if let Poll::Ready(came) = poll_once(call.as_mut()).await {
                    answer = Some(came.expect("it goes on"));
                    break;
                }
                quoit::yield_uncancellable().await;
            }
            drop(call);
            match answer {
                Some(answer) => assert_eq!(answer, json!({"n": n})),
                None => given_up += 1,
            }
        }
        assert!(given_up > 0);
        let last = session.call("echo", json!(["last"])).await;
        assert_eq!(last.expect("it goes on"), json!(["last"]));
        assert_eq!(session.in_flight(), 0);
        assert!(session.late_answers() <= given_up);
        close(session).await;
    });
}

#[test]
fn call_that_is_given_up_before_it_was_written_leaves_no_trace() {
    quietly(|_| async {
        let session = start(&scripted(&[])).await;
        {
            // Nobody writes before this task waits.
            let mut call = pin!(session.call("hold", json!({"n": 1})));
            assert!(poll_once(call.as_mut()).await.is_pending());
        }
        let released = session.call("release", Value::Null).await;
        assert_eq!(released.expect("it goes on"), 0);
        let seen = session.call("seen", Value::Null).await;
        assert_eq!(seen.expect("it goes on"), json!([]));
        close(session).await;
    });
}

#[test]
fn call_is_never_written_in_part_however_often_callers_give_up() {
    quietly(|_| async {
        let session = start(&scripted(&[])).await;
        // More than a pipe takes, so that the writer is held up in the middle.
        let text = "z".repeat(300_000);
        for pauses in 0..40 {
            let mut call = Box::pin(session.call("echo", json!({"text": text})));
            for _ in 0..pauses {
                if poll_once(call.as_mut()).await.is_ready() {
                    break;
                }
                quoit::yield_uncancellable().await;
            }
            drop(call);
            // The child would fail at the first message that is not whole.
            let echo = session.call("echo", json!({"n": pauses})).await;
            assert_eq!(echo.expect("it goes on"), json!({"n": pauses}));
        }
        assert_eq!(session.in_flight(), 0);
        close(session).await;
    });
}

#[test]
fn callers_wait_for_room_and_are_told_when_there_will_be_none() {
    quietly(|_| async {
        let config = RpcConfig::default().queue(2);
        let mut command = scripted(&[]);
        command.ending(Ending::kill());
        let session = RpcSession::start(&command, config, ()).await;
        let session = Rc::new(session.expect("it is built with the tests"));
        // It reads no more.
        let mut stuck = Box::pin(session.call("read no more", Value::Null));
        assert!(poll_once(stuck.as_mut()).await.is_pending());
        let text = "z".repeat(100_000);
        let calls: Vec<_> = (0..10)
            .map(|_| {
                let (session, text) = (Rc::clone(&session), text.clone());
                spawn(async move { session.call("echo", json!([text])).await })
            })
            .collect();
        while session.in_flight() < 3 {
            quoit::yield_uncancellable().await;
        }
        // One that waits can be cancelled alone.
        let late = Scope::new().timeout(Duration::from_millis(20));
        let late = late.run(session.notify("late", Value::Null)).await;
        assert!(matches!(late, Ok(None)), "{late:?}");
        assert!(session.in_flight() <= 4, "{session:?}");
        drop(stuck);
        kill(session.pid());
        for call in calls {
            let ended = ended(call.await.expect("no panic"));
            assert!(ended.to_string().contains("signal: 9"), "{ended}");
        }
        close(Rc::into_inner(session).expect("nobody calls any more")).await;
    });
}

#[test]
fn p023_child_that_heeds_nothing_is_killed_within_the_grace() {
    quietly(|_| async {
        let grace = Duration::from_millis(300);
        let mut command = stubborn();
        command.ending(Ending::default().grace(grace));
        let session = start(&command).await;
        session.call("echo", json!([])).await.expect("it goes on");
        let pid = session.pid();
        let began = Instant::now();
        let status = session.close().await.expect("nobody cancels it");
        assert!(began.elapsed() >= grace);
        let status = status.expect("it was waited for").to_string();
        assert!(status.contains("signal: 9"), "{status}");
        assert!(!exists(pid));
    });
}

/// Callers do not wait for a child that takes longer than a second to end; whoever closes the session does.
#[test]
fn p023_closing_says_how_a_child_ended_of_which_callers_were_told_before() {
    quietly(|_| async {
        let mut command = Command::new("sh");
        command.args(["-c", "trap '' TERM; echo garbage; exec sleep 100"]);
        command.ending(Ending::default().grace(Duration::from_millis(1_500)));
        let session = start(&command).await;
        let ended = ended(session.call("echo", Value::Null).await);
        assert!(matches!(ended.why, Why::NotJsonRpc(_)), "{ended}");
        assert_eq!(ended.status, None, "{ended}");
        let status = session.close().await.expect("nobody cancels it");
        let status = status.expect("it was waited for").to_string();
        assert!(status.contains("signal: 9"), "{status}");
    });
}

#[test]
fn p023_closing_that_is_cancelled_kills_at_once() {
    quietly(|_| async {
        let mut command = stubborn();
        command.ending(Ending::default().grace(LONG * 100));
        let session = start(&command).await;
        session.call("echo", json!([])).await.expect("it goes on");
        let pid = session.pid();
        let scope = Scope::new().timeout(Duration::from_millis(50));
        let closed = scope.run(session.close()).await;
        assert!(matches!(closed, Ok(None)), "{closed:?}");
        assert!(!exists(pid));
    });
}

#[test]
fn p024_half_a_message_is_told_with_status_and_last_words() {
    quietly(|_| async {
        let ended = breaks(RpcConfig::default(), "half", Value::Null).await;
        assert!(matches!(ended.why, Why::Frame(_)), "{ended}");
        assert_eq!(ended.status.and_then(|status| status.code()), Some(3));
        assert_eq!(ended.complaints, ["giving up"]);
        let text = ended.to_string();
        assert!(text.contains("middle of a message"), "{text}");
        assert!(text.contains(r#"\"res"#), "{text}");
    });
}

#[test]
fn p024_line_without_end_fails_at_the_limit_and_is_not_kept() {
    in_child(
        "stdio::p024_line_without_end_fails_at_the_limit_and_is_not_kept",
        || {
            quietly(|_| async {
                let config = RpcConfig::default().frame_limit(1 << 20);
                // What the first needs, the others find.
                breaks(config.clone(), "endless", Value::Null).await;
                let before = resident_kib();
                for _ in 0..10 {
                    let ended = breaks(config.clone(), "endless", Value::Null).await;
                    let text = ended.to_string();
                    assert!(text.contains("longer than 1048576 bytes"), "{text}");
                    assert!(text.len() < 1_000, "{text}");
                }
                let grown = resident_kib().saturating_sub(before);
                // Were a message kept, it would be ten of them, or all that was written.
                assert!(grown < 8 << 10, "{grown} KiB more than {before}");
            });
        },
    );
}

#[test]
fn p024_garbage_ends_the_session() {
    quietly(|_| async {
        let table = [
            ("garbage", "Listening on port 80"),
            ("stray", "never asked, with id 999999"),
            ("misread", "what? (error -32700)"),
            ("ask without end", "more than 3 things"),
        ];
        for (method, said) in table {
            let config = RpcConfig::default().asks(3);
            let text = breaks(config, method, Value::Null).await.to_string();
            assert!(text.contains(said), "{method}: {text}");
        }
    });
}

#[test]
fn child_that_exits_is_told_with_its_status() {
    quietly(|_| async {
        let ended = breaks(RpcConfig::default(), "exit", json!({"status": 7})).await;
        assert!(matches!(ended.why, Why::Exited), "{ended}");
        assert_eq!(ended.status.and_then(|status| status.code()), Some(7));
        assert_eq!(ended.complaints, ["out of order"]);
        // What it has answered just before still counts.
        let session = start(&scripted(&[])).await;
        let answer = session.call("answer and exit", Value::Null).await;
        assert_eq!(answer.expect("it was answered"), "a last word");
        session.gone().await.expect("nobody cancels");
        close(session).await;
    });
}

/// Starts a child that has closed its input, and lives.
async fn deaf() -> RpcSession {
    let mut command = Command::new("sh");
    let tell = r#"echo '{"jsonrpc":"2.0","method":"told"}'"#;
    command.args(["-c", &format!("exec 0<&-; {tell}; exec sleep 30")]);
    let listener = Rc::new(Listener::default());
    let config = RpcConfig::default();
    let session = RpcSession::start(&command, config, Rc::clone(&listener)).await;
    let session = session.expect("it is there");
    while listener.told.borrow().is_empty() {
        quoit::yield_uncancellable().await;
    }
    session
}

#[test]
fn child_that_lives_and_does_not_listen_is_told_so() {
    quietly(|_| async {
        let session = deaf().await;
        let ended = ended(session.call("echo", Value::Null).await);
        assert!(matches!(ended.why, Why::Write(_)), "{ended}");
        assert!(ended.to_string().contains("Broken pipe"), "{ended}");
        close(session).await;
    });
}

#[test]
fn child_that_exits_has_exited_though_its_input_broke_first() {
    quietly(|_| async {
        let session = deaf().await;
        let call = session.call("echo", Value::Null);
        let killed = async {
            session.gone().await.expect("nobody cancels");
            kill(session.pid());
        };
        let (called, ()) = join(call, killed).await;
        let ended = ended(called);
        assert!(matches!(ended.why, Why::Exited), "{ended}");
        assert!(ended.to_string().contains("signal: 9"), "{ended}");
        close(session).await;
    });
}

#[test]
fn child_that_leaves_its_pipes_to_another_is_told_of_all_the_same() {
    quietly(|_| async {
        let mut command = Command::new("sh");
        command.args(["-c", "setsid sleep 10 & echo done >&2; exit 4"]);
        let session = start(&command).await;
        let ended = ended(session.call("echo", Value::Null).await);
        assert_eq!(ended.status.and_then(|status| status.code()), Some(4));
        assert_eq!(ended.complaints, ["done"]);
        close(session).await;
    });
}

#[test]
fn p025_child_never_waits_for_its_complaints_to_be_read() {
    quietly(|_| async {
        let config = RpcConfig::default().complaints(3);
        let session = RpcSession::start(&scripted(&[]), config, ()).await;
        let session = session.expect("it is built with the tests");
        // A hundred times what a pipe holds.
        let complained = session.call("complain", json!({"lines": 65_536})).await;
        complained.expect("it goes on");
        let ended = ended(session.call("exit", json!({"status": 1})).await);
        let line = "y".repeat(99);
        assert_eq!(
            ended.complaints,
            [&line, "the last complaint", "out of order"]
        );
        close(session).await;
    });
}

/// Answers what it knows, and remembers what it was told.
#[derive(Default)]
struct Listener {
    told: RefCell<Vec<Value>>,
    was_cancelled: Cell<bool>,
}

impl Peer for Listener {
    async fn request(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        match method {
            "known" => Ok(params),
            "panics" => panic!("this is what the test wants"),
            "waits" => {
                let waited = Event::new().wait().await;
                self.was_cancelled.set(waited.is_err());
                Err(RpcError::new(-32_800, "taken back"))
            }
            _ => Err(RpcError::method_not_found(method)),
        }
    }

    fn notification(&self, method: &str, params: Value) {
        assert!(
            ["told", "notifications/cancelled"].contains(&method),
            "{method}"
        );
        self.told.borrow_mut().push(params);
    }
}

#[test]
fn child_may_ask_back_and_tell() {
    quietly(|_| async {
        let listener = Rc::new(Listener::default());
        let config = RpcConfig::default().cancel_word(CancelWord::Mcp);
        let session = RpcSession::start(&scripted(&[]), config, Rc::clone(&listener)).await;
        let session = session.expect("it is built with the tests");
        let ask = async |method: &str| {
            let answer = session.call("ask", json!({"method": method})).await;
            answer.expect("it goes on")
        };
        assert_eq!(ask("known").await["result"], json!({"n": 1}));
        assert_eq!(ask("unknown").await["error"]["code"], -32_601);
        assert_eq!(ask("panics").await["error"]["code"], -32_603);
        let taken_back = session.call("ask and take back", json!({"method": "waits"}));
        let taken_back = taken_back.await.expect("it goes on");
        assert_eq!(taken_back["error"]["code"], -32_800);
        assert!(listener.was_cancelled.get());
        listener.told.take();
        let told = session.call("tell", json!({"times": 1_000})).await;
        told.expect("it goes on");
        let told: Vec<_> = listener.told.take();
        assert_eq!(
            told,
            (0..1_000).map(|n| json!({"n": n})).collect::<Vec<_>>()
        );
        close(session).await;
        assert_eq!(Rc::strong_count(&listener), 1, "the tasks have let it go");
    });
}

#[test]
fn handler_that_still_runs_is_cancelled_by_the_end() {
    quietly(|_| async {
        let listener = Rc::new(Listener::default());
        let config = RpcConfig::default();
        let session = RpcSession::start(&scripted(&[]), config, Rc::clone(&listener)).await;
        let session = session.expect("it is built with the tests");
        {
            let mut ask = pin!(session.call("ask", json!({"method": "waits"})));
            assert!(poll_once(ask.as_mut()).await.is_pending());
            session.call("echo", json!([])).await.expect("it goes on");
        }
        close(session).await;
        assert!(listener.was_cancelled.get());
    });
}

#[test]
fn session_that_is_dropped_ends_its_child() {
    quietly(|handle| async move {
        let session = start(&scripted(&[])).await;
        let pid = session.pid();
        drop(session);
        gone(&handle, pid).await;
    });
}

/// Waits until a session that was dropped has ended: its process, and then the task that has waited for that.
async fn gone(handle: &Handle, pid: u32) {
    while exists(pid) || gauges(handle).await.tasks > 1 {
        quoit::yield_uncancellable().await;
    }
}

#[test]
fn closing_writes_what_waits_first() {
    quietly(|_| async {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("heard");
        let mut command = Command::new("sh");
        command.args(["-c", "cat > \"$0\""]).arg(&path);
        command.ending(Ending::default().terminate_after(LONG).grace(LONG));
        let session = start(&command).await;
        for n in 0..50 {
            session
                .notify("n", json!([n]))
                .await
                .expect("there is room");
        }
        close(session).await;
        let heard = std::fs::read_to_string(&path).expect("it was written");
        let lines: Vec<_> = heard.lines().collect();
        assert_eq!(lines.len(), 50);
        assert_eq!(lines[49], r#"{"jsonrpc":"2.0","method":"n","params":[49]}"#);
    });
}

#[test]
fn calls_under_way_fail_when_the_session_is_closed() {
    quietly(|_| async {
        let session = start(&scripted(&[])).await;
        let mut call = Box::pin(session.call("never", Value::Null));
        assert!(poll_once(call.as_mut()).await.is_pending());
        session.stop();
        let ended = ended(call.await);
        assert!(matches!(ended.why, Why::Closed), "{ended}");
        close(session).await;
    });
}

#[test]
#[should_panic(expected = "params are an object, an array, or nothing, and not 7")]
fn params_that_json_rpc_does_not_allow_are_refused() {
    quietly(|_| async {
        let session = start(&scripted(&[])).await;
        let _ = session.call("echo", json!(7)).await;
    });
}

#[test]
fn program_that_is_not_there_is_no_session() {
    quietly(|_| async {
        let command = Command::new("/nowhere/at/all");
        let error = RpcSession::start(&command, RpcConfig::default(), ()).await;
        let Err(SessionError::Start(error)) = error else {
            panic!("{error:?}");
        };
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
    });
}

/// A child counts its requests by ids of its own: that two have the same is no way around the limit.
#[test]
fn p024_requests_of_one_id_count_each() {
    quietly(|_| async {
        let script = r#"
            read -r never
            for round in 1 2 3 4 5; do
                for n in 1 2 3; do
                    echo '{"jsonrpc":"2.0","id":"x","method":"waits"}'
                done
                echo '{"jsonrpc":"2.0","id":"x","method":"known"}'
                read -r answer
            done
        "#;
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        let config = RpcConfig::default().asks(6);
        let session = RpcSession::start(&command, config, Listener::default()).await;
        let session = session.expect("it starts");
        let ended = ended(session.call("never", Value::Null).await);
        assert!(matches!(ended.why, Why::AsksTooMuch(6)), "{ended}");
        close(session).await;
    });
}

/// Cancels that the child has not read are nothing that it has asked for.
#[test]
fn child_that_was_told_of_cancels_may_still_ask() {
    quietly(|_| async {
        let folder = tempfile::tempdir().expect("a folder");
        let flag = folder.path().join("go");
        let mut command = Command::new("sh");
        let script = r#"
            read a; read b; read c; echo '{"jsonrpc":"2.0","method":"told"}'
            until [ -e "$0" ]; do sleep 0.01; done
            echo '{"jsonrpc":"2.0","id":"q","method":"known"}'
            while read line; do
                case "$line" in *'"q"'*) echo '{"jsonrpc":"2.0","id":3,"result":"yes"}';; esac
            done"#;
        command.args(["-c", script]).arg(&flag);
        let listener = Rc::new(Listener::default());
        let config = RpcConfig::default().cancel_word(CancelWord::Mcp).asks(2);
        let session = RpcSession::start(&command, config, Rc::clone(&listener)).await;
        let session = session.expect("it is there");
        let mut calls: Vec<_> = (0..3)
            .map(|_| Box::pin(session.call("never", Value::Null)))
            .collect();
        for call in &mut calls {
            assert!(poll_once(call.as_mut()).await.is_pending());
        }
        while listener.told.borrow().is_empty() {
            quoit::yield_uncancellable().await;
        }
        // More than the pipe takes: the writer is held up in it.
        let long = json!({"text": "z".repeat(100_000)});
        let mut long = Box::pin(session.call("long", long));
        assert!(poll_once(long.as_mut()).await.is_pending());
        settle().await;
        drop(calls);
        std::fs::write(&flag, "").expect("a file");
        assert_eq!(long.await.expect("it goes on"), "yes");
        close(session).await;
    });
}

#[test]
fn answer_may_write_its_number_in_another_way() {
    quietly(|_| async {
        let mut command = Command::new("sh");
        let script = r#"read a; echo '{"jsonrpc":"2.0","id":0.0,"result":"yes"}'; read b"#;
        command.args(["-c", script]);
        let session = start(&command).await;
        let answer = session.call("x", Value::Null).await;
        assert_eq!(answer.expect("it goes on"), "yes");
        close(session).await;
    });
}

#[test]
fn scope_in_which_a_session_is_dropped_ends_after_its_child() {
    quietly(|_| async {
        let scope = Scope::new();
        let dropped = scope.run(async {
            let session = start(&scripted(&[])).await;
            Ok::<_, SessionError>(session.pid())
        });
        let pid = dropped.await.expect("no failure").expect("nobody cancels");
        assert!(!exists(pid), "{pid} was not reaped");
        // Cancelled in the middle of its life as well.
        let pid = Cell::new(0);
        let scope = Scope::new().timeout(Duration::from_millis(20));
        let cancelled = scope.run(async {
            let session = start(&scripted(&[])).await;
            pid.set(session.pid());
            session.call("never", Value::Null).await
        });
        assert!(matches!(cancelled.await, Ok(None)));
        assert!(!exists(pid.get()), "{} was not reaped", pid.get());
    });
}

#[test]
fn start_that_is_cancelled_in_line_for_a_thread_starts_nothing_and_says_so() {
    quietly_of(one_core().blocking_threads(1), |_| async {
        let (sender, told) = std::sync::mpsc::channel();
        let busy = spawn(quoit::blocking::run(move |_| told.recv()));
        quoit::yield_uncancellable().await;
        let scope = Scope::new().timeout(Duration::from_millis(20));
        let started = scope.run(async {
            let started = RpcSession::start(&scripted(&[]), RpcConfig::default(), ()).await;
            assert!(
                matches!(started, Err(SessionError::Cancelled(_))),
                "{started:?}"
            );
            Ok::<_, SessionError>(())
        });
        assert!(matches!(started.await, Ok(Some(()))));
        sender.send(()).expect("the job waits");
        let done = busy.await.expect("no panic").expect("it was let go");
        done.expect("it was told");
    });
}

/// Drops its own session when it is asked for something.
#[derive(Default)]
struct Quitter(RefCell<Option<RpcSession>>);

impl Peer for Quitter {
    async fn request(&self, _: &str, _: Value) -> Result<Value, RpcError> {
        drop(self.0.take());
        Ok(Value::Null)
    }
}

#[test]
fn handler_may_drop_its_own_session() {
    quietly(|handle| async move {
        let mut command = Command::new("sh");
        let asks = r#"echo '{"jsonrpc":"2.0","id":1,"method":"quit"}'; cat"#;
        command.args(["-c", asks]);
        let peer = Rc::new(Quitter::default());
        let session = RpcSession::start(&command, RpcConfig::default(), Rc::clone(&peer)).await;
        let session = session.expect("it starts");
        let pid = session.pid();
        peer.0.replace(Some(session));
        gone(&handle, pid).await;
        assert!(peer.0.take().is_none());
    });
}
