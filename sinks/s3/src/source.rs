//! Reads a bucket back: keys in order, and one object's bytes by ranges.
//!
//! In: a prefix, or a key. Out: names, or a blob each of whose reads is one request. Never holds more than a page of
//! names beyond what it was asked for, and never reads two versions of an object as one: each range names the version
//! that was opened.

use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use hydrant_core::secret::Secrets;
use hydrant_core::source::{Listed, Stored};
use hydrant_core::{Blob, Fault, FaultCode, ObjectSource};
use object_store::list::{PaginatedListOptions, PaginatedListStore};
use object_store::path::Path;
use object_store::{Attribute, Attributes, GetOptions, GetRange, ObjectMeta, ObjectStore};

use crate::config::{Sse, StoreConfig};
use crate::store::{Patience, Store};
use crate::transport::Exchange;
use crate::wire;

/// Keys in one page. Source: Amazon S3 API reference, `ListObjectsV2`, which gives no more.
const PAGE_KEYS_MAX: usize = 1000;

/// Most bytes of a page: a thousand keys of 1,024 bytes, each byte escaped, with what stands around them.
const PAGE_BYTES_MAX: usize = 8 << 20;

/// Most bytes of any other answer beyond the bytes that were asked for: an error document.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Reads what an [`S3Sink`](crate::S3Sink) placed.
#[derive(Clone, Debug)]
pub struct S3Source {
    store: Arc<Store>,
}

impl S3Source {
    /// The source for this bucket. Connects to nothing.
    ///
    /// # Errors
    /// As for [`S3Sink::new`](crate::S3Sink::new).
    pub fn new(config: &StoreConfig, secrets: &dyn Secrets) -> Result<Self, String> {
        let store = Store::new(config, &Sse::None, secrets, Patience::default())?;
        Ok(Self { store: Arc::new(store) })
    }

    fn exchange(&self, len: u64, answer_bytes_max: usize) -> Exchange {
        Exchange::new(self.store.patience.bounds(len, answer_bytes_max))
    }
}

#[async_trait]
impl ObjectSource for S3Source {
    async fn list(&self, prefix: &str, after: Option<&str>, max: usize) -> Result<Vec<Listed>, Fault> {
        let mut found: Vec<Listed> = Vec::new();
        let mut page_token = None;
        while found.len() < max {
            let exchange = self.exchange(0, PAGE_BYTES_MAX);
            let options = PaginatedListOptions {
                offset: after.map(str::to_owned),
                max_keys: Some(PAGE_KEYS_MAX.min(max - found.len())),
                page_token,
                extensions: exchange.extensions(),
                ..PaginatedListOptions::default()
            };
            let prefix = Some(prefix).filter(|prefix| !prefix.is_empty());
            let page = self.store.client.list_paginated(prefix, options).await;
            let page = page.map_err(|_| wire::fault(exchange.outcome()))?;
            let listed = |meta: ObjectMeta| Listed { key: meta.location.into(), len: meta.size };
            found.extend(page.result.objects.into_iter().map(listed));
            page_token = page.page_token;
            if page_token.is_none() {
                break;
            }
        }
        found.truncate(max);
        Ok(found)
    }

    async fn open(&self, key: &str) -> Result<Stored, Fault> {
        let no_key = |reason: &str| Fault::new(FaultCode::NotFound, reason);
        wire::check_key(key).map_err(no_key)?;
        let location = Path::parse(key).map_err(|_| no_key("key is no path"))?;
        let exchange = self.exchange(0, ANSWER_BYTES_MAX);
        let options = GetOptions { head: true, extensions: exchange.extensions(), ..GetOptions::default() };
        let head = self.store.client.get_opts(&location, options).await;
        let head = head.map_err(|_| wire::fault(exchange.outcome()))?;
        let text = |attribute: &Attribute| head.attributes.get(attribute).map(|value| value.as_ref().to_owned());
        let body = S3Blob { source: self.clone(), location, etag: head.meta.e_tag.clone(), len: head.meta.size };
        Ok(Stored {
            content_type: text(&Attribute::ContentType),
            content_encoding: text(&Attribute::ContentEncoding),
            metadata: metadata(&head.attributes),
            body: Arc::new(body),
        })
    }
}

fn metadata(attributes: &Attributes) -> Vec<(String, String)> {
    let own = attributes.iter().filter_map(|(attribute, value)| match attribute {
        Attribute::Metadata(name) => Some((name.as_ref().to_owned(), value.as_ref().to_owned())),
        _ => None,
    });
    let mut own: Vec<_> = own.collect();
    own.sort();
    own
}

/// One version of an object, read by ranges.
#[derive(Debug)]
struct S3Blob {
    source: S3Source,
    location: Path,
    etag: Option<String>,
    len: u64,
}

#[async_trait]
impl Blob for S3Blob {
    fn len(&self) -> u64 {
        self.len
    }

    async fn read_at(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let end = self.len.min(offset.saturating_add(len as u64));
        if offset >= end {
            return Ok(Bytes::new());
        }
        let exchange = self.source.exchange(end - offset, ANSWER_BYTES_MAX.max(len));
        let options = GetOptions {
            if_match: self.etag.clone(),
            range: Some(GetRange::Bounded(offset..end)),
            extensions: exchange.extensions(),
            ..GetOptions::default()
        };
        let fault = |_| io::Error::other(wire::fault(exchange.outcome()));
        let part = self.source.store.client.get_opts(&self.location, options).await.map_err(fault)?;
        part.bytes().await.map_err(fault)
    }
}
