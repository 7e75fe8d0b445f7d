//! A segment answers searches as a scan of all spans would.
#![allow(clippy::unwrap_used)] // helpers of tests

use crate::gen_spans::{Rng, batch};
use crate::roundtrip::write;
use proptest::prelude::*;
use spanloom_model::{
    AttrScope, Batch, Cond, Expr, Literal, Op, Search, SpanKind, Status, TimeRange, TraceId, WindowOn,
};
use std::collections::BTreeMap;

fn literal(r: &mut Rng) -> Literal {
    let text =
        r.pick(&["", "12", "1.5", "true", "GET /users", "200", "-1", "0", "null", "$", "日本語 🦀 e\u{301}"]);
    match r.below(7) {
        5 => Literal::Fold(text.to_uppercase()),
        6 => Literal::Glob(r.pick(&["*", "1*", "?", "get *"]).to_owned()),
        0 => Literal::Str(text.to_owned()),
        1 => Literal::Number(r.pick(&[0.0, 200.0, 0.1, f64::NAN, 9.3e18, f64::INFINITY])),
        2 => Literal::Bool(r.one_in(2)),
        _ => Literal::Typed(text.to_owned()),
    }
}

fn cond(r: &mut Rng) -> Cond {
    let scope = r.pick(&[
        AttrScope::Any,
        AttrScope::SpanOrResource,
        AttrScope::Span,
        AttrScope::Resource,
        AttrScope::Scope,
        AttrScope::Event,
        AttrScope::Link,
    ]);
    let key = match r.below(8) {
        0 => r
            .pick(&["resource.name", "span.type", "scope.name", "error", "", "$", "0000000000000000"])
            .to_owned(),
        _ => format!("key.{}", r.below(14)),
    };
    let name = r.pick(&["", "GET /users", "get /USERS", "postgres", "absent"]).to_owned();
    let op = r.pick(&[Op::Eq, Op::Eq, Op::Eq, Op::Ne, Op::Lt, Op::Le, Op::Gt, Op::Ge]);
    match r.below(18) {
        0 => Cond::Service { name, fold: r.one_in(2) },
        1 => Cond::Name { name, fold: r.one_in(2) },
        2 => Cond::Kind(SpanKind::from_number(r.below(6) as u32)),
        3 => Cond::Status(Status::from_number(r.below(3) as u32)),
        4 => Cond::Error(r.one_in(2)),
        5 => Cond::Duration { min: r.below(1 << 30) as i64, max: i64::MAX },
        6 => Cond::Root,
        7 => Cond::EventName(name),
        8 => Cond::HasAttr { scope, key },
        9 => Cond::Flags(r.pick(&[0, 1, spanloom_model::flags::NO_START, spanloom_model::flags::SHARED])),
        10 => Cond::ServiceGlob(r.pick(&["*", "", "p?st*", "*s"]).to_owned()),
        11 => Cond::NameGlob(r.pick(&["*", "", "GET *", "*users"]).to_owned()),
        _ => Cond::Attr { scope, key, op, value: literal(r) },
    }
}

fn expr(r: &mut Rng, depth: usize) -> Expr {
    let list = |r: &mut Rng| (0..1 + r.below(3)).map(|_| expr(r, depth + 1)).collect();
    match r.below(if depth > 2 { 5 } else { 8 }) {
        0 if r.one_in(4) => Expr::True,
        5 => Expr::And(list(r)),
        6 => Expr::Or(list(r)),
        7 => Expr::Not(Box::new(expr(r, depth + 1))),
        _ => Expr::Is(cond(r)),
    }
}

/// Mask and start of each trace that a scan finds.
pub fn scan(batches: &[&Batch], search: &Search) -> BTreeMap<TraceId, (u64, i64)> {
    let mut out = BTreeMap::new();
    let mut starts: BTreeMap<TraceId, i64> = BTreeMap::new();
    for b in batches {
        for c in &b.chunks {
            let resource = b.resources.get(c.resource as usize);
            for s in b.chunk_spans(c) {
                if s.flags & spanloom_model::flags::NO_START == 0 {
                    let start = starts.entry(s.trace_id).or_insert(s.start);
                    *start = (*start).min(s.start);
                }
                if search.window_on == WindowOn::SpanStart && !search.window.contains(s.start) {
                    continue;
                }
                if search.each.is_empty() {
                    out.insert(s.trace_id, (0, 0));
                }
                for (i, e) in search.each.iter().enumerate() {
                    if e.matches(b, s, resource) {
                        out.entry(s.trace_id).or_insert((0, 0)).0 |= 1 << i;
                    }
                }
            }
        }
    }
    for (id, (_, start)) in &mut out {
        *start = starts.get(id).copied().unwrap_or(0);
    }
    out
}

pub fn search(r: &mut Rng) -> Search {
    let mut s = Search { each: (0..r.below(4)).map(|_| expr(r, 0)).collect(), ..Search::default() };
    if r.one_in(2) {
        let start = 1_795_190_000_000_000_000 + r.below(1000) as i64;
        s.window = TimeRange { start, end: start + r.below(300) as i64 };
    }
    if r.one_in(4) {
        s.window_on = WindowOn::TraceStart;
    }
    s
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn hits_are_those_of_a_scan(seed: u64, most in 1u64..400, traces in 1u64..60) {
        let dir = tempfile::tempdir().unwrap();
        let mut r = Rng(seed);
        let batches: Vec<Batch> = (0..2).map(|_| batch(&mut r, most, traces)).collect();
        let refs: Vec<&Batch> = batches.iter().collect();
        let segment = write(dir.path(), 1, &refs);
        for _ in 0..40 {
            let search = search(&mut r);
            let hits = segment.hits(&search, None).unwrap();
            let found: BTreeMap<TraceId, (u64, i64)> =
                hits.iter().map(|h| (h.trace_id, (h.mask, h.start))).collect();
            prop_assert_eq!(&found, &scan(&refs, &search), "{:?}", search);
            let mut steps = segment.search(&search).unwrap();
            let mut bound = i64::MAX;
            let mut stepped = BTreeMap::new();
            while let Some(some) = steps.step().unwrap() {
                for h in some {
                    prop_assert!(h.start <= bound, "{:?}", search);
                    stepped.insert(h.trace_id, (h.mask, h.start));
                }
                bound = steps.bound().unwrap_or(i64::MIN);
            }
            prop_assert_eq!(&stepped, &found, "{:?}", search);
            prop_assert!(hits.is_sorted_by_key(|h| (std::cmp::Reverse(h.start), h.trace_id)));
            let by_trace = spanloom_segment::fuzz::search_by_trace(&segment, &search).unwrap();
            for mut steps in [segment.search(&search).unwrap(), by_trace] {
                let mut one_by_one = Vec::new();
                while let Some(bound) = steps.bound() {
                    let Some(hit) = steps.next().unwrap() else { break };
                    prop_assert!(hit.start <= bound);
                    one_by_one.push(hit);
                }
                prop_assert_eq!(&one_by_one, &hits, "{:?}", search);
            }
            if let Some(middle) = hits.get(hits.len() / 2) {
                let floor = spanloom_model::Cursor { start: middle.start, trace_id: middle.trace_id };
                let fewer = segment.hits(&search, Some(floor)).unwrap();
                let wanted: Vec<_> = hits.iter().filter(|h| h.start >= floor.start).copied().collect();
                prop_assert_eq!(fewer, wanted);
            }
        }
    }
}
