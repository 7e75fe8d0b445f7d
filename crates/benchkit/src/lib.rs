//! Paired benchmarks. A figure alone says little on a shared machine; the
//! ratio of two things measured in turn in the same run says a lot. A bench is
//! a `harness = false` program that builds a [`Group`], adds a yardstick first
//! and candidates after it, and calls [`Group::run`].
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout)] // printing the table is what this crate is for

use std::hint::black_box;
use std::time::{Duration, Instant};

/// Things that do comparable work on the same input.
pub struct Group<'a> {
    name: String,
    /// Bytes and items (spans) that one call handles, for the rates.
    bytes: usize,
    items: usize,
    cases: Vec<(String, Box<dyn FnMut() -> usize + 'a>)>,
}

impl<'a> Group<'a> {
    /// A group whose cases each handle `items` items in `bytes` bytes per call.
    pub fn new(name: &str, bytes: usize, items: usize) -> Self {
        Self { name: name.into(), bytes, items, cases: Vec::new() }
    }

    /// Adds a case; the first added is the yardstick. The closure returns
    /// something that depends on its work, so that it is not optimised away.
    pub fn case(mut self, name: &str, work: impl FnMut() -> usize + 'a) -> Self {
        self.cases.push((name.into(), Box::new(work)));
        self
    }

    /// Runs all cases in turn (A B C A B C …) and prints, for each, the median
    /// time per item, the throughput, and the median of the ratios to the
    /// yardstick of the same turn.
    pub fn run(mut self) {
        let turns = std::env::var("BENCH_TURNS").ok().and_then(|v| v.parse().ok()).unwrap_or(15usize);
        let mut calls = vec![1usize; self.cases.len()];
        for (n, (_, work)) in calls.iter_mut().zip(&mut self.cases) {
            black_box(work());
            let start = Instant::now();
            black_box(work());
            let once = start.elapsed().max(Duration::from_nanos(50));
            *n = (Duration::from_millis(40).as_nanos() / once.as_nanos()).clamp(1, 1_000_000) as usize;
        }
        let mut times = vec![Vec::with_capacity(turns); self.cases.len()];
        for _ in 0..turns {
            for (i, (_, work)) in self.cases.iter_mut().enumerate() {
                let start = Instant::now();
                for _ in 0..calls[i] {
                    black_box(work());
                }
                times[i].push(start.elapsed().as_secs_f64() / calls[i] as f64);
            }
        }
        println!("{} ({} bytes, {} items per call, {turns} turns)", self.name, self.bytes, self.items);
        println!("  {:<34} {:>12} {:>12} {:>10}", "case", "ns/item", "MB/s", "ratio");
        for (i, (name, _)) in self.cases.iter().enumerate() {
            let mut ratios: Vec<f64> = times[i].iter().zip(&times[0]).map(|(a, b)| a / b).collect();
            let mut each = times[i].clone();
            let time = median(&mut each);
            println!(
                "  {:<34} {:>12.1} {:>12.1} {:>10.2}",
                name,
                time * 1e9 / self.items.max(1) as f64,
                self.bytes as f64 / time / 1e6,
                median(&mut ratios)
            );
        }
    }
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
