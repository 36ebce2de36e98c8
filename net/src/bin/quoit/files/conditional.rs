//! Whether a request still wants the file, given the version of it that the client knows (RFC
//! 9110, section 13).
//!
//! The conditions are read in the order of section 13.2.2; a field that another one overrules is
//! not looked at:
//!
//! ```text
//!   If-Match, else If-Unmodified-Since ── false ──► 412
//!        │ true or absent
//!        ▼
//!   If-None-Match, else If-Modified-Since ── false ──► 304, or 412 unless GET or HEAD
//!        │ true or absent
//!        ▼
//!   If-Range ── false ──► the whole file, whatever Range says
//!        │ true or absent
//!        ▼
//!   Range may be looked at, for GET
//! ```
//!
//! What is always true:
//! - An ill-formed date is ignored, except that an ill-formed `If-Range` is false. In an ill-formed
//!   list the tags in front of the flaw count.
//! - A date is compared with the file's own modification time, not with the capped one that was
//!   sent. So a date handed out before the file's own second never leads to a 304 or a 206.
//! - In `If-Range` a date is false until its second has passed, as the file may still change in it.
//! - For a file whose modification time nobody kept, dates count for nothing (section 13.1.3).

use std::time::{Duration, SystemTime};

use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use super::entity_tag::EntityTag;
use super::validators::Validators;

/// What a request gets after its conditions were looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The file: 200, or what its `Range` makes of that.
    Proceed {
        /// Whether `Range` may be looked at; otherwise the whole file is the answer.
        range_applies: bool,
    },
    /// The client has this version already: 304.
    NotModified,
    /// The client asked for another version than this: 412.
    PreconditionFailed,
}

/// Decides what a request made with `method` at `now` gets of a file that exists.
pub(crate) fn evaluate(
    method: &Method,
    headers: &HeaderMap,
    file: &Validators,
    now: SystemTime,
) -> Decision {
    let is_retrieval = *method == Method::GET || *method == Method::HEAD;

    if headers.contains_key(header::IF_MATCH) {
        let is_this = |tag: EntityTag<'_>| tag.equals_strongly(file.entity_tag());
        if !lists_any(headers, header::IF_MATCH, is_this) {
            return Decision::PreconditionFailed;
        }
    } else if is_unmodified_since(headers, header::IF_UNMODIFIED_SINCE, file) == Some(false) {
        return Decision::PreconditionFailed;
    }

    if headers.contains_key(header::IF_NONE_MATCH) {
        let is_this = |tag: EntityTag<'_>| tag.equals_weakly(file.entity_tag());
        if lists_any(headers, header::IF_NONE_MATCH, is_this) {
            return if is_retrieval {
                Decision::NotModified
            } else {
                Decision::PreconditionFailed
            };
        }
    } else if is_retrieval
        && is_unmodified_since(headers, header::IF_MODIFIED_SINCE, file) == Some(true)
    {
        return Decision::NotModified;
    }

    // GET is the only method for which ranges are defined (section 14.2).
    let range_applies = *method == Method::GET && is_same_for_range(headers, file, now);
    Decision::Proceed { range_applies }
}

/// Tells whether a field lists a tag that `is_this` accepts, or `*`, which speaks of any version.
fn lists_any(
    headers: &HeaderMap,
    name: HeaderName,
    is_this: impl Fn(EntityTag<'_>) -> bool,
) -> bool {
    let mut values = headers.get_all(name).iter().map(HeaderValue::as_bytes);
    values.any(|value| value.trim_ascii() == b"*" || EntityTag::parse_list(value).any(&is_this))
}

/// Compares the file with the date in a field, if both have one.
fn is_unmodified_since(headers: &HeaderMap, name: HeaderName, file: &Validators) -> Option<bool> {
    Some(file.modified()? <= date(only_value(headers, name)?)?)
}

/// Evaluates `If-Range`, which holds when it is absent.
fn is_same_for_range(headers: &HeaderMap, file: &Validators, now: SystemTime) -> bool {
    if !headers.contains_key(header::IF_RANGE) {
        return true;
    }
    let Some(value) = only_value(headers, header::IF_RANGE) else {
        return false;
    };
    if let Some(tag) = EntityTag::parse(value.as_bytes()) {
        return tag.equals_strongly(file.entity_tag());
    }
    date(value).is_some_and(|date| {
        let age = now.duration_since(date);
        file.modified() == Some(date) && age.is_ok_and(|age| age >= Duration::from_secs(1))
    })
}

/// Returns the value of a field that is no list; sent twice it means nothing.
fn only_value(headers: &HeaderMap, name: HeaderName) -> Option<&HeaderValue> {
    let mut values = headers.get_all(name).into_iter();
    let value = values.next()?;
    values.next().is_none().then_some(value)
}

/// Reads a date in any of the three forms of section 5.6.7.
fn date(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::UNIX_EPOCH;

    /// The example date of RFC 9110, section 5.6.7: Sun, 06 Nov 1994 08:49:37 GMT.
    const MODIFIED: u64 = 784_111_777;

    /// What the capital words of a table stand for.
    const WORDS: [(&str, &str); 5] = [
        ("TAG", "\"2a-400-ae1b981da166f00\""),
        ("OTHER", "\"xyzzy\""),
        ("EARLIER", "Sun, 06 Nov 1994 08:49:36 GMT"),
        ("SAME", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("LATER", "Sun, 06 Nov 1994 08:49:38 GMT"),
    ];

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    /// A file modified half a second into `MODIFIED`.
    fn file() -> Validators {
        Validators::new(at(MODIFIED) + Duration::from_millis(500), 1024, 42)
    }

    /// Reads `name: value | name: value`.
    fn fields(text: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for field in text.split(" | ").filter(|field| !field.is_empty()) {
            let (name, value) = field.split_once(':').expect("a field has a colon");
            let name = HeaderName::try_from(name).expect("a field name");
            let value = WORDS
                .iter()
                .fold(value.trim().to_owned(), |value, (word, meaning)| {
                    value.replace(word, meaning)
                });
            headers.append(name, HeaderValue::try_from(value).expect("a field value"));
        }
        headers
    }

    /// Asks for `file` at `now`, and returns the answer as a word of a table.
    fn asked(method: &Method, text: &str, file: &Validators, now: SystemTime) -> &'static str {
        match evaluate(method, &fields(text), file, now) {
            Decision::Proceed {
                range_applies: true,
            } => "range",
            Decision::Proceed {
                range_applies: false,
            } => "whole",
            Decision::NotModified => "304",
            Decision::PreconditionFailed => "412",
        }
    }

    /// Checks lines of `fields => answer` for a request a minute after the file was modified.
    #[track_caller]
    fn check(method: Method, table: &str) {
        for line in table.trim().lines() {
            let (text, answer) = line.split_once("=>").expect("a line has an arrow");
            let asked = asked(&method, text.trim(), &file(), at(MODIFIED + 60));
            assert_eq!(asked, answer.trim(), "{method} with {text}");
        }
    }

    #[test]
    fn without_conditions_the_file_is_served_and_only_get_has_ranges() {
        check(Method::GET, " => range");
        check(Method::HEAD, " => whole");
        check(Method::POST, " => whole");
    }

    #[test]
    fn if_match_wants_this_tag_compared_strongly() {
        let table = "
            if-match: TAG             => range
            if-match: *               => range
            if-match: OTHER, TAG      => range
            if-match: OTHER, W/TAG    => 412
            if-match: W/TAG           => 412
            if-match: OTHER           => 412
            if-match: \"*\"             => 412
            if-match:                 => 412
            if-match: 2a-400          => 412
            if-match: xyzzy, TAG      => 412";
        check(Method::GET, table);
        check(Method::HEAD, &table.replace("range", "whole"));
    }

    #[test]
    fn if_none_match_wants_another_tag_compared_weakly() {
        let table = "
            if-none-match: TAG          => 304
            if-none-match: *            => 304
            if-none-match: W/TAG        => 304
            if-none-match: OTHER, W/TAG => 304
            if-none-match: OTHER        => range
            if-none-match: \"*\"          => range
            if-none-match:              => range
            if-none-match: 2a-400       => range
            if-none-match: xyzzy, TAG   => range";
        check(Method::GET, table);
        check(Method::HEAD, &table.replace("range", "whole"));
        let table = table.replace("range", "whole").replace("304", "412");
        check(Method::PUT, &table);
    }

    #[test]
    fn a_list_of_tags_may_be_spread_over_several_fields() {
        check(
            Method::GET,
            "if-match: OTHER | if-match: TAG | if-match: OTHER => range
             if-none-match: OTHER | if-none-match: TAG | if-none-match: OTHER => 304",
        );
    }

    #[test]
    fn if_modified_since_wants_a_later_change() {
        let table = "
            if-modified-since: EARLIER                         => range
            if-modified-since: SAME                            => 304
            if-modified-since: LATER                           => 304
            if-modified-since: Sunday, 06-Nov-94 08:49:37 GMT  => 304
            if-modified-since: Sun Nov  6 08:49:37 1994        => 304
            if-modified-since: Sun Nov  6 08:49:36 1994        => range";
        check(Method::GET, table);
        check(Method::HEAD, &table.replace("range", "whole"));
        check(Method::POST, "if-modified-since: SAME => whole");
    }

    #[test]
    fn if_unmodified_since_wants_no_later_change() {
        let table = "
            if-unmodified-since: EARLIER => 412
            if-unmodified-since: SAME    => range
            if-unmodified-since: LATER   => range";
        check(Method::GET, table);
        check(Method::PUT, &table.replace("range", "whole"));
    }

    #[test]
    fn what_is_no_date_or_more_than_one_is_ignored() {
        check(
            Method::GET,
            "if-modified-since:                                             => range
             if-modified-since: tomorrow                                    => range
             if-modified-since: 784111777                                   => range
             if-modified-since: TAG                                         => range
             if-modified-since: Sun, 31 Feb 2999 08:49:37 GMT               => range
             if-modified-since: Sun, 06 Nov 1994 08:49:37 \u{e9}            => range
             if-modified-since: LATER | if-modified-since: LATER            => range
             if-unmodified-since:                                           => range
             if-unmodified-since: yesterday                                 => range
             if-unmodified-since: EARLIER | if-unmodified-since: EARLIER    => range",
        );
    }

    #[test]
    fn tags_overrule_dates() {
        check(
            Method::GET,
            "if-none-match: OTHER | if-modified-since: LATER  => range
             if-none-match: TAG | if-modified-since: EARLIER  => 304
             if-match: TAG | if-unmodified-since: EARLIER     => range
             if-match: OTHER | if-unmodified-since: LATER     => 412",
        );
    }

    #[test]
    fn the_first_pair_of_conditions_comes_before_the_second() {
        check(
            Method::GET,
            "if-match: OTHER | if-none-match: TAG               => 412
             if-match: TAG | if-none-match: TAG                 => 304
             if-match: TAG | if-none-match: OTHER               => range
             if-match: TAG | if-modified-since: SAME            => 304
             if-match: OTHER | if-modified-since: SAME          => 412
             if-unmodified-since: EARLIER | if-none-match: TAG  => 412
             if-unmodified-since: SAME | if-modified-since: SAME => 304
             if-none-match: TAG | if-range: OTHER               => 304
             if-match: TAG | if-range: OTHER                    => whole
             if-match: OTHER | if-range: TAG                    => 412",
        );
    }

    #[test]
    fn if_range_wants_exactly_this_version() {
        let table = "
            if-range: TAG                            => range
            if-range: SAME                           => range
            if-range: Sunday, 06-Nov-94 08:49:37 GMT => range
            if-range: W/TAG                          => whole
            if-range: OTHER                          => whole
            if-range: TAG, TAG                       => whole
            if-range: EARLIER                        => whole
            if-range: LATER                          => whole
            if-range: *                              => whole
            if-range:                                => whole
            if-range: yesterday                      => whole
            if-range: TAG | if-range: TAG            => whole";
        check(Method::GET, table);
        check(Method::HEAD, &table.replace("range\n", "whole\n"));
    }

    #[test]
    fn if_range_trusts_a_date_once_its_second_has_passed() {
        let asked = |text, now| asked(&Method::GET, text, &file(), now);
        let end_of_second = at(MODIFIED + 1) - Duration::from_nanos(1);

        assert_eq!(asked("if-range: SAME", at(MODIFIED)), "whole");
        assert_eq!(asked("if-range: SAME", end_of_second), "whole");
        assert_eq!(asked("if-range: SAME", at(MODIFIED + 1)), "range");
        assert_eq!(asked("if-range: TAG", end_of_second), "range");
    }

    #[test]
    fn a_date_given_out_for_a_file_from_the_future_vouches_for_nothing() {
        for age in [1, 3600] {
            let now = at(MODIFIED - age);
            let told = file().last_modified_field(now).expect("the time is kept");
            let told = told.to_str().expect("visible ASCII");
            let asked = |name| asked(&Method::GET, &format!("{name}: {told}"), &file(), now);

            assert_eq!(asked("if-modified-since"), "range");
            assert_eq!(asked("if-range"), "whole");
            assert_eq!(asked("if-unmodified-since"), "412");
        }
    }

    #[test]
    fn dates_count_for_nothing_when_nobody_kept_the_time() {
        let file = Validators::new(UNIX_EPOCH, 1, 1);
        let asked = |text| asked(&Method::GET, text, &file, at(MODIFIED));

        assert_eq!(asked("if-modified-since: LATER"), "range");
        assert_eq!(
            asked("if-unmodified-since: Thu, 01 Jan 1970 00:00:00 GMT"),
            "range"
        );
        assert_eq!(asked("if-range: Thu, 01 Jan 1970 00:00:00 GMT"), "whole");
    }
}
