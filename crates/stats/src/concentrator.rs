//! The concentrator: counts every span that matters, before any sampling,
//! into buckets of ten seconds (`datadog-agent:pkg/trace/stats/concentrator.go`).
//!
//! A span whose key is known costs one pass over its attributes, one hash and
//! one look-up; nothing is copied or allocated.

mod delta;
mod source;

pub use delta::{Delta, Malformed, Replay};

use crate::facts::{BASE_SERVICE, Dim, Facts, KeySet, Scan};
use crate::rules::{align, is_synthetics, round_at_random, weight};
use crate::sketch::{Sketch, truncate_duration};
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use source::{Source, SourceMemo, SourceRef, intern};
use spanloom_model::stats::{
    ClientGroupedStats, ClientStatsBucket, ClientStatsPayload, StatsPayload, Trilean,
};
use spanloom_model::{Batch, Chunk, Fate, Protocol, Resource, Span, SpanId, Text, keys, same_bytes};
use std::borrow::Cow;
use std::hash::{BuildHasher, Hash, Hasher};

/// Resource of the group that takes what no longer fits.
pub const OVERFLOW: &str = "agent_blocked_value";

/// Longest value of an extra dimension, in bytes; longer ones are replaced by
/// [`OVERFLOW`].
const MAX_EXTRA_VALUE: usize = 200;

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

/// Borrowed form of a group's key: service, name, resource, type, kind,
/// service source.
struct KeyRef<'a> {
    source: u32,
    texts: [&'a [u8]; 6],
    status: u32,
    grpc: Option<u32>,
    dims_hash: u64,
    synthetics: bool,
    root: bool,
}

#[derive(Debug)]
struct Group {
    hash: u64,
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

/// Counts spans into buckets. One per process, or one per worker; flushed
/// every bucket width.
#[derive(Debug)]
pub struct Concentrator {
    settings: Settings,
    keys: KeySet,
    hasher: FixedState,
    oldest: i64,
    buckets: Vec<Bucket>,
    sources: Vec<Source>,
    source_table: HashTable<u32>,
    groups: usize,
    counters: Counters,
    log: delta::Log,
    // Kept between calls so that a chunk allocates nothing.
    facts: Vec<Facts>,
    dims: Vec<Dim>,
}

impl Concentrator {
    /// A concentrator started at `now` (nanoseconds since the Unix epoch).
    pub fn new(settings: Settings, now: i64) -> Self {
        let settings = Settings { bucket_ns: settings.bucket_ns.max(1), ..settings };
        Self {
            keys: KeySet::new(&settings.peer_tags, &settings.extra_tags),
            hasher: FixedState::with_seed(settings.seed),
            oldest: align(now, settings.bucket_ns),
            settings,
            buckets: Vec::new(),
            sources: Vec::new(),
            source_table: HashTable::new(),
            groups: 0,
            counters: Counters::default(),
            log: delta::Log::default(),
            facts: Vec::new(),
            dims: Vec::new(),
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

    /// Counts all chunks of a batch that are to be counted: none if the client
    /// computed stats, and none that was filtered or rejected. Otherwise as
    /// [`Concentrator::add_chunk`].
    pub fn add_batch(&mut self, batch: &Batch, now: i64) {
        if batch.intake.client.computed_stats {
            return;
        }
        let mut memo = None;
        for chunk in batch.chunks.iter().filter(|c| c.fate == Fate::Kept) {
            self.add(batch, chunk, now, &mut memo, None);
        }
    }

    /// Counts a chunk, after normalisation and obfuscation and before
    /// sampling. The caller leaves out chunks whose client computed stats
    /// ([`spanloom_model::ClientFlags::computed_stats`]) and chunks that were
    /// filtered or rejected. `now` in nanoseconds since the Unix epoch.
    pub fn add_chunk(&mut self, batch: &Batch, chunk: &Chunk, now: i64) {
        self.add(batch, chunk, now, &mut None, None);
    }

    /// As [`Concentrator::add_chunk`]; what it changes is written to `delta`
    /// as well.
    pub fn add_chunk_logged(&mut self, batch: &Batch, chunk: &Chunk, now: i64, delta: &mut Delta) {
        self.add(batch, chunk, now, &mut None, Some(delta));
    }

    fn add(
        &mut self,
        batch: &Batch,
        chunk: &Chunk,
        now: i64,
        memo: &mut Option<(SourceMemo, u32)>,
        mut delta: Option<&mut Delta>,
    ) {
        let Some(root) = batch.chunk_root(chunk) else { return };
        let mut facts = std::mem::take(&mut self.facts);
        let mut dims = std::mem::take(&mut self.dims);
        facts.clear();
        dims.clear();

        let root_attrs = batch.spans.get(root).map(|s| s.attrs).unwrap_or_default();
        let v1 = batch.intake.protocol == Protocol::DatadogV1;
        // v1.0 says it of the payload, and no span is asked.
        let holder = match batch.resources.get(chunk.resource as usize) {
            Some(resource) if v1 => resource.attrs,
            _ => root_attrs,
        };
        let mut git = batch.get_text(holder, keys::GIT_COMMIT_SHA).unwrap_or(Text::EMPTY);
        let parents =
            if batch.intake.protocol.is_datadog() { None } else { Some(Parents::new(batch, chunk)) };
        let scan = Scan { batch, keys: &self.keys, by_kind: self.settings.by_span_kind };
        for (i, span) in batch.chunk_spans(chunk).iter().enumerate() {
            let top_level = parents.as_ref().is_some_and(|p| p.is_top_level(batch, span));
            let at = chunk.spans.start as usize + i;
            let mut unasked = Text::EMPTY;
            let of_span = if v1 { &mut unasked } else { &mut git };
            facts.extend(scan.span(at, span, top_level, of_span, &mut dims));
        }
        if !facts.is_empty() {
            let weight = weight(batch.get_f64(root_attrs, keys::SAMPLE_RATE));
            let base_service = batch.get_text(root_attrs, keys::BASE_SERVICE).unwrap_or(Text::EMPTY);
            let this = SourceMemo { resource: chunk.resource, git, base_service };
            let source = match memo {
                Some((known, source)) if *known == this => *source,
                _ => self.source(batch, chunk, batch.str(git), batch.str(base_service)),
            };
            *memo = Some((this, source));
            let synthetics = is_synthetics(batch.str(chunk.origin));
            for fact in &facts {
                self.add_span(batch, fact, &dims, source, synthetics, weight, now, delta.as_deref_mut());
            }
        }
        self.facts = facts;
        self.dims = dims;
    }

    #[allow(clippy::too_many_arguments)] // one span in the context of its chunk
    fn add_span(
        &mut self,
        batch: &Batch,
        fact: &Facts,
        dims: &[Dim],
        source: u32,
        synthetics: bool,
        weight: f64,
        now: i64,
        delta: Option<&mut Delta>,
    ) {
        let Some(span) = batch.spans.get(fact.span as usize) else { return };
        let dims = dims.get(fact.dims.0 as usize..fact.dims.1 as usize).unwrap_or_default();
        let dims_hash = self.dims_hash(batch, dims);
        let resource = if span.resource.is_empty() { span.name } else { span.resource };
        let key = KeyRef {
            source,
            texts: [
                batch.arena.bytes(span.service),
                batch.arena.bytes(span.name),
                batch.arena.bytes(resource),
                batch.arena.bytes(span.span_type),
                fact.kind.bytes(batch),
                batch.arena.bytes(fact.service_source),
            ],
            status: fact.status,
            grpc: fact.grpc,
            dims_hash,
            synthetics,
            root: span.parent_id.is_zero(),
        };
        self.counters.spans += 1;
        let bucket = self.bucket(span.end(), now);
        let room = self.groups < self.settings.max_groups;
        let hash = key.hash(&self.hasher);
        let group = match bucket_find(&self.buckets[bucket], hash, &key) {
            Some(at) => at,
            None if room => {
                let (peers, extra) = self.dim_tags(batch, dims);
                self.insert(bucket, hash, &key, peers, extra)
            }
            None => self.overflow(bucket, &key),
        };
        let one = One {
            top_level: fact.top_level,
            error: span.is_error(),
            duration: span.duration.max(0) as u64,
            weight,
        };
        let bucket = &mut self.buckets[bucket];
        bucket.groups[group].count(one);
        if let Some(delta) = delta {
            delta.span(bucket.era, group, one);
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
        for (service, source) in [(key.texts[0], key.source), (b"", 0)] {
            let texts = [service, b"", OVERFLOW.as_bytes(), b"", b"", b""];
            let key =
                KeyRef { source, texts, status: 0, grpc: None, dims_hash: 0, synthetics: false, root: false };
            let hash = key.hash(&self.hasher);
            if let Some(at) = bucket_find(&self.buckets[bucket], hash, &key) {
                return at;
            }
            if room || service.is_empty() {
                return self.insert(bucket, hash, &key, Vec::new(), Vec::new());
            }
        }
        0
    }

    fn dims_hash(&self, batch: &Batch, dims: &[Dim]) -> u64 {
        if dims.is_empty() {
            return 0;
        }
        let mut hash = self.hasher.build_hasher();
        for (place, value) in dims {
            place.hash(&mut hash);
            let bytes = batch.arena.bytes(*value);
            if !self.keys.dim_is_peer(*place) {
                hash_value(extra_value(batch.str(*value)).as_bytes(), &mut hash);
            } else if may_hold_address(bytes) {
                let quantized = (self.settings.quantize_peer)(batch.str(*value));
                hash_value(quantized.as_bytes(), &mut hash);
            } else {
                hash_value(bytes, &mut hash);
            }
        }
        hash.finish()
    }

    fn dim_tags(&self, batch: &Batch, dims: &[Dim]) -> (Vec<String>, Vec<String>) {
        let (mut peers, mut extra) = (Vec::new(), Vec::new());
        for (place, value) in dims {
            let (key, value) = (self.keys.dim_key(*place), batch.str(*value));
            if self.keys.dim_is_peer(*place) {
                peers.push(format!("{key}:{}", quantized(self.settings.quantize_peer, value)));
            } else {
                extra.push(format!("{key}:{}", extra_value(value)));
            }
        }
        // As texts: the colon comes after the dot of a longer key.
        peers.sort_unstable();
        extra.sort_unstable();
        (peers, extra)
    }

    /// The source of a chunk, interned.
    fn source(&mut self, batch: &Batch, chunk: &Chunk, git: &str, base_service: &str) -> u32 {
        let none = Resource::default();
        let resource = batch.resources.get(chunk.resource as usize).unwrap_or(&none);
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
                base_service,
            ],
            container_tags: if self.settings.without_container { "" } else { container_tags },
            process_tags: if self.settings.without_process { "" } else { process_tags },
        };
        intern(&mut self.sources, &mut self.source_table, &self.hasher, &key)
    }

    /// Takes out the buckets that are due at `now` (`all`: every bucket, at
    /// shutdown). The answer holds one payload per source; it has none when
    /// nothing is due, and then nothing is sent. `random` is uniform in
    /// [0, 1) and rounds weighted sums.
    pub fn flush(&mut self, now: i64, all: bool, random: &mut dyn FnMut() -> f64) -> StatsPayload {
        let width = self.settings.bucket_ns;
        let due = now.saturating_sub(KEPT_BACK * width);
        let n = if all { self.buckets.len() } else { self.buckets.partition_point(|b| b.start <= due) };
        let out = self.payload(&self.buckets[..n], random);
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
        self.payload(&self.buckets, &mut || 0.5)
    }

    fn payload(&self, buckets: &[Bucket], random: &mut dyn FnMut() -> f64) -> StatsPayload {
        let mut place = vec![usize::MAX; self.sources.len()];
        let mut stats: Vec<ClientStatsPayload> = Vec::new();
        for bucket in buckets {
            for group in &bucket.groups {
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
            let hash = group.key().hash(&self.hasher);
            group.hash = hash;
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

/// Services by span id, to tell which spans of a chunk enter a service. Only
/// for formats whose spans carry no marks.
struct Parents(Vec<(SpanId, Text)>);

impl Parents {
    fn new(batch: &Batch, chunk: &Chunk) -> Self {
        let mut ids: Vec<_> = batch.chunk_spans(chunk).iter().map(|s| (s.span_id, s.service)).collect();
        ids.sort_unstable_by_key(|(id, _)| *id);
        Self(ids)
    }

    fn is_top_level(&self, batch: &Batch, span: &Span) -> bool {
        span.parent_id.is_zero()
            || self
                .0
                .binary_search_by_key(&span.parent_id, |(id, _)| *id)
                .map_or(true, |i| batch.arena.bytes(self.0[i].1) != batch.arena.bytes(span.service))
    }
}

fn quantized(quantize: fn(&str) -> Cow<'_, str>, value: &str) -> Cow<'_, str> {
    if may_hold_address(value.as_bytes()) { quantize(value) } else { Cow::Borrowed(value) }
}

/// Texts without digit, colon and comma cannot hold an address or a list.
fn may_hold_address(value: &[u8]) -> bool {
    // All bytes are looked at, many at once. Those from `0` to `:` follow each
    // other.
    value.iter().fold(0, |found, b| found | u8::from(matches!(b, b'0'..=b':' | b','))) != 0
}

/// The value of a dimension, ended so that two do not run into each other.
fn hash_value(value: &[u8], hash: &mut impl Hasher) {
    hash.write(value);
    hash.write_u8(0xff);
}

fn extra_value(value: &str) -> &str {
    if value.len() > MAX_EXTRA_VALUE { OVERFLOW } else { value }
}

fn bucket_find(bucket: &Bucket, hash: u64, key: &KeyRef<'_>) -> Option<usize> {
    bucket.table.find(hash, |i| key.is(&bucket.groups[*i as usize], hash)).map(|i| *i as usize)
}

impl KeyRef<'_> {
    fn hash(&self, hasher: &FixedState) -> u64 {
        let mut h = hasher.build_hasher();
        for text in self.texts {
            text.hash(&mut h);
        }
        // One word for the small fields.
        let grpc = self.grpc.map_or(u64::MAX, u64::from);
        (u64::from(self.source) << 32 | u64::from(self.status)).hash(&mut h);
        (grpc << 2 | u64::from(self.synthetics) << 1 | u64::from(self.root)).hash(&mut h);
        self.dims_hash.hash(&mut h);
        h.finish()
    }

    fn is(&self, group: &Group, hash: u64) -> bool {
        if group.hash != hash
            || group.source != self.source
            || group.status != self.status
            || group.grpc != self.grpc
            || group.dims_hash != self.dims_hash
            || group.synthetics != self.synthetics
            || group.root != self.root
        {
            return false;
        }
        (0..6).all(|i| same_bytes(group.text(i), self.texts[i]))
    }

    fn to_group(&self, hash: u64, peers: Vec<String>, extra: Vec<String>) -> Group {
        let mut ends = [0; 6];
        let mut text = Vec::with_capacity(self.texts.iter().map(|t| t.len()).sum());
        for (end, t) in ends.iter_mut().zip(self.texts) {
            text.extend_from_slice(t);
            *end = text.len() as u32;
        }
        Group {
            hash,
            source: self.source,
            status: self.status,
            grpc: self.grpc,
            dims_hash: self.dims_hash,
            synthetics: self.synthetics,
            root: self.root,
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

    fn key(&self) -> KeyRef<'_> {
        KeyRef {
            source: self.source,
            texts: std::array::from_fn(|i| self.text(i)),
            status: self.status,
            grpc: self.grpc,
            dims_hash: self.dims_hash,
            synthetics: self.synthetics,
            root: self.root,
        }
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
