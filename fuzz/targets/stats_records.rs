//! Any bytes as a record of the log of statistics, and as a saved minute of
//! local figures: refused, or read; never a panic. What was read of a minute is
//! saved and read again as the same.
#![no_main]

use spanloom_model::stats::{ClientGroupedStats, ClientStatsBucket, ClientStatsPayload, StatsPayload};
use spanloom_stats::{Concentrator, Red, RedFilter, RedSettings, Replay, Settings};

const NOW: i64 = 1_795_190_000_000_000_000;

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    let mut concentrator = Concentrator::new(Settings::default(), NOW);
    let _ = concentrator.replay(data, &mut Replay::default());
    concentrator.peek();

    let mut red = Red::new(RedSettings::default());
    // The minute is part of the record: every one is of the present.
    let mut record = vec![1];
    put_varint(&mut record, zigzag(NOW / 60_000_000_000));
    record.extend_from_slice(data);
    if red.restore(&record, NOW).is_err() {
        return;
    }
    // Something new in the minute: then all of it is saved.
    let bucket = ClientStatsBucket {
        start: NOW as u64,
        stats: vec![ClientGroupedStats { hits: 1, ..ClientGroupedStats::default() }],
        ..ClientStatsBucket::default()
    };
    let source = ClientStatsPayload { stats: vec![bucket], ..ClientStatsPayload::default() };
    red.merge(&StatsPayload { stats: vec![source], ..StatsPayload::default() }, NOW);
    let filter = RedFilter { to: NOW, depth: 4, ..RedFilter::default() };
    let found = red.query(&filter, None);
    let saved = red.save();
    assert_eq!(saved.len(), 1);
    for (_, again) in saved {
        let mut other = Red::new(RedSettings::default());
        assert!(other.restore(&again, NOW).is_ok());
        // NaN is not itself; its record is.
        assert_eq!(format!("{:?}", other.query(&filter, None)), format!("{found:?}"));
    }
});

fn zigzag(v: i64) -> u64 {
    ((v << 1) ^ (v >> 63)) as u64
}

fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}
