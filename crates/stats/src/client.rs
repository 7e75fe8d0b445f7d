//! Statistics that tracers computed: merged per two seconds and passed on
//! (`datadog-agent:pkg/trace/stats/client_stats_aggregator.go`).

use crate::concentrator::OVERFLOW;
use crate::rules::process_tags_hash;
use crate::sketch::Sketch;
use foldhash::fast::FixedState;
use hashbrown::HashTable;
use spanloom_model::stats::{ClientGroupedStats, ClientStatsBucket, ClientStatsPayload, StatsPayload};
use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hash, Hasher};

const SECOND: i64 = 1_000_000_000;
/// Width of the aggregator's own buckets.
const STEP: i64 = 2 * SECOND;
/// How long a bucket waits for late payloads.
const WAIT: i64 = 20 * SECOND;
/// Duration written into the buckets that leave.
const OUT_DURATION: u64 = 10 * SECOND as u64;

/// Two-second bucket of a time: odd seconds, so that these never coincide with
/// the agent's own ten-second grid. All times in nanoseconds.
fn align(time: i64) -> i64 {
    crate::rules::align(time, STEP).saturating_add(SECOND)
}

/// Bucket in which a tracer's bucket starting at `start` is counted.
pub fn client_bucket_time(now: i64, start: i64, oldest: i64) -> i64 {
    if start < oldest {
        oldest
    } else if start > now {
        align(now)
    } else {
        align(start)
    }
}

/// Settings of the aggregator.
#[derive(Clone, Debug)]
pub struct ClientSettings {
    /// Host of the agent.
    pub hostname: String,
    /// Default environment of the agent.
    pub env: String,
    /// Version of the agent.
    pub version: String,
    /// Most groups held; beyond it groups are merged under the resource
    /// [`OVERFLOW`] of their service. The reference has no bound.
    pub max_groups: usize,
    /// Most bytes held in texts and sketches, likewise.
    pub max_bytes: usize,
    /// Seed of the hash tables.
    pub seed: u64,
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            hostname: String::new(),
            env: "none".into(),
            version: String::new(),
            max_groups: 50_000,
            max_bytes: 64 << 20,
            seed: 0,
        }
    }
}

/// Merges the payloads of tracers.
#[derive(Debug)]
pub struct ClientAggregator {
    settings: ClientSettings,
    hasher: FixedState,
    oldest: i64,
    buckets: BTreeMap<i64, Bucket>,
    groups: usize,
    bytes: usize,
    overflowed: u64,
    bad_sketches: u64,
}

#[derive(Debug, Default)]
struct Bucket {
    /// Payloads without groups, one per source.
    sources: Vec<ClientStatsPayload>,
    groups: Vec<Group>,
    table: HashTable<u32>,
}

#[derive(Debug)]
struct Group {
    hash: u64,
    source: u32,
    stats: ClientGroupedStats,
    /// Set once a second group was merged in; until then the raw bytes stand.
    ok: Option<Sketch>,
    failed: Option<Sketch>,
}

impl ClientAggregator {
    /// An aggregator started at `now` (nanoseconds since the Unix epoch).
    pub fn new(settings: ClientSettings, now: i64) -> Self {
        Self {
            hasher: FixedState::with_seed(settings.seed),
            settings,
            oldest: align(now.saturating_add(STEP - WAIT)),
            buckets: BTreeMap::new(),
            groups: 0,
            bytes: 0,
            overflowed: 0,
            bad_sketches: 0,
        }
    }

    /// Groups merged under [`OVERFLOW`] since the start.
    pub fn overflowed(&self) -> u64 {
        self.overflowed
    }

    /// Sketches that could not be read when two had to be merged; their counts
    /// are kept, their latencies are not.
    pub fn bad_sketches(&self) -> u64 {
        self.bad_sketches
    }

    /// Takes a payload in. Its groups are normalised, obfuscated and folded
    /// ([`fold_duplicates`]) already and its container is resolved;
    /// `container_tags` fill in the commit and image tag if it lacks them.
    pub fn add<S: AsRef<str>>(&mut self, payload: ClientStatsPayload, container_tags: &[S], now: i64) {
        let mut payload = payload;
        self.complete(&mut payload, container_tags);
        self.add_at(payload, now, self.oldest);
    }

    /// The first half of [`ClientAggregator::add`]: fills in what is known
    /// here and takes out what does not tell sources apart.
    pub fn complete<S: AsRef<str>>(&self, source: &mut ClientStatsPayload, container_tags: &[S]) {
        let tag = |prefix| {
            container_tags.iter().find_map(|t| t.as_ref().strip_prefix(prefix)).unwrap_or_default().to_owned()
        };
        if source.env.is_empty() {
            source.env.clone_from(&self.settings.env);
        }
        if source.git_commit_sha.is_empty() {
            source.git_commit_sha = tag("git.commit.sha:");
        }
        if source.image_tag.is_empty() {
            source.image_tag = tag("image_tag:");
        }
        source.process_tags_hash = process_tags_hash(&source.process_tags);
        source.tracer_version.clear();
        source.runtime_id.clear();
        source.agent_aggregation.clear();
        source.sequence = 0;
        source.tags.clear();
    }

    /// The second half of [`ClientAggregator::add`], also for a payload that
    /// came at `now` in an earlier life, when `oldest` was the start of the
    /// oldest bucket still open ([`ClientAggregator::oldest`]).
    pub fn add_at(&mut self, payload: ClientStatsPayload, now: i64, oldest: i64) {
        let mut source = payload;
        for bucket in std::mem::take(&mut source.stats) {
            let start = i64::try_from(bucket.start).unwrap_or(i64::MAX);
            let at = client_bucket_time(now, start, oldest);
            let target = self.buckets.entry(at).or_default();
            let place = match target.sources.iter().position(|s| same_source(s, &source)) {
                Some(place) => place,
                None => {
                    target.sources.push(source.clone());
                    target.sources.len() - 1
                }
            };
            for mut group in bucket.stats {
                // Used for scrubbing only; it does not leave (observed).
                group.db_type.clear();
                self.add_group(at, place as u32, group);
            }
        }
    }

    /// Start of the oldest bucket that may still be added to.
    pub fn oldest(&self) -> i64 {
        self.oldest
    }

    /// Starts of the buckets that hold something, ascending.
    pub fn open_buckets(&self) -> impl Iterator<Item = i64> + '_ {
        self.buckets.keys().copied()
    }

    /// Drops a bucket: it was flushed in an earlier life.
    pub fn forget(&mut self, start: i64) {
        if let Some(bucket) = self.buckets.remove(&start) {
            self.uncount(&bucket);
        }
    }

    fn uncount(&mut self, bucket: &Bucket) {
        for group in &bucket.groups {
            self.groups = self.groups.saturating_sub(1);
            self.bytes = self.bytes.saturating_sub(group_size(&group.stats));
        }
    }

    fn add_group(&mut self, at: i64, source: u32, group: ClientGroupedStats) {
        let Some(bucket) = self.buckets.get_mut(&at) else { return };
        let hash = key_hash(&self.hasher, source, &group, true);
        if let Some(known) = bucket.find(hash, source, &group) {
            self.bad_sketches += known.merge(&group);
            return;
        }
        let size = group_size(&group);
        if self.groups < self.settings.max_groups
            && self.bytes.saturating_add(size) <= self.settings.max_bytes
        {
            self.groups += 1;
            self.bytes += size;
            bucket.insert(Group { hash, source, stats: group, ok: None, failed: None });
            return;
        }
        self.overflowed += 1;
        let room = self.groups < self.settings.max_groups + self.settings.max_groups / 10;
        for (service, source) in [(group.service.as_str(), source), ("", 0)] {
            let over = ClientGroupedStats {
                service: service.into(),
                resource: OVERFLOW.into(),
                ..Default::default()
            };
            let hash = key_hash(&self.hasher, source, &over, true);
            if bucket.find(hash, source, &over).is_none() {
                if !room && !service.is_empty() {
                    continue;
                }
                self.groups += 1;
                bucket.insert(Group { hash, source, stats: over.clone(), ok: None, failed: None });
            }
            if let Some(known) = bucket.find(hash, source, &over) {
                self.bad_sketches += known.merge(&group);
            }
            return;
        }
    }

    /// Takes out what is due at `now` (`all`: everything, at shutdown): one
    /// payload per bucket, oldest first.
    pub fn flush(&mut self, now: i64, all: bool) -> Vec<StatsPayload> {
        let due = align(now.saturating_add(STEP - WAIT));
        let keep = if all { BTreeMap::new() } else { self.buckets.split_off(&due) };
        let out: Vec<StatsPayload> = std::mem::replace(&mut self.buckets, keep)
            .into_iter()
            .map(|(start, bucket)| {
                self.uncount(&bucket);
                self.export(start, bucket)
            })
            .collect();
        if self.buckets.is_empty() {
            (self.groups, self.bytes) = (0, 0);
        }
        self.oldest = self.oldest.max(due);
        out
    }

    fn export(&self, start: i64, bucket: Bucket) -> StatsPayload {
        let mut stats = bucket.sources;
        for payload in &mut stats {
            payload.stats.push(ClientStatsBucket {
                start: u64::try_from(start).unwrap_or(0),
                duration: OUT_DURATION,
                ..ClientStatsBucket::default()
            });
        }
        for group in bucket.groups {
            let mut out = group.stats;
            if let Some(ok) = group.ok {
                out.ok_summary = ok.to_bytes();
            }
            if let Some(failed) = group.failed {
                out.error_summary = failed.to_bytes();
            }
            if let Some(b) = stats.get_mut(group.source as usize).and_then(|p| p.stats.first_mut()) {
                b.stats.push(out);
            }
        }
        StatsPayload {
            agent_hostname: self.settings.hostname.clone(),
            agent_env: self.settings.env.clone(),
            agent_version: self.settings.version.clone(),
            stats,
            client_computed: true,
            split_payload: false,
        }
    }
}

impl Bucket {
    fn find(&mut self, hash: u64, source: u32, group: &ClientGroupedStats) -> Option<&mut Group> {
        let groups = &self.groups;
        let at = self.table.find(hash, |i| {
            let known = &groups[*i as usize];
            known.hash == hash && known.source == source && same_key(&known.stats, group, true)
        })?;
        let at = *at as usize;
        self.groups.get_mut(at)
    }

    fn insert(&mut self, group: Group) {
        let (at, hash) = (self.groups.len() as u32, group.hash);
        self.groups.push(group);
        let groups = &self.groups;
        self.table.insert_unique(hash, at, |i| groups[*i as usize].hash);
    }
}

impl Group {
    /// Adds another group of the same key; answers how many sketches were bad.
    fn merge(&mut self, other: &ClientGroupedStats) -> u64 {
        let to = &mut self.stats;
        to.hits = to.hits.saturating_add(other.hits);
        to.errors = to.errors.saturating_add(other.errors);
        to.duration = to.duration.saturating_add(other.duration);
        to.top_level_hits = to.top_level_hits.saturating_add(other.top_level_hits);
        merge_sketch(&mut self.ok, &mut to.ok_summary, &other.ok_summary)
            + merge_sketch(&mut self.failed, &mut to.error_summary, &other.error_summary)
    }
}

fn merge_sketch(merged: &mut Option<Sketch>, raw: &mut Vec<u8>, other: &[u8]) -> u64 {
    let mut bad = 0;
    if merged.is_none() && !raw.is_empty() {
        *merged = Sketch::decode(raw).map_err(|_| bad += 1).ok();
    }
    if !other.is_empty() {
        match Sketch::decode(other) {
            Ok(other) => merged.get_or_insert_default().merge(&other),
            Err(_) => bad += 1,
        }
    }
    // What cannot be read is not passed on either: it would stand for a part.
    raw.clear();
    raw.shrink_to_fit();
    bad
}

fn group_size(g: &ClientGroupedStats) -> usize {
    let tags = |t: &[String]| t.iter().map(|s| s.len() + size_of::<String>()).sum::<usize>();
    size_of::<Group>()
        + g.service.len()
        + g.name.len()
        + g.resource.len()
        + g.span_type.len()
        + g.http_endpoint.len()
        + g.ok_summary.len()
        + g.error_summary.len()
        + tags(&g.peer_tags)
        + tags(&g.span_derived_primary_tags)
        + tags(&g.additional_metric_tags)
}

fn same_source(a: &ClientStatsPayload, b: &ClientStatsPayload) -> bool {
    a.env == b.env
        && a.hostname == b.hostname
        && a.version == b.version
        && a.container_id == b.container_id
        && a.git_commit_sha == b.git_commit_sha
        && a.image_tag == b.image_tag
        && a.lang == b.lang
        && a.process_tags == b.process_tags
        && a.service == b.service
}

/// Texts of a group's key. The type is last, so that it can be left out.
fn key_texts(g: &ClientGroupedStats) -> [&str; 9] {
    [
        &g.service,
        &g.name,
        &g.resource,
        &g.span_kind,
        &g.grpc_status_code,
        &g.http_method,
        &g.http_endpoint,
        &g.service_source,
        &g.span_type,
    ]
}

fn key_hash(hasher: &FixedState, source: u32, g: &ClientGroupedStats, with_type: bool) -> u64 {
    let mut h = hasher.build_hasher();
    key_texts(g)[..if with_type { 9 } else { 8 }].hash(&mut h);
    (source, g.http_status_code, g.synthetics, g.is_trace_root).hash(&mut h);
    (&g.peer_tags, &g.span_derived_primary_tags, &g.additional_metric_tags).hash(&mut h);
    h.finish()
}

fn same_key(a: &ClientGroupedStats, b: &ClientGroupedStats, with_type: bool) -> bool {
    let n = if with_type { 9 } else { 8 };
    key_texts(a)[..n] == key_texts(b)[..n]
        && a.http_status_code == b.http_status_code
        && a.synthetics == b.synthetics
        && a.is_trace_root == b.is_trace_root
        && a.peer_tags == b.peer_tags
        && a.span_derived_primary_tags == b.span_derived_primary_tags
        && a.additional_metric_tags == b.additional_metric_tags
}

/// Folds groups whose keys became equal by normalisation: hits, errors and
/// duration go to the first; the duplicates stay with zero counts, so that
/// their sketches survive. The type is not part of this key
/// (`datadog-agent:pkg/trace/agent/agent.go`, `mergeDuplicates`).
pub fn fold_duplicates(payload: &mut ClientStatsPayload, seed: u64) {
    let hasher = FixedState::with_seed(seed);
    for bucket in &mut payload.stats {
        let mut table: HashTable<u32> = HashTable::with_capacity(bucket.stats.len());
        let hashes: Vec<u64> = bucket.stats.iter().map(|g| key_hash(&hasher, 0, g, false)).collect();
        for i in 0..bucket.stats.len() {
            let (before, rest) = bucket.stats.split_at_mut(i);
            let Some(group) = rest.first_mut() else { continue };
            let known = table.find(hashes[i], |j| {
                hashes[*j as usize] == hashes[i] && same_key(&before[*j as usize], group, false)
            });
            if let Some(j) = known {
                let first = &mut before[*j as usize];
                first.hits = first.hits.saturating_add(std::mem::take(&mut group.hits));
                first.errors = first.errors.saturating_add(std::mem::take(&mut group.errors));
                first.duration = first.duration.saturating_add(std::mem::take(&mut group.duration));
            } else {
                table.insert_unique(hashes[i], i as u32, |j| hashes[*j as usize]);
            }
        }
    }
}
