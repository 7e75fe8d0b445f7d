//! Damaged files give errors that name them, never a panic and never wrong spans.
#![allow(clippy::unwrap_used)] // helpers of tests

use crate::gen_spans::{Rng, batch, show};
use crate::roundtrip::{ids, write};
use spanloom_model::{AttrScope, Batch, Cond, Expr, Literal, Op, Search, TraceId};
use spanloom_segment::{Segment, SegmentError, WriteOptions, merge};
use std::collections::BTreeSet;
use std::path::Path;

/// Uses everything of a segment; what it answered, or the first error.
fn use_all(path: &Path, ids: &BTreeSet<TraceId>) -> Result<Vec<Batch>, SegmentError> {
    let s = Segment::open(path)?;
    let mut out = Vec::new();
    for id in ids {
        s.part(*id)?;
        out.extend(s.trace(*id)?);
    }
    s.operations()?;
    s.attribute_keys()?;
    s.attribute_values("key.1", 10)?;
    let each = vec![
        Expr::Is(Cond::Name { name: "null".into(), fold: false }),
        Expr::Is(Cond::Duration { min: 5, max: 1 << 40 }),
        Expr::Is(Cond::Service { name: "postgres".into(), fold: false }),
        Expr::Is(Cond::Attr {
            scope: AttrScope::Any,
            key: "key.1".into(),
            op: Op::Eq,
            value: Literal::Typed("12".into()),
        }),
    ];
    s.hits(&Search { each, ..Search::default() }, None)?;
    let temp = tempfile::tempdir().unwrap();
    merge(temp.path(), &[&s], &WriteOptions { sync: false, level: 1, ..WriteOptions::default() }, &|_| {
        false
    })?;
    Ok(out)
}

#[test]
fn damage_is_found_named_and_harmless() {
    let dir = tempfile::tempdir().unwrap();
    let mut r = Rng(11);
    let b = batch(&mut r, 400, 30);
    let segment = write(dir.path(), 1, &[&b]);
    let ids = ids(&[&b]);
    let wanted = show(&[&b], false);
    let path = segment.path().to_owned();
    drop(segment);
    let (mut refused, mut unharmed) = (0, 0);
    for round in 0..300 {
        let name = r.pick(&["spans.parquet", "traces", "index", "index"]);
        let file = path.join(name);
        let good = std::fs::read(&file).unwrap();
        let mut bad = good.clone();
        match r.below(5) {
            0 => bad.truncate(r.below(good.len() as u64) as usize),
            1 => {
                let at = r.below(good.len() as u64) as usize;
                let n = (1 + r.below(64) as usize).min(good.len() - at);
                bad[at..at + n].fill(r.pick(&[0, 0xff]));
            }
            2 => bad.extend_from_slice(&good[..r.below(100) as usize]),
            _ => {
                let at = r.below(good.len() as u64) as usize;
                bad[at] ^= 1 << r.below(8);
            }
        }
        std::fs::write(&file, &bad).unwrap();
        match use_all(&path, &ids) {
            Err(e) => {
                refused += 1;
                let text = e.to_string();
                assert!(text.contains(name), "round {round}: {text}");
            }
            // Page headers and the footer, which only other tools read, and
            // bytes that stayed the same.
            Ok(back) => {
                unharmed += 1;
                let back: Vec<&Batch> = back.iter().collect();
                assert_eq!(show(&back, false), wanted, "round {round}");
            }
        }
        std::fs::write(&file, &good).unwrap();
    }
    assert!(refused > 200 && unharmed > 0, "{refused} refused, {unharmed} unharmed");
}

#[test]
fn a_missing_file_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let b = batch(&mut Rng(1), 20, 3);
    let path = write(dir.path(), 1, &[&b]).path().to_owned();
    for name in ["spans.parquet", "traces", "index"] {
        let file = path.join(name);
        let good = std::fs::read(&file).unwrap();
        std::fs::remove_file(&file).unwrap();
        let text = Segment::open(&path).unwrap_err().to_string();
        assert!(text.contains(name), "{text}");
        std::fs::write(&file, good).unwrap();
    }
}

#[test]
fn decoders_survive_any_bytes() {
    let mut r = Rng(5);
    for _ in 0..60_000 {
        let n = r.below(120) as usize;
        let mut bytes: Vec<u8> = (0..n).map(|_| r.next() as u8).collect();
        if let Some(kind) = bytes.first_mut() {
            *kind %= 42;
        }
        // Small numbers get past the first checks.
        for b in bytes.iter_mut().skip(3) {
            if r.one_in(2) {
                *b &= 7;
            }
        }
        spanloom_segment::fuzz::decode(&bytes);
    }
    for json in ["{\"$", "{\"a\":{\"$map\":", "[[[", "{\"a\":\"\\u12", "{\"a\":1e999}", "{\"$bytes\":\"f\"}"]
    {
        for kind in 10..16 {
            let mut bytes = vec![kind, 0, 0];
            bytes.extend_from_slice(json.as_bytes());
            spanloom_segment::fuzz::decode(&bytes);
            bytes.extend_from_slice("[".repeat(5000).as_bytes());
            spanloom_segment::fuzz::decode(&bytes);
        }
    }
}
