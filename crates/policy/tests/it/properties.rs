//! Properties of decisions.

use proptest::prelude::*;
use serde_json::{Value as Json, json};
use spanloom_policy::{Decision, Policies, Resource, choose_traffic_trace, kept, load, merge_mesh_traces};
use std::collections::BTreeMap;

proptest! {
    /// Half a trace is worth nothing: all its spans are decided alike, with
    /// the whole id and with its lower half, at one percentage and at more.
    #[test]
    fn a_trace_is_kept_whole_and_at_every_higher_percentage(
        id in any::<u128>(), a in 0.0f64..=100.0, b in 0.0f64..=100.0,
    ) {
        let (low, high) = if a < b { (a, b) } else { (b, a) };
        prop_assert_eq!(kept(id, low), kept(u128::from(id as u64), low));
        prop_assert!(!kept(id, low) || kept(id, high));
        prop_assert!(kept(id, 100.0) && !kept(id, 0.0));
    }

    /// The share of traces that are kept is the percentage, whatever the ids
    /// look like.
    #[test]
    fn shares_converge_to_the_percentage(percent in 0.0f64..=100.0, first in any::<u64>(), step in 0u32..64) {
        let n = 20_000u64;
        let ids = (0..n).map(|i| first.wrapping_add(i.rotate_left(step)));
        let kept = ids.filter(|id| kept(u128::from(*id), percent)).count() as f64;
        // Five standard deviations: fails once in a million runs of 256 cases.
        let sigma = (percent / 100.0 * (1.0 - percent / 100.0) / n as f64).sqrt();
        prop_assert!((kept / n as f64 - percent / 100.0).abs() <= 5.5 * sigma + 2.0 / n as f64);
    }

    /// Independent of how the Datadog Agent samples by the same id.
    #[test]
    fn what_the_agents_rates_left_over_is_kept_at_the_same_share(rate in 0.05f64..=1.0, first in any::<u64>()) {
        let left: Vec<u64> = (0..20_000u64)
            .map(|i| first.wrapping_add(i).wrapping_mul(0x9e37_79b9_7f4a_7c15))
            .filter(|id| (id.wrapping_mul(1_111_111_111_111_111_111) as f64) < rate * u64::MAX as f64)
            .collect();
        let n = left.len() as f64;
        let half = left.iter().filter(|id| kept(u128::from(**id), 50.0)).count() as f64;
        prop_assert!((half / n - 0.5).abs() < 5.5 * (0.25 / n).sqrt());
    }

    /// The decision is that of the policy that Kuma chooses for a proxy with
    /// the same tags.
    #[test]
    fn a_span_has_the_policy_of_a_proxy_with_its_tags(
        policies in prop::collection::vec((tags(), 0u8..4, 0i64..3), 1..6), span in tags(),
    ) {
        let mesh = json!({"type": "Mesh", "name": "default", "tracing": {"backends": (0..4).map(|i| json!(
            {"name": format!("b{i}"), "type": "datadog", "conf": {"address": "a", "port": 1 + i}}
        )).collect::<Vec<_>>()}});
        let mut all = vec![Resource::from_json(&mesh).unwrap()];
        for (i, (selector, backend, created)) in policies.iter().enumerate() {
            all.push(Resource::from_json(&json!({"type": "TrafficTrace", "name": format!("p{i}"),
                "creationTime": format!("2024-01-0{}T00:00:00Z", created + 1),
                "selectors": [{"match": selector}], "conf": {"backend": format!("b{backend}")}})).unwrap());
        }
        // A value of a span is never a wildcard.
        let span: BTreeMap<String, String> = span.into_iter().map(|(k, v)| (k, v.replace('*', "x"))).collect();
        let chosen = choose_traffic_trace(&all, "default", std::slice::from_ref(&span));
        let policies = Policies::new(&all);
        let got = match policies.decide(&span, "", 1) {
            Decision::To { backend, .. } => Some(policies.backends()[backend].name.clone()),
            _ => None,
        };
        let expected = chosen.map(|p| p.body["conf"]["backend"].as_str().unwrap().to_owned());
        prop_assert_eq!(got, expected);
    }

    /// Deciding by the last word is the same as merging all that select.
    #[test]
    fn a_span_has_the_merged_mesh_traces(policies in prop::collection::vec(mesh_trace(), 1..6)) {
        let all: Vec<Resource> = policies.iter().enumerate().map(|(i, (spec, label))| {
            Resource::from_json(&json!({"type": "MeshTrace", "name": format!("p{i}"),
                "labels": {"kuma.io/origin": label}, "spec": spec})).unwrap()
        }).collect();
        for r in &all {
            prop_assert_eq!(r.violations(), vec![]);
        }
        let refs: Vec<&Resource> = all.iter().collect();
        let merged = merge_mesh_traces(&refs);
        let number = |v: &Json| v.as_f64().or_else(|| v.as_str()?.parse().ok());
        let percent = ["overall", "random"].iter()
            .filter_map(|f| number(&merged["sampling"][f])).fold(100.0, f64::min);
        let policies = Policies::new(&all);
        let span = BTreeMap::from([("kuma.io/service".to_owned(), "web".to_owned())]);
        for id in 0..50u128 {
            let id = id * 0x0123_4567_89ab_cdef;
            match policies.decide(&span, "", id) {
                Decision::To { backend, keep } => {
                    let name = &policies.backends()[backend].target;
                    let url = merged["backends"][0]["datadog"]["url"].as_str().unwrap();
                    let spanloom_policy::Target::Datadog(d) = name else { panic!() };
                    prop_assert_eq!(format!("http://{}:{}", d.address, d.port), url);
                    prop_assert_eq!(keep, kept(id, percent));
                }
                Decision::Nowhere(_) => prop_assert_eq!(&merged["backends"], &json!([])),
                Decision::Unmatched => prop_assert!(false, "all of them select it"),
            }
        }
    }

    /// No text is too strange to be read.
    #[test]
    fn strange_files_are_refused_or_read_but_never_more(text in strange()) {
        let loaded = load(&[("strange.yaml".into(), text)]);
        for problem in loaded.errors.iter().chain(&loaded.warnings) {
            prop_assert!(problem.to_string().contains("; "));
        }
    }
}

fn tags() -> impl Strategy<Value = BTreeMap<String, String>> {
    prop::collection::btree_map("[abc]", "[xy*]", 1..4)
}

fn mesh_trace() -> impl Strategy<Value = (Json, String)> {
    let target = prop_oneof![
        Just(json!({"kind": "Mesh"})),
        Just(json!({"kind": "MeshSubset", "tags": {"kuma.io/service": "web"}})),
        Just(json!({"kind": "MeshService", "name": "web"})),
        Just(json!({"kind": "Dataplane"})),
        Just(Json::Null),
    ];
    let backends = prop_oneof![
        Just(json!([])),
        (1u16..9).prop_map(|p| json!([{"type": "Datadog", "datadog": {"url": format!("http://a:{p}")}}])),
    ];
    let percentage = || {
        prop_oneof![
            Just(None),
            Just(Some(Json::Null)),
            (0u8..=100).prop_map(|p| Some(json!(p))),
            Just(Some(json!("12.5")))
        ]
    };
    let sampling = (percentage(), percentage()).prop_map(|(o, r)| {
        let fields = [("overall", o), ("random", r)];
        Json::Object(fields.into_iter().filter_map(|(k, v)| Some((k.to_owned(), v?))).collect())
    });
    let sampling = prop_oneof![Just(None), Just(Some(Json::Null)), sampling.prop_map(Some)];
    let origin = prop_oneof![Just("global"), Just("zone"), Just("")];
    (target, backends, sampling, origin).prop_map(|(target, backends, sampling, origin)| {
        let mut default = json!({"backends": backends});
        if let Some(sampling) = sampling {
            default["sampling"] = sampling;
        }
        (json!({"targetRef": target, "default": default}), origin.to_owned())
    })
}

/// YAML with something out of place.
fn strange() -> impl Strategy<Value = String> {
    let good = "type: Mesh\nname: default\ntracing:\n  defaultBackend: dd\n  backends:\n  - name: dd\n    type: datadog\n    conf: {address: a, port: 8126}\n---\ntype: MeshTrace\nname: m\nspec:\n  targetRef: {kind: Mesh}\n  default:\n    backends:\n    - type: Zipkin\n      zipkin: {url: 'http://[::1]:9411/%2f'}\n    sampling: {overall: '1e2'}\n";
    let words = prop::sample::select(vec![
        "[", "{", "*", "&a", "null", "~", "1e999", "-", ": ", "\n", "'", "é", "\u{0}", "%", "http://[", "@",
        "- - -", "!!int", "|",
    ]);
    (prop::collection::vec((0..good.len(), 0usize..12, words), 0..4)).prop_map(move |edits| {
        let mut text = good.to_owned();
        for (at, cut, word) in edits {
            let at = (0..=at.min(text.len())).rev().find(|i| text.is_char_boundary(*i)).unwrap();
            let end =
                (at + cut..).find(|i| *i >= text.len() || text.is_char_boundary(*i)).unwrap().min(text.len());
            text.replace_range(at..end, word);
        }
        text
    })
}
