//! Where the reference lets something through and this crate does not. Each
//! row of `docs/obfuscation.md` has its cases here.

use spanloom_obfuscator::*;

fn sql(mode: SqlMode, dbms: &str, text: &str) -> String {
    let sql = SqlConfig { mode, dbms: dbms.into(), ..SqlConfig::default() };
    Obfuscator::new(Config { sql, ..Config::agent() }).sql_text(text, None).into_owned()
}

fn url(text: &str) -> String {
    Obfuscator::new(Config::agent()).url(text).into_owned()
}

fn redis(text: &str) -> String {
    Obfuscator::new(Config::agent()).redis(text).into_owned()
}

#[test]
fn text_after_an_unclosed_dollar_is_read_on() {
    let text = "SELECT $a, b FROM t WHERE c = 'secret' AND d = 12345";
    assert_eq!(sql(SqlMode::ObfuscateOnly, "", text), "SELECT $a, b FROM t WHERE c = ? AND d = ?");
    assert_eq!(sql(SqlMode::ObfuscateOnly, "", "SELECT $$secret"), "SELECT ?");
    assert_eq!(sql(SqlMode::ObfuscateOnly, "", "SELECT $func$ SELECT 'secret'"), "SELECT $func$ SELECT ?");
    assert_eq!(sql(SqlMode::Builtin, "", text), NON_PARSABLE_SQL);
}

#[test]
fn text_after_an_unclosed_quote_bracket_or_comment_is_hidden() {
    for (dbms, text) in [
        ("", "SELECT a FROM t WHERE b = \"secret"),
        ("", "SELECT a FROM \"t WHERE b = 'secret'"),
        ("mssql", "SELECT a FROM [t WHERE b = 'secret'"),
        ("mysql", "SELECT a FROM `t WHERE b = 'secret'"),
        ("", "SELECT a /* 'secret'"),
    ] {
        for mode in [SqlMode::Builtin, SqlMode::ObfuscateOnly, SqlMode::ObfuscateAndNormalize] {
            let out = sql(mode, dbms, text);
            assert!(!out.contains("secret"), "{mode:?} {dbms} {text}: {out}");
        }
    }
}

#[test]
fn a_backslash_before_a_quote_never_turns_the_statement_inside_out() {
    let ended = "SELECT a FROM t WHERE b = 'x\\' AND c = 'secret'";
    assert_eq!(sql(SqlMode::Builtin, "", ended), "SELECT a FROM t WHERE b = ? AND c = ?");
    let after_comment = "SELECT a -- it's\nFROM t /* it's */ WHERE b = 'x\\' AND \"c'd\" = 'secret'";
    assert_eq!(sql(SqlMode::Builtin, "", after_comment), "SELECT a FROM t WHERE b = ? AND c'd = ?");
    let escaped_and_cut = "SELECT 'it\\'s secret', 'secret";
    assert_eq!(sql(SqlMode::Builtin, "", escaped_and_cut), NON_PARSABLE_SQL);
    for text in [ended, escaped_and_cut] {
        for mode in [SqlMode::ObfuscateOnly, SqlMode::ObfuscateAndNormalize] {
            assert!(!sql(mode, "", text).contains("secret"), "{text}");
        }
    }
}

#[test]
fn the_reading_of_backslashes_is_not_remembered() {
    let obfuscator = Obfuscator::new(Config::agent());
    let escaped = "SELECT 'it\\'s'";
    let first = obfuscator.sql_text(escaped, None).into_owned();
    obfuscator.sql_text("SELECT a FROM t WHERE b = 'x\\' AND c = 1", None);
    assert_eq!(obfuscator.sql_text(escaped, None), &*first);
}

#[test]
fn double_quoted_values_are_hidden_where_values_stand() {
    let builtin = |text| sql(SqlMode::Builtin, "", text);
    assert_eq!(
        builtin("INSERT INTO t (a, \"b\") VALUES (\"secret\", 1)"),
        "INSERT INTO t ( a, b ) VALUES ( ? )"
    );
    assert_eq!(builtin("INSERT INTO t VALUES (lower(\"secret\"))"), "INSERT INTO t VALUES ( lower ( ? ) )");
    assert_eq!(builtin("INSERT INTO t VALUES (1), (\"secret\")"), "INSERT INTO t VALUES ( ? )");
    assert_eq!(builtin("CALL p(\"secret\")"), "CALL p ( ? )");
    assert_eq!(builtin("{call \"a\".\"p\"(\"secret\", ?)}"), "{ call a . p ( ? ) }");
    assert_eq!(builtin("EXEC p \"secret\", 'x'"), "EXEC p ?");
    assert_eq!(builtin("SELECT a FROM t WHERE b = /* c */ \"secret\""), "SELECT a FROM t WHERE b = ?");
    for mode in [SqlMode::ObfuscateOnly, SqlMode::ObfuscateAndNormalize] {
        assert!(!sql(mode, "", "INSERT INTO t VALUES (\"secret\")").contains("secret"));
        assert!(!sql(mode, "", "EXEC p \"secret\"").contains("secret"));
    }
}

#[test]
fn double_quoted_names_stay_names() {
    let builtin = |text| sql(SqlMode::Builtin, "", text);
    assert_eq!(builtin("INSERT INTO t VALUES (\"u\".\"id\")"), "INSERT INTO t VALUES ( u . id )");
    assert_eq!(
        builtin("INSERT INTO t VALUES ((SELECT \"id\" FROM \"u\"))"),
        "INSERT INTO t VALUES ( ( SELECT id FROM u ) )"
    );
    assert_eq!(builtin("SELECT \"a\" FROM \"t\" WHERE \"b\" > \"c\""), "SELECT a FROM t WHERE b > c");
}

#[test]
fn redis_commands_are_recognised_behind_quotes_and_tabs() {
    assert_eq!(redis("\"AUTH\" secret"), "\"AUTH\" ?");
    assert_eq!(redis("GET a\n\tSET k secret"), "GET a\n\tSET k ?");
    assert_eq!(redis("SET\tk\tsecret"), "SET ?");
    assert_eq!(redis("SET k\tsecret"), "SET ?");
    assert_eq!(redis("SET k 'two secret words'"), "SET k ?");
}

#[test]
fn redis_values_the_reference_overlooks_are_hidden() {
    assert_eq!(redis("zadd k nx 1 secret"), "zadd k nx 1 ?");
    assert_eq!(redis("ZADD k GT 1 secret"), "ZADD k GT 1 ?");
    assert_eq!(redis("RPUSHX k a secret"), "RPUSHX k ? ?");
    assert_eq!(redis("CONFIG SET a 1 requirepass secret"), "CONFIG SET a ? requirepass ?");
    assert_eq!(redis("BITFIELD k SET u8 0 1 SET u8 1 77"), "BITFIELD k SET u8 0 ? SET u8 1 ?");
    assert_eq!(redis("GET \"a\nAUTH secret"), "GET ?");
    assert_eq!(redis("GET a\n \n  SET k secret"), "GET a\nSET k ?");
}

#[test]
fn user_information_goes_from_what_is_no_url_too() {
    assert_eq!(url("http://user:secret@ho st/a"), "http://ho st/a");
    assert_eq!(url("http://user:sec#ret@host/a"), "http://host/a");
    assert_eq!(url("http://user:sec/ret@host/a"), "http://host/a");
    assert_eq!(url("1http://user:secret@host/a@b"), "1http://host/a@b");
    assert_eq!(url("jdbc:mysql://user:secret@host/db"), "jdbc:mysql://host/db");
    assert_eq!(url("mailto:a@example.com"), "mailto:a@example.com");
}

#[test]
fn strings_between_json_documents_are_values() {
    assert_eq!(Obfuscator::new(Config::agent()).mongodb("{\"a\":1} \"secret\""), "{\"a\":\"?\"} \"?\"");
}

#[test]
fn obfuscated_sql_inside_json_keeps_the_document_valid() {
    let mongodb =
        JsonConfig { enabled: true, obfuscate_sql_values: vec!["sql".into()], ..JsonConfig::default() };
    let obfuscator = Obfuscator::new(Config { mongodb, ..Config::agent() });
    let out =
        obfuscator.mongodb(r#"{"sql":"SELECT \"a\"\"b\" FROM t WHERE c = \/* x *\/ 'secret'"}"#).into_owned();
    let parsed: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(parsed["sql"], "SELECT a\"b FROM t WHERE c = ?");
}
