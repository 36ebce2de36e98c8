//! A handler that is a service: made on each core, cloned for each request, and waited for until it is
//! ready.

use std::cell::Cell;
use std::future::{Ready, ready};
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{Request, Response};
use quoit_net::http::Incoming;
use tests::http_client::{Client, until};
use tower_service::Service;

use crate::support::{at_rest, one_core};

/// Whether it is ready, and who wants to know.
#[derive(Debug, Default)]
struct Gate {
    is_open: bool,
    waiting: Vec<Waker>,
    /// How often somebody looked.
    looked: u64,
}

/// Answers with how often it was called, by all its clones.
struct Counts {
    gate: Arc<Mutex<Gate>>,
    calls: Rc<Cell<u64>>,
    clones: Arc<AtomicU64>,
    is_ready: bool,
}

impl Clone for Counts {
    fn clone(&self) -> Self {
        self.clones.fetch_add(1, Ordering::Relaxed);
        Self {
            gate: Arc::clone(&self.gate),
            calls: Rc::clone(&self.calls),
            clones: Arc::clone(&self.clones),
            is_ready: false,
        }
    }
}

impl Service<Request<Incoming>> for Counts {
    type Response = Response<String>;
    type Error = io::Error;
    type Future = Ready<io::Result<Response<String>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut gate = self.gate.lock().expect("no panic");
        gate.looked += 1;
        if gate.is_open {
            self.is_ready = true;
            return Poll::Ready(Ok(()));
        }
        gate.waiting.push(cx.waker().clone());
        Poll::Pending
    }

    fn call(&mut self, request: Request<Incoming>) -> Self::Future {
        assert!(self.is_ready, "it is the clone that is asked");
        if request.uri().path() == "/fails" {
            return ready(Err(io::Error::other("no")));
        }
        self.calls.set(self.calls.get() + 1);
        ready(Ok(Response::new(self.calls.get().to_string())))
    }
}

#[test]
fn a_request_waits_until_its_service_is_ready() {
    let gate = Arc::new(Mutex::new(Gate::default()));
    let clones = Arc::new(AtomicU64::new(0));
    let (ours, seen) = (Arc::clone(&gate), Arc::clone(&clones));
    let server = one_core().on_trouble(|_| {}).serve_service_with(move |_| {
        let (gate, clones) = (Arc::clone(&ours), Arc::clone(&seen));
        async move {
            Ok(Counts {
                gate,
                // Not `Send`: it stays on its core.
                calls: Rc::default(),
                clones,
                is_ready: false,
            })
        }
    });
    let server = server.expect("a server");
    let mut first = Client::connect(server.local_addr());
    let mut second = Client::connect(server.local_addr());
    first.ask("GET", "/", "");
    second.ask("GET", "/", "");
    until(|| gate.lock().expect("no panic").waiting.len() == 2);
    let before = at_rest(&server);
    tests::http_client::pause(Duration::from_millis(50));
    assert_eq!(server.metrics(), before, "it waits, and does not ask");
    let waiting = {
        let mut gate = gate.lock().expect("no panic");
        gate.is_open = true;
        std::mem::take(&mut gate.waiting)
    };
    waiting.into_iter().for_each(Waker::wake);
    let mut answers = [first.answer(), second.answer()].map(|answer| answer.text().to_owned());
    answers.sort();
    assert_eq!(answers, ["1", "2"]);
    assert_eq!(first.get("/fails").status(), 500);
    assert_eq!(first.get("/").text(), "3");
    assert_eq!(clones.load(Ordering::Relaxed), 4, "one for each request");
    assert_eq!(
        gate.lock().expect("no panic").looked,
        6,
        "twice by those who waited"
    );
}

/// A service that is never ready is cancelled with its request.
#[test]
fn a_service_that_is_never_ready_is_late_like_a_handler() {
    #[derive(Clone)]
    struct Never;
    impl Service<Request<Incoming>> for Never {
        type Response = Response<String>;
        type Error = quoit::Cancelled;
        type Future = Ready<Result<Response<String>, quoit::Cancelled>>;

        fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), quoit::Cancelled>> {
            match quoit::check() {
                Ok(()) => {
                    let _ = cx;
                    Poll::Pending
                }
                Err(cancelled) => Poll::Ready(Err(cancelled)),
            }
        }

        fn call(&mut self, _: Request<Incoming>) -> Self::Future {
            unreachable!("it is never ready")
        }
    }
    let server = one_core()
        .handler_timeout(Duration::from_millis(20))
        .serve_service(Never);
    let server = server.expect("a server");
    let mut client = Client::connect(server.local_addr());
    assert_eq!(client.get("/").status(), 503);
}
