//! OpenSearch: the minimal distribution, which Maven Central carries. No security plug-in, half a gigabyte of heap.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Addresses, Ground, Service, unprivileged};
use crate::cargo::run;
use crate::process::{Process, free_port, http_status};
use crate::progress::say;
use crate::tools::{Cache, debian, on_path};

/// The newest release that runs on a JDK 17.
const VERSION: &str = "2.19.6";

/// Its distribution as a Maven artifact.
const ARTIFACT: &str = "org.opensearch.distribution.integ-test-zip:opensearch";

/// Some 13 seconds on an idle machine.
const READY_WITHIN: Duration = Duration::from_mins(2);

/// OpenSearch.
pub(super) struct OpenSearch;

impl Service for OpenSearch {
    fn name(&self) -> &'static str {
        "opensearch"
    }

    fn install(&self, cache: &Cache) -> Result<()> {
        debian(&[("java", "openjdk-17-jdk-headless"), ("unzip", "unzip")])?;
        archive(cache).map(drop)
    }

    fn start(&self, cache: &Cache, ground: &Ground<'_>) -> Result<Process> {
        // Unpacked for each run: it writes beside its programs, and whom it runs as may not read the cache folder.
        let mut unpack = Command::new("unzip");
        unpack.arg("-q").arg(archive(cache)?).current_dir(ground.folder).stdin(Stdio::null()).stdout(Stdio::null());
        run("unpack OpenSearch", unpack)?;
        let home = ground.folder.join(format!("opensearch-{VERSION}"));
        let settings = home.join("config/opensearch.yml");
        fs::write(&settings, configuration(ground)?).with_context(|| format!("write {}", settings.display()))?;
        unprivileged::give(ground.folder)?;

        let mut serve = unprivileged::command(&home.join("bin/opensearch"));
        serve.env("OPENSEARCH_JAVA_HOME", java_home()?).env("OPENSEARCH_JAVA_OPTS", "-Xms512m -Xmx512m");
        serve.current_dir(&home);
        let mut process = Process::spawn("opensearch", serve, &ground.log(), ground.life)?;
        process.wait_ready(READY_WITHIN, || http_status(ground.port, "/") == Some(200))?;
        Ok(process)
    }

    fn addresses(&self, port: u16) -> Addresses {
        [("HYDRANT_TEST_OPENSEARCH_URL".to_owned(), format!("http://127.0.0.1:{port}"))].into()
    }
}

/// The distribution, fetched when it is missing.
fn archive(cache: &Cache) -> Result<PathBuf> {
    let folder = cache.installed(&format!("opensearch-{VERSION}"), |folder| {
        debian(&[("mvn", "maven")])?;
        say(&format!("opensearch: fetch {VERSION} once, 56 MB"));
        let mut fetch = Command::new("mvn");
        fetch.args(["-q", "-B", "dependency:copy", &format!("-Dartifact={ARTIFACT}:{VERSION}:zip")]);
        fetch.arg(format!("-DoutputDirectory={}", folder.display())).current_dir(folder);
        fetch.stdin(Stdio::null()).stdout(io::stderr());
        run("fetch OpenSearch", fetch)
    })?;
    Ok(folder.join(format!("opensearch-{VERSION}.zip")))
}

fn configuration(ground: &Ground<'_>) -> Result<String> {
    Ok(format!(
        "cluster.name: hydrant-test\nnode.name: test\ndiscovery.type: single-node\nnetwork.host: 127.0.0.1\n\
         http.port: {}\ntransport.port: {}\ncluster.routing.allocation.disk.threshold_enabled: false\n",
        ground.port,
        free_port()?,
    ))
}

/// The folder of the JDK whose `java` is on `PATH`.
fn java_home() -> Result<PathBuf> {
    let java = fs::canonicalize(on_path("java").context("find java")?)?;
    let home = java.parent().and_then(Path::parent).context("java lies in no JDK")?;
    Ok(home.to_owned())
}
