//! Any text as a URL: no panic, and the result keeps its meaning when scrubbed again.
#![no_main]

use spanloom_obfuscator::{Config, HttpConfig, Obfuscator, quantize_peer_ip};

libfuzzer_sys::fuzz_target!(|input: (bool, bool, &str)| {
    let (remove_query_string, remove_paths_with_digits, text) = input;
    let http = HttpConfig { remove_query_string, remove_paths_with_digits };
    let out = Obfuscator::new(Config { http, ..Config::agent() }).url(text).into_owned();
    assert!(out.len() <= 3 * text.len() + 8);
    let _ = quantize_peer_ip(text);
});
