//! Decisions about whole traces. The store is the buffer: nothing is held in
//! memory until a trace is quiet.
//!
//! A segment is ripe when its newest spans arrived long enough ago. Its traces
//! are then judged, each on all its spans in all segments. A trace that also
//! has spans in memory, or in a segment that is not ripe, is not quiet: it is
//! judged when the last segment that holds spans of it is ripe. What is
//! dropped is invisible from then on; a merge removes it.

use crate::assemble::{assemble, figures};
use crate::segments::Stored;
use crate::source::Source;
use crate::store::{Contents, Core, lock};
use spanloom_model::{Batch, StoreError, TraceId, TraceSummary};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// What a round of decisions did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Decided {
    /// Segments that are decided on now.
    pub segments: u64,
    /// Traces judged.
    pub traces: u64,
    /// Of these, dropped.
    pub dropped: u64,
    /// Traces with later spans elsewhere, to be judged with those.
    pub deferred: u64,
    /// Traces that could not be read and are kept.
    pub unread: u64,
}

/// What keeping a trace by hand did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeptByHand {
    /// It had been dropped and is there again.
    Undropped,
    /// It is there, and no rule drops it any more.
    Kept,
    /// It is not in the store (any more).
    Missing,
}

/// Judges a trace by its figures and, if it needs them, its spans; true keeps.
pub type Judge<'a> = dyn FnMut(&TraceSummary, &dyn Fn() -> Result<Batch, StoreError>) -> bool + 'a;

/// A segment and the number of a trace in it, by the id it has there.
type Place<'a> = (&'a Arc<Stored>, u32, TraceId);

fn read_error(e: impl std::fmt::Display) -> StoreError {
    StoreError::Read(e.to_string())
}

fn nanos(d: Duration) -> i64 {
    i64::try_from(d.as_nanos()).unwrap_or(i64::MAX)
}

/// Whether what a segment has dropped may be removed for good.
pub(crate) fn may_remove(core: &Core, stored: &Stored) -> bool {
    let decided = lock(&stored.drops).decided;
    decided.is_some_and(|t| t.saturating_add(nanos(core.config.undrop_for)) <= core.config.clock.now())
}

/// Judges the traces of all ripe segments.
pub(crate) fn decide(core: &Core, wait: Duration, judge: &mut Judge<'_>) -> Result<Decided, StoreError> {
    let mut done = Decided::default();
    loop {
        // Merges wait meanwhile: what is judged does not move.
        let _one = lock(&core.merging);
        let ripe = core.config.clock.now().saturating_sub(nanos(wait));
        let contents = core.contents();
        let mut due: Vec<&Arc<Stored>> =
            contents.segments.iter().filter(|s| s.added.arrived <= ripe && !s.is_decided()).collect();
        due.sort_by_key(|s| (s.added.arrived, s.segment.meta().id));
        let Some(stored) = due.first() else { return Ok(done) };
        Round { core, contents: &contents, ripe, done: &mut done }.segment(stored, judge)?;
        if core.closing.load(Ordering::SeqCst) {
            return Ok(done);
        }
    }
}

struct Round<'a> {
    core: &'a Core,
    contents: &'a Contents,
    ripe: i64,
    done: &'a mut Decided,
}

impl Round<'_> {
    fn segment(&mut self, stored: &Arc<Stored>, judge: &mut Judge<'_>) -> Result<(), StoreError> {
        let aliases = Arc::clone(&lock(&self.core.aliases));
        let mut changed: Vec<Arc<Stored>> = vec![Arc::clone(stored)];
        for number in 0..u32::try_from(stored.traces).unwrap_or(u32::MAX) {
            let judged = stored.segment.id_of(number).map_err(read_error).and_then(|here| {
                let (full, low) = aliases.stored(here);
                let ids: Vec<TraceId> = std::iter::once(full).chain(low).collect();
                if full != here && !ids.contains(&here) {
                    return Ok(());
                }
                self.trace(stored, number, here, &ids, judge, &mut changed)
            });
            // What cannot be read now is not dropped.
            if judged.is_err() {
                self.done.unread += 1;
            }
        }
        let now = self.core.config.clock.now();
        lock(&stored.drops).decided = Some(now);
        self.done.segments += 1;
        for stored in changed {
            let drops = lock(&stored.drops).clone();
            drops.save(&self.core.dir, &stored.added.name).map_err(|e| {
                // Judged again after a restart.
                let e = StoreError::Write(e.to_string());
                self.core.counters.failed(&e);
                e
            })?;
        }
        Ok(())
    }

    fn trace(
        &mut self,
        stored: &Arc<Stored>,
        number: u32,
        here: TraceId,
        ids: &[TraceId],
        judge: &mut Judge<'_>,
        changed: &mut Vec<Arc<Stored>>,
    ) -> Result<(), StoreError> {
        let mut places: Vec<Place<'_>> = vec![(stored, number, here)];
        for other in &self.contents.segments {
            for id in ids {
                if Arc::ptr_eq(other, stored) && *id == here {
                    continue;
                }
                if let Some(number) = other.segment.number_of(*id).map_err(read_error)? {
                    if other.added.arrived > self.ripe {
                        self.done.deferred += 1;
                        return Ok(());
                    }
                    places.push((other, number, *id));
                }
            }
        }
        for generation in self.contents.frozen.iter().chain([&self.contents.active]) {
            for id in ids {
                if generation.start(*id)?.is_some() {
                    self.done.deferred += 1;
                    return Ok(());
                }
            }
        }
        // Of several ripe segments the last one judges, knowing them all.
        let undecided = |s: &Stored| !std::ptr::eq(s, stored.as_ref()) && !s.is_decided();
        if places.iter().any(|(s, _, _)| undecided(s)) {
            self.done.deferred += 1;
            return Ok(());
        }
        let full = ids.first().copied().unwrap_or(here);
        let load = || -> Result<Batch, StoreError> {
            let mut pieces = Vec::new();
            for (s, _, id) in &places {
                pieces.extend(s.segment.trace(*id).map_err(read_error)?);
            }
            Ok(assemble(full, &pieces))
        };
        let part = match places.as_slice() {
            [one] => one.0.part_of(one.1, one.2)?,
            _ => figures(&load()?),
        };
        let by_hand = ids.iter().any(|id| lock(&self.core.kept).has(*id));
        let keep = by_hand || judge(&part.summary(full), &load);
        self.done.traces += 1;
        self.done.dropped += u64::from(!keep);
        for (s, number, id) in &places {
            let mut drops = lock(&s.drops);
            if drops.is_dropped(*number) == keep {
                let spans = s.part_of(*number, *id)?.spans;
                drops.set(*number, !keep, spans);
                if !changed.iter().any(|c| Arc::ptr_eq(c, s)) {
                    changed.push(Arc::clone(s));
                }
            }
        }
        Ok(())
    }
}

/// Whether some of a trace is dropped and not removed yet.
pub(crate) fn is_dropped(core: &Core, id: TraceId) -> Result<bool, StoreError> {
    let (full, low) = lock(&core.aliases).stored(id);
    for stored in &core.contents().segments {
        for id in std::iter::once(full).chain(low) {
            if stored.hides(id)? {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Keeps a trace whatever rules say or have said.
pub(crate) fn keep(core: &Core, id: TraceId) -> Result<KeptByHand, StoreError> {
    let aliases = Arc::clone(&lock(&core.aliases));
    let (full, low) = aliases.stored(id);
    let ids: Vec<TraceId> = std::iter::once(full).chain(low).collect();
    let write_error = |e: std::io::Error| StoreError::Write(e.to_string());
    {
        // Before looking: a merge that ends from now on sees it.
        let mut kept = lock(&core.kept);
        for id in &ids {
            kept.add(&core.dir, *id).map_err(write_error)?;
        }
    }
    let contents = core.contents();
    let mut found = KeptByHand::Missing;
    for generation in contents.frozen.iter().chain([&contents.active]) {
        for id in &ids {
            if generation.start(*id)?.is_some() {
                found = KeptByHand::Kept;
            }
        }
    }
    for stored in &contents.segments {
        for id in &ids {
            let Some(number) = stored.segment.number_of(*id).map_err(read_error)? else { continue };
            let spans = stored.part_of(number, *id)?.spans;
            let mut drops = lock(&stored.drops);
            if drops.set(number, false, spans) {
                found = KeptByHand::Undropped;
                drops.save(&core.dir, &stored.added.name).map_err(write_error)?;
            } else if found == KeptByHand::Missing {
                found = KeptByHand::Kept;
            }
        }
    }
    Ok(found)
}
