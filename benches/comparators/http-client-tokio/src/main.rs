//! What a request costs the clients of others: hyper-util's own, and reqwest, on a current-thread runtime of
//! tokio, pinned, tuned as they teach. Told the same, and counting the same, as `http_client` of `benches`.
//!
//! All three have hyper below, whose windows for HTTP/2 none of them changes.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::{Request, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::task::JoinSet;

use client_load::{Arguments, Spoken, Tally};

#[path = "../../../src/client_load.rs"]
mod client_load;

/// Which client, and what it shall do.
#[derive(Parser)]
struct Command {
    #[arg(long, value_enum)]
    client: Kind,
    #[command(flatten)]
    load: Arguments,
}

#[derive(Clone, Copy, ValueEnum)]
enum Kind {
    HyperUtil,
    Reqwest,
}

/// One GET: the status, and the length of the body.
trait Get: Clone + Send + 'static {
    fn get(&self) -> impl Future<Output = Result<(u16, usize), String>> + Send;
}

#[derive(Clone)]
struct HyperUtil {
    client: Client<HttpConnector, Empty<Bytes>>,
    uri: Uri,
}

impl HyperUtil {
    fn new(arguments: &Arguments) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_max_idle_per_host(arguments.concurrency)
            .http2_only(arguments.protocol == Spoken::H2)
            .build(connector);
        Self {
            client,
            uri: arguments.url.parse().expect("a URL"),
        }
    }
}

impl Get for HyperUtil {
    async fn get(&self) -> Result<(u16, usize), String> {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = self.uri.clone();
        let answer = self
            .client
            .request(request)
            .await
            .map_err(|e| e.to_string())?;
        let status = answer.status().as_u16();
        let body = answer
            .into_body()
            .collect()
            .await
            .map_err(|e| e.to_string())?;
        Ok((status, body.to_bytes().len()))
    }
}

#[derive(Clone)]
struct Reqwest {
    client: reqwest::Client,
    url: reqwest::Url,
}

impl Reqwest {
    fn new(arguments: &Arguments) -> Self {
        let builder = reqwest::Client::builder()
            .no_proxy()
            .tcp_nodelay(true)
            .pool_max_idle_per_host(arguments.concurrency);
        let builder = match arguments.protocol {
            Spoken::H1 => builder.http1_only(),
            Spoken::H2 => builder.http2_prior_knowledge(),
        };
        Self {
            client: builder.build().expect("a client"),
            url: arguments.url.parse().expect("a URL"),
        }
    }
}

impl Get for Reqwest {
    async fn get(&self) -> Result<(u16, usize), String> {
        let asked = self.client.get(self.url.clone()).send().await;
        let answer = asked.map_err(|e| e.to_string())?;
        let status = answer.status().as_u16();
        let body = answer.bytes().await.map_err(|e| e.to_string())?;
        Ok((status, body.len()))
    }
}

fn main() {
    let command = Command::parse();
    let pinned = core_affinity::set_for_current(core_affinity::CoreId {
        id: command.load.core,
    });
    assert!(pinned, "there is no core {}", command.load.core);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let line = runtime.block_on(async {
        let load = command.load;
        match command.client {
            Kind::HyperUtil => measure("hyper-util", HyperUtil::new(&load), load).await,
            Kind::Reqwest => measure("reqwest", Reqwest::new(&load), load).await,
        }
    });
    println!("{line}");
}

async fn measure(name: &str, client: impl Get, arguments: Arguments) -> String {
    let arguments = Arc::new(arguments);
    ask(&client, &arguments, arguments.warm_up).await;
    let (cpu, begun) = (client_load::processor_time(), Instant::now());
    let tally = ask(&client, &arguments, arguments.seconds).await;
    let (cpu, wall) = (client_load::processor_time() - cpu, begun.elapsed());
    tally.line(name, &arguments, wall, cpu)
}

/// Asks for so long.
async fn ask(client: &impl Get, arguments: &Arc<Arguments>, seconds: f64) -> Arc<Tally> {
    let tally = Arc::new(Tally::new());
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let mut tasks = JoinSet::new();
    for _ in 0..arguments.concurrency {
        let (client, arguments, tally) =
            (client.clone(), Arc::clone(arguments), Arc::clone(&tally));
        tasks.spawn(async move {
            let mut begun = Instant::now();
            while begun < until {
                let (status, length) = client.get().await.expect("an answer");
                client_load::check(status, length, &arguments).expect("the right answer");
                let ended = Instant::now();
                tally.record(ended - begun);
                begun = ended;
            }
        });
    }
    tasks.join_all().await;
    tally
}
