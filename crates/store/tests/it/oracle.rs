//! Random histories against a list in memory: whatever is flushed, merged or
//! reopened in between, the answers are the same.

use crate::sample::{Rng, show_resource, show_span};
use crate::support::{Fixture, S, T0, batch, put};
use proptest::prelude::*;
use spanloom_model::*;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const SERVICES: [&str; 3] = ["shop", "cart", "db"];
const NAMES: [&str; 3] = ["get", "put", "GET /x"];
const VALUES: [&str; 5] = ["1", "200", "true", "blue", "x"];

fn random_batch(rng: &mut Rng) -> Batch {
    let mut list = Vec::new();
    for _ in 0..1 + rng.below(3) {
        let trace = u128::from(1 + rng.below(12));
        for _ in 0..1 + rng.below(3) {
            list.push((trace, rng.clone().0, rng.next()));
        }
    }
    let protocol = if rng.chance(50) { Protocol::ZipkinJsonV2 } else { Protocol::OtlpProto };
    let mut spans = Vec::new();
    let tags: Vec<Vec<(&str, &str)>> = list
        .iter()
        .map(|_| {
            (0..rng.below(3))
                .map(|_| (["a", "b"][rng.below(2) as usize], VALUES[rng.below(5) as usize]))
                .collect()
        })
        .collect();
    for ((trace, _, _), tags) in list.iter().zip(&tags) {
        let startless = rng.chance(5);
        spans.push(S {
            trace: *trace,
            id: 1 + rng.below(6),
            parent: rng.below(6),
            service: SERVICES[rng.below(3) as usize],
            name: NAMES[rng.below(3) as usize],
            kind: SpanKind::from_number(rng.below(4) as u32),
            start: if startless { 0 } else { T0 + rng.below(60) as i64 },
            duration: rng.below(20) as i64,
            error: rng.chance(20),
            flags: if startless { flags::NO_START } else { 0 },
            tags,
        });
    }
    batch(protocol, &spans)
}

/// All spans, each once.
#[derive(Default)]
struct Oracle {
    batches: Vec<Arc<Batch>>,
    /// Batch and span by description.
    spans: BTreeMap<String, (usize, usize)>,
}

impl Oracle {
    fn add(&mut self, batch: &Arc<Batch>) {
        let n = self.batches.len();
        for chunk in &batch.chunks {
            for i in chunk.spans.usize() {
                let text = show_span(batch, &batch.spans[i]) + &show_resource(batch, chunk.resource);
                self.spans.entry(text).or_insert((n, i));
            }
        }
        self.batches.push(Arc::clone(batch));
    }

    fn traces(&self) -> BTreeMap<TraceId, Vec<(&Batch, &Span)>> {
        let mut traces: BTreeMap<TraceId, Vec<(&Batch, &Span)>> = BTreeMap::new();
        for (b, i) in self.spans.values() {
            let batch: &Batch = &self.batches[*b];
            traces.entry(batch.spans[*i].trace_id).or_default().push((batch, &batch.spans[*i]));
        }
        traces
    }

    fn search(&self, s: &Search) -> Vec<(TraceId, i64, u64, u64, u64)> {
        let mut out = Vec::new();
        for (id, spans) in self.traces() {
            let has = |s: &Span| s.flags & flags::NO_START == 0;
            let start = spans.iter().filter(|(_, s)| has(s)).map(|(_, s)| s.start).min();
            // A report without time is not the root while another one can be it.
            let rank = |s: &Span| (!has(s), s.start, s.span_id);
            let root = spans.iter().filter(|(_, s)| s.parent_id.0 == 0).min_by_key(|(_, s)| rank(s));
            let moment = root.filter(|(_, s)| has(s)).map(|(_, s)| s.start).or(start);
            let in_window = |span: &Span| match s.window_on {
                WindowOn::SpanStart => s.window.contains(span.start),
                WindowOn::TraceStart => moment.is_some_and(|m| s.window.contains(m)),
            };
            let meets =
                |e: &Expr| spans.iter().any(|(b, s)| in_window(s) && e.matches(b, s, b.resources.first()));
            if !s.each.iter().all(meets) || !spans.iter().any(|(_, s)| in_window(s)) {
                continue;
            }
            let start = start.unwrap_or(0);
            if s.after.is_some_and(|c| (-start, id) <= (-c.start, c.trace_id)) {
                continue;
            }
            let ids: BTreeSet<SpanId> = spans.iter().map(|(_, s)| s.span_id).collect();
            let orphans =
                spans.iter().filter(|(_, s)| s.parent_id.0 != 0 && !ids.contains(&s.parent_id)).count();
            let errors = spans.iter().filter(|(_, s)| s.is_error()).count();
            out.push((id, start, spans.len() as u64, errors as u64, orphans as u64));
        }
        out.sort_by_key(|(id, start, ..)| (-start, *id));
        out.truncate(s.limit);
        out
    }
}

fn random_expr(rng: &mut Rng, depth: u64) -> Expr {
    match rng.below(if depth < 2 { 12 } else { 8 }) {
        0 => Expr::True,
        1 | 2 => {
            Expr::Is(Cond::Service { name: SERVICES[rng.below(3) as usize].into(), fold: rng.chance(20) })
        }
        3 => Expr::Is(Cond::Name { name: NAMES[rng.below(3) as usize].into(), fold: rng.chance(20) }),
        4 => Expr::Is(Cond::Duration { min: rng.below(10) as i64, max: 5 + rng.below(20) as i64 }),
        5 => Expr::Is(Cond::Error(rng.chance(50))),
        6 | 7 => Expr::Is(Cond::Attr {
            scope: [AttrScope::Any, AttrScope::Span, AttrScope::Resource][rng.below(3) as usize],
            key: ["a", "b", "c"][rng.below(3) as usize].into(),
            op: [Op::Eq, Op::Ne, Op::Ge][rng.below(3) as usize],
            value: Literal::Typed(VALUES[rng.below(5) as usize].into()),
        }),
        8 => Expr::And(vec![random_expr(rng, depth + 1), random_expr(rng, depth + 1)]),
        9 => Expr::Or(vec![random_expr(rng, depth + 1), random_expr(rng, depth + 1)]),
        10 => Expr::Not(Box::new(random_expr(rng, depth + 1))),
        _ => Expr::Is([Cond::Root, Cond::Kind(SpanKind::Server)][rng.below(2) as usize].clone()),
    }
}

fn compare(fixture: &Fixture, oracle: &Oracle, rng: &mut Rng) -> Result<(), TestCaseError> {
    let store = fixture.store();
    for _ in 0..6 {
        let mut search = Search {
            each: (0..rng.below(3)).map(|_| random_expr(rng, 0)).collect(),
            limit: 1 + rng.below(12) as usize,
            ..Search::default()
        };
        if rng.chance(50) {
            let start = T0 + rng.below(60) as i64;
            search.window = TimeRange { start, end: start + rng.below(40) as i64 };
        }
        if rng.chance(40) {
            search.window_on = WindowOn::TraceStart;
        }
        let mut pages = 0;
        loop {
            let got: Vec<_> = store
                .search(&search)
                .unwrap()
                .iter()
                .map(|s| (s.trace_id, s.start, s.spans, s.errors, s.orphans))
                .collect();
            prop_assert_eq!(&got, &oracle.search(&search), "{:?}", &search);
            let Some(last) = got.last() else { break };
            search.after = Some(Cursor { start: last.1, trace_id: last.0 });
            pages += 1;
            prop_assert!(pages < 20);
        }
    }
    for (id, spans) in oracle.traces() {
        let got = store.trace(id, TimeRange::ALL).unwrap().unwrap();
        let mut have: Vec<String> = got.spans.iter().map(|s| show_span(&got, s)).collect();
        let mut want: Vec<String> = spans.iter().map(|(b, s)| show_span(b, s)).collect();
        have.sort();
        want.sort();
        prop_assert_eq!(have, want);
    }
    let services: BTreeSet<&str> =
        oracle.traces().values().flatten().map(|(b, s)| b.str(s.service)).collect::<BTreeSet<_>>();
    prop_assert_eq!(store.services().unwrap(), services.into_iter().map(str::to_owned).collect::<Vec<_>>());
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(25))]
    #[test]
    fn answers_do_not_depend_on_where_spans_lie(seed: u64) {
        history(seed)?;
    }
}

/// Trace starts known only in another file than the match.
#[test]
fn a_history_that_once_failed_is_answered_right() {
    history(822_843_166_441_387_031).unwrap();
}

fn history(seed: u64) -> Result<(), TestCaseError> {
    let mut rng = Rng(seed);
    let mut fixture = Fixture::with(|c| c.flush_spans = 40);
    let mut oracle = Oracle::default();
    for _ in 0..25 {
        match rng.below(20) {
            0..=11 => {
                let batch = Arc::new(random_batch(&mut rng));
                put(fixture.store(), &batch).unwrap();
                oracle.add(&batch);
            }
            12 | 13 if !oracle.batches.is_empty() => {
                // Sent again, as a client does that has waited too long.
                let again = rng.below(oracle.batches.len() as u64) as usize;
                put(fixture.store(), &oracle.batches[again]).unwrap();
            }
            14 | 15 => fixture.store().flush().unwrap(),
            16 => fixture.store().compact_now(rng.chance(50)).unwrap(),
            17 => fixture.reopen(),
            _ => compare(&fixture, &oracle, &mut rng)?,
        }
    }
    fixture.reopen();
    compare(&fixture, &oracle, &mut rng)
}
