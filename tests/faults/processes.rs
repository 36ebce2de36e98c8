//! Processes that are killed, and what they leave behind: nothing.
//!
//! Tests that kill a host run themselves again, as the host.

use std::fs;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use quoit::process::{Command, Ending, Stdio};
use quoit::time::Instant;
use quoit::{CoreMetrics, Cores, Runtime, Scope};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tests::{
    Host, allow_descriptors, children, descriptors, gauges, in_child, is_host, kill_hosts, on_ring,
    poll_once, runs, stat,
};

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(3_600);

/// Held by a test that fills the machine with processes, and by one that measures time.
static CROWDED: Mutex<()> = Mutex::new(());

/// How often a host is killed.
const ROUNDS: usize = 20;

/// What a host of [`nothing_outlives_a_host_that_was_killed`] starts. Each says its number.
const SCRIPTS: [&str; 7] = [
    // A child; one that heeds nothing.
    "echo pid $$; exec sleep 3600",
    "trap '' TERM HUP INT; echo pid $$; while :; do sleep 3600; done",
    // A grandchild in the child's group, whose parent is gone, and without the mark.
    "(env -u QUOIT_GUARDIAN sleep 3600 & echo pid $!); echo pid $$; exec sleep 3600",
    // One in a session of its own, whose parent lives; with the mark, and without.
    "setsid sh -c 'echo pid $$; exec sleep 3600' & echo pid $$; wait",
    "env -u QUOIT_GUARDIAN setsid sh -c 'echo pid $$; sleep 3600 & echo pid $!; wait' & echo pid $$; wait",
    // One in a session of its own, whose parent is gone, with children.
    "(setsid sh -c 'echo pid $$; sleep 3600 & echo pid $!; wait' &); echo pid $$; exec sleep 3600",
    // The same once more, from one level further down.
    "sh -c 'setsid sh -c \"setsid sleep 3600 & echo pid \\$!; echo pid \\$\\$; wait\" &'; echo pid $$; exec sleep 3600",
];

/// How many numbers the scripts say.
const NUMBERS: usize = 15;

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

#[test]
fn nothing_outlives_a_host_that_was_killed() {
    let test = "processes::nothing_outlives_a_host_that_was_killed";
    if is_host(test) {
        return host();
    }
    let _quiet = CROWDED.lock().unwrap_or_else(PoisonError::into_inner);
    kill_hosts(test, ROUNDS, NUMBERS);
}

#[test]
fn host_that_is_killed_while_it_starts_children_leaves_none() {
    let test = "processes::host_that_is_killed_while_it_starts_children_leaves_none";
    if is_host(test) {
        return quoit::block_on(async {
            let mut command = Command::new("sh");
            // Those that nobody reads any more must not end by themselves.
            command.args(["-c", "trap '' PIPE; echo pid $$; exec sleep 3600"]);
            let mut children = Vec::new();
            loop {
                let mut starts = Vec::new();
                for _ in 0..8 {
                    let command = command.clone();
                    starts.push(quoit::spawn(async move { command.spawn().await }));
                }
                for start in starts {
                    children.push(start.await.expect("no panic").expect("it is there"));
                }
                // No more than a machine has room for; the first is the one that is known.
                children.truncate(100);
            }
        })
        .expect("a core");
    }
    let _crowd = CROWDED.lock().unwrap_or_else(PoisonError::into_inner);
    for round in 0..ROUNDS {
        let mut host = Host::start(test, 1 + round * 3);
        // What the mark finds is looked for.
        let pids = std::mem::take(&mut host.pids);
        let mark = loop {
            assert!(runs(pids[0]), "it waits to be killed");
            // While a shell becomes another program, nothing can be read.
            if let Some(mark) = mark_in(pids[0]) {
                break mark;
            }
        };
        host.kill();
        until_none_is_left(&mark);
    }
}

/// Returns what the guardian of a process finds it by.
fn mark_in(pid: u32) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let text = String::from_utf8_lossy(&environment).into_owned();
    let variable = |variable: &str| variable.strip_prefix("QUOIT_GUARDIAN=").map(str::to_owned);
    text.split('\0').find_map(variable)
}

fn all_processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").expect("/proc");
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

fn until_none_is_left(mark: &str) {
    let began = Instant::now();
    loop {
        let left: Vec<u32> = all_processes()
            .filter(|&pid| runs(pid) && mark_in(pid).as_deref() == Some(mark))
            .collect();
        if left.is_empty() {
            return;
        }
        assert!(
            began.elapsed() < Duration::from_secs(30),
            "{left:?} are left"
        );
    }
}

/// What this process has: its children, descriptors, and the op slots and tasks of its core.
fn held(core: &CoreMetrics) -> [u64; 4] {
    let (children, descriptors) = (children().len() as u64, descriptors() as u64);
    [children, descriptors, core.op_slots, core.tasks]
}

#[test]
fn crowds_of_children_leave_nothing_behind() {
    let _crowd = CROWDED.lock().unwrap_or_else(PoisonError::into_inner);
    in_child("processes::crowds_of_children_leave_nothing_behind", || {
        allow_descriptors();
        on_ring(|handle| async move {
            let mut cat = Command::new("cat");
            cat.stdin(Stdio::Piped)
                .stdout(Stdio::Piped)
                .stderr(Stdio::Piped);
            // With it the guardian begins.
            cat.output(10).await.expect("it runs");
            let before = held(&gauges(&handle).await);
            for round in 0..ROUNDS {
                let mut crowd = Vec::new();
                for number in 0..256 {
                    let cat = cat.clone();
                    crowd.push(quoit::spawn(async move {
                        let mut child = cat.spawn().await?;
                        let stdin = child.stdin.as_ref().expect("it is piped");
                        let sent = format!("{number}\n");
                        stdin.write_all(sent.clone()).await.0?;
                        let stdout = child.stdout.as_ref().expect("it is piped");
                        let came = stdout.receive().await?.expect("it is copied");
                        assert_eq!(&came[..], sent.as_bytes());
                        drop(came);
                        match number % 4 {
                            0 => drop(child),
                            1 => drop(child.wait().await?),
                            2 => drop(child.end().await?),
                            _ => drop(child.wait_with_output(10).await?),
                        }
                        Ok::<_, io::Error>(())
                    }));
                }
                for task in crowd {
                    task.await.expect("no panic").expect("no error");
                }
                // Those that were dropped are ended by tasks of the core.
                let began = Instant::now();
                while gauges(&handle).await.tasks > before[3] {
                    assert!(began.elapsed() < Duration::from_secs(30), "round {round}");
                }
                assert_eq!(held(&gauges(&handle).await), before, "round {round}");
            }
        });
        // The guardian goes with its runtime.
        assert_eq!(children(), [0_u32; 0]);
    });
}

#[test]
fn guardian_that_was_killed_is_replaced_and_knows_them_all() {
    let test = "processes::guardian_that_was_killed_is_replaced_and_knows_them_all";
    if is_host(test) {
        return quoit::block_on(async {
            let mut command = Command::new("sh");
            // Its mark is taken off, so that it is known by its number alone.
            let script = "exec env -u QUOIT_GUARDIAN sh -c 'echo pid $$; exec sleep 3600'";
            let mut first = command
                .args(["-c", script])
                .spawn()
                .await
                .expect("it is there");
            let guardian = children().into_iter().find(|&pid| pid != first.id());
            let guardian = guardian.expect("there is one");
            std::process::Command::new("kill")
                .arg("-KILL")
                .arg(guardian.to_string())
                .status()
                .expect("it runs");
            while runs(guardian) {
                std::thread::yield_now();
            }
            // It is marked: it says its number before the new guardian has heard of it.
            let mut marked = Command::new("sh");
            marked.args(["-c", "echo pid $$; exec sleep 3600"]);
            let _second = marked.spawn().await.expect("it is there");
            first.wait().await.expect("ours");
        })
        .expect("a core");
    }
    Host::start(test, 2).kill();
}

/// A host that waits for any child of its process takes the guardian as well.
#[test]
fn guardian_that_something_else_has_reaped_is_replaced() {
    in_child(
        "processes::guardian_that_something_else_has_reaped_is_replaced",
        || {
            on_ring(|_| async {
                let mut command = Command::new("sleep");
                command.arg("3600");
                let first = command.spawn().await.expect("it is there");
                let guardian = children().into_iter().find(|&pid| pid != first.id());
                let guardian = i32::try_from(guardian.expect("there is one")).expect("a number");
                let guardian = Pid::from_raw(guardian).expect("a number");
                kill_process(guardian, Signal::KILL).expect("it is ours");
                waitpid(Some(guardian), WaitOptions::empty()).expect("it is ours");
                let second = command.spawn().await.expect("it is there");
                // Both, and the new one.
                assert_eq!(children().len(), 3);
                for mut child in [first, second] {
                    child.kill();
                    child.wait().await.expect("ours");
                }
            });
            assert_eq!(children(), [0_u32; 0]);
        },
    );
}

#[test]
fn children_do_not_outlive_their_runtime() {
    in_child("processes::children_do_not_outlive_their_runtime", || {
        let mut leaked = Vec::new();
        for grace in [Duration::ZERO, Duration::from_millis(300)] {
            let runtime = Runtime::builder()
                .cores(Cores::Count(1))
                .grace_period(grace)
                .build()
                .expect("tests need io_uring");
            let handle = runtime.handle();
            let started = handle.spawn(handle.cores()[0], || async {
                let mut command = Command::new("sh");
                let script = "trap '' TERM HUP; echo; while :; do sleep 3600; done";
                command.args(["-c", script]).stdout(Stdio::Piped);
                command.ending(Ending::default().grace(LONG));
                let mut ids = Vec::new();
                for place in 0..3 {
                    let mut child = command.spawn().await.expect("it is there");
                    let stdout = child.stdout.as_ref().expect("it is piped");
                    stdout.receive().await.expect("no error").expect("a line");
                    ids.push(child.id());
                    match place {
                        // One that somebody waits for, one that was dropped, one that was leaked.
                        0 => drop(quoit::spawn(async move { child.wait().await })),
                        1 => drop(child),
                        _ => std::mem::forget(child),
                    }
                }
                ids
            });
            let ids = started.expect("room").wait().expect("no panic");
            assert!(ids.iter().all(|&pid| runs(pid)));
            drop(runtime);
            let left: Vec<_> = ids[..2].iter().filter_map(|&pid| stat(pid)).collect();
            assert!(left.is_empty(), "{ids:?}, with {grace:?}: {left:?}");
            // The guardian has killed it; nobody can reap it any more.
            assert!(!runs(ids[2]));
            leaked.push(ids[2]);
            leaked.sort_unstable();
            assert_eq!(children(), leaked);
        }
    });
}

#[test]
fn start_that_is_given_up_leaves_no_child() {
    in_child("processes::start_that_is_given_up_leaves_no_child", || {
        on_ring(|handle| async move {
            let mut command = Command::new("sleep");
            command.arg("3600");
            for pauses in 0..100 {
                let scope = Scope::new();
                let ended = scope.run(async {
                    let mut start = Box::pin(command.spawn());
                    for _ in 0..pauses {
                        if poll_once(start.as_mut()).await.is_ready() {
                            break;
                        }
                        quoit::yield_now().await?;
                    }
                    drop(start);
                    Ok::<_, io::Error>(())
                });
                ended.await.expect("no error");
                let guardian = children().len();
                assert!(guardian <= 1, "{pauses} pauses: {:?}", children());
            }
            assert_eq!(gauges(&handle).await.tasks, 1);
        });
        assert_eq!(children(), [0_u32; 0]);
    });
}
