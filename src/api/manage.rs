//! Looking at streams: `DescribeDeliveryStream` and `ListDeliveryStreams`, and why nothing else changes them yet.
//!
//! In: the body of a request, and the streams as they were declared. Out: what the service would say of a stream of
//! that kind. What the service has no words for is left out, never invented.

use std::borrow::Cow;

use hydrant_core::Timestamp;
use hydrant_core::compression::Compression;
use hydrant_sinks::{Encryption, StoreConfig};
use serde::{Deserialize, Serialize};

use super::Api;
use super::error::ServiceError;
use super::operation::Operation;
use super::violations::{Constraint, Violations};
use super::wire::parse;
use crate::config::spec::{Delimiter, Hints, ObjectsSpec, SinkSpec, StreamSpec, stream_arn};
use crate::streams::LiveStream;

/// A stream has one destination, and the service always calls it this.
const DESTINATION_ID: &str = "destinationId-000000000001";

/// Most entries that a list or a description may be asked for. Source: service API reference.
const LIMIT_MAX: i64 = 10_000;
/// How many names are listed when nobody says how many. Source: service API reference.
const LIST_DEFAULT: usize = 10;
/// The types of streams, in the order of the service's model. All of ours are of the first.
const STREAM_TYPES: [&str; 4] = ["DirectPut", "KinesisStreamAsSource", "MSKAsSource", "DatabaseAsSource"];

/// The answer to an operation that would change streams: they are declared in the server's own file.
pub(super) fn not_through_the_api(operation: Operation) -> ServiceError {
    ServiceError::InvalidArgument(format!(
        "{} is not supported: delivery streams are declared in the configuration file of this server. PutRecord, \
         PutRecordBatch, DescribeDeliveryStream and ListDeliveryStreams are supported.",
        operation.name()
    ))
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeInput<'a> {
    #[serde(borrow)]
    delivery_stream_name: Option<Cow<'a, str>>,
    limit: Option<i64>,
    #[serde(borrow)]
    exclusive_start_destination_id: Option<Cow<'a, str>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListInput<'a> {
    limit: Option<i64>,
    #[serde(borrow)]
    delivery_stream_type: Option<Cow<'a, str>>,
    #[serde(borrow)]
    exclusive_start_delivery_stream_name: Option<Cow<'a, str>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ListOutput<'a> {
    delivery_stream_names: Vec<&'a str>,
    has_more_delivery_streams: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DescribeOutput<'a> {
    delivery_stream_description: StreamDescription<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct StreamDescription<'a> {
    delivery_stream_name: &'a str,
    #[serde(rename = "DeliveryStreamARN")]
    delivery_stream_arn: String,
    delivery_stream_status: &'static str,
    delivery_stream_encryption_configuration: Status,
    delivery_stream_type: &'static str,
    version_id: String,
    create_timestamp: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_update_timestamp: Option<f64>,
    destinations: Vec<Destination<'a>>,
    has_more_destinations: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Status {
    status: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Destination<'a> {
    #[serde(rename = "DestinationId")]
    id: &'static str,
    #[serde(rename = "S3DestinationDescription", skip_serializing_if = "Option::is_none")]
    s3: Option<S3Description<'a>>,
    #[serde(rename = "ExtendedS3DestinationDescription", skip_serializing_if = "Option::is_none")]
    extended_s3: Option<ExtendedS3Description<'a>>,
}

/// What the older and the newer description of an S3 destination share.
#[derive(Clone, Serialize)]
#[serde(rename_all = "PascalCase")]
struct S3Description<'a> {
    #[serde(rename = "RoleARN")]
    role_arn: String,
    #[serde(rename = "BucketARN")]
    bucket_arn: String,
    prefix: &'a str,
    error_output_prefix: &'a str,
    buffering_hints: BufferingHints,
    #[serde(skip_serializing_if = "Option::is_none")]
    compression_format: Option<&'static str>,
    encryption_configuration: EncryptionConfiguration,
    cloud_watch_logging_options: Switch,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ExtendedS3Description<'a> {
    #[serde(flatten)]
    s3: S3Description<'a>,
    processing_configuration: ProcessingConfiguration,
    #[serde(rename = "S3BackupMode")]
    s3_backup_mode: &'static str,
    data_format_conversion_configuration: Switch,
}

#[derive(Clone, Copy, Serialize)]
struct BufferingHints {
    #[serde(rename = "SizeInMBs")]
    size_in_mbs: u64,
    #[serde(rename = "IntervalInSeconds")]
    interval_in_seconds: u64,
}

#[derive(Clone, Serialize)]
enum EncryptionConfiguration {
    #[serde(rename = "NoEncryptionConfig")]
    None(&'static str),
    #[serde(rename = "KMSEncryptionConfig")]
    Kms {
        #[serde(rename = "AWSKMSKeyARN")]
        key_arn: String,
    },
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "PascalCase")]
struct Switch {
    enabled: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct ProcessingConfiguration {
    enabled: bool,
    processors: Vec<Processor>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Processor {
    r#type: &'static str,
    parameters: Vec<Parameter>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Parameter {
    parameter_name: &'static str,
    parameter_value: &'static str,
}

impl Api {
    pub(super) fn describe(&self, body: &[u8]) -> Result<Vec<u8>, ServiceError> {
        let input: DescribeInput<'_> = parse(body)?;
        let mut violations = Violations::default();
        let name = violations.stream_name(input.delivery_stream_name.as_deref());
        violations.range("limit", input.limit, 1, LIMIT_MAX);
        let after = input.exclusive_start_destination_id.as_deref();
        if let Some(after) = after {
            violations.word("exclusiveStartDestinationId", after, 100, "[a-zA-Z0-9-]+", b"-");
        }
        violations.none()?;
        let stream = self.stream(&name)?;
        let past_the_only_one = after.is_some_and(|after| after >= DESTINATION_ID);
        let destinations = if past_the_only_one { Vec::new() } else { vec![self.destination(stream.spec())] };
        answer(&DescribeOutput { delivery_stream_description: self.description(stream, destinations) })
    }

    pub(super) fn list(&self, body: &[u8]) -> Result<Vec<u8>, ServiceError> {
        let input: ListInput<'_> = parse(body)?;
        let mut violations = Violations::default();
        violations.range("limit", input.limit, 1, LIMIT_MAX);
        let of_type = input.delivery_stream_type.as_deref();
        if of_type.is_some_and(|of_type| !STREAM_TYPES.contains(&of_type)) {
            violations.add("deliveryStreamType", Constraint::OneOf(&STREAM_TYPES.join(", ")));
        }
        let after = input.exclusive_start_delivery_stream_name.as_deref();
        if let Some(after) = after {
            violations.name("exclusiveStartDeliveryStreamName", after);
        }
        violations.none()?;
        let limit = input.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(LIST_DEFAULT);
        let of_our_type = of_type.is_none_or(|of_type| of_type == "DirectPut");
        let mut names = self.streams.list(after).filter(|_| of_our_type).map(|stream| stream.spec().name.as_str());
        let delivery_stream_names = names.by_ref().take(limit).collect();
        answer(&ListOutput { delivery_stream_names, has_more_delivery_streams: names.next().is_some() })
    }

    fn description<'a>(&self, stream: &'a LiveStream, destinations: Vec<Destination<'a>>) -> StreamDescription<'a> {
        let name = &stream.spec().name;
        let identity = stream.identity();
        StreamDescription {
            delivery_stream_name: name,
            delivery_stream_arn: stream_arn(&self.region, &self.account, name),
            // A stream whose destination is down still takes records, and the service has no word for that.
            delivery_stream_status: "ACTIVE",
            delivery_stream_encryption_configuration: Status { status: "DISABLED" },
            delivery_stream_type: "DirectPut",
            version_id: identity.version.to_string(),
            create_timestamp: epoch_seconds(identity.created_at),
            last_update_timestamp: identity.updated_at.map(epoch_seconds),
            destinations,
            has_more_destinations: false,
        }
    }

    /// Destinations that the service has no words for have an id only.
    fn destination<'a>(&self, spec: &'a StreamSpec) -> Destination<'a> {
        let nameless = Destination { id: DESTINATION_ID, s3: None, extended_s3: None };
        let SinkSpec::Objects(objects) = &spec.sink else { return nameless };
        let StoreConfig::S3(store) = &objects.store.config else { return nameless };
        let s3 = self.s3(spec, objects, &store.bucket);
        let extended_s3 = ExtendedS3Description {
            s3: s3.clone(),
            processing_configuration: processing(objects.delimiter),
            s3_backup_mode: "Disabled",
            data_format_conversion_configuration: Switch { enabled: false },
        };
        Destination { s3: Some(s3), extended_s3: Some(extended_s3), ..nameless }
    }

    fn s3<'a>(&self, spec: &'a StreamSpec, objects: &'a ObjectsSpec, bucket: &str) -> S3Description<'a> {
        S3Description {
            // Required by the model. Credentials of a store are the server's own affair, so the name is the server's.
            role_arn: format!("arn:aws:iam::{}:role/hydrant", self.account),
            bucket_arn: format!("arn:aws:s3:::{bucket}"),
            prefix: objects.prefix.as_str(),
            error_output_prefix: spec.dead_letter.error_prefix.as_str(),
            buffering_hints: hints(spec.hints),
            compression_format: compression_format(objects.compression),
            encryption_configuration: self.encryption(&objects.encryption),
            cloud_watch_logging_options: Switch { enabled: false },
        }
    }

    fn encryption(&self, encryption: &Encryption) -> EncryptionConfiguration {
        match encryption {
            // The service knows no SSE-S3: to it, the bucket's own keys are no encryption of the stream's.
            Encryption::StoreDefault | Encryption::SseS3 => EncryptionConfiguration::None("NoEncryption"),
            Encryption::SseKms { key } if key.starts_with("arn:") => {
                EncryptionConfiguration::Kms { key_arn: key.clone() }
            }
            Encryption::SseKms { key } => {
                let resource = if key.starts_with("alias/") { key.clone() } else { format!("key/{key}") };
                let key_arn = format!("arn:aws:kms:{}:{}:{resource}", self.region, self.account);
                EncryptionConfiguration::Kms { key_arn }
            }
        }
    }
}

/// Whole MiB, rounded up: the service has no smaller ones.
fn hints(hints: Hints) -> BufferingHints {
    BufferingHints { size_in_mbs: hints.size.get().div_ceil(1 << 20), interval_in_seconds: hints.interval.as_secs() }
}

const fn compression_format(compression: Compression) -> Option<&'static str> {
    match compression {
        Compression::None => Some("UNCOMPRESSED"),
        Compression::Gzip(_) => Some("GZIP"),
        Compression::Zstd(_) => None,
    }
}

/// The service puts a delimiter behind records by a processor, whose parameter is escaped.
fn processing(delimiter: Delimiter) -> ProcessingConfiguration {
    match delimiter {
        Delimiter::None => ProcessingConfiguration { enabled: false, processors: Vec::new() },
        Delimiter::Newline => ProcessingConfiguration {
            enabled: true,
            processors: vec![Processor {
                r#type: "AppendDelimiterToRecord",
                parameters: vec![Parameter { parameter_name: "Delimiter", parameter_value: "\\n" }],
            }],
        },
    }
}

/// Seconds with three decimals, as AWS JSON writes times.
#[expect(clippy::cast_precision_loss, reason = "milliseconds are exact in an f64 for 285,000 years")]
fn epoch_seconds(moment: Timestamp) -> f64 {
    moment.as_millis() as f64 / 1000.0
}

fn answer(output: &impl Serialize) -> Result<Vec<u8>, ServiceError> {
    serde_json::to_vec(output).map_err(|error| {
        tracing::error!(%error, "an answer could not be written");
        ServiceError::InternalFailure
    })
}
