//! Requests, errors and durations kept here for local answers: one cell per
//! (service, operation, resource, kind) and minute. Fed from what the
//! concentrator and the client aggregator flush, so it is right even where
//! traces were sampled away, and costs nothing per span.

use crate::concentrator::OVERFLOW;
use crate::sketch::Sketch;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use spanloom_model::stats::{ClientGroupedStats, StatsPayload};
use spanloom_model::{RedFilter, RedPoint, RedSeries, SpanKind};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::BuildHasher;

mod saved;

const MINUTE: i64 = 60_000_000_000;

/// Limits of [`Red`].
#[derive(Clone, Debug)]
pub struct RedSettings {
    /// How many minutes are kept.
    pub minutes: u32,
    /// Most series held; beyond it their figures go to the resource
    /// [`OVERFLOW`] of their service.
    pub max_series: usize,
    /// Most bytes held (approximate); beyond it the oldest minutes go first.
    pub max_bytes: usize,
    /// Seed of the hash tables.
    pub seed: u64,
}

impl Default for RedSettings {
    fn default() -> Self {
        Self { minutes: 24 * 60, max_series: 10_000, max_bytes: 16 << 20, seed: 0 }
    }
}

/// Figures of one series and minute, small.
#[derive(Clone, Debug, Default)]
struct Cell {
    requests: u64,
    errors: u64,
    top_level: u64,
    duration: u64,
    zero: f32,
    /// Bins of latencies, sorted by index.
    bins: Vec<(i16, f32)>,
}

#[derive(Debug)]
struct Series {
    hash: u64,
    /// Service, operation, resource, kind.
    key: [Box<str>; 4],
}

/// The store of local figures.
#[derive(Debug)]
pub struct Red {
    settings: RedSettings,
    hasher: FixedState,
    series: Vec<Series>,
    table: HashTable<u32>,
    minutes: BTreeMap<i64, HashMap<u32, Cell, FixedState>>,
    bytes: usize,
    expired: u64,
    evicted: u64,
    /// Minutes that have changed since they were saved.
    unsaved: BTreeSet<i64>,
}

impl Red {
    /// An empty store.
    pub fn new(settings: RedSettings) -> Self {
        Self {
            hasher: FixedState::with_seed(settings.seed),
            settings,
            series: Vec::new(),
            table: HashTable::new(),
            minutes: BTreeMap::new(),
            bytes: 0,
            expired: 0,
            evicted: 0,
            unsaved: BTreeSet::new(),
        }
    }

    /// Requests that arrived for a minute no longer kept.
    pub fn expired(&self) -> u64 {
        self.expired
    }

    /// Minutes given up early because of `max_bytes`.
    pub fn evicted_minutes(&self) -> u64 {
        self.evicted
    }

    /// Approximate bytes held.
    pub fn size(&self) -> usize {
        self.bytes
    }

    /// Takes in what was flushed. `now` in nanoseconds since the Unix epoch;
    /// figures from the future count for the present minute.
    pub fn merge(&mut self, payload: &StatsPayload, now: i64) {
        let present = now.div_euclid(MINUTE);
        let oldest = present - i64::from(self.settings.minutes.max(1)) + 1;
        for source in &payload.stats {
            for bucket in &source.stats {
                let minute = i64::try_from(bucket.start).unwrap_or(i64::MAX).div_euclid(MINUTE).min(present);
                for group in &bucket.stats {
                    if minute < oldest {
                        self.expired = self.expired.saturating_add(group.hits);
                    } else {
                        self.merge_group(minute, group);
                    }
                }
            }
        }
        self.prune(oldest);
    }

    fn merge_group(&mut self, minute: i64, group: &ClientGroupedStats) {
        let cell = Cell::of(group);
        self.add_cell(minute, key_of(group), &cell);
        self.unsaved.insert(minute);
    }

    fn add_cell(&mut self, minute: i64, key: [&str; 4], figures: &Cell) {
        let series = self.series_of(key);
        let hasher = self.hasher.clone();
        let cells = self.minutes.entry(minute).or_insert_with(|| HashMap::with_hasher(hasher));
        let cell = cells.entry(series).or_insert_with(|| {
            self.bytes += size_of::<(u32, Cell)>();
            Cell::default()
        });
        let before = cell.bins.capacity();
        cell.add(figures);
        self.bytes += (cell.bins.capacity() - before) * size_of::<(i16, f32)>();
    }

    fn series_of(&mut self, key: [&str; 4]) -> u32 {
        if let Some(at) = self.find(key) {
            return at;
        }
        let key = if self.series.len() < self.settings.max_series {
            key
        } else {
            let few = self.series.len() < self.settings.max_series + self.settings.max_series / 10;
            let key = [if few { key[0] } else { "" }, "", OVERFLOW, ""];
            if let Some(at) = self.find(key) {
                return at;
            }
            key
        };
        let (at, hash) = (self.series.len() as u32, self.hasher.hash_one(key));
        self.bytes += size_of::<Series>() + key.iter().map(|k| k.len()).sum::<usize>();
        self.series.push(Series { hash, key: key.map(Into::into) });
        let series = &self.series;
        self.table.insert_unique(hash, at, |i| series[*i as usize].hash);
        at
    }

    fn find(&self, key: [&str; 4]) -> Option<u32> {
        let hash = self.hasher.hash_one(key);
        let same = |i: &u32| self.series[*i as usize].key.iter().zip(key).all(|(a, b)| **a == *b);
        self.table.find(hash, same).copied()
    }

    /// Gives up minutes that are too old or too many, and series without any.
    fn prune(&mut self, oldest: i64) {
        let before = self.minutes.len();
        loop {
            let many = self.bytes > self.settings.max_bytes && self.minutes.len() > 1;
            let Some(first) = self.minutes.first_entry() else { break };
            let old = *first.key() < oldest;
            if !old && !many {
                break;
            }
            self.evicted += u64::from(!old);
            self.unsaved.remove(first.key());
            for cell in first.remove().into_values() {
                self.bytes = self.bytes.saturating_sub(cell.size());
            }
        }
        if self.minutes.len() < before {
            self.forget_series();
        }
    }

    fn forget_series(&mut self) {
        let mut place = vec![u32::MAX; self.series.len()];
        for series in self.minutes.values().flat_map(HashMap::keys) {
            place[*series as usize] = 0;
        }
        if !place.contains(&u32::MAX) {
            return;
        }
        let mut next = 0;
        let mut kept = Vec::new();
        for (place, series) in place.iter_mut().zip(std::mem::take(&mut self.series)) {
            if *place == 0 {
                *place = next;
                next += 1;
                kept.push(series);
            }
        }
        self.series = kept;
        let series = &self.series;
        self.table.clear();
        for (i, s) in series.iter().enumerate() {
            self.table.insert_unique(s.hash, i as u32, |i| series[*i as usize].hash);
        }
        for cells in self.minutes.values_mut() {
            let old = std::mem::replace(cells, HashMap::with_hasher(self.hasher.clone()));
            cells.extend(old.into_iter().map(|(s, c)| (place[s as usize], c)));
        }
        let cells = self.minutes.values().flat_map(HashMap::values).map(Cell::size).sum::<usize>();
        let texts = self.series.iter().flat_map(|s| &s.key).map(|k| k.len()).sum::<usize>();
        self.bytes = cells + texts + self.series.len() * size_of::<Series>();
    }

    /// Answers a question. `live` is what is counted but not flushed yet
    /// ([`crate::Concentrator::peek`]). Series are sorted by their names.
    pub fn query(&self, filter: &RedFilter<'_>, live: Option<&StatsPayload>) -> Vec<RedSeries> {
        let times = Times::of(filter);
        let live: Vec<(i64, [&str; 4], Cell)> = live
            .iter()
            .flat_map(|payload| &payload.stats)
            .flat_map(|source| &source.stats)
            .map(|bucket| (i64::try_from(bucket.start).unwrap_or(i64::MAX).div_euclid(MINUTE), bucket))
            .filter(|(minute, _)| (times.from..times.to).contains(minute))
            .flat_map(|(minute, bucket)| {
                bucket.stats.iter().map(move |group| (minute, key_of(group), Cell::of(group)))
            })
            .collect();
        let live = live.iter().map(|(minute, key, cell)| (*minute, *key, cell));
        let flushed = self.minutes.range(times.from..times.to.max(times.from));
        let flushed = flushed.flat_map(|(minute, cells)| cells.iter().map(move |cell| (*minute, cell)));
        let key = |series: u32| self.series[series as usize].key.each_ref().map(|k| &**k);
        let flushed = flushed.map(|(minute, (series, cell))| (minute, key(*series), cell));
        let mut found: BTreeMap<[&str; 4], Vec<(i64, &Cell)>> = BTreeMap::new();
        for (minute, key, cell) in flushed.chain(live).filter(|(_, key, cell)| takes(filter, *key, cell)) {
            found.entry(cut(filter, key)).or_default().push((minute, cell));
        }
        let point = |(minute, sum): (i64, Sum)| {
            let q = |q| sum.sketch.quantile(q).unwrap_or(0.0);
            RedPoint {
                start: minute.saturating_mul(MINUTE),
                requests: sum.cell.requests,
                errors: sum.cell.errors,
                top_level: sum.cell.top_level,
                duration: sum.cell.duration,
                p50: q(0.5),
                p95: q(0.95),
                p99: q(0.99),
                latency: q(filter.quantile),
            }
        };
        // One series after the other: sums hold sketches, points do not.
        let series = found.into_iter().map(|(key, cells)| {
            let mut sums: BTreeMap<i64, Sum> = BTreeMap::new();
            for (minute, cell) in cells {
                times.points(minute).for_each(|point| sums.entry(point).or_default().add(cell));
            }
            let [service, operation, resource, kind] = key.map(str::to_owned);
            RedSeries { service, operation, resource, kind, points: sums.into_iter().map(point).collect() }
        });
        series.filter(|s| !s.points.is_empty()).collect()
    }
}

/// Service, operation, resource, kind; the role of the span's type if its kind
/// is not known.
fn key_of(group: &ClientGroupedStats) -> [&str; 4] {
    let kind = match group.span_kind.as_str() {
        "" => SpanKind::of_type(&group.span_type).name(),
        kind => SpanKind::from_name(kind).map_or(kind, |known| known.name()),
    };
    [&group.service, &group.name, &group.resource, kind]
}

/// The times of a question, in minutes.
struct Times {
    from: i64,
    to: i64,
    step: i64,
    window: i64,
    /// Points beyond the end of the time are cut, not left out.
    cut: bool,
}

impl Times {
    fn of(filter: &RedFilter<'_>) -> Self {
        let from = filter.from.div_euclid(MINUTE);
        let to = filter.to.div_euclid(MINUTE) + i64::from(filter.to.rem_euclid(MINUTE) > 0);
        let whole = (to - from).max(1);
        let step = if filter.step <= 0 { whole } else { (filter.step / MINUTE).max(1) };
        let cut = filter.window <= 0;
        Self { from, to, step, window: if cut { step } else { (filter.window / MINUTE).max(1) }, cut }
    }

    /// The points that cover a minute, by their first minutes.
    fn points(&self, minute: i64) -> impl Iterator<Item = i64> + use<> {
        let (from, step) = (self.from, self.step);
        let end = if self.cut { self.to - 1 } else { self.to - self.window };
        let last = minute.min(end).saturating_sub(from).div_euclid(step);
        let first = (minute - self.window + 1 - from).max(0);
        let first = first.div_euclid(step) + i64::from(first.rem_euclid(step) > 0);
        (first..=last).map(move |n| from + n * step)
    }
}

fn takes(filter: &RedFilter<'_>, key: [&str; 4], cell: &Cell) -> bool {
    let want = [(filter.operation, key[1]), (filter.resource, key[2])];
    want.iter().all(|(want, is)| want.is_none_or(|w| w == *is))
        && (filter.services.is_empty() || filter.services.contains(&key[0]))
        && (filter.kinds.is_empty() || filter.kinds.contains(&key[3]))
        && (!filter.entries || cell.top_level > 0)
}

/// Leaves what tells series apart.
fn cut<'k>(filter: &RedFilter<'_>, mut key: [&'k str; 4]) -> [&'k str; 4] {
    for part in key.iter_mut().skip(usize::from(filter.depth.max(1))) {
        *part = "";
    }
    key
}

impl Cell {
    fn size(&self) -> usize {
        size_of::<(u32, Self)>() + self.bins.capacity() * size_of::<(i16, f32)>()
    }

    fn of(group: &ClientGroupedStats) -> Self {
        let mut cell = Self {
            requests: group.hits,
            errors: group.errors,
            top_level: group.top_level_hits,
            duration: group.duration,
            ..Self::default()
        };
        for raw in [&group.ok_summary, &group.error_summary] {
            // A sketch that cannot be read leaves the counts right.
            let Ok(sketch) = Sketch::decode(raw) else { continue };
            cell.zero += sketch.zero_count() as f32;
            for (index, count) in sketch.bins() {
                let index = index.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
                cell.add_bin(index, count as f32);
            }
        }
        cell
    }

    fn add(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.top_level = self.top_level.saturating_add(other.top_level);
        self.duration = self.duration.saturating_add(other.duration);
        self.zero += other.zero;
        other.bins.iter().for_each(|(index, count)| self.add_bin(*index, *count));
    }

    fn add_bin(&mut self, index: i16, count: f32) {
        match self.bins.binary_search_by_key(&index, |b| b.0) {
            Ok(at) => self.bins[at].1 += count,
            Err(at) => self.bins.insert(at, (index, count)),
        }
    }
}

#[derive(Default)]
struct Sum {
    cell: Cell,
    sketch: Sketch,
}

impl Sum {
    fn add(&mut self, cell: &Cell) {
        let to = &mut self.cell;
        to.requests = to.requests.saturating_add(cell.requests);
        to.errors = to.errors.saturating_add(cell.errors);
        to.top_level = to.top_level.saturating_add(cell.top_level);
        to.duration = to.duration.saturating_add(cell.duration);
        self.sketch.add_count(0.0, f64::from(cell.zero));
        for (index, count) in &cell.bins {
            self.sketch.add_bin(i32::from(*index), f64::from(*count));
        }
    }
}
