//! Writes to a store until it is killed: `crashwriter DIR ACK SEED [SPANS]`.
//! Each acknowledged trace id is printed on a line of its own, after its
//! acknowledgement. Used by the crash test.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // a test program

use spanloom_model::draft::{Draft, batch};
use spanloom_model::*;
use spanloom_store::{Config, Store, SyncPolicy};
use std::io::Write;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let ack = if args[2] == "always" { SyncPolicy::Always } else { SyncPolicy::Interval };
    let seed: u64 = args[3].parse().unwrap();
    let config = Config {
        ack,
        // Small, so that flushes and merges are hit too.
        flush_spans: 200,
        sync_after: Duration::from_millis(2),
        disk_floor: 0,
        ..Config::default()
    };
    let (store, _) = Store::open(Path::new(&args[1]), config).unwrap();
    let out = Arc::new(Mutex::new(std::io::stdout()));
    // An upper half of its own for each run: ids never repeat.
    for i in 1u64.. {
        let id = TraceId::from_halves(seed, i);
        let spans: Vec<Draft> = (1..=1 + i % 7).map(|n| Draft::new(id.0, n)).collect();
        let spans_of = spans.len();
        let out = Arc::clone(&out);
        let done: AckFn = Box::new(move |r| {
            if r.is_ok() {
                let mut out = out.lock().unwrap();
                let _ = writeln!(out, "{id} {spans_of}");
                let _ = out.flush();
            }
        });
        store.append(Arc::new(batch(&spans)), done);
        if i % 64 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
