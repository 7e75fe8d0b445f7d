//! The intake is down, slow, refuses, cuts connections, and the program is
//! killed meanwhile: what the intake holds at the end is what was acknowledged.
//!
//! The program is the real binary under `ack: always`. Exactly once holds for
//! everything within it; a request whose answer was cut reaches the intake
//! again, and so may one that was under way when the program was killed, which
//! no sender can avoid. Spans are then there twice (with the same id), and the
//! statistics are a copy to the byte.
//!
//! `make outage` plays an outage of ten minutes by hand (the ignored test;
//! `OUTAGE_SECONDS`, `OUTAGE_RATE` spans a second).
//!
//! | file | holds |
//! |---|---|
//! | `program.rs` | the process, clients |
//! | `intake.rs` | the stand-in |
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)] // a test may

#[path = "../golden/decode.rs"]
mod decode;
mod intake;
mod program;

use intake::{Answer, Intake};
use program::{Clients, Program, Sent, send};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Waits for something that happens in another process; fails after two minutes.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within two minutes");
        std::thread::sleep(Duration::from_millis(20));
    }
}

const QUICK: (&str, &str) = ("DD_APM_CONFIG_TRACE_WRITER_FLUSH_PERIOD_SECONDS", "0.1");

/// Everything acknowledged is there. Returns how many spans are there twice.
fn compare(intake: &Intake, sent: &Sent) -> u64 {
    intake.held(|held| {
        let missing = sent.spans.keys().filter(|id| !held.spans.contains_key(id)).count();
        assert_eq!(missing, 0, "of {} acknowledged spans", sent.spans.len());
        let strange = held.spans.keys().filter(|id| !sent.spans.contains_key(id)).count();
        assert_eq!(strange, 0, "spans that nobody sent");
        assert_eq!(held.hits, sent.hits, "statistics");
        held.spans.values().map(|n| u64::from(n - 1)).sum()
    })
}

/// Stops in order, and starts until everything has left.
fn drain(program: &mut Program, intake: &Intake, sent: &Sent) {
    program.stop();
    let there = |intake: &Intake| {
        intake.held(|held| {
            let hits = held.hits.values().sum::<u64>();
            held.spans.len() >= sent.spans.len() && hits >= sent.hits.values().sum()
        })
    };
    if !there(intake) {
        program.run();
        until("what waits", || there(intake).then_some(()));
        program.stop();
    }
}

#[test]
fn whatever_the_intake_does_it_holds_what_was_acknowledged() {
    let intake = Intake::start();
    let mut program = Program::start(intake.port, &[QUICK]);
    let sent = Mutex::new(Sent::default());
    let answers = [
        Answer::Status(500),
        Answer::CutRequest,
        Answer::Status(403),
        Answer::Status(408),
        Answer::CutReply,
        Answer::Status(429),
        Answer::Status(503),
        Answer::Slow,
    ];
    intake.script(answers);
    until("the script", || {
        send(program.port, &sent);
        intake.script_is_over().then_some(())
    });
    // While one answer is slow, others go on.
    for _ in 0..50 {
        send(program.port, &sent);
    }
    intake.go_on();
    let sent = sent.into_inner().unwrap();
    drain(&mut program, &intake, &sent);
    let twice = compare(&intake, &sent);
    assert!(twice > 0 || intake.held(|h| h.hits_again > 0), "one answer was cut: it came again");
    assert_eq!(sent.repeated, 0, "clients notice nothing");
}

#[test]
fn what_the_intake_finds_too_large_is_counted_and_nothing_else_is_missing() {
    let intake = Intake::start();
    let mut program = Program::start(intake.port, &[QUICK]);
    let sent = Mutex::new(Sent::default());
    intake.script([Answer::Status(413)]);
    send(program.port, &sent);
    let lost = until("the refusal", || {
        Some(program.metric("queue_dropped_items_total", "payload_too_large")).filter(|n| *n > 0.0)
    });
    for _ in 0..20 {
        send(program.port, &sent);
    }
    let sent = sent.into_inner().unwrap();
    program.stop();
    intake.held(|held| {
        assert_eq!(held.spans.len() + lost as usize, sent.spans.len());
        assert_eq!(held.hits, sent.hits);
    });
}

#[test]
fn killed_again_and_again_while_the_intake_is_down() {
    let intake = Intake::start();
    let mut program = Program::start(intake.port, &[QUICK]);
    let clients = Clients::start(program.port, 4, 0);
    let mut there = 0;
    for round in 0..5 {
        match round {
            1 => intake.down(),
            4 => intake.up(),
            _ => {}
        }
        there += 300;
        until("traffic", || (clients.count() >= there).then_some(()));
        program.kill();
        program.run();
        there = clients.count();
    }
    let sent = clients.stop();
    drain(&mut program, &intake, &sent);
    let twice = compare(&intake, &sent);
    println!("{} spans, {twice} twice, {} sent again by their clients", sent.spans.len(), sent.repeated);
}

#[test]
#[ignore = "takes as long as it says: `make outage`"]
fn ten_minutes_by_hand() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |v| v.parse().unwrap());
    let outage = Duration::from_secs(number("OUTAGE_SECONDS", 600));
    let rate = number("OUTAGE_RATE", 1000) as u32;
    let intake = Intake::start();
    let mut program = Program::start(intake.port, &[]);
    let clients = Clients::start(program.port, 8, rate);
    let watch = |program: &Program, time: Duration| {
        let (begun, mut most) = (Instant::now(), 0f64);
        while begun.elapsed() < time {
            std::thread::sleep(Duration::from_millis(500).min(time));
            most = most.max(program.memory("VmRSS"));
        }
        most
    };
    let before = watch(&program, Duration::from_secs(20));
    println!("before the outage: {before:.1} MiB at most, {} spans acknowledged", clients.count());
    intake.down();
    let first = watch(&program, outage / 2);
    println!("after half of it: {first:.1} MiB at most, {:.1} MB on disk", program.disk() as f64 / 1e6);
    program.kill();
    let started = Instant::now();
    program.run();
    println!("killed; ready again after {} ms", started.elapsed().as_millis());
    let second = watch(&program, outage / 2);
    println!("at its end: {second:.1} MiB at most, {:.1} MB on disk", program.disk() as f64 / 1e6);
    let waiting = clients.count() - intake.held(|h| h.spans.len());
    let sent = clients.stop();
    let again = Instant::now();
    intake.up();
    until("what waits", || intake.held(|h| h.spans.len() >= sent.spans.len()).then_some(()));
    println!(
        "{waiting} spans had waited; all were there {:.1} s after the intake",
        again.elapsed().as_secs_f64()
    );
    drain(&mut program, &intake, &sent);
    let twice = compare(&intake, &sent);
    let hits: u64 = sent.hits.values().sum();
    println!(
        "{} spans acknowledged ({} sent again by clients), {} at the intake, {twice} of them twice; {hits} hits in statistics, all there once",
        sent.spans.len(),
        sent.repeated,
        intake.held(|h| h.spans.len()),
    );
}
