//! `spanloom check`: every setting, its value, where it came from.

use crate::cli::SettingsArgs;
use crate::settings::{Layers, Notice, Origin, Settings, SettingsError, read_file};
use crate::wiring::read_resources;
use serde_json::json;

/// Reads all layers. The environment is read here and nowhere else.
pub fn load(args: &SettingsArgs) -> Result<(Settings, Vec<Notice>), Vec<SettingsError>> {
    let mut layers = Layers { env: std::env::vars().collect(), ..Layers::default() };
    let mut errors = Vec::new();
    for (path, slot) in [(&args.datadog_config, &mut layers.datadog), (&args.config, &mut layers.spanloom)] {
        if let Some(path) = path {
            match read_file(path) {
                Ok(json) => *slot = Some((path.display().to_string(), json)),
                Err(e) => errors.push(e),
            }
        }
    }
    for (flag, key, path) in
        [("--data-dir", "data_dir", &args.data_dir), ("--resources", "resources", &args.resources)]
    {
        if let Some(path) = path {
            layers.flags.push((flag.into(), key.into(), path.display().to_string()));
        }
    }
    for text in &args.set {
        match text.split_once('=') {
            Some((key, value)) => {
                layers.flags.push((format!("--set {key}"), key.trim().into(), value.into()))
            }
            None => errors.push(SettingsError::Value {
                key: "--set".into(),
                value: text.clone(),
                accepts: "KEY=VALUE".into(),
                origin: "command line".into(),
            }),
        }
    }
    match layers.resolve() {
        Ok(resolved) if errors.is_empty() => Ok(resolved),
        Ok(_) => Err(errors),
        Err(more) => {
            errors.extend(more);
            Err(errors)
        }
    }
}

/// Prints the settings; `Err` holds what is wrong, one message a line.
pub fn run(args: &SettingsArgs, all: bool, as_json: bool) -> Result<String, String> {
    let loaded = load(args);
    let resources = match &loaded {
        Ok((settings, _)) => check_resources(&settings.resources),
        Err(_) => Ok((String::new(), Vec::new())),
    };
    if as_json {
        return match (loaded, resources) {
            (Ok((settings, mut notices)), Ok((_, warnings))) => {
                notices.extend(warnings.into_iter().map(|text| Notice { warning: true, text }));
                let of = |warning| -> Vec<&str> {
                    notices.iter().filter(|n| n.warning == warning).map(|n| n.text.as_str()).collect()
                };
                let rows: Vec<_> = settings
                    .entries()
                    .iter()
                    .map(|e| {
                        json!({"key": e.field.key, "value": e.value, "origin": e.origin.to_string(),
                               "env": e.field.env, "accepts": e.field.accepts, "meaning": e.field.doc.trim()})
                    })
                    .collect();
                Ok(json!({"ok": true, "settings": rows, "warnings": of(true), "notices": of(false), "errors": []}).to_string() + "\n")
            }
            (Ok(_), Err(errors)) => Err(json!({"ok": false, "errors": errors}).to_string()),
            (Err(errors), _) => {
                let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
                Err(json!({"ok": false, "errors": texts}).to_string())
            }
        };
    }
    let (settings, mut notices) = loaded.map_err(|errors| lines(&errors))?;
    let (found, warnings) = resources.map_err(|errors| errors.join("\n"))?;
    notices.extend(warnings.into_iter().map(|text| Notice { warning: true, text }));
    let mut out = String::new();
    let entries = settings.entries();
    let shown: Vec<_> = entries.iter().filter(|e| all || e.origin != Origin::Default).collect();
    let width = shown.iter().map(|e| e.field.key.len()).max().unwrap_or(0);
    for e in &shown {
        out += &format!("{:width$} = {:<28} {}\n", e.field.key, e.value, e.origin);
        if all {
            let env = e.field.env.first().copied().unwrap_or_default();
            out += &format!("{:width$}   {} [{env}; {}]\n", "", e.field.doc.trim(), e.field.accepts);
        }
    }
    let defaults = entries.len() - shown.len();
    if defaults > 0 {
        out += &format!(
            "{defaults} more have their defaults; `spanloom check --all` shows and explains them.\n"
        );
    }
    for notice in &notices {
        out += &format!("{notice}\n");
    }
    out += &found;
    out += "The settings are valid.\n";
    Ok(out)
}

/// Validates the directory of resources, if one is set: what it holds, and
/// warnings; or what is wrong with it.
fn check_resources(dir: &str) -> Result<(String, Vec<String>), Vec<String>> {
    if dir.is_empty() {
        return Ok((String::new(), Vec::new()));
    }
    let loaded = read_resources(std::path::Path::new(dir)).map_err(|e| vec![e])?;
    if !loaded.errors.is_empty() {
        return Err(loaded.errors.iter().map(ToString::to_string).collect());
    }
    let mut out = format!("{} resources in {dir} are valid.\n", loaded.resources.len());
    for position in loaded.policies.used_backends() {
        let Some(backend) = loaded.policies.backends().get(position) else { continue };
        out += &format!("  policies send to {} ({})\n", backend.name, backend.target);
    }
    Ok((out, loaded.warnings.iter().map(ToString::to_string).collect()))
}

/// The messages of several errors, one a line.
pub fn lines(errors: &[SettingsError]) -> String {
    errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}
