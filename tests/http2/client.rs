//! A client that sends whatever frames it is told to, over a plain socket.
//!
//! That nothing came is never told by waiting: the client sends a PING and reads until it is answered,
//! twice. A server answers a PING at once, and what it says of an error may stand behind that answer;
//! when it has answered the second, which it got after its first answer had left, it has said all.

use std::collections::HashMap;
use std::fmt;
use std::fmt::Write as _;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use crate::codes::*;
use crate::{hpack, servers};

/// What every client begins with.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A server that says nothing for so long has failed. Longer than any of them takes on a slow machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One frame, taken apart.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    /// The number in the payload's bytes from `at`.
    pub(crate) fn number(&self, at: usize) -> u32 {
        let bytes = self.payload[at..at + 4].try_into();
        u32::from_be_bytes(bytes.expect("four bytes"))
    }
}

impl fmt::Debug for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = name(self.kind);
        write!(f, "{name} flags={:#x} stream={}", self.flags, self.stream)?;
        match self.kind {
            RST_STREAM if self.payload.len() == 4 => write!(f, " code={:#x}", self.number(0)),
            GOAWAY if self.payload.len() >= 8 => write!(
                f,
                " last={} code={:#x} {:?}",
                self.number(0),
                self.number(4),
                String::from_utf8_lossy(&self.payload[8..])
            ),
            _ => {
                let shown = &self.payload[..self.payload.len().min(32)];
                write!(f, " {} bytes {}", self.payload.len(), shown.escape_ascii())
            }
        }
    }
}

/// What carries the bytes.
pub(crate) trait Wire: Read + Write {}
impl<T: Read + Write> Wire for T {}

/// One connection, seen from the client.
pub(crate) struct Client {
    wire: Box<dyn Wire>,
    section: &'static str,
    said: String,
    came: Vec<Frame>,
    /// How the connection ended, once it has.
    end: Option<String>,
    pings: u64,
    /// What may still be sent on the connection.
    window: i64,
    /// What may still be sent on each stream that a body was sent on.
    windows: HashMap<u32, i64>,
    initial_window: i64,
}

impl Client {
    /// Connects to the shared server and exchanges the settings.
    pub(crate) fn open(section: &'static str) -> Self {
        Self::open_at(servers::shared(), section)
    }

    /// Connects to a server and exchanges the settings.
    pub(crate) fn open_at(address: SocketAddr, section: &'static str) -> Self {
        let mut client = Self::silent(address, section);
        client.greet();
        client
    }

    /// Connects, and says nothing.
    pub(crate) fn silent(address: SocketAddr, section: &'static str) -> Self {
        let wire = TcpStream::connect(address).expect("it listens");
        Self::over_tcp(wire, section)
    }

    /// Speaks over a socket.
    pub(crate) fn over_tcp(wire: TcpStream, section: &'static str) -> Self {
        wire.set_nodelay(true).expect("an option");
        wire.set_read_timeout(Some(PATIENCE)).expect("an option");
        wire.set_write_timeout(Some(PATIENCE)).expect("an option");
        Self::over(Box::new(wire), section)
    }

    /// Speaks over what is connected already.
    pub(crate) fn over(wire: Box<dyn Wire>, section: &'static str) -> Self {
        Self {
            wire,
            section,
            said: String::new(),
            came: Vec::new(),
            end: None,
            pings: 0,
            window: 65_535,
            windows: HashMap::new(),
            initial_window: 65_535,
        }
    }

    /// Exchanges prefaces and settings.
    pub(crate) fn greet(&mut self) {
        self.raw(PREFACE).settings(&[]);
        let theirs = self.wait_for(|frame| frame.kind == SETTINGS);
        assert_eq!(theirs.flags, 0, "{self:?}: settings come before their ACK");
        self.frame(SETTINGS, ACK, 0, b"").settle();
        assert!(self.end.is_none(), "{self:?}");
        self.came.clear();
        self.said.clear();
    }

    // --- sending ---

    /// Sends bytes as they are. A server that has hung up already shows in what is read.
    pub(crate) fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        let shown = &bytes[..bytes.len().min(48)];
        if self.said.len() < 4096 {
            writeln!(
                self.said,
                "  {} ({} bytes)",
                shown.escape_ascii(),
                bytes.len()
            )
            .expect("a string grows");
        }
        if let Err(error) = self.try_raw(bytes) {
            assert!(is_hang_up(&error), "{self:?}: sending failed: {error}");
        }
        self
    }

    /// Sends bytes as they are, and says how that went.
    pub(crate) fn try_raw(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.wire.write_all(bytes)?;
        self.wire.flush()
    }

    /// Sends one frame.
    pub(crate) fn frame(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> &mut Self {
        let bytes = frame(kind, flags, stream, payload);
        if self.said.len() < 4096 {
            let shown = Frame {
                kind,
                flags,
                stream,
                payload: payload.to_vec(),
            };
            writeln!(self.said, "  {shown:?} =").expect("a string grows");
        }
        self.raw(&bytes)
    }

    /// Sends fields in one frame.
    pub(crate) fn fields(&mut self, flags: u8, stream: u32, fields: &[(&str, &str)]) -> &mut Self {
        let block = hpack::encode(fields);
        self.frame(HEADERS, END_HEADERS | flags, stream, &block)
    }

    /// Sends a whole GET.
    pub(crate) fn get(&mut self, stream: u32, path: &str) -> &mut Self {
        self.fields(END_STREAM, stream, &hpack::request("GET", path))
    }

    /// Sends the head of a POST, of which the body is to follow.
    pub(crate) fn post(&mut self, stream: u32, path: &str) -> &mut Self {
        self.fields(NONE, stream, &hpack::request("POST", path))
    }

    /// Sends a frame of data.
    pub(crate) fn data(&mut self, flags: u8, stream: u32, payload: &[u8]) -> &mut Self {
        self.frame(DATA, flags, stream, payload)
    }

    /// Sends a frame of data once the server's windows have room for it.
    pub(crate) fn upload(&mut self, flags: u8, stream: u32, payload: &[u8]) -> &mut Self {
        let length = payload.len() as i64;
        while self.room(stream) < length {
            self.wait_for(|frame| frame.kind == WINDOW_UPDATE);
        }
        self.window -= length;
        *self.windows.get_mut(&stream).expect("it was asked for") -= length;
        self.data(flags, stream, payload)
    }

    /// How much data the server takes on a stream now.
    pub(crate) fn room(&mut self, stream: u32) -> i64 {
        let window = *self.windows.entry(stream).or_insert(self.initial_window);
        window.min(self.window)
    }

    /// Sends as much data as the server takes on a stream without giving any window back.
    pub(crate) fn fill_window(&mut self, stream: u32) -> &mut Self {
        while self.room(stream) > 0 {
            let size = self.room(stream).min(LARGEST as i64);
            self.upload(NONE, stream, &vec![0; size as usize]);
        }
        self
    }

    /// Sends settings.
    pub(crate) fn settings(&mut self, settings: &[(u16, u32)]) -> &mut Self {
        let payload: Vec<u8> = settings
            .iter()
            .flat_map(|(name, value)| [&name.to_be_bytes()[..], &value.to_be_bytes()].concat())
            .collect();
        self.frame(SETTINGS, NONE, 0, &payload)
    }

    /// Sends a frame with a number in it: a window's increment, or the reason of a reset.
    pub(crate) fn number(&mut self, kind: u8, stream: u32, number: u32) -> &mut Self {
        self.frame(kind, NONE, stream, &number.to_be_bytes())
    }

    // --- reading ---

    /// Reads one frame; `None` once the connection has ended.
    pub(crate) fn read(&mut self) -> Option<Frame> {
        if self.end.is_some() {
            return None;
        }
        let mut head = [0; 9];
        self.fill(&mut head)?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        assert!(length <= LARGEST, "{self:?}: a frame of {length} bytes");
        let mut payload = vec![0; length];
        self.fill(&mut payload)?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        assert_eq!(stream >> 31, 0, "{self:?}: the reserved bit is set");
        let frame = Frame {
            kind: head[3],
            flags: head[4],
            stream,
            payload,
        };
        self.account(&frame);
        self.came.push(frame.clone());
        Some(frame)
    }

    /// Keeps the books of what may be sent.
    fn account(&mut self, frame: &Frame) {
        match frame.kind {
            WINDOW_UPDATE if frame.stream == 0 => self.window += i64::from(frame.number(0)),
            WINDOW_UPDATE => {
                let window = self.windows.entry(frame.stream);
                *window.or_insert(self.initial_window) += i64::from(frame.number(0));
            }
            SETTINGS => {
                let settings = frame.payload.chunks(6);
                for setting in settings.filter(|it| it[..2] == INITIAL_WINDOW_SIZE.to_be_bytes()) {
                    let value = setting[2..].try_into().expect("four bytes");
                    self.initial_window = u32::from_be_bytes(value).into();
                }
            }
            _ => {}
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) -> Option<()> {
        match self.wire.read_exact(bytes) {
            Ok(()) => Some(()),
            Err(error) if is_hang_up(&error) => {
                self.end = Some(error.to_string());
                None
            }
            Err(error) => panic!("{self:?}\nreading failed: {error}"),
        }
    }

    /// Reads to the first frame that is meant.
    ///
    /// # Panics
    ///
    /// If the connection ends before.
    pub(crate) fn wait_for(&mut self, is_meant: impl Fn(&Frame) -> bool) -> Frame {
        loop {
            match self.read() {
                Some(frame) if is_meant(&frame) => return frame,
                Some(_) => {}
                None => panic!("{self:?}\nit ended too early"),
            }
        }
    }

    /// Reads all that the server has to say to what it was sent.
    pub(crate) fn settle(&mut self) -> &mut Self {
        for _ in 0..2 {
            self.pings += 1;
            let payload = (0x5e77_1ed0_0000_0000 + self.pings).to_be_bytes();
            self.frame(PING, NONE, 0, &payload);
            while let Some(frame) = self.read() {
                if frame.kind == PING && frame.flags == ACK && frame.payload == payload {
                    self.came.pop();
                    break;
                }
            }
        }
        self
    }

    /// Returns the frames that came since the greeting.
    pub(crate) fn came(&self) -> &[Frame] {
        &self.came
    }

    /// Forgets what came so far.
    pub(crate) fn forget(&mut self) -> &mut Self {
        self.came.clear();
        self
    }

    // --- what must have come of it ---

    /// A connection error of this type: GOAWAY with the code, and the end.
    pub(crate) fn ends_with(&mut self, code: u32) {
        self.ends_with_any(&[code]);
    }

    /// The same, where hyper says PROTOCOL_ERROR though there is a more specific code (section 7).
    pub(crate) fn ends_with_or_unspecific(&mut self, code: u32) {
        self.ends_with_any(&[code, PROTOCOL_ERROR]);
    }

    /// A connection error of one of these types.
    pub(crate) fn ends_with_any(&mut self, codes: &[u32]) {
        self.settle();
        assert!(self.end.is_some(), "{self:?}\nthe connection did not end");
        let said = self.said_goodbye();
        assert!(
            said.is_some_and(|code| codes.contains(&code)),
            "{self:?}\nit ended with {said:x?} and not with {codes:x?}"
        );
    }

    /// The code of the last GOAWAY that came.
    pub(crate) fn said_goodbye(&self) -> Option<u32> {
        let goodbye = self.came.iter().rev().find(|frame| frame.kind == GOAWAY);
        goodbye.map(|frame| frame.number(4))
    }

    /// A stream error of this type: RST_STREAM with the code, and the connection goes on.
    pub(crate) fn resets(&mut self, stream: u32, code: u32) {
        self.resets_with_any(stream, &[code]);
    }

    /// A stream error of one of these types.
    pub(crate) fn resets_with_any(&mut self, stream: u32, codes: &[u32]) {
        self.settle();
        assert!(self.end.is_none(), "{self:?}\nthe connection ended");
        let came = self.code_of_reset(stream);
        assert!(
            came.is_some_and(|code| codes.contains(&code)),
            "{self:?}\nit was reset with {came:x?} and not with {codes:x?}"
        );
    }

    /// A stream error, or a connection error of the same type (section 5.4).
    pub(crate) fn resets_or_ends(&mut self, stream: u32, code: u32) {
        self.settle();
        if self.end.is_some() {
            self.ends_with(code);
        } else {
            self.resets(stream, code);
        }
    }

    /// The same, where hyper says PROTOCOL_ERROR though there is a more specific code (section 7).
    pub(crate) fn resets_or_ends_or_unspecific(&mut self, stream: u32, code: u32) {
        self.settle();
        if self.end.is_some() {
            self.ends_with_or_unspecific(code);
        } else {
            self.resets(stream, code);
        }
    }

    /// The code with which a stream was reset.
    pub(crate) fn code_of_reset(&self, stream: u32) -> Option<u32> {
        let of_stream = |frame: &&Frame| frame.kind == RST_STREAM && frame.stream == stream;
        let reset = self.came.iter().find(of_stream);
        reset.map(|frame| frame.number(0))
    }

    /// Nothing came of it, and the connection goes on.
    pub(crate) fn ignores(&mut self) {
        self.settle();
        assert!(self.end.is_none(), "{self:?}\nthe connection ended");
        assert!(
            self.came.iter().all(|frame| frame.kind == WINDOW_UPDATE),
            "{self:?}\nsomething came"
        );
    }

    /// The connection goes on: a request is answered.
    pub(crate) fn goes_on(&mut self, stream: u32) {
        self.get(stream, "/on").answers(stream, 200);
    }

    /// An answer with this status comes on the stream.
    pub(crate) fn answers(&mut self, stream: u32, status: u16) {
        let is_head = |frame: &Frame| frame.kind == HEADERS && frame.stream == stream;
        let before = self.came.iter().find(|frame| is_head(frame)).cloned();
        let head = before.unwrap_or_else(|| self.wait_for(is_head));
        let came = hpack::status(&head.payload);
        assert_eq!(came, status, "{self:?}");
    }

    /// An answer with status 200 and this body comes on the stream.
    pub(crate) fn answers_with(&mut self, stream: u32, text: &str) {
        self.answers(stream, 200);
        let body = self.body(stream);
        assert_eq!(String::from_utf8_lossy(&body), text, "{self:?}");
    }

    /// Reads the answer's body on a stream to its end.
    pub(crate) fn body(&mut self, stream: u32) -> Vec<u8> {
        let is_last = |frame: &Frame| {
            frame.stream == stream
                && matches!(frame.kind, DATA | HEADERS)
                && frame.flags & END_STREAM != 0
        };
        if !self.came.iter().any(is_last) {
            self.wait_for(is_last);
        }
        let of_stream = |frame: &&Frame| frame.kind == DATA && frame.stream == stream;
        let pieces = self.came.iter().filter(of_stream);
        pieces.flat_map(|frame| frame.payload.clone()).collect()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "section {}\nsent:\n{}came:", self.section, self.said)?;
        for frame in self.came.iter().take(40) {
            writeln!(f, "  {frame:?}")?;
        }
        write!(
            f,
            "  {} frames in all; end: {:?}",
            self.came.len(),
            self.end
        )
    }
}

/// One frame as bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], kind, flags];
    frame.extend_from_slice(&stream.to_be_bytes());
    frame.extend_from_slice(payload);
    frame
}

/// The other side has ended the connection, in order or not.
pub(crate) fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe
    )
}
