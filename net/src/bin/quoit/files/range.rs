//! Which bytes of a file a `Range` asks for (RFC 9110, section 14).
//!
//! What is always true:
//! - One range of bytes that overlaps the file is a [`Selection::Part`], cut off at the file's
//!   end.
//! - Several ranges get the whole file. A server may ignore any `Range` (section 14.2), and many
//!   small ranges in one request are a known way to wear a server out (section 17.15). So
//!   `multipart/byteranges` is deliberately absent.
//! - What is ill-formed, or counts in another unit than bytes, is ignored.
//!
//! Whether the field may be looked at is not decided here: `conditional` knows the method and
//! `If-Range`.

use http::header::{HeaderMap, HeaderValue, RANGE};

/// The part of a file that answers a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Selection {
    /// The whole file: 200.
    Full,
    /// The bytes from `first` to `last`, both included and both inside the file: 206.
    Part {
        /// The first byte, counted from zero.
        first: u64,
        /// The last byte, not before the first.
        last: u64,
    },
    /// No byte of the file is in the range: 416.
    Unsatisfiable,
}

impl Selection {
    /// Reads the `Range` of a request for a file of `size` bytes.
    pub(crate) fn from_headers(headers: &HeaderMap, size: u64) -> Self {
        let mut fields = headers.get_all(RANGE).iter();
        // `Range` is no list; whoever sends it twice cannot know which one is meant.
        let (Some(field), None) = (fields.next(), fields.next()) else {
            return Self::Full;
        };
        let range = field.to_str().ok().and_then(only_byte_range);
        range.map_or(Self::Full, |range| range.within(size))
    }

    /// Returns the `Content-Range` that goes with this answer, if one does.
    pub(crate) fn content_range(self, size: u64) -> Option<HeaderValue> {
        let value = match self {
            Self::Full => return None,
            Self::Part { first, last } => format!("bytes {first}-{last}/{size}"),
            Self::Unsatisfiable => format!("bytes */{size}"),
        };
        Some(HeaderValue::try_from(value).expect("digits and punctuation are a field value"))
    }
}

/// A well-formed range of bytes, before it meets a file.
#[derive(Clone, Copy)]
enum ByteRange {
    /// `a-` or `a-b`.
    From { first: u64, last: u64 },
    /// `-n`.
    Suffix { length: u64 },
}

impl ByteRange {
    fn parse(text: &str) -> Option<Self> {
        let (first, last) = text.split_once('-')?;
        match (first, last) {
            ("", length) => Some(Self::Suffix {
                length: position(length)?,
            }),
            (first, "") => Some(Self::From {
                first: position(first)?,
                last: u64::MAX,
            }),
            (first, last) => {
                let (first, last) = (position(first)?, position(last)?);
                (first <= last).then_some(Self::From { first, last })
            }
        }
    }

    fn within(self, size: u64) -> Selection {
        match self {
            Self::From { first, .. } if first >= size => Selection::Unsatisfiable,
            Self::From { first, last } => Selection::Part {
                first,
                last: last.min(size - 1),
            },
            Self::Suffix { length: 0 } => Selection::Unsatisfiable,
            // Satisfiable by section 14.1.2, yet no `Content-Range` can express zero bytes.
            Self::Suffix { .. } if size == 0 => Selection::Full,
            Self::Suffix { length } => Selection::Part {
                first: size.saturating_sub(length),
                last: size - 1,
            },
        }
    }
}

/// Returns the range of a field value that holds one range of bytes and nothing else.
fn only_byte_range(value: &str) -> Option<ByteRange> {
    let (unit, ranges) = value.split_once('=')?;
    // Names of units know no case (section 14.1).
    if !unit.eq_ignore_ascii_case("bytes") {
        return None;
    }
    // Empty elements of a list are passed over (section 5.6.1.2).
    let trimmed = ranges
        .split(',')
        .map(|range| range.trim_matches([' ', '\t']));
    let mut ranges = trimmed.filter(|range| !range.is_empty());
    match (ranges.next(), ranges.next()) {
        (Some(range), None) => ByteRange::parse(range),
        _ => None,
    }
}

/// Reads digits. A number beyond `u64` is as good as its maximum: both lie past every file.
fn position(digits: &str) -> Option<u64> {
    let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selected(values: &[&str], size: u64) -> Selection {
        let value = |text: &&str| HeaderValue::try_from(*text).expect("a field value");
        let mut headers = HeaderMap::new();
        for value in values.iter().map(value) {
            headers.append(RANGE, value);
        }
        Selection::from_headers(&headers, size)
    }

    /// Checks lines of `value => answer` for a file of `size` bytes.
    #[track_caller]
    fn check(size: u64, table: &str) {
        for line in table.trim().lines() {
            let (value, answer) = line.split_once("=>").expect("a line has an arrow");
            let selected = match selected(&[value.trim()], size) {
                Selection::Full => "full".to_owned(),
                Selection::Part { first, last } => format!("{first}-{last}"),
                Selection::Unsatisfiable => "416".to_owned(),
            };
            assert_eq!(selected, answer.trim(), "{} of {size} bytes", value.trim());
        }
    }

    /// The examples of RFC 9110, section 14.1.2.
    #[test]
    fn the_examples_of_the_rfc_hold() {
        check(
            10_000,
            "bytes=0-499                    => 0-499
             bytes=500-999                  => 500-999
             bytes=-500                     => 9500-9999
             bytes=9500-                    => 9500-9999
             bytes=0-0,-1                   => full
             bytes= 0-999, 4500-5499, -1000 => full
             bytes=500-600,601-999          => full
             bytes=500-700,601-999          => full",
        );
    }

    #[test]
    fn a_range_ends_with_the_file() {
        check(
            100,
            "bytes=0-       => 0-99
             bytes=0-0      => 0-0
             bytes=0-99     => 0-99
             bytes=0-100    => 0-99
             bytes=99-      => 99-99
             bytes=99-5000  => 99-99
             bytes=007-008  => 7-8",
        );
    }

    #[test]
    fn a_suffix_longer_than_the_file_is_all_of_it() {
        check(
            100,
            "bytes=-1   => 99-99
             bytes=-99  => 1-99
             bytes=-100 => 0-99
             bytes=-101 => 0-99",
        );
    }

    #[test]
    fn a_range_past_the_end_and_an_empty_suffix_are_unsatisfiable() {
        check(
            100,
            "bytes=100-     => 416
             bytes=100-200  => 416
             bytes=-0       => 416
             bytes=-000     => 416",
        );
    }

    #[test]
    fn an_empty_file_has_no_part() {
        check(
            0,
            "bytes=0-  => 416
             bytes=0-0 => 416
             bytes=-0  => 416
             bytes=-1  => full",
        );
    }

    #[test]
    fn numbers_beyond_64_bits_lie_past_every_file() {
        check(
            100,
            "bytes=5-18446744073709551615                    => 5-99
             bytes=5-18446744073709551616                    => 5-99
             bytes=-18446744073709551616                     => 0-99
             bytes=18446744073709551616-                     => 416
             bytes=99999999999999999999-99999999999999999999 => 416
             bytes=99999999999999999999-5                    => full",
        );
        check(
            u64::MAX,
            "bytes=0-                    => 0-18446744073709551614
             bytes=18446744073709551614- => 18446744073709551614-18446744073709551614
             bytes=18446744073709551615- => 416
             bytes=18446744073709551616- => 416",
        );
    }

    #[test]
    fn what_is_ill_formed_is_ignored() {
        for value in concat!(
            "|bytes|bytes=|bytes=,|bytes=-|bytes=--1|bytes=5|bytes=2-1|bytes=a-b|bytes=1-b",
            "|bytes=a-1|bytes=1-2-3|bytes=+1-2|bytes=1-+2|bytes=-+2|bytes=0x1-2|bytes=1 -2",
            "|bytes=1- 2|bytes =1-2|bytes:1-2|bytes=1-2;|1-2|=1-2|bytes=\u{661}-2|bytes=1\u{2013}2",
        )
        .split('|')
        {
            assert_eq!(selected(&[value], 100), Selection::Full, "{value:?}");
        }
    }

    #[test]
    fn another_unit_is_ignored_and_the_case_of_bytes_is_not_minded() {
        check(
            100,
            "seconds=1-2 => full
             bytess=1-2  => full
             BYTES=1-2   => 1-2
             Bytes=1-2   => 1-2",
        );
    }

    #[test]
    fn a_list_of_one_is_one_range() {
        check(
            100,
            "bytes=,1-2        => 1-2
             bytes= 1-2\t, ,   => 1-2
             bytes=1-2,1-2     => full
             bytes=1-2,oops    => full
             bytes=100-,200-   => full",
        );
    }

    #[test]
    fn without_a_field_or_with_two_the_whole_file_is_served() {
        assert_eq!(selected(&[], 100), Selection::Full);
        assert_eq!(selected(&["bytes=1-2"; 2], 100), Selection::Full);
        assert_ne!(selected(&["bytes=1-2"], 100), Selection::Full);
    }

    #[test]
    fn content_range_names_the_part_or_the_size() {
        let content_range = |values: &[&str], size| {
            let field = selected(values, size).content_range(size)?;
            Some(field.to_str().expect("visible ASCII").to_owned())
        };
        let part = content_range(&["bytes=21010-47021"], 47_022);
        assert_eq!(part.as_deref(), Some("bytes 21010-47021/47022"));
        let unsatisfiable = content_range(&["bytes=47022-"], 47_022);
        assert_eq!(unsatisfiable.as_deref(), Some("bytes */47022"));
        assert_eq!(content_range(&[], 47_022), None);
    }
}
