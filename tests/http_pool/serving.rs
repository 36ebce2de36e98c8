//! Against our own server: everything that is asked for comes as it should, and cancels leave nothing behind.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use quoit::time::sleep;
use quoit::{Cores, Scope, spawn};
use quoit_net::http::{Builder, Incoming, Server, Upgraded, body, upgrade};
use quoit_net::unix::UnixAddress;
use quoit_pool::http::{Client, ClientBuilder, Error};
use tests::{bytes, gauges, on_ring, quietly};

use crate::peer::{server_tls, trusting};
use crate::{LONG, close, patient, until};

type Answer = Response<Full<bytes::Bytes>>;

async fn echo(stream: Upgraded) {
    while let Ok(Some(bytes)) = stream.recv().await {
        if stream.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

/// What is sent comes back; `/slow` takes a while, `/much` has 200 000 bytes, `/status` is none. Whoever wants to
/// connect hears whither, and does where that can be.
async fn site(mut request: Request<Incoming>) -> io::Result<Answer> {
    if request.method() == Method::CONNECT {
        let mut answer = Response::new(Full::default());
        if upgrade(&mut request, echo).is_err() {
            *answer.status_mut() = StatusCode::NOT_IMPLEMENTED;
        }
        let whither = request.uri().to_string().parse();
        answer
            .headers_mut()
            .insert("whither", whither.expect("a value"));
        return Ok(answer);
    }
    let path = request.uri().path().to_owned();
    match &*path {
        "/upgrade" => {
            upgrade(&mut request, echo)?;
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let fields = answer.headers_mut();
            fields.insert("connection", "upgrade".parse().expect("a value"));
            fields.insert("upgrade", "echo".parse().expect("a value"));
            return Ok(answer);
        }
        "/status" => {
            let mut answer = Response::new(Full::default());
            *answer.status_mut() = StatusCode::NOT_FOUND;
            return Ok(answer);
        }
        "/much" => return Ok(Response::new(bytes(200_000, 1).into())),
        "/host" => {
            let named = request.uri().authority().map(ToString::to_string);
            let field = request.headers().get("host").cloned();
            let field = field.map(|field| field.to_str().expect("text").to_owned());
            return Ok(Response::new(named.or(field).unwrap_or_default().into()));
        }
        "/slow" => sleep(Duration::from_millis(5)).await?,
        _ => {}
    }
    let query = request.uri().query().unwrap_or_default().to_owned();
    let method = request.method().clone();
    let body = request.into_body().collect().await;
    let body = body.map_err(io::Error::other)?.to_bytes();
    if method == Method::GET {
        return Ok(Response::new(format!("{path}?{query}").into()));
    }
    Ok(Response::new(Full::new(body)))
}

fn server() -> Builder<&'static str> {
    Server::bind("127.0.0.1:0")
        .cores(Cores::Count(1))
        .idle_timeout(LONG)
}

/// How a client speaks to a server.
#[derive(Debug, Clone)]
struct Way {
    url: String,
    address: SocketAddr,
    version: Version,
}

impl Way {
    fn client(&self) -> Client {
        self.builder().build().expect("a client")
    }

    fn builder(&self) -> ClientBuilder {
        let builder = match self.version {
            Version::HTTP_11 => patient().http1_only(),
            _ if self.url.starts_with("https") => patient(),
            _ => patient().http2_prior_knowledge(),
        };
        let builder = builder.tls(trusting());
        builder.addresses("site.test", &[self.address])
    }
}

/// Runs `test` for every way to speak to a server.
fn in_every_way(test: impl Fn(Way)) {
    for is_encrypted in [false, true] {
        for version in [Version::HTTP_11, Version::HTTP_2] {
            let builder = match is_encrypted {
                true => server().tls(server_tls()),
                false => server(),
            };
            let server = builder.serve(site).expect("a server");
            let address = server.local_addr();
            let url = match is_encrypted {
                true => "https://site.test".to_owned(),
                false => format!("http://{address}"),
            };
            test(Way {
                url,
                address,
                version,
            });
            server.shutdown(Duration::from_secs(30)).expect("an end");
        }
    }
}

#[test]
fn what_is_asked_for_comes_in_every_way() {
    in_every_way(|way| {
        on_ring(|_| async move {
            let client = way.client();
            let Way { url, version, .. } = way;
            let get = client.get(format!("{url}/here")).query("a b", "c&d");
            let answer = get.send().await.expect("an answer");
            assert_eq!(answer.version(), version);
            assert_eq!(answer.text().await.expect("all"), "/here?a+b=c%26d");

            let sent = bytes(300_000, 2);
            let (sender, pieces) = body::channel(2);
            let all = sent.clone();
            let making = spawn(async move {
                for piece in all.chunks(7_000) {
                    sender
                        .send(piece.to_vec())
                        .await
                        .expect("somebody takes it");
                }
            });
            let answer = client.post(format!("{url}/echo")).body(pieces).send().await;
            let came = answer.expect("an answer").bytes().await.expect("all");
            assert!(came == sent, "{} bytes came back", came.len());
            making.await.expect("it ends");

            let missing = client.get(format!("{url}/status")).send().await;
            let missing = missing.expect("an answer").error_for_status();
            assert!(
                matches!(missing, Err(Error::Status(StatusCode::NOT_FOUND))),
                "{missing:?}"
            );
            let much = client.get(format!("{url}/much")).send().await;
            let limited = much.expect("an answer").bytes_up_to(199_999).await;
            assert!(matches!(limited, Err(Error::TooLong { limit: 199_999 })));
            let head = client.head(format!("{url}/much")).send().await;
            let head = head.expect("an answer");
            assert_eq!(head.headers()["content-length"], "200000");
            assert_eq!(head.bytes().await.expect("nothing"), "");
            close(client).await;
        });
    });
}

/// Who is asked need not be who is connected to.
#[test]
fn a_request_is_for_the_host_that_its_field_names() {
    in_every_way(|way| {
        on_ring(|_| async move {
            let client = way.client();
            let url = format!("{}/host", way.url);
            for named in ["other.test", "other.test:8080", "[::1]:8080"] {
                let asked = client.get(&url).header("host", named).send().await;
                let told = asked.expect("an answer").text().await.expect("all");
                assert_eq!(told, named);
            }
            let asked = client.get(&url).send().await.expect("an answer");
            let told = asked.text().await.expect("all");
            assert!(url.contains(&format!("//{told}/")), "{told}");
            assert_eq!(client.pool().counts().connects, 1);
            close(client).await;
        });
    });
}

#[test]
fn a_unix_socket_is_as_good() {
    let folder = tempfile::tempdir().expect("a folder");
    let unix = UnixAddress::from(folder.path().join("socket"));
    let server = server().also(unix.clone()).serve(site).expect("a server");
    on_ring(move |_| async move {
        let client = patient().build().expect("a client");
        for _ in 0..3 {
            let request = client.get("http://site.test/there").unix(unix.clone());
            let answer = request.send().await.expect("an answer");
            assert_eq!(answer.text().await.expect("all"), "/there?");
        }
        assert_eq!(client.pool().counts().connects, 1);
        close(client).await;
    });
    server.shutdown(Duration::from_secs(30)).expect("an end");
}

#[test]
fn p055_both_sides_of_an_upgrade() {
    in_every_way(|way| {
        if way.version == Version::HTTP_2 {
            return;
        }
        on_ring(|_| async move {
            let client = way.client();
            let url = way.url;
            let request = client.get(format!("{url}/upgrade"));
            let request = request
                .header("connection", "upgrade")
                .header("upgrade", "echo");
            let answer = request.send().await.expect("an answer");
            let stream = answer.upgrade().await.expect("a stream");
            stream.write_all(b"over and out").await.expect("connected");
            let mut came = Vec::new();
            while came.len() < 12 {
                let bytes = stream.recv().await.expect("connected");
                came.extend_from_slice(&bytes.expect("no end"));
            }
            assert_eq!(came, b"over and out");
            until(|| client.pool().counts().connections == 0).await;
            close(client).await;
            drop(stream);
        });
    });
}

/// For CONNECT there is no usual port (RFC 9110, section 9.3.6).
#[test]
fn a_connect_names_its_port_whatever_the_url_does() {
    in_every_way(|way| {
        let version = way.version;
        let (scheme, usual) = match way.url.starts_with("https") {
            true => ("https", 443),
            false => ("http", 80),
        };
        on_ring(move |_| async move {
            let client = way.client();
            for (port, named) in [("", usual), (":", usual), (":8443", 8443)] {
                let whither = format!("site.test:{named}");
                let request =
                    client.request(Method::CONNECT, format!("{scheme}://site.test{port}/"));
                let answer = request.send().await.expect("an answer");
                assert_eq!(answer.headers()["whither"], whither, "{version:?} {port}");
                if version == Version::HTTP_2 {
                    assert_eq!(answer.status(), StatusCode::NOT_IMPLEMENTED);
                    continue;
                }
                assert_eq!(answer.status(), StatusCode::OK);
                let stream = answer.upgrade().await.expect("a stream");
                stream.write_all(b"there").await.expect("connected");
                let came = stream.recv().await.expect("connected");
                assert_eq!(came.as_deref(), Some(&b"there"[..]));
            }
            close(client).await;
        });
    });
}

/// Requests of all kinds, each given up after a time of its own: wherever that falls, no place and no window is
/// lost, and what comes later is served by no more connections than there may be.
#[test]
fn p048_cancelled_at_any_moment_nothing_is_lost() {
    in_every_way(|way| {
        quietly(|handle| async move {
            let client = way.client();
            let Way { url, version, .. } = way;
            for round in 0..150_u64 {
                let kinds = ["/slow", "/much", "/echo"];
                let url = format!("{url}{}", kinds[(round % 3) as usize]);
                // From before anything is sent to after all has come, on most machines.
                let after = Duration::from_micros(round * 37 % 6_000);
                let scope = Scope::new().timeout(after);
                let asking = async {
                    let sent = if round % 2 == 0 { 0 } else { 100_000 };
                    let request = client.post(&url).body(bytes(sent, round));
                    request.send().await?.bytes().await
                };
                match scope.run(asking).await {
                    Ok(_) => {}
                    Err(error) => panic!("round {round} over {version:?}: {error}"),
                }
            }
            let counts = client.pool().counts();
            assert_eq!(counts.waiting, 0, "{counts:?}");
            for _ in 0..20 {
                let answer = client.get(format!("{url}/much")).send().await;
                let came = answer.expect("an answer").bytes().await.expect("all");
                assert_eq!(came.len(), 200_000);
            }
            until(|| {
                let counts = client.pool().counts();
                counts.idle == counts.connections
            })
            .await;
            let counts = client.pool().counts();
            assert_eq!(counts.connections, 1, "{counts:?} over {version:?}");
            if version == Version::HTTP_2 {
                assert_eq!(counts.retired, 0, "{counts:?}");
            }
            client.pool().close().await.expect("nobody cancels");
            assert_eq!(gauges(&handle).await.tasks, 1, "this one");
        });
    });
}
