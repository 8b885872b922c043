//! evcxr's commands in a snippet for engines, as a pure function of the snippet and the state: what they change, what they show.
//!
//! Their names, arguments and words are evcxr 0.22's. Those that make no sense where a state is shared by many engines
//! are refused with what to do instead.

use crate::statements::{code_start, is_command};
use crate::summary::{Settings, Summary};
use std::collections::BTreeMap;
use std::ops::Range;

/// Something to be done to evcxr's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Dependency { name: String, config: String },
    LocalDependency(String),
    OptLevel(String),
    Format(String),
    Types(bool),
    ErrorFormat(String),
    Offline(bool),
    Sccache(bool),
    CacheBytes(u64),
    Linker(String),
    CodegenBackend(String),
    PreserveVarsOnPanic(bool),
    BuildEnv { key: String, value: String },
}

impl Change {
    pub(crate) fn is_dependency(&self) -> bool {
        matches!(self, Change::Dependency { .. } | Change::LocalDependency(_))
    }

    pub(crate) fn dependency((name, config): (&str, &str)) -> Change {
        Change::Dependency {
            name: name.to_owned(),
            config: config.to_owned(),
        }
    }
}

/// What a snippet's commands come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    /// What to change, and the bytes of the snippet that ask for it.
    pub(crate) changes: Vec<(Range<usize>, Change)>,
    /// What to show, by media type.
    pub(crate) shown: BTreeMap<String, String>,
    /// Begin anew: there is nothing else in the snippet.
    pub(crate) clear: bool,
    /// The snippet without its commands, on the same lines.
    pub(crate) code: String,
}

/// A command that can't be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The bytes of the snippet that it is about.
    pub(crate) range: Range<usize>,
    pub(crate) message: String,
}

const REFUSED: &[(&str, &str)] = &[
    (
        "quit",
        "an engine isn't ended by its snippets; `%cluster stop` ends the cluster",
    ),
    (
        "restart",
        "engines aren't restarted by their snippets; `:clear` gives up what they know, `%cluster restart` starts them anew",
    ),
    (
        "toolchain",
        "a running cluster keeps its toolchain; set another by `rustup default`, then use `%cluster restart`",
    ),
    (
        "env",
        "engines have environments of their own; set a variable there by `unsafe { std::env::set_var(\"KEY\", \"VALUE\") }`",
    ),
    (
        "load_config",
        "evcxr's start-up configuration is the notebook's; put what engines need of it into a `%%px` cell",
    ),
    (
        "doc",
        "documentation is the notebook's to show; ask there, without `%px`",
    ),
    (
        "explain",
        "the last error is not kept; `rustc --explain CODE` explains it",
    ),
    ("last_error_json", "the last error is not kept"),
    (
        "last_compile_dir",
        "engines load what was compiled elsewhere; there is nothing of use in that folder",
    ),
    ("timing", "use `%time` or `%timeit`, also over `%px`"),
    (
        "time_passes",
        "rustc's passes are not timed for engines; use it in the notebook",
    ),
    ("clear_cache", "use it in the notebook, without `%px`"),
    (
        "internal_debug",
        "it shows what evcxr does in the notebook; use it there, without `%px`",
    ),
];

const HELP: &[(&str, &str)] = &[
    (
        ":allow_static_linking",
        "Whether to link dependencies statically (only 1 for engines)",
    ),
    (
        ":build_env",
        "Set environment variables when building code (key=value)",
    ),
    (":cache", "Set cache size in MiB, or 0 to disable"),
    (
        ":clear",
        "Give up all variables, definitions, dependencies and settings",
    ),
    (
        ":codegen_backend",
        "Set/print the codegen backend. Requires nightly",
    ),
    (":dep", "Add dependency. e.g. :dep regex = \"1.0\""),
    (":efmt", "Set the formatter for errors returned by ?"),
    (":fmt", "Set output formatter (default: {:?})"),
    (":help", "Print command help"),
    (":linker", "Set/print linker. Supported: system, lld, mold"),
    (":offline", "Set offline mode when invoking cargo (0/1)"),
    (":opt", "Set optimization level (0/1/2)"),
    (":preserve_vars_on_panic", "Try to keep vars on panic (0/1)"),
    (":sccache", "Set whether to use sccache (0/1)"),
    (":show_deps", "Show the current dependencies"),
    (":type", "Show variable type (also :t)"),
    (":types", "Toggle printing of types"),
    (":vars", "List bound variables and their types"),
    (":version", "Print versions"),
];

/// Reads a snippet's commands, given the state they are to act on.
pub(crate) fn interpret(source: &str, state: &Summary) -> Result<Orders, Refusal> {
    let end = code_start(source);
    let mut orders = Orders::default();
    let mut settings = state.settings.clone();
    let mut dependencies = state.dependencies.clone();
    let mut commands = 0;
    let mut at = 0;
    let mut clear = None;
    for line in source[..end].split_inclusive('\n') {
        let bare = line.trim_end_matches(['\n', '\r']);
        if !is_command(bare) {
            orders.code.push_str(line);
            at += line.len();
            continue;
        }
        commands += 1;
        orders.code.push_str(&line[bare.len()..]);
        let range = at + bare.len() - bare.trim_start().len()..at + bare.trim_end().len();
        let refuse = |message: String| Refusal {
            range: range.clone(),
            message,
        };
        if bare.starts_with('!') {
            return Err(refuse(
                "commands of the shell run where the notebook runs, without `%px`; on engines use `std::process::Command`".to_owned(),
            ));
        }
        let text = bare.trim_start_matches([' ', ':']);
        let (name, arguments) = text.split_once(' ').unwrap_or((text, ""));
        let mut context = Reading {
            state,
            settings: &mut settings,
            dependencies: &mut dependencies,
        };
        match context.read(name, arguments.trim()).map_err(refuse)? {
            Said::Clear => clear = Some(range.clone()),
            Said::Nothing => {}
            Said::Text(text) => orders.show("text/plain", &text),
            Said::Both { text, html } => {
                orders.show("text/plain", &text);
                orders.show("text/html", &html);
            }
            Said::Change(change, text) => {
                orders.changes.push((range.clone(), change));
                if let Some(text) = text {
                    orders.show("text/plain", &text);
                }
            }
        }
        at += line.len();
    }
    orders.code.push_str(&source[end..]);
    if let Some(range) = clear {
        if commands > 1 || !source[end..].trim().is_empty() {
            return Err(Refusal {
                range,
                message: "`:clear` stands alone; put what follows it into a snippet of its own"
                    .to_owned(),
            });
        }
        orders.clear = true;
    }
    Ok(orders)
}

impl Orders {
    fn show(&mut self, kind: &str, text: &str) {
        let shown = self.shown.entry(kind.to_owned()).or_default();
        shown.push_str(text);
        if kind == "text/plain" {
            shown.push('\n');
        }
    }
}

enum Said {
    Nothing,
    Clear,
    Text(String),
    Both { text: String, html: String },
    Change(Change, Option<String>),
}

struct Reading<'a> {
    state: &'a Summary,
    settings: &'a mut Settings,
    dependencies: &'a mut BTreeMap<String, String>,
}

impl Reading<'_> {
    fn read(&mut self, name: &str, arguments: &str) -> Result<Said, String> {
        if let Some((_, reason)) = REFUSED.iter().find(|(refused, _)| *refused == name) {
            return Err(format!("`:{name}` has no place here: {reason}"));
        }
        let on = arguments == "1";
        let given = (!arguments.is_empty()).then(|| arguments.to_owned());
        let changed = |change, text: String| Ok(Said::Change(change, Some(text)));
        let settings = &mut *self.settings;
        match name {
            "clear" => Ok(Said::Clear),
            "dep" => self.dependency(arguments),
            "show_deps" => {
                let lines: Vec<String> = self
                    .dependencies
                    .iter()
                    .map(|(name, config)| format!("{name} = {config}"))
                    .collect();
                Ok(match lines.is_empty() {
                    true => Said::Nothing,
                    false => Said::Text(lines.join("\n")),
                })
            }
            "vars" => Ok(self.variables()),
            "type" | "t" => match self.state.variables.get(arguments) {
                Some(variable) => Ok(Said::Text(format!("{arguments}: {}", variable.kind))),
                None if arguments.is_empty() => Err("`:type` takes a variable's name".to_owned()),
                None => Err(format!("there is no variable `{arguments}`")),
            },
            "version" => Ok(Said::Text(format!("Chorus {}", env!("CARGO_PKG_VERSION")))),
            "help" => {
                let lines: Vec<String> = HELP
                    .iter()
                    .map(|(name, text)| format!("{name:<23} {text}"))
                    .collect();
                Ok(Said::Text(lines.join("\n")))
            }
            "opt" => {
                let other = if settings.opt_level == "2" { "0" } else { "2" };
                settings.opt_level = given.unwrap_or_else(|| other.to_owned());
                let level = settings.opt_level.clone();
                let text = format!("Optimization: {level}");
                changed(Change::OptLevel(level), text)
            }
            "fmt" => {
                settings.format = given.unwrap_or_else(|| "{:?}".to_owned());
                let format = settings.format.clone();
                let text = format!("Output format: {format}");
                changed(Change::Format(format), text)
            }
            "types" => {
                settings.types = !settings.types;
                let types = settings.types;
                changed(Change::Types(types), format!("Types: {types}"))
            }
            "efmt" => {
                let format = given.unwrap_or_else(|| settings.error_format.clone());
                let implemented = match format.as_str() {
                    "{}" => "std::fmt::Display",
                    _ => "std::fmt::Debug",
                };
                settings.error_format.clone_from(&format);
                let text = format!("Error format: {format} (errors must implement {implemented})");
                changed(Change::ErrorFormat(format), text)
            }
            "offline" => {
                settings.offline = on;
                changed(Change::Offline(on), format!("Offline mode: {on}"))
            }
            "allow_static_linking" if on => Ok(Said::Text("Static linking: true".to_owned())),
            "allow_static_linking" => Err(
                "engines load a snippet by itself, so its dependencies are always linked into it"
                    .to_owned(),
            ),
            "sccache" => {
                let on = arguments != "0";
                settings.sccache = on;
                changed(Change::Sccache(on), format!("sccache: {on}"))
            }
            "cache" => {
                if let Some(given) = given {
                    let mebibytes: u64 = given
                        .parse()
                        .map_err(|_| format!("`{given}` is no number of MiB"))?;
                    settings.cache_bytes = mebibytes.saturating_mul(1 << 20);
                }
                let bytes = settings.cache_bytes;
                changed(
                    Change::CacheBytes(bytes),
                    format!("cache: {} MiB", bytes >> 20),
                )
            }
            "linker" => {
                settings.linker = given.unwrap_or_else(|| settings.linker.clone());
                let linker = settings.linker.clone();
                let text = format!("linker: {linker}");
                changed(Change::Linker(linker), text)
            }
            "codegen_backend" => {
                settings.codegen_backend =
                    given.unwrap_or_else(|| settings.codegen_backend.clone());
                let backend = settings.codegen_backend.clone();
                let text = format!("codegen backend: {backend}");
                changed(Change::CodegenBackend(backend), text)
            }
            "preserve_vars_on_panic" => {
                settings.preserve_vars_on_panic = on;
                changed(
                    Change::PreserveVarsOnPanic(on),
                    format!("Preserve vars on panic: {on}"),
                )
            }
            "build_env" => {
                let (key, value) = arguments
                    .split_once('=')
                    .ok_or("`:build_env` takes KEY=VALUE")?;
                let (key, value) = (key.to_owned(), value.to_owned());
                let text = format!("Set {key}={value} for build");
                changed(Change::BuildEnv { key, value }, text)
            }
            _ => Err(format!(
                "there is no command `:{name}`; `:help` lists those that engines know"
            )),
        }
    }

    fn dependency(&mut self, arguments: &str) -> Result<Said, String> {
        let (name, config) = match arguments.split_once('=') {
            Some((name, config)) => (name.trim(), config.trim()),
            None => (arguments, "\"*\""),
        };
        if name.is_empty() || config.is_empty() || name.contains(' ') {
            return Err(
                "`:dep` takes a crate's name, `name = \"version\"` or `name = { .. }`".to_owned(),
            );
        }
        if name.starts_with(['.', '/']) {
            self.dependencies
                .insert(name.to_owned(), "local".to_owned());
            return Ok(Said::Change(Change::LocalDependency(name.to_owned()), None));
        }
        self.dependencies.insert(name.to_owned(), config.to_owned());
        let change = Change::Dependency {
            name: name.to_owned(),
            config: config.to_owned(),
        };
        Ok(Said::Change(change, None))
    }

    fn variables(&self) -> Said {
        let mut text = Vec::new();
        let mut html = "<table><tr><th>Variable</th><th>Type</th></tr>".to_owned();
        for (name, variable) in &self.state.variables {
            text.push(format!("{name}: {}", variable.kind));
            let kind = variable
                .kind
                .replace('&', "&amp;")
                .replace('<', "&lt;")
                .replace('>', "&gt;");
            html.push_str(&format!("<tr><td>{name}</td><td>{kind}</td></tr>"));
        }
        html.push_str("</table>");
        let text = match text.is_empty() {
            true => "There are no variables.".to_owned(),
            false => text.join("\n"),
        };
        Said::Both { text, html }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::summary::Variable;

    fn state() -> Summary {
        let mut state = Summary::root(Settings {
            opt_level: "2".to_owned(),
            ..Settings::default()
        });
        let kind = "Vec<u8>".to_owned();
        state.variables.insert(
            "v".to_owned(),
            Variable {
                kind,
                mutable: false,
            },
        );
        state
    }

    #[test]
    fn commands_leave_the_code_on_its_lines() {
        let source = "\n:dep itoa = \"1\"\n// note\n  :opt 0\nlet x = 1;\n:no command\n";
        let orders = interpret(source, &state()).unwrap();
        assert_eq!(orders.code, "\n\n// note\n\nlet x = 1;\n:no command\n");
        let changes: Vec<(&str, &Change)> = orders
            .changes
            .iter()
            .map(|(range, change)| (&source[range.clone()], change))
            .collect();
        let dependency = Change::Dependency {
            name: "itoa".to_owned(),
            config: "\"1\"".to_owned(),
        };
        assert_eq!(
            changes,
            [
                (":dep itoa = \"1\"", &dependency),
                (":opt 0", &Change::OptLevel("0".to_owned()))
            ]
        );
        assert_eq!(orders.shown["text/plain"], "Optimization: 0\n");
    }

    #[test]
    fn what_commands_change() {
        for (source, change) in [
            (
                ":dep a",
                Change::Dependency {
                    name: "a".into(),
                    config: "\"*\"".into(),
                },
            ),
            (
                ":dep a={version=\"1\"}",
                Change::Dependency {
                    name: "a".into(),
                    config: "{version=\"1\"}".into(),
                },
            ),
            (":dep ../a", Change::LocalDependency("../a".into())),
            (":opt", Change::OptLevel("0".into())),
            (":fmt {:#?}", Change::Format("{:#?}".into())),
            (":fmt", Change::Format("{:?}".into())),
            (":types", Change::Types(true)),
            (":efmt {}", Change::ErrorFormat("{}".into())),
            (":offline 1", Change::Offline(true)),
            (":sccache 0", Change::Sccache(false)),
            (":cache 3", Change::CacheBytes(3 << 20)),
            (":linker lld", Change::Linker("lld".into())),
            (
                ":build_env A=b=c",
                Change::BuildEnv {
                    key: "A".into(),
                    value: "b=c".into(),
                },
            ),
        ] {
            let orders = interpret(source, &state()).unwrap();
            assert_eq!(orders.changes, [(0..source.len(), change)], "{source}");
        }
    }

    #[test]
    fn what_commands_show() {
        let shown = |source| interpret(source, &state()).unwrap().shown;
        assert_eq!(shown(":vars")["text/plain"], "v: Vec<u8>\n");
        assert!(shown(":vars")["text/html"].contains("Vec&lt;u8&gt;"));
        assert_eq!(shown(":t v")["text/plain"], "v: Vec<u8>\n");
        assert_eq!(
            shown(":dep b\n:dep a = \"1\"\n:show_deps")["text/plain"],
            "a = \"1\"\nb = \"*\"\n"
        );
        assert_eq!(
            shown(":opt\n:opt")["text/plain"],
            "Optimization: 0\nOptimization: 2\n"
        );
        for (name, _) in HELP {
            assert!(shown(":help")["text/plain"].contains(name));
            let refusal = interpret(name, &state());
            let unknown = refusal.is_err_and(|refusal| refusal.message.contains("no command"));
            assert!(!unknown, "{name}");
        }
    }

    #[test]
    fn refusals_say_where_and_what_to_do() {
        for (source, range, says) in [
            (":quit", 0..5, "%cluster stop"),
            ("\n  :restart\n1", 3..11, "%cluster restart"),
            ("!ls", 0..3, "std::process::Command"),
            (":nothing", 0..8, ":help"),
            (":t w", 0..4, "`w`"),
            (":dep", 0..4, "name"),
            (":clear\nlet x = 1;", 0..6, "alone"),
            (":opt 0\n:clear", 7..13, "alone"),
            (":allow_static_linking 0", 0..23, "linked into"),
        ] {
            let refusal = interpret(source, &state()).unwrap_err();
            assert_eq!(refusal.range, range, "{source}");
            assert!(refusal.message.contains(says), "{}", refusal.message);
        }
        assert!(interpret("\n:clear\n// all\n", &state()).unwrap().clear);
    }
}
