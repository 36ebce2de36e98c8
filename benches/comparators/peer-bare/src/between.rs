//! Words and items between two threads, each pinned: shared memory, and a futex where one sleeps.

use std::cell::UnsafeCell;
use std::hint::spin_loop;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use common::asleep::Thread;
use common::micro::each;

/// A word on a cache line of its own, on which threads can sleep.
#[derive(Default)]
#[repr(align(128))]
struct Word(AtomicU32);

impl Word {
    fn sleep_until(&self, value: u32) {
        loop {
            // Acquire: pairs with the Release in `tell`.
            let now = self.0.load(Ordering::Acquire);
            if now == value {
                return;
            }
            futex(&self.0, libc::FUTEX_WAIT, now);
        }
    }

    fn spin_until(&self, value: u32) {
        // Acquire: pairs with the Release in `tell`.
        while self.0.load(Ordering::Acquire) != value {
            spin_loop();
        }
    }

    fn tell(&self, value: u32) {
        // Release: pairs with the Acquire of whoever waits.
        self.0.store(value, Ordering::Release);
    }

    fn tell_and_wake(&self, value: u32) {
        self.tell(value);
        futex(&self.0, libc::FUTEX_WAKE, 1);
    }
}

fn futex(word: &AtomicU32, what: libc::c_int, value: u32) {
    let what = what | libc::FUTEX_PRIVATE_FLAG;
    let no_timeout = std::ptr::null::<libc::timespec>();
    // SAFETY: the word is borrowed for as long as the call takes.
    unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), what, value, no_timeout) };
}

/// Runs `near` on one processor while `far` runs on another; returns what `near` returns.
fn on_two<T: Send>(near: impl FnOnce() -> T + Send, far: impl FnOnce() + Send) -> T {
    thread::scope(|threads| {
        let far = threads.spawn(|| {
            common::pin(1);
            far();
        });
        let near = threads.spawn(|| {
            common::pin(0);
            near()
        });
        far.join().expect("no panic");
        near.join().expect("no panic")
    })
}

/// A word there and back so many times, between threads that sleep on it; nanoseconds per round trip.
pub(crate) fn parked(times: u32) -> f64 {
    let (there, back) = (Word::default(), Word::default());
    on_two(
        || {
            let begin = Instant::now();
            for number in 1..=times {
                there.tell_and_wake(number);
                back.sleep_until(number);
            }
            each(begin, times)
        },
        || {
            for number in 1..=times {
                there.sleep_until(number);
                back.tell_and_wake(number);
            }
        },
    )
}

/// The same between threads that do nothing but look; nanoseconds per round trip.
pub(crate) fn busy(times: u32) -> f64 {
    let (there, back) = (Word::default(), Word::default());
    on_two(
        || {
            let begin = Instant::now();
            for number in 1..=times {
                there.tell(number);
                back.spin_until(number);
            }
            each(begin, times)
        },
        || {
            for number in 1..=times {
                there.spin_until(number);
                back.tell(number);
            }
        },
    )
}

const ROOM: u64 = 1024;

/// A counter on a cache line of its own.
#[derive(Default)]
#[repr(align(128))]
struct Count(AtomicU64);

/// A queue from one thread to another, with room for `ROOM` items.
struct Queue {
    sent: Count,
    taken: Count,
    items: Vec<UnsafeCell<u32>>,
}

// SAFETY: a place is written by the sender before it is counted in `sent`, and read by the receiver after; and written
// again after it is counted in `taken`.
unsafe impl Sync for Queue {}

/// Sends so many items one way, with up to 1 024 on their way; nanoseconds per item.
pub(crate) fn stream(items: u32) -> f64 {
    let queue = Queue {
        sent: Count::default(),
        taken: Count::default(),
        items: (0..ROOM).map(|_| UnsafeCell::new(0)).collect(),
    };
    let queue = Arc::new(queue);
    let begin = on_two(|| send(&queue, items), || take(&queue, items));
    each(begin, items)
}

fn send(queue: &Queue, items: u32) -> Instant {
    let begin = Instant::now();
    let mut taken = 0;
    for number in 0..u64::from(items) {
        while number - taken == ROOM {
            // Acquire: pairs with the Release in `take`.
            taken = queue.taken.0.load(Ordering::Acquire);
            spin_loop();
        }
        // SAFETY: the place is free, as `taken` says, and this is the only sender.
        unsafe { *queue.items[(number % ROOM) as usize].get() = number as u32 };
        // Release: pairs with the Acquire in `take`.
        queue.sent.0.store(number + 1, Ordering::Release);
    }
    begin
}

fn take(queue: &Queue, items: u32) {
    let mut sent = 0;
    for number in 0..u64::from(items) {
        while sent == number {
            // Acquire: pairs with the Release in `send`.
            sent = queue.sent.0.load(Ordering::Acquire);
            spin_loop();
        }
        // SAFETY: the place is filled, as `sent` says, and this is the only receiver.
        let item = unsafe { *queue.items[(number % ROOM) as usize].get() };
        assert_eq!(u64::from(item), number);
        // Release: pairs with the Acquire in `send`.
        queue.taken.0.store(number + 1, Ordering::Release);
    }
}

/// Wakes a thread that sleeps: nanoseconds until it runs, each of so many.
pub(crate) fn wakes(times: u32) -> Vec<f64> {
    let word = Word::default();
    let (tell, told) = std::sync::mpsc::channel();
    let (ran, runs) = std::sync::mpsc::channel();
    on_two(
        || {
            let runs = runs;
            let took = (1..).zip(told).map(|(number, sleeping): (u32, Thread)| {
                sleeping.wait_until_asleep();
                let begin = Instant::now();
                word.tell_and_wake(number);
                let end: Instant = runs.recv().expect("it runs");
                (end - begin).as_nanos() as f64
            });
            took.collect()
        },
        || {
            let (tell, ran) = (tell, ran);
            for number in 1..=times {
                tell.send(Thread::current()).expect("it is taken");
                word.sleep_until(number);
                ran.send(Instant::now()).expect("it is taken");
            }
        },
    )
}
