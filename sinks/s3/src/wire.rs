//! What a store's answer means: status, error code and a few headers in, a judgement out. Pure.
//!
//! Everything here that an operator can mend is to be tried again; only a fault of the object itself is final. Texts
//! hold statuses, codes and request ids, never the store's own sentence: that one quotes keys and access key ids.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Response, header};
use hydrant_core::{Fault, FaultCode};
use hydrant_outbound::SendError;

use crate::transport::Outcome;

/// Longest key in bytes. Source: Amazon S3 User Guide, "Naming Amazon S3 objects".
const KEY_BYTES_MAX: usize = 1024;

/// How much of an error document is searched for its code. Codes come first; S3's documents have some 300 bytes.
const ERROR_BYTES_SEARCHED: usize = 4096;

/// Longest code or request id that is shown.
const WORD_BYTES_MAX: usize = 64;

/// What is kept of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// The `Code` of the error document.
    pub(crate) code: Option<String>,
    /// Whether it names the stored version, as each successful upload's answer does.
    pub(crate) has_etag: bool,
    pub(crate) retry_after: Option<Duration>,
    pub(crate) request_id: Option<String>,
    /// The region that the bucket is in, where the store says that it is not the one we asked.
    pub(crate) bucket_region: Option<String>,
}

/// What an answer to an upload means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// The object is stored.
    Stored,
    /// An object is stored under this key already.
    Present(Fault),
    /// The store does not know something that was asked for, perhaps the conditional write.
    NotImplemented(Fault),
    /// Not stored, as far as is known. Somebody can mend it, or it passes by itself.
    Again(Fault),
    /// Never to be stored as it is.
    Never(Fault),
}

impl Answer {
    /// What is kept of `answer`.
    pub(crate) fn of(answer: &Response<Bytes>) -> Self {
        let headers = answer.headers();
        Self {
            status: answer.status().as_u16(),
            code: if answer.status().is_success() { None } else { error_code(answer.body()) },
            has_etag: headers.contains_key(header::ETAG),
            retry_after: header_text(headers, "retry-after")
                .and_then(|text| text.parse().ok())
                .map(Duration::from_secs),
            request_id: header_text(headers, "x-amz-request-id").and_then(word),
            bucket_region: header_text(headers, "x-amz-bucket-region").and_then(word),
        }
    }

    /// What is kept of the answer to the completion of an upload in parts. A store may begin to answer 200 before it
    /// knows, and keep the line open with blanks; then only the document says what came of it.
    pub(crate) fn of_completion(answer: &Response<Bytes>) -> Self {
        let (kept, document) = (Self::of(answer), answer.body().trim_ascii_start());
        let is_complete = split_at(document, b"</CompleteMultipartUploadResult>").is_some();
        let code = kept.code.or_else(|| if is_complete { None } else { error_code(document) });
        Self { has_etag: is_complete, code, ..kept }
    }

    /// What it means for an upload.
    pub(crate) fn judge(&self) -> Judgement {
        match (self.status, self.code.as_deref()) {
            (200..=299, _) if self.has_etag => Judgement::Stored,
            // The code and not the status: a gateway on the way may answer 412 to whatever it likes, and a completion that began
            // with 200 says it in its document.
            (_, Some("PreconditionFailed")) => Judgement::Present(self.fault(FaultCode::Conflict)),
            (_, Some("EntityTooLarge")) => Judgement::Never(self.fault(FaultCode::TooLarge)),
            (_, Some("KeyTooLongError" | "KeyTooLong" | "InvalidObjectName" | "XMinioInvalidObjectName")) => {
                Judgement::Never(self.fault(FaultCode::Invalid))
            }
            (501, _) | (_, Some("NotImplemented")) => Judgement::NotImplemented(self.fault(FaultCode::Unavailable)),
            _ => Judgement::Again(self.fault(self.fault_code())),
        }
    }

    /// The fault in it, for any request.
    pub(crate) fn fault(&self, code: FaultCode) -> Fault {
        let mut message = format!("the store answered {}", self.status);
        for (name, value) in [("", &self.code), ("request ", &self.request_id)] {
            if let Some(value) = value {
                message.push_str(if name.is_empty() { " " } else { ", " });
                message.push_str(name);
                message.push_str(value);
            }
        }
        if (200..=299).contains(&self.status) {
            message.push_str(" with something that is no answer of S3");
        } else if let Some(region) = self.bucket_region.as_ref().filter(|_| matches!(self.status, 300..=400)) {
            message.push_str("; the bucket is in region ");
            message.push_str(region);
        }
        Fault { code, message, retry_after: self.retry_after }
    }

    /// The kind of failure: by the error code where S3 or MinIO define one, else by the status.
    pub(crate) fn fault_code(&self) -> FaultCode {
        self.code.as_deref().and_then(by_error_code).unwrap_or_else(|| by_status(self.status))
    }
}

/// Source: Amazon S3 API reference, "Error responses"; MinIO's `api-errors.go` for those with its name.
fn by_error_code(code: &str) -> Option<FaultCode> {
    Some(match code {
        "SlowDown"
        | "SlowDownWrite"
        | "ServiceUnavailable"
        | "ThrottlingException"
        | "Throttling"
        | "RequestLimitExceeded"
        | "BandwidthLimitExceeded"
        | "TooManyRequests" => FaultCode::Throttled,
        "InvalidAccessKeyId"
        | "SignatureDoesNotMatch"
        | "ExpiredToken"
        | "InvalidToken"
        | "TokenRefreshRequired"
        | "RequestTimeTooSkewed"
        | "AuthorizationHeaderMalformed"
        | "MissingSecurityHeader"
        | "InvalidSecurity" => FaultCode::Unauthenticated,
        "AccessDenied" | "AllAccessDisabled" | "AccountProblem" | "NotSignedUp" | "KMS.DisabledException" => {
            FaultCode::Forbidden
        }
        "NoSuchBucket"
        | "NoSuchKey"
        | "PermanentRedirect"
        | "TemporaryRedirect"
        | "IllegalLocationConstraintException"
        | "KMS.NotFoundException" => FaultCode::NotFound,
        "ConditionalRequestConflict" | "OperationAborted" => FaultCode::Conflict,
        "XMinioStorageFull" | "XMinioAdminBucketQuotaExceeded" | "QuotaExceeded" | "InsufficientStorage" => {
            FaultCode::Full
        }
        "RequestTimeout" => FaultCode::TimedOut,
        // The store saw other bytes, or fewer, than were sent.
        // Or the upload was aborted while its parts came in, by a rule of the bucket or a person.
        "IncompleteBody" | "BadDigest" | "XAmzContentSHA256Mismatch" | "NoSuchUpload" | "InvalidPart" => {
            FaultCode::Interrupted
        }
        "InternalError" => FaultCode::Unavailable,
        _ => return None,
    })
}

fn by_status(status: u16) -> FaultCode {
    match status {
        // A redirect is not followed: the bucket is elsewhere, and the operator should know.
        300..=399 | 404 => FaultCode::NotFound,
        401 => FaultCode::Unauthenticated,
        403 => FaultCode::Forbidden,
        408 => FaultCode::TimedOut,
        409 => FaultCode::Conflict,
        // Something before the store is in the way, whose limit can be raised: S3 itself gives a code.
        413 => FaultCode::TooLarge,
        429 => FaultCode::Throttled,
        507 => FaultCode::Full,
        500..=599 => FaultCode::Unavailable,
        _ => FaultCode::Protocol,
    }
}

/// The fault in an outcome that is no success.
pub(crate) fn fault(outcome: Option<&Outcome>) -> Fault {
    match outcome {
        Some(Outcome::Answered(answer)) => answer.fault(answer.fault_code()),
        Some(Outcome::Unanswered(error)) => unanswered(error),
        Some(Outcome::NoCredentials(reason)) => Fault::new(FaultCode::Unauthenticated, reason.to_string()),
        None => Fault::new(FaultCode::Internal, "the request was not made"),
    }
}

fn unanswered(error: &SendError) -> Fault {
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

/// Checks that `key` can be the name of an object, and of the one object that other tools find under it.
///
/// # Errors
/// Which rule it breaks. The text holds no part of the key: keys may hold values taken from records.
pub(crate) fn check_key(key: &str) -> Result<(), &'static str> {
    if key.is_empty() {
        Err("key is empty")
    } else if key.len() > KEY_BYTES_MAX {
        Err("key is longer than 1,024 bytes")
    } else if key.bytes().any(|byte| byte.is_ascii_control()) {
        Err("key holds a control character")
    } else if key.split('/').any(str::is_empty) {
        Err("key begins or ends with a slash, or holds two side by side")
    } else if key.split('/').any(|segment| matches!(segment, "." | "..")) {
        Err("key holds a segment . or ..")
    } else {
        Ok(())
    }
}

/// The code of an S3 error document, which is XML: `<Error><Code>…</Code>…`.
fn error_code(document: &[u8]) -> Option<String> {
    let start = document.get(..ERROR_BYTES_SEARCHED).unwrap_or(document);
    let (_, rest) = split_at(start, b"<Code>")?;
    let (code, _) = split_at(rest, b"</Code>")?;
    word(std::str::from_utf8(code).ok()?)
}

/// The ids in a list of uploads that are not complete: `<Upload>…<UploadId>…</UploadId>…`.
pub(crate) fn upload_ids(document: &[u8]) -> Vec<String> {
    let mut ids = Vec::new();
    let mut rest = document;
    while let Some((_, behind)) = split_at(rest, b"<UploadId>") {
        let Some((id, behind)) = split_at(behind, b"</UploadId>") else { break };
        ids.extend(
            std::str::from_utf8(id).ok().filter(|id| id.bytes().all(|byte| byte.is_ascii_graphic())).map(str::to_owned),
        );
        rest = behind;
    }
    ids
}

/// A text as it stands in a path or a query: everything but what never needs it is escaped, byte by byte.
pub(crate) fn encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _written = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn split_at<'a>(bytes: &'a [u8], mark: &[u8]) -> Option<(&'a [u8], &'a [u8])> {
    let at = bytes.windows(mark.len()).position(|window| window == mark)?;
    Some((bytes.get(..at)?, bytes.get(at + mark.len()..)?))
}

/// A code or an id, if it looks like one. What does not is not shown: it may be anything.
fn word(text: &str) -> Option<String> {
    let is_word = !text.is_empty()
        && text.len() <= WORD_BYTES_MAX
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    is_word.then(|| text.to_owned())
}

fn header_text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

#[cfg(test)]
mod tests;
