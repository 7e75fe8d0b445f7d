//! Every case of `fixtures/vectors`, one test per operation, reporting all
//! failing cases.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::Value;
use spanloom_obfuscator::*;

/// The cases of one operation from a vector file.
fn cases(file: &str, op: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/vectors").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let doc: Value = serde_json::from_str(&text).unwrap();
    doc["cases"].as_array().unwrap().iter().filter(|case| case["op"] == op).cloned().collect()
}

/// Runs all cases; `run` returns what came out and whether that is right.
fn check(op: &str, files: &[&str], at_least: usize, run: impl Fn(&Value) -> (String, bool)) {
    let mut failures = String::new();
    let mut seen = 0;
    let mut failed = 0;
    for case in files.iter().flat_map(|file| cases(file, op)) {
        seen += 1;
        let (got, right) = run(&case);
        if !right {
            failed += 1;
            let _ = write!(
                failures,
                "\n{} {}\n  input    {}\n  expected {}\n  got      {got:?}\n",
                case["id"], case["config"], case["input"], case["expected"]
            );
        }
    }
    assert!(seen >= at_least, "{op}: only {seen} cases");
    assert!(failed == 0, "{op}: {failed} of {seen} fail\n{failures}");
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}"))
}

/// A text, or bytes in hexadecimal.
fn bytes(value: &Value) -> Vec<u8> {
    let Some(hex) = value["hex"].as_str() else { return text(value).into() };
    (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

fn flag(config: &Value, key: &str) -> bool {
    config[key].as_bool().unwrap_or(false)
}

fn strings(config: &Value, key: &str) -> Vec<String> {
    config[key].as_array().map_or(Vec::new(), |list| list.iter().map(|v| text(v).to_owned()).collect())
}

fn plain(case: &Value, run: impl Fn(&str) -> String) -> (String, bool) {
    let got = run(text(&case["input"]));
    let right = got == text(&case["expected"]);
    (got, right)
}

fn sql_config(config: &Value) -> SqlConfig {
    SqlConfig {
        mode: SqlMode::parse(config["mode"].as_str().unwrap_or("")).unwrap(),
        dbms: config["dbms"].as_str().unwrap_or("").to_owned(),
        table_names: flag(config, "table_names"),
        replace_digits: flag(config, "replace_digits"),
        keep_sql_alias: flag(config, "keep_sql_alias"),
        dollar_quoted_func: flag(config, "dollar_quoted_func"),
        remove_space_between_parentheses: flag(config, "remove_space_between_parentheses"),
        keep_null: flag(config, "keep_null"),
        keep_boolean: flag(config, "keep_boolean"),
        keep_positional_parameter: flag(config, "keep_positional_parameter"),
        keep_trailing_semicolon: flag(config, "keep_trailing_semicolon"),
        keep_identifier_quotation: flag(config, "keep_identifier_quotation"),
        keep_json_path: flag(config, "keep_json_path"),
        replace_bind_parameter: flag(config, "replace_bind_parameter"),
    }
}

fn run_sql(case: &Value) -> (String, bool) {
    let config = Config { sql: sql_config(&case["config"]), ..Config::agent() };
    let obfuscator = Obfuscator::new(config);
    let (input, expected) = (bytes(&case["input"]), bytes(&case["expected"]));
    let got = match obfuscator.sql_bytes(&input, None) {
        Ok(text) => text.into_owned(),
        Err(_) => NON_PARSABLE_SQL.into(),
    };
    (String::from_utf8_lossy(&got).into_owned(), got == expected)
}

#[test]
fn sql_vectors_of_the_upstream_tests_hold() {
    check("obfuscate_sql", &["sql.json"], 192, run_sql);
}

#[test]
fn sql_vectors_observed_in_the_reference_hold() {
    check("obfuscate_sql", &["sql_observed.json"], 600, run_sql);
}

#[test]
fn redis_resources_are_quantised_as_in_the_vectors() {
    check("quantize_redis", &["redis.json", "redis_observed.json"], 36, |case| {
        plain(case, |input| quantize_redis(input).into_owned())
    });
}

#[test]
fn redis_commands_are_obfuscated_as_in_the_vectors() {
    let obfuscator = Obfuscator::new(Config::agent());
    check("obfuscate_redis", &["redis.json", "redis_observed.json"], 96, |case| {
        plain(case, |input| obfuscator.redis(input).into_owned())
    });
}

#[test]
fn redis_arguments_are_removed_as_in_the_vectors() {
    let valkey = RedisConfig { enabled: true, remove_all_args: true };
    let obfuscator = Obfuscator::new(Config { valkey, ..Config::agent() });
    check("remove_all_redis_args", &["redis.json", "redis_observed.json"], 27, |case| {
        plain(case, |input| obfuscator.valkey(input).into_owned())
    });
}

#[test]
fn memcached_commands_are_kept_as_in_the_vectors() {
    let memcached = MemcachedConfig { enabled: true, keep_command: true };
    let obfuscator = Obfuscator::new(Config { memcached, ..Config::agent() });
    check("obfuscate_memcached", &["memcached_json.json", "memcached_json_observed.json"], 16, |case| {
        plain(case, |input| obfuscator.memcached(input).into_owned())
    });
}

#[test]
fn json_documents_are_obfuscated_as_in_the_vectors() {
    check("obfuscate_json", &["memcached_json.json", "memcached_json_observed.json"], 68, |case| {
        let config = &case["config"];
        let elasticsearch = JsonConfig {
            enabled: true,
            keep_values: strings(config, "keep_values"),
            obfuscate_sql_values: strings(config, "obfuscate_sql_values"),
        };
        let obfuscator = Obfuscator::new(Config { elasticsearch, ..Config::agent() });
        let got = obfuscator.elasticsearch(text(&case["input"])).into_owned();
        let right = match case["expected"]["exact"].as_str() {
            Some(exact) => got == exact,
            None => {
                let expected: Value = serde_json::from_str(text(&case["expected"]["json"])).unwrap();
                serde_json::from_str::<Value>(&got).is_ok_and(|got| got == expected)
            }
        };
        (got, right)
    });
}

#[test]
fn urls_are_obfuscated_as_in_the_vectors() {
    check("obfuscate_url", &["http_url.json", "http_url_observed.json"], 96, |case| {
        let http = HttpConfig {
            remove_query_string: flag(&case["config"], "q"),
            remove_paths_with_digits: flag(&case["config"], "d"),
        };
        let obfuscator = Obfuscator::new(Config { http, ..Config::agent() });
        plain(case, |input| obfuscator.url(input).into_owned())
    });
}

#[test]
fn card_numbers_are_recognised_as_in_the_vectors() {
    check("is_card_number", &["credit_cards_ip.json", "credit_cards_ip_observed.json"], 74, |case| {
        let got = is_card_number(text(&case["input"]), flag(&case["config"], "luhn"));
        (got.to_string(), case["expected"] == got)
    });
}

#[test]
fn card_prefixes_are_judged_as_in_the_vectors() {
    check("card_prefix", &["credit_cards_ip.json"], 59, |case| {
        let got = match card_prefix(text(&case["input"]).parse().unwrap()) {
            CardPrefix::Yes => "yes",
            CardPrefix::Maybe => "maybe",
            CardPrefix::No => "no",
        };
        (got.to_owned(), case["expected"] == got)
    });
}

#[test]
fn peer_addresses_are_quantised_as_in_the_vectors() {
    check("quantize_peer_ip", &["credit_cards_ip.json", "credit_cards_ip_observed.json"], 44, |case| {
        plain(case, |input| quantize_peer_ip(input).into_owned())
    });
}
