//! Spans that came as OTLP, Zipkin or Jaeger as the Agent would make them of
//! OTLP. Zipkin and Jaeger spans go through the OTLP view of them
//! ([`crate::view`]), as they would behind an OpenTelemetry Collector.
//!
//! | file | holds |
//! |---|---|
//! | `mod.rs` | [`to_datadog`], [`OtlpOptions`], [`Translation`]: payloads, chunks, priorities |
//! | `payload.rs` | host, container tags, environment of a resource |
//! | `span.rs` | one span: fields and tags |
//! | `tags.rs` | the attributes of the span being written |
//! | `names.rs` | operation, resource, type |
//! | `keys.rs` | attributes with a meaning |
//!
//! Rules: datadog-agent:pkg/trace/api/otlp.go, pkg/trace/transform.

mod keys;
mod names;
mod payload;
mod span;
mod tags;

use crate::view;
use keys::{Fact, Facts, To};
use payload::Attributes;
use span::Writer;
use spanloom_model::{
    Attr, Batch, Chunk, ClientFlags, Fate, Intake, PRIORITY_NONE, Protocol, Range32, Resource, Text, Value,
    keys as model_keys,
};
use std::borrow::Cow;
use std::collections::HashMap;

/// Chunk tag: the rate of OTLP's own sampling.
const OTLP_RATE: &str = "_dd.otlp_sr";

/// Bytes of resource attributes that may be repeated in the spans of a batch:
/// far above real requests, far below what a hostile one could ask for.
const REPEATED_BYTES: usize = 64 << 20;

/// How operations and resources are named.
#[derive(Debug, Clone, Default)]
pub enum Naming {
    /// By what the attributes say about the work.
    #[default]
    V2,
    /// As older Agents did.
    V1 {
        /// `otlp_config.traces.span_name_as_resource_name`: the operation is
        /// the span's name.
        span_name_as_resource_name: bool,
        /// `otlp_config.traces.span_name_remappings`: other names for operations.
        remappings: HashMap<String, String>,
    },
}

/// Settings of the translation.
#[derive(Debug, Clone)]
pub struct OtlpOptions {
    /// Names of operations and resources.
    pub naming: Naming,
    /// Feature `enable_otlp_compute_top_level_by_span_kind`.
    pub top_level_by_kind: bool,
    /// Feature `enable_otlp_container_tags_v2`.
    pub container_tags_v2: bool,
    /// `otlp_config.traces.probabilistic_sampler.sampling_percentage`: per cent
    /// kept of traces without a decision of the user; outside of 0 to 100
    /// (both excluded), all.
    pub sampling_percentage: f64,
    /// `apm_config.probabilistic_sampler.enabled`: that sampler decides later.
    pub probabilistic_sampler: bool,
    /// Makes a service name valid.
    pub normalize_service: fn(&str) -> Cow<'_, str>,
    /// Makes a tag value valid.
    pub normalize_tag_value: fn(&str) -> Cow<'_, str>,
}

impl Default for OtlpOptions {
    /// The Agent's defaults, without normalisation.
    fn default() -> Self {
        Self {
            naming: Naming::V2,
            top_level_by_kind: false,
            container_tags_v2: false,
            sampling_percentage: 100.0,
            probabilistic_sampler: false,
            normalize_service: |s| Cow::Borrowed(s),
            normalize_tag_value: |s| Cow::Borrowed(s),
        }
    }
}

impl OtlpOptions {
    /// The rate of OTLP's own sampling, in (0, 1].
    fn rate(&self) -> f64 {
        let rate = self.sampling_percentage / 100.0;
        if rate > 0.0 && rate < 1.0 { rate } else { 1.0 }
    }
}

/// A batch in Datadog's words, and how it belongs to its source.
#[derive(Debug, Default)]
pub struct Translation {
    /// As if it had come as v0.7. Its spans are those of the source, chunk by
    /// chunk as [`Translation::order`] has them.
    pub batch: Batch,
    /// For each chunk of the batch, the chunks of the source whose spans it
    /// holds, in order. More than one only if traces share the low 64 bits of
    /// their ids.
    pub order: Vec<Vec<u32>>,
    /// For each resource, whether its client computed statistics itself.
    pub computed_stats: Vec<bool>,
    /// Resource attributes that were not repeated in spans, because the batch
    /// asks for too many.
    pub cut: u64,
}

/// Translates what is kept of a batch. `agent_hostname` is the host of
/// resources that name none.
///
/// The translation shares the received body with its source. Links and events
/// become tags; nothing is decided about sampling but the priority.
pub fn to_datadog(batch: &Batch, options: &OtlpOptions, agent_hostname: &str) -> Translation {
    let intake = Intake {
        protocol: Protocol::DatadogV07,
        client: ClientFlags { computed_top_level: options.top_level_by_kind, ..ClientFlags::default() },
        ..batch.intake
    };
    // Texts of the source are texts of the translation: the arena begins with
    // all that the source's holds.
    let mut out = Batch::new(batch.arena.clone(), intake);
    out.spans.reserve(batch.spans.len());
    out.attrs.reserve(batch.attrs.len() + batch.spans.len() * 10);
    let mut translation = Translation::default();

    let prepared: Vec<Prepared> = (0..batch.resources.len())
        .map(|r| {
            let (prepared, resource) = prepare(batch, r, options, agent_hostname, &mut out);
            out.resources.push(resource);
            translation.computed_stats.push(prepared.computed_stats);
            prepared
        })
        .collect();

    let rate = options.rate();
    let otlp_rate = out.arena.push(&format!("{rate:.2}"));
    let otlp_rate = Attr { key: out.arena.push_static(OTLP_RATE), value: Value::Str(otlp_rate) };
    let mut writer = Writer::new(batch, options, REPEATED_BYTES);
    translation.order = merge(batch);
    for parts in &translation.order {
        let source = parts.iter().filter_map(|c| batch.chunks.get(*c as usize));
        let Some(first) = source.clone().next() else { continue };
        let Some(resource) = prepared.get(first.resource as usize) else { continue };
        let start = out.spans.len();
        writer.begin_chunk();
        for chunk in source {
            let trace_id = out.arena.push(&chunk.trace_id.to_string());
            for span in batch.chunk_spans(chunk) {
                writer.span(span, trace_id, resource, &mut out);
            }
        }
        let (priority, maker) = priority(options, rate, first, writer.user_priority());
        writer.end_chunk(maker.filter(|_| priority == 1 || priority == 2), &mut out);
        let attrs = out.attrs.len();
        out.attrs.push(otlp_rate);
        out.chunks.push(Chunk {
            resource: first.resource,
            spans: Range32::new(start, out.spans.len()),
            trace_id: first.trace_id,
            priority,
            attrs: Range32::new(attrs, attrs + 1),
            ..Chunk::default()
        });
    }
    translation.cut = writer.cut();
    out.note_keys();
    translation.batch = out;
    translation
}

/// The chunks that are kept, those of one resource and the same low half of
/// the trace id together.
fn merge(batch: &Batch) -> Vec<Vec<u32>> {
    let mut order: Vec<Vec<u32>> = Vec::with_capacity(batch.chunks.len());
    let mut known: HashMap<(u32, u64), usize, foldhash::fast::RandomState> = HashMap::default();
    for (i, chunk) in batch.chunks.iter().enumerate() {
        if chunk.fate != Fate::Kept || chunk.resource as usize >= batch.resources.len() {
            continue;
        }
        let at = *known.entry((chunk.resource, chunk.trace_id.low())).or_insert(order.len());
        match order.get_mut(at) {
            Some(parts) => parts.push(i as u32),
            None => order.push(vec![i as u32]),
        }
    }
    order
}

/// Priority and decision maker of a chunk.
fn priority(
    options: &OtlpOptions,
    rate: f64,
    chunk: &Chunk,
    user: Option<i32>,
) -> (i32, Option<&'static str>) {
    if options.probabilistic_sampler {
        return (PRIORITY_NONE, None);
    }
    match user {
        Some(priority) => (priority, Some("-4")),
        None => (i32::from(keeps(chunk.trace_id.low(), rate)), Some("-9")),
    }
}

/// Whether a trace is kept at a rate, by its id alone.
fn keeps(trace_id: u64, rate: f64) -> bool {
    const FACTOR: u64 = 1_111_111_111_111_111_111;
    rate >= 1.0 || trace_id.wrapping_mul(FACTOR) < (rate * 2f64.powi(64)) as u64
}

/// What all spans of a resource share.
struct Prepared {
    facts: Facts,
    /// Key and value of each tag that spans without it get.
    tags: Vec<(Text, Text)>,
    /// Bytes that one copy of the tags takes, roughly.
    bytes: usize,
    analytics: Option<f64>,
    env: Text,
    version: Text,
    computed_stats: bool,
}

fn prepare(
    batch: &Batch,
    index: usize,
    options: &OtlpOptions,
    agent_hostname: &str,
    out: &mut Batch,
) -> (Prepared, Resource) {
    let resource = &batch.resources[index];
    let attrs = Attributes::new(batch, resource);
    let mut prepared = Prepared {
        facts: Facts::default(),
        tags: Vec::new(),
        bytes: 0,
        analytics: None,
        env: Text::EMPTY,
        version: Text::EMPTY,
        computed_stats: attrs.says("_dd.stats_computed"),
    };
    let mut scratch = String::new();
    view::resource_attrs(batch, resource, Text::EMPTY, |key, value| {
        let known = keys::known(key.as_bytes());
        if let Some(fact) = known.and_then(|k| k.fact) {
            prepared.facts.note(fact, value);
        }
        if options.container_tags_v2 && payload::becomes_container_tag(key) {
            return;
        }
        let to = known.map_or(To::Same, |k| k.to);
        if to == To::Consumed {
            return;
        }
        let text = span::as_text(batch, value, &mut scratch, &mut out.arena);
        match to {
            To::Analytics => prepared.analytics = prepared.analytics.or(span::truth(out.arena.str(text))),
            to => {
                let key = out.arena.push(key);
                let key = span::tag_name(key, to, &mut scratch, &mut out.arena);
                prepared.bytes += size_of::<Attr>() + key.len() + text.len().min(25_000);
                prepared.tags.push((key, text));
            }
        }
    });
    let look = keys::Look { batch, first: &prepared.facts, second: &prepared.facts };
    let mut normal = |text: Option<Text>| match text {
        None => Text::EMPTY,
        Some(text) => {
            let value = batch.str(text);
            let new = (options.normalize_tag_value)(value);
            if *new == *value { text } else { out.arena.push(&new) }
        }
    };
    let env = normal(look.any([Fact::EnvName, Fact::Env]));
    let version = normal(look.text(Fact::ServiceVersion));
    (prepared.env, prepared.version) = (env, version);

    let container = attrs
        .full("container.id")
        .or_else(|| attrs.full("k8s.pod.uid").filter(|_| !options.container_tags_v2))
        .unwrap_or_default();
    let tags = payload::container_tags(&attrs, options.container_tags_v2);
    let range = if tags.is_empty() {
        Range32::default()
    } else {
        let tag = Attr {
            key: out.arena.push_static(model_keys::CONTAINER_TAGS),
            value: Value::Str(out.arena.push(&tags)),
        };
        out.extend_range(Range32::default(), tag)
    };
    let hostname = payload::hostname(&attrs).unwrap_or(Cow::Borrowed(agent_hostname));
    let sdk_version = attrs.full("telemetry.sdk.version").unwrap_or_default();
    let language = attrs.full("telemetry.sdk.language").unwrap_or_default();
    let resource = Resource {
        container_id: out.arena.push(container),
        language_name: out.arena.push(language),
        tracer_version: out.arena.push(&format!("otlp-{sdk_version}")),
        env,
        hostname: out.arena.push(&hostname),
        attrs: range,
        ..Resource::default()
    };
    (prepared, resource)
}
