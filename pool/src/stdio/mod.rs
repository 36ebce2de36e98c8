//! Sessions with child processes, spoken to over pipes.
//!
#![doc = include_str!("guide.md")]
//!
//! In reading order: `framing` is messages out of bytes, `json_rpc` what they say; `session` what callers do and
//! `keeper` the tasks behind it, with `outbox` and `tail`; `tell` what a child may ask and how it is told of a
//! cancel; `mcp` is the Model Context Protocol on top, `tool_servers` its sessions in a pool.

mod error;
mod framing;
mod json_rpc;
mod keeper;
mod mcp;
mod outbox;
mod session;
mod tail;
mod tell;
mod tool_servers;

pub use error::{Ended, SessionError, Why};
pub use framing::{Decoder, FrameError, Framing};
pub use json_rpc::{Message, NotJsonRpc, RpcError};
pub use mcp::{MCP_VERSION, McpConfig, McpSession, Progress, Tool, ToolResult};
pub use session::{RpcConfig, RpcSession};
pub use tell::{CancelWord, Peer};
pub use tool_servers::{ToolServers, ending};
