//! What cancelling costs without a runtime: reads of a pipe, with one cancel request each on a bare
//! ring; and a wake from one thread to another that waits for a futex. One line per figure, as
//! `cancel` prints them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use io_uring::{IoUring, opcode, types};

fn main() {
    let count: u32 = std::env::args().nth(1).map_or(4_000, |text| {
        text.parse().unwrap_or_else(|_| {
            eprintln!("cancel-bare: {text:?} is not how many ops are cancelled: write a number");
            std::process::exit(2)
        })
    });
    let ops: Vec<f64> = (0..9).map(|_| cancel_reads(count)).collect();
    say("cancel kernel reads of one pipe, each", ops, "ns");
    wakes();
}

fn cancel_reads(count: u32) -> f64 {
    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_cqsize(4096)
        .build(1024)
        .expect("io_uring");
    let mut ends = [0; 2];
    // SAFETY: the pointer is to two integers.
    assert_eq!(unsafe { libc::pipe(ends.as_mut_ptr()) }, 0);
    let mut buffers = vec![[0_u8; 8]; count as usize];
    for (at, buffer) in buffers.iter_mut().enumerate() {
        let read = opcode::Read::new(types::Fd(ends[0]), buffer.as_mut_ptr(), 8)
            .build()
            .user_data(at as u64);
        push(&mut ring, &read);
    }
    ring.submit().expect("submitted");
    let begin = Instant::now();
    let mut left = 2 * count;
    for at in 0..count {
        let cancel = opcode::AsyncCancel::new(u64::from(at))
            .build()
            .user_data(u64::MAX);
        push(&mut ring, &cancel);
        left -= ring.completion().count() as u32;
    }
    while left > 0 {
        ring.submit_and_wait(1).expect("entered");
        left -= ring.completion().count() as u32;
    }
    let each = begin.elapsed().as_nanos() as f64 / f64::from(count);
    for end in ends {
        // SAFETY: the descriptor is ours, and nothing uses it any more.
        unsafe { libc::close(end) };
    }
    each
}

fn push(ring: &mut IoUring, entry: &io_uring::squeue::Entry) {
    loop {
        // SAFETY: the buffers outlive the ring's use of them: all completions are waited for.
        if unsafe { ring.submission().push(entry) }.is_ok() {
            return;
        }
        ring.submit().expect("submitted");
    }
}

fn wakes() {
    const ROUNDS: usize = 2_000;
    let word = Arc::new(AtomicU32::new(0));
    let woke = Arc::new(AtomicU64::new(0));
    let origin = Instant::now();
    let sleeper = std::thread::spawn({
        let (word, woke) = (Arc::clone(&word), Arc::clone(&woke));
        move || {
            pin(1);
            for round in 1..=ROUNDS as u32 {
                while word.load(Ordering::Acquire) < round {
                    futex(&word, libc::FUTEX_WAIT, round - 1);
                }
                let now = origin.elapsed().as_nanos() as u64;
                woke.store(now, Ordering::Release);
            }
        }
    });
    pin(0);
    let mut values = Vec::new();
    for round in 1..=ROUNDS as u32 {
        // Long enough for the other one to sleep.
        std::thread::sleep(Duration::from_micros(200));
        let begin = origin.elapsed().as_nanos() as u64;
        word.store(round, Ordering::Release);
        futex(&word, libc::FUTEX_WAKE, 1);
        let end = loop {
            let end = woke.swap(0, Ordering::AcqRel);
            if end != 0 {
                break end;
            }
            std::thread::yield_now();
        };
        values.push((end - begin) as f64 / 1000.0);
    }
    sleeper.join().expect("it ends");
    values.sort_by(f64::total_cmp);
    println!(
        "{:<44} {:9.1} µs p50 {:.1} µs p99",
        "wake of a thread that waits for a futex",
        values[ROUNDS / 2],
        values[ROUNDS * 99 / 100]
    );
}

fn futex(word: &AtomicU32, what: libc::c_int, value: u32) {
    let what = what | libc::FUTEX_PRIVATE_FLAG;
    let no_timeout = std::ptr::null::<libc::timespec>();
    // SAFETY: the word lives as long as both threads.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), what, value, no_timeout) };
}

fn pin(processor: usize) {
    // SAFETY: an all-zero set is an empty one; the pointer is to a local of the right size.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(processor, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &set);
    }
}

fn say(name: &str, mut values: Vec<f64>, unit: &str) {
    values.sort_by(f64::total_cmp);
    let (first, last) = (values[0], values[values.len() - 1]);
    let median = values[values.len() / 2];
    println!("{name:<44} {median:9.1} {unit}  ({first:.1} to {last:.1})");
}
