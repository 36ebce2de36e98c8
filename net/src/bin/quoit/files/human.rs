//! Sizes and times the way people read them.
//!
//! A size has at most four digits before its unit and counts in steps of 1024. A time is in UTC,
//! cut to the minute, and every `SystemTime` has one: also before 1970 and past the year 9999.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A number of bytes: `0 B`, `1.5 KiB`, `16.0 EiB`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size(pub u64);

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 < 1024 {
            return write!(formatter, "{} B", self.0);
        }
        let mut bytes_per_unit = 1;
        for unit in UNITS {
            bytes_per_unit *= 1024;
            let tenths = (u128::from(self.0) * 10 + bytes_per_unit / 2) / bytes_per_unit;
            // Asked of the rounded number, so that one byte less than 1 MiB is not 1024.0 KiB.
            if tenths < 10_240 {
                return write!(formatter, "{}.{} {unit}", tenths / 10, tenths % 10);
            }
        }
        unreachable!("2^64 bytes are 16 EiB")
    }
}

/// A point in time: `1994-11-06 08:49`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Minute(pub SystemTime);

impl fmt::Display for Minute {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Both directions round towards the past, or the first minute before 1970 would be two.
        let minutes = match self.0.duration_since(UNIX_EPOCH) {
            Ok(after) => i128::from(after.as_secs() / 60),
            Err(before) => -before
                .duration()
                .as_nanos()
                .div_ceil(60_000_000_000)
                .cast_signed(),
        };
        let (year, month, day) = civil_date(minutes.div_euclid(MINUTES_PER_DAY));
        let minute = minutes.rem_euclid(MINUTES_PER_DAY);
        write!(
            formatter,
            "{year:04}-{month:02}-{day:02} {:02}:{:02}",
            minute / 60,
            minute % 60
        )
    }
}

/// Returns year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Years start in March here, which puts the leap day at their end and makes the lengths of the
/// months before it a repeating pattern of 153 days for five of them.
fn civil_date(days: i128) -> (i128, i128, i128) {
    let days = days + DAYS_FROM_MARCH_OF_YEAR_0_TO_1970;
    let era = days.div_euclid(DAYS_PER_400_YEARS);
    let day_of_era = days.rem_euclid(DAYS_PER_400_YEARS);
    // Takes out the leap days that came before: one in 4 years, none in 100, one again in 400.
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = (month_from_march + 2) % 12 + 1;
    let year = era * 400 + year_of_era + i128::from(month <= 2);
    (year, month, day)
}

const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
const MINUTES_PER_DAY: i128 = 24 * 60;
const DAYS_PER_400_YEARS: i128 = 146_097;
const DAYS_FROM_MARCH_OF_YEAR_0_TO_1970: i128 = 719_468;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn sizes_have_one_decimal_and_a_unit() {
        for (bytes, text) in [
            (0, "0 B"),
            (1, "1 B"),
            (1_023, "1023 B"),
            (1_024, "1.0 KiB"),
            (1_075, "1.0 KiB"),
            (1_076, "1.1 KiB"),
            (1_536, "1.5 KiB"),
            (10_240, "10.0 KiB"),
            (1 << 20, "1.0 MiB"),
            (5 << 30, "5.0 GiB"),
            (7 << 40, "7.0 TiB"),
            (1023 << 50, "1023.0 PiB"),
            (1 << 60, "1.0 EiB"),
            (u64::MAX, "16.0 EiB"),
        ] {
            assert_eq!(Size(bytes).to_string(), text, "{bytes}");
        }
    }

    #[test]
    fn a_size_that_rounds_up_to_1024_takes_the_next_unit() {
        assert_eq!(Size((1 << 20) - 1).to_string(), "1.0 MiB");
        assert_eq!(Size((1 << 20) - 51).to_string(), "1.0 MiB");
        assert_eq!(Size((1 << 20) - 52).to_string(), "1023.9 KiB");
        assert_eq!(Size((1 << 60) - 1).to_string(), "1.0 EiB");
    }

    fn after_epoch(seconds: u64) -> String {
        Minute(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
    }

    fn before_epoch(duration: Duration) -> String {
        Minute(UNIX_EPOCH - duration).to_string()
    }

    #[test]
    fn times_are_cut_to_the_minute() {
        assert_eq!(after_epoch(0), "1970-01-01 00:00");
        assert_eq!(after_epoch(59), "1970-01-01 00:00");
        assert_eq!(after_epoch(60), "1970-01-01 00:01");
        assert_eq!(after_epoch(86_399), "1970-01-01 23:59");
        assert_eq!(after_epoch(784_111_777), "1994-11-06 08:49");
    }

    #[test]
    fn leap_years_follow_the_calendar() {
        assert_eq!(after_epoch(68_169_600), "1972-02-29 00:00");
        assert_eq!(after_epoch(951_782_399), "2000-02-28 23:59");
        assert_eq!(after_epoch(951_782_400), "2000-02-29 00:00");
        assert_eq!(after_epoch(951_868_800), "2000-03-01 00:00");
        assert_eq!(after_epoch(4_107_542_399), "2100-02-28 23:59");
        assert_eq!(after_epoch(4_107_542_400), "2100-03-01 00:00");
        assert_eq!(after_epoch(1_735_689_599), "2024-12-31 23:59");
    }

    #[test]
    fn times_before_1970_and_far_ahead_have_a_form_too() {
        assert_eq!(before_epoch(Duration::from_nanos(1)), "1969-12-31 23:59");
        assert_eq!(before_epoch(Duration::from_secs(60)), "1969-12-31 23:59");
        assert_eq!(before_epoch(Duration::from_secs(61)), "1969-12-31 23:58");
        assert_eq!(
            before_epoch(Duration::from_secs(62_167_219_200)),
            "0000-01-01 00:00"
        );
        assert_eq!(after_epoch(253_402_300_800), "10000-01-01 00:00");
        assert_eq!(
            after_epoch(i64::MAX.cast_unsigned()),
            "292277026596-12-04 15:30"
        );
        assert!(before_epoch(Duration::from_secs(1 << 63)).starts_with("-292277022657-"));
    }

    /// Counts through two eras day by day with nothing but the rule for leap years.
    #[test]
    fn every_day_of_800_years_follows_the_one_before() {
        let is_leap = |year: i128| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days_in = |year, month| match month {
            2 => 28 + i128::from(is_leap(year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..2 * DAYS_PER_400_YEARS {
            assert_eq!(civil_date(days), (year, month, day), "day {days}");
            day += 1;
            if day > days_in(year, month) {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
    }
}
