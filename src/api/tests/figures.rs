//! Figures: what taking a request in costs, beside the least it could cost.
//!
//! Batches of 1 KB records go over loopback to a stream that does not exist: they are received, hashed, checked, parsed
//! and decoded as any other, and then refused, so that no disk takes part. The least that this can cost is SHA-256 over
//! the same bodies. Time is CPU time of the server's own threads, as the kernel counts it.
//!
//! `cargo test --release -p hydrant --lib figures -- --ignored --nocapture`

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use aws_lc_rs::digest;
use base64_simd::STANDARD as BASE64;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::kit::{NOW, Signing, api_without_streams, http1, request};
use crate::api::Audience;
use crate::api::server::{Entrance, serve};

/// As the server has it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const RECORDS: usize = 500;
const RECORD_BYTES: usize = 1000;
const ROUNDS: usize = 400;
const REPEATS: usize = 9;
const SERVER: &str = "figures-server";

#[test]
#[ignore = "prints figures; run it alone"]
fn taking_a_gigabyte_in() {
    let record = |index| {
        let data: Vec<u8> = (0..RECORD_BYTES).map(|byte| (byte * 31 + index * 7) as u8).collect();
        format!(r#"{{"Data":"{}"}}"#, BASE64.encode_to_string(data))
    };
    let records = (0..RECORDS).map(record).collect::<Vec<_>>().join(",");
    let body = format!(r#"{{"DeliveryStreamName":"absent","Records":[{records}]}}"#).into_bytes();
    let gigabytes = (RECORDS * RECORD_BYTES * ROUNDS) as f64 / 1e9;

    // Neighbours on the machine cost caches and clock speed, not the same all the time: of interleaved runs the best
    // of each kind says most about the work itself.
    let (mut floor, mut cost) = (f64::MAX, f64::MAX);
    for _ in 0..REPEATS {
        floor = floor.min(cpu_of("figures-floor", || {
            for _ in 0..ROUNDS {
                std::hint::black_box(digest::digest(&digest::SHA256, &body));
            }
        }));
        cost = cost.min(serve_rounds(&body));
    }
    println!("bodies of {} bytes, {RECORDS} records of {RECORD_BYTES} bytes, {ROUNDS} times", body.len());
    println!("SHA-256 alone: {:.3} CPU s per GB of records", floor / gigabytes);
    println!(
        "whole request: {:.3} CPU s per GB of records, {:.0} MB/s per core",
        cost / gigabytes,
        gigabytes * 1e3 / cost
    );
    println!("ratio: {:.2}", cost / floor);
}

/// CPU seconds of the server's threads for all rounds, one connection.
fn serve_rounds(body: &[u8]) -> f64 {
    let signed = request(&Signing { target: "Firehose_20150804.PutRecordBatch", body, ..Signing::default() });
    let bytes = http1(&signed);

    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).thread_name(SERVER).enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let entrance = Entrance { listener, audience: Audience::Everybody, tls: None };
    let server = runtime.spawn(serve(entrance, api_without_streams(NOW), stop.clone(), Duration::from_secs(5)));
    let mut client = TcpStream::connect(address).unwrap();
    let mut answer = [0; 4096];
    let mut round = || {
        client.write_all(&bytes).unwrap();
        let len = client.read(&mut answer).unwrap();
        assert!(String::from_utf8_lossy(&answer[..len]).contains("ResourceNotFoundException"));
    };
    (0..20).for_each(|_| round());
    let before = cpu_of_threads(SERVER);
    (0..ROUNDS).for_each(|_| round());
    let cost = cpu_of_threads(SERVER) - before;
    drop(client);
    stop.cancel();
    runtime.block_on(server).unwrap();
    cost
}

fn cpu_of(name: &str, work: impl FnOnce() + Send) -> f64 {
    std::thread::scope(|scope| {
        let work = move || {
            work();
            cpu_of_threads(name)
        };
        std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work).unwrap().join().unwrap()
    })
}

/// CPU seconds that the living threads of this name have used. The kernel keeps 15 characters of a name.
fn cpu_of_threads(name: &str) -> f64 {
    let name = &name[..name.len().min(15)];
    let tasks = fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path());
    tasks
        .filter(|task| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim_end() == name))
        .map(|task| fs::read_to_string(task.join("schedstat")).unwrap())
        .map(|stat| stat.split(' ').next().unwrap().parse::<f64>().unwrap() / 1e9)
        .sum()
}
