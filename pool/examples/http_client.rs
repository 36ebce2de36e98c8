//! Asks for the URLs it is given, all at once, and says how each went: `http_client http://127.0.0.1:8080/ …`.
//!
//! For `https` it trusts whom the file named by `ROOTS` vouches for (PEM), such as
//! `ROOTS=/etc/ssl/certs/ca-certificates.crt`.

use std::time::Duration;

use quoit::group;
use quoit_net::tls::ClientTls;
use quoit_pool::http::{Client, Error};

fn main() -> std::io::Result<()> {
    let urls: Vec<String> = std::env::args().skip(1).collect();
    let mut builder = Client::builder();
    if let Some(roots) = std::env::var_os("ROOTS") {
        builder = builder.tls(ClientTls::trusting(&std::fs::read(roots)?)?);
    }
    quoit::block_on(async {
        let client = builder.timeout(Duration::from_secs(10)).build()?;
        let asked = group(async |g| {
            for url in urls {
                let client = client.clone();
                g.spawn(async move { ask(&client, &url).await });
            }
            Ok(())
        });
        asked.await?;
        println!("{:?}", client.pool().counts());
        client.pool().close().await?;
        Ok(())
    })?
}

/// Says how it went; only a cancel is worth ending the others for.
async fn ask(client: &Client, url: &str) -> std::io::Result<()> {
    match length(client, url).await {
        Ok(length) => println!("{url}: {length} bytes"),
        Err(Error::Cancelled(cancelled)) => return Err(cancelled.into()),
        Err(error) => println!("{url}: {error}"),
    }
    Ok(())
}

async fn length(client: &Client, url: &str) -> Result<usize, Error> {
    let mut answer = client.get(url).send().await?.error_for_status()?;
    let mut length = 0;
    while let Some(piece) = answer.chunk().await? {
        length += piece.len();
    }
    Ok(length)
}
