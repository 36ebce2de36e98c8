//! Single ops on a ring that belongs to one thread, and a few at once.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use common::micro::{FILE, LONG, PIECE, Random, cached, direct, each};
use io_uring::{IoUring, opcode, squeue, types};

/// A ring set up for one thread.
fn ring(completions: u32) -> IoUring {
    IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_no_sqarray()
        .setup_cqsize(completions)
        .build(1024)
        .expect("io_uring")
}

fn push(ring: &mut IoUring, entry: &squeue::Entry) {
    loop {
        // SAFETY: each caller keeps its buffers until all its completions have come.
        if unsafe { ring.submission().push(entry) }.is_ok() {
            return;
        }
        ring.submit().expect("submitted");
    }
}

/// Eight bytes to `/dev/null`, so many times in a row; nanoseconds per write. Where there are timers, the next
/// deadline is looked up and given to the kernel with each wait.
pub(crate) fn write_null(times: u32, timers: u32) -> f64 {
    let null = File::create("/dev/null").expect("it is there");
    let bytes = [0_u8; 8];
    let write = opcode::Write::new(types::Fd(null.as_raw_fd()), bytes.as_ptr(), 8).build();
    one_by_one(&write, 8, times, timers)
}

/// Nothing, by way of the kernel, so many times in a row; nanoseconds per round trip.
pub(crate) fn nop(times: u32) -> f64 {
    one_by_one(&opcode::Nop::new().build(), 0, times, 0)
}

/// Submits this entry and waits for its result, so many times; nanoseconds each.
fn one_by_one(entry: &squeue::Entry, result: i32, times: u32, timers: u32) -> f64 {
    let now = Instant::now();
    let deadlines: BTreeSet<_> = (0..timers)
        .map(|number| now + LONG + Duration::from_secs(u64::from(number)))
        .collect();
    let mut ring = ring(2048);
    let (mut submitter, mut submissions, mut completions) = ring.split();
    submitter.register_ring_fd().expect("a place for it");
    let begin = Instant::now();
    for _ in 0..times {
        // SAFETY: the caller keeps its bytes until this has returned, and the completion is waited for.
        unsafe { submissions.push(entry) }.expect("room");
        submissions.sync();
        match deadlines.first() {
            None => submitter.submit_and_wait(1),
            Some(&deadline) => {
                let wait = types::Timespec::from(deadline - Instant::now());
                submitter.submit_with_args(1, &types::SubmitArgs::new().timespec(&wait))
            }
        }
        .expect("entered");
        completions.sync();
        let completion = completions.next().expect("it was waited for");
        assert_eq!(completion.result(), result);
    }
    let took = each(begin, times);
    submitter.unregister_ring_fd().expect("it was registered");
    took
}

/// Reads 4 KiB from random places of a cached file, so many at once; nanoseconds per read.
pub(crate) fn read_cached(at_once: u32, times: u32) -> f64 {
    let mut buffers = vec![vec![0_u8; PIECE as usize]; at_once as usize];
    read(
        &cached(),
        buffers.iter_mut().map(Vec::as_mut_slice).collect(),
        times,
    )
}

/// Reads 4 KiB from random places of a file past the page cache, so many at once; nanoseconds per read.
pub(crate) fn read_direct(at_once: u32, times: u32) -> io::Result<f64> {
    let file = direct()?;
    // One buffer more than there are, of which the first begins where a block may begin.
    let mut memory = vec![0_u8; (at_once as usize + 1) * PIECE as usize];
    let begin = memory.as_ptr().align_offset(PIECE as usize);
    let pieces = memory[begin..].chunks_exact_mut(PIECE as usize);
    Ok(read(&file, pieces.take(at_once as usize).collect(), times))
}

/// Reads with as many reads at once as there are buffers.
fn read(file: &File, mut buffers: Vec<&mut [u8]>, times: u32) -> f64 {
    let at_once = buffers.len() as u32;
    let mut ring = ring(2048);
    let (mut submitter, mut submissions, mut completions) = ring.split();
    submitter.register_ring_fd().expect("a place for it");
    let mut random = Random::new(1);
    let mut next = |reader: usize| {
        let place = random.below(FILE / PIECE) * PIECE;
        let read = opcode::Read::new(
            types::Fd(file.as_raw_fd()),
            buffers[reader].as_mut_ptr(),
            PIECE as u32,
        );
        read.offset(place).build().user_data(reader as u64)
    };
    let begin = Instant::now();
    for reader in 0..at_once as usize {
        // SAFETY: the buffer outlives the ring's use of it: all completions are waited for.
        unsafe { submissions.push(&next(reader)) }.expect("room");
    }
    let (mut begun, mut done) = (at_once, 0);
    while done < begun {
        submissions.sync();
        submitter.submit_and_wait(1).expect("entered");
        completions.sync();
        for completion in &mut completions {
            assert_eq!(completion.result(), PIECE as i32);
            done += 1;
            if begun < times {
                begun += 1;
                let read = next(completion.user_data() as usize);
                // SAFETY: as above; the last read of this buffer is complete.
                unsafe { submissions.push(&read) }.expect("room");
            }
        }
    }
    let took = each(begin, times);
    assert!(
        buffers
            .iter()
            .flat_map(|buffer| buffer.iter())
            .all(|&byte| byte == 7)
    );
    submitter.unregister_ring_fd().expect("it was registered");
    took
}

/// Begins so many receives, each of a socket of its own, and cancels each by its number; nanoseconds per receive,
/// until the kernel has given all buffers back.
pub(crate) fn cancel_receives(count: u32) -> f64 {
    let pairs: Vec<_> = (0..count)
        .map(|_| UnixStream::pair().expect("descriptors enough: `ulimit -n` has to allow two each"))
        .collect();
    let mut buffers = vec![[0_u8; 64]; count as usize];
    let mut ring = ring(16_384);
    for (number, (buffer, (socket, _))) in (0..).zip(buffers.iter_mut().zip(&pairs)) {
        let socket = types::Fd(socket.as_raw_fd());
        let receive = opcode::Recv::new(socket, buffer.as_mut_ptr(), 64).build();
        push(&mut ring, &receive.user_data(number));
    }
    ring.submit().expect("submitted");
    let mut left = 2 * count;
    let begin = Instant::now();
    for number in 0..count {
        let cancel = opcode::AsyncCancel::new(u64::from(number)).build();
        push(&mut ring, &cancel.user_data(u64::MAX));
        left -= ring.completion().count() as u32;
    }
    while left > 0 {
        ring.submit_and_wait(1).expect("entered");
        left -= ring.completion().count() as u32;
    }
    each(begin, count)
}

/// Waits a millisecond in the kernel so many times; by how many nanoseconds each was late.
pub(crate) fn lateness(times: u32) -> Vec<f64> {
    let nap = Duration::from_millis(1);
    let ring = ring(2048);
    (0..times)
        .map(|_| {
            let begin = Instant::now();
            let wait = types::Timespec::from(nap);
            let arguments = types::SubmitArgs::new().timespec(&wait);
            let waited = ring.submitter().submit_with_args(1, &arguments);
            let error = waited.expect_err("nothing is in flight");
            assert_eq!(error.raw_os_error(), Some(libc::ETIME));
            (begin.elapsed() - nap).as_nanos() as f64
        })
        .collect()
}
