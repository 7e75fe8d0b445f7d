use super::*;
use proptest::prelude::*;
use spanloom_model::draft::{Draft, batch};
use spanloom_model::{Batch, SpanKind, Status};

const MS: i64 = 1_000_000;

/// shop/GET ─ shop/SELECT (pg), shop/charge ─ mail/send (event, failed)
fn trace() -> Batch {
    batch(&[
        Draft::new(1, 1)
            .service("shop")
            .name("GET /")
            .kind(SpanKind::Server)
            .start(1000 * MS)
            .lasting(250 * MS)
            .tag("http.status_code", 200)
            .tag("big", 9_007_199_254_740_993_i64)
            .process("cluster", "a"),
        Draft::new(1, 2)
            .parent(1)
            .service("shop")
            .name("SELECT")
            .kind(SpanKind::Client)
            .start(1001 * MS)
            .lasting(200 * MS)
            .tag("db.system", "pg")
            .tag("retry", true)
            .process("cluster", "a"),
        Draft::new(1, 3)
            .parent(1)
            .service("shop")
            .name("charge")
            .start(1002 * MS)
            .lasting(100 * MS)
            .tag("ratio", 0.5)
            .process("cluster", "a"),
        Draft::new(1, 4)
            .parent(3)
            .service("mail")
            .name("send")
            .kind(SpanKind::Producer)
            .start(1010 * MS)
            .lasting(10 * MS)
            .status(Status::Error)
            .status_message("declined")
            .scope("lib.x", "1.2")
            .event(1_012_000_000, "exception")
            .event_tag("exception.type", "E1")
            .link(0xfeed, 0xbeef)
            .process("cluster", "b"),
    ])
}

/// Ids of the spans that a query finds, by group.
fn groups(text: &str) -> Vec<Vec<u64>> {
    let batch = trace();
    let query = Query::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
    let view = View::new(&batch);
    let id = |at: &usize| batch.spans[*at].span_id.0;
    let found = query.find(&view);
    let found: Vec<Vec<u64>> = found.iter().map(|g| g.spans.iter().map(id).collect()).collect();
    // What the store is asked for lets through whatever is found.
    if !found.is_empty() {
        for needed in query.necessary() {
            let any = batch.chunks.iter().any(|c| {
                let resource = batch.resources.get(c.resource as usize);
                batch.chunk_spans(c).iter().any(|s| needed.matches(&batch, s, resource))
            });
            assert!(any, "{text}: {needed:?}");
        }
    }
    found
}

fn spans(text: &str) -> Vec<u64> {
    let mut all: Vec<u64> = groups(text).into_iter().flatten().collect();
    all.sort_unstable();
    all
}

#[test]
fn conditions_hold_on_single_spans() {
    for (query, ids) in [
        ("{}", &[1, 2, 3, 4][..]),
        ("{ true }", &[1, 2, 3, 4]),
        ("{ resource.service.name = \"shop\" }", &[1, 2, 3]),
        ("{ .service.name != \"shop\" }", &[4]),
        ("{ .http.status_code = 200 }", &[1]),
        ("{ span.http.status_code >= 200 && span.http.status_code < 300 }", &[1]),
        ("{ 200 = .http.status_code }", &[1]),
        ("{ .http.status_code = \"200\" }", &[]),
        ("{ .http.status_code != 404 }", &[1]),
        ("{ span.big = 9007199254740993 }", &[1]),
        ("{ span.big > 9007199254740992 }", &[1]),
        ("{ span.retry = true }", &[2]),
        ("{ span.retry }", &[2]),
        ("{ !span.retry }", &[]),
        ("{ !(span.retry = true) }", &[1, 3, 4]),
        ("{ span.ratio * 2 = 1 }", &[3]),
        ("{ resource.db.system = \"pg\" }", &[]),
        ("{ .db.system != nil }", &[2]),
        ("{ .db.system = nil }", &[1, 3, 4]),
        ("{ span.\"db.system\" = `pg` }", &[2]),
        ("{ name =~ \"GET.*\" }", &[1]),
        ("{ name =~ \"GET\" }", &[]),
        ("{ name !~ \"GET.*|SELECT\" }", &[3, 4]),
        ("{ .db.system !~ \"x\" }", &[2]),
        ("{ status = error }", &[4]),
        ("{ status != error }", &[1, 2, 3]),
        ("{ statusMessage = \"declined\" }", &[4]),
        ("{ kind = client || kind = producer }", &[2, 4]),
        ("{ duration > 100ms && kind = client }", &[2]),
        ("{ duration <= 10ms }", &[4]),
        ("{ span:childCount = 2 }", &[1]),
        ("{ nestedSetParent < 0 }", &[1]),
        ("{ traceDuration = 250ms && rootName = \"GET /\" && rootServiceName = \"shop\" }", &[1, 2, 3, 4]),
        ("{ trace:duration > 1s }", &[]),
        ("{ trace:id = \"00000000000000000000000000000001\" }", &[1, 2, 3, 4]),
        ("{ span:id = \"0000000000000002\" }", &[2]),
        ("{ span:parentID = \"0000000000000003\" }", &[4]),
        ("{ span:parentID = \"\" }", &[]),
        ("{ event:name = \"exception\" }", &[4]),
        ("{ event.exception.type = \"E1\" }", &[4]),
        ("{ event:timeSinceStart = 2ms }", &[4]),
        ("{ link:spanID = \"000000000000beef\" }", &[4]),
        ("{ instrumentation:name = \"lib.x\" && instrumentation:version = \"1.2\" }", &[4]),
        ("{ resource.cluster = \"b\" } with (most_recent=true)", &[4]),
        // Equal rank, from the left.
        ("{ name = \"send\" || name = \"charge\" && status = error }", &[4]),
    ] {
        assert_eq!(spans(query), ids, "{query}");
    }
}

#[test]
fn spansets_are_related_by_structure() {
    for (query, ids) in [
        ("{ .service.name = \"shop\" } >> { .service.name = \"mail\" }", &[4][..]),
        ("{ name = \"GET /\" } > { .service.name = \"mail\" }", &[]),
        ("{ name = \"GET /\" } > {}", &[2, 3]),
        ("{ name = \"send\" } << {}", &[1, 3]),
        ("{ name = \"send\" } < {}", &[3]),
        ("{ name = \"SELECT\" } ~ {}", &[3]),
        ("{ name = \"SELECT\" } ~ { name = \"SELECT\" }", &[]),
        ("{ name = \"GET /\" } !> {}", &[1, 4]),
        ("{ name = \"charge\" } !>> {}", &[1, 2, 3]),
        ("{ name = \"charge\" } &>> { status = error }", &[3, 4]),
        ("{ status = error } &<< { kind = server }", &[1, 4]),
        ("{ .service.name = \"shop\" } && { .service.name = \"mail\" }", &[1, 2, 3, 4]),
        ("{ .service.name = \"shop\" } && { .service.name = \"none\" }", &[]),
        ("{ name = \"send\" } || { name = \"none\" }", &[4]),
        ("({ kind = server } | count() > 0) >> { status = error }", &[4]),
    ] {
        assert_eq!(spans(query), ids, "{query}");
    }
}

#[test]
fn pipelines_group_and_filter() {
    for (query, found) in [
        ("{} | count() > 3", vec![vec![1, 2, 3, 4]]),
        ("{} | count() > 4", vec![]),
        ("{ kind = client } | avg(duration) = 200ms", vec![vec![2]]),
        ("{} | max(duration) >= 1s", vec![]),
        ("{} | min(span.ratio) < 1 - 0.25", vec![vec![1, 2, 3, 4]]),
        ("{} | sum(span.none) > 0", vec![]),
        ("{} | { status = error }", vec![vec![4]]),
        ("{} | by(resource.cluster)", vec![vec![1, 2, 3], vec![4]]),
        ("{} | by(resource.cluster) | count() > 1", vec![vec![1, 2, 3]]),
        ("{} | by(resource.cluster) | coalesce()", vec![vec![1, 2, 3, 4]]),
        ("{ status = error } | select(.cluster, name)", vec![vec![4]]),
        ("count() = 4", vec![vec![1, 2, 3, 4]]),
    ] {
        assert_eq!(groups(query), found, "{query}");
    }
    let batch = trace();
    let query = Query::parse("{ .a = 1 && span.a = 2 } | by(name) | select(.a, status)").unwrap();
    let mentioned: Vec<String> = query.mentioned().iter().map(label).collect();
    assert_eq!(mentioned, [".a", "span.a", "name", "status"]);
    let grouped = Query::parse("{ kind = client } | by(.db.system)").unwrap().find(&View::new(&batch));
    assert_eq!(grouped[0].by, [(".db.system".to_owned(), Val::Str("pg".into()))]);
}

/// From tempo:pkg/traceql/test_examples.yaml, in our words.
#[test]
fn what_is_wrong_is_named_with_its_place() {
    for (query, at, text) in [
        ("{ status = ", 12, "unexpected the end, expected a value"),
        ("true", 1, "unexpected `true`"),
        ("{ attribute = 4 }", 3, "unknown name `attribute`; attributes begin with a dot"),
        ("{ .a == 4 }", 7, "unexpected `=`"),
        ("{ . }", 3, "unexpected `.`"),
        ("{ span. }", 8, "an attribute has no name"),
        ("{ .a < 3", 9, "expected }"),
        ("{ true } + { true }", 10, "unexpected `+`"),
        ("{ true } | count()", 19, "expected a comparison"),
        ("coalesce() | { true }", 1, "cannot begin with coalesce"),
        ("select()", 9, "does not take 0 arguments"),
        ("{ 1 = \"foo\" }", 3, "a number cannot be compared with a text"),
        ("{ kind = \"server\" }", 3, "a kind cannot be compared with a text"),
        ("{ status > ok }", 3, "with = and != only"),
        ("{ 1 + 1 }", 3, "a condition is true or false, this is a number"),
        ("{ resource.service.name = nil }", 3, "only attributes can be nil"),
        ("{ span.foo =~ \"[\" }", 15, "not a regular expression"),
        ("{ true } | by(1)", 17, "must mention something of the span"),
        ("sum(3) = 2", 8, "must mention something of the span"),
        ("{} | rate()", 6, "metrics (rate) are not supported"),
        ("{ parent.a != 3 }", 3, "attributes of the parent are not supported"),
        ("min(.field) < max(duration)", 15, "two aggregates"),
        ("{ name = \"x }", 14, "a text has no end"),
        ("{ duration > 5parsecs }", 22, "unknown unit"),
    ] {
        let error = Query::parse(query).unwrap_err().0;
        let place = format!("parse error at line 1, col {at}: ");
        assert!(error.contains(&place) && error.contains(text), "{query}: {error}");
    }
    let deep = format!("{{ {}true{} }}", "(".repeat(500), ")".repeat(500));
    assert!(Query::parse(&deep).unwrap_err().0.contains("nested more than"));
    for long in [format!("{{ .a{} }}", " && .a".repeat(300)), format!("{{}}{}", " >> {}".repeat(300))] {
        assert!(Query::parse(&long).unwrap_err().0.contains("more than 256 operators"));
    }
    let many: String = (0..101).map(|i| format!("k{i}=v ")).collect();
    assert_eq!(Query::of_tags(&many, "", "").unwrap_err().0, "invalid tags: more than 100");
}

#[test]
fn tags_of_the_older_search_are_texts() {
    let batch = trace();
    let view = View::new(&batch);
    let found = |tags, min, max| {
        let query = Query::of_tags(tags, min, max).unwrap();
        query.find(&view).iter().map(|g| g.spans.len()).sum::<usize>()
    };
    assert_eq!(found("", "", ""), 4);
    assert_eq!(found("service.name=shop http.status_code=200", "", ""), 1);
    assert_eq!(found("name=\"GET /\" root.service.name=shop", "", ""), 1);
    assert_eq!(found("error=true", "", ""), 1);
    assert_eq!(found("retry=true", "250ms", "1s"), 1);
    assert_eq!(found("", "251ms", ""), 0);
    for (tags, text) in [
        ("a", "invalid tags: expected key=value at pos 1"),
        ("a=1 a=2", "invalid tags: tag a has been set twice"),
        ("a=\"b", "invalid tags: a quote has no end at pos 1"),
    ] {
        assert_eq!(Query::of_tags(tags, "", "").unwrap_err().0, text);
    }
    assert!(Query::of_tags("", "x", "").unwrap_err().0.starts_with("invalid minDuration: "));
    let swapped = Query::of_tags("", "2s", "1s").unwrap_err().0;
    assert_eq!(swapped, "invalid maxDuration: must be greater than minDuration");
}

#[test]
fn tags_are_named_as_clients_name_them() {
    for (name, shown) in [
        (".a.b", ".a.b"),
        ("a", ".a"),
        ("http.method", ".http.method"),
        ("span.a", "span.a"),
        ("resource.service.name", "resource.service.name"),
        ("span.\"a b\"", "span.a b"),
        ("status", "status"),
        ("span:name", "name"),
    ] {
        assert_eq!(label(&tag(name)), shown, "{name}");
    }
}

proptest! {
    #[test]
    fn no_text_is_too_strange(text in "[{}()=~!<>&|^,.\"`a-z0-9 :+*/%-]{0,60}") {
        if let Ok(query) = Query::parse(&text) {
            let batch = trace();
            let found = query.find(&View::new(&batch));
            let spans: Vec<_> = found.iter().flat_map(|g| &g.spans).collect();
            prop_assert!(spans.iter().all(|at| **at < batch.spans.len()));
        }
        let _ = Query::of_tags(&text, "", "");
    }
}
