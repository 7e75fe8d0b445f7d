//! Hashes that group traces, and what the rates written on a root mean
//! (`datadog-agent:pkg/trace/sampler/signature.go`, `sampler.go`).

use spanloom_model::{Batch, Chunk, Span, TraceId, keys};

/// Rate at which the event pre-sampler passed the trace.
pub const PRE_SAMPLER_RATE: &str = "_dd1.sr.rapre";

/// Hash of a service, a span or a trace.
pub type Signature = u32;

/// 32-bit FNV-1a.
#[derive(Clone, Copy)]
pub(crate) struct Fnv32(pub u32);

impl Fnv32 {
    pub const NEW: Self = Self(0x811c_9dc5);

    pub fn write(mut self, bytes: &[u8]) -> Self {
        for b in bytes {
            self.0 = (self.0 ^ u32::from(*b)).wrapping_mul(0x0100_0193);
        }
        self
    }
}

/// Hash of a service in an environment.
pub fn service_signature(service: &str, env: &str) -> Signature {
    Fnv32::NEW.write(service.as_bytes()).write(b",").write(env.as_bytes()).0
}

/// Key of a service in the rates told to tracers.
pub fn service_key(service: &str, env: &str) -> String {
    format!("service:{service},env:{env}")
}

/// Hash of what kind of span this is; with the resource for roots and for the
/// rare sampler.
pub fn span_signature(batch: &Batch, span: &Span, env: &str, with_resource: bool) -> Signature {
    // One byte as in the reference: 256 errors look like none.
    let mut hash = Fnv32::NEW
        .write(env.as_bytes())
        .write(batch.arena.bytes(span.service))
        .write(batch.arena.bytes(span.name))
        .write(&[span.error as u8]);
    if with_resource {
        // Only spans of other protocols lack a resource; hashing nothing would
        // make root and span hashes cancel out.
        let resource = if span.resource.is_empty() { span.name } else { span.resource };
        hash = hash.write(batch.arena.bytes(resource));
    }
    for key in [keys::HTTP_STATUS_CODE, keys::ERROR_TYPE] {
        if let Some(text) = batch.span_text(span, key) {
            hash = hash.write(batch.arena.bytes(text));
        }
    }
    hash.0
}

/// Hash of what kind of trace this is: its set of kinds of spans and its root.
/// `scratch` is cleared and reused.
pub fn trace_signature(
    batch: &Batch,
    chunk: &Chunk,
    root: usize,
    env: &str,
    scratch: &mut Vec<Signature>,
) -> Signature {
    scratch.clear();
    scratch.extend(batch.chunk_spans(chunk).iter().map(|s| span_signature(batch, s, env, false)));
    scratch.sort_unstable();
    scratch.dedup();
    let root = batch.spans.get(root).map_or(0, |s| span_signature(batch, s, env, true));
    scratch.iter().fold(root, |all, s| all ^ s)
}

/// Whether a trace is kept at a rate: the same answer wherever it is asked.
pub fn sample_by_rate(trace_id: TraceId, rate: f64) -> bool {
    if rate >= 1.0 || rate.is_nan() {
        return true;
    }
    // Casts saturate: a negative rate keeps nothing.
    trace_id.low().wrapping_mul(1_111_111_111_111_111_111) < (rate * u64::MAX as f64) as u64
}

/// Rate that the tracer applied (`_sample_rate`), 1 if it says none.
pub fn global_rate(batch: &Batch, root: &Span) -> f64 {
    batch.span_f64(root, keys::SAMPLE_RATE).unwrap_or(1.0)
}

/// How many traces the root stands for.
pub fn root_weight(batch: &Batch, root: &Span) -> f32 {
    let rate = |key| batch.span_f64(root, key).filter(|r| *r > 0.0 && *r <= 1.0).unwrap_or(1.0);
    (1.0 / (rate(PRE_SAMPLER_RATE) * rate(keys::SAMPLE_RATE))) as f32
}
