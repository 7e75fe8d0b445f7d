//! Any text as a document: no panic, and no more than a placeholder for every byte.
#![no_main]

use spanloom_obfuscator::{Config, JsonConfig, Obfuscator};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let elasticsearch = JsonConfig {
        enabled: true,
        keep_values: vec!["k".into()],
        obfuscate_sql_values: vec!["s".into()],
    };
    let obfuscator = Obfuscator::new(Config { elasticsearch, ..Config::agent() });
    assert!(obfuscator.mongodb(text).len() <= 3 * text.len() + 3);
    let _ = obfuscator.elasticsearch(text);
});
