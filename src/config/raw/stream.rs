//! A stream: when its buffers are sealed, how long it tries, where its records go, and where those that cannot go there.

use std::borrow::Cow;

use hydrant_core::duration::TimeSpan;
use hydrant_core::problem::{DocPath, Problems};
use hydrant_core::secret::Secrets;
use hydrant_core::{ByteSize, Limits};
use hydrant_sinks::{Encryption, ObjectOptions, Origin, SinkConfig};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::super::defaults;
use super::super::definition::Definition;
use super::super::spec::{DeadLetterSpec, Hints, ObjectsSpec, PiecesSpec, RetryFor, SinkSpec, StoreSpec, StreamSpec};
use super::{Stores, check_name};
use crate::encode::name::{ErrorPrefix, ErrorType, Prefix, PrefixError};

/// A delivery stream.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "Stream")]
pub(in super::super) struct RawStream {
    /// When a buffer is sealed: at this size or this age, whichever comes first. Default: 5MiB, 300s; less if the sink
    /// takes less in a request.
    hints: Option<RawHints>,
    /// How long a batch is tried before it goes to the dead letters: `forever`, or a length of time. 0 is one attempt.
    #[serde(default)]
    retry_for: RawRetryFor,
    /// Where its records go, and as what. Missing only where it was wrong, which was told when the document was read.
    #[schemars(required, description = "Where its records go, and as what.")]
    sink: Option<SinkConfig>,
    /// Where refused records and undeliverable objects go. Default: the sink's own store; to be given for a sink
    /// that has none.
    dead_letter: Option<RawDeadLetter>,
}

/// Size and age at which a buffer is sealed, whichever is reached first.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "Hints")]
pub(in super::super) struct RawHints {
    /// Bytes before compression, 1MiB to 128MiB. Default: 5MiB.
    size: Option<ByteSize>,
    /// Age of the oldest record, 0 to 900s; 0 seals at once. Default: 300s, for dead letters 60s.
    interval: Option<TimeSpan>,
}

/// Where refused records and undeliverable objects go.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[schemars(rename = "DeadLetter")]
pub(in super::super) struct RawDeadLetter {
    /// The name of a store, as declared under `stores`. Default: the sink's own.
    store: Option<String>,
    /// What their keys start with; holds `!{firehose:error-output-type}` if it holds any expression. Without
    /// expressions, the error type and yyyy/MM/dd/HH/ follow it. Empty in the sink's own store: the sink's prefix.
    #[serde(default)]
    error_prefix: String,
    /// When a buffer of dead letters is sealed. Default: 5MiB, 60s.
    hints: Option<RawHints>,
}

/// `forever` or a length of time.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct RawRetryFor(RetryFor);

impl RawStream {
    pub(super) fn validate(
        self,
        name: String,
        at: &DocPath,
        stores: &Stores<'_>,
        secrets: &dyn Secrets,
        problems: &mut Problems,
    ) -> Option<StreamSpec> {
        check_name(&name, "stream", at, problems);
        let retry_for = self.retry_for.validate(at.field("retry_for"), problems);
        let declared = self.sink.as_ref();
        let sink = declared.and_then(|declared| sink(declared, &at.field("sink"), stores, secrets, problems));
        let limits = sink.as_ref().and_then(|(_, limits)| *limits);
        let hints = self.hints.unwrap_or_default();
        let hints = hints.within(&at.field("hints"), defaults::HINTS, limits, problems);
        let dead_letter = self.dead_letter.unwrap_or_default();
        let dead_letter = dead_letter.validate(
            &at.field("dead_letter"),
            declared,
            sink.as_ref().map(|(sink, _)| sink),
            stores,
            problems,
        );
        let (hints, retry_for, (sink, _), dead_letter) = (hints?, retry_for?, sink?, dead_letter?);
        let store = match &sink {
            SinkSpec::Objects(objects) => Some(&objects.store),
            SinkSpec::Pieces(_) => None,
        };
        let definition = Definition { hints, retry_for, sink: declared?, store, dead_letter: &dead_letter };
        let definition = definition.to_string();
        Some(StreamSpec { name, hints, retry_for, sink, dead_letter, definition })
    }
}

/// What a sink is, and what it takes at once if that bounds the hints.
fn sink(
    sink: &SinkConfig,
    at: &DocPath,
    stores: &Stores<'_>,
    secrets: &dyn Secrets,
    problems: &mut Problems,
) -> Option<(SinkSpec, Option<Limits>)> {
    let mut own = Problems::default();
    sink.validate(at, secrets, &mut own);
    let is_sound = own.is_empty();
    problems.append(own);
    if let Some(options) = sink.objects() {
        return objects(sink, options, at, stores, problems).map(|objects| (SinkSpec::Objects(objects), None));
    }
    // Only the sink itself knows what it takes. Making it costs nothing and connects to nothing.
    let made = is_sound.then(|| sink.build(Origin::default(), secrets))?;
    let made = made.map_err(|why| problems.add(at.field(sink.kind()), why)).ok()??;
    let error_type = ErrorType::Refused(made.error_type());
    let pieces = PiecesSpec { kind: sink.kind(), config: sink.clone(), error_type };
    Some((SinkSpec::Pieces(pieces), Some(made.limits())))
}

/// What a sink says, together with the store that it names.
fn objects(
    sink: &SinkConfig,
    options: ObjectOptions<'_>,
    at: &DocPath,
    stores: &Stores<'_>,
    problems: &mut Problems,
) -> Option<ObjectsSpec> {
    let kind = sink.kind();
    let at = at.field(kind);
    let prefix = Prefix::parse(options.prefix);
    let prefix = prefix.map_err(|error| add_prefix_problem(at.field("prefix"), &error, problems)).ok();
    let store = stores.get(options.store, &at.field("store"), problems)?;
    if store.config.kind() != kind {
        problems.add_with_hint(
            at.field("store"),
            format!("store `{}` is of kind `{}`, not `{kind}`", store.name, store.config.kind()),
            format!("write `{}:` instead of `{kind}:`, or name another store", store.config.kind()),
        );
        return None;
    }
    if store.config.has_customer_key() && sink.encryption() != Encryption::StoreDefault {
        problems.add_with_hint(
            at.field("sse"),
            format!("store `{}` encrypts with a customer key, so nothing else can be asked for", store.name),
            "leave one of the two out",
        );
        return None;
    }
    Some(ObjectsSpec {
        kind,
        store,
        prefix: prefix?,
        compression: options.compression,
        delimiter: options.delimiter,
        encryption: sink.encryption(),
    })
}

impl RawDeadLetter {
    /// `sink` is missing when it has problems of its own; what depends on it is then left out.
    fn validate(
        self,
        at: &DocPath,
        declared: Option<&SinkConfig>,
        sink: Option<&SinkSpec>,
        stores: &Stores<'_>,
        problems: &mut Problems,
    ) -> Option<DeadLetterSpec> {
        if let Some(declared) = declared.filter(|sink| sink.objects().is_none() && self.store.is_none()) {
            problems.add_with_hint(
                at.field("store"),
                format!("a sink of kind `{}` has no store for the records that it refuses", declared.kind()),
                "name an entry of stores, as in dead_letter: { store: NAME }",
            );
        }
        let (sink, error_type) = match sink {
            Some(SinkSpec::Objects(objects)) => (Some(objects), ErrorType::DeliveryFailed),
            Some(SinkSpec::Pieces(pieces)) => (None, pieces.error_type),
            None => (None, ErrorType::DeliveryFailed),
        };
        let hints = self.hints.unwrap_or_default();
        let hints = hints.validate(&at.field("hints"), defaults::DEAD_LETTER_HINTS, problems);
        let named = self.store.map(|name| stores.get(&name, &at.field("store"), problems));
        let elsewhere = matches!((&named, sink), (Some(Some(store)), Some(sink)) if store.name != sink.store.name);
        let error_prefix = match sink {
            Some(sink) if !elsewhere => ErrorPrefix::beside(&sink.prefix, Some(&self.error_prefix)),
            _ => ErrorPrefix::parse(&self.error_prefix),
        };
        let error_prefix = error_prefix.and_then(|prefix| prefix.check(error_type).map(|()| prefix));
        let error_prefix =
            error_prefix.map_err(|error| add_prefix_problem(at.field("error_prefix"), &error, problems)).ok();
        let store: Option<StoreSpec> = match named {
            Some(store) => store,
            None => sink.map(|sink| sink.store.clone()),
        };
        Some(DeadLetterSpec { store: store?, error_prefix: error_prefix?, hints: hints? })
    }
}

/// The texts are the service's own, so that they can be looked up; the hint says what they mean here.
fn add_prefix_problem(at: DocPath, error: &PrefixError, problems: &mut Problems) {
    let hint = match error {
        PrefixError::ErrorPrefixMissing => {
            let example = "errors/!{firehose:error-output-type}/";
            Some(format!("in the sink's own store dead letters need a prefix of their own, such as {example}"))
        }
        PrefixError::ErrorTypeMissing => {
            Some("such as errors/!{firehose:error-output-type}/!{timestamp:yyyy/MM/dd}/".to_owned())
        }
        _ => error.hint(),
    };
    let usual = || "expressions are !{timestamp:PATTERN}, such as logs/!{timestamp:yyyy/MM/dd/HH}/".to_owned();
    problems.add_with_hint(at, error.to_string(), hint.unwrap_or_else(usual));
}

impl RawHints {
    /// The hints of a stream whose sink takes at most `limits` in a request.
    fn within(self, at: &DocPath, defaults: Hints, limits: Option<Limits>, problems: &mut Problems) -> Option<Hints> {
        let Some(most) = limits.map(|limits| limits.body_bytes_max) else {
            return self.validate(at, defaults, problems);
        };
        if let Some(size) = self.size.filter(|size| *size > most) {
            problems.add_with_hint(
                at.field("size"),
                format!("{size} is more than the sink takes in a request"),
                format!("at most {most}"),
            );
            return None;
        }
        let hints = self.validate(at, defaults, problems)?;
        Some(Hints { size: hints.size.min(most), ..hints })
    }

    fn validate(self, at: &DocPath, defaults: Hints, problems: &mut Problems) -> Option<Hints> {
        let (shortest, longest) = (*defaults::INTERVAL_RANGE.start(), *defaults::INTERVAL_RANGE.end());
        let size = problems.range(at.field("size"), self.size.unwrap_or(defaults.size), defaults::SIZE_RANGE);
        let interval = self.interval.unwrap_or(TimeSpan(defaults.interval));
        let interval = problems.range(at.field("interval"), interval, TimeSpan(shortest)..=TimeSpan(longest));
        Some(Hints { size: size?, interval: interval?.0 })
    }
}

impl RawRetryFor {
    fn validate(self, at: DocPath, problems: &mut Problems) -> Option<RetryFor> {
        match self.0 {
            RetryFor::AtMost(time) if !defaults::RETRY_FOR_RANGE.contains(&time) => {
                problems.add_with_hint(at, format!("{} is more than a year", TimeSpan(time)), "write `forever`");
                None
            }
            retry_for => Some(retry_for),
        }
    }
}

impl Default for RawRetryFor {
    /// An outage may last longer than any number that would stand here; the outbox bounds what it costs.
    fn default() -> Self {
        Self(RetryFor::Forever)
    }
}

impl<'de> Deserialize<'de> for RawRetryFor {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "expected is `forever` or a duration such as 0, 90s, 2h or 7d")]
        enum Text {
            Number(u64),
            Words(String),
        }
        let words = match Text::deserialize(deserializer)? {
            Text::Number(number) => number.to_string(),
            Text::Words(words) => words,
        };
        if words == FOREVER {
            return Ok(Self(RetryFor::Forever));
        }
        let time: TimeSpan = words.parse().map_err(|_| {
            serde::de::Error::custom(format!("`{words}` is not a duration, and not `{FOREVER}`; {DURATIONS}"))
        })?;
        Ok(Self(RetryFor::AtMost(time.0)))
    }
}

const FOREVER: &str = "forever";

/// How a length of time is written.
const DURATIONS: &str = "write 0, or a number with a unit, such as 90s, 2h or 7d";

impl Serialize for RawRetryFor {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            RetryFor::Forever => serializer.serialize_str(FOREVER),
            RetryFor::AtMost(time) => TimeSpan(time).serialize(serializer),
        }
    }
}

impl JsonSchema for RawRetryFor {
    fn schema_name() -> Cow<'static, str> {
        "RetryFor".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": FOREVER }, generator.subschema_for::<TimeSpan>()] })
    }
}
