//! Spanloom: the whole tracing system of a fleet in one binary.
//!
//! | file | holds |
//! |---|---|
//! | `cli.rs` | commands and flags |
//! | `settings/` | every setting, its layers and errors |
//! | `check.rs` | `spanloom check` |
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)] // the program speaks to people here and only here

mod check;
mod cli;
mod settings;

use clap::Parser;
use std::process::ExitCode;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let result = match &cli.command {
        cli::Command::Check { all, json } => check::run(&cli.settings, *all, *json),
        _ => Err("not built in this version".into()),
    };
    match result {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            eprintln!("{text}");
            ExitCode::FAILURE
        }
    }
}
