//! evcxr's commands in a snippet, as a function of the snippet and the state: what they change, what they show, and what is left to evcxr itself.
//!
//! Their names, arguments and words are evcxr 0.22's. Those that make no sense where a state is shared by many engines
//! are refused there, with what to do instead.

use super::local;
use super::store::Owner;
use crate::statements::{HeadLine, code_start, head};
use crate::summary::{Settings, Summary};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;

/// Something to be done to a state's dependencies or to the environment of builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Dependency { name: String, config: String },
    LocalDependency(String),
    BuildEnv { key: String, value: String },
}

impl Change {
    /// The command for it, in a line of its own.
    fn command(&self) -> String {
        match self {
            Change::Dependency { name, config } => local::command(name, config),
            Change::LocalDependency(path) => local::command(path, ""),
            Change::BuildEnv { key, value } => format!(":build_env {key}={value}\n"),
        }
    }
}

/// What a command has to say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Said {
    /// By media type.
    Shown(Vec<(&'static str, String)>),
    /// What evcxr says to the command in these bytes of the snippet.
    Evcxr(Range<usize>),
    /// The documentation of a name, for the command in these bytes.
    Documentation { range: Range<usize>, name: String },
}

/// A command of a notebook's cell that needs no evcxr.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Local {
    /// A command of the shell.
    Shell(String),
    /// Sets a variable of the runtime's environment when that is started, and of the compiler's.
    Environment {
        /// Its name.
        name: String,
        /// Its value.
        value: String,
    },
    /// Explains the last compile errors.
    Explain,
    /// Shows what rustc said of the last compile errors.
    LastErrors,
}

/// A command, and the bytes of the cell that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct At<T> {
    /// What is there.
    pub command: T,
    /// Its bytes.
    pub range: Range<usize>,
}

/// Takes the commands that need no evcxr out of a notebook's cell, whose lines stay where they are. `None`: `:env` has no `=`.
pub fn take_local(cell: &str) -> (Vec<At<Option<Local>>>, String) {
    let end = code_start(cell);
    let (mut taken, mut rest) = (Vec::new(), String::new());
    let mut at = 0;
    for HeadLine {
        text: line,
        is_command,
    } in head(cell)
    {
        let bare = line.trim_end_matches(['\n', '\r']);
        let range = at + bare.len() - bare.trim_start().len()..at + bare.trim_end().len();
        at += line.len();
        let words = bare.trim_start_matches([' ', '\t']);
        let local = match words
            .strip_prefix(':')
            .map(|words| words.split_once(' ').unwrap_or((words, "")))
        {
            _ if !is_command => None,
            _ if bare.starts_with('!') => Some(Some(Local::Shell(bare[1..].to_owned()))),
            Some(("env", arguments)) => Some(arguments.trim().split_once('=').map(
                |(name, value)| Local::Environment {
                    name: name.to_owned(),
                    value: value.to_owned(),
                },
            )),
            Some(("explain", _)) => Some(Some(Local::Explain)),
            Some(("last_error_json", _)) => Some(Some(Local::LastErrors)),
            _ => None,
        };
        rest.push_str(if local.is_none() {
            line
        } else {
            &line[bare.len()..]
        });
        taken.extend(local.map(|command| At { command, range }));
    }
    (taken, rest + &cell[end..])
}

/// What a snippet's commands come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Orders {
    pub(crate) changes: Vec<Change>,
    /// The settings with which its code is compiled.
    pub(crate) settings: Settings,
    /// What they say, in their order.
    pub(crate) said: Vec<Said>,
    /// What is given up before anything else.
    pub(crate) reset: Option<Reset>,
    /// The snippet with those of its commands that change something, on the same lines.
    pub(crate) code: String,
}

/// What a command gives up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reset {
    /// The variables.
    Variables,
    /// All but the settings.
    All,
}

impl Orders {
    /// Whether the snippet comes to the same each time.
    pub(crate) fn are_lasting(&self) -> bool {
        self.said.iter().all(|said| matches!(said, Said::Shown(_)))
    }

    /// Whether evcxr has something to do for them.
    pub(crate) fn change(&self, state: &Summary) -> bool {
        !self.changes.is_empty() || self.settings != state.settings
    }
}

/// A command that can't be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The bytes of the snippet that it is about.
    pub(crate) range: Range<usize>,
    pub(crate) message: String,
}

/// A command of evcxr's.
struct Command {
    /// Without the colon.
    name: &'static str,
    about: &'static str,
    /// Why an engine doesn't have it, and what to do instead.
    not_on_engines: Option<&'static str>,
}

const fn everywhere(name: &'static str, about: &'static str) -> Command {
    Command {
        name,
        about,
        not_on_engines: None,
    }
}

const fn in_notebook(name: &'static str, about: &'static str, instead: &'static str) -> Command {
    Command {
        name,
        about,
        not_on_engines: Some(instead),
    }
}

const COMMANDS: &[Command] = &[
    everywhere(
        "allow_static_linking",
        "Set whether to link dependencies statically (0/1; engines: only 1)",
    ),
    everywhere(
        "build_env",
        "Set environment variables when building code (key=value)",
    ),
    everywhere("cache", "Set cache size in MiB, or 0 to disable"),
    everywhere(
        "clear",
        "Give up all variables, definitions and dependencies",
    ),
    in_notebook(
        "clear_cache",
        "Clear the cache used by the :cache command",
        "use it in the notebook, without `%px`",
    ),
    everywhere(
        "codegen_backend",
        "Set/print the codegen backend. Requires nightly",
    ),
    everywhere("dep", "Add dependency. e.g. :dep regex = \"1.0\""),
    in_notebook(
        "doc",
        "Show the documentation of a variable, keyword, type or module",
        "documentation is the notebook's to show; ask there, without `%px`",
    ),
    everywhere("efmt", "Set the formatter for errors returned by ?"),
    in_notebook(
        "env",
        "Set an environment variable (key=value)",
        "engines have environments of their own; set a variable there by `unsafe { std::env::set_var(\"KEY\", \"VALUE\") }`",
    ),
    in_notebook(
        "explain",
        "Print explanation of last error",
        "the last error is not kept; `rustc --explain CODE` explains it",
    ),
    everywhere("fmt", "Set output formatter (default: {:?})"),
    everywhere("help", "Print command help"),
    in_notebook(
        "internal_debug",
        "Toggle various internal debugging code",
        "it shows what evcxr does in the notebook; use it there, without `%px`",
    ),
    in_notebook(
        "last_compile_dir",
        "Print the directory in which we last compiled",
        "engines load what was compiled elsewhere; there is nothing of use in that folder",
    ),
    in_notebook(
        "last_error_json",
        "Print the last compilation error as JSON (for debugging)",
        "the last error is not kept",
    ),
    everywhere("linker", "Set/print linker. Supported: system, lld, mold"),
    in_notebook(
        "load_config",
        "Read evcxr's start-up configuration again",
        "evcxr's start-up configuration is the notebook's; put what engines need of it into a `%%px` cell",
    ),
    everywhere("offline", "Set offline mode when invoking cargo (0/1)"),
    everywhere("opt", "Set optimization level (0/1/2)"),
    everywhere("preserve_vars_on_panic", "Try to keep vars on panic (0/1)"),
    in_notebook(
        "quit",
        "Quit evaluation and exit",
        "an engine isn't ended by its snippets; `%cluster stop` ends the cluster",
    ),
    in_notebook(
        "restart",
        "Give up all variables, and start the process that they are in anew",
        "engines aren't restarted by their snippets; `:clear` gives up what they know, `%cluster restart` starts them anew",
    ),
    everywhere("sccache", "Set whether to use sccache (0/1)"),
    everywhere("show_deps", "Show the current dependencies"),
    in_notebook(
        "time_passes",
        "Toggle printing of rustc pass times (requires nightly)",
        "rustc's passes are not timed for engines; use it in the notebook",
    ),
    in_notebook(
        "timing",
        "Toggle printing of how long evaluations take",
        "use `%time` or `%timeit`, also over `%px`",
    ),
    in_notebook(
        "toolchain",
        "Set which toolchain to use (e.g. nightly)",
        "a running cluster keeps its toolchain; set another by `rustup default`, then use `%cluster restart`",
    ),
    everywhere("type", "Show variable type (also :t)"),
    everywhere("types", "Toggle printing of types"),
    everywhere("vars", "List bound variables and their types"),
    everywhere("version", "Print versions"),
];

/// Reads a snippet's commands, given the state they are to act on and where paths begin.
pub(crate) fn interpret(
    source: &str,
    state: &Summary,
    owner: Owner,
    folder: &Path,
) -> Result<Orders, Refusal> {
    let end = code_start(source);
    let mut orders = Orders::default();
    let mut reading = Reading {
        owner,
        folder,
        variables: state.kinds(),
        settings: state.settings.clone(),
        dependencies: state.dependencies.clone(),
    };
    let (mut commands, mut cleared) = (0, None);
    // What is left of each line, and which of them are changes.
    let (mut lines, mut changed) = (Vec::new(), Vec::new());
    let mut at = 0;
    for HeadLine {
        text: line,
        is_command,
    } in head(source)
    {
        let bare = line.trim_end_matches(['\n', '\r']);
        if !is_command {
            // evcxr takes no command after other kinds of comments.
            let is_known = line.starts_with("//");
            lines.push(if is_known { line } else { &line[bare.len()..] }.to_owned());
            at += line.len();
            continue;
        }
        commands += 1;
        let range = at + bare.len() - bare.trim_start().len()..at + bare.trim_end().len();
        at += line.len();
        let refuse = |message: String| Refusal {
            range: range.clone(),
            message,
        };
        let end = &line[bare.len()..];
        let (mut kept, mut said) = (end.to_owned(), None);
        match reading.read(bare).map_err(refuse)? {
            Read::Reset(reset) => {
                orders.reset = orders.reset.max(Some(reset));
                match reset {
                    Reset::Variables => said = Some(text("Child process restarted".to_owned())),
                    Reset::All => {
                        orders.changes.clear();
                        for at in changed.drain(..) {
                            lines[at] = "\n".to_owned();
                        }
                        cleared = Some(range);
                    }
                }
            }
            Read::Nothing => {}
            Read::Said(shown) => said = Some(shown),
            Read::Evcxr => said = Some(Said::Evcxr(range)),
            Read::Documentation(name) => said = Some(Said::Documentation { range, name }),
            Read::Change(change, shown) => {
                kept = change.command().trim_end().to_owned() + end;
                changed.push(lines.len());
                orders.changes.push(change);
                said = shown.map(text);
            }
            Read::Setting(shown) => {
                said = Some(text(shown));
                // Nor one after a tab.
                let has_tab = line.trim_start_matches(' ').starts_with('\t');
                kept = if has_tab { line.trim_start() } else { line }.to_owned();
            }
        }
        orders.said.extend(said);
        lines.push(kept);
    }
    if let Some(range) = cleared
        && owner == Owner::Engine
        && (commands > 1 || !source[end..].trim().is_empty())
    {
        return Err(Refusal {
            range,
            message: "`:clear` stands alone; put what follows it into a snippet of its own"
                .to_owned(),
        });
    }
    orders.code = lines.concat() + &source[end..];
    orders.settings = reading.settings;
    Ok(orders)
}

/// Whether a snippet gives up all there is.
pub(crate) fn clears(source: &str, owner: Owner) -> bool {
    interpret(source, &Summary::default(), owner, Path::new(""))
        .is_ok_and(|orders| orders.reset == Some(Reset::All))
}

fn text(text: String) -> Said {
    Said::Shown(vec![("text/plain", text + "\n")])
}

/// What one command comes to.
enum Read {
    Nothing,
    Reset(Reset),
    Said(Said),
    Evcxr,
    Documentation(String),
    Change(Change, Option<String>),
    /// It has changed the settings, and says so.
    Setting(String),
}

/// The state, as the commands read so far leave it.
struct Reading<'a> {
    owner: Owner,
    folder: &'a Path,
    variables: BTreeMap<String, String>,
    settings: Settings,
    dependencies: BTreeMap<String, String>,
}

impl Reading<'_> {
    fn read(&mut self, line: &str) -> Result<Read, String> {
        let on_engine = self.owner == Owner::Engine;
        if line.starts_with('!') {
            return match on_engine {
                false => Ok(Read::Evcxr),
                true => Err("commands of the shell run where the notebook runs, without `%px`; on engines use `std::process::Command`".to_owned()),
            };
        }
        let line = line.trim_start_matches([' ', '\t', ':']);
        let (name, arguments) = line.split_once(' ').unwrap_or((line, ""));
        let arguments = arguments.trim();
        let mut table = COMMANDS.iter();
        if on_engine
            && let Some(command) = table.find(|command| command.name == name)
            && let Some(instead) = command.not_on_engines
        {
            return Err(format!("`:{name}` has no place here: {instead}"));
        }
        let on = arguments == "1";
        let given = (!arguments.is_empty()).then(|| arguments.to_owned());
        let settings = &mut self.settings;
        let said = match name {
            "clear" => {
                self.variables.clear();
                self.dependencies.clear();
                return Ok(Read::Reset(Reset::All));
            }
            "restart" => {
                self.variables.clear();
                return Ok(Read::Reset(Reset::Variables));
            }
            "dep" => return self.dependency(arguments),
            "build_env" => {
                let (key, value) = arguments
                    .split_once('=')
                    .ok_or("`:build_env` takes KEY=VALUE")?;
                let (key, value) = (key.to_owned(), value.to_owned());
                let said = format!("Set {key}={value} for build");
                return Ok(Read::Change(Change::BuildEnv { key, value }, Some(said)));
            }
            "load_config" => return Ok(Read::Nothing),
            "doc" => {
                return given
                    .map(Read::Documentation)
                    .ok_or_else(|| "`:doc` takes a name".to_owned());
            }
            "show_deps" => return Ok(self.show_dependencies()),
            "vars" => return Ok(self.show_variables()),
            "type" | "t" => {
                return match self.variables.get(arguments) {
                    Some(kind) => Ok(Read::Said(text(format!("{arguments}: {kind}")))),
                    None if arguments.is_empty() => {
                        Err("`:type` takes a variable's name".to_owned())
                    }
                    None => Err(format!("there is no variable `{arguments}`")),
                };
            }
            "help" => return Ok(help(self.owner)),
            "version" if on_engine => {
                let version = format!("Chorus {}", env!("CARGO_PKG_VERSION"));
                return Ok(Read::Said(text(version)));
            }
            "cache" if given.is_none() && !on_engine => return Ok(Read::Evcxr),
            "opt" => {
                let other = if settings.opt_level == "2" { "0" } else { "2" };
                settings.opt_level = given.unwrap_or_else(|| other.to_owned());
                format!("Optimization: {}", settings.opt_level)
            }
            "fmt" => {
                settings.format = given.unwrap_or_else(|| "{:?}".to_owned());
                format!("Output format: {}", settings.format)
            }
            "types" => {
                settings.types = !settings.types;
                format!("Types: {}", settings.types)
            }
            "efmt" => {
                settings.error_format = given.unwrap_or_else(|| settings.error_format.clone());
                let implemented = match settings.error_format.as_str() {
                    "{}" => "std::fmt::Display",
                    _ => "std::fmt::Debug",
                };
                format!(
                    "Error format: {} (errors must implement {implemented})",
                    settings.error_format
                )
            }
            "offline" => {
                settings.offline = on;
                format!("Offline mode: {on}")
            }
            "allow_static_linking" if !on && on_engine => {
                return Err(
                    "engines load a snippet by itself, so its dependencies are always linked into it"
                        .to_owned(),
                );
            }
            "allow_static_linking" => {
                settings.allow_static_linking = on;
                format!("Static linking: {on}")
            }
            "sccache" => {
                settings.sccache = arguments != "0";
                settings.allow_static_linking |= settings.sccache;
                match settings.sccache {
                    true => "sccache: true. Warning: dynamic linking disabled, use :cache instead to preserve dynamic linking".to_owned(),
                    false => "sccache: false".to_owned(),
                }
            }
            "cache" => {
                if let Some(given) = given {
                    let mebibytes: u64 = given
                        .parse()
                        .map_err(|_| format!("`{given}` is no number of MiB"))?;
                    settings.cache_bytes = mebibytes.saturating_mul(1 << 20);
                }
                format!("cache: {} MiB", settings.cache_bytes >> 20)
            }
            "linker" => {
                settings.linker = given.unwrap_or_else(|| settings.linker.clone());
                format!("linker: {}", settings.linker)
            }
            "codegen_backend" => {
                settings.codegen_backend =
                    given.unwrap_or_else(|| settings.codegen_backend.clone());
                format!("codegen backend: {}", settings.codegen_backend)
            }
            "preserve_vars_on_panic" => {
                settings.preserve_vars_on_panic = on;
                format!("Preserve vars on panic: {on}")
            }
            "time_passes" => {
                settings.time_passes = !settings.time_passes;
                format!("Time passes: {}", settings.time_passes)
            }
            "toolchain" => {
                settings.toolchain = given.unwrap_or_else(|| settings.toolchain.clone());
                format!("Toolchain: {}", settings.toolchain)
            }
            _ if !on_engine => return Ok(Read::Evcxr),
            _ => {
                return Err(format!(
                    "there is no command `:{name}`; `:help` lists those that engines know"
                ));
            }
        };
        Ok(Read::Setting(said))
    }

    fn dependency(&mut self, arguments: &str) -> Result<Read, String> {
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
            let name = self.folder.join(name).to_string_lossy().into_owned();
            self.dependencies.insert(name.clone(), "local".to_owned());
            return Ok(Read::Change(Change::LocalDependency(name), None));
        }
        let (config, said) = match local::with_todays_keys(config) {
            Some(config) => (
                config,
                Some("cargo's name for `default_features` is `default-features` now, which was taken.".to_owned()),
            ),
            None => (config.to_owned(), None),
        };
        let (name, config) = (name.to_owned(), local::absolute(&config, self.folder));
        self.dependencies.insert(name.clone(), config.clone());
        Ok(Read::Change(Change::Dependency { name, config }, said))
    }

    fn show_dependencies(&self) -> Read {
        let lines = self.dependencies.iter();
        let lines: Vec<String> = lines
            .map(|(name, config)| format!("{name} = {}", local::shown(config)))
            .collect();
        match lines.is_empty() {
            true => Read::Nothing,
            false => Read::Said(text(lines.join("\n"))),
        }
    }

    fn show_variables(&self) -> Read {
        let mut lines = Vec::new();
        let mut html = "<table><tr><th>Variable</th><th>Type</th></tr>".to_owned();
        for (name, kind) in &self.variables {
            lines.push(format!("{name}: {kind}"));
            html.push_str(&format!(
                "<tr><td>{name}</td><td>{}</td></tr>",
                escaped(kind)
            ));
        }
        html.push_str("</table>");
        if lines.is_empty() {
            lines.push("There are no variables.".to_owned());
        }
        Read::Said(both(lines.join("\n"), html))
    }
}

fn help(owner: Owner) -> Read {
    let mut lines = Vec::new();
    let mut html = "<table>".to_owned();
    let mut table = COMMANDS.iter();
    while let Some(Command { name, about, .. }) = table
        .by_ref()
        .find(|command| owner == Owner::Notebook || command.not_on_engines.is_none())
    {
        lines.push(format!(":{name:<22} {about}"));
        html.push_str(&format!(
            "<tr><td>:{name}</td><td>{}</td></tr>",
            escaped(about)
        ));
    }
    html.push_str("</table>");
    Read::Said(both(lines.join("\n"), html))
}

fn both(text: String, html: String) -> Said {
    Said::Shown(vec![("text/plain", text + "\n"), ("text/html", html)])
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
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

    fn on_engine(source: &str) -> Result<Orders, Refusal> {
        interpret(source, &state(), Owner::Engine, Path::new("/here"))
    }

    fn in_notebook(source: &str) -> Result<Orders, Refusal> {
        interpret(source, &state(), Owner::Notebook, Path::new("/here"))
    }

    fn shown(source: &str) -> BTreeMap<&'static str, String> {
        let mut all = BTreeMap::<_, String>::new();
        for said in on_engine(source).unwrap().said {
            let Said::Shown(shown) = said else {
                panic!("{said:?}")
            };
            for (kind, text) in shown {
                all.entry(kind).or_default().push_str(&text);
            }
        }
        all
    }

    fn dependency(name: &str, config: &str) -> Change {
        Change::Dependency {
            name: name.to_owned(),
            config: config.to_owned(),
        }
    }

    #[test]
    fn what_changes_something_stays_with_the_code() {
        let source = "\n:dep itoa = \"1\"\n// note\n:vars\n  :opt 0\nlet x = 1;\n:no command\n";
        let orders = on_engine(source).unwrap();
        assert_eq!(orders.code, source.replace(":vars", ""));
        assert_eq!(orders.changes, [dependency("itoa", "\"1\"")]);
        assert_eq!(orders.settings.opt_level, "0");
        assert_eq!(
            orders.said[1],
            Said::Shown(vec![("text/plain", "Optimization: 0\n".to_owned())])
        );
        assert!(orders.are_lasting() && orders.change(&state()));
        assert!(!on_engine(":vars\n1").unwrap().change(&state()));
    }

    #[test]
    fn dependencies_and_the_build_environment() {
        for (source, change) in [
            (":dep a", dependency("a", "\"*\"")),
            (":dep a={version=\"1\"}", dependency("a", "{version=\"1\"}")),
            (":dep ../a", Change::LocalDependency("/here/../a".into())),
            (
                ":dep a = { path = \"b\" }",
                dependency("a", "{ path = \"/here/b\" }"),
            ),
            (
                ":build_env A=b=c",
                Change::BuildEnv {
                    key: "A".into(),
                    value: "b=c".into(),
                },
            ),
        ] {
            assert_eq!(on_engine(source).unwrap().changes, [change], "{source}");
        }
    }

    #[test]
    fn settings() {
        let set = |source: &str| on_engine(source).unwrap().settings;
        assert_eq!(set(":opt").opt_level, "0");
        assert_eq!(set(":opt\n:opt").opt_level, "2");
        assert_eq!(set(":fmt {:#?}").format, "{:#?}");
        assert_eq!(set(":fmt").format, "{:?}");
        assert!(set(":types").types && !set(":types\n:types").types);
        assert_eq!(set(":efmt {}").error_format, "{}");
        assert!(set(":offline 1").offline);
        assert!(!set(":sccache 0").sccache);
        assert_eq!(set(":cache 3").cache_bytes, 3 << 20);
        assert_eq!(set(":linker lld").linker, "lld");
        assert_eq!(
            in_notebook(":toolchain nightly")
                .unwrap()
                .settings
                .toolchain,
            "nightly"
        );
    }

    #[test]
    fn what_commands_show() {
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
        for Command {
            name,
            not_on_engines,
            ..
        } in COMMANDS
        {
            let listed = shown(":help")["text/plain"].contains(&format!(":{name} "));
            assert_eq!(listed, not_on_engines.is_none(), "{name}");
            let refusal = on_engine(&format!(":{name}"));
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
            let refusal = on_engine(source).unwrap_err();
            assert_eq!(refusal.range, range, "{source}");
            assert!(refusal.message.contains(says), "{}", refusal.message);
        }
        assert!(clears("\n:clear\n// all\n", Owner::Engine));
    }

    #[test]
    fn commands_without_evcxr_are_taken_out() {
        let cell = ":dep a\n!ls -l\n  :env A=b=c\n:env\n:explain\n// note\nlet x = 1;";
        let (taken, rest) = take_local(cell);
        assert_eq!(rest, ":dep a\n\n\n\n\n// note\nlet x = 1;");
        let ranges: Vec<&str> = taken.iter().map(|at| &cell[at.range.clone()]).collect();
        assert_eq!(ranges, ["!ls -l", ":env A=b=c", ":env", ":explain"]);
        let commands: Vec<Option<Local>> = taken.into_iter().map(|at| at.command).collect();
        let (name, value) = ("A".to_owned(), "b=c".to_owned());
        assert_eq!(
            commands,
            [
                Some(Local::Shell("ls -l".to_owned())),
                Some(Local::Environment { name, value }),
                None,
                Some(Local::Explain)
            ]
        );
    }

    #[test]
    fn a_notebook_leaves_to_evcxr_what_is_its_own() {
        let orders =
            in_notebook(":dep a\n:fmt {}\n:clear\n:timing\n:opt 0\n:clear_cache\nlet x = 1;")
                .unwrap();
        assert_eq!((orders.reset, &orders.changes), (Some(Reset::All), &vec![]));
        assert_eq!(orders.code, "\n:fmt {}\n\n\n:opt 0\n\nlet x = 1;");
        let said: Vec<bool> = orders
            .said
            .iter()
            .map(|said| matches!(said, Said::Evcxr(_)))
            .collect();
        assert_eq!(said, [false, true, false, true]);
        assert!(!orders.are_lasting());
        let restarted = in_notebook(":restart\n:vars").unwrap();
        assert_eq!(restarted.reset, Some(Reset::Variables));
        assert!(
            matches!(&restarted.said[1], Said::Shown(shown) if shown[0].1.contains("no variables"))
        );
    }
}
