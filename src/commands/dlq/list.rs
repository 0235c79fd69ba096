//! `hydrant dlq ls` and `hydrant dlq show`: the dead letters of a stream, a line or a page for each.
//!
//! In: a configuration, a stream, which dead letters. Out: a table, or each with all that is known of it and its record.
//! Reads the dead-letter store as the configuration says, and needs no server. Memory does not grow with what lies there.

use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::json;

use super::Filter;
use crate::commands::{Failure, Output, block_on};
use crate::config::spec::StreamSpec;
use crate::config::{self, LocalSecrets};
use crate::control::counted;
use crate::dead_letters::choice::OBJECT;
use crate::dead_letters::{Choice, Content, Found, Letters, ReadError, Shelf, Whole};
use crate::encode::letter::Letter;

/// Lists the dead letters of a stream.
///
/// Reads the dead-letter store as the configuration says; no server is needed. A row is a record that was refused, below
/// the object that it lies in: its line there, when and in which stage it was refused, for what, its size, after how many
/// attempts, and what the destination said. An object that went there whole, as its store did not take it, is one row.
/// The oldest records come first.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  hydrant dlq ls web --config hydrant.yaml
  hydrant dlq ls web --config hydrant.yaml --kind invalid --since 24h
  hydrant dlq ls web --config hydrant.yaml --output json | jq -r .message | sort | uniq -c

Exit code 4 says that a line was no dead letter.")]
pub(in crate::commands) struct LsArgs {
    #[command(flatten)]
    of: Of,
}

/// Shows dead letters with all that is known of them, and their records.
///
/// As `hydrant dlq ls`, with the record of each. Control characters in it are shown as `\u{7}`; with --output json it is
/// base64, byte for byte. Of an object that went there whole it says where it was meant to go; `hydrant cat` shows it.
#[derive(Debug, ClapArgs)]
#[command(after_help = "\
Examples:
  hydrant dlq show web --config hydrant.yaml --limit 3
  hydrant dlq show web --config hydrant.yaml --match order-4711
  hydrant dlq show web --config hydrant.yaml --output json | jq -r .data | base64 -d

Exit code 4 says that a line was no dead letter.")]
pub(in crate::commands) struct ShowArgs {
    #[command(flatten)]
    of: Of,
}

/// Of which stream, and how many.
#[derive(Debug, ClapArgs)]
struct Of {
    /// The stream.
    #[arg(value_name = "STREAM")]
    stream: String,
    /// The configuration that declares it, and how its dead-letter store is reached.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    #[command(flatten)]
    filter: Filter,
    /// Most rows; 0 for no limit.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: u64,
}

/// How much is told of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Detail {
    Row,
    Page,
}

/// Lists.
///
/// # Errors
/// When the configuration is wrong or declares no such stream, the store cannot be read, or a line is no dead letter.
pub(super) fn ls(args: &LsArgs, out: &mut Output) -> Result<(), Failure> {
    run(&args.of, Detail::Row, out)
}

/// Shows.
///
/// # Errors
/// As [`ls`].
pub(super) fn show(args: &ShowArgs, out: &mut Output) -> Result<(), Failure> {
    run(&args.of, Detail::Page, out)
}

fn run(of: &Of, detail: Detail, out: &mut Output) -> Result<(), Failure> {
    let spec = config::load(&of.config, None, &LocalSecrets)?.spec;
    let stream = spec.streams.get(&of.stream).ok_or_else(|| unknown_stream(of, spec.streams.keys()))?;
    let source = stream.dead_letter.store.config.open(&LocalSecrets).map_err(Failure::configuration)?;
    let shelf = Shelf::new(stream, source);
    let left = if of.limit == 0 { u64::MAX } else { of.limit };
    let mut told = Told { choice: of.filter.choice(), detail, left, rows: 0, broken: 0, out };
    block_on(told.all(&shelf))?.map_err(|error| unreadable(stream, error))?;
    told.end()
}

fn unknown_stream<'a>(of: &Of, known: impl Iterator<Item = &'a String>) -> Failure {
    let known = known.map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    let message = format!("it declares no stream `{}`; it has {known}", of.stream);
    Failure::failed(message).with_code("unknown_stream").at(of.config.display())
}

/// Why not everything was told.
#[derive(Debug)]
enum Stop {
    /// The object, if it was one, and why.
    Unread(Option<String>, ReadError),
    Output(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Output(failure)
    }
}

fn unreadable(stream: &StreamSpec, stop: Stop) -> Failure {
    let (key, error) = match stop {
        Stop::Output(failure) => return failure,
        Stop::Unread(key, error) => (key, error),
    };
    let store = &stream.dead_letter.store.name;
    let message = match key {
        Some(key) => format!("store `{store}`: {key}: {error}"),
        None => format!("store `{store}`: {error}"),
    };
    Failure::failed(message).with_code("unreadable")
}

/// A listing, as far as it is told.
struct Told<'a> {
    choice: Choice,
    detail: Detail,
    /// Rows that may still be told.
    left: u64,
    rows: u64,
    /// Lines, and objects, that are no dead letters.
    broken: u64,
    out: &'a mut Output,
}

impl Told<'_> {
    async fn all(&mut self, store: &Shelf) -> Result<(), Stop> {
        let mut walk = store.walk();
        while let Some(found) = walk.next().await.map_err(|fault| Stop::Unread(None, fault.into()))? {
            if self.left == 0 {
                break;
            }
            self.object(store, &found).await?;
        }
        Ok(())
    }

    async fn object(&mut self, store: &Shelf, found: &Found) -> Result<(), Stop> {
        let content = match store.open(found).await {
            Ok(content) => content,
            Err(error) => return self.unread(found, error),
        };
        match content {
            Content::Letters(letters) => self.letters(found, letters).await,
            Content::Whole(whole) if self.choice.takes_whole(found.named.oldest_arrival) => {
                self.row()?;
                self.whole(found, &whole)
            }
            Content::Whole(_) => Ok(()),
            Content::Unknown => self.broken(found, None),
        }
    }

    async fn letters(&mut self, found: &Found, mut letters: Letters) -> Result<(), Stop> {
        let mut is_first = true;
        while self.left > 0 {
            let line = match letters.next().await {
                Ok(line) => line,
                Err(error) => return self.unread(found, error),
            };
            match line {
                None => break,
                Some((line, None)) => self.broken(found, Some(u64::from(line) + 1))?,
                Some((line, Some(letter))) if self.choice.takes(&letter) => {
                    self.row()?;
                    if std::mem::take(&mut is_first) && self.detail == Detail::Row {
                        self.out.say(&found.key)?;
                    }
                    self.letter(found, u64::from(line) + 1, &letter)?;
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    /// Counts a row; the first has the names of the columns above it.
    fn row(&mut self) -> Result<(), Stop> {
        if self.rows == 0 && self.detail == Detail::Row {
            self.out.say("  LINE  REFUSED               STAGE    CODE                BYTES  ATTEMPTS  MESSAGE")?;
        }
        self.rows += 1;
        self.left -= 1;
        Ok(())
    }

    fn letter(&mut self, found: &Found, line: u64, letter: &Letter) -> Result<(), Stop> {
        let Letter { attempts_made, error_code, stage, piece_id, raw_data, outcome_unknown, .. } = letter;
        let (code, stage, message) = (plain(error_code), plain(stage), plain(&letter.error_message));
        let (refused_at, bytes) = (moment(letter.attempt_ending_timestamp), raw_data.len());
        match self.detail {
            Detail::Row => self.out.say(format_args!(
                "{line:>6}  {refused_at}  {stage:<7}  {code:<15}  {bytes:>8}  {attempts_made:>8}  {message}{}",
                if *outcome_unknown { " (the destination may have it)" } else { "" },
            ))?,
            Detail::Page => {
                let attempts = counted(u64::from(*attempts_made), "attempt");
                let known = if *outcome_unknown { "; the destination may have it all the same" } else { "" };
                self.out.say(format_args!(
                    "object   {}\nline     {line}\nrecord   {}, {}, arrived {}\nrefused  {refused_at} in stage {stage} \
                     after {attempts}{known}\nerror    {code}: {message}\n{}\n",
                    found.key,
                    plain(piece_id),
                    counted(bytes as u64, "byte"),
                    moment(letter.arrival_timestamp),
                    readable(raw_data),
                ))?;
            }
        }
        let mut answer = json!({
            "object": found.key, "line": line, "stage": letter.stage, "code": error_code,
            "message": letter.error_message, "refused_at": refused_at,
            "arrived_at": moment(letter.arrival_timestamp), "attempts": attempts_made,
            "outcome_unknown": outcome_unknown, "record": piece_id, "bytes": bytes,
        });
        if let (Detail::Page, Some(members)) = (self.detail, answer.as_object_mut()) {
            members.insert("data".to_owned(), base64_simd::STANDARD.encode_to_string(raw_data).into());
        }
        Ok(self.out.answer(&answer)?)
    }

    fn whole(&mut self, found: &Found, whole: &Whole) -> Result<(), Stop> {
        let arrived_at = moment(found.named.oldest_arrival.as_millis());
        let (store, key, bytes) = (&whole.intended.store, &whole.intended.key, found.bytes);
        match self.detail {
            Detail::Row => self.out.say(format_args!(
                "{}\n     -  {arrived_at}  {OBJECT:<7}  {:<15}  {bytes:>8}  {:>8}  meant for {} as {}",
                found.key,
                "-",
                "-",
                plain(store),
                plain(key)
            ))?,
            Detail::Page => self.out.say(format_args!(
                "object   {}\nwhole    {}, its oldest record arrived {arrived_at}\nmeant    for {} as {}\n",
                found.key,
                counted(bytes, "byte"),
                plain(store),
                plain(key)
            ))?,
        }
        Ok(self.out.answer(&json!({
            "object": found.key, "stage": OBJECT, "arrived_at": arrived_at, "bytes": bytes,
            "intended_store": store, "intended_key": key,
        }))?)
    }

    /// An object that cannot be read, or not to its end. Others behind it may be.
    fn unread(&mut self, found: &Found, error: ReadError) -> Result<(), Stop> {
        if !error.is_of_object() {
            return Err(Stop::Unread(Some(found.key.clone()), error));
        }
        self.out.note(format_args!("{}: {error}\n", found.key));
        self.broken(found, None)
    }

    fn broken(&mut self, found: &Found, line: Option<u64>) -> Result<(), Stop> {
        self.broken += 1;
        let what = line.map_or("it is none".to_owned(), |line| format!("line {line} is none"));
        self.out.note(format_args!("{}: named as dead letters, and {what}\n", found.key));
        Ok(self.out.answer(&json!({ "object": found.key, "line": line, "stage": null, "code": "damaged" }))?)
    }

    fn end(self) -> Result<(), Failure> {
        if self.rows == 0 {
            self.out.say("no dead letters")?;
        } else if self.left == 0 {
            self.out.note(format_args!("--limit {} was reached; there may be more\n", self.rows));
        }
        match self.broken {
            0 => Ok(()),
            broken => Err(Failure::damage(format!("{} could not be read as dead letters", counted(broken, "place")))),
        }
    }
}

/// `2026-11-21T12:00:00Z`; a number that is no moment as it is.
fn moment(ms: u64) -> String {
    let at = i64::try_from(ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    at.map_or_else(|| ms.to_string(), |at| at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// What a destination said, on one line: records and answers are strangers' bytes, and a terminal obeys some of them.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' | '\t' => plain.push(' '),
            character if character.is_control() => plain.extend(character.escape_unicode()),
            character => plain.push(character),
        }
    }
    plain
}

/// A record as people may read it.
fn readable(record: &[u8]) -> String {
    String::from_utf8_lossy(record).split_inclusive(['\n', '\t']).fold(String::new(), |mut shown, part| {
        let end = part.trim_end_matches(['\n', '\t']).len();
        let (text, ending) = part.split_at(end);
        shown.push_str(&plain(text));
        shown.push_str(ending);
        shown
    })
}

#[cfg(test)]
mod tests;
