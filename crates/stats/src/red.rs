//! Requests, errors and durations kept here for local answers: one cell per
//! (service, operation, resource, kind) and minute. Fed from what the
//! concentrator and the client aggregator flush, so it is right even where
//! traces were sampled away, and costs nothing per span.

use crate::concentrator::OVERFLOW;
use crate::sketch::Sketch;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use spanloom_model::stats::{ClientGroupedStats, StatsPayload};
use std::collections::{BTreeMap, HashMap};
use std::hash::BuildHasher;

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

/// What a question is about. Empty fields hold for everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct RedFilter<'a> {
    /// Only this service.
    pub service: Option<&'a str>,
    /// Only this operation.
    pub operation: Option<&'a str>,
    /// Only this resource.
    pub resource: Option<&'a str>,
    /// Only this span kind.
    pub kind: Option<&'a str>,
    /// From this time on, nanoseconds since the Unix epoch; rounded down to a minute.
    pub from: i64,
    /// Before this time; rounded up to a minute.
    pub to: i64,
    /// Width of a point in nanoseconds, rounded up to minutes; 0: one point
    /// for the whole time.
    pub step: i64,
    /// How many of service, operation, resource, kind tell series apart
    /// (1 to 4); the others are added up.
    pub depth: u8,
}

/// Figures of one series.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct RedSeries {
    /// Service.
    pub service: String,
    /// Operation; empty if added up.
    pub operation: String,
    /// Resource; empty if added up.
    pub resource: String,
    /// Span kind; empty if added up or unknown.
    pub kind: String,
    /// Points in order of time; empty times have none.
    pub points: Vec<RedPoint>,
}

/// Figures of one time.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct RedPoint {
    /// Start, nanoseconds since the Unix epoch.
    pub start: i64,
    /// Spans counted.
    pub requests: u64,
    /// Of these, failed.
    pub errors: u64,
    /// Of these, entries of their service.
    pub top_level: u64,
    /// Sum of durations, nanoseconds.
    pub duration: u64,
    /// Median latency in nanoseconds, exact to about 1 %.
    pub p50: f64,
    /// 95th percentile, likewise.
    pub p95: f64,
    /// 99th percentile, likewise.
    pub p99: f64,
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
        let series = self.series_of([&group.service, &group.name, &group.resource, &group.span_kind]);
        let hasher = self.hasher.clone();
        let cells = self.minutes.entry(minute).or_insert_with(|| HashMap::with_hasher(hasher));
        let cell = cells.entry(series).or_insert_with(|| {
            self.bytes += size_of::<(u32, Cell)>();
            Cell::default()
        });
        let before = cell.bins.capacity();
        cell.add(group);
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
        let from = filter.from.div_euclid(MINUTE);
        let to = filter.to.div_euclid(MINUTE) + i64::from(filter.to.rem_euclid(MINUTE) > 0);
        if to <= from {
            return Vec::new();
        }
        let step = if filter.step <= 0 { to - from } else { filter.step.div_euclid(MINUTE).max(1) };
        let mut found: BTreeMap<[&str; 4], BTreeMap<i64, Sum>> = BTreeMap::new();
        for (minute, cells) in self.minutes.range(from..to) {
            let point = from + (minute - from) / step * step;
            for (series, cell) in cells {
                let key = self.series[*series as usize].key.each_ref().map(|k| &**k);
                if filter.takes(key) {
                    found.entry(filter.cut(key)).or_default().entry(point).or_default().add(cell);
                }
            }
        }
        for bucket in live.iter().flat_map(|p| &p.stats).flat_map(|s| &s.stats) {
            let minute = i64::try_from(bucket.start).unwrap_or(i64::MAX).div_euclid(MINUTE);
            if !(from..to).contains(&minute) {
                continue;
            }
            let point = from + (minute - from) / step * step;
            for group in &bucket.stats {
                let key: [&str; 4] = [&group.service, &group.name, &group.resource, &group.span_kind];
                if filter.takes(key) {
                    let mut cell = Cell::default();
                    cell.add(group);
                    found.entry(filter.cut(key)).or_default().entry(point).or_default().add(&cell);
                }
            }
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
            }
        };
        found
            .into_iter()
            .map(|(key, points)| {
                let [service, operation, resource, kind] = key.map(str::to_owned);
                RedSeries {
                    service,
                    operation,
                    resource,
                    kind,
                    points: points.into_iter().map(point).collect(),
                }
            })
            .collect()
    }
}

impl RedFilter<'_> {
    fn takes(&self, key: [&str; 4]) -> bool {
        let want = [self.service, self.operation, self.resource, self.kind];
        want.iter().zip(key).all(|(want, is)| want.is_none_or(|w| w == is))
    }

    fn cut<'k>(&self, mut key: [&'k str; 4]) -> [&'k str; 4] {
        for part in key.iter_mut().skip(usize::from(self.depth.max(1))) {
            *part = "";
        }
        key
    }
}

impl Cell {
    fn size(&self) -> usize {
        size_of::<(u32, Self)>() + self.bins.capacity() * size_of::<(i16, f32)>()
    }

    fn add(&mut self, group: &ClientGroupedStats) {
        self.requests = self.requests.saturating_add(group.hits);
        self.errors = self.errors.saturating_add(group.errors);
        self.top_level = self.top_level.saturating_add(group.top_level_hits);
        self.duration = self.duration.saturating_add(group.duration);
        for raw in [&group.ok_summary, &group.error_summary] {
            // A sketch that cannot be read leaves the counts right.
            let Ok(sketch) = Sketch::decode(raw) else { continue };
            self.zero += sketch.zero_count() as f32;
            for (index, count) in sketch.bins() {
                let index = index.clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
                match self.bins.binary_search_by_key(&index, |b| b.0) {
                    Ok(at) => self.bins[at].1 += count as f32,
                    Err(at) => self.bins.insert(at, (index, count as f32)),
                }
            }
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
