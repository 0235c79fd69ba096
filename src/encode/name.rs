//! Object names: prefixes with expressions, and what stands behind them.
//!
//! In: a prefix, parsed once; per object the stream, its version, the arrival of the oldest record, the batch id and
//! the extension. Out: the key. The same batch has the same key for ever, as everything that it is made of is fixed
//! at the seal.
//!
//! ```text
//!   logs/2018/08/27/10/web-1-2018-08-27-10-30-00-8c5e…-….gz
//!   ─prefix─────────── ─stream, version, moment, batch id, extension
//! ```
//!
//! Times are UTC. Never refuses an object: whatever could make a key too long or unfit for a store is refused when
//! the prefix is parsed.

use hydrant_core::{BatchId, Timestamp};

use super::pattern::Moment;
use super::template::{EVALUATED_LENGTH_MAX, Template};
pub use super::template::{Field, PrefixError};

/// Most bytes of a key. Source: S3's own limit, the lowest among the stores.
pub const KEY_BYTES_MAX: usize = 1024;

/// What a key is made of besides its prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NameParts<'a> {
    /// The stream's name, 1 to 64 of `[a-zA-Z0-9_.-]`.
    pub stream: &'a str,
    /// Version of the stream's definition, from 1.
    pub version: u64,
    /// When the oldest record of the object arrived.
    pub oldest_arrival: Timestamp,
    /// The batch.
    pub batch: BatchId,
    /// What follows, its dot included: at most 128 bytes, empty for none.
    pub extension: &'a str,
}

/// What went wrong with the records of a dead letter, as a part of its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorType {
    /// A transform refused them. The service's own word.
    ProcessingFailed,
    /// The destination did not take the object. The service drops such data and so has no word for it; ours
    /// follows its pattern.
    DeliveryFailed,
    /// The destination refused them one by one. The word is the sink's.
    Refused(&'static str),
}

impl ErrorType {
    /// The word in the key.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ProcessingFailed => "processing-failed",
            Self::DeliveryFailed => "delivery-failed",
            Self::Refused(word) => word,
        }
    }
}

/// What the key of a dead letter says of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Named {
    /// When its oldest record arrived, in whole seconds.
    pub oldest_arrival: Timestamp,
    /// The batch that became this object.
    pub batch: BatchId,
}

/// What keys of data objects start with. Parsed and checked: every key it makes fits every store.
///
/// A prefix without any expression is followed by `yyyy/MM/dd/HH/`, glued on as it is: `logs` makes
/// `logs2018/08/27/10/…`. The default is the empty prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Prefix(Template);

/// What keys of dead letters start with. Parsed and checked, as [`Prefix`] is.
///
/// Without any expression it is followed by `<error type>/yyyy/MM/dd/HH/`. The default is the empty prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ErrorPrefix(Template);

impl Prefix {
    /// Reads a prefix as a user wrote it.
    ///
    /// # Errors
    /// See [`PrefixError`].
    pub fn parse(text: &str) -> Result<Self, PrefixError> {
        let prefix = Self(Template::parse(text, Field::Prefix)?);
        check(Field::Prefix, |moment| prefix.evaluate(moment))?;
        Ok(prefix)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        self.0.source()
    }

    /// The key of a data object.
    pub fn key(&self, parts: &NameParts<'_>) -> String {
        let moment = Moment::new(parts.oldest_arrival);
        self.evaluate(moment) + &suffix(parts, moment)
    }

    /// What a key says, if it is one of a data object of this stream. As with [`ErrorPrefix::read`], not where fractions of
    /// a second are printed.
    pub fn read(&self, stream: &str, key: &str) -> Option<Named> {
        read(stream, key, |parts| self.key(parts))
    }

    fn evaluate(&self, moment: Moment) -> String {
        let evaluated = self.0.print(moment, "");
        if self.0.has_expressions() { evaluated } else { evaluated + &moment.format(DATE_PATH) }
    }
}

impl ErrorPrefix {
    /// Reads an error prefix as a user wrote it, without regard to the prefix beside it.
    ///
    /// # Errors
    /// See [`PrefixError`].
    pub fn parse(text: &str) -> Result<Self, PrefixError> {
        let error_prefix = Self(Template::parse(text, Field::ErrorPrefix)?);
        if error_prefix.0.has_expressions() && !error_prefix.0.has_error_type() {
            return Err(PrefixError::ErrorTypeMissing);
        }
        for error_type in [ErrorType::ProcessingFailed, ErrorType::DeliveryFailed] {
            error_prefix.check(error_type)?;
        }
        Ok(error_prefix)
    }

    /// Checks that the keys of dead letters of this type fit every store. Those that every stream may have were checked
    /// when it was parsed.
    ///
    /// # Errors
    /// See [`PrefixError`].
    pub fn check(&self, error_type: ErrorType) -> Result<(), PrefixError> {
        check(Field::ErrorPrefix, |moment| self.evaluate(error_type, moment))
    }

    /// Reads the error prefix of a stream whose data objects have this prefix, in the same store.
    ///
    /// Absent or empty, it is the prefix itself: `logs/` makes `logs/processing-failed/2018/08/27/10/…`.
    ///
    /// # Errors
    /// See [`PrefixError`]; a prefix with expressions needs an error prefix.
    pub fn beside(prefix: &Prefix, text: Option<&str>) -> Result<Self, PrefixError> {
        match text {
            None | Some("") if prefix.0.has_expressions() => Err(PrefixError::ErrorPrefixMissing),
            None | Some("") => Self::parse(prefix.as_str()),
            Some(text) => Self::parse(text),
        }
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        self.0.source()
    }

    /// The key of a dead letter: of records refused, or of an object that was redirected.
    pub fn key(&self, error_type: ErrorType, parts: &NameParts<'_>) -> String {
        let moment = Moment::new(parts.oldest_arrival);
        self.evaluate(error_type, moment) + &suffix(parts, moment)
    }

    /// What all keys of this kind of dead letters start with.
    pub fn beginning(&self, error_type: ErrorType) -> String {
        let beginning = self.0.beginning(error_type.as_str());
        if self.0.has_expressions() { beginning } else { beginning + error_type.as_str() + "/" }
    }

    /// What a key says, if it is one of this kind of dead letters of this stream. A prefix that prints fractions of a
    /// second makes keys that cannot be read back: names hold whole seconds.
    pub fn read(&self, error_type: ErrorType, stream: &str, key: &str) -> Option<Named> {
        read(stream, key, |parts| self.key(error_type, parts))
    }

    fn evaluate(&self, error_type: ErrorType, moment: Moment) -> String {
        let evaluated = self.0.print(moment, error_type.as_str());
        if self.0.has_expressions() {
            return evaluated;
        }
        evaluated + error_type.as_str() + "/" + &moment.format(DATE_PATH)
    }
}

/// What follows a prefix without expressions, for `strftime`. Source: keys as the service writes them.
const DATE_PATH: &str = "%Y/%m/%d/%H/";

/// The moment inside the last part of a key, for `strftime`.
const NAME_TIME: &str = "%Y-%m-%d-%H-%M-%S";

fn suffix(parts: &NameParts<'_>, moment: Moment) -> String {
    let NameParts { stream, version, batch, extension, .. } = parts;
    format!("{stream}-{version}-{}-{batch}{extension}", moment.format(NAME_TIME))
}

/// Digits and dashes of [`NAME_TIME`], as of years up to 9999.
const NAME_TIME_BYTES: usize = 19;

/// Length of a batch id as it is written.
const BATCH_BYTES: usize = 36;

/// What a key says, if it is what `name` makes of the same parts.
fn read(stream: &str, key: &str, name: impl Fn(&NameParts<'_>) -> String) -> Option<Named> {
    // A stream may be called as the end of another, or as what stands before it: only the whole key tells.
    let mut starts = key.match_indices(stream).filter_map(|(at, _)| read_suffix(stream, key.get(at..)?));
    starts.find_map(|(parts, named)| (name(&parts) == key).then_some(named))
}

/// Whether an object that Hydrant wrote can have a name that ends so. Others may write to a store, and their names reach
/// people's terminals.
fn is_extension(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
    text.is_empty() || text.starts_with('.') && text.len() <= EXTENSION_LENGTH_MAX && text.bytes().all(is_plain)
}

/// Reads what [`suffix`] wrote.
fn read_suffix<'a>(stream: &'a str, text: &'a str) -> Option<(NameParts<'a>, Named)> {
    let (version, rest) = text.strip_prefix(stream)?.strip_prefix('-')?.split_once('-')?;
    let (moment, rest) = rest.split_at_checked(NAME_TIME_BYTES)?;
    let (batch, extension) = rest.strip_prefix('-')?.split_at_checked(BATCH_BYTES)?;
    let oldest_arrival = Moment::parse(NAME_TIME, moment).filter(|_| is_extension(extension))?;
    let (version, batch) = (version.parse().ok()?, batch.parse().ok()?);
    Some((NameParts { stream, version, oldest_arrival, batch, extension }, Named { oldest_arrival, batch }))
}

/// 2026-09-30T23:59:59.999Z: a Wednesday in September, so that each number and name is as long as it gets.
const LONGEST_MOMENT: Timestamp = Timestamp::from_millis(1_790_812_799_999);

/// The same day at 12:59:59.999, for the one name that is longest in the afternoon.
const LONGEST_AFTERNOON: Timestamp = Timestamp::from_millis(1_790_773_199_999);

/// Checks the longest keys that a prefix can make. Structure never depends on the moment: no field of a date prints
/// a slash, a control character or nothing at all.
fn check(field: Field, evaluate: impl Fn(Moment) -> String) -> Result<(), PrefixError> {
    for oldest_arrival in [LONGEST_MOMENT, LONGEST_AFTERNOON] {
        let moment = Moment::new(oldest_arrival);
        let evaluated = evaluate(moment);
        if evaluated.encode_utf16().count() > EVALUATED_LENGTH_MAX {
            return Err(PrefixError::EvaluatedTooLong(field));
        }
        let (stream, extension) = ("s".repeat(STREAM_LENGTH_MAX), "e".repeat(EXTENSION_LENGTH_MAX));
        let batch = BatchId::from_bytes([0; 16]);
        let parts = NameParts { stream: &stream, version: u64::MAX, oldest_arrival, batch, extension: &extension };
        check_key(field, &(evaluated + &suffix(&parts, moment)))?;
    }
    Ok(())
}

/// Longest name of a stream. Source: the service's API model.
const STREAM_LENGTH_MAX: usize = 64;

/// Longest extension. Source: the service's API model.
const EXTENSION_LENGTH_MAX: usize = 128;

fn check_key(field: Field, key: &str) -> Result<(), PrefixError> {
    if key.len() > KEY_BYTES_MAX {
        return Err(PrefixError::KeyTooLong { field, bytes: key.len() });
    }
    if let Some(character) = key.chars().find(|c| c.is_control()) {
        return Err(PrefixError::ControlCharacter { field, character });
    }
    match key.split('/').find(|segment| matches!(*segment, "" | "." | "..")) {
        Some(segment) => Err(PrefixError::PathSegment { field, segment: segment.to_owned() }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
