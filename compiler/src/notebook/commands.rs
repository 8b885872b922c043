//! Runs evcxr's commands in a notebook's cell.
//!
//! Settings (dependencies, formats, ..) apply while the cell's code is compiled, and stay only if it compiles. All other commands run
//! before, in order.

use super::{Compiled, Failure, Format, Notebook};
use crate::diagnostics;
use crate::lineages::commands::interpret;
use crate::reach::Added;
use crate::sources::{Cell, newlines};
use crate::statements::{code_start, is_command};
use crate::summary::Summary;
use crate::wrapper::Effort;
use std::ops::Range;
use toml::{Table, Value};

/// Commands that only change evcxr's state.
const SETTINGS: &[&str] = &[
    "allow_static_linking",
    "build_env",
    "cache",
    "codegen_backend",
    "dep",
    "efmt",
    "fmt",
    "linker",
    "offline",
    "opt",
    "preserve_vars_on_panic",
    "sccache",
    "time_passes",
    "toolchain",
    "types",
];

/// A cell's commands.
#[derive(Debug)]
pub(super) struct Orders {
    commands: Vec<Command>,
    /// The cell with those of its commands that are settings, on the same lines.
    pub(super) code: String,
}

#[derive(Debug)]
struct Command {
    /// Its bytes in the cell.
    range: Range<usize>,
    /// Without the colon; `!` for a command of the shell.
    name: String,
    arguments: String,
}

impl Command {
    fn is_setting(&self) -> bool {
        SETTINGS.contains(&&*self.name)
    }
}

impl Orders {
    pub(super) fn of(cell: &str) -> Orders {
        let mut orders = Orders {
            commands: Vec::new(),
            code: String::new(),
        };
        let start = code_start(cell);
        let mut at = 0;
        for line in cell[..start].split_inclusive('\n') {
            let bare = line.trim_end_matches(['\n', '\r']);
            let mut is_kept = true;
            if is_command(bare) {
                let text = bare.trim_start_matches(' ');
                let (name, arguments) = match text.strip_prefix('!') {
                    Some(command) => ("!", command),
                    None => {
                        let text = &text[1..];
                        text.split_once(' ').unwrap_or((text, ""))
                    }
                };
                let command = Command {
                    range: at + bare.len() - text.len()..at + bare.trim_end().len(),
                    name: name.to_owned(),
                    arguments: arguments.trim().to_owned(),
                };
                is_kept = command.is_setting();
                orders.commands.push(command);
            }
            orders
                .code
                .push_str(if is_kept { line } else { &line[bare.len()..] });
            at += line.len();
        }
        orders.code.push_str(&cell[start..]);
        orders
    }

    /// Skips the commands of a cell, which have run already.
    pub(super) fn none(cell: &str) -> Orders {
        let start = code_start(cell);
        let lines = newlines(&cell[..start]);
        Orders {
            commands: Vec::new(),
            code: "\n".repeat(lines) + &cell[start..],
        }
    }

    /// Applies `:fmt` and `:types` to a format.
    pub(super) fn format(&self, format: &Format) -> Format {
        let mut format = format.clone();
        for Command {
            name, arguments, ..
        } in &self.commands
        {
            match &**name {
                "fmt" => format.changed = !matches!(&**arguments, "" | "{:?}"),
                "types" => format.types = !format.types,
                _ => {}
            }
        }
        format
    }

    /// The value of `:preserve_vars_on_panic`, if the cell has it.
    pub(super) fn catches(&self) -> Option<bool> {
        let last = self
            .commands
            .iter()
            .rfind(|command| command.name == "preserve_vars_on_panic");
        last.map(|command| command.arguments == "1")
    }

    /// The argument of the last `:toolchain`.
    fn toolchain(&self) -> Option<&str> {
        let last = self
            .commands
            .iter()
            .rfind(|command| command.name == "toolchain" && !command.arguments.is_empty());
        last.map(|command| &*command.arguments)
    }

    /// The cells that `:load_config` runs.
    pub(super) fn configuration(&self) -> Result<Vec<String>, Failure> {
        let asked = self
            .commands
            .iter()
            .any(|command| command.name == "load_config");
        match asked {
            true => configuration().map_err(Failure::Refused),
            false => Ok(Vec::new()),
        }
    }

    /// Whether a command drops all variables.
    pub(super) fn restarts(&self) -> bool {
        self.commands
            .iter()
            .any(|command| ["clear", "restart"].contains(&&*command.name))
    }
}

impl Notebook {
    /// Runs all commands that are not settings.
    pub(super) fn do_at_once(
        &mut self,
        cell: &Cell,
        orders: &Orders,
        compiled: &mut Compiled,
    ) -> Result<(), Failure> {
        for command in &orders.commands {
            let refused = |message: &str| {
                let error = diagnostics::of_command(cell, command.range.clone(), message);
                Failure::Errors(vec![error])
            };
            match &*command.name {
                "load_config" => {}
                "vars" | "type" | "t" => {
                    let line = &cell.source[command.range.clone()];
                    let read = interpret(line, &self.summary);
                    compiled.show(read.map_err(|refusal| refused(&refusal.message))?.shown);
                }
                "doc" => {
                    let name = &*command.arguments;
                    if name.is_empty() {
                        return Err(refused("`:doc` takes a name"));
                    }
                    let found = self.inspect(name, name.len());
                    let found = found.ok_or_else(|| refused("there is no documentation of it"))?;
                    let shown = [("text/plain", found.text), ("text/html", found.html)];
                    compiled.show(shown.map(|(kind, text)| (kind.to_owned(), text)).into());
                }
                _ if command.is_setting() => {}
                name => {
                    self.execute(cell, std::slice::from_ref(command), "", compiled)?;
                    match name {
                        "clear" => {
                            self.summary = Summary::default();
                            self.layouts = Default::default();
                        }
                        "restart" => self.summary.variables.clear(),
                        _ => {}
                    }
                }
            }
        }
        compiled.restarted |= orders.restarts();
        Ok(())
    }

    /// Makes the settings permanent, and `ours`.
    pub(super) fn settle(
        &mut self,
        cell: &Cell,
        orders: &Orders,
        ours: &str,
        compiled: &mut Compiled,
    ) -> Result<(), Failure> {
        let settings: Vec<&Command> = orders
            .commands
            .iter()
            .filter(|command| command.is_setting())
            .collect();
        if settings.is_empty() && ours.is_empty() {
            return Ok(());
        }
        self.execute(cell, settings, ours, compiled)?;
        self.format = orders.format(&self.format);
        if let Some(catches) = orders.catches() {
            self.bench.plan.catches = catches;
        }
        if let Some(name) = orders.toolchain() {
            compiled.support = Some(self.follow_toolchain(name)?);
            compiled.restarted = true;
            let kept: Vec<String> = self.introduced(cell);
            self.summary.variables.retain(|name, _| kept.contains(name));
        }
        Ok(())
    }

    /// Passes commands to evcxr, each on its line of the cell so that errors point at it, and `ours` behind them.
    fn execute<'a>(
        &mut self,
        cell: &Cell,
        commands: impl IntoIterator<Item = &'a Command>,
        ours: &str,
        compiled: &mut Compiled,
    ) -> Result<(), Failure> {
        let mut text = String::new();
        for command in commands {
            let line = newlines(&cell.source[..command.range.start]);
            let there = newlines(&text);
            text.push_str(&"\n".repeat(line - there));
            text.push_str(&cell.source[command.range.clone()]);
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(ours);
        let context = &mut self.context;
        let done = self
            .bench
            .tell_evcxr(Effort::DryRun, Vec::new(), || context.execute(&text));
        match done {
            Ok(outputs) => {
                compiled.show(outputs.content_by_mime_type.into_iter().collect());
                Ok(())
            }
            Err(trouble) => Err(self.failed(cell, Added::default(), trouble)),
        }
    }
}

/// Reads evcxr's start-up configuration as cells: dependencies, then code.
fn configuration() -> Result<Vec<String>, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_stay_with_the_code() {
        let cell =
            ":vars\n  :dep itoa = \"1\"\n// note\n!ls -l\n:fmt {}\n\nlet a = 1;\n:no command";
        let orders = Orders::of(cell);
        assert_eq!(
            orders.code,
            "\n  :dep itoa = \"1\"\n// note\n\n:fmt {}\n\nlet a = 1;\n:no command"
        );
        let found: Vec<(&str, &str, &str)> = orders
            .commands
            .iter()
            .map(|command| {
                (
                    &*command.name,
                    &*command.arguments,
                    &cell[command.range.clone()],
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                ("vars", "", ":vars"),
                ("dep", "itoa = \"1\"", ":dep itoa = \"1\""),
                ("!", "ls -l", "!ls -l"),
                ("fmt", "{}", ":fmt {}"),
            ]
        );
        assert!(orders.format(&Format::default()).changed);
        assert!(!orders.restarts());
        assert_eq!(
            Orders::none(cell).code,
            "\n\n\n\n\n\nlet a = 1;\n:no command"
        );
    }
}
