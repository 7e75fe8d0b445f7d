//! Deciding on traces against walking over their spans.
//! `cargo bench -p spanloom-sampler`

use spanloom_benchkit::Group;
use spanloom_model::{Attr, Batch, Chunk, PRIORITY_NONE, Range32, Resource, Span, SpanId, TraceId, Value};
use spanloom_sampler::{Samplers, Settings};

const NOW: i64 = 1_700_000_000_000_000_000;

/// 100 traces of ten spans with 12 attributes each, in 20 services.
fn traces(priority: i32) -> Batch {
    let mut b = Batch::default();
    b.resources.push(Resource { env: b.arena.push("prod"), ..Resource::default() });
    for trace in 0..100u64 {
        let first = b.spans.len();
        for i in 0..10u64 {
            let start = b.attrs.len();
            for n in 0..12 {
                let key = b.arena.push(&format!("some.attribute.{n}"));
                let value = Value::Str(b.arena.push("value of it"));
                b.attrs.push(Attr { key, value });
            }
            let span = Span {
                trace_id: TraceId(u128::from(trace.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
                span_id: SpanId(i + 1),
                parent_id: SpanId(i),
                service: b.arena.push(&format!("service-{}", trace % 20)),
                name: b.arena.push("flask.request"),
                resource: b.arena.push("GET /users"),
                start: NOW,
                attrs: Range32::new(start, b.attrs.len()),
                ..Span::default()
            };
            b.spans.push(span);
        }
        b.chunks.push(Chunk { spans: Range32::new(first, b.spans.len()), priority, ..Chunk::default() });
    }
    b
}

fn decide_all(s: &mut Samplers, b: &mut Batch) -> usize {
    let chunks = b.chunks.clone();
    let kept = (0..chunks.len()).filter(|i| s.decide(b, *i, NOW).keep).count();
    b.chunks = chunks;
    kept
}

fn main() {
    let (mut auto, mut none, mut dropped) = (traces(1), traces(PRIORITY_NONE), traces(0));
    let walk = traces(1);
    let fresh = || Samplers::new(&Settings::default());
    let (mut a, mut n, mut d) = (fresh(), fresh(), fresh());
    Group::new("samplers", walk.size(), walk.spans.len())
        .case("yardstick: walk over spans and attrs", || {
            walk.spans.iter().map(|s| walk.attrs(s.attrs).iter().map(|a| a.key.len()).sum::<usize>()).sum()
        })
        .case("priority 1", || decide_all(&mut a, &mut auto))
        .case("priority 0", || decide_all(&mut d, &mut dropped))
        .case("no priority (signature of all spans)", || decide_all(&mut n, &mut none))
        .run();
}
