//! The other side of a client, by hand: it accepts, reads, and says what it is told.

use std::io;

use quoit_net::{TcpListener, TcpStream};

/// Listens, and accepts one connection after the other.
#[derive(Debug)]
pub(crate) struct Host {
    listener: TcpListener,
}

impl Host {
    pub(crate) fn new() -> Self {
        Self {
            listener: TcpListener::bind("127.0.0.1:0").expect("a free port"),
        }
    }

    /// Returns a URL of this host.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.listener.local_addr())
    }

    pub(crate) async fn accept(&self) -> Peer {
        let stream = self.listener.accept().await.expect("somebody connects");
        Peer {
            stream,
            early: Vec::new(),
        }
    }
}

/// One connection, seen from the server.
#[derive(Debug)]
pub(crate) struct Peer {
    stream: TcpStream,
    early: Vec<u8>,
}

impl Peer {
    /// Waits for the head of a request; `None` if the connection ends before one.
    pub(crate) async fn head(&mut self) -> Option<String> {
        loop {
            let end = self.early.windows(4).position(|four| four == b"\r\n\r\n");
            if let Some(end) = end {
                let head: Vec<u8> = self.early.drain(..end + 4).collect();
                return Some(String::from_utf8(head).expect("heads are text"));
            }
            if !self.receive().await {
                return None;
            }
        }
    }

    /// Waits for so many bytes.
    pub(crate) async fn exactly(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.early.len() < count {
            if !self.receive().await {
                return None;
            }
        }
        Some(self.early.drain(..count).collect())
    }

    /// Waits until more has come; false at the end.
    async fn receive(&mut self) -> bool {
        match self.stream.recv().await {
            Ok(Some(chunk)) => {
                self.early.extend_from_slice(&chunk);
                true
            }
            Ok(None) => false,
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => false,
            Err(error) => panic!("a connection fails by its end alone: {error}"),
        }
    }

    pub(crate) async fn say(&self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref().to_vec();
        let (outcome, _) = self.stream.write_all(bytes).await;
        outcome.expect("the client listens");
    }

    /// Answers with 200 and this text.
    pub(crate) async fn answer(&self, text: &str) {
        let length = text.len();
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{text}");
        self.say(answer).await;
    }

    /// Waits until the client has closed the connection; what it said before is thrown away.
    pub(crate) async fn end(mut self) {
        while self.receive().await {
            self.early.clear();
        }
    }

    pub(crate) async fn close(self) {
        self.stream.close().await.expect("no error");
    }
}
