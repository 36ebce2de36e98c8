//! Sessions with child processes, spoken to over pipes.
//!
#![doc = include_str!("guide.md")]
//!
//! In reading order: `framing` is messages out of bytes, `json_rpc` what they say; `config` how a session
//! shall be, `session` what callers do, `keeper` the tasks behind it, `shared` what both have, with `outbox` and
//! `tail`; `tell` what a child may ask and how it is told of a cancel; `error` why something came to nothing;
//! `mcp` is the Model Context Protocol on top, with `tool`, and `tool_servers` its sessions in a pool.

mod config;
mod error;
mod framing;
mod json_rpc;
mod keeper;
mod mcp;
mod outbox;
mod session;
mod shared;
mod tail;
mod tell;
mod tool;
mod tool_servers;

pub use config::RpcConfig;
pub use error::{Ended, SessionError, Why};
pub use framing::{Decoder, FrameError, Framing};
pub use json_rpc::{Message, NotJsonRpc, RpcError};
pub use mcp::{MCP_VERSION, McpConfig, McpSession};
pub use session::RpcSession;
pub use tell::{CancelWord, Peer};
pub use tool::{Progress, Tool, ToolResult};
pub use tool_servers::{ToolServers, ending};
