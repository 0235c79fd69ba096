//! Operations: the twelve that the service has, and how a request names one.

use http::HeaderMap;

use super::error::ServiceError;

const TARGET: &str = "x-amz-target";
const TARGET_PREFIX: &str = "Firehose_20150804.";

/// An operation of the service. Matched exhaustively, so that none is forgotten where it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Operation {
    /// Stores one record.
    PutRecord,
    /// Stores up to 500 records.
    PutRecordBatch,
    /// Tells what a stream is.
    DescribeDeliveryStream,
    /// Lists streams by name.
    ListDeliveryStreams,
    /// Makes a stream.
    CreateDeliveryStream,
    /// Removes a stream.
    DeleteDeliveryStream,
    /// Changes where a stream delivers.
    UpdateDestination,
    /// Adds tags.
    TagDeliveryStream,
    /// Removes tags.
    UntagDeliveryStream,
    /// Lists tags.
    ListTagsForDeliveryStream,
    /// Turns encryption of a stream's records on.
    StartDeliveryStreamEncryption,
    /// Turns it off.
    StopDeliveryStreamEncryption,
}

impl Operation {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::PutRecord,
        Self::PutRecordBatch,
        Self::DescribeDeliveryStream,
        Self::ListDeliveryStreams,
        Self::CreateDeliveryStream,
        Self::DeleteDeliveryStream,
        Self::UpdateDestination,
        Self::TagDeliveryStream,
        Self::UntagDeliveryStream,
        Self::ListTagsForDeliveryStream,
        Self::StartDeliveryStreamEncryption,
        Self::StopDeliveryStreamEncryption,
    ];

    /// Its name on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::PutRecord => "PutRecord",
            Self::PutRecordBatch => "PutRecordBatch",
            Self::DescribeDeliveryStream => "DescribeDeliveryStream",
            Self::ListDeliveryStreams => "ListDeliveryStreams",
            Self::CreateDeliveryStream => "CreateDeliveryStream",
            Self::DeleteDeliveryStream => "DeleteDeliveryStream",
            Self::UpdateDestination => "UpdateDestination",
            Self::TagDeliveryStream => "TagDeliveryStream",
            Self::UntagDeliveryStream => "UntagDeliveryStream",
            Self::ListTagsForDeliveryStream => "ListTagsForDeliveryStream",
            Self::StartDeliveryStreamEncryption => "StartDeliveryStreamEncryption",
            Self::StopDeliveryStreamEncryption => "StopDeliveryStreamEncryption",
        }
    }

    /// The operation that a request names in its one `X-Amz-Target` header.
    ///
    /// # Errors
    /// [`ServiceError::UnknownOperation`] without a target, with two, or with one of another service or version.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ServiceError> {
        let mut targets = headers.get_all(TARGET).iter();
        let target = match (targets.next(), targets.next()) {
            (None, _) => return Err(unknown("The request names no operation: the X-Amz-Target header is missing.")),
            (Some(_), Some(_)) => return Err(unknown("The request names two operations.")),
            (Some(target), None) => target.to_str().ok(),
        };
        let name = target.and_then(|target| target.strip_prefix(TARGET_PREFIX));
        Self::ALL
            .into_iter()
            .find(|operation| Some(operation.name()) == name)
            .ok_or_else(|| unknown("The requested operation is not one of Firehose_20150804."))
    }
}

fn unknown(message: &str) -> ServiceError {
    ServiceError::UnknownOperation(message.to_owned())
}
