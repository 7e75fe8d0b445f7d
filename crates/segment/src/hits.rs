//! Which traces of a segment meet a search, newest first.
//!
//! Two ways. If indexes leave over few blocks, all rows of those are judged
//! and the traces sorted. Otherwise traces are tried newest first, from the
//! list of their operation if the search names one, in steps that double, so
//! that a caller who wants twenty pays for little more than twenty.

use crate::column::{BLOCK, Blocks, GROUP_BLOCKS, block_list};
use crate::error::SegmentError;
use crate::recent::{Times, upper};
use crate::schema::{self as s};
use crate::search::{NO, Run, YES};
use crate::segment::Segment;
use spanloom_model::{Cond, Cursor, Expr, Search, TraceId, WindowOn};
use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

/// A trace that meets part of a search.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hit {
    /// Trace.
    pub trace_id: TraceId,
    /// Bit i: some span in this segment meets `each[i]` (and, for
    /// [`WindowOn::SpanStart`], starts in the window). Conditions from the
    /// 65th on are not judged.
    pub mask: u64,
    /// Earliest start of the trace's spans in this segment (0 if none has a start).
    pub start: i64,
}

/// A block set in which every block is a candidate.
const ALL: Blocks = [u64::MAX; GROUP_BLOCKS / 64];
/// Blocks that are always scanned, and the part of all blocks that is.
const SCAN_BLOCKS: usize = 16;
const SCAN_PART: usize = 8;
/// Traces tried at first, and at most at once.
const FIRST_STEP: usize = 24;
const LARGEST_STEP: usize = 4096;

/// The traces of a segment that meet at least one condition of a search,
/// newest first by [`Hit::start`], ties by id. Made by [`Segment::search`].
pub struct Hits<'s> {
    segment: &'s Segment,
    search: Search,
    /// The search had no condition.
    unconditional: bool,
    runs: Vec<Option<Run<'s>>>,
    /// Blocks worth looking at, per row group and condition; empty: all.
    blocks: Vec<Vec<Blocks>>,
    times: Option<Arc<Times>>,
    /// Traces not tried yet, newest first, from `at` on.
    candidates: Vec<u32>,
    at: usize,
    step: usize,
    /// Hits found and not given out, newest last.
    ready: Vec<Hit>,
}

impl Segment {
    /// Starts a search. Nothing is promised about [`Search::limit`] and
    /// [`Search::after`]: they are the caller's business. A search without
    /// conditions finds every trace with a span in the window, with an empty mask.
    pub fn search(&self, search: &Search) -> Result<Hits<'_>, SegmentError> {
        self.search_within(search, SCAN_BLOCKS, SCAN_PART)
    }

    /// [`Segment::search`] that scans if indexes leave over at most `blocks`
    /// blocks, or one in `part`.
    pub(crate) fn search_within(
        &self,
        search: &Search,
        blocks: usize,
        part: usize,
    ) -> Result<Hits<'_>, SegmentError> {
        let mut search = search.clone();
        let unconditional = search.each.is_empty();
        if unconditional {
            search.each.push(Expr::True);
        } else {
            search.each.truncate(64);
        }
        let mut hits = Hits {
            segment: self,
            search,
            unconditional,
            runs: (0..self.group_rows.len()).map(|_| None).collect(),
            blocks: Vec::new(),
            times: None,
            candidates: Vec::new(),
            at: 0,
            step: FIRST_STEP,
            ready: Vec::new(),
        };
        hits.plan(blocks, part)?;
        Ok(hits)
    }

    /// All hits of a search; with a `floor`, without traces that start before
    /// it in this segment.
    pub fn hits(&self, search: &Search, floor: Option<Cursor>) -> Result<Vec<Hit>, SegmentError> {
        let mut hits = self.search(search)?;
        let mut out = Vec::new();
        if floor.is_none() {
            // Everything is wanted: no use in small steps.
            hits.step = LARGEST_STEP;
        }
        while floor.is_none_or(|f| hits.bound().is_some_and(|b| b >= f.start)) {
            match hits.next()? {
                Some(hit) if floor.is_none_or(|f| hit.start >= f.start) => out.push(hit),
                _ => break,
            }
        }
        Ok(out)
    }

    /// Traces of the operations that an expression names, or none if it does
    /// not name any or their lists do not tell.
    fn named(&self, expr: &Expr) -> Result<Option<Vec<u32>>, SegmentError> {
        let parts = match expr {
            Expr::And(parts) => &parts[..],
            one => std::slice::from_ref(one),
        };
        let mut conds = Vec::new();
        for p in parts {
            match p {
                Expr::Is(c @ Cond::Service { .. }) => conds.push(c),
                // A span is also found by its resource, which is not listed.
                Expr::Is(c @ Cond::Name { .. }) if !self.has_resources()? => conds.push(c),
                _ => {}
            }
        }
        let listed = self.listed()?;
        if conds.is_empty() || listed.cut {
            return Ok(None);
        }
        let mut out = Vec::new();
        let same = |a: &str, b: &str, fold: bool| {
            a == b || fold && (a.eq_ignore_ascii_case(b) || a.to_lowercase() == b.to_lowercase())
        };
        for o in &listed.list {
            let fits = conds.iter().all(|c| match c {
                Cond::Service { name, fold } => same(&o.service, name, *fold),
                Cond::Name { name, fold } => same(&o.operation.name, name, *fold),
                _ => true,
            });
            match o.list {
                _ if !fits => {}
                None => return Ok(None),
                Some(list) => self.operation_traces(list, &mut out)?,
            }
        }
        out.sort_unstable();
        out.dedup();
        Ok(Some(out))
    }

    /// Whether any span has a resource (Datadog's).
    fn has_resources(&self) -> Result<bool, SegmentError> {
        for g in 0..self.group_rows.len() as u32 {
            let dict = self.dict(g, s::RESOURCE)?;
            if (0..dict.len() as u32).any(|c| !dict.bytes(c).is_empty()) || dict.len() == 0 {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// What every span that meets the expression must at least last.
fn least_duration(expr: &Expr) -> i64 {
    match expr {
        Expr::Is(Cond::Duration { min, .. }) => *min,
        Expr::And(parts) => parts.iter().map(least_duration).max().unwrap_or(i64::MIN),
        _ => i64::MIN,
    }
}

impl<'s> Hits<'s> {
    fn windowed(&self) -> bool {
        self.search.window_on == WindowOn::SpanStart
    }

    fn run(&mut self, group: u32) -> Result<&mut Run<'s>, SegmentError> {
        let place = &mut self.runs[group as usize];
        match place {
            Some(run) => Ok(run),
            None => Ok(place.insert(Run::new(self.segment, group)?)),
        }
    }

    fn plan(&mut self, scan_blocks: usize, scan_part: usize) -> Result<(), SegmentError> {
        let segment = self.segment;
        let mut named = Some(Vec::new());
        for expr in &self.search.each {
            named = match (named, segment.named(expr)?) {
                (Some(mut all), Some(more)) => {
                    all.extend(more);
                    Some(all)
                }
                _ => None,
            };
        }
        if let Some(mut list) = named {
            list.sort_unstable();
            list.dedup();
            self.candidates = list;
        } else {
            let (mut wanted, mut total) = (0, 0);
            let each = std::mem::take(&mut self.search.each);
            for g in 0..segment.group_rows.len() as u32 {
                let (windowed, window) = (self.windowed(), self.search.window);
                let run = self.run(g)?;
                let mut sets = Vec::new();
                for expr in &each {
                    let mut blocks = run.prune(expr)?;
                    for (b, zone) in run.dir.zones.iter().enumerate() {
                        if windowed && (zone.min_start > window.end || zone.max_start < window.start) {
                            blocks[b / 64] &= !(1 << (b % 64));
                        }
                    }
                    wanted += block_list(&blocks).count();
                    sets.push(blocks);
                }
                total += run.dir.zones.len() * each.len();
                self.blocks.push(sets);
            }
            self.search.each = each;
            if wanted <= scan_blocks.max(total / scan_part) {
                return self.scan();
            }
            let times = segment.times()?;
            let from = if self.windowed() { times.first_until(self.search.window.end) } else { 0 };
            self.candidates = times.order.get(from..).unwrap_or_default().to_vec();
            self.times = Some(times);
            return Ok(());
        }
        let times = segment.times()?;
        let bucket = |t: &u32| times.bucket.get(*t as usize).copied().unwrap_or(u16::MAX);
        self.candidates.sort_by_cached_key(bucket);
        self.times = Some(times);
        Ok(())
    }

    /// Judges all rows of the blocks left over.
    fn scan(&mut self) -> Result<(), SegmentError> {
        let mut found: HashMap<u128, (u64, u32), foldhash::fast::RandomState> = HashMap::default();
        let windowed = self.windowed();
        let window = self.search.window;
        let each = std::mem::take(&mut self.search.each);
        let mut verdict = Vec::new();
        for g in 0..self.blocks.len() {
            for (i, expr) in each.iter().enumerate() {
                let bit = 1u64 << i;
                for block in block_list(&self.blocks[g][i].clone()) {
                    let segment = self.segment;
                    let run = self.run(g as u32)?;
                    let rows = block * BLOCK..((block + 1) * BLOCK).min(run.dir.rows);
                    if rows.is_empty() {
                        continue;
                    }
                    let zone = run.dir.zones[block];
                    let inside = window.contains(zone.min_start) && window.contains(zone.max_start);
                    run.eval(expr, &rows, &mut verdict)?;
                    for (row, v) in rows.zip(&verdict).filter(|(_, v)| **v != NO) {
                        if windowed && !inside && !window.contains(run.view.word(s::START, row)?.unwrap_or(0))
                        {
                            continue;
                        }
                        let id = run.id(row)?;
                        let known = found.get(&id).copied();
                        if known.is_some_and(|(mask, _)| mask & bit != 0)
                            || *v != YES && !run.check(expr, row, id)?
                        {
                            continue;
                        }
                        let ordinal = match known {
                            Some((_, ordinal)) => ordinal,
                            None => segment.trace_of(g as u32, row)?.0,
                        };
                        found.entry(id).or_insert((0, ordinal)).0 |= bit;
                    }
                }
            }
        }
        self.search.each = each;
        // In order of the trace table: each of its blocks is decoded once, also
        // when there are more of them than the cache holds.
        let mut found: Vec<_> = found.into_iter().collect();
        found.sort_unstable_by_key(|(_, (_, ordinal))| *ordinal);
        for (id, (mask, ordinal)) in found {
            let start = self.segment.trace_start(ordinal)?;
            self.ready.push(Hit { trace_id: TraceId(id), mask, start });
        }
        self.order();
        Ok(())
    }

    fn order(&mut self) {
        self.ready.sort_unstable_by_key(|h| (h.start, Reverse(h.trace_id)));
    }

    /// No trace that is not tried yet starts after this.
    fn untried(&self) -> Option<i64> {
        let times = self.times.as_ref()?;
        let next = *self.candidates.get(self.at)?;
        times.latest.get(usize::from(*times.bucket.get(next as usize)?)).copied()
    }

    /// No further hit starts after this; none if there is no further hit.
    pub fn bound(&self) -> Option<i64> {
        self.ready.last().map(|h| h.start).max(self.untried())
    }

    /// The next hit. After an error there are no further ones.
    #[allow(clippy::should_implement_trait)] // an iterator of results would hide that errors end it
    pub fn next(&mut self) -> Result<Option<Hit>, SegmentError> {
        loop {
            let untried = self.untried();
            match (self.ready.last(), untried) {
                (Some(hit), bound) if bound.is_none_or(|b| hit.start > b) => {
                    let mask = if self.unconditional { 0 } else { hit.mask };
                    let hit = Hit { mask, ..*hit };
                    self.ready.pop();
                    return Ok(Some(hit));
                }
                (_, None) => return Ok(None),
                _ => {
                    if let Err(e) = self.advance() {
                        self.candidates.clear();
                        self.ready.clear();
                        return Err(e);
                    }
                }
            }
        }
    }

    /// The hits that are known, in any order, or those among the next few
    /// traces: for callers that search several segments and go on with the one
    /// whose [`Hits::bound`] is latest. `None` at the end; after an error there
    /// are no further ones.
    pub fn step(&mut self) -> Result<Option<Vec<Hit>>, SegmentError> {
        if self.bound().is_none() {
            return Ok(None);
        }
        if self.ready.is_empty()
            && let Err(e) = self.advance()
        {
            self.candidates.clear();
            return Err(e);
        }
        let mut out = std::mem::take(&mut self.ready);
        if self.unconditional {
            out.iter_mut().for_each(|h| h.mask = 0);
        }
        Ok(Some(out))
    }

    /// Tries the next traces.
    fn advance(&mut self) -> Result<(), SegmentError> {
        let Some(times) = self.times.clone() else { return Ok(()) };
        let end = (self.at + self.step).min(self.candidates.len());
        let mut tried = self.candidates[self.at..end].to_vec();
        self.at = end;
        self.step = (self.step * 2).min(LARGEST_STEP);
        let window = self.search.window;
        let least = self.search.each.iter().map(least_duration).min().unwrap_or(i64::MIN);
        tried.retain(|t| {
            let (Some(bucket), Some(class)) =
                (times.bucket.get(*t as usize).copied(), times.class.get(*t as usize).copied())
            else {
                return false;
            };
            let reach = upper(class);
            let latest = times.latest.get(usize::from(bucket)).copied().unwrap_or(i64::MAX);
            let earliest = times.latest.get(usize::from(bucket) + 1).copied().unwrap_or(i64::MIN);
            let outside = self.windowed()
                && reach != i64::MAX
                && (latest.saturating_add(reach) < window.start || earliest > window.end);
            !outside && reach >= least
        });
        tried.sort_unstable();
        for ordinal in tried {
            self.try_trace(ordinal, &times)?;
        }
        self.order();
        Ok(())
    }

    fn try_trace(&mut self, ordinal: u32, times: &Times) -> Result<(), SegmentError> {
        let (id, parts) = self.segment.by_ordinal(ordinal)?;
        let (windowed, window) = (self.windowed(), self.search.window);
        let each = std::mem::take(&mut self.search.each);
        let mut mask = 0u64;
        let mut verdict = Vec::new();
        for (group, rows) in &parts {
            for (i, expr) in each.iter().enumerate() {
                if mask & 1 << i != 0 {
                    continue;
                }
                let blocks = self.blocks.get(*group as usize).and_then(|b| b.get(i)).unwrap_or(&ALL);
                let worth = (rows.start / BLOCK..=(rows.end.max(1) - 1) / BLOCK)
                    .any(|b| blocks.get(b / 64).is_some_and(|w| w & 1 << (b % 64) != 0));
                if !worth {
                    continue;
                }
                let run = self.run(*group)?;
                run.eval(expr, rows, &mut verdict)?;
                for (row, v) in rows.clone().zip(&verdict).filter(|(_, v)| **v != NO) {
                    if windowed && !window.contains(run.view.word(s::START, row)?.unwrap_or(0)) {
                        continue;
                    }
                    if *v == YES || run.check(expr, row, id)? {
                        mask |= 1 << i;
                        break;
                    }
                }
            }
        }
        self.search.each = each;
        if mask != 0 {
            let bounded = times.class.get(ordinal as usize).is_some_and(|c| upper(*c) != i64::MAX);
            let start = match parts.first() {
                // Every span has a start: the first row's is the earliest.
                Some((group, rows)) if bounded => {
                    self.run(*group)?.view.word(s::START, rows.start)?.unwrap_or(0)
                }
                _ => self.segment.trace_start(ordinal)?,
            };
            self.ready.push(Hit { trace_id: TraceId(id), mask, start });
        }
        Ok(())
    }
}
