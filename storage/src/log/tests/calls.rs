//! What callers may rely on, apart from the disk: bounds, closing, waiting, reading.

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::{Duration, Instant};

use hydrant_core::{ByteSize, Position, Span};

use super::world::World;
use crate::files::sim::Op;
use crate::log::{AppendError, Payloads};

fn is_ready(future: impl Future) -> bool {
    pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn requests_that_wait_together_are_written_once_and_synced_once() {
    let mut world = World::new(1);
    world.store(&[1]);
    let before = (world.files.count(Op::Write), world.files.count(Op::Sync));
    let answers = world.append(&[vec![100], vec![10, 20], vec![0]]);
    let spans: Vec<Span> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(spans, [Span::new(Position::new(2), 1), Span::new(Position::new(3), 2), Span::new(Position::new(5), 1)]);
    // The second write is the mark, which goes to the disk with whatever comes next.
    assert_eq!((world.files.count(Op::Write), world.files.count(Op::Sync)), (before.0 + 2, before.1 + 1));
}

/// Much longer than anything here takes, and what a test that is red may take.
const LONG: Duration = Duration::from_mins(1);

#[test]
#[expect(clippy::disallowed_methods, reason = "company is waited for by the real clock")]
fn a_round_waits_for_its_company_until_it_is_there() {
    let mut world = World::new(1);
    let shared = Arc::clone(&world.log().shared);
    shared.expect_company(2, LONG);
    let started = Instant::now();
    let gathering = thread::spawn({
        let shared = Arc::clone(&shared);
        move || shared.gather()
    });
    while !shared.is_gathering() {
        thread::yield_now();
    }
    let mut calls = [world.call(&[10]), world.call(&[20])];
    for call in &mut calls {
        assert!(!gathering.is_finished());
        assert!(call.poll().is_pending());
    }
    gathering.join().unwrap();
    assert!(started.elapsed() < LONG);
    world.committers.serve();
    assert!(calls.iter_mut().all(|call| call.poll().is_ready()));
}

#[test]
fn a_round_waits_no_longer_than_its_company_is_worth() {
    let world = World::new(1);
    let shared = Arc::clone(&world.log().shared);
    shared.gather(); // there was no round yet
    shared.expect_company(2, Duration::from_millis(1));
    shared.gather();
}

#[test]
fn room_in_the_queue_belongs_to_the_payload_not_to_its_caller() {
    let mut world = World::new(1);
    let mut first = world.call(&[40_000]);
    assert!(first.poll().is_pending());
    drop(first);
    let mut second = world.call(&[40_000]);
    assert!(second.poll().is_pending());
    world.committers.serve();
    assert!(second.poll().is_pending(), "it could only now join the queue");
    world.committers.serve();
    assert_eq!(second.poll(), Poll::Ready(Ok(Span::new(Position::new(2), 1))));
}

#[test]
fn a_request_that_can_never_fit_is_refused_at_once() {
    let mut world = World::new(1);
    let mut call = world.call(&[65_536]);
    let Poll::Ready(Err(AppendError::TooLarge { bytes, max })) = call.poll() else { panic!("taken") };
    assert!(bytes > max);
    world.store(&[65_000]);
    world.check();
}

#[test]
fn no_records_are_stored_without_a_word_to_the_disk() {
    let world = World::new(1);
    let before = world.files.trace().len();
    let log = world.log().clone();
    let mut append = pin!(async { log.append(Payloads::default()).await });
    let answer = append.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(answer, Poll::Ready(Ok(Span::new(Position::FIRST, 0))));
    assert_eq!(world.files.trace().len(), before);
}

#[test]
fn a_closed_log_finishes_what_it_has_and_takes_nothing_more() {
    let mut world = World::new(1);
    let mut queued = world.call(&[10]);
    assert!(queued.poll().is_pending());
    world.log().close();
    assert_eq!(world.append(&[vec![10]]), [Err(AppendError::Closed)]);
    assert_eq!(queued.poll(), Poll::Ready(Ok(Span::new(Position::FIRST, 1))));
    assert_eq!(world.log().end(), Position::new(2));
    assert!(is_ready(world.log().wait_beyond(Position::new(1000))), "nothing will come any more");
}

#[test]
fn an_append_that_waits_for_room_is_refused_when_the_log_closes() {
    let mut world = World::new(1);
    let mut first = world.call(&[60_000]);
    let mut second = world.call(&[60_000]);
    assert!(first.poll().is_pending() && second.poll().is_pending());
    world.log().close();
    assert_eq!(second.poll(), Poll::Ready(Err(AppendError::Closed)));
}

#[test]
fn waiting_ends_when_a_record_beyond_is_durable() {
    let mut world = World::new(1);
    let log = world.log().clone();
    let mut wait = pin!(log.wait_beyond(Position::new(2)));
    let mut poll = || wait.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready();
    assert!(!poll());
    world.store(&[1]);
    assert!(!poll());
    world.store(&[1]);
    assert!(poll());
}

#[test]
fn a_reader_starts_in_the_middle_of_a_request_and_keeps_to_its_budget() {
    let mut world = World::new(1);
    for _ in 0..40 {
        world.store(&[100, 200, 300]);
    }
    for from in 1..=121 {
        let read = world.read(Position::new(from), 2000);
        assert_eq!(read.records, world.promised.clone().split_off(&Position::new(from)));
    }
    let mut reader = world.log().reader(Position::new(2));
    loop {
        let slice = reader.next(2000).unwrap();
        let bytes: usize = slice.frames.iter().map(|frame| frame.data.len() + frame.lengths.len()).sum();
        assert!(bytes <= 2000);
        if slice.frames.is_empty() {
            break;
        }
    }
    // A frame larger than the budget comes alone.
    assert_eq!(world.log().reader(Position::FIRST).next(1).unwrap().frames.len(), 1);
}

#[test]
fn a_reader_that_follows_closely_reads_nothing_back_and_stands_in_nobodys_way() {
    let mut world = World::new(1);
    world.memory = ByteSize::kib(8);
    world.open().unwrap();
    for _ in 0..7 {
        world.store(&[900, 1000]);
    }
    world.follow();
    let reads = world.files.count(Op::Read);
    assert!(reads > 0, "there is memory for the last few only");
    for _ in 0..7 {
        world.store(&[900, 1000]);
        world.follow();
    }
    assert_eq!(world.files.count(Op::Read), reads);
    let removed = world.files.count(Op::Remove);
    world.forget(world.log().end()).unwrap();
    assert!(world.log().usage().spare_bytes > 0);
    assert_eq!(world.files.count(Op::Remove), removed, "a file is not used again, as if it were still read");
}

#[test]
fn a_reader_that_is_behind_what_is_forgotten_goes_on_at_the_first_kept_record() {
    let mut world = World::new(1);
    for _ in 0..20 {
        world.store(&[1500]);
    }
    let mut reader = world.log().reader(Position::FIRST);
    assert_eq!(reader.next(1600).unwrap().frames[0].first, Position::FIRST);
    world.forget(world.log().end()).unwrap();
    for _ in 0..20 {
        world.store(&[1500]);
    }
    let slice = reader.next(1600).unwrap();
    assert_eq!(slice.lost, []);
    let first = slice.frames[0].first;
    assert!(first > Position::new(10));
    assert_eq!(slice.frames[0].records().next(), Some((first, world.promised[&first].as_slice())));
}

#[test]
fn frames_tell_their_records_by_position_and_length() {
    let mut world = World::new(1);
    world.store(&[30, 20, 10]);
    let slice = world.log().reader(Position::FIRST).next(1000).unwrap();
    let frame = &slice.frames[0];
    assert_eq!((frame.count(), frame.length(1), frame.length(3)), (3, 20, 0));
    assert_eq!(frame.span(), Span::new(Position::FIRST, 3));
    let lengths: Vec<usize> = frame.records().map(|(_, record)| record.len()).collect();
    assert_eq!(lengths, [30, 20, 10]);
}

#[test]
fn appends_after_the_threads_stopped_are_refused() {
    let mut world = World::new(1);
    world.store(&[1]);
    let (mut call, mut late) = (world.call(&[2]), world.call(&[3]));
    assert!(call.poll().is_pending());
    let none = crate::log::Committers::start(0).unwrap();
    drop(std::mem::replace(&mut world.committers, none));
    assert!(matches!(call.poll(), Poll::Ready(Ok(_))), "what was queued is stored");
    assert_eq!(late.poll(), Poll::Ready(Err(AppendError::Closed)));
}

#[test]
fn handles_of_one_log_are_one_log() {
    let world = World::new(1);
    let other = world.log().clone();
    other.close();
    assert!(Arc::ptr_eq(&world.log().shared, &other.shared));
    assert!(format!("{other:?}").contains("data/log"));
}
