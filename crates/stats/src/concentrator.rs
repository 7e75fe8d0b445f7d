//! The concentrator: counts every span that matters, before any sampling,
//! into buckets of ten seconds (`datadog-agent:pkg/trace/stats/concentrator.go`).
//!
//! A span whose key is known costs one pass over its attributes, one hash and
//! one look-up; nothing is copied or allocated.

mod delta;
mod source;

pub use delta::{Delta, Replay};

use crate::facts::BASE_SERVICE;
use crate::rules::{align, round_at_random};
use crate::sketch::{Sketch, truncate_duration};
use crate::tally::{Own, Scanner, Sender, Tally, hash_value};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use source::{Source, SourceRef, intern};
use spanloom_model::stats::{
    ClientGroupedStats, ClientStatsBucket, ClientStatsPayload, StatsPayload, Trilean,
};
use spanloom_model::{Batch, Chunk, Fate, Text, keys, same_bytes};
use std::borrow::Cow;
use std::hash::BuildHasher;
use std::sync::Arc;

/// Resource of the group that takes what no longer fits.
pub const OVERFLOW: &str = "agent_blocked_value";

/// Settings of the concentrator.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Width of a bucket, nanoseconds (`apm_config.bucket_size_seconds`).
    pub bucket_ns: i64,
    /// `apm_config.compute_stats_by_span_kind`.
    pub by_span_kind: bool,
    /// Keys of peer tags in order; empty: none. See [`crate::rules::peer_tag_keys`].
    pub peer_tags: Vec<String>,
    /// Keys of extra dimensions (`apm_config.span_derived_primary_tags`).
    pub extra_tags: Vec<String>,
    /// Hides addresses in peer tags (the obfuscator's `quantize_peer_ip`).
    pub quantize_peer: fn(&str) -> Cow<'_, str>,
    /// Feature `disable_cid_stats`.
    pub without_container: bool,
    /// Feature `disable_process_stats`.
    pub without_process: bool,
    /// Host of the agent.
    pub hostname: String,
    /// Default environment of the agent.
    pub env: String,
    /// Version of the agent.
    pub version: String,
    /// Most groups held over all buckets; beyond it spans are counted under
    /// the resource [`OVERFLOW`] of their service. The reference has no bound.
    pub max_groups: usize,
    /// Seed of the hash tables.
    pub seed: u64,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            bucket_ns: 10_000_000_000,
            by_span_kind: true,
            peer_tags: crate::rules::peer_tag_keys(&[]),
            extra_tags: Vec::new(),
            quantize_peer: |s| Cow::Borrowed(s),
            without_container: false,
            without_process: false,
            hostname: String::new(),
            env: "none".into(),
            version: String::new(),
            max_groups: 50_000,
            seed: 0,
        }
    }
}

/// Totals since the start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counters {
    /// Spans counted (not weighted).
    pub spans: u64,
    /// Spans counted under [`OVERFLOW`].
    pub overflowed: u64,
    /// Spans that ended so far ahead that their bucket was not opened.
    pub clamped: u64,
}

/// Buckets kept back at a flush: the current and the previous one.
const KEPT_BACK: i64 = 2;
/// Most buckets open at once; only clocks in the future can need more than a few.
const MAX_BUCKETS: usize = 256;

/// Borrowed form of a group's key.
struct KeyRef<'a> {
    source: u32,
    own: Own<'a>,
    /// Hash of `own`.
    own_hash: u64,
}

#[derive(Debug)]
struct Group {
    hash: u64,
    /// Hash of the key besides its source.
    own_hash: u64,
    source: u32,
    status: u32,
    grpc: Option<u32>,
    dims_hash: u64,
    synthetics: bool,
    root: bool,
    /// The six texts of the key, one after the other.
    text: Box<[u8]>,
    ends: [u32; 6],
    peer_tags: Box<[String]>,
    extra_tags: Box<[String]>,
    hits: f64,
    top_level: f64,
    errors: f64,
    duration: f64,
    ok: Sketch,
    failed: Option<Box<Sketch>>,
}

#[derive(Debug)]
struct Bucket {
    start: i64,
    /// Its number in the log, given once: see [`Delta`].
    era: u64,
    /// No record before this one is about it.
    since: u64,
    table: HashTable<u32>,
    groups: Vec<Group>,
}

/// Counts spans into buckets. One per process; flushed every bucket width.
#[derive(Debug)]
pub struct Concentrator {
    settings: Settings,
    scanner: Arc<Scanner>,
    oldest: i64,
    buckets: Vec<Bucket>,
    sources: Vec<Source>,
    source_table: HashTable<u32>,
    groups: usize,
    counters: Counters,
    log: delta::Log,
    /// For callers that bring none; kept so that a chunk allocates nothing.
    tally: Tally,
}

impl Concentrator {
    /// A concentrator started at `now` (nanoseconds since the Unix epoch).
    pub fn new(settings: Settings, now: i64) -> Self {
        let settings = Settings { bucket_ns: settings.bucket_ns.max(1), ..settings };
        let scanner = Arc::new(Scanner::new(&settings));
        Self {
            tally: Tally::new(Arc::clone(&scanner)),
            scanner,
            oldest: align(now, settings.bucket_ns),
            settings,
            buckets: Vec::new(),
            sources: Vec::new(),
            source_table: HashTable::new(),
            groups: 0,
            counters: Counters::default(),
            log: delta::Log::default(),
        }
    }

    /// Totals since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Groups held now.
    pub fn group_count(&self) -> usize {
        self.groups
    }

    /// An empty list of what is to be counted here.
    pub fn tally(&self) -> Tally {
        Tally::new(Arc::clone(&self.scanner))
    }

    /// Counts what was tallied of a batch. `now` in nanoseconds since the Unix
    /// epoch.
    pub fn count(&mut self, batch: &Batch, tally: &Tally, now: i64) {
        self.add(batch, tally, now, None);
    }

    /// As [`Concentrator::count`]; what it changes is written to `delta` as well.
    pub fn count_logged(&mut self, batch: &Batch, tally: &Tally, now: i64, delta: &mut Delta) {
        self.add(batch, tally, now, Some(delta));
    }

    /// Counts all chunks of a batch that are to be counted: none if the client
    /// computed stats, and none that was filtered or rejected. Otherwise as
    /// [`Concentrator::add_chunk`].
    pub fn add_batch(&mut self, batch: &Batch, now: i64) {
        if !batch.intake.client.computed_stats {
            let kept = batch.chunks.iter().filter(|c| c.fate == Fate::Kept);
            self.tally_and_add(batch, kept, now);
        }
    }

    /// Tallies a chunk ([`Tally::add`]) and counts it.
    pub fn add_chunk(&mut self, batch: &Batch, chunk: &Chunk, now: i64) {
        self.tally_and_add(batch, std::iter::once(chunk), now);
    }

    fn tally_and_add<'a>(&mut self, batch: &Batch, chunks: impl Iterator<Item = &'a Chunk>, now: i64) {
        let empty = self.tally();
        let mut tally = std::mem::replace(&mut self.tally, empty);
        chunks.for_each(|chunk| tally.add(batch, chunk));
        self.add(batch, &tally, now, None);
        tally.clear();
        self.tally = tally;
    }

    fn add(&mut self, batch: &Batch, tally: &Tally, now: i64, mut delta: Option<&mut Delta>) {
        let mut known: Option<(&Sender, u32)> = None;
        let mut facts = tally.facts.iter();
        let mut begin = 0;
        for chunk in &tally.chunks {
            let source = match known {
                Some((sender, source)) if *sender == chunk.sender => source,
                _ => self.source(batch, &chunk.sender),
            };
            known = Some((&chunk.sender, source));
            for fact in facts.by_ref().take(chunk.end - begin) {
                let Some(span) = batch.spans.get(fact.span as usize) else { continue };
                let key = KeyRef { source, own: fact.own(batch, span), own_hash: fact.hash };
                self.counters.spans += 1;
                let bucket = self.bucket(span.end(), now);
                let room = self.groups < self.settings.max_groups;
                let hash = key.hash(&self.scanner.hasher);
                let group = match bucket_find(&self.buckets[bucket], hash, &key) {
                    Some(at) => at,
                    None if room => {
                        let (peers, extra) = self.scanner.dim_tags(batch, tally.dims(fact));
                        self.insert(bucket, hash, &key, peers, extra)
                    }
                    None => self.overflow(bucket, &key),
                };
                let one = One {
                    top_level: fact.top_level,
                    error: span.is_error(),
                    duration: span.duration.max(0) as u64,
                    weight: chunk.weight,
                };
                let bucket = &mut self.buckets[bucket];
                bucket.groups[group].count(one);
                if let Some(delta) = delta.as_deref_mut() {
                    delta.span(bucket.era, group, one);
                }
            }
            begin = chunk.end;
        }
    }

    /// Position of the bucket of a span that ended at `end`.
    fn bucket(&mut self, end: i64, now: i64) -> usize {
        let width = self.settings.bucket_ns;
        let mut start = align(end, width).max(self.oldest);
        // Newest last; nearly every span belongs to one of the last two.
        if let Some(at) = self.buckets.iter().rposition(|b| b.start == start) {
            return at;
        }
        if self.buckets.len() >= MAX_BUCKETS {
            self.counters.clamped += 1;
            start = align(now, width).max(self.oldest);
            if let Some(at) = self.buckets.iter().rposition(|b| b.start == start) {
                return at;
            }
        }
        self.open(start)
    }

    /// A new bucket.
    fn open(&mut self, start: i64) -> usize {
        let at = self.buckets.partition_point(|b| b.start < start);
        let era = self.log.era();
        let since = self.log.position;
        self.buckets.insert(at, Bucket { start, era, since, table: HashTable::new(), groups: Vec::new() });
        at
    }

    fn insert(
        &mut self,
        bucket: usize,
        hash: u64,
        key: &KeyRef<'_>,
        peers: Vec<String>,
        extra: Vec<String>,
    ) -> usize {
        let bucket = &mut self.buckets[bucket];
        let at = bucket.groups.len();
        bucket.groups.push(key.to_group(hash, peers, extra));
        let groups = &bucket.groups;
        bucket.table.insert_unique(hash, at as u32, |i| groups[*i as usize].hash);
        self.groups += 1;
        self.log.define(bucket, at, &self.sources);
        at
    }

    /// The group for what no longer fits: per service as long as there is some
    /// room beyond the limit, then one for all services of a bucket.
    fn overflow(&mut self, bucket: usize, key: &KeyRef<'_>) -> usize {
        self.counters.overflowed += 1;
        let room = self.groups < self.settings.max_groups + self.settings.max_groups / 10;
        for (service, source) in [(key.own.texts[0], key.source), (b"", 0)] {
            let texts = [service, b"", OVERFLOW.as_bytes(), b"", b"", b""];
            let own = Own { texts, status: 0, grpc: None, dims_hash: 0, synthetics: false, root: false };
            let key = KeyRef::new(source, own, &self.scanner.hasher);
            let hash = key.hash(&self.scanner.hasher);
            if let Some(at) = bucket_find(&self.buckets[bucket], hash, &key) {
                return at;
            }
            if room || service.is_empty() {
                return self.insert(bucket, hash, &key, Vec::new(), Vec::new());
            }
        }
        0
    }

    /// The source of a chunk, interned.
    fn source(&mut self, batch: &Batch, sender: &Sender) -> u32 {
        let (resource, git) = (&sender.resource, batch.str(sender.git));
        let or = |text: Text, other: &'static str| if text.is_empty() { other } else { batch.str(text) };
        let container_tags = batch.get_str(resource.attrs, keys::CONTAINER_TAGS).unwrap_or_default();
        let process_tags = batch.get_str(resource.attrs, keys::PROCESS_TAGS).unwrap_or_default();
        let tag = |prefix| container_tags.split(',').find_map(|t| t.strip_prefix(prefix)).unwrap_or_default();
        let env = or(resource.env, "");
        let hostname = or(resource.hostname, "");
        let key = SourceRef {
            texts: [
                if env.is_empty() { &self.settings.env } else { env },
                if hostname.is_empty() { &self.settings.hostname } else { hostname },
                // Agents after 7.80 fall back to the container's `version:`; 7.80.2 does not (observed).
                or(resource.app_version, ""),
                if self.settings.without_container { "" } else { or(resource.container_id, "") },
                if git.is_empty() { tag("git.commit.sha:") } else { git },
                tag("image_tag:"),
                or(resource.language_name, ""),
                batch.str(sender.base_service),
            ],
            container_tags: if self.settings.without_container { "" } else { container_tags },
            process_tags: if self.settings.without_process { "" } else { process_tags },
        };
        intern(&mut self.sources, &mut self.source_table, &self.scanner.hasher, &key)
    }

    /// Takes out the buckets that are due at `now` (`all`: every bucket, at
    /// shutdown). The answer holds one payload per source; it has none when
    /// nothing is due, and then nothing is sent. `random` is uniform in
    /// [0, 1) and rounds weighted sums.
    pub fn flush(&mut self, now: i64, all: bool, random: &mut dyn FnMut() -> f64) -> StatsPayload {
        let width = self.settings.bucket_ns;
        let due = now.saturating_sub(KEPT_BACK * width);
        let n = if all { self.buckets.len() } else { self.buckets.partition_point(|b| b.start <= due) };
        let out = self.payload(&self.buckets[..n], |_| true, random);
        let flushed = self.buckets.drain(..n).map(|b| b.era);
        self.log.flushed(flushed);
        self.groups = self.buckets.iter().map(|b| b.groups.len()).sum();
        self.oldest = self.oldest.max(align(now, width).saturating_sub((KEPT_BACK - 1) * width));
        self.forget_sources();
        out
    }

    /// What is counted and not yet flushed, for local answers. Weighted sums
    /// are rounded to the nearest whole number.
    pub fn peek(&self) -> StatsPayload {
        self.peek_of(&[])
    }

    /// The same of these services alone; of all, if there are none.
    pub fn peek_of(&self, services: &[&str]) -> StatsPayload {
        let of = |group: &Group| services.iter().any(|s| s.as_bytes() == group.text(0));
        self.payload(&self.buckets, |group| services.is_empty() || of(group), &mut || 0.5)
    }

    fn payload(
        &self,
        buckets: &[Bucket],
        wanted: impl Fn(&Group) -> bool,
        random: &mut dyn FnMut() -> f64,
    ) -> StatsPayload {
        let mut place = vec![usize::MAX; self.sources.len()];
        let mut stats: Vec<ClientStatsPayload> = Vec::new();
        for bucket in buckets {
            for group in bucket.groups.iter().filter(|g| wanted(g)) {
                let source = group.source as usize;
                if place[source] == usize::MAX {
                    place[source] = stats.len();
                    stats.push(self.sources[source].to_payload());
                }
                let of = &mut stats[place[source]].stats;
                let start = u64::try_from(bucket.start).unwrap_or(0);
                if of.last().is_none_or(|b| b.start != start) {
                    let duration = self.settings.bucket_ns as u64;
                    of.push(ClientStatsBucket { start, duration, ..ClientStatsBucket::default() });
                }
                if let Some(b) = of.last_mut() {
                    b.stats.push(group.export(random));
                }
            }
        }
        StatsPayload {
            agent_hostname: self.settings.hostname.clone(),
            agent_env: self.settings.env.clone(),
            agent_version: self.settings.version.clone(),
            stats,
            client_computed: false,
            split_payload: false,
        }
    }

    /// Drops sources that no group refers to any more.
    fn forget_sources(&mut self) {
        let mut used = vec![false; self.sources.len()];
        for group in self.buckets.iter().flat_map(|b| &b.groups) {
            used[group.source as usize] = true;
        }
        let mut place = Vec::with_capacity(used.len());
        let mut next = 0;
        for u in &used {
            place.push(next);
            next += u32::from(*u);
        }
        let mut i = 0;
        self.sources.retain(|_| {
            i += 1;
            used[i - 1]
        });
        self.log.renumber(|source| used[source as usize].then(|| place[source as usize]));
        for group in self.buckets.iter_mut().flat_map(|b| &mut b.groups) {
            group.source = place[group.source as usize];
            group.hash = hash_of(group.own_hash, group.source, &self.scanner.hasher);
        }
        for bucket in &mut self.buckets {
            bucket.table.clear();
            let groups = &bucket.groups;
            for (i, group) in groups.iter().enumerate() {
                bucket.table.insert_unique(group.hash, i as u32, |i| groups[*i as usize].hash);
            }
        }
        self.source_table.clear();
        let sources = &self.sources;
        for (i, source) in sources.iter().enumerate() {
            self.source_table.insert_unique(source.hash, i as u32, |i| sources[*i as usize].hash);
        }
    }
}

fn bucket_find(bucket: &Bucket, hash: u64, key: &KeyRef<'_>) -> Option<usize> {
    bucket.table.find(hash, |i| key.is(&bucket.groups[*i as usize], hash)).map(|i| *i as usize)
}

/// Hash of a key, from that of its parts besides the source.
fn hash_of(own: u64, source: u32, hasher: &FixedState) -> u64 {
    hasher.hash_one((own, source))
}

impl<'a> KeyRef<'a> {
    fn new(source: u32, own: Own<'a>, hasher: &FixedState) -> Self {
        Self { source, own_hash: own.hash(hasher), own }
    }

    fn hash(&self, hasher: &FixedState) -> u64 {
        hash_of(self.own_hash, self.source, hasher)
    }

    fn is(&self, group: &Group, hash: u64) -> bool {
        let own = &self.own;
        if group.hash != hash
            || group.source != self.source
            || group.status != own.status
            || group.grpc != own.grpc
            || group.dims_hash != own.dims_hash
            || group.synthetics != own.synthetics
            || group.root != own.root
        {
            return false;
        }
        (0..6).all(|i| same_bytes(group.text(i), own.texts[i]))
    }

    fn to_group(&self, hash: u64, peers: Vec<String>, extra: Vec<String>) -> Group {
        let mut ends = [0; 6];
        let own = &self.own;
        let mut text = Vec::with_capacity(own.texts.iter().map(|t| t.len()).sum());
        for (end, t) in ends.iter_mut().zip(own.texts) {
            text.extend_from_slice(t);
            *end = text.len() as u32;
        }
        Group {
            hash,
            own_hash: self.own_hash,
            source: self.source,
            status: own.status,
            grpc: own.grpc,
            dims_hash: own.dims_hash,
            synthetics: own.synthetics,
            root: own.root,
            text: text.into(),
            ends,
            peer_tags: peers.into(),
            extra_tags: extra.into(),
            hits: 0.0,
            top_level: 0.0,
            errors: 0.0,
            duration: 0.0,
            ok: Sketch::default(),
            failed: None,
        }
    }
}

/// What a span adds to its group.
#[derive(Clone, Copy)]
struct One {
    top_level: bool,
    error: bool,
    /// Nanoseconds.
    duration: u64,
    weight: f64,
}

impl Group {
    fn count(&mut self, one: One) {
        self.hits += one.weight;
        if one.top_level {
            self.top_level += one.weight;
        }
        self.duration += one.duration as f64 * one.weight;
        let value = truncate_duration(one.duration);
        if one.error {
            self.errors += one.weight;
            self.failed.get_or_insert_default().add(value);
        } else {
            self.ok.add(value);
        }
    }

    fn text(&self, i: usize) -> &[u8] {
        let start = if i == 0 { 0 } else { self.ends[i - 1] as usize };
        self.text.get(start..self.ends[i] as usize).unwrap_or_default()
    }

    fn export(&self, random: &mut dyn FnMut() -> f64) -> ClientGroupedStats {
        let text = |i| String::from_utf8_lossy(self.text(i)).into_owned();
        ClientGroupedStats {
            service: text(0),
            name: text(1),
            resource: text(2),
            span_type: text(3),
            span_kind: text(4),
            service_source: text(5),
            http_status_code: self.status,
            hits: round_at_random(self.hits, random),
            errors: round_at_random(self.errors, random),
            duration: round_at_random(self.duration, random),
            top_level_hits: round_at_random(self.top_level, random),
            ok_summary: self.ok.to_bytes(),
            error_summary: self.failed.as_deref().unwrap_or(&Sketch::default()).to_bytes(),
            synthetics: self.synthetics,
            peer_tags: self.peer_tags.to_vec(),
            is_trace_root: Trilean::from(self.root),
            grpc_status_code: self.grpc.map(|g| g.to_string()).unwrap_or_default(),
            additional_metric_tags: self.extra_tags.to_vec(),
            ..ClientGroupedStats::default()
        }
    }
}
