//! Objects in a folder of this machine.
#![allow(missing_docs, unused_variables, reason = "the sink itself is being written")]

pub mod config;

pub use config::{SinkConfig, StoreConfig};

use hydrant_core::*;
pub struct FileSink {}
impl FileSink {
    pub fn new(config: &StoreConfig) -> Self {
        Self {}
    }
}
#[async_trait::async_trait]
impl ObjectSink for FileSink {
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
