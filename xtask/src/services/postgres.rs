//! PostgreSQL: Debian's, or whatever version is on `PATH`. Logs in by password, as the one of Compose does, with or without
//! TLS.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Addresses, Ground, Service, minio, names, unprivileged};
use crate::cargo::run;
use crate::process::Process;
use crate::tools::{Cache, debian, on_path};

/// One second on an idle machine.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// PostgreSQL.
pub(super) struct Postgres;

impl Service for Postgres {
    fn name(&self) -> &'static str {
        "postgres"
    }

    fn install(&self, _: &Cache) -> Result<()> {
        if program("initdb").is_none() {
            debian(&[("initdb", "postgresql")])?;
        }
        Ok(())
    }

    fn start(&self, cache: &Cache, ground: &Ground<'_>) -> Result<Process> {
        let data = ground.data()?;
        let password = ground.folder.join("password");
        fs::write(&password, names::POSTGRES_PASSWORD).context("write the password")?;
        let (certificate, key) = own_certificate(cache, ground.folder)?;
        unprivileged::give(ground.folder)?;

        let mut init = unprivileged::command(&existing("initdb")?);
        init.args(["--username", names::POSTGRES_USER, "--auth", "scram-sha-256", "--no-sync", "--pwfile"]);
        init.arg(&password).arg("--pgdata").arg(&data).current_dir(&data).stdin(Stdio::null()).stdout(Stdio::null());
        run("initdb", init)?;

        let mut serve = unprivileged::command(&existing("postgres")?);
        serve.arg("-D").arg(&data).arg("-k").arg(&data).args(["-c", "listen_addresses=127.0.0.1"]);
        serve.args(["-p", &ground.port.to_string()]).current_dir(&data);
        serve.args(["-c", "ssl=on", "-c", &format!("ssl_cert_file={}", certificate.display())]);
        serve.args(["-c", &format!("ssl_key_file={}", key.display())]);
        let mut process = Process::spawn("postgres", serve, &ground.log(), ground.life)?;
        process.wait_ready(READY_WITHIN, || succeeds(client("pg_isready", ground.port)))?;
        let mut create = client("createdb", ground.port)?;
        create.arg(names::POSTGRES_DATABASE);
        run("make the database", create)?;
        Ok(process)
    }

    fn addresses(&self, port: u16) -> Addresses {
        [
            ("HYDRANT_TEST_POSTGRES_HOST", "127.0.0.1"),
            ("HYDRANT_TEST_POSTGRES_PORT", port.to_string().as_str()),
            ("HYDRANT_TEST_POSTGRES_USER", names::POSTGRES_USER),
            ("HYDRANT_TEST_POSTGRES_PASSWORD", names::POSTGRES_PASSWORD),
            ("HYDRANT_TEST_POSTGRES_DATABASE", names::POSTGRES_DATABASE),
        ]
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .into()
    }
}

/// Its client, for whoever reads tables, once it is installed.
pub(super) fn environment() -> Addresses {
    program("psql").map(|psql| ("HYDRANT_TEST_PSQL".to_owned(), psql.display().to_string())).into_iter().collect()
}

/// Copies of certificate and key in this folder. The server takes a key only if it is its own and closed to others.
fn own_certificate(cache: &Cache, folder: &Path) -> Result<(PathBuf, PathBuf)> {
    let (certificate, key) = (folder.join("server.crt"), folder.join("server.key"));
    let made = minio::certificate(cache)?;
    fs::copy(made.join("public.crt"), &certificate).context("copy the certificate")?;
    fs::copy(made.join("private.key"), &key).context("copy its key")?;
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).context("close the key to others")?;
    Ok((certificate, key))
}

/// A client program that talks to the server on this port.
fn client(name: &str, port: u16) -> Result<Command> {
    let mut command = Command::new(existing(name)?);
    command.args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", names::POSTGRES_USER]);
    command.env("PGPASSWORD", names::POSTGRES_PASSWORD).stdin(Stdio::null()).stdout(Stdio::null());
    Ok(command)
}

fn succeeds(command: Result<Command>) -> bool {
    command.is_ok_and(|mut command| command.stderr(Stdio::null()).status().is_ok_and(|status| status.success()))
}

fn existing(name: &str) -> Result<PathBuf> {
    program(name).with_context(|| format!("find {name} of PostgreSQL"))
}

/// A program of PostgreSQL: on `PATH`, else in the folder where Debian keeps them, the newest version first.
fn program(name: &str) -> Option<PathBuf> {
    on_path(name).or_else(|| {
        let versions = fs::read_dir(Path::new("/usr/lib/postgresql")).ok()?;
        let mut programs: Vec<PathBuf> = versions
            .filter_map(|version| Some(version.ok()?.path().join("bin").join(name)))
            .filter(|path| path.is_file())
            .collect();
        programs.sort();
        programs.pop()
    })
}
