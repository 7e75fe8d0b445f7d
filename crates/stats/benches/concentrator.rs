//! Counting spans against walking over their attributes.
//! `cargo bench -p spanloom-stats`

use spanloom_benchkit::Group;
use spanloom_model::{Attr, Batch, Chunk, Range32, Resource, Span, SpanId, Value};
use spanloom_stats::{Concentrator, Settings, Sketch, truncate_duration};

const NOW: i64 = 1_700_000_000_000_000_000;

/// 1,000 spans in traces of ten, 16 attributes each, 40 resources.
fn traces() -> Batch {
    let mut b = Batch::default();
    b.resources.push(Resource::default());
    for trace in 0..100u64 {
        let first = b.spans.len();
        for i in 0..10u64 {
            let start = b.attrs.len();
            let kind = ["server", "client", "internal"][i as usize % 3];
            for (key, value) in [
                ("span.kind", kind),
                ("http.method", "GET"),
                ("http.url", "http://example.test/users/1"),
                ("http.status_code", "200"),
                ("component", "flask"),
                ("language", "python"),
                ("runtime-id", "a1b2c3d4e5f60718293a4b5c6d7e8f90"),
                ("out.host", "db.example.test"),
                ("db.system", "postgresql"),
                ("http.route", "/users/<id>"),
                ("version", "1.2.3"),
                ("_dd.p.dm", "-1"),
            ] {
                let key = b.arena.push(key);
                let value = Value::Str(b.arena.push(value));
                b.attrs.push(Attr { key, value });
            }
            for key in ["_dd.top_level", "_top_level", "process_id", "_dd.agent_psr"] {
                let key = b.arena.push(key);
                b.attrs.push(Attr { key, value: Value::Double(if i % 3 == 2 { 0.0 } else { 1.0 }) });
            }
            let span = Span {
                span_id: SpanId(i + 1),
                parent_id: SpanId(i),
                service: b.arena.push("users"),
                name: b.arena.push("flask.request"),
                resource: b.arena.push(&format!("GET /users/{}", (trace + i) % 40)),
                span_type: b.arena.push("web"),
                start: NOW,
                duration: (1_000_000 + trace * 7919 * i) as i64,
                attrs: Range32::new(start, b.attrs.len()),
                ..Span::default()
            };
            b.spans.push(span);
        }
        b.chunks.push(Chunk { spans: Range32::new(first, b.spans.len()), ..Chunk::default() });
    }
    b
}

fn main() {
    let b = traces();
    let mut c = Concentrator::new(Settings::default(), NOW);
    let mut flushed = Concentrator::new(Settings::default(), NOW);
    for chunk in &b.chunks {
        flushed.add_chunk(&b, chunk, NOW);
    }
    Group::new("concentrator", b.size(), b.spans.len())
        .case("yardstick: bytes of all keys", || {
            let attrs = b.spans.iter().flat_map(|s| b.attrs(s.attrs));
            attrs.map(|a| b.arena.bytes(a.key).iter().map(|c| usize::from(*c)).sum::<usize>()).sum()
        })
        .case("add_batch, keys known", || {
            c.add_batch(&b, NOW);
            c.group_count()
        })
        .case("1,000 values into a sketch", || {
            let mut s = Sketch::default();
            b.spans.iter().for_each(|span| s.add(truncate_duration(span.duration as u64)));
            s.bins().count()
        })
        .case("peek (all groups encoded)", || flushed.peek().stats.len())
        .run();
}
