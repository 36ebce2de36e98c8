//! What a lease of a session that is there costs: taken and given back, and with a call on it; on the
//! session's core and from another. One JSON object a line.

use std::error::Error;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use benches::matrix::statistics::spread;
use benches::outcome::{ended, say};
use clap::Parser;
use quoit::time::Instant;
use quoit::{Cores, Handle, Runtime, on};
use quoit_pool::{Key, SessionPool, Sessions};

/// Measures leases of a session that is there.
#[derive(Parser)]
struct Arguments {
    /// How many in a round.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    leases: u32,
    /// How many rounds; the median counts.
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

/// Sessions that are nothing but there.
struct Nothing;

impl Sessions for Nothing {
    type Session = ();
    type Error = io::Error;

    async fn open(&self, _: &Key) -> io::Result<()> {
        Ok(())
    }
}

fn main() -> ExitCode {
    ended("lease", run(&Arguments::parse()))
}

fn run(&Arguments { leases, rounds }: &Arguments) -> Result<(), Box<dyn Error>> {
    let runtime = Runtime::builder().cores(Cores::Count(2)).build()?;
    let handle = runtime.handle();
    let home = handle.cores()[0];
    let measured = handle.spawn(home, move || measure(leases, rounds))?;
    measured.wait().map_err(|error| error.to_string())??;
    runtime.shutdown(Duration::from_secs(5));
    Ok(())
}

async fn measure(leases: u32, rounds: u32) -> io::Result<()> {
    let pool = SessionPool::builder(Nothing)
        .build()
        .map_err(io::Error::other)?;
    let key = Key::new("nothing", "nobody");
    // The session lives here from now on.
    drop(pool.lease(&key).await.map_err(io::Error::other)?);
    let cores = Handle::current().map_or_else(Vec::new, |handle| handle.cores());
    for (place, core) in ["local", "from the other core"].into_iter().zip(cores) {
        for with_call in [false, true] {
            let mut each = Vec::with_capacity(rounds as usize);
            for _ in 0..rounds {
                let (pool, key) = (pool.clone(), key.clone());
                let round = on(core, move || round(pool, key, leases, with_call));
                each.push(round.await?.as_nanos() as f64 / f64::from(leases));
            }
            let told = spread(&each).expect("there are rounds");
            let what = if with_call { "lease and call" } else { "lease" };
            say(format_args!(
                "{{\"name\": \"{what}, {place}\", \"ns\": {:.1}, \"least\": {:.1}, \"most\": {:.1}}}\n",
                told.median, told.least, told.most,
            ))?;
        }
    }
    pool.close_all().await?;
    Ok(())
}

/// Leases so many times, and says how long all of them took.
async fn round(
    pool: SessionPool<Nothing>,
    key: Key,
    leases: u32,
    with_call: bool,
) -> io::Result<Duration> {
    let begun = Instant::now();
    for _ in 0..leases {
        let lease = pool.lease(&key).await.map_err(io::Error::other)?;
        if with_call {
            lease.call(async |()| Ok::<_, io::Error>(())).await?;
        }
    }
    Ok(begun.elapsed())
}
