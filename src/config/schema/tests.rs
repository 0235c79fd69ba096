//! The schema is the committed one, says what the reader does, and answers questions about keys.

use std::fs;

use super::*;

const COMMITTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/schema.json");

/// `UPDATE=1 cargo test --release schema` writes it anew.
#[test]
fn the_committed_schema_is_current() {
    if std::env::var_os("UPDATE").is_some() {
        fs::write(COMMITTED, schema_text()).unwrap();
    }
    let committed = fs::read_to_string(COMMITTED).unwrap_or_default();
    assert!(committed == schema_text(), "config/schema.json is not what the types say; UPDATE=1 writes it anew");
}

#[test]
fn every_mapping_of_the_schema_refuses_unknown_keys() {
    fn visit(value: &Value, seen: &mut usize) {
        if value.get("properties").is_some() {
            *seen += 1;
            assert_eq!(value.get("additionalProperties"), Some(&Value::Bool(false)), "{value:#}");
        }
        match value {
            Value::Object(members) => members.values().for_each(|member| visit(member, seen)),
            Value::Array(items) => items.iter().for_each(|item| visit(item, seen)),
            _ => {}
        }
    }
    let mut seen = 0;
    visit(schema().as_value(), &mut seen);
    assert!(seen >= 8, "only {seen} mappings");
}

#[test]
fn every_key_is_described() {
    fn visit(path: &str, value: &Value) {
        for (key, schema) in value.get("properties").and_then(Value::as_object).into_iter().flatten() {
            // The key of a choice is described by the choice.
            let of_choice = path.ends_with("oneOf");
            let described = of_choice || schema.get("description").is_some() || schema.get("$ref").is_some();
            assert!(described, "{path}.{key} has no description");
        }
        match value {
            Value::Object(members) => members.iter().for_each(|(key, member)| visit(&format!("{path}.{key}"), member)),
            Value::Array(items) => items.iter().for_each(|item| visit(path, item)),
            _ => {}
        }
    }
    visit("", schema().as_value());
}

/// Goal: the page tells of every key, and of no key that is not there.
#[test]
fn the_configuration_page_tells_of_the_same_keys() {
    fn visit(value: &Value, keys: &mut BTreeSet<String>) {
        let properties = value.get("properties").and_then(Value::as_object);
        keys.extend(properties.into_iter().flat_map(Map::keys).cloned());
        match value {
            Value::Object(members) => members.values().for_each(|member| visit(member, keys)),
            Value::Array(items) => items.iter().for_each(|item| visit(item, keys)),
            _ => {}
        }
    }
    let mut declared = BTreeSet::new();
    visit(schema().as_value(), &mut declared);
    let page = include_str!("../../../docs/configuration.md");
    let rows =
        page.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |")).map(|(key, _)| key.to_owned());
    let told: BTreeSet<String> = rows.collect();
    let missing: Vec<_> = declared
        .iter()
        .filter(|key| !page.contains(&format!("`{key}`")) && !page.contains(&format!("{{ {key}: ")))
        .collect();
    assert!(missing.is_empty(), "the page does not tell of {missing:?}");
    let gone: Vec<_> = told.difference(&declared).collect();
    assert!(gone.is_empty(), "the page tells of {gone:?}, which no type knows");
}

#[test]
fn keys_are_known_by_their_place() {
    let keys = Keys::new();
    let root = DocPath::root();
    let at = |path: &DocPath| keys.at(path).join(" ");
    assert_eq!(at(&root), "server stores streams");
    assert_eq!(at(&root.field("streams").field("any")), "dead_letter hints retry_for sink");
    assert_eq!(at(&root.field("streams").field("any").field("hints")), "interval size");
    assert_eq!(at(&root.field("stores").field("any").field("file")), "path");
    assert_eq!(at(&root.field("server").field("credentials").item(3)), "access_key_id secret_access_key");
    assert_eq!(at(&root.field("nowhere")), "");
}

#[test]
fn keys_of_secrets_are_those_that_never_hold_anything_else() {
    assert_eq!(Keys::new().secrets(), ["customer_key", "private_key", "secret_access_key", "session_token"]);
}
