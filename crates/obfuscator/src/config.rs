//! What is scrubbed and how. Defaults are the Agent's
//! (`datadog-agent:comp/trace/config`, `apm_config.obfuscation`).

/// Settings of all obfuscators.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// SQL statements (`sql`, `cassandra`). Cannot be switched off.
    pub sql: SqlConfig,
    /// Elasticsearch bodies.
    pub elasticsearch: JsonConfig,
    /// OpenSearch bodies.
    pub opensearch: JsonConfig,
    /// MongoDB queries.
    pub mongodb: JsonConfig,
    /// SQL execution plans, conditions only.
    pub sql_exec_plan: JsonConfig,
    /// SQL execution plans, costs and row estimates too.
    pub sql_exec_plan_normalize: JsonConfig,
    /// `http.url`.
    pub http: HttpConfig,
    /// `redis.raw_command`; the resource is quantised in any case.
    pub redis: RedisConfig,
    /// `valkey.raw_command`; the resource is quantised in any case.
    pub valkey: RedisConfig,
    /// `memcached.command`.
    pub memcached: MemcachedConfig,
    /// Card numbers in tag values.
    pub credit_cards: CreditCardConfig,
    /// Replace `error.stack` and `exception.stacktrace` by `?`.
    pub remove_stack_traces: bool,
    /// Bounds of [`crate::SqlCache`].
    pub cache: CacheConfig,
}

impl Config {
    /// The Agent's defaults: every obfuscator on, execution plans off.
    pub fn agent() -> Self {
        let on = JsonConfig { enabled: true, ..JsonConfig::default() };
        Self {
            elasticsearch: on.clone(),
            opensearch: on.clone(),
            mongodb: on,
            redis: RedisConfig { enabled: true, ..RedisConfig::default() },
            valkey: RedisConfig { enabled: true, ..RedisConfig::default() },
            memcached: MemcachedConfig { enabled: true, ..MemcachedConfig::default() },
            credit_cards: CreditCardConfig { enabled: true, ..CreditCardConfig::default() },
            cache: CacheConfig { enabled: true, max_bytes: 5_000_000 },
            ..Self::default()
        }
    }
}

/// Engine for SQL (`apm_config.sql_obfuscation_mode`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SqlMode {
    /// The built-in tokenizer. Knows nothing of the options marked "lexer" below.
    #[default]
    Builtin,
    /// Lexer: spaces, comments and quotes tidied, literals kept.
    NormalizeOnly,
    /// Lexer: literals replaced, layout kept.
    ObfuscateOnly,
    /// Lexer: both.
    ObfuscateAndNormalize,
}

impl SqlMode {
    /// Reads the setting; `None` for a value the Agent would refuse.
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "" => Self::Builtin,
            "normalize_only" => Self::NormalizeOnly,
            "obfuscate_only" => Self::ObfuscateOnly,
            "obfuscate_and_normalize" => Self::ObfuscateAndNormalize,
            _ => return None,
        })
    }
}

/// Database product, as far as it changes how SQL is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Dbms {
    /// Unknown or without specialities.
    #[default]
    Other,
    /// Microsoft SQL Server.
    SqlServer,
    /// PostgreSQL.
    Postgres,
    /// MySQL and MariaDB.
    MySql,
    /// Oracle.
    Oracle,
    /// Snowflake.
    Snowflake,
}

impl Dbms {
    /// Reads a `db.type` / `db.system` value. The aliases are those of the
    /// tracers (`go-sqllexer:sqllexer_utils.go`).
    pub fn parse(text: &str) -> Self {
        match text {
            "mssql" | "sql-server" | "sqlserver" => Self::SqlServer,
            "postgresql" | "postgres" => Self::Postgres,
            "mysql" => Self::MySql,
            "oracle" => Self::Oracle,
            "snowflake" => Self::Snowflake,
            _ => Self::Other,
        }
    }

    /// The built-in tokenizer knows two products, and no aliases.
    pub(crate) fn parse_builtin(text: &str) -> Self {
        match text {
            "mssql" => Self::SqlServer,
            "postgresql" => Self::Postgres,
            _ => Self::Other,
        }
    }
}

/// SQL options. "lexer" marks those without effect in [`SqlMode::Builtin`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SqlConfig {
    /// Engine.
    pub mode: SqlMode,
    /// Product assumed where the caller gives no hint, spelled as in `db.type`.
    pub dbms: String,
    /// Collect table names (feature `table_names`).
    pub table_names: bool,
    /// Digits inside identifiers become `?` (features `quantize_sql_tables`, `replace_sql_digits`).
    pub replace_digits: bool,
    /// Keep `AS alias` (feature `keep_sql_alias`).
    pub keep_sql_alias: bool,
    /// Obfuscate inside `$func$ … $func$` instead of replacing it (feature `dollar_quoted_func`).
    pub dollar_quoted_func: bool,
    /// lexer: no blanks inside parentheses.
    pub remove_space_between_parentheses: bool,
    /// lexer: keep `NULL`.
    pub keep_null: bool,
    /// lexer: keep `TRUE` and `FALSE`.
    pub keep_boolean: bool,
    /// lexer: keep `$1`.
    pub keep_positional_parameter: bool,
    /// lexer: keep the last `;`.
    pub keep_trailing_semicolon: bool,
    /// lexer: keep the quotes of identifiers.
    pub keep_identifier_quotation: bool,
    /// lexer: keep the value after a JSON operator.
    pub keep_json_path: bool,
    /// lexer: `@p1` and `:p1` become `?`.
    pub replace_bind_parameter: bool,
}

/// JSON options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonConfig {
    /// Off: the text passes unchanged.
    pub enabled: bool,
    /// Keys whose whole value is kept, at any depth.
    pub keep_values: Vec<String>,
    /// Keys whose string value goes through SQL obfuscation.
    pub obfuscate_sql_values: Vec<String>,
}

/// URL options. User information is removed in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HttpConfig {
    /// Remove the query's text; its `?` stays.
    pub remove_query_string: bool,
    /// Path segments with a digit become `?`.
    pub remove_paths_with_digits: bool,
}

/// Redis and Valkey options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RedisConfig {
    /// Off: raw commands pass unchanged.
    pub enabled: bool,
    /// `CMD ?` for every command.
    pub remove_all_args: bool,
}

/// Memcached options.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemcachedConfig {
    /// Off: commands pass unchanged.
    pub enabled: bool,
    /// Keep the command line; otherwise the tag becomes empty.
    pub keep_command: bool,
}

/// Card number options.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CreditCardConfig {
    /// Off: nothing is looked at.
    pub enabled: bool,
    /// Ask for a valid Luhn checksum as well.
    pub luhn: bool,
    /// Keys never looked at.
    pub keep_values: Vec<String>,
}

/// SQL cache bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CacheConfig {
    /// Use one at all.
    pub enabled: bool,
    /// Upper bound of its memory in bytes.
    pub max_bytes: usize,
}
