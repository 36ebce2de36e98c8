//! Futures dropped at every moment while the kernel owns their buffer.
//!
//! The buffers are such that a write after they were freed fails, which the core counts. How many
//! futures: `QUOIT_DROPS`, 50 000 for each kind unless set.

use std::collections::VecDeque;
use std::future::Future;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::thread;
use std::time::Duration;

use quoit::buf::BufResult;
use quoit::buf::guard::GuardBuf;
use quoit::op::{self, SharedFd};
use quoit::{Runtime, Scope, yield_now};
use tests::{gauges, listening, on_ring_of, poll_once};

type Read = Pin<Box<dyn Future<Output = BufResult<usize, GuardBuf>>>>;

fn count() -> u64 {
    let wanted = std::env::var("QUOIT_DROPS").ok();
    wanted.map_or(50_000, |text| {
        text.parse().expect("QUOIT_DROPS is a number")
    })
}

/// Numbers that look random and are the same in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }
}

/// Starts `count()` reads and drops most of them, at moments of every kind.
async fn drop_reads(seed: u64, read: impl Fn(GuardBuf) -> Read) -> io::Result<u64> {
    let mut numbers = Numbers(seed);
    let mut left: VecDeque<Read> = VecDeque::new();
    let mut completed = 0;
    for _ in 0..count() {
        let mut next = read(GuardBuf::new(numbers.below(200) as usize + 1));
        match numbers.below(8) {
            // Before anything was asked of the kernel.
            0 => drop(next),
            // While the request is in line.
            1 => drop(poll_once(next.as_mut()).await),
            // While the kernel has it.
            2 => {
                drop(poll_once(next.as_mut()).await);
                op::nop().await?;
            }
            // Perhaps with the completion on its way.
            3 => {
                drop(poll_once(next.as_mut()).await);
                yield_now().await?;
            }
            // Cancelled first, dropped by its scope.
            4 => {
                let timeout = Duration::from_micros(numbers.below(20));
                let ended = Scope::new()
                    .timeout(timeout)
                    .run(async {
                        let (outcome, _buf) = next.await;
                        outcome
                    })
                    .await?;
                completed += u64::from(ended.is_some());
            }
            // Much later, in the order of their start or the other way round.
            5 | 6 => {
                drop(poll_once(next.as_mut()).await);
                left.push_back(next);
                if left.len() > 64 {
                    let oldest = numbers.below(2) == 0;
                    drop(if oldest {
                        left.pop_front()
                    } else {
                        left.pop_back()
                    });
                }
            }
            // Not at all.
            _ => {
                let (outcome, buf) = next.await;
                assert_eq!(outcome?, buf.bytes().len());
                assert!(buf.bytes().iter().all(|&byte| byte == b'x'));
                completed += 1;
            }
        }
    }
    Ok(completed)
}

/// Feeds bytes until nobody reads any more.
fn feed(mut to: impl Write + Send + 'static) -> thread::JoinHandle<()> {
    thread::spawn(move || {
        let mut numbers = Numbers(1);
        loop {
            let bytes = vec![b'x'; numbers.below(400) as usize + 1];
            if to.write_all(&bytes).is_err() {
                return;
            }
        }
    })
}

fn nothing_is_written_late(builder: MakeBuilder, source: Source) {
    on_ring_of(builder(), move |handle| async move {
        let (fd, feeder) = match source {
            Source::Pipe => {
                let (reader, writer) = io::pipe().expect("a pipe");
                (SharedFd::from(OwnedFd::from(reader)), feed(writer))
            }
            Source::Socket => {
                let (listener, address) = listening();
                let ours = std::net::TcpStream::connect(address).expect("it listens");
                let (theirs, _) = listener.accept().expect("somebody connects");
                (SharedFd::from(OwnedFd::from(ours)), feed(theirs))
            }
        };
        let inner = fd.clone();
        let outcome = Scope::new()
            .run(drop_reads(7, move |buf| {
                let fd = inner.clone();
                match source {
                    Source::Pipe => Box::pin(async move { op::read(&fd, buf).await }),
                    Source::Socket => Box::pin(async move { op::receive_into(&fd, buf).await }),
                }
            }))
            .await;
        let completed = outcome.expect("no error").expect("nobody cancelled it");
        assert!(completed > 0 && completed < count());
        // The scope has ended, so the kernel is done with everything.
        let alone = OwnedFd::try_from(fd);
        drop(alone.expect("no op uses the descriptor any more"));
        feeder.join().expect("no panic");
        let counters = gauges(&handle).await;
        assert_eq!(counters.orphan_faults, 0, "a late write");
        assert_eq!((counters.orphans, counters.in_flight), (0, 0));
        assert_eq!((counters.op_slots, counters.tasks), (0, 1));
        assert_eq!((counters.panics, counters.quarantined), (0, 0));
    });
}

#[derive(Clone, Copy)]
enum Source {
    Pipe,
    Socket,
}

/// Makes the builder of a runtime.
type MakeBuilder = fn() -> quoit::Builder;

#[test]
fn dropped_reads_of_a_pipe_write_nothing_late() {
    nothing_is_written_late(Runtime::builder, Source::Pipe);
}

#[test]
fn dropped_receives_of_a_socket_write_nothing_late() {
    nothing_is_written_late(Runtime::builder, Source::Socket);
}

#[test]
fn dropped_reads_write_nothing_late_with_the_smallest_ring() {
    let smallest: MakeBuilder = || {
        Runtime::builder()
            .submission_entries(8)
            .completion_entries(8)
    };
    nothing_is_written_late(smallest, Source::Pipe);
}
