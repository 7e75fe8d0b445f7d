use crate::make::{NOW, SECOND, batch};
use serde_json::{Value as Json, json};
use spanloom_model::TraceId;
use spanloom_sampler::tail::{BatchSpans, REST, Summary, TailConfig, TailDecision, TailError, TailRules};

fn rules(config: Json) -> TailRules {
    TailRules::new(&serde_json::from_value::<TailConfig>(config).unwrap()).unwrap()
}

fn errors(config: Json) -> Vec<String> {
    let config = serde_json::from_value::<TailConfig>(config).unwrap();
    TailRules::new(&config).unwrap_err().iter().map(TailError::to_string).collect()
}

struct Trace {
    id: u64,
    duration: i64,
    spans: Vec<Json>,
}

fn trace() -> Trace {
    Trace {
        id: 42,
        duration: 1_000_000,
        spans: vec![json!({"service": "web", "name": "op", "resource": "GET /"})],
    }
}

fn decide(rules: &mut TailRules, t: &Trace, now: i64) -> TailDecision {
    let b = batch(&t.spans);
    let summary = Summary {
        trace_id: TraceId(u128::from(t.id)),
        duration: t.duration,
        spans: b.spans.len() as u32,
        errors: b.spans.iter().filter(|s| s.is_error()).count() as u32,
        service: b.str(b.spans[0].service),
        operation: b.str(b.spans[0].name),
    };
    let p99 = |service: &str| (service == "web").then_some(5e6);
    rules.decide(&summary, &BatchSpans { batch: &b, spans: &b.spans }, &p99, now)
}

fn rule_of(config: Json, t: &Trace) -> String {
    decide(&mut rules(json!({"rules": [config]})), t, NOW).rule.to_string()
}

#[test]
fn each_condition_holds_exactly_when_it_should() {
    let error = Trace { spans: vec![json!({"error": 1})], ..trace() };
    let slow = Trace { duration: 6_000_000, ..trace() };
    let unknown = Trace { spans: vec![json!({"service": "other"})], ..slow_of(6_000_000) };
    let two = Trace {
        spans: vec![
            json!({"service": "web"}),
            json!({"meta": {"user": "leo", "http.route": "/u/{id}"}, "metrics": {"n": 7}}),
        ],
        ..trace()
    };
    let plain = trace();
    let cases: Vec<(Json, &Trace, bool)> = vec![
        (json!({}), &plain, true),
        (json!({"error": true}), &error, true),
        (json!({"error": true}), &plain, false),
        (json!({"error": false}), &plain, true),
        (json!({"min_duration": "6ms"}), &slow, true),
        (json!({"min_duration": "6.001ms"}), &slow, false),
        (json!({"slower_than_p99": true}), &slow, true),
        (json!({"slower_than_p99": true}), &plain, false),
        (json!({"slower_than_p99": false}), &plain, true),
        (json!({"slower_than_p99": true}), &unknown, false),
        (json!({"slower_than_p99": false}), &unknown, false),
        (json!({"service": "^web$"}), &plain, true),
        (json!({"service": "^we$"}), &plain, false),
        (json!({"operation": "^op$"}), &plain, true),
        (json!({"operation": "^other$"}), &plain, false),
        (json!({"resource": "^GET"}), &plain, true),
        (json!({"resource": "^/u/"}), &two, true),
        (json!({"resource": "^POST"}), &two, false),
        (json!({"tags": {"user": "^le"}}), &two, true),
        (json!({"tags": {"user": "^le", "n": "^7$"}}), &two, true),
        (json!({"tags": {"user": "^le", "n": "^8$"}}), &two, false),
        (json!({"tags": {"absent": ""}}), &two, false),
        (json!({"min_spans": 2}), &two, true),
        (json!({"min_spans": 3}), &two, false),
    ];
    for (mut config, t, holds) in cases {
        config["name"] = json!("r");
        assert_eq!(rule_of(config.clone(), t) == "r", holds, "{config}");
    }
}

fn slow_of(duration: i64) -> Trace {
    Trace { duration, ..trace() }
}

#[test]
fn the_first_rule_that_holds_decides_and_rates_follow_the_trace_id() {
    let mut r = rules(json!({
        "wait": "5s",
        "rules": [
            {"name": "health", "resource": "^GET /health", "rate": 0},
            {"name": "slow", "min_duration": "2ms"},
        ],
        "rest": 0.25,
    }));
    assert_eq!((r.wait(), r.keeps_all()), (5 * SECOND, false));
    let health = Trace { spans: vec![json!({"resource": "GET /health"})], ..slow_of(9_000_000) };
    let d = decide(&mut r, &health, NOW);
    assert_eq!((d.keep, &*d.rule, d.rate, d.at), (false, "health", 0.0, NOW));
    assert!(decide(&mut r, &slow_of(2_000_000), NOW).keep);
    let kept = (1..=4000u64)
        .filter(|i| {
            let d = decide(&mut r, &Trace { id: i.wrapping_mul(0x9e37_79b9_7f4a_7c15), ..trace() }, NOW);
            assert_eq!(&*d.rule, REST);
            d.keep
        })
        .count();
    assert!((900..1100).contains(&kept), "{kept}");
}

#[test]
fn budgets_hold_spans_per_second_and_exempt_rules_pass_them() {
    let mut r = rules(json!({
        "rules": [
            {"name": "errors", "error": true, "exempt": true},
            {"name": "some", "service": "web", "budget": 2},
        ],
        "budget": 10,
    }));
    let error = Trace { spans: vec![json!({"service": "web", "error": 1})], ..trace() };
    let other = Trace { spans: vec![json!({"service": "b"}), json!({})], ..trace() };
    let mut by: Vec<(String, bool)> = Vec::new();
    for second in 0..100i64 {
        for _ in 0..20 {
            for t in [&trace(), &error, &other] {
                let d = decide(&mut r, t, NOW + second * SECOND);
                if second >= 50 {
                    by.push((d.rule.to_string(), d.keep));
                }
            }
        }
    }
    let kept = |rule: &str| by.iter().filter(|b| b.0 == rule && b.1).count();
    assert_eq!(kept("errors"), 1000, "exempt");
    assert!(kept("some") <= 100, "{}", kept("some"));
    let d = decide(&mut r, &other, NOW + 99 * SECOND);
    assert_eq!((d.keep, d.over_budget, &*d.rule), (false, true, REST));
    assert!(by.iter().any(|b| b.0 == REST), "beyond its own budget a rule lets the next ones decide");
}

#[test]
fn mistakes_are_all_told_with_rule_field_value_and_what_is_accepted() {
    let got = errors(json!({
        "wait": "soon", "rest": 1.5, "budget": 0,
        "rules": [
            {"name": "a", "min_duration": "5", "rate": -1},
            {"name": "a", "service": "("},
            {"resource": "a{1000}{1000}{1000}"},
        ],
    }));
    assert_eq!(got.len(), 9, "{got:#?}");
    assert_eq!(got[0], "tail sampling, settings, `wait`: \"soon\" is not a duration such as 500ms, 2s, 1m");
    assert_eq!(got[1], "tail sampling, settings, `rest`: \"1.5\" is not a rate from 0 to 1");
    assert!(got[2].contains("spans per second"), "{}", got[2]);
    assert_eq!(
        got[3],
        "tail sampling, rule \"a\", `min_duration`: \"5\" is not a duration such as 500ms, 2s, 1m"
    );
    assert!(got[5].starts_with("tail rule 2: needs a name of its own"), "{}", got[5]);
    assert!(got[6].contains("rule \"a\", `service`: error: unclosed group"), "{}", got[6]);
    assert!(got[7].starts_with("tail rule 3"), "{}", got[7]);
    assert!(got[8].contains("`resource`"), "{}", got[8]);
    let unknown =
        serde_json::from_value::<TailConfig>(json!({"rules": [{"name": "a", "min_duraton": "1s"}]}));
    assert!(unknown.unwrap_err().to_string().contains("unknown field `min_duraton`, expected one of"));
}

#[test]
fn without_rules_everything_is_kept_and_nobody_needs_to_ask() {
    assert!(rules(json!({})).keeps_all());
    assert!(rules(json!({"rules": [{"name": "e", "error": true}]})).keeps_all());
    assert!(!rules(json!({"budget": 5})).keeps_all());
    assert!(decide(&mut rules(json!({})), &trace(), NOW).keep);
}
