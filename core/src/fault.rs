//! Faults: why something was not delivered, told to machines by a code and to people by a sentence.

use std::fmt;
use std::time::Duration;

/// Why a delivery failed. Holds no credentials and no record bytes: it is logged, shown and stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Fault {
    /// What kind of failure it was.
    pub code: FaultCode,
    /// One sentence for a person: lower case, no full stop.
    pub message: String,
    /// How long the destination asked us to wait.
    pub retry_after: Option<Duration>,
}

impl Fault {
    /// A fault without a wish about the next attempt.
    pub fn new(code: FaultCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), retry_after: None }
    }

    /// The same fault with the destination's wish about when to come back.
    #[must_use]
    pub fn retry_after(self, wait: Duration) -> Self {
        Self { retry_after: Some(wait), ..self }
    }
}

/// The kinds of failure. Codes are stable: metrics, logs, dead letters and `/ready` show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum FaultCode {
    /// Nothing listens, or the name does not resolve, or TLS could not be agreed on.
    Unreachable,
    /// No answer in time. What happened at the destination is not known.
    TimedOut,
    /// The connection ended before the answer was complete. What happened at the destination is not known.
    Interrupted,
    /// The destination asks for less.
    Throttled,
    /// The destination says that it failed (5xx and its like).
    Unavailable,
    /// Credentials are missing, wrong or expired.
    Unauthenticated,
    /// Credentials are good, the act is not allowed.
    Forbidden,
    /// The bucket, table, index or folder does not exist.
    NotFound,
    /// Another writer got in the way; the same attempt may pass later.
    Conflict,
    /// The destination has no room.
    Full,
    /// The destination does not take something that this large.
    TooLarge,
    /// The bytes do not fit the destination's types or schema.
    Invalid,
    /// The destination answered with something that its protocol does not allow.
    Protocol,
    /// The batch could not be read from the outbox.
    Damaged,
    /// The attempt ended without an answer because our own code failed.
    Internal,
}

impl FaultCode {
    /// The code as it is written: kebab-case, stable.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreachable => "unreachable",
            Self::TimedOut => "timed-out",
            Self::Interrupted => "interrupted",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::NotFound => "not-found",
            Self::Conflict => "conflict",
            Self::Full => "full",
            Self::TooLarge => "too-large",
            Self::Invalid => "invalid",
            Self::Protocol => "protocol",
            Self::Damaged => "damaged",
            Self::Internal => "internal",
        }
    }

    /// Whether it will last until somebody mends it: configuration, rights, room, network.
    pub const fn is_for_operators(self) -> bool {
        match self {
            Self::Unreachable
            | Self::Unauthenticated
            | Self::Forbidden
            | Self::NotFound
            | Self::Full
            | Self::TooLarge
            | Self::Invalid
            | Self::Damaged => true,
            Self::TimedOut
            | Self::Interrupted
            | Self::Throttled
            | Self::Unavailable
            | Self::Conflict
            | Self::Protocol
            | Self::Internal => false,
        }
    }

    /// Whether the destination may have taken what we sent although it did not say so.
    pub const fn outcome_unknown(self) -> bool {
        matches!(self, Self::TimedOut | Self::Interrupted | Self::Protocol | Self::Internal | Self::Unavailable)
    }
}

impl fmt::Display for FaultCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
