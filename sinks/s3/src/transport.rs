//! Transport: how `object_store`'s requests reach the wire: signed here, sent through Hydrant's own client, and with
//! the upload's body read from its blob.
//!
//! ```text
//!   object_store ──request──> [ sign ─> send, body from the blob ] ──answer──> object_store
//!        extensions: Exchange ──────────┴─> what happened, in our own words ─> verdict
//! ```
//!
//! `object_store` builds a request for bytes it holds in memory and hashes them itself. An upload here has an empty
//! payload in `object_store`'s eyes; its bytes and their hash come in the [`Exchange`], so an attempt holds two or three
//! parts of an object in memory and not the whole. The exchange also carries out what happened, so that a verdict is
//! never guessed from the text of an error.
//!
//! Requests that `object_store` cannot shape go through [`Transport::send`] alone. Never sends a request twice.

use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response};
use hydrant_core::Blob;
use hydrant_outbound::aws::{Credentials, Key, NoCredentials};
use hydrant_outbound::{Body, Bounds, Client, SendError};
use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};

use crate::wire::Answer;

/// What the names of the headers begin with that name a key of ours. Source: Amazon S3 API reference, `UploadPart`.
const CUSTOMER_KEY_PREFIX: &str = "x-amz-server-side-encryption-customer-";

/// What one call gives its request to take along, and finds in it afterwards.
#[derive(Clone, Debug)]
pub(crate) struct Exchange(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    bounds: Bounds,
    upload: Option<Upload>,
    outcome: OnceLock<Outcome>,
    /// What the request said of a key of ours that the store encrypts with.
    customer_key: OnceLock<HeaderMap>,
}

/// The body of an upload.
#[derive(Debug)]
pub(crate) struct Upload {
    /// Its bytes.
    pub(crate) body: Arc<dyn Blob>,
    /// Their hash, which the signature covers: a store that got other bytes refuses them.
    pub(crate) sha256: [u8; 32],
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The store answered.
    Answered(Answer),
    /// It did not.
    Unanswered(SendError),
    /// It was not asked.
    NoCredentials(NoCredentials),
}

impl Exchange {
    /// An exchange whose request has no body of ours.
    pub(crate) fn new(bounds: Bounds) -> Self {
        Self::with(bounds, None)
    }

    /// An exchange that uploads.
    pub(crate) fn upload(bounds: Bounds, upload: Upload) -> Self {
        Self::with(bounds, Some(upload))
    }

    fn with(bounds: Bounds, upload: Option<Upload>) -> Self {
        Self(Arc::new(Inner { bounds, upload, outcome: OnceLock::new(), customer_key: OnceLock::new() }))
    }

    /// As extensions of a request.
    pub(crate) fn extensions(&self) -> http::Extensions {
        let mut extensions = http::Extensions::new();
        extensions.insert(self.clone());
        extensions
    }

    /// The headers by which the request named a key of ours that the store encrypts with, if it does. Each part of an
    /// object goes with the same.
    pub(crate) fn customer_key(&self) -> HeaderMap {
        self.0.customer_key.get().cloned().unwrap_or_default()
    }

    /// What happened; nothing if no request was made.
    pub(crate) fn outcome(&self) -> Option<&Outcome> {
        self.0.outcome.get()
    }
}

/// Signs and sends.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    pub(crate) client: Client,
    pub(crate) credentials: Arc<Credentials>,
    pub(crate) region: Arc<str>,
}

impl Transport {
    /// Signs and sends a request, with its own body or that of an upload.
    pub(crate) async fn send(
        &self,
        mut request: HttpRequest,
        upload: Option<&Upload>,
        bounds: Bounds,
    ) -> Result<Response<Bytes>, Outcome> {
        let key = to_credential(&self.credentials.get().await.map_err(Outcome::NoCredentials)?);
        let invalid = |reason: &str| Outcome::Unanswered(SendError::Invalid(reason.to_owned()));
        AwsAuthorizer::new(&key, "s3", &self.region)
            .try_authorize(&mut request, upload.map(|upload| upload.sha256.as_slice()))
            .map_err(|_| invalid("it cannot be signed"))?;
        let (parts, payload) = request.into_parts();
        let body = match upload {
            Some(upload) => Body::Blob(Arc::clone(&upload.body)),
            None if payload.is_empty() => Body::Bytes(Bytes::new()),
            None => Body::Bytes(payload.as_bytes().cloned().ok_or_else(|| invalid("its body is in parts"))?),
        };
        self.client.send(Request::from_parts(parts, body), bounds).await.map_err(Outcome::Unanswered)
    }
}

/// A key as `object_store` signs with it.
fn to_credential(key: &Key) -> AwsCredential {
    AwsCredential {
        key_id: key.access_key_id().to_owned(),
        secret_key: key.secret_access_key().to_owned(),
        token: key.session_token().map(str::to_owned),
    }
}

#[async_trait]
impl HttpService for Transport {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let Some(Exchange(exchange)) = request.extensions().get::<Exchange>().cloned() else {
            return Err(HttpError::new(HttpErrorKind::Unknown, Told));
        };
        let is_of_key = |(name, _): &(&HeaderName, &HeaderValue)| name.as_str().starts_with(CUSTOMER_KEY_PREFIX);
        let of_key = request.headers().iter().filter(is_of_key).map(|(name, value)| (name.clone(), value.clone()));
        let _first = exchange.customer_key.set(of_key.collect());
        match self.send(request, exchange.upload.as_ref(), exchange.bounds).await {
            Ok(answer) => {
                // A second request of one exchange would be a retry, which is switched off; the first outcome stands.
                let _first = exchange.outcome.set(Outcome::Answered(Answer::of(&answer)));
                Ok(answer.map(Into::into))
            }
            Err(outcome) => {
                let _first = exchange.outcome.set(outcome);
                Err(HttpError::new(HttpErrorKind::Unknown, Told))
            }
        }
    }
}

impl HttpConnector for Transport {
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(self.clone()))
    }
}

/// The reason, as `object_store` gets it: it lies in the exchange.
#[derive(Debug, thiserror::Error)]
#[error("see the outcome of the exchange")]
struct Told;
