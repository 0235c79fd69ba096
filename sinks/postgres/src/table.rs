//! Statements: everything that is said to PostgreSQL about a table, its guards and its stage, as text. Pure.
//!
//! Names come from the configuration and are quoted wherever they stand. Data never stands in a statement: it goes by COPY.

use std::time::Duration;

use hydrant_core::Timestamp;
use hydrant_core::batch::Batch;

use crate::config::{SinkConfig, Upsert};

/// The temporary table that an upsert goes through.
const STAGE: &str = "hydrant_stage";

/// The savepoint that attempts go back to.
const SAVEPOINT: &str = "hydrant_rows";

/// Key of the lock that is held while tables are made, so that of several connections one does it.
const CREATE_LOCK: u64 = 0x6879_6472_616e_7400;

/// Name of the guard table unless it is given.
const GUARDS: &str = "hydrant_guards";

/// Statements for one table.
#[derive(Debug)]
pub(crate) struct Statements {
    /// Opens a transaction; what it holds is all or nothing.
    begin: String,
    /// The table, quoted.
    target: String,
    /// The guard table, quoted.
    guards: String,
    /// Whom guards belong to, as a literal.
    origin: String,
    /// Makes the stage of an upsert; empty without one.
    stage: String,
    /// Takes rows.
    pub(crate) copy: String,
    /// The table that [`copy`](Self::copy) fills, as the server calls it in its complaints.
    pub(crate) filled: String,
    /// The columns that it fills, in their order.
    pub(crate) columns: Vec<String>,
    /// Moves rows from the stage to the table, which leaves the stage empty; nothing without an upsert.
    pub(crate) merge: Option<String>,
    /// Makes the tables that may be made.
    pub(crate) create: String,
    /// Ends a transaction for good. Fails if it has failed before, rather than to roll it back silently.
    pub(crate) commit: String,
    /// Undoes what came after the last savepoint.
    pub(crate) undo: String,
    /// Keeps what came after the last savepoint, and makes a new one.
    pub(crate) keep: String,
}

impl Statements {
    /// Statements for the table of a configuration; guards belong to `origin`.
    pub(crate) fn new(config: &SinkConfig, origin: &str) -> Self {
        let (schema, table) = split(&config.table);
        let guards = match &config.guard_table {
            Some(guards) => qualified(split(guards)),
            None => qualified((schema, GUARDS)),
        };
        let typed = config.row.columns();
        let columns = list(typed.iter().map(|(name, _)| *name));
        let target = qualified((schema, table));
        let (filled, filled_quoted) = match &config.upsert {
            Some(_) => (STAGE, quoted(STAGE)),
            None => (table, target.clone()),
        };
        Self {
            begin: begin(config.statement_timeout.0, config.lock_timeout.0),
            origin: literal(origin),
            stage: config.upsert.as_ref().map_or_else(String::new, |_| stage(&columns, &target)),
            copy: format!("COPY {filled_quoted} ({columns}) FROM STDIN (FORMAT text, ENCODING 'UTF8')"),
            filled: filled.to_owned(),
            merge: config.upsert.as_ref().map(|upsert| merge(upsert, &typed, &columns, &target)),
            create: create(config, &guards, &target, &typed),
            commit: format!("RELEASE SAVEPOINT {SAVEPOINT}; SET LOCAL statement_timeout = 0; COMMIT"),
            undo: format!("ROLLBACK TO SAVEPOINT {SAVEPOINT}"),
            keep: format!("RELEASE SAVEPOINT {SAVEPOINT}; SAVEPOINT {SAVEPOINT}"),
            columns: typed.iter().map(|(name, _)| (*name).to_owned()).collect(),
            guards,
            target,
        }
    }

    /// Opens the transaction of a batch and puts its guard up. A missing table is a complaint here already: a COPY that
    /// cannot begin leaves the client out of step with the server. The answer's last count but one is 1, or 0 if the guard
    /// is there already, and with it all the batch's rows.
    pub(crate) fn begin(&self, batch: &Batch) -> String {
        let Self { begin, target, guards, origin, stage, .. } = self;
        format!(
            "{begin}; SELECT {}::regclass; {stage}\
             INSERT INTO {guards} (batch, origin, sealed_at) VALUES ('{}', {origin}, {}) ON CONFLICT DO NOTHING; \
             SAVEPOINT {SAVEPOINT}",
            literal(target),
            batch.id,
            moment(batch.sealed_at),
        )
    }

    /// Removes guards of batches that were sealed before `moment` and delivered more than a day ago.
    pub(crate) fn forget(&self, before: Timestamp) -> String {
        let Self { guards, origin, .. } = self;
        format!(
            "DELETE FROM {guards} WHERE origin = {origin} AND sealed_at < {} AND delivered_at < now() - interval '1 day'",
            moment(before),
        )
    }
}

/// Opens a transaction that sees what others have committed meanwhile, gives up waiting, checks each row by itself, and is
/// durable once it is committed, whatever the server's defaults are.
fn begin(statement_timeout: Duration, lock_timeout: Duration) -> String {
    let (statement, lock) = (statement_timeout.as_millis(), lock_timeout.as_millis());
    format!(
        "BEGIN ISOLATION LEVEL READ COMMITTED; \
         SET LOCAL statement_timeout = {statement}; SET LOCAL lock_timeout = {lock}; \
         SET LOCAL idle_in_transaction_session_timeout = {statement}; \
         SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'; \
         SET CONSTRAINTS ALL IMMEDIATE"
    )
}

/// A table for the time of the transaction, with the columns' types and none of their constraints.
fn stage(columns: &str, target: &str) -> String {
    format!("CREATE TEMPORARY TABLE {STAGE} ON COMMIT DROP AS SELECT {columns} FROM {target} WITH NO DATA; ")
}

/// Rows go in by the order of their keys, so that two batches never wait for each other. Of rows with one key the last
/// counts, which is the one that lies last in the stage.
fn merge(upsert: &Upsert, typed: &[(&str, &str)], columns: &str, target: &str) -> String {
    let key = list(upsert.key.iter().map(String::as_str));
    let others = typed.iter().map(|(name, _)| *name).filter(|name| !upsert.key.iter().any(|key| key == name));
    let sets: Vec<String> = others.map(|name| format!("{0} = EXCLUDED.{0}", quoted(name))).collect();
    let newer_by = upsert.newer_by.as_deref().map(quoted);
    let act = match (&*sets, &newer_by) {
        ([], _) => "NOTHING".to_owned(),
        (_, None) => format!("UPDATE SET {}", sets.join(", ")),
        (_, Some(newer)) => {
            format!("UPDATE SET {0} WHERE old.{newer} IS NULL OR old.{newer} < EXCLUDED.{newer}", sets.join(", "))
        }
    };
    let newest_first = newer_by.map_or_else(String::new, |newer| format!("{newer} DESC NULLS LAST, "));
    format!(
        "INSERT INTO {target} AS old ({columns}) \
         SELECT DISTINCT ON ({key}) {columns} FROM {STAGE} ORDER BY {key}, {newest_first}ctid DESC \
         ON CONFLICT ({key}) DO {act}; \
         DELETE FROM {STAGE}"
    )
}

/// Makes the guard table, and the table where that is asked for.
fn create(config: &SinkConfig, guards: &str, target: &str, typed: &[(&str, &str)]) -> String {
    let table = if config.create_table { create_target(config, target, typed) } else { String::new() };
    format!(
        "BEGIN; SELECT pg_advisory_xact_lock({CREATE_LOCK}); \
         CREATE TABLE IF NOT EXISTS {guards} (batch uuid PRIMARY KEY, origin text NOT NULL, \
         sealed_at timestamptz NOT NULL, delivered_at timestamptz NOT NULL DEFAULT now()); {table}COMMIT"
    )
}

fn create_target(config: &SinkConfig, target: &str, typed: &[(&str, &str)]) -> String {
    let column = |(name, r#type): &(&str, &str)| format!("{} {type}", quoted(name));
    let key =
        config.upsert.iter().map(|upsert| format!("PRIMARY KEY ({})", list(upsert.key.iter().map(String::as_str))));
    let parts: Vec<String> = typed.iter().map(column).chain(key).collect();
    format!("CREATE TABLE IF NOT EXISTS {target} ({}); ", parts.join(", "))
}

/// Schema, if there is one, and name.
fn split(table: &str) -> (Option<&str>, &str) {
    table.split_once('.').map_or((None, table), |(schema, name)| (Some(schema), name))
}

fn qualified((schema, name): (Option<&str>, &str)) -> String {
    schema.map_or_else(|| quoted(name), |schema| format!("{}.{}", quoted(schema), quoted(name)))
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.map(quoted).collect::<Vec<_>>().join(", ")
}

/// A name in quotes. Source: PostgreSQL documentation, "Identifiers and Key Words".
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A text in quotes that mean the same whatever `standard_conforming_strings` says.
fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

/// A moment as an expression.
fn moment(at: Timestamp) -> String {
    format!("to_timestamp({at})")
}

#[cfg(test)]
mod tests;
