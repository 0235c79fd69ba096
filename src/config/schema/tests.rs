//! The schema is the committed one, says what the reader does, and answers questions about keys.

use std::fs;

use serde_json::Map;

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
fn what_belongs_somewhere_is_known_by_its_place() {
    let keys = Keys::new();
    let root = DocPath::root();
    let told = |path: &DocPath| match keys.at(path).form() {
        Form::Mapping { keys, required } => format!("{} ({})", keys.join(" "), required.join(" ")),
        Form::Choice(kinds) => kinds.join(" or "),
        other => format!("{other:?}"),
    };
    assert_eq!(told(&root), "server stores streams ()");
    assert_eq!(told(&root.field("streams")), "Names");
    let any = root.field("streams").field("any");
    assert_eq!(told(&any), "dead_letter hints retry_for sink (sink)");
    assert_eq!(told(&any.field("hints")), "interval size ()");
    assert!(told(&any.field("sink")).split(" or ").any(|kind| kind == "file"));
    assert_eq!(told(&any.field("sink").field("file").field("compression")), "Plain");
    assert_eq!(told(&any.field("retry_for")), "Plain");
    assert_eq!(told(&root.field("stores").field("any").field("file")), "path (path)");
    let credentials = root.field("server").field("credentials");
    assert_eq!(told(&credentials), "List");
    assert_eq!(told(&credentials.item(3)), "access_key_id secret_access_key (access_key_id secret_access_key)");
    assert_eq!(told(&credentials.item(3).field("secret_access_key")), "Plain");
    assert_eq!(told(&root.field("nowhere")), "Plain");
    assert!(keys.at(&credentials).takes_nothing() && !keys.at(&any).takes_nothing());
}

#[test]
fn keys_of_secrets_are_those_that_never_hold_anything_else() {
    assert_eq!(
        Keys::new().secrets(),
        ["access_key", "api_key", "customer_key", "password", "private_key", "secret_access_key", "session_token"]
    );
}
