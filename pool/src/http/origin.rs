//! Whom a connection is to.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::net::{IpAddr, Ipv6Addr};

use http::uri::{Authority, Scheme};
use http::{HeaderValue, Uri};
use quoit_net::unix::UnixAddress;

use super::Error;

/// What has to be the same for two requests to share a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) is_encrypted: bool,
    /// In lower case; an address of IPv6 without its brackets.
    pub(super) host: String,
    pub(super) port: u16,
    /// The socket it is reached by, in place of its host and port.
    pub(super) unix: Option<UnixAddress>,
    /// What the field `host` says: it follows from the others.
    pub(super) field: HeaderValue,
}

impl Hash for Origin {
    /// Of what tells origins apart most of the time.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.host.hash(state);
        self.port.hash(state);
    }
}

/// Where a URL points to, in the URL's own letters.
#[derive(Debug)]
pub(super) struct Place<'a> {
    is_encrypted: bool,
    host: &'a str,
    port: u16,
}

impl<'a> Place<'a> {
    pub(super) fn of(url: &'a Uri) -> Result<Self, Error> {
        let is_encrypted = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(other) => {
                return refuse(format_args!(
                    "{url}: the scheme {other} is not one of http and https"
                ));
            }
            None => {
                return refuse(format_args!(
                    "{url:?} is no whole URL: write http://host/path or https://host/path"
                ));
            }
        };
        let Some(authority) = url.authority() else {
            return refuse(format_args!("{url} names no host: write http://host/path"));
        };
        if authority.as_str().contains('@') {
            return refuse(format_args!(
                "{url} names a user: say who asks in the field `authorization`"
            ));
        }
        let host = match in_brackets(authority.host()) {
            None => authority.host(),
            Some(address) if address.contains('%') => {
                return refuse(format_args!(
                    "{url} names an interface, which no server is to hear of: name a host, and say where it is with \
                     `ClientBuilder::addresses`"
                ));
            }
            Some(address) if address.parse::<Ipv6Addr>().is_err() => {
                return refuse(format_args!("{url}: [{address}] is no address of IPv6"));
            }
            Some(address) => address,
        };
        if host.is_empty() {
            return refuse(format_args!("{url} names no host: write http://host/path"));
        }
        Ok(Self {
            is_encrypted,
            host,
            port: port_of(url, authority, is_encrypted)?,
        })
    }
}

fn in_brackets(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}

impl Origin {
    pub(super) fn new(place: &Place<'_>, unix: Option<UnixAddress>) -> Self {
        let host = place.host.to_ascii_lowercase();
        let field = host_field(place.is_encrypted, &host, place.port);
        let field = HeaderValue::try_from(field);
        Self {
            is_encrypted: place.is_encrypted,
            host,
            port: place.port,
            unix,
            field: field.expect("what can stand in a URL can stand in a field"),
        }
    }

    /// Returns whether it is there that a URL points to.
    pub(super) fn is_at(&self, place: &Place<'_>) -> bool {
        self.is_encrypted == place.is_encrypted
            && self.port == place.port
            && self.host.eq_ignore_ascii_case(place.host)
    }

    /// Returns the address, if the host is one.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }
}

fn host_field(is_encrypted: bool, host: &str, port: u16) -> String {
    let usual = if is_encrypted { 443 } else { 80 };
    let is_v6 = host.contains(':');
    let (before, after) = if is_v6 { ("[", "]") } else { ("", "") };
    if port == usual {
        format!("{before}{host}{after}")
    } else {
        format!("{before}{host}{after}:{port}")
    }
}

fn port_of(url: &Uri, authority: &Authority, is_encrypted: bool) -> Result<u16, Error> {
    // `Authority::port` knows none where there is one that is too large.
    let behind_host = authority.as_str().strip_prefix(authority.host());
    let text = behind_host.and_then(|behind| behind.strip_prefix(':'));
    match text.unwrap_or_default() {
        "" => Ok(if is_encrypted { 443 } else { 80 }),
        port => match port.parse() {
            Ok(number) if number > 0 && port.bytes().all(|byte| byte.is_ascii_digit()) => {
                Ok(number)
            }
            _ => refuse(format_args!(
                "{url}: {port} is no port: ports are 1 to 65535"
            )),
        },
    }
}

fn refuse<T>(what: fmt::Arguments<'_>) -> Result<T, Error> {
    Err(Error::Request(what.to_string()))
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_encrypted { "https" } else { "http" };
        let place = host_field(self.is_encrypted, &self.host, self.port);
        write!(f, "{scheme}://{place}")?;
        match &self.unix {
            Some(address) => write!(f, " at unix:{address}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(url: &str) -> Result<Origin, Error> {
        let url = url.parse().expect("a URI");
        Ok(Origin::new(&Place::of(&url)?, None))
    }

    #[test]
    fn a_url_says_whom_to_connect_to() {
        let cases = [
            ("http://Test/x", "http://test", "test", 80),
            ("https://test:443/", "https://test", "test", 443),
            ("http://test:81", "http://test:81", "test", 81),
            ("http://[::1]:8080/", "http://[::1]:8080", "::1", 8080),
            ("https://[::1]/", "https://[::1]", "::1", 443),
        ];
        for (url, shown, host, port) in cases {
            let origin = origin(url).expect(url);
            assert_eq!(origin.to_string(), shown);
            assert_eq!((&*origin.host, origin.port), (host, port));
        }
    }

    #[test]
    fn what_is_no_url_of_ours_is_refused_with_what_to_write() {
        let cases = [
            ("/path", "is no whole URL"),
            ("ftp://test/", "is not one of http and https"),
            ("http://me:secret@test/", "`authorization`"),
            ("http://test:0/", "ports are 1 to 65535"),
            ("http://test:99999/", "99999 is no port"),
            ("http://[::1]:65536/", "65536 is no port"),
            ("https://test:+1/", "+1 is no port"),
        ];
        for (url, said) in cases {
            let error = origin(url).expect_err(url).to_string();
            assert!(error.contains(said), "{url}: {error}");
        }
    }
}
