//! Precedence and what is written, as recorded from the reference
//! (`fixtures/golden-agent/own/sampling-*.json` and neighbours).

use crate::make::{NOW, SECOND, metric, with_priority};
use serde_json::json;
use spanloom_model::{Attr, Batch, Leaves, PRIORITY_NONE, Protocol, TraceId, Value, flags};
use spanloom_sampler::{EventSettings, Probabilistic, Samplers, Settings, by};
use std::collections::HashMap;

fn samplers() -> Samplers {
    Samplers::new(&Settings::default())
}

fn one(priority: i32, error: i32) -> Batch {
    with_priority(&[json!({"service": "web", "name": "op", "resource": "/", "error": error})], priority)
}

fn chunk_tag<'a>(b: &'a Batch, key: &str) -> Option<&'a str> {
    b.get_str(b.chunks[0].attrs, key)
}

fn remaining(b: &mut Batch) -> Vec<u64> {
    Samplers::trim(b, 0);
    b.chunk_spans(&b.chunks[0]).iter().map(|s| s.span_id.0).collect()
}

#[test]
fn priorities_are_obeyed_and_errors_saved_as_recorded() {
    // priority, error → keep, rule, tag on the root
    let cases = [
        (-2, 0, false, by::MANUAL_DROP, None),
        (-1, 1, false, by::MANUAL_DROP, None),
        (0, 0, false, by::AUTO_DROP, None),
        (0, 1, true, by::ERRORS, Some("_dd.errors_sr")),
        (1, 0, true, by::AUTO_KEEP, Some("_sampling_priority_rate_v1")),
        (2, 0, true, by::MANUAL_KEEP, None),
        (3, 0, false, by::UNKNOWN_PRIORITY, None),
        (3, 1, true, by::ERRORS, Some("_dd.errors_sr")),
        (PRIORITY_NONE, 0, true, by::NO_PRIORITY, Some("_dd.no_p_sr")),
        (PRIORITY_NONE, 1, true, by::NO_PRIORITY, Some("_dd.no_p_sr")),
    ];
    for (priority, error, keep, rule, tag) in cases {
        let mut b = one(priority, error);
        let d = samplers().decide(&mut b, 0, NOW);
        assert_eq!((d.keep, d.by, d.at), (keep, rule, NOW), "{priority} {error}");
        assert_eq!(b.spans[0].attrs.len(), usize::from(tag.is_some()), "{priority} {error}");
        if let Some(tag) = tag {
            assert_eq!(metric(&b, 0, tag), Some(1.0));
        }
        let chunk = &b.chunks[0];
        assert_eq!((chunk.dropped, chunk.priority), (!keep, priority));
        assert_eq!((chunk.sampled.keep, chunk.sampled.by, chunk.sampled.at), (keep, rule, NOW));
        assert_eq!(chunk.sampled.leaves, if keep { Leaves::Whole } else { Leaves::Nothing });
    }
}

#[test]
fn a_rate_that_somebody_wrote_is_not_overwritten() {
    for key in ["_dd.agent_psr", "_dd.rule_psr", "_sampling_priority_rate_v1"] {
        let mut b = with_priority(&[json!({"metrics": {key: 0.3}})], 1);
        let d = samplers().decide(&mut b, 0, NOW);
        assert_eq!((d.keep, d.rate, b.spans[0].attrs.len()), (true, 0.3, 1), "{key}");
    }
    let mut b = with_priority(&[json!({"parent_id": 77})], 1);
    samplers().decide(&mut b, 0, NOW);
    assert!(b.spans[0].attrs.is_empty(), "the local root of a remote trace carries no rate");
}

#[test]
fn a_target_of_zero_for_errors_switches_them_off() {
    let mut s = Samplers::new(&Settings { errors_tps: 0.0, ..Settings::default() });
    assert!(!s.decide(&mut one(0, 1), 0, NOW).keep);
}

#[test]
fn the_rare_sampler_keeps_the_first_of_its_kind_then_rests() {
    let mut s = Samplers::new(&Settings { rare: true, ..Settings::default() });
    let trace = |service: &str, priority| {
        with_priority(&[json!({"service": service, "metrics": {"_top_level": 1}})], priority)
    };
    let mut b = trace("a", 0);
    let d = s.decide(&mut b, 0, NOW);
    assert_eq!((d.keep, d.by, metric(&b, 0, "_dd.rare")), (true, by::RARE, Some(1.0)));
    let mut b = trace("a", 0);
    assert_eq!(s.decide(&mut b, 0, NOW + SECOND).by, by::AUTO_DROP);
    assert_eq!(s.decide(&mut trace("a", 0), 0, NOW + 300 * SECOND).by, by::AUTO_DROP);
    assert_eq!(s.decide(&mut trace("a", 0), 0, NOW + 300 * SECOND + 1).by, by::RARE);
    // Evaluated first even where the priority then drops.
    assert_eq!(s.decide(&mut trace("b", -1), 0, NOW).by, by::MANUAL_DROP);
    assert_eq!(s.decide(&mut trace("b", 0), 0, NOW).by, by::AUTO_DROP);
    assert_eq!(s.rare_counts(), (3, 0, 0));
    s.set_targets(10.0, 10.0, false);
    assert_eq!(s.decide(&mut trace("c", 0), 0, NOW).by, by::AUTO_DROP);
}

#[test]
fn the_probabilistic_sampler_ignores_priorities_and_sets_its_own() {
    let settings = |percentage| Settings {
        probabilistic: Some(Probabilistic::new(percentage, 22, false)),
        ..Settings::default()
    };
    let mut b = one(-1, 0);
    let d = Samplers::new(&settings(100.0)).decide(&mut b, 0, NOW);
    assert_eq!((d.keep, d.by, d.rate), (true, by::PROBABILISTIC, 1.0));
    assert_eq!((metric(&b, 0, "_dd.prob_sr"), chunk_tag(&b, "_dd.p.dm")), (Some(1.0), Some("-9")));
    assert_eq!(b.chunks[0].priority, 1);
    let mut b = one(2, 0);
    assert!(!Samplers::new(&settings(0.0)).decide(&mut b, 0, NOW).keep);
    assert_eq!(b.chunks[0].priority, 0);
    let mut b = one(0, 1);
    let d = Samplers::new(&settings(0.0)).decide(&mut b, 0, NOW);
    assert_eq!((d.keep, d.by, b.chunks[0].priority, chunk_tag(&b, "_dd.p.dm")), (true, by::ERRORS, 1, None));
}

#[test]
fn error_tracking_keeps_errors_only_and_sends_the_rest_marked_as_dropped() {
    let mut s = Samplers::new(&Settings { error_tracking_standalone: true, ..Settings::default() });
    let mut b = one(2, 0);
    let d = s.decide(&mut b, 0, NOW);
    assert_eq!(
        (d.keep, d.by, d.leaves, b.chunks[0].dropped),
        (false, by::ERROR_TRACKING, Leaves::Whole, true)
    );
    let mut b = one(-1, 1);
    let d = s.decide(&mut b, 0, NOW);
    assert_eq!((d.keep, d.by, b.chunks[0].dropped, b.chunks[0].priority), (true, by::ERRORS, false, -1));
    assert_eq!(chunk_tag(&b, "_dd.error_tracking_standalone.error"), Some("true"));
    let mut b = with_priority(&[json!({"meta": {"_dd.span_events.has_exception": "true"}})], 0);
    assert!(s.decide(&mut b, 0, NOW).keep);
}

#[test]
fn single_spans_leave_with_priority_two_and_the_others_stay_for_the_store() {
    let spans = [
        json!({"span_id": 1}),
        json!({"span_id": 2, "parent_id": 1, "metrics": {"_dd.span_sampling.mechanism": 8}}),
        json!({"span_id": 3, "parent_id": 1}),
        json!({"span_id": 4, "parent_id": 1, "metrics": {"_dd.span_sampling.mechanism": 0}}),
    ];
    for priority in [0, -1] {
        let mut b = with_priority(&spans, priority);
        let d = samplers().decide(&mut b, 0, NOW);
        assert_eq!((d.keep, d.by, d.leaves), (false, by::SINGLE_SPAN, Leaves::Marked));
        assert_eq!((b.chunks[0].priority, b.chunks[0].dropped, b.chunks[0].spans.len()), (2, false, 4));
        assert_eq!(b.spans.iter().filter(|s| s.flags & flags::LEAVES != 0).count(), 2);
        assert_eq!(remaining(&mut b), [2, 4]);
    }
    let mut b = with_priority(&spans, 1);
    assert!(samplers().decide(&mut b, 0, NOW).keep);
    assert_eq!(remaining(&mut b), [1, 2, 3, 4]);
}

#[test]
fn analysed_events_leave_from_dropped_traces_unless_the_user_dropped_them() {
    let spans = [
        json!({"span_id": 1, "metrics": {"_dd1.sr.eausr": 1, "_dd1.sr.rapre": 0.5}}),
        json!({"span_id": 2, "parent_id": 1}),
    ];
    let mut b = with_priority(&spans, 0);
    let d = samplers().decide(&mut b, 0, NOW);
    assert_eq!((d.keep, d.by, d.events, b.chunks[0].dropped), (false, by::EVENTS, 1, true));
    assert_eq!(metric(&b, 0, "_dd.analyzed"), Some(1.0));
    assert_eq!(metric(&b, 0, "_dd1.sr.rapre"), Some(0.5));
    assert_eq!(metric(&b, 0, "_dd1.sr.eausr"), None, "a rate of 1 is expressed by absence");
    assert_eq!(remaining(&mut b), [1]);

    let mut b = with_priority(&spans, -1);
    assert_eq!(samplers().decide(&mut b, 0, NOW).leaves, Leaves::Nothing);
    assert_eq!(remaining(&mut b), [] as [u64; 0]);

    let mut b = with_priority(&spans, 2);
    let d = samplers().decide(&mut b, 0, NOW);
    assert_eq!((d.keep, d.events, d.leaves), (true, 1, Leaves::Whole));
}

#[test]
fn configured_rates_extract_events_by_name_and_by_service() {
    let rate = |key: &str, rate| HashMap::from([(key.to_owned(), rate)]);
    let decide = |events: EventSettings, top_level: i32, priority| {
        let span = json!({"service": "Web", "name": "Op", "metrics": {"_top_level": top_level}});
        let mut b = with_priority(&[span], priority);
        Samplers::new(&Settings { events, ..Settings::default() }).decide(&mut b, 0, NOW).events
    };
    let by_name = |r| EventSettings { analyzed_spans: rate("web|op", r), ..EventSettings::default() };
    let by_service = |r| EventSettings { rate_by_service: rate("wEb", r), ..EventSettings::default() };
    assert_eq!([decide(by_name(1.0), 0, 0), decide(by_name(0.0), 0, 2)], [1, 0]);
    assert_eq!([decide(by_name(1e-9), 0, 0), decide(by_name(1e-9), 0, 2)], [0, 1]);
    assert_eq!([decide(by_service(1.0), 1, 0), decide(by_service(1.0), 0, 0)], [1, 0]);
}

#[test]
fn events_are_held_to_their_maximum_per_second() {
    let mut s = Samplers::new(&Settings::default());
    let mut events = 0;
    // The counter decays by an eighth every 5 s: it takes minutes to settle.
    let per_second = 500;
    for i in 0..per_second * 360u64 {
        let id = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut b = with_priority(&[json!({"trace_id": id, "metrics": {"_dd1.sr.eausr": 1}})], 0);
        let d = s.decide(&mut b, 0, NOW + (i * 1_000_000_000 / per_second) as i64);
        events += u64::from(i >= per_second * 300) * u64::from(d.events);
    }
    let rate = events as f64 / 60.0;
    assert!((160.0..=200.0).contains(&rate), "{rate} events per second");
}

#[test]
fn with_the_feature_only_a_manual_drop_is_final() {
    let mut s = Samplers::new(&Settings { error_rare_sample_tracer_drop: true, ..Settings::default() });
    let mut b = one(-1, 1);
    assert_eq!(s.decide(&mut b, 0, NOW).by, by::ERRORS);
    let mut b = one(-1, 1);
    let key = b.arena.push("_dd.p.dm");
    let value = Value::Str(b.arena.push("-4"));
    b.chunks[0].attrs = b.extend_range(b.chunks[0].attrs, Attr { key, value });
    assert_eq!(s.decide(&mut b, 0, NOW).by, by::MANUAL_DROP);
}

#[test]
fn nothing_is_not_kept_and_does_not_panic() {
    let mut b = Batch::default();
    assert!(!samplers().decide(&mut b, 3, NOW).keep);
    let mut b = with_priority(&[], 1);
    assert!(!samplers().decide(&mut b, 0, NOW).keep);
    Samplers::trim(&mut b, 9);
}

#[test]
fn a_priority_beyond_a_byte_counts_by_its_lowest() {
    let kept = |priority| samplers().decide(&mut one(priority, 0), 0, NOW).keep;
    for (priority, keep) in [(257, true), (258, true), (256, false), (-255, true), (128, false), (3, false)] {
        assert_eq!(kept(priority), keep, "{priority}");
    }
}

#[test]
fn of_v1_the_probabilistic_sampler_takes_the_high_half_and_errors_have_the_last_word() {
    let settings =
        Settings { probabilistic: Some(Probabilistic::new(50.0, 22, false)), ..Settings::default() };
    let decide = |high: u64, low: u64, error: i32| {
        let mut b = one(1, error);
        b.intake.protocol = Protocol::DatadogV1;
        let id = TraceId::from_halves(high, low);
        (b.chunks[0].trace_id, b.spans[0].trace_id) = (id, id);
        let decision = Samplers::new(&settings).decide(&mut b, 0, NOW);
        (decision.keep, decision.by, b.chunks[0].sampling_mechanism, chunk_tag(&b, "_dd.p.dm").is_some())
    };
    let by_high: Vec<bool> = (1..40).map(|high| decide(high, 7, 0).0).collect();
    assert!(by_high.contains(&true) && by_high.contains(&false));
    assert!((1..40).all(|low| decide(5, low, 0).0 == by_high[4]));
    let high = by_high.iter().position(|keep| *keep).unwrap() as u64 + 1;
    assert_eq!(decide(high, 7, 0), (true, by::PROBABILISTIC, 9, false));
    assert_eq!(decide(high, 7, 1), (true, by::ERRORS, 9, false));
}

#[test]
fn with_tail_rules_only_the_users_own_decisions_hold() {
    let mut s = Samplers::new(&Settings {
        tail_rules: true,
        rare: true,
        probabilistic: Some(Probabilistic::new(0.0, 0, false)),
        ..Settings::default()
    });
    for (priority, keep, rule) in [
        (-1, false, by::MANUAL_DROP),
        (0, true, by::TAIL_RULES),
        (1, true, by::TAIL_RULES),
        (2, true, by::MANUAL_KEEP),
        (PRIORITY_NONE, true, by::TAIL_RULES),
    ] {
        // Far more than any target lets through.
        for i in 0..100 {
            let mut b = one(priority, 0);
            let d = s.decide(&mut b, 0, i);
            assert_eq!((d.keep, d.by), (keep, rule), "priority {priority}");
            assert_eq!(b.chunks[0].priority, priority);
        }
    }
    assert!(s.rates().is_empty(), "no rates for tracers");
}
