//! What a case is, and how it is run: bytes go to a server, and what comes back is held against what
//! has to.
//!
//! Nothing is timed. A connection that has to end is read to its end; one that has to go on is asked for
//! something more, which is also how bytes would show that the two sides take for different messages.

use std::fmt;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::Duration;

/// Writes a test for each case: the section that it is about, its name, what is sent to the strict server,
/// and what comes of it.
macro_rules! cases {
    ($($(#[$meta:meta])* $section:literal $name:ident: $sent:expr => $expected:expr;)*) => {
        $(
            $(#[$meta])*
            #[test]
            fn $name() {
                let server = $crate::server::strict();
                let wire = $crate::case::Wire::open(stringify!($name), $section, server);
                let sent = $sent;
                wire.run(sent.as_ref(), &$expected);
            }
        )*
    };
}
pub(crate) use cases;

/// What comes back.
#[derive(Debug, Clone)]
pub(crate) struct Expected {
    answers: Vec<Want>,
    end: End,
    /// The client says that it sends nothing more.
    ends_first: bool,
}

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing more comes, and the connection ends.
    Closes,
    /// The next request is answered.
    Persists,
    /// One of the two: the next request is answered, or not, and is taken for nothing else.
    Either,
}

/// What an answer has to be.
#[derive(Debug, Clone, Default)]
pub(crate) struct Want {
    statuses: Vec<u16>,
    body: Option<String>,
    has: Vec<(&'static str, &'static str)>,
    lacks: Vec<&'static str>,
    trailers: Vec<String>,
    to_head: bool,
}

/// An answer with one of these statuses.
pub(crate) fn status(statuses: &[u16]) -> Want {
    Want {
        statuses: statuses.to_vec(),
        ..Want::default()
    }
}

/// An answer with 200 and this body.
pub(crate) fn ok(body: &str) -> Want {
    status(&[200]).body(body)
}

impl Want {
    /// It has this body.
    pub(crate) fn body(mut self, body: &str) -> Self {
        self.body = Some(body.to_owned());
        self
    }

    /// It has this field, with this value.
    pub(crate) fn has(mut self, name: &'static str, value: &'static str) -> Self {
        self.has.push((name, value));
        self
    }

    /// It has no such field.
    pub(crate) fn lacks(mut self, name: &'static str) -> Self {
        self.lacks.push(name);
        self
    }

    /// Behind its body comes this line.
    pub(crate) fn trailer(mut self, line: &str) -> Self {
        self.trailers.push(line.to_owned());
        self
    }

    /// It answers HEAD.
    pub(crate) fn without_body(mut self) -> Self {
        self.to_head = true;
        self
    }

    /// Nothing comes after it.
    pub(crate) fn and_end(self) -> Expected {
        all([self]).closing()
    }

    /// The connection goes on after it.
    pub(crate) fn and_more(self) -> Expected {
        all([self])
    }
}

/// These answers, after which the connection goes on.
pub(crate) fn all(answers: impl IntoIterator<Item = Want>) -> Expected {
    Expected {
        answers: answers.into_iter().collect(),
        end: End::Persists,
        ends_first: false,
    }
}

/// An answer with one of these statuses, and the end.
pub(crate) fn refused(statuses: &[u16]) -> Expected {
    status(statuses).and_end()
}

/// An answer with 200 and this body, and the connection goes on.
pub(crate) fn answered(body: &str) -> Expected {
    ok(body).and_more()
}

/// The end, and no answer.
pub(crate) fn silence() -> Expected {
    all([]).closing()
}

impl Expected {
    /// The connection ends.
    pub(crate) fn closing(mut self) -> Self {
        self.end = End::Closes;
        self
    }

    /// The connection may end.
    pub(crate) fn closing_or_not(mut self) -> Self {
        self.end = End::Either;
        self
    }

    /// The client ends its side after what it has sent.
    pub(crate) fn half_closed(mut self) -> Self {
        self.ends_first = true;
        self
    }
}

/// One connection, with what was said on it.
pub(crate) struct Wire {
    name: &'static str,
    section: &'static str,
    stream: TcpStream,
    sent: Vec<u8>,
    came: Vec<u8>,
    /// How much of `came` was understood.
    read: usize,
}

/// An answer that came.
#[derive(Debug)]
struct Came {
    status: u16,
    fields: Vec<(String, String)>,
    body: Vec<u8>,
    trailers: Vec<String>,
}

impl Came {
    fn all(&self, name: &str) -> Vec<&str> {
        let named = self.fields.iter().filter(|(field, _)| field == name);
        named.map(|(_, value)| value.as_str()).collect()
    }
}

impl Wire {
    /// Connects; `name` and `section` are for what is said of a failure.
    pub(crate) fn open(name: &'static str, section: &'static str, server: SocketAddr) -> Self {
        let stream = TcpStream::connect(server).expect("the server listens");
        stream.set_nodelay(true).expect("an option of every socket");
        let patience = Some(Duration::from_secs(30));
        stream
            .set_read_timeout(patience)
            .expect("an option of every socket");
        Self {
            name,
            section,
            stream,
            sent: Vec::new(),
            came: Vec::new(),
            read: 0,
        }
    }

    /// Sends these bytes, and holds against `expected` what comes of it.
    pub(crate) fn run(mut self, sent: &[u8], expected: &Expected) {
        self.send(sent);
        if expected.ends_first {
            // It may have ended itself.
            let _ = self.stream.shutdown(Shutdown::Write);
        }
        for want in &expected.answers {
            self.expect(want);
        }
        match expected.end {
            End::Closes => self.ends(),
            End::Persists => self.goes_on(),
            End::Either => self.send(PROBE),
        }
        if expected.end == End::Either && self.more() {
            self.expect(&ok(PROBED));
        }
    }

    /// Sends bytes. That the server has heard enough is no failure.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let bytes = bytes.as_ref();
        self.sent.extend_from_slice(bytes);
        let _ = self.stream.write_all(bytes);
    }

    /// Reads an answer, and holds it against `want`.
    pub(crate) fn expect(&mut self, want: &Want) {
        let came = self.answer(want.to_head);
        let status = came.status;
        if !want.statuses.contains(&status) {
            self.fail(format_args!("{status} instead of {:?}", want.statuses));
        }
        let body = String::from_utf8_lossy(&came.body);
        if let Some(wanted) = &want.body
            && *wanted != body
        {
            self.fail(format_args!("the body is {body:?} instead of {wanted:?}"));
        }
        for &(name, value) in &want.has {
            if came.all(name) != [value] {
                self.fail(format_args!("{name} is not {value:?}"));
            }
        }
        for &name in &want.lacks {
            if !came.all(name).is_empty() {
                self.fail(format_args!("there is a field {name}"));
            }
        }
        if came.trailers != want.trailers {
            let (came, wanted) = (&came.trailers, &want.trailers);
            self.fail(format_args!(
                "the trailers are {came:?} instead of {wanted:?}"
            ));
        }
        self.check_every(&came);
    }

    /// What holds of every answer of an origin server with a clock.
    fn check_every(&self, came: &Came) {
        let framing = came.all("content-length").len() + came.all("transfer-encoding").len();
        if framing > 1 {
            self.fail(format_args!(
                "its length is said {framing} times (9112, 6.2)"
            ));
        }
        if matches!(came.status, 100..=199 | 204) && framing > 0 {
            self.fail(format_args!("{} says a length (9110, 8.6)", came.status));
        }
        if (200..500).contains(&came.status) {
            let dates = came.all("date");
            let well_formed = |date: &str| date.len() == 29 && date.ends_with(" GMT");
            if dates.len() != 1 || !well_formed(dates[0]) {
                self.fail(format_args!("its dates are {dates:?} (9110, 6.6.1)"));
            }
        }
    }

    /// Reads the end.
    pub(crate) fn ends(&mut self) {
        if self.more() {
            self.fail(format_args!("something comes instead of the end"));
        }
    }

    /// Asks for something more, and reads the answer to that.
    pub(crate) fn goes_on(&mut self) {
        self.send(PROBE);
        self.expect(&ok(PROBED));
    }

    fn answer(&mut self, to_head: bool) -> Came {
        let line = self.line();
        let status = line
            .strip_prefix("HTTP/1.1 ")
            .or_else(|| line.strip_prefix("HTTP/1.0 "))
            .and_then(|rest| rest.get(..3)?.parse().ok());
        let Some(status) = status else {
            self.fail(format_args!("{line:?} begins no answer"));
        };
        let mut fields = Vec::new();
        loop {
            let line = self.line();
            if line.is_empty() {
                break;
            }
            let Some((name, value)) = line.split_once(':') else {
                self.fail(format_args!("{line:?} is no field"));
            };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let mut came = Came {
            status,
            fields,
            body: Vec::new(),
            trailers: Vec::new(),
        };
        self.read_body(&mut came, to_head);
        came
    }

    fn read_body(&mut self, came: &mut Came, to_head: bool) {
        if to_head || matches!(came.status, 100..=199 | 204 | 304) {
            return;
        }
        if came.all("transfer-encoding") == ["chunked"] {
            self.read_chunks(came);
        } else if let [length] = came.all("content-length")[..] {
            let Ok(length) = length.parse() else {
                self.fail(format_args!("{length:?} is no length"));
            };
            came.body = self.take(length);
        } else {
            while self.fill() {}
            came.body = self.take(self.came.len() - self.read);
        }
    }

    fn read_chunks(&mut self, came: &mut Came) {
        loop {
            let line = self.line();
            let Ok(size) = usize::from_str_radix(&line, 16) else {
                self.fail(format_args!("{line:?} begins no chunk"));
            };
            if size == 0 {
                break;
            }
            came.body.extend(self.take(size));
            if !self.line().is_empty() {
                self.fail(format_args!("a chunk is longer than it says"));
            }
        }
        loop {
            let line = self.line();
            if line.is_empty() {
                return;
            }
            came.trailers.push(line);
        }
    }

    fn line(&mut self) -> String {
        loop {
            let unread = &self.came[self.read..];
            if let Some(end) = unread.windows(2).position(|pair| pair == b"\r\n") {
                let line = String::from_utf8_lossy(&unread[..end]).into_owned();
                self.read += end + 2;
                return line;
            }
            if !self.fill() {
                self.fail(format_args!("the end comes instead of an answer"));
            }
        }
    }

    fn take(&mut self, size: usize) -> Vec<u8> {
        while self.came.len() - self.read < size {
            if !self.fill() {
                self.fail(format_args!("the end comes within an answer"));
            }
        }
        let taken = self.came[self.read..][..size].to_vec();
        self.read += size;
        taken
    }

    /// Returns whether anything comes before the end.
    fn more(&mut self) -> bool {
        self.read < self.came.len() || self.fill()
    }

    /// Reads something; `false` at the end.
    fn fill(&mut self) -> bool {
        let mut bytes = [0; 4096];
        match self.stream.read(&mut bytes) {
            Ok(count) => {
                self.came.extend_from_slice(&bytes[..count]);
                count > 0
            }
            // Such as by whatever watches the process.
            Err(error) if error.kind() == ErrorKind::Interrupted => self.fill(),
            Err(error) => self.fail(format_args!("{error}")),
        }
    }

    fn fail(&self, what: fmt::Arguments<'_>) -> ! {
        panic!(
            "{} ({}): {what}\n  sent: {}\n  came: {}",
            self.name,
            self.section,
            shown(&self.sent),
            shown(&self.came)
        );
    }
}

/// Makes bytes readable, and what is long short.
fn shown(bytes: &[u8]) -> String {
    match bytes {
        [] => "nothing".to_owned(),
        bytes if bytes.len() <= 2000 => format!("\"{}\"", bytes.escape_ascii()),
        bytes => {
            let (first, last) = (&bytes[..500], &bytes[bytes.len() - 500..]);
            let between = bytes.len() - 1000;
            let (first, last) = (first.escape_ascii(), last.escape_ascii());
            format!("\"{first}\" ... {between} bytes ... \"{last}\"")
        }
    }
}

/// What a connection that goes on is asked for.
const PROBE: &[u8] = b"GET /probe HTTP/1.1\r\nhost: test\r\n\r\n";
const PROBED: &str = "GET /probe []";
