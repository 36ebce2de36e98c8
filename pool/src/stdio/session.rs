//! `RpcSession`: calls on a child process, from start to end.
//!
//! ```text
//!   call ──► outbox ──► writer ──► child's input
//!                                  child's output ──► reader ──► the call with that id
//!                                  child's stderr ──► tail, for the error message
//! ```
//!
//! What is here is what callers do; the tasks are in `keeper`, and what both have in `shared`.

use std::fmt;
use std::process::ExitStatus;
use std::rc::Rc;

use quoit::process::{Command, Stdio};
use quoit::sync::channel;
use quoit::{Cancelled, CarriesCancelled, Scope};
use serde_json::Value;

use super::config::RpcConfig;
use super::error::SessionError;
use super::json_rpc;
use super::keeper;
use super::shared::{Shared, assert_params};
use super::tell::{CancelWord, Peer};

/// A session with a child process that speaks JSON-RPC 2.0 over its standard streams.
///
/// It stays on its core. Any number of calls may be under way; the child may answer in any order, and ask
/// back (see [`Peer`]). When the child exits, or says what is no message, all calls fail with one error that says
/// how it ended and what it complained of, and [`RpcSession::gone`] ends.
///
/// Dropped, it ends the child as [`RpcSession::close`] does, and the scope in which it is dropped ends after that.
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
        quoit::op::entry().await?;
        let mut command = command.clone();
        command
            .stdin(Stdio::Piped)
            .stdout(Stdio::Piped)
            .stderr(Stdio::Piped);
        let child = command.spawn().await;
        let child = child.map_err(|error| match error.cancelled() {
            Some(cancelled) => cancelled.into(),
            None => SessionError::Start(error),
        })?;
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
        self.shared.in_flight()
    }

    /// Returns how many answers came when nobody waited for them any more.
    pub fn late_answers(&self) -> u64 {
        self.shared.late_answers()
    }

    /// Begins to end the session, as [`RpcSession::close`] does, which waits for it.
    pub fn stop(&self) {
        self.shared.stop.set();
    }

    /// Ends the session: what waits is written, if the child takes it; its input is closed; and it is ended as
    /// its [`Ending`](quoit::process::Ending) says, which may be a signal at once. Returns when the child was reaped
    /// and no task is left; with the child's status, unless it could not be waited for.
    ///
    /// Calls that are under way fail with [`Why::Closed`](super::Why::Closed).
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
        Ok(self.shared.status.get())
    }

    /// Kills the child, without a goodbye, and returns when it was reaped and no task is left. No cancel
    /// holds this up.
    pub async fn kill(self) {
        self.killed().await;
    }

    /// The same for one that somebody else has.
    pub(super) async fn killed(&self) {
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
        if self.shared.reaped.is_set() {
            return;
        }
        let shared = Rc::clone(&self.shared);
        // Not for the end of its tasks: it may be one of them that drops the session.
        quoit::leave_behind(async move {
            let scope = Scope::new().shielded();
            // It fails with its core.
            let _: Result<_, Cancelled> = scope.run(shared.reaped.wait()).await;
        });
    }
}
