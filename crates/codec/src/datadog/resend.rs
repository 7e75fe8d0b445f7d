//! Batches of later versions, sent on as v0.4, which has no payloads and no
//! chunks with fields of their own: tracers of that time said it on the root.

use spanloom_model::{Attr, Batch, PRIORITY_NONE, Value, keys};

/// Writes on each chunk's root what v0.4 has no other place for: the high half
/// of the trace id, the sampling priority, origin, chunk tags, environment,
/// version and host. What the root says already stays.
pub fn prepare_v04(batch: &mut Batch) {
    for c in 0..batch.chunks.len() {
        let chunk = batch.chunks[c];
        let Some(root) = batch.chunk_root(&chunk) else { continue };
        let high = chunk.trace_id.high();
        if high != 0 && batch.get_str(batch.spans[root].attrs, keys::TRACE_ID_HIGH).is_none() {
            batch.set_str(root, keys::TRACE_ID_HIGH, &format!("{high:016x}"));
        }
        let said = batch.get_f64(batch.spans[root].attrs, keys::SAMPLING_PRIORITY).is_some();
        if chunk.priority != PRIORITY_NONE && !said {
            batch.set_f64(root, keys::SAMPLING_PRIORITY, f64::from(chunk.priority));
        }
        let resource = batch.resources.get(chunk.resource as usize).copied().unwrap_or_default();
        for (key, text) in [
            (keys::ORIGIN, chunk.origin),
            (keys::ENV, resource.env),
            (keys::VERSION, resource.app_version),
            (keys::HOSTNAME, resource.hostname),
        ] {
            if !text.is_empty() && batch.get(batch.spans[root].attrs, key).is_none() {
                let key = batch.arena.push_static(key);
                batch.add_attr(root, Attr { key, value: Value::Str(text) });
            }
        }
        for attr in batch.attrs(chunk.attrs).to_vec() {
            let key = batch.str(attr.key);
            if batch.get(batch.spans[root].attrs, key).is_none() {
                batch.add_attr(root, attr);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::datadog::{Encoding, RequestMeta, decode_traces, encode_v04};
    use spanloom_model::draft::{Draft, batch};
    use spanloom_model::{Intake, Protocol};

    #[test]
    fn v04_says_on_the_root_what_it_has_no_other_place_for() {
        let high = 0x1234_u128 << 64;
        let mut b = batch(&[
            Draft::new(high | 7, 1).service("web").env("prod").hostname("h"),
            Draft::new(high | 7, 2).service("web").env("prod").hostname("h").parent(1),
        ]);
        b.chunks[0].priority = 2;
        b.chunks[0].origin = b.arena.push("synthetics");
        let key = b.arena.push("_dd.p.dm");
        let value = Value::Str(b.arena.push("-4"));
        b.chunks[0].attrs = b.extend_range(b.chunks[0].attrs, Attr { key, value });
        prepare_v04(&mut b);
        let again = b.clone();
        prepare_v04(&mut b);
        assert_eq!(b.spans, again.spans, "once is enough");
        let body = encode_v04(&b).into();
        let intake = Intake::default();
        let back =
            decode_traces(Protocol::DatadogV04, Encoding::Msgpack, body, intake, &RequestMeta::default());
        let back = back.unwrap();
        let chunk = back.chunks[0];
        assert_eq!(chunk.trace_id.0, high | 7);
        assert!(back.spans.iter().all(|s| s.trace_id.0 == high | 7));
        let root = back.spans[0].attrs;
        let texts =
            ["_dd.p.tid", "_dd.origin", "env", "_dd.hostname", "_dd.p.dm"].map(|k| back.get_str(root, k));
        assert_eq!(texts, ["0000000000001234", "synthetics", "prod", "h", "-4"].map(Some));
        assert_eq!(back.get_f64(root, "_sampling_priority_v1"), Some(2.0));
        assert!(back.spans[1].attrs.is_empty());
    }
}
