//! Objects in a folder of this machine.
#![allow(missing_docs, unused_variables)]
use hydrant_core::*;
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
pub struct StoreConfig {
    pub path: String,
}
impl StoreConfig {
    pub fn validate(&self, at: &problem::DocPath, problems: &mut problem::Problems) {}
}
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
