//! The real servers and foreign tools of `cargo xtask test`: a prefix of one's own in MinIO, read by boto3.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use serde::Deserialize;

use crate::server::{ACCESS_KEY_ID, SECRET, Server};

/// The value of a `HYDRANT_TEST_*` variable.
#[track_caller]
pub(crate) fn variable(name: &str) -> String {
    std::env::var(format!("HYDRANT_TEST_{name}"))
        .unwrap_or_else(|_| panic!("HYDRANT_TEST_{name} is not set: run cargo xtask test"))
}

/// An object as boto3 sees it.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Stored {
    pub(crate) key: String,
    pub(crate) content_type: String,
    pub(crate) content_encoding: Option<String>,
    pub(crate) metadata: std::collections::BTreeMap<String, String>,
    pub(crate) sse: Option<String>,
    pub(crate) kms_key: Option<String>,
    /// Where its bytes were put, as stored.
    pub(crate) file: String,
    /// A presigned address.
    pub(crate) url: String,
}

impl Stored {
    /// What its key ends with, behind the last dot.
    pub(crate) fn extension(&self) -> Option<&str> {
        self.key.rsplit_once('.').map(|(_, extension)| extension)
    }

    /// Its bytes, as stored.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        fs::read(&self.file).unwrap()
    }
}

/// A store in MinIO, as YAML, with the root user's keys.
pub(crate) fn bucket(name: &str, bucket: &str) -> String {
    bucket_as(name, bucket, "HYDRANT_TEST_S3_ACCESS_KEY", "HYDRANT_TEST_S3_SECRET_KEY")
}

/// A store in MinIO, as YAML, with the keys that these variables hold.
pub(crate) fn bucket_as(name: &str, bucket: &str, access_key: &str, secret_key: &str) -> String {
    format!(
        "  {name}:\n    s3:\n      bucket: {bucket}\n      endpoint: \"{}\"\n      region: us-east-1\n      path_style: true\n      \
         access_key_id: {{ env: {access_key} }}\n      secret_access_key: {{ env: {secret_key} }}\n",
        variable("S3_ENDPOINT")
    )
}

/// A prefix that no other test and no other run has.
pub(crate) fn own_prefix(test: &str) -> String {
    format!("it/{test}-{}/", std::process::id())
}

/// All objects of a bucket below a prefix, read by boto3 into a folder.
#[track_caller]
pub(crate) fn read_bucket(bucket: &str, prefix: &str, into: &Path) -> Vec<Stored> {
    fs::create_dir_all(into).unwrap();
    let output = python("store.py", &["read", bucket, prefix, into.to_str().unwrap()]);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Runs a script of `tests/it/py`, which must succeed. It finds the server under test by the producer's variables.
#[track_caller]
pub(crate) fn python(script: &str, arguments: &[&str]) -> Output {
    let path = format!("{}/tests/it/py/{script}", env!("CARGO_MANIFEST_DIR"));
    finish(Command::new(variable("PYTHON")).arg(path).args(arguments))
}

/// A script that talks to a server under test.
#[track_caller]
pub(crate) fn producer(server: &Server, script: &str, arguments: &[&str]) -> Output {
    let path = format!("{}/tests/it/py/{script}", env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new(variable("PYTHON"));
    finish(as_producer(&mut command, server).arg(path).args(arguments))
}

/// The AWS CLI against a server under test.
#[track_caller]
pub(crate) fn aws(server: &Server, arguments: &[&str]) -> serde_json::Value {
    let mut command = Command::new(variable("AWS"));
    command.args(["firehose", "--output", "json", "--endpoint-url", &server.endpoint()]).args(arguments);
    let output = finish(as_producer(&mut command, server));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Gives a command what SDKs read from the environment, and nothing of the machine's own profiles.
fn as_producer<'a>(command: &'a mut Command, server: &Server) -> &'a mut Command {
    command.envs(server.certificate().map(|certificate| ("AWS_CA_BUNDLE", certificate)));
    command.envs([
        ("AWS_ENDPOINT_URL", server.endpoint().as_str()),
        ("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID),
        ("AWS_SECRET_ACCESS_KEY", SECRET),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_CONFIG_FILE", "/dev/null"),
        ("AWS_SHARED_CREDENTIALS_FILE", "/dev/null"),
    ])
}

/// Runs a command, which must succeed.
#[track_caller]
pub(crate) fn finish(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}
