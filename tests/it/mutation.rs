//! Seeded mutation of everything that is read from a client, a disk or a person: the targets of `tests/fuzz`, without a
//! fuzzer. Each target has so many seconds or runs, whichever end first, from a fixed seed: a change is tested by the same
//! inputs as the last one. `HYDRANT_SEED` and `HYDRANT_MUTATION_SECONDS` go looking for others.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use hydrant_kit::random::Random;

#[path = "../fuzz/src/targets.rs"]
#[expect(unreachable_pub, reason = "shared with the fuzzer, where it is the face of a crate")]
mod targets;

/// How long each target is fed, unless `HYDRANT_MUTATION_SECONDS` says otherwise.
const SECONDS: u64 = 10;

/// Inputs of each target when nobody asks for more seconds.
const RUNS: u64 = 40_000;

/// Decides the inputs when nobody names another.
const SEED: u64 = 1;

/// Bytes that mean something to one parser or another.
const TELLING: [u8; 21] = *b"\0\x01\x7f\x80\xff\"\\{}[]:,=&*!|- \n";

/// With `HYDRANT_SAMPLES=FOLDER` they are written to `FOLDER/TARGET` besides: what a fuzzer starts from.
#[test]
fn the_samples_are_taken_as_they_are() {
    targets::assert_samples_are_whole();
    let folder = std::env::var_os("HYDRANT_SAMPLES").map(std::path::PathBuf::from);
    for (name, target, samples) in targets::TARGETS {
        for (index, sample) in samples().into_iter().enumerate() {
            target(&sample);
            if let Some(folder) = &folder {
                std::fs::create_dir_all(folder.join(name)).unwrap();
                std::fs::write(folder.join(name).join(format!("sample-{index}")), &sample).unwrap();
            }
        }
    }
}

#[test]
fn no_mutation_is_more_than_refused() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed: u64 = number("HYDRANT_SEED").unwrap_or(SEED);
    let seconds = number("HYDRANT_MUTATION_SECONDS");
    let (share, most) = (Duration::from_secs(seconds.unwrap_or(SECONDS)), seconds.map_or(RUNS, |_| u64::MAX));
    for (name, target, samples) in targets::TARGETS {
        let (samples, mut random) = (samples(), Random::new(seed));
        let (start, mut runs) = (Instant::now(), 0_u64);
        while start.elapsed() < share && runs < most {
            let bytes = mutated(&samples, &mut random);
            let run = catch_unwind(AssertUnwindSafe(|| target(&bytes)));
            assert!(run.is_ok(), "target {name}, seed {seed}, run {runs}: {}", bytes.escape_ascii());
            runs += 1;
        }
        println!("{name}: {runs} mutations in {:.1} s, seed {seed}", start.elapsed().as_secs_f64());
    }
}

/// A sample with some bytes changed, cut out, doubled, or replaced by a part of another one.
fn mutated(samples: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let mut bytes = samples[random.index(samples.len())].clone();
    for _ in 0..=random.below(6) {
        if bytes.len() < 2 {
            return bytes;
        }
        let at = random.index(bytes.len());
        let longest = 1 << random.below(8);
        let len = (1 + random.index(longest)).min(bytes.len() - at);
        match random.below(8) {
            0 | 1 => bytes[at] = TELLING[random.index(TELLING.len())],
            2 => bytes[at] ^= 1 << random.below(8),
            3 => bytes[at] = bytes[at].wrapping_add(if random.below(2) == 0 { 1 } else { 255 }),
            4 => drop(bytes.drain(at..at + len)),
            5 => {
                let part = bytes[at..at + len].to_vec();
                bytes.splice(at..at, part);
            }
            6 => {
                let other = &samples[random.index(samples.len())];
                let from = random.index(other.len());
                let part = other[from..(from + len).min(other.len())].to_vec();
                bytes.splice(at..at + len, part);
            }
            _ => bytes.truncate(at + 1),
        }
    }
    bytes
}
