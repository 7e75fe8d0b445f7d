use crate::make::{NOW, SECOND};
use spanloom_model::stats::{ClientGroupedStats, ClientStatsBucket, ClientStatsPayload};
use spanloom_stats::{ClientAggregator, ClientSettings, OVERFLOW, Sketch, fold_duplicates};

fn sketch(values: &[f64]) -> Vec<u8> {
    let mut s = Sketch::default();
    values.iter().for_each(|v| s.add(*v));
    s.to_bytes()
}

fn group(resource: &str, hits: u64) -> ClientGroupedStats {
    ClientGroupedStats {
        service: "web".into(),
        resource: resource.into(),
        hits,
        errors: 1,
        duration: 10,
        top_level_hits: hits,
        ok_summary: sketch(&[1e6]),
        ..ClientGroupedStats::default()
    }
}

fn payload(start: i64, groups: Vec<ClientGroupedStats>) -> ClientStatsPayload {
    let bucket = ClientStatsBucket { start: start as u64, duration: 10, stats: groups, agent_time_shift: 3 };
    ClientStatsPayload {
        runtime_id: "r".into(),
        sequence: 5,
        tracer_version: "1".into(),
        process_tags: "a:b".into(),
        process_tags_hash: 1,
        service: "main".into(),
        stats: vec![bucket],
        ..ClientStatsPayload::default()
    }
}

const NO_TAGS: [&str; 0] = [];

#[test]
fn one_payload_passes_with_raw_sketches_and_the_agents_fields() {
    let mut a = ClientAggregator::new(ClientSettings::default(), NOW);
    let mut g = group("r", 3);
    g.ok_summary = b"not a sketch".to_vec();
    g.db_type = "postgresql".into();
    a.add(payload(NOW, vec![g]), &["image_tag:it", "git.commit.sha:sha"], NOW);
    assert!(a.flush(NOW + 10 * SECOND, false).is_empty());
    let out = a.flush(NOW + 22 * SECOND, false);
    assert_eq!(out.len(), 1);
    assert!(out[0].client_computed);
    let p = &out[0].stats[0];
    assert_eq!((p.env.as_str(), p.image_tag.as_str(), p.git_commit_sha.as_str()), ("none", "it", "sha"));
    assert_eq!((p.runtime_id.as_str(), p.sequence, p.tracer_version.as_str()), ("", 0, ""));
    assert_eq!((p.service.as_str(), p.process_tags_hash), ("main", 16600709238102167904));
    let b = &p.stats[0];
    assert_eq!((b.start as i64 - NOW, b.duration as i64, b.agent_time_shift), (SECOND, 10 * SECOND, 0));
    assert_eq!((&*b.stats[0].ok_summary, b.stats[0].db_type.as_str()), (&b"not a sketch"[..], ""));
    assert_eq!(a.bad_sketches(), 0);
}

#[test]
fn groups_of_one_key_are_merged_and_other_sources_are_not() {
    let mut a = ClientAggregator::new(ClientSettings::default(), NOW);
    a.add(payload(NOW, vec![group("r", 3), group("other", 1)]), &NO_TAGS, NOW);
    a.add(payload(NOW, vec![group("r", 4)]), &NO_TAGS, NOW);
    a.add(ClientStatsPayload { version: "2".into(), ..payload(NOW, vec![group("r", 1)]) }, &NO_TAGS, NOW);
    let out = a.flush(NOW, true);
    assert_eq!(out.len(), 1);
    assert_eq!(out[0].stats.len(), 2);
    let g = &out[0].stats[0].stats[0].stats;
    assert_eq!((g[0].hits, g[0].errors, g[0].duration, g[0].top_level_hits), (7, 2, 20, 7));
    assert_eq!(Sketch::decode(&g[0].ok_summary).unwrap().bins().collect::<Vec<_>>(), [(690, 2.0)]);
    assert!(g[0].error_summary.is_empty());
    assert_eq!((g[1].resource.as_str(), g[1].hits), ("other", 1));
}

#[test]
fn buckets_leave_after_the_wait_in_order_and_old_ones_join_the_oldest() {
    let mut a = ClientAggregator::new(ClientSettings::default(), NOW);
    for (s, hits) in [(-100, 1), (-30, 2), (-4, 4), (100, 8)] {
        a.add(payload(NOW + s * SECOND, vec![group("r", hits)]), &NO_TAGS, NOW);
    }
    let out = a.flush(NOW + 30 * SECOND, true);
    let got: Vec<_> = out
        .iter()
        .map(|p| ((p.stats[0].stats[0].start as i64 - NOW) / SECOND, p.stats[0].stats[0].stats[0].hits))
        .collect();
    assert_eq!(got, [(-17, 3), (-3, 4), (1, 8)]);
}

#[test]
fn beyond_the_limits_counts_go_to_a_visible_group() {
    let settings = ClientSettings { max_groups: 10, ..ClientSettings::default() };
    let mut a = ClientAggregator::new(settings, NOW);
    a.add(payload(NOW, (0..100).map(|i| group(&format!("r{i}"), 1)).collect()), &NO_TAGS, NOW);
    let out = a.flush(NOW, true);
    let groups = &out[0].stats[0].stats[0].stats;
    assert_eq!(groups.iter().map(|g| g.hits).sum::<u64>(), 100);
    assert_eq!(groups.len(), 11);
    assert_eq!((groups[10].resource.as_str(), groups[10].hits), (OVERFLOW, 90));
    assert_eq!(Sketch::decode(&groups[10].ok_summary).unwrap().count(), 90.0);
    assert_eq!(a.overflowed(), 90);
}

#[test]
fn duplicates_fold_into_the_first_whatever_their_type_and_keep_their_sketches() {
    let other_type = ClientGroupedStats { span_type: "web".into(), ..group("r", 4) };
    let mut p = payload(NOW, vec![group("r", 3), group("x", 9), other_type]);
    fold_duplicates(&mut p, 0);
    let g = &p.stats[0].stats;
    assert_eq!((g[0].hits, g[0].errors, g[0].duration, g[0].top_level_hits), (7, 2, 20, 3));
    assert_eq!((g[2].hits, g[2].errors, g[2].duration, g[2].top_level_hits), (0, 0, 0, 4));
    assert_eq!(g[2].ok_summary, sketch(&[1e6]));
    assert_eq!(g[1].hits, 9);
}

#[test]
fn a_sketch_that_cannot_be_read_leaves_with_the_merge() {
    let mut a = ClientAggregator::new(ClientSettings::default(), NOW);
    let bad = ClientGroupedStats { ok_summary: b"not a sketch".to_vec(), ..group("r", 3) };
    let none = ClientGroupedStats { ok_summary: Vec::new(), ..group("r", 4) };
    a.add(payload(NOW, vec![bad, none]), &NO_TAGS, NOW);
    let out = a.flush(NOW, true);
    let g = &out[0].stats[0].stats[0].stats[0];
    assert_eq!((g.hits, g.ok_summary.len()), (7, 0));
    assert_eq!(a.bad_sketches(), 1);
}

#[test]
fn sketches_of_interpolated_mappings_are_converted() {
    // gamma 2: bins are powers of two in all mappings, and halves between them
    // lie elsewhere only if the mapping is finer than that.
    let sketch = |interpolation: u8, gamma: f64| {
        let mut out = vec![0x0a, 11, 0x09];
        out.extend(gamma.to_le_bytes());
        out.extend([0x18, interpolation, 0x12, 12, 0x12, 8]);
        out.extend(4.0f64.to_le_bytes());
        out.extend([0x18, 40]); // the bin with index 20
        out
    };
    let mean = |interpolation, gamma| {
        let s = Sketch::decode(&sketch(interpolation, gamma)).unwrap();
        assert!((s.count() - 4.0).abs() < 1e-9);
        s.bins().map(|(i, n)| 1.02020202020202f64.powi(i) * n).sum::<f64>() / 4.0
    };
    for interpolation in [0, 1, 3] {
        let at = mean(interpolation, 2.0) / f64::from(1 << 20);
        assert!((1.4..1.6).contains(&at), "{interpolation}: {at}");
    }
    // Index 20 at gamma 2^(1/8) is two and a half powers of two.
    let gamma = 2f64.powf(0.125);
    let logarithmic = mean(0, gamma);
    assert!((5.6..6.2).contains(&logarithmic), "{logarithmic}");
    let linear = mean(1, gamma);
    assert!((5.9..6.6).contains(&linear), "{linear}");
    let cubic = mean(3, gamma);
    assert!((cubic - logarithmic).abs() < 0.1, "{cubic}");
    assert!(Sketch::decode(&sketch(2, 2.0)).is_err());
}
