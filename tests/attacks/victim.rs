//! The server that is attacked, in a process of its own: this program, run again for the same test.
//!
//! It is asked for its figures through its standard input, and ends when that does.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use quoit::Cores;
use quoit::metrics::CountKind;
use quoit::time::sleep;
use quoit_net::http::{Builder, Incoming, Server};
use quoit_net::tcp::TcpOptions;
use quoit_net::tls::{Identity, ServerTls};
use tests::Again;
use tests::http_client::pause;

/// Which test a process was started for.
const STARTED_FOR: &str = "QUOIT_ATTACKED";
/// What the server shows to clients of TLS.
const CERTIFICATE: &str = "QUOIT_ATTACKED_CERTIFICATE";
const KEY: &str = "QUOIT_ATTACKED_KEY";

/// A time that no attack waits for.
pub(crate) const LONG: Duration = Duration::from_secs(3600);
/// A limit that attacks are to meet.
pub(crate) const SHORT: Duration = Duration::from_secs(3);

/// How large the answer to `/large` is: more than all buffers between two sockets hold.
pub(crate) const LARGE: usize = 32 << 20;

/// Numbers by name; those that have labels, by name and label.
pub(crate) type Figures = BTreeMap<String, u64>;

/// How a server's process shall be.
pub(crate) struct Setup {
    /// What the server is to be, beyond what all are.
    pub(crate) server: fn(Builder<&'static str>) -> Builder<&'static str>,
    /// How many descriptors it may have.
    pub(crate) descriptors: Option<u32>,
    /// Whether it speaks TLS.
    pub(crate) tls: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            server: |builder| builder,
            descriptors: None,
            tls: false,
        }
    }
}

/// A server in another process.
pub(crate) struct Victim {
    process: Again,
    pub(crate) address: SocketAddr,
    /// What its clients have to trust.
    pub(crate) certificate: String,
}

/// Runs an attack on a server of this kind; `test` is the name of the calling test, with its module.
pub(crate) fn attacked(test: &str, setup: Setup, attack: impl FnOnce(&mut Victim)) {
    if env::var(STARTED_FOR).is_ok_and(|name| name == test) {
        return serve(&setup);
    }
    // They would slow each other down, and not evenly.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut victim = Victim::start(test, &setup);
    attack(&mut victim);
    victim.process.end();
}

impl Victim {
    fn start(test: &str, setup: &Setup) -> Self {
        let key = rcgen::KeyPair::generate().expect("a key");
        let params = rcgen::CertificateParams::new(["site.test".to_owned()]).expect("a name");
        let certificate = params.self_signed(&key).expect("a certificate").pem();
        let mut command = match setup.descriptors {
            None => Again::command(test),
            Some(most) => {
                let mut shell = Command::new("sh");
                shell.args(["-c", &format!("ulimit -n {most}; exec \"$0\" \"$@\"")]);
                shell.arg(env::current_exe().expect("this program has a path"));
                shell.args(Again::arguments(test));
                shell
            }
        };
        command
            .env(STARTED_FOR, test)
            .env(CERTIFICATE, &certificate)
            .env(KEY, key.serialize_pem());
        let mut process = Again::start(&mut command);
        let address = process.line_behind("@address ");
        Self {
            process,
            address: address.parse().expect("an address"),
            certificate,
        }
    }

    /// Returns what the server says of itself, all cores together.
    pub(crate) fn figures(&mut self) -> Figures {
        self.ask("figures")
    }

    /// Returns its gauges: what there is now.
    pub(crate) fn gauges(&mut self) -> Figures {
        self.ask("gauges")
    }

    fn ask(&mut self, what: &str) -> Figures {
        self.process.tell(what);
        let line = self.process.line_behind("@figures ");
        line.split_whitespace()
            .map(|figure| {
                let (name, value) = figure.split_once('=').expect("a name and a number");
                (name.to_owned(), value.parse().expect("a number"))
            })
            .collect()
    }

    /// Returns how much memory its process has had resident at the most, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        self.status("VmHWM:")
    }

    /// Returns how much memory its process has resident, in KiB.
    pub(crate) fn resident_kib(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// Forgets the most that it has had resident, so that it is found anew (`proc_pid_clear_refs(5)`).
    pub(crate) fn forget_peak(&self) {
        let path = format!("/proc/{}/clear_refs", self.process.id());
        fs::write(path, "5").expect("it is ours");
    }

    fn status(&self, name: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.id());
        let status = fs::read_to_string(path).expect("it runs");
        let line = status.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line[name.len()..].split_whitespace().next());
        value.and_then(|kib| kib.parse().ok()).expect("a number")
    }

    /// Returns how many descriptors it has open.
    pub(crate) fn descriptors(&self) -> usize {
        let folder = format!("/proc/{}/fd", self.process.id());
        fs::read_dir(folder).expect("it runs").count()
    }

    /// Waits until what there is, is what there was.
    pub(crate) fn is_as_before(&mut self, before: &Figures) {
        for _ in 0..3000 {
            if self.gauges() == *before {
                return;
            }
            pause(Duration::from_millis(20));
        }
        let now = self.gauges();
        let left: Vec<_> = now
            .iter()
            .filter(|(name, n)| before[*name] != **n)
            .collect();
        panic!("something is left: {left:?}, where there was {before:?}");
    }
}

/// The life of the other process.
fn serve(setup: &Setup) {
    let troubles = Arc::new(AtomicU64::new(0));
    let told = Arc::clone(&troubles);
    let builder = Server::bind("127.0.0.1:0")
        .cores(Cores::Count(1))
        .options(TcpOptions::new().backlog(1024))
        .head_timeout(LONG)
        .body_timeout(LONG)
        .stall_timeout(LONG)
        .on_trouble(move |_| {
            told.fetch_add(1, Ordering::Relaxed);
        });
    let mut builder = (setup.server)(builder);
    if setup.tls {
        let [certificate, key] = [CERTIFICATE, KEY].map(|name| env::var(name).expect("it is set"));
        let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes());
        let tls = ServerTls::new(identity.expect("both belong together"));
        builder = builder.tls(tls.expect("an identity"));
    }
    let server = builder.serve(answer).expect("a server");
    println!("\n@address {}", server.local_addr());
    for command in std::io::stdin().lines() {
        let only_gauges = command.expect("text") == "gauges";
        let mut figures = Figures::new();
        for core in server.snapshot().cores {
            for count in core.counts {
                if only_gauges && count.kind != CountKind::Gauge {
                    continue;
                }
                let label = count
                    .label
                    .map_or(String::new(), |(_, value)| format!("_{value}"));
                *figures.entry(format!("{}{label}", count.name)).or_default() += count.value;
            }
        }
        if !only_gauges {
            figures.insert("troubles".to_owned(), troubles.load(Ordering::Relaxed));
        }
        let figures: Vec<_> = figures
            .iter()
            .map(|(name, n)| format!("{name}={n}"))
            .collect();
        println!("\n@figures {}", figures.join(" "));
    }
    server
        .shutdown(Duration::ZERO)
        .expect("every core ended well");
}

/// Answers as the path says: `/echo` with the request's body, once all of it came, `/count` with its
/// size, `/wait` never, `/large` with much, anything else with the path.
async fn answer(
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    static MUCH: [u8; LARGE] = [b'x'; LARGE];
    let path = request.uri().path().to_owned();
    let body = match path.as_str() {
        "/echo" => request.into_body().collect().await?.to_bytes(),
        "/count" => {
            let mut body = request.into_body();
            let mut count = 0;
            while let Some(frame) = body.frame().await {
                count += frame?.data_ref().map_or(0, Bytes::len);
            }
            count.to_string().into()
        }
        "/wait" => {
            sleep(LONG).await?;
            Bytes::new()
        }
        // Takes no memory for each who asks.
        "/large" => Bytes::from_static(&MUCH),
        _ => path.into(),
    };
    Ok(Response::new(Full::new(body)))
}
