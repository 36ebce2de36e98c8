//! An HTTP/1.1 client on a plain thread: blocking sockets, and nothing clever in between.
//!
//! It reads answers to their last byte and no further, so that what comes after one (the next
//! answer, an orderly end, a reset) is seen for what it is.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};

/// One connection, seen from the client.
#[derive(Debug)]
pub struct Client {
    reader: BufReader<TcpStream>,
}

/// The head of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The status code.
    pub status: u16,
    /// Name, in lower case, and value of each field.
    pub fields: Vec<(String, String)>,
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// What came first.
    pub head: Head,
    /// What came then.
    pub body: Vec<u8>,
}

impl Head {
    /// Returns the value of a field; `name` is in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        let found = self.fields.iter().find(|(field, _)| field == name);
        found.map(|(_, value)| value.as_str())
    }

    /// Returns whether the server says that this answer is the last of its connection.
    pub fn says_close(&self) -> bool {
        self.field("connection") == Some("close")
    }

    fn length(&self) -> Option<u64> {
        let value = self.field("content-length")?;
        Some(value.parse().expect("a length is a number"))
    }
}

impl Answer {
    /// Returns the status code.
    pub fn status(&self) -> u16 {
        self.head.status
    }

    /// Returns the value of a field of the head; `name` is in lower case.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.head.field(name)
    }

    /// Returns the body as text.
    ///
    /// # Panics
    ///
    /// If it is none.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is text")
    }
}

impl Client {
    /// Connects.
    ///
    /// # Panics
    ///
    /// If nobody listens.
    pub fn connect(address: SocketAddr) -> Self {
        Self::try_connect(address).expect("somebody listens")
    }

    /// Connects.
    ///
    /// # Errors
    ///
    /// Those of `connect(2)`.
    pub fn try_connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self::over(stream))
    }

    /// Connects with so little room in the kernel that what is not read soon holds the server up.
    ///
    /// # Panics
    ///
    /// If nobody listens.
    pub fn connect_narrow(address: SocketAddr) -> Self {
        Self::connect_with_room(address, NARROW)
    }

    /// Connects with room in the kernel for about so many bytes.
    ///
    /// # Panics
    ///
    /// If nobody listens.
    pub fn connect_with_room(address: SocketAddr, bytes: usize) -> Self {
        let socket = Socket::new(
            Domain::for_address(address),
            Type::STREAM,
            Some(Protocol::TCP),
        )
        .expect("a socket");
        socket.set_recv_buffer_size(bytes).expect("an option");
        socket.connect(&address.into()).expect("somebody listens");
        Self::over(socket.into())
    }

    fn over(stream: TcpStream) -> Self {
        Self {
            reader: BufReader::new(stream),
        }
    }

    /// Returns the socket.
    pub fn socket(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Gives the socket up; what was read ahead is lost.
    pub fn into_socket(self) -> TcpStream {
        self.reader.into_inner()
    }

    /// Sends bytes as they are.
    ///
    /// # Errors
    ///
    /// Those of `send(2)`.
    pub fn try_send(&self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        self.socket().write_all(bytes.as_ref())
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    ///
    /// If the server has gone.
    pub fn send(&self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).expect("the server takes it");
    }

    /// Sends a request without a body; `fields` are lines, each with its end.
    ///
    /// # Panics
    ///
    /// If the server has gone.
    pub fn ask(&self, method: &str, path: &str, fields: &str) {
        self.send(format!(
            "{method} {path} HTTP/1.1\r\nhost: test\r\n{fields}\r\n"
        ));
    }

    /// Sends a request and reads its answer.
    ///
    /// # Panics
    ///
    /// If there is no whole answer.
    pub fn get(&mut self, path: &str) -> Answer {
        self.get_with(path, "")
    }

    /// Sends a request with more fields and reads its answer; `fields` are lines, each with its end.
    ///
    /// # Panics
    ///
    /// If there is no whole answer.
    pub fn get_with(&mut self, path: &str, fields: &str) -> Answer {
        self.ask("GET", path, fields);
        self.answer()
    }

    /// Reads an answer.
    ///
    /// # Panics
    ///
    /// If there is no whole one.
    pub fn answer(&mut self) -> Answer {
        let answer = self.try_answer().expect("a whole answer");
        answer.expect("an answer before the end")
    }

    /// Reads an answer; `None` if the connection ended before its first byte.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`; `UnexpectedEof` if it ended within the answer.
    ///
    /// # Panics
    ///
    /// If what comes is no answer.
    pub fn try_answer(&mut self) -> io::Result<Option<Answer>> {
        let Some(head) = self.try_head()? else {
            return Ok(None);
        };
        let mut body = Vec::new();
        self.body(&head, |part| body.extend_from_slice(part))?;
        Ok(Some(Answer { head, body }))
    }

    /// Reads the head of an answer.
    ///
    /// # Panics
    ///
    /// If there is no whole one.
    pub fn head(&mut self) -> Head {
        let head = self.try_head().expect("a whole head");
        head.expect("an answer before the end")
    }

    /// Reads the head of an answer; `None` if the connection ended before its first byte.
    ///
    /// # Errors
    ///
    /// As for [`Client::try_answer`].
    ///
    /// # Panics
    ///
    /// If what comes is no answer.
    pub fn try_head(&mut self) -> io::Result<Option<Head>> {
        if self.reader.fill_buf()?.is_empty() {
            return Ok(None);
        }
        let line = self.line()?;
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| line.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3))
            .and_then(|code| code.parse().ok());
        let status = status.unwrap_or_else(|| panic!("{line:?} begins no answer"));
        let mut fields = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Ok(Some(Head { status, fields }));
            }
            let (name, value) = line.split_once(':').expect("a field has a colon");
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Reads the body that belongs to `head`, and hands it on piece by piece; returns its size.
    ///
    /// # Errors
    ///
    /// As for [`Client::try_answer`].
    ///
    /// # Panics
    ///
    /// If the head does not say where the body ends.
    pub fn body(&mut self, head: &Head, mut take: impl FnMut(&[u8])) -> io::Result<u64> {
        if matches!(head.status, 100..=199 | 204 | 304) {
            return Ok(0);
        }
        if let Some(length) = head.length() {
            self.exactly(length, &mut take)?;
            return Ok(length);
        }
        let coding = head.field("transfer-encoding");
        assert_eq!(coding, Some("chunked"), "no end is given: {head:?}");
        let mut size = 0;
        loop {
            let line = self.line()?;
            let chunk = u64::from_str_radix(&line, 16).expect("a chunk begins with its size");
            self.exactly(chunk, &mut take)?;
            size += chunk;
            assert_eq!(self.line()?, "", "a chunk is as long as it said");
            if chunk == 0 {
                return Ok(size);
            }
        }
    }

    /// Reads so many bytes of a body, as they are.
    ///
    /// # Errors
    ///
    /// As for [`Client::try_answer`].
    pub fn exactly(&mut self, size: u64, take: &mut impl FnMut(&[u8])) -> io::Result<()> {
        let mut left = size;
        while left > 0 {
            let buffered = self.reader.fill_buf()?;
            if buffered.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let part = buffered
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            take(&buffered[..part]);
            self.reader.consume(part);
            left -= part as u64;
        }
        Ok(())
    }

    /// Reads whatever still comes, until the end.
    ///
    /// # Errors
    ///
    /// Those of `recv(2)`.
    pub fn rest(&mut self) -> io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest)?;
        Ok(rest)
    }

    /// Reads an orderly end.
    ///
    /// # Panics
    ///
    /// If anything else comes.
    pub fn ends(&mut self) {
        let rest = self.rest().expect("an orderly end");
        assert_eq!(String::from_utf8_lossy(&rest), "", "nothing but the end");
    }

    /// Reads until the connection ends, be it by a reset, and returns how many bytes came.
    pub fn until_cut(&mut self) -> u64 {
        let mut count = 0;
        while let Ok(buffered @ [_, ..]) = self.reader.fill_buf() {
            let part = buffered.len();
            count += part as u64;
            self.reader.consume(part);
        }
        count
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = Vec::new();
        self.reader.read_until(b'\n', &mut line)?;
        let Some(line) = line.strip_suffix(b"\r\n") else {
            return Err(io::ErrorKind::UnexpectedEof.into());
        };
        Ok(String::from_utf8_lossy(line).into_owned())
    }
}

/// Lets time pass, on a thread that is no core's.
pub fn pause(duration: Duration) {
    let (_kept, never) = mpsc::channel::<()>();
    let outcome = never.recv_timeout(duration);
    assert_eq!(outcome, Err(mpsc::RecvTimeoutError::Timeout));
}

/// Waits, on a thread that is no core's, until `happened` says so.
pub fn until(mut happened: impl FnMut() -> bool) {
    while !happened() {
        pause(Duration::from_millis(1));
    }
}

/// Returns whether the port is free, which the server's last listener left; connections that are
/// open do not matter. No connection is made to see it.
pub fn nobody_listens(address: SocketAddr) -> bool {
    TcpListener::bind(address).is_ok()
}

/// The room for a client that reads slowly.
const NARROW: usize = 64 * 1024;
