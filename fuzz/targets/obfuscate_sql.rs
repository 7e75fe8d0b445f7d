//! Any text, any mode: no panic, no growth beyond a blank around every character.
#![no_main]

use spanloom_obfuscator::{Config, Obfuscator, SqlConfig, SqlMode};

libfuzzer_sys::fuzz_target!(|input: (u8, u8, u16, &str)| {
    let (mode, dbms, flags, text) = input;
    let flag = |bit: u32| flags >> bit & 1 == 1;
    let sql = SqlConfig {
        mode: [
            SqlMode::Builtin,
            SqlMode::ObfuscateOnly,
            SqlMode::ObfuscateAndNormalize,
            SqlMode::NormalizeOnly,
        ][usize::from(mode % 4)],
        dbms: ["", "mssql", "postgresql", "mysql", "oracle", "snowflake"][usize::from(dbms % 6)].into(),
        table_names: flag(0),
        replace_digits: flag(1),
        keep_sql_alias: flag(2),
        dollar_quoted_func: flag(3),
        remove_space_between_parentheses: flag(4),
        keep_null: flag(5),
        keep_boolean: flag(6),
        keep_positional_parameter: flag(7),
        keep_trailing_semicolon: flag(8),
        keep_identifier_quotation: flag(9),
        keep_json_path: flag(10),
        replace_bind_parameter: flag(11),
    };
    if let Ok(sql) = Obfuscator::new(Config { sql, ..Config::agent() }).sql(text, None) {
        assert!(sql.text.len() <= 3 * text.len() + 16);
    }
});
