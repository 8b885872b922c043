//! The options of each magic, under ipyparallel's and IPython's names, read by clap.
//!
//! Facts: ipyparallel 9 `client/magics.py`; IPython's `%timeit` and `%time`,
//! <https://ipython.readthedocs.io/en/stable/interactive/magics.html>.

use std::fmt;
use std::str::FromStr;

use clap::builder::PossibleValuesParser;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Command, Parser, Subcommand, ValueEnum};

use crate::names::{List, Name, Named, Typed};
use crate::words;

/// How and where a snippet is run; `%px`, `%%px` and `%pxconfig` share it.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct ExecArgs {
    /// Wait for the engines (the default)
    #[arg(short, long, overrides_with = "noblock")]
    pub block: bool,
    /// Don't wait: the notebook goes on, %pxresult shows what came of it
    #[arg(short = 'a', long, overrides_with = "block")]
    pub noblock: bool,
    /// Show output while the engines run (the default)
    #[arg(long, overrides_with = "no_stream")]
    pub stream: bool,
    /// Show output when all engines have ended
    #[arg(long, overrides_with = "stream")]
    pub no_stream: bool,
    /// The engines to run on: an id (`0`), a list (`0,3` or `[0,3]`), a slice of the ids (`0:4`, `::2`), or `all`
    #[arg(short, long, value_name = "ENGINES", allow_hyphen_values = true)]
    pub targets: Option<String>,
    /// Say at each run where it runs
    #[arg(long, overrides_with = "no_verbose")]
    pub verbose: bool,
    /// Don't say so (the default)
    #[arg(long, overrides_with = "verbose")]
    pub no_verbose: bool,
    /// Show a progress line after so many seconds: 0 at once, -1 never
    #[arg(
        long = "progress-after",
        value_name = "SECONDS",
        allow_negative_numbers = true
    )]
    pub progress_after: Option<f64>,
    /// What engines get when the notebook is interrupted: SIGINT, 2, SIGKILL, 9, 0 for nothing, ...
    #[arg(long = "signal-on-interrupt", value_name = "SIGNAL")]
    pub signal_on_interrupt: Option<Signal>,
}

impl ExecArgs {
    /// Whether to wait, if said.
    pub fn blocks(&self) -> Option<bool> {
        switch(self.block, self.noblock)
    }

    /// Whether to show output at once, if said.
    pub fn streams(&self) -> Option<bool> {
        switch(self.stream, self.no_stream)
    }

    /// Whether to say where it runs, if said.
    pub fn speaks(&self) -> Option<bool> {
        switch(self.verbose, self.no_verbose)
    }
}

fn switch(on: bool, off: bool) -> Option<bool> {
    match (on, off) {
        (true, _) => Some(true),
        (_, true) => Some(false),
        _ => None,
    }
}

/// How outputs are laid out, and where results go; `%px`, `%%px` and `%pxresult` share it.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct OutputArgs {
    /// Same as --group-outputs order
    #[arg(short = 'r', overrides_with_all = ["by_engine", "group_outputs"])]
    pub by_order: bool,
    /// Same as --group-outputs engine
    #[arg(short = 'e', overrides_with_all = ["by_order", "group_outputs"])]
    pub by_engine: bool,
    /// Lay out outputs by type (all stdout, all stderr, ..), by engine, or in order (as type, but the first display of each engine, then
    /// the second, ..). Output is then shown when all engines have ended, unless --stream
    #[arg(long = "group-outputs", value_name = "HOW", overrides_with_all = ["by_order", "by_engine"])]
    pub group_outputs: Option<Grouping>,
    /// Bind the texts of the results, by engine, to a variable of the notebook, a `Vec<String>`
    #[arg(short, long, value_name = "NAME", value_parser = identifier)]
    pub out: Option<String>,
}

impl OutputArgs {
    /// The layout, if one was asked for.
    pub fn grouping(&self) -> Option<Grouping> {
        if self.by_order {
            Some(Grouping::Order)
        } else if self.by_engine {
            Some(Grouping::Engine)
        } else {
            self.group_outputs
        }
    }
}

/// Layouts of outputs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Grouping {
    /// All stdout, all stderr, all displays, all results.
    #[default]
    Type,
    /// All of one engine before the next.
    Engine,
    /// As `Type`, with the engines' displays taking turns.
    Order,
}

/// `%px` and `%%px`.
#[derive(Parser, Clone, Debug, Default, PartialEq)]
#[command(name = "%px", no_binary_name = true, disable_help_flag = true)]
pub struct PxArgs {
    /// How and where.
    #[command(flatten)]
    pub exec: ExecArgs,
    /// What becomes of outputs.
    #[command(flatten)]
    pub output: OutputArgs,
    /// Run it in the notebook too
    #[arg(long)]
    pub local: bool,
}

/// `%pxconfig`.
#[derive(Parser, Clone, Debug, Default, PartialEq)]
#[command(name = "%pxconfig", no_binary_name = true, disable_help_flag = true)]
pub struct PxConfigArgs {
    /// What later `%px` do unless told otherwise.
    #[command(flatten)]
    pub exec: ExecArgs,
}

/// `%pxresult`.
#[derive(Parser, Clone, Debug, Default, PartialEq, Eq)]
#[command(name = "%pxresult", no_binary_name = true, disable_help_flag = true)]
pub struct PxResultArgs {
    /// What becomes of outputs.
    #[command(flatten)]
    pub output: OutputArgs,
}

/// `%cluster`.
#[derive(Parser, Clone, Debug, PartialEq, Eq)]
#[command(
    name = "%cluster",
    no_binary_name = true,
    disable_help_flag = true,
    disable_help_subcommand = true
)]
pub struct ClusterArgs {
    /// What to do; without it, status.
    #[command(subcommand)]
    pub command: Option<ClusterCommand>,
}

/// What `%cluster` does.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub enum ClusterCommand {
    /// Start a cluster on this machine
    #[command(disable_help_flag = true)]
    Start {
        /// How many engines; one a core if not said
        #[arg(short, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
        n: Option<u32>,
    },
    /// Stop the cluster
    #[command(disable_help_flag = true)]
    Stop,
    /// Say what there is (also without an argument)
    #[command(disable_help_flag = true)]
    Status,
    /// Start or stop engines until there are N
    #[command(disable_help_flag = true)]
    Scale {
        /// How many engines there are to be
        #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..=4096))]
        n: u32,
    },
    /// Stop all engines and start as many; their variables are gone
    #[command(disable_help_flag = true)]
    Restart,
}

/// `%%parallel`.
#[derive(Parser, Clone, Debug, Default, PartialEq)]
#[command(name = "%%parallel", no_binary_name = true, disable_help_flag = true)]
pub struct ParallelArgs {
    /// Cut this variable into parts: a vector, a slice, an array or a range. The body runs for each part and sees it under the same name, as
    /// a vector (a range as a range). NAME=EXPR cuts an expression's value. Without: the body runs once on each engine
    #[arg(long, value_name = "NAME[=EXPR]")]
    pub over: Option<Named>,
    /// Variables that every run of the body sees, as references under their own names. They are sent once to each engine
    #[arg(long, value_name = "NAME[=EXPR],..")]
    pub with: Vec<List<Named>>,
    /// Make one value of the parts' results, in their order: a function or closure of two that gives one, or sum, concat (vectors, strings,
    /// sets, maps) or counts (maps of numbers, added key by key). Without: a vector of all results
    #[arg(long, value_name = "FUNCTION")]
    pub merge: Option<String>,
    /// Bind the result to a variable of the notebook, and show nothing
    #[arg(short = 'o', long, value_name = "NAME", value_parser = identifier)]
    pub into: Option<String>,
    /// Give a part to the engine that has least to do, for parts of uneven work. Without --chunks there are 32 parts an engine
    #[arg(long, requires = "over")]
    pub balanced: bool,
    /// Cut into so many parts; one an engine if not said
    #[arg(long, value_name = "N", requires = "over", value_parser = clap::value_parser!(u32).range(1..))]
    pub chunks: Option<u32>,
    /// The engines to run on, as for %px
    #[arg(short, long, value_name = "ENGINES", allow_hyphen_values = true)]
    pub targets: Option<String>,
}

/// `%push` and `%scatter`.
#[derive(Parser, Clone, Debug, PartialEq)]
#[command(name = "%push", no_binary_name = true, disable_help_flag = true)]
pub struct PushArgs {
    /// Variables of the notebook, or expressions under a name
    #[arg(value_name = "NAME[=EXPR],..")]
    pub variables: List<Named>,
    /// Their names on the engines, if others
    #[arg(long = "as", value_name = "NAME,..")]
    pub under: Option<List<Name>>,
    /// The engines, as for %px
    #[arg(short, long, value_name = "ENGINES", allow_hyphen_values = true)]
    pub targets: Option<String>,
}

/// `%pull` and `%gather`.
#[derive(Parser, Clone, Debug, PartialEq)]
#[command(name = "%pull", no_binary_name = true, disable_help_flag = true)]
pub struct GatherArgs {
    /// Variables of the engines, with the types they have there
    #[arg(value_name = "NAME: TYPE,..")]
    pub engine_variables: List<Typed>,
    /// Their names in the notebook, if others
    #[arg(long = "as", value_name = "NAME,..")]
    pub under: Option<List<Name>>,
    /// The engines, as for %px
    #[arg(short, long, value_name = "ENGINES", allow_hyphen_values = true)]
    pub targets: Option<String>,
}

/// `%time` and `%%time`: no options, code follows.
#[derive(Parser, Clone, Debug, Default, PartialEq, Eq)]
#[command(name = "%time", no_binary_name = true, disable_help_flag = true)]
pub struct TimeArgs {}

/// `%timeit` and `%%timeit`.
#[derive(Parser, Clone, Debug, PartialEq, Eq)]
#[command(name = "%timeit", no_binary_name = true, disable_help_flag = true)]
pub struct TimeitArgs {
    /// Loops a run; if not said, as many as take 0.2 s
    #[arg(short, value_name = "LOOPS", value_parser = clap::value_parser!(u64).range(1..=1_000_000_000_000))]
    pub n: Option<u64>,
    /// Runs
    #[arg(short, value_name = "RUNS", default_value_t = 7, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub r: u32,
    /// Digits shown
    #[arg(short, value_name = "DIGITS", default_value_t = 3, value_parser = clap::value_parser!(u8).range(0..=17))]
    pub p: u8,
    /// Show nothing
    #[arg(short)]
    pub q: bool,
    /// Make the timing the value of the cell
    #[arg(short)]
    pub o: bool,
    /// Bind the seconds a loop took, run by run, to a variable of the notebook, a `Vec<f64>`
    #[arg(short, value_name = "NAME", value_parser = identifier)]
    pub v: Option<String>,
}

/// `%who` and `%whos`.
#[derive(Parser, Clone, Debug, Default, PartialEq, Eq)]
#[command(name = "%who", no_binary_name = true, disable_help_flag = true)]
pub struct WhoArgs {
    /// Only variables of these types
    #[arg(value_name = "TYPE")]
    pub types: Vec<String>,
}

/// `%checkpoint`.
#[derive(Parser, Clone, Debug, Default, PartialEq, Eq)]
#[command(name = "%checkpoint", no_binary_name = true, disable_help_flag = true)]
pub struct CheckpointArgs {
    /// on: from the next cell on (the default). off: saves the time and the memory that large variables cost. status: what holds now
    #[arg(value_name = "STATE", value_parser = PossibleValuesParser::new(["on", "off", "status"]))]
    pub state: Option<String>,
}

/// Magics without arguments: `%autopx`, `%lsmagic`.
#[derive(Parser, Clone, Debug, Default, PartialEq, Eq)]
#[command(name = "%lsmagic", no_binary_name = true, disable_help_flag = true)]
pub struct NoArgs {}

/// A signal by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signal(pub i32);

impl Signal {
    /// Ctrl-C's.
    pub const INT: Signal = Signal(2);
}

/// The signals that have a name here, with Linux's and macOS's common numbers.
pub const SIGNALS: &[(&str, i32)] = &[
    ("SIGINT", 2),
    ("SIGTERM", 15),
    ("SIGKILL", 9),
    ("SIGHUP", 1),
    ("SIGQUIT", 3),
    ("SIGABRT", 6),
];

impl FromStr for Signal {
    type Err = String;

    fn from_str(text: &str) -> Result<Signal, String> {
        if let Ok(number @ 0..=64) = text.parse::<i32>() {
            return Ok(Signal(number));
        }
        let name = text.to_ascii_uppercase();
        SIGNALS
            .iter()
            .find(|(known, _)| *known == name || known.strip_prefix("SIG") == Some(&name))
            .map(|(_, number)| Signal(*number))
            .ok_or_else(|| {
                let names: Vec<&str> = SIGNALS.iter().map(|(name, _)| *name).collect();
                format!("a number from 0 to 64, or one of {}", names.join(", "))
            })
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match SIGNALS.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => out.write_str(name),
            None => self.0.fmt(out),
        }
    }
}

pub(crate) fn identifier(text: &str) -> Result<String, String> {
    const KEYWORDS: &str = " as async await box break const continue crate dyn else enum extern false fn for gen if impl in let loop match mod move \
        mut pub ref return self Self static struct super trait true try type unsafe use where while yield ";
    let mut chars = text.chars();
    let begins = chars.next().is_some_and(|c| c.is_alphabetic() || c == '_');
    if begins
        && chars.all(|c| c.is_alphanumeric() || c == '_')
        && text != "_"
        && !KEYWORDS.contains(&format!(" {text} "))
    {
        Ok(text.to_owned())
    } else {
        Err("the name of a variable is meant".to_owned())
    }
}

/// Options were not understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{magic}: {message}")]
pub struct OptionError {
    /// The magic, with its sign.
    pub magic: String,
    /// What is wrong, and what there is instead.
    pub message: String,
}

/// Reads a line that holds options and nothing else.
///
/// # Errors
/// When there is no such option, a value is missing or makes no sense.
pub fn parse<T: Parser>(magic: &str, line: &str) -> Result<T, OptionError> {
    let words = words::all(line).into_iter().map(|word| word.text);
    T::try_parse_from(words).map_err(|error| OptionError {
        magic: magic.to_owned(),
        message: message(&error, &T::command()),
    })
}

/// Reads the options that a line begins with; gives the byte where the code after them begins.
///
/// A word is an option while it begins with `-` or `--` and a letter; `--` ends them, for code that begins so itself.
///
/// # Errors
/// As [`parse`].
pub fn parse_before_code<T: Parser>(magic: &str, line: &str) -> Result<(T, usize), OptionError> {
    let (end, code) = options_end(&T::command(), line);
    let options = parse(magic, line.get(..end).unwrap_or_default())?;
    Ok((options, code))
}

/// Reads a line whose options stand before or behind one text, which is taken as it is written: `%push a = "x", b -t 0`.
///
/// # Errors
/// As [`parse`].
pub fn parse_around<T: Parser>(magic: &str, line: &str) -> Result<T, OptionError> {
    let command = T::command();
    let mut options = Vec::new();
    let mut text = String::new();
    let mut from = 0;
    while let Some(word) = words::next(line, from) {
        let (end, _) = options_end(&command, line.get(word.range.start..).unwrap_or_default());
        if end == 0 {
            let written = line.get(from..word.range.end).unwrap_or_default();
            text.push_str(written);
            from = word.range.end;
        } else {
            let end = word.range.start + end;
            let found = line.get(word.range.start..end).unwrap_or_default();
            options.extend(words::all(found).into_iter().map(|word| word.text));
            from = end;
        }
    }
    let text = text.trim();
    if !text.is_empty() {
        options.extend(["--".to_owned(), text.to_owned()]);
    }
    T::try_parse_from(options).map_err(|error| OptionError {
        magic: magic.to_owned(),
        message: message(&error, &command),
    })
}

/// Where the options at the beginning of `line` end, and where the code after them begins.
pub(crate) fn options_end(command: &Command, line: &str) -> (usize, usize) {
    let mut end = 0;
    while let Some(word) = words::next(line, end) {
        if word.text == "--" {
            let rest = line.get(word.range.end..).unwrap_or_default();
            return (end, word.range.end + (rest.len() - rest.trim_start().len()));
        }
        let is_option = word
            .text
            .strip_prefix("--")
            .or_else(|| word.text.strip_prefix('-'))
            .is_some_and(|name| name.starts_with(|c: char| c.is_ascii_alphabetic()));
        if !is_option {
            return (end, word.range.start);
        }
        end = word.range.end;
        if needs_value(command, &word.text)
            && let Some(value) = words::next(line, end)
        {
            end = value.range.end;
        }
    }
    (end, line.len())
}

/// Whether the next word is the value of this option.
pub(crate) fn needs_value(command: &Command, option: &str) -> bool {
    if let Some(long) = option.strip_prefix("--") {
        return command
            .get_arguments()
            .any(|arg| arg.get_long() == Some(long) && arg.get_action().takes_values());
    }
    let mut shorts = option.trim_start_matches('-').chars();
    while let Some(short) = shorts.next() {
        let takes = command
            .get_arguments()
            .find(|arg| arg.get_short() == Some(short))
            .is_some_and(|arg| arg.get_action().takes_values());
        if takes {
            return shorts.next().is_none();
        }
    }
    false
}

/// clap's error in few words.
fn message(error: &clap::Error, command: &Command) -> String {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    match (error.kind(), text(ContextKind::InvalidArg)) {
        (ErrorKind::UnknownArgument, Some(argument)) => {
            let known: Vec<String> = command
                .get_arguments()
                .flat_map(|arg| {
                    let short = arg.get_short().map(|short| format!("-{short}"));
                    short
                        .into_iter()
                        .chain(arg.get_long().map(|long| format!("--{long}")))
                })
                .collect();
            if !argument.starts_with('-') {
                return format!("`{argument}` is one word too many");
            }
            let nearest = nearest(&argument, known.iter().map(String::as_str));
            match (nearest, known.as_slice()) {
                (Some(nearest), _) => {
                    format!("there is no option `{argument}`. Did you mean `{nearest}`?")
                }
                (None, []) => format!("there is no option `{argument}`: it has none"),
                (None, known) => format!(
                    "there is no option `{argument}`. It has {}",
                    known.join(", ")
                ),
            }
        }
        _ => {
            let text = error.to_string();
            let text = text.strip_prefix("error: ").unwrap_or(&text);
            let end = ["\n\nUsage:", "\n\nFor more information"]
                .iter()
                .filter_map(|mark| text.find(mark))
                .min()
                .unwrap_or(text.len());
            text.get(..end)
                .unwrap_or(text)
                .split('\n')
                .map(str::trim)
                .filter(|line| !line.is_empty())
                .collect::<Vec<_>>()
                .join("; ")
        }
    }
}

/// The candidate most like `word`, if one is like it.
pub(crate) fn nearest<'a>(
    word: &str,
    candidates: impl Iterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .map(|candidate| (strsim::jaro_winkler(word, candidate), candidate))
        .filter(|(likeness, candidate)| *likeness > 0.85 && candidate.len() > 2)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests;
