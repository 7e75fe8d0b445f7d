//! The way in: what was seen before is recognised here, and 64-bit halves of
//! trace ids are joined.

use spanloom_journal::record::Rules;
use spanloom_model::{Chunk, TraceId};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

type FastSet = HashSet<u64, foldhash::fast::RandomState>;
type FastMap<V> = HashMap<u64, V, foldhash::fast::RandomState>;

/// Fingerprints of recent spans, in two halves: when the newer one is full the
/// older one is forgotten. Remembers between `half` and twice as many.
#[derive(Default)]
struct Recent {
    half: usize,
    new: FastSet,
    old: FastSet,
}

impl Recent {
    /// Whether it is new; it is known from now on.
    fn insert(&mut self, fingerprint: u64) -> bool {
        if self.old.contains(&fingerprint) || !self.new.insert(fingerprint) {
            return false;
        }
        if self.new.len() >= self.half {
            self.old = std::mem::take(&mut self.new);
        }
        true
    }
    fn forget(&mut self, fingerprint: u64) {
        self.new.remove(&fingerprint);
        self.old.remove(&fingerprint);
    }
    fn clear(&mut self) {
        self.new = FastSet::default();
        self.old = FastSet::default();
    }
}

/// What is known about a lower half.
#[derive(Clone, Copy, Default)]
struct Known {
    /// The upper half, 0 if only the lower one was seen.
    high: u64,
    /// Datadog spans were stored under the lower half alone.
    stored_low: bool,
}

/// Recent lower halves of trace ids. Datadog tracers write the upper half only
/// on the first span of a chunk's trace, sometimes on none: chunks that come
/// later, from another process, or from an old tracer have 64 bits only.
#[derive(Default)]
struct Halves {
    most: usize,
    span: i64,
    new: FastMap<Known>,
    old: FastMap<Known>,
    turned_at: i64,
}

impl Halves {
    fn turn(&mut self, now: i64) {
        // Two halves: what is asked for stays for `span` at least, unless
        // there are more ids than the bound.
        if self.new.len() >= self.most || now.saturating_sub(self.turned_at) > self.span {
            self.old = std::mem::take(&mut self.new);
            self.turned_at = now;
        }
    }
    fn get(&self, low: u64) -> Known {
        self.new.get(&low).or_else(|| self.old.get(&low)).copied().unwrap_or_default()
    }
}

/// State of the way in. One lock around it makes the order of the log the
/// order of the live spans.
pub(crate) struct Intake {
    recent: Recent,
    halves: Halves,
    /// Lower halves under which spans were stored before their full id was
    /// known: reads of either id read both. Oldest first, bounded.
    aliases: Arc<Aliases>,
    inserted: Vec<u64>,
    now: i64,
    datadog: bool,
    /// Aliases found while this batch was taken in.
    found: Vec<TraceId>,
}

/// Full ids by lower half.
#[derive(Clone, Default)]
pub(crate) struct Aliases {
    by_low: HashMap<u64, TraceId>,
    order: std::collections::VecDeque<u64>,
}

/// Bound of [`Aliases`]: they are rare (a piece without the upper half has
/// come before any piece with it).
const MAX_ALIASES: usize = 100_000;

impl Aliases {
    /// Remembers that spans of `full` lie under its lower half alone.
    pub fn insert(&mut self, full: TraceId) -> bool {
        if self.by_low.insert(full.low(), full).is_some() {
            return false;
        }
        self.order.push_back(full.low());
        if self.order.len() > MAX_ALIASES
            && let Some(low) = self.order.pop_front()
        {
            self.by_low.remove(&low);
        }
        true
    }
    /// The full id of a lower half.
    pub fn full(&self, id: TraceId) -> TraceId {
        if id.high() == 0 { self.by_low.get(&id.low()).copied().unwrap_or(id) } else { id }
    }
    /// Ids under which spans of this trace may lie.
    pub fn stored(&self, id: TraceId) -> (TraceId, Option<TraceId>) {
        let full = self.full(id);
        let low = (full.high() != 0 && self.by_low.get(&full.low()) == Some(&full))
            .then_some(TraceId::from_halves(0, full.low()));
        (full, low)
    }
    pub fn iter(&self) -> impl Iterator<Item = TraceId> {
        self.order.iter().filter_map(|low| self.by_low.get(low).copied())
    }
}

impl Intake {
    pub fn new(recent_spans: usize, recent_traces: usize, recent_for: i64, aliases: Arc<Aliases>) -> Self {
        Self {
            recent: Recent { half: recent_spans.max(1), ..Recent::default() },
            halves: Halves { most: recent_traces.max(1), span: recent_for, ..Halves::default() },
            aliases,
            inserted: Vec::new(),
            now: 0,
            datadog: false,
            found: Vec::new(),
        }
    }

    /// Before a batch.
    pub fn begin(&mut self, now: i64, datadog: bool) {
        self.now = now;
        self.datadog = datadog;
        self.inserted.clear();
        self.found.clear();
        self.halves.turn(now);
    }

    /// The batch was refused: its spans are not known after all.
    pub fn undo(&mut self) {
        for fingerprint in self.inserted.drain(..) {
            self.recent.forget(fingerprint);
        }
    }

    /// Some writes failed: what was believed to be stored may come again.
    pub fn forget_recent(&mut self) {
        self.recent.clear();
    }

    /// New aliases of the batch.
    pub fn take_found(&mut self) -> Vec<TraceId> {
        std::mem::take(&mut self.found)
    }

    pub fn aliases(&self) -> &Arc<Aliases> {
        &self.aliases
    }

    /// Takes note of ids that come from the log at start.
    pub fn replayed(&mut self, id: TraceId) {
        self.join(id);
    }

    fn join(&mut self, id: TraceId) -> TraceId {
        let low = id.low();
        let known = self.halves.get(low);
        if id.high() == 0 {
            // Other protocols mean a 64-bit id when they send one.
            if !self.datadog {
                return id;
            }
            if known.high != 0 {
                self.halves.new.insert(low, known);
                return TraceId::from_halves(known.high, low);
            }
            let full = self.aliases.full(id);
            if full != id {
                return full;
            }
            self.halves.new.insert(low, Known { high: 0, stored_low: true });
            return id;
        }
        if known.stored_low && Arc::make_mut(&mut self.aliases).insert(id) {
            self.found.push(id);
        }
        self.halves.new.insert(low, Known { high: id.high(), stored_low: false });
        id
    }
}

impl Rules for Intake {
    fn trace_id(&mut self, chunk: &Chunk) -> TraceId {
        self.join(chunk.trace_id)
    }
    fn keep(&mut self, fingerprint: u64) -> bool {
        let new = self.recent.insert(fingerprint);
        if new {
            self.inserted.push(fingerprint);
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn recent_spans_are_known_until_twice_the_bound() {
        let mut recent = Recent { half: 10, ..Recent::default() };
        for i in 0..10u64 {
            assert!(recent.insert(i));
            assert!(!recent.insert(i));
        }
        assert!((0..10).all(|i| !recent.insert(i)));
        (10..30).for_each(|i| {
            recent.insert(i);
        });
        assert!(recent.insert(0), "forgotten by now");
        recent.forget(0);
        assert!(recent.insert(0));
    }

    #[test]
    fn a_lower_half_is_joined_while_its_full_id_is_remembered() {
        let mut intake = Intake::new(10, 10, 600, Arc::default());
        let full = TraceId::from_halves(7, 9);
        intake.begin(0, true);
        intake.join(full);
        intake.begin(600, true);
        assert_eq!(intake.join(TraceId(9)), full);
        intake.begin(600, false);
        assert_eq!(intake.join(TraceId(9)), TraceId(9), "only Datadog cuts ids");
        intake.begin(1300, true);
        intake.begin(2000, true);
        assert_eq!(intake.join(TraceId(9)), TraceId(9), "forgotten after a while");
    }

    #[test]
    fn a_lower_half_that_came_first_becomes_an_alias() {
        let mut intake = Intake::new(10, 10, 600, Arc::default());
        intake.begin(0, true);
        assert_eq!(intake.join(TraceId(9)), TraceId(9));
        let full = TraceId::from_halves(7, 9);
        intake.join(full);
        assert_eq!(intake.take_found(), [full]);
        assert_eq!(intake.aliases().stored(TraceId(9)), (full, Some(TraceId(9))));
        assert_eq!(intake.aliases().stored(full), (full, Some(TraceId(9))));
        let other = TraceId::from_halves(8, 9);
        assert_eq!(intake.aliases().stored(other), (other, None));
    }
}
