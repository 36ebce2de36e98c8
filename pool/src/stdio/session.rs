//! `RpcSession`: calls on a child process, from start to end.
//!
//! ```text
//!   call ──► outbox ──► writer ──► child's input
//!                                  child's output ──► reader ──► the call with that id
//!                                  child's stderr ──► tail, for the error message
//! ```
//!
//! What is here is what callers do; the tasks are in `keeper`. Both share one value, and nothing borrows it while
//! somebody is woken.
//!
//! Invariants:
//! - An id is given once: an answer that comes late is nobody's.
//! - A call that ends without an answer leaves nothing behind: either its frame is taken back, or the child is
//!   told that nobody waits.
//! - The first thing that went wrong is what all calls fail with.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::process::ExitStatus;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use quoit::process::{Command, Stdio};
use quoit::sync::{Event, OwnedPermit, Semaphore, channel, oneshot};
use quoit::{CancelHandle, Cancelled, Scope};
use serde_json::Value;

use super::error::{Ended, SessionError, Why};
use super::framing::{FrameError, Framing};
use super::json_rpc::{self, RpcError};
use super::keeper;
use super::outbox::{Outbox, Queued};
use super::tail::Tail;
use super::tell::{CancelWord, Peer};

/// How a session speaks with its child, and how much it bears.
#[derive(Debug, Clone)]
#[must_use = "this is how a session shall be, and makes none"]
pub struct RpcConfig {
    pub(super) framing: Framing,
    pub(super) cancel_word: CancelWord,
    pub(super) frame_limit: usize,
    pub(super) queue: usize,
    pub(super) asks: usize,
    pub(super) complaints: usize,
    pub(super) flush: Duration,
}

impl Default for RpcConfig {
    fn default() -> Self {
        Self {
            framing: Framing::Lines,
            cancel_word: CancelWord::None,
            frame_limit: 4 << 20,
            queue: 64,
            asks: 256,
            complaints: 20,
            flush: Duration::from_millis(500),
        }
    }
}

impl RpcConfig {
    /// How messages are told apart. Lines.
    pub fn framing(mut self, framing: Framing) -> Self {
        self.framing = framing;
        self
    }

    /// How the child is told that a call was cancelled. Not at all.
    pub fn cancel_word(mut self, word: CancelWord) -> Self {
        self.cancel_word = word;
        self
    }

    /// How long a message of the child's may be, in bytes. 4 MiB: a picture as text, and no more memory than a
    /// machine has for many children. A longer one ends the session. As a [`Value`], a message of many small
    /// parts takes some twenty times its length.
    pub fn frame_limit(mut self, bytes: usize) -> Self {
        self.frame_limit = bytes;
        self
    }

    /// How many messages may wait for the child to read; callers with more wait themselves. 64; at least one.
    pub fn queue(mut self, messages: usize) -> Self {
        self.queue = messages.max(1);
        self
    }

    /// How much the child may ask for at once, with the answers that it has not read. 256; more ends the
    /// session.
    pub fn asks(mut self, requests: usize) -> Self {
        self.asks = requests;
        self
    }

    /// How many lines of the child's standard error are kept for the error message, up to a KiB of each. 20.
    pub fn complaints(mut self, lines: usize) -> Self {
        self.complaints = lines;
        self
    }

    /// How long a session that is closed waits for its child to read what waits. Half a second: a child that
    /// reads at all takes less.
    pub fn flush(mut self, patience: Duration) -> Self {
        self.flush = patience;
        self
    }
}

/// A session with a child process that speaks JSON-RPC 2.0 over its standard streams.
///
/// It stays on its core. Any number of calls may be under way; the child may answer in any order, and ask
/// back (see [`Peer`]). When the child exits, or says what is no message, all calls fail with one error that says
/// how it ended and what it complained of, and [`RpcSession::gone`] ends.
///
/// Dropped, it ends the child as [`RpcSession::close`] does, in a task of its core's.
///
/// ```
/// use quoit::process::Command;
/// use quoit_pool::stdio::{RpcConfig, RpcSession};
/// use serde_json::json;
///
/// quoit::block_on(async {
///     // A child that answers once, whatever it is asked.
///     let mut command = Command::new("sh");
///     let answer = r#"read line; echo '{"jsonrpc":"2.0","id":0,"result":"yes"}'; read line"#;
///     command.args(["-c", answer]);
///     let session = RpcSession::start(&command, RpcConfig::default(), ()).await?;
///     assert_eq!(session.call("ready?", json!({})).await?, "yes");
///     session.close().await?;
///     Ok::<_, std::io::Error>(())
/// })??;
/// # Ok::<_, std::io::Error>(())
/// ```
pub struct RpcSession {
    shared: Rc<Shared>,
}

impl fmt::Debug for RpcSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RpcSession")
            .field("pid", &self.shared.pid)
            .field("in_flight", &self.in_flight())
            .field("is_open", &self.is_open())
            .finish_non_exhaustive()
    }
}

impl RpcSession {
    /// Starts the program, with pipes for its three streams. Nothing is said to it yet. How it is ended is the
    /// command's: [`Ending`](quoit::process::Ending).
    ///
    /// # Errors
    ///
    /// [`SessionError::Start`]; [`SessionError::Cancelled`], and nothing was started.
    ///
    /// # Panics
    ///
    /// When polled off a core.
    pub async fn start(
        command: &Command,
        config: RpcConfig,
        peer: impl Peer,
    ) -> Result<Self, SessionError> {
        quoit::check()?;
        let mut command = command.clone();
        command
            .stdin(Stdio::Piped)
            .stdout(Stdio::Piped)
            .stderr(Stdio::Piped);
        let child = command.spawn().await.map_err(SessionError::Start)?;
        let (bell, rung) = channel::bounded(1);
        let shared = Rc::new(Shared::new(config, child.id(), bell));
        drop(quoit::spawn(keeper::keep(
            Rc::clone(&shared),
            child,
            peer,
            rung,
        )));
        Ok(Self { shared })
    }

    /// Returns the child's number.
    pub fn pid(&self) -> u32 {
        self.shared.pid
    }

    /// Calls a method, and returns the result. `params` is an object, an array, or nothing: `Value::Null` is
    /// left out.
    ///
    /// Cancelled or dropped, the call is forgotten: the child is told with the configured [`CancelWord`], if
    /// it was asked already, and an answer that comes late is thrown away. The session goes on.
    ///
    /// # Errors
    ///
    /// [`SessionError::Cancelled`], [`SessionError::Refused`] and [`SessionError::Ended`].
    ///
    /// # Panics
    ///
    /// If `params` is a number, a string or a bool, which JSON-RPC does not allow.
    pub async fn call(&self, method: &str, params: Value) -> Result<Value, SessionError> {
        let word = self.shared.config.cancel_word;
        self.shared.call(method, params, word).await
    }

    /// As [`RpcSession::call`], for what must not be cancelled by a word: the child is not told.
    pub(super) async fn call_wordless(
        &self,
        method: &str,
        params: Value,
    ) -> Result<Value, SessionError> {
        self.shared.call(method, params, CancelWord::None).await
    }

    /// Tells the child something that it does not answer. Returns when the message stands in the queue.
    ///
    /// # Errors
    ///
    /// [`SessionError::Cancelled`]: the child is not told. [`SessionError::Ended`].
    ///
    /// # Panics
    ///
    /// As for [`RpcSession::call`].
    pub async fn notify(&self, method: &str, params: Value) -> Result<(), SessionError> {
        assert_params(&params);
        let frame = self.shared.encode(json_rpc::notification(method, params));
        let room = self.shared.room().await?;
        self.shared.post(None, frame, room);
        Ok(())
    }

    /// Waits until the session is of no use any more: the child has exited, or what it says makes no sense, or
    /// the session was closed.
    ///
    /// # Errors
    ///
    /// [`Cancelled`].
    pub async fn gone(&self) -> Result<(), Cancelled> {
        self.shared.broken.wait().await
    }

    /// Returns whether calls may still succeed.
    pub fn is_open(&self) -> bool {
        !self.shared.broken.is_set() && !self.shared.stop.is_set()
    }

    /// Returns how many calls wait for an answer.
    pub fn in_flight(&self) -> usize {
        self.shared.calls.borrow().len()
    }

    /// Returns how many answers came when nobody waited for them any more.
    pub fn late_answers(&self) -> u64 {
        self.shared.late.get()
    }

    /// Begins to end the session, as [`RpcSession::close`] does, which waits for it.
    pub fn stop(&self) {
        self.shared.stop.set();
    }

    /// Ends the session: what waits is written, if the child takes it; its input is closed; and it is ended as
    /// its [`Ending`](quoit::process::Ending) says, which may be a signal at once. Returns when the child was reaped
    /// and no task is left; with the child's status, unless it could not be waited for.
    ///
    /// Calls that are under way fail with [`Why::Closed`].
    ///
    /// # Errors
    ///
    /// [`Cancelled`]: the child was killed, and is gone all the same.
    pub async fn close(self) -> Result<Option<ExitStatus>, Cancelled> {
        self.shared.stop.set();
        if let Err(cancelled) = self.shared.gone.wait().await {
            self.kill().await;
            return Err(cancelled);
        }
        Ok(self.shared.status())
    }

    /// Kills the child, without a goodbye, and returns when it was reaped and no task is left. No cancel
    /// holds this up.
    pub async fn kill(self) {
        self.shared.kill.set();
        self.shared.stop.set();
        let scope = Scope::new().shielded();
        let gone: Result<_, Cancelled> = scope.run(self.shared.gone.wait()).await;
        gone.expect("nobody cancels this scope");
    }
}

impl Drop for RpcSession {
    fn drop(&mut self) {
        self.shared.stop.set();
    }
}

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
    /// What the child asks for, and how to stop that.
    pub(super) asked: RefCell<Vec<(Value, CancelHandle)>>,
    pub(super) tail: RefCell<Tail>,
    why: RefCell<Option<Why>>,
    fate: RefCell<Option<Arc<Ended>>>,
    /// The session is of no use any more.
    pub(super) broken: Event,
    /// It is to end; at once.
    pub(super) stop: Event,
    pub(super) kill: Event,
    /// Callers were told how it ended.
    told: Event,
    /// It has ended, with all its tasks.
    gone: Event,
}

impl Shared {
    fn new(config: RpcConfig, pid: u32, bell: channel::Sender<()>) -> Self {
        Self {
            pid,
            outbox: RefCell::default(),
            bell,
            room: Rc::new(Semaphore::new(config.queue)),
            calls: RefCell::default(),
            next_id: Cell::new(0),
            late: Cell::new(0),
            asked: RefCell::default(),
            tail: RefCell::new(Tail::new(config.complaints)),
            why: RefCell::default(),
            fate: RefCell::default(),
            broken: Event::new(),
            stop: Event::new(),
            kill: Event::new(),
            told: Event::new(),
            gone: Event::new(),
            config,
        }
    }

    async fn call(
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
    async fn room(&self) -> Result<OwnedPermit, SessionError> {
        quoit::check()?;
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

    fn post(&self, call: Option<u64>, frame: Vec<u8>, room: OwnedPermit) {
        self.outbox.borrow_mut().push(Queued { call, frame, room });
        self.ring();
    }

    /// Sends what waits for no room.
    pub(super) fn post_urgent(&self, message: Vec<u8>) {
        let frame = self.encode(message);
        self.outbox.borrow_mut().push_urgent(frame);
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
        let asked = id.as_u64().filter(|&id| id < self.next_id.get());
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

    /// Says that nothing of the session is left.
    pub(super) fn ended(&self) {
        self.gone.set();
    }

    fn status(&self) -> Option<ExitStatus> {
        self.fate.borrow().as_ref().and_then(|ended| ended.status)
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
            shared.post_urgent(json_rpc::notification(method, params));
        }
    }
}

fn assert_params(params: &Value) {
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
