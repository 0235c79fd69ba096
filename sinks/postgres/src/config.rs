//! What a user writes about a table: where it is, who may write to it, and how a record becomes a row.
//!
//! In: YAML, by way of serde. Out: problems with their place in the document. Never connects.

use std::net::IpAddr;
use std::time::Duration;

use hydrant_core::duration::TimeSpan;
use hydrant_core::problem::{DocPath, Problems};
use hydrant_core::secret::{SecretRef, Secrets};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::wire::{NotAPath, Path};

/// Longest name of a table or column in bytes. Source: PostgreSQL documentation, "Identifiers and Key Words".
const NAME_BYTES_MAX: usize = 63;

/// Most columns of a table. Source: PostgreSQL documentation, appendix K, "PostgreSQL Limits".
const COLUMNS_MAX: usize = 1600;

/// Most connections: each is a process of the server, which has 100 by default.
const CONNECTIONS_MAX: u32 = 64;

/// Longest time for a statement or a lock.
const TIMEOUT_MAX: Duration = Duration::from_hours(1);

/// Rows in a table of PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PostgresSink", deny_unknown_fields)]
pub struct SinkConfig {
    /// The server's name or address.
    pub host: String,
    /// The server's port.
    #[serde(default = "default_port")]
    pub port: u16,
    /// The database.
    pub database: String,
    /// Who writes.
    pub user: String,
    /// The user's password. Absent where the server asks for none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<SecretRef>,
    /// How connections are encrypted. By default `verify_full`, and `disable` for a server on this machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsMode>,
    /// A PEM file of certificate authorities to trust beside those of the system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<String>,
    /// What the server lists connections as.
    #[serde(default = "default_application_name")]
    pub application_name: String,
    /// The table: `NAME` or `SCHEMA.NAME`, letter case as it is in the database.
    pub table: String,
    /// How a record becomes a row.
    #[serde(default)]
    pub row: Row,
    /// Rows replace those of the same key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upsert: Option<Upsert>,
    /// Whether to make the table if it is not there.
    #[serde(default)]
    pub create_table: bool,
    /// The table that remembers which batches have been delivered; made if it is not there. By default
    /// `hydrant_guards` in the schema of `table`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guard_table: Option<String>,
    /// Most connections, which is also how many batches are delivered at once.
    #[serde(default = "default_connections")]
    pub connections: u32,
    /// Longest time for one statement.
    #[serde(default = "default_statement_timeout")]
    pub statement_timeout: TimeSpan,
    /// Longest wait for a lock.
    #[serde(default = "default_lock_timeout")]
    pub lock_timeout: TimeSpan,
}

/// How connections are encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "PostgresTls")]
pub enum TlsMode {
    /// Not at all.
    Disable,
    /// Always, with whoever answers.
    Require,
    /// Always, and the server proves by its certificate to be `host`.
    VerifyFull,
}

/// How a record becomes a row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "PostgresRow")]
pub enum Row {
    /// One column holds the whole record.
    Raw(RawColumn),
    /// Columns take values out of the record, which is JSON.
    Columns(Vec<Column>),
}

/// A column that holds the whole record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PostgresRawColumn", deny_unknown_fields)]
pub struct RawColumn {
    /// The column.
    #[serde(default = "default_raw_column")]
    pub column: String,
    /// Its type: `jsonb`, `json`, `text` or `bytea`.
    #[serde(default = "default_raw_type")]
    pub r#type: String,
}

impl Default for Row {
    fn default() -> Self {
        Self::Raw(RawColumn { column: default_raw_column(), r#type: default_raw_type() })
    }
}

/// A column that takes a value out of a record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PostgresColumn", deny_unknown_fields)]
pub struct Column {
    /// The column.
    pub name: String,
    /// Its type as PostgreSQL calls it. `json` and `jsonb` take the value as it is written in the record, all others
    /// what a string says.
    #[serde(default = "default_column_type")]
    pub r#type: String,
    /// Where the value is: a path into the record, such as `$.user.id`, `$['any key']`, `$.list[0]` or `$` for all of it;
    /// or `arrived_at`, when the record was accepted. By default the key that is called like the column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// Whether a record without the value, or with null, is refused. Otherwise the column is NULL.
    #[serde(default)]
    pub required: bool,
    /// Stands for an absent value and for null, written as PostgreSQL reads it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// Values that count as null.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub null_if: Vec<String>,
}

/// Rows replace those of the same key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "PostgresUpsert", deny_unknown_fields)]
pub struct Upsert {
    /// Columns of a unique index. Of several rows of a batch with the same key the last counts.
    pub key: Vec<String>,
    /// A column by which the newer row is told: a row replaces another only if its value here is greater.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newer_by: Option<String>,
}

fn default_port() -> u16 {
    5432
}

fn default_application_name() -> String {
    "hydrant".to_owned()
}

fn default_connections() -> u32 {
    4 // two keep a server of two cores busy; more hide the wait for its disk and the network
}

fn default_statement_timeout() -> TimeSpan {
    TimeSpan(Duration::from_mins(1)) // a batch of 16 MiB at less than a megabyte a second
}

fn default_lock_timeout() -> TimeSpan {
    TimeSpan(Duration::from_secs(10)) // a COPY waits only for those who change or lock the table as a whole
}

fn default_raw_column() -> String {
    "data".to_owned()
}

fn default_raw_type() -> String {
    "jsonb".to_owned()
}

fn default_column_type() -> String {
    "text".to_owned()
}

/// Whether a type holds JSON.
pub(crate) fn is_json(r#type: &str) -> bool {
    ["json", "jsonb"].iter().any(|json| json.eq_ignore_ascii_case(r#type))
}

impl Row {
    /// Each column with its type, in the order of a row.
    pub(crate) fn columns(&self) -> Vec<(&str, &str)> {
        match self {
            Self::Raw(raw) => vec![(&raw.column, &raw.r#type)],
            Self::Columns(columns) => {
                columns.iter().map(|column| (column.name.as_str(), column.r#type.as_str())).collect()
            }
        }
    }
}

impl Column {
    /// Where its value is in a record; nothing if it is not from the record.
    ///
    /// # Errors
    /// When `from` is neither a path nor `arrived_at`.
    pub(crate) fn path(&self) -> Result<Option<Path>, NotAPath> {
        match self.from.as_deref() {
            None => Ok(Some(Path::key(&self.name))),
            Some("arrived_at") => Ok(None),
            Some(text) => Path::parse(text).map(Some),
        }
    }
}

impl SinkConfig {
    /// How connections are encrypted.
    pub(crate) fn tls_mode(&self) -> TlsMode {
        let is_loopback =
            self.host == "localhost" || self.host.parse().is_ok_and(|address: IpAddr| address.is_loopback());
        self.tls.unwrap_or(if is_loopback { TlsMode::Disable } else { TlsMode::VerifyFull })
    }

    /// Adds what is wrong with it. Secrets are resolved once, so that a missing one is found here.
    pub fn validate(&self, at: &DocPath, secrets: &dyn Secrets, problems: &mut Problems) {
        self.validate_server(at, secrets, problems);
        check_table(&at.field("table"), &self.table, problems);
        if let Some(table) = &self.guard_table {
            check_table(&at.field("guard_table"), table, problems);
            if *table == self.table {
                problems.add(at.field("guard_table"), "guard_table and table are the same");
            }
        }
        self.validate_row(&at.field("row"), problems);
        self.validate_upsert(&at.field("upsert"), problems);
        problems.range(at.field("connections"), self.connections, 1..=CONNECTIONS_MAX);
        for (name, span) in [("statement_timeout", self.statement_timeout), ("lock_timeout", self.lock_timeout)] {
            problems.range(at.field(name), span, TimeSpan(Duration::from_millis(100))..=TimeSpan(TIMEOUT_MAX));
        }
    }

    fn validate_server(&self, at: &DocPath, secrets: &dyn Secrets, problems: &mut Problems) {
        if self.host.is_empty() || self.host.contains(|c: char| c.is_whitespace() || matches!(c, '/' | '@')) {
            let message = format!("`{}` is not the name or address of a server", self.host);
            problems.add_with_hint(
                at.field("host"),
                message,
                "write the host alone, such as db.example.net or 10.0.0.7",
            );
        }
        if self.port == 0 {
            problems.add(at.field("port"), "0 is not a port");
        }
        for (name, text) in
            [("database", &self.database), ("user", &self.user), ("application_name", &self.application_name)]
        {
            if text.is_empty() || text.contains('\0') {
                problems.add(at.field(name), format!("{name} is empty or holds the character 0"));
            }
        }
        if let Some(reference) = &self.password {
            match secrets.resolve(reference) {
                Err(reason) => problems.add(at.field("password"), reason),
                Ok(value) if value.expose().is_empty() => {
                    problems.add(at.field("password"), format!("{reference} is empty"));
                }
                Ok(_) => {}
            }
        }
        if self.ca_file.is_some() && self.tls_mode() != TlsMode::VerifyFull {
            problems.add_with_hint(
                at.field("ca_file"),
                "ca_file has no effect without verification",
                "set tls: verify_full",
            );
        }
    }

    fn validate_row(&self, at: &DocPath, problems: &mut Problems) {
        match &self.row {
            Row::Raw(RawColumn { column, r#type }) => {
                let at = at.field("raw");
                check_name(&at.field("column"), column, problems);
                if !["jsonb", "json", "text", "bytea"].iter().any(|known| known.eq_ignore_ascii_case(r#type)) {
                    let message = format!("`{type}` cannot hold any record");
                    problems.add_with_hint(at.field("type"), message, "one of jsonb, json, text, bytea");
                }
            }
            Row::Columns(columns) => {
                let at = at.field("columns");
                if columns.is_empty() || columns.len() > COLUMNS_MAX {
                    let message = format!("{} columns", columns.len());
                    problems.add_with_hint(at.clone(), message, format!("1 to {COLUMNS_MAX}"));
                }
                for (index, column) in columns.iter().enumerate() {
                    column.validate(&at.item(index), problems);
                    if columns.iter().take(index).any(|earlier| earlier.name == column.name) {
                        problems.add(at.item(index).field("name"), format!("column `{}` is there twice", column.name));
                    }
                }
            }
        }
    }

    fn validate_upsert(&self, at: &DocPath, problems: &mut Problems) {
        let Some(upsert) = &self.upsert else { return };
        let columns = self.row.columns();
        if upsert.key.is_empty() {
            problems.add_with_hint(at.field("key"), "key is empty", "name the columns of a unique index");
        }
        let key = upsert.key.iter().enumerate().map(|(index, name)| (at.field("key").item(index), name));
        let newer_by = upsert.newer_by.iter().map(|name| (at.field("newer_by"), name));
        for (at, name) in key.chain(newer_by) {
            if !columns.iter().any(|(column, _)| column == name) {
                problems.add_with_hint(at, format!("`{name}` is not a column of row"), "name one that is listed there");
            }
        }
    }
}

impl Column {
    fn validate(&self, at: &DocPath, problems: &mut Problems) {
        check_name(&at.field("name"), &self.name, problems);
        if !is_type(&self.r#type) {
            let message = format!("`{}` is not the name of a type", self.r#type);
            problems.add_with_hint(at.field("type"), message, "such as bigint, numeric(10,2), timestamptz or text[]");
        }
        if let Err(reason) = self.path() {
            problems.add_with_hint(
                at.field("from"),
                reason.to_string(),
                "such as $.user.id, $['any key'], $.list[0], $ for the record itself, or arrived_at",
            );
        }
        if self.default.iter().chain(&self.null_if).any(|text| text.contains('\0')) {
            problems.add(at.clone(), "a value holds the character 0, which PostgreSQL cannot store");
        }
        if self.required && self.default.is_some() {
            problems.add(at.field("required"), "required has no effect beside a default");
        }
    }
}

/// `NAME` or `SCHEMA.NAME`.
fn check_table(at: &DocPath, table: &str, problems: &mut Problems) {
    if table.split('.').count() > 2 || !table.split('.').all(is_name) {
        problems.add_with_hint(at.clone(), format!("`{table}` is not the name of a table"), "NAME or SCHEMA.NAME");
    }
}

fn check_name(at: &DocPath, name: &str, problems: &mut Problems) {
    if !is_name(name) {
        let message = format!("`{name}` is not the name of a column");
        problems.add_with_hint(at.clone(), message, format!("1 to {NAME_BYTES_MAX} bytes, no control characters"));
    }
}

/// Names are quoted wherever they stand in a statement, so they may hold nearly anything.
fn is_name(name: &str) -> bool {
    (1..=NAME_BYTES_MAX).contains(&name.len()) && !name.chars().any(char::is_control)
}

/// Words, then perhaps a size, then perhaps `[]`: what can stand in `CREATE TABLE` without being anything else.
fn is_type(text: &str) -> bool {
    let base = text.strip_suffix("[]").unwrap_or(text);
    let (words, size) = match base.split_once('(') {
        Some((words, rest)) => (words, rest.strip_suffix(')')),
        None => (base, Some("1")),
    };
    let is_word = |word: &str| {
        word.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
            && word.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '.'))
    };
    let is_number =
        |number: &str| !number.is_empty() && number.len() <= 4 && number.bytes().all(|b| b.is_ascii_digit());
    text.len() <= NAME_BYTES_MAX
        && words.split(' ').all(is_word)
        && size.is_some_and(|size| size.split(',').map(str::trim).all(is_number))
}
