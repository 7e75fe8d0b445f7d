//! Small rules of the aggregation, each a pure function
//! (`datadog-agent:pkg/trace/stats/aggregation.go`, `statsraw.go`, `weight.go`).

use spanloom_model::Value;

/// Keys whose values name the peer of an outgoing call
/// (`datadog-agent:pkg/trace/config/peer_tags.ini`).
pub const DEFAULT_PEER_TAGS: &[&str] = &[
    "_dd.base_service",
    "active_record.db.vendor",
    "amqp.destination",
    "amqp.exchange",
    "amqp.queue",
    "aws.queue.name",
    "aws.s3.bucket",
    "bucketname",
    "cassandra.keyspace",
    "db.cassandra.contact.points",
    "db.couchbase.seed.nodes",
    "db.hostname",
    "db.instance",
    "db.name",
    "db.namespace",
    "db.system",
    "db.type",
    "dns.hostname",
    "grpc.host",
    "hostname",
    "http.host",
    "http.server_name",
    "messaging.destination",
    "messaging.destination.name",
    "messaging.kafka.bootstrap.servers",
    "messaging.rabbitmq.exchange",
    "messaging.system",
    "mongodb.db",
    "msmq.queue.path",
    "net.peer.name",
    "network.destination.ip",
    "network.destination.name",
    "out.host",
    "peer.hostname",
    "peer.service",
    "queuename",
    "rpc.service",
    "rpc.system",
    "sequel.db.vendor",
    "server.address",
    "streamname",
    "tablename",
    "topicname",
];

/// The defaults and the user's own keys, sorted and unique: what
/// `apm_config.peer_tags` means.
pub fn peer_tag_keys(own: &[String]) -> Vec<String> {
    let mut keys: Vec<String> =
        DEFAULT_PEER_TAGS.iter().map(|k| (*k).to_owned()).chain(own.iter().cloned()).collect();
    keys.sort();
    keys.dedup();
    keys
}

/// 64-bit FNV-1a.
#[derive(Clone, Copy)]
pub(crate) struct Fnv64(pub u64);

impl Fnv64 {
    pub const NEW: Self = Self(0xcbf2_9ce4_8422_2325);

    pub fn write(&mut self, bytes: &[u8]) {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x100_0000_01b3);
        }
    }
}

/// Hash of a list of tags: sorted, joined with zero bytes, 64-bit FNV-1a; 0
/// for an empty list.
pub fn tags_hash<S: AsRef<str>>(tags: &[S]) -> u64 {
    if tags.is_empty() {
        return 0;
    }
    let mut sorted: Vec<&str> = tags.iter().map(AsRef::as_ref).collect();
    sorted.sort_unstable();
    let mut hash = Fnv64::NEW;
    for (i, tag) in sorted.iter().enumerate() {
        if i > 0 {
            hash.write(&[0]);
        }
        hash.write(tag.as_bytes());
    }
    hash.0
}

/// Hash of process tags (`key:value` joined by commas); 0 for none.
pub fn process_tags_hash(tags: &str) -> u64 {
    if tags.is_empty() {
        return 0;
    }
    tags_hash(&tags.split(',').collect::<Vec<_>>())
}

/// gRPC status code of a text: a number, a name of `google.rpc.Code`, or a
/// name as the languages' libraries print it.
pub fn grpc_status(text: &str) -> Option<u32> {
    if let Some(n) = decimal(text) {
        return Some(n);
    }
    const NAMES: &[(&str, u32)] = &[
        ("CANCELLED", 1),
        ("CANCELED", 1),
        ("INVALIDARGUMENT", 3),
        ("DEADLINEEXCEEDED", 4),
        ("NOTFOUND", 5),
        ("ALREADYEXISTS", 6),
        ("PERMISSIONDENIED", 7),
        ("RESOURCEEXHAUSTED", 8),
        ("FAILEDPRECONDITION", 9),
        ("OUTOFRANGE", 11),
        ("DATALOSS", 15),
        ("OK", 0),
        ("UNKNOWN", 2),
        ("INVALID_ARGUMENT", 3),
        ("DEADLINE_EXCEEDED", 4),
        ("NOT_FOUND", 5),
        ("ALREADY_EXISTS", 6),
        ("PERMISSION_DENIED", 7),
        ("RESOURCE_EXHAUSTED", 8),
        ("FAILED_PRECONDITION", 9),
        ("ABORTED", 10),
        ("OUT_OF_RANGE", 11),
        ("UNIMPLEMENTED", 12),
        ("INTERNAL", 13),
        ("UNAVAILABLE", 14),
        ("DATA_LOSS", 15),
        ("UNAUTHENTICATED", 16),
    ];
    let name = text.strip_prefix("StatusCode.").unwrap_or(text);
    NAMES.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, code)| *code)
}

/// Unsigned 32-bit decimal number, digits only.
pub(crate) fn decimal(text: &str) -> Option<u32> {
    if text.bytes().all(|b| b.is_ascii_digit()) { text.parse().ok() } else { None }
}

/// A number without a fraction that fits in 64 bits.
pub(crate) fn whole(value: Value) -> Option<i64> {
    match value {
        Value::Int(n) => Some(n),
        Value::Double(n) => whole_number(n),
        _ => None,
    }
}

/// A text that is such a number: decimal with or without a sign, or as a
/// floating point number is written (`200.0`, `2e2`).
pub(crate) fn whole_text(text: &str) -> Option<i64> {
    text.parse().ok().or_else(|| whole_number(text.parse().ok()?))
}

/// 2^63 itself is too large, and not a number is not equal to itself.
fn whole_number(n: f64) -> Option<i64> {
    let bound = 2f64.powi(63);
    ((-bound..bound).contains(&n) && n.fract() == 0.0).then_some(n as i64)
}

/// How many traces one stands for, from the root's `_sample_rate`.
pub fn weight(sample_rate: Option<f64>) -> f64 {
    match sample_rate {
        Some(rate) if rate > 0.0 && rate <= 1.0 => 1.0 / rate,
        _ => 1.0,
    }
}

/// Whether an origin is a synthetic test.
pub fn is_synthetics(origin: &str) -> bool {
    origin.starts_with("synthetics")
}

/// Whether a span kind makes a span count (server, client, producer,
/// consumer; any case).
pub fn kind_counts(kind: &[u8]) -> bool {
    matches!(kind.len(), 6 | 8)
        && [&b"server"[..], b"client", b"producer", b"consumer"].iter().any(|k| kind.eq_ignore_ascii_case(k))
}

/// Whether spans of this kind are told apart by all peer tags (client,
/// producer, consumer; any case).
pub(crate) fn peers_of_calls(kind: &[u8]) -> bool {
    matches!(kind.len(), 6 | 8)
        && [&b"client"[..], b"producer", b"consumer"].iter().any(|k| kind.eq_ignore_ascii_case(k))
}

/// Time rounded down to a multiple of `width`; both in nanoseconds.
pub fn align(time: i64, width: i64) -> i64 {
    time.saturating_sub(time.rem_euclid(width.max(1)))
}

/// A weighted sum as a whole number: up or down at random in proportion to
/// the fraction, so that totals are unbiased. `random` is uniform in [0, 1).
pub fn round_at_random(sum: f64, random: &mut dyn FnMut() -> f64) -> u64 {
    let whole = sum.floor();
    let fraction = sum - whole;
    let up = fraction > 0.0 && random() < fraction;
    whole as u64 + u64::from(up)
}
