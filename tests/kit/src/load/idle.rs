//! A crowd that holds connections and says nothing, and what it costs those who have something to say.
//!
//! In: a plan. Out: a report of what healthy clients waited for their acknowledgements without the crowd and with it, how
//! many connections it held, and what the server's memory was. The crowd opens again whatever the server closes.

#![expect(clippy::disallowed_methods, reason = "clients live on the real clock")]

use std::io::{ErrorKind, Read};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde::Serialize;

use super::bench::Latency;
use super::put::{Outcome, Producer, Put, Target, outcome};
use crate::histogram::Histogram;

/// Files that this process needs besides the crowd's connections.
const OTHER_FILES: u64 = 100;

/// Connections that are opened before the crowd looks at those it has. Waves, so that the server's queue of new
/// connections does not overflow.
const WAVE: usize = 100;

/// How long the crowd rests between two waves.
const REST: Duration = Duration::from_millis(10);

/// How long the crowd may take to gather.
const GATHERED_WITHIN: Duration = Duration::from_mins(1);

/// How long a healthy client waits between two puts: a latency is measured here, not a throughput.
const PAUSE: Duration = Duration::from_millis(5);

/// What to do.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where to.
    pub target: Target,
    /// The stream of the healthy clients.
    pub stream: String,
    /// Healthy clients, a thread each.
    pub clients: usize,
    /// Connections of the crowd, if this process may have as many.
    pub crowd: usize,
    /// How long the clients put without the crowd, and again with it.
    pub time: Duration,
    /// The server's process, to look at its memory.
    pub server: Option<u32>,
}

/// What came of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Connections the crowd wanted to hold.
    pub crowd: usize,
    /// Connections that it held at once, at most.
    pub held_most: usize,
    /// Connections that it opened in all.
    pub opened: usize,
    /// Acknowledgements of the healthy clients without the crowd, in milliseconds.
    pub ack_ms_alone: Latency,
    /// The same with it.
    pub ack_ms_crowded: Latency,
    /// How many puts were acknowledged, in both times together.
    pub acknowledged: u64,
    /// How many were not.
    pub failed: u64,
    /// Resident memory of the server before the crowd came and while it was there, in MiB.
    pub server_rss_mib: Option<[f64; 2]>,
}

/// What the crowd has done so far.
#[derive(Default)]
struct Crowd {
    is_over: AtomicBool,
    held_most: AtomicUsize,
    opened: AtomicUsize,
}

#[derive(Default)]
struct Tally {
    acknowledged: u64,
    failed: u64,
    latency: Histogram,
}

/// Measures.
///
/// # Errors
/// When nothing was acknowledged, or the server cannot be reached.
///
/// # Panics
/// When one of its own threads does.
pub fn run(plan: &Plan) -> anyhow::Result<Report> {
    let files = raise_file_limit();
    let crowd = plan.crowd.min(usize::try_from(files.saturating_sub(OTHER_FILES)).unwrap_or(usize::MAX));
    let host = plan.target.endpoint.strip_prefix("http://").context("the endpoint is not http://")?;
    let address = host.to_socket_addrs()?.next().context("the endpoint has no address")?;
    let alone = put_for(plan)?;
    let rss_before = plan.server.and_then(rss_mib);
    let state = Crowd::default();
    let crowded = thread::scope(|scope| {
        scope.spawn(|| hold(address, crowd, &state));
        let crowded = gather(crowd, &state).and_then(|()| put_for(plan));
        let rss = plan.server.and_then(rss_mib);
        state.is_over.store(true, Relaxed);
        crowded.map(|tally| (tally, rss))
    });
    let (crowded, rss_crowded) = crowded?;
    Ok(Report {
        crowd,
        held_most: state.held_most.into_inner(),
        opened: state.opened.into_inner(),
        ack_ms_alone: Latency::of(&alone.latency),
        ack_ms_crowded: Latency::of(&crowded.latency),
        acknowledged: alone.acknowledged + crowded.acknowledged,
        failed: alone.failed + crowded.failed,
        server_rss_mib: rss_before.zip(rss_crowded).map(|(before, with)| [before, with]),
    })
}

/// Waits until everybody has come once. Not all of them need be held: the server may have turned some away.
fn gather(crowd: usize, state: &Crowd) -> anyhow::Result<()> {
    let start = Instant::now();
    while state.opened.load(Relaxed) < crowd {
        ensure!(start.elapsed() < GATHERED_WITHIN, "the crowd did not gather: {}", state.opened.load(Relaxed));
        thread::sleep(REST);
    }
    Ok(())
}

/// Opens connections, says nothing, and opens others in the place of those that were closed.
fn hold(address: SocketAddr, crowd: usize, state: &Crowd) {
    let mut held: Vec<TcpStream> = Vec::with_capacity(crowd);
    while !state.is_over.load(Relaxed) {
        for _ in 0..WAVE.min(crowd - held.len()) {
            let Ok(socket) = TcpStream::connect(address) else { break };
            if socket.set_nonblocking(true).is_ok() {
                held.push(socket);
                state.opened.fetch_add(1, Relaxed);
            }
        }
        state.held_most.fetch_max(held.len(), Relaxed);
        held.retain_mut(|socket| {
            // Whatever is said is a refusal, and the end comes behind it.
            matches!(socket.read(&mut [0; 512]), Err(error) if error.kind() == ErrorKind::WouldBlock)
        });
        thread::sleep(REST);
    }
}

/// Puts single records over kept connections for the time of the plan.
fn put_for(plan: &Plan) -> anyhow::Result<Tally> {
    let put = Put::single(&plan.stream, &[b'x'; 1024]);
    let tallies: Vec<anyhow::Result<Tally>> = thread::scope(|scope| {
        let clients: Vec<_> = (0..plan.clients).map(|_| scope.spawn(|| put_until_done(plan, &put))).collect();
        let join = |client: thread::ScopedJoinHandle<'_, _>| {
            client.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        clients.into_iter().map(join).collect()
    });
    let mut all = Tally::default();
    for tally in tallies {
        let tally = tally?;
        all.acknowledged += tally.acknowledged;
        all.failed += tally.failed;
        all.latency.merge(&tally.latency);
    }
    ensure!(all.acknowledged > 0, "nothing was acknowledged");
    Ok(all)
}

fn put_until_done(plan: &Plan, put: &Put) -> anyhow::Result<Tally> {
    let mut producer = Producer::new(&plan.target)?;
    let mut tally = Tally::default();
    let start = Instant::now();
    while start.elapsed() < plan.time {
        let sent = Instant::now();
        // A connection may be closed between two puts; the next one opens another, as every SDK does.
        match producer.send(put).map(|answer| outcome(put, 1, &answer)) {
            Ok(Outcome::Answered(_)) => {
                tally.latency.add(sent.elapsed());
                tally.acknowledged += 1;
            }
            Ok(Outcome::Refused(_) | Outcome::Unknown(_)) | Err(_) => tally.failed += 1,
        }
        thread::sleep(PAUSE);
    }
    Ok(tally)
}

/// As many open files as this process may have; gives back how many that are.
fn raise_file_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    // What cannot be raised stays as it is, and the report says how many there were.
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).ok();
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Resident memory of a process, in MiB.
fn rss_mib(process: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib / 1024.0)
}
