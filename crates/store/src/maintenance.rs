//! What happens behind the callers' backs: live spans become segments, small
//! segments become large ones, old ones go.

use crate::drops::{self, Drops};
use crate::error::OpenError;
use crate::live::Shared;
use crate::manifest::{Added, Change};
use crate::segments::{self, Stored};
use crate::store::{Core, lock};
use crate::tail::may_remove;
use spanloom_model::{Batch, StoreError, TraceId};
use spanloom_segment::{Segment, SegmentError, WriteOptions};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// So many segments of like size are merged into one: a span is written
/// anew at 1 and, if ever, at 16 million spans.
const FAN: usize = 16;
/// Most inputs of one merge.
const MOST: usize = 24;
/// No merge makes a segment of more spans …
const LARGEST_SPANS: u64 = 20_000_000;
/// … or from more bytes.
const LARGEST_BYTES: u64 = 1 << 30;
/// A segment of which more than one span in so many is dropped is written
/// anew without waiting for others.
const DROPPED_SHARE: u64 = 4;
/// Pause between looks at what is due.
const TICK: Duration = Duration::from_secs(1);
/// Pause between looks at retention.
const RETENTION: Duration = Duration::from_secs(30);

fn write_error(e: impl std::fmt::Display) -> StoreError {
    StoreError::Write(e.to_string())
}

/// Starts the store's threads: one writes live spans to segments, the other
/// merges and deletes, so that a long merge never delays a flush.
pub(crate) fn start(core: &Arc<Core>) -> Result<Vec<JoinHandle<()>>, OpenError> {
    type Body = fn(&Core);
    let bodies: [(&str, Body); 2] = [("store-flush", flush_loop), ("store-merge", merge_loop)];
    bodies
        .into_iter()
        .map(|(name, body)| {
            let core = Arc::clone(core);
            std::thread::Builder::new()
                .name(name.into())
                .spawn(move || body(&core))
                .map_err(OpenError::io("start a thread for", name))
        })
        .collect()
}

/// Waits for work or the next tick; false when the store closes.
fn pause(core: &Core, seen: &mut u64) -> bool {
    let mut count = lock(&core.wake.0);
    if *count == *seen && !core.closing.load(Ordering::SeqCst) {
        count = core.wake.1.wait_timeout(count, TICK).unwrap_or_else(PoisonError::into_inner).0;
    }
    *seen = *count;
    !core.closing.load(Ordering::SeqCst)
}

fn flush_loop(core: &Core) {
    let mut seen = 0;
    // First what the log brought at start.
    let mut failed = flush_frozen(core).is_err();
    while pause(core, &mut seen) {
        core.check_disk();
        freeze_old(core);
        if failed {
            // The disk needs time to recover; so does the processor.
            std::thread::sleep(TICK);
        }
        failed = flush_frozen(core).is_err();
    }
}

fn merge_loop(core: &Core) {
    let mut seen = 0;
    let mut last = Instant::now();
    while pause(core, &mut seen) {
        let _ = compact(core, false);
        if last.elapsed() >= RETENTION {
            last = Instant::now();
            let _ = retain(core);
        }
    }
}

/// Ends the active generation when its first span is old enough.
fn freeze_old(core: &Core) {
    let age = i64::try_from(core.config.flush_age.as_nanos()).unwrap_or(i64::MAX);
    let opened = core.contents().active.opened_at();
    if opened.is_some_and(|t| core.config.clock.now().saturating_sub(t) >= age) {
        core.freeze(&mut lock(&core.doors));
    }
}

/// Writes all frozen generations to segments, oldest first.
pub(crate) fn flush_frozen(core: &Core) -> Result<(), StoreError> {
    let _one = lock(&core.flushing);
    loop {
        let Some(generation) = core.contents().frozen.first().cloned() else { return Ok(()) };
        flush(core, &generation).inspect_err(|e| core.counters.failed(e))?;
    }
}

fn next_id(core: &Core) -> Result<u64, StoreError> {
    let mut manifest = lock(&core.manifest);
    let id = manifest.state.next_id;
    manifest.commit(&[Change::NextId { id: id + 1 }]).map_err(write_error)?;
    Ok(id)
}

fn flush(core: &Core, generation: &Shared) -> Result<(), StoreError> {
    let aliases = Arc::clone(&lock(&core.aliases));
    let mut batches = Vec::new();
    for payload in generation.records() {
        let mut batch = generation.batch(&payload)?;
        for i in 0..batch.chunks.len() {
            let full = aliases.full(batch.chunks[i].trace_id);
            if full != batch.chunks[i].trace_id && batch.intake.protocol.is_datadog() {
                // Its upper half has become known meanwhile.
                batch.chunks[i].trace_id = full;
                let spans = batch.chunks[i].spans.usize();
                batch.spans.get_mut(spans).unwrap_or_default().iter_mut().for_each(|s| s.trace_id = full);
            }
        }
        batches.push(batch);
    }
    let size = generation.size();
    let home = segments::home(&core.dir);
    // Soon merged: nothing is gained by packing it well.
    let options = WriteOptions { id: next_id(core)?, level: 1, ..WriteOptions::default() };
    let refs: Vec<&Batch> = batches.iter().collect();
    let meta = spanloom_segment::write_segment(&home, &options, &refs).map_err(write_error)?;
    drop(batches);
    let added = Added { name: meta.name, arrived: core.config.clock.now() };
    let stored = Arc::new(Stored::open(&home, added.clone(), &core.cache).map_err(write_error)?);
    lock(&core.manifest)
        .commit(&[Change::Add(added), Change::Logged { seq: size.last_seq }])
        .map_err(write_error)?;
    core.change(|c| {
        c.frozen.retain(|g| !Arc::ptr_eq(g, generation));
        c.segments.push(stored);
    });
    core.wake_background();
    core.journal.release(size.last_seq).map_err(write_error)
}

/// Size class: a class has [`FAN`] times the spans of the one below.
fn tier(core: &Core, stored: &Stored) -> u32 {
    let base = core.config.flush_spans.max(1);
    let kept = stored.spans.saturating_sub(stored.dropped_spans());
    (kept / base).max(1).ilog(FAN as u64)
}

/// The inputs of the next merge: neighbours in time, of one size class.
fn due(core: &Core, all: bool) -> Option<Vec<Arc<Stored>>> {
    let contents = core.contents();
    let mut list = contents.segments.clone();
    list.sort_by_key(|s| (s.added.arrived, s.segment.meta().id));
    if core.config.decide {
        list.retain(|s| s.is_decided());
    }
    let removable = |s: &Arc<Stored>| s.dropped_spans() > 0 && may_remove(core, s);
    if all {
        return (list.len() > 1 || list.iter().any(removable)).then_some(list);
    }
    // Files go whole when they are old: one must not hold too long a time.
    let longest = match i64::try_from(core.config.keep_for.as_nanos()) {
        Ok(0) | Err(_) => i64::MAX,
        Ok(keep) => keep / 10,
    };
    let tiers: std::collections::BTreeSet<u32> = list.iter().map(|s| tier(core, s)).collect();
    for wanted in tiers {
        let mut run: Vec<Arc<Stored>> = Vec::new();
        let (mut spans, mut bytes) = (0, 0);
        for stored in list.iter().filter(|s| tier(core, s) == wanted) {
            let first = run.first().map_or(stored.added.arrived, |s| s.added.arrived);
            let full = run.len() >= MOST
                || spans + stored.spans > LARGEST_SPANS
                || bytes + stored.bytes > LARGEST_BYTES
                || stored.added.arrived.saturating_sub(first) > longest;
            if full {
                if run.len() >= FAN {
                    break;
                }
                run.clear();
                (spans, bytes) = (0, 0);
            }
            run.push(Arc::clone(stored));
            spans += stored.spans;
            bytes += stored.bytes;
        }
        if run.len() >= FAN {
            return Some(run);
        }
    }
    list.into_iter()
        .find(|s| s.dropped_spans() * DROPPED_SHARE > s.spans && may_remove(core, s))
        .map(|s| vec![s])
}

/// Merges until nothing is due.
pub(crate) fn compact(core: &Core, all: bool) -> Result<(), StoreError> {
    let _one = lock(&core.merging);
    while let Some(inputs) = due(core, all) {
        let removed = merge(core, &inputs).inspect_err(|e| core.counters.failed(e))?;
        if inputs.len() == 1 && removed == 0 {
            // Nothing came of it, and nothing would the next time.
            break;
        }
        if core.closing.load(Ordering::SeqCst) {
            break;
        }
    }
    Ok(())
}

/// Makes one segment of several, without the traces that are dropped for long
/// enough. Returns how many traces those were.
fn merge(core: &Core, inputs: &[Arc<Stored>]) -> Result<u64, StoreError> {
    let home = segments::home(&core.dir);
    let refs: Vec<&Segment> = inputs.iter().map(|s| &s.segment).collect();
    let removing: Vec<&Arc<Stored>> = inputs.iter().filter(|s| may_remove(core, s)).collect();
    // Dropped wherever it is among the inputs, and somewhere long enough.
    let gone = |id: TraceId| -> bool {
        removing.iter().any(|s| s.hides(id).unwrap_or(false)) && hidden_in_all(inputs, id)
    };
    loop {
        let before = lock(&core.kept).version;
        let removed = AtomicU64::new(0);
        let traces = AtomicU64::new(0);
        let options = WriteOptions { id: next_id(core)?, ..WriteOptions::default() };
        let drop = |id: TraceId| {
            let gone = gone(id);
            if gone {
                let spans = |s: &Arc<Stored>| s.segment.part(id).ok().flatten().map_or(0, |p| p.spans);
                removed.fetch_add(inputs.iter().map(spans).sum(), Ordering::Relaxed);
                traces.fetch_add(1, Ordering::Relaxed);
            }
            gone
        };
        let stored = match spanloom_segment::merge(&home, &refs, &options, &drop) {
            Ok(meta) => {
                let arrived = inputs.iter().map(|s| s.added.arrived).max().unwrap_or(0);
                let added = Added { name: meta.name, arrived };
                let stored = Stored::open(&home, added, &core.cache).map_err(write_error)?;
                carry_drops(core, inputs, &stored)?;
                Some(Arc::new(stored))
            }
            Err(SegmentError::Empty) => None,
            Err(e) => return Err(write_error(e)),
        };
        let mut changes: Vec<Change> = stored.iter().map(|s| Change::Add(s.added.clone())).collect();
        changes.extend(inputs.iter().map(|s| Change::Remove { name: s.added.name.clone() }));
        // Held until the inputs are gone: whoever keeps a trace from now on
        // finds it missing. One that was kept meanwhile is merged again.
        let kept = lock(&core.kept);
        if kept.version != before {
            std::mem::drop(kept);
            if let Some(stored) = stored {
                segments::remove(&stored);
                drops::forget(&core.dir, &stored.added.name);
            }
            continue;
        }
        replace(core, &changes, inputs, stored)?;
        std::mem::drop(kept);
        let traces = traces.into_inner();
        core.counters.tail_removed(traces, removed.into_inner());
        return Ok(traces);
    }
}

fn hidden_in_all(inputs: &[Arc<Stored>], id: TraceId) -> bool {
    inputs.iter().all(|s| match s.segment.number_of(id) {
        Ok(Some(number)) => lock(&s.drops).is_dropped(number),
        Ok(None) => true,
        Err(_) => false,
    })
}

/// What is dropped but not removed yet stays so in the new segment.
fn carry_drops(core: &Core, inputs: &[Arc<Stored>], to: &Stored) -> Result<(), StoreError> {
    let states: Vec<Drops> = inputs.iter().map(|s| lock(&s.drops).clone()).collect();
    let decided: Option<Vec<i64>> = states.iter().map(|d| d.decided).collect();
    let Some(decided) = decided.and_then(|d| d.into_iter().max()) else {
        return Ok(());
    };
    let mut drops = Drops::none(decided);
    for (stored, state) in inputs.iter().zip(&states) {
        for number in state.numbers() {
            let id = stored.segment.id_of(number).map_err(write_error)?;
            if let Some(number) = to.segment.number_of(id).map_err(write_error)?
                && hidden_in_all(inputs, id)
            {
                drops.set(number, true, to.part_of(number, id)?.spans);
            }
        }
    }
    drops.save(&core.dir, &to.added.name).map_err(write_error)?;
    *lock(&to.drops) = drops;
    Ok(())
}

/// Deletes segments that are too old, then the oldest while all are too large.
pub(crate) fn retain(core: &Core) -> Result<(), StoreError> {
    let _one = lock(&core.merging);
    let config = &core.config;
    let mut list = core.contents().segments.clone();
    list.sort_by_key(|s| (s.added.arrived, s.segment.meta().id));
    let mut gone = Vec::new();
    if !config.keep_for.is_zero() {
        let keep = i64::try_from(config.keep_for.as_nanos()).unwrap_or(i64::MAX);
        let limit = config.clock.now().saturating_sub(keep);
        let old = list.iter().take_while(|s| s.added.arrived < limit).count();
        for stored in list.drain(..old) {
            core.counters.expired_age.fetch_add(stored.spans, Ordering::Relaxed);
            gone.push(stored);
        }
    }
    if config.keep_bytes > 0 {
        let mut bytes: u64 = list.iter().map(|s| s.bytes).sum::<u64>() + core.journal.stats().bytes;
        for stored in list {
            if bytes <= config.keep_bytes {
                break;
            }
            bytes -= stored.bytes;
            core.counters.expired_size.fetch_add(stored.spans, Ordering::Relaxed);
            gone.push(stored);
        }
    }
    if gone.is_empty() {
        return Ok(());
    }
    let changes: Vec<Change> = gone.iter().map(|s| Change::Remove { name: s.added.name.clone() }).collect();
    replace(core, &changes, &gone, None).inspect_err(|e| core.counters.failed(e))
}

/// Commits, shows and then deletes: at no moment is a span missing or double.
fn replace(
    core: &Core,
    changes: &[Change],
    gone: &[Arc<Stored>],
    new: Option<Arc<Stored>>,
) -> Result<(), StoreError> {
    lock(&core.manifest).commit(changes).map_err(write_error)?;
    core.change(|c| {
        c.segments.retain(|s| !gone.iter().any(|g| Arc::ptr_eq(g, s)));
        c.segments.extend(new);
    });
    for stored in gone {
        segments::remove(stored);
        drops::forget(&core.dir, &stored.added.name);
    }
    Ok(())
}
