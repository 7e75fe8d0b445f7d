//! Cuts what is too long for the intake, after scrubbing.
//!
//! Source: `datadog-agent:pkg/trace/agent/truncator.go`.

use crate::names::truncate_utf8;
use spanloom_model::{Attr, Batch, Protocol, Text, Value};

/// Longest resource in bytes.
pub const MAX_RESOURCE: usize = 5000;
/// Longest resource with the feature `big_resource`.
pub const MAX_BIG_RESOURCE: usize = 15_000;
const MAX_KEY: usize = 200;
const MAX_VALUE: usize = 25_000;

/// Cuts the texts of one span.
pub fn truncate_span(batch: &mut Batch, i: usize, max_resource: usize) {
    let resource = batch.spans[i].resource;
    if resource.len() > max_resource {
        let keep = truncate_utf8(batch.str(resource), max_resource).len();
        batch.spans[i].resource = resource.slice(0, keep);
    }
    let typed = batch.intake.protocol == Protocol::DatadogV1;
    let long = |a: &Attr| a.key.len() > MAX_KEY || a.value.as_text().is_some_and(|t| t.len() > MAX_VALUE);
    if !batch.attrs(batch.spans[i].attrs).iter().any(long) {
        return;
    }
    let cut_key = |batch: &mut Batch, a: usize| {
        let key = cut(batch, batch.attrs[a].key, MAX_KEY);
        batch.spans[i].keys.add(batch.arena.bytes(key));
        batch.attrs[a].key = key;
    };
    for a in batch.spans[i].attrs.usize() {
        let Some(attr) = batch.attrs.get(a).copied() else { continue };
        let structured = || is_structured(batch.str(attr.key));
        match attr.value {
            Value::Str(value) if attr.key.len() > MAX_KEY || value.len() > MAX_VALUE => {
                if structured() {
                    continue;
                }
                cut_key(batch, a);
                batch.attrs[a].value = Value::Str(cut(batch, value, MAX_VALUE));
            }
            // v1.0 has no numeric tags: only texts are cut there.
            Value::Double(_) | Value::Int(_) if attr.key.len() > MAX_KEY && !typed => {
                cut_key(batch, a);
            }
            _ => {}
        }
    }
}

/// Tags that hold a document: a cut would destroy it.
fn is_structured(key: &str) -> bool {
    key.starts_with("_dd.") && [".json", ".msgpack", ".protobuf"].iter().any(|suffix| key.ends_with(suffix))
}

fn cut(batch: &mut Batch, text: Text, limit: usize) -> Text {
    if text.len() <= limit {
        return text;
    }
    let shortened = format!("{}...", truncate_utf8(batch.str(text), limit));
    batch.arena.push(&shortened)
}
