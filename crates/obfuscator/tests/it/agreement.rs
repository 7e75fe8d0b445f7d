//! Rules that no vector asks for, found by feeding generated texts to the
//! reference (7.80.2) and to this crate: input, and what the reference makes of it.

use spanloom_obfuscator::*;

fn run(mode: SqlMode, text: &str) -> (String, String) {
    let sql = SqlConfig { mode, table_names: true, ..SqlConfig::default() };
    let obfuscator = Obfuscator::new(Config { sql, ..Config::agent() });
    obfuscator
        .sql(text, None)
        .map_or((NON_PARSABLE_SQL.into(), String::new()), |sql| (sql.text.into_owned(), sql.tables))
}

#[test]
fn names_that_a_with_defines_are_no_tables() {
    let (_, tables) =
        run(SqlMode::ObfuscateAndNormalize, "WITH a AS (SELECT 1 FROM b) SELECT x FROM a JOIN c");
    assert_eq!(tables, "b,c");
    let (_, tables) = run(SqlMode::ObfuscateAndNormalize, "SELECT x FROM a, \"B\".\"c\", f1(1)");
    assert_eq!(tables, "a,B.c,f1");
}

#[test]
fn digits_are_replaced_in_tables_but_not_in_functions() {
    let sql = SqlConfig {
        mode: SqlMode::ObfuscateAndNormalize,
        table_names: true,
        replace_digits: true,
        ..SqlConfig::default()
    };
    let obfuscator = Obfuscator::new(Config { sql, ..Config::agent() });
    let sql = obfuscator.sql("SELECT x FROM t1, f1(2) JOIN \"t3\"", None).unwrap();
    assert_eq!((&*sql.text, &*sql.tables), ("SELECT x FROM t?, f1 ( ? ) JOIN t?", "t?,f1"));
}

#[test]
fn tables_are_collected_only_if_wanted() {
    let sql = SqlConfig { mode: SqlMode::ObfuscateAndNormalize, ..SqlConfig::default() };
    let obfuscator = Obfuscator::new(Config { sql, ..Config::agent() });
    assert_eq!(obfuscator.sql("SELECT x FROM t", None).unwrap().tables, "");
}

#[test]
fn functions_are_known_by_an_ascii_letter_in_front() {
    let sql = SqlConfig {
        mode: SqlMode::ObfuscateAndNormalize,
        remove_space_between_parentheses: true,
        ..SqlConfig::default()
    };
    let obfuscator = Obfuscator::new(Config { sql, ..Config::agent() });
    assert_eq!(obfuscator.sql_text("SELECT größe(1), übersicht(x)", None), "SELECT größe(?), übersicht (x)");
}

#[test]
fn a_statement_cut_at_a_name_or_right_behind_a_dollar_tag_shows_nothing_and_stays() {
    for text in [
        "SELECT $$",
        "SELECT $tag$",
        "SELECT a, \"b",
        "SELECT a FROM t WHERE \"b",
        "SELECT a FROM t ORDER BY x, \"b",
    ] {
        assert_eq!(run(SqlMode::ObfuscateOnly, text).0, text);
    }
    for text in ["SELECT a, b = 1, \"b", "SELECT f(\"b", "SELECT a FROM t WHERE x IN (\"a\", \"b"] {
        assert!(run(SqlMode::ObfuscateOnly, text).0.ends_with('?'), "{text}");
    }
}

#[test]
fn ordinary_backslashes_are_told_from_escapes_by_what_follows() {
    for (text, wanted) in [
        ("SELECT a FROM t WHERE b LIKE 'x\\' PIVOT (c)", "SELECT a FROM t WHERE b LIKE ? PIVOT ( c )"),
        (
            "SELECT a FROM t WHERE b LIKE 'x' ESCAPE '\\'\u{3000}AND c = 1",
            "SELECT a FROM t WHERE b LIKE ? ESCAPE ? AND c = ?",
        ),
        (
            "SELECT q'[it''s]' FROM t WHERE b = $$x'y'z$$ AND c = 'd\\' AND e = $$f'g'h$$",
            "SELECT q ? FROM t WHERE b = ? AND c = ? AND e = ?",
        ),
        ("SELECT $$'é$$, $$'$$ FROM t WHERE b = 'c\\'", "SELECT ? FROM t WHERE b = ?"),
        // Doubled quotes behind a backslash are open to both readings.
        ("SELECT 'a\\'', ' secret ', ' cut", NON_PARSABLE_SQL),
    ] {
        assert_eq!(run(SqlMode::Builtin, text).0, wanted, "{text}");
    }
}

#[test]
fn types_and_window_columns_inside_values_are_names() {
    let text = "INSERT INTO t VALUES (CAST('a' AS \"Role\"), 'b'::\"Role\", sum(x) OVER (PARTITION BY \"c\"), \"d\")";
    assert_eq!(
        run(SqlMode::Builtin, text).0,
        "INSERT INTO t VALUES ( CAST ( ? ), ? :: Role, sum ( x ) OVER ( PARTITION BY c ), ? )"
    );
    assert_eq!(
        run(SqlMode::ObfuscateOnly, text).0,
        "INSERT INTO t VALUES (CAST(? AS \"Role\"), ?::\"Role\", sum(x) OVER (PARTITION BY \"c\"), ?)"
    );
}

#[test]
fn resources_of_redis_are_upper_cased_character_by_character() {
    assert_eq!(quantize_redis("ᾀßɤ x"), "ᾈßɤ");
}

#[test]
fn an_at_sign_in_a_path_is_no_password_behind_what_can_only_be_a_host() {
    let obfuscator = Obfuscator::new(Config::agent());
    for url in [
        "http://localhost:abc/x/a@b/c",
        "http://[::1]:80a/a@b",
        "jdbc:mysql://127.0.0.1:port/a@b?q",
        "jdbc:mysql://localhost:abc/a@b#c",
    ] {
        assert_eq!(obfuscator.url(url), url);
    }
    assert_eq!(obfuscator.url("http://user:sec/ret@host/a"), "http://host/a");
    assert_eq!(obfuscator.url("http://localhost:secret@host:x/a"), "http://host:x/a");
}

/// Quoted names one after the other: each of them must not look at the rest.
#[test]
fn many_quoted_names_take_linear_time() {
    let size = if cfg!(debug_assertions) { 1 << 17 } else { 1 << 20 };
    for unit in ["FROM \"a\" ", "JOIN [a] ", "SELECT `a`, ", "a.\"b\" ", "WITH x AS \"y\" "] {
        let text = unit.repeat(size / unit.len());
        for dbms in ["", "mssql", "mysql"] {
            let sql = SqlConfig {
                mode: SqlMode::ObfuscateAndNormalize,
                dbms: dbms.into(),
                table_names: true,
                ..SqlConfig::default()
            };
            let obfuscator = Obfuscator::new(Config { sql, ..Config::agent() });
            assert!(!obfuscator.sql_text(&text, None).is_empty());
        }
    }
}
