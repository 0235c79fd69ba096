//! The answer: what became of each document.
//!
//! In: what came back, which may be anything. Out: a verdict for each document that was sent, or a fault for all of them.
//! An answer counts only if it is one of `_bulk` to exactly this request: as many items as documents, in their order,
//! under their ids. Whatever else it is, what became of the request is not known.
//!
//! Reads ids, statuses and errors, borrows them, and gives up at the first thing that does not fit; holds no more than
//! a verdict for each document.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use http::{Response, header};
use hydrant_core::{BatchId, Fault, FaultCode, Piece, Verdict};
use hydrant_outbound::SendError;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::reason;
use super::request::{id_prefix, write_ordinal};
use crate::config::DocumentId;

/// What an answer without any item may have.
const ANSWER_BYTES: usize = 64 << 10;

/// What an item may have. Some 80 with what we ask for, 300 with all that old servers say, a few hundred more with an
/// error; see also [`answer_bytes_max`].
const ITEM_BYTES: usize = 1 << 10;

/// How often an item may quote its document: an error and its cause do, and old servers repeat one of them.
const QUOTED_TIMES: usize = 3;

/// Most bytes of an answer. An error may quote the value it is about, whole, and so all of them what was sent.
pub(crate) fn answer_bytes_max(sent: &[(u32, Piece)]) -> usize {
    let records: usize = sent.iter().map(|(_, piece)| piece.data.len()).sum();
    ANSWER_BYTES + sent.len() * ITEM_BYTES + QUOTED_TIMES * records
}

/// What an answer says of the documents that were sent, in their order.
///
/// # Errors
/// What is to be said of all of them instead.
pub(crate) fn verdicts(
    answer: &Response<Bytes>,
    batch: BatchId,
    sent: &[(u32, Piece)],
    document_id: DocumentId,
) -> Result<Vec<(u32, Verdict)>, Fault> {
    if answer.status().as_u16() != 200 {
        return Err(fault_of(answer));
    }
    let request = Request { prefix: id_prefix(batch), sent, document_id };
    let mut json = serde_json::Deserializer::from_slice(answer.body());
    let verdicts = Whole(&request).deserialize(&mut json).and_then(|verdicts| json.end().map(|()| verdicts));
    // The reason may quote what came back, and where it stands says enough.
    verdicts.map_err(|error| {
        let place = format!("line {} column {}", error.line(), error.column());
        Fault::new(FaultCode::Protocol, format!("the answer does not fit the request from {place} on"))
    })
}

/// What an answer says that is about the request as a whole.
pub(super) fn fault_of(answer: &Response<Bytes>) -> Fault {
    let status = answer.status().as_u16();
    let refusal = serde_json::from_slice::<Refusal<'_>>(answer.body()).ok();
    let kind = refusal.and_then(|refusal| refusal.error).and_then(|error| reason::kind(&error.kind));
    let code = kind.as_deref().and_then(|kind| for_operators(status, kind, "")).unwrap_or_else(|| by_status(status));
    let mut message = format!("the cluster answered {status}");
    if let Some(kind) = kind {
        message.push(' ');
        message.push_str(&kind);
    }
    message.push_str(match status {
        200..=299 => ", which is no answer to a bulk request",
        413 => "; raise its limit or that of a proxy before it, or lower body_max",
        _ => "",
    });
    let retry_after = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
    Fault { code, message, retry_after: retry_after.map(Duration::from_secs) }
}

/// Why there is no answer.
pub(crate) fn unanswered(error: &SendError) -> Fault {
    let code = match error {
        SendError::Unreachable(_) => FaultCode::Unreachable,
        SendError::TimedOut(_) => FaultCode::TimedOut,
        SendError::Interrupted => FaultCode::Interrupted,
        SendError::Malformed | SendError::AnswerTooLong(_) => FaultCode::Protocol,
        SendError::Unreadable(_) => FaultCode::Damaged,
        SendError::Invalid(_) => FaultCode::Internal,
    };
    Fault::new(code, error.to_string())
}

/// What was asked, which an answer must fit.
struct Request<'a> {
    prefix: String,
    sent: &'a [(u32, Piece)],
    document_id: DocumentId,
}

/// `{"error":…}`, instead of what was asked for.
#[derive(Deserialize)]
struct Refusal<'a> {
    #[serde(borrow, default)]
    error: Option<Cause<'a>>,
}

/// An error: an object since Elasticsearch 2, one text before.
struct Cause<'a> {
    kind: Cow<'a, str>,
    reason: Cow<'a, str>,
    /// The reason of the error that caused it.
    deeper: Cow<'a, str>,
}

/// The error that caused another.
#[derive(Default, Deserialize)]
struct Deeper<'a> {
    #[serde(borrow, default)]
    reason: Option<Text<'a>>,
}

/// A text that lies in the answer, if it has no escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Cause<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl<'de> Visitor<'de> for Either {
            type Value = Cause<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an error")
            }

            /// `MapperParsingException[failed to parse [age]]; nested: …`
            fn visit_str<E>(self, text: &str) -> Result<Cause<'de>, E> {
                let (class, rest) = text.split_once('[').unwrap_or((text, ""));
                let (why, _) = rest.split_once("]; nested").unwrap_or((rest.trim_end_matches(']'), ""));
                let (kind, reason) = (reason::snake_case(class).into(), why.to_owned().into());
                Ok(Cause { kind, reason, deeper: Cow::default() })
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Cause<'de>, A::Error> {
                let mut cause = Cause { kind: Cow::default(), reason: Cow::default(), deeper: Cow::default() };
                let text = |said: Option<Text<'de>>| said.map(|Text(text)| text).unwrap_or_default();
                while let Some(Text(name)) = map.next_key()? {
                    match &*name {
                        "type" => cause.kind = text(map.next_value()?),
                        "reason" => cause.reason = text(map.next_value()?),
                        "caused_by" => {
                            cause.deeper = text(map.next_value::<Option<Deeper<'de>>>()?.unwrap_or_default().reason);
                        }
                        _ => drop(map.next_value::<IgnoredAny>()?),
                    }
                }
                Ok(cause)
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// One item: `{"create":{"_id":…,"status":…,"error":…}}`.
#[derive(Deserialize)]
struct Item<'a> {
    #[serde(borrow)]
    create: Outcome<'a>,
}

#[derive(Deserialize)]
struct Outcome<'a> {
    #[serde(borrow, default, rename = "_id")]
    id: Option<Text<'a>>,
    status: u16,
    #[serde(borrow, default)]
    error: Option<Cause<'a>>,
}

/// Reads the answer as a whole.
struct Whole<'a>(&'a Request<'a>);

impl<'de> DeserializeSeed<'de> for Whole<'_> {
    type Value = Vec<(u32, Verdict)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Whole<'_> {
    type Value = Vec<(u32, Verdict)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an answer to a bulk request")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut verdicts = None;
        while let Some(Text(name)) = map.next_key()? {
            if name != "items" {
                map.next_value::<IgnoredAny>()?;
            } else if verdicts.replace(map.next_value_seed(Items(self.0))?).is_some() {
                return Err(A::Error::duplicate_field("items"));
            }
        }
        verdicts.ok_or_else(|| A::Error::missing_field("items"))
    }
}

/// Reads the items.
struct Items<'a>(&'a Request<'a>);

impl<'de> DeserializeSeed<'de> for Items<'_> {
    type Value = Vec<(u32, Verdict)>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Items<'_> {
    type Value = Vec<(u32, Verdict)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} items", self.0.sent.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Self::Value, A::Error> {
        let Request { prefix, sent, document_id } = self.0;
        let mut verdicts = Vec::with_capacity(sent.len());
        let mut number = Vec::new();
        for (ordinal, piece) in *sent {
            let Some(Item { create: outcome }) = items.next_element()? else {
                return Err(A::Error::custom("items are missing"));
            };
            if *document_id == DocumentId::Stable {
                number.clear();
                write_ordinal(*ordinal, &mut number);
                let id = outcome.id.as_ref().and_then(|Text(id)| id.strip_prefix(prefix.as_str()));
                if id.is_none_or(|id| id.as_bytes() != number) {
                    return Err(A::Error::custom("an item has another id"));
                }
            }
            verdicts.push((*ordinal, outcome.verdict(&piece.data, *document_id)));
        }
        if items.next_element::<IgnoredAny>()?.is_some() {
            return Err(A::Error::custom("there are more items than documents"));
        }
        Ok(verdicts)
    }
}

impl Outcome<'_> {
    fn verdict(&self, record: &[u8], document_id: DocumentId) -> Verdict {
        let Some(cause) = &self.error else {
            return if matches!(self.status, 200..=299) {
                Verdict::Delivered
            } else {
                Verdict::Retry(Fault::new(by_status(self.status), format!("the cluster answered {}", self.status)))
            };
        };
        let Cause { kind, reason: why, deeper } = cause;
        // Somebody has made a document with this id, and nobody but an earlier attempt knows it.
        let is_there = matches!(&**kind, "version_conflict_engine_exception" | "document_already_exists_exception");
        if self.status == 409 && is_there && document_id == DocumentId::Stable {
            return Verdict::Delivered;
        }
        let kind = reason::kind(kind);
        let told = reason::told_with_cause(why, deeper, record);
        let message = match (&kind, told.is_empty()) {
            (Some(kind), false) => format!("{} {kind}: {told}", self.status),
            (Some(kind), true) => format!("{} {kind}", self.status),
            (None, _) => self.status.to_string(),
        };
        let kind = kind.as_deref().unwrap_or_default();
        match for_operators(self.status, kind, why) {
            Some(code) => Verdict::Retry(Fault::new(code, message)),
            None if self.status == 400 && is_of_the_record(kind) => {
                Verdict::Refused(Fault::new(FaultCode::Invalid, message))
            }
            None if self.status == 400 => Verdict::Retry(Fault::new(FaultCode::Protocol, message)),
            None => Verdict::Retry(Fault::new(by_status(self.status), message)),
        }
    }
}

/// Errors that say by their kind what has to be mended, whatever their status. Source: the exceptions of OpenSearch 2
/// and Elasticsearch 8 that a bulk action can meet.
fn for_operators(status: u16, kind: &str, why: &str) -> Option<FaultCode> {
    Some(match kind {
        // The disk's flood stage makes indices read-only.
        "cluster_block_exception" if why.contains("read-only / allow delete") || why.contains("disk usage") => {
            FaultCode::Full
        }
        "cluster_block_exception" if status >= 500 => FaultCode::Unavailable,
        "security_exception" if status == 401 => FaultCode::Unauthenticated,
        "security_exception" | "cluster_block_exception" | "index_closed_exception" => FaultCode::Forbidden,
        "index_not_found_exception" | "type_missing_exception" => FaultCode::NotFound,
        // More shards than the cluster may have, as each new index brings some, or more documents than a shard can have.
        "validation_exception" | "illegal_argument_exception"
            if OF_A_FULL_CLUSTER.iter().any(|it| why.contains(it)) =>
        {
            FaultCode::Full
        }
        "invalid_index_name_exception"
        | "invalid_type_name_exception"
        | "routing_missing_exception"
        | "validation_exception"
        | "action_request_validation_exception" => FaultCode::Invalid,
        "illegal_argument_exception" if OF_THE_INDEX.iter().any(|words| why.contains(words)) => FaultCode::Invalid,
        _ if kind.ends_with("rejected_execution_exception") || kind == "circuit_breaking_exception" => {
            FaultCode::Throttled
        }
        _ => return None,
    })
}

/// What an illegal argument that is no fault of the record says. Source: messages of `TransportBulkAction`,
/// `IndexNameExpressionResolver`, `IngestService`, `MapperService` and `OpenSearch` Serverless.
const OF_THE_INDEX: &[&str] = &[
    "no write index is defined for alias",
    "has more than one ind", // `index` or `indices`, by version
    "is not allowed in bulk",
    "op_type of create are allowed in data streams",
    "pipeline with id [",
    "final mapping would have more than 1 type",
    "ocument ID is not supported",
];

/// What an error says that only more room in the cluster, or another index, mends. Source: messages of
/// `ShardLimitValidator` and `InternalEngine`.
const OF_A_FULL_CLUSTER: &[&str] = &["total shards, but this", "shards open", "Number of documents in the"];

/// Errors of an item with status 400 that are the record's: it does not fit the index. Those of other kinds are tried
/// again: a stream that waits is seen, and a record in the dead letters that nobody expected there is not.
fn is_of_the_record(kind: &str) -> bool {
    const KINDS: &[&str] = &[
        "illegal_argument_exception",
        "input_coercion_exception",
        "mapper_exception",
        "max_bytes_length_exceeded_exception",
        "not_x_content_exception",
        "number_format_exception",
        "stream_constraints_exception",
    ];
    const ENDINGS: &[&str] = &["parse_exception", "parsing_exception", "mapping_exception"];
    KINDS.contains(&kind) || ENDINGS.iter().any(|ending| kind.ends_with(ending))
}

fn by_status(status: u16) -> FaultCode {
    match status {
        // A redirect is not followed: the cluster is elsewhere, and the operator should know.
        300..=399 | 404 => FaultCode::NotFound,
        // Said of a request, it is about what we were told to send: an id, a type, an index in each line.
        400 => FaultCode::Invalid,
        401 => FaultCode::Unauthenticated,
        403 => FaultCode::Forbidden,
        408 => FaultCode::TimedOut,
        409 => FaultCode::Conflict,
        413 => FaultCode::TooLarge,
        429 => FaultCode::Throttled,
        507 => FaultCode::Full,
        500..=599 => FaultCode::Unavailable,
        _ => FaultCode::Protocol,
    }
}
