//! Any text as a command: no panic, and obfuscating twice changes nothing more.
#![no_main]

use spanloom_obfuscator::{Config, Obfuscator, RedisConfig, quantize_redis};

libfuzzer_sys::fuzz_target!(|text: &str| {
    let valkey = RedisConfig { enabled: true, remove_all_args: true };
    let obfuscator = Obfuscator::new(Config { valkey, ..Config::agent() });
    let once = obfuscator.valkey(text);
    assert_eq!(obfuscator.valkey(&once), once);
    let _ = obfuscator.redis(text);
    let _ = quantize_redis(text);
});
