//! The program's own log: to standard error, level by `log_level`, changeable
//! while running.

use spanloom_receivers::datadog::SetLogLevel;
use std::io::IsTerminal;
use std::sync::{Arc, OnceLock};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

type Handle = reload::Handle<EnvFilter, tracing_subscriber::Registry>;
static HANDLE: OnceLock<Handle> = OnceLock::new();

/// The Agent's names of levels.
fn filter(level: &str) -> Option<EnvFilter> {
    let level = match level.to_ascii_lowercase().as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" | "critical" => "error",
        "off" => "off",
        _ => return None,
    };
    // Our crates at the level; libraries at warnings, unless something is being hunted.
    let libraries = if matches!(level, "trace" | "off" | "error") { level } else { "warn" };
    EnvFilter::try_new(format!("{libraries},spanloom={level}")).ok()
}

/// Starts the log.
pub fn start(level: &str) {
    let (filter, handle) = reload::Layer::new(filter(level).unwrap_or_default());
    let color = std::io::stderr().is_terminal();
    let format =
        tracing_subscriber::fmt::layer().with_writer(std::io::stderr).with_ansi(color).with_target(false);
    if tracing_subscriber::registry().with(filter).with(format).try_init().is_ok() {
        let _ = HANDLE.set(handle);
    }
}

/// Changes the level, for `/config/set`.
pub fn setter() -> SetLogLevel {
    Arc::new(|level| {
        let filter = filter(level).ok_or_else(|| format!("unknown log level: {level}"))?;
        let handle = HANDLE.get().ok_or("the log is not running")?;
        handle.reload(filter).map_err(|e| e.to_string())
    })
}
