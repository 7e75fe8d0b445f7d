//! Commands that ask a running Spanloom: status, search, trace, why.

use crate::cli::{Command, SearchArgs};
use crate::settings::Settings;
use crate::waterfall::{self, Style};
use crate::{remote, report, services};
use serde_json::Value as Json;
use spanloom_query::print_rfc3339;
use std::fmt::Write;
use std::io::IsTerminal;

/// Runs such a command; the text is for standard output.
pub fn run(s: &Settings, command: &Command) -> Result<String, String> {
    match command {
        Command::Status { json } => {
            let status = ask(s.admin(), "admin.address", "/status")?;
            Ok(if *json { pretty(&status) } else { report::draw(&status) })
        }
        Command::Search(args) => search(s, args),
        Command::Trace { id, json, verbose } => {
            let id = trace_id(id)?;
            let (status, answer) =
                remote::get(s.query_address.0, "query.address", &format!("/api/traces/{id}"))?;
            if status == 404 {
                return Err(format!(
                    "no trace {id} is stored; `spanloom why {id}` tells whether it ever arrived"
                ));
            }
            let answer = check(status, answer)?;
            let trace = answer["data"].get(0).ok_or("the answer holds no trace")?;
            if *json {
                return Ok(pretty(trace));
            }
            Ok(waterfall::draw(trace, style(*verbose)))
        }
        Command::Services(args) => {
            let mut path = format!("/api/spanloom/v1/red?since={}", remote::encode(&args.since));
            if let Some(service) = &args.service {
                let _ = write!(path, "&service={}", remote::encode(service));
            }
            if args.all {
                path.push_str("&spans=all");
            }
            let (status, answer) = of_any(s, http::Method::GET, &path)?;
            let answer = check(status, answer)?;
            if args.json {
                return Ok(pretty(&answer));
            }
            Ok(services::draw(&answer, args, std::io::stdout().is_terminal()))
        }
        Command::Why { id, json } => {
            let id = trace_id(id)?;
            let path = format!("/api/spanloom/v1/why/{id}");
            let (status, answer) = of_any(s, http::Method::GET, &path)?;
            let why = check(status, answer)?;
            if *json { Ok(pretty(&why)) } else { Ok(draw_why(&why)) }
        }
        Command::Keep { id } => {
            let id = trace_id(id)?;
            let path = format!("/api/spanloom/v1/traces/{id}/keep");
            let (status, answer) = of_any(s, http::Method::POST, &path)?;
            let answer = check(status, answer)?;
            Ok(format!("{}\n", answer["summary"].as_str().unwrap_or("kept")))
        }
        Command::Run | Command::Agent | Command::Check { .. } => Err("not a question".into()),
    }
}

fn ask(address: Option<std::net::SocketAddr>, setting: &str, path: &str) -> Result<Json, String> {
    let (status, answer) = remote::get(address, setting, path)?;
    check(status, answer)
}

/// Asks the admin address, which every Spanloom has, else the query address.
fn of_any(s: &Settings, method: http::Method, path: &str) -> Result<(u16, Json), String> {
    let admin = remote::call(method.clone(), s.admin_address.0, "admin.address", path);
    let Err(of_admin) = admin else { return admin };
    remote::call(method, s.query_address.0, "query.address", path).map_err(|_| of_admin)
}

fn check(status: u16, answer: Json) -> Result<Json, String> {
    if status == 200 {
        return Ok(answer);
    }
    let text = answer["error"]["message"]
        .as_str()
        .or_else(|| answer["error"].as_str())
        .or_else(|| answer["errors"][0]["msg"].as_str())
        .map_or_else(|| answer.to_string(), str::to_owned);
    Err(text)
}

fn pretty(json: &Json) -> String {
    serde_json::to_string_pretty(json).unwrap_or_default() + "\n"
}

fn style(verbose: bool) -> Style {
    let color = std::io::stdout().is_terminal();
    let width = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok()).unwrap_or(120);
    Style { width: width.clamp(60, 400), color, verbose }
}

/// Hexadecimal with 16 or 32 digits (any number up to 32), or a Datadog decimal
/// id, which has more than 16 digits or is not hexadecimal by its length.
fn trace_id(text: &str) -> Result<String, String> {
    let text = text.trim();
    let wrong =
        || format!("`{text}` is no trace id: expected up to 32 hexadecimal digits, or a Datadog decimal id");
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let decimal = text.bytes().all(|b| b.is_ascii_digit());
    match text.len() {
        16 | 32 => Ok(text.to_ascii_lowercase()),
        17..=20 if decimal => text.parse::<u64>().map(|n| format!("{n:016x}")).map_err(|_| wrong()),
        0..=31 => Ok(text.to_ascii_lowercase()),
        _ => Err(wrong()),
    }
}

fn search(s: &Settings, args: &SearchArgs) -> Result<String, String> {
    let query = args.query.join(" ");
    let path = format!(
        "/api/spanloom/v1/search?q={}&since={}&limit={}",
        remote::encode(&query),
        remote::encode(&args.since),
        args.limit
    );
    let found = ask(s.query_address.0, "query.address", &path)?;
    if args.json {
        return Ok(pretty(&found));
    }
    let traces = found["traces"].as_array().cloned().unwrap_or_default();
    if traces.is_empty() {
        return Ok(format!(
            "No traces in the last {}{}. `spanloom status` shows what came in; --since looks further back.\n",
            args.since,
            if query.is_empty() { String::new() } else { format!(" for: {query}") }
        ));
    }
    let color = std::io::stdout().is_terminal();
    let mut out = String::new();
    for t in &traces {
        let number = |k: &str| t[k].as_u64().or_else(|| t[k].as_str()?.parse().ok()).unwrap_or(0);
        let root = |k: &str| t["root"][k].as_str().unwrap_or_default();
        let name = match (root("service"), root("name"), root("resource")) {
            ("", "", _) => "(root not received)".to_owned(),
            (service, name, "") => format!("{service} {name}"),
            (service, name, resource) => format!("{service} {name} · {resource}"),
        };
        let errors = number("errors");
        let mark = match (errors > 0, color) {
            (true, true) => format!("  \x1b[31m{}\x1b[0m", waterfall::count(errors as usize, "error")),
            (true, false) => format!("  {}", waterfall::count(errors as usize, "error")),
            (false, _) => String::new(),
        };
        let _ = writeln!(
            out,
            "{}  {}  {:>9}  {:>6}  {}{mark}",
            clock(number("start")),
            t["traceId"].as_str().unwrap_or_default(),
            waterfall::time(number("duration") as f64 / 1000.0),
            number("spans"),
            waterfall::one_line(&name),
        );
    }
    let _ = writeln!(out, "{}; `spanloom trace ID` shows one", waterfall::count(traces.len(), "trace"));
    Ok(out)
}

/// Time of day in UTC.
fn clock(nanos: u64) -> String {
    let ms = nanos / 1_000_000;
    let (s, ms) = (ms / 1000, ms % 1000);
    format!("{:02}:{:02}:{:02}.{ms:03}", s / 3600 % 24, s / 60 % 60, s % 60)
}

fn draw_why(why: &Json) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{}", why["summary"].as_str().unwrap_or("nothing is known of this trace"));
    for d in why["decisions"].as_array().into_iter().flatten() {
        let text = |k: &str| d[k].as_str().unwrap_or_default();
        let number = |k: &str| d[k].as_u64().or_else(|| d[k].as_str()?.parse().ok()).unwrap_or(0);
        let rate = d["rate"].as_f64().map_or(String::new(), |r| format!(" at rate {r}"));
        let place = match text("destination") {
            "" => String::new(),
            place => format!(" ({place})"),
        };
        let spans = match number("spans") {
            0 => String::new(),
            n => format!(", {}", waterfall::count(n as usize, "span")),
        };
        let _ = writeln!(
            out,
            "  {} {}  {}{place} by {}{rate}{spans}",
            date(number("at")),
            clock(number("at")),
            text("outcome").replace('_', " "),
            text("rule"),
        );
    }
    out
}

/// A time as people read it, in UTC.
pub fn moment(nanos: i64) -> String {
    let nanos = nanos.max(0) as u64;
    format!("{} {}", date(nanos), clock(nanos))
}

/// Day in UTC.
fn date(nanos: u64) -> String {
    let mut text = print_rfc3339(i64::try_from(nanos).unwrap_or(i64::MAX));
    text.truncate(text.find('T').unwrap_or(0));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_written_as_people_write_it() {
        let day = 86_400_000_000_000;
        assert_eq!(date(0), "1970-01-01");
        assert_eq!(date(11_016 * day), "2000-02-29");
        assert_eq!(date(20_453 * day + 5), "2025-12-31");
    }

    #[test]
    fn ids_are_read_as_people_paste_them() {
        assert_eq!(trace_id("640CFD8D00000000B1A2C3D4E5F60718").unwrap(), "640cfd8d00000000b1a2c3d4e5f60718");
        assert_eq!(trace_id("12345678901234567890").unwrap(), "ab54a98ceb1f0ad2");
        assert_eq!(trace_id("ab").unwrap(), "ab");
        assert!(trace_id("xyz").unwrap_err().contains("no trace id"));
    }
}
