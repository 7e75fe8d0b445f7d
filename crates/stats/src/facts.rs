//! What one pass over a span's attributes finds out for the statistics.

use crate::rules::{grpc_status, kind_counts, peers_of_calls, whole, whole_text};
use spanloom_model::{Batch, Protocol, Span, SpanKind, Text, Value, keys};
use std::collections::HashMap;

/// Keys whose values become dimensions: peer tags first, then extra tags.
/// Most attributes are told apart by a bitmap of (length, first byte).
#[derive(Clone, Debug, Default)]
pub(crate) struct KeySet {
    keys: Vec<Box<str>>,
    peers: usize,
    places: HashMap<Box<[u8]>, u16, foldhash::fast::FixedState>,
    map: Vec<u64>,
}

impl KeySet {
    pub fn new(peers: &[String], extra: &[String]) -> Self {
        let mut set =
            Self { peers: peers.len().min(usize::from(u16::MAX)), map: vec![0; 64], ..Self::default() };
        for key in peers.iter().take(set.peers).chain(extra).take(usize::from(u16::MAX)) {
            let Some(first) = key.bytes().next() else { continue };
            set.map[key.len().min(63)] |= 1 << (first & 63);
            set.places.entry(key.as_bytes().into()).or_insert(set.keys.len() as u16);
            set.keys.push(key.as_str().into());
        }
        set
    }

    #[inline]
    fn find(&self, key: &[u8]) -> Option<u16> {
        let first = *key.first()?;
        if self.map.get(key.len().min(63)).is_some_and(|m| m >> (first & 63) & 1 != 0) {
            return self.places.get(key).copied();
        }
        None
    }

    pub fn key(&self, place: u16) -> &str {
        self.keys.get(usize::from(place)).map_or("", |k| k)
    }

    pub fn is_peer(&self, place: u16) -> bool {
        usize::from(place) < self.peers
    }

    pub fn has_peers(&self) -> bool {
        self.peers > 0
    }
}

/// Facts of one span that counts.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Facts {
    /// Position in [`Batch::spans`].
    pub span: u32,
    pub kind: Kind,
    pub status: u32,
    pub grpc: Option<u32>,
    pub service_source: Text,
    pub top_level: bool,
    /// Positions in the scratch list of dimensions.
    pub dims: (u32, u32),
}

/// Text of the span kind: as sent, or from the numeric field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Tag(Text),
    Name(&'static str),
}

impl Kind {
    pub fn str(self, batch: &Batch) -> &str {
        match self {
            Self::Tag(t) => batch.str(t),
            Self::Name(n) => n,
        }
    }
}

/// A dimension found: place of the key, value.
pub(crate) type Dim = (u16, Text);

/// A fact with the rank of its source: the lowest rank wins, then the first.
struct Ranked<T>(u8, Option<T>);

impl<T> Ranked<T> {
    fn offer(&mut self, rank: u8, value: T) {
        if self.1.is_none() || rank < self.0 {
            *self = Self(rank, Some(value));
        }
    }
}

pub(crate) struct Scan<'a> {
    pub batch: &'a Batch,
    pub keys: &'a KeySet,
    pub by_kind: bool,
}

impl Scan<'_> {
    /// Looks at one span. `top_level` is what is known beside the marks.
    /// `git` takes the first commit id met. Dimensions go to `dims`; they stay
    /// there only if the span counts.
    pub fn span(
        &self,
        at: usize,
        span: &Span,
        top_level: bool,
        git: &mut Text,
        dims: &mut Vec<Dim>,
    ) -> Option<Facts> {
        let batch = self.batch;
        let first_dim = dims.len();
        let mut top_level = top_level;
        let (mut measured, mut partial) = (false, false);
        let mut kind_tag = None;
        let mut service_source = Text::EMPTY;
        let mut base_service = Text::EMPTY;
        let mut status = Ranked(0, None);
        let (mut grpc, mut response) = (Ranked(0, None), Ranked(0, None));
        let (mut system, mut system_name) = (None, None);
        for attr in batch.attrs(span.attrs) {
            let key = batch.arena.bytes(attr.key);
            if let Value::Str(value) = attr.value
                && !value.is_empty()
                && let Some(place) = self.keys.find(key)
            {
                dims.push((place, value));
            }
            if !may_matter(key) {
                continue;
            }
            match (key, attr.value) {
                (b"_top_level" | b"_dd.top_level", v) => top_level |= v.as_f64() == Some(1.0),
                (b"_dd.measured", v) => measured |= v.as_f64() == Some(1.0),
                (b"_dd.partial_version", v) => partial |= v.as_f64().is_some_and(|n| n >= 0.0),
                (b"span.kind", Value::Str(t)) => kind_tag = kind_tag.or(Some(t)),
                (b"_dd.svc_src", Value::Str(t)) if service_source.is_empty() => service_source = t,
                (b"_dd.git.commit.sha", Value::Str(t)) if git.is_empty() => *git = t,
                (b"http.status_code", v) => offer_status(&mut status, 0, v, batch),
                (b"http.response.status_code", v) => offer_status(&mut status, 2, v, batch),
                (b"rpc.grpc.status_code", v) => offer_grpc(&mut grpc, 0, v),
                (b"grpc.code", v) => offer_grpc(&mut grpc, 2, v),
                (b"rpc.grpc.status.code", v) => offer_grpc(&mut grpc, 4, v),
                (b"grpc.status.code", v) => offer_grpc(&mut grpc, 6, v),
                (b"rpc.response.status_code", v) => offer_grpc(&mut response, 8, v),
                (b"rpc.system.name", Value::Str(t)) if !t.is_empty() => system_name = system_name.or(Some(t)),
                (b"rpc.system", Value::Str(t)) if !t.is_empty() => system = system.or(Some(t)),
                (b"_dd.base_service", Value::Str(t)) if base_service.is_empty() => base_service = t,
                _ => {}
            }
        }
        let kind = match kind_tag {
            Some(t) => Kind::Tag(t),
            None if span.kind == SpanKind::Unspecified && batch.intake.protocol == Protocol::DatadogV1 => {
                Kind::Name("unknown")
            }
            None => Kind::Name(span.kind.name()),
        };
        let kind_text = kind.str(batch);
        if partial || !(top_level || measured || self.by_kind && kind_counts(kind_text)) {
            dims.truncate(first_dim);
            return None;
        }
        self.choose_dims(kind_text, base_service, first_dim, dims);
        // A key that other systems use too: it counts where gRPC is named.
        if system_name.or(system).is_some_and(|t| batch.str(t) == "grpc")
            && let Ranked(rank, Some(value)) = response
        {
            grpc.offer(rank, value);
        }
        Some(Facts {
            span: at as u32,
            kind,
            status: status.1.and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
            // The first key that is there decides, even if its text is no status
            // (observed).
            grpc: match grpc.1 {
                Some(Value::Str(t)) => grpc_status(batch.str(t)),
                Some(v) => whole(v).and_then(|n| u32::try_from(n).ok()),
                None => None,
            },
            service_source,
            top_level,
            dims: (first_dim as u32, dims.len() as u32),
        })
    }

    /// Leaves the dimensions that the kind allows, in order of the keys, each
    /// key once.
    fn choose_dims(&self, kind: &str, base_service: Text, first: usize, dims: &mut Vec<Dim>) {
        if dims.len() == first {
            return;
        }
        let all = peers_of_calls(kind);
        let base = !all
            && !base_service.is_empty()
            && self.keys.has_peers()
            && (kind.is_empty() || kind.eq_ignore_ascii_case("internal"));
        let mut kept = first;
        for i in first..dims.len() {
            let dim = dims[i];
            let peer = self.keys.is_peer(dim.0);
            if (!peer || all) && !dims[first..kept].iter().any(|d| d.0 == dim.0) {
                dims[kept] = dim;
                kept += 1;
            }
        }
        dims.truncate(kept);
        dims[first..].sort_unstable_by_key(|d| d.0);
        if base {
            dims.push((BASE_SERVICE, base_service));
        }
    }
}

/// An HTTP status: of two values under a key the number counts before the
/// text, and what is no whole number leaves it to the next.
fn offer_status(status: &mut Ranked<i64>, rank: u8, value: Value, batch: &Batch) {
    match value {
        Value::Str(t) => whole_text(batch.str(t)).into_iter().for_each(|n| status.offer(rank + 1, n)),
        v => whole(v).into_iter().for_each(|n| status.offer(rank, n)),
    }
}

/// A gRPC status: of two values under a key the text counts before the number;
/// an empty text and a number with a fraction count as absent.
fn offer_grpc(grpc: &mut Ranked<Value>, rank: u8, value: Value) {
    match value {
        Value::Str(t) if t.is_empty() => {}
        Value::Str(_) => grpc.offer(rank, value),
        v if whole(v).is_some() => grpc.offer(rank + 1, v),
        _ => {}
    }
}

/// Whether a key has the length and the first letter of one looked for here;
/// spares most attributes a dozen comparisons.
#[inline]
fn may_matter(key: &[u8]) -> bool {
    const LENGTHS: u32 = 1 << 9
        | 1 << 10
        | 1 << 11
        | 1 << 12
        | 1 << 13
        | 1 << 15
        | 1 << 16
        | 1 << 18
        | 1 << 19
        | 1 << 20
        | 1 << 24
        | 1 << 25;
    key.len() < 32 && LENGTHS >> key.len() & 1 != 0 && matches!(key[0], b'_' | b'g' | b'h' | b'r' | b's')
}

/// Place that stands for `_dd.base_service` looked at alone, which counts even
/// if the configured list lacks it.
pub(crate) const BASE_SERVICE: u16 = u16::MAX;

impl KeySet {
    /// Text of the key of a dimension.
    pub fn dim_key(&self, place: u16) -> &str {
        if place == BASE_SERVICE { keys::BASE_SERVICE } else { self.key(place) }
    }

    /// A tag `key:value` as place and value; the place of no key if the key is
    /// not in the set (any more).
    pub fn split<'a>(&self, tag: &'a str) -> (u16, &'a str) {
        let value = |key: &str| tag.strip_prefix(key).and_then(|rest| rest.strip_prefix(':'));
        let found = self.keys.iter().enumerate().find_map(|(i, key)| Some((i as u16, value(key)?)));
        found.unwrap_or((BASE_SERVICE, value(keys::BASE_SERVICE).unwrap_or(tag)))
    }

    /// Whether a dimension is a peer tag.
    pub fn dim_is_peer(&self, place: u16) -> bool {
        place == BASE_SERVICE || self.is_peer(place)
    }
}
