//! Placeholder.
#![allow(missing_docs, unused_variables)]
use hydrant_core::*;
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct StoreConfig {
    pub bucket: String,
}
impl StoreConfig {
    pub fn validate(&self, at: &problem::DocPath, secrets: &dyn secret::Secrets, problems: &mut problem::Problems) {}
}
pub enum Sse {
    StoreDefault,
    S3,
    Kms { key: String },
}
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
