//! The shape of a configuration as a JSON Schema, generated from the types that read it: for editors, for the names
//! that were probably meant, and for the keys whose values are secrets.

use std::collections::BTreeSet;

use hydrant_core::problem::{DocPath, Step};
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::Value;

use super::raw::RawConfig;

/// The schema, as `config/schema.json` holds it.
pub fn schema() -> Schema {
    let mut schema = SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<RawConfig>();
    RecursiveTransform(refuse_unknown_keys).transform(&mut schema);
    schema
}

/// The text of `config/schema.json`.
pub fn schema_text() -> String {
    format!("{:#}\n", schema().as_value())
}

/// The reader refuses unknown keys, so the schema does.
fn refuse_unknown_keys(schema: &mut Schema) {
    if schema.get("properties").is_some() && schema.get("additionalProperties").is_none() {
        schema.insert("additionalProperties".to_owned(), Value::Bool(false));
    }
}

/// Answers questions about keys.
pub(super) struct Keys {
    root: Value,
}

impl Keys {
    pub(super) fn new() -> Self {
        Self { root: schema().to_value() }
    }

    /// What may stand in the document itself.
    pub(super) fn root(&self) -> Place<'_> {
        Place { keys: self, schemas: self.alternatives(&self.root) }
    }

    /// What may stand at `path`.
    pub(super) fn at(&self, path: &DocPath) -> Place<'_> {
        path.steps().iter().fold(self.root(), |place, step| place.below(step))
    }

    /// The keys whose values are secrets wherever they stand.
    pub(super) fn secrets(&self) -> Vec<String> {
        let (mut secret, mut open) = (BTreeSet::new(), BTreeSet::new());
        let mut left = vec![&self.root];
        while let Some(value) = left.pop() {
            for (key, schema) in value.get("properties").and_then(Value::as_object).into_iter().flatten() {
                let keys = if refers_to_secret(schema) { &mut secret } else { &mut open };
                keys.insert(key.clone());
            }
            match value {
                Value::Object(members) => left.extend(members.values()),
                Value::Array(items) => left.extend(items),
                _ => {}
            }
        }
        secret.difference(&open).cloned().collect()
    }

    /// A schema with what it refers to and what it offers a choice of, flat.
    fn alternatives<'a>(&'a self, schema: &'a Value) -> Vec<&'a Value> {
        let mut flat: Vec<&Value> = Vec::new();
        let mut left = vec![schema];
        while let Some(schema) = left.pop() {
            if flat.iter().any(|seen| std::ptr::eq(*seen, schema)) {
                continue;
            }
            flat.push(schema);
            let referred = schema.get("$ref").and_then(Value::as_str).and_then(|to| to.strip_prefix('#'));
            left.extend(referred.and_then(|pointer| self.root.pointer(pointer)));
            for choice in ["oneOf", "anyOf", "allOf"] {
                left.extend(schema.get(choice).and_then(Value::as_array).into_iter().flatten());
            }
        }
        flat
    }
}

/// What may stand at one place of a document.
pub(super) struct Place<'a> {
    keys: &'a Keys,
    /// All that the place may be, references followed and choices side by side.
    schemas: Vec<&'a Value>,
}

/// What kind of collection belongs somewhere.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Form<'a> {
    /// A mapping of these keys.
    Mapping { keys: Vec<&'a str>, required: Vec<&'a str> },
    /// A mapping of names of the operator's choice.
    Names,
    /// A mapping of exactly one of these keys.
    Choice(Vec<&'a str>),
    /// A sequence.
    List,
    /// A plain value, or one that only its own type can judge.
    Plain,
}

impl<'a> Place<'a> {
    /// What may stand one step below.
    pub(super) fn below(&self, step: &Step) -> Self {
        let schemas = self.schemas.iter().filter_map(|schema| below(schema, step));
        Self { keys: self.keys, schemas: schemas.flat_map(|schema| self.keys.alternatives(schema)).collect() }
    }

    /// What kind of collection belongs here.
    pub(super) fn form(&self) -> Form<'a> {
        let choices = || self.schemas.iter().filter_map(|schema| schema.get("oneOf")?.as_array());
        if let Some(kinds) = choices().find_map(|choices| self.kinds(choices)) {
            return Form::Choice(kinds);
        }
        if choices().next().is_some() {
            return Form::Plain;
        }
        if let Some((schema, keys)) =
            self.schemas.iter().find_map(|schema| Some((schema, schema.get("properties")?.as_object()?)))
        {
            let required = schema.get("required").and_then(Value::as_array).into_iter().flatten();
            return Form::Mapping {
                keys: keys.keys().map(String::as_str).collect(),
                required: required.filter_map(Value::as_str).collect(),
            };
        }
        if self.schemas.iter().any(|schema| schema.get("additionalProperties").is_some_and(Value::is_object)) {
            Form::Names
        } else if self.takes("array") {
            Form::List
        } else {
            Form::Plain
        }
    }

    /// Whether nothing may stand here, and means the same as no key.
    pub(super) fn takes_nothing(&self) -> bool {
        self.takes("null")
    }

    /// What the schema says of this place, its first sentence without the full stop.
    pub(super) fn description(&self) -> Option<String> {
        let text = self.schemas.iter().find_map(|schema| schema.get("description")?.as_str())?.replace('\n', " ");
        let sentence = text.split(". ").next().unwrap_or_default().trim_end_matches('.');
        Some(sentence.to_owned())
    }

    /// The keys, if each of the choices is one key with a mapping below it.
    fn kinds(&self, choices: &'a [Value]) -> Option<Vec<&'a str>> {
        let kind = |choice: &'a Value| {
            let mut keys = choice.get("properties")?.as_object()?.iter();
            let (Some((key, settings)), None) = (keys.next(), keys.next()) else { return None };
            let settings = self.keys.alternatives(settings);
            settings.iter().any(|schema| schema.get("properties").is_some()).then_some(key.as_str())
        };
        choices.iter().map(kind).collect()
    }

    fn takes(&self, kind: &str) -> bool {
        self.schemas.iter().filter_map(|schema| schema.get("type")).any(|types| match types {
            Value::String(one) => one == kind,
            Value::Array(several) => several.iter().any(|one| one == kind),
            _ => false,
        })
    }
}

fn below<'a>(schema: &'a Value, step: &Step) -> Option<&'a Value> {
    match step {
        Step::Key(key) => {
            let declared = schema.get("properties").and_then(|properties| properties.get(key));
            declared.or_else(|| schema.get("additionalProperties"))
        }
        Step::Index(_) => schema.get("items"),
    }
}

fn refers_to_secret(schema: &Value) -> bool {
    schema.to_string().contains("#/$defs/SecretRef\"")
}

#[cfg(test)]
mod tests;
