//! A server in a process of its own: started on an address that nobody else has, counted from outside, killed.

use std::fmt;
use std::fs;
use std::io::{self, BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{LazyLock, mpsc};
use std::thread;
use std::time::Duration;

use http::Version;
use quoit_net::tls::ClientTls;
use quoit_pool::http::{Client, ClientBuilder};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use tempfile::TempDir;
use tests::http_client::until;

use crate::upstream::Upstream;

/// Whose server it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Nginx,
    Node,
    Python,
}

/// A server, and where it is.
#[derive(Debug)]
pub(crate) struct Partner {
    kind: Kind,
    /// How many requests it answers on a connection; 0: any number.
    requests: usize,
    folder: TempDir,
    /// Whom its clients have to trust.
    certificate: String,
    ip: Ipv4Addr,
    port: u16,
    /// What is behind nginx.
    upstream: Option<Upstream>,
    child: Child,
}

/// How a client speaks to a server.
#[derive(Clone)]
pub(crate) struct Way {
    pub(crate) kind: Kind,
    pub(crate) url: String,
    pub(crate) version: Version,
    address: SocketAddr,
    certificate: String,
}

/// Longer than a machine under load needs for a request.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server has up to so many ports.
const PORTS: u16 = 4;

impl Kind {
    /// How its process is begun; `None`, and a word about it, if it is not installed.
    fn command(self) -> Option<Command> {
        let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
        let ours = tests.join("servers/partners");
        // A server ends with the thread that has started it, whatever becomes of that.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL"]);
        let mut look = Command::new("setpriv");
        let program = match self {
            Self::Nginx => {
                // Where it is, which is not on the path of everybody.
                look.args(["/usr/sbin/nginx", "-v"]);
                command.arg("/usr/sbin/nginx");
                None
            }
            Self::Node => {
                look.args(["node", "--version"]);
                command.arg("node");
                Some("server.mjs")
            }
            Self::Python => {
                let python: PathBuf = tests.join("../target/partners/python/bin/python");
                look.arg(&python).args(["-c", "import hypercorn"]);
                command.arg(python);
                Some("server.py")
            }
        };
        command.args(program.map(|program| ours.join(program)));
        look.stdin(Stdio::null()).stdout(Stdio::null());
        let found = look.stderr(Stdio::null()).status();
        if found.is_ok_and(|status| status.success()) {
            return Some(command);
        }
        println!("left out: there is no {self:?} server here (.ci/setup installs it)");
        None
    }
}

/// An address of the loopback network that no other process has, and ports that no other test has.
fn place() -> (Ipv4Addr, u16) {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let [_, high, middle, low] = std::process::id().to_be_bytes();
    let ip = Ipv4Addr::new(127, 64 | high, middle, low);
    // Below those that the kernel gives to clients.
    (ip, 20_000 + PORTS * NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Partner {
    /// Starts a server that ends a connection in order after so many requests, or never for 0. `None` if it is
    /// not installed.
    pub(crate) fn start(kind: Kind, requests: usize) -> Option<Self> {
        let command = kind.command()?;
        let folder = tempfile::tempdir().expect("a folder");
        let CertifiedKey { cert, signing_key } =
            generate_simple_self_signed(["site.test".to_owned()]).expect("a certificate");
        let certificate = cert.pem();
        fs::write(folder.path().join("cert.pem"), &certificate).expect("a new file");
        let key = signing_key.serialize_pem();
        fs::write(folder.path().join("key.pem"), key).expect("a new file");
        let (ip, port) = place();
        let upstream = (kind == Kind::Nginx).then(Upstream::start);
        if let Some(upstream) = &upstream {
            let requests = if requests == 0 { 1_000_000 } else { requests };
            let config = include_str!("partners/nginx.conf")
                .replace("FOLDER", &folder.path().display().to_string())
                .replace("ADDRESS", &ip.to_string())
                .replace("PORT_CLEAR", &port.to_string())
                .replace("PORT_TLS", &(port + 1).to_string())
                .replace("PORT_PRIOR", &(port + 3).to_string())
                .replace("UPSTREAM", &upstream.address().to_string())
                .replace("REQUESTS", &requests.to_string());
            fs::write(folder.path().join("nginx.conf"), config).expect("a new file");
        }
        let child = begin(command, kind, (ip, port), folder.path(), requests);
        Some(Self {
            kind,
            requests,
            folder,
            certificate,
            ip,
            port,
            upstream,
            child,
        })
    }

    /// Kills it with SIGKILL, and waits for that.
    pub(crate) fn kill(&mut self) {
        self.child.kill().expect("it runs, or has ended");
        self.child.wait().expect("it is ours");
    }

    /// Starts it again where it was; it was killed.
    pub(crate) fn start_again(&mut self) {
        let command = self.kind.command().expect("it was here");
        let place = (self.ip, self.port);
        self.child = begin(command, self.kind, place, self.folder.path(), self.requests);
    }

    /// Every way to speak to it.
    pub(crate) fn ways(&self) -> Vec<Way> {
        let (one, two) = (Version::HTTP_11, Version::HTTP_2);
        let ways: [(&str, u16, Version); 4] = match self.kind {
            Kind::Nginx => [
                ("http", 0, one),
                ("http", 3, two),
                ("https", 1, one),
                ("https", 1, two),
            ],
            Kind::Node => [
                ("http", 0, one),
                ("http", 3, two),
                ("https", 1, one),
                ("https", 2, two),
            ],
            Kind::Python => [
                ("http", 0, one),
                ("http", 0, two),
                ("https", 1, one),
                ("https", 1, two),
            ],
        };
        let ways = ways.into_iter().map(|(scheme, offset, version)| {
            let address = SocketAddr::new(IpAddr::V4(self.ip), self.port + offset);
            Way {
                kind: self.kind,
                url: match scheme {
                    "https" => "https://site.test".to_owned(),
                    _ => format!("http://{address}"),
                },
                version,
                address,
                certificate: self.certificate.clone(),
            }
        });
        ways.collect()
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        self.kill();
        if let Some(upstream) = self.upstream.take() {
            upstream.end();
        }
    }
}

/// Starts the process, and returns when it listens.
fn begin(
    mut command: Command,
    kind: Kind,
    (ip, port): (Ipv4Addr, u16),
    folder: &Path,
    requests: usize,
) -> Child {
    command.stdin(Stdio::null());
    if kind == Kind::Nginx {
        command.arg("-p").arg(folder);
        command.arg("-e").arg(folder.join("error.log"));
        command.arg("-c").arg(folder.join("nginx.conf"));
        let mut child = spawn(command);
        let listens = |offset| TcpStream::connect((ip, port + offset)).is_ok();
        until(|| {
            let ended = child.try_wait().expect("it is ours");
            let said = || fs::read_to_string(folder.join("error.log"));
            assert!(ended.is_none(), "nginx: {ended:?} {:?}", said());
            listens(0) && listens(1) && listens(3)
        });
        return child;
    }
    command.args([ip.to_string(), port.to_string()]);
    command.arg(folder).arg(requests.to_string());
    command.stdout(Stdio::piped());
    let mut child = spawn(command);
    let mut said = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    output.read_line(&mut said).expect("a pipe");
    assert_eq!(said, "ready\n", "{kind:?}");
    child
}

/// Starts a process on a thread that is there until this process ends: then, and not before, the kernel kills it.
fn spawn(command: Command) -> Child {
    type Wanted = (Command, mpsc::Sender<io::Result<Child>>);
    static STARTER: LazyLock<mpsc::Sender<Wanted>> = LazyLock::new(|| {
        let (sender, wanted) = mpsc::channel::<Wanted>();
        drop(thread::spawn(move || {
            for (mut command, reply) in wanted {
                reply.send(command.spawn()).expect("it is waited for");
            }
        }));
        sender
    });
    let (reply, started) = mpsc::channel();
    STARTER.send((command, reply)).expect("it goes on");
    let started = started.recv().expect("it answers");
    started.expect("it is installed")
}

impl Way {
    /// A client that speaks so, closes nothing by itself, and is patient.
    pub(crate) fn client(&self) -> ClientBuilder {
        let trusted = ClientTls::trusting(self.certificate.as_bytes());
        let builder = Client::builder()
            .idle_timeout(None)
            .pool_timeout(PATIENCE)
            .connect_timeout(PATIENCE)
            .timeout(PATIENCE)
            .tls(trusted.expect("a root"))
            .addresses("site.test", &[self.address]);
        match self.version {
            Version::HTTP_11 => builder.http1_only(),
            _ if self.is_encrypted() => builder,
            _ => builder.http2_prior_knowledge(),
        }
    }

    fn is_encrypted(&self) -> bool {
        self.url.starts_with("https")
    }

    /// Waits until the server has no connection any more.
    pub(crate) async fn is_left(&self) {
        let what = format!("the server has none: {self:?}");
        crate::until(&what, || self.open_connections() == 0).await;
    }

    /// How many connections are open on the server's side, as the kernel sees it: those that nobody has ended.
    /// hypercorn closes its side when they would have been idle for too long, whatever its clients say.
    pub(crate) fn open_connections(&self) -> usize {
        const ESTABLISHED: &str = "01";
        let SocketAddr::V4(address) = self.address else {
            unreachable!("it is one of the loopback network");
        };
        let ip = u32::from_ne_bytes(address.ip().octets());
        let place = format!("{ip:08X}:{:04X}", address.port());
        let table = fs::read_to_string("/proc/net/tcp").expect("the kernel's table");
        let is_open = |line: &&str| {
            let mut fields = line.split_whitespace().skip(1);
            fields.next() == Some(&place) && fields.nth(1) == Some(ESTABLISHED)
        };
        table.lines().filter(is_open).count()
    }
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} over {:?} at {}", self.kind, self.version, self.url)
    }
}
