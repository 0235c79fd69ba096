//! Which servers `services up` left running: one small file per workspace in the cache folder.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::{fs, io};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::{Addresses, Running};
use crate::machine::workspace;
use crate::tools::Cache;

/// What runs.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// Servers by name.
    pub(super) services: BTreeMap<String, Running>,
    /// Variables that belong to no server.
    pub(super) environment: Addresses,
}

impl State {
    /// Reads what runs. Servers that have ended since are left out, and their data removed.
    ///
    /// # Errors
    /// When the file is there and cannot be read.
    pub(super) fn read(cache: &Cache) -> Result<Self> {
        let path = path(cache);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
        };
        let mut state: Self = serde_json::from_str(&text).with_context(|| format!("read {}", path.display()))?;
        for (_, ended) in state.services.extract_if(.., |_, running| !running.process.is_running()) {
            crate::tools::remove(&ended.folder)?;
        }
        Ok(state)
    }

    /// Writes what runs; removes the file when nothing does.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(&self, cache: &Cache) -> Result<()> {
        let path = path(cache);
        if self.services.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(error).with_context(|| format!("remove {}", path.display()))
                }
                _ => Ok(()),
            };
        }
        fs::write(&path, serde_json::to_string_pretty(self)?).with_context(|| format!("write {}", path.display()))
    }

    /// All variables.
    pub(super) fn addresses(&self) -> Addresses {
        let of_services = self.services.values().flat_map(|running| running.addresses.clone());
        of_services.chain(self.environment.clone()).collect()
    }
}

fn path(cache: &Cache) -> PathBuf {
    let workspace = workspace().to_string_lossy().replace('/', "-");
    cache.path(&format!("services{workspace}.json"))
}
