//! Leases sessions with a tool server, lists its tools and calls one: the command follows, the tool is asked for
//! by `TOOL` and `ARGUMENTS`.
//!
//! ```text
//! TOOL=echo ARGUMENTS='{"message": "hello"}' cargo run -p quoit-pool --example tool_sessions -- mcp-server-everything
//! ```

use std::error::Error;
use std::{env, io};

use quoit::process::Command;
use quoit_pool::stdio::{ToolServers, ending};
use quoit_pool::{Key, SessionPool};
use serde_json::Value;

fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    let words: Vec<String> = env::args().skip(1).collect();
    let Some((program, arguments)) = words.split_first() else {
        return Err("say which server: the program and its arguments".into());
    };
    let (program, arguments) = (program.clone(), arguments.to_vec());
    // Each scope has a process of its own, which knows on whose behalf it runs.
    let servers = ToolServers::new(move |key| {
        let mut command = Command::new(&program);
        command.args(&arguments).env("TENANT", key.scope());
        command.ending(ending());
        Some(command)
    });
    let pool = SessionPool::builder(servers).build()?;
    let tool = env::var("TOOL").ok();
    let given: Value = match env::var("ARGUMENTS") {
        Ok(text) => serde_json::from_str(&text)?,
        Err(_) => Value::Null,
    };
    quoit::block_on(async move {
        let lease = pool.lease(&Key::new("tools", "conversation-7")).await?;
        let tools = lease.call(async |session| session.list_tools().await);
        for tool in tools.await? {
            let about = tool.description.unwrap_or_default();
            let first = about.lines().next().unwrap_or_default().to_owned();
            println!("{:<40} {first}", tool.name);
        }
        if let Some(tool) = tool {
            let call = lease.call(async move |session| {
                // Heard while the call goes on, on the session's core.
                let on_progress = |step| println!("{step:?}");
                let result = session.call_tool_with_progress(&tool, given, on_progress);
                result.await
            });
            println!("{}", call.await?.text());
        }
        drop(lease);
        // The server is gone when this returns.
        pool.close_all().await.map_err(io::Error::from)?;
        Ok(())
    })?
}
