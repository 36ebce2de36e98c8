//! A signal handler cancels scopes of the core that it interrupts, in whatever that is doing.
//!
//! Here, since to install a handler is unsafe.

use std::future::{Future, poll_fn};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use crate::time::sleep;
use crate::{CancelHandle, Cancelled, Delivery, Handle, Scope, yield_now};

const LONG: Duration = Duration::from_secs(3_600);

/// How many scopes there are, one for each signal that arrives.
const SCOPES: usize = 2_000;

static HANDLES: OnceLock<Vec<CancelHandle>> = OnceLock::new();
static NEXT: AtomicUsize = AtomicUsize::new(0);
static PARKED: OnceLock<CancelHandle> = OnceLock::new();

extern "C" fn cancel_the_next(_: libc::c_int) {
    let place = NEXT.fetch_add(1, Ordering::Relaxed);
    if let Some(handle) = HANDLES.get().and_then(|handles| handles.get(place)) {
        handle.cancel();
    }
}

extern "C" fn cancel_the_parked(_: libc::c_int) {
    if let Some(handle) = PARKED.get() {
        handle.cancel();
    }
}

/// Installs a handler, and returns what sends its signal to the calling thread.
fn install(signal: libc::c_int, handler: extern "C" fn(libc::c_int)) -> impl Fn() + Send + 'static {
    let address = handler as *const () as libc::sighandler_t;
    // SAFETY: the handler touches atomics alone: it loads, adds, and cancels, which neither locks nor
    // allocates.
    let before = unsafe { libc::signal(signal, address) };
    assert_ne!(before, libc::SIG_ERR);
    // SAFETY: asks for a number; it cannot fail.
    let here = unsafe { libc::pthread_self() };
    move || {
        // SAFETY: the thread joins whoever calls this before it ends.
        let sent = unsafe { libc::pthread_kill(here, signal) };
        assert_eq!(sent, 0);
    }
}

#[test]
fn c116_signal_handler_wakes_the_parked_core_that_it_interrupts() {
    crate::block_on(async {
        let core = Handle::current().expect("on a core");
        let scope = Scope::new();
        PARKED.get_or_init(|| scope.handle());
        let send = install(libc::SIGURG, cancel_the_parked);
        let parks = core.metrics()[0].parks;
        let sender = thread::spawn(move || {
            while core.metrics()[0].parks == parks {
                thread::yield_now();
            }
            send();
        });
        assert_eq!(scope.run(sleep(LONG)).await, Ok(None));
        sender.join().expect("no panic");
        assert_eq!(PARKED.get().map(CancelHandle::cancel), Some(Delivery::Gone));
    })
    .expect("a core");
}

/// Scopes are opened, waited in and closed all the time, and now and then the core parks: the handler
/// comes in the middle of all of it.
#[test]
fn c116_signal_handler_reaches_every_scope_whatever_it_interrupts() {
    crate::block_on(async {
        let scopes: Vec<Scope> = (0..SCOPES).map(|_| Scope::new()).collect();
        HANDLES.get_or_init(|| scopes.iter().map(Scope::handle).collect());
        let mut runs: Vec<_> = scopes
            .iter()
            .map(|scope| Box::pin(scope.run(sleep(LONG))))
            .collect();
        poll_fn(|cx| {
            for run in &mut runs {
                assert!(run.as_mut().poll(cx).is_pending());
            }
            Poll::Ready(())
        })
        .await;
        let send = install(libc::SIGUSR2, cancel_the_next);
        let done = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&done);
        let sender = thread::spawn(move || {
            while NEXT.load(Ordering::Relaxed) < SCOPES {
                send();
                thread::yield_now();
            }
            tell.store(true, Ordering::Release);
        });
        while !done.load(Ordering::Acquire) {
            let around = Scope::new();
            let inner = Scope::new().timeout(Duration::from_micros(20));
            let _handle = inner.handle();
            let outcome = around.run(inner.run(sleep(LONG))).await;
            assert_eq!(outcome, Ok(Some(None)));
            yield_now().await?;
        }
        sender.join().expect("no panic");
        for run in runs {
            assert_eq!(run.await, Ok(None));
        }
        Ok::<_, Cancelled>(())
    })
    .expect("a core")
    .expect("nobody cancels this one");
}
