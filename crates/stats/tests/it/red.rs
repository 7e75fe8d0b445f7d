use crate::make::{NOW, SECOND, batch, counted, settings};
use serde_json::json;
use spanloom_model::stats::{ClientGroupedStats, ClientStatsBucket, ClientStatsPayload, StatsPayload};
use spanloom_stats::{OVERFLOW, Red, RedFilter, RedSettings, Sketch};

fn figures(minute: i64, service: &str, resource: &str, ok: &[f64], failed: &[f64]) -> StatsPayload {
    let sketch = |values: &[f64]| {
        let mut s = Sketch::default();
        values.iter().for_each(|v| s.add(*v));
        s.to_bytes()
    };
    let group = ClientGroupedStats {
        service: service.into(),
        name: "op".into(),
        resource: resource.into(),
        span_kind: "server".into(),
        hits: (ok.len() + failed.len()) as u64,
        errors: failed.len() as u64,
        ok_summary: sketch(ok),
        error_summary: sketch(failed),
        ..Default::default()
    };
    let start = (NOW + minute * 60 * SECOND) as u64;
    let bucket = ClientStatsBucket { start, stats: vec![group], ..Default::default() };
    StatsPayload {
        stats: vec![ClientStatsPayload { stats: vec![bucket], ..Default::default() }],
        ..Default::default()
    }
}

fn all(from: i64, to: i64) -> RedFilter<'static> {
    let minute = 60 * SECOND;
    RedFilter {
        from: NOW + from * minute,
        to: NOW + to * minute,
        step: minute,
        depth: 4,
        ..RedFilter::default()
    }
}

#[test]
fn figures_add_up_per_minute_and_over_the_names_left_out() {
    let mut red = Red::new(RedSettings::default());
    red.merge(&figures(0, "web", "/a", &[1e6; 9], &[9e6]), NOW);
    red.merge(&figures(0, "web", "/a", &[1e6; 10], &[]), NOW);
    red.merge(&figures(0, "web", "/b", &[5e6], &[]), NOW);
    red.merge(&figures(-1, "web", "/a", &[2e6], &[]), NOW);
    let series = red.query(&all(-5, 1), None);
    assert_eq!(series.len(), 2);
    assert_eq!((series[0].resource.as_str(), series[0].kind.as_str()), ("/a", "server"));
    let p = &series[0].points;
    assert_eq!((p[0].requests, p[1].requests, p[1].errors), (1, 20, 1));
    assert!((p[1].p50 / 1e6 - 1.0).abs() < 0.02 && (p[0].p99 / 2e6 - 1.0).abs() < 0.02, "{p:?}");
    let whole = RedFilter { step: 0, depth: 1, ..all(-5, 1) };
    let series = red.query(&whole, None);
    assert_eq!((series.len(), series[0].points.len(), series[0].points[0].requests), (1, 1, 22));
    let only = RedFilter { resource: Some("/b"), ..all(-5, 1) };
    assert_eq!(red.query(&only, None)[0].points[0].requests, 1);
    assert!(red.query(&all(2, 2), None).is_empty());
}

#[test]
fn what_is_not_flushed_yet_is_part_of_the_answer() {
    let red = Red::new(RedSettings::default());
    let span = |service: &str| json!({"service": service, "metrics": {"_top_level": 1}});
    let counted = counted(settings(), &batch(&[span("w"), span("x")]));
    let services = |live| {
        let found = red.query(&all(-5, 1), Some(&live)).into_iter();
        found.map(|s| (s.service, s.points[0].requests)).collect::<Vec<_>>()
    };
    assert_eq!(services(counted.peek()), [("w".into(), 1), ("x".into(), 1)]);
    assert_eq!(services(counted.peek_of(&["x", "y"])), [("x".into(), 1)]);
    let of_one = RedFilter { services: &["w"], ..all(-5, 1) };
    assert_eq!(red.query(&of_one, Some(&counted.peek())).len(), 1);
}

#[test]
fn old_minutes_go_late_figures_are_counted_as_expired_and_the_future_is_now() {
    let mut red = Red::new(RedSettings { minutes: 2, ..RedSettings::default() });
    red.merge(&figures(0, "a", "/", &[1.0], &[]), NOW);
    red.merge(&figures(90, "future", "/", &[1.0], &[]), NOW);
    red.merge(&figures(1, "b", "/", &[1.0], &[]), NOW + 60 * SECOND);
    assert_eq!(red.query(&all(-1, 3), None).len(), 3);
    red.merge(&figures(2, "c", "/", &[1.0], &[]), NOW + 120 * SECOND);
    red.merge(&figures(0, "late", "/", &[1.0; 3], &[]), NOW + 120 * SECOND);
    let left: Vec<_> = red.query(&all(-1, 3), None).into_iter().map(|s| s.service).collect();
    assert_eq!(left, ["b", "c"]);
    assert_eq!(red.expired(), 3);
}

#[test]
fn memory_and_series_are_bounded_and_requests_are_not_lost() {
    let mut red = Red::new(RedSettings { max_series: 20, ..RedSettings::default() });
    for i in 0..200 {
        red.merge(&figures(0, &format!("s{}", i % 40), &format!("r{i}"), &[1e6], &[]), NOW);
    }
    let series = red.query(&all(0, 1), None);
    assert_eq!(series.iter().map(|s| s.points[0].requests).sum::<u64>(), 200);
    assert!(series.len() <= 23 && series.iter().any(|s| s.resource == OVERFLOW), "{}", series.len());

    let mut red = Red::new(RedSettings { max_bytes: 50_000, ..RedSettings::default() });
    for minute in 0..100 {
        for i in 0..20 {
            let values: Vec<f64> = (1..50).map(|v| f64::from(v) * 1e5).collect();
            red.merge(
                &figures(minute, "s", &format!("r{minute}/{i}"), &values, &[]),
                NOW + minute * 60 * SECOND,
            );
        }
    }
    assert!(red.size() <= 60_000, "{}", red.size());
    assert!(red.evicted_minutes() > 50);
    assert!(!red.query(&all(99, 100), None).is_empty());
}

#[test]
fn windows_slide_over_the_points() {
    let mut red = Red::new(RedSettings::default());
    for minute in 0..6 {
        let hits = vec![1e6 * (minute + 1) as f64; 1 << minute];
        red.merge(&figures(minute, "web", "/", &hits, &[]), NOW + minute * 60 * SECOND);
    }
    let minute = 60 * SECOND;
    let sliding = RedFilter { step: 2 * minute, window: 3 * minute, depth: 1, quantile: 1.0, ..all(-3, 6) };
    let points = red.query(&sliding, None).remove(0).points;
    let seen: Vec<(i64, u64)> =
        points.iter().map(|p| (p.start / minute - NOW / minute, p.requests)).collect();
    // Windows [-3, 0) has none; [-1, 2), [1, 4), [3, 6) overlap.
    assert_eq!(seen, [(-1, 1 + 2), (1, 2 + 4 + 8), (3, 8 + 16 + 32)]);
    assert!((points[2].latency / 6e6 - 1.0).abs() < 0.02, "{points:?}");
}

#[test]
fn kinds_and_entries_are_told_apart() {
    let mut red = Red::new(RedSettings::default());
    for (kind, span_type, top_level) in
        [("SERVER", "", 1), ("client", "", 0), ("", "web", 1), ("", "", 1), ("custom", "", 0)]
    {
        let mut payload = figures(0, "s", "/", &[1e6], &[]);
        let group = &mut payload.stats[0].stats[0].stats[0];
        (group.span_kind, group.span_type, group.top_level_hits) = (kind.into(), span_type.into(), top_level);
        red.merge(&payload, NOW);
    }
    let requests = |kinds: &[&str], entries| {
        let found = red.query(&RedFilter { kinds, entries, depth: 1, ..all(0, 1) }, None);
        found.first().map_or(0, |s| s.points[0].requests)
    };
    assert_eq!(requests(&["server"], false), 2, "in any case, and by the type of the span");
    assert_eq!(requests(&["client", "custom"], false), 2);
    assert_eq!(requests(&[""], false), 1);
    assert_eq!((requests(&[], true), requests(&[], false)), (3, 5));
}

#[test]
fn saved_minutes_are_the_same_in_a_new_process() {
    let mut red = Red::new(RedSettings::default());
    red.merge(&figures(0, "web", "/a", &[1e6; 9], &[9e6, 0.0]), NOW);
    red.merge(&figures(-1, "db", "select", &[3e6], &[]), NOW);
    let first = red.save();
    assert_eq!(first.iter().map(|(m, _)| *m - NOW / (60 * SECOND)).collect::<Vec<_>>(), [-1, 0]);
    assert!(red.save().is_empty(), "nothing has changed");
    red.merge(&figures(0, "web", "/b", &[2e6], &[]), NOW);
    let again = red.save();
    assert_eq!(again.len(), 1);

    let mut new = Red::new(RedSettings { seed: 7, ..RedSettings::default() });
    first.iter().chain(&again).for_each(|(_, record)| new.restore(record, NOW).unwrap());
    assert_eq!(new.query(&all(-5, 1), None), red.query(&all(-5, 1), None));
    assert!(new.save().is_empty());
    assert_eq!(new.oldest(), Some(NOW / (60 * SECOND) - 1));
    // Figures go on from there.
    new.merge(&figures(0, "web", "/a", &[1e6], &[]), NOW);
    red.merge(&figures(0, "web", "/a", &[1e6], &[]), NOW);
    assert_eq!(new.query(&all(-5, 1), None), red.query(&all(-5, 1), None));
    // Too old by then.
    let mut later = Red::new(RedSettings { minutes: 5, ..RedSettings::default() });
    later.restore(&first[0].1, NOW + 10 * 60 * SECOND).unwrap();
    assert!(later.oldest().is_none());
}

#[test]
fn a_damaged_record_is_refused() {
    let mut red = Red::new(RedSettings::default());
    red.merge(&figures(0, "web", "/a", &[1e6; 3], &[]), NOW);
    let (_, record) = red.save().remove(0);
    for end in 0..record.len() {
        assert!(Red::new(RedSettings::default()).restore(&record[..end], NOW).is_err(), "{end}");
    }
    let mut other = record.clone();
    other[0] = 9;
    assert!(Red::new(RedSettings::default()).restore(&other, NOW).is_err());
}
