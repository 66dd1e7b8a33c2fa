//! Calendar windows: which hour, day, week or month of a time zone a moment lies in.

use std::time::Duration;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};

/// The length of a fixed window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Calendar {
    /// From one full hour to the next.
    Hour,
    /// From midnight to midnight: 23 to 25 hours where clocks change.
    Day,
    /// From Monday's midnight to the next.
    Week,
    /// From the first of a month to the first of the next.
    Month,
    /// Windows of this length, counted from 1970-01-01T00:00Z; the time zone does not matter.
    Every(Duration),
}

/// A time zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Zone(TimeZone);

impl Zone {
    /// UTC.
    pub const UTC: Self = Self(TimeZone::UTC);

    /// The zone of this IANA name, like `Europe/Berlin`.
    pub fn named(name: &str) -> Option<Self> {
        TimeZone::get(name).ok().map(Self)
    }
}

/// A window in milliseconds since 1970: from its start up to, and not including, its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bounds {
    pub(super) start: u64,
    pub(super) end: u64,
}

impl Calendar {
    /// The window that holds this moment.
    pub(super) fn bounds(self, zone: &Zone, now: u64) -> Bounds {
        let even = |length: u64| {
            let length = length.max(1);
            let start = now - now % length;
            Bounds { start, end: start.saturating_add(length) }
        };
        match self {
            Self::Every(length) => even(millis(length)),
            // A moment outside of the calendar (the year 9999) still needs some window, or nothing would ever free.
            Self::Hour => hour(zone, now).unwrap_or_else(|| even(3_600_000)),
            Self::Day => day(zone, now).unwrap_or_else(|| even(86_400_000)),
            Self::Week => week(zone, now).unwrap_or_else(|| even(7 * 86_400_000)),
            Self::Month => month(zone, now).unwrap_or_else(|| even(30 * 86_400_000)),
        }
    }
}

/// A duration in whole milliseconds, at most what a counter can hold.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn hour(zone: &Zone, now: u64) -> Option<Bounds> {
    // Only the zone's offset matters: where it is not a whole hour, neither are the hours as UTC sees them.
    let offset = i64::from(zone.0.to_offset(timestamp(now)?).seconds()) * 1000;
    let local = i64::try_from(now).ok()?.checked_add(offset)?;
    let start = u64::try_from(local - local.rem_euclid(3_600_000) - offset).ok()?;
    Some(Bounds { start, end: start + 3_600_000 })
}

fn day(zone: &Zone, now: u64) -> Option<Bounds> {
    let date = timestamp(now)?.to_zoned(zone.0.clone()).date();
    between(zone, date, date.checked_add(1.day()).ok()?)
}

fn week(zone: &Zone, now: u64) -> Option<Bounds> {
    let date = timestamp(now)?.to_zoned(zone.0.clone()).date();
    let monday = date.checked_sub(i64::from(date.weekday().to_monday_zero_offset()).days()).ok()?;
    between(zone, monday, monday.checked_add(7.days()).ok()?)
}

fn month(zone: &Zone, now: u64) -> Option<Bounds> {
    let first = timestamp(now)?.to_zoned(zone.0.clone()).date().first_of_month();
    between(zone, first, first.checked_add(1.month()).ok()?)
}

fn between(zone: &Zone, from: Date, to: Date) -> Option<Bounds> {
    let midnight = |date: Date| u64::try_from(date.to_zoned(zone.0.clone()).ok()?.timestamp().as_millisecond()).ok();
    Some(Bounds { start: midnight(from)?, end: midnight(to)? })
}

fn timestamp(now: u64) -> Option<Timestamp> {
    Timestamp::from_millisecond(i64::try_from(now).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> u64 {
        u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
    }

    fn window(calendar: Calendar, zone: &str, now: &str) -> (u64, u64) {
        let Bounds { start, end } = calendar.bounds(&Zone::named(zone).unwrap(), at(now));
        (start, end)
    }

    #[test]
    fn windows_follow_the_zone() {
        assert_eq!(window(Calendar::Day, "Europe/Berlin", "2026-07-01T22:30:00Z"), (at("2026-07-01T22:00:00Z"), at("2026-07-02T22:00:00Z")));
        assert_eq!(window(Calendar::Month, "America/New_York", "2026-03-01T02:00:00Z"), (at("2026-02-01T05:00:00Z"), at("2026-03-01T05:00:00Z")));
        for day in ["2026-10-25T23:30:00Z", "2026-10-28T12:00:00Z", "2026-11-01T22:30:00Z"] {
            assert_eq!(window(Calendar::Week, "Europe/Berlin", day), (at("2026-10-25T23:00:00Z"), at("2026-11-01T23:00:00Z")), "{day}");
        }
        assert_eq!(window(Calendar::Hour, "Asia/Kolkata", "2026-01-01T10:40:00Z"), (at("2026-01-01T10:30:00Z"), at("2026-01-01T11:30:00Z")));
        assert_eq!(window(Calendar::Every(Duration::from_secs(900)), "Asia/Tokyo", "2026-01-01T10:40:00Z"), (at("2026-01-01T10:30:00Z"), at("2026-01-01T10:45:00Z")));
        assert!(Zone::named("Europe/Atlantis").is_none());
    }

    #[test]
    fn a_day_when_clocks_change_is_a_day() {
        assert_eq!(window(Calendar::Day, "Europe/Berlin", "2026-03-29T12:00:00Z"), (at("2026-03-28T23:00:00Z"), at("2026-03-29T22:00:00Z")));
        assert_eq!(window(Calendar::Day, "Europe/Berlin", "2026-10-25T12:00:00Z"), (at("2026-10-24T22:00:00Z"), at("2026-10-25T23:00:00Z")));
    }

    #[test]
    fn any_moment_has_a_window_around_it() {
        for calendar in [Calendar::Hour, Calendar::Day, Calendar::Week, Calendar::Month, Calendar::Every(Duration::ZERO)] {
            for now in [0, 1, at("2026-12-31T23:59:59.999Z"), 253_402_300_800_000, u64::MAX - 1] {
                let bounds = calendar.bounds(&Zone::UTC, now);
                assert!(bounds.start <= now && now < bounds.end, "{calendar:?} at {now}: {bounds:?}");
            }
        }
    }
}
