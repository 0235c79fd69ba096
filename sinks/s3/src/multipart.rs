//! Places a large object: its parts one after the other, straight from its blob, then one completion that the store
//! refuses if the key is taken. The object is there with the answer to the completion, whole, and not before.
//!
//! ```text
//!   GET    ?uploads&prefix=KEY ─> what earlier attempts at this key left behind is aborted
//!   POST   KEY?uploads ─────────> upload id
//!   PUT    KEY?partNumber=N ────> entity tag               (for each part, two or three buffers of it in memory)
//!   POST   KEY?uploadId, If-None-Match: * ─> as for a PUT: stored, there already, or a fault
//!   DELETE KEY?uploadId ────────> after anything but success, and when the attempt is dropped
//! ```
//!
//! Each request is sent once, and the first that fails ends the attempt. What is left of an attempt whose process died
//! is found by the next one, since a batch keeps its key; a store's own rule for incomplete uploads is needed only for
//! batches that are never tried again.
//!
//! `object_store` begins an upload, with all that is stored beside the bytes; it can neither take a part from a blob nor
//! complete on a condition, so the other requests are made here, over the same transport.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, Method, Response, header};
use hydrant_core::{Blob, Fault, FaultCode, Object};
use hydrant_outbound::Bounds;
use object_store::client::{HttpRequest, HttpRequestBody};
use object_store::multipart::MultipartStore;
use object_store::path::Path;
use object_store::{Attributes, PutMultipartOptions};

use crate::sink::{ANSWER_BYTES_MAX, hash};
use crate::store::Store;
use crate::transport::{Exchange, Outcome, Upload};
use crate::wire::{self, Answer, Judgement};

/// Most parts of an object. Source: Amazon S3 User Guide, "Multipart upload limits".
const PARTS_MAX: u64 = 10_000;

/// Longest that an attempt which has failed tries to tidy up. The next one does it otherwise.
const ABORT_WITHIN: Duration = Duration::from_secs(5);

/// From which size on objects go in parts, and how large those are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Most bytes of an object that goes in one request.
    pub(crate) whole_bytes_max: u64,
    /// Bytes of a part. Stores take 5 MiB at least.
    pub(crate) part_bytes: u64,
}

impl Default for Sizes {
    /// 16 MiB for both: a request that breaks off then costs no more than before, and 128 MiB, the largest size hint,
    /// are eight parts.
    fn default() -> Self {
        Self { whole_bytes_max: 16 << 20, part_bytes: 16 << 20 }
    }
}

/// One attempt at one object.
pub(crate) struct Attempt<'a> {
    pub(crate) store: &'a Arc<Store>,
    pub(crate) object: &'a Object,
    pub(crate) location: &'a Path,
    pub(crate) attributes: Attributes,
    pub(crate) part_bytes: u64,
    /// Whether the completion says `If-None-Match: *`.
    pub(crate) is_conditional: bool,
}

/// An upload that was begun. Dropping it aborts it, unless it is over.
struct Begun {
    store: Arc<Store>,
    /// Of the object, with the id of the upload.
    url: String,
    /// The id of the upload, as a query names it.
    query: String,
    customer_key: HeaderMap,
    is_over: bool,
}

impl Attempt<'_> {
    /// Makes the attempt. Cancel safe: what was begun is aborted.
    pub(crate) async fn make(self) -> Judgement {
        let mut begun = match self.begin().await {
            Ok(begun) => begun,
            Err(judgement) => return judgement,
        };
        let judgement = match self.fill(&begun).await {
            Ok(etags) => self.complete(&begun, &etags).await,
            Err(judgement) => judgement,
        };
        begun.is_over = true;
        if judgement != Judgement::Stored {
            abort(&begun.store, &begun.url).await;
        }
        judgement
    }

    async fn begin(&self) -> Result<Begun, Judgement> {
        self.sweep().await?;
        let exchange = Exchange::new(self.store.patience.bounds(0, ANSWER_BYTES_MAX));
        let options = PutMultipartOptions {
            attributes: self.attributes.clone(),
            extensions: exchange.extensions(),
            ..PutMultipartOptions::default()
        };
        let id = self.store.client.create_multipart_opts(self.location, options).await;
        match (id, exchange.outcome()) {
            (Ok(id), _) => Ok(self.begun(&id, exchange.customer_key())),
            (Err(_), Some(Outcome::Answered(answer))) => Err(unfit(answer)),
            (Err(_), outcome) => Err(Judgement::Again(wire::fault(outcome))),
        }
    }

    /// Aborts what earlier attempts at this key left behind. What a store refuses to tell is left to its own rules.
    async fn sweep(&self) -> Result<(), Judgement> {
        if !self.object.key.contains(&self.object.batch.to_string()) {
            return Ok(()); // others may be at work under this key
        }
        let url = format!("{}?prefix={}&uploads=", self.store.url(""), wire::encode(&self.object.key));
        let bounds = self.store.patience.bounds(0, ANSWER_BYTES_MAX);
        let listed = self.store.transport.send(request(Method::GET, &url), None, bounds).await;
        let listed = listed.map_err(|outcome| Judgement::Again(wire::fault(Some(&outcome))))?;
        for id in wire::upload_ids(listed.body()) {
            let mut left = self.begun(&id, HeaderMap::new());
            left.is_over = true;
            abort(&left.store, &left.url).await;
        }
        Ok(())
    }

    fn begun(&self, id: &str, customer_key: HeaderMap) -> Begun {
        let query = format!("uploadId={}", wire::encode(id));
        let url = format!("{}?{query}", self.store.url(&self.object.key));
        Begun { store: Arc::clone(self.store), url, query, customer_key, is_over: false }
    }

    /// Sends all parts; their entity tags, in order.
    async fn fill(&self, begun: &Begun) -> Result<Vec<String>, Judgement> {
        let len = self.object.body.len();
        let part_bytes = self.part_bytes.max(len.div_ceil(PARTS_MAX)).max(1);
        let mut etags = Vec::new();
        for offset in (0..len).step_by(usize::try_from(part_bytes).unwrap_or(usize::MAX)) {
            let body = Arc::clone(&self.object.body);
            let part = Arc::new(Part { body, offset, len: part_bytes.min(len - offset) });
            let sha256 = hash(&*part).await.map_err(|reason| {
                let message = format!("read batch {}: {reason}", self.object.batch);
                Judgement::Again(Fault::new(FaultCode::Damaged, message))
            })?;
            let url = self.store.url(&self.object.key);
            let url = format!("{url}?partNumber={}&{}", etags.len() + 1, begun.query);
            let mut request = request(Method::PUT, &url);
            request.headers_mut().extend(begun.customer_key.clone());
            let bounds = self.store.patience.bounds(part.len, ANSWER_BYTES_MAX);
            let sent = self
                .store
                .transport
                .send(request, Some(&Upload { body: Arc::clone(&part) as _, sha256 }), bounds)
                .await;
            etags.push(etag(&sent.map_err(|outcome| Judgement::Again(wire::fault(Some(&outcome))))?)?);
        }
        Ok(etags)
    }

    async fn complete(&self, begun: &Begun, etags: &[String]) -> Judgement {
        let mut document = String::from("<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">");
        for (etag, number) in etags.iter().zip(1..) {
            let _written = write!(document, "<Part><PartNumber>{number}</PartNumber><ETag>{etag}</ETag></Part>");
        }
        document.push_str("</CompleteMultipartUpload>");
        let mut request = request(Method::POST, &begun.url);
        *request.body_mut() = document.into();
        // MinIO looks at what the key holds already, which it cannot without.
        request.headers_mut().extend(begun.customer_key.clone());
        if self.is_conditional {
            request.headers_mut().insert(header::IF_NONE_MATCH, header::HeaderValue::from_static("*"));
        }
        let bounds = self.store.patience.bounds(0, ANSWER_BYTES_MAX);
        match self.store.transport.send(request, None, bounds).await {
            Ok(answer) => Answer::of_completion(&answer).judge(),
            Err(outcome) => Judgement::Again(wire::fault(Some(&outcome))),
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // Only when an attempt is dropped halfway: then there is nobody to wait for this, and the next attempt
        // finds what it did not get done.
        if let Some(runtime) = tokio::runtime::Handle::try_current().ok().filter(|_| !self.is_over) {
            let (store, url) = (Arc::clone(&self.store), std::mem::take(&mut self.url));
            runtime.spawn(async move { abort(&store, &url).await });
        }
    }
}

/// Best effort.
async fn abort(store: &Store, url: &str) {
    let bounds = Bounds { stall: ABORT_WITHIN, whole: ABORT_WITHIN, answer_bytes_max: ANSWER_BYTES_MAX };
    let _whatever = store.transport.send(request(Method::DELETE, url), None, bounds).await;
}

/// A request without a body. One that is no request is refused by the transport.
fn request(method: Method, url: &str) -> HttpRequest {
    let mut request = HttpRequest::new(HttpRequestBody::empty());
    *request.method_mut() = method;
    *request.uri_mut() = url.parse().unwrap_or_default();
    request
}

/// The entity tag of a part, as the completion has to name it.
fn etag(sent: &Response<Bytes>) -> Result<String, Judgement> {
    let answer = Answer::of(sent);
    let etag = sent.headers().get(header::ETAG).and_then(|etag| etag.to_str().ok());
    match etag.filter(|etag| sent.status().is_success() && !etag.contains(['<', '>', '&'])) {
        Some(etag) => Ok(etag.to_owned()),
        None => Err(unfit(&answer)),
    }
}

/// What an answer means that is not the one to go on with. Whatever it says, it places no object.
fn unfit(answer: &Answer) -> Judgement {
    match answer.judge() {
        Judgement::Stored | Judgement::Present(_) => Judgement::Again(answer.fault(FaultCode::Protocol)),
        other => other,
    }
}

/// A range of a blob.
#[derive(Debug)]
struct Part {
    body: Arc<dyn Blob>,
    offset: u64,
    len: u64,
}

#[async_trait]
impl Blob for Part {
    fn len(&self) -> u64 {
        self.len
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let len = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX).min(len);
        self.body.read_at(self.offset + offset, len).await
    }
}
