//! Feature flags (`DD_APM_FEATURES`, datadog-intake §5.6).

/// Flags that are known, and what they do.
pub const FEATURES: &[(&str, &str)] = &[
    ("429", "overload is answered with 429 to everybody"),
    ("convert-traces", "nothing more: every version is read into one model anyway"),
    ("big_resource", "resources may have 15,000 bytes instead of 5,000"),
    ("component2name", "the tag `component` becomes the span's name"),
    ("disable_cid_stats", "statistics of tracers without container"),
    ("disable_process_stats", "statistics without process tags"),
    ("disable_empty_hostname", "nothing more: with an API key an empty host name is an error anyway"),
    ("enable_otlp_compute_top_level_by_span_kind", "top-level OTLP spans by their kind"),
    ("disable_operation_and_resource_name_logic_v2", "names of OTLP spans as older Agents made them"),
    ("enable_otlp_container_tags_v2", "container tags of OTLP spans by their attributes alone"),
    ("error_rare_sample_tracer_drop", "the error and rare samplers also see traces that the tracer dropped"),
    ("probabilistic_sampler_full_trace_id", "the probabilistic sampler uses all 128 bits"),
    ("table_names", "names of tables are added to SQL spans"),
    ("quantize_sql_tables", "digits in names of tables are replaced"),
    ("replace_sql_digits", "digits in SQL names are replaced"),
    ("keep_sql_alias", "SQL aliases stay"),
    ("dollar_quoted_func", "dollar-quoted functions are scrubbed inside"),
    ("sqllexer", "SQL is scrubbed by the newer lexer"),
];

/// Flags that are known and not honoured, and why.
pub const UNHONOURED: &[(&str, &str)] = &[(
    "disable_receive_resource_spans_v2",
    "the oldest conversion of OTLP is not here; disable_operation_and_resource_name_logic_v2 gives its names",
)];
