//! `Entry`: one line of the log.
//!
//! What clients send is theirs to choose: here it becomes characters that end no line, close no quote and
//! move no cursor.

use std::borrow::Cow;
use std::fmt::Write;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderValue, Version};
use quoit_net::Address;
use quoit_net::http::Answered;

/// What a line tells.
#[derive(Debug, Clone)]
pub(super) struct Entry<'a> {
    /// When the request came in.
    at: SystemTime,
    address: &'a Address,
    method: &'a str,
    target: Cow<'a, str>,
    version: Version,
    referer: Option<&'a [u8]>,
    user_agent: Option<&'a [u8]>,
    status: Option<u16>,
    sent: u64,
    whole: bool,
    took: Duration,
}

impl<'a> Entry<'a> {
    pub(super) fn of(answered: &'a Answered<'_>, at: SystemTime) -> Self {
        let uri = answered.uri;
        // HTTP/2 has no line to quote, and all targets say a host there.
        let target = match (answered.version, uri.path_and_query()) {
            (Version::HTTP_2, Some(path)) => Cow::Borrowed(path.as_str()),
            _ => Cow::Owned(uri.to_string()),
        };
        Self {
            at,
            address: &answered.peer.address,
            method: answered.method.as_str(),
            target,
            version: answered.version,
            referer: answered.referer.map(HeaderValue::as_bytes),
            user_agent: answered.user_agent.map(HeaderValue::as_bytes),
            status: answered.status.map(|status| status.as_u16()),
            sent: answered.sent,
            whole: answered.whole,
            took: answered.took,
        }
    }

    /// Writes it in the combined log format, and the seconds that it took.
    pub(super) fn combined(&self) -> Vec<u8> {
        let mut line = String::with_capacity(256);
        match self.address.ip() {
            Some(ip) => write(&mut line, format_args!("{ip}")),
            None => line.push_str("unix:"),
        }
        let date = httpdate::fmt_http_date(self.at);
        // Of `Sun, 06 Nov 1994 08:49:37 GMT`.
        let (day, month, year, time) = (&date[5..7], &date[8..11], &date[12..16], &date[17..25]);
        write(
            &mut line,
            format_args!(" - - [{day}/{month}/{year}:{time} +0000] \""),
        );
        write_plain(&mut line, self.method.as_bytes());
        line.push(' ');
        write_plain(&mut line, self.target.as_bytes());
        write(
            &mut line,
            format_args!(" {:?}\" {} ", self.version, self.status.unwrap_or(GONE)),
        );
        match self.sent {
            0 => line.push('-'),
            sent => write(&mut line, format_args!("{sent}")),
        }
        for field in [self.referer, self.user_agent] {
            line.push_str(" \"");
            write_plain(&mut line, field.unwrap_or(b"-"));
            line.push('"');
        }
        write(&mut line, format_args!(" {:.6}\n", self.took.as_secs_f64()));
        line.into_bytes()
    }

    /// Writes it as an object of JSON.
    pub(super) fn json(&self) -> Vec<u8> {
        let mut line = String::with_capacity(256);
        let date = httpdate::fmt_http_date(self.at);
        let (day, month, year, time) = (&date[5..7], &date[8..11], &date[12..16], &date[17..25]);
        let month = MONTHS.iter().position(|&name| name == month).unwrap_or(0) + 1;
        let since = self.at.duration_since(UNIX_EPOCH).unwrap_or_default();
        write(
            &mut line,
            format_args!(
                "{{\"time\":\"{year}-{month:02}-{day}T{time}.{:06}Z\",\"peer\":",
                since.subsec_micros()
            ),
        );
        write_json(&mut line, self.address.to_string().as_bytes());
        line.push_str(",\"method\":");
        write_json(&mut line, self.method.as_bytes());
        line.push_str(",\"target\":");
        write_json(&mut line, self.target.as_bytes());
        write(
            &mut line,
            format_args!(",\"version\":\"{:?}\",\"status\":", self.version),
        );
        match self.status {
            Some(status) => write(&mut line, format_args!("{status}")),
            None => line.push_str("null"),
        }
        write(
            &mut line,
            format_args!(
                ",\"bytes\":{},\"whole\":{},\"seconds\":{:.6}",
                self.sent,
                self.whole,
                self.took.as_secs_f64()
            ),
        );
        for (name, field) in [("referer", self.referer), ("user_agent", self.user_agent)] {
            write(&mut line, format_args!(",\"{name}\":"));
            match field {
                Some(field) => write_json(&mut line, field),
                None => line.push_str("null"),
            }
        }
        line.push_str("}\n");
        line.into_bytes()
    }
}

/// What is said in place of a status where a client had gone before there was one: what nginx says.
const GONE: u16 = 499;

const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

fn write(line: &mut String, what: std::fmt::Arguments<'_>) {
    line.write_fmt(what).expect("a string takes all");
}

/// Writes what stands between quotes, escaped as Apache does it.
fn write_plain(line: &mut String, bytes: &[u8]) {
    for &byte in bytes {
        match byte {
            b'"' | b'\\' => {
                line.push('\\');
                line.push(byte.into());
            }
            b' '..=b'~' => line.push(byte.into()),
            _ => write(line, format_args!("\\x{byte:02x}")),
        }
    }
}

/// Writes a string of JSON; what is no UTF-8 is replaced.
fn write_json(line: &mut String, bytes: &[u8]) {
    line.push('"');
    for character in String::from_utf8_lossy(bytes).chars() {
        match character {
            '"' | '\\' => {
                line.push('\\');
                line.push(character);
            }
            // Some take the last two for the end of a line.
            _ if character.is_control() || matches!(character, '\u{2028}' | '\u{2029}') => {
                write(line, format_args!("\\u{:04x}", u32::from(character)));
            }
            _ => line.push(character),
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use quoit_net::unix::UnixAddress;

    use super::*;

    fn home() -> Address {
        SocketAddr::from(([192, 0, 2, 7], 4711)).into()
    }

    /// A request of the year of RFC 1945's examples.
    fn entry<'a>(address: &'a Address, target: &'a str) -> Entry<'a> {
        Entry {
            at: UNIX_EPOCH + Duration::new(784_111_777, 123_456_789),
            address,
            method: "GET",
            target: target.into(),
            version: Version::HTTP_11,
            referer: None,
            user_agent: Some(b"curl/8"),
            status: Some(200),
            sent: 2326,
            whole: true,
            took: Duration::from_micros(1_234),
        }
    }

    fn text(line: Vec<u8>) -> String {
        String::from_utf8(line).expect("lines are text")
    }

    #[test]
    fn combined_is_as_others_write_it_and_says_how_long_it_took() {
        let home = home();
        assert_eq!(
            text(entry(&home, "/a?b").combined()),
            "192.0.2.7 - - [06/Nov/1994:08:49:37 +0000] \"GET /a?b HTTP/1.1\" 200 2326 \"-\" \
             \"curl/8\" 0.001234\n"
        );
        let nowhere = Address::from(UnixAddress::path("/run/client of mine"));
        let gone = Entry {
            version: Version::HTTP_2,
            status: None,
            sent: 0,
            ..entry(&nowhere, "/")
        };
        assert_eq!(
            text(gone.combined()),
            "unix: - - [06/Nov/1994:08:49:37 +0000] \"GET / HTTP/2.0\" 499 - \"-\" \"curl/8\" \
             0.001234\n"
        );
    }

    #[test]
    fn json_says_all_of_it() {
        let home = home();
        assert_eq!(
            text(entry(&home, "/a?b").json()),
            "{\"time\":\"1994-11-06T08:49:37.123456Z\",\"peer\":\"192.0.2.7:4711\",\
             \"method\":\"GET\",\"target\":\"/a?b\",\"version\":\"HTTP/1.1\",\"status\":200,\
             \"bytes\":2326,\"whole\":true,\"seconds\":0.001234,\"referer\":null,\
             \"user_agent\":\"curl/8\"}\n"
        );
    }

    #[test]
    fn what_a_client_says_forges_nothing() {
        let (home, mut agent) = (home(), (0..=255).collect::<Vec<u8>>());
        agent.extend_from_slice("\u{85}\u{9b}2J\u{2028}é".as_bytes());
        let entry = Entry {
            user_agent: Some(&agent),
            ..entry(&home, "/\"\\\n")
        };
        let combined = text(entry.combined());
        assert!(combined.contains("\"GET /\\\"\\\\\\x0a HTTP/1.1\" 200"));
        assert!(combined.contains(" \"\\x00\\x01"), "{combined}");
        assert!(combined.contains(" !\\\"#"), "{combined}");
        assert!(combined.contains("}~\\x7f\\x80"), "{combined}");
        let json = text(entry.json());
        assert!(json.contains("\"target\":\"/\\\"\\\\\\u000a\""), "{json}");
        assert!(json.contains("\\u0085\\u009b2J\\u2028é"), "{json}");
        for line in [combined, json] {
            let (line, end) = line.split_at(line.len() - 1);
            assert_eq!(end, "\n");
            assert!(!line.chars().any(char::is_control), "{line}");
        }
    }
}
