//! A day in UTC, as the history counts them and as people write them.

use std::fmt;
use std::str::FromStr;

use jiff::ToSpan;
use jiff::civil::Date;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Seconds of a day.
pub(super) const SECONDS: u64 = 86_400;
/// 9999-12-31: the last day that can be written.
const LAST: u32 = 2_932_896;

/// A day in UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(u32);

impl Day {
    /// The day that holds a moment, told in seconds since 1970.
    #[must_use]
    pub fn at(seconds: u64) -> Self {
        Day(u32::try_from(seconds / SECONDS).unwrap_or(LAST).min(LAST))
    }

    /// So many days before.
    #[must_use]
    pub fn before(self, days: u32) -> Self {
        Day(self.0.saturating_sub(days))
    }

    /// The day after.
    #[must_use]
    pub fn next(self) -> Self {
        Day((self.0 + 1).min(LAST))
    }

    /// When it begins, in seconds since 1970.
    #[must_use]
    pub fn start(self) -> u64 {
        u64::from(self.0) * SECONDS
    }

    /// From this day to another, both included.
    pub(super) fn to(self, last: Day) -> impl Iterator<Item = Day> {
        (self.0..=last.0).map(Day)
    }
}

const EPOCH: Date = Date::constant(1970, 1, 1);

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Within the bounds of the calendar, because `LAST` is.
        let date = EPOCH.checked_add(i64::from(self.0).days()).unwrap_or(EPOCH);
        write!(f, "{:04}-{:02}-{:02}", date.year(), date.month(), date.day())
    }
}

/// What was written is no day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a day is written like 2027-01-31")]
pub struct NoDay;

impl FromStr for Day {
    type Err = NoDay;

    fn from_str(text: &str) -> Result<Self, NoDay> {
        let mut parts = text.split('-').map(|part| part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse::<i16>().ok()).flatten());
        let (Some(Some(year)), Some(Some(month)), Some(Some(day)), None, 10) = (parts.next(), parts.next(), parts.next(), parts.next(), text.len()) else { return Err(NoDay) };
        let date = Date::new(year, i8::try_from(month).map_err(|_| NoDay)?, i8::try_from(day).map_err(|_| NoDay)?).map_err(|_| NoDay)?;
        let days = EPOCH.until((jiff::Unit::Day, date)).map_err(|_| NoDay)?.get_days();
        u32::try_from(days).map(Day).map_err(|_| NoDay)
    }
}

impl Serialize for Day {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_written_as_people_do() {
        assert_eq!(Day::at(0).to_string(), "1970-01-01");
        assert_eq!(Day::at(1_795_219_200 - 1).to_string(), "2026-11-20");
        assert_eq!(Day::at(1_795_219_200).to_string(), "2026-11-21");
        assert_eq!(Day::at(u64::MAX).to_string(), "9999-12-31");
        for text in ["1970-01-01", "2000-02-29", "2026-11-28", "9999-12-31"] {
            assert_eq!(text.parse::<Day>().unwrap().to_string(), text);
        }
        for text in ["", "2026-11", "2026-02-30", "26-11-28", "2026-1-28", "2026-11-28T00:00:00Z", "1969-12-31", "2026-11-2x", "+026-11-28", "2026-11-28-"] {
            assert_eq!(text.parse::<Day>(), Err(NoDay), "{text}");
        }
    }

    #[test]
    fn days_follow_each_other() {
        let day: Day = "2026-02-28".parse().unwrap();
        assert_eq!(day.next().to_string(), "2026-03-01");
        assert_eq!(day.next().before(1), day);
        assert_eq!(Day::at(day.start()), day);
        assert_eq!(day.to(day.next()).count(), 2);
        assert_eq!(Day::at(0).before(400), Day::at(0));
    }
}
