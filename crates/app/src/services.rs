//! `spanloom services`: requests, errors and latencies as a table.

use crate::cli::ServicesArgs;
use crate::waterfall;
use serde_json::Value as Json;
use std::fmt::Write;

/// One line of the table.
struct Row {
    name: String,
    requests: u64,
    errors: u64,
    /// p50, p95, p99, microseconds.
    latencies: [f64; 3],
}

/// The answer as a table, the busiest first.
pub fn draw(answer: &Json, args: &ServicesArgs, color: bool) -> String {
    let nanos = |key: &str| answer[key].as_str().and_then(|t| t.parse::<i64>().ok()).unwrap_or(0);
    let seconds = (nanos("end") - nanos("start")).max(1) as f64 / 1e9;
    let mut rows: Vec<Row> = answer["series"].as_array().into_iter().flatten().map(row).collect();
    if rows.is_empty() {
        let of = args.service.as_ref().map_or(String::new(), |s| format!(" of `{s}`"));
        return format!(
            "No requests{of} in the last {}. `spanloom status` shows what came in; --since looks further back.\n",
            args.since
        );
    }
    rows.sort_by(|a, b| b.requests.cmp(&a.requests).then_with(|| a.name.cmp(&b.name)));
    let what = if args.service.is_some() { "OPERATION, RESOURCE" } else { "SERVICE" };
    let width = rows.iter().map(|r| r.name.chars().count()).max().unwrap_or(0).clamp(what.len(), 60);
    let mut out = String::new();
    let [requests, rate, errors] = ["REQUESTS", "PER S", "ERRORS"];
    let _ = writeln!(
        out,
        "{what:<width$}  {requests:>9}  {rate:>8}  {errors:>7}  {:>9}  {:>9}  {:>9}",
        "P50", "P95", "P99"
    );
    for r in &rows {
        let share = format!("{:.1} %", 100.0 * r.errors as f64 / r.requests.max(1) as f64);
        let errors = match (r.errors, color) {
            (0, _) => format!("{:>7}", "0"),
            (_, true) => format!("\x1b[31m{share:>7}\x1b[0m"),
            (_, false) => format!("{share:>7}"),
        };
        let [p50, p95, p99] = r.latencies.map(waterfall::time);
        let rate = r.requests as f64 / seconds;
        let rate = match rate {
            0.0..0.01 if r.requests > 0 => "<0.01".to_owned(),
            0.0..10.0 => format!("{rate:.2}"),
            _ => format!("{rate:.0}"),
        };
        let _ = writeln!(
            out,
            "{:<width$}  {:>9}  {rate:>8}  {errors}  {p50:>9}  {p95:>9}  {p99:>9}",
            shorten(&r.name, width),
            r.requests,
        );
    }
    let _ = match &args.service {
        None => writeln!(
            out,
            "{} in the last {}; `spanloom services NAME` shows what one does",
            waterfall::count(rows.len(), "service"),
            args.since
        ),
        Some(service) => writeln!(
            out,
            "{} of {service} in the last {}; `spanloom search '{}'` shows traces",
            waterfall::count(rows.len(), "resource"),
            args.since,
            query(service)
        ),
    };
    out
}

fn row(series: &Json) -> Row {
    let text = |key: &str| series[key].as_str().unwrap_or_default();
    // One point: the whole time.
    let point = &series["points"][0];
    let number = |key: &str| point[key].as_u64().unwrap_or(0);
    let micros = |key: &str| point[key].as_f64().unwrap_or(0.0) / 1e3;
    let name = match (text("operation"), text("resource")) {
        ("", "") => text("service").to_owned(),
        (operation, "") => operation.to_owned(),
        (operation, resource) if operation == resource => operation.to_owned(),
        (operation, resource) => format!("{operation} · {resource}"),
    };
    let name = if name.is_empty() { "(no name)".to_owned() } else { waterfall::one_line(&name) };
    Row {
        name,
        requests: number("requests"),
        errors: number("errors"),
        latencies: ["p50", "p95", "p99"].map(micros),
    }
}

/// A search for a service, in the query language.
fn query(service: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_');
    if service.chars().all(plain) { format!("service:{service}") } else { format!("service:\"{service}\"") }
}

fn shorten(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(std::iter::once('…')).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn args(service: Option<&str>) -> ServicesArgs {
        ServicesArgs { service: service.map(str::to_owned), since: "1h".into(), all: false, json: false }
    }

    #[test]
    fn a_table_has_the_busiest_first_and_says_what_to_do_next() {
        let point = |n: u64, errors: u64| json!([{"requests": n, "errors": errors, "p50": 1.5e6, "p95": 2e6, "p99": 3e6}]);
        let answer = json!({
            "start": "0", "end": "3600000000000",
            "series": [
                {"service": "a\u{1b}[2J", "points": point(36, 0)},
                {"service": "shop", "points": point(72_000, 720)},
            ],
        });
        let table = draw(&answer, &args(None), false);
        let lines: Vec<&str> = table.lines().collect();
        assert!(
            lines[1].starts_with("shop") && lines[1].contains(" 20  ") && lines[1].contains("1.0 %"),
            "{table}"
        );
        assert!(
            lines[2].starts_with("a [2J ") && lines[2].contains("0.01"),
            "a terminal is not steered: {table}"
        );
        assert!(lines[3].contains("2 services") && lines[3].contains("spanloom services NAME"), "{table}");
        assert_eq!(query("my shop"), "service:\"my shop\"");
        let none = draw(&json!({"series": []}), &args(Some("x")), false);
        assert!(none.contains("No requests of `x`") && none.contains("--since"), "{none}");
    }
}
