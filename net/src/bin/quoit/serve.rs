//! `quoit serve`: from the command line to the last signal.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use quoit::fs::Folder;
use quoit::signal::{Signal, Signals};
use quoit_net::http::ServerHandle;
use quoit_net::tls::ServerTls;
use quoit_net::{Address, stdio};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::access_log::{AccessLog, Target};
use crate::answer::answer;
use crate::arguments::Arguments;

/// Serves until a signal, and then until what is open has finished.
pub(crate) fn run(arguments: Arguments) -> io::Result<()> {
    allow_descriptors();
    let tls = arguments.identity()?.map(ServerTls::new).transpose()?;
    let mut awaited = vec![Signal::Interrupt, Signal::Terminate, Signal::Quit];
    let logs = arguments.access_log.clone().map(Target::new);
    // With nothing to open or read again it means that the terminal went away.
    if tls.is_some() || logs.as_ref().is_some_and(Target::is_file) {
        awaited.push(Signal::HangUp);
    }
    // Before any thread is started, so that all inherit it.
    let signals = Signals::block(&awaited)?;
    let voice = match logs {
        Some(Target::StandardOutput) => Voice::StandardError,
        Some(Target::File(_)) | None => Voice::StandardOutput,
    };
    let root = existing_folder(&arguments.root)?;
    let mut server = arguments.server()?;
    if let Some(tls) = &tls {
        server = server.tls(tls.clone());
    }
    let format = arguments.access_log_format;
    let log = logs.map(|target| AccessLog::begin(target, format));
    let log = log.transpose()?;
    if let Some(log) = &log {
        server = server.on_answer(log.listener());
    }
    let server = server.serve_with(move |_| {
        let root = root.clone();
        async move {
            let folder = Rc::new(
                Folder::open(&root)
                    .await
                    .map_err(|error| cannot_serve(&root, &error))?,
            );
            Ok(move |request| answer(Rc::clone(&folder), request))
        }
    })?;
    for address in server.local_addrs() {
        match (address, &tls) {
            (Address::Tcp(at), Some(_)) => voice.say(format_args!("listening on https://{at}")),
            (Address::Tcp(at), None) => voice.say(format_args!("listening on http://{at}")),
            (at, Some(_)) => voice.say(format_args!("listening on {at}, with TLS")),
            (at, None) => voice.say(format_args!("listening on {at}")),
        }
    }

    let grace = arguments.grace;
    let program = Arc::new(Program {
        arguments,
        voice,
        tls,
        log,
        server: server.handle(),
    });
    let signal = loop {
        let signal = signals.wait()?;
        if !program.heeds(signal) {
            break signal;
        }
    };
    // Before anything is said: who listens to us may not take it.
    program.server.drain(Duration::from_secs(grace));
    let still_here = Arc::clone(&program);
    std::thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            if !still_here.heeds(signal) {
                std::process::exit(ENDED_AT_ONCE);
            }
        }
    });
    voice.say(format_args!(
        "{signal}: finishing what is open, for {grace} s at most; once more to end at once"
    ));
    let report = server.shutdown(Duration::from_secs(grace));
    if let Some(log) = &program.log {
        log.finish();
    }
    voice.say(format_args!("{}", report?));
    Ok(())
}

/// What signals reach.
#[derive(Debug)]
struct Program {
    arguments: Arguments,
    voice: Voice,
    tls: Option<ServerTls>,
    log: Option<AccessLog>,
    server: ServerHandle,
}

impl Program {
    /// Does what a signal asks for; `false` if that is to end.
    fn heeds(&self, signal: Signal) -> bool {
        match signal {
            Signal::HangUp => {
                self.show_anew();
                self.reopen();
            }
            Signal::Quit => {
                let dump = self.server.dump(PATIENCE);
                stdio::stderr().write(format!("{signal}:\n{dump}"));
            }
            _ => return false,
        }
        true
    }

    /// Reads the certificate again, which may have been renewed. If it cannot be, the old one stays.
    fn show_anew(&self) {
        let Some(tls) = &self.tls else { return };
        let shown = match self.arguments.identity() {
            Ok(identity) => tls.certificates().replace(identity.into_iter().collect()),
            Err(error) => Err(error),
        };
        match shown {
            Ok(()) => self
                .voice
                .say(format_args!("the certificate was read again")),
            Err(error) => crate::complain(format_args!("the certificate stays as it was: {error}")),
        }
    }

    /// Opens the access log again, which may have been moved away. If it cannot be, the old one stays.
    fn reopen(&self) {
        let Some(log) = &self.log else { return };
        match log.reopen() {
            Ok(true) => self
                .voice
                .say(format_args!("the access log was opened again")),
            Ok(false) => {}
            Err(error) => {
                crate::complain(format_args!("the access log stays where it was: {error}"))
            }
        }
    }
}

/// How long a core may take to say what it does.
const PATIENCE: Duration = Duration::from_secs(1);

/// What a shell calls a program that Ctrl-C ended.
const ENDED_AT_ONCE: i32 = 130;

/// Where whoever started us hears of us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Voice {
    StandardOutput,
    /// The other belongs to the access log.
    StandardError,
}

impl Voice {
    /// Says something; whether anybody listens is no matter of the server's.
    fn say(self, what: fmt::Arguments<'_>) {
        let stream = match self {
            Self::StandardOutput => stdio::stdout(),
            Self::StandardError => stdio::stderr(),
        };
        stream.write(format!("{what}\n"));
    }
}

/// Takes all the descriptors that this process may give itself. The usual 1024 are for programs with `select(2)`.
fn allow_descriptors() {
    let most = getrlimit(Resource::Nofile).maximum;
    let raised = Rlimit {
        current: most,
        maximum: most,
    };
    // Where that is more than the kernel gives anybody, those that there were have to do.
    let _ = setrlimit(Resource::Nofile, raised);
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
