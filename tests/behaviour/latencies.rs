//! What a core measures of itself.

use std::io;
use std::sync::mpsc;
use std::time::Duration;

use quoit::buf::Interrupted;
use quoit::metrics::{Histogram, Snapshot};
use quoit::sim::Sim;
use quoit::sync::Event;
use quoit::time::{Instant, sleep};
use quoit::{Cancelled, Cores, Handle, Runtime, Scope, group, op, spawn, yield_now};
use tests::{Kernel, both_streams, on_core, on_ring};

const SHORT: Duration = Duration::from_millis(5);

fn of(snapshot: &Snapshot, name: &str, label: Option<&str>) -> Histogram {
    let found = snapshot.cores[0].latency(name, label);
    found.expect("something that is measured").clone()
}

/// Returns what came of one kind since `before`.
fn came(handle: &Handle, before: &Snapshot, name: &str, label: Option<&str>) -> Histogram {
    of(&handle.snapshot(), name, label).since(&of(before, name, label))
}

#[test]
fn every_op_is_measured_once_from_submission_to_completion() {
    on_core(|handle| async move {
        let before = handle.snapshot();
        for _ in 0..25 {
            op::nop().await.expect("not cancelled");
        }
        let took = came(&handle, &before, "op", Some("nop"));
        if Kernel::here().counts_exactly() {
            assert_eq!(took.count(), 25);
        }
        assert!(took.count() >= 25);
        assert!(of(&handle.snapshot(), "op", Some("send")).is_empty());
    });
}

#[test]
fn an_op_takes_as_long_as_its_peer() {
    on_core(|handle| async move {
        let (reader, writer) = op::pipe().expect("a pipe");
        let before = handle.snapshot();
        let late = spawn(async move {
            sleep(SHORT).await.expect("not cancelled");
            op::write(&writer, b"x".to_vec()).await.0.expect("room");
        });
        op::read(&reader, vec![0; 8]).await.0.expect("a byte");
        late.await.expect("no panic");
        let took = came(&handle, &before, "op", Some("read"));
        assert!(took.max() >= SHORT, "{took:?}");
        assert!(took.percentile(100.0) >= SHORT, "{took:?}");
    });
}

/// It completes twice: with its result, and when the buffer is its owner's again.
#[test]
fn a_zero_copy_send_is_measured_once_unless_it_was_cut_short() {
    on_core(|handle| async move {
        let (ours, theirs) = both_streams().await;
        let before = handle.snapshot();
        let sent = || came(&handle, &before, "op", Some("zero-copy send"));
        for _ in 0..25 {
            let (count, _) = ours.send_zero_copy(vec![1; 10]).await;
            count.expect("there is room");
            theirs.receive().await.expect("no error").expect("no end");
        }
        if Kernel::here().counts_exactly() {
            assert_eq!(sent().count(), 25);
        }
        assert!(sent().count() >= 25);
        // Where time passes only once nothing else happens, and no send is short, as much as is taken goes out before.
        if Kernel::here() != Kernel::Simulated {
            return;
        }
        let scope = Scope::new().timeout(SHORT);
        let ended = scope.run(async {
            loop {
                ours.send(vec![0; 1 << 20]).await.0?;
            }
            #[expect(unreachable_code, reason = "it says what the scope gives")]
            Ok::<_, io::Error>(())
        });
        assert!(matches!(ended.await, Ok(None)));
        let until_then = sent().count();
        let scope = Scope::new().timeout(SHORT);
        let ended = scope.run(async { ours.send_zero_copy(vec![0; 1 << 20]).await.0 });
        assert!(matches!(ended.await, Ok(None)));
        assert_eq!(sent().count(), until_then);
    });
}

#[test]
fn what_was_cut_short_is_not_measured() {
    on_core(|handle| async move {
        let (reader, _writer) = op::pipe().expect("a pipe");
        let scope = Scope::new().timeout(SHORT);
        let ended = scope.run(async { op::read(&reader, vec![0; 8]).await.0 });
        assert!(matches!(ended.await, Ok(None)));
        assert!(of(&handle.snapshot(), "op", Some("read")).is_empty());
    });
}

/// Some of it had gone out: it ends with that, and not as cancelled.
#[test]
fn what_was_cut_short_in_its_middle_is_not_measured_either() {
    on_core(|handle| async move {
        let (ours, _theirs) = both_streams().await;
        // Beside another task it goes by the ring.
        let other = spawn(async {});
        let scope = Scope::new().timeout(SHORT);
        let sent = scope.run(async {
            let (sent, _) = ours.send_all(vec![0; 16 << 20]).await;
            Ok::<_, Cancelled>(sent.expect_err("nobody reads it"))
        });
        let error = sent.await.expect("kept").expect("kept");
        let inside = error.get_ref().and_then(|inside| inside.downcast_ref());
        let Some(Interrupted { transferred, .. }) = inside else {
            panic!("there was room for some: {error:?}");
        };
        assert!(*transferred > 0);
        other.await.expect("no panic");
        if Kernel::here().counts_exactly() {
            let measured = of(&handle.snapshot(), "op", Some("send"));
            assert_eq!(measured.count(), handle.metrics()[0].direct_sends);
        }
    });
}

#[test]
fn a_cancelled_scope_is_measured_until_all_in_it_has_ended() {
    on_core(|handle| async move {
        let before = handle.snapshot();
        let scope = Scope::new();
        let cancel = scope.handle();
        let ended = scope.run(async {
            group(async |g| {
                for _ in 0..3 {
                    g.spawn(async {
                        let cancelled = sleep(Duration::MAX).await;
                        let tidy = Scope::new().shielded();
                        tidy.run(sleep(SHORT)).await?;
                        cancelled
                    });
                }
                yield_now().await?;
                cancel.cancel();
                Ok::<_, Cancelled>(())
            })
            .await?;
            Ok::<_, Cancelled>(())
        });
        assert!(matches!(ended.await, Ok(None)));
        let took = came(&handle, &before, "cancel", None);
        // One scope was cancelled; what lies in it was not, itself.
        assert_eq!(took.count(), 1, "{took:?}");
        assert!(took.max() >= SHORT, "{took:?}");
    });
}

#[test]
fn a_scope_that_ends_in_time_is_not_measured() {
    on_core(|handle| async move {
        let before = handle.snapshot();
        for _ in 0..10 {
            let scope = Scope::new().timeout(Duration::from_secs(60));
            let ended = scope.run(yield_now()).await;
            assert!(matches!(ended, Ok(Some(()))));
        }
        assert!(came(&handle, &before, "cancel", None).is_empty());
    });
}

/// Lets `tasks` tasks compute for `work` each, with a yield between two halves.
async fn compute(tasks: usize, work: Duration) {
    let busy = |work: Duration| {
        let begun = Instant::now();
        while begun.elapsed() < work {
            std::hint::spin_loop();
        }
    };
    let all: Vec<_> = (0..tasks)
        .map(|_| {
            spawn(async move {
                busy(work);
                yield_now().await.expect("not cancelled");
                busy(work);
            })
        })
        .collect();
    for task in all {
        task.await.expect("no panic");
    }
}

#[test]
fn polls_that_compute_are_seen_to_and_so_is_who_waits_behind_them() {
    const WORK: Duration = Duration::from_micros(50);
    on_ring(|handle| async move {
        let before = handle.snapshot();
        let polls = handle.metrics()[0].polls;
        compute(320, WORK).await;
        let polls = handle.metrics()[0].polls - polls;
        let poll = came(&handle, &before, "poll", None);
        let delay = came(&handle, &before, "run_delay", None);
        // Each sample stands for those that came since the last: all but the last few.
        assert!(poll.count() + 64 >= polls.min(640), "{poll:?} of {polls}");
        assert!(poll.percentile(50.0) >= WORK, "{poll:?}");
        // Most had a dozen others before them.
        assert!(delay.percentile(50.0) >= WORK * 12, "{delay:?}");
    });
}

#[test]
fn a_core_that_does_little_is_sampled_as_well() {
    on_core(|handle| async move {
        let before = handle.snapshot();
        for _ in 0..100 {
            sleep(Duration::from_micros(1))
                .await
                .expect("not cancelled");
        }
        // A hundred polls, hardly one in a turn: more than three samples.
        let poll = came(&handle, &before, "poll", None);
        assert!(poll.count() >= 80, "{poll:?}");
    });
}

#[test]
fn a_wake_from_another_thread_is_measured_once() {
    let runtime = Runtime::builder()
        .cores(Cores::Count(1))
        .build()
        .expect("a core");
    let handle = runtime.handle();
    let core = handle.cores()[0];
    for _ in 0..50 {
        let parks = handle.metrics()[0].parks;
        let (said, heard) = mpsc::channel();
        let job = handle.spawn(core, move || async move { said.send(()) });
        heard.recv().expect("it runs");
        job.expect("room").wait().expect("no panic").expect("heard");
        // Let it park again: whoever finds it parked wakes it.
        while handle.metrics()[0].parks == parks {
            std::thread::yield_now();
        }
    }
    let calls = handle.metrics()[0].wake_calls;
    let wake = of(&handle.snapshot(), "wake", None);
    assert!(wake.count() <= calls, "{wake:?} of {calls}");
    assert!(wake.count() * 2 > calls, "{wake:?} of {calls}");
}

#[test]
fn a_core_that_waits_is_parked_for_as_long_as_that() {
    on_core(|handle| async move {
        let before = handle.snapshot();
        sleep(SHORT).await.expect("not cancelled");
        let after = handle.snapshot();
        let (before, after) = (&before.cores[0], &after.cores[0]);
        let (parked, passed) = (after.parked - before.parked, after.uptime - before.uptime);
        assert!(passed >= SHORT);
        assert!(parked <= passed, "{parked:?} of {passed:?}");
        if Kernel::here() == Kernel::Simulated {
            // Nothing takes time there but waiting.
            assert_eq!(parked, passed);
        }
        assert!(parked > SHORT / 2, "{parked:?} of {passed:?}");
    });
}

#[test]
fn a_parked_core_is_seen_to_be_parked_by_others() {
    let runtime = Runtime::builder()
        .cores(Cores::Count(1))
        .build()
        .expect("a core");
    let handle = runtime.handle();
    let started = handle.snapshot();
    // It makes no turn, and yet the time it is parked grows.
    loop {
        let now = handle.snapshot();
        if now.cores[0].parked - started.cores[0].parked >= SHORT {
            break;
        }
        std::thread::yield_now();
    }
}

/// In the simulation time passes in the kernel alone, so that figures are exact.
#[test]
fn simulated_figures_are_exact() {
    Sim::with_seed(1).run(|| {
        let runtime = Runtime::builder()
            .cores(Cores::Count(1))
            .build()
            .expect("a core");
        let handle = runtime.handle();
        let observed = handle.clone();
        let job = handle.spawn(handle.cores()[0], move || async move {
            let event = std::rc::Rc::new(Event::new());
            let scope = Scope::new().timeout(Duration::from_millis(3));
            let waits = std::rc::Rc::clone(&event);
            let ended = scope
                .run(async move {
                    let cancelled = waits.wait().await;
                    let tidy = Scope::new().shielded();
                    tidy.run(sleep(Duration::from_millis(8))).await?;
                    cancelled
                })
                .await;
            assert!(matches!(ended, Ok(None)));
            let took = of(&observed.snapshot(), "cancel", None);
            assert_eq!(took.count(), 1);
            assert_eq!(took.max().as_millis(), 8);
        });
        job.expect("room").wait().expect("it ended");
    });
}
