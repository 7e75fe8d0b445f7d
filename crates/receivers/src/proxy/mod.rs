//! What tracers send besides traces and statistics: profiles, telemetry,
//! events, debugger snapshots. With an API key it is passed on as the Agent
//! passes it on; without one it is accepted and counted, so that tracers stay
//! quiet and nothing leaves the machine.

mod accept;

pub(crate) use accept::accept;

/// A product behind a proxy path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Product {
    Profiling,
    Telemetry,
    PipelineStats,
    OpenLineage,
    Evp,
    DebuggerLogs,
    DebuggerDiagnostics,
    Symdb,
    Dogstatsd,
    Flare,
}

impl Product {
    /// Label in the ledger.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Profiling => "profiling",
            Self::Telemetry => "telemetry",
            Self::PipelineStats => "pipeline_stats",
            Self::OpenLineage => "openlineage",
            Self::Evp => "evp",
            Self::DebuggerLogs => "debugger_logs",
            Self::DebuggerDiagnostics => "debugger_diagnostics",
            Self::Symdb => "symdb",
            Self::Dogstatsd => "dogstatsd",
            Self::Flare => "tracer_flare",
        }
    }
}
