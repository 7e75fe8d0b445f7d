//! What a worker does to spans between decoding and encoding, step by step:
//! each case does what the one before it does, and more. The yardstick is a
//! copy of the decoded batch, which every case begins with.
//! `cargo bench -p spanloom-processors`
#![allow(clippy::unwrap_used, missing_docs)]

use spanloom_benchkit::Group;
use spanloom_codec::datadog::{Encoding, RequestMeta, decode_traces};
use spanloom_model::{Batch, Intake, Protocol};
use spanloom_obfuscator::{Config, Obfuscator};
use spanloom_processors::{Agent, AgentConfig, Counts, SpanObfuscator};
use spanloom_sampler::Samplers;
use spanloom_stats::{Concentrator, Delta, Settings};
use std::path::Path;
use std::sync::Arc;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const NOW: i64 = 1_790_000_000_000_000_000;

fn body(name: &str, protocol: Protocol) -> Batch {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/bench").join(name);
    let body = std::fs::read(file).unwrap();
    let meta = RequestMeta { lang: "python", ..RequestMeta::default() };
    let mut batch =
        decode_traces(protocol, Encoding::Msgpack, body.into(), Intake::default(), &meta).unwrap();
    for span in &mut batch.spans {
        span.start = NOW;
    }
    batch
}

fn main() {
    for (name, protocol) in [
        ("dd-v04-1000sp-500k.msgpack", Protocol::DatadogV04),
        ("dd-v05-1000sp-500k.msgpack", Protocol::DatadogV05),
        ("dd-v04-10sp-1m.msgpack", Protocol::DatadogV04),
        ("dd-v04-mix3.msgpack", Protocol::DatadogV04),
    ] {
        let b = body(name, protocol);
        let mut plain = Agent::new(AgentConfig::default(), |_: &mut Batch, _| {});
        let scrubbing = || {
            let mut scrub = SpanObfuscator::new(Arc::new(Obfuscator::new(Config::default())), false);
            Agent::new(AgentConfig::default(), move |b: &mut Batch, i| scrub.scrub(b, i))
        };
        let (mut agent, mut counting, mut sampling) = (scrubbing(), scrubbing(), scrubbing());
        let mut counts = Counts::default();
        let mut others = [Counts::default(), Counts::default(), Counts::default()];
        let [counts2, counts3, counts4] = &mut others;
        let mut stats = Concentrator::new(Settings::default(), NOW);
        let mut stats2 = Concentrator::new(Settings::default(), NOW);
        let (mut tally, mut tally2) = (stats.tally(), stats2.tally());
        let mut samplers = Samplers::new(&spanloom_sampler::Settings::default());
        Group::new(name, b.arena.body().len(), b.spans.len())
            .case("yardstick: copy of the batch", || b.clone().spans.len())
            .case("normalise, filter, cut, mark", || {
                let mut b = b.clone();
                plain.process(&mut b, NOW, &mut counts, |_, _| true);
                b.attrs.len()
            })
            .case("… and scrub", || {
                let mut b = b.clone();
                agent.process(&mut b, NOW, counts2, |_, _| true);
                b.attrs.len()
            })
            .case("… and count", || {
                let (mut b, mut delta) = (b.clone(), Delta::default());
                tally.clear();
                counting.process(&mut b, NOW, counts3, |b, c| {
                    tally.add(b, &b.chunks[c]);
                    true
                });
                stats.count_logged(&b, &tally, NOW, &mut delta);
                b.attrs.len()
            })
            .case("… and sample", || {
                let (mut b, mut delta) = (b.clone(), Delta::default());
                tally2.clear();
                sampling.process(&mut b, NOW, counts4, |b, c| {
                    tally2.add(b, &b.chunks[c]);
                    samplers.decide(b, c, NOW).keep
                });
                stats2.count_logged(&b, &tally2, NOW, &mut delta);
                b.attrs.len()
            })
            .run();
    }
}
