//! The other side of a connection: a socket of the same core, or a plain blocking one of the standard
//! library.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use quoit::op::{Listener, Socket, Stream};
use quoit_net::tcp::TcpOptions;

/// Listens on a free port of the loopback interface.
pub fn listening() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    (listener, address)
}

/// Makes a connection: one end for the core, the other for a plain thread or for blocking calls
/// that are known to return at once.
///
/// Call it on a core.
pub async fn connected() -> (quoit_net::TcpStream, TcpStream) {
    let (listener, address) = listening();
    let ours = quoit_net::TcpStream::connect(address)
        .await
        .expect("somebody listens");
    let (theirs, _) = listener.accept().expect("somebody connects");
    (ours, theirs)
}

/// Makes a connection with both ends on this core.
pub async fn both_ends() -> (quoit_net::TcpStream, quoit_net::TcpStream) {
    both_ends_with(&TcpOptions::new()).await
}

/// Makes a connection with both ends on this core; the one that connects has options.
pub async fn both_ends_with(options: &TcpOptions) -> (quoit_net::TcpStream, quoit_net::TcpStream) {
    let listener = quoit_net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let dialled = quoit_net::TcpStream::connect_with(listener.local_addr(), options).await;
    let accepted = listener.accept().await;
    // Nothing of it stays in the kernel, where tests may count.
    listener.finish().await;
    (
        dialled.expect("it listens"),
        accepted.expect("somebody connects"),
    )
}

/// Makes a connection with both ends on this core, and no more than the leaf ops around it.
pub async fn both_streams() -> (Stream, Stream) {
    let any = "127.0.0.1:0".parse().expect("an address");
    let socket = Socket::tcp(any).expect("a socket");
    socket.bind(any).expect("a free port");
    socket.listen(1).expect("a bound socket listens");
    let listener = Listener::new(socket);
    let address = listener.local_addr().expect("it is bound");
    let socket = Socket::tcp(address).expect("a socket");
    let dialled = Stream::connect(socket, address.into()).await;
    let accepted = listener.accept().await.expect("somebody connects");
    listener.finish().await;
    (dialled.expect("it listens"), Stream::new(accepted))
}

/// Returns an address where nobody listens.
pub async fn refusing_address() -> SocketAddr {
    let listener = quoit_net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr();
    listener.finish().await;
    address
}

/// Returns an address where a connect neither succeeds nor fails: a listener whose queue is full.
/// Keep what comes with it: it listens, and fills the queue.
pub async fn full_address() -> (SocketAddr, FullQueue) {
    let any = "127.0.0.1:0".parse().expect("an address");
    let socket = Socket::tcp(any).expect("a socket");
    socket.bind(any).expect("a free port");
    socket.listen(0).expect("a bound socket listens");
    let address = socket.local_addr().expect("it is bound");
    // A queue for none holds one; what comes after that gets no answer.
    let first = quoit_net::TcpStream::connect(address).await;
    let filling = vec![first.expect("it listens")];
    (address, FullQueue { socket, filling })
}

/// A listener that nobody accepts from, and who waits there.
#[derive(Debug)]
#[expect(dead_code, reason = "they are kept open")]
pub struct FullQueue {
    socket: Socket,
    filling: Vec<quoit_net::TcpStream>,
}

/// Ends the connection between the two with RST instead of FIN: a close does so while bytes lie there
/// that nobody has received (RFC 2525, 2.17). Nobody may have received on `theirs` yet.
pub async fn reset_from_afar(ours: &quoit_net::TcpStream, theirs: quoit_net::TcpStream) {
    let (outcome, _) = ours.write_all("unread").await;
    outcome.expect("connected");
    theirs.close().await.expect("no error");
}

/// Receives to the end.
pub async fn receive_all(stream: &quoit_net::TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.recv().await.expect("an orderly end") {
        all.extend_from_slice(&chunk);
    }
    all
}

/// Receives so many bytes.
pub async fn receive_exactly(stream: &quoit_net::TcpStream, count: usize) -> Vec<u8> {
    let mut all = Vec::new();
    while all.len() < count {
        let (read, piece) = stream.read(vec![0; count - all.len()]).await;
        assert_ne!(read.expect("no error"), 0, "no end");
        all.extend_from_slice(&piece);
    }
    all
}

/// Ends a connection with RST instead of FIN.
pub fn reset(stream: TcpStream) {
    let socket = socket2::Socket::from(stream);
    socket
        .set_linger(Some(Duration::ZERO))
        .expect("an option of every socket");
    drop(socket);
}

/// Makes `count` bytes of which no short stretch repeats soon, so that a byte in a wrong place
/// shows.
pub fn bytes(count: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut made = Vec::with_capacity(count + 8);
    while made.len() < count {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        made.extend_from_slice(&state.to_ne_bytes());
    }
    made.truncate(count);
    made
}
