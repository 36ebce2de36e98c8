//! Tool servers that others wrote, and hosts that are killed with servers under way.
//!
//! The partners are installed by `.ci/setup` below `target/partners`; without them a test says that it was left
//! out. `server.py` is a server by the Python SDK; `mcp-server-everything` is the reference server, in Node.

mod hosts;
mod servers;
