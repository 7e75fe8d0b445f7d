//! Spans that came as OTLP, Zipkin or Jaeger, on their way to Datadog and to
//! the statistics: translated, while the store keeps them as they came.

use spanloom_codec::datadog::from_otlp::{OtlpOptions, Translation, to_datadog};
use spanloom_model::{AckFn, Attr, Batch, Fate, Leaves, Range32, Sampled, Value, flags, keys};
use spanloom_pipeline::{Effects, Exporter};
use spanloom_receivers::datadog::ContainerResolver;
use std::sync::Arc;

/// How such spans become Datadog's.
#[derive(Clone)]
pub struct Foreign {
    options: Arc<OtlpOptions>,
    hostname: Arc<str>,
    containers: Arc<dyn ContainerResolver>,
}

impl Foreign {
    /// `hostname`: of resources that name none.
    pub fn new(options: OtlpOptions, hostname: &str, containers: Arc<dyn ContainerResolver>) -> Self {
        Self { options: Arc::new(options), hostname: hostname.into(), containers }
    }

    /// The translation of a batch.
    pub fn translate(&self, batch: &Batch) -> Translation {
        let mut translation = to_datadog(batch, &self.options, &self.hostname);
        if !self.options.container_tags_v2 {
            self.add_container_tags(&mut translation.batch);
        }
        translation
    }

    /// What is known of a container follows what its resource says.
    fn add_container_tags(&self, batch: &mut Batch) {
        for r in 0..batch.resources.len() {
            let resource = batch.resources[r];
            if resource.container_id.is_empty() {
                continue;
            }
            let Some(known) = self.containers.tags(batch.str(resource.container_id)) else { continue };
            let own = batch.get_str(resource.attrs, keys::CONTAINER_TAGS).filter(|t| !t.is_empty());
            let all: Vec<&str> = own.into_iter().chain(known.iter().map(String::as_str)).collect();
            let value = Value::Str(batch.arena.push(&all.join(",")));
            let key = batch.arena.push_static(keys::CONTAINER_TAGS);
            // A translated resource has no other attributes.
            batch.resources[r].attrs = batch.extend_range(Range32::default(), Attr { key, value });
        }
    }
}

/// Tells the batch what was decided about its translation, and attaches what
/// leaves. Where nothing is sent (`sends`), only what was cut is counted.
pub fn hand_over(translation: Translation, batch: &mut Batch, sends: bool, fx: &mut Effects) {
    if translation.cut > 0 {
        fx.note("attributes_cut", "resource_too_large", translation.cut);
    }
    if !sends {
        return;
    }
    let Translation { batch: translated, order, .. } = translation;
    for (chunk, parts) in translated.chunks.iter().zip(&order) {
        let sampled = match chunk.fate {
            Fate::Kept => chunk.sampled,
            // The store keeps it all the same.
            Fate::Filtered(reason) | Fate::Rejected(reason) => {
                fx.note("spans_not_for_datadog", reason, chunk.spans.len() as u64);
                Sampled { leaves: Leaves::Nothing, by: reason, ..Sampled::default() }
            }
        };
        let mut spans = translated.chunk_spans(chunk).iter();
        for part in parts {
            let Some(own) = batch.chunks.get_mut(*part as usize) else { continue };
            own.sampled = sampled;
            if sampled.leaves == Leaves::Marked {
                let own = batch.spans.get_mut(own.spans.usize()).unwrap_or_default();
                for (own, made) in own.iter_mut().zip(&mut spans) {
                    own.flags |= made.flags & flags::LEAVES;
                }
            }
        }
    }
    let leaves = |c: &spanloom_model::Chunk| c.fate == Fate::Kept && c.sampled.leaves != Leaves::Nothing;
    if translated.chunks.iter().any(leaves) {
        batch.for_datadog = Some(Arc::new(translated));
    }
}

/// An exporter that is given the translation where there is one.
pub struct Translated<E>(pub Arc<E>);

impl<E: Exporter> Exporter for Translated<E> {
    fn export(&self, batch: Arc<Batch>, done: AckFn) {
        self.export_all(vec![(batch, done)]);
    }

    fn export_all(&self, mut batches: Vec<(Arc<Batch>, AckFn)>) {
        for (batch, _) in &mut batches {
            if let Some(translated) = batch.for_datadog.clone() {
                *batch = translated;
            }
        }
        self.0.export_all(batches);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{chain, convert};
    use super::*;
    use crate::settings::Settings;
    use serde_json::{Value as Json, json};
    use spanloom_codec::datadog::agent_payload::encode_tracer_payload;
    use spanloom_codec::otlp;
    use spanloom_codec::protobuf::{Field, Reader};
    use spanloom_model::Intake;
    use spanloom_obfuscator::Obfuscator;
    use spanloom_pipeline::Rates;
    use spanloom_receivers::datadog::External;
    use spanloom_sampler::Samplers;
    use spanloom_stats::Concentrator;
    use std::collections::BTreeMap;
    use std::sync::Mutex;

    const NOW: i64 = 1_700_000_000_000_000_000;

    struct OneContainer;

    impl ContainerResolver for OneContainer {
        fn by_pid(&self, _: i32) -> Option<String> {
            None
        }
        fn by_inode(&self, _: u64) -> Option<String> {
            None
        }
        fn by_external(&self, _: &External) -> Option<String> {
            None
        }
        fn tags(&self, container: &str) -> Option<Vec<String>> {
            (container == "known").then(|| vec!["a:1".into(), "b:2".into()])
        }
    }

    struct Run {
        batch: Batch,
        notes: Vec<(&'static str, &'static str, u64)>,
        stats: Vec<(String, String, String, u64)>,
    }

    /// One request through the chain as the program runs it.
    fn run(settings: &Settings, document: &Json, sends: bool) -> Run {
        let concentrator =
            Arc::new(Mutex::new(Concentrator::new(convert::stats(settings, "agent-host", 7), NOW)));
        let samplers = Arc::new(Mutex::new(Samplers::new(&convert::samplers(settings, 7))));
        let shared = chain::Shared {
            agent: convert::agent(settings).unwrap().0,
            obfuscator: Arc::new(Obfuscator::new(convert::obfuscator(settings))),
            statement_tags: true,
            concentrator: Arc::clone(&concentrator),
            log: None,
            routed: Arc::new(Mutex::new(Concentrator::new(convert::stats(settings, "agent-host", 7), NOW))),
            router: None,
            samplers: sends.then_some(samplers),
            feedback: Arc::new(chain::Feedback::new(Rates::default())),
            install: None,
            foreign: Foreign::new(convert::otlp(settings), "agent-host", Arc::new(OneContainer)),
        };
        let intake = Intake { protocol: spanloom_model::Protocol::OtlpJson, ..Intake::default() };
        let mut batch =
            otlp::decode_json(serde_json::to_vec(document).unwrap().into(), intake).unwrap().batch;
        batch.intake.protocol = spanloom_model::Protocol::OtlpJson;
        let mut fx = Effects::default();
        for mut processor in chain::factory(shared)(0) {
            processor.process(&mut batch, NOW, &mut fx);
        }
        let payload = chain::lock(&concentrator).flush(NOW, true, &mut || 0.5);
        let mut stats = Vec::new();
        for source in &payload.stats {
            for group in source.stats.iter().flat_map(|b| &b.stats) {
                stats.push((
                    group.service.to_string(),
                    group.name.to_string(),
                    group.resource.to_string(),
                    group.hits,
                ));
            }
        }
        stats.sort();
        Run { batch, notes: fx.notes().to_vec(), stats }
    }

    fn attribute(key: &str, value: &str) -> Json {
        json!({"key": key, "value": {"stringValue": value}})
    }

    fn document(extra: &[Json]) -> Json {
        let (trace, parent) = ("5b8efff798038103d269b633813fc60c", "eee19b7ec3c1b174");
        let [start, end] = [NOW - 1_000_000, NOW].map(|t| t.to_string());
        let mut resource = vec![
            attribute("service.name", "shop"),
            attribute("deployment.environment.name", "prod"),
            attribute("host.name", "web-1"),
        ];
        resource.extend_from_slice(extra);
        json!({"resourceSpans": [{
            "resource": {"attributes": resource},
            "scopeSpans": [{"spans": [
                {"traceId": trace, "spanId": parent, "name": "GET /a", "kind": 2,
                 "startTimeUnixNano": start, "endTimeUnixNano": end,
                 "attributes": [attribute("http.request.method", "GET"), attribute("http.route", "/a")]},
                {"traceId": trace, "spanId": "00000000000000aa", "parentSpanId": parent, "name": "select", "kind": 3,
                 "startTimeUnixNano": start, "endTimeUnixNano": end,
                 "attributes": [attribute("db.system", "mysql"),
                    attribute("db.statement", "SELECT * FROM t WHERE secret = 'x7'")]},
            ]}],
        }]})
    }

    /// Fields of a message by number; maps of texts are read by `map`.
    fn fields(bytes: &[u8]) -> BTreeMap<u32, Vec<Vec<u8>>> {
        let mut out: BTreeMap<u32, Vec<Vec<u8>>> = BTreeMap::new();
        let mut reader = Reader::new(bytes);
        while let Some((number, field)) = reader.next_field().unwrap() {
            let value = match field {
                Field::Len(at) => reader.bytes(at).to_vec(),
                Field::Varint(n) | Field::Fixed64(n) => n.to_le_bytes().to_vec(),
                Field::Fixed32(n) => n.to_le_bytes().to_vec(),
            };
            out.entry(number).or_default().push(value);
        }
        out
    }

    fn map(entries: &[Vec<u8>]) -> BTreeMap<String, String> {
        let text = |f: &BTreeMap<u32, Vec<Vec<u8>>>, n| {
            String::from_utf8_lossy(f.get(&n).map_or(&[][..], |v| &v[0])).into_owned()
        };
        entries.iter().map(|e| fields(e)).map(|f| (text(&f, 1), text(&f, 2))).collect()
    }

    #[test]
    fn an_otlp_request_leaves_as_the_agents_payload_and_is_stored_as_it_came() {
        let run = run(&Settings::default(), &document(&[]), true);
        let sent = run.batch.for_datadog.as_ref().expect("a translation");
        let mut out = Vec::new();
        assert_eq!(encode_tracer_payload(sent, 0, &mut out), (1, 2));
        let payload = fields(&fields(&out)[&5][0]);
        let text = |n: u32| String::from_utf8_lossy(&payload[&n][0]).into_owned();
        assert_eq!([text(4), text(8), text(9)], ["otlp-", "prod", "web-1"]);
        let chunk = fields(&payload[&6][0]);
        assert_eq!(chunk[&1][0][0], 1, "kept by rate");
        let tags = map(&chunk[&4]);
        assert_eq!((tags["_dd.otlp_sr"].as_str(), tags["_dd.p.dm"].as_str()), ("1.00", "-9"));
        let spans: Vec<_> = chunk[&3].iter().map(|s| fields(s)).collect();
        let names: Vec<[String; 4]> = spans
            .iter()
            .map(|s| [1, 2, 3, 12].map(|n| String::from_utf8_lossy(&s[&n][0]).into_owned()))
            .collect();
        assert_eq!(
            names,
            [
                ["shop", "http.server.request", "GET /a", "web"],
                ["shop", "mysql.query", "SELECT * FROM t WHERE secret = ?", "sql"],
            ]
        );
        let meta = map(&spans[1][&10]);
        assert_eq!(meta["otel.trace_id"], "5b8efff798038103d269b633813fc60c");
        assert!(meta.values().all(|v| !v.contains("x7")), "{meta:?}");

        // The store has the client's words.
        let own = &run.batch;
        assert_eq!(own.str(own.spans[1].name), "select");
        assert_eq!(
            own.get_str(own.spans[1].attrs, "db.statement"),
            Some("SELECT * FROM t WHERE secret = 'x7'")
        );
        assert_eq!(own.chunks[0].sampled, sent.chunks[0].sampled);
        assert_eq!(own.chunks[0].fate, Fate::Kept);
    }

    #[test]
    fn foreign_spans_are_counted_with_and_without_an_exporter() {
        for sends in [true, false] {
            let run = run(&Settings::default(), &document(&[]), sends);
            let group = |name: &str, resource: &str| ("shop".into(), name.into(), resource.into(), 1);
            assert_eq!(
                run.stats,
                [
                    group("http.server.request", "GET /a"),
                    group("mysql.query", "SELECT * FROM t WHERE secret = ?")
                ]
            );
            assert_eq!(run.batch.for_datadog.is_some(), sends);
        }
        let computed = document(&[attribute("_dd.stats_computed", "true")]);
        assert_eq!(run(&Settings::default(), &computed, true).stats, []);
    }

    #[test]
    fn what_the_agent_filters_is_stored_and_not_sent() {
        let mut settings = Settings::default();
        settings.ignore_resources.0 = vec!["GET /a".into()];
        let run = run(&settings, &document(&[]), true);
        assert!(run.batch.for_datadog.is_none());
        let chunk = run.batch.chunks[0];
        assert_eq!((chunk.fate, chunk.sampled.leaves), (Fate::Kept, Leaves::Nothing));
        assert_eq!(chunk.sampled.by, "ignore_resources");
        assert_eq!(run.notes, [("spans_not_for_datadog", "ignore_resources", 2)]);
    }

    #[test]
    fn tags_known_of_a_container_follow_those_of_its_resource() {
        for (id, want) in [("known", "container_id:known,a:1,b:2"), ("other", "container_id:other")] {
            let run = run(&Settings::default(), &document(&[attribute("container.id", id)]), true);
            let sent = run.batch.for_datadog.unwrap();
            assert_eq!(sent.get_str(sent.resources[0].attrs, keys::CONTAINER_TAGS), Some(want));
        }
    }

    #[test]
    fn settings_choose_the_names_and_the_rate() {
        let mut settings = Settings::default();
        settings.otlp_span_name_remappings.0 = json!({"opentelemetry.server": "mine"});
        settings.otlp_sampling_percentage = 0.000_001;
        let run = run(&settings, &document(&[]), true);
        assert_eq!(run.stats[0].1, "mine");
        assert!(run.batch.for_datadog.is_none(), "sampled away, but counted");
        assert_eq!(run.batch.chunks[0].sampled.by, "auto_drop");
    }
}
