//! Makes the spans of a chunk valid, or refuses the chunk.
//!
//! Source: `datadog-agent:pkg/trace/agent/normalizer.go`; the order of the
//! checks is the Agent's, because later ones use what earlier ones corrected.

use crate::names::{self, MAX_NAME, Reason};
use crate::{Counts, SpanIds};
use spanloom_model::{Arena, Attr, Batch, Chunk, PRIORITY_NONE, Protocol, Span, SpanId, Text, Value, keys};
use std::borrow::Cow;

/// 2000-01-01T00:00:00Z: a span that claims to be older has a wrong clock.
const YEAR_2000: i64 = 946_684_800_000_000_000;

/// Settings of the normaliser.
#[derive(Debug, Clone, Copy, Default)]
pub struct NormalizerConfig {
    /// Feature `component2name`: the tag `component` becomes the span name.
    pub component_to_name: bool,
}

/// Checks and corrects a chunk. `Err` is the reason why the whole chunk is
/// refused. `now` (ns) replaces impossible start times. Afterwards `ids` are the
/// chunk's.
pub fn normalize_chunk(
    batch: &mut Batch,
    chunk: &mut Chunk,
    config: NormalizerConfig,
    now: i64,
    ids: &mut SpanIds,
    counts: &mut Counts,
) -> Result<(), &'static str> {
    let range = chunk.spans.usize();
    let Some(first) = batch.spans.get(range.start).filter(|_| !range.is_empty()).copied() else {
        return Err("empty_trace");
    };
    let v1 = batch.intake.protocol == Protocol::DatadogV1;
    let first_high = high_half(batch, &first);
    for i in range.clone() {
        let span = &batch.spans[i];
        if !v1 && span.trace_id.low() == 0 {
            return Err("trace_id_zero");
        }
        if span.span_id.is_zero() {
            return Err("span_id_zero");
        }
        if span.trace_id.low() != first.trace_id.low() {
            return Err("foreign_span");
        }
        if let Some(a) = first_high
            && let Some(b) = high_half(batch, span)
            && batch.arena.bytes(a) != batch.arena.bytes(b)
        {
            return Err("foreign_span");
        }
    }
    for _ in 0..ids.read(batch, chunk) {
        counts.malformed("duplicate_span_id");
    }
    // What the payload itself says does not name a service (observed).
    let language = match batch.intake.protocol {
        Protocol::DatadogV07 | Protocol::DatadogV1 => batch.client_language,
        _ => batch.resources.get(chunk.resource as usize).map(|r| r.language_name).unwrap_or_default(),
    };
    for i in range {
        normalize_span(batch, i, language, config, v1, now, counts);
    }
    Ok(())
}

/// Fills the chunk's priority, origin and decision maker from its spans
/// (datadog-processing §1.5; v1.0 carries them natively).
pub fn fill_chunk_attributes(batch: &mut Batch, chunk: &mut Chunk, root: usize) {
    if batch.intake.protocol == Protocol::DatadogV1 {
        return;
    }
    if chunk.priority == PRIORITY_NONE {
        let spans = batch.chunk_spans(chunk);
        let own = batch.span_f64(&batch.spans[root], keys::SAMPLING_PRIORITY);
        let priority = own.or_else(|| spans.iter().find_map(|s| batch.span_f64(s, keys::SAMPLING_PRIORITY)));
        chunk.priority = priority.map_or(PRIORITY_NONE, |p| p as i32);
    }
    if chunk.origin.is_empty() {
        chunk.origin = batch.span_text(&batch.spans[root], keys::ORIGIN).unwrap_or_default();
    }
    if batch.get_text(chunk.attrs, keys::DECISION_MAKER).is_none() {
        let spans = batch.chunk_spans(chunk);
        if let Some(dm) = spans.iter().find_map(|s| batch.span_text(s, keys::DECISION_MAKER)) {
            let key = batch.arena.push_static(keys::DECISION_MAKER);
            chunk.attrs =
                batch.extend_range(chunk.attrs, spanloom_model::Attr { key, value: Value::Str(dm) });
        }
    }
}

/// The `_dd.p.tid` of a span.
fn high_half(batch: &Batch, span: &Span) -> Option<Text> {
    batch.span_text(span, keys::TRACE_ID_HIGH).filter(|t| !t.is_empty())
}

fn normalize_span(
    batch: &mut Batch,
    i: usize,
    language: Text,
    config: NormalizerConfig,
    v1: bool,
    now: i64,
    counts: &mut Counts,
) {
    // What is right already, which is nearly everything, is told at a glance.
    if !names::is_normal_service(batch.arena.bytes(batch.spans[i].service)) {
        let service = batch.str(batch.spans[i].service);
        let (value, reason) = names::normalize_service(service, batch.str(language));
        reason.into_iter().for_each(|r| counts.malformed(counter("service", r)));
        if let Some(value) = changed(service, value) {
            batch.spans[i].service = batch.arena.push(&value);
        }
    }
    for (key, what) in [(keys::PEER_SERVICE, "peer_service"), (keys::BASE_SERVICE, "base_service")] {
        let Some(text) = batch.span_text(&batch.spans[i], key).filter(|t| !t.is_empty()) else { continue };
        if names::is_normal_service(batch.arena.bytes(text)) {
            continue;
        }
        let (value, reason) = names::normalize_peer_service(batch.str(text));
        reason.into_iter().for_each(|r| counts.malformed(counter(what, r)));
        if let Some(value) = changed(batch.str(text), value) {
            batch.set_str(i, key, &value);
        }
    }
    if config.component_to_name
        && let Some(component) = batch.span_text(&batch.spans[i], keys::COMPONENT).filter(|t| !t.is_empty())
    {
        batch.spans[i].name = component;
    }
    if !names::is_normal_name(batch.arena.bytes(batch.spans[i].name)) {
        let name = batch.str(batch.spans[i].name);
        let (value, reason) = names::normalize_name(name);
        reason.into_iter().for_each(|r| counts.malformed(counter("span_name", r)));
        if let Some(value) = changed(name, value) {
            batch.spans[i].name = batch.arena.push(&value);
        }
    }
    let span = &mut batch.spans[i];
    if span.resource.is_empty() {
        counts.malformed("resource_empty");
        span.resource = span.name;
    }
    let own_root = if v1 {
        span.parent_id == span.span_id
    } else {
        span.parent_id.0 == span.trace_id.low() && span.parent_id == span.span_id
    };
    if own_root {
        span.parent_id = SpanId(0);
    }
    for reason in normalize_times(&mut span.start, &mut span.duration, now) {
        counts.malformed(reason);
    }
    if span.span_type.len() > MAX_NAME {
        counts.malformed("type_truncate");
        let text = span.span_type;
        let keep = names::truncate_utf8(batch.arena.str(text), MAX_NAME).len();
        batch.spans[i].span_type = text.slice(0, keep);
    }
    let env = batch.span_text(&batch.spans[i], keys::ENV);
    let env = env.filter(|t| !names::is_normal_service(batch.arena.bytes(*t)));
    let fixed = env.map(|t| batch.str(t)).and_then(|v| changed(v, names::normalize_tag_value(v)));
    if let Some(value) = fixed {
        batch.set_str(i, keys::ENV, &value);
    }
    // Of v1.0 a value of any type is judged, of other versions the text.
    let bad_status = |arena: &Arena, a: &Attr| {
        arena.bytes(a.key) == keys::HTTP_STATUS_CODE.as_bytes()
            && match a.value {
                Value::Str(t) => !is_http_status(arena.str(t)),
                Value::Int(n) => v1 && !(100..600).contains(&n),
                Value::Double(n) => v1 && !((100.0..600.0).contains(&n) && n.fract() == 0.0),
                _ => v1,
            }
    };
    let span = &batch.spans[i];
    if batch.may_have(span, keys::HTTP_STATUS_CODE)
        && batch.attrs(span.attrs).iter().any(|a| bad_status(&batch.arena, a))
    {
        counts.malformed("invalid_http_status_code");
        batch.remove_attrs(i, bad_status);
    }
    for l in batch.spans[i].links.usize() {
        let Some(link) = batch.links.get(l).map(|l| l.attrs) else { continue };
        let fixed = batch.get_str(link, "link.name").and_then(|v| changed(v, names::normalize_name(v).0));
        if let Some(value) = fixed {
            let text = batch.arena.push(&value);
            for a in link.usize() {
                if batch.str(batch.attrs[a].key) == "link.name" {
                    batch.attrs[a].value = Value::Str(text);
                }
            }
        }
    }
}

/// Corrects impossible times; returns the counters of what was corrected.
pub fn normalize_times(start: &mut i64, duration: &mut i64, now: i64) -> impl Iterator<Item = &'static str> {
    // Go's arithmetic wraps: with a negative start the bound is negative and
    // every duration exceeds it.
    let bad_duration = *duration < 0 || *duration > i64::MAX.wrapping_sub(*start);
    if bad_duration {
        *duration = 0;
    }
    let bad_start = *start < YEAR_2000;
    if bad_start {
        *start = now.saturating_sub(*duration);
        if *start < 0 {
            *start = now;
        }
    }
    [bad_duration.then_some("invalid_duration"), bad_start.then_some("invalid_start_date")]
        .into_iter()
        .flatten()
}

/// Whether the tag `http.status_code` may stay: a decimal from 100 to 599.
pub fn is_http_status(text: &str) -> bool {
    !text.is_empty()
        && text.bytes().all(|b| b.is_ascii_digit())
        && text.parse::<u32>().is_ok_and(|n| (100..600).contains(&n))
}

fn changed(before: &str, after: Cow<'_, str>) -> Option<String> {
    (before != after).then(|| after.into_owned())
}

fn counter(what: &'static str, reason: Reason) -> &'static str {
    match (what, reason) {
        ("service", Reason::Empty) => "service_empty",
        ("service", Reason::Truncate) => "service_truncate",
        ("service", Reason::Invalid) => "service_invalid",
        ("peer_service", Reason::Truncate) => "peer_service_truncate",
        ("peer_service", _) => "peer_service_invalid",
        ("base_service", Reason::Truncate) => "base_service_truncate",
        ("base_service", _) => "base_service_invalid",
        (_, Reason::Empty) => "span_name_empty",
        (_, Reason::Truncate) => "span_name_truncate",
        (_, Reason::Invalid) => "span_name_invalid",
    }
}
