//! The mesh vectors about resources, validation and matching.

use serde_json::{Value as Json, json};
use spanloom_policy::{Document, Kind, Resource, choose_traffic_trace, merge_mesh_traces};

fn vectors(kinds: &[&str]) -> Vec<(String, Json)> {
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/vectors/mesh");
    let mut out: Vec<(String, Json)> = std::fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"))
        .map(|p| {
            let json = serde_json::from_slice(&std::fs::read(&p).unwrap()).unwrap();
            (p.file_name().unwrap().to_string_lossy().into_owned(), json)
        })
        .filter(|(_, v): &(String, Json)| kinds.contains(&v["kind"].as_str().unwrap()))
        .collect();
    out.sort_by(|a, b| a.0.cmp(&b.0));
    out
}

fn resources(yaml: &Json) -> Vec<Resource> {
    let documents = Document::read_all(yaml.as_str().unwrap()).unwrap();
    documents.iter().map(|d| Resource::from_json(&d.value).unwrap()).collect()
}

#[test]
fn violations_are_those_of_the_vectors_in_their_order() {
    let cases = vectors(&["validation"]);
    assert_eq!(cases.len(), 17);
    for (file, case) in cases {
        let resource = &resources(&case["resource"])[0];
        assert!(resource.malformed().is_empty(), "{file}: {:?}", resource.malformed());
        let violations = resource.violations();
        let got: Vec<Json> =
            violations.iter().map(|v| json!({"field": v.field, "message": v.message})).collect();
        assert_eq!(Json::Array(got), case["expect"]["violations"], "{file}");
        assert_eq!(violations.is_empty(), case["expect"]["valid"].as_bool().unwrap(), "{file}");
    }
}

#[test]
fn the_same_violations_are_found_in_the_kubernetes_envelope() {
    for (file, case) in vectors(&["validation"]) {
        let universal = &resources(&case["resource"])[0];
        let document = json!({"apiVersion": "kuma.io/v1alpha1", "kind": universal.kind.name(),
            "mesh": universal.mesh, "metadata": {"name": universal.name,
            "labels": {"kuma.io/mesh": universal.mesh}}, "spec": universal.body});
        let kubernetes = Resource::from_json(&document).unwrap();
        assert_eq!(kubernetes.violations(), universal.violations(), "{file}");
    }
}

#[test]
fn proxies_get_the_traffic_trace_of_the_vectors() {
    let cases = vectors(&["policy-match", "envoy-tracing"]);
    assert_eq!(cases.len(), 17);
    for (file, case) in cases {
        let all = resources(&case["resources"]);
        for r in &all {
            assert_eq!((r.malformed(), r.violations()), (vec![], vec![]), "{file}: {}", r.name);
        }
        let name = case["dataplane"].as_str().unwrap();
        let dataplane = all.iter().find(|r| r.kind == Kind::Dataplane && r.name == name).unwrap();
        let chosen = choose_traffic_trace(&all, &dataplane.mesh, &dataplane.tag_sets());
        assert_eq!(chosen.map(|r| r.name.as_str()), case["expect"]["trafficTrace"].as_str(), "{file}");
    }
}

#[test]
fn mesh_traces_merge_as_in_the_vectors() {
    let cases = vectors(&["meshtrace-merge"]);
    assert_eq!(cases.len(), 2);
    for (file, case) in cases {
        let policies: Vec<Resource> = case["policies"].as_array().unwrap().iter().map(mesh_trace).collect();
        let mut refs: Vec<&Resource> = policies.iter().collect();
        assert_eq!(merge_mesh_traces(&refs), case["expect"]["default"], "{file}");
        refs.reverse();
        assert_eq!(merge_mesh_traces(&refs), case["expect"]["default"], "{file}, the other way round");
    }
}

fn mesh_trace(policy: &Json) -> Resource {
    let document = json!({"type": "MeshTrace", "name": policy["name"], "labels": policy["labels"],
        "spec": {"targetRef": policy["targetRef"], "default": policy["default"]}});
    let resource = Resource::from_json(&document).unwrap();
    assert_eq!((resource.malformed(), resource.violations()), (vec![], vec![]));
    resource
}
