//! A stream's part of the document in one canonical line, by which a start tells whether the stream was changed.
//!
//! In: what was found true of it, defaults filled in. Out: JSON with sorted keys. Two documents that mean the same give
//! the same text, whatever their layout; where a store is belongs to it, what a secret is does not.

use std::fmt;

use hydrant_core::duration::TimeSpan;
use hydrant_sinks::{SinkConfig, StoreConfig};
use serde_json::{Value, json};

use super::spec::{DeadLetterSpec, Hints, RetryFor, StoreSpec};

/// What makes a stream what it is.
pub(super) struct Definition<'a> {
    pub(super) hints: Hints,
    pub(super) retry_for: RetryFor,
    pub(super) sink: &'a SinkConfig,
    pub(super) store: Option<&'a StoreSpec>,
    pub(super) dead_letter: &'a DeadLetterSpec,
}

impl fmt::Display for Definition<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let definition = json!({
            "hints": hints(self.hints),
            "retry_for": match self.retry_for {
                RetryFor::Forever => json!("forever"),
                RetryFor::AtMost(time) => json!(TimeSpan(time)),
            },
            "sink": self.sink,
            "store": self.store.map(|spec| store(&spec.config)),
            "dead_letter": {
                "store": self.dead_letter.store.name,
                "at": store(&self.dead_letter.store.config),
                "error_prefix": self.dead_letter.error_prefix.as_str(),
                "hints": hints(self.dead_letter.hints),
            },
        });
        write!(f, "{}", without_nulls(definition))
    }
}

fn hints(hints: Hints) -> Value {
    json!({ "size": hints.size, "interval": TimeSpan(hints.interval) })
}

fn store(config: &StoreConfig) -> Value {
    json!(config)
}

/// An option that a later version adds and nobody has set must not make a new version of every stream.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let set = members.into_iter().filter(|(_, value)| !value.is_null());
            set.map(|(key, value)| (key, without_nulls(value))).collect()
        }
        Value::Array(items) => items.into_iter().map(without_nulls).collect(),
        plain => plain,
    }
}
