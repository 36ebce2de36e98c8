//! From the path of a request to the file it names, and from a folder back to its path.
//!
//! Names on Linux are bytes, so a path is decoded to bytes and never to text. It is decoded once:
//! `%252e` names a file called `%2e`. A backslash is a byte like any other.
//!
//! Invariants of a [`Target`]:
//! - It is relative, has no empty step and no nul byte, and its only possible `.` is the root
//!   itself. There is no `..`, so read as text it never leaves the root.
//! - Each of its steps stood between two slashes of the request, never behind a `%2F`.
//!
//! Symbolic links are out of sight here: whoever opens the file decides whether they may be
//! followed (`openat2` with `RESOLVE_BENEATH`). So is how long a name may be.

use std::error::Error;
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use http::StatusCode;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, percent_decode, percent_encode};

/// The file or folder that a request names, relative to the root that is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Target {
    relative: PathBuf,
    wants_directory: bool,
}

impl Target {
    /// Reads the path of a request, which may still carry its query.
    ///
    /// An empty path is the root (RFC 9110, section 4.2.3), and empty steps collapse: `//a///b`
    /// is `a/b`.
    pub(crate) fn parse(path: &str) -> Result<Self, TargetError> {
        let path = path.split_once('?').map_or(path, |(path, _query)| path);
        if !path.is_empty() && !path.starts_with('/') {
            return Err(TargetError::Malformed(
                "the path does not start with a slash",
            ));
        }

        let mut relative = Vec::with_capacity(path.len());
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            let name = decode_segment(segment)?;
            if !relative.is_empty() {
                relative.push(b'/');
            }
            relative.extend_from_slice(&name);
        }

        let wants_directory = relative.is_empty() || path.ends_with('/');
        if relative.is_empty() {
            relative.push(b'.');
        }
        Ok(Self {
            relative: OsString::from_vec(relative).into(),
            wants_directory,
        })
    }

    /// Returns the path below the root; the root itself is `.`.
    pub(crate) fn relative(&self) -> &Path {
        &self.relative
    }

    /// Tells whether the request named a folder: its path ended with a slash.
    pub(crate) fn wants_directory(&self) -> bool {
        self.wants_directory
    }

    /// Returns the path at which this folder is listed, for a `Location`.
    ///
    /// Built from the target rather than by adding a slash to what was asked for: a `Location` of
    /// `//host/` or `/\host/` would send the client to another server.
    pub(crate) fn directory_location(&self) -> String {
        let mut location = String::from("/");
        for step in self.relative.iter().filter(|step| *step != ".") {
            location.extend(encode_segment(step.as_bytes()));
            location.push('/');
        }
        location
    }
}

/// Encodes one name as one step of a path, so that [`Target::parse`] reads the same name again.
///
/// The outcome consists of unreserved characters and `%`, which makes it safe inside an HTML
/// attribute too. It may be `.` or `..`, which no encoding keeps from being read as such.
pub(crate) fn encode_segment(name: &[u8]) -> PercentEncode<'_> {
    percent_encode(name, RESERVED)
}

/// Why a path names nothing that could be served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TargetError {
    /// No file can have this path, or its percent encoding is broken: 400.
    Malformed(&'static str),
    /// The path tries to steer through the folders by other means than plain names: 403.
    Traversal(&'static str),
}

impl TargetError {
    /// Returns the status that answers such a request.
    pub(crate) fn status(self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::Traversal(_) => StatusCode::FORBIDDEN,
        }
    }
}

impl fmt::Display for TargetError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(reason) | Self::Traversal(reason) => formatter.write_str(reason),
        }
    }
}

impl Error for TargetError {}

/// Decodes one step and refuses what is not the plain name of a file.
fn decode_segment(segment: &str) -> Result<Vec<u8>, TargetError> {
    // `percent_decode` passes a broken escape on as it stands, so it has to be found beforehand.
    let mut escapes = segment.as_bytes().split(|byte| *byte == b'%').skip(1);
    let is_complete = |escape: &[u8]| {
        escape.len() >= 2 && escape[0].is_ascii_hexdigit() && escape[1].is_ascii_hexdigit()
    };
    if !escapes.all(is_complete) {
        return Err(TargetError::Malformed(
            "a percent sign lacks its two hexadecimal digits",
        ));
    }

    let name: Vec<u8> = percent_decode(segment.as_bytes()).collect();
    if name.contains(&0) {
        return Err(TargetError::Malformed("the path contains a nul byte"));
    }
    if name.contains(&b'/') {
        return Err(TargetError::Traversal("the path contains an encoded slash"));
    }
    if name == b"." || name == b".." {
        return Err(TargetError::Traversal("the path contains a dot segment"));
    }
    Ok(name)
}

/// Everything but the unreserved characters of RFC 3986, section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes of the relative path, and whether a folder is wanted.
    fn parsed(path: &str) -> (Vec<u8>, bool) {
        let target = Target::parse(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
        let relative = target.relative().as_os_str().as_bytes().to_vec();
        (relative, target.wants_directory())
    }

    fn status(path: &str) -> u16 {
        let error = Target::parse(path).expect_err(path);
        error.status().as_u16()
    }

    #[test]
    fn a_path_becomes_the_relative_path_of_its_names() {
        let cases: &[(&str, &[u8], bool)] = &[
            ("/a", b"a", false),
            ("/a/b.txt", b"a/b.txt", false),
            ("/a/b/", b"a/b", true),
            ("/a%20b/%c3%A9", b"a b/\xc3\xa9", false),
            ("/é", b"\xc3\xa9", false),
            ("/a+b", b"a+b", false),
            ("/...", b"...", false),
            ("/.hidden", b".hidden", false),
            ("/..a/a..", b"..a/a..", false),
            ("/-rf", b"-rf", false),
            ("/a\\..\\b", b"a\\..\\b", false),
            ("/~root/*", b"~root/*", false),
        ];
        for (path, relative, wants_directory) in cases {
            let expected = (relative.to_vec(), *wants_directory);
            assert_eq!(parsed(path), expected, "{path}");
        }
    }

    #[test]
    fn the_root_is_a_dot_and_a_directory() {
        for path in ["", "/", "//", "///", "?", "/?a=b", "//?"] {
            assert_eq!(parsed(path), (b".".to_vec(), true), "{path:?}");
        }
    }

    #[test]
    fn empty_segments_collapse() {
        assert_eq!(parsed("//etc/passwd"), (b"etc/passwd".to_vec(), false));
        assert_eq!(parsed("/a///b//"), (b"a/b".to_vec(), true));
    }

    #[test]
    fn the_query_is_cut_off_before_anything_is_decoded() {
        assert_eq!(parsed("/a?b=/../%zz%00"), (b"a".to_vec(), false));
        assert_eq!(parsed("/a/?b?c"), (b"a".to_vec(), true));
        assert_eq!(parsed("/a?b/"), (b"a".to_vec(), false));
        assert_eq!(parsed("/a%3Fb"), (b"a?b".to_vec(), false));
    }

    #[test]
    fn names_are_bytes_and_need_not_be_text() {
        assert_eq!(parsed("/%ff%FE%0a%80"), (b"\xff\xfe\n\x80".to_vec(), false));
        // An overlong slash is two bytes of a name and not a slash.
        assert_eq!(parsed("/..%c0%af"), (b"..\xc0\xaf".to_vec(), false));
    }

    #[test]
    fn a_path_is_decoded_once() {
        assert_eq!(parsed("/%252e%252e/%252f"), (b"%2e%2e/%2f".to_vec(), false));
    }

    #[test]
    fn dot_segments_are_forbidden_however_they_are_written() {
        let paths =
            "/.. /../ /. /./ /a/../b /a/./b /a/.. /%2e /%2e%2E/etc /.%2e /%2e. //..// /a/%2e%2e?b";
        for path in paths.split_whitespace() {
            assert_eq!(status(path), 403, "{path}");
        }
    }

    #[test]
    fn an_encoded_slash_is_forbidden() {
        let paths = "/%2f /a%2Fb /..%2f..%2fetc /a/%2fetc/passwd /%2f%2f";
        for path in paths.split_whitespace() {
            assert_eq!(status(path), 403, "{path}");
        }
    }

    #[test]
    fn broken_percent_encoding_is_malformed() {
        for path in [
            "/%", "/a%", "/%2", "/%2/e", "/%zz", "/%2g", "/%g2", "/%%41", "/%41%4", "/% 1",
        ] {
            assert_eq!(status(path), 400, "{path}");
        }
    }

    #[test]
    fn a_nul_byte_is_malformed() {
        for path in ["/%00", "/a%00.html", "/a/b%00/c", "/\0"] {
            assert_eq!(status(path), 400, "{path:?}");
        }
    }

    #[test]
    fn a_path_that_does_not_start_with_a_slash_is_malformed() {
        for path in ["*", "a", "a/b", "..", "%2fa", "http://a/"] {
            assert_eq!(status(path), 400, "{path}");
        }
    }

    #[test]
    fn every_name_survives_encoding_and_parsing() {
        let names = (1..=u8::MAX)
            .filter(|byte| *byte != b'/')
            .map(|byte| vec![b'x', byte]);
        for name in names {
            let path = format!("/{}", encode_segment(&name));
            assert_eq!(parsed(&path), (name, false), "{path}");
        }
    }

    #[test]
    fn a_directory_location_stays_on_this_server() {
        for (path, location) in [
            ("/", "/"),
            ("/a", "/a/"),
            ("/a/b/?c", "/a/b/"),
            ("//evil.example", "/evil.example/"),
            ("/\\evil.example", "/%5Cevil.example/"),
            ("/%0d%0aSet-Cookie:a", "/%0D%0ASet-Cookie%3Aa/"),
            ("/%ff é", "/%FF%20%C3%A9/"),
        ] {
            let target = Target::parse(path).expect("the path is well-formed");
            assert_eq!(target.directory_location(), location, "{path}");
        }
    }
}
