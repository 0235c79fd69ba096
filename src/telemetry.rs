//! Telemetry: every metric the program has, in one list, and the shape of its log.
//!
//! Metrics are read from the live streams when somebody asks; nothing is counted twice. Labels are stream names, and
//! reasons from fixed lists, so they never grow with the data.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};
use tracing_subscriber::EnvFilter;

use hydrant_core::Clock;
use hydrant_storage::timing::{BOUNDS_MICROS, Histogram};

use crate::stream::budget::Budget;
use crate::stream::buffer::Reason;
use crate::streams::{LiveStream, State, Streams};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// For people: one line each, coloured on a terminal.
    #[default]
    Text,
    /// For programs: one JSON object per line.
    Json,
}

/// Sends log lines to standard error, at level `info` unless `HYDRANT_LOG` asks for something else
/// (`debug`, `hydrant=trace`, …).
pub fn log_to_stderr(format: LogFormat) {
    let wanted = std::env::var("HYDRANT_LOG").unwrap_or_default();
    let filter = filter(&wanted);
    let is_understood = wanted.is_empty() || filter.is_some();
    let filter = filter.unwrap_or_else(|| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let set = match format {
        LogFormat::Text => builder.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    drop(set); // a test may have set another one, which then stays
    if !is_understood {
        tracing::warn!(HYDRANT_LOG = wanted, "not understood: `info` is taken, as in `debug` or `hydrant=trace`");
    }
}

/// What to log; none when the wish is empty or cannot be meant. A bare word that is no level would name a module that
/// there is not, and silence everything.
fn filter(wanted: &str) -> Option<EnvFilter> {
    let is_level = |word: &str| word.parse::<tracing_subscriber::filter::LevelFilter>().is_ok();
    let can_be_meant = |part: &str| part.contains('=') || is_level(part) || part.starts_with("hydrant");
    let is_meant = !wanted.is_empty() && wanted.split(',').map(str::trim).all(can_be_meant);
    EnvFilter::builder().parse(wanted).ok().filter(|_| is_meant)
}

/// Everything that `/metrics` shows.
pub struct Metrics {
    registry: Registry,
}

impl Metrics {
    /// The metrics of these streams.
    pub fn new(streams: Arc<Streams>, budget: Arc<Budget>, clock: Arc<dyn Clock>) -> Self {
        let mut registry = Registry::with_prefix("hydrant");
        registry.register_collector(Box::new(Readings { streams, budget, clock }));
        Self { registry }
    }

    /// The text that a scrape gets, in the `OpenMetrics` format.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a string fails only if an encoder above does, and then there is nothing to show.
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap_or_default();
        text
    }
}

#[derive(Debug)]
struct Readings {
    streams: Arc<Streams>,
    budget: Arc<Budget>,
    clock: Arc<dyn Clock>,
}

type Read<T> = fn(&LiveStream) -> T;

/// Counters per stream: name, help, unit, reading. `_total` is added to the name by the format.
const COUNTERS: [(&str, &str, Option<Unit>, Read<u64>); 12] = [
    ("stream_records_in", "Records acknowledged", None, |s| s.counters().records_in.get()),
    ("stream_in", "Payload bytes acknowledged", Some(Unit::Bytes), |s| s.counters().bytes_in.get()),
    ("stream_records_throttled", "Records answered with Slow down", None, |s| s.counters().records_throttled.get()),
    ("stream_records_out", "Records that the destination confirmed", None, |s| s.counters().records_out.get()),
    ("stream_out", "Bytes before compression that the destination confirmed", Some(Unit::Bytes), |s| {
        s.counters().bytes_out.get()
    }),
    ("stream_batches_out", "Batches that the destination confirmed", None, |s| s.counters().batches_out.get()),
    ("stream_attempts_failed", "Attempts that ended without a confirmation", None, |s| {
        s.counters().attempts_failed.get()
    }),
    ("stream_batches_redirected", "Batches turned to the dead-letter store", None, |s| {
        s.counters().batches_redirected.get()
    }),
    ("stream_records_refused", "Records that went to dead letters", None, |s| s.counters().records_refused.get()),
    ("stream_records_discarded", "Records thrown away as the configuration says", None, |s| {
        s.counters().records_discarded.get()
    }),
    ("stream_records_redriven", "Dead letters put back, beside the records acknowledged", None, |s| {
        s.counters().records_redriven.get()
    }),
    ("stream_records_lost", "Records gone through damage or asked-for expiry", None, |s| {
        s.counters().records_lost.get()
    }),
];

/// Levels per stream: name, help, unit, reading.
const GAUGES: [(&str, &str, Option<Unit>, Read<u64>); 7] = [
    ("stream_records_waiting", "Records acknowledged and not settled", None, LiveStream::waiting),
    ("stream_batches_waiting", "Batches in the outbox", None, |s| s.counters().batches_waiting.get()),
    ("stream_letters_waiting", "Records that were refused and are to be sealed as dead letters", None, |s| {
        s.counters().letters_waiting.get()
    }),
    ("stream_log", "Bytes of the log on disk", Some(Unit::Bytes), |s| s.log().usage().bytes),
    ("stream_disk", "Bytes of log, outbox and ledger on disk", Some(Unit::Bytes), |s| s.share().used()),
    (
        "stream_degraded",
        "1 while the destination does not take records for a reason that somebody can mend",
        None,
        |s| u64::from(matches!(s.health().state(), State::Degraded(_))),
    ),
    ("stream_failed", "1 while the stream delivers nothing until it is mended", None, |s| {
        u64::from(matches!(s.health().state(), State::Failed(_)))
    }),
];

/// Durations per stream: name, help, reading.
const HISTOGRAMS: [(&str, &str, Read<Histogram>); 2] = [
    ("log_fsync", "Time of one fsync of the log", |s| s.log().usage().syncs),
    ("outbox_fsync", "Time of one fsync of the outbox, of a file or the folder", |s| s.counters().outbox_fsyncs()),
];

impl Collector for Readings {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        for (name, help, unit, read) in &COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            for stream in self.streams.list(None) {
                ConstCounter::new(read(stream)).encode(family.encode_family(&label(stream))?)?;
            }
        }
        let mut family = encoder.encode_descriptor(
            "stream_batches_sealed",
            "Batches sealed, by reason",
            None,
            MetricType::Counter,
        )?;
        for stream in self.streams.list(None) {
            for reason in Reason::ALL {
                let labels = [("stream", stream.spec().name.as_str()), ("reason", reason.as_str())];
                ConstCounter::new(stream.counters().sealed_for(reason)).encode(family.encode_family(&labels)?)?;
            }
        }
        for (name, help, unit, read) in &GAUGES {
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            for stream in self.streams.list(None) {
                ConstGauge::new(signed(read(stream))).encode(family.encode_family(&label(stream))?)?;
            }
        }
        let now = self.clock.now();
        let mut family = encoder.encode_descriptor(
            "stream_oldest_age",
            "Age of the oldest record that is not settled",
            Some(&Unit::Seconds),
            MetricType::Gauge,
        )?;
        for stream in self.streams.list(None) {
            let age = stream.counters().oldest_waiting().map_or(0.0, |oldest| now.since(oldest).as_secs_f64());
            ConstGauge::new(age).encode(family.encode_family(&label(stream))?)?;
        }
        for (name, help, read) in &HISTOGRAMS {
            let mut family = encoder.encode_descriptor(name, help, Some(&Unit::Seconds), MetricType::Histogram)?;
            for stream in self.streams.list(None) {
                let histogram = read(stream);
                let buckets = buckets(&histogram);
                family.encode_family(&label(stream))?.encode_histogram::<NoLabelSet>(
                    histogram.sum.as_secs_f64(),
                    histogram.count(),
                    &buckets,
                    None,
                )?;
            }
        }
        let memory = encoder.encode_descriptor(
            "memory",
            "Bytes of records held in memory",
            Some(&Unit::Bytes),
            MetricType::Gauge,
        )?;
        ConstGauge::new(signed(self.budget.used())).encode(memory)
    }
}

fn label(stream: &LiveStream) -> [(&str, &str); 1] {
    [("stream", stream.spec().name.as_str())]
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "bounds are far below 2^53 microseconds")]
fn buckets(histogram: &Histogram) -> Vec<(f64, u64)> {
    let bounds = BOUNDS_MICROS.iter().map(|&micros| micros as f64 / 1e6).chain([f64::MAX]);
    bounds.zip(histogram.buckets).collect()
}
