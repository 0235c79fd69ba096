//! Errors of the wire: everything the service may say instead of an answer.
//!
//! In: a [`ServiceError`] from any operation. Out: status, code and text as clients of the service know them.
//! Never carries what only the operator should see: that goes to the log where the error is made.

use bytes::Bytes;
use http::header::{CONTENT_TYPE, DATE, HeaderValue};
use http::{HeaderName, Response, StatusCode};
use http_body_util::Full;
use hydrant_core::Timestamp;
use serde::Serialize;

/// The content type of every answer of an operation.
pub(super) const AWS_JSON: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.1");

const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// Why a request was refused. Nothing was stored, except perhaps after [`InternalFailure`](Self::InternalFailure).
///
/// The text of a variant is its message on the wire; where it repeats the service's own words, tools match on them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ServiceError {
    /// A rule that no single member breaks.
    #[error("{0}")]
    InvalidArgument(String),
    /// No such stream.
    #[error("Firehose {stream} under account {account} not found.")]
    ResourceNotFound {
        /// The name that was asked for.
        stream: String,
        /// The account it was looked for in.
        account: String,
    },
    /// Members that break a length, range, pattern, enum or required constraint.
    #[error("{0}")]
    Validation(String),
    /// The body is not the JSON of this operation.
    #[error("{0}")]
    Serialization(String),
    /// Come back later: the log is full, or too much is under way.
    #[error("Slow down.")]
    ServiceUnavailable,
    /// No operation of this service.
    #[error("{0}")]
    UnknownOperation(String),
    /// Nobody signed.
    #[error("Missing Authentication Token")]
    MissingAuthenticationToken,
    /// What was sent to sign with cannot be one of our signatures.
    #[error("{0}")]
    IncompleteSignature(String),
    /// The signature is for something else, or of another time.
    #[error("{0}")]
    InvalidSignature(String),
    /// The access key is not one of ours.
    #[error("The security token included in the request is invalid.")]
    UnrecognizedClient,
    /// More bytes than any request of the service has.
    #[error("Request body exceeds the limit of {limit} bytes.")]
    RequestEntityTooLarge {
        /// Most bytes of a body.
        limit: usize,
    },
    /// More header bytes than a request of the service needs.
    #[error("Request headers exceed the limit of {limit} bytes.")]
    RequestHeadersTooLarge {
        /// Most bytes of all header names and values.
        limit: usize,
    },
    /// The headers or the body did not come, or came too slowly.
    #[error("The request {0} did not arrive in time.")]
    RequestTimeout(&'static str),
    /// The body ended before it was complete.
    #[error("The request ended before it was complete.")]
    RequestAborted,
    /// No HTTP, or HTTP that another reader may take differently.
    #[error("{0}")]
    MalformedHttpRequest(&'static str),
    /// Our fault, and perhaps stored: the log says why.
    #[error("The request processing has failed because of an unknown error, exception or failure.")]
    InternalFailure,
}

#[derive(Serialize)]
struct Body<'a> {
    #[serde(rename = "__type")]
    code: &'a str,
    message: &'a str,
}

impl ServiceError {
    /// Status and code, side by side. Source: the service's API reference, its operations and its common errors;
    /// `MissingAuthenticationToken`, `InvalidSignature` and `IncompleteSignature` in the form in which AWS JSON
    /// services send them, with `Exception` behind.
    pub(super) const fn shape(&self) -> (StatusCode, &'static str) {
        match self {
            Self::InvalidArgument(_) => (StatusCode::BAD_REQUEST, "InvalidArgumentException"),
            Self::ResourceNotFound { .. } => (StatusCode::BAD_REQUEST, "ResourceNotFoundException"),
            Self::Validation(_) => (StatusCode::BAD_REQUEST, "ValidationException"),
            Self::Serialization(_) => (StatusCode::BAD_REQUEST, "SerializationException"),
            Self::ServiceUnavailable => (StatusCode::INTERNAL_SERVER_ERROR, "ServiceUnavailableException"),
            Self::UnknownOperation(_) => (StatusCode::NOT_FOUND, "UnknownOperationException"),
            Self::MissingAuthenticationToken => (StatusCode::FORBIDDEN, "MissingAuthenticationTokenException"),
            Self::IncompleteSignature(_) => (StatusCode::FORBIDDEN, "IncompleteSignatureException"),
            Self::InvalidSignature(_) => (StatusCode::FORBIDDEN, "InvalidSignatureException"),
            Self::UnrecognizedClient => (StatusCode::FORBIDDEN, "UnrecognizedClientException"),
            Self::RequestEntityTooLarge { .. } => (StatusCode::PAYLOAD_TOO_LARGE, "RequestEntityTooLargeException"),
            Self::RequestHeadersTooLarge { .. } => {
                (StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, "RequestHeaderFieldsTooLargeException")
            }
            Self::RequestTimeout(_) => (StatusCode::REQUEST_TIMEOUT, "RequestTimeoutException"),
            Self::RequestAborted => (StatusCode::BAD_REQUEST, "RequestAbortedException"),
            Self::MalformedHttpRequest(_) => (StatusCode::BAD_REQUEST, "MalformedHttpRequestException"),
            Self::InternalFailure => (StatusCode::INTERNAL_SERVER_ERROR, "InternalFailure"),
        }
    }

    /// Whether the rest of the body is worth being read before the answer is given, so that the connection can be
    /// used again. Not where the body, or its way here, is what is wrong.
    pub(super) const fn is_worth_reading_on(&self) -> bool {
        !matches!(
            self,
            Self::RequestTimeout(_)
                | Self::RequestAborted
                | Self::RequestHeadersTooLarge { .. }
                | Self::RequestEntityTooLarge { .. }
        )
    }

    /// The last answer of a connection as HTTP/1.1 writes it, for where no request was understood.
    pub(super) fn into_http1(self) -> Vec<u8> {
        let (status, code) = self.shape();
        let message = self.to_string();
        let body = serde_json::to_vec(&Body { code, message: &message }).unwrap_or_default();
        let head = format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/x-amz-json-1.1\r\nx-amzn-errortype: {code}\r\n\
             connection: close\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        [head.into_bytes(), body].concat()
    }

    /// The whole answer. `now` goes into a `Date` header where a client corrects its clock by it.
    pub(super) fn into_response(self, now: Timestamp) -> Response<Full<Bytes>> {
        let (status, code) = self.shape();
        let message = self.to_string();
        let body = serde_json::to_vec(&Body { code, message: &message }).unwrap_or_default();
        let mut response = Response::new(Full::new(Bytes::from(body)));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, AWS_JSON);
        headers.insert(ERROR_TYPE, HeaderValue::from_static(code));
        if status == StatusCode::FORBIDDEN
            && let Some(date) = http_date(now)
        {
            headers.insert(DATE, date);
        }
        response
    }
}

/// A moment as HTTP writes it, such as `Sun, 06 Nov 1994 08:49:37 GMT`. `None` beyond the year 9999.
fn http_date(moment: Timestamp) -> Option<HeaderValue> {
    let seconds = i64::try_from(moment.as_secs()).ok()?;
    let moment = jiff::Timestamp::from_second(seconds).ok()?;
    HeaderValue::try_from(moment.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()).ok()
}
