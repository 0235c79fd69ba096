//! Redrives that commands ask a running server for.
//!
//! In: a call with a stream and what is to be put back. Out: how far it is, twice a second, and how it ended. A redrive
//! whose caller is gone stops behind the part that is under way, as does one of a server that stops.

use std::sync::Arc;

use hydrant_core::Clock;
use hydrant_core::secret::Secrets;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::PROGRESS_EVERY;
use crate::assemble::{Declared, Destinations, Node};
use crate::config::spec::{SinkSpec, Spec};
use crate::control::{Call, Early, Reply};
use crate::dead_letters::{Order, Redrive, RedriveError, Shelf, Tally};

/// The redrives under way.
pub(super) struct Redrives<'a> {
    spec: &'a Spec,
    secrets: &'a dyn Secrets,
    node: &'a Node,
    clock: &'a dyn Clock,
    stop: &'a CancellationToken,
    attended: JoinSet<()>,
}

impl<'a> Redrives<'a> {
    /// None yet. They end with `stop`.
    pub(super) fn new(
        spec: &'a Spec,
        secrets: &'a dyn Secrets,
        node: &'a Node,
        clock: &'a dyn Clock,
        stop: &'a CancellationToken,
    ) -> Self {
        Self { spec, secrets, node, clock, stop, attended: JoinSet::new() }
    }

    /// Begins one, and talks to its caller from now on.
    pub(super) fn begin(&mut self, mut call: Call, stream: &str, order: Order) {
        let (progress, seen) = watch::channel(Tally::default());
        match self.prepare(stream, order, progress) {
            Ok(redrive) => self.attended.spawn(attend(call, redrive, seen)),
            Err(message) => self.attended.spawn(async move {
                call.reply(&Reply::Failed { message }).await;
            }),
        };
    }

    /// Resolves when one has ended; never, if there is none. Cancel safe.
    pub(super) async fn ended(&mut self) {
        if self.attended.join_next().await.is_none() {
            std::future::pending::<()>().await;
        }
    }

    /// Never connects.
    fn prepare(&self, stream: &str, order: Order, progress: watch::Sender<Tally>) -> Result<Redrive, String> {
        let unknown = || format!("no stream `{stream}` is declared");
        let live = self.node.streams.get(stream).ok_or_else(unknown)?;
        let spec = self.spec.streams.get(stream).ok_or_else(unknown)?;
        let source = spec.dead_letter.store.config.open(self.secrets)?;
        let primary = match &spec.sink {
            SinkSpec::Objects(objects) => Some(Declared::new(self.secrets).store(&objects.store, &objects.encryption)?),
            SinkSpec::Pieces(_) => None,
        };
        let (stream, stop) = (Arc::clone(live), self.stop.child_token());
        let begun = self.clock.now();
        Ok(Redrive { stream, shelf: Shelf::new(spec, source), primary, order, begun, progress, stop })
    }
}

/// Runs a redrive to its end, and tells its caller of it.
async fn attend(mut call: Call, redrive: Redrive, seen: watch::Receiver<Tally>) {
    let stop = redrive.stop.clone();
    // On its own: what a part under way became must be known, whoever listens.
    let mut running = tokio::spawn(redrive.run());
    let ended = loop {
        match tokio::time::timeout(PROGRESS_EVERY, &mut running).await {
            Ok(ended) => break ended,
            Err(_elapsed) => {
                let tally = seen.borrow().clone();
                if !call.reply(&Reply::Redriving(tally)).await {
                    stop.cancel();
                }
            }
        }
    };
    let tally = Tally { waits_for: None, ..seen.borrow().clone() };
    let reply = match ended {
        Ok(Ok(tally)) => Reply::Redriven { tally, early: None },
        Ok(Err(error)) => Reply::Redriven { tally, early: Some(early(&error)) },
        Err(failed) => Reply::Failed { message: failed.to_string() },
    };
    call.reply(&reply).await;
}

fn early(error: &RedriveError) -> Early {
    let code = match error {
        RedriveError::Busy => "busy",
        RedriveError::Failed(_) => "stream_failed",
        RedriveError::Unread { .. } => "unreadable",
        RedriveError::Log(_) => "log",
        RedriveError::NotPlaced { .. } => "not_placed",
        RedriveError::TooMany => "too_many",
        RedriveError::Stopped => "stopped",
    };
    Early { code: code.to_owned(), message: error.to_string() }
}
