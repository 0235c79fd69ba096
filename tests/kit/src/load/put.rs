//! The puts of the service's API on the wire: bodies, heads, and what an answer says of each record.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;

use crate::client::{Answer, Connection};
use crate::signature::{Signer, Unsigned, amz_date, sha256_hex};

/// How long an answer may take. A group commit takes milliseconds; this is for a machine that is busy with other things.
pub(super) const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// Where records are put, and as whom.
#[derive(Clone, Debug)]
pub struct Target {
    /// `http://host:port`.
    pub endpoint: String,
    /// The region requests are signed for.
    pub region: String,
    /// The caller's public key.
    pub access_key_id: String,
    /// The caller's secret.
    pub secret_access_key: String,
}

/// A put that can be sent any number of times.
#[derive(Clone, Debug)]
pub struct Put {
    operation: &'static str,
    body: Vec<u8>,
    body_sha256: String,
}

/// What an answer says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// One entry per record: stored or not.
    Answered(Vec<Entry>),
    /// Nothing was stored, for this reason.
    Refused(String),
    /// It may have been stored or not.
    Unknown(String),
}

/// What was said of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// It is durable.
    Stored,
    /// It was not taken: the server asks to slow down.
    Throttled,
    /// It may have been stored or not.
    Unknown(String),
}

impl Put {
    /// `PutRecordBatch` of these payloads.
    pub fn batch<'a>(stream: &str, payloads: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut body = format!(r#"{{"DeliveryStreamName":"{stream}","Records":["#).into_bytes();
        for (index, payload) in payloads.into_iter().enumerate() {
            body.extend_from_slice(if index == 0 { br#"{"Data":""# } else { br#",{"Data":""# });
            base64_simd::STANDARD.encode_append(payload, &mut body);
            body.extend_from_slice(br#""}"#);
        }
        body.extend_from_slice(b"]}");
        Self::of("PutRecordBatch", body)
    }

    /// `PutRecord` of this payload.
    pub fn single(stream: &str, payload: &[u8]) -> Self {
        let mut body = format!(r#"{{"DeliveryStreamName":"{stream}","Record":{{"Data":""#).into_bytes();
        base64_simd::STANDARD.encode_append(payload, &mut body);
        body.extend_from_slice(br#""}}"#);
        Self::of("PutRecord", body)
    }

    fn of(operation: &'static str, body: Vec<u8>) -> Self {
        let body_sha256 = sha256_hex(&body);
        Self { operation, body, body_sha256 }
    }

    /// Its body.
    pub fn body(&self) -> &[u8] {
        &self.body
    }

    /// Whether it speaks of a batch, and so its answer of each record.
    pub fn is_batch(&self) -> bool {
        self.operation == "PutRecordBatch"
    }
}

/// One connection to a server that takes puts.
#[derive(Debug)]
pub struct Producer {
    connection: Connection,
    signer: Signer,
    /// The second of the last request, and how it is written.
    date: (i64, String),
}

impl Producer {
    /// A producer for this target; nothing is opened yet.
    ///
    /// # Errors
    /// When the endpoint is not an address.
    pub fn new(target: &Target) -> io::Result<Self> {
        Ok(Self {
            connection: Connection::to(&target.endpoint, ANSWER_WITHIN)?,
            signer: Signer::new(&target.access_key_id, &target.secret_access_key, &target.region, "firehose"),
            date: (0, String::new()),
        })
    }

    /// Where it sends to.
    pub fn address(&self) -> SocketAddr {
        self.connection.address()
    }

    /// Opens the connection unless it is open.
    ///
    /// # Errors
    /// When nobody listens; then nothing was sent.
    pub fn open(&mut self) -> io::Result<()> {
        self.connection.open()
    }

    /// Sends a put and waits for its answer.
    ///
    /// # Errors
    /// When no answer came; the records may have been stored or not.
    pub fn send(&mut self, put: &Put) -> io::Result<Answer> {
        let head = self.head(put);
        self.connection.send(head.as_bytes(), &put.body)
    }

    /// The head of the request, signed now.
    pub fn head(&mut self, put: &Put) -> String {
        let now = Timestamp::now();
        if self.date.0 != now.as_second() {
            self.date = (now.as_second(), amz_date(now));
        }
        let date = &self.date.1;
        let target = format!("Firehose_20150804.{}", put.operation);
        let headers = [
            ("content-type", "application/x-amz-json-1.1"),
            ("host", self.connection.host()),
            ("x-amz-date", date),
            ("x-amz-target", target.as_str()),
        ];
        let unsigned =
            Unsigned { method: "POST", path: "/", query: "", headers: &headers, body_sha256: &put.body_sha256 };
        let authorization = self.signer.authorization(&unsigned, date);
        let mut head = String::with_capacity(600);
        head.push_str("POST / HTTP/1.1\r\n");
        let length = put.body.len().to_string();
        for (name, value) in
            headers.into_iter().chain([("authorization", &*authorization), ("content-length", &length)])
        {
            for part in [name, ": ", value, "\r\n"] {
                head.push_str(part);
            }
        }
        head.push_str("\r\n");
        head
    }
}

#[derive(Deserialize)]
struct BatchAnswer {
    #[serde(rename = "FailedPutCount")]
    failed: usize,
    #[serde(rename = "RequestResponses")]
    entries: Vec<BatchEntry>,
}

#[derive(Deserialize)]
struct BatchEntry {
    #[serde(rename = "RecordId")]
    record_id: Option<String>,
    #[serde(rename = "ErrorCode")]
    error_code: Option<String>,
}

#[derive(Deserialize)]
struct SingleAnswer {
    #[serde(rename = "RecordId")]
    record_id: String,
}

#[derive(Deserialize)]
struct ErrorAnswer {
    #[serde(rename = "__type")]
    code: String,
}

/// What an answer to a put of `records` records says. An answer that breaks the API's own rules says nothing: it is
/// unknown, and the reason tells what was wrong.
pub fn outcome(put: &Put, records: usize, answer: &Answer) -> Outcome {
    if answer.status != 200 {
        return refusal(answer);
    }
    if !put.is_batch() {
        return match serde_json::from_slice::<SingleAnswer>(&answer.body) {
            Ok(single) if !single.record_id.is_empty() => Outcome::Answered(vec![Entry::Stored]),
            _ => Outcome::Unknown("200 without a RecordId".to_owned()),
        };
    }
    let Ok(batch) = serde_json::from_slice::<BatchAnswer>(&answer.body) else {
        return Outcome::Unknown("200 with an unreadable body".to_owned());
    };
    let entries: Vec<Entry> = batch.entries.iter().map(entry).collect();
    let failed = entries.iter().filter(|entry| **entry != Entry::Stored).count();
    if entries.len() != records || failed != batch.failed {
        return Outcome::Unknown(format!(
            "{} entries and FailedPutCount {} for {records}",
            entries.len(),
            batch.failed
        ));
    }
    Outcome::Answered(entries)
}

fn entry(entry: &BatchEntry) -> Entry {
    match (&entry.record_id, entry.error_code.as_deref()) {
        (Some(id), None) if !id.is_empty() => Entry::Stored,
        (None, Some("ServiceUnavailableException")) => Entry::Throttled,
        (None, Some(code)) => Entry::Unknown(code.to_owned()),
        _ => Entry::Unknown("entry with neither or both of RecordId and ErrorCode".to_owned()),
    }
}

/// A typed refusal stored nothing. An untyped one and `InternalFailure` leave it open.
fn refusal(answer: &Answer) -> Outcome {
    let code = serde_json::from_slice::<ErrorAnswer>(&answer.body).map(|error| error.code).unwrap_or_default();
    let text = format!("{} {code}", answer.status);
    match (answer.status, code.as_str()) {
        (400..500, code) if !code.is_empty() => Outcome::Refused(text),
        (500, "ServiceUnavailableException") => Outcome::Refused(text),
        _ => Outcome::Unknown(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, body: &str) -> Answer {
        Answer { status, headers: Vec::new(), body: body.as_bytes().to_vec() }
    }

    #[test]
    fn bodies_are_what_the_service_reads() {
        let batch = Put::batch("web", [&b"a"[..], b"", b"\xff\x00"]);
        assert_eq!(
            String::from_utf8(batch.body).unwrap(),
            r#"{"DeliveryStreamName":"web","Records":[{"Data":"YQ=="},{"Data":""},{"Data":"/wA="}]}"#
        );
        let single = Put::single("web", b"a");
        assert_eq!(String::from_utf8(single.body).unwrap(), r#"{"DeliveryStreamName":"web","Record":{"Data":"YQ=="}}"#);
    }

    #[test]
    fn an_answer_speaks_for_each_record_or_for_none() {
        let put = Put::batch("web", [&b"a"[..], b"b"]);
        let check = |status, body: &str, want: Outcome| assert_eq!(outcome(&put, 2, &answer(status, body)), want);
        check(
            200,
            r#"{"Encrypted":false,"FailedPutCount":1,"RequestResponses":[{"RecordId":"x"},{"ErrorCode":"ServiceUnavailableException","ErrorMessage":"Slow down."}]}"#,
            Outcome::Answered(vec![Entry::Stored, Entry::Throttled]),
        );
        check(
            200,
            r#"{"FailedPutCount":0,"RequestResponses":[{"RecordId":"x"}]}"#,
            Outcome::Unknown("1 entries and FailedPutCount 0 for 2".to_owned()),
        );
        check(200, "", Outcome::Unknown("200 with an unreadable body".to_owned()));
        check(400, r#"{"__type":"ValidationException"}"#, Outcome::Refused("400 ValidationException".to_owned()));
        check(
            500,
            r#"{"__type":"ServiceUnavailableException"}"#,
            Outcome::Refused("500 ServiceUnavailableException".to_owned()),
        );
        check(500, r#"{"__type":"InternalFailure"}"#, Outcome::Unknown("500 InternalFailure".to_owned()));
        check(503, "", Outcome::Unknown("503 ".to_owned()));
    }
}
