//! A trace as a waterfall in the terminal.

use serde_json::Value as Json;
use std::collections::BTreeMap;
use std::fmt::Write;

/// How to draw.
#[derive(Clone, Copy)]
pub struct Style {
    /// Columns of the terminal.
    pub width: usize,
    /// Colour (only on a terminal).
    pub color: bool,
    /// Every attribute below its span.
    pub verbose: bool,
}

struct Row<'a> {
    span: &'a Json,
    service: &'a str,
    name: String,
    start: f64,
    duration: f64,
    error: bool,
}

/// Draws one trace of the Jaeger API's JSON (`data[0]`).
pub fn draw(trace: &Json, style: Style) -> String {
    let rows: Vec<Row<'_>> = trace["spans"].as_array().into_iter().flatten().map(|s| row(trace, s)).collect();
    let Some(first) = rows.iter().map(|r| r.start).min_by(f64::total_cmp) else {
        return "The trace has no spans.\n".into();
    };
    let last = rows.iter().map(|r| r.start + r.duration).fold(first, f64::max);
    let total = (last - first).max(1.0);
    let order = tree(&rows);
    let errors = rows.iter().filter(|r| r.error).count();
    let mut services: Vec<&str> = rows.iter().map(|r| r.service).collect();
    services.sort_unstable();
    services.dedup();

    let mut out = String::new();
    let id = trace["traceID"].as_str().unwrap_or_default();
    let _ = writeln!(
        out,
        "trace {id}  {}  {} in {}{}",
        time(total),
        count(rows.len(), "span"),
        count(services.len(), "service"),
        if errors > 0 { format!("  {}", paint(style, "31", &count(errors, "error"))) } else { String::new() }
    );
    let label_width =
        order.iter().map(|(i, depth)| depth * 2 + label(&rows[*i]).chars().count()).max().unwrap_or(0);
    let label_width = label_width.min(style.width * 55 / 100).max(16);
    let bar_width = style.width.saturating_sub(label_width + 14).max(10);
    for (i, depth) in order {
        let r = &rows[i];
        let text = format!("{}{}", "  ".repeat(depth), label(r));
        let text = fit(&text, label_width);
        let at = ((r.start - first) / total * bar_width as f64).floor() as usize;
        let at = at.min(bar_width - 1);
        let len = ((r.duration / total * bar_width as f64).round() as usize).clamp(1, bar_width - at);
        let bar = format!("{}{}{}", " ".repeat(at), "━".repeat(len), " ".repeat(bar_width - at - len));
        let color = if r.error { "31".to_owned() } else { service_color(&services, r.service) };
        let mark = if r.error { "✗" } else { " " };
        let _ = writeln!(out, "{text} {mark}{} {:>9}", paint(style, &color, &bar), time(r.duration));
        if style.verbose {
            details(&mut out, r, depth);
        }
    }
    out
}

fn details(out: &mut String, r: &Row<'_>, depth: usize) {
    let pad = "  ".repeat(depth + 2);
    for tag in r.span["tags"].as_array().into_iter().flatten() {
        let value = &tag["value"];
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _ = writeln!(
            out,
            "{pad}{} = {}",
            tag["key"].as_str().unwrap_or_default(),
            one_line(&text.replace('\n', "\\n"))
        );
    }
    for log in r.span["logs"].as_array().into_iter().flatten() {
        let at = log["timestamp"].as_f64().unwrap_or(0.0) - r.start;
        let fields: Vec<String> = log["fields"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|f| format!("{}={}", f["key"].as_str().unwrap_or_default(), f["value"]))
            .collect();
        let _ = writeln!(out, "{pad}+{} {}", time(at), fields.join(" "));
    }
}

fn row<'a>(trace: &'a Json, span: &'a Json) -> Row<'a> {
    let tag = |key: &str| {
        span["tags"].as_array().into_iter().flatten().find(|t| t["key"] == key).map(|t| &t["value"])
    };
    let process = span["processID"].as_str().unwrap_or_default();
    let name = span["operationName"].as_str().unwrap_or_default();
    let resource = tag("resource.name").and_then(Json::as_str).filter(|r| !r.is_empty() && *r != name);
    Row {
        span,
        service: trace["processes"][process]["serviceName"].as_str().unwrap_or("?"),
        name: resource.map_or_else(|| name.to_owned(), |r| format!("{name} · {r}")),
        start: span["startTime"].as_f64().unwrap_or(0.0),
        duration: span["duration"].as_f64().unwrap_or(0.0),
        error: tag("error").is_some_and(|v| *v == true || *v == "true"),
    }
}

/// Rows in the order of a waterfall, with their depth. Spans whose parent did
/// not arrive stand at depth 0; a loop cannot keep a span from being shown.
fn tree(rows: &[Row<'_>]) -> Vec<(usize, usize)> {
    let id = |r: &Row<'_>| r.span["spanID"].as_str().unwrap_or_default().to_owned();
    // Who only follows another span is shown below it too, as elsewhere.
    let parent = |r: &Row<'_>| {
        let named = |kind: &str| {
            let references = r.span["references"].as_array().into_iter().flatten();
            let mut here = references.filter(|x| x["traceID"] == r.span["traceID"]);
            here.find(|x| x["refType"] == kind)?["spanID"].as_str().map(str::to_owned)
        };
        named("CHILD_OF").or_else(|| named("FOLLOWS_FROM"))
    };
    let known: BTreeMap<String, usize> = rows.iter().enumerate().map(|(i, r)| (id(r), i)).collect();
    let mut children: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    let mut roots = Vec::new();
    for (i, r) in rows.iter().enumerate() {
        match parent(r).and_then(|p| known.get(&p)) {
            Some(p) if *p != i => children.entry(*p).or_default().push(i),
            _ => roots.push(i),
        }
    }
    let by_start = |a: &usize, b: &usize| rows[*a].start.total_cmp(&rows[*b].start).then(a.cmp(b));
    roots.sort_by(by_start);
    children.values_mut().for_each(|c| c.sort_by(by_start));
    let mut order = Vec::with_capacity(rows.len());
    let mut seen = vec![false; rows.len()];
    let mut starts = roots;
    starts.extend(0..rows.len());
    for start in starts {
        let mut stack = vec![(start, 0)];
        while let Some((i, depth)) = stack.pop() {
            if std::mem::replace(&mut seen[i], true) {
                continue;
            }
            order.push((i, depth));
            stack.extend(children.get(&i).into_iter().flatten().rev().map(|c| (*c, depth + 1)));
        }
    }
    order
}

fn label(r: &Row<'_>) -> String {
    format!("{} {}", r.service, one_line(&r.name))
}

fn fit(text: &str, width: usize) -> String {
    let n = text.chars().count();
    if n <= width {
        return format!("{text}{}", " ".repeat(width - n));
    }
    text.chars().take(width - 1).chain(['…']).collect()
}

/// What clients sent, on one line: characters that steer a terminal become blanks.
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Microseconds as people read them.
pub fn time(us: f64) -> String {
    if us < 1000.0 {
        format!("{us:.0}µs")
    } else if us < 1_000_000.0 {
        format!("{:.1}ms", us / 1000.0)
    } else {
        format!("{:.2}s", us / 1_000_000.0)
    }
}

/// `1 span`, `2 spans`.
pub fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn service_color(services: &[&str], service: &str) -> String {
    const COLORS: [&str; 6] = ["36", "32", "33", "35", "34", "96"];
    let i = services.iter().position(|s| *s == service).unwrap_or(0);
    COLORS[i % COLORS.len()].into()
}

fn paint(style: Style, code: &str, text: &str) -> String {
    if style.color { format!("\x1b[{code}m{text}\x1b[0m") } else { text.into() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn span(id: &str, parent: Option<&str>, start: u64, duration: u64, tags: Json) -> Json {
        let references: Vec<Json> =
            parent.iter().map(|p| json!({"refType": "CHILD_OF", "traceID": "t", "spanID": p})).collect();
        json!({"traceID": "t", "spanID": id, "operationName": id, "references": references, "startTime": start,
               "duration": duration, "tags": tags, "logs": [], "processID": "p1"})
    }

    #[test]
    fn children_stand_below_their_parent_with_bars_in_proportion() {
        let trace = json!({"traceID": "t", "processes": {"p1": {"serviceName": "shop"}}, "spans": [
            span("child", Some("root"), 1500, 500, json!([{"key": "error", "value": true}])),
            span("root", None, 1000, 1000, json!([{"key": "resource.name", "value": "GET /"}])),
        ]});
        let text = draw(&trace, Style { width: 60, color: false, verbose: false });
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0], "trace t  1.0ms  2 spans in 1 service  1 error");
        assert!(lines[1].starts_with("shop root · GET /") && lines[1].ends_with("1.0ms"), "{text}");
        assert!(
            lines[2].starts_with("  shop child") && lines[2].contains('✗') && lines[2].ends_with("500µs"),
            "{text}"
        );
        let bars = |line: &str| line.matches('━').count();
        assert_eq!(bars(lines[2]), bars(lines[1]).div_ceil(2), "half as long");
    }

    #[test]
    fn who_only_follows_a_span_stands_below_it() {
        let mut follower = span("follower", None, 1800, 100, json!([]));
        let reference = |kind, trace, id| json!({"refType": kind, "traceID": trace, "spanID": id});
        follower["references"] =
            json!([reference("CHILD_OF", "another", "x"), reference("FOLLOWS_FROM", "t", "root")]);
        let mut child = span("child", None, 1500, 100, json!([]));
        child["references"] =
            json!([reference("FOLLOWS_FROM", "t", "follower"), reference("CHILD_OF", "t", "root")]);
        let trace = json!({"traceID": "t", "processes": {"p1": {"serviceName": "shop"}},
                           "spans": [span("root", None, 1000, 1000, json!([])), follower, child]});
        let text = draw(&trace, Style { width: 60, color: false, verbose: false });
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[2].starts_with("  shop child") && lines[3].starts_with("  shop follower"), "{text}");
    }

    #[test]
    fn orphans_and_loops_are_shown_once() {
        let trace = json!({"traceID": "t", "processes": {}, "spans": [
            span("a", Some("b"), 1, 1, json!([])), span("b", Some("a"), 2, 1, json!([])),
            span("c", Some("missing"), 3, 1, json!([])),
        ]});
        let text = draw(&trace, Style { width: 80, color: true, verbose: true });
        assert_eq!(text.lines().count(), 4, "{text}");
    }
}
