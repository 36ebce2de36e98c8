//! `quoit serve`: from the command line to the last signal.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use clap::Parser;
use quoit::Cores;
use quoit::fs::Folder;
use quoit::signal::{Signal, Signals};
use quoit_net::http::Server;
use quoit_net::tls::{Identity, ServerTls};

use crate::answer::answer;

/// Serves a folder.
#[derive(Parser, Debug)]
pub(crate) struct Arguments {
    /// Where to listen, as ADDRESS:PORT; port 0 takes a free one
    #[arg(long, value_name = "ADDR", default_value = LISTEN)]
    listen: String,
    /// The folder to serve
    #[arg(long, value_name = "DIR", default_value = ROOT)]
    root: PathBuf,
    /// Which cores to use: all, or a list such as 0,2-3
    #[arg(long, value_name = "LIST", default_value = "all")]
    cores: Cores,
    /// How many seconds open requests may take to finish when the server is told to stop
    #[arg(long, value_name = "SECONDS", default_value_t = GRACE)]
    grace: u64,
    /// How many seconds a client may take to send the head of its next request
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    head_timeout: u64,
    /// How many seconds a client may take nothing of an answer that waits for it
    #[arg(long, value_name = "SECONDS", default_value_t = PATIENCE, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    stall_timeout: u64,
    /// A certificate (PEM), with those that vouch for it; TLS is spoken then, and nothing else
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key (PEM) of the certificate
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
}

const LISTEN: &str = "127.0.0.1:8080";
const ROOT: &str = ".";
const GRACE: u64 = 10;
const PATIENCE: u64 = 30;

impl Default for Arguments {
    fn default() -> Self {
        Self {
            listen: LISTEN.to_owned(),
            root: ROOT.into(),
            cores: Cores::All,
            grace: GRACE,
            head_timeout: PATIENCE,
            stall_timeout: PATIENCE,
            tls_cert: None,
            tls_key: None,
        }
    }
}

/// Serves until a signal, and then until what is open has finished.
pub(crate) fn run(arguments: &Arguments) -> io::Result<()> {
    // Before any thread is started, so that all inherit it.
    let tls = arguments.identity()?.map(ServerTls::new).transpose()?;
    let mut awaited = vec![Signal::Interrupt, Signal::Terminate];
    // Without a certificate to read again it means that the terminal went away.
    awaited.extend(tls.as_ref().map(|_| Signal::HangUp));
    let signals = Signals::block(&awaited)?;
    let root = existing_folder(&arguments.root)?;
    let mut server = Server::bind(&*arguments.listen)
        .cores(arguments.cores.clone())
        .head_timeout(Duration::from_secs(arguments.head_timeout))
        .stall_timeout(Duration::from_secs(arguments.stall_timeout));
    if let Some(tls) = &tls {
        server = server.tls(tls.clone());
    }
    let server = server
        .serve_with(move |_| {
            let root = root.clone();
            async move {
                let folder = Rc::new(
                    Folder::open(&root)
                        .await
                        .map_err(|error| cannot_serve(&root, &error))?,
                );
                Ok(move |request| answer(Rc::clone(&folder), request))
            }
        })
        .map_err(|error| explain_address(&arguments.listen, error))?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    say(format_args!(
        "listening on {scheme}://{}",
        server.local_addr()
    ));

    let signal = loop {
        match signals.wait()? {
            Signal::HangUp => show_anew(arguments, tls.as_ref()),
            signal => break signal,
        }
    };
    say(format_args!(
        "{signal}: finishing what is open, for {} s at most; once more to end at once",
        arguments.grace
    ));
    std::thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            if signal != Signal::HangUp {
                std::process::exit(ENDED_AT_ONCE);
            }
        }
    });
    let report = server.shutdown(Duration::from_secs(arguments.grace))?;
    say(format_args!("{report}"));
    Ok(())
}

impl Arguments {
    fn identity(&self) -> io::Result<Option<Identity>> {
        match (&self.tls_cert, &self.tls_key) {
            (Some(certificates), Some(key)) => Identity::from_files(certificates, key).map(Some),
            _ => Ok(None),
        }
    }
}

/// Reads the certificate again, which may have been renewed. If it cannot be, the old one stays.
fn show_anew(arguments: &Arguments, tls: Option<&ServerTls>) {
    let Some(tls) = tls else { return };
    let shown = match arguments.identity() {
        Ok(identity) => tls.certificates().replace(identity.into_iter().collect()),
        Err(error) => Err(error),
    };
    match shown {
        Ok(()) => say(format_args!("the certificate was read again")),
        Err(error) => eprintln!("quoit: the certificate stays as it was: {error}"),
    }
}

/// What a shell calls a program that Ctrl-C ended.
const ENDED_AT_ONCE: i32 = 130;

/// Says something to whoever started us; a closed standard output is no reason to stop serving.
fn say(what: fmt::Arguments<'_>) {
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{what}").and_then(|()| out.flush());
}

fn existing_folder(root: &Path) -> io::Result<PathBuf> {
    let found = std::fs::canonicalize(root).map_err(|error| cannot_serve(root, &error))?;
    if found.is_dir() {
        return Ok(found);
    }
    Err(cannot_serve(root, &io::ErrorKind::NotADirectory.into()))
}

fn cannot_serve(root: &Path, error: &io::Error) -> io::Error {
    io::Error::new(
        error.kind(),
        format!("cannot serve the folder {}: {error}", root.display()),
    )
}

fn explain_address(listen: &str, error: io::Error) -> io::Error {
    let is_ours = error
        .get_ref()
        .is_some_and(|inner| inner.to_string().starts_with("cannot "));
    if is_ours || error.kind() != io::ErrorKind::InvalidInput {
        return error;
    }
    io::Error::new(
        error.kind(),
        format!(
            "{listen:?} is no address to listen on ({error}): write ADDRESS:PORT, such as {LISTEN}"
        ),
    )
}
