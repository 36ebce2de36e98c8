//! `Arguments`: what `quoit serve` can be told, and what it does if it is not.

use std::io;
use std::net::ToSocketAddrs;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use quoit::Cores;
use quoit_net::Address;
use quoit_net::http::{Builder, Listen, Page, Server, Strictness};
use quoit_net::tls::Identity;
use quoit_net::unix::{UnixAddress, UnixOptions};

use crate::access_log::Format;

/// Serves a folder.
#[derive(Parser, Debug)]
#[command(after_help = SIGNALS)]
pub(crate) struct Arguments {
    /// Where to listen: ADDRESS:PORT, port 0 takes a free one; unix:PATH, or unix:@NAME for an abstract
    /// name. May be given several times
    #[arg(long, value_name = "ADDR", default_value = LISTEN)]
    listen: Vec<String>,
    /// The mode of the files of Unix sockets, in octal: who may write may connect [default: what the
    /// umask leaves]
    #[arg(long, value_name = "MODE", value_parser = mode)]
    unix_mode: Option<u32>,
    /// The folder to serve: the one that is there at the start
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub(crate) root: PathBuf,
    /// Which cores to use: all, or a list such as 0,2-3
    #[arg(long, value_name = "LIST", default_value = "all")]
    cores: Cores,
    /// For how many microseconds a core with nothing to do looks on before it parks: answers come sooner,
    /// and it takes its processor meanwhile. It does so only while that pays
    #[arg(long, value_name = "MICROS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=1_000_000))]
    spin: u64,

    /// A certificate (PEM), with those that vouch for it; TLS is spoken then, and nothing else
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key (PEM) of the certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// Who sees the page on which the server says what it does: nobody else can tell that it is there. A
    /// proxy on this machine makes all its clients local
    #[arg(long, value_name = "WHO", default_value = "local")]
    page: Audience,
    /// Where that page is
    #[arg(long, value_name = "PATH", default_value = "/_quoit/", value_parser = page_path)]
    page_path: String,

    /// A file for a line about each request, or - for standard output; what else there is to say goes to
    /// standard error then. If lines come faster than they are written, the server does not wait: it
    /// leaves some out and says how many [default: none]
    #[arg(long, value_name = "FILE")]
    pub(crate) access_log: Option<PathBuf>,
    /// How the lines are written
    #[arg(
        long,
        value_name = "FORMAT",
        default_value = "combined",
        requires = "access_log"
    )]
    pub(crate) access_log_format: Format,

    /// How many connections a core may have open; more wait in the kernel
    #[arg(long, value_name = "COUNT", default_value_t = 16_384, value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    max_connections: u32,
    /// How many requests may be open at a time on a connection of HTTP/2
    #[arg(long, value_name = "COUNT", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    max_concurrent_streams: u32,
    /// How many bytes the head of a request may have; more is answered with 431
    #[arg(long, value_name = "BYTES", default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1_024..=262_144))]
    max_head: u32,
    /// How many seconds a connection may be open on which nothing is asked
    #[arg(long, value_name = "SECONDS", default_value_t = 75, value_parser = seconds())]
    idle_timeout: u64,
    /// How many seconds a client may take for its first word, and for the head of a request
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = seconds())]
    head_timeout: u64,
    /// How many seconds a client may take nothing of an answer that waits for it
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = seconds())]
    stall_timeout: u64,
    /// How many seconds it may take until an answer begins, such as on a disk that does not respond; then
    /// it is 503 [default: as long as it takes]
    #[arg(long, value_name = "SECONDS", value_parser = seconds())]
    handler_timeout: Option<u64>,
    /// How many seconds a request may take in all; then its answer is cut [default: as long as it takes]
    #[arg(long, value_name = "SECONDS", value_parser = seconds())]
    request_timeout: Option<u64>,
    /// Takes requests that do not say clearly for whom they are, which are refused with 400 otherwise
    #[arg(long)]
    lenient: bool,
    /// How many seconds open requests may take to finish when the server is told to stop
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    pub(crate) grace: u64,
}

const LISTEN: &str = "127.0.0.1:8080";

const SIGNALS: &str = "\
Signals:
  TERM, INT  finish what is open, then stop; the second time stop at once
  HUP        read the certificate again and open the access log again, if there are any
  QUIT       write to standard error who waits for what on each core";

/// Who sees the page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Audience {
    /// Clients on this machine: over loopback or a Unix socket
    Local,
    /// Everybody
    All,
    /// Nobody
    Off,
}

impl Default for Arguments {
    fn default() -> Self {
        Self::parse_from(["serve"])
    }
}

impl Arguments {
    /// Begins the server that was asked for.
    pub(crate) fn server(&self) -> io::Result<Builder<Place>> {
        for (index, text) in self.listen.iter().enumerate() {
            // Of port 0 each is another.
            if self.listen[..index].contains(text) && !text.ends_with(":0") {
                let what = format!("--listen {text} stands there twice");
                return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
            }
        }
        let places: io::Result<Vec<_>> = self.listen.iter().map(|text| place(text)).collect();
        let mut places = places?.into_iter();
        let first = places.next().expect("there is a default");
        let mut server = Server::bind(first)
            .cores(self.cores.clone())
            .spin_before_park(Duration::from_micros(self.spin))
            .max_connections(self.max_connections as usize)
            .max_concurrent_streams(self.max_concurrent_streams)
            .max_head(self.max_head as usize)
            .idle_timeout(Duration::from_secs(self.idle_timeout))
            .head_timeout(Duration::from_secs(self.head_timeout))
            .stall_timeout(Duration::from_secs(self.stall_timeout));
        for place in places {
            server = server.also(place);
        }
        if let Some(mode) = self.unix_mode {
            server = server.unix_options(UnixOptions::new().mode(mode));
        }
        if let Some(timeout) = self.handler_timeout {
            server = server.handler_timeout(Duration::from_secs(timeout));
        }
        if let Some(timeout) = self.request_timeout {
            server = server.request_timeout(Duration::from_secs(timeout));
        }
        if self.lenient {
            server = server.strictness(Strictness::Lenient);
        }
        let page = Page::at(&self.page_path);
        Ok(match self.page {
            Audience::Local => server.page(page),
            Audience::All => server.page(page.for_all()),
            Audience::Off => server,
        })
    }

    /// Reads the certificate, if there is to be one.
    pub(crate) fn identity(&self) -> io::Result<Option<Identity>> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificates), Some(key)) => Identity::from_files(certificates, key).map(Some),
            _ => Ok(None),
        }
    }
}

/// What one `--listen` stands for.
#[derive(Debug)]
pub(crate) struct Place(Vec<Address>);

impl Listen for Place {
    fn addresses(&self) -> io::Result<Vec<Address>> {
        Ok(self.0.clone())
    }
}

fn place(text: &str) -> io::Result<Place> {
    if let Some(name) = text.strip_prefix("unix:") {
        let address = match name.strip_prefix('@') {
            Some(name) => UnixAddress::abstract_name(name),
            None => UnixAddress::path(name),
        };
        if matches!(name, "" | "@") {
            return Err(no_address(text, "it has no name"));
        }
        return Ok(Place(vec![Address::Unix(address)]));
    }
    match text.to_socket_addrs() {
        Ok(found) => Ok(Place(found.map(Address::Tcp).collect())),
        Err(error) => Err(no_address(text, &error.to_string())),
    }
}

fn no_address(text: &str, why: &str) -> io::Error {
    let what = format!(
        "{text:?} is no address to listen on ({why}): write ADDRESS:PORT, such as {LISTEN}, or \
         unix:PATH"
    );
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// A second to a day.
fn seconds() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=86_400)
}

fn mode(text: &str) -> Result<u32, String> {
    match u32::from_str_radix(text, 8) {
        Ok(mode) if mode <= 0o777 => Ok(mode),
        _ => Err("a mode is an octal number up to 777, such as 660".to_owned()),
    }
}

/// What a client can ask for as it stands: nothing that is escaped, and nothing that ends a path.
fn page_path(text: &str) -> Result<String, String> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte);
    if text.starts_with('/') && text.bytes().all(is_plain) {
        return Ok(text.to_owned());
    }
    Err("a path begins with a slash and has no character that a URL would escape".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_options_fit_together() {
        Arguments::command().debug_assert();
        let arguments = Arguments::default();
        assert_eq!(arguments.listen, [LISTEN]);
        assert!(arguments.access_log.is_none());
    }

    #[test]
    fn places_are_told_apart() {
        let addresses = |text| place(text).map(|place| place.0);
        let unix = |address| vec![Address::Unix(address)];
        assert_eq!(
            addresses("127.0.0.1:80").expect("an address"),
            [([127, 0, 0, 1], 80).into()].map(Address::Tcp)
        );
        assert_eq!(
            addresses("unix:/run/a@b").expect("a path"),
            unix(UnixAddress::path("/run/a@b"))
        );
        assert_eq!(
            addresses("unix:@quoit").expect("a name"),
            unix(UnixAddress::abstract_name("quoit"))
        );
        for nonsense in ["", "unix:", "unix:@", "/run/site.sock", "1.2.3.4"] {
            let error = addresses(nonsense).expect_err(nonsense).to_string();
            assert!(error.contains(&format!("{nonsense:?}")), "{error}");
            assert!(error.contains("unix:PATH"), "{error}");
        }
    }
}
