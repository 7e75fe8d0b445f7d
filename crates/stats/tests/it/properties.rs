use crate::make::{NOW, batch, settings};
use proptest::prelude::*;
use serde_json::json;
use spanloom_stats::{Concentrator, Sketch, sketch_index};

fn sketch(values: &[f64]) -> Sketch {
    let mut s = Sketch::default();
    values.iter().for_each(|v| s.add(*v));
    s
}

proptest! {
    #[test]
    fn merged_sketches_are_the_sketch_of_the_union(
        a in prop::collection::vec(0.0f64..1e18, 0..50),
        b in prop::collection::vec(0.0f64..1e18, 0..50),
    ) {
        let mut merged = sketch(&a);
        merged.merge(&sketch(&b));
        prop_assert_eq!(merged, sketch(&[a, b].concat()));
    }

    #[test]
    fn a_sketch_survives_its_bytes(values in prop::collection::vec(-1e12f64..1e12, 0..60)) {
        let s = sketch(&values);
        prop_assert_eq!(Sketch::decode(&s.to_bytes()), Ok(s));
    }

    #[test]
    fn any_bytes_are_a_sketch_or_an_error(
        bytes in prop::collection::vec(any::<u8>(), 0..80),
        at in 0usize..60,
        byte: u8,
    ) {
        let _ = Sketch::decode(&bytes);
        let mut bytes = sketch(&[1.0, 5.0, 1e9]).to_bytes();
        if let Some(b) = bytes.get_mut(at) {
            *b = byte;
        }
        if let Ok(s) = Sketch::decode(&bytes) {
            prop_assert!(s.bins().count() <= 2048);
        }
    }

    #[test]
    fn quantiles_are_exact_to_one_percent(mut values in prop::collection::vec(1.0f64..1e12, 1..80), q in 0.0f64..=1.0) {
        let got = sketch(&values).quantile(q).unwrap();
        values.sort_by(f64::total_cmp);
        let exact = values[(q * (values.len() - 1) as f64).floor() as usize];
        prop_assert!((got - exact).abs() <= exact * 0.0101, "{} {}", got, exact);
    }

    #[test]
    fn indexes_grow_with_values(a in 1e-300f64..1e300, b in 1e-300f64..1e300) {
        prop_assert!((a <= b) == (sketch_index(a) <= sketch_index(b)) || sketch_index(a) == sketch_index(b));
    }

    #[test]
    fn counts_add_up_however_spans_are_spread(
        spans in prop::collection::vec((0u8..4, 0u8..3, any::<bool>(), 0i64..60, 1i64..1_000_000), 1..60),
    ) {
        let mut c = Concentrator::new(settings(), NOW);
        for (service, resource, error, at, duration) in &spans {
            let b = batch(&[json!({
                "service": format!("s{service}"), "resource": format!("r{resource}"), "error": i32::from(*error),
                "start": NOW + at * 1_000_000_000, "duration": duration, "metrics": {"_top_level": 1},
            })]);
            c.add_chunk(&b, &b.chunks[0], NOW);
        }
        let mut payload = c.flush(NOW + 30_000_000_000, false, &mut || 0.5);
        payload.stats.extend(c.flush(NOW, true, &mut || 0.5).stats);
        let groups: Vec<_> = payload.stats.iter().flat_map(|s| &s.stats).flat_map(|b| &b.stats).collect();
        let n = spans.len() as u64;
        prop_assert_eq!(groups.iter().map(|g| g.hits).sum::<u64>(), n);
        prop_assert_eq!(groups.iter().map(|g| g.errors).sum::<u64>(), spans.iter().filter(|s| s.2).count() as u64);
        prop_assert_eq!(groups.iter().map(|g| g.duration).sum::<u64>(), spans.iter().map(|s| s.4 as u64).sum::<u64>());
        let sketched: f64 = groups.iter().flat_map(|g| [&g.ok_summary, &g.error_summary])
            .map(|s| Sketch::decode(s).unwrap().count()).sum();
        prop_assert_eq!(sketched, n as f64);
    }
}
