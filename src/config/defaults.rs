//! What is true when the document does not say. Each value with its reason; `docs/configuration.md` shows the same.

use std::ops::RangeInclusive;
use std::time::Duration;

use hydrant_core::ByteSize;

use super::spec::Hints;

/// Loopback, because nobody can be turned away before credentials are declared; a port no common server uses.
pub const LISTEN: &str = "127.0.0.1:4573";

/// Beside the configuration of somebody who tries it out. An installation names a disk of its own.
pub const DATA: &str = "./hydrant-data";

/// The region that SDKs, tools and examples assume most often.
pub const REGION: &str = "us-east-1";

/// What local stand-ins of AWS use; no real account has it.
pub const ACCOUNT: &str = "000000000000";

/// Holds a full 5 MiB buffer for some twenty routes, on the smallest machine that is worth running on.
pub const MEMORY: ByteSize = ByteSize::mib(128);

/// More than any agent opens, room for a proxy or a network behind one address, and a twelfth of what a server has.
pub const CONNECTIONS_PER_ADDRESS: u32 = 1024;

/// From one up to as many as a server has.
pub const CONNECTIONS_PER_ADDRESS_RANGE: RangeInclusive<u32> = 1..=12_288;

/// Below this the budget cannot hold a slice, a buffer being encoded and a request at their largest.
pub const MEMORY_MIN: ByteSize = ByteSize::mib(16);

/// An hour of records at 5 MiB/s, the service's own quota for a stream.
pub const DISK: ByteSize = ByteSize::gib(20);

/// A quarter of the whole: one dead destination must not fill everything.
pub const DISK_PER_STREAM: ByteSize = ByteSize::gib(5);

/// Room for the first segments of the log, the ledger, the reserve for dead letters and one small batch.
pub const DISK_PER_STREAM_MIN: ByteSize = ByteSize::mib(16);

/// Just below the 30 s after which container engines and service managers kill.
pub const GRACE: Duration = Duration::from_secs(25);

/// Whoever waits longer for a stop has forgotten it.
pub const GRACE_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(1);

/// The service's own for objects. Source: `BufferingHints`, service API reference.
pub const HINTS: Hints = Hints { size: ByteSize::mib(5), interval: Duration::from_mins(5) };

/// Dead letters are waited for by a person, so they are sealed sooner: the shortest the service offers for its
/// error output.
pub const DEAD_LETTER_HINTS: Hints = Hints { size: ByteSize::mib(5), interval: Duration::from_mins(1) };

/// The service's range. Source: `SizeInMBs`, service API reference.
pub const SIZE_RANGE: RangeInclusive<ByteSize> = ByteSize::mib(1)..=ByteSize::mib(128);

/// The service's range; zero is its zero buffering. Source: `IntervalInSeconds`, service API reference.
pub const INTERVAL_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_mins(15);

/// What lasts longer than a year is `forever`, and should say so.
pub const RETRY_FOR_RANGE: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_hours(366 * 24);
