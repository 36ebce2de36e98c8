//! Connections that go on as something else, where sends fail.

use std::io;

use http::header::{CONNECTION, UPGRADE};
use http::{Request, Response, StatusCode};
use quoit::sim::{Fault, Faults, for_seeds};
use quoit_net::TcpStream;
use quoit_net::http::{Incoming, Server, Upgraded, upgrade};

use crate::support::{Clients, address};

/// Speaks first.
async fn greet(stream: Upgraded) {
    if stream.write_all(b"welcome").await.is_ok() {
        let _ = stream.shutdown().await;
    }
}

async fn switch(mut request: Request<Incoming>) -> io::Result<Response<String>> {
    upgrade(&mut request, greet)?;
    let mut answer = Response::new(String::new());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = answer.headers_mut();
    fields.insert(CONNECTION, "upgrade".parse().expect("a value"));
    fields.insert(UPGRADE, "greeting".parse().expect("a value"));
    Ok(answer)
}

/// Returns all that comes in answer to an upgrade.
async fn answered() -> io::Result<Vec<u8>> {
    let stream = TcpStream::connect(address()).await?;
    let request =
        "GET / HTTP/1.1\r\nhost: site\r\nconnection: upgrade\r\nupgrade: greeting\r\n\r\n";
    stream.write_all(request).await.0?;
    let mut came = Vec::new();
    while let Ok(Some(chunk)) = stream.recv().await {
        came.extend_from_slice(&chunk);
    }
    Ok(came)
}

/// What comes behind a 101 that was not sent would be taken for the answer.
#[test]
fn nothing_is_said_on_a_connection_whose_upgrade_was_not_sent() {
    for_seeds(0..40, |sim| {
        let faults = Faults::none().rate(Fault::SendFails, 0.3);
        sim.faults(faults).run(|| {
            let server = Server::bind(address()).on_trouble(|_| {}).serve(switch);
            let server = server.expect("nothing else fails");
            let mut clients = Clients::on(1);
            clients.start(|| async {
                for _ in 0..4 {
                    let Ok(came) = answered().await else {
                        continue;
                    };
                    let text = String::from_utf8_lossy(&came);
                    assert!(
                        came.is_empty() || text.starts_with("HTTP/1.1 101"),
                        "{text}"
                    );
                }
            });
            clients.end();
            drop(server);
        });
    });
}
