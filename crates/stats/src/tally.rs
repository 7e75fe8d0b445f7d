//! What statistics need to know of a batch, found out without the concentrator:
//! threads that count do not wait for each other while they look at spans.

use crate::concentrator::Settings;
use crate::facts::{Dim, Facts, KeySet, Scan};
use crate::rules::{is_synthetics, weight};
use foldhash::fast::FixedState;
use spanloom_model::{Batch, Chunk, Protocol, Resource, Span, SpanId, Text, keys};
use std::borrow::Cow;
use std::hash::{BuildHasher, Hash, Hasher};
use std::sync::Arc;

/// Longest value of an extra dimension, in bytes; longer ones are replaced by
/// [`crate::OVERFLOW`].
const MAX_EXTRA_VALUE: usize = 200;

/// Which attributes count, and how keys are hashed: the same for a
/// concentrator and all tallies for it.
#[derive(Debug)]
pub(crate) struct Scanner {
    pub keys: KeySet,
    pub hasher: FixedState,
    by_kind: bool,
    quantize_peer: fn(&str) -> Cow<'_, str>,
}

/// The spans of some chunks that are to be counted. Made by
/// [`crate::Concentrator::tally`] for that concentrator alone; used again, it
/// allocates nothing.
#[derive(Clone, Debug)]
pub struct Tally {
    scanner: Arc<Scanner>,
    pub(crate) facts: Vec<Facts>,
    pub(crate) dims: Vec<Dim>,
    pub(crate) chunks: Vec<Tallied>,
}

/// What the spans of a chunk have in common.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tallied {
    pub sender: Sender,
    pub weight: f64,
    /// Its facts end here.
    pub end: usize,
}

/// Who sent a chunk, as it was known when the chunk was looked at: later ones
/// may add to the resource, which is not for those before them.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Sender {
    pub resource: Resource,
    pub git: Text,
    pub base_service: Text,
}

/// What makes the group of a span, besides who sent it.
pub(crate) struct Own<'a> {
    /// Service, name, resource, type, kind, service source.
    pub texts: [&'a [u8]; 6],
    pub status: u32,
    pub grpc: Option<u32>,
    pub dims_hash: u64,
    pub synthetics: bool,
    pub root: bool,
}

impl Own<'_> {
    pub(crate) fn hash(&self, hasher: &FixedState) -> u64 {
        let mut h = hasher.build_hasher();
        for text in self.texts {
            text.hash(&mut h);
        }
        // One word for the small fields.
        let grpc = self.grpc.map_or(u64::from(u32::MAX) + 1, u64::from);
        let flags = u64::from(self.synthetics) << 1 | u64::from(self.root);
        (grpc << 2 | flags).hash(&mut h);
        self.status.hash(&mut h);
        self.dims_hash.hash(&mut h);
        h.finish()
    }
}

impl Facts {
    /// The key of the span's group.
    pub(crate) fn own<'a>(&self, batch: &'a Batch, span: &Span) -> Own<'a> {
        let resource = if span.resource.is_empty() { span.name } else { span.resource };
        Own {
            texts: [
                batch.arena.bytes(span.service),
                batch.arena.bytes(span.name),
                batch.arena.bytes(resource),
                batch.arena.bytes(span.span_type),
                self.kind.bytes(batch),
                batch.arena.bytes(self.service_source),
            ],
            status: self.status,
            grpc: self.grpc,
            dims_hash: self.dims_hash,
            synthetics: self.synthetics,
            root: span.parent_id.is_zero(),
        }
    }
}

impl Tally {
    pub(crate) fn new(scanner: Arc<Scanner>) -> Self {
        Self { scanner, facts: Vec::new(), dims: Vec::new(), chunks: Vec::new() }
    }

    /// Whether there is nothing to count.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// For another batch.
    pub fn clear(&mut self) {
        self.facts.clear();
        self.dims.clear();
        self.chunks.clear();
    }

    /// Looks at a chunk, after normalisation and obfuscation and before
    /// sampling. The caller leaves out chunks whose client computed stats
    /// ([`spanloom_model::ClientFlags::computed_stats`]) and chunks that were
    /// filtered or rejected. Names, resources and times of these spans stay as
    /// they are until they are counted.
    pub fn add(&mut self, batch: &Batch, chunk: &Chunk) {
        let Some(root) = batch.chunk_root(chunk) else { return };
        let root_attrs = batch.spans.get(root).map(|s| s.attrs).unwrap_or_default();
        let resource = batch.resources.get(chunk.resource as usize).copied();
        let v1 = batch.intake.protocol == Protocol::DatadogV1;
        // v1.0 says it of the payload, and no span is asked.
        let holder = match resource {
            Some(resource) if v1 => resource.attrs,
            _ => root_attrs,
        };
        let mut git = batch.get_text(holder, keys::GIT_COMMIT_SHA).unwrap_or(Text::EMPTY);
        let parents =
            if batch.intake.protocol.is_datadog() { None } else { Some(Parents::new(batch, chunk)) };
        let scan = Scan { batch, keys: &self.scanner.keys, by_kind: self.scanner.by_kind };
        let first = self.facts.len();
        let synthetics = is_synthetics(batch.str(chunk.origin));
        for (i, span) in batch.chunk_spans(chunk).iter().enumerate() {
            let top_level = parents.as_ref().is_some_and(|p| p.is_top_level(batch, span));
            let at = chunk.spans.start as usize + i;
            let mut unasked = Text::EMPTY;
            let of_span = if v1 { &mut unasked } else { &mut git };
            let Some(mut facts) = scan.span(at, span, top_level, of_span, &mut self.dims) else { continue };
            let dims = self.dims.get(facts.dims.0 as usize..facts.dims.1 as usize).unwrap_or_default();
            facts.dims_hash = self.scanner.dims_hash(batch, dims);
            facts.synthetics = synthetics;
            facts.hash = facts.own(batch, span).hash(&self.scanner.hasher);
            self.facts.push(facts);
        }
        if self.facts.len() > first {
            self.chunks.push(Tallied {
                sender: Sender {
                    resource: resource.unwrap_or_default(),
                    git,
                    base_service: batch.get_text(root_attrs, keys::BASE_SERVICE).unwrap_or(Text::EMPTY),
                },
                weight: weight(batch.get_f64(root_attrs, keys::SAMPLE_RATE)),
                end: self.facts.len(),
            });
        }
    }

    pub(crate) fn dims(&self, facts: &Facts) -> &[Dim] {
        self.dims.get(facts.dims.0 as usize..facts.dims.1 as usize).unwrap_or_default()
    }
}

impl Scanner {
    pub(crate) fn new(settings: &Settings) -> Self {
        Self {
            keys: KeySet::new(&settings.peer_tags, &settings.extra_tags),
            hasher: FixedState::with_seed(settings.seed),
            by_kind: settings.by_span_kind,
            quantize_peer: settings.quantize_peer,
        }
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
                let quantized = (self.quantize_peer)(batch.str(*value));
                hash_value(quantized.as_bytes(), &mut hash);
            } else {
                hash_value(bytes, &mut hash);
            }
        }
        hash.finish()
    }

    /// Peer tags and extra tags of dimensions, as texts.
    pub(crate) fn dim_tags(&self, batch: &Batch, dims: &[Dim]) -> (Vec<String>, Vec<String>) {
        let (mut peers, mut extra) = (Vec::new(), Vec::new());
        for (place, value) in dims {
            let (key, value) = (self.keys.dim_key(*place), batch.str(*value));
            if self.keys.dim_is_peer(*place) {
                peers.push(format!("{key}:{}", self.quantized(value)));
            } else {
                extra.push(format!("{key}:{}", extra_value(value)));
            }
        }
        // As texts: the colon comes after the dot of a longer key.
        peers.sort_unstable();
        extra.sort_unstable();
        (peers, extra)
    }

    fn quantized<'a>(&self, value: &'a str) -> Cow<'a, str> {
        if may_hold_address(value.as_bytes()) { (self.quantize_peer)(value) } else { Cow::Borrowed(value) }
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

/// Texts without digit, colon and comma cannot hold an address or a list.
fn may_hold_address(value: &[u8]) -> bool {
    // All bytes are looked at, many at once. Those from `0` to `:` follow each
    // other.
    value.iter().fold(0, |found, b| found | u8::from(matches!(b, b'0'..=b':' | b','))) != 0
}

/// The value of a dimension, ended so that two do not run into each other.
pub(crate) fn hash_value(value: &[u8], hash: &mut impl Hasher) {
    hash.write(value);
    hash.write_u8(0xff);
}

fn extra_value(value: &str) -> &str {
    if value.len() > MAX_EXTRA_VALUE { crate::OVERFLOW } else { value }
}
