//! Newest traces first, over all sources. A trace may lie in several of them:
//! conditions are collected over all, and its start is the earliest anywhere.

use crate::assemble::{assemble, figures};
use crate::intake::Aliases;
use crate::source::{Hit, Part, Scan, Source};
use crate::turned;
use spanloom_model::{Batch, Cursor, Search, StoreError, TimeRange, TraceId, TraceSummary, WindowOn};
use std::collections::{BTreeSet, HashMap};

/// Most conditions of one search.
const MAX_EACH: usize = 64;

/// Sources to ask, and ids that belong together.
pub(crate) struct Sources<'a> {
    pub list: Vec<&'a dyn Source>,
    pub aliases: &'a Aliases,
}

#[derive(Default)]
struct Candidate {
    mask: u64,
    /// Not earlier than the trace's start.
    bound: i64,
    /// Known exactly: start, and whether the window has it.
    exact: Option<(i64, bool)>,
}

/// Where a trace lies: source, id there, earliest start there.
type Place<'a> = (&'a dyn Source, TraceId, Option<i64>);

/// A source that may still have better traces: the latest start of those that
/// it has not reported, and how far it has been searched.
type Open<'a> = (i64, &'a dyn Source, Option<Box<dyn Scan + 'a>>);

/// Order of results: newest first, ties by id.
type Rank = (std::cmp::Reverse<i64>, TraceId);

impl Sources<'_> {
    fn ids(&self, id: TraceId) -> impl Iterator<Item = TraceId> {
        let (full, low) = self.aliases.stored(id);
        std::iter::once(full).chain(low)
    }

    /// Where a trace lies, under which id.
    fn places(&self, id: TraceId) -> Result<Vec<Place<'_>>, StoreError> {
        let mut places = Vec::new();
        for source in &self.list {
            for id in self.ids(id) {
                if let Some(start) = source.start(id)? {
                    places.push((*source, id, start));
                }
            }
        }
        Ok(places)
    }

    /// All spans of a trace.
    pub fn trace(&self, id: TraceId, hint: TimeRange) -> Result<Option<Batch>, StoreError> {
        // People give hints from what they see; a trace reaches a little further.
        const SLACK: i64 = 3_600_000_000_000;
        let (from, to) = (hint.start.saturating_sub(SLACK), hint.end.saturating_add(SLACK));
        let mut pieces = Vec::new();
        for source in &self.list {
            if source.range().is_none_or(|(min, max)| max < from || min > to) {
                continue;
            }
            for id in self.ids(id) {
                pieces.extend(source.trace(id)?);
            }
        }
        let full = self.aliases.full(id);
        if pieces.is_empty() {
            return Ok(None);
        }
        let mut trace = assemble(full, &pieces);
        turned::join(&mut trace.spans);
        Ok(Some(trace))
    }

    fn part(&self, id: TraceId) -> Result<Option<Part>, StoreError> {
        let places = self.places(id)?;
        match places.as_slice() {
            [] => Ok(None),
            [(source, id, _)] => source.part(*id),
            // The figures of pieces do not add up when the same span, or a
            // child's parent, lies in another: look at the spans.
            _ => Ok(self.trace(id, TimeRange::ALL)?.map(|b| figures(&b))),
        }
    }

    fn exact(&self, id: TraceId, search: &Search) -> Result<Option<(i64, bool)>, StoreError> {
        if search.window_on == WindowOn::SpanStart {
            let places = self.places(id)?;
            let start = places.iter().filter_map(|(_, _, s)| *s).min();
            return Ok((!places.is_empty()).then_some((start.unwrap_or(0), true)));
        }
        let Some(part) = self.part(id)? else { return Ok(None) };
        let moment = part.root.as_ref().and_then(|r| r.start).or(part.start);
        Ok(Some((part.start.unwrap_or(0), moment.is_some_and(|t| search.window.contains(t)))))
    }

    /// The search.
    pub fn search(&self, search: &Search) -> Result<Vec<TraceSummary>, StoreError> {
        if search.each.len() > MAX_EACH {
            return Err(StoreError::TooLarge(format!(
                "{} conditions on different spans, at most {MAX_EACH} are possible",
                search.each.len()
            )));
        }
        if search.limit == 0 || search.window.start > search.window.end {
            return Ok(Vec::new());
        }
        // No condition means any span.
        let mut asked = search.clone();
        if asked.each.is_empty() {
            asked.each.push(spanloom_model::Expr::True);
        }
        let wanted = if asked.each.len() == 64 { u64::MAX } else { (1 << asked.each.len()) - 1 };
        // Sources still to be asked, with the latest start that their unreported
        // traces can have.
        let mut open: Vec<Open<'_>> = Vec::new();
        for source in &self.list {
            let Some((min, max)) = source.range() else { continue };
            let by_span = asked.window_on == WindowOn::SpanStart;
            if by_span && (max < asked.window.start || min > asked.window.end) {
                continue;
            }
            open.push((max, *source, None));
        }
        let mut found: HashMap<TraceId, Candidate> = HashMap::new();
        let mut best: BTreeSet<Rank> = BTreeSet::new();
        // Whatever is not reported yet started before the best are complete.
        while let Some(next) = (0..open.len()).max_by_key(|i| open[*i].0) {
            let (bound, source, scan) = &mut open[next];
            if best.len() >= asked.limit && best.last().is_some_and(|last| last.0.0 > *bound) {
                break;
            }
            let source = *source;
            match scan.get_or_insert_with(|| source.scan(&asked)).next()? {
                None => {
                    open.swap_remove(next);
                }
                Some((hits, falls_to)) => {
                    *bound = falls_to;
                    if hits.is_empty() {
                        continue;
                    }
                    for hit in hits {
                        self.take(hit, &mut found);
                    }
                    best = self.best(&asked, wanted, &mut found)?;
                }
            }
        }
        best.into_iter().take(asked.limit).filter_map(|(_, id)| self.summary(id).transpose()).collect()
    }

    fn take(&self, hit: Hit, found: &mut HashMap<TraceId, Candidate>) {
        let id = self.aliases.full(hit.trace_id);
        let known = found.entry(id).or_insert(Candidate { bound: hit.start, ..Candidate::default() });
        known.mask |= hit.mask;
        known.bound = known.bound.min(hit.start);
    }

    /// The best candidates that meet everything. Only as many are looked up
    /// everywhere as can still be among the first.
    fn best(
        &self,
        search: &Search,
        wanted: u64,
        found: &mut HashMap<TraceId, Candidate>,
    ) -> Result<BTreeSet<Rank>, StoreError> {
        let mut queue: Vec<Rank> = found
            .iter()
            .filter(|(_, c)| c.mask == wanted && c.exact.is_none_or(|(_, fits)| fits))
            .map(|(id, c)| (std::cmp::Reverse(c.exact.map_or(c.bound, |e| e.0)), *id))
            .collect();
        queue.sort_unstable();
        let mut best = BTreeSet::new();
        for rank in queue {
            if best.len() >= search.limit && best.last().is_some_and(|last| rank > *last) {
                break;
            }
            let id = rank.1;
            let Some(candidate) = found.get_mut(&id) else { continue };
            let (start, fits) = match candidate.exact {
                Some(exact) => exact,
                None => {
                    let exact = self.exact(id, search)?.unwrap_or((0, false));
                    candidate.exact = Some(exact);
                    exact
                }
            };
            let rank = (std::cmp::Reverse(start), id);
            let behind = |c: Cursor| rank > (std::cmp::Reverse(c.start), c.trace_id);
            if fits && search.after.is_none_or(behind) {
                best.insert(rank);
                if best.len() > search.limit {
                    best.pop_last();
                }
            }
        }
        Ok(best)
    }

    fn summary(&self, id: TraceId) -> Result<Option<TraceSummary>, StoreError> {
        Ok(self.part(id)?.map(|p| p.summary(id)))
    }
}
