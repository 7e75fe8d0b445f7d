use crate::make::{NOW, SECOND, batch, with_priority};
use serde_json::json;
use spanloom_model::TraceId;
use spanloom_sampler::{CoreSampler, PrioritySampler, RareSampler, ScoreSampler, signature};
use std::sync::Arc;

fn count(s: &mut PrioritySampler, service: &str, n: f64, at: i64) {
    let mut b = with_priority(&[json!({"service": service})], 0);
    s.sample(&mut b, 0, 0, "", n - 1.0, NOW + at * SECOND);
}

#[test]
fn rates_are_published_when_a_bucket_opens_and_only_if_they_change() {
    let mut s = PrioritySampler::new(10.0, 1.0, "prod", 100, 0);
    assert!(s.rates().is_empty());
    count(&mut s, "a", 1.0, 0);
    let first = s.rates().clone();
    assert_eq!(*first, [("service:,env:".to_owned(), 1.0)].into());
    count(&mut s, "a", 99.0, 1);
    assert!(Arc::ptr_eq(s.rates(), &first), "no new bucket, nothing new");
    count(&mut s, "a", 1.0, 5);
    let second = s.rates().clone();
    assert_eq!([second["service:a,env:prod"], second["service:a,env:"], second["service:,env:"]], [0.5; 3]);
    for at in (10..40).step_by(5) {
        count(&mut s, "a", 100.0, at);
    }
    assert!(Arc::ptr_eq(s.rates(), &second), "the same rates are not published again");
}

#[test]
fn user_decisions_and_unknown_priorities_are_not_counted() {
    let mut s = PrioritySampler::new(10.0, 1.0, "", 100, 0);
    for (priority, keep) in [(2, true), (3, false), (-1, false)] {
        let mut b = with_priority(&[json!({})], priority);
        assert_eq!(s.sample(&mut b, 0, priority, "", 0.0, NOW), (keep, 0.0));
    }
    assert!(s.core().is_empty());
}

#[test]
fn services_without_end_use_bounded_memory() {
    let mut s = PrioritySampler::new(10.0, 1.0, "", 100, 0);
    for i in 0..60_000 {
        count(&mut s, &format!("s{i}"), 1.0, 0);
    }
    assert!(s.core().len() <= 25_000, "{}", s.core().len());
    count(&mut s, "last", 1.0, 5);
    assert!(s.rates().len() <= 201);
}

#[test]
fn a_changed_target_scales_rates_at_once() {
    let mut core = CoreSampler::new(10.0, 1.0, 0);
    core.count(NOW, 1, 500.0);
    core.count(NOW + 5 * SECOND, 1, 0.0);
    assert_eq!(core.rate(1), 0.1);
    core.set_target(20.0);
    assert_eq!(core.rate(1), 0.2);
    core.set_target(2000.0);
    assert_eq!(core.rate(1), 1.0);
    core.set_target(0.0);
    core.set_target(5.0);
    assert_eq!(core.rate(1), 0.0, "from zero there is nothing to scale");
}

#[test]
fn quiet_signatures_are_forgotten_and_the_clock_may_go_back() {
    let mut core = CoreSampler::new(10.0, 1.0, 0);
    core.count(NOW, 1, 10.0);
    core.count(NOW - 100 * SECOND, 2, 10.0);
    for at in 1..12 {
        core.count(NOW + at * 5 * SECOND, 3, 1.0);
    }
    assert_eq!(core.len(), 1);
    core.count(i64::MIN, 4, 1.0);
    core.count(i64::MAX, 4, 1.0);
}

#[test]
fn signatures_beyond_a_hundred_share_places() {
    let mut s = ScoreSampler::errors(10.0, 1.0, 0);
    for i in 0..1000 {
        let mut b = batch(&[json!({"service": format!("s{i}"), "name": "op", "error": 1})]);
        let chunk = b.chunks[0];
        s.sample(&mut b, &chunk, 0, "", NOW + i * SECOND / 100);
    }
    assert!((100..=210).contains(&s.core().len()), "{}", s.core().len());
}

#[test]
fn a_shard_of_rare_spans_shrinks_and_tokens_limit_it() {
    let mut s = RareSampler::with_limits(1e6, 1e6, 300 * SECOND, 10, 0);
    let trace = |s: &mut RareSampler, i: i64, at| {
        let span = json!({"service": "s", "resource": format!("r{i}"), "metrics": {"_dd.measured": 1}});
        let mut b = batch(&[span]);
        let chunk = b.chunks[0];
        s.sample(&mut b, &chunk, "", at)
    };
    let kept = (0..100).filter(|i| trace(&mut s, *i, NOW + *i)).count();
    assert!((11..=21).contains(&kept), "{kept}");
    assert_eq!(s.counts().2, 1);
    let mut s = RareSampler::with_limits(5.0, 50.0, 300 * SECOND, 200, 0);
    let kept = (0..100).filter(|i| trace(&mut s, *i, NOW)).count();
    assert_eq!((kept, s.counts()), (50, (50, 50, 0)));
    assert!(trace(&mut s, 1000, NOW + SECOND / 5), "a fifth of a second brings one token");
    assert!(!trace(&mut s, 1001, NOW + SECOND / 5));
}

#[test]
fn rates_beyond_their_range_neither_panic_nor_surprise() {
    let id = TraceId(1);
    // What is no number keeps, as it does at the reference.
    for (rate, keep) in [(f64::NAN, true), (-1.0, false), (0.0, false), (f64::INFINITY, true)] {
        assert_eq!(signature::sample_by_rate(id, rate), keep, "{rate}");
    }
}
