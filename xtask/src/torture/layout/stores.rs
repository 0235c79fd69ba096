//! Streams of whole objects: each kind into each store.
//!
//! | stream | is there for | its destination |
//! |---|---|---|
//! | `aged`, `sized`, `prompt` | the three reasons to seal: age, size, room | takes everything |
//! | `deep` | a backlog of several segments: nothing is sealed for ten seconds | takes everything |
//! | `turned` | every object goes to the dead-letter store | denies: 403, or a folder that cannot be |
//! | `late` | a backlog in the outbox | is dead, then alive; the bucket again and again |
//! | `slow` | attempts that are under way when a kill comes | takes some KiB at a time |
//!
//! Each is declared once for each store, but for `slow`: a folder cannot be slow.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;
use serde_json::json;

use super::{Ground, Layout, Misfits, letters, spare};
use crate::kit::Proxy;
use crate::node::{Bucket, bucket_as, folder};
use crate::services::Addresses;

/// Rounds for which a destination that dies again and again stays as it is.
const LATE_ROUNDS: u64 = 8;

/// How long the slow destination takes for each 16 KiB.
const SLOW: &str = "slow 20";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Store {
    Minio,
    File,
}

/// A kind of stream, declared once for each store.
struct Kind {
    name: &'static str,
    hints: &'static str,
    compression: &'static str,
    delimiter: &'static str,
    /// The store's role: as it is, or one of those that misbehave.
    role: Role,
    retry_for: &'static str,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Good,
    Denied,
    Late,
    Slow,
}

const KINDS: &[Kind] = &[
    Kind::good("aged", "{ size: 5MiB, interval: 1s }", "gzip", "none"),
    Kind::good("sized", "{ size: 1MiB, interval: 10s }", "zstd", "newline"),
    Kind::good("prompt", "{ size: 5MiB, interval: 0s }", "{ gzip: fast }", "none"),
    Kind::good("deep", "{ size: 32MiB, interval: 10s }", "zstd", "none"),
    Kind {
        role: Role::Denied,
        retry_for: "0s",
        ..Kind::good("turned", "{ size: 1MiB, interval: 1s }", "gzip", "newline")
    },
    Kind { role: Role::Late, ..Kind::good("late", "{ size: 4MiB, interval: 1s }", "zstd", "none") },
    Kind { role: Role::Slow, ..Kind::good("slow", "{ size: 1MiB, interval: 1s }", "{ gzip: fast }", "none") },
];

impl Kind {
    const fn good(name: &'static str, hints: &'static str, compression: &'static str, delimiter: &'static str) -> Self {
        Self { name, hints, compression, delimiter, role: Role::Good, retry_for: "forever" }
    }

    fn yaml(&self, name: &str, store: Store, prefix: &str) -> String {
        let Self { hints, compression, delimiter, retry_for, .. } = self;
        let (sink, store) = (store.sink(), store.of_role(self.role));
        format!(
            "  {name}:
    hints: {hints}
    retry_for: {retry_for}
    sink:
      {sink}: {{ store: {store}, prefix: \"{prefix}\", compression: {compression}, delimiter: {delimiter} }}
"
        )
    }
}

impl Store {
    fn name(self) -> &'static str {
        match self {
            Self::Minio => "minio",
            Self::File => "folder",
        }
    }

    fn sink(self) -> &'static str {
        match self {
            Self::Minio => "s3",
            Self::File => "file",
        }
    }

    /// The name of the store that plays this role.
    fn of_role(self, role: Role) -> String {
        let role = match role {
            Role::Good => return self.name().to_owned(),
            Role::Denied => "denied",
            Role::Late => "late",
            Role::Slow => "slow",
        };
        format!("{}-{role}", self.name())
    }
}

/// Each kind of stream for each store. One bucket serves many runs: each has a prefix of its own.
pub(super) fn layout(ground: Ground<'_>, stores: &[Store], addresses: &Addresses) -> Result<Layout> {
    let Ground { seed, scratch, .. } = ground;
    let run = format!("torture-{seed}-{}", std::process::id());
    let misfits = Stores::start(ground, stores, addresses)?;
    let mut declared = format!("stores:\n{}", spare(ground));
    let (mut streams, mut plans) = (String::new(), Vec::new());
    for store in stores {
        declared.push_str(&misfits.stores(*store, scratch, addresses)?);
        for kind in KINDS.iter().filter(|kind| *store == Store::Minio || kind.role != Role::Slow) {
            let name = format!("{}-{}", kind.name, store.name());
            let prefix = format!("{run}/{name}/");
            let (dead_letter, spare) = letters(ground, &name);
            streams.push_str(&(kind.yaml(&name, *store, &prefix) + &dead_letter));
            let place = match (store, kind.role) {
                (Store::Minio, role) => {
                    let bucket = if role == Role::Denied { Bucket::Denied } else { Bucket::Main };
                    json!({ "s3": {
                        "endpoint": addresses.get("HYDRANT_TEST_S3_ENDPOINT"),
                        "bucket": addresses.get(bucket.variable()),
                        "prefix": prefix,
                    } })
                }
                (Store::File, Role::Late) => json!({ "folder": scratch.join("late").join(&prefix) }),
                (Store::File, _) => json!({ "folder": scratch.join("objects").join(&prefix) }),
            };
            plans.push(json!({ "name": name, "delimiter": kind.delimiter, "places": [place, spare] }));
        }
    }
    let plan = json!({ "seed": seed, "streams": plans });
    Ok(Layout { yaml: format!("{declared}streams:\n{streams}"), plan, misfits: Box::new(misfits) })
}

/// The destinations that misbehave, until they are healed.
struct Stores {
    late: Option<Proxy>,
    slow: Option<Proxy>,
    /// A file where a folder is to be: nothing can be placed below it.
    blocked: PathBuf,
    is_dead: bool,
}

impl Stores {
    fn start(Ground { programs, scratch, .. }: Ground<'_>, stores: &[Store], addresses: &Addresses) -> Result<Self> {
        let proxy = |order: &str| -> Result<Option<Proxy>> {
            if !stores.contains(&Store::Minio) {
                return Ok(None);
            }
            let endpoint = addresses.get("HYDRANT_TEST_S3_ENDPOINT").context("the address of MinIO")?;
            let mut proxy = Proxy::start(programs, endpoint)?;
            proxy.order(order)?;
            Ok(Some(proxy))
        };
        let blocked = scratch.join("late");
        fs::write(&blocked, "in the way").context("block a folder")?;
        fs::write(scratch.join("no-folder"), "in the way").context("block a folder")?;
        Ok(Self { late: proxy("refuse")?, slow: proxy(SLOW)?, blocked, is_dead: true })
    }

    /// The `stores:` of all roles.
    fn stores(&self, store: Store, scratch: &Path, addresses: &Addresses) -> Result<String> {
        let name = |role| store.of_role(role);
        Ok(match store {
            Store::Minio => {
                let through = |proxy: &Option<Proxy>| proxy.as_ref().map(Proxy::endpoint);
                bucket_as(&name(Role::Good), Bucket::Main, None, addresses)?
                    + &bucket_as(&name(Role::Denied), Bucket::Denied, None, addresses)?
                    + &bucket_as(&name(Role::Late), Bucket::Main, through(&self.late), addresses)?
                    + &bucket_as(&name(Role::Slow), Bucket::Main, through(&self.slow), addresses)?
            }
            Store::File => {
                folder(&name(Role::Good), &scratch.join("objects"))
                    + &folder(&name(Role::Denied), &scratch.join("no-folder/objects"))
                    + &folder(&name(Role::Late), &self.blocked)
            }
        })
    }

    fn unblock(&self) -> Result<()> {
        if self.blocked.is_file() {
            fs::remove_file(&self.blocked).context("unblock a folder")?;
        }
        Ok(())
    }
}

impl Misfits for Stores {
    fn turn(&mut self, round: u64, rounds: u64) -> Result<()> {
        if round == rounds.div_ceil(4) {
            self.unblock()?;
        }
        let dead = (round / LATE_ROUNDS).is_multiple_of(2);
        if let Some(late) = self.late.as_mut().filter(|_| dead != self.is_dead) {
            late.order(if dead { "refuse" } else { "none" })?;
            self.is_dead = dead;
        }
        Ok(())
    }

    fn heal(&mut self) -> Result<()> {
        self.unblock()?;
        for proxy in [&mut self.late, &mut self.slow].into_iter().flatten() {
            proxy.order("none")?;
        }
        Ok(())
    }
}
