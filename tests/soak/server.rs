//! The server's process: two servers, the book, and what it says of itself when it is asked.

use std::error::Error;
use std::io::{BufWriter, Write};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;
use std::{env, io};

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, Full};
use quoit::metrics::CountKind;
use quoit::time::sleep;
use quoit::{CoreId, Cores, Handle, on, yield_now};
use quoit_net::http::body::{self, Sender};
use quoit_net::http::{Answered, Incoming, Server, Upgraded, upgrade};
use quoit_net::tls::{Identity, ServerTls};
use tests::{bytes, descriptors, resident_kib, threads};

use crate::book::{Book, Handling};
use crate::questions::{MAX_BODY, PIECE, Question, What};

/// What the server shows to clients of TLS.
pub(crate) const CERTIFICATE: &str = "QUOIT_SOAK_CERTIFICATE";
pub(crate) const KEY: &str = "QUOIT_SOAK_KEY";

/// How long the end may take: nobody is there any more.
const GRACE: Duration = Duration::from_secs(30);

type BoxError = Box<dyn Error + Send + Sync>;
type Answer = Response<Pin<Box<dyn Body<Data = Bytes, Error = BoxError>>>>;

/// Serves until nobody asks for anything any more; `numbers` is how many there will be.
pub(crate) fn live(numbers: &str) {
    let book = Arc::new(Book::of(numbers.parse().expect("a number")));
    let [certificate, key] = [CERTIFICATE, KEY].map(|name| env::var(name).expect("it is set"));
    let identity = Identity::from_pem(certificate.as_bytes(), key.as_bytes());
    let tls = ServerTls::new(identity.expect("both belong together")).expect("an identity");
    let servers = [serve(&book, None), serve(&book, Some(tls))];
    let [clear, encrypted] = &servers;
    println!(
        "\n@addresses {} {}",
        clear.local_addr(),
        encrypted.local_addr()
    );
    for command in io::stdin().lines() {
        match command.expect("text").as_str() {
            "look" => println!("@look {}", look(&servers)),
            "counters" => println!("@counters {}", counters(&servers)),
            "dump" => println!("{}\n@dumped", dumps(&servers)),
            "book" => print_book(&book).expect("somebody reads"),
            unknown => panic!("{unknown} is nothing to ask for"),
        }
    }
    for server in servers {
        let report = server.shutdown(GRACE).expect("every core ended well");
        assert_eq!(report.cut, 0, "somebody was still there");
    }
}

fn serve(book: &Arc<Book>, tls: Option<ServerTls>) -> Server {
    let (told, handled) = (Arc::clone(book), Arc::clone(book));
    let mut builder = Server::bind("127.0.0.1:0")
        .cores(Cores::Count(2))
        .max_body(MAX_BODY)
        .on_trouble(|_| {})
        .on_answer(move |answered: &Answered<'_>| {
            let question = Question::of_path(answered.uri.path()).expect("all ask properly");
            let status = answered.status.map_or(0, |status| status.as_u16());
            told.tell(question.number, status, answered.whole);
        });
    if let Some(tls) = tls {
        builder = builder.tls(tls);
    }
    let server = builder.serve(move |request| handle(request, Arc::clone(&handled)));
    server.expect("a server")
}

async fn handle(mut request: Request<Incoming>, book: Arc<Book>) -> Result<Answer, BoxError> {
    let question = Question::of_path(request.uri().path()).ok_or("what?")?;
    let handling = book.begin(question.number);
    match question.what {
        What::Sum => {
            let body = request.into_body().collect().await?.to_bytes();
            Ok(text(question.text(&body)))
        }
        What::Elsewhere => {
            let other = another_core();
            let answer = on(other, move || async move {
                yield_now().await?;
                Ok::<_, io::Error>(question.text(b""))
            });
            Ok(text(answer.await?))
        }
        What::Wait => {
            sleep(Duration::from_millis(question.size as u64)).await?;
            Ok(text(question.text(b"")))
        }
        What::Fail => Err("as asked for".into()),
        // Without a word on standard error.
        What::Panic => std::panic::resume_unwind(Box::new("as asked for")),
        What::Mirror => Ok(made(async move |sender: Sender| {
            mirror(request.into_body(), sender, handling).await
        })),
        What::Pieces => Ok(made(async move |sender: Sender| {
            let _handling = handling;
            for piece in bytes(question.size, question.number).chunks(PIECE) {
                sender.send(piece.to_vec()).await?;
            }
            Ok(())
        })),
        What::Cut => Ok(made(async move |sender: Sender| {
            let _handling = handling;
            sender.send(bytes(PIECE, question.number)).await?;
            Err("as asked for".into())
        })),
        What::Upgrade => {
            upgrade(&mut request, async move |stream: Upgraded| {
                echo(stream, handling).await;
            })?;
            let mut answer = text(Vec::new());
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let fields = answer.headers_mut();
            fields.insert(CONNECTION, "upgrade".parse()?);
            fields.insert(UPGRADE, "echo".parse()?);
            Ok(answer)
        }
    }
}

fn another_core() -> CoreId {
    let here = CoreId::current();
    let cores = Handle::current().expect("on a core").cores();
    let other = cores.into_iter().find(|core| Some(*core) != here);
    other.expect("there are two")
}

async fn mirror(mut body: Incoming, sender: Sender, handling: Handling) -> Result<(), BoxError> {
    let _handling = handling;
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            sender.send(data).await?;
        }
    }
    Ok(())
}

async fn echo(stream: Upgraded, handling: Handling) {
    let _handling = handling;
    while let Ok(Some(bytes)) = stream.recv().await {
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
    // Whoever has reset it has no use for a goodbye.
    let _ = stream.shutdown().await;
}

fn text(text: Vec<u8>) -> Answer {
    Response::new(Box::pin(
        Full::new(text.into()).map_err(|never| match never {}),
    ))
}

fn made<F>(produce: impl FnOnce(Sender) -> F + 'static) -> Answer
where
    F: Future<Output = Result<(), BoxError>> + 'static,
{
    Response::new(Box::pin(body::stream(produce)))
}

/// What there is now: descriptors, threads, memory, and the gauges of each core.
fn look(servers: &[Server]) -> String {
    let mut figures = vec![
        format!("descriptors={}", descriptors()),
        format!("threads={}", threads()),
        format!("dumped_lines={}", dumps(servers).lines().count()),
    ];
    for (server, name) in servers.iter().zip(["clear", "tls"]) {
        for core in server.snapshot().cores {
            let gauges = core.counts.iter();
            let gauges = gauges.filter(|count| count.kind == CountKind::Gauge);
            figures.extend(
                gauges.map(|gauge| format!("{name}{}_{}={}", core.core, gauge.name, gauge.value)),
            );
        }
    }
    figures.push(format!("resident_kib={}", resident_kib()));
    figures.join(" ")
}

/// What was counted so far, all cores together.
fn counters(servers: &[Server]) -> String {
    let mut figures = Vec::new();
    for server in servers {
        for core in server.snapshot().cores {
            for count in &core.counts {
                let label = count.label.as_ref();
                let label = label.map_or(String::new(), |(_, value)| format!("_{value}"));
                figures.push(format!("{}{label}={}", count.name, count.value));
            }
            let measured = core.latency("request", None).expect("it is measured");
            figures.push(format!("measured={}", measured.count()));
        }
    }
    figures.join(" ")
}

fn dumps(servers: &[Server]) -> String {
    let dump = |server: &Server| server.handle().dump(GRACE).to_string();
    servers.iter().map(dump).collect()
}

fn print_book(book: &Book) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for entry in book.entries() {
        writeln!(out, "@page {}", entry.line())?;
    }
    writeln!(out, "@closed")?;
    out.flush()
}
