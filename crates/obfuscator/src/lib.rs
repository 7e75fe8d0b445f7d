//! Text in, scrubbed text out. Pure: no I/O, no clock, no shared state; every
//! function here takes `&str` and answers with a [`Cow`](std::borrow::Cow)
//! that borrows when nothing had to change.
//!
//! The rules are those of the Datadog Agent (`datadog-agent:pkg/obfuscate`),
//! except where the Agent lets a literal through: there this crate fails
//! closed. Each such difference is listed in `docs/obfuscation.md`.
//!
//! | file | holds |
//! |---|---|
//! | `config.rs` | [`Config`]: what is scrubbed and how; the Agent's defaults |
//! | `obfuscator.rs` | [`Obfuscator`]: the entry points, one per kind of text |
//! | `sql/` | SQL: the built-in tokenizer and its filters, and the lexer of the `*_only` / `*_and_normalize` modes |
//! | `cache.rs` | [`SqlCache`]: results of recent statements, bounded in bytes |
//! | `change.rs` | [`Change`]: what becomes of a text, without the text |
//! | `redis.rs` | Redis and Valkey commands |
//! | `memcached.rs` | Memcached commands |
//! | `json.rs` | JSON documents: MongoDB, Elasticsearch, OpenSearch, SQL execution plans |
//! | `url.rs` | HTTP URLs |
//! | `credit_cards.rs` | card numbers in tag values |
//! | `peer_ip.rs` | IP addresses in peer tags of stats |
//! | `sink.rs` | output that allocates only once it differs from the input |
//! | `eight.rs` | eight bytes at once |
//! | `chars.rs` | Unicode classes |
#![forbid(unsafe_code)]

mod cache;
mod change;
mod chars;
mod config;
mod credit_cards;
mod eight;
mod json;
mod memcached;
mod obfuscator;
mod peer_ip;
mod redis;
mod sink;
mod sql;
mod url;

pub use cache::SqlCache;
pub use change::Change;
pub use config::{
    CacheConfig, Config, CreditCardConfig, Dbms, HttpConfig, JsonConfig, MemcachedConfig, RedisConfig,
    SqlConfig, SqlMode,
};
pub use credit_cards::{CardPrefix, card_prefix, is_card_number, key_may_hold_card};
pub use obfuscator::{NON_PARSABLE_SQL, Obfuscator, VERSION};
pub use peer_ip::quantize_peer_ip;
pub use redis::quantize_redis;
pub use sql::{Sql, SqlError};
