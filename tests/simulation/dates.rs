//! What an answer is dated with.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::header::DATE;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::client::conn::http1;
use quoit::sim::{Fault, Faults, for_seeds};
use quoit::time::{is_simulated, sleep, wall_clock};
use quoit::{Cancelled, Cores, spawn};
use quoit_net::TcpStream;
use quoit_net::http::{Io, Server};

use crate::support::{Clients, address, below};

const LONG: Duration = Duration::from_secs(100_000);

fn second(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).expect("it is later");
    since.as_secs()
}

/// On a connection that rests for a moment, for some seconds, or for hours.
#[test]
fn an_answer_says_when_it_was_made_however_long_nobody_asked() {
    for_seeds(0..20, |sim| {
        // A clock that jumps is followed within a second, and no sooner.
        let faults = Faults::benign().rate(Fault::WallClockJumps, 0.0);
        sim.faults(faults).run(|| {
            assert!(is_simulated());
            let server = Server::bind(address())
                .cores(Cores::Count(1))
                .idle_timeout(LONG)
                .head_timeout(LONG)
                .serve(|_| async { Ok::<_, Cancelled>(Response::new(String::new())) });
            let server = server.expect("a kind world");
            let mut clients = Clients::on(1);
            clients.start(|| async {
                let stream = TcpStream::connect(address()).await.expect("it listens");
                let handshake = http1::handshake(Io::new(stream)).await;
                let (mut sender, connection) = handshake.expect("no bytes yet");
                let connection = spawn(connection);
                for _ in 0..30 {
                    let most = [1, 300, 3_000, 10_000_000][below(4)];
                    let pause = sleep(Duration::from_millis(1 + below(most) as u64)).await;
                    pause.expect("nobody cancels");
                    let request = Request::builder().header("host", "site");
                    let request = request.body(Empty::<Bytes>::new()).expect("a request");
                    let before = second(wall_clock());
                    let answer = sender.send_request(request).await.expect("an answer");
                    let after = second(wall_clock());
                    let date = answer.headers()[DATE].to_str().expect("text").to_owned();
                    let date = httpdate::parse_http_date(&date).expect("a date");
                    let date = second(date);
                    assert!((before..=after).contains(&date), "{before} {date} {after}");
                    sender.ready().await.expect("the connection goes on");
                }
                drop(sender);
                let _ = connection.await;
            });
            clients.end();
            drop(server);
        });
    });
}
