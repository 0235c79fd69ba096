//! The guard of one connection: ends when the connection has used up its time.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::Poll;

use tokio::sync::watch;
use tokio::time::sleep_until;

use super::activity::Activity;
use crate::api::Limits;

/// Resolves when the connection must be closed.
///
/// Lives in the task of its connection, so it is polled after everything that the connection did, and looks at the
/// deadline each time: a deadline that came closer is seen at once, one that moved away when the timer rings.
pub(super) async fn expired(activity: Arc<Activity>, limits: Limits, mut full: watch::Receiver<bool>) {
    let mut timer = std::pin::pin!(sleep_until(tokio::time::Instant::now() + limits.idle));
    loop {
        let is_full = *full.borrow_and_update();
        let due = poll_fn(|cx| {
            let Some(deadline) = activity.deadline(&limits, is_full) else { return Poll::Pending };
            if deadline < timer.deadline() || timer.is_elapsed() {
                timer.as_mut().reset(deadline);
            }
            // The timer may ring for a deadline that has moved since: then it is set again.
            while timer.as_mut().poll(cx).is_ready() {
                match activity.deadline(&limits, is_full) {
                    Some(deadline) if deadline > timer.deadline() => timer.as_mut().reset(deadline),
                    Some(_) => return Poll::Ready(()),
                    None => return Poll::Pending,
                }
            }
            Poll::Pending
        });
        tokio::select! {
            biased;
            () = due => return,
            changed = full.changed() => if changed.is_err() { return },
        }
    }
}
