//! An idle runtime costs nothing: its cores stay parked in the kernel.
//!
//! A binary of its own: what is counted here belongs to the whole process.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use quoit::time::sleep;
use quoit::{CoreMetrics, Cores, Handle, Runtime, spawn};
use quoit_net::ShardedListener;
use tests::{Child, switches};

const CONNECTIONS: usize = 1_000;
const WINDOW: Duration = Duration::from_secs(5);

/// What moves when a core does anything.
#[derive(Debug, PartialEq, Eq)]
struct Activity {
    counters: Vec<CoreMetrics>,
    switches: Vec<(String, u64)>,
}

impl Activity {
    fn of(handle: &Handle) -> Self {
        Self {
            counters: handle.metrics(),
            switches: switches("quoit-"),
        }
    }
}

/// Lets time pass, on a thread that is no core's.
fn watch(window: Duration) {
    let never = (Mutex::new(()), Condvar::new());
    let guard = never.0.lock().expect("no panic");
    let waited = never.1.wait_timeout_while(guard, window, |()| true);
    assert!(waited.expect("no panic").1.timed_out());
}

#[test]
fn a_thousand_idle_connections_cost_no_turn_and_no_context_switch() {
    Child::new()
        .under(["sh", "-c", "ulimit -n 4096; exec \"$@\"", "sh"])
        .run(
            "a_thousand_idle_connections_cost_no_turn_and_no_context_switch",
            || idle(Duration::ZERO),
        );
}

#[test]
fn cores_that_may_spin_are_as_silent_when_they_are_idle() {
    Child::new()
        .under(["sh", "-c", "ulimit -n 4096; exec \"$@\"", "sh"])
        .run(
            "cores_that_may_spin_are_as_silent_when_they_are_idle",
            || idle(Duration::from_micros(200)),
        );
}

fn idle(spin: Duration) {
    let runtime = Runtime::builder()
        .cores(Cores::All)
        .spin_before_park(spin)
        .build()
        .expect("cores");
    let handle = runtime.handle();
    let any: SocketAddr = "127.0.0.1:0".parse().expect("an address");
    let port = ShardedListener::bind(any, &handle).expect("a free port");
    let address = port.local_addr();
    for core in handle.cores() {
        let port = port.clone();
        let accepting = handle.spawn(core, move || async move {
            let listener = port.take(core).expect("its own share");
            while let Ok(stream) = listener.accept().await {
                drop(spawn(async move {
                    while let Ok(Some(chunk)) = stream.recv().await {
                        stream.write_all(chunk).await.0.expect("connected");
                    }
                }));
            }
        });
        let _ = accepting.expect("there is room");
        // A timer that is far away costs nothing either.
        let far = handle.spawn(core, || sleep(Duration::from_secs(3600)));
        let _ = far.expect("there is room");
    }
    let mut streams = Vec::new();
    for _ in 0..CONNECTIONS {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.write_all(b"x").expect("connected");
        stream.read_exact(&mut [0]).expect("it is echoed");
        streams.push(stream);
    }

    // The last echo has come; the core that sent it is about to park.
    let mut before = Activity::of(&handle);
    loop {
        watch(Duration::from_millis(50));
        let now = Activity::of(&handle);
        if now == before {
            break;
        }
        before = now;
    }
    let spins: u64 = before.counters.iter().map(|core| core.spins).sum();
    assert_eq!(spins > 0, spin > Duration::ZERO);
    assert_eq!(before.switches.len(), handle.cores().len());
    let receiving: u64 = before.counters.iter().map(|core| core.in_flight).sum();
    assert_eq!(receiving as usize, CONNECTIONS + handle.cores().len());

    watch(WINDOW);
    let after = Activity::of(&handle);
    assert_eq!(after, before);

    // They were idle, not dead.
    for stream in &mut streams {
        stream.write_all(b"y").expect("connected");
        stream.read_exact(&mut [0]).expect("it is echoed");
    }
    assert_ne!(Activity::of(&handle), before);
    drop(streams);
    runtime.shutdown(Duration::ZERO);
}
