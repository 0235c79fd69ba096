//! The shape of a configuration as a JSON Schema, generated from the types that read it: for editors, for the names
//! that were probably meant, and for the keys whose values are secrets.

use std::collections::BTreeSet;

use hydrant_core::problem::{DocPath, Step};
use schemars::Schema;
use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use serde_json::{Map, Value};

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

    /// The keys that the mapping at `path` may have.
    pub(super) fn at(&self, path: &DocPath) -> Vec<String> {
        let mut here = vec![&self.root];
        for step in path.steps() {
            here = here
                .into_iter()
                .flat_map(|schema| self.alternatives(schema))
                .filter_map(|of| below(of, step))
                .collect();
        }
        let objects = here.into_iter().flat_map(|schema| self.alternatives(schema));
        let keys = objects.filter_map(|of| of.get("properties")?.as_object()).flat_map(Map::keys);
        keys.cloned().collect::<BTreeSet<_>>().into_iter().collect()
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
