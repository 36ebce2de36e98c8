//! What a request costs a server, counted.
//!
//! The client is a task on the server's core: bare sockets that do not block. It writes a request to each of its
//! connections before the server can look at any, and asks for more when it has all the answers. So the server
//! finds the same work at every turn, however busy the machine is, and counts the same.
//!
//! What the client does is counted as well: a poll of its task and a request to the kernel for each time it waits,
//! a write and one or two reads for each request. That is the same for ever.

use std::convert::Infallible;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::str::FromStr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use quoit::metrics::CoreMetrics;
use quoit::op::{self, SharedFd};
use quoit::{Cores, Handle, RemoteHandle, spawn};
use quoit_net::TcpListener;
use quoit_net::http::Server;

/// What is asked, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// 64 bytes, which come back.
    Echo,
    /// GET of a few bytes.
    Http1,
    /// The same, one stream at a time.
    Http2,
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        match name {
            "echo" => Ok(Self::Echo),
            "http1" => Ok(Self::Http1),
            "http2" => Ok(Self::Http2),
            _ => Err(format!("{name:?} is none of echo, http1, http2")),
        }
    }
}

/// Rounds that are not counted: tables grow, and the ring of buffers comes around.
const WARM_UP: u32 = 8;

/// What was counted up to some moment.
#[derive(Debug, Clone, Copy)]
pub struct Counts {
    /// By the core.
    pub core: CoreMetrics,
    /// By the program, of itself.
    pub allocations: u64,
}

/// Says how often the program has asked for memory.
pub type Allocations = fn() -> u64;

/// Asks a server of its own so many rounds, each of one request per connection; returns what had been counted before
/// the first round that counts, and after the last.
///
/// # Errors
///
/// Those of sockets and of the ring; a wrong answer.
pub fn run(
    protocol: Protocol,
    connections: u32,
    rounds: u32,
    allocations: Allocations,
) -> io::Result<(Counts, Counts)> {
    let address = free_address()?;
    let client = move || ask(protocol, address, [connections, rounds], allocations);
    match protocol {
        Protocol::Echo => quoit::block_on(async move {
            let server = spawn(serve_echo(TcpListener::bind(address)?));
            let counted = client().await;
            server.cancel();
            counted
        })?,
        Protocol::Http1 | Protocol::Http2 => {
            let (tell, told) = RemoteHandle::channel();
            // Only one core makes a handler, and starts a client.
            let tell = Arc::new(Mutex::new(Some(tell)));
            let server = Server::bind(address).cores(Cores::Count(1));
            let server = server.serve_with(move |_| {
                let tell = tell.lock().expect("nobody panics with it").take();
                async move {
                    let tell = tell.expect("one core");
                    drop(spawn(async move { tell.send(client().await) }));
                    Ok(|_| async {
                        let hello = Full::new(Bytes::from_static(HELLO));
                        Ok::<_, Infallible>(Response::new(hello))
                    })
                }
            })?;
            let counted = told.wait()?;
            server.shutdown(Duration::from_secs(30))?;
            counted
        }
    }
}

/// Returns an address that nobody listens on, which the client knows before there is a server.
fn free_address() -> io::Result<SocketAddr> {
    std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()
}

const HELLO: &[u8] = b"Hello, world!";

/// Sends back what it receives, on every connection, until a listener ends.
pub async fn serve_echo(listener: TcpListener) {
    while let Ok(stream) = listener.accept().await {
        drop(spawn(async move {
            // A block: an `async fn` keeps its argument twice for as long as it runs.
            while let Some(chunk) = stream.recv().await? {
                stream.write_all(chunk).await.0?;
            }
            Ok::<_, io::Error>(())
        }));
    }
}

async fn ask(
    protocol: Protocol,
    address: SocketAddr,
    [connections, rounds]: [u32; 2],
    allocations: Allocations,
) -> io::Result<(Counts, Counts)> {
    let counted = || Counts {
        core: Handle::current().expect("on a core").metrics()[0],
        allocations: allocations(),
    };
    let clients: io::Result<Vec<_>> = (0..connections)
        .map(|_| Client::connect(protocol, address))
        .collect();
    let mut clients = clients?;
    let mut before = counted();
    for round in 0..WARM_UP + rounds {
        if round == WARM_UP {
            before = counted();
        }
        for client in &mut clients {
            client.ask()?;
        }
        for client in &mut clients {
            client.answered().await?;
        }
    }
    Ok((before, counted()))
}

/// One connection to the server.
struct Client {
    stream: TcpStream,
    /// The same, as the ring knows it.
    fd: SharedFd,
    dialect: Dialect,
    /// What is asked next.
    request: Vec<u8>,
    /// What was received and belongs to no answer yet.
    received: Vec<u8>,
}

impl Client {
    fn connect(protocol: Protocol, address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let fd = SharedFd::from(OwnedFd::from(stream.try_clone()?));
        let dialect = match protocol {
            Protocol::Echo => Dialect::Echo,
            Protocol::Http1 => Dialect::Http1,
            Protocol::Http2 => {
                (&stream).write_all(PREFACE)?;
                Dialect::Http2 { stream: 1, owes: 0 }
            }
        };
        Ok(Self {
            stream,
            fd,
            dialect,
            request: Vec::with_capacity(1024),
            received: Vec::with_capacity(1024),
        })
    }

    fn ask(&mut self) -> io::Result<()> {
        self.request.clear();
        self.dialect.request(&mut self.request);
        // A socket that was just read empty takes a few bytes at once.
        self.stream.write_all(&self.request)
    }

    async fn answered(&mut self) -> io::Result<()> {
        const READABLE: u32 = 1;
        let mut bytes = [0; 1024];
        while !self.dialect.take_answer(&mut self.received)? {
            match self.stream.read(&mut bytes) {
                Ok(0) => return Err(wrong("the server closed a connection")),
                Ok(count) => self.received.extend_from_slice(&bytes[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    op::poll(&self.fd, READABLE).await?;
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

fn wrong(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What a connection says and understands.
#[derive(Debug)]
enum Dialect {
    Echo,
    Http1,
    Http2 {
        /// The stream of the request that comes next, or was asked last.
        stream: u32,
        /// Settings of the server's that were not acknowledged yet.
        owes: u32,
    },
}

const MESSAGE: [u8; 64] = [b'q'; 64];
const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: quoit\r\n\r\n";
/// How HTTP/2 begins, and settings of which there are none.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
const ACKNOWLEDGED: &[u8] = b"\0\0\0\x04\x01\0\0\0\0";
/// GET of / by http from `quoit`, in HPACK: three names of the static table, and an authority that is not kept.
const FIELDS: &[u8] = b"\x82\x86\x84\x01\x05quoit";

impl Dialect {
    fn request(&mut self, bytes: &mut Vec<u8>) {
        match self {
            Self::Echo => bytes.extend(MESSAGE),
            Self::Http1 => bytes.extend(GET),
            Self::Http2 { stream, owes } => {
                for _ in 0..std::mem::take(owes) {
                    bytes.extend(ACKNOWLEDGED);
                }
                // The end of the stream, and of the fields.
                bytes.extend([0, 0, FIELDS.len() as u8, 0x01, 0x05]);
                bytes.extend(stream.to_be_bytes());
                bytes.extend(FIELDS);
            }
        }
    }

    /// Takes an answer from what was received; false if it is not whole yet.
    fn take_answer(&mut self, received: &mut Vec<u8>) -> io::Result<bool> {
        let length = match self {
            Self::Echo if received.len() < MESSAGE.len() => return Ok(false),
            Self::Echo if *received == MESSAGE => MESSAGE.len(),
            Self::Echo => return Err(wrong("the echo says something else")),
            Self::Http1 if !received.ends_with(HELLO) => return Ok(false),
            Self::Http1 if received.starts_with(b"HTTP/1.1 200 OK\r\n") => received.len(),
            Self::Http1 => return Err(wrong("HTTP/1.1 says something else")),
            Self::Http2 { stream, owes } => return take_frames(stream, owes, received),
        };
        received.drain(..length);
        Ok(true)
    }
}

/// Takes whole frames; true if one of them ends the stream.
fn take_frames(stream: &mut u32, owes: &mut u32, received: &mut Vec<u8>) -> io::Result<bool> {
    const HEAD: usize = 9;
    const END_STREAM: u8 = 1;
    while received.len() >= HEAD {
        let length = u32::from_be_bytes([0, received[0], received[1], received[2]]) as usize;
        if received.len() < HEAD + length {
            break;
        }
        let (kind, flags) = (received[3], received[4]);
        let of = u32::from_be_bytes([received[5], received[6], received[7], received[8]]);
        let ends = match kind {
            // DATA and HEADERS.
            0 | 1 if of == *stream => flags & END_STREAM != 0,
            // SETTINGS, and the acknowledgement of ours.
            4 => {
                *owes += u32::from(flags & 1 == 0);
                false
            }
            // WINDOW_UPDATE.
            8 => false,
            _ => {
                return Err(wrong(&format!(
                    "HTTP/2 says a frame of kind {kind} on {of}"
                )));
            }
        };
        let body = received.drain(..HEAD + length).skip(HEAD);
        if ends {
            if !body.eq(HELLO.iter().copied()) {
                return Err(wrong("HTTP/2 says something else"));
            }
            *stream += 2;
            return Ok(true);
        }
        drop(body);
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_is_answered_by_a_server_here() {
        for protocol in [Protocol::Echo, Protocol::Http1, Protocol::Http2] {
            let (before, after) = run(protocol, 3, 2, || 0).expect("it answers");
            // Each request is answered by one send at least.
            let submitted = after.core.submitted - before.core.submitted;
            assert!(submitted >= 6, "{protocol:?}: {submitted}");
        }
    }

    #[test]
    fn an_answer_that_is_another_is_an_error() {
        let mut echo = MESSAGE.to_vec();
        echo[40] ^= 1;
        assert!(Dialect::Echo.take_answer(&mut echo).is_err());

        let mut refused = b"HTTP/1.1 500 Oh\r\n\r\nHello, world!".to_vec();
        assert!(Dialect::Http1.take_answer(&mut refused).is_err());

        let mut other = b"\0\0\x01\0\x01\0\0\0\x01!".to_vec();
        let mut http2 = Dialect::Http2 { stream: 1, owes: 0 };
        assert!(http2.take_answer(&mut other).is_err());
    }

    #[test]
    fn frames_that_come_in_pieces_are_one_answer() {
        let mut answer = PREFACE[24..].to_vec();
        answer.extend(b"\0\0\x01\x01\x04\0\0\0\x01\x88\0\0\x0d\0\x01\0\0\0\x01");
        answer.extend(HELLO);
        let mut http2 = Dialect::Http2 { stream: 1, owes: 0 };
        let mut received = Vec::new();
        let last = answer.pop().expect("it is not empty");
        for byte in answer {
            received.push(byte);
            assert!(!http2.take_answer(&mut received).expect("it is right"));
        }
        received.push(last);
        assert!(http2.take_answer(&mut received).expect("it is right"));
        received.clear();
        http2.request(&mut received);
        assert!(received.starts_with(ACKNOWLEDGED));
    }
}
