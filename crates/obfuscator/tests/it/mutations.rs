//! The inputs of the vectors, mutated: deterministic, so that a failure can be
//! repeated. Nothing may panic, and what comes out is no longer than it must be.

use spanloom_obfuscator::*;

use crate::properties::all_others;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound.max(1) as u64) as usize
    }
}

fn inputs() -> Vec<String> {
    let files = [
        "sql",
        "sql_observed",
        "redis",
        "redis_observed",
        "memcached_json",
        "memcached_json_observed",
        "http_url",
        "http_url_observed",
        "credit_cards_ip",
    ];
    files
        .iter()
        .flat_map(|file| {
            let path = format!("{}/../../fixtures/vectors/{file}.json", env!("CARGO_MANIFEST_DIR"));
            let doc: serde_json::Value =
                serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
            doc["cases"].as_array().unwrap().clone()
        })
        .filter_map(|case| case["input"].as_str().map(str::to_owned))
        .collect()
}

fn mutate(text: &str, other: &str, random: &mut Random) -> String {
    const INSERT: &[&str] = &[
        "'", "\"", "`", "\\", "$", "$func$", "(", ")", "[", "]", "{", "}", "?", ",", ";", ":", "#", "@",
        "/*", "*/", "--", "\0", "\n", "\t", "\u{3000}", "é", "🐶", "0x", "1e", "VALUES(", "AS ", "EXEC ",
        "NULL", "%(", "..",
    ];
    let mut out = text.to_owned();
    for _ in 0..1 + random.below(3) {
        let at = out.floor_char_boundary(random.below(out.len() + 1));
        match random.below(4) {
            0 => out.insert_str(at, INSERT[random.below(INSERT.len())]),
            1 => out.truncate(at),
            2 => {
                let end = out.ceil_char_boundary((at + random.below(12)).min(out.len()));
                out.replace_range(at..end, "");
            }
            _ => {
                let from = other.floor_char_boundary(random.below(other.len() + 1));
                out.truncate(at);
                out.push_str(&other[from..]);
            }
        }
    }
    out
}

#[test]
fn mutated_vectors_pass_every_obfuscator() {
    let inputs = inputs();
    assert!(inputs.len() > 1_000);
    let mut random = Random(0x5EED);
    let modes =
        [SqlMode::Builtin, SqlMode::ObfuscateOnly, SqlMode::ObfuscateAndNormalize, SqlMode::NormalizeOnly];
    let products = ["", "mssql", "postgresql", "mysql", "oracle", "snowflake"];
    for round in 0..20_000 {
        let (a, b) = (random.below(inputs.len()), random.below(inputs.len()));
        let text = mutate(&inputs[a], &inputs[b], &mut random);
        let flags = random.next();
        let flag = |bit: u32| flags >> bit & 1 == 1;
        let sql = SqlConfig {
            mode: modes[round % 4],
            dbms: products[random.below(products.len())].into(),
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
        let obfuscator = Obfuscator::new(Config { sql, ..Config::agent() });
        if let Ok(sql) = obfuscator.sql(&text, None) {
            // A blank around every character is the most that normalising adds.
            assert!(sql.text.len() <= 3 * text.len() + 16, "{text:?}");
        }
        all_others(&text);
    }
}
