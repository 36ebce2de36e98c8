//! Which session: what counts as the same one.

use std::fmt;
use std::sync::Arc;

/// Names a session: which server, and on whose behalf (a conversation, a tenant).
///
/// Two leases of equal keys get the same session; those that differ in either part never do. Cheap to
/// clone.
///
/// ```
/// use quoit_pool::Key;
///
/// let key = Key::new("files", "conversation-7");
/// assert_eq!(key.server(), "files");
/// assert_eq!(key, Key::new("files".to_owned(), "conversation-7"));
/// assert_ne!(key, Key::new("files", "conversation-8"));
/// ```
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    server: Arc<str>,
    scope: Arc<str>,
}

impl Key {
    /// Names the session with `server` on behalf of `scope`.
    pub fn new(server: impl Into<Arc<str>>, scope: impl Into<Arc<str>>) -> Self {
        Self {
            server: server.into(),
            scope: scope.into(),
        }
    }

    /// Returns which server.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Returns on whose behalf.
    pub fn scope(&self) -> &str {
        &self.scope
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?} for {:?})", self.server, self.scope)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {}", self.server, self.scope)
    }
}
