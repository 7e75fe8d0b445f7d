//! Recording a decision, and looking one up in a full log of 256 MiB.
//! `cargo bench -p spanloom-decisions`
#![allow(clippy::print_stdout)] // a command-line tool

use spanloom_decisions::{Config, Decision, Decisions, Outcome, to};
use spanloom_model::TraceId;
use std::time::Instant;

fn id(n: u128) -> TraceId {
    TraceId((n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835))
}

fn about(n: u128) -> Decision<'static> {
    let rule = if n.is_multiple_of(3) { "auto_keep" } else { "auto_drop" };
    Decision {
        trace_id: id(n),
        at: n as i64 * 1_000_000,
        outcome: Outcome::Kept,
        to: to::STORE,
        rule,
        rate: 0.2,
        spans: 10,
    }
}

fn main() {
    let Ok(dir) = tempfile::tempdir() else { return };
    let config = Config { background: false, ..Config::new(dir.path()) };
    let Ok((log, _)) = Decisions::open(config) else { return };
    const TOTAL: u128 = 8_400_000;
    let (mut recording, mut writing) = (0.0, 0.0);
    for block in 0..TOTAL / 20_000 {
        let since = Instant::now();
        for n in 0..200 {
            log.record((0..100).map(|i| about(block * 20_000 + n * 100 + i)));
        }
        recording += since.elapsed().as_secs_f64();
        let since = Instant::now();
        log.flush();
        writing += since.elapsed().as_secs_f64();
    }
    let per = |seconds: f64| seconds * 1e9 / TOTAL as f64;
    println!(
        "record {:.0} ns, write and seal {:.0} ns a decision (with fsync)",
        per(recording),
        per(writing)
    );
    let stats = log.stats();
    println!("{} decisions in {} MiB", stats.rows, stats.bytes >> 20);
    let mut times: Vec<f64> = (0..200u128)
        .map(|n| {
            let wanted = id(if n % 2 == 0 { TOTAL * 2 + n } else { TOTAL - 1 - n * 40_000 });
            let since = Instant::now();
            let found = log.find(wanted).len();
            assert_eq!(found, usize::from(n % 2 == 1));
            since.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    println!("find: median {:.1} ms, 99th of 100 {:.1} ms", times[100], times[198]);
}
