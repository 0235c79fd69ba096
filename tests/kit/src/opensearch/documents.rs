//! What the scripted OpenSearch holds, and how a bulk request changes it.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io::Read;

use bytes::Bytes;
use serde_json::{Value, json};

use crate::http::Head;

/// A field that every index maps as a whole number, so that a document can fail to fit.
pub const NUMBER_FIELD: &str = "number";

/// Most bytes of an unpacked request. Bounds of a test server.
const UNPACKED_BYTES_MAX: u64 = 256 << 20;

/// Items that fail by script.
pub(super) struct Strike<'a> {
    pub(super) one_in: usize,
    pub(super) status: u16,
    pub(super) error: &'a Value,
}

/// All documents, by index and id.
#[derive(Debug, Default)]
pub(super) struct Documents {
    documents: BTreeMap<(String, String), Bytes>,
    /// Ids that the server has drawn.
    drawn: u64,
}

impl Documents {
    pub(super) fn get(&self, index: &str, id: &str) -> Option<&Bytes> {
        self.documents.get(&(index.to_owned(), id.to_owned()))
    }

    pub(super) fn all(&self) -> Vec<((String, String), Bytes)> {
        self.documents.iter().map(|(name, document)| (name.clone(), document.clone())).collect()
    }

    /// Does what a request asks for, item by item.
    ///
    /// # Errors
    /// Why the request is not one.
    pub(super) fn bulk(&mut self, head: &Head, body: &[u8], strike: Option<&Strike<'_>>) -> Result<Value, String> {
        let body = unpacked(head, body)?;
        let lines = body.strip_suffix(b"\n").ok_or("The bulk request must be terminated by a newline [\\n]")?;
        let lines: Vec<&[u8]> = lines.split(|byte| *byte == b'\n').collect();
        let mut items = Vec::new();
        for (number, pair) in lines.chunks(2).enumerate() {
            let [action, source] = pair else { return Err("an action has no document".to_owned()) };
            let (index, id) = self.read_action(action)?;
            let struck = strike.filter(|strike| number % strike.one_in == 1 % strike.one_in);
            let (status, error) = match struck {
                Some(strike) => (strike.status, Some(quoting(strike.error, source))),
                None => self.create(&index, &id, source),
            };
            let mut item = json!({ "_id": id, "status": status });
            if let Some(error) = error {
                item["error"] = error;
            }
            if !head.has("filter_path") {
                item["_index"] = index.into();
                item["_shards"] = json!({ "total": 2, "successful": 1, "failed": 0 });
            }
            items.push(json!({ "create": item }));
        }
        Ok(if head.has("filter_path") { json!({ "items": items }) } else { json!({ "took": 3, "items": items }) })
    }

    /// Index and id of an action.
    fn read_action(&mut self, line: &[u8]) -> Result<(String, String), String> {
        let action: Value = serde_json::from_slice(line).map_err(|error| format!("Malformed action: {error}"))?;
        let create = action.get("create").and_then(Value::as_object).ok_or("the action is not `create`")?;
        if let Some(name) = create.keys().find(|name| !matches!(name.as_str(), "_index" | "_id" | "_type")) {
            return Err(format!("Action/metadata line contains an unknown parameter [{name}]"));
        }
        let text = |name: &str| create.get(name).and_then(Value::as_str).map(str::to_owned);
        let index = text("_index").ok_or("an action names no index")?;
        let id = text("_id").unwrap_or_else(|| {
            self.drawn += 1;
            format!("drawn-{}", self.drawn)
        });
        Ok((index, id))
    }

    /// Status and error of one document.
    fn create(&mut self, index: &str, id: &str, source: &[u8]) -> (u16, Option<Value>) {
        let Ok(Value::Object(document)) = serde_json::from_slice(source) else {
            let reason = format!("failed to parse, near {}", String::from_utf8_lossy(source));
            return (400, Some(json!({ "type": "mapper_parsing_exception", "reason": reason })));
        };
        if let Some(value) = document.get(NUMBER_FIELD).filter(|value| !value.is_i64()) {
            return (400, Some(does_not_fit(id, value)));
        }
        let name = (index.to_owned(), id.to_owned());
        if self.documents.contains_key(&name) {
            let reason = format!("[{id}]: version conflict, document already exists (current version [1])");
            return (409, Some(json!({ "type": "version_conflict_engine_exception", "reason": reason })));
        }
        self.documents.insert(name, Bytes::copy_from_slice(source));
        (201, None)
    }
}

/// What OpenSearch says of a value that does not fit, with the value in it, twice.
fn does_not_fit(id: &str, value: &Value) -> Value {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let reason = format!(
        "failed to parse field [{NUMBER_FIELD}] of type [long] in document with id '{id}'. \
         Preview of field's value: '{text}'"
    );
    let cause = json!({ "type": "illegal_argument_exception", "reason": format!("For input string: \"{text}\"") });
    json!({ "type": "mapper_parsing_exception", "reason": reason, "caused_by": cause })
}

/// An error with the document where the script wants it.
fn quoting(error: &Value, source: &[u8]) -> Value {
    let source = String::from_utf8_lossy(source);
    let mut error = error.clone();
    if let Some(Value::String(reason)) = error.get_mut("reason") {
        *reason = reason.replace("DOCUMENT", &source);
    }
    error
}

fn unpacked<'a>(head: &Head, body: &'a [u8]) -> Result<Cow<'a, [u8]>, String> {
    if head.header("content-encoding") != Some("gzip") {
        return Ok(Cow::Borrowed(body));
    }
    let mut unpacked = Vec::new();
    let read = flate2::read::GzDecoder::new(body).take(UNPACKED_BYTES_MAX).read_to_end(&mut unpacked);
    read.map_err(|error| format!("the request cannot be unpacked: {error}"))?;
    Ok(Cow::Owned(unpacked))
}
