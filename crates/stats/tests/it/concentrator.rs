use crate::make::{NOW, SECOND, batch, counted, settings};
use serde_json::json;
use spanloom_model::stats::Trilean;
use spanloom_model::{Attr, Chunk, Protocol, Range32, Resource, SpanKind, Value};
use spanloom_stats::{Concentrator, OVERFLOW, Settings, Sketch};

#[test]
fn figures_are_weighted_by_the_roots_rate_and_sketches_are_not() {
    let b = batch(&[
        json!({"service": "web", "span_id": 1, "metrics": {"_top_level": 1, "_sample_rate": 0.25}}),
        json!({"service": "web", "span_id": 2, "parent_id": 1, "error": 1, "meta": {"span.kind": "client"}}),
        json!({"service": "web", "span_id": 3, "parent_id": 1}),
    ]);
    let payload = counted(settings(), &b).peek();
    let groups = &payload.stats[0].stats[0].stats;
    assert_eq!(groups.len(), 2);
    assert_eq!((groups[0].hits, groups[0].top_level_hits, groups[0].errors), (4, 4, 0));
    assert_eq!((groups[1].hits, groups[1].top_level_hits, groups[1].errors), (4, 0, 4));
    assert_eq!(groups[0].duration, 4_000_000);
    assert_eq!(groups[0].is_trace_root, Trilean::True);
    assert_eq!(Sketch::decode(&groups[0].ok_summary).unwrap().count(), 1.0);
    assert_eq!(Sketch::decode(&groups[1].error_summary).unwrap().count(), 1.0);
    assert_eq!(Sketch::decode(&groups[1].ok_summary).unwrap().count(), 0.0);
}

#[test]
fn fractions_are_rounded_so_that_totals_stay_unbiased() {
    let b = batch(&[json!({"metrics": {"_top_level": 1, "_sample_rate": 0.4}})]);
    let hits = |random: f64| {
        let mut c = counted(settings(), &b);
        c.flush(NOW, true, &mut || random).stats[0].stats[0].stats[0].hits
    };
    assert_eq!((hits(0.49), hits(0.51)), (3, 2));
}

#[test]
fn the_source_takes_what_the_resource_and_its_container_tags_say() {
    let mut b = batch(&[json!({"metrics": {"_top_level": 1}, "meta": {"_dd.base_service": "base"}})]);
    let start = b.attrs.len();
    for (key, value) in [
        ("_dd.tags.container", "image_tag:v7,git.commit.sha:abc,version:9,pod:x"),
        ("_dd.tags.process", "a:b"),
    ] {
        let key = b.arena.push(key);
        let value = Value::Str(b.arena.push(value));
        b.attrs.push(Attr { key, value });
    }
    b.resources[0] = Resource {
        env: b.arena.push("prod"),
        container_id: b.arena.push("cid"),
        language_name: b.arena.push("go"),
        attrs: Range32::new(start, b.attrs.len()),
        ..Resource::default()
    };
    let p = counted(settings(), &b).peek().stats.remove(0);
    assert_eq!((p.env.as_str(), p.hostname.as_str(), p.version.as_str()), ("prod", "agent-host", ""));
    assert_eq!((p.container_id.as_str(), p.lang.as_str(), p.service.as_str()), ("cid", "go", "base"));
    assert_eq!((p.image_tag.as_str(), p.git_commit_sha.as_str()), ("v7", "abc"));
    assert_eq!((p.process_tags.as_str(), p.process_tags_hash), ("a:b", 16600709238102167904));
    assert_eq!(p.tags.len(), 4);
    let bare = Settings { without_container: true, without_process: true, ..settings() };
    let p = counted(bare, &b).peek().stats.remove(0);
    assert_eq!((p.container_id.as_str(), p.tags.len(), p.process_tags_hash), ("", 0, 0));
}

#[test]
fn late_spans_go_to_the_oldest_bucket_and_flushes_keep_two_buckets_back() {
    let mut c = Concentrator::new(settings(), NOW);
    let at =
        |s: i64| batch(&[json!({"start": NOW + s * SECOND, "duration": 0, "metrics": {"_top_level": 1}})]);
    for s in [-100, 0, 10, 20] {
        let b = at(s);
        c.add_chunk(&b, &b.chunks[0], NOW);
    }
    let starts = |p: &spanloom_model::stats::StatsPayload| -> Vec<i64> {
        let buckets = p.stats.iter().flat_map(|s| &s.stats);
        buckets.map(|b| (b.start as i64 - NOW) / SECOND).collect()
    };
    assert_eq!(starts(&c.peek()), [0, 10, 20]);
    let out = c.flush(NOW + 30 * SECOND, false, &mut || 0.5);
    assert_eq!(starts(&out), [0, 10]);
    assert_eq!(out.stats[0].stats[0].stats[0].hits, 2);
    let b = at(3);
    c.add_chunk(&b, &b.chunks[0], NOW);
    assert_eq!(starts(&c.peek()), [20]);
    let rest = c.flush(NOW + 30 * SECOND, true, &mut || 0.5);
    assert_eq!(rest.stats[0].stats[0].stats[0].hits, 2);
    assert!(c.flush(NOW + 99 * SECOND, false, &mut || 0.5).stats.is_empty());
    assert_eq!(c.group_count(), 0);
}

#[test]
fn counting_goes_on_right_after_a_flush_that_forgot_sources() {
    let mut c = Concentrator::new(settings(), NOW);
    let of_host = |c: &mut Concentrator, host: &str, s: i64| {
        let mut b = batch(&[json!({"start": NOW + s * SECOND, "duration": 0, "metrics": {"_top_level": 1}})]);
        b.resources[0].hostname = b.arena.push(host);
        c.add_chunk(&b, &b.chunks[0], NOW);
    };
    of_host(&mut c, "old", 0);
    of_host(&mut c, "new", 20);
    c.flush(NOW + 20 * SECOND, false, &mut || 0.5);
    of_host(&mut c, "new", 20);
    of_host(&mut c, "third", 20);
    let p = c.peek();
    let by_host: Vec<_> = p.stats.iter().map(|s| (s.hostname.as_str(), s.stats[0].stats[0].hits)).collect();
    assert_eq!(by_host, [("new", 2), ("third", 1)]);
}

#[test]
fn beyond_the_limit_spans_are_counted_under_a_visible_resource() {
    let mut c = Concentrator::new(Settings { max_groups: 10, ..settings() }, NOW);
    for i in 0..100 {
        let b = batch(&[json!({"service": format!("s{}", i % 50), "resource": format!("r{i}"),
            "metrics": {"_top_level": 1}})]);
        c.add_chunk(&b, &b.chunks[0], NOW);
    }
    let p = c.peek();
    let groups = &p.stats[0].stats[0].stats;
    assert_eq!(groups.iter().map(|g| g.hits).sum::<u64>(), 100);
    assert!(groups.len() <= 12, "{}", groups.len());
    assert!(groups.iter().any(|g| g.resource == OVERFLOW && g.service.is_empty()));
    assert_eq!(c.counters().overflowed, 90);
}

#[test]
fn clocks_in_the_future_cannot_open_buckets_without_end() {
    let mut c = Concentrator::new(settings(), NOW);
    for i in 0..2000 {
        let b = batch(&[json!({"start": NOW + i * 10 * SECOND, "metrics": {"_top_level": 1}})]);
        c.add_chunk(&b, &b.chunks[0], NOW);
    }
    let p = c.peek();
    assert_eq!(p.stats[0].stats.len(), 256);
    assert_eq!(p.stats[0].stats.iter().flat_map(|b| &b.stats).map(|g| g.hits).sum::<u64>(), 2000);
    assert_eq!(c.counters().clamped, 2000 - 256);
}

#[test]
fn spans_of_other_protocols_count_by_kind_and_at_the_border_of_services() {
    let mut b = batch(&[
        json!({"service": "a", "name": "root", "span_id": 1}),
        json!({"service": "a", "name": "inside", "span_id": 2, "parent_id": 1}),
        json!({"service": "b", "name": "entry", "span_id": 3, "parent_id": 1}),
        json!({"service": "a", "name": "call", "span_id": 4, "parent_id": 1}),
    ]);
    b.intake.protocol = Protocol::OtlpProto;
    b.spans[3].kind = SpanKind::Client;
    let p = counted(settings(), &b).peek();
    let groups = &p.stats[0].stats[0].stats;
    let got: Vec<_> = groups
        .iter()
        .map(|g| (g.name.as_str(), g.resource.as_str(), g.span_kind.as_str(), g.top_level_hits))
        .collect();
    assert_eq!(got, [("root", "root", "", 1), ("entry", "entry", "", 1), ("call", "call", "client", 0)]);
    b.intake.protocol = Protocol::DatadogV1;
    let p = counted(settings(), &b).peek();
    assert_eq!(p.stats[0].stats[0].stats.len(), 1);
}

#[test]
fn an_empty_chunk_and_a_chunk_without_resource_count_nothing_wrong() {
    let mut b = batch(&[json!({"metrics": {"_top_level": 1}})]);
    b.resources.clear();
    assert_eq!(counted(settings(), &b).counters().spans, 1);
    b.chunks[0] = Chunk { spans: Range32::new(7, 9), ..Chunk::default() };
    assert_eq!(counted(settings(), &b).counters().spans, 0);
}

#[test]
fn extra_dimensions_tell_groups_apart_and_long_values_are_blocked() {
    let s = Settings { extra_tags: vec!["tenant".into()], ..settings() };
    let mut c = Concentrator::new(s, NOW);
    for tenant in ["a", "b", "b", &"x".repeat(201)] {
        let b = batch(&[json!({"metrics": {"_top_level": 1}, "meta": {"tenant": tenant}})]);
        c.add_chunk(&b, &b.chunks[0], NOW);
    }
    let p = c.peek();
    let got: Vec<_> =
        p.stats[0].stats[0].stats.iter().map(|g| (g.additional_metric_tags[0].as_str(), g.hits)).collect();
    assert_eq!(got, [("tenant:a", 1), ("tenant:b", 2), ("tenant:agent_blocked_value", 1)]);
}

#[test]
fn a_status_is_what_the_first_key_with_one_says() {
    let statuses = |meta: serde_json::Value, mut metrics: serde_json::Value| {
        metrics["_top_level"] = json!(1);
        let p = counted(settings(), &batch(&[json!({"meta": meta, "metrics": metrics})])).peek();
        let g = &p.stats[0].stats[0].stats[0];
        (g.http_status_code, g.grpc_status_code.clone())
    };
    let none = String::new;
    // HTTP: numbers before texts, and what is no whole number is passed over.
    assert_eq!(statuses(json!({"http.status_code": "404"}), json!({"http.status_code": 500})), (500, none()));
    assert_eq!(statuses(json!({"http.status_code": "404"}), json!({"http.status_code": 3.7})), (404, none()));
    assert_eq!(
        statuses(json!({"http.status_code": "x"}), json!({"http.response.status_code": 503})),
        (503, none())
    );
    for (text, code) in [("200.0", 200), ("2e2", 200), ("+5", 5), ("-1", 0), ("4294967296", 0), ("", 0)] {
        assert_eq!(statuses(json!({"http.status_code": text}), json!({})).0, code, "{text}");
    }
    // gRPC: texts before numbers; fractions and empty texts count as absent.
    assert_eq!(statuses(json!({"grpc.code": "NOT_FOUND"}), json!({"grpc.code": 2})).1, "5");
    assert_eq!(statuses(json!({"grpc.code": ""}), json!({"grpc.code": 2})).1, "2");
    assert_eq!(statuses(json!({"grpc.code": "7"}), json!({"rpc.grpc.status_code": 0.5})).1, "7");
    assert_eq!(statuses(json!({"rpc.grpc.status_code": "?", "grpc.code": "7"}), json!({})).1, "");
    // A key that other systems share counts where gRPC is named, by the newer key if it is there.
    let of = |more: serde_json::Value| {
        let mut meta = more;
        meta["rpc.response.status_code"] = json!("UNAVAILABLE");
        statuses(meta, json!({})).1
    };
    assert_eq!(of(json!({})), "");
    assert_eq!(of(json!({"rpc.system": "grpc"})), "14");
    assert_eq!(of(json!({"rpc.system.name": "grpc"})), "14");
    assert_eq!(of(json!({"rpc.system": "grpc", "rpc.system.name": "connect"})), "");
}

#[test]
fn peer_tags_are_ordered_as_texts() {
    let meta =
        json!({"span.kind": "client", "messaging.destination": "a", "messaging.destination.name": "b"});
    let p = counted(settings(), &batch(&[json!({"meta": meta, "metrics": {"_top_level": 1}})])).peek();
    let tags = &p.stats[0].stats[0].stats[0].peer_tags;
    assert_eq!(tags[..], ["messaging.destination.name:b", "messaging.destination:a"]);
}

#[test]
fn of_v1_the_payload_says_which_commit_it_is() {
    let spans = [json!({"meta": {"_dd.git.commit.sha": "span"}, "metrics": {"_top_level": 1}})];
    let mut b = batch(&spans);
    assert_eq!(counted(settings(), &b).peek().stats[0].git_commit_sha, "span");
    b.intake.protocol = Protocol::DatadogV1;
    assert_eq!(counted(settings(), &b).peek().stats[0].git_commit_sha, "");
    let (key, value) = (b.arena.push("_dd.git.commit.sha"), Value::Str(b.arena.push("payload")));
    b.attrs.push(Attr { key, value });
    b.resources[0].attrs = Range32::new(b.attrs.len() - 1, b.attrs.len());
    assert_eq!(counted(settings(), &b).peek().stats[0].git_commit_sha, "payload");
}
