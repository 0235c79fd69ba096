//! OpenSearch: the minimal distribution, which Maven Central carries. No security plug-in, half a gigabyte of heap.

use std::fs;
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
        distribution(cache).map(drop)
    }

    fn start(&self, cache: &Cache, ground: &Ground<'_>) -> Result<Process> {
        let (data, settings) = (ground.data()?, ground.folder.join("config"));
        let distribution = distribution(cache)?;
        copy_settings(&distribution.join("config"), &settings)?;
        fs::write(settings.join("opensearch.yml"), configuration(ground, &data)?).context("write opensearch.yml")?;
        let mut owned: Vec<PathBuf> = vec![ground.folder.to_owned(), data, settings.clone()];
        owned.extend(fs::read_dir(&settings)?.flatten().map(|entry| entry.path()));
        unprivileged::give(&owned.iter().map(PathBuf::as_path).collect::<Vec<_>>())?;

        let mut serve = unprivileged::command(&distribution.join("bin/opensearch"));
        serve.env("OPENSEARCH_JAVA_HOME", java_home()?).env("OPENSEARCH_JAVA_OPTS", "-Xms512m -Xmx512m");
        serve.env("OPENSEARCH_PATH_CONF", &settings).current_dir(ground.folder);
        let mut process = Process::spawn("opensearch", serve, &ground.log(), ground.life)?;
        process.wait_ready(READY_WITHIN, || http_status(ground.port, "/") == Some(200))?;
        Ok(process)
    }

    fn addresses(&self, port: u16) -> Addresses {
        [("HYDRANT_TEST_OPENSEARCH_URL".to_owned(), format!("http://127.0.0.1:{port}"))].into()
    }
}

/// The unpacked distribution, fetched when it is missing. Readable for everyone, as it does not run as root.
fn distribution(cache: &Cache) -> Result<PathBuf> {
    let folder = cache.installed(&format!("opensearch-{VERSION}"), |folder| {
        debian(&[("mvn", "maven")])?;
        say(&format!("opensearch: fetch {VERSION} once, 56 MB"));
        let mut fetch = Command::new("mvn");
        fetch.args(["-q", "-B", "dependency:copy", &format!("-Dartifact={ARTIFACT}:{VERSION}:zip")]);
        fetch.arg(format!("-DoutputDirectory={}", folder.display())).stdin(Stdio::null()).current_dir(folder);
        run("fetch OpenSearch", fetch)?;
        let mut unpack = Command::new("unzip");
        unpack.arg("-q").arg(folder.join(format!("opensearch-{VERSION}.zip")));
        unpack.current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null());
        run("unpack OpenSearch", unpack)
    })?;
    Ok(folder.join(format!("opensearch-{VERSION}")))
}

fn configuration(ground: &Ground<'_>, data: &Path) -> Result<String> {
    Ok(format!(
        "cluster.name: hydrant-test\nnode.name: test\ndiscovery.type: single-node\nnetwork.host: 127.0.0.1\n\
         http.port: {}\ntransport.port: {}\npath.data: {}\npath.logs: {}\n\
         cluster.routing.allocation.disk.threshold_enabled: false\n",
        ground.port,
        free_port()?,
        data.display(),
        ground.folder.display(),
    ))
}

/// The server writes into its folder of settings, so each run has its own.
fn copy_settings(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from).with_context(|| format!("read {}", from.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// The folder of the JDK whose `java` is on `PATH`.
fn java_home() -> Result<PathBuf> {
    let java = fs::canonicalize(on_path("java").context("find java")?)?;
    let home = java.parent().and_then(Path::parent).context("java lies in no JDK")?;
    Ok(home.to_owned())
}
