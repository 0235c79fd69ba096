//! What streams there are, as the server and as the oracle are told, and the destinations that misbehave.
//!
//! In: where the streams are to deliver to. Out: YAML, a plan, and a handle on what can be made to fail and healed again.
//! Each kind of destination has a file of its own, with a table of its streams.

mod http;
mod postgres;
mod proxies;
mod stores;

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

pub(crate) use self::stores::Store;

use crate::node::folder;
use crate::services::{Addresses, Fleet};

/// What streams there are.
pub(crate) struct Layout {
    /// The server's YAML from `stores:` on.
    pub(crate) yaml: String,
    /// The oracle's plan.
    pub(crate) plan: Value,
    /// The destinations that misbehave.
    pub(crate) misfits: Box<dyn Misfits>,
}

/// Destinations that misbehave, until they are healed.
pub(crate) trait Misfits {
    /// Lets destinations die and live, as is the turn of this round of so many.
    fn turn(&mut self, round: u64, rounds: u64) -> Result<()>;

    /// Every destination that can be healed is.
    fn heal(&mut self) -> Result<()>;

    /// What they noted, for the result.
    ///
    /// # Errors
    /// When they noted anything that is wrong.
    fn report(&mut self) -> Result<Value> {
        Ok(Value::Null)
    }
}

/// What each layout needs to know of its run.
#[derive(Clone, Copy)]
pub(crate) struct Ground<'a> {
    /// Decides payloads and faults.
    pub(crate) seed: u64,
    /// Where our programs are.
    pub(crate) programs: &'a Path,
    /// A folder for this run.
    pub(crate) scratch: &'a Path,
}

impl Layout {
    /// Each kind of stream for each store.
    pub(crate) fn of_stores(ground: Ground<'_>, stores: &[Store], addresses: &Addresses) -> Result<Self> {
        stores::layout(ground, stores, addresses)
    }

    /// Streams of requests to receivers that are started for them.
    pub(crate) fn of_requests(ground: Ground<'_>) -> Result<Self> {
        http::layout(ground)
    }

    /// Streams into tables of this PostgreSQL.
    pub(crate) fn of_tables(ground: Ground<'_>, fleet: &Fleet) -> Result<Self> {
        postgres::layout(ground, fleet)
    }
}

/// The store of all dead letters, as YAML.
fn spare(ground: Ground<'_>) -> String {
    folder("spare", &ground.scratch.join("spare"))
}

/// Where the dead letters of a stream lie, as YAML and for the oracle.
fn letters(ground: Ground<'_>, stream: &str) -> (String, Value) {
    let yaml = format!(
        "    dead_letter: {{ store: spare, error_prefix: \"{stream}/\", hints: {{ size: 5MiB, interval: 1s }} }}\n"
    );
    (yaml, json!({ "folder": ground.scratch.join("spare").join(stream) }))
}
