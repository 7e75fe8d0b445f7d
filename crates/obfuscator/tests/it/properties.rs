//! Properties over generated text: no literal survives, output is stable,
//! nothing panics, time is linear in the input.

use proptest::prelude::*;
use spanloom_obfuscator::*;

const MODES: [SqlMode; 3] = [SqlMode::Builtin, SqlMode::ObfuscateOnly, SqlMode::ObfuscateAndNormalize];
const PRODUCTS: [&str; 7] = ["", "mssql", "postgresql", "mysql", "oracle", "snowflake", "sqlite"];

fn with_sql(sql: SqlConfig) -> Obfuscator {
    Obfuscator::new(Config { sql, ..Config::agent() })
}

/// A literal that carries a marker, in the forms SQL has for it.
fn literal() -> impl Strategy<Value = String> {
    (0..10u8, "[a-z ,()=%;-]{0,8}").prop_map(|(form, noise)| match form {
        0 => format!("'secret{noise}'"),
        1 => format!("'{noise}secret'"),
        2 => "'it''s secret'".to_owned(),
        3 => "77771".to_owned(),
        4 => "-77771.5e3".to_owned(),
        5 => "0x77771".to_owned(),
        6 => format!("$$secret {}$$", noise.replace('$', "")),
        7 => "$tag$ secret ' $tag$".to_owned(),
        8 => format!("N'secret{noise}'"),
        _ => "'secret /* not a comment */ -- neither'".to_owned(),
    })
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof!["[a-z][a-z_]{0,6}", "[a-z]{1,4}\\.[a-z]{1,4}"]
        .prop_filter("no words of the grammar", |name| {
            !["as", "values", "call", "exec", "is", "in"].contains(&&**name)
        })
}

fn condition() -> impl Strategy<Value = String> {
    let operator = prop::sample::select(vec!["=", "<>", ">=", "<", " LIKE ", " != "]);
    prop_oneof![
        (name(), operator, literal()).prop_map(|(n, o, l)| format!("{n}{o} {l}")),
        (name(), prop::collection::vec(literal(), 1..5))
            .prop_map(|(n, l)| format!("{n} IN ({})", l.join(", "))),
        (name(), literal(), literal()).prop_map(|(n, a, b)| format!("{n} BETWEEN {a} AND {b}")),
    ]
}

fn statement() -> impl Strategy<Value = String> {
    let conditions = || prop::collection::vec(condition(), 1..4).prop_map(|c| c.join(" AND "));
    let comment = prop::sample::select(vec!["", " ", "/* c */", "\n-- c\n"]);
    prop_oneof![
        (name(), name(), comment, conditions())
            .prop_map(|(c, t, x, w)| format!("SELECT {c} FROM {t}{x} WHERE {w}")),
        (name(), name(), literal(), conditions())
            .prop_map(|(t, c, l, w)| format!("UPDATE {t} SET {c} = {l} WHERE {w}")),
        (name(), prop::collection::vec(literal(), 1..5))
            .prop_map(|(t, l)| format!("INSERT INTO {t} (a, b) VALUES ({0}), ({0})", l.join(","))),
        (name(), prop::collection::vec(literal(), 1..4))
            .prop_map(|(p, l)| format!("{{call {p}({})}}", l.join(", "))),
    ]
}

/// SQL Server has no dollar-quoted strings; there `$tag$` is a name.
fn understood(statement: &str, dbms: &str) -> bool {
    dbms != "mssql" || !statement.contains('$')
}

fn leaks(text: &str) -> bool {
    text.contains("secret") || text.contains("7777")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_literal_of_a_statement_survives(statement in statement(), mode in 0..3usize, dbms in 0..7usize) {
        prop_assume!(understood(&statement, PRODUCTS[dbms]));
        let sql = SqlConfig { mode: MODES[mode], dbms: PRODUCTS[dbms].into(), ..SqlConfig::default() };
        let out = with_sql(sql).sql_text(&statement, None).into_owned();
        prop_assert!(!leaks(&out), "{out}");
    }

    #[test]
    fn no_literal_of_a_statement_cut_anywhere_survives(statement in statement(), cut in 0..400usize, mode in 0..3usize, dbms in 0..7usize) {
        prop_assume!(understood(&statement, PRODUCTS[dbms]));
        let cut = statement.floor_char_boundary(cut.min(statement.len()));
        let sql = SqlConfig { mode: MODES[mode], dbms: PRODUCTS[dbms].into(), ..SqlConfig::default() };
        let out = with_sql(sql).sql_text(&statement[..cut], None).into_owned();
        prop_assert!(!leaks(&out), "{out}");
    }

    #[test]
    fn an_obfuscated_statement_can_be_read_again_and_stays_as_it_is(statement in statement(), mode in 0..3usize, dbms in 0..7usize) {
        prop_assume!(understood(&statement, PRODUCTS[dbms]));
        let obfuscator = with_sql(SqlConfig { mode: MODES[mode], dbms: PRODUCTS[dbms].into(), ..SqlConfig::default() });
        let once = obfuscator.sql(&statement, None);
        prop_assert!(once.is_ok(), "{once:?}");
        let once = once.unwrap().text.into_owned();
        let again = obfuscator.sql(&once, None);
        prop_assert!(again.is_ok(), "{once}: {again:?}");
        prop_assert_eq!(again.unwrap().text, &*once);
        prop_assert_eq!(once.matches('(').count(), once.matches(')').count(), "{}", once);
    }

    #[test]
    fn a_statement_without_literals_is_not_copied(columns in prop::collection::vec("[a-z]{3,8}x", 1..6)) {
        let statement = format!("SELECT {} FROM t WHERE a = ?", columns.join(", "));
        let out = with_sql(SqlConfig::default()).sql_text(&statement, None);
        prop_assert!(matches!(out, std::borrow::Cow::Borrowed(text) if text == statement));
    }

    #[test]
    fn any_text_passes_every_obfuscator(text in any::<String>(), pieces in "([\\\\'\"`$\\[\\](){},;:?#@*/+\\-.=<>|&!~% \t\r\n0-9a-zé]|func|AS|VALUES){0,60}") {
        for text in [&text, &pieces] {
            for mode in MODES.into_iter().chain([SqlMode::NormalizeOnly]) {
                for dbms in PRODUCTS {
                    let config = SqlConfig {
                        mode, dbms: dbms.into(), dollar_quoted_func: true, table_names: true, ..SqlConfig::default()
                    };
                    let _ = with_sql(config).sql(text, None);
                }
            }
            all_others(text);
        }
    }

    #[test]
    fn no_scalar_of_a_document_survives(document in document()) {
        let obfuscator = Obfuscator::new(Config::agent());
        let text = document.to_string();
        let out = obfuscator.mongodb(&text).into_owned();
        prop_assert!(!leaks(&out), "{out}");
        let parsed: serde_json::Value = serde_json::from_str(&out).unwrap();
        prop_assert!(same_shape(&document, &parsed), "{out}");
        prop_assert_eq!(obfuscator.mongodb(&out), &*out);
    }

    #[test]
    fn no_scalar_of_a_cut_document_survives(document in document(), cut in 0..300usize) {
        let text = document.to_string();
        let cut = text.floor_char_boundary(cut.min(text.len()));
        let out = Obfuscator::new(Config::agent()).elasticsearch(&text[..cut]).into_owned();
        prop_assert!(!leaks(&out), "{out}");
    }

    #[test]
    fn no_user_information_survives(user in "[a-z]{1,6}", password in "(secret|sec/ret7777|se#ret7777|se\\?ret7777|7777@x|x7777%zz|7777 x)", rest in "(|:80|:port)(/a@b/c|/%zz|)(|\\?q=1)", scheme in "(http|https|jdbc:mysql|1http|grpc)", q in any::<bool>(), d in any::<bool>()) {
        let http = HttpConfig { remove_query_string: q, remove_paths_with_digits: d };
        let url = format!("{scheme}://{user}:{password}@host{rest}");
        let out = Obfuscator::new(Config { http, ..Config::agent() }).url(&url).into_owned();
        prop_assert!(!leaks(&out) && !out.contains("ret7777"), "{url} -> {out}");
    }

    #[test]
    fn no_value_of_a_redis_command_survives(lead in "(|\"|'|\t|\r|\n\t| \")", verb in "(SET|set|GETSET|APPEND|SETNX|LPUSH|sadd|HSET|MSET|AUTH)", gap in "( |\t|  | \t|\r)", quote in "(|\"|')") {
        let (arguments, value) = match &*verb.to_ascii_uppercase() {
            "AUTH" => ("", format!("{quote}secret{quote}")),
            "HSET" => ("key field", format!("{quote}secret{quote}")),
            _ => ("key", format!("{quote}secret{quote}")),
        };
        let arguments = arguments.replace(' ', &gap);
        let command = format!("GET a\n{lead}{verb}{gap}{arguments}{gap}{value}");
        let out = Obfuscator::new(Config::agent()).redis(&command).into_owned();
        prop_assert!(!leaks(&out), "{command:?} -> {out:?}");
        prop_assert_eq!(Obfuscator::new(Config::agent()).redis(&out), &*out);
    }
}

fn document() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::Bool),
        Just(Value::from(77_771)),
        Just(Value::from(-7777.25)),
        "secret[ \"\\\\{}\n:,é]{0,4}".prop_map(Value::String),
    ];
    let container = leaf.prop_recursive(5, 40, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::Array),
            prop::collection::btree_map("[a-z\"]{0,4}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    });
    container.prop_map(|value| Value::Array(vec![value]))
}

fn same_shape(input: &serde_json::Value, output: &serde_json::Value) -> bool {
    use serde_json::Value;
    match (input, output) {
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same_shape(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same_shape(a, b)))
        }
        (_, output) => output == "?",
    }
}

/// Everything but SQL.
pub fn all_others(text: &str) {
    let http = HttpConfig { remove_query_string: true, remove_paths_with_digits: true };
    let valkey = RedisConfig { enabled: true, remove_all_args: true };
    let memcached = MemcachedConfig { enabled: true, keep_command: true };
    let elasticsearch = JsonConfig {
        enabled: true,
        keep_values: vec!["keep".into()],
        obfuscate_sql_values: vec!["sql".into(), "a".into()],
    };
    let obfuscator = Obfuscator::new(Config { http, valkey, memcached, elasticsearch, ..Config::agent() });
    let _ = obfuscator.redis(text);
    let _ = obfuscator.valkey(text);
    let _ = obfuscator.memcached(text);
    let _ = obfuscator.mongodb(text);
    let _ = obfuscator.elasticsearch(text);
    let _ = obfuscator.url(text);
    let _ = Obfuscator::new(Config::agent()).url(text);
    let _ = obfuscator.is_card("key", text);
    let _ = quantize_redis(text);
    let _ = quantize_peer_ip(text);
}

/// Statements that a careless scanner takes quadratic time or unbounded stack
/// for. Quadratic work on these sizes would take hours, and the test with it.
#[test]
fn hostile_text_takes_linear_time() {
    let size = if cfg!(debug_assertions) { 1 << 17 } else { 1 << 20 };
    let units = [
        "'",
        "\"",
        "`",
        "(",
        "((?),",
        "[",
        "{",
        "$",
        "$a",
        "$a$ ",
        "$$ ",
        "/*",
        "/**/",
        "--",
        "#",
        "\\'",
        "'\\'",
        "AS [",
        "?,",
        "VALUES (",
        "%(",
        "$func$ $",
        "{\"a\":",
        "[1,",
        "{\"sql\":\"",
        "\\u",
        "//@",
        "%41",
        "1.1.1.1,",
        "SET \"a\n",
        "a\tb ",
        " \n",
        "FROM t0 ",
        "\0",
        "é",
        "''",
        "EXEC p ",
    ];
    for unit in units {
        let text = unit.repeat(size / unit.len());
        for mode in MODES.into_iter().chain([SqlMode::NormalizeOnly]) {
            for dbms in ["", "mssql", "mysql"] {
                let config = SqlConfig {
                    mode,
                    dbms: dbms.into(),
                    dollar_quoted_func: true,
                    table_names: true,
                    ..SqlConfig::default()
                };
                let _ = with_sql(config).sql(&text, None);
            }
        }
        all_others(&text);
    }
}
