//! Spanloom: the whole tracing system of a fleet in one binary.
//!
//! | file | holds |
//! |---|---|
//! | `cli.rs` | commands and flags |
//! | `settings/` | every setting, its layers and errors |
//! | `wiring/` | the rooms put together: start, stop, settings → configs |
//! | `check.rs` | `spanloom check` |
//! | `ask.rs`, `remote.rs` | commands that ask a running one |
//! | `report.rs`, `waterfall.rs`, `services.rs` | counters, traces and figures of services for people and machines |
//! | `agent_metrics.rs` | counters as the trace-agent's own metrics |
//! | `logging.rs` | the program's own log |
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)] // the program speaks to people here and only here

mod agent_metrics;
mod ask;
mod check;
mod cli;
mod logging;
mod remote;
mod report;
mod services;
mod settings;
mod waterfall;
mod wiring;

use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let result = match &cli.command {
        cli::Command::Check { docs: true, .. } => Ok(settings::page()),
        cli::Command::Check { all, json, .. } => check::run(&cli.settings, *all, *json),
        cli::Command::Run => start(&cli.settings, wiring::Mode::Run),
        cli::Command::Agent => start(&cli.settings, wiring::Mode::Agent),
        command => check::load(&cli.settings)
            .map_err(|errors| check::lines(&errors))
            .and_then(|(settings, _)| ask::run(&settings, command)),
    };
    match result {
        Ok(text) => {
            // A closed pipe (`spanloom search | head`) is no error.
            let _ = std::io::Write::write_all(&mut std::io::stdout(), text.as_bytes());
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("spanloom: {text}");
            ExitCode::FAILURE
        }
    }
}

fn start(args: &cli::SettingsArgs, mode: wiring::Mode) -> Result<String, String> {
    let (settings, notices) = check::load(args).map_err(|errors| check::lines(&errors))?;
    logging::start(&settings.log_level);
    let around = wiring::Surroundings::find();
    wiring::run(settings, &notices, mode, &around).map(|()| String::new())
}
