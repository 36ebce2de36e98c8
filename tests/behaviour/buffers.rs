//! Provided buffers: few of them, for many streams.

use std::cell::Cell;
use std::io::Write;
use std::net::Shutdown;
use std::pin::pin;
use std::rc::Rc;
use std::thread;

use quoit::op::PipeReader;
use quoit::{Builder, RingFeature, Runtime, op, spawn};
use quoit_net::TcpStream;
use tests::{
    Kernel, both_ends, bytes, connected, gauges, on_core_of, on_core_of_each, on_ring_of,
    poll_once, receive_all,
};

/// The smallest, the largest, and some in between; filled piece by piece, and whole.
fn settings() -> Vec<Builder> {
    let sizes = [
        (4, 512),
        (4, 4096),
        (4, 1 << 20),
        (16, 128 * 1024),
        (256, 8 * 1024),
        (32_768, 512),
    ];
    sizes
        .into_iter()
        .flat_map(|(count, size)| {
            let builder = Runtime::builder().receive_buffers(count, size);
            let plain = builder.clone().without(RingFeature::IncrementalBuffers);
            [builder, plain]
        })
        .collect()
}

/// Sends a word there and back.
async fn exchange(ours: &TcpStream, theirs: &TcpStream, word: u64) {
    ours.write_all(word.to_ne_bytes())
        .await
        .0
        .expect("connected");
    let mut got = Vec::new();
    while got.len() < 8 {
        let chunk = theirs.recv().await.expect("no error").expect("no end");
        got.extend_from_slice(&chunk);
    }
    assert_eq!(got, word.to_ne_bytes());
}

#[test]
fn streams_that_nobody_reads_do_not_hold_the_others_up() {
    const EACH: usize = 40_000;
    on_core_of_each(settings(), |handle, name| async move {
        let (streams, exchanges) = match Kernel::here() {
            Kernel::Real => (20, 200),
            Kernel::Simulated | Kernel::Unruly => (4, 20),
        };
        // Each has been waited for once, so that the kernel receives for it, and is read no
        // more.
        let mut stalled = Vec::new();
        for seed in 0..streams {
            let (ours, theirs) = both_ends().await;
            let mut wait = Box::pin(ours.recv());
            assert!(poll_once(wait.as_mut()).await.is_pending());
            drop(wait);
            op::nop().await.expect("the receive is in the kernel");
            let (outcome, _) = theirs.write_all(bytes(EACH, seed)).await;
            outcome.expect("the sockets of both sides have room");
            theirs.shutdown(Shutdown::Write).expect("connected");
            stalled.push((seed, ours, theirs));
        }
        let (ours, theirs) = both_ends().await;
        for word in 0..exchanges {
            exchange(&ours, &theirs, word).await;
            exchange(&theirs, &ours, word).await;
        }
        // What was stalled goes on, and nothing of it is missing.
        for (seed, ours, _theirs) in stalled {
            let all = receive_all(&ours).await;
            assert!(all == bytes(EACH, seed), "stream {seed}, {name}");
        }
        drop((ours, theirs));
        assert_eq!(gauges(&handle).await.panics, 0);
    });
}

#[test]
fn chunks_that_are_kept_do_not_starve_the_others() {
    on_core_of_each(settings(), |handle, name| async move {
        let (ours, theirs) = both_ends().await;
        let size = match Kernel::here() {
            Kernel::Real => 3 << 20,
            Kernel::Simulated | Kernel::Unruly => 64 << 10,
        };
        let sent = bytes(size, 7);
        let expected = sent.clone();
        let writer = spawn(async move {
            let (outcome, _) = theirs.write_all(sent).await;
            outcome.expect("somebody reads");
        });
        // Every chunk is kept to the end.
        let mut kept = Vec::new();
        while let Some(chunk) = ours.recv().await.expect("an orderly end") {
            kept.push(chunk);
            let (ours, theirs) = if kept.len() % 97 == 1 && kept.len() < 2_000 {
                both_ends().await
            } else {
                continue;
            };
            exchange(&ours, &theirs, kept.len() as u64).await;
        }
        writer.await.expect("no panic");
        let all: Vec<u8> = kept.iter().flat_map(|chunk| chunk.to_vec()).collect();
        assert!(all == expected, "{name}");
        let copied = kept.iter().filter(|chunk| !chunk.is_lent()).count() as u64;
        assert!(gauges(&handle).await.copied_chunks >= copied, "{name}");
    });
}

#[test]
fn at_most_half_of_the_buffers_are_lent() {
    let builder = Runtime::builder()
        .receive_buffers(8, 512)
        .without(RingFeature::IncrementalBuffers);
    on_core_of(builder, |handle| async move {
        let (ours, theirs) = both_ends().await;
        let mut kept = Vec::new();
        for number in 0..12_u8 {
            theirs.write_all([number]).await.0.expect("room");
            kept.push(ours.recv().await.expect("no error").expect("no end"));
        }
        let lent: Vec<bool> = kept.iter().map(|chunk| chunk.is_lent()).collect();
        assert_eq!(lent, [[true; 4], [false; 4], [false; 4]].concat());
        let now = gauges(&handle).await;
        assert_eq!((now.copied_chunks, now.lent_buffers), (8, 4));
        for (number, chunk) in (0..).zip(&kept) {
            assert_eq!(&**chunk, [number]);
        }
        // Given back, they are lent again.
        kept.clear();
        assert_eq!(gauges(&handle).await.lent_buffers, 0);
        theirs.write_all("x").await.0.expect("room");
        let chunk = ours.recv().await.expect("no error").expect("no end");
        assert!(chunk.is_lent());
    });
}

/// The kernel goes on with a buffer of which a part is lent already.
#[test]
fn at_most_half_of_the_buffers_are_lent_in_parts() {
    on_core_of(
        Runtime::builder().receive_buffers(8, 512),
        |handle| async move {
            let (ours, theirs) = both_ends().await;
            let mut kept = Vec::new();
            let mut most = 0;
            for number in 0..40_u8 {
                theirs.write_all([number; 128]).await.0.expect("room");
                let mut came = 0;
                while came < 128 {
                    let chunk = ours.recv().await.expect("no error").expect("no end");
                    assert!(chunk.iter().all(|&byte| byte == number));
                    came += chunk.len();
                    kept.push(chunk);
                }
                most = most.max(gauges(&handle).await.lent_buffers);
            }
            assert_eq!(most, 4);
            kept.clear();
            assert_eq!(gauges(&handle).await.lent_buffers, 0);
        },
    );
}

/// The kernel may name a buffer in the completion of a pipe's end, and go on with it.
#[test]
fn pipes_that_end_mix_nothing_up_that_others_receive() {
    on_core_of_each(settings(), |handle, _| async move {
        let (ours, theirs) = both_ends().await;
        let rounds = match Kernel::here() {
            Kernel::Real => 500,
            Kernel::Simulated | Kernel::Unruly => 20,
        };
        for round in 0..rounds {
            let (reader, writer) = op::pipe().expect("a pipe");
            let reader = PipeReader::new(reader);
            if round % 3 == 0 {
                // As much of it as the kernel takes, and gives, at once.
                let written = op::write(&writer, "word").await.0;
                let written = written.expect("there is room");
                let mut got = Vec::new();
                while got.len() < written {
                    let part = reader.receive().await.expect("no error");
                    got.extend_from_slice(&part.expect("no end"));
                }
                assert_eq!(got, b"word"[..written]);
            }
            drop(writer);
            assert!(reader.receive().await.expect("no error").is_none());
            exchange(&ours, &theirs, round).await;
        }
        assert_eq!(gauges(&handle).await.lent_buffers, 0);
    });
}

#[test]
fn many_small_messages_arrive_in_order() {
    on_core_of_each(settings(), |_, _| async move {
        let (ours, theirs) = both_ends().await;
        let messages: u32 = match Kernel::here() {
            Kernel::Real => 5_000,
            Kernel::Simulated | Kernel::Unruly => 100,
        };
        let writer = spawn(async move {
            for number in 0..messages {
                let (outcome, _) = theirs.write_all(number.to_ne_bytes()).await;
                outcome.expect("somebody reads");
            }
        });
        let all = receive_all(&ours).await;
        writer.await.expect("no panic");
        let expected: Vec<u8> = (0..messages).flat_map(u32::to_ne_bytes).collect();
        assert!(all == expected);
    });
}

#[test]
fn large_streams_on_many_connections_arrive_whole() {
    on_core_of_each(settings(), |_, name| async move {
        let mut tasks = Vec::new();
        let mut writers = Vec::new();
        let size = match Kernel::here() {
            Kernel::Real => 500_000,
            Kernel::Simulated | Kernel::Unruly => 20_000,
        };
        for seed in 0..8 {
            let (ours, theirs) = both_ends().await;
            writers.push(spawn(async move {
                let (outcome, _) = theirs.write_all(bytes(size, seed)).await;
                outcome.expect("somebody reads");
            }));
            tasks.push(spawn(async move { receive_all(&ours).await }));
        }
        for (seed, task) in (0..).zip(tasks) {
            let all = task.await.expect("no panic");
            assert!(all == bytes(size, seed), "stream {seed}, {name}");
        }
        for writer in writers {
            writer.await.expect("no panic");
        }
    });
}

#[test]
fn a_stream_that_is_dropped_gives_its_buffers_back() {
    let builder = Runtime::builder()
        .receive_buffers(4, 512)
        .without(RingFeature::IncrementalBuffers);
    on_core_of(builder, |handle| async move {
        for round in 0..100 {
            let (ours, theirs) = both_ends().await;
            let mut wait = pin!(ours.recv());
            assert!(poll_once(wait.as_mut()).await.is_pending());
            op::nop().await.expect("the receive is in the kernel");
            theirs.write_all(bytes(3_000, round)).await.0.expect("room");
            op::nop().await.expect("not cancelled");
            op::nop().await.expect("not cancelled");
        }
        let (ours, theirs) = both_ends().await;
        theirs.write_all("x").await.0.expect("room");
        let chunk = ours.recv().await.expect("no error").expect("no end");
        assert!(chunk.is_lent(), "all buffers had come back");
        drop((chunk, ours));
        assert_eq!(gauges(&handle).await.orphan_faults, 0);
    });
}

#[test]
fn a_chunk_may_outlive_its_stream() {
    on_core_of_each(settings(), |_, _| async move {
        let (ours, theirs) = both_ends().await;
        theirs.write_all("!").await.0.expect("room");
        let chunk = ours.recv().await.expect("no error").expect("no end");
        ours.close().await.expect("no error");
        let (ours, theirs) = both_ends().await;
        theirs.write_all(bytes(60_000, 1)).await.0.expect("room");
        theirs.shutdown(Shutdown::Write).expect("connected");
        assert!(receive_all(&ours).await == bytes(60_000, 1));
        assert_eq!(&*chunk, b"!");
    });
}

// On the real ring: what lies in the kernel is counted while a thread goes on sending.

/// 16 MiB for a stream that nobody reads: the rest of it waits in the socket and with the sender.
fn sixteen_mebibytes_for_nobody(builder: Builder, pauses: u64) {
    on_ring_of(builder, move |handle| async move {
        let (ours, mut theirs) = connected().await;
        let mut wait = Box::pin(ours.recv());
        assert!(poll_once(wait.as_mut()).await.is_pending());
        drop(wait);
        let writer = thread::spawn(move || {
            theirs
                .write_all(&bytes(16 << 20, 3))
                .expect("somebody reads");
        });
        // Until the kernel receives no more for it.
        while gauges(&handle).await.in_flight > 0 {}
        assert_eq!(handle.metrics()[0].cancel_requests, pauses);
        let all = receive_all(&ours).await;
        writer.join().expect("no panic");
        assert!(all == bytes(16 << 20, 3));
    });
}

#[test]
fn a_stream_that_used_all_buffers_up_goes_on_when_it_is_read() {
    sixteen_mebibytes_for_nobody(Runtime::builder().receive_buffers(16, 8192), 0);
}

#[test]
fn a_stream_that_holds_enough_is_paused_and_goes_on_when_it_is_read() {
    sixteen_mebibytes_for_nobody(Runtime::builder().receive_buffers(8192, 8192), 1);
}

/// A stream with a few bytes gets them while others have more than all buffers hold: it need not wait
/// until they have been emptied, one after the other.
#[test]
fn large_senders_leave_buffers_for_small_ones() {
    const MANY: usize = 20;
    const EACH: usize = 60_000;
    on_ring_of(Runtime::builder().receive_buffers(4, 4096), |_| async {
        let received = Rc::new(Cell::new(0));
        let mut senders = Vec::new();
        let mut readers = Vec::new();
        for seed in 0..MANY as u64 {
            let (ours, mut theirs) = connected().await;
            theirs
                .write_all(&bytes(EACH, seed))
                .expect("the sockets of both sides have room");
            senders.push(theirs);
            let received = Rc::clone(&received);
            readers.push(move || async move {
                let mut came = 0;
                while came < EACH {
                    let chunk = ours.recv().await.expect("no error").expect("no end");
                    came += chunk.len();
                    received.set(received.get() + chunk.len());
                }
            });
        }
        let (small, mut theirs) = connected().await;
        theirs.write_all(b"few").expect("there is room");
        let readers: Vec<_> = readers.into_iter().map(|read| spawn(read())).collect();
        // It asks behind all others.
        let so_far = Rc::clone(&received);
        let before = spawn(async move {
            let few = small.recv().await.expect("no error").expect("no end");
            assert_eq!(&*few, b"few");
            so_far.get()
        });
        let before = before.await.expect("no panic");
        for reader in readers {
            reader.await.expect("no panic");
        }
        assert_eq!(received.get(), MANY * EACH);
        assert!(before < MANY * EACH / 2, "{before} bytes came before three");
    });
}
