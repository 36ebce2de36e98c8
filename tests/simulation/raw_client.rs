//! An HTTP/1.1 client that sends bytes as it is told and believes nothing: answers are read to
//! their last byte and no further.

use std::io;
use std::rc::Rc;

use http::Method;
use quoit_net::TcpStream;

use crate::site::Ask;
use crate::support::{below, one_in, pause_up_to};

/// The reading side of a connection.
#[derive(Debug)]
pub(crate) struct Answers {
    stream: Rc<TcpStream>,
    ahead: Vec<u8>,
}

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The server says that this is the last of its connection.
    pub(crate) is_last: bool,
    pub(crate) body: Vec<u8>,
}

impl Answers {
    pub(crate) fn on(stream: &Rc<TcpStream>) -> Self {
        Self {
            stream: Rc::clone(stream),
            ahead: Vec::new(),
        }
    }

    /// Reads an answer; `None` if the connection ends before its first byte.
    pub(crate) async fn next(&mut self) -> io::Result<Option<Answer>> {
        if self.ahead.is_empty() && !self.more().await? {
            return Ok(None);
        }
        let line = self.line().await?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .and_then(|rest| rest.get(..3));
        let status = status
            .and_then(|code| code.parse().ok())
            .unwrap_or_else(|| panic!("{line:?} begins no answer"));
        let (mut length, mut is_last) = (None, false);
        loop {
            let line = self.line().await?.to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(value) = line.strip_prefix("content-length: ") {
                length = Some(value.parse().expect("a length is a number"));
            }
            is_last |= line == "connection: close";
        }
        let body = match length {
            Some(length) => self.exactly(length).await?,
            None => self.chunks().await?,
        };
        Ok(Some(Answer {
            status,
            is_last,
            body,
        }))
    }

    async fn chunks(&mut self) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let line = self.line().await?;
            let size = usize::from_str_radix(&line, 16).expect("a chunk begins with its size");
            body.append(&mut self.exactly(size).await?);
            assert_eq!(self.line().await?, "", "a chunk is as long as it said");
            if size == 0 {
                return Ok(body);
            }
        }
    }

    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.ahead.windows(2).position(|two| two == b"\r\n") {
                let line = String::from_utf8_lossy(&self.ahead[..end]).into_owned();
                self.ahead.drain(..end + 2);
                return Ok(line);
            }
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    async fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.ahead.len() < count {
            if !self.more().await? {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let rest = self.ahead.split_off(count);
        Ok(std::mem::replace(&mut self.ahead, rest))
    }

    async fn more(&mut self) -> io::Result<bool> {
        let chunk = self.stream.recv().await?;
        self.ahead
            .extend_from_slice(chunk.as_deref().unwrap_or_default());
        Ok(chunk.is_some())
    }
}

/// Writes a request down, with its body as a whole or in chunks.
pub(crate) fn written(ask: &Ask) -> Vec<u8> {
    let mut bytes = format!("{} {} HTTP/1.1\r\nhost: site\r\n", ask.method, ask.path).into_bytes();
    if ask.method == Method::GET {
        bytes.extend_from_slice(b"\r\n");
    } else if one_in(2) {
        bytes.extend_from_slice(format!("content-length: {}\r\n\r\n", ask.body.len()).as_bytes());
        bytes.extend_from_slice(&ask.body);
    } else {
        bytes.extend_from_slice(b"transfer-encoding: chunked\r\n\r\n");
        let mut left = &ask.body[..];
        while !left.is_empty() {
            let (chunk, rest) = left.split_at((1 + below(60_000)).min(left.len()));
            bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
            left = rest;
        }
        bytes.extend_from_slice(b"0\r\n\r\n");
    }
    bytes
}

/// Sends bytes cut where no one would expect it, sometimes with long pauses.
pub(crate) async fn send_cut(stream: &TcpStream, bytes: Vec<u8>) -> io::Result<()> {
    let (longest, mut left) = (if one_in(6) { 800 } else { 10 }, &bytes[..]);
    while !left.is_empty() {
        let part = match below(4) {
            0 => 1 + below(8),
            1 => 1 + below(1_000),
            _ => left.len(),
        };
        let (piece, rest) = left.split_at(part.min(left.len()));
        stream.write_all(piece.to_vec()).await.0?;
        if one_in(4) {
            pause_up_to(longest).await;
        }
        left = rest;
    }
    Ok(())
}
