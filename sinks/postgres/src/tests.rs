//! The promises of a piece sink on a real PostgreSQL, with a proxy on the way, and what is particular to tables.

mod cuts;
mod live;
mod poison;
mod rows;
mod settings;
mod world;

use std::collections::BTreeMap;

use hydrant_core::secret::{Secret, SecretRef, Secrets};

/// Secrets by the name of their variable.
#[derive(Clone, Debug, Default)]
struct Known(BTreeMap<&'static str, String>);

impl Secrets for Known {
    fn resolve(&self, reference: &SecretRef) -> Result<Secret, String> {
        let SecretRef::Env(name) = reference else { return Err(format!("{reference} cannot be read")) };
        self.0.get(name.as_str()).map(Secret::new).ok_or_else(|| format!("{reference} is not set"))
    }
}

fn password(value: &str) -> Known {
    Known([("PASSWORD", value.to_owned())].into())
}
