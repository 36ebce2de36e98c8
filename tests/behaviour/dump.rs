//! What a runtime says of its tasks and scopes while they live.

use std::env;
use std::future::{pending, poll_fn};
use std::io::{self, BufRead, BufReader, Write};
use std::pin::{Pin, pin};
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::sync::mpsc;
use std::task::Poll;
use std::time::Duration;

use quoit::op;
use quoit::signal::{Signal, Signals};
use quoit::sync::Event;
use quoit::sync::shared::channel;
use quoit::time::sleep;
use quoit::{
    Cancelled, Cores, Handle, Reason, RemoteError, RemoteHandle, Runtime, Scope, ScopeDump, group,
    on, run_until_cancelled, spawn, yield_now,
};
use serde_json::Value;
use tests::{both_streams, gauges, on_both, on_core, park_once, poll_once};

const LONG: Duration = Duration::from_secs(3600);
const SHORT: Duration = Duration::from_millis(5);

/// The core of the caller, as text and as JSON.
struct Look {
    text: String,
    core: Value,
}

impl Look {
    fn here() -> Self {
        let dump = ScopeDump::of_this_core().expect("on a core");
        let json: Value = serde_json::from_str(&dump.to_json()).expect("it is JSON");
        Self {
            text: dump.to_string(),
            core: json["cores"][0].clone(),
        }
    }

    fn nodes(&self) -> &Vec<Value> {
        self.core["nodes"].as_array().expect("a list")
    }

    /// The one node that this is true of.
    fn node(&self, is: impl Fn(&Value) -> bool) -> &Value {
        let mut found = self.nodes().iter().filter(|node| is(node));
        let node = found
            .next()
            .unwrap_or_else(|| panic!("none in\n{}", self.text));
        assert!(found.next().is_none(), "several in\n{}", self.text);
        node
    }

    fn has_line(&self, parts: &[&str]) -> bool {
        self.text
            .lines()
            .any(|line| parts.iter().all(|part| line.contains(part)))
    }

    fn says(&self, parts: &[&str]) {
        assert!(self.has_line(parts), "{parts:?} is not in\n{}", self.text);
    }

    /// What is waited for, in all of the core.
    fn waits(&self) -> Vec<&str> {
        let waits = self
            .nodes()
            .iter()
            .flat_map(|node| node["waits"].as_array().expect("a list"));
        waits
            .map(|wait| wait["for"].as_str().expect("words"))
            .collect()
    }
}

fn nanos(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| panic!("{value} is no time"))
}

/// Nothing is told of but the root and the caller's own task.
async fn nothing_is_left(handle: &Handle) {
    // What was given up may still be in the kernel.
    while gauges(handle).await.orphans > 0 {}
    let look = Look::here();
    assert_eq!(look.nodes().len(), 2, "{}", look.text);
    assert_eq!(look.core["tasks"], 1);
    assert!(look.waits().is_empty(), "{}", look.text);
}

#[test]
fn each_kind_of_wait_is_told_and_goes_away() {
    on_core(|handle| async move {
        let scope = Scope::new();
        let cancel = scope.handle();
        let here = handle.cores()[0];
        let (near, far) = both_streams().await;
        let (reader, writer) = op::pipe().expect("a pipe");
        let looks = async {
            park_once(&handle).await;
            let look = Look::here();
            cancel.cancel();
            look
        };
        let waits = scope.run(async {
            group(async |g| {
                g.spawn(async { Ok(sleep(LONG).await?) });
                g.spawn(async { Ok(Event::new().wait().await?) });
                g.spawn(async { Ok(run_until_cancelled(pending::<()>()).await?) });
                g.spawn(async move { near.receive().await.map(drop) });
                g.spawn(async move { op::read(&reader, vec![0; 8]).await.0.map(drop) });
                g.spawn(async move { on(here, || async { Ok(sleep(LONG).await?) }).await });
                g.spawn(async move { Ok(spawn(sleep(LONG)).await??) });
                let started = g.start(async |_: quoit::Started<()>| Ok(sleep(LONG).await?));
                Ok::<_, io::Error>(started.await?)
            })
            .await
        });
        let mut waits = pin!(waits);
        assert!(poll_once(waits.as_mut()).await.is_pending());
        let look = looks.await;
        for what in [
            "a point in time",
            "another task of this core",
            "a future of another library",
            "bytes or a connection",
            "a read on descriptor",
            "another core",
            "the end of a task",
            "a child to report that it has started",
        ] {
            let waits = look.waits();
            let told = waits.iter().any(|wait| wait.starts_with(what));
            assert!(told, "{what:?} is not in\n{}", look.text);
            look.says(&["for ", what, ", for "]);
        }
        // One that has not said that it has started is the call's.
        let group = look.node(|node| node["kind"] == "group");
        assert_eq!(
            (&group["tasks"], &group["starting"]),
            (&7.into(), &1.into())
        );
        assert!(waits.await.expect("the scope takes it").is_none());
        drop((far, writer));
        // The task of the join, which was not this scope's, has no end by itself.
        drop(handle);
    });
}

#[test]
fn a_scope_tells_its_deadline_its_shield_and_why_it_was_cancelled() {
    on_core(|handle| async move {
        let scope = Scope::new().timeout(LONG).shielded();
        let told = scope.run(async {
            let look = Look::here();
            let node = look.node(|node| node["kind"] == "scope");
            assert!(nanos(&node["deadline_in_ns"]) > 3_000_000_000_000);
            assert_eq!(node["shield"], "full");
            assert_eq!(
                (&node["cancelled"], &node["refused"]),
                (&Value::Null, &false.into())
            );
            look.says(&["a scope, deadline in", ", shielded"]);
            sleep(SHORT).await
        });
        told.await.expect("nobody cancels");

        let scope = Scope::new().grace_shielded();
        let outer = Scope::new().grace(LONG);
        let ran = outer
            .run(async {
                outer.cancel_with(Reason::User(7), LONG);
                let inner = scope.run(async {
                    sleep(SHORT).await?;
                    Ok::<_, Cancelled>(Look::here())
                });
                let look = inner.await?.expect("it has grace");
                let node = look.node(|node| node["cancelled"] == "cancelled with reason 7");
                assert!(nanos(&node["cancelled_ns"]) >= 1_000_000, "{}", look.text);
                assert!(nanos(&node["grace_left_ns"]) > 3_000_000_000_000);
                assert_eq!(node["refused"], true);
                let inner = look.node(|node| node["shield"] == "grace");
                assert_eq!(inner["refused"], false);
                look.says(&[
                    "a scope, cancelled with reason 7, ",
                    " ago, with ",
                    " of grace left",
                ]);
                look.says(&["a scope, shielded for a grace period"]);
                Ok::<_, Cancelled>(())
            })
            .await;
        assert_eq!(ran, Ok(Some(())));
        nothing_is_left(&handle).await;
    });
}

#[test]
fn what_is_cancelled_from_outside_says_so_and_names_its_task() {
    on_core(|handle| async move {
        let ended = group(async |g| {
            let go = Rc::new(Event::new());
            let waits = Rc::clone(&go);
            g.spawn(async move {
                let goodbye = Scope::new().shielded();
                goodbye.run(waits.wait()).await.map(drop)
            });
            g.cancel();
            park_once_uncancellable(&handle).await;
            let look = Look::here();
            let top = look.node(|node| node["kind"] == "group");
            assert_eq!(
                (&top["cancelled"], &top["tasks"]),
                (&"cancelled".into(), &1.into())
            );
            look.says(&["a group of 1, cancelled, ", " ago"]);
            let task = look.node(|node| node["kind"] == "task" && node["refused"] == true);
            assert_eq!(
                (&task["cancelled"], &task["state"]),
                (&Value::Null, &"waiting".into())
            );
            look.says(&["task ", " waits, cancelled from outside"]);
            let goodbye = look.node(|node| node["shield"] == "full");
            assert_eq!(goodbye["refused"], false);
            let above = goodbye["parent"].as_u64().expect("it has one") as usize;
            assert_eq!(look.nodes()[above]["task"], task["task"]);
            go.set();
            Ok::<_, Cancelled>(())
        });
        assert_eq!(ended.await.expect("nothing failed"), Some(()));
        nothing_is_left(&handle).await;
    });
}

/// As [`park_once`], where ops are refused.
async fn park_once_uncancellable(handle: &Handle) {
    let shield = Scope::new().shielded();
    let parked = shield.run(async {
        park_once(handle).await;
        Ok::<_, Cancelled>(())
    });
    parked.await.expect("nobody cancels a shield");
}

#[test]
fn a_foreign_wait_is_unresponsive_once_it_was_woken_in_vain() {
    on_core(|handle| async move {
        let scope = Scope::new();
        let cancel = scope.handle();
        let (tell, told) = foreign_pair();
        let task = spawn(async move {
            let foreign = poll_fn(|cx| told.poll(cx));
            let body = async {
                foreign.await;
                Ok::<_, Cancelled>(())
            };
            scope.run(body).await
        });
        park_once(&handle).await;
        let look = Look::here();
        look.says(&["a scope that waits for something the runtime does not know"]);
        let node = look.node(|node| node["foreign"] == true);
        assert_eq!(
            (&node["kind"], &node["unresponsive"]),
            (&"scope".into(), &false.into())
        );
        assert_eq!(node["foreign_wakes"], 0);
        cancel.cancel();
        while gauges(&handle).await.unresponsive == 0 {}
        let look = Look::here();
        let node = look.node(|node| node["unresponsive"] == true);
        assert_eq!(
            (&node["foreign_wakes"], &node["refused"]),
            (&8.into(), &true.into())
        );
        look.says(&["unresponsive: woken in vain 8 times, and left alone, cancelled, "]);
        tell.set();
        assert_eq!(task.await.expect("no panic"), Ok(Some(())));
        nothing_is_left(&handle).await;
    });
}

/// Something that is waited for as a library does that knows nothing of scopes: by a waker.
fn foreign_pair() -> (Rc<Foreign>, Rc<Foreign>) {
    let both = Rc::new(Foreign::default());
    (Rc::clone(&both), both)
}

#[derive(Default)]
struct Foreign {
    waker: std::cell::RefCell<Option<std::task::Waker>>,
    is_set: std::cell::Cell<bool>,
}

impl Foreign {
    fn set(&self) {
        self.is_set.set(true);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn poll(&self, cx: &std::task::Context<'_>) -> Poll<()> {
        if self.is_set.get() {
            return Poll::Ready(());
        }
        self.waker.replace(Some(cx.waker().clone()));
        Poll::Pending
    }
}

#[test]
fn a_task_that_swallows_every_cancel_is_told_with_its_refusals() {
    on_core(|handle| async move {
        let stop = Rc::new(Event::new());
        let stopped = Rc::clone(&stop);
        let scope = Scope::new();
        scope.handle().cancel();
        let task = spawn(async move {
            let loops = scope.run(async {
                while !stopped.is_set() {
                    let _ = sleep(LONG).await;
                }
                Ok::<_, Cancelled>(())
            });
            loops.await
        });
        let look = loop {
            park_once(&handle).await;
            let look = Look::here();
            if look.has_line(&["pauses"]) {
                break look;
            }
        };
        let node = look.node(|node| node["swallowing"] == true);
        assert!(nanos(&node["refusals"]) >= 1024, "{}", look.text);
        assert_eq!(node["state"], "pausing");
        look.says(&[
            "task ",
            " pauses, swallows every cancel: refused ",
            " times",
        ]);
        stop.set();
        assert_eq!(task.await.expect("no panic"), Ok(Some(())));
        nothing_is_left(&handle).await;
    });
}

#[test]
fn an_op_that_was_given_up_is_told_where_its_end_is_waited_for() {
    on_core(|handle| async move {
        let (reader, writer) = op::pipe().expect("a pipe");
        let scope = Scope::new();
        let ran = scope.run(async {
            // The core has to have room for it, which it has after a park.
            park_once(&handle).await;
            {
                let mut read = pin!(op::read(&reader, vec![0; 8]));
                assert!(poll_once(read.as_mut()).await.is_pending());
            }
            let look = Look::here();
            let node = look.node(|node| node["orphans"] != serde_json::json!([]));
            assert_eq!(node["kind"], "scope");
            let told = node["orphans"][0].as_str().expect("words").to_owned();
            assert!(told.starts_with("a read on descriptor"), "{told}");
            look.says(&["given up, and not ended: a read on descriptor"]);
            look.says(&["core 0: ", " in the kernel (1 given up)"]);
            Ok::<_, Cancelled>(())
        });
        assert_eq!(ran.await, Ok(Some(())));
        drop(writer);
        nothing_is_left(&handle).await;
    });
}

/// Its slot may be another task's already: nothing of that one is told in its place.
#[test]
fn a_task_that_has_ended_is_told_while_the_kernel_has_an_op_of_it() {
    on_core(|handle| async move {
        let (reader, writer) = op::pipe().expect("a pipe");
        let mut told = false;
        // The kernel may be quicker, and the tasks run in the other order.
        for _ in 0..200 {
            park_once(&handle).await;
            let reader = reader.clone();
            drop(spawn(async move {
                let mut read = pin!(op::read(&reader, vec![0; 8]));
                assert!(poll_once(read.as_mut()).await.is_pending());
            }));
            let look = spawn(async { Look::here() });
            let look = look.await.expect("no panic");
            let ended = |node: &&Value| node["kind"] == "task" && node["dropped"] == true;
            if let Some(node) = look.nodes().iter().find(ended) {
                assert_eq!(node["state"], Value::Null);
                let living = look.nodes().iter().filter(|node| !node["state"].is_null());
                assert_eq!(look.core["tasks"], living.count(), "{}", look.text);
                look.says(&["task ", " that has ended"]);
                look.says(&["given up, and not ended: a read on descriptor"]);
                told = true;
            }
        }
        assert!(told);
        drop(writer);
        nothing_is_left(&handle).await;
    });
}

#[test]
fn a_wait_that_was_told_of_a_cancel_says_so_until_it_ends() {
    on_core(|handle| async move {
        let here = handle.cores()[0];
        let scope = Scope::new();
        let cancel = scope.handle();
        let (end, may_end) = channel::bounded::<()>(1);
        let task = spawn(async move {
            let call = on(here, move || async move {
                let goodbye = Scope::new().shielded();
                goodbye.run(may_end.recv()).await?;
                Ok::<_, io::Error>(())
            });
            scope.run(call).await
        });
        park_once(&handle).await;
        cancel.cancel();
        park_once(&handle).await;
        let look = Look::here();
        look.says(&["for another core, which was told of the cancel, for "]);
        let node = look.node(|node| node["waits"][0]["told"] == true);
        assert_eq!(
            (&node["refused"], &node["foreign"]),
            (&true.into(), &false.into())
        );
        drop(end);
        task.await.expect("no panic").expect("no error");
        nothing_is_left(&handle).await;
    });
}

/// One branch of a body ends at the cancel, so the body is polled while the other waits on. The
/// runtime knows what it waits for: it wakes nobody for it.
#[test]
fn a_wait_that_was_told_of_a_cancel_is_no_foreign_one() {
    on_core(|handle| async move {
        let here = handle.cores()[0];
        let scope = Scope::new();
        let cancel = scope.handle();
        let task = spawn(async move {
            let call = on(here, || async {
                let goodbye = Scope::new().shielded();
                goodbye.run(sleep(Duration::from_millis(40))).await?;
                Ok::<_, io::Error>(())
            });
            let body = async {
                let (mut call, mut other) = (pin!(call), pin!(sleep(LONG)));
                let mut sleeps = true;
                poll_fn(|cx| {
                    if sleeps && other.as_mut().poll(cx).is_ready() {
                        sleeps = false;
                    }
                    call.as_mut().poll(cx)
                })
                .await
            };
            scope.run(body).await
        });
        park_once(&handle).await;
        cancel.cancel();
        task.await.expect("no panic").expect("no error");
        assert_eq!(handle.metrics()[0].foreign_wakes, 0);
        nothing_is_left(&handle).await;
    });
}

#[test]
fn tasks_are_told_to_run_to_be_ready_or_to_wait_for_an_end() {
    on_core(|handle| async move {
        let outer = spawn(async {
            let waits = group(async |g| {
                g.spawn_daemon(sleep(LONG));
                g.spawn(sleep(SHORT));
                Ok::<_, Cancelled>(())
            });
            waits.await.map(drop)
        });
        park_once(&handle).await;
        let yields = spawn(async {
            for _ in 0..3 {
                yield_now().await.expect("nobody cancels");
            }
        });
        drop(yields);
        let look = Look::here();
        look.says(&["task ", " waits for the end of what it has started"]);
        look.says(&["a scope with 1 task"]);
        look.says(&["task ", " is ready to run"]);
        let own = look.node(|node| node["state"] == "running");
        assert_eq!(
            (&own["kind"], &look.core["ready"]),
            (&"task".into(), &1.into())
        );
        yield_now().await.expect("nobody cancels");
        let look = Look::here();
        look.says(&["task ", " is ready to run"]);
        assert!(!look.has_line(&["does not know"]), "{}", look.text);
        outer.await.expect("no panic").expect("no failure");
    });
}

#[test]
fn all_cores_are_asked_from_outside() {
    on_both(|| {
        let runtime = Runtime::builder()
            .cores(Cores::Count(2))
            .build()
            .expect("tests need io_uring");
        let handle = runtime.handle();
        for core in handle.cores() {
            let waits = handle.spawn(core, || async {
                let _ = Scope::new().timeout(LONG).run(sleep(LONG)).await;
            });
            drop(waits.expect("room"));
        }
        let dump = handle.dump(LONG);
        let json: Value = serde_json::from_str(&dump.to_json()).expect("it is JSON");
        for (place, core) in json["cores"].as_array().expect("a list").iter().enumerate() {
            assert_eq!(
                (&core["core"], &core["silent"]),
                (&place.into(), &Value::Null)
            );
            assert_eq!(core["tasks"], 1, "{dump}");
        }
        let inside = handle.clone();
        let asked = handle.spawn(handle.cores()[1], move || async move {
            inside.dump(LONG).to_string()
        });
        let text = asked.expect("room").wait().expect("no panic");
        assert!(
            text.starts_with("core 0 was not asked: a core cannot wait"),
            "{text}"
        );
        assert!(text.contains("core 1: 2 tasks, "), "{text}");
        runtime.shutdown(Duration::ZERO);
        let dump = handle.dump(LONG);
        assert_eq!(dump.to_string(), "core 0 has ended\ncore 1 has ended\n");
        let json: Value = serde_json::from_str(&dump.to_json()).expect("it is JSON");
        assert_eq!(json["cores"][1]["silent"], "has ended");
    });
    assert!(ScopeDump::of_this_core().is_none());
}

#[test]
fn whoever_waits_for_an_answer_gets_the_handle_back_when_time_is_over() {
    on_both(|| {
        let (sender, answer) = RemoteHandle::channel();
        let answer = answer
            .wait_for(SHORT)
            .expect_err("nobody has sent anything");
        let answer = answer.wait_for(Duration::ZERO).expect_err("nor now");
        sender.send(3);
        assert_eq!(
            answer
                .wait_for(LONG)
                .expect("it is there")
                .expect("no panic"),
            3
        );
        let (sender, answer) = RemoteHandle::<()>::channel();
        drop(sender);
        let gone = answer.wait_for(LONG).expect("it is known");
        assert!(matches!(gone, Err(RemoteError::Gone)), "{gone:?}");
    });
    on_core(|_| async {
        let (_sender, answer) = RemoteHandle::<()>::channel();
        let refused = answer.wait_for(LONG).expect("at once");
        assert!(
            matches!(refused, Err(RemoteError::WouldBlock)),
            "{refused:?}"
        );
    });
}

/// A thread's own loop is what a simulation does not have: on the real ring.
#[test]
fn a_core_that_does_not_answer_is_named_and_not_waited_for() {
    let runtime = Runtime::builder()
        .cores(Cores::Count(2))
        .build()
        .expect("tests need io_uring");
    let handle = runtime.handle();
    let (release, released) = mpsc::channel::<()>();
    let (tell, told) = mpsc::channel();
    let stuck = handle.spawn(handle.cores()[1], move || async move {
        tell.send(()).expect("somebody listens");
        released.recv().expect_err("it is dropped")
    });
    told.recv().expect("it runs");
    // The other one may have been slow as well.
    let dumps = std::iter::repeat_with(|| handle.dump(SHORT).to_string());
    let mut answered = dumps.filter(|dump| dump.starts_with("core 0: "));
    let dump = answered.next().expect("it goes on for ever");
    let silent = "core 1 does not answer: one task has been running all the while\n";
    assert!(dump.ends_with(silent), "{dump}");
    while handle.spawn(handle.cores()[1], || async {}).is_ok() {}
    let dump = handle.dump(SHORT).to_string();
    assert!(
        dump.ends_with("core 1 does not answer: its mailbox is full\n"),
        "{dump}"
    );
    drop(release);
    stuck.expect("room").wait().expect("no panic");
    let mut dumps = std::iter::repeat_with(|| handle.dump(LONG).to_string());
    assert!(dumps.any(|dump| dump.contains("core 1: ")));
    runtime.shutdown(Duration::ZERO);
}

const CHILD: &str = "QUOIT_DUMP_CHILD";

/// Real signals, to a process of its own.
#[test]
fn a_signal_writes_it_to_standard_error_also_after_the_end() {
    if env::var_os(CHILD).is_some() {
        return writes_when_signalled();
    }
    // Blocked before the process has a second thread: nobody else is there to take it.
    let program = env::current_exe().expect("this program has a path");
    let name = "dump::a_signal_writes_it_to_standard_error_also_after_the_end";
    let mut child = Command::new("env")
        .arg("--block-signal=USR1")
        .arg(program)
        .args([name, "--exact", "--nocapture", "--test-threads=1"])
        .env(CHILD, "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("env is everywhere");
    let mut say = child.stdin.take().expect("piped");
    let mut out = BufReader::new(child.stdout.take().expect("piped")).lines();
    let mut errors = BufReader::new(child.stderr.take().expect("piped")).lines();
    let signal = || {
        let target = child.id().to_string();
        let status = Command::new("kill")
            .args(["-USR1", target.as_str()])
            .status();
        assert!(status.expect("every machine has it").success());
    };
    let until = |mut lines: &mut dyn Iterator<Item = io::Result<String>>, end: &str| {
        let found = (&mut lines).find(|line| line.as_ref().expect("text").contains(end));
        found
            .unwrap_or_else(|| panic!("{end:?} was not said"))
            .expect("text")
    };
    until(&mut out, "it runs");
    for _ in 0..2 {
        signal();
        until(&mut errors, "SIGUSR1:");
        until(&mut errors, "core 0: 1 task, ");
        until(&mut errors, "for a point in time");
    }
    writeln!(say, "end it").expect("it reads");
    until(&mut out, "it has ended");
    signal();
    until(&mut errors, "core 0 has ended");
    writeln!(say, "go").expect("it reads");
    // The thread that waits for signals does not keep it alive.
    assert!(child.wait().expect("ours").success());
}

fn writes_when_signalled() {
    let signals = Signals::block(&[Signal::User1]).expect("a signal");
    let runtime = Runtime::builder()
        .cores(Cores::Count(1))
        .build()
        .expect("tests need io_uring");
    let handle = runtime.handle();
    let (tell, told) = mpsc::channel();
    let waits = handle.spawn(handle.cores()[0], move || async move {
        let mut sleeps = pin!(sleep(LONG));
        poll_fn(|cx| {
            let polled = sleeps.as_mut().poll(cx);
            tell.send(()).expect("somebody listens");
            polled
        })
        .await
    });
    drop(waits.expect("room"));
    told.recv().expect("it runs");
    handle.dump_on(signals).expect("a thread");
    println!("it runs");
    let mut line = String::new();
    io::stdin().read_line(&mut line).expect("somebody writes");
    runtime.shutdown(Duration::ZERO);
    println!("it has ended");
    io::stdin().read_line(&mut line).expect("somebody writes");
}

#[test]
fn a_simulation_has_no_signals() {
    let signals = Signals::block(&[]).expect("none");
    quoit::sim::Sim::with_seed(0).run(|| {
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a core");
        let refused = runtime.handle().dump_on(signals).expect_err("it has none");
        assert_eq!(refused.kind(), io::ErrorKind::Unsupported);
    });
}

/// Looks from within so many scopes.
fn look_from_within(scopes: u32) -> Pin<Box<dyn Future<Output = Look>>> {
    Box::pin(async move {
        let scope = Scope::new();
        let looked = scope.run(async {
            Ok::<_, Cancelled>(match scopes {
                1 => Look::here(),
                more => look_from_within(more - 1).await,
            })
        });
        looked.await.ok().flatten().expect("nobody cancels")
    })
}

#[test]
fn the_text_of_a_deep_tree_is_not_set_in_for_ever() {
    on_core(|_| async {
        let look = look_from_within(250).await;
        assert_eq!(look.nodes().len(), 252, "with the root and the task");
        let longest = look
            .text
            .lines()
            .map(str::len)
            .max()
            .expect("there are some");
        assert!(longest < 400, "{longest}");
        look.says(&["  a scope"]);
        look.says(&["  151 deeper: a scope"]);
        assert!(!look.has_line(&["152 deeper"]));
    });
}
