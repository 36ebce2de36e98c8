//! The answers that hyper makes on its own: to what it could not understand, and what was too large.
//!
//! A target that is too long is a head that is too large to it, and in a simulation they are not dated, since
//! hyper would read a clock of its own. Both are put right on their way out (RFC 9110, sections 15.5.15 and
//! 6.6.1).

use std::rc::Rc;

use super::connection::Date;

/// Completes answers that nobody was asked for.
#[derive(Debug)]
pub(super) struct OwnAnswers {
    /// What dates them; none where hyper does.
    date: Option<Rc<Date>>,
    max_head: usize,
}

impl OwnAnswers {
    pub(super) fn new(date: Option<Rc<Date>>, max_head: usize) -> Self {
        Self { date, max_head }
    }

    /// Returns what is said instead of `said`, the answer to a request of which a line of so many bytes
    /// came; `None` if it is no whole answer.
    pub(super) fn complete(&self, said: &[u8], line: usize) -> Option<Vec<u8>> {
        let fields = said.strip_suffix(b"\r\n")?;
        if !fields.starts_with(b"HTTP/1.") || !fields.ends_with(b"\r\n") {
            return None;
        }
        let mut answer = Vec::with_capacity(said.len() + ROOM);
        match fields.strip_prefix(TOO_LARGE) {
            Some(rest) if line >= self.max_head => {
                answer.extend_from_slice(TOO_LONG);
                answer.extend_from_slice(rest);
            }
            _ => answer.extend_from_slice(fields),
        }
        if let Some(date) = &self.date {
            answer.extend_from_slice(b"date: ");
            answer.extend_from_slice(date.now().as_bytes());
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"\r\n");
        Some(answer)
    }
}

/// How much longer an answer becomes.
const ROOM: usize = 64;

const TOO_LARGE: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\n";
const TOO_LONG: &[u8] = b"HTTP/1.1 414 URI Too Long\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_whole_head_is_left_as_it_is() {
        let own = OwnAnswers::new(Some(Rc::default()), 100);
        for said in [
            "",
            "HTTP/1.1 400 Bad Request\r\n",
            "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r",
            "content-length: 0\r\n\r\n",
            "0\r\n\r\n",
        ] {
            assert_eq!(own.complete(said.as_bytes(), 0), None, "{said:?}");
        }
    }
}
