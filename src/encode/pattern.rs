//! Date patterns as `java.time.format.DateTimeFormatter` reads them: what `!{timestamp:PATTERN}` holds.
//!
//! In: a pattern such as `yyyy/MM/dd` or `'year='yyyy`, once; a moment, for each object. Out: its text.
//!
//! The service runs these patterns through `java.time`, and users copy them from its guide, so letters, counts and
//! refusals are those of Java 17; a test compares every letter with what that prints. Names are English, weeks are
//! those of the United States (they begin on Sunday, week 1 holds 1 January), and the zone is UTC. In a fixed zone
//! the letters for zones and offsets (`V v z O X x Z`) are constants, so they become literals here.
//!
//! Left out on purpose: `p` (padding), which `java.time` takes in front of another letter. It can fail while
//! printing, and the service is known to refuse it alone.

use hydrant_core::Timestamp;
use jiff::civil::{Date, DateTime};
use jiff::tz::Offset;

/// A date pattern, parsed and checked: it prints every moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pattern(Vec<Item>);

/// What a pattern prints, one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Item {
    /// The text itself.
    Literal(String),
    /// A number, filled up with zeros to `width` digits.
    Number { field: Number, width: usize },
    /// The first digits of the fraction of the second.
    Fraction { digits: usize },
    /// A name.
    Name { field: Name, style: Style },
}

/// Fields that are printed as numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Number {
    Year,
    YearOfCentury,
    WeekYear,
    WeekYearOfCentury,
    Quarter,
    Month,
    WeekOfYear,
    WeekOfMonth,
    DayOfYear,
    Day,
    DayOfMonthWeek,
    DayOfWeek,
    JulianDay,
    Hour,
    HourFromOne,
    HourOfHalf,
    HourOfHalfFromOne,
    Minute,
    Second,
    Nanosecond,
    MillisecondOfDay,
    NanosecondOfDay,
}

/// Fields that are printed as words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    Era,
    Quarter,
    Month,
    Weekday,
    HalfOfDay,
    TimeOfDay,
}

/// How much of a name is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Short,
    Full,
    Narrow,
}

/// Why a text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// There is nothing to print.
    #[error("the date pattern is empty")]
    Empty,
    /// No field has this letter.
    #[error("`{0}` is not a pattern letter; text that is meant as it stands goes between single quotes")]
    UnknownLetter(char),
    /// The letter exists, but not so many times in a row.
    #[error("the pattern letter `{letter}` cannot stand {count} times in a row")]
    Count {
        /// The letter.
        letter: char,
        /// How often it stands there.
        count: usize,
    },
    /// A character that `java.time` keeps for later use.
    #[error("`{0}` is reserved in date patterns; put it between single quotes")]
    Reserved(char),
    /// A quote without its partner.
    #[error("a single quote in the date pattern is not closed")]
    OpenQuote,
    /// A bracket without its partner.
    #[error("`]` in the date pattern has no `[` before it")]
    StrayBracket,
}

/// Most digits that a number is filled up to. Source: `DateTimeFormatterBuilder.appendValue`.
const WIDTH_MAX: usize = 19;

/// Most digits of a fraction of a second. Source: `DateTimeFormatterBuilder.appendFraction`.
const FRACTION_DIGITS_MAX: usize = 9;

impl Pattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// See [`PatternError`]; the first one found, from left to right.
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        let mut items = Vec::new();
        let mut optional_depth = 0_usize;
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            let width = match next {
                letter if letter.is_ascii_alphabetic() => {
                    let count = rest.chars().take_while(|&c| c == letter).count();
                    items.push(letters(letter, count)?);
                    count
                }
                '\'' => {
                    let (literal, width) = quoted(rest)?;
                    push_literal(&mut items, &literal);
                    width
                }
                // A part in brackets is printed when the moment has its fields, and ours has them all.
                '[' => {
                    optional_depth += 1;
                    1
                }
                ']' => {
                    optional_depth = optional_depth.checked_sub(1).ok_or(PatternError::StrayBracket)?;
                    1
                }
                reserved @ ('{' | '}' | '#') => return Err(PatternError::Reserved(reserved)),
                other => {
                    push_literal(&mut items, other.encode_utf8(&mut [0; 4]));
                    other.len_utf8()
                }
            };
            rest = rest.get(width..).unwrap_or_default();
        }
        Ok(Self(items))
    }

    /// Appends the moment's text to `out`.
    pub(super) fn print(&self, moment: Moment, out: &mut String) {
        for item in &self.0 {
            match item {
                Item::Literal(text) => out.push_str(text),
                Item::Number { field, width } => print_number(*field, *width, moment, out),
                Item::Fraction { digits } => {
                    let nanoseconds = format!("{:09}", moment.0.subsec_nanosecond());
                    out.push_str(nanoseconds.get(..*digits).unwrap_or_default());
                }
                Item::Name { field, style } => out.push_str(name(*field, *style, moment)),
            }
        }
    }
}

fn push_literal(items: &mut Vec<Item>, text: &str) {
    if let Some(Item::Literal(before)) = items.last_mut() {
        before.push_str(text);
    } else {
        items.push(Item::Literal(text.to_owned()));
    }
}

/// The literal that starts with the quote at the start of `text`, and how many bytes it takes, quotes included.
/// Two quotes in a row are one quote, inside a literal and by themselves.
fn quoted(text: &str) -> Result<(String, usize), PatternError> {
    let mut literal = String::new();
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        if character != '\'' {
            literal.push(character);
        } else if characters.next_if(|&(_, next)| next == '\'').is_some() {
            literal.push('\'');
        } else {
            let nothing_quoted = literal.is_empty();
            return Ok((if nothing_quoted { "'".to_owned() } else { literal }, at + 1));
        }
    }
    Err(PatternError::OpenQuote)
}

/// What `count` times this letter prints. The table of `DateTimeFormatterBuilder.appendPattern`.
fn letters(letter: char, count: usize) -> Result<Item, PatternError> {
    use Style::{Full, Narrow, Short};
    let number = |field| Ok(Item::Number { field, width: count });
    let named = |field, style| Ok(Item::Name { field, style });
    let constant = |text: &str| Ok(Item::Literal(text.to_owned()));
    match (letter, count) {
        ('u' | 'y', 2) => number(Number::YearOfCentury),
        ('u' | 'y', 1..=WIDTH_MAX) => number(Number::Year),
        ('Y', 2) => number(Number::WeekYearOfCentury),
        ('Y', 1..=WIDTH_MAX) => number(Number::WeekYear),
        ('Q' | 'q', 1 | 2) => number(Number::Quarter),
        ('Q' | 'q', 3) => named(Name::Quarter, Short),
        ('Q' | 'q', 4) => named(Name::Quarter, Full),
        ('Q' | 'q', 5) => named(Name::Quarter, Narrow),
        ('M' | 'L', 1 | 2) => number(Number::Month),
        ('M' | 'L', 3) => named(Name::Month, Short),
        ('M' | 'L', 4) => named(Name::Month, Full),
        ('M' | 'L', 5) => named(Name::Month, Narrow),
        ('w', 1 | 2) => number(Number::WeekOfYear),
        ('W', 1) => number(Number::WeekOfMonth),
        ('D', 1..=3) => number(Number::DayOfYear),
        ('d', 1 | 2) => number(Number::Day),
        ('F', 1) => number(Number::DayOfMonthWeek),
        ('g', 1..=WIDTH_MAX) => number(Number::JulianDay),
        ('e', 1 | 2) | ('c', 1) => number(Number::DayOfWeek),
        ('E', 1..=3) | ('e' | 'c', 3) => named(Name::Weekday, Short),
        ('E' | 'e' | 'c', 4) => named(Name::Weekday, Full),
        ('E' | 'e' | 'c', 5) => named(Name::Weekday, Narrow),
        ('G', 1..=3) => named(Name::Era, Short),
        ('G', 4) => named(Name::Era, Full),
        ('G', 5) => named(Name::Era, Narrow),
        ('a', 1) => named(Name::HalfOfDay, Short),
        ('B', 1) => named(Name::TimeOfDay, Short),
        ('B', 4) => named(Name::TimeOfDay, Full),
        ('B', 5) => named(Name::TimeOfDay, Narrow),
        ('H', 1 | 2) => number(Number::Hour),
        ('k', 1 | 2) => number(Number::HourFromOne),
        ('K', 1 | 2) => number(Number::HourOfHalf),
        ('h', 1 | 2) => number(Number::HourOfHalfFromOne),
        ('m', 1 | 2) => number(Number::Minute),
        ('s', 1 | 2) => number(Number::Second),
        ('S', 1..=FRACTION_DIGITS_MAX) => Ok(Item::Fraction { digits: count }),
        ('n', 1..=WIDTH_MAX) => number(Number::Nanosecond),
        ('A', 1..=WIDTH_MAX) => number(Number::MillisecondOfDay),
        ('N', 1..=WIDTH_MAX) => number(Number::NanosecondOfDay),
        ('V', 2) | ('v', 1) | ('z', 1..=3) => constant("UTC"),
        ('v' | 'z', 4) => constant("Coordinated Universal Time"),
        ('O', 1 | 4) | ('Z', 4) => constant("GMT"),
        ('X', 1..=5) | ('Z', 5) => constant("Z"),
        ('x', 1) => constant("+00"),
        ('x', 2 | 4) | ('Z', 1..=3) => constant("+0000"),
        ('x', 3 | 5) => constant("+00:00"),
        ('C' | 'I' | 'J' | 'P' | 'R' | 'T' | 'U' | 'b' | 'f' | 'i' | 'j' | 'l' | 'o' | 'p' | 'r' | 't', _) => {
            Err(PatternError::UnknownLetter(letter))
        }
        _ => Err(PatternError::Count { letter, count }),
    }
}

/// A moment on the calendar, in UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Moment(DateTime);

impl Moment {
    /// The calendar's view of a timestamp. What lies beyond the year 9999 is its last day.
    pub(super) fn new(at: Timestamp) -> Self {
        let at = i64::try_from(at.as_millis()).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
        Self(Offset::UTC.to_datetime(at.unwrap_or(jiff::Timestamp::MAX)))
    }

    /// Its text by a format of `strftime`, for the fixed parts of a key.
    pub(super) fn format(self, format: &str) -> String {
        self.0.strftime(format).to_string()
    }

    /// The timestamp whose text by this format is `text`; `None` for one before 1970.
    pub(super) fn parse(format: &str, text: &str) -> Option<Timestamp> {
        let at = Offset::UTC.to_timestamp(DateTime::strptime(format, text).ok()?).ok()?;
        u64::try_from(at.as_millisecond()).ok().map(Timestamp::from_millis)
    }

    fn date(self) -> Date {
        self.0.date()
    }

    /// Day of the week from 0 (Sunday) to 6.
    fn weekday(self) -> usize {
        usize::from(self.0.weekday().to_sunday_zero_offset().unsigned_abs())
    }

    fn nanosecond_of_day(self) -> i64 {
        let time = self.0.time();
        let seconds = (i64::from(time.hour()) * 60 + i64::from(time.minute())) * 60 + i64::from(time.second());
        seconds * 1_000_000_000 + i64::from(time.subsec_nanosecond())
    }

    /// The year that this day's week counts to: a week belongs to the year of its Saturday.
    fn week_year(self) -> i64 {
        let days_to_saturday = 6 - index(self.weekday());
        let rest_of_year = if self.date().in_leap_year() { 366 } else { 365 } - i64::from(self.date().day_of_year());
        i64::from(self.date().year()) + i64::from(days_to_saturday > rest_of_year)
    }

    fn week_of_year(self) -> i64 {
        if self.week_year() > i64::from(self.date().year()) {
            return 1;
        }
        week(i64::from(self.date().day_of_year()), self.weekday())
    }
}

/// Number of the week that holds day `day` (from 1) of a month or year, when that day falls on `weekday`.
fn week(day: i64, weekday: usize) -> i64 {
    let weekday_of_first = (index(weekday) - (day - 1)).rem_euclid(7);
    (day - 1 + weekday_of_first) / 7 + 1
}

/// Small counts as the numbers that calendar sums are done in.
fn index(small: usize) -> i64 {
    i64::try_from(small).unwrap_or_default()
}

/// Days from 1858-11-17, where Modified Julian Days begin, to 1970-01-01.
const JULIAN_DAY_OF_EPOCH: i64 = 40_587;

fn value(field: Number, moment: Moment) -> i64 {
    let (date, time) = (moment.date(), moment.0.time());
    let hour = i64::from(time.hour());
    match field {
        Number::Year => date.year().into(),
        Number::YearOfCentury => i64::from(date.year()) % 100,
        Number::WeekYear => moment.week_year(),
        Number::WeekYearOfCentury => moment.week_year() % 100,
        Number::Quarter => (i64::from(date.month()) + 2) / 3,
        Number::Month => date.month().into(),
        Number::WeekOfYear => moment.week_of_year(),
        Number::WeekOfMonth => week(date.day().into(), moment.weekday()),
        Number::DayOfYear => date.day_of_year().into(),
        Number::Day => date.day().into(),
        Number::DayOfMonthWeek => (i64::from(date.day()) - 1) % 7 + 1,
        Number::DayOfWeek => index(moment.weekday()) + 1,
        Number::JulianDay => {
            let days = date.duration_since(jiff::civil::date(1970, 1, 1)).as_hours() / 24;
            days + JULIAN_DAY_OF_EPOCH
        }
        Number::Hour => hour,
        Number::HourFromOne => (hour + 23) % 24 + 1,
        Number::HourOfHalf => hour % 12,
        Number::HourOfHalfFromOne => (hour + 11) % 12 + 1,
        Number::Minute => time.minute().into(),
        Number::Second => time.second().into(),
        Number::Nanosecond => time.subsec_nanosecond().into(),
        Number::MillisecondOfDay => moment.nanosecond_of_day() / 1_000_000,
        Number::NanosecondOfDay => moment.nanosecond_of_day(),
    }
}

fn print_number(field: Number, width: usize, moment: Moment, out: &mut String) {
    let digits = value(field, moment).to_string();
    // A year that outgrows four digits or more is marked, as ISO 8601 asks. Only week years can: 9999 ends in one.
    if matches!(field, Number::Year | Number::WeekYear) && width >= 4 && digits.len() > width {
        out.push('+');
    }
    out.extend(std::iter::repeat_n('0', width.saturating_sub(digits.len())));
    out.push_str(&digits);
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

const QUARTERS: [(&str, &str, &str); 4] =
    [("Q1", "1st quarter", "1"), ("Q2", "2nd quarter", "2"), ("Q3", "3rd quarter", "3"), ("Q4", "4th quarter", "4")];

/// The English name of a field. Source: the locale data (CLDR) of Java 17 for `en_US`.
fn name(field: Name, style: Style, moment: Moment) -> &'static str {
    let (date, time) = (moment.date(), moment.0.time());
    let month = usize::from(date.month().unsigned_abs()) - 1;
    match (field, style) {
        (Name::Era, Style::Short) => "AD",
        (Name::Era, Style::Full) => "Anno Domini",
        (Name::Era, Style::Narrow) => "A",
        (Name::Quarter, style) => {
            let (short, full, narrow) = QUARTERS.get(month / 3).copied().unwrap_or_default();
            match style {
                Style::Short => short,
                Style::Full => full,
                Style::Narrow => narrow,
            }
        }
        (Name::Month, style) => shortened(MONTHS.get(month).copied().unwrap_or_default(), style),
        (Name::Weekday, style) => shortened(WEEKDAYS.get(moment.weekday()).copied().unwrap_or_default(), style),
        (Name::HalfOfDay, _) => {
            if time.hour() < 12 {
                "AM"
            } else {
                "PM"
            }
        }
        (Name::TimeOfDay, style) => match (time.hour(), time.minute(), style) {
            (0, 0, Style::Narrow) => "mi",
            (0, 0, _) => "midnight",
            (12, 0, Style::Narrow) => "n",
            (12, 0, _) => "noon",
            (6..12, ..) => "in the morning",
            (12..18, ..) => "in the afternoon",
            (18..21, ..) => "in the evening",
            _ => "at night",
        },
    }
}

/// English short names of months and weekdays are the first three letters, narrow ones the first.
fn shortened(full: &'static str, style: Style) -> &'static str {
    match style {
        Style::Full => Some(full),
        Style::Short => full.get(..3),
        Style::Narrow => full.get(..1),
    }
    .unwrap_or(full)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn print(pattern: &str, ms: u64) -> Result<String, PatternError> {
        let mut out = String::new();
        Pattern::parse(pattern)?.print(Moment::new(Timestamp::from_millis(ms)), &mut out);
        Ok(out)
    }

    /// Every letter at every count that matters, quotes, brackets and refusals, against what Java 17 printed.
    #[test]
    fn patterns_print_what_java_time_prints() {
        let vectors = include_str!("../../tests/golden/patterns/vectors.tsv");
        let mut rows = vectors.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        let moments: Vec<u64> = rows.next().unwrap().iter().map(|ms| ms.parse().unwrap()).collect();
        let mut compared = 0;
        for row in rows {
            let (pattern, texts) = row.split_first().unwrap();
            if *texts == ["refused"] {
                assert!(Pattern::parse(pattern).is_err(), "{pattern} is refused by java.time");
                continue;
            }
            if pattern.contains('p') {
                assert_eq!(Pattern::parse(pattern), Err(PatternError::UnknownLetter('p')), "padding is left out");
                continue;
            }
            if pattern.len() > WIDTH_MAX && pattern.chars().all(|c| c == 'Y') {
                continue; // Java forgets to bound the width of this one letter.
            }
            assert_eq!(texts.len(), moments.len());
            for (&ms, &text) in moments.iter().zip(texts) {
                assert_eq!(print(pattern, ms).as_deref(), Ok(text), "{pattern} at {ms}");
                compared += 1;
            }
        }
        assert!(compared > 3_000, "only {compared} texts compared");
    }

    /// Source: the letters that the service refused, one at a time, and those that it took.
    #[test]
    fn single_letters_are_refused_as_the_service_refuses_them() {
        for letter in ('A'..='Z').chain('a'..='z') {
            let refused = "CIJPRTUVbfijloprt".contains(letter);
            assert_eq!(Pattern::parse(&letter.to_string()).is_err(), refused, "{letter}");
        }
    }

    #[test]
    fn refusals_name_the_culprit() {
        for (pattern, why) in [
            ("", PatternError::Empty),
            ("yyyy/jj", PatternError::UnknownLetter('j')),
            ("HHH", PatternError::Count { letter: 'H', count: 3 }),
            ("yyyy{", PatternError::Reserved('{')),
            ("yyyy'T", PatternError::OpenQuote),
            ("yyyy]", PatternError::StrayBracket),
        ] {
            assert_eq!(Pattern::parse(pattern), Err(why), "{pattern}");
        }
    }

    #[test]
    fn moments_beyond_the_calendar_are_its_last_day() {
        assert_eq!(print("yyyy-MM-dd", u64::MAX).as_deref(), Ok("9999-12-30"));
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_written_is_printed_or_refused(pattern in "[ -~é]{0,40}", ms: u64) {
            let _printed = print(&pattern, ms);
        }
    }
}
