//! Server-sent events: a stream of text that a browser's `EventSource` reads.
//!
//! The format is that of the WHATWG's HTML standard, section "Server-sent events".

use std::borrow::Borrow;
use std::fmt::Write;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Response};
use quoit::time::sleep;

use super::super::BoxError;
use super::{Sender, StreamBody, stream};

/// Makes an answer of the events that `produce` sends: a [`stream`] with the content type
/// `text/event-stream`, which nobody is to keep.
///
/// ```
/// use std::io;
/// use std::time::Duration;
/// use quoit::sync::broadcast::Receiver;
/// use quoit_net::http::body::{Event, EventSender, StreamBody, events};
///
/// # fn answer(mut news: Receiver<String>) -> http::Response<StreamBody> {
/// events(async move |sender: EventSender| {
///     // A proxy on the way closes what is silent for too long.
///     let often = Duration::from_secs(15);
///     while let Ok(Some(text)) = sender.while_waiting(often, news.recv()).await? {
///         sender.send(Event::new(text).name("news")).await?;
///     }
///     Ok::<_, io::Error>(())
/// })
/// # }
/// ```
pub fn events<P, F, E>(produce: P) -> Response<StreamBody>
where
    P: FnOnce(EventSender) -> F + 'static,
    F: Future<Output = Result<(), E>> + 'static,
    E: Into<BoxError>,
{
    let mut answer = Response::new(stream(|sender| produce(EventSender { sender })));
    let fields = answer.headers_mut();
    fields.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    fields.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}

/// Where events go in.
#[derive(Debug)]
pub struct EventSender {
    sender: Sender,
}

impl EventSender {
    /// Sends an event: waits while the client takes nothing.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if the event cannot be written as such, see [`Event::to_text`]; those of [`Sender::send`].
    /// Whoever lends the event has it still.
    pub async fn send(&self, event: impl Borrow<Event>) -> io::Result<()> {
        let text = event.borrow().to_text()?;
        Ok(self.sender.send(text).await?)
    }

    /// Sends a comment, which no client takes for an event: a sign of life.
    ///
    /// # Errors
    ///
    /// As for [`Sender::send`].
    pub async fn comment(&self, text: &str) -> io::Result<()> {
        let mut comment = String::new();
        for line in lines(text) {
            let _ = writeln!(comment, ":{line}");
        }
        comment.push('\n');
        Ok(self.sender.send(comment).await?)
    }

    /// Waits for something else, such as what the next event is made of, and sends an empty comment each
    /// time it has taken so long.
    ///
    /// # Errors
    ///
    /// As for [`Sender::send`]; what was waited for is dropped then.
    pub async fn while_waiting<T>(
        &self,
        often: Duration,
        something: impl Future<Output = T>,
    ) -> io::Result<T> {
        let mut something = pin!(something);
        loop {
            let mut pause = pin!(sleep(often));
            let found = poll_fn(|cx| {
                if let Poll::Ready(found) = something.as_mut().poll(cx) {
                    return Poll::Ready(Some(found));
                }
                pause.as_mut().poll(cx).map(|_| None)
            });
            match found.await {
                Some(found) => return Ok(found),
                // Or it is cancelled, and this says so.
                None => self.comment("").await?,
            }
        }
    }
}

/// One event: its data, and what else a client is to know.
///
/// ```
/// use quoit_net::http::body::Event;
///
/// let event = Event::new("first line\nsecond line").name("news").id("17");
/// assert_eq!(
///     event.to_text()?,
///     "event:news\nid:17\ndata:first line\ndata:second line\n\n"
/// );
/// # Ok::<_, std::io::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    name: Option<String>,
    id: Option<String>,
    retry: Option<Duration>,
    data: Option<String>,
}

impl Event {
    /// An event with this data, of any number of lines.
    pub fn new(data: impl Into<String>) -> Self {
        Self {
            data: Some(data.into()),
            ..Self::default()
        }
    }

    /// Data alone makes an event: without, a client takes note of the rest and tells nobody.
    pub fn without_data() -> Self {
        Self::default()
    }

    /// What it is called: `message` unless told.
    #[must_use]
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// What a client that connects again names in `last-event-id`, as the last it saw.
    #[must_use]
    pub fn id(mut self, id: impl Into<String>) -> Self {
        self.id = Some(id.into());
        self
    }

    /// How long a client waits before it connects again, in whole milliseconds.
    #[must_use]
    pub fn retry(mut self, after: Duration) -> Self {
        self.retry = Some(after);
        self
    }

    /// Returns it as it is sent.
    ///
    /// # Errors
    ///
    /// `InvalidInput` if there is a line end in its name or its id, or a NUL in its id: neither has a
    /// way to be written.
    pub fn to_text(&self) -> io::Result<String> {
        let mut text = String::new();
        if let Some(name) = &self.name {
            let name = one_line("name", name)?;
            let _ = writeln!(text, "event:{}", guarded(name));
        }
        if let Some(id) = &self.id {
            let id = one_line("id", id)?;
            if id.contains('\0') {
                return Err(refused(format!(
                    "the id of an event has a NUL in it: {id:?}"
                )));
            }
            let _ = writeln!(text, "id:{}", guarded(id));
        }
        if let Some(retry) = self.retry {
            let _ = writeln!(text, "retry:{}", retry.as_millis());
        }
        if let Some(data) = &self.data {
            for line in lines(data) {
                let _ = writeln!(text, "data:{}", guarded(line));
            }
        }
        text.push('\n');
        Ok(text)
    }
}

/// A client takes one space away from the beginning of each value.
fn guarded(value: &str) -> String {
    if value.starts_with(' ') {
        format!(" {value}")
    } else {
        value.to_owned()
    }
}

fn one_line<'a>(what: &str, value: &'a str) -> io::Result<&'a str> {
    if value.contains(['\r', '\n']) {
        return Err(refused(format!(
            "the {what} of an event has a line end in it: {value:?}"
        )));
    }
    Ok(value)
}

fn refused(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

/// Returns the lines of a text, which end as the standard says: with CR LF, LF or CR.
fn lines(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = Some(text);
    std::iter::from_fn(move || {
        let text = rest?;
        let Some(at) = text.find(['\r', '\n']) else {
            rest = None;
            return Some(text);
        };
        let end = if text[at..].starts_with("\r\n") { 2 } else { 1 };
        rest = Some(&text[at + end..]);
        Some(&text[..at])
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads a stream as the standard says: the events that are dispatched, with type, data and last id.
    fn read(stream: &str) -> Vec<(String, String, String)> {
        let mut events = Vec::new();
        let (mut name, mut data, mut id) = (String::new(), String::new(), String::new());
        for line in stream.replace("\r\n", "\n").replace('\r', "\n").lines() {
            if line.is_empty() {
                if !data.is_empty() {
                    data.pop();
                    let name = if name.is_empty() { "message" } else { &name };
                    events.push((name.to_owned(), data.clone(), id.clone()));
                }
                (name, data) = (String::new(), String::new());
                continue;
            }
            let (field, value) = line.split_once(':').unwrap_or((line, ""));
            let value = value.strip_prefix(' ').unwrap_or(value);
            match field {
                "event" => value.clone_into(&mut name),
                "data" => data.push_str(&format!("{value}\n")),
                "id" if !value.contains('\0') => value.clone_into(&mut id),
                _ => {}
            }
        }
        events
    }

    #[test]
    fn what_is_sent_is_what_a_client_reads() {
        for (data, told) in [
            ("one", "one"),
            ("", ""),
            ("one\ntwo", "one\ntwo"),
            ("one\r\ntwo\rthree\n", "one\ntwo\nthree\n"),
            ("\n\n", "\n\n"),
            (" led by a space", " led by a space"),
            ("id: 3\n\ndata: x", "id: 3\n\ndata: x"),
            (": no comment", ": no comment"),
        ] {
            let event = Event::new(data).name("news").id(" 17");
            let text = event.to_text().expect("well-formed");
            let seen = ("news".to_owned(), told.to_owned(), " 17".to_owned());
            assert_eq!(read(&text), [seen], "{text:?}");
        }
        let plain = Event::new("x").to_text().expect("well-formed");
        assert_eq!(read(&plain)[0].0, "message");
    }

    #[test]
    fn an_event_without_data_is_told_to_nobody() {
        let event = Event::without_data().retry(Duration::from_millis(2500));
        let text = event.to_text().expect("well-formed");
        assert_eq!(text, "retry:2500\n\n");
        assert!(read(&text).is_empty());
    }

    #[test]
    fn what_cannot_be_written_is_refused() {
        for event in [
            Event::new("x").name("a\nb"),
            Event::new("x").name("a\rdata: y"),
            Event::new("x").id("1\n"),
            Event::new("x").id("1\0"),
        ] {
            let error = event.to_text().expect_err("it cannot be written");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{event:?}");
        }
    }
}
