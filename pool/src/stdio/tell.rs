//! What both sides of a session may say of their own accord: `Peer` hears the child, `CancelWord` is how a child
//! is told that nobody waits for an answer any more.

use std::future::Future;
use std::rc::Rc;

use serde_json::{Value, json};

use super::json_rpc::RpcError;

/// Answers what a child asks, and hears what it says. On the session's core.
///
/// `()` is one that has nothing: it answers every request with "method not found", and hears nothing.
pub trait Peer: 'static {
    /// Answers a request of the child's. It runs as a task of the session's: others go on meanwhile, and the
    /// end of the session cancels it. Without this, the answer is
    /// [`RpcError::method_not_found`].
    ///
    /// # Errors
    ///
    /// What the child is told.
    fn request(
        &self,
        method: &str,
        params: Value,
    ) -> impl Future<Output = Result<Value, RpcError>> {
        let _ = params;
        let error = RpcError::method_not_found(method);
        async { Err(error) }
    }

    /// Hears a notification of the child's, in the order in which they and the answers came. What the child
    /// says next waits for this to return. Without this, nobody hears it.
    fn notification(&self, method: &str, params: Value) {
        let _ = (method, params);
    }
}

impl Peer for () {}

/// For who wants to look at it from outside meanwhile.
impl<P: Peer> Peer for Rc<P> {
    async fn request(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        P::request(self, method, params).await
    }

    fn notification(&self, method: &str, params: Value) {
        P::notification(self, method, params);
    }
}

/// How a child is told that a call was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum CancelWord {
    /// Not at all: its protocol has no word for it. JSON-RPC itself has none.
    #[default]
    None,
    /// `notifications/cancelled`: the Model Context Protocol.
    Mcp,
    /// `$/cancelRequest`: the Language Server Protocol.
    Lsp,
}

impl CancelWord {
    /// Returns the notification that cancels a call.
    pub(super) fn notification(self, call: u64) -> Option<(&'static str, Value)> {
        match self {
            Self::None => None,
            Self::Mcp => Some(("notifications/cancelled", json!({"requestId": call}))),
            Self::Lsp => Some(("$/cancelRequest", json!({"id": call}))),
        }
    }

    /// Returns which request of the child's a notification of the child's cancels.
    pub(super) fn cancelled_by<'a>(self, method: &str, params: &'a Value) -> Option<&'a Value> {
        let (ours, field) = match self {
            Self::None => return None,
            Self::Mcp => ("notifications/cancelled", "requestId"),
            Self::Lsp => ("$/cancelRequest", "id"),
        };
        if method == ours {
            params.get(field)
        } else {
            None
        }
    }
}
