//! Files as people write them, and decisions about spans.

use spanloom_policy::{Decision, Loaded, Target, Why, load};
use std::collections::BTreeMap;

const MESH: &str = "\
type: Mesh
name: default
tracing:
  defaultBackend: dd
  backends:
  - name: eu
    type: zipkin
    conf: {url: 'http://zipkin.eu:9411/api/v2/spans'}
  - name: dd
    type: datadog
    conf: {address: agent, port: 8126}
";
const EU: &str = "\
type: TrafficTrace
name: eu
mesh: default
selectors:
- match: {kuma.io/zone: eu}
conf: {backend: eu}
";

fn read(files: &[&str]) -> Loaded {
    let files: Vec<(String, String)> =
        files.iter().enumerate().map(|(i, t)| (format!("{i}.yaml"), (*t).to_owned())).collect();
    load(&files)
}

fn tags(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

/// Where a span goes: the name of the backend, `-` when its trace is not among
/// the percentage, or why not.
fn goes(loaded: &Loaded, pairs: &[(&str, &str)], service: &str) -> String {
    assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
    match loaded.policies.decide(&tags(pairs), service, 1) {
        Decision::Unmatched => "anywhere".into(),
        Decision::Nowhere(why) => why.name().into(),
        Decision::To { backend, keep: true } => loaded.policies.backends()[backend].name.clone(),
        Decision::To { keep: false, .. } => "-".into(),
    }
}

#[test]
fn spans_of_the_eu_go_to_the_backend_in_the_eu_and_others_are_left_alone() {
    let loaded = read(&[MESH, EU]);
    assert_eq!(goes(&loaded, &[("kuma.io/zone", "eu")], "shop"), "eu");
    assert_eq!(goes(&loaded, &[("kuma.zone", "eu")], "shop"), "eu", "as Envoy's spans say it");
    assert_eq!(goes(&loaded, &[("kuma.io/zone", "us")], "shop"), "anywhere");
    assert_eq!(goes(&loaded, &[], "shop"), "anywhere");
    assert_eq!(goes(&loaded, &[("kuma.io/zone", "eu"), ("kuma.io/mesh", "other")], ""), "anywhere");
    assert!(loaded.warnings.is_empty());
}

#[test]
fn the_service_is_the_spans_unless_it_is_tagged() {
    let shop = EU.replace("kuma.io/zone: eu", "kuma.io/service: shop");
    let loaded = read(&[MESH, &shop]);
    assert_eq!(goes(&loaded, &[], "shop"), "eu");
    assert_eq!(goes(&loaded, &[("kuma.io/service", "bank")], "shop"), "anywhere");
    assert_eq!(goes(&loaded, &[("kuma.io/service", "shop")], "bank"), "eu");
    let any = EU.replace("kuma.io/zone: eu", "kuma.io/service: '*'");
    let loaded = read(&[MESH, &any]);
    assert_eq!(goes(&loaded, &[], "whatever"), "eu");
    assert_eq!(goes(&loaded, &[], ""), "anywhere", "a span without service has no such tag");
}

#[test]
fn a_policy_whose_backend_is_not_there_sends_nowhere_and_the_next_one_is_not_tried() {
    let missing = EU.replace("backend: eu", "backend: nope");
    let all = "type: TrafficTrace\nname: all\nselectors:\n- match: {kuma.io/service: '*'}\n";
    let loaded = read(&[MESH, &missing, all]);
    assert_eq!(goes(&loaded, &[("kuma.io/zone", "eu")], "x"), Why::NoBackend.name());
    assert_eq!(goes(&loaded, &[], "x"), "dd");
    let text = loaded.warnings[0].to_string();
    assert!(
        text.starts_with(
            "1.yaml:6:8: TrafficTrace eu: conf.backend: the Mesh `default` has no backend `nope`"
        ),
        "{text}"
    );
}

#[test]
fn a_mesh_trace_goes_before_a_traffic_trace_and_can_switch_off() {
    let trace = |name: &str, target: &str, backends: &str, more: &str| {
        format!(
            "type: MeshTrace\nname: {name}\nspec:\n  targetRef: {target}\n  default:\n    backends: {backends}\n{more}"
        )
    };
    let zipkin = "[{type: Zipkin, zipkin: {url: 'http://z:9411/api/v2/spans'}}]";
    let wide = trace("wide", "{kind: Mesh}", zipkin, "");
    let off = trace("none", "{kind: MeshSubset, tags: {secret: 'yes'}}", "[]", "");
    let half = trace("half", "{kind: MeshService, name: quiet}", zipkin, "    sampling: {overall: 0}\n");
    let loaded = read(&[MESH, EU, &wide, &off, &half]);
    assert_eq!(goes(&loaded, &[("kuma.io/zone", "eu")], "x"), "wide");
    assert_eq!(goes(&loaded, &[("secret", "yes")], "x"), Why::SwitchedOff.name());
    assert_eq!(goes(&loaded, &[], "quiet"), "-");
    assert_eq!(goes(&loaded, &[("secret", "yes")], "quiet"), "-", "MeshService is above MeshSubset");
}

#[test]
fn both_envelopes_and_lists_are_read_and_an_endpoint_gets_its_port() {
    let list = "\
apiVersion: v1
kind: List
items:
- apiVersion: kuma.io/v1alpha1
  kind: Mesh
  metadata: {name: default}
  spec:
    tracing:
      defaultBackend: dd
      backends:
      - {name: dd, type: datadog, sampling: 100.0, conf: {address: trace-svc.datadog, port: 8126}}
- apiVersion: kuma.io/v1alpha1
  kind: TrafficTrace
  mesh: default
  metadata: {name: all}
  spec:
    selectors:
    - match: {kuma.io/service: '*'}
- apiVersion: kuma.io/v1alpha1
  kind: MeshTrace
  metadata: {name: mt, namespace: kuma-system}
  spec:
    targetRef: {kind: MeshSubset, tags: {otel: please}}
    default:
      backends: [{type: OpenTelemetry, openTelemetry: {endpoint: collector}}]
";
    let loaded = read(&[list]);
    assert_eq!(goes(&loaded, &[], "x"), "dd");
    assert_eq!(goes(&loaded, &[("otel", "please")], "x"), "mt");
    let Target::OpenTelemetry(otlp) = &loaded.policies.backends()[1].target else { panic!() };
    assert_eq!(otlp.endpoint, "collector:4317");
    assert_eq!(loaded.policies.used_backends(), [0, 1]);
}

#[test]
fn what_is_wrong_is_said_with_file_line_and_cure() {
    for (files, expected) in [
        (
            vec![MESH.replace("port: 8126", "port: 0")],
            "0.yaml:11:28: Mesh default: tracing.backends[1].conf.port: port must be in the range [1, 65535]; write the agent's port, mostly 8126",
        ),
        (
            vec![MESH.to_owned(), EU.replace("{kuma.io/zone: eu}", "{}")],
            "1.yaml:5:3: TrafficTrace eu: selectors[0].match: must have at least one tag; add a tag such as `kuma.io/service: '*'`",
        ),
        (
            vec![MESH.to_owned(), EU.replace("kuma.io/zone: eu", "kuma.io/zone: ''")],
            "1.yaml:5:11: TrafficTrace eu: selectors[0].match[\"kuma.io/zone\"]: tag value must be non-empty; write the value, or '*' for any",
        ),
        (
            vec![MESH.to_owned(), EU.replace("TrafficTrace", "TraficTrace")],
            "1.yaml:1:1: `TraficTrace` is not a kind of resource; write `TrafficTrace`",
        ),
        (
            vec![EU.to_owned()],
            "0.yaml:3:1: TrafficTrace eu: there is no Mesh `default`, so it has no backends; add the Mesh with its tracing.backends",
        ),
        (
            vec![MESH.to_owned(), EU.to_owned(), EU.to_owned()],
            "2.yaml:2:1: TrafficTrace eu: the same resource is at 1.yaml:1 already; remove one of the two, or give it another name",
        ),
        (
            vec![MESH.replace("name: eu", "name: 5")],
            "0.yaml:6:5: Mesh default: tracing.backends[0].name: must be text; put it in quotes; correct the field",
        ),
        (vec!["a: [1\nb: 2\n".to_owned()], "0.yaml:2:2: not YAML: "),
        (
            vec!["hello: world\n".to_owned()],
            "0.yaml:1:1: this is no resource: it has neither `type` nor `kind`; ",
        ),
    ] {
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let loaded = read(&files);
        let text = loaded.errors.first().map(ToString::to_string).unwrap_or_default();
        assert!(text.starts_with(expected), "{text}\n{expected}");
        assert!(loaded.policies.is_empty());
    }
}

#[test]
fn fields_that_nobody_knows_are_warned_about() {
    let loaded = read(&[MESH, &EU.replace("backend: eu", "backends: eu")]);
    assert!(loaded.errors.is_empty());
    let texts: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert!(texts.iter().any(|t| t.contains("conf.backends (`backend`?): no such field")), "{texts:?}");
    let loaded = read(&[MESH, "type: MeshTimeout\nname: t\n"]);
    assert!(loaded.warnings[0].to_string().contains("`MeshTimeout` has nothing to do with tracing"));
}

#[test]
fn a_mesh_trace_of_the_wrong_shape_is_refused_before_its_rules() {
    let loaded = read(&["type: MeshTrace\nname: t\nspec:\n  default:\n    backends: [{type: Jaeger}]\n"]);
    let text = loaded.errors[0].to_string();
    assert!(
        text.contains("spec.default.backends[0].type: must be one of: Zipkin, Datadog, OpenTelemetry"),
        "{text}"
    );
    let loaded = read(&["type: MeshTrace\nname: t\nspec:\n  default:\n    backends: [{}]\n"]);
    assert!(loaded.errors[0].to_string().contains("type: must be defined"));
}
