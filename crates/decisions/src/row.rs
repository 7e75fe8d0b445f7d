//! A decision, and how it is written.

use spanloom_model::TraceId;

/// Bytes of a row.
pub(crate) const ROW: usize = 32;

/// Where the spans of a decision went, as bits of [`Decision::to`].
pub mod to {
    /// The embedded store.
    pub const STORE: u8 = 1;
    /// Datadog, all spans.
    pub const DATADOG: u8 = 2;
    /// Datadog, only marked spans (singly sampled ones, events).
    pub const DATADOG_MARKED: u8 = 4;
    /// The samplers were asked for Datadog.
    pub const ASKED: u8 = 8;
    /// Backends of policies.
    pub const BACKENDS: u8 = 16;
    /// What leaves waits for the verdict on the whole trace.
    pub const WAITS: u8 = 32;
}

/// What became of spans.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Outcome {
    /// A destination has them.
    Kept = 0,
    /// No destination takes them because a sampler said no.
    SampledOut = 1,
    /// A rule of the user removed them.
    Filtered = 2,
    /// They were no valid trace.
    Rejected = 3,
    /// They were not taken, and the client was told.
    Refused = 4,
    /// They were taken and are gone.
    Lost = 5,
    /// A tail rule kept the whole trace.
    TailKept = 6,
    /// A tail rule dropped the whole trace.
    TailDropped = 7,
    /// A person kept it after all.
    Undropped = 8,
}

impl Outcome {
    const ALL: [Self; 9] = [
        Self::Kept,
        Self::SampledOut,
        Self::Filtered,
        Self::Rejected,
        Self::Refused,
        Self::Lost,
        Self::TailKept,
        Self::TailDropped,
        Self::Undropped,
    ];

    pub(crate) fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }

    /// Whether it is about a whole trace: then its time matters, because a
    /// later one replaces it.
    pub const fn is_of_trace(self) -> bool {
        matches!(self, Self::TailKept | Self::TailDropped | Self::Undropped)
    }

    /// Name in answers; those of single chunks as in the ledger.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::SampledOut => "sampled_out",
            Self::Filtered => "filtered",
            Self::Rejected => "rejected",
            Self::Refused => "refused",
            Self::Lost => "lost",
            Self::TailKept => "tail_kept",
            Self::TailDropped => "tail_dropped",
            Self::Undropped => "undropped",
        }
    }
}

/// One decision about spans of one trace.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Decision<'a> {
    /// The trace.
    pub trace_id: TraceId,
    /// When, nanoseconds since the Unix epoch; kept to the millisecond.
    pub at: i64,
    /// What became of the spans.
    pub outcome: Outcome,
    /// Where they went, see [`to`].
    pub to: u8,
    /// Name of the rule, sampler or reason; cut at 255 bytes.
    pub rule: &'a str,
    /// Rate at which it decided; 0 when not rate-based.
    pub rate: f32,
    /// Spans.
    pub spans: u32,
}

/// A decision with its texts numbered. Time is milliseconds since the base of
/// its block.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Row {
    pub id: u128,
    pub at: u32,
    pub rate: f32,
    pub spans: u32,
    pub chunks: u16,
    pub meaning: u16,
}

impl Row {
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.id.to_le_bytes());
        out.extend_from_slice(&self.at.to_le_bytes());
        out.extend_from_slice(&self.rate.to_bits().to_le_bytes());
        out.extend_from_slice(&self.spans.to_le_bytes());
        out.extend_from_slice(&self.chunks.to_le_bytes());
        out.extend_from_slice(&self.meaning.to_le_bytes());
    }

    pub fn get(bytes: &[u8; ROW]) -> Self {
        let u32_at = |i: usize| u32::from_le_bytes([bytes[i], bytes[i + 1], bytes[i + 2], bytes[i + 3]]);
        let mut id = [0; 16];
        id.copy_from_slice(&bytes[..16]);
        Self {
            id: u128::from_le_bytes(id),
            at: u32_at(16),
            rate: f32::from_bits(u32_at(20)),
            spans: u32_at(24),
            chunks: u16::from_le_bytes([bytes[28], bytes[29]]),
            meaning: u16::from_le_bytes([bytes[30], bytes[31]]),
        }
    }

    /// Where it stands in a sealed block. Only the lower half of an id counts,
    /// because some tracers send no more.
    pub fn bucket(id: u128) -> u8 {
        // Ids are mostly random, but need not be: counters spread well too.
        ((id as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) as u8
    }

    /// Whether it is about a trace; a half id is about every trace that ends so.
    pub fn is_about(&self, id: TraceId) -> bool {
        let own = TraceId(self.id);
        own.low() == id.low() && (own.high() == id.high() || own.high() == 0 || id.high() == 0)
    }
}

/// What rows share: outcome, destinations, rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Meaning {
    pub outcome: Outcome,
    pub to: u8,
    pub rule: String,
}

impl Meaning {
    pub fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&[self.outcome as u8, self.to, self.rule.len() as u8]);
        out.extend_from_slice(self.rule.as_bytes());
    }

    /// Reads one off the front.
    pub fn get(bytes: &mut &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<3>()?;
        let rule = rest.get(..usize::from(head[2]))?;
        *bytes = &rest[rule.len()..];
        Some(Self {
            outcome: Outcome::from_code(head[0])?,
            to: head[1],
            rule: std::str::from_utf8(rule).ok()?.to_owned(),
        })
    }
}

/// A rule's name as it is written.
pub(crate) fn cut(rule: &str) -> &str {
    &rule[..rule.floor_char_boundary(255)]
}
