//! Names of indices: which one takes a record, by its arrival in UTC.

use hydrant_core::Timestamp;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;

use crate::config::Rotation;

/// Milliseconds in the shortest period.
const HOUR_MS: u64 = 3_600_000;

/// The indices of one stream.
#[derive(Clone, Debug)]
pub(crate) struct Indices {
    name: String,
    rotation: Rotation,
}

impl Indices {
    /// The index of this name, or those whose names begin with it.
    pub(crate) fn new(name: &str, rotation: Rotation) -> Self {
        Self { name: name.to_owned(), rotation }
    }

    /// The index for a record that arrived then.
    pub(crate) fn at(&self, arrived: Timestamp) -> String {
        let seconds = i64::try_from(arrived.as_secs()).unwrap_or(i64::MAX);
        let moment = jiff::Timestamp::from_second(seconds).unwrap_or(jiff::Timestamp::MAX).to_zoned(TimeZone::UTC);
        let (date, name) = (moment.date(), &self.name);
        match self.rotation {
            Rotation::None => name.clone(),
            Rotation::Hour => format!("{name}-{date}-{:02}", moment.hour()),
            Rotation::Day => format!("{name}-{date}"),
            Rotation::Week => {
                let (year, week) = week_of(date);
                format!("{name}-{year:04}-w{week:02}")
            }
            Rotation::Month => format!("{name}-{:04}-{:02}", date.year(), date.month()),
        }
    }

    /// A number that two moments share only if they have the same index.
    pub(crate) fn period(&self, arrived: Timestamp) -> u64 {
        if self.rotation == Rotation::None { 0 } else { arrived.as_millis() / HOUR_MS }
    }
}

/// The year and number of a week, by the service's rule: weeks start on Sunday, and week 1 is the first that contains a
/// Saturday of the year. So a week's year and number are those of its Saturday. Source: Developer Guide, "Index
/// rotation for the OpenSearch Service destination"; the example there (25 February 2016 in `w08`) breaks the rule, by
/// which it is `w09`.
fn week_of(date: Date) -> (i16, i16) {
    let until_saturday = Weekday::Saturday.since(date.weekday());
    let saturday = date.saturating_add(jiff::Span::new().days(until_saturday));
    (saturday.year(), (saturday.day_of_year() - 1) / 7 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let moment: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_millis(moment.as_millisecond().try_into().unwrap())
    }

    #[test]
    fn names_follow_the_service() {
        let moment = at("2016-02-25T13:00:00Z");
        for (rotation, name) in [
            (Rotation::None, "myindex"),
            (Rotation::Hour, "myindex-2016-02-25-13"),
            (Rotation::Day, "myindex-2016-02-25"),
            // By the rule; the service's own example says w08.
            (Rotation::Week, "myindex-2016-w09"),
            (Rotation::Month, "myindex-2016-02"),
        ] {
            assert_eq!(Indices::new("myindex", rotation).at(moment), name);
        }
    }

    #[test]
    fn an_index_begins_with_its_period_and_not_before() {
        let names = |rotation| {
            let indices = Indices::new("i", rotation);
            move |text| indices.at(at(text))
        };
        assert_eq!(names(Rotation::Hour)("2026-11-21T13:59:59.999Z"), "i-2026-11-21-13");
        assert_eq!(names(Rotation::Hour)("2026-11-21T14:00:00Z"), "i-2026-11-21-14");
        assert_eq!(names(Rotation::Day)("2026-12-31T23:59:59.999Z"), "i-2026-12-31");
        assert_eq!(names(Rotation::Day)("2027-01-01T00:00:00Z"), "i-2027-01-01");
        assert_eq!(names(Rotation::Month)("2028-02-29T23:59:59.999Z"), "i-2028-02");
        assert_eq!(names(Rotation::Month)("2028-03-01T00:00:00Z"), "i-2028-03");
    }

    #[test]
    fn weeks_start_on_sunday_and_belong_to_the_year_of_their_saturday() {
        let name = |text| Indices::new("i", Rotation::Week).at(at(text));
        // Saturday, and the Sunday after it.
        assert_eq!(name("2020-08-15T12:00:00Z"), "i-2020-w33");
        assert_eq!(name("2020-08-16T00:00:00Z"), "i-2020-w34");
        // 1 January 2016 was a Friday: its week begins in 2015 and is the first of 2016.
        assert_eq!(name("2015-12-26T23:59:59Z"), "i-2015-w52");
        assert_eq!(name("2015-12-27T00:00:00Z"), "i-2016-w01");
        assert_eq!(name("2016-01-03T00:00:00Z"), "i-2016-w02");
        // A year that begins on Saturday, and one that begins on Sunday.
        assert_eq!(name("2022-01-01T00:00:00Z"), "i-2022-w01");
        assert_eq!(name("2022-01-02T00:00:00Z"), "i-2022-w02");
        assert_eq!(name("2023-01-01T00:00:00Z"), "i-2023-w01");
        // 53 Saturdays.
        assert_eq!(name("2022-12-31T00:00:00Z"), "i-2022-w53");
    }

    #[test]
    fn moments_of_one_period_have_one_name() {
        for rotation in [Rotation::None, Rotation::Hour, Rotation::Day, Rotation::Week, Rotation::Month] {
            let indices = Indices::new("i", rotation);
            for ms in (0..4_000_000_000_000).step_by(777_777_777) {
                let (one, other) = (Timestamp::from_millis(ms), Timestamp::from_millis(ms + 777_777));
                if indices.period(one) == indices.period(other) {
                    assert_eq!(indices.at(one), indices.at(other), "{rotation:?} {one}");
                }
            }
        }
    }
}
