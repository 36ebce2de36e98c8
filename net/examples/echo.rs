//! Sends back what it receives, on every core, and lets go of who says nothing.

use std::io;
use std::time::Duration;

use quoit::{Runtime, Scope};
use quoit_net::{ShardedListener, TcpStream};

fn main() -> io::Result<()> {
    let runtime = Runtime::builder().build()?;
    let port = ShardedListener::bind(([127, 0, 0, 1], 7000).into(), &runtime.handle())?;
    runtime.run(move |core| serve(port.clone(), core))
}

async fn serve(port: ShardedListener, core: quoit::CoreId) -> io::Result<()> {
    let listener = port.take(core)?;
    loop {
        drop(quoit::spawn(echo(listener.accept().await?)));
    }
}

async fn echo(stream: TcpStream) -> io::Result<()> {
    // A connection that says nothing for a minute is let go.
    while let Some(Some(chunk)) = Scope::new()
        .timeout(Duration::from_secs(60))
        .run(stream.recv())
        .await?
    {
        stream.write_all(chunk).await.0?;
    }
    Ok(())
}
