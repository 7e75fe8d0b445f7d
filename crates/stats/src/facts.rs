//! What one pass over a span's attributes finds out for the statistics.

use crate::rules::{grpc_status, kind_counts, peers_of_calls, whole, whole_text};
use spanloom_model::{Batch, Protocol, Span, SpanKind, Text, Value, key_hash, keys, same_bytes};

/// Keys that are looked for in a pass over attributes: those whose values
/// become dimensions (peer tags first, then extra tags), and those that say
/// something about the span.
#[derive(Clone, Debug)]
pub(crate) struct KeySet {
    /// Dimensions in their order.
    keys: Vec<Box<str>>,
    peers: usize,
    /// By hash of the key, the first of its entries; [`NO_ENTRY`] for most.
    first: Box<[u16; 256]>,
    entries: Vec<Entry>,
}

/// A key that is looked for.
#[derive(Clone, Debug)]
struct Entry {
    key: Box<[u8]>,
    /// Its place among the dimensions, if it is one.
    place: Option<u16>,
    says: Says,
    /// The next entry with this hash.
    next: u16,
}

const NO_ENTRY: u16 = u16::MAX;

/// What the value of a key says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Says {
    /// It is only a dimension.
    Nothing,
    TopLevel,
    Measured,
    Partial,
    Kind,
    ServiceSource,
    GitCommit,
    BaseService,
    /// An HTTP status; the lower rank counts.
    Status(u8),
    /// A gRPC status; the lower rank counts.
    Grpc(u8),
    /// A status of gRPC or of another system.
    RpcStatus,
    RpcSystemName,
    RpcSystem,
}

const SAYS: [(&str, Says); 17] = [
    (keys::TOP_LEVEL, Says::TopLevel),
    (keys::DD_TOP_LEVEL, Says::TopLevel),
    (keys::MEASURED, Says::Measured),
    (keys::PARTIAL_VERSION, Says::Partial),
    (keys::SPAN_KIND, Says::Kind),
    ("_dd.svc_src", Says::ServiceSource),
    (keys::GIT_COMMIT_SHA, Says::GitCommit),
    (keys::HTTP_STATUS_CODE, Says::Status(0)),
    ("http.response.status_code", Says::Status(2)),
    ("rpc.grpc.status_code", Says::Grpc(0)),
    ("grpc.code", Says::Grpc(2)),
    ("rpc.grpc.status.code", Says::Grpc(4)),
    ("grpc.status.code", Says::Grpc(6)),
    ("rpc.response.status_code", Says::RpcStatus),
    ("rpc.system.name", Says::RpcSystemName),
    ("rpc.system", Says::RpcSystem),
    (keys::BASE_SERVICE, Says::BaseService),
];

impl KeySet {
    pub fn new(peers: &[String], extra: &[String]) -> Self {
        let peers = &peers[..peers.len().min(usize::from(u16::MAX) / 2)];
        let extra = &extra[..extra.len().min(usize::from(u16::MAX) / 4)];
        let mut set = Self {
            keys: peers.iter().chain(extra).filter(|k| !k.is_empty()).map(|k| k.as_str().into()).collect(),
            peers: peers.iter().filter(|k| !k.is_empty()).count(),
            first: Box::new([NO_ENTRY; 256]),
            entries: Vec::new(),
        };
        for (key, says) in SAYS {
            set.entry(key.as_bytes()).says = says;
        }
        for (place, key) in set.keys.clone().iter().enumerate() {
            set.entry(key.as_bytes()).place.get_or_insert(place as u16);
        }
        set
    }

    /// The entry of a key, a new one if it has none.
    fn entry(&mut self, key: &[u8]) -> &mut Entry {
        let at = self.entries.iter().position(|e| *e.key == *key).unwrap_or_else(|| {
            let first = &mut self.first[usize::from(key_hash(key))];
            let next = std::mem::replace(first, self.entries.len() as u16);
            self.entries.push(Entry { key: key.into(), place: None, says: Says::Nothing, next });
            self.entries.len() - 1
        });
        &mut self.entries[at]
    }

    #[inline]
    fn find(&self, key: &[u8]) -> Option<&Entry> {
        let mut at = self.first[usize::from(key_hash(key))];
        // Most attributes end here.
        while let Some(entry) = self.entries.get(usize::from(at)) {
            if same_bytes(&entry.key, key) {
                return Some(entry);
            }
            at = entry.next;
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
    /// Hash of these.
    pub dims_hash: u64,
    /// The trace was made by a synthetic test.
    pub synthetics: bool,
    /// Hash of the key of the span's group, besides who sent it.
    pub hash: u64,
}

/// Text of the span kind: as sent, or from the numeric field.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Tag(Text),
    Name(&'static str),
}

impl Kind {
    pub fn bytes(self, batch: &Batch) -> &[u8] {
        match self {
            Self::Tag(t) => batch.arena.bytes(t),
            Self::Name(n) => n.as_bytes(),
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
    /// there only if the span counts. Hashes are the caller's to fill in.
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
            let Some(entry) = self.keys.find(batch.arena.bytes(attr.key)) else { continue };
            let text = attr.value.as_text();
            let some_text = text.filter(|t| !t.is_empty());
            if let (Some(place), Some(value)) = (entry.place, some_text) {
                dims.push((place, value));
            }
            match entry.says {
                Says::Nothing => {}
                Says::TopLevel => top_level |= attr.value.as_f64() == Some(1.0),
                Says::Measured => measured |= attr.value.as_f64() == Some(1.0),
                Says::Partial => partial |= attr.value.as_f64().is_some_and(|n| n >= 0.0),
                Says::Kind => kind_tag = kind_tag.or(text),
                Says::ServiceSource => service_source = first_text(service_source, text),
                Says::GitCommit => *git = first_text(*git, text),
                Says::BaseService => base_service = first_text(base_service, text),
                Says::Status(rank) => offer_status(&mut status, rank, attr.value, batch),
                Says::Grpc(rank) => offer_grpc(&mut grpc, rank, attr.value),
                Says::RpcStatus => offer_grpc(&mut response, 8, attr.value),
                Says::RpcSystemName => system_name = system_name.or(some_text),
                Says::RpcSystem => system = system.or(some_text),
            }
        }
        let kind = match kind_tag {
            Some(t) => Kind::Tag(t),
            None if span.kind == SpanKind::Unspecified && batch.intake.protocol == Protocol::DatadogV1 => {
                Kind::Name("unknown")
            }
            None => Kind::Name(span.kind.name()),
        };
        let kind_text = kind.bytes(batch);
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
            dims_hash: 0,
            synthetics: false,
            hash: 0,
        })
    }

    /// Leaves the dimensions that the kind allows, in order of the keys, each
    /// key once.
    fn choose_dims(&self, kind: &[u8], base_service: Text, first: usize, dims: &mut Vec<Dim>) {
        if dims.len() == first {
            return;
        }
        let all = peers_of_calls(kind);
        let base = !all
            && !base_service.is_empty()
            && self.keys.has_peers()
            && (kind.is_empty() || kind.eq_ignore_ascii_case(b"internal"));
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

/// The first text that is not empty.
fn first_text(known: Text, next: Option<Text>) -> Text {
    if known.is_empty() { next.unwrap_or_default() } else { known }
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
