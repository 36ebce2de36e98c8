//! `Shared`: what the callers of a session and its tasks have in common. One core's.
//!
//! Invariants:
//! - Nothing here is borrowed while somebody is woken.
//! - An id is given once: an answer that comes late is nobody's.
//! - A call that ends without an answer leaves nothing behind: either its frame is taken back, or the child is
//!   told that nobody waits.
//! - The first thing that went wrong is what all calls fail with.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::process::ExitStatus;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;

use quoit::CancelHandle;
use quoit::sync::{Event, OwnedPermit, Semaphore, channel, oneshot};
use serde_json::Value;

use super::config::RpcConfig;
use super::error::{Ended, SessionError, Why};
use super::framing::FrameError;
use super::json_rpc::{self, RpcError};
use super::outbox::{Outbox, Queued};
use super::tail::Tail;
use super::tell::CancelWord;

/// What a call comes to, if it is not cancelled.
type Outcome = Result<Result<Value, RpcError>, Arc<Ended>>;

/// What the callers of a session and its tasks share.
pub(super) struct Shared {
    pub(super) config: RpcConfig,
    pub(super) pid: u32,
    pub(super) outbox: RefCell<Outbox>,
    /// Rouses the writer.
    bell: channel::Sender<()>,
    room: Rc<Semaphore>,
    /// The calls that wait for an answer.
    calls: RefCell<BTreeMap<u64, oneshot::Sender<Outcome>>>,
    next_id: Cell<u64>,
    late: Cell<u64>,
    /// What the child asks for, and how to stop that. Numbered here: a child may give two the same id.
    asked: RefCell<BTreeMap<u64, (Value, CancelHandle)>>,
    next_ask: Cell<u64>,
    pub(super) tail: RefCell<Tail>,
    why: RefCell<Option<Why>>,
    fate: RefCell<Option<Arc<Ended>>>,
    /// What became of the child, of which callers may have been told before.
    pub(super) status: Cell<Option<ExitStatus>>,
    /// The session is of no use any more.
    pub(super) broken: Event,
    /// It is to end; at once.
    pub(super) stop: Event,
    pub(super) kill: Event,
    /// The child is gone.
    pub(super) reaped: Event,
    /// Callers were told how it ended.
    told: Event,
    /// It has ended, with all its tasks.
    pub(super) gone: Event,
}

impl Shared {
    pub(super) fn new(config: RpcConfig, pid: u32, bell: channel::Sender<()>) -> Self {
        Self {
            pid,
            outbox: RefCell::default(),
            bell,
            room: Rc::new(Semaphore::new(config.queue)),
            calls: RefCell::default(),
            next_id: Cell::new(0),
            late: Cell::new(0),
            asked: RefCell::default(),
            next_ask: Cell::new(0),
            tail: RefCell::new(Tail::new(config.complaints)),
            why: RefCell::default(),
            fate: RefCell::default(),
            status: Cell::default(),
            broken: Event::new(),
            stop: Event::new(),
            kill: Event::new(),
            reaped: Event::new(),
            told: Event::new(),
            gone: Event::new(),
            config,
        }
    }

    pub(super) async fn call(
        &self,
        method: &str,
        params: Value,
        word: CancelWord,
    ) -> Result<Value, SessionError> {
        assert_params(&params);
        let room = self.room().await?;
        let id = self.next_id.replace(self.next_id.get() + 1);
        let frame = self.encode(json_rpc::request(id, method, params));
        let (sender, mut receiver) = oneshot::channel();
        self.calls.borrow_mut().insert(id, sender);
        let _call = Call {
            shared: self,
            id,
            word,
        };
        self.post(Some(id), frame, room);
        match receiver.recv().await {
            Ok(Ok(answer)) => answer.map_err(SessionError::Refused),
            Ok(Err(ended)) => Err(SessionError::Ended(ended)),
            Err(oneshot::RecvError::Cancelled(cancelled)) => Err(cancelled.into()),
            Err(oneshot::RecvError::Closed) => {
                unreachable!("a call is answered, or told how the session ended")
            }
        }
    }

    /// Waits for room in the outbox.
    pub(super) async fn room(&self) -> Result<OwnedPermit, SessionError> {
        quoit::op::entry().await?;
        if let Some(ended) = self.fate.borrow().as_ref() {
            return Err(SessionError::Ended(Arc::clone(ended)));
        }
        let room = Rc::clone(&self.room).acquire_owned();
        match either(self.told.wait(), room).await {
            Either::Right(room) => Ok(room?),
            Either::Left(told) => {
                told?;
                let fate = self.fate.borrow();
                let ended = fate.as_ref().expect("it is there before it is told");
                Err(SessionError::Ended(Arc::clone(ended)))
            }
        }
    }

    pub(super) fn encode(&self, message: Vec<u8>) -> Vec<u8> {
        let frame = self.config.framing.encode(&message);
        frame.expect("JSON has no line end inside, as it is written here")
    }

    pub(super) fn post(&self, call: Option<u64>, frame: Vec<u8>, room: OwnedPermit) {
        self.outbox.borrow_mut().push(Queued { call, frame, room });
        self.ring();
    }

    /// Answers what the child asks; that waits for no room.
    pub(super) fn post_answer(&self, message: Vec<u8>) {
        let frame = self.encode(message);
        self.outbox.borrow_mut().push_answer(frame);
        self.ring();
    }

    /// Tells the child that nobody waits for an answer; nor does that.
    fn post_cancel(&self, message: Vec<u8>) {
        let frame = self.encode(message);
        self.outbox.borrow_mut().push_cancel(frame);
        self.ring();
    }

    /// Rouses the writer.
    pub(super) fn ring(&self) {
        // One that is full rings already; without a writer nothing is written.
        let _ = self.bell.try_send(());
    }

    /// Hands an answer to the call that waits for it.
    pub(super) fn answered(&self, id: &Value, outcome: Result<Value, RpcError>) -> Result<(), Why> {
        if id.is_null() {
            return Err(match outcome {
                Err(error) => Why::Misread(error),
                Ok(_) => Why::NeverAsked("null".to_owned()),
            });
        }
        let asked = json_rpc::whole_number(id).filter(|&id| id < self.next_id.get());
        let Some(asked) = asked else {
            return Err(Why::NeverAsked(id.to_string()));
        };
        let call = self.calls.borrow_mut().remove(&asked);
        match call {
            // It may be gone in this moment.
            Some(call) => drop(call.send(Ok(outcome))),
            None => self.late.set(self.late.get() + 1),
        }
        Ok(())
    }

    /// Returns how much the child asks for, with the answers that it has not read.
    pub(super) fn asks(&self) -> usize {
        self.asked.borrow().len() + self.outbox.borrow().answers()
    }

    /// Returns a number for what the child asks for next.
    pub(super) fn next_ask(&self) -> u64 {
        self.next_ask.replace(self.next_ask.get() + 1)
    }

    /// Notes what the child asks for, and how to stop that.
    pub(super) fn begin_ask(&self, number: u64, id: Value, stop: CancelHandle) {
        self.asked.borrow_mut().insert(number, (id, stop));
    }

    /// It is answered.
    pub(super) fn end_ask(&self, number: u64) {
        let asked = self.asked.borrow_mut().remove(&number);
        drop(asked);
    }

    /// Cancels what the child does not want answered any more.
    pub(super) fn cancel_ask(&self, id: &Value) {
        let asked = self.asked.borrow();
        let found = asked.values().find(|(asked, _)| asked == id);
        let stop = found.map(|&(_, stop)| stop);
        drop(asked);
        if let Some(stop) = stop {
            stop.cancel();
        }
    }

    /// Notes what went wrong. What came first stays, unless it was vague.
    pub(super) fn break_off(&self, why: Why) {
        if self.fate.borrow().is_none() {
            let mut first = self.why.borrow_mut();
            let replaces = match &*first {
                None => true,
                Some(first) => first.is_vague() && !why.is_vague(),
            };
            if replaces {
                *first = Some(why);
            }
        }
        self.broken.set();
    }

    /// Notes that the child has exited by itself: a pipe that broke did so for that.
    pub(super) fn exited(&self) {
        if matches!(*self.why.borrow(), Some(Why::Write(_))) {
            let broken_pipe = self.why.take();
            drop(broken_pipe);
        }
        self.break_off(Why::Exited);
    }

    /// Returns whether what the child says can still be understood.
    pub(super) fn is_understood(&self) -> bool {
        let why = self.why.borrow();
        why.as_ref()
            .is_none_or(|why| why.is_vague() || matches!(why, Why::Closed))
    }

    /// Returns whether what went wrong is what a child does that exits.
    pub(super) fn may_be_exiting(&self) -> bool {
        let why = self.why.borrow();
        let truncated = |why: &Why| matches!(why, Why::Frame(FrameError::Truncated { .. }));
        why.as_ref()
            .is_some_and(|why| why.is_vague() || truncated(why))
    }

    /// Tells all who wait how the session ended. The first word counts.
    pub(super) fn tell(&self, status: Option<ExitStatus>) {
        if self.fate.borrow().is_some() {
            return;
        }
        let why = self.why.borrow_mut().take();
        let ended = Arc::new(Ended {
            pid: self.pid,
            why: why.unwrap_or(Why::Closed),
            status,
            complaints: self.tail.borrow().lines(),
        });
        self.fate.replace(Some(Arc::clone(&ended)));
        self.broken.set();
        let calls = self.calls.take();
        for call in calls.into_values() {
            let _ = call.send(Err(Arc::clone(&ended)));
        }
        self.told.set();
    }

    /// Returns how many calls wait for an answer.
    pub(super) fn in_flight(&self) -> usize {
        self.calls.borrow().len()
    }

    pub(super) fn late_answers(&self) -> u64 {
        self.late.get()
    }
}

/// One call that waits for an answer.
struct Call<'a> {
    shared: &'a Shared,
    id: u64,
    word: CancelWord,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        let shared = self.shared;
        let waiting = shared.calls.borrow_mut().remove(&self.id);
        if waiting.is_none() {
            return;
        }
        let unsent = shared.outbox.borrow_mut().take_back(self.id);
        if unsent.is_none()
            && let Some((method, params)) = self.word.notification(self.id)
        {
            shared.post_cancel(json_rpc::notification(method, params));
        }
    }
}

/// Params are an object, an array, or nothing; nothing else.
pub(super) fn assert_params(params: &Value) {
    assert!(
        matches!(params, Value::Object(_) | Value::Array(_) | Value::Null),
        "params are an object, an array, or nothing, and not {params}"
    );
}

/// The first of two ops to end.
pub(super) enum Either<A, B> {
    Left(A),
    Right(B),
}

/// Waits for the first of two ops, and gives up the other. Where both have ended, the first counts.
pub(super) async fn either<A: Future, B: Future>(a: A, b: B) -> Either<A::Output, B::Output> {
    let (mut a, mut b) = (pin!(a), pin!(b));
    poll_fn(|cx| match a.as_mut().poll(cx) {
        Poll::Ready(value) => Poll::Ready(Either::Left(value)),
        Poll::Pending => b.as_mut().poll(cx).map(Either::Right),
    })
    .await
}
