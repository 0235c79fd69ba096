//! `cargo xtask services`: the real servers that tests and developers need, run natively on free loopback ports.
//!
//! A new server is one file with a [`Service`] and one line in [`ALL`]. What it is called, who may log in and what is
//! made in it stands in [`names`], equal to what `docker-compose.yml` publishes.
//!
//! ```text
//!  install (cache folder) ─> start (temporary folder, free port) ─> ready ─> prepare (buckets, users) ─> HYDRANT_TEST_*
//! ```

mod minio;
pub(crate) mod names;
mod node;
mod opensearch;
mod postgres;
mod python;
mod state;
mod unprivileged;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Subcommand, ValueEnum};
use serde::Serialize;

use crate::process::{Life, Process, ProcessId, Scratch, free_port};
use crate::progress::{print, say};
use crate::tools::Cache;

use self::state::State;

/// Every server, in the order in which they start.
const ALL: &[&dyn Service] = &[&minio::MinIo, &minio::MinIoTls, &postgres::Postgres, &opensearch::OpenSearch];

/// Those that tests need today; the others start when they are named.
const NEEDED_BY_TESTS: &[&str] = &["minio", "minio-tls", "postgres", "opensearch"];

/// Addresses and keys by variable name.
pub(crate) type Addresses = BTreeMap<String, String>;

/// A server that can run here without a container engine.
trait Service: Sync {
    /// What it is called on the command line and in `docker-compose.yml`.
    fn name(&self) -> &'static str;

    /// Installs what is missing.
    fn install(&self, cache: &Cache) -> Result<()>;

    /// Starts it on this port and waits until it serves, then makes in it what tests expect.
    fn start(&self, cache: &Cache, ground: &Ground<'_>) -> Result<Process>;

    /// Where tests find it when it listens on this port.
    fn addresses(&self, port: u16) -> Addresses;
}

/// Where a server runs.
struct Ground<'a> {
    /// An empty folder of its own.
    folder: &'a Path,
    /// The port to listen on.
    port: u16,
    /// Whether it ends with us.
    life: Life,
}

impl Ground<'_> {
    /// Where its output goes.
    fn log(&self) -> PathBuf {
        self.folder.join("server.log")
    }

    /// A folder for its data.
    fn data(&self) -> Result<PathBuf> {
        let data = self.folder.join("data");
        fs::create_dir_all(&data).with_context(|| format!("make {}", data.display()))?;
        Ok(data)
    }
}

/// Options of `services`.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
    /// How results are printed.
    #[arg(long, value_enum, default_value_t, global = true)]
    output: Output,
}

#[derive(Subcommand)]
enum Command {
    /// Starts servers that do not run yet, and prints where they are.
    Up {
        /// Which: `minio`, `minio-tls`, `postgres`, `opensearch`, `all`. Those that tests need when none is named.
        names: Vec<String>,
        /// Also writes the variables to this file, one `NAME=value` per line.
        #[arg(long, value_name = "FILE")]
        env: Option<PathBuf>,
    },
    /// Stops what `up` started and removes its data.
    Down,
    /// Prints what runs.
    Status,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people and for `source`.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Starts, stops or lists.
///
/// # Errors
/// When a server cannot be installed, started or made ready.
pub(crate) fn run(args: Args) -> Result<()> {
    let cache = Cache::open()?;
    match args.command {
        Command::Up { names, env } => {
            let state = up(&cache, &chosen(&names)?)?;
            if let Some(file) = env {
                fs::write(&file, env_file(&state.addresses())).with_context(|| format!("write {}", file.display()))?;
                say(&format!("services: variables written to {}", file.display()));
            }
            report(&state, args.output)
        }
        Command::Down => {
            down(&cache)?;
            report(&State::default(), args.output)
        }
        Command::Status => report(&State::read(&cache)?, args.output),
    }
}

/// The named servers; those that tests need when none is named.
fn chosen(names: &[String]) -> Result<Vec<&'static dyn Service>> {
    if names.iter().any(|name| name == "all") {
        return Ok(ALL.to_vec());
    }
    let names: Vec<&str> =
        if names.is_empty() { NEEDED_BY_TESTS.to_vec() } else { names.iter().map(String::as_str).collect() };
    names.into_iter().map(by_name).collect()
}

fn by_name(name: &str) -> Result<&'static dyn Service> {
    let Some(service) = ALL.iter().find(|service| service.name() == name) else {
        let known: Vec<&str> = ALL.iter().map(|service| service.name()).collect();
        bail!("no service is called {name}: there are {}", known.join(", "));
    };
    Ok(*service)
}

/// Starts what does not run yet and lets it run on.
fn up(cache: &Cache, services: &[&dyn Service]) -> Result<State> {
    let mut state = State::read(cache)?;
    for service in services {
        if state.services.contains_key(service.name()) {
            say(&format!("{}: runs already", service.name()));
            continue;
        }
        let scratch = Scratch::new(service.name())?;
        let (process, port) = start(*service, cache, scratch.path(), Life::Beyond)?;
        let folder = scratch.keep()?;
        state.services.insert(
            service.name().to_owned(),
            Running { process: process.id(), port, folder, addresses: service.addresses(port) },
        );
        // Written before it is let go: whoever runs is listed.
        state.write(cache)?;
        process.leave_running();
    }
    state.environment = environment(cache)?;
    state.write(cache)?;
    Ok(state)
}

fn down(cache: &Cache) -> Result<()> {
    let state = State::read(cache)?;
    for (name, running) in &state.services {
        say(&format!("{name}: stop process {}", running.process.pid));
        running.process.stop();
        crate::tools::remove(&running.folder)?;
    }
    State::default().write(cache)
}

/// Installs what is missing, finds a port, starts the server and waits until it serves.
fn start(service: &dyn Service, cache: &Cache, folder: &Path, life: Life) -> Result<(Process, u16)> {
    let name = service.name();
    service.install(cache)?;
    let port = free_port()?;
    say(&format!("{name}: start on 127.0.0.1:{port}"));
    let process =
        service.start(cache, &Ground { folder, port, life }).with_context(|| format!("{name} does not start"))?;
    say(&format!("{name}: ready, process {}", process.id().pid));
    Ok((process, port))
}

/// Servers for one run. Dropping them stops them and removes their data.
pub(crate) struct Fleet {
    // Declared in the order of dropping: processes end before their folder goes.
    processes: Vec<(&'static str, Process)>,
    _folder: Scratch,
    /// Variables for whoever uses them.
    pub(crate) addresses: Addresses,
}

impl Fleet {
    /// Installs what the servers that tests need lack, before anything is started.
    ///
    /// # Errors
    /// When something cannot be installed.
    pub(crate) fn install(cache: &Cache) -> Result<()> {
        for service in chosen(&[])? {
            service.install(cache)?;
        }
        environment(cache)?;
        Ok(())
    }

    /// Starts the named servers, those that tests need when none is named, apart from those of `services up`.
    ///
    /// # Errors
    /// When one does not start; those that did are stopped again.
    pub(crate) fn start(cache: &Cache, names: &[&str]) -> Result<Self> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        Self::of(cache, chosen(&names)?)
    }

    /// Starts the servers of these names and no others, apart from those of `services up`.
    ///
    /// # Errors
    /// When one does not start; those that did are stopped again.
    pub(crate) fn start_only(cache: &Cache, names: &[&str]) -> Result<Self> {
        Self::of(cache, names.iter().map(|name| by_name(name)).collect::<Result<_>>()?)
    }

    fn of(cache: &Cache, services: Vec<&'static dyn Service>) -> Result<Self> {
        let folder = Scratch::new("services")?;
        let mut processes = Vec::new();
        let mut addresses = environment(cache)?;
        for service in services {
            let own = folder.path().join(service.name());
            fs::create_dir(&own).with_context(|| format!("make {}", own.display()))?;
            let (process, port) = start(service, cache, &own, Life::WithUs)?;
            processes.push((service.name(), process));
            addresses.extend(service.addresses(port));
        }
        addresses.extend(postgres::environment());
        Ok(Self { processes, _folder: folder, addresses })
    }

    /// The process of a server, by the server's name.
    pub(crate) fn process(&self, name: &str) -> Option<ProcessId> {
        self.processes.iter().find(|(other, _)| *other == name).map(|(_, process)| process.id())
    }
}

/// Versions of what a run is made of, for its evidence.
pub(crate) fn versions() -> serde_json::Value {
    serde_json::json!({ "hydrant": env!("CARGO_PKG_VERSION"), "minio": minio::VERSION })
}

/// Tools that tests call, by variable name.
pub(crate) fn environment(cache: &Cache) -> Result<Addresses> {
    crate::tools::debian(&[("zstd", "zstd"), ("curl", "curl"), ("gzip", "gzip")])?;
    let mut tools = python::Python::find(cache)?.environment()?;
    tools.extend(node::environment(cache)?);
    tools.extend(minio::environment(cache)?);
    Ok(tools)
}

/// One `NAME=value` per line.
fn env_file(addresses: &Addresses) -> String {
    let lines: Vec<String> = addresses.iter().map(|(name, value)| format!("{name}={value}")).collect();
    lines.join("\n") + "\n"
}

/// Reads a file of `NAME=value` lines; empty lines and those that start with `#` are skipped.
///
/// # Errors
/// When it cannot be read or a line is neither.
pub(crate) fn read_env_file(file: &Path) -> Result<Addresses> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (name, value) =
                line.split_once('=').with_context(|| format!("{}: not NAME=value: {line}", file.display()))?;
            Ok((name.to_owned(), value.to_owned()))
        })
        .collect()
}

/// A server that runs.
#[derive(Clone, Debug, Serialize, serde::Deserialize)]
struct Running {
    process: ProcessId,
    port: u16,
    folder: PathBuf,
    addresses: Addresses,
}

fn report(state: &State, output: Output) -> Result<()> {
    match output {
        Output::Json => print(&serde_json::to_string(&serde_json::json!({
            "services": state.services,
            "environment": state.addresses(),
        }))?)?,
        Output::Text if state.services.is_empty() => print("no service runs")?,
        Output::Text => {
            for (name, running) in &state.services {
                let (pid, port, folder) = (running.process.pid, running.port, running.folder.display());
                print(&format!("# {name}: 127.0.0.1:{port}, process {pid}, {folder}"))?;
            }
            print(env_file(&state.addresses()).trim_end())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
