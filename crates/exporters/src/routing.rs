//! Decides for every chunk of a batch where it leaves to, before anything is
//! counted or sampled for Datadog.

use spanloom_model::{Batch, Chunk, Fate, Leaves, ROUTE_DEFAULT, ROUTE_NOWHERE, Range32, Span, Value};
use spanloom_policy::{Decision, Policies, TagSet};
use std::borrow::Cow;

/// Policies, and the numbers of their backends.
#[derive(Debug, Default)]
pub struct RoutingTable {
    policies: Policies,
    /// By the backend's position in the policies; 0 has no queue.
    numbers: Vec<u16>,
}

/// Rule that the ledger and `why` name for spans that a policy selects.
pub const BY_POLICY: &str = "policy";

impl RoutingTable {
    pub(crate) fn new(policies: Policies, numbers: Vec<u16>) -> Self {
        Self { policies, numbers }
    }

    /// Whether there is no policy.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Sets [`Chunk::route`] of a kept chunk; whether it is still for Datadog.
    /// Each span is routed by its own tags: a chunk of spans with different
    /// routes becomes several, of which this one keeps those that no policy
    /// selects, if there are any. `note` hears of spans that are not sent, and
    /// why.
    pub fn route(&self, batch: &mut Batch, c: usize, mut note: impl FnMut(&'static str, u64)) -> bool {
        let Some(chunk) = batch.chunks.get(c).copied() else { return false };
        if self.policies.is_empty() || chunk.fate != Fate::Kept {
            return chunk.route == ROUTE_DEFAULT;
        }
        let routes: Vec<u16> =
            batch.chunk_spans(&chunk).iter().map(|s| self.of_span(batch, &chunk, s, &mut note)).collect();
        let Some(first) = routes.first().copied() else { return true };
        if routes.iter().all(|r| *r == first) {
            set(&mut batch.chunks[c], first);
            return first == ROUTE_DEFAULT;
        }
        split(batch, c, &routes)
    }

    fn of_span(
        &self,
        batch: &Batch,
        chunk: &Chunk,
        span: &Span,
        note: &mut impl FnMut(&'static str, u64),
    ) -> u16 {
        let tags = SpanTags { batch, chunk, span };
        let (number, why) = match self.policies.decide(&tags, batch.str(span.service), span.trace_id.0) {
            Decision::Unmatched => return ROUTE_DEFAULT,
            // The first copy is on its way already.
            _ if batch.intake.resent => (0, "sent_again"),
            Decision::Nowhere(why) => (0, why.name()),
            Decision::To { keep: false, .. } => (0, "percentage"),
            Decision::To { backend, .. } => (self.numbers.get(backend).copied().unwrap_or(0), "no_queue"),
        };
        if number == 0 {
            note(why, 1);
            return ROUTE_NOWHERE;
        }
        number
    }
}

fn set(chunk: &mut Chunk, route: u16) {
    chunk.route = route;
    if route != ROUTE_DEFAULT {
        chunk.sampled.leaves = Leaves::Nothing;
        chunk.sampled.by = BY_POLICY;
    }
}

/// Sorts the spans of a chunk by route, those without one first, and makes a
/// chunk of each route but the first.
fn split(batch: &mut Batch, c: usize, routes: &[u16]) -> bool {
    let chunk = batch.chunks[c];
    let mut spans: Vec<(u16, Span)> =
        routes.iter().copied().zip(batch.chunk_spans(&chunk).iter().copied()).collect();
    spans.sort_by_key(|(route, _)| *route);
    let start = chunk.spans.start as usize;
    for (i, (_, span)) in spans.iter().enumerate() {
        batch.spans[start + i] = *span;
    }
    let mut at = start;
    let mut first = true;
    for run in spans.chunk_by(|a, b| a.0 == b.0) {
        let Some((route, _)) = run.first() else { continue };
        let mut part = Chunk { spans: Range32::new(at, at + run.len()), ..chunk };
        set(&mut part, *route);
        at += run.len();
        if std::mem::take(&mut first) {
            batch.chunks[c] = part;
        } else {
            batch.chunks.push(part);
        }
    }
    batch.chunks[c].route == ROUTE_DEFAULT
}

/// What a span can be selected by: its own attributes, then those of its
/// chunk, then what its sender says about itself.
struct SpanTags<'a> {
    batch: &'a Batch,
    chunk: &'a Chunk,
    span: &'a Span,
}

impl TagSet for SpanTags<'_> {
    fn tag(&self, name: &str) -> Option<Cow<'_, str>> {
        let batch = self.batch;
        let resource = batch.resources.get(self.chunk.resource as usize);
        let of_resource = resource.map(|r| r.attrs).unwrap_or_default();
        let found =
            [self.span.attrs, self.chunk.attrs, of_resource].into_iter().find_map(|r| batch.get(r, name));
        match found {
            Some(Value::Str(text)) => Some(Cow::Borrowed(batch.str(text))),
            Some(value) => batch.scalar(value).map(Cow::Owned),
            None => {
                let text = resource.and_then(|r| r.field(name))?;
                (!text.is_empty()).then(|| Cow::Borrowed(batch.str(text)))
            }
        }
    }
}
