//! The entry points, one per kind of text.

use std::borrow::Cow;

use crate::cache::SqlCache;
use crate::change::Change;
use crate::config::{Config, JsonConfig, RedisConfig};
use crate::sql::{Sql, SqlError};
use crate::{credit_cards, json, memcached, redis, sql, url};

/// Version of these rules announced to tracers (`/info`, `obfuscation_version`).
pub const VERSION: u32 = 1;

/// Written in place of a statement that cannot be obfuscated.
pub const NON_PARSABLE_SQL: &str = "Non-parsable SQL query";

/// The same inside JSON documents.
const SQL_IN_JSON_FAILED: &str =
    "Datadog-agent failed to obfuscate SQL string. Enable agent debug logs for more info.";

/// All obfuscators with their settings. Immutable and without inner state:
/// one instance serves every worker.
///
/// Which text of a span goes through which method is decided by the caller
/// (the processors); a method whose obfuscator is switched off returns its
/// text unchanged.
#[derive(Debug, Clone, Default)]
pub struct Obfuscator {
    config: Config,
}

impl Obfuscator {
    /// An obfuscator with these settings.
    pub fn new(config: Config) -> Self {
        Self { config }
    }

    /// The settings.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// A SQL statement. `dbms` is the span's `db.type`: it has an effect in the
    /// lexer modes only, as in the Agent.
    ///
    /// # Errors
    /// If the statement cannot be read safely. The caller writes
    /// [`NON_PARSABLE_SQL`] then; the raw text must not leave.
    pub fn sql<'a>(&self, text: &'a str, dbms: Option<&str>) -> Result<Sql<'a>, SqlError> {
        let dbms = dbms.filter(|_| self.config.sql.mode != crate::SqlMode::Builtin);
        sql::obfuscate(text, &self.config.sql, dbms)
    }

    /// As [`Obfuscator::sql`], the failure text in place of an error.
    pub fn sql_text<'a>(&self, text: &'a str, dbms: Option<&str>) -> Cow<'a, str> {
        self.sql(text, dbms).map_or(Cow::Borrowed(NON_PARSABLE_SQL), |sql| sql.text)
    }

    /// As [`Obfuscator::sql`] for text that may not be valid UTF-8. The lexer
    /// modes keep stray bytes outside of literals where they are; the built-in
    /// tokenizer refuses such text.
    ///
    /// # Errors
    /// As [`Obfuscator::sql`].
    pub fn sql_bytes<'a>(&self, text: &'a [u8], dbms: Option<&str>) -> Result<Cow<'a, [u8]>, SqlError> {
        match std::str::from_utf8(text) {
            Ok(text) => Ok(match self.sql(text, dbms)?.text {
                Cow::Borrowed(text) => Cow::Borrowed(text.as_bytes()),
                Cow::Owned(text) => Cow::Owned(text.into_bytes()),
            }),
            Err(_) if self.config.sql.mode == crate::SqlMode::Builtin => Err(SqlError::UnknownToken),
            Err(_) => {
                let marked = stray::mark(text).ok_or(SqlError::UnknownToken)?;
                Ok(Cow::Owned(stray::unmark(&self.sql(&marked, dbms)?.text)))
            }
        }
    }

    /// As [`Obfuscator::sql_text`] through a cache.
    pub fn sql_cached<'a>(&self, text: &'a str, dbms: Option<&str>, cache: &mut SqlCache) -> Cow<'a, str> {
        match self.sql_change(text, dbms, Some(cache)) {
            Change::None => Cow::Borrowed(text),
            Change::Part(place) => Cow::Borrowed(&text[place]),
            Change::Text(result) => Cow::Owned(result.into_owned()),
        }
    }

    /// What becomes of a statement, through a cache if there is one. Failures
    /// are not cached, nor are results with a `dbms` hint in the lexer modes,
    /// where the result depends on it.
    pub fn sql_change<'c>(
        &self,
        text: &str,
        dbms: Option<&str>,
        cache: Option<&'c mut SqlCache>,
    ) -> Change<'c> {
        let mut put_to = None;
        if let Some(cache) = cache
            && (dbms.is_none() || self.config.sql.mode == crate::SqlMode::Builtin)
        {
            let of = cache.fingerprint(text);
            if cache.knows(text, of) {
                let result = cache.result(of).unwrap_or(NON_PARSABLE_SQL);
                return if result == text { Change::None } else { Change::Text(Cow::Borrowed(result)) };
            }
            put_to = Some((cache, of));
        }
        match self.sql(text, dbms) {
            Ok(sql) => {
                if let Some((cache, of)) = put_to {
                    cache.put(text, of, &sql.text);
                }
                Change::between(text, sql.text)
            }
            Err(_) => Change::Text(Cow::Borrowed(NON_PARSABLE_SQL)),
        }
    }

    /// A cache within the configured bound, if one is wanted.
    pub fn sql_cache(&self) -> Option<SqlCache> {
        let cache = self.config.cache;
        cache.enabled.then(|| SqlCache::new(cache.max_bytes))
    }

    /// `redis.raw_command`.
    pub fn redis<'a>(&self, text: &'a str) -> Cow<'a, str> {
        raw_command(text, self.config.redis)
    }

    /// `valkey.raw_command`.
    pub fn valkey<'a>(&self, text: &'a str) -> Cow<'a, str> {
        raw_command(text, self.config.valkey)
    }

    /// `memcached.command`. Empty unless the command line is to be kept.
    pub fn memcached<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let config = self.config.memcached;
        Cow::Borrowed(match (config.enabled, config.keep_command) {
            (false, _) => text,
            (true, false) => "",
            (true, true) => memcached::command_line(text),
        })
    }

    /// `mongodb.query`.
    pub fn mongodb<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.json(text, &self.config.mongodb)
    }

    /// `elasticsearch.body`.
    pub fn elasticsearch<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.json(text, &self.config.elasticsearch)
    }

    /// `opensearch.body`.
    pub fn opensearch<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.json(text, &self.config.opensearch)
    }

    /// A SQL execution plan; `normalize` hides costs and estimates as well.
    pub fn sql_exec_plan<'a>(&self, text: &'a str, normalize: bool) -> Cow<'a, str> {
        let config = &self.config;
        self.json(text, if normalize { &config.sql_exec_plan_normalize } else { &config.sql_exec_plan })
    }

    fn json<'a>(&self, text: &'a str, config: &JsonConfig) -> Cow<'a, str> {
        if !config.enabled {
            return Cow::Borrowed(text);
        }
        json::obfuscate(text, config, &|statement| match self.sql(statement, None) {
            Ok(sql) => sql.text.into_owned(),
            Err(_) => SQL_IN_JSON_FAILED.to_owned(),
        })
    }

    /// `http.url`. User information always goes.
    pub fn url<'a>(&self, text: &'a str) -> Cow<'a, str> {
        url::obfuscate(text, self.config.http)
    }

    /// Whether the value of this tag has to be replaced by `?`, being a card
    /// number.
    #[inline]
    pub fn is_card(&self, key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> bool {
        let config = &self.config.credit_cards;
        config.enabled
            && credit_cards::is_card_number(value, config.luhn)
            && credit_cards::key_may_hold_card(&key)
            && !config.keep_values.iter().any(|kept| kept.as_bytes() == key.as_ref())
    }
}

fn raw_command(text: &str, config: RedisConfig) -> Cow<'_, str> {
    match (config.enabled, config.remove_all_args) {
        (false, _) => Cow::Borrowed(text),
        (true, false) => redis::obfuscate(text),
        (true, true) => redis::remove_all_args(text),
    }
}

/// Bytes that are no UTF-8, carried through text as private characters.
mod stray {
    /// Byte `b` travels as `BASE + b`.
    const BASE: u32 = 0x0010_FF00;

    fn byte_of(c: char) -> Option<u8> {
        (c as u32).checked_sub(BASE).and_then(|b| u8::try_from(b).ok())
    }

    /// `None` if the text uses these characters itself.
    pub(super) fn mark(text: &[u8]) -> Option<String> {
        let mut out = String::with_capacity(text.len() + 16);
        for chunk in text.utf8_chunks() {
            if chunk.valid().chars().any(|c| byte_of(c).is_some()) {
                return None;
            }
            out.push_str(chunk.valid());
            out.extend(chunk.invalid().iter().filter_map(|&b| char::from_u32(BASE + u32::from(b))));
        }
        Some(out)
    }

    pub(super) fn unmark(text: &str) -> Vec<u8> {
        let mut out = Vec::with_capacity(text.len());
        for c in text.chars() {
            match byte_of(c) {
                Some(b) => out.push(b),
                None => out.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        out
    }
}
