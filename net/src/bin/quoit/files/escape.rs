//! Arbitrary bytes as text in an HTML page.
//!
//! What comes out means text in an element and in a quoted attribute alike. It is for reading, not
//! for getting the bytes back: what is no UTF-8, and every control character, shows as `\u{fffd}`.

use std::fmt::{self, Write};

/// Bytes that are shown as text.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Text<'a>(pub &'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in String::from_utf8_lossy(self.0).chars() {
            match character {
                '&' => formatter.write_str("&amp;")?,
                '<' => formatter.write_str("&lt;")?,
                '>' => formatter.write_str("&gt;")?,
                '"' => formatter.write_str("&quot;")?,
                '\'' => formatter.write_str("&#39;")?,
                // A line break would show as a space; most of the others HTML does not allow.
                control if control.is_control() => {
                    formatter.write_char(char::REPLACEMENT_CHARACTER)?;
                }
                other => formatter.write_char(other)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_something_to_html_is_escaped() {
        for (bytes, text) in [
            ("plain", "plain"),
            ("a & b", "a &amp; b"),
            ("&lt;", "&amp;lt;"),
            ("<script>", "&lt;script&gt;"),
            ("</title>", "&lt;/title&gt;"),
            ("\"double\"", "&quot;double&quot;"),
            ("'single'", "&#39;single&#39;"),
            ("`{{$x}}`", "`{{$x}}`"),
        ] {
            assert_eq!(Text(bytes.as_bytes()).to_string(), text);
        }
    }

    #[test]
    fn text_beyond_ascii_stays_as_it_is() {
        for text in ["é", "日本語", "👩‍🚀", "مرحبا"] {
            assert_eq!(Text(text.as_bytes()).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_text_shows_as_a_replacement() {
        for (bytes, text) in [
            (&b"\xff"[..], "\u{fffd}"),
            (b"a\xc3", "a\u{fffd}"),
            (b"\xc0\xaf", "\u{fffd}\u{fffd}"),
            (b"two\nlines", "two\u{fffd}lines"),
            (
                b"\0\t\r\x1b\x7f",
                "\u{fffd}\u{fffd}\u{fffd}\u{fffd}\u{fffd}",
            ),
            (b"\xc2\x85", "\u{fffd}"),
        ] {
            assert_eq!(Text(bytes).to_string(), text);
        }
    }
}
