//! Objects in S3 and compatible stores.
#![allow(missing_docs, unused_variables, reason = "the sink itself is being written")]

pub mod config;

pub use config::{SinkConfig, Sse, StoreConfig};

use hydrant_core::*;
pub struct S3Sink {}
impl S3Sink {
    pub fn new(config: &StoreConfig, sse: Sse, secrets: &dyn secret::Secrets) -> Result<Self, String> {
        Ok(Self {})
    }
}
#[async_trait::async_trait]
impl ObjectSink for S3Sink {
    fn limits(&self) -> Limits {
        unimplemented!()
    }
    fn destination(&self) -> String {
        unimplemented!()
    }
    async fn place(&self, object: &Object) -> Verdict {
        unimplemented!()
    }
}
