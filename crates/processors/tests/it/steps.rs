//! Rules that the vectors do not reach, each observed at the reference.

use crate::vectors::batch;
use serde_json::json;
use spanloom_model::{Attr, Batch, Event, Fate, Protocol, Range32, Value};
use spanloom_processors::{Agent, AgentConfig, Counts, Replacer, RuleText, TagEntry, TagFilters};

/// Runs all steps with these settings on a batch of one chunk.
fn run(config: AgentConfig, b: &mut Batch) -> Fate {
    let now = 1_700_000_000_000_000_000;
    let keep = |_: &mut Batch, _: usize| true;
    Agent::new(config, |_: &mut Batch, _: usize| {}).process(b, now, &mut Counts::default(), keep);
    b.chunks[0].fate
}

fn push(b: &mut Batch, span: usize, key: &str, value: Value) {
    let attr = Attr { key: b.arena.push(key), value };
    b.spans[span].attrs = b.extend_range(b.spans[span].attrs, attr);
}

fn value(b: &Batch, range: Range32, key: &str) -> Option<Value> {
    b.attrs(range).iter().find(|a| b.str(a.key) == key).map(|a| a.value)
}

fn replacing(name: &str, pattern: &str, repl: &str) -> AgentConfig {
    let rule = RuleText { name: name.into(), pattern: pattern.into(), repl: repl.into() };
    AgentConfig { replacer: Replacer::new(&[rule]).unwrap(), ..AgentConfig::default() }
}

#[test]
fn the_root_says_what_mode_the_payload_is_of() {
    for (mode, own, expected) in [
        ("edge", None, Some("edge")),
        ("EDGE", None, Some("EDGE")),
        ("cloud", None, None),
        ("edge", Some(""), Some("edge")),
        ("edge", Some("other"), Some("other")),
    ] {
        let span = json!({"trace_id": 1, "span_id": 2, "meta": {"_dd.apm_mode": mode}});
        let (mut b, _) = batch(&[span]);
        if let Some(own) = own {
            let (key, own) = (b.arena.push("_dd.apm_mode"), b.arena.push(own));
            b.resources[0].attrs = b.extend_range(Range32::default(), Attr { key, value: Value::Str(own) });
        }
        run(AgentConfig::default(), &mut b);
        assert_eq!(b.get_str(b.resources[0].attrs, "_dd.apm_mode"), expected, "{mode} {own:?}");
    }
}

#[test]
fn spans_under_the_roots_id_do_not_name_the_environment() {
    let root = json!({"trace_id": 1, "span_id": 2});
    let env = |id: u64| json!({"trace_id": 1, "span_id": id, "parent_id": 2, "meta": {"env": "prod"}});
    let (mut b, _) = batch(&[root.clone(), env(2)]);
    run(AgentConfig::default(), &mut b);
    assert_eq!(b.str(b.resources[0].env), "");
    let (mut b, _) = batch(&[root, env(3)]);
    run(AgentConfig::default(), &mut b);
    assert_eq!(b.str(b.resources[0].env), "prod");
}

#[test]
fn a_service_without_name_is_called_after_the_requests_language() {
    for (protocol, expected) in [
        (Protocol::DatadogV04, "unnamed-go-service"),
        (Protocol::DatadogV07, "unnamed-python-service"),
        (Protocol::DatadogV1, "unnamed-python-service"),
    ] {
        let (mut b, _) = batch(&[json!({"trace_id": 1, "span_id": 2, "service": ""})]);
        b.intake.protocol = protocol;
        b.client_language = b.arena.push("python");
        b.resources[0].language_name = b.arena.push("go");
        run(AgentConfig::default(), &mut b);
        assert_eq!(b.str(b.spans[0].service), expected, "{protocol:?}");
    }
}

#[test]
fn a_status_of_any_type_is_judged_in_v1() {
    let stays = |protocol, value| {
        let (mut b, _) = batch(&[json!({"trace_id": 1, "span_id": 2})]);
        b.intake.protocol = protocol;
        push(&mut b, 0, "http.status_code", value);
        run(AgentConfig::default(), &mut b);
        self::value(&b, b.spans[0].attrs, "http.status_code").is_some()
    };
    for (value, expected) in [
        (Value::Int(200), true),
        (Value::Int(99), false),
        (Value::Double(404.0), true),
        (Value::Double(404.5), false),
        (Value::Bool(true), false),
    ] {
        assert_eq!(stays(Protocol::DatadogV1, value), expected, "{value:?}");
    }
    assert!(stays(Protocol::DatadogV04, Value::Double(99.0)));
}

#[test]
fn long_keys_of_numbers_stay_whole_in_v1() {
    let longest = |protocol| {
        let (mut b, _) = batch(&[json!({"trace_id": 1, "span_id": 2})]);
        b.intake.protocol = protocol;
        push(&mut b, 0, &"k".repeat(300), Value::Double(1.0));
        run(AgentConfig::default(), &mut b);
        b.attrs(b.spans[0].attrs).iter().map(|a| a.key.len()).max()
    };
    assert_eq!((longest(Protocol::DatadogV04), longest(Protocol::DatadogV1)), (Some(203), Some(300)));
}

#[test]
fn fields_of_v1_that_are_tags_elsewhere_are_always_there_for_filters() {
    let fate = |protocol, entry: &str, require: bool| {
        let list = vec![TagEntry::parse(entry)];
        let (keep, drop) = if require { (list, Vec::new()) } else { (Vec::new(), list) };
        let (filters, bad) = TagFilters::new(keep, drop, Vec::new(), Vec::new());
        assert!(bad.is_empty());
        let (mut b, _) = batch(&[json!({"trace_id": 1, "span_id": 2})]);
        b.intake.protocol = protocol;
        push(&mut b, 0, "shard", Value::Int(7));
        run(AgentConfig { filters, ..AgentConfig::default() }, &mut b) == Fate::Kept
    };
    let (v04, v1) = (Protocol::DatadogV04, Protocol::DatadogV1);
    assert_eq!((fate(v04, "version", false), fate(v1, "version", false)), (true, false));
    assert_eq!((fate(v04, "span.kind", true), fate(v1, "span.kind", true)), (false, true));
    assert!(fate(v1, "span.kind:unknown", true));
    assert!(!fate(v1, "span.kind:client", true));
    assert!(fate(v1, "shard:7", true));
    // An empty value is none: the key alone decides.
    assert!(!fate(v1, "version:", false));
}

#[test]
fn replacements_in_v1_search_every_type_and_leave_fields_to_rules_of_their_name() {
    let replaced = |config, key: &str, make: &dyn Fn(&mut Batch) -> Value| {
        let (mut b, _) = batch(&[json!({"trace_id": 1, "span_id": 2, "meta": {"version": "v2"}})]);
        b.intake.protocol = Protocol::DatadogV1;
        let value = make(&mut b);
        push(&mut b, 0, key, value);
        run(config, &mut b);
        let version = b.get_str(b.spans[0].attrs, "version").unwrap().to_owned();
        let text = match self::value(&b, b.spans[0].attrs, key).unwrap() {
            Value::Str(t) => b.str(t).to_owned(),
            other => format!("{other:?}"),
        };
        (text, version)
    };
    let list = |b: &mut Batch| {
        let secret = Value::Str(b.arena.push("secret1"));
        b.values.extend([secret, Value::Bool(true)]);
        Value::List(Range32::new(0, 2))
    };
    let digits = || replacing("*", "[0-9]", "#");
    assert_eq!(replaced(digits(), "k", &list), ("[secret#,true]".into(), "v2".into()));
    assert_eq!(replaced(replacing("version", "2", "3"), "k", &|_| Value::Int(2)).1, "v3");
    let seven = |_: &mut Batch| Value::Int(7);
    assert_eq!(replaced(replacing("*", "7", "8"), "k", &seven).0, "Int(8)");
    assert_eq!(replaced(replacing("*", "7", "0.5"), "k", &seven).0, "Double(0.5)");
    assert_eq!(replaced(replacing("*", "7", "x"), "k", &seven).0, "x");
    // A rule of its name gives a tag the type that its text looks like.
    assert_eq!(replaced(replacing("k", "z", ""), "k", &|b| Value::Str(b.arena.push("12"))).0, "Int(12)");
    assert_eq!(replaced(replacing("*", "z", ""), "k", &|b| Value::Str(b.arena.push("12"))).0, "12");

    let (mut b, _) = batch(&[json!({"trace_id": 1, "span_id": 2})]);
    b.intake.protocol = Protocol::DatadogV1;
    let attr = Attr { key: b.arena.push("card"), value: Value::Int(42) };
    let attrs = b.extend_range(Range32::default(), attr);
    b.events.push(Event { attrs, ..Event::default() });
    b.spans[0].events = Range32::new(0, 1);
    run(replacing("*", "42", "hidden"), &mut b);
    assert_eq!(b.get_str(b.events[0].attrs, "card"), Some("hidden"));
}
