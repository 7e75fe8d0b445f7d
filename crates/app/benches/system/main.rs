//! The whole program under load: what a million spans cost from the socket to
//! durable segments (`run`) or to the Datadog intake (`agent`), how much
//! memory it takes, how soon it is there.
//!
//! The program is the real binary in a process of its own; this process makes
//! the load and stands in for the intake. Open loop where a rate is given:
//! requests leave when they are due, whatever the answers do; times of answers
//! count from when the request was due.
//!
//! `cargo bench -p spanloom --bench system -- [run|agent|tail] [part of a name]`;
//! `SYSTEM_SPANS` (default 2,000,000) at full speed, `SYSTEM_SECONDS` (default
//! 60) at a rate.
#![allow(clippy::print_stdout, clippy::unwrap_used, clippy::panic, missing_docs)]

mod intake;
mod load;
mod program;

use load::{Kept, Load, Shape};
use program::{Program, remove, size, temporary};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

fn main() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |v| v.parse().unwrap());
    let mut words = std::env::args().skip(1).filter(|a| !a.starts_with('-'));
    let only = words.next();
    let bench = Bench {
        spans: number("SYSTEM_SPANS", 2_000_000),
        seconds: number("SYSTEM_SECONDS", 60),
        case: words.next().unwrap_or_default(),
    };
    let wanted = |part: &str| only.as_ref().is_none_or(|o| o == part);
    if wanted("run") {
        bench.run();
    }
    if wanted("agent") {
        bench.agent();
    }
    if wanted("tail") {
        bench.tail();
    }
}

struct Bench {
    spans: u64,
    seconds: u64,
    /// Only cases with this in their names.
    case: String,
}

/// What one case gave.
struct Outcome {
    sent: u64,
    took: f64,
    cpu: f64,
    peak: f64,
    /// Times of answers, sorted.
    answers: Vec<Duration>,
}

impl Outcome {
    fn per_second(&self) -> f64 {
        self.sent as f64 / self.took
    }

    fn row(&self, name: &str, last: f64) {
        let at = |p: f64| {
            let i = ((self.answers.len() as f64 * p) as usize).min(self.answers.len() - 1);
            self.answers[i].as_secs_f64() * 1e3
        };
        println!(
            "{name:<34} {:>9} {:>9.0} {:>8.2} {:>9.1} {:>8.2} {:>8.2} {last:>11.1}",
            self.sent,
            self.per_second(),
            self.cpu / self.sent as f64 * 1e6,
            self.peak,
            at(0.5),
            at(0.99),
        );
    }
}

fn head(title: &str, last: &str) {
    println!(
        "\n{title:<34} {:>9} {:>9} {:>8} {:>9} {:>8} {:>8} {last:>11}",
        "spans", "spans/s", "CPU s/M", "peak MiB", "p50 ms", "p99 ms"
    );
}

impl Bench {
    /// Everything on one machine, with the embedded store.
    fn run(&self) {
        let start = |name: &str| {
            let dir = temporary(name);
            (Program::start("run", &dir, &[]), dir)
        };
        start_and_idle(|| start("start"));
        head("spanloom run", "bytes/span");
        for (name, bodies, rate, count) in [
            ("v0.4, mixed, 10,000 spans/s", "dd-v04-mix", 10_000.0, self.seconds * 10_000),
            ("v0.4, 1,000-span requests", "dd-v04-1000sp-500k", 0.0, self.spans),
            ("v0.5, 1,000-span requests", "dd-v05-1000sp-500k", 0.0, self.spans),
            ("v0.4, mixed requests", "dd-v04-mix", 0.0, self.spans),
            ("OTLP, 1,000-span requests", "otlp-proto-1000sp", 0.0, self.spans),
        ] {
            if !name.contains(&self.case) {
                continue;
            }
            let (program, dir) = start("load");
            let load = Load::new(bodies, Shape::AsRecorded, Kept::None);
            let outcome = drive(program, load, rate, count, Duration::ZERO);
            outcome.row(name, size(&dir.join("store")) as f64 / outcome.sent as f64);
            remove(&dir);
        }
    }

    /// A node's agent: everything that tracers kept goes to the intake.
    fn agent(&self) {
        let (url, received) = intake::start();
        let start = |name: &str| {
            let dir = temporary(name);
            let settings =
                [("DD_API_KEY", "0123456789abcdef"), ("DD_APM_DD_URL", &url), ("DD_HOSTNAME", "bench")];
            (Program::start("agent", &dir, &settings), dir)
        };
        start_and_idle(|| start("start"));
        head("spanloom agent", "sent B/span");
        for (name, bodies, shape, kept) in [
            ("v0.4, 1,000-span requests", "dd-v04-1000sp-500k", Shape::AsRecorded, 1.0),
            ("v0.5, 1,000-span requests", "dd-v05-1000sp-500k", Shape::AsRecorded, 1.0),
            ("v0.4, a 10-span trace a request", "dd-v04-10sp-1m", Shape::TraceEach, 1.0),
            ("v0.4, 40 % SQL of 500 bytes", "dd-v04-10sp-1m", Shape::Sql, 1.0),
            ("v0.4, 95 % sampled out", "dd-v04-10sp-1m", Shape::AsRecorded, 0.05),
        ] {
            if !name.contains(&self.case) {
                continue;
            }
            let mut speed = 0.0;
            for (name, part) in [(name, 1.0), ("  ... at half of this load", 0.5)] {
                let (program, dir) = start("load");
                let before = received.load(Relaxed);
                let load = Load::new(bodies, shape, Some(kept));
                let outcome =
                    drive(program, load, speed * part, (self.spans as f64 * part) as u64, Duration::ZERO);
                outcome.row(name, (received.load(Relaxed) - before) as f64 / outcome.sent as f64);
                speed = outcome.per_second();
                remove(&dir);
            }
        }
    }

    /// The same agent with rules over whole traces: what leaves is held on disk
    /// until it is judged.
    fn tail(&self) {
        let (url, received) = intake::start();
        head("spanloom agent, tail rules", "sent B/span");
        for (name, rules) in [
            ("every span sent", r#"{"wait": "2s", "rest": 1, "budget": 1e9}"#),
            ("1 of 20 sent", r#"{"wait": "2s", "rest": 0.05}"#),
            (
                "a rule on a tag, none sent",
                r#"{"wait": "2s", "rest": 0, "rules": [{"name": "t", "tags": {"none": "x"}}]}"#,
            ),
        ] {
            if !name.contains(&self.case) {
                continue;
            }
            let dir = temporary("tail");
            let settings = [
                ("DD_API_KEY", "0123456789abcdef"),
                ("DD_APM_DD_URL", url.as_str()),
                ("DD_HOSTNAME", "bench"),
                ("SPANLOOM_TAIL_SAMPLING", rules),
            ];
            let before = received.load(Relaxed);
            let load = Load::new("dd-v04-mix", Shape::AsRecorded, Kept::None);
            let program = Program::start("agent", &dir, &settings);
            // What waits is judged and sent before the stop.
            let outcome = drive(program, load, 0.0, self.spans, Duration::from_secs(4));
            outcome.row(name, (received.load(Relaxed) - before) as f64 / outcome.sent as f64);
            remove(&dir);
        }
    }
}

fn start_and_idle(start: impl Fn() -> (Program, std::path::PathBuf)) {
    let begun = Instant::now();
    let (program, dir) = start();
    println!("start to the first accepted span   {:>8.0} ms", begun.elapsed().as_secs_f64() * 1e3);
    std::thread::sleep(Duration::from_secs(5));
    println!("resident memory, idle              {:>8.1} MiB", program.resident("VmRSS"));
    program.stop();
    remove(&dir);
}

/// Sends `count` spans, `rate` a second (0: one request after the other), and
/// lets the program live for `linger` after them.
fn drive(program: Program, mut load: Load, rate: f64, count: u64, linger: Duration) -> Outcome {
    let mut connection = program.connect(&load);
    let cpu_before = program.cpu();
    let begun = Instant::now();
    let mut sent = 0;
    let mut answers = Vec::new();
    while sent < count {
        let (body, spans) = load.next();
        let mut due = Instant::now();
        if rate > 0.0 {
            due = begun + Duration::from_secs_f64(sent as f64 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
        connection.post(&load, &body);
        answers.push(due.elapsed());
        sent += spans;
    }
    let took = begun.elapsed().as_secs_f64();
    std::thread::sleep(linger);
    let peak = program.resident("VmHWM");
    // A stop writes and sends everything, which belongs to the cost.
    let cpu = program.stop() - cpu_before;
    answers.sort();
    Outcome { sent, took, cpu, peak, answers }
}
