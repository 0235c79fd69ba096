//! The bucket of the scripted server: what S3 does with uploads and reads, in memory.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use aws_lc_rs::digest;
use bytes::Bytes;

use super::{ACCESS_KEY_ID, BUCKET, OBJECT_BYTES_MAX, REGION, SECRET_ACCESS_KEY, Step};
use crate::http::{Answer, Head, decode};
use crate::signature::{Signer, is_signed_by};

/// An object as it was stored.
#[derive(Clone, Debug, Default)]
pub struct StoredObject {
    /// Its bytes.
    pub bytes: Bytes,
    /// The headers it came with, names in lower case.
    pub headers: Vec<(String, String)>,
    /// How often it was written.
    pub writes: u64,
}

impl StoredObject {
    /// The value of a header it came with.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn etag(&self) -> String {
        format!("\"{}-{}\"", hex(digest::digest(&digest::SHA256, &self.bytes).as_ref()), self.writes)
    }
}

/// An upload in parts that is neither completed nor aborted.
#[derive(Debug)]
struct OpenUpload {
    key: String,
    headers: Vec<(String, String)>,
    /// By number.
    parts: BTreeMap<u32, Bytes>,
}

/// The objects of the one bucket, and those that come in parts.
#[derive(Debug, Default)]
pub(super) struct Objects {
    stored: BTreeMap<String, StoredObject>,
    open: BTreeMap<String, OpenUpload>,
    begun: u64,
}

impl Objects {
    pub(super) fn get(&self, key: &str) -> Option<&StoredObject> {
        self.stored.get(key)
    }

    pub(super) fn keys(&self) -> Vec<String> {
        self.stored.keys().cloned().collect()
    }

    pub(super) fn open_uploads(&self) -> usize {
        self.open.len()
    }

    /// Stores an upload, or what this step adds to one.
    pub(super) fn take(&mut self, step: Step, head: &Head, body: &Bytes) -> Answer {
        let Some(key) = key_of(head).filter(|key| !key.is_empty()) else { return Answer::error(404, "NoSuchBucket") };
        match step {
            Step::Put => self.put(key, head, head.headers.clone(), body.clone()),
            Step::Begin => self.begin(key, head),
            Step::Part => self.part(head, body),
            Step::Complete => self.complete(head, body),
            Step::Other => Answer::error(405, "MethodNotAllowed"),
        }
    }

    pub(super) fn leave_upload(&mut self, key: &str) {
        self.open(key.to_owned(), Vec::new());
    }

    fn open(&mut self, key: String, headers: Vec<(String, String)>) -> String {
        self.begun += 1;
        let id = format!("upload-{}", self.begun);
        self.open.insert(id.clone(), OpenUpload { key, headers, parts: BTreeMap::new() });
        id
    }

    fn begin(&mut self, key: String, head: &Head) -> Answer {
        let id = self.open(key, head.headers.clone());
        Answer::status(200)
            .body(format!("<InitiateMultipartUploadResult><UploadId>{id}</UploadId></InitiateMultipartUploadResult>"))
    }

    fn part(&mut self, head: &Head, body: &Bytes) -> Answer {
        let number = head.parameter("partNumber").and_then(|text| text.parse().ok());
        let upload = head.parameter("uploadId").and_then(|id| self.open.get_mut(&id));
        let (Some(number), Some(upload)) = (number, upload) else { return Answer::error(404, "NoSuchUpload") };
        upload.parts.insert(number, body.clone());
        Answer::status(200).header("etag", &etag_of_part(body))
    }

    /// Stores what the parts make together, if the document names all of them in order.
    fn complete(&mut self, head: &Head, document: &[u8]) -> Answer {
        let id = head.parameter("uploadId").unwrap_or_default();
        let Some(upload) = self.open.get(&id) else { return Answer::error(404, "NoSuchUpload") };
        let named = upload.parts.iter().fold(String::new(), |mut named, (number, part)| {
            let etag = etag_of_part(part);
            let _written = write!(named, "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
            named
        });
        if upload.parts.is_empty() || !String::from_utf8_lossy(document).contains(&format!(">{named}</")) {
            return Answer::error(400, "InvalidPart");
        }
        let (key, headers) = (upload.key.clone(), upload.headers.clone());
        let body = upload.parts.values().flatten().copied().collect::<Vec<u8>>();
        let answer = self.put(key, head, headers, body.into());
        if !answer.is_success() {
            return answer;
        }
        self.open.remove(&id);
        Answer::status(200).body(
            "<?xml version=\"1.0\"?>\n<CompleteMultipartUploadResult><ETag>\"whole\"</ETag></CompleteMultipartUploadResult>",
        )
    }

    /// Stores an object, unless the request forbids it.
    fn put(&mut self, key: String, head: &Head, headers: Vec<(String, String)>, body: Bytes) -> Answer {
        if body.len() > OBJECT_BYTES_MAX {
            return Answer::error(400, "EntityTooLarge");
        }
        if head.header("if-none-match") == Some("*") && self.stored.contains_key(&key) {
            return Answer::error(412, "PreconditionFailed");
        }
        let object = self.stored.entry(key).or_default();
        object.bytes = body;
        object.headers = headers;
        object.writes += 1;
        Answer::status(200).header("etag", &object.etag())
    }

    /// Answers a head, get, list or abort.
    pub(super) fn other(&mut self, head: &Head) -> Answer {
        if head.method == "DELETE" {
            let gone = head.parameter("uploadId").and_then(|id| self.open.remove(&id));
            return if gone.is_some() { Answer::status(204) } else { Answer::error(404, "NoSuchUpload") };
        }
        match key_of(head) {
            None => Answer::error(404, "NoSuchBucket"),
            Some(key) if key.is_empty() && head.has("uploads") => self.list_open(head),
            Some(key) if key.is_empty() => self.list(head),
            Some(key) => {
                self.stored.get(&key).map_or_else(|| Answer::error(404, "NoSuchKey"), |object| read(object, head))
            }
        }
    }

    fn list_open(&self, head: &Head) -> Answer {
        let prefix = head.parameter("prefix").unwrap_or_default();
        let mut document = String::from("<ListMultipartUploadsResult>");
        for (id, upload) in self.open.iter().filter(|(_, upload)| upload.key.starts_with(&prefix)) {
            let _written = write!(document, "<Upload><Key>{}</Key><UploadId>{id}</UploadId></Upload>", upload.key);
        }
        document.push_str("</ListMultipartUploadsResult>");
        Answer::status(200).body(document)
    }

    fn list(&self, head: &Head) -> Answer {
        let prefix = head.parameter("prefix").unwrap_or_default();
        let after = head.parameter("continuation-token").or_else(|| head.parameter("start-after"));
        let max: usize = head.parameter("max-keys").and_then(|text| text.parse().ok()).unwrap_or(1000);
        let wanted = |key: &&String| key.starts_with(&prefix) && after.as_ref().is_none_or(|after| *key > after);
        let mut keys: Vec<_> = self.stored.keys().filter(wanted).take(max + 1).collect();
        let is_truncated = keys.len() > max;
        keys.truncate(max);
        let mut document = format!(
            "<ListBucketResult><Name>{BUCKET}</Name><Prefix></Prefix><KeyCount>{}</KeyCount><MaxKeys>{max}</MaxKeys>\
             <IsTruncated>{is_truncated}</IsTruncated>",
            keys.len()
        );
        if let Some(last) = keys.last().filter(|_| is_truncated) {
            let _written = write!(document, "<NextContinuationToken>{last}</NextContinuationToken>");
        }
        for key in keys {
            let len = self.stored.get(key).map_or(0, |object| object.bytes.len());
            let _written = write!(
                document,
                "<Contents><Key>{key}</Key><LastModified>2026-11-21T00:00:00.000Z</LastModified>\
                 <ETag>\"e\"</ETag><Size>{len}</Size></Contents>"
            );
        }
        document.push_str("</ListBucketResult>");
        Answer::status(200).header("content-type", "application/xml").body(document)
    }
}

fn read(object: &StoredObject, head: &Head) -> Answer {
    let etag = object.etag();
    if head.header("if-match").is_some_and(|wanted| wanted != etag) {
        return Answer::error(412, "PreconditionFailed");
    }
    let kept = |name: &str| matches!(name, "content-type" | "content-encoding") || name.starts_with("x-amz-meta-");
    let mut answer = Answer::status(200).header("etag", &etag);
    answer = answer.header("last-modified", "Sat, 21 Nov 2026 00:00:00 GMT");
    for (name, value) in object.headers.iter().filter(|(name, _)| kept(name)) {
        answer = answer.header(name, value);
    }
    match head.header("range").and_then(|range| parse_range(range, object.bytes.len())) {
        Some((first, end)) => {
            let range = format!("bytes {first}-{}/{}", end.saturating_sub(1), object.bytes.len());
            let partial = Answer::status(206).header("etag", &etag).header("content-range", &range);
            partial.header("last-modified", "Sat, 21 Nov 2026 00:00:00 GMT").body(object.bytes.slice(first..end))
        }
        None => answer.header("content-length", &object.bytes.len().to_string()).body(object.bytes.clone()),
    }
}

fn etag_of_part(part: &[u8]) -> String {
    format!("\"{}\"", hex(digest::digest(&digest::SHA256, part).as_ref()))
}

/// `bytes=FIRST-LAST`, as first and end.
fn parse_range(text: &str, len: usize) -> Option<(usize, usize)> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last): (usize, usize) = (first.parse().ok()?, last.parse().ok()?);
    (first < len && first <= last).then(|| (first, len.min(last + 1)))
}

/// The key in a path-style path, decoded; empty for the bucket itself, nothing for another bucket.
fn key_of(head: &Head) -> Option<String> {
    let path = decode(&head.path);
    let rest = path.strip_prefix('/')?.strip_prefix(BUCKET)?;
    rest.strip_prefix('/').or_else(|| rest.is_empty().then_some("")).map(str::to_owned)
}

/// Checks what S3 checks before it looks at an upload.
pub(super) struct Verifier;

impl Verifier {
    /// # Errors
    /// The answer that says what is wrong.
    pub(super) fn check(head: &Head, body: &[u8]) -> Result<(), Answer> {
        let denied = || Answer::error(403, "SignatureDoesNotMatch");
        let sha256 = head.header("x-amz-content-sha256").ok_or_else(denied)?;
        if sha256 != hex(digest::digest(&digest::SHA256, body).as_ref()) {
            return Err(Answer::error(400, "XAmzContentSHA256Mismatch"));
        }
        let authorization = head.header("authorization").ok_or_else(denied)?;
        if !authorization.contains(&format!("Credential={ACCESS_KEY_ID}/")) {
            return Err(Answer::error(403, "InvalidAccessKeyId"));
        }
        let mut caller = Signer::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, REGION, "s3");
        if is_signed_by(&mut caller, head) { Ok(()) } else { Err(denied()) }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _written = write!(text, "{byte:02x}");
        text
    })
}
