//! Child processes of tasks that are cancelled. On the real ring alone: no process is simulated.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use quoit::op::PipeReader;
use quoit::process::{Child, Command, Ending, Stdio};
use quoit::time::sleep;
use quoit::{Cancelled, CarriesCancelled, Reason, Scope, group};
use tests::{children, descriptors, exists, in_child, quietly, runs};

/// A child that nothing but SIGKILL ends, with one of its own; and the numbers of both, the child's first.
async fn stubborn() -> io::Result<(Child, [u32; 2])> {
    let script = "trap '' TERM HUP INT
        sh -c 'echo $$; while :; do sleep 3600; done' & echo $$; while :; do sleep 3600; done";
    let mut command = Command::new("sh");
    command.args(["-c", script]);
    command.ending(Ending::default().grace(Duration::from_millis(50)));
    command
        .stdin(Stdio::Piped)
        .stdout(Stdio::Piped)
        .stderr(Stdio::Piped);
    let child = command.spawn().await?;
    let stdout = child.stdout.as_ref().expect("it is piped");
    let said = [number(stdout).await?, number(stdout).await?];
    // Either may be the first to say its own.
    let own = said.into_iter().find(|&id| id != child.id());
    let ids = [child.id(), own.expect("they have two numbers")];
    Ok((child, ids))
}

async fn number(stdout: &PipeReader) -> io::Result<u32> {
    let mut text = String::new();
    loop {
        let (count, byte) = stdout.read([0]).await;
        assert_eq!(count?, 1, "it ended first");
        match byte[0] {
            b'\n' => return Ok(text.parse().expect("a number")),
            digit => text.push(char::from(digit)),
        }
    }
}

/// What the process holds: the guardian is its only child, and the rest as it was before.
async fn assert_nothing_is_left(ids: [u32; 2], descriptors_before: usize) {
    assert!(!exists(ids[0]), "it was not reaped");
    // What a child has started is somebody else's to reap; it was killed before, which takes a moment.
    let scope = Scope::new().timeout(Duration::from_secs(30));
    let gone = scope.run(async {
        while runs(ids[1]) {
            sleep(Duration::from_millis(1)).await?;
        }
        Ok::<_, Cancelled>(())
    });
    let gone = gone.await.expect("nobody cancels a test");
    assert!(gone.is_some() && ids[1] > 0, "{ids:?} is an orphan");
    assert_eq!(children().len(), 1, "a zombie, or an orphan of ours");
    assert_eq!(descriptors(), descriptors_before, "a pipe is open");
}

/// Starts the guardian, and returns how many descriptors are open with it.
async fn with_a_guardian() -> usize {
    let status = Command::new("true").status().await.expect("it runs");
    assert!(status.success());
    descriptors()
}

#[test]
fn c133_child_whose_waiter_is_cancelled_in_its_clean_up_is_killed_and_reaped() {
    let test =
        "processes::c133_child_whose_waiter_is_cancelled_in_its_clean_up_is_killed_and_reaped";
    in_child(test, || {
        quietly(|_| async {
            let before = with_a_guardian().await;
            let scope = Scope::new();
            let known = Cell::new([0; 2]);
            let outcome = scope.run(async {
                let (mut child, ids) = stubborn().await?;
                known.set(ids);
                scope.cancel();
                let refused = child.wait().await.expect_err("the scope is cancelled");
                // The clean-up has a time of its own, and that is over before the child is.
                let clean_up = Scope::new().shielded().timeout(Duration::from_millis(20));
                let waited = clean_up.run(async {
                    let waited = child.wait().await;
                    let late = waited.as_ref().expect_err("nothing ends it").cancelled();
                    assert_eq!(late.expect("a cancel").reason(), Reason::Deadline);
                    assert!(runs(child.id()), "a wait kills nobody");
                    waited
                });
                assert!(waited.await.expect("its own cancel").is_none());
                Err::<(), _>(refused)
            });
            assert!(outcome.await.expect("its own cancel").is_none());
            assert_nothing_is_left(known.get(), before).await;
        });
    });
}

#[test]
fn c133_child_that_is_ended_in_a_clean_up_that_is_cancelled_is_gone_after_it() {
    let test =
        "processes::c133_child_that_is_ended_in_a_clean_up_that_is_cancelled_is_gone_after_it";
    in_child(test, || {
        quietly(|_| async {
            let before = with_a_guardian().await;
            let scope = Scope::new();
            let known = Cell::new([0; 2]);
            let outcome = scope.run(async {
                let (mut child, ids) = stubborn().await?;
                known.set(ids);
                let clean_up = Scope::new().shielded().timeout(Duration::from_millis(1));
                let ended = clean_up.run(async {
                    let status = child.end().await?;
                    // The time was over long before; the end is a release, and went on.
                    quoit::check().expect_err("the time is over");
                    Ok::<_, io::Error>(status)
                });
                let status = ended.await?.expect("a value is a value");
                assert_eq!(status.code(), None, "it was killed");
                assert!(!exists(ids[0]), "it was not reaped");
                Ok::<_, io::Error>(())
            });
            assert!(outcome.await.expect("no error").is_some());
            assert_nothing_is_left(known.get(), before).await;
        });
    });
}

#[test]
fn c133_children_of_a_cancelled_group_are_gone_when_it_ends() {
    let test = "processes::c133_children_of_a_cancelled_group_are_gone_when_it_ends";
    in_child(test, || {
        quietly(|_| async {
            let before = with_a_guardian().await;
            let known = Cell::new([0; 2]);
            let result = group(async |tasks| {
                let waiting = tasks.spawn(async {
                    let (mut child, ids) = stubborn().await?;
                    let scope = Scope::new().shielded().timeout(Duration::from_secs(3_600));
                    let handle = scope.handle();
                    let told = quoit::spawn(async move { handle.cancel() });
                    let waited = scope.run(async { child.wait().await.map(drop) }).await?;
                    assert!(waited.is_none(), "it was cancelled in its shield");
                    drop(told.await);
                    Ok::<_, io::Error>(ids)
                });
                let ids = waiting.await.expect("no panic");
                known.set(ids);
                tasks.cancel();
                Ok::<_, io::Error>(())
            });
            drop(result.await);
            assert_nothing_is_left(known.get(), before).await;
        });
    });
}
