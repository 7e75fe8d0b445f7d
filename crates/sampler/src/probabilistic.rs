//! The probabilistic sampler: by a hash of the trace id, compatible with the
//! OpenTelemetry collector's in full-id mode
//! (`datadog-agent:pkg/trace/sampler/probabilistic.go`).

use crate::signature::Fnv32;
use spanloom_model::{Batch, Protocol, Span, TraceId, keys};

const BUCKETS: u32 = 0x4000;

/// See the module.
#[derive(Clone, Debug)]
pub struct Probabilistic {
    threshold: u32,
    percentage: f32,
    seed: [u8; 4],
    full_id: bool,
}

/// What the sampler makes of an id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Verdict {
    /// Whether to keep the trace.
    pub keep: bool,
    /// Bucket of the hash.
    pub bucket: u32,
    /// Buckets below this are kept.
    pub threshold: u32,
}

impl Probabilistic {
    /// A sampler that keeps `percentage` (0 to 100) of all traces. `full_id`:
    /// hash all 128 bits (feature `probabilistic_sampler_full_trace_id`).
    pub fn new(percentage: f32, seed: u32, full_id: bool) -> Self {
        // 32-bit arithmetic as in the reference; the cast saturates.
        let threshold = (percentage * (BUCKETS as f32 / 100.0)) as u32;
        Self { threshold, percentage, seed: seed.to_le_bytes(), full_id }
    }

    /// Rate, 0 to 1.
    pub fn rate(&self) -> f64 {
        f64::from(self.percentage) / 100.0
    }

    /// Decides on a trace by its root. Without full ids only the low half is
    /// hashed, of v1.0 only the high half: another Agent that sees spans of the
    /// trace must decide the same. With full ids the high half is what the root
    /// itself says.
    pub fn sample(&self, batch: &Batch, root: &Span) -> bool {
        let tag = |key| batch.get_str(root.attrs, key).filter(|hex| !hex.is_empty());
        let id = if batch.intake.protocol == Protocol::DatadogV1 {
            if self.full_id { root.trace_id } else { TraceId::from_halves(0, root.trace_id.high()) }
        } else if !self.full_id {
            root.trace_id
        } else if let Some(hex) = tag("otel.trace_id") {
            match TraceId::parse_hex(hex) {
                Ok(id) if hex.len() == 32 => id,
                _ => return false,
            }
        } else {
            match tag(keys::TRACE_ID_HIGH).map(|hex| u64::from_str_radix(hex, 16)) {
                Some(Ok(high)) => TraceId::from_halves(high, root.trace_id.low()),
                Some(Err(_)) => return false,
                None => TraceId::from_halves(0, root.trace_id.low()),
            }
        };
        self.verdict(id).keep
    }

    /// Decides on an id.
    pub fn verdict(&self, id: TraceId) -> Verdict {
        let hash = Fnv32::NEW.write(&self.seed);
        let hash = if self.full_id {
            hash.write(&id.0.to_be_bytes())
        } else {
            hash.write(&id.low().to_be_bytes()).write(&[0; 8])
        };
        let bucket = hash.0 & (BUCKETS - 1);
        Verdict { keep: bucket < self.threshold, bucket, threshold: self.threshold }
    }
}
