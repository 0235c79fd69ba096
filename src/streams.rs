//! The directory of live streams: what the API sees of them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use hydrant_core::{Span, Timestamp};
use hydrant_storage::log::{AppendError, Log, Payloads};

use crate::config::spec::StreamSpec;

/// The live streams by name.
#[derive(Debug, Default)]
pub struct Streams {
    by_name: BTreeMap<String, Arc<LiveStream>>,
}

impl Streams {
    /// The directory of these streams.
    pub fn new(streams: impl IntoIterator<Item = LiveStream>) -> Self {
        Self { by_name: streams.into_iter().map(|stream| (stream.spec.name.clone(), Arc::new(stream))).collect() }
    }

    /// The stream of this name.
    pub fn get(&self, name: &str) -> Option<&Arc<LiveStream>> {
        self.by_name.get(name)
    }

    /// Streams in the order of their names, those behind `after` only.
    pub fn list(&self, after: Option<&str>) -> impl Iterator<Item = &Arc<LiveStream>> {
        self.by_name.values().filter(move |stream| after.is_none_or(|after| stream.spec.name.as_str() > after))
    }
}

/// A stream as the API sees it: takes records, describes itself, tells how it is.
#[derive(Debug)]
pub struct LiveStream {
    spec: StreamSpec,
    identity: Identity,
    log: Log,
    health: Arc<Health>,
}

/// What a stream is besides its specification, kept in the data directory.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Drawn when the stream was made; another stream of the same name has another one.
    pub incarnation: u64,
    /// Starts at 1 and grows by one when a start finds another definition.
    pub version: u64,
    /// When the stream was first declared.
    pub created_at: Timestamp,
    /// When its definition last changed, if ever.
    pub updated_at: Option<Timestamp>,
}

impl LiveStream {
    /// A stream made of its parts.
    pub fn new(spec: StreamSpec, identity: Identity, log: Log, health: Arc<Health>) -> Self {
        Self { spec, identity, log, health }
    }

    /// As it was declared.
    pub fn spec(&self) -> &StreamSpec {
        &self.spec
    }

    /// What it is besides.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// How it is.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Stores records. Resolves when they are durable, all of them, with their positions; after an error none is.
    ///
    /// Cancel safe: a dropped call may still store its records, as any request may whose answer was lost.
    ///
    /// # Errors
    /// See [`AppendError`].
    pub async fn append(&self, payloads: Payloads) -> Result<Span, AppendError> {
        self.log.append(payloads).await
    }
}

/// How a stream is: its state for `/ready`, kept by its loops.
#[derive(Debug, Default)]
pub struct Health {
    state: Mutex<State>,
}

/// The states of a stream.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// All is well as far as we know.
    #[default]
    Healthy,
    /// Its destination does not take what we send, for a reason that somebody can mend.
    Degraded(Ailment),
    /// It takes nothing until the process is started again, or its directory is mended.
    Failed(Ailment),
}

/// What is wrong with a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ailment {
    /// Since when.
    pub since: Timestamp,
    /// A stable code.
    pub code: &'static str,
    /// A sentence.
    pub message: String,
}

impl Health {
    /// The state now.
    pub fn state(&self) -> State {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    /// Replaces the state; gives back the one before.
    pub fn set(&self, state: State) -> State {
        std::mem::replace(&mut self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner), state)
    }
}
