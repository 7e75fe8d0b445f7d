//! A log of what was counted gives the same statistics as counting did.

use crate::make::{NOW, SECOND, batch, settings};
use proptest::prelude::*;
use serde_json::json;
use spanloom_model::stats::StatsPayload;
use spanloom_model::{Attr, Batch, Value, keys};
use spanloom_stats::{Concentrator, Delta, Replay, Settings};

/// Everything that tells groups apart, now and then.
#[derive(Clone, Debug)]
struct Kind {
    service: u8,
    resource: u8,
    kind: u8,
    peer: u8,
    error: bool,
    root: bool,
    top: bool,
    weight: u8,
    container: u8,
    synthetics: bool,
    ended: i64,
    duration: i64,
}

prop_compose! {
    fn kind()(
        (service, resource, kind, peer) in (0u8..3, 0u8..3, 0u8..6, 0u8..4),
        (error, root, top, synthetics) in any::<(bool, bool, bool, bool)>(),
        (weight, container, ended) in (0u8..3, 0u8..3, -25i64..25),
        duration in prop_oneof![0i64..3, 1_000i64..2_000_000, 1_000_000_000i64..90_000_000_000],
    ) -> Kind {
        Kind { service, resource, kind, peer, error, root, top, weight, container, synthetics, ended, duration }
    }
}

fn of(k: &Kind) -> Batch {
    let kind = ["", "internal", "server", "client", "PRODUCER", "consumer"][usize::from(k.kind)];
    let mut meta = serde_json::Map::new();
    for (key, value) in [
        ("span.kind", kind),
        ("db.hostname", ["", "10.0.0.1:80", "db", "cache"][usize::from(k.peer)]),
        ("_dd.base_service", ["", "base", "", "other"][usize::from(k.peer)]),
        ("region", ["", "eu", "us", ""][usize::from(k.peer)]),
        ("http.status_code", ["", "200", "500"][usize::from(k.resource)]),
        ("grpc.code", ["", "", "NOT_FOUND"][usize::from(k.service)]),
    ] {
        if !value.is_empty() {
            meta.insert(key.into(), value.into());
        }
    }
    let mut metrics = json!({"_top_level": i32::from(k.top), "_dd.measured": 1});
    if k.weight > 0 {
        metrics["_sample_rate"] = json!(1.0 / (1.0 + f64::from(k.weight) * 0.75));
    }
    let mut b = batch(&[json!({
        "service": format!("s{}", k.service), "resource": format!("r{}", k.resource), "name": "op",
        "error": i32::from(k.error), "parent_id": i32::from(!k.root), "meta": meta, "metrics": metrics,
        "start": NOW + k.ended * SECOND - k.duration, "duration": k.duration,
    })]);
    let container = ["", "c1", "c2"][usize::from(k.container)];
    b.resources[0].container_id = b.arena.push(container);
    if k.container == 2 {
        let attr = Attr {
            key: b.arena.push(keys::CONTAINER_TAGS),
            value: Value::Str(b.arena.push("image_tag:7,git.commit.sha:abc")),
        };
        b.resources[0].attrs = b.extend_range(b.resources[0].attrs, attr);
    }
    if k.synthetics {
        b.chunks[0].origin = b.arena.push("synthetics-browser");
    }
    b
}

const START: i64 = NOW - 20 * SECOND;

fn concentrator(seed: u64, now: i64) -> Concentrator {
    let extra_tags = vec!["region".into()];
    Concentrator::new(Settings { seed, extra_tags, ..settings() }, now)
}

fn count_logged(live: &mut Concentrator, b: &Batch, delta: &mut Delta) {
    let mut tally = live.tally();
    tally.add(b, &b.chunks[0]);
    live.count_logged(b, &tally, NOW, delta);
}

enum Entry {
    Record(Vec<u8>),
    Flushed(Vec<u64>),
}

/// A concentrator and its log.
struct Logged {
    live: Concentrator,
    log: Vec<Entry>,
    /// A concentrator started then would put late spans into the same bucket.
    started: i64,
}

impl Logged {
    fn new(mut live: Concentrator, replay: &Replay, log: Vec<Entry>) -> Self {
        live.start_log(log.len() as u64, replay);
        let mut logged = Self { live, log, started: START };
        logged.snapshot(u64::MAX);
        logged
    }

    fn count(&mut self, b: &Batch) -> Delta {
        let mut delta = Delta::default();
        count_logged(&mut self.live, b, &mut delta);
        delta
    }

    fn commit(&mut self, delta: &Delta) {
        let mut record = Vec::new();
        self.live.record(delta, &mut record);
        self.push(record);
    }

    fn snapshot(&mut self, since: u64) {
        let mut record = Vec::new();
        self.live.snapshot(since, &mut record);
        self.push(record);
    }

    fn push(&mut self, record: Vec<u8>) {
        self.log.push(Entry::Record(record));
        self.live.logged(self.log.len() as u64);
    }

    fn flush(&mut self, now: i64) -> StatsPayload {
        let payload = self.live.flush(now, false, &mut || 0.5);
        self.commit(&Delta::default());
        self.log.push(Entry::Flushed(self.live.take_flushed()));
        self.live.logged(self.log.len() as u64);
        self.started = self.started.max(now - 10 * SECOND);
        payload
    }

    /// Everything that is not flushed, read back from the log from record
    /// `first` on.
    fn replayed(&self, first: usize, seed: u64) -> (Concentrator, Replay) {
        let (mut c, mut replay) = (concentrator(seed, self.started), Replay::default());
        for entry in &self.log[first..] {
            match entry {
                Entry::Record(record) => c.replay(record, &mut replay).unwrap(),
                Entry::Flushed(eras) => eras.iter().for_each(|era| c.forget(*era, &mut replay)),
            }
        }
        (c, replay)
    }
}

/// As it leaves, in an order that does not depend on the way there.
fn sorted(c: &Concentrator) -> StatsPayload {
    let mut payload = c.peek();
    for source in &mut payload.stats {
        for bucket in &mut source.stats {
            bucket.stats.sort_by_cached_key(|g| format!("{g:?}"));
        }
        source.stats.sort_by_key(|b| b.start);
    }
    payload.stats.sort_by_cached_key(|s| format!("{s:?}"));
    payload
}

proptest! {
    // Each reads the log back after every step.
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn whatever_happens_in_between_the_log_gives_what_was_counted(
        steps in prop::collection::vec((0u8..8, kind(), 0i64..60), 1..60),
    ) {
        let mut logged = Logged::new(concentrator(1, START), &Replay::default(), Vec::new());
        for (i, (what, kind, at)) in steps.iter().enumerate() {
            match what {
                0 => drop(logged.flush(NOW + at * SECOND)),
                1 => logged.snapshot(logged.log.len() as u64 * (*at as u64 % 10) / 9),
                2 => {
                    // The process was killed.
                    let (live, replay) = logged.replayed(0, i as u64);
                    logged = Logged { started: logged.started, ..Logged::new(live, &replay, logged.log) };
                }
                _ => {
                    let delta = logged.count(&of(kind));
                    logged.commit(&delta);
                }
            }
            let (read, _) = logged.replayed(0, 99);
            prop_assert_eq!(sorted(&read), sorted(&logged.live));
            // Older records are not needed.
            let first = usize::try_from(logged.live.oldest_record()).unwrap();
            let (read, replay) = logged.replayed(first, 98);
            prop_assert_eq!(sorted(&read), sorted(&logged.live));
            // Counting on finds the groups that were read back.
            let mut again = Logged::new(read, &replay, Vec::new());
            again.count(&of(kind));
            let delta = logged.count(&of(kind));
            logged.commit(&delta);
            prop_assert_eq!(sorted(&again.live), sorted(&logged.live));
        }
    }

    #[test]
    fn any_bytes_are_a_record_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = concentrator(1, START).replay(&bytes, &mut Replay::default());
    }

    #[test]
    fn a_record_that_is_cut_off_does_no_harm(kinds in prop::collection::vec(kind(), 1..5), cut in 0usize..400) {
        let mut logged = Logged::new(concentrator(1, START), &Replay::default(), Vec::new());
        let mut delta = Delta::default();
        for b in kinds.iter().map(of) {
            count_logged(&mut logged.live, &b, &mut delta);
        }
        let mut record = Vec::new();
        logged.live.record(&delta, &mut record);
        let mut c = concentrator(2, START);
        let mut replay = Replay::default();
        let _ = c.replay(&record[..cut.min(record.len())], &mut replay);
        prop_assert!(replay.spans <= kinds.len() as u64);
    }
}

fn plain(ended: i64) -> Batch {
    batch(&[json!({
        "service": "web", "resource": "/", "metrics": {"_top_level": 1}, "duration": SECOND,
        "start": NOW + (ended - 1) * SECOND,
    })])
}

fn hits(c: &Concentrator) -> u64 {
    let payload = c.peek();
    payload.stats.iter().flat_map(|s| &s.stats).flat_map(|b| &b.stats).map(|g| g.hits).sum()
}

#[test]
fn what_is_committed_after_its_bucket_left_or_was_written_anew_is_not_counted_twice() {
    for with_snapshot in [false, true] {
        let mut logged = Logged::new(concentrator(1, START), &Replay::default(), Vec::new());
        let delta = logged.count(&plain(0));
        logged.commit(&delta);
        // Counted, and then its sender's worker is slow.
        let slow = logged.count(&plain(0));
        if with_snapshot {
            logged.snapshot(u64::MAX);
        } else {
            let left = logged.flush(NOW + 60 * SECOND);
            assert_eq!(left.stats[0].stats[0].stats[0].hits, 2);
        }
        logged.commit(&slow);
        assert_eq!(hits(&logged.replayed(0, 2).0), hits(&logged.live));
    }
}

#[test]
fn a_worker_may_commit_what_refers_to_a_group_that_another_one_defined() {
    let mut logged = Logged::new(concentrator(1, START), &Replay::default(), Vec::new());
    let first = logged.count(&plain(0));
    let second = logged.count(&plain(0));
    logged.commit(&second);
    assert_eq!(hits(&logged.replayed(0, 2).0), 1, "the first was never acknowledged");
    logged.commit(&first);
    assert_eq!(hits(&logged.replayed(0, 2).0), 2);
}

#[test]
fn a_span_takes_a_few_bytes() {
    let mut logged = Logged::new(concentrator(1, START), &Replay::default(), Vec::new());
    let mut delta = Delta::default();
    let b = plain(0);
    for _ in 0..1000 {
        count_logged(&mut logged.live, &b, &mut delta);
    }
    let mut record = Vec::new();
    logged.live.record(&delta, &mut record);
    assert!(record.len() < 7_000, "{}", record.len());
}

#[test]
fn a_bucket_in_the_future_does_not_hold_up_the_log_once_it_is_written_anew() {
    let mut logged = Logged::new(concentrator(1, START), &Replay::default(), Vec::new());
    let delta = logged.count(&plain(3600));
    logged.commit(&delta);
    for _ in 0..100 {
        let delta = logged.count(&plain(0));
        logged.commit(&delta);
    }
    logged.flush(NOW + 60 * SECOND);
    assert_eq!(logged.live.oldest_record(), 1);
    let now = logged.log.len() as u64;
    logged.snapshot(now);
    assert_eq!(logged.live.oldest_record(), now);
    assert_eq!(hits(&logged.replayed(now as usize, 2).0), 1);
}

/// Found by the fuzz target of these records: two buckets of one start, of which
/// one is over, leave numbers of groups that are not there.
#[test]
fn a_record_that_contradicts_itself_does_no_harm() {
    let record = concat!(
        "0200000000000000000000000000000309002d0000000000000200000000000000000000000000000306000000000000",
        "000000000100000000002c0000000000000300000000000000000000000000000000000003090000000000020000002d",
        "000000000002000000000000000000000000000003060000000000000000000000000000000306000000000000000000",
        "000100000000002c000004343939390000001a2f",
    );
    let byte = |i: usize| u8::from_str_radix(&record[i..i + 2], 16).unwrap();
    let record: Vec<u8> = (0..record.len()).step_by(2).map(byte).collect();
    let mut concentrator = concentrator(1, START);
    let _ = concentrator.replay(&record, &mut Replay::default());
    concentrator.peek();
}
