//! What tells one version of a file from the others: its entity tag and its modification time (RFC
//! 9110, section 8.8).
//!
//! What is always true:
//! - The entity tag is strong: it changes with the file's modification time in nanoseconds, its
//!   size and its inode, which can be read in it. Two writes in place that leave the same size,
//!   within one tick of the file system's clock or with the time set back, cannot be told apart.
//! - `Last-Modified` is never later than `now`; for a file from the future it is `now`.
//! - A modification time within the current second is sent all the same, although the file may
//!   change again in that second: being equal to `Date` it tells the client not to rely on it
//!   (section 8.8.2.2).
//! - A modification time before the first second after the epoch means that nobody kept the time:
//!   images and package stores set every file to it. There is no `Last-Modified` then.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

use super::entity_tag::EntityTag;

/// What a client may know of one version of a file.
#[derive(Clone, Debug)]
pub(crate) struct Validators {
    /// What stands between the quotes of the entity tag.
    opaque: String,
    modified: Option<SystemTime>,
}

impl Validators {
    /// Derives the validators of a file from what `stat` says about it.
    pub(crate) fn new(modified: SystemTime, size: u64, inode: u64) -> Self {
        let (sign, distance) = match modified.duration_since(UNIX_EPOCH) {
            Ok(after) => ("", after),
            Err(before) => ("-", before.duration()),
        };
        let opaque = format!("{inode:x}-{size:x}-{sign}{:x}", distance.as_nanos());
        let seconds = Duration::from_secs(distance.as_secs());
        let is_kept = sign.is_empty() && !seconds.is_zero();
        let modified = is_kept.then(|| UNIX_EPOCH + seconds);
        Self { opaque, modified }
    }

    /// Returns the entity tag for comparing.
    pub(crate) fn entity_tag(&self) -> EntityTag<'_> {
        let opaque = self.opaque.as_bytes();
        EntityTag {
            is_weak: false,
            opaque,
        }
    }

    /// Returns the modification time in whole seconds, not capped, unless nobody kept it.
    pub(crate) fn modified(&self) -> Option<SystemTime> {
        self.modified
    }

    /// Returns the `ETag` of a response.
    pub(crate) fn etag_field(&self) -> HeaderValue {
        HeaderValue::try_from(format!("\"{}\"", self.opaque)).expect("a tag is visible ASCII")
    }

    /// Returns the `Last-Modified` of a response sent at `now`, unless nobody kept the time.
    pub(crate) fn last_modified_field(&self, now: SystemTime) -> Option<HeaderValue> {
        // Outside these years a date has no form in `httpdate`, which would panic.
        let last = UNIX_EPOCH + Duration::from_secs(LAST_SECOND_OF_9999);
        let capped = self.modified?.min(now).clamp(UNIX_EPOCH, last);
        let date = httpdate::fmt_http_date(capped);
        Some(HeaderValue::try_from(date).expect("a date is visible ASCII"))
    }
}

const LAST_SECOND_OF_9999: u64 = 253_402_300_799;

#[cfg(test)]
mod tests {
    use super::*;

    const NANOSECOND: Duration = Duration::from_nanos(1);

    fn at(seconds: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(seconds)
    }

    fn last_modified(modified: SystemTime, now: SystemTime) -> Option<String> {
        let field = Validators::new(modified, 0, 0).last_modified_field(now)?;
        Some(field.to_str().expect("visible ASCII").to_owned())
    }

    #[test]
    fn the_entity_tag_changes_with_nanosecond_size_and_inode() {
        let tags = [
            Validators::new(at(7), 8, 9),
            Validators::new(at(7) + NANOSECOND, 8, 9),
            Validators::new(at(7), 9, 9),
            Validators::new(at(7), 8, 8),
            Validators::new(at(7), 9, 8),
            Validators::new(UNIX_EPOCH - Duration::from_secs(7), 8, 9),
            Validators::new(UNIX_EPOCH + NANOSECOND, 8, 9),
            Validators::new(UNIX_EPOCH - NANOSECOND, 8, 9),
        ]
        .map(|validators| validators.etag_field());

        for (index, tag) in tags.iter().enumerate() {
            assert!(!tags[..index].contains(tag), "{tag:?} is given out twice");
        }
    }

    #[test]
    fn the_entity_tag_sent_is_the_one_compared() {
        for modified in [at(784_111_777), UNIX_EPOCH - NANOSECOND] {
            let validators = Validators::new(modified, u64::MAX, u64::MAX);
            let field = validators.etag_field();
            let read = EntityTag::parse(field.as_bytes()).expect("one tag");
            assert!(read.equals_strongly(validators.entity_tag()));
        }
        let file = Validators::new(at(1), 1024, 42);
        assert_eq!(file.etag_field(), "\"2a-400-3b9aca00\"");
    }

    #[test]
    fn last_modified_is_cut_to_seconds_and_capped_at_now() {
        let modified = at(784_111_777) + Duration::from_millis(500);
        for (now, date) in [
            (784_111_837, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (784_111_776, "Sun, 06 Nov 1994 08:49:36 GMT"),
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        ] {
            assert_eq!(last_modified(modified, at(now)).as_deref(), Some(date));
        }
    }

    #[test]
    fn a_date_stays_in_the_years_that_have_a_form() {
        let far = at(LAST_SECOND_OF_9999 + 1);
        let last = "Fri, 31 Dec 9999 23:59:59 GMT";
        assert_eq!(last_modified(far, far).as_deref(), Some(last));
        let first = "Thu, 01 Jan 1970 00:00:00 GMT";
        let before = UNIX_EPOCH - NANOSECOND;
        assert_eq!(last_modified(far, before).as_deref(), Some(first));
    }

    #[test]
    fn a_time_of_the_epoch_or_before_is_not_kept() {
        let before = UNIX_EPOCH - Duration::from_secs(5);
        for modified in [before, UNIX_EPOCH, at(1) - NANOSECOND] {
            assert_eq!(last_modified(modified, at(9)), None);
            assert_eq!(Validators::new(modified, 0, 0).modified(), None);
        }
        let first = "Thu, 01 Jan 1970 00:00:01 GMT";
        assert_eq!(last_modified(at(1), at(9)).as_deref(), Some(first));
    }
}
