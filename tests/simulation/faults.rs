//! Every kind of fault comes, and those that end something are told as what they are.

use std::collections::BTreeMap;
use std::io;
use std::time::Duration;

use quoit::blocking::{self, JobError};
use quoit::buf::IoBuf;
use quoit::fs::File;
use quoit::sim::{self, Fault, Faults, Sim, for_seeds};
use quoit::time::{Instant, sleep, wall_clock};
use quoit::{BuildError, Cores, Runtime, Scope, SpawnError, block_on, op, spawn};
use quoit_net::tcp::{TcpListener, TcpOptions, TcpStream};

use super::workload::{self, Weather};

/// Counted over random programs: no kind that is switched on stays away.
#[test]
fn every_fault_that_is_switched_on_comes() {
    let mut came = BTreeMap::new();
    for_seeds(0..1_000, |sim| {
        let seed = sim.seed();
        let outcome = sim.faults(Faults::some()).run(|| {
            drop(workload::run(seed, Weather::Rough));
            let job = block_on(blocking::run(|_| ())).expect("no fault refuses a ring here");
            assert!(
                matches!(job, Ok(()) | Err(JobError::NoThread(_))),
                "{job:?}"
            );
        });
        for (fault, count, _) in outcome.faults {
            *came.entry(fault).or_insert(0) += count;
        }
    });
    let switched_on = Fault::ALL
        .iter()
        .filter(|fault| Faults::some().rate_of(**fault) > 0.0);
    let missing: Vec<_> = switched_on.filter(|fault| came[fault] == 0).collect();
    assert!(missing.is_empty(), "never seen: {missing:?}");
    let kinds = came.values().filter(|count| **count > 0).count();
    assert!(kinds >= 24, "only {kinds} kinds have come");
}

#[test]
fn a_ring_that_is_refused_is_an_error_of_the_builder() {
    for_seeds(0..20, |sim| {
        sim.force(Fault::SetupRefused, 1).run(|| {
            let refused = Runtime::builder().cores(Cores::Count(2)).build();
            assert!(
                matches!(refused, Err(BuildError::Ring { .. })),
                "{refused:?}"
            );
        });
    });
}

#[test]
fn a_buffer_ring_that_is_refused_is_an_error_of_the_builder() {
    Sim::with_seed(1).force(Fault::RegisterRefused, 0).run(|| {
        let refused = Runtime::builder().build();
        assert!(
            matches!(refused, Err(BuildError::Ring { .. })),
            "{refused:?}"
        );
    });
}

#[test]
fn a_full_mailbox_gives_the_closure_back() {
    Sim::with_seed(1).run(|| {
        let runtime = Runtime::builder().build().expect("cores");
        let core = runtime.handle().cores()[0];
        sim::force(Fault::MailboxFull);
        let sent = runtime.handle().spawn(core, || async { 7 });
        let Err(SpawnError::Full(closure)) = sent else {
            panic!("the mailbox was full");
        };
        let again = runtime
            .handle()
            .spawn(core, closure)
            .expect("it has room again");
        assert_eq!(again.wait().expect("it ends"), 7);
    });
}

#[test]
fn a_peer_that_vanishes_is_noticed_by_a_deadline_and_nothing_else() {
    Sim::with_seed(1)
        .force_at("from here on", Fault::PeerVanishes)
        .block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0")?;
            let address = listener.local_addr();
            let server = spawn(async move {
                let stream = listener.accept().await?;
                let greeting = stream.recv().await?;
                assert_eq!(greeting.as_deref(), Some(&b"hello"[..]));
                let more = Scope::new()
                    .timeout(Duration::from_secs(60))
                    .run(stream.recv())
                    .await?;
                assert!(more.is_none(), "nothing arrives any more");
                Ok::<_, io::Error>(())
            });
            let stream = TcpStream::connect(address).await?;
            sim::point("from here on");
            stream.write_all("hello").await.0?;
            stream.write_all("are you there?").await.0.ok();
            server.await??;
            Ok::<_, io::Error>(())
        })
        .value
        .expect("it works");
}

/// Neither end hears of the other any more, whatever that does: not of its close, and not of a reset. What the kernel
/// finds out by itself, it tells.
#[test]
fn a_peer_that_vanishes_is_given_up_by_the_kernel_in_the_end() {
    let minute = Duration::from_secs(60);
    for (says, keep_alive, expected) in [
        (true, None, Some(924_600)),
        // A minute, and nine probes, each after six seconds.
        (false, Some(minute), Some(114_000)),
        (true, Some(minute), Some(924_600)),
        (false, None, None),
    ] {
        let outcome = Sim::with_seed(1)
            .force_at("from here on", Fault::PeerVanishes)
            .block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                let options = TcpOptions::new().keep_alive(keep_alive);
                let near = TcpStream::connect_with(listener.local_addr(), &options).await?;
                let far = listener.accept().await?;
                sim::point("from here on");
                far.write_all("hello").await.0?;
                assert_eq!(near.recv().await?.as_deref(), Some(&b"hello"[..]));
                let begun = Instant::now();
                if says {
                    near.write_all("are you there?").await.0?;
                }
                drop(far);
                let hour = Scope::new().timeout(Duration::from_secs(3600));
                let told = match hour.run(near.recv()).await {
                    Ok(Some(received)) => panic!("{received:?} came from nowhere"),
                    Ok(None) => None,
                    Err(error) => {
                        assert_eq!(error.raw_os_error(), Some(libc::ETIMEDOUT));
                        Some(begun.elapsed().as_millis())
                    }
                };
                Ok::<_, io::Error>(told)
            });
        assert_eq!(outcome.value.expect("it works"), expected, "{keep_alive:?}");
    }
}

#[test]
fn the_wall_clock_jumps_and_the_monotonic_one_does_not() {
    Sim::with_seed(5).force(Fault::WallClockJumps, 3).run(|| {
        block_on(async {
            let clocks = || (quoit::time::Instant::now(), wall_clock());
            let mut jumps = 0;
            let mut before = clocks();
            for _ in 0..5 {
                sleep(Duration::from_secs(1)).await.expect("nobody cancels");
                let now = clocks();
                assert_eq!(now.0 - before.0, Duration::from_secs(1));
                let expected = before.1 + Duration::from_secs(1);
                jumps += u32::from(now.1 != expected);
                before = now;
            }
            assert_eq!(jumps, 1);
        })
        .expect("a ring");
    });
}

#[test]
fn descriptors_have_a_limit() {
    Sim::with_seed(1).descriptors(4).run(|| {
        block_on(async {
            let first = op::pipe().expect("two of four");
            let second = op::pipe().expect("four of four");
            let third = op::pipe().expect_err("none is left");
            assert_eq!(third.raw_os_error(), Some(libc::EMFILE));
            drop(first);
            let fourth = op::pipe().expect("two are free again");
            drop((second, fourth));
        })
        .expect("a ring");
    });
}

/// A short write of a message is no loss: the rest goes after it, from the place it had come to.
#[test]
fn each_forced_short_write_is_made_up_for() {
    for nth in 0..6 {
        let outcome = Sim::with_seed(nth)
            .force(Fault::ShortWrite, nth)
            .force(Fault::ShortRead, nth)
            .block_on(async {
                let listener = TcpListener::bind("127.0.0.1:0")?;
                let address = listener.local_addr();
                let server = spawn(async move {
                    let stream = listener.accept().await?;
                    let mut all = Vec::new();
                    while let Some(chunk) = stream.recv().await? {
                        all.extend_from_slice(&chunk);
                    }
                    Ok::<_, io::Error>(all)
                });
                let stream = TcpStream::connect(address).await?;
                let bytes: Vec<u8> = (0..200_000_u32).map(|place| (place / 7) as u8).collect();
                let (sent, bytes) = stream.write_all(bytes).await;
                sent?;
                drop(stream);
                assert_eq!(server.await??, bytes);
                Ok::<_, io::Error>(IoBuf::len(&bytes))
            });
        assert_eq!(outcome.value.expect("it works"), 200_000);
    }
}

/// What could be read past the ring is read as the fault has it: what was forced has not come to nothing.
#[test]
fn a_fault_that_is_forced_befalls_a_read_of_a_task_alone() {
    for fault in [Fault::ShortRead, Fault::ReadFails] {
        let sim = Sim::with_seed(1).file("/file", [7; 100]);
        let outcome = sim.force_at("reads", fault).block_on(async {
            let file = File::open("/file").await?;
            op::nop().await?;
            sim::point("reads");
            let (read, buf) = file.read_at([0; 100], 0).await;
            let count = read?;
            assert_eq!(buf[..count], [7; 100][..count]);
            Ok::<_, io::Error>(count)
        });
        assert_eq!(outcome.came(fault), 1, "{fault}");
        match (fault, outcome.value) {
            (Fault::ShortRead, Ok(1..100)) => {}
            (Fault::ReadFails, Err(error)) => assert_eq!(error.raw_os_error(), Some(libc::EIO)),
            (_, read) => panic!("{fault}: {read:?}"),
        }
    }
}

/// A program in which nobody can go on is told who waits for what, and in which scope.
#[test]
fn a_deadlock_names_every_wait() {
    let run = || {
        Sim::with_seed(0).block_on(async {
            let (read, write) = op::pipe().expect("a pipe");
            let never = quoit::sync::Event::new();
            let reader = spawn(async move {
                let _write = write;
                op::read(&read, vec![0; 8]).await.0
            });
            drop(spawn(std::future::pending::<()>()));
            let outer = Scope::new().shielded();
            outer.run(never.wait()).await.expect("nobody cancels");
            drop(reader);
        });
    };
    let panicked = std::panic::catch_unwind(run).expect_err("nobody can go on");
    let report = panicked.downcast_ref::<String>().expect("a report");
    for part in [
        "deadlock",
        "a scope, shielded",
        "for another task of this core",
        "for a read on descriptor",
        "waits for something the runtime does not know",
    ] {
        assert!(report.contains(part), "{part:?} is not in:\n{report}");
    }
}
