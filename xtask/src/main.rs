//! `cargo run -p xtask -- tidy`: holds the tree to what ARCHITECTURE.md says.
#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, clippy::print_stderr)] // a command-line tool

use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Who may import whom (ARCHITECTURE.md, "Edges"). A room that is not here may
/// import nothing of ours. Test-only imports are not restricted.
const EDGES: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("benchkit", &[]),
    ("obfuscator", &[]),
    ("policy", &[]),
    ("outbound", &[]),
    ("codec", &["model"]),
    ("journal", &["model"]),
    ("segment", &["model"]),
    ("store", &["model", "journal", "segment"]),
    ("decisions", &["model", "journal"]),
    ("processors", &["model", "obfuscator"]),
    ("stats", &["model"]),
    ("sampler", &["model"]),
    ("pipeline", &["model"]),
    ("holding", &["model", "journal", "pipeline"]),
    ("receivers", &["model", "codec", "pipeline"]),
    ("exporters", &["model", "codec", "journal", "pipeline", "policy", "stats"]),
    ("query", &["model"]),
    ("api", &["model", "codec", "query"]),
    ("xtask", &[]),
];

/// Rooms that are pure: no runtime, no sockets.
const PURE: &[&str] = &["model", "codec", "obfuscator", "processors", "stats", "sampler", "policy", "query"];

/// Crates that make a room impure.
const IMPURE: &[&str] = &["tokio", "hyper", "hyper-util", "tonic", "socket2", "rustls"];

/// Lines above which a source file probably hides two. A hint, not a failure.
const LONG_FILE: usize = 800;

fn main() -> Result<()> {
    match std::env::args().nth(1).as_deref() {
        Some("tidy") => tidy(),
        _ => bail!("usage: cargo run -p xtask -- tidy"),
    }
}

fn tidy() -> Result<()> {
    let root =
        Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the root")?.to_path_buf();
    let mut wrong = Vec::new();
    edges(&root, &mut wrong)?;
    let mut sources = Vec::new();
    for dir in ["crates", "xtask"] {
        rust_files(&root.join(dir), &mut sources)?;
    }
    let mut long = Vec::new();
    for path in &sources {
        let text = std::fs::read_to_string(path)?;
        let shown = path.strip_prefix(&root).unwrap_or(path).display().to_string();
        if shown.ends_with("src/lib.rs") && !text.starts_with("//!") {
            wrong.push(format!("{shown}: begin with a code map (`//!`)"));
        }
        let unsafe_allowed = text.contains("allow(unsafe_code") && !shown.starts_with("xtask");
        if unsafe_allowed {
            wrong.push(format!(
                "{shown}: unsafe code needs a reviewed exception in xtask and ARCHITECTURE.md"
            ));
        }
        let lines = text.lines().count();
        if lines > LONG_FILE && !shown.contains("/tests/") {
            long.push(format!("{lines:>6} {shown}"));
        }
    }
    if !long.is_empty() {
        println!("longer than {LONG_FILE} lines (a hint):");
        long.sort();
        long.iter().rev().for_each(|l| println!("{l}"));
    }
    if !wrong.is_empty() {
        for line in &wrong {
            eprintln!("tidy: {line}");
        }
        bail!("{} things are not as ARCHITECTURE.md says", wrong.len());
    }
    println!("tidy: {} source files are in order", sources.len());
    Ok(())
}

fn edges(root: &Path, wrong: &mut Vec<String>) -> Result<()> {
    let out = std::process::Command::new(std::env::var("CARGO").unwrap_or_else(|_| "cargo".into()))
        .args(["metadata", "--format-version", "1", "--no-deps"])
        .current_dir(root)
        .output()?;
    let metadata: Value = serde_json::from_slice(&out.stdout).context("cargo metadata")?;
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let name = package["name"].as_str().unwrap_or_default();
        if name == "spanloom" {
            continue; // the app knows all rooms
        }
        let room = name.strip_prefix("spanloom-").unwrap_or(name);
        let Some(allowed) = allowed.get(room) else {
            wrong.push(format!("{name}: not in the table of edges in xtask/src/main.rs"));
            continue;
        };
        for dep in package["dependencies"].as_array().into_iter().flatten() {
            if !dep["kind"].is_null() {
                continue; // dev and build dependencies
            }
            let dep = dep["name"].as_str().unwrap_or_default();
            if PURE.contains(&room) && IMPURE.contains(&dep) {
                wrong.push(format!("{name}: is pure and must not import {dep}"));
            }
            if let Some(other) = dep.strip_prefix("spanloom-")
                && !allowed.contains(&other)
            {
                wrong.push(format!("{name}: must not import {dep}"));
            }
        }
        let manifest = package["manifest_path"].as_str().unwrap_or_default();
        if !std::fs::read_to_string(manifest)?.contains("[lints]\nworkspace = true") {
            wrong.push(format!("{name}: its manifest must say `[lints] workspace = true`"));
        }
    }
    Ok(())
}

fn rust_files(dir: &Path, out: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_dir() {
            rust_files(&path, out)?;
        } else if path.extension().is_some_and(|e| e == "rs") {
            out.push(path);
        }
    }
    Ok(())
}
