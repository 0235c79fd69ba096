//! Realistic log records for benches: JSON of a given length that compresses as logs of services do, to about 1/7.
//!
//! In: a seed and a length. Out: records of exactly that length, each other than the last. What varies is what varies
//! in life: ids, times, numbers, which message; what repeats are keys, names and phrases.

use crate::random::Random;

const LEVELS: &[&str] = &["info", "info", "info", "info", "debug", "warn", "error"];
const SERVICES: &[&str] = &["checkout", "catalog", "payments", "search", "gateway", "sessions"];
const ROUTES: &[&str] =
    &["/api/v2/orders", "/api/v2/carts/items", "/api/v2/products/search", "/healthz", "/api/v2/users/me"];
const AGENTS: &[&str] = &[
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_1 like Mac OS X) AppleWebKit/605.1.15 Version/18.1 Mobile/15E148 Safari/604.1",
    "okhttp/4.12.0",
];
const PHRASES: &[&str] = &[
    "request completed and response flushed to the client",
    "cache entry was stale, refreshed from the primary replica",
    "retrying upstream call after a connection reset by peer",
    "authorised by session token, scope read:orders write:orders",
    "connection returned to the pool, idle connections within limits",
    "feature flag new-pricing evaluated to control for this account",
    "query plan reused from the statement cache, rows streamed",
    "payload validated against schema orders/v7 without warnings",
];

/// Makes log records of one length.
#[derive(Clone, Debug)]
pub struct Lines {
    random: Random,
    len: usize,
    millis: u64,
}

impl Lines {
    /// Records of `len` bytes each, at least 150.
    pub fn new(seed: u64, len: usize) -> Self {
        Self { random: Random::new(seed), len: len.max(150), millis: 1_790_000_000_000 }
    }

    /// Appends one record, without a line feed.
    ///
    /// # Panics
    /// Never: the length asked for has room for all that is not filled up.
    pub fn write(&mut self, out: &mut Vec<u8>) {
        let end = out.len() + self.len;
        let mut text = if self.len < 400 { self.short() } else { self.long() };
        while text.len() + 2 < self.len {
            text.push_str(self.random.pick(PHRASES));
            let (millis, span) = (self.random.below(500), self.random.next_u64() >> 24);
            text.push_str(&[" in ", &millis.to_string(), " ms, span ", &span.to_string(), "; "].concat());
        }
        text.truncate(self.len - 2);
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"\"}");
        assert_eq!(out.len(), end, "a record has the length that was asked for");
    }

    fn tick(&mut self) -> u64 {
        self.millis += self.random.below(3);
        self.millis
    }

    fn short(&mut self) -> String {
        let ts = self.tick();
        let random = &mut self.random;
        format!(
            r#"{{"ts":{ts},"level":"{}","service":"{}","route":"{}","status":200,"ms":{},"user":"u-{}","id":"{:016x}","msg":""#,
            random.pick(LEVELS),
            random.pick(SERVICES),
            random.pick(ROUTES),
            random.below(100),
            random.below(1000),
            random.next_u64(),
        )
    }

    fn long(&mut self) -> String {
        let ts = self.tick();
        let random = &mut self.random;
        let service = random.pick(SERVICES);
        format!(
            concat!(
                r#"{{"timestamp":{ts},"level":"{level}","service":"{service}","version":"2026.11.3","environment":"production","#,
                r#""region":"eu-central-1","host":"ip-10-0-{net}-{host}","trace_id":"{trace:016x}{span:016x}","span_id":"{span:016x}","#,
                r#""request_id":"{request:016x}","http":{{"method":"GET","route":"{route}","url":"{route}?page={page}","status":{status},"#,
                r#""bytes_sent":{bytes},"duration_ms":{duration}}},"user":{{"id":"u-{user}","plan":"standard"}},"#,
                r#""user_agent":"{agent}","client_ip":"203.0.{net}.{client}","message":""#
            ),
            ts = ts,
            level = random.pick(LEVELS),
            service = service,
            net = random.below(8),
            host = random.below(200),
            trace = random.next_u64(),
            span = random.next_u64(),
            request = random.next_u64(),
            route = random.pick(ROUTES),
            page = random.below(50),
            status = if random.below(20) == 0 { 404 } else { 200 },
            bytes = random.below(20_000),
            duration = random.below(800),
            user = random.below(50_000),
            agent = random.pick(AGENTS),
            client = random.below(250),
        )
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// Bytes before gzip for 100 bytes behind it.
    fn gzip_per_cent(bytes: &[u8]) -> usize {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        encoder.write_all(bytes).unwrap();
        bytes.len() * 100 / encoder.finish().unwrap().len()
    }

    #[test]
    fn records_are_json_of_the_length_asked_for_and_compress_to_about_a_seventh() {
        for len in [190, 1024, 10_240] {
            let mut lines = Lines::new(7, len);
            let mut all = Vec::new();
            for _ in 0..1_000_000 / len {
                let start = all.len();
                lines.write(&mut all);
                assert_eq!(all.len() - start, len);
                serde_json::from_slice::<serde_json::Value>(&all[start..]).unwrap();
            }
            let ratio = gzip_per_cent(&all);
            println!("{len} bytes: {ratio} %");
            assert!((600..800).contains(&ratio), "{len} bytes: {ratio} %");
        }
    }

    #[test]
    fn the_seed_decides_the_records() {
        let write = |seed| {
            let mut out = Vec::new();
            Lines::new(seed, 190).write(&mut out);
            out
        };
        assert_eq!(write(1), write(1));
        assert_ne!(write(1), write(2));
    }
}
