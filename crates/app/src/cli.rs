//! What a person types.

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;

/// The whole tracing system of a fleet in one binary: Datadog, Zipkin, OTLP and
/// Jaeger in, an embedded store, the Jaeger, Zipkin and Tempo query APIs out.
#[derive(Parser, Debug)]
#[command(name = "spanloom", version, max_term_width = 100, arg_required_else_help = true)]
pub struct Cli {
    #[command(flatten)]
    pub settings: SettingsArgs,
    #[command(subcommand)]
    pub command: Command,
}

/// Where settings come from, besides the environment.
#[derive(Args, Debug, Clone, Default)]
pub struct SettingsArgs {
    /// Settings of Spanloom (YAML).
    #[arg(long, global = true, value_name = "FILE", env = "SPANLOOM_CONFIG")]
    pub config: Option<PathBuf>,
    /// Settings of the Datadog Agent: its `datadog.yaml`, as it is.
    #[arg(long, global = true, value_name = "FILE", env = "SPANLOOM_DATADOG_CONFIG")]
    pub datadog_config: Option<PathBuf>,
    /// Directory of the store and the queues.
    #[arg(long, global = true, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Directory of mesh resources that route spans to backends.
    #[arg(long, global = true, value_name = "DIR")]
    pub resources: Option<PathBuf>,
    /// Any setting, by its key, such as `--set ack=always` (repeatable).
    #[arg(long = "set", global = true, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

#[derive(Subcommand, Debug)]
pub enum Command {
    /// All of it on one machine: receivers, store, query APIs.
    Run,
    /// A node's agent: receivers, processing, exporters; no store.
    Agent,
    /// Read every setting and print the effective value and where it came from.
    Check {
        /// Also print settings that have their default.
        #[arg(long)]
        all: bool,
        /// For machines.
        #[arg(long)]
        json: bool,
        /// Print the page about every setting (docs/settings.md) instead.
        #[arg(long, conflicts_with_all = ["all", "json"])]
        docs: bool,
    },
    /// Ask a running Spanloom what came in and what became of it.
    Status {
        /// For machines.
        #[arg(long)]
        json: bool,
    },
    /// Search for traces, newest first.
    Search(SearchArgs),
    /// Show requests, errors and latencies by service, also of traces that were sampled away.
    Services(ServicesArgs),
    /// Show one trace as a waterfall.
    Trace {
        /// Trace id: 32 or 16 hexadecimal digits, or a Datadog decimal id.
        id: String,
        /// For machines: the trace as the Jaeger API gives it.
        #[arg(long)]
        json: bool,
        /// Also show every attribute.
        #[arg(long, short)]
        verbose: bool,
    },
    /// Keep a trace whatever rules say: also one that a tail rule has dropped in the store, until it
    /// is removed, and one that waits to leave.
    Keep {
        /// Trace id, as for `trace`.
        id: String,
    },
    /// Tell why a trace was kept or dropped, or that it never arrived.
    Why {
        /// Trace id, as for `trace`.
        id: String,
        /// For machines.
        #[arg(long)]
        json: bool,
    },
}

/// A question about requests, errors and latencies.
#[derive(Args, Debug)]
pub struct ServicesArgs {
    /// Show the operations and resources of this service.
    pub service: Option<String>,
    /// How far back to look; kept for a day.
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    pub since: String,
    /// Count all spans that statistics know, not only those that enter their service.
    #[arg(long)]
    pub all: bool,
    /// For machines.
    #[arg(long)]
    pub json: bool,
}

/// A search.
#[derive(Args, Debug)]
pub struct SearchArgs {
    /// Query, such as `service:api status:error @user.id:42 duration:>200ms`.
    pub query: Vec<String>,
    /// How far back to look.
    #[arg(long, default_value = "1h", value_name = "DURATION")]
    pub since: String,
    /// Most traces to show.
    #[arg(long, short = 'n', default_value_t = 20)]
    pub limit: usize,
    /// For machines.
    #[arg(long)]
    pub json: bool,
}
