//! `UnixAddress`: a file, or a name that is none.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use socket2::SockAddr;

/// Where a Unix socket is: at a path, under an abstract name, or nowhere, as clients mostly are.
///
/// A path is shown as it is, an abstract name with `@` before it.
///
/// ```
/// use quoit_net::unix::UnixAddress;
///
/// assert_eq!(UnixAddress::path("/run/site.sock").to_string(), "/run/site.sock");
/// assert_eq!(UnixAddress::abstract_name("site").to_string(), "@site");
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct UnixAddress(Name);

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Name {
    None,
    Path(PathBuf),
    Abstract(Vec<u8>),
}

impl UnixAddress {
    /// A file. Who may connect is a matter of its mode; see
    /// [`UnixOptions::mode`](super::UnixOptions::mode).
    pub fn path(path: impl Into<PathBuf>) -> Self {
        Self(Name::Path(path.into()))
    }

    /// A name that is no file and ends with its last socket. Everybody in the network namespace may
    /// connect: look at [`UnixStream::peer_credentials`](super::UnixStream::peer_credentials).
    pub fn abstract_name(name: impl Into<Vec<u8>>) -> Self {
        Self(Name::Abstract(name.into()))
    }

    /// Returns the path, if it is one.
    pub fn as_path(&self) -> Option<&Path> {
        match &self.0 {
            Name::Path(path) => Some(path),
            Name::None | Name::Abstract(_) => None,
        }
    }

    /// Returns the abstract name, if it is one.
    pub fn as_abstract_name(&self) -> Option<&[u8]> {
        match &self.0 {
            Name::Abstract(name) => Some(name),
            Name::None | Name::Path(_) => None,
        }
    }

    /// Returns whether it is nowhere: of a socket that connected and was not bound.
    pub fn is_unnamed(&self) -> bool {
        self.0 == Name::None
    }

    /// The kernel's form of it. `unix(7)`.
    pub(super) fn to_sock_addr(&self) -> io::Result<SockAddr> {
        let refused = |what: String| io::Error::new(io::ErrorKind::InvalidInput, what);
        let made = match &self.0 {
            Name::None => return Err(refused("an address without a name is nowhere".to_owned())),
            Name::Path(path) if path.as_os_str().is_empty() => {
                return Err(refused("the path of a Unix socket is empty".to_owned()));
            }
            Name::Path(path) if path.as_os_str().as_bytes().contains(&0) => {
                return Err(refused(format!("{path:?} has a zero byte in it")));
            }
            Name::Path(path) => SockAddr::unix(path),
            Name::Abstract(name) => {
                let name = [b"\0", &**name].concat();
                SockAddr::unix(OsStr::from_bytes(&name))
            }
        };
        made.map_err(|_| {
            refused(format!(
                "{self} is longer than the {LONGEST} bytes of an address"
            ))
        })
    }

    pub(super) fn from_sock_addr(address: &SockAddr) -> Self {
        Self(if let Some(path) = address.as_pathname() {
            Name::Path(path.to_owned())
        } else if let Some(name) = address.as_abstract_namespace() {
            Name::Abstract(name.to_owned())
        } else {
            Name::None
        })
    }
}

/// `sun_path` less the byte that ends a path or begins a name. `unix(7)`.
const LONGEST: usize = 107;

impl fmt::Display for UnixAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Name::None => f.write_str("(unnamed)"),
            Name::Path(path) => path.display().fmt(f),
            Name::Abstract(name) => write!(f, "@{}", name.escape_ascii()),
        }
    }
}

impl From<PathBuf> for UnixAddress {
    fn from(path: PathBuf) -> Self {
        Self::path(path)
    }
}

impl From<&Path> for UnixAddress {
    fn from(path: &Path) -> Self {
        Self::path(path)
    }
}

impl From<&str> for UnixAddress {
    fn from(path: &str) -> Self {
        Self::path(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_is_told_comes_back() {
        for address in [
            UnixAddress::path("/run/site.sock"),
            UnixAddress::path("site"),
            UnixAddress::abstract_name("site"),
            UnixAddress::abstract_name(b"a\0b".to_vec()),
        ] {
            let told = address.to_sock_addr().expect("well-formed");
            assert_eq!(UnixAddress::from_sock_addr(&told), address);
        }
    }

    #[test]
    fn what_is_no_address_is_named_with_what_is_wrong() {
        let long = "x".repeat(LONGEST + 1);
        for (address, wrong) in [
            (UnixAddress::path(""), "is empty"),
            (UnixAddress::path("a\0b"), "zero byte"),
            (UnixAddress::path(&*long), "longer than the 107 bytes"),
            (
                UnixAddress::abstract_name(&*long),
                "longer than the 107 bytes",
            ),
            (UnixAddress(Name::None), "nowhere"),
        ] {
            let error = address.to_sock_addr().expect_err("no address");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
            assert!(error.to_string().contains(wrong), "{error}");
        }
        let fits = UnixAddress::path("x".repeat(LONGEST));
        assert!(fits.to_sock_addr().is_ok());
    }
}
