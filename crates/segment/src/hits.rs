//! Which traces of a segment meet a search, newest first.
//!
//! Two ways. If indexes leave over few blocks, all rows of those are judged
//! and the traces sorted. Otherwise traces are tried newest first, from the
//! list of their operation if the search names one, in steps that double, so
//! that a caller who wants twenty pays for little more than twenty.

use crate::column::{BLOCK, Blocks, GROUP_BLOCKS, block_list};
use crate::error::{Malformed, SegmentError};
use crate::format;
use crate::recent::{Order, Times, upper};
use crate::schema::{self as s};
use crate::search::{NO, NONE, Run, Tagged, YES};
use crate::segment::Segment;
use crate::traces::ListPlace;
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
/// An operation in more than one of so many traces is not worth its list.
const DENSE: u64 = 6;
/// Judging the rows of a block costs about as much as trying so many traces.
const TRACES_PER_BLOCK: usize = 4;
/// Traces tried at first, and at most at once.
const FIRST_STEP: usize = 24;
const LARGEST_STEP: usize = 4096;

/// Traces to be tried, newest first.
enum Candidates {
    /// All from a rank on.
    From(u32),
    /// Those of these ranks.
    Listed(Vec<u32>),
}

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
    /// None if all hits are in `ready`.
    times: Option<Arc<Times>>,
    candidates: Candidates,
    /// Candidates that have been tried.
    at: usize,
    step: usize,
    /// Part of the order that was used last.
    order: Option<(u32, Arc<Order>)>,
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
            candidates: Candidates::Listed(Vec::new()),
            at: 0,
            step: FIRST_STEP,
            order: None,
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

    /// Lists of the operations that an expression names, or none if it does
    /// not name any or their lists do not tell.
    fn named(&self, expr: &Expr) -> Result<Option<Vec<ListPlace>>, SegmentError> {
        let parts = match expr {
            Expr::And(parts) => &parts[..],
            one => std::slice::from_ref(one),
        };
        let (mut services, mut names) = (Vec::new(), Vec::new());
        for p in parts {
            match p {
                Expr::Is(Cond::Service { name, fold }) => services.push((name, *fold)),
                Expr::Is(Cond::Name { name, fold }) => names.push((name, *fold)),
                _ => {}
            }
        }
        if services.is_empty() && names.is_empty() {
            return Ok(None);
        }
        let listed = self.listed()?;
        if listed.resources_cut {
            // A span is also found by its resource.
            names.clear();
        }
        if listed.cut || services.is_empty() && names.is_empty() {
            return Ok(None);
        }
        let strings = self.strings()?;
        let same = |text: &[u8], (name, fold): &(&String, bool)| {
            text == name.as_bytes()
                || *fold
                    && std::str::from_utf8(text).is_ok_and(|t| {
                        t.eq_ignore_ascii_case(name) || t.to_lowercase() == name.to_lowercase()
                    })
        };
        let fitting = |wanted: &[(&String, bool)]| -> Vec<bool> {
            let text = |n| strings.get(n).unwrap_or_default();
            (0..strings.len()).map(|n| wanted.iter().all(|w| same(text(n), w))).collect()
        };
        let (services, names) = (fitting(&services), fitting(&names));
        let fits = |of: &[bool], n: u32| of.get(n as usize).copied().unwrap_or(false);
        let (mut out, mut unlisted) = (Vec::new(), false);
        for (_, entries) in listed.services.iter().filter(|(service, _)| fits(&services, *service)) {
            let read = listed.each(entries, |o| {
                if fits(&names, o.name) {
                    out.extend(o.list);
                    unlisted |= o.list.is_none();
                }
            });
            read.map_err(|e| self.damaged(format::INDEX, e))?;
        }
        if unlisted {
            return Ok(None);
        }
        Ok(Some(out))
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

    fn run(&mut self, group: u32) -> &mut Run<'s> {
        let segment = self.segment;
        self.runs[group as usize].get_or_insert_with(|| Run::new(segment, group))
    }

    /// Ranks of the traces in which the operations occur that the search
    /// names, if it names some in each of its conditions.
    fn listed(&self) -> Result<Option<Vec<u32>>, SegmentError> {
        let mut out = Vec::new();
        for expr in &self.search.each {
            let Some(lists) = self.segment.named(expr)? else { return Ok(None) };
            let least = least_duration(expr);
            let total: u64 = lists.iter().map(|l| u64::from(l.len)).sum();
            if least <= 0 && total > 64 && total * DENSE > self.segment.meta.traces {
                return Ok(None);
            }
            for list in lists {
                self.segment.operation_ranks(list, least, &mut out)?;
            }
        }
        out.sort_unstable();
        out.dedup();
        Ok(Some(out))
    }

    /// Finds the blocks worth looking at; how many there are of how many.
    fn prune(&mut self, tagged: &[Tagged]) -> Result<(usize, usize), SegmentError> {
        let segment = self.segment;
        let (windowed, window) = (self.windowed(), self.search.window);
        let (mut wanted, mut total) = (0, 0);
        let each = std::mem::take(&mut self.search.each);
        for g in 0..segment.group_rows.len() as u32 {
            let mut sets = Vec::with_capacity(each.len());
            for (expr, tagged) in each.iter().zip(tagged) {
                let mut blocks = NONE;
                let known = tagged.blocks(segment, g)?;
                if known != Some(NONE) {
                    blocks = self.run(g).prune(expr)?;
                    if windowed {
                        for (b, zone) in segment.zones(g)?.iter().enumerate() {
                            if zone.min_start > window.end || zone.max_start < window.start {
                                blocks[b / 64] &= !(1 << (b % 64));
                            }
                        }
                    }
                }
                wanted += block_list(&blocks).count();
                sets.push(blocks);
            }
            total += segment.blocks(g) * each.len();
            self.blocks.push(sets);
        }
        self.search.each = each;
        Ok((wanted, total))
    }

    fn plan(&mut self, scan_blocks: usize, scan_part: usize) -> Result<(), SegmentError> {
        let tagged: Vec<Tagged> = self.search.each.iter().map(Tagged::of).collect();
        let listed = self.listed()?;
        if listed.is_none() || tagged.iter().all(Tagged::tells) {
            let (wanted, total) = self.prune(&tagged)?;
            let few = match &listed {
                None => wanted <= scan_blocks.max(total / scan_part),
                Some(ranks) => wanted <= scan_blocks && wanted * TRACES_PER_BLOCK <= ranks.len(),
            };
            if few {
                return self.scan();
            }
        }
        let times = self.segment.times()?;
        let from = if self.windowed() { times.first_until(self.search.window.end) } else { 0 };
        self.candidates = match listed {
            None => Candidates::From(from),
            Some(mut ranks) => {
                ranks.drain(..ranks.partition_point(|r| *r < from));
                Candidates::Listed(ranks)
            }
        };
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
                    let end = segment.group_rows[g] as usize;
                    let rows = block * BLOCK..((block + 1) * BLOCK).min(end);
                    if rows.is_empty() {
                        continue;
                    }
                    let inside = windowed
                        && segment
                            .zones(g as u32)?
                            .get(block)
                            .is_some_and(|z| window.contains(z.min_start) && window.contains(z.max_start));
                    let run = self.run(g as u32);
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

    /// The rank of a candidate.
    fn candidate(&self, at: usize) -> Option<u32> {
        match &self.candidates {
            Candidates::Listed(ranks) => ranks.get(at).copied(),
            Candidates::From(first) => {
                let rank = *first as usize + at;
                self.times.as_ref().filter(|t| rank < t.traces).map(|_| rank as u32)
            }
        }
    }

    /// No trace that is not tried yet starts after this.
    fn untried(&self) -> Option<i64> {
        let rank = self.candidate(self.at)?;
        self.times.as_ref().map(|t| t.latest(rank))
    }

    /// Number of the trace of a rank, and the class of its length.
    fn ranked(&mut self, rank: u32) -> Result<(u32, u8), SegmentError> {
        let (part, at) = self.segment.order_place(rank);
        let order = match &self.order {
            Some((known, order)) if *known == part => order,
            _ => &self.order.insert((part, self.segment.order(part)?)).1,
        };
        order.get(at).ok_or_else(|| self.segment.damaged(format::INDEX, Malformed("a rank has no trace")))
    }

    /// Nothing is left to be tried.
    fn give_up(&mut self) {
        self.candidates = Candidates::Listed(Vec::new());
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
                        self.give_up();
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
            self.give_up();
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
        let window = self.search.window;
        let least = self.search.each.iter().map(least_duration).min().unwrap_or(i64::MIN);
        let end = self.at + self.step;
        let mut tried = Vec::with_capacity(self.step);
        while self.at < end
            && let Some(rank) = self.candidate(self.at)
        {
            self.at += 1;
            let (ordinal, class) = self.ranked(rank)?;
            let reach = upper(class);
            let outside = self.windowed()
                && reach != i64::MAX
                && (times.latest(rank).saturating_add(reach) < window.start
                    || times.earliest(rank) > window.end);
            if !outside && reach >= least {
                tried.push((ordinal, reach != i64::MAX));
            }
        }
        self.step = (self.step * 2).min(LARGEST_STEP);
        tried.sort_unstable();
        for (ordinal, bounded) in tried {
            self.try_trace(ordinal, bounded)?;
        }
        self.order();
        Ok(())
    }

    /// Looks whether a trace is a hit; in a `bounded` one every span has a start.
    fn try_trace(&mut self, ordinal: u32, bounded: bool) -> Result<(), SegmentError> {
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
                let run = self.run(*group);
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
            let start = match parts.first() {
                // The first row's start is the earliest.
                Some((group, rows)) if bounded => {
                    self.run(*group).view.word(s::START, rows.start)?.unwrap_or(0)
                }
                _ => self.segment.trace_start(ordinal)?,
            };
            self.ready.push(Hit { trace_id: TraceId(id), mask, start });
        }
        Ok(())
    }
}
