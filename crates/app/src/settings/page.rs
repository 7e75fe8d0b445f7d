//! docs/settings.md, written from the table (`spanloom check --docs`).

use super::features::{FEATURES, UNHONOURED};
use super::{Settings, unhonoured};
use std::fmt::Write;

const INTRO: &str = "\
# Settings

This page is written by `spanloom check --docs`; `make unit` fails when it is not up to date.

From lowest to highest: built-in default; `datadog.yaml` (`--datadog-config`); `spanloom.yaml` (`--config`); environment
(`DD_*` with the Agent's names and meanings, then `SPANLOOM_*`); flags (`--set key=value` reaches every setting). Of several
variables the first that is set wins; a key without a `DD_` variable of its own also has the Agent's derived one (`DD_` and the
key in capitals, `_` for `.`). An empty variable counts as not set, except for sockets, where it means \"off\".

`spanloom check` prints what differs from the defaults and where it was read; `spanloom check --all` prints and explains
every setting; `--json` is for machines. A wrong value is an error that names the key, the value, what is accepted, and where
it was read; an unknown key names the nearest known one. A setting of the Agent that has no effect here is a warning that says
why, and what to use instead.

Where to listen is by default loopback and each ecosystem's own [port](#ports); port 0 switches a listener off. `data_dir` is
`/var/lib/spanloom` for root, else `$XDG_DATA_HOME/spanloom`.

| key | variables | default | accepts | meaning |
|---|---|---|---|---|
";

const FLAGS: &str = "
## Feature flags

In `apm_config.features` (`DD_APM_FEATURES`), separated by commas or blanks. An unknown one is a warning.

| flag | effect |
|---|---|
";

const PORTS: &str = "
## Ports

| port | key | what |
|---|---|---|
| 8126, Unix socket | `apm_config.receiver_port`, `apm_config.receiver_socket` | Datadog trace API |
| 9411 | `zipkin.address` | Zipkin collector and query API |
| 4317, 4318 | `otlp_grpc.address`, `otlp_http.address` | OTLP |
| 14268, 14250 | `jaeger_http.address`, `jaeger_grpc.address` | Jaeger: Thrift over HTTP; gRPC, remote sampling too |
| 6831/udp, 6832/udp | `jaeger_compact.address`, `jaeger_binary.address` | Jaeger: Thrift in datagrams |
| 5778, 5779 | `jaeger_sampling.address`, `jaeger_sampling_grpc.address` | Jaeger remote sampling: HTTP (any path, `?service=`); gRPC |
| 16686 | `query.address` | Jaeger query API, our own API |
| 5012 | `admin.address` | health, readiness, metrics, status |
";

/// The page.
pub fn page() -> String {
    let mut out = String::from(INTRO);
    for entry in Settings::default().entries() {
        let field = entry.field;
        let variables: Vec<String> = field.env.iter().map(|e| format!("`{e}`")).collect();
        let default = match entry.value.as_str() {
            "" | "[]" => String::new(),
            value => format!("`{}`", cell(value)),
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            out,
            "| `{}` | {} | {default} | {} | {} |",
            field.key,
            variables.join(", "),
            cell(field.accepts),
            cell(field.doc.trim())
        );
    }
    for u in unhonoured::ALL {
        let variables: Vec<String> = u.env.iter().map(|e| format!("`{e}`")).collect();
        let (why, instead) = (cell(u.why), cell(u.instead));
        let dot = if instead.is_empty() { "" } else { "; " };
        let _ = writeln!(
            out,
            "| `{}` | {} | | | **No effect**: {why}{dot}{instead}. |",
            u.key,
            variables.join(", ")
        );
    }
    out.push_str(FLAGS);
    for (flag, effect) in FEATURES {
        let _ = writeln!(out, "| `{flag}` | {} |", cell(effect));
    }
    for (flag, why) in UNHONOURED {
        let _ = writeln!(out, "| `{flag}` | **No effect**: {} |", cell(why));
    }
    out.push_str(PORTS);
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_up_to_date() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
        let there = std::fs::read_to_string(path).unwrap();
        assert!(
            there == page(),
            "docs/settings.md is not up to date: `make settings-page` writes it (spanloom check --docs > docs/settings.md)"
        );
    }
}
