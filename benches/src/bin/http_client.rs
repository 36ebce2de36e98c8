//! What a request costs the HTTP client of `quoit-pool`, as its users write it. The same on others is in
//! `comparators/http-client-tokio`; `http_client_pairs` runs them in turn.

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::rc::Rc;
use std::time::Duration;

use benches::matrix::program::raise_descriptor_limit;
use benches::outcome::{ended, say};
use clap::Parser;
use quoit::time::Instant;
use quoit::{Cores, GroupError, Runtime, group};
use quoit_pool::http::Client;

use client_load::{Arguments, Spoken, Tally};

#[path = "../client_load.rs"]
mod client_load;

fn main() -> ExitCode {
    ended("http_client", run(Arguments::parse()))
}

fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    raise_descriptor_limit()?;
    let cores = Cores::List(vec![arguments.core]);
    let runtime = Runtime::builder().cores(cores).build()?;
    let handle = runtime.handle();
    let measured = handle.spawn(handle.cores()[0], move || measure(arguments))?;
    let line = measured.wait().map_err(|error| error.to_string())??;
    say(format_args!("{line}\n"))?;
    runtime.shutdown(Duration::from_secs(5));
    Ok(())
}

async fn measure(arguments: Arguments) -> io::Result<String> {
    let mut builder = Client::builder()
        .max_connections_per_origin(arguments.concurrency)
        .max_idle(arguments.concurrency);
    if arguments.protocol == Spoken::H2 {
        builder = builder.http2_prior_knowledge();
    }
    let client = builder.build()?;
    let arguments = Rc::new(arguments);
    ask(&client, &arguments, arguments.warm_up).await?;
    let (cpu, begun) = (client_load::processor_time(), Instant::now());
    let tally = ask(&client, &arguments, arguments.seconds).await?;
    let (cpu, wall) = (client_load::processor_time() - cpu, begun.elapsed());
    client.pool().close().await?;
    Ok(tally.line("quoit", &arguments, wall, cpu))
}

/// Asks for so long.
async fn ask(client: &Client, arguments: &Rc<Arguments>, seconds: f64) -> io::Result<Rc<Tally>> {
    let tally = Rc::new(Tally::new());
    let until = Instant::now() + Duration::from_secs_f64(seconds);
    let asked = group(async |tasks| {
        for _ in 0..arguments.concurrency {
            let (client, arguments) = (client.clone(), Rc::clone(arguments));
            let tally = Rc::clone(&tally);
            tasks.spawn(async move { one_by_one(&client, &arguments, &tally, until).await });
        }
        Ok::<_, io::Error>(())
    });
    asked.await.map_err(one_of)?;
    Ok(tally)
}

/// All of them ask the same: one failure tells enough.
fn one_of(failures: GroupError<io::Error>) -> io::Error {
    let text = failures.to_string();
    let one = failures.into_errors().into_iter().next();
    one.unwrap_or_else(|| io::Error::other(text))
}

async fn one_by_one(
    client: &Client,
    arguments: &Arguments,
    tally: &Tally,
    until: Instant,
) -> io::Result<()> {
    let mut begun = Instant::now();
    while begun < until {
        let answer = client.get(&arguments.url).send().await?;
        let status = answer.status().as_u16();
        let length = answer.bytes().await?.len();
        client_load::check(status, length, arguments).map_err(io::Error::other)?;
        let ended = Instant::now();
        tally.record(ended - begun);
        begun = ended;
    }
    Ok(())
}
