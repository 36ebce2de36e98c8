//! TCP echo on every core, as a user would write it.

use std::io;
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use benches::outcome::{complain, ended, say};
use clap::Parser;
use quoit::{CoreId, Cores, Runtime};
use quoit_net::ShardedListener;

/// Sends back whatever it receives.
#[derive(Parser)]
struct Arguments {
    /// Where to listen; port 0 takes a free one.
    #[arg(long, default_value = "127.0.0.1:7000")]
    listen: SocketAddr,
    /// Which cores to use: all, or a list such as 0,2-3.
    #[arg(long, default_value = "all")]
    cores: Cores,
    /// For how many microseconds a core with nothing to do looks on before it parks.
    #[arg(long, value_name = "MICROS", default_value_t = 0)]
    spin: u64,
}

fn main() -> ExitCode {
    ended("echo", run(Arguments::parse()))
}

fn run(arguments: Arguments) -> io::Result<()> {
    let runtime = Runtime::builder()
        .cores(arguments.cores)
        .spin_before_park(Duration::from_micros(arguments.spin))
        .build()?;
    let port = ShardedListener::bind(arguments.listen, &runtime.handle())?;
    say(format_args!("listening on {}\n", port.local_addr()))?;
    runtime.run(move |core| serve(port.clone(), core))
}

async fn serve(port: ShardedListener, core: CoreId) -> io::Result<()> {
    let listener = port.take(core)?;
    loop {
        match listener.accept().await {
            Ok(stream) => drop(quoit::spawn(async move {
                // A block: an `async fn` keeps its argument twice for as long as it runs.
                while let Some(chunk) = stream.recv().await? {
                    stream.write_all(chunk).await.0?;
                }
                Ok::<_, io::Error>(())
            })),
            // Out of descriptors, or a peer that was gone before we looked.
            Err(error) if error.raw_os_error().is_some() => {
                complain(format_args!("accept failed: {error}"));
                quoit::time::sleep(Duration::from_millis(50)).await?;
            }
            Err(cancelled) => return Err(cancelled),
        }
    }
}
