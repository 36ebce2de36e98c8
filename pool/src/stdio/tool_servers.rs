//! `ToolServers`: sessions with tool servers, for a pool. A key's server is a program, its scope on whose behalf
//! the program runs.

use std::fmt;
use std::io;
use std::time::Duration;

use quoit::Cancelled;
use quoit::process::{Command, Ending};

use super::error::SessionError;
use super::mcp::{McpConfig, McpSession};
use crate::{Key, Sessions};

/// Sessions with tool servers, by what a closure says of each key.
///
/// Each key has a process of its own, so what a server keeps for one scope, no other sees: give each its own
/// working folder and environment.
///
/// ```
/// use quoit_pool::SessionPool;
/// use quoit_pool::stdio::{ToolServers, ending};
/// use quoit::process::Command;
///
/// let servers = ToolServers::new(|key| match key.server() {
///     "files" => {
///         let mut command = Command::new("mcp-server-files");
///         command.current_dir("/srv").env("TENANT", key.scope()).ending(ending());
///         Some(command)
///     }
///     _ => None,
/// });
/// let pool = SessionPool::builder(servers).max_sessions(256).build()?;
/// # Ok::<_, quoit_pool::ConfigError>(())
/// ```
pub struct ToolServers {
    program: Box<Program>,
    config: McpConfig,
}

type Program = dyn Fn(&Key) -> Option<Command> + Send + Sync;

/// How a tool server is ended unless told otherwise: half a second to exit at the end of its input, as the
/// protocol asks for, then SIGTERM, and SIGKILL after a second and a half in all. That fits into half of a pool's
/// [grace](crate::Builder::grace), as it is unless set.
pub fn ending() -> Ending {
    Ending::default()
        .terminate_after(Duration::from_millis(500))
        .grace(Duration::from_millis(1_500))
}

impl fmt::Debug for ToolServers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ToolServers")
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl ToolServers {
    /// Starts for each key what `program` says, on the core where the session is to live; `None` where there is
    /// no such server. The command is ended as it says itself: see [`ending`].
    pub fn new(program: impl Fn(&Key) -> Option<Command> + Send + Sync + 'static) -> Self {
        Self {
            program: Box::new(program),
            config: McpConfig::default(),
        }
    }

    /// How the sessions shall be.
    #[must_use]
    pub fn config(mut self, config: McpConfig) -> Self {
        self.config = config;
        self
    }
}

impl Sessions for ToolServers {
    type Session = McpSession;
    type Error = SessionError;

    async fn open(&self, key: &Key) -> Result<McpSession, SessionError> {
        let Some(command) = (self.program)(key) else {
            let what = format!("there is no program for the server {:?}", key.server());
            let error = io::Error::new(io::ErrorKind::NotFound, what);
            return Err(SessionError::Start(error));
        };
        McpSession::start(&command, self.config.clone(), ()).await
    }

    async fn close(&self, _: &Key, session: McpSession) -> Result<(), Cancelled> {
        session.close().await.map(drop)
    }

    async fn abandon(&self, _: &Key, session: &McpSession) {
        session.rpc().killed().await;
    }

    async fn gone(&self, session: &McpSession) {
        // Cancelled, the owner ends it anyway.
        let _ = session.rpc().gone().await;
    }

    async fn is_fit(&self, session: &McpSession) -> bool {
        session.rpc().is_open()
    }
}
