//! evcxr's start-up configuration.

use crate::statements::commands;
use std::path::PathBuf;
use toml::{Table, Value};

/// Whether it exists: `evcxr.toml` in the current folder or evcxr's own, or `init.evcxr` or `prelude.rs` there.
pub fn has_configuration() -> bool {
    let own = evcxr::config_dir();
    let in_own = |name: &str| own.as_ref().is_some_and(|own| own.join(name).exists());
    PathBuf::from("evcxr.toml").exists()
        || ["evcxr.toml", "init.evcxr", "prelude.rs"]
            .into_iter()
            .any(in_own)
}

/// The cells that come before one that has `:load_config`: dependencies, then code.
///
/// # Errors
/// Says what can't be read, for people.
pub fn configuration(cell: &str) -> Result<Vec<String>, String> {
    match commands(cell).any(|(command, _)| command == "load_config") {
        true => read_configuration(),
        false => Ok(Vec::new()),
    }
}

fn read_configuration() -> Result<Vec<String>, String> {
    let own = evcxr::config_dir();
    let in_own = |name: &str| own.as_ref().map(|folder| folder.join(name));
    let read = |path: Option<std::path::PathBuf>| match path {
        Some(path) if path.exists() => std::fs::read_to_string(&path)
            .map(Some)
            .map_err(|error| format!("failed to read {}: {error}", path.display())),
        _ => Ok(None),
    };
    let text = match read(Some("evcxr.toml".into()))? {
        Some(text) => Some(text),
        None => read(in_own("evcxr.toml"))?,
    };
    let table: Table = match text {
        Some(text) => text
            .parse()
            .map_err(|error| format!("evcxr.toml is not as it should be: {error}"))?,
        None => Table::new(),
    };
    let dependencies = match table.get("dependencies").and_then(Value::as_table) {
        Some(table) if !table.is_empty() => {
            let lines = table
                .iter()
                .map(|(name, config)| format!(":dep {name} = {config}"));
            Some(lines.collect::<Vec<_>>().join("\n"))
        }
        _ => read(in_own("init.evcxr"))?,
    };
    let prelude = match table.get("evcxr").and_then(|evcxr| evcxr.get("prelude")) {
        Some(prelude) => prelude.as_str().map(str::to_owned),
        None => read(in_own("prelude.rs"))?,
    };
    Ok(dependencies.into_iter().chain(prelude).collect())
}
