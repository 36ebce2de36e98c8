//! The Model Context Protocol's client: a session with a tool server.
//!
//! `McpSession` opens with the handshake, lists and calls tools, answers pings, and passes the rest on. Whatever
//! the protocol leaves open (contents, schemas, capabilities) stays JSON.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::process::ExitStatus;
use std::rc::Rc;

use quoit::Cancelled;
use quoit::process::Command;
use serde_json::{Map, Value, json};

use super::config::RpcConfig;
use super::error::SessionError;
use super::json_rpc::{self, RpcError};
use super::session::RpcSession;
use super::tell::{CancelWord, Peer};
use super::tool::{Progress, Tool, ToolResult, unexpected};

/// The version of the protocol that is asked for.
pub const MCP_VERSION: &str = "2025-06-18";

/// The versions that a server may answer with: what is used here is the same in all of them.
const ACCEPTED: [&str; 3] = [MCP_VERSION, "2025-03-26", "2024-11-05"];

/// How many pages a list may have: a server that gives more goes round in circles.
const MOST_PAGES: usize = 1_000;

/// Who opens sessions, and how they shall be.
#[derive(Debug, Clone)]
#[must_use = "this is how a session shall be, and makes none"]
pub struct McpConfig {
    rpc: RpcConfig,
    name: String,
    version: String,
    capabilities: Value,
}

impl Default for McpConfig {
    fn default() -> Self {
        Self {
            rpc: RpcConfig::default(),
            name: "quoit-pool".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            capabilities: json!({}),
        }
    }
}

impl McpConfig {
    /// What the session bears. The framing and the word for a cancel are the protocol's, whatever this says.
    pub fn rpc(mut self, rpc: RpcConfig) -> Self {
        self.rpc = rpc;
        self
    }

    /// The name and version of the client, which servers are told. This crate's.
    pub fn client(mut self, name: impl Into<String>, version: impl Into<String>) -> Self {
        self.name = name.into();
        self.version = version.into();
        self
    }

    /// What the client can do for servers, an object: `{"roots": {}}`. None of it; with a [`Peer`] that answers.
    pub fn capabilities(mut self, capabilities: Map<String, Value>) -> Self {
        self.capabilities = Value::Object(capabilities);
        self
    }
}

/// A session with a server of the Model Context Protocol, which has been initialised.
///
/// It stays on its core. See [`RpcSession`] for what becomes of calls.
pub struct McpSession {
    rpc: RpcSession,
    listeners: Rc<Listeners>,
    version: String,
    hello: Value,
}

impl fmt::Debug for McpSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("McpSession")
            .field("rpc", &self.rpc)
            .field("version", &self.version)
            .finish_non_exhaustive()
    }
}

impl McpSession {
    /// Starts a server and shakes hands with it. `peer` hears what it says and answers what it asks, but for
    /// pings and progress; `()` is one that has nothing.
    ///
    /// If that fails or is cancelled, the server is killed, and gone when this returns.
    ///
    /// # Errors
    ///
    /// [`SessionError`]; [`SessionError::Unexpected`] also of a server that speaks another version.
    ///
    /// # Panics
    ///
    /// When polled off a core.
    pub async fn start(
        command: &Command,
        config: McpConfig,
        peer: impl Peer,
    ) -> Result<Self, SessionError> {
        let McpConfig {
            rpc,
            name,
            version,
            capabilities,
        } = config;
        let listeners = Rc::new(Listeners::default());
        let peer = McpPeer {
            listeners: Rc::clone(&listeners),
            peer,
        };
        let rpc = rpc
            .framing(super::Framing::Lines)
            .cancel_word(CancelWord::Mcp);
        let rpc = RpcSession::start(command, rpc, peer).await?;
        let params = json!({
            "protocolVersion": MCP_VERSION,
            "capabilities": capabilities,
            "clientInfo": {"name": name, "version": version},
        });
        match shake_hands(&rpc, params).await {
            Ok((version, hello)) => Ok(Self {
                rpc,
                listeners,
                version,
                hello,
            }),
            Err(error) => {
                rpc.kill().await;
                Err(error)
            }
        }
    }

    /// Returns the version of the protocol that the server answered with.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Returns what the server can do, an object.
    pub fn capabilities(&self) -> &Value {
        &self.hello["capabilities"]
    }

    /// Returns the server's name and version, an object.
    pub fn server_info(&self) -> &Value {
        &self.hello["serverInfo"]
    }

    /// Returns how the server is to be used, in words for a model.
    pub fn instructions(&self) -> Option<&str> {
        self.hello["instructions"].as_str()
    }

    /// Lists the server's tools, all pages. What these say is kept as a whole: up to a thousand messages of the
    /// [longest length](RpcConfig::frame_limit).
    ///
    /// # Errors
    ///
    /// As for [`RpcSession::call`]; [`SessionError::Unexpected`], also if the pages do not end.
    pub async fn list_tools(&self) -> Result<Vec<Tool>, SessionError> {
        let mut tools = Vec::new();
        let mut params = json!({});
        for _ in 0..MOST_PAGES {
            let mut page = self.rpc.call("tools/list", params).await?;
            let Some(Value::Array(more)) = page.get_mut("tools").map(Value::take) else {
                return unexpected("the answer to tools/list has no `tools`");
            };
            for tool in more {
                tools.push(Tool::from_value(tool)?);
            }
            match page["nextCursor"].take() {
                Value::Null => return Ok(tools),
                cursor => params = json!({"cursor": cursor}),
            }
        }
        unexpected(format!("tools/list has more than {MOST_PAGES} pages"))
    }

    /// Calls a tool. `arguments` is an object.
    ///
    /// # Errors
    ///
    /// As for [`RpcSession::call`], and [`SessionError::Unexpected`]. A tool that fails is a result that says
    /// so: [`ToolResult::is_error`].
    ///
    /// # Panics
    ///
    /// If `arguments` is neither an object nor `Value::Null`, which stands for none.
    pub async fn call_tool(
        &self,
        name: &str,
        arguments: Value,
    ) -> Result<ToolResult, SessionError> {
        let result = self.rpc.call("tools/call", tool_call(name, arguments));
        ToolResult::from_value(result.await?)
    }

    /// As [`McpSession::call_tool`], and hears how far it has come, if the tool says so. `on_progress` is not
    /// called any more when this has returned.
    ///
    /// # Errors
    ///
    /// As there.
    ///
    /// # Panics
    ///
    /// As there. If `on_progress` does, the session ends.
    pub async fn call_tool_with_progress(
        &self,
        name: &str,
        arguments: Value,
        on_progress: impl Fn(Progress) + 'static,
    ) -> Result<ToolResult, SessionError> {
        let listening = self.listeners.listen(Rc::new(on_progress));
        let mut params = tool_call(name, arguments);
        params["_meta"] = json!({"progressToken": listening.token});
        let result = self.rpc.call("tools/call", params).await;
        drop(listening);
        ToolResult::from_value(result?)
    }

    /// Asks the server whether it still answers.
    ///
    /// # Errors
    ///
    /// As for [`RpcSession::call`].
    pub async fn ping(&self) -> Result<(), SessionError> {
        self.rpc.call("ping", Value::Null).await.map(drop)
    }

    /// Returns the session below, for all that has no method here.
    pub fn rpc(&self) -> &RpcSession {
        &self.rpc
    }

    /// Ends the session: see [`RpcSession::close`].
    ///
    /// # Errors
    ///
    /// As there.
    pub async fn close(self) -> Result<Option<ExitStatus>, Cancelled> {
        self.rpc.close().await
    }

    /// Kills the server: see [`RpcSession::kill`].
    pub async fn kill(self) {
        self.rpc.kill().await;
    }
}

async fn shake_hands(rpc: &RpcSession, params: Value) -> Result<(String, Value), SessionError> {
    // The protocol forbids to cancel this one by a word.
    let hello = rpc.call_wordless("initialize", params).await?;
    let Some(version) = hello["protocolVersion"].as_str() else {
        return unexpected("the answer to initialize has no `protocolVersion`");
    };
    if !ACCEPTED.contains(&version) {
        return unexpected(format!(
            "it speaks version {version:?}, and here are {ACCEPTED:?}"
        ));
    }
    let version = version.to_owned();
    rpc.notify("notifications/initialized", Value::Null).await?;
    Ok((version, hello))
}

fn tool_call(name: &str, arguments: Value) -> Value {
    match arguments {
        Value::Null => json!({"name": name}),
        Value::Object(_) => json!({"name": name, "arguments": arguments}),
        other => panic!("the arguments of a tool are an object, and not {other}"),
    }
}

/// Who hears how far which call has come, by the token that the call carries.
#[derive(Default)]
struct Listeners {
    by_token: RefCell<BTreeMap<u64, Listener>>,
    next: Cell<u64>,
}

impl Listeners {
    fn listen(self: &Rc<Self>, listener: Listener) -> Listening {
        let token = self.next.replace(self.next.get() + 1);
        self.by_token.borrow_mut().insert(token, listener);
        Listening {
            listeners: Rc::clone(self),
            token,
        }
    }

    fn tell(&self, params: &Value) {
        let token = json_rpc::whole_number(&params["progressToken"]);
        let listener = token.and_then(|token| self.by_token.borrow().get(&token).cloned());
        // Nobody, if the call has ended meanwhile.
        if let Some(listener) = listener
            && let Some(progress) = Progress::from_value(params)
        {
            listener(progress);
        }
    }
}

type Listener = Rc<dyn Fn(Progress)>;

/// One who hears.
struct Listening {
    listeners: Rc<Listeners>,
    token: u64,
}

impl Drop for Listening {
    fn drop(&mut self) {
        let listener = self.listeners.by_token.borrow_mut().remove(&self.token);
        drop(listener);
    }
}

/// What the protocol itself answers and hears, in front of the user's.
struct McpPeer<P> {
    listeners: Rc<Listeners>,
    peer: P,
}

impl<P: Peer> Peer for McpPeer<P> {
    async fn request(&self, method: &str, params: Value) -> Result<Value, RpcError> {
        match method {
            "ping" => Ok(json!({})),
            _ => self.peer.request(method, params).await,
        }
    }

    fn notification(&self, method: &str, params: Value) {
        match method {
            "notifications/progress" => self.listeners.tell(&params),
            _ => self.peer.notification(method, params),
        }
    }
}
