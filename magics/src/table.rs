//! The one table of magics: their names, what they do, their options; help and `%lsmagic` are made of it.

use clap::{Command, CommandFactory};

use crate::options::{
    self, CheckpointArgs, ClusterArgs, GatherArgs, NoArgs, ParallelArgs, PushArgs, PxArgs,
    PxConfigArgs, PxResultArgs, TimeArgs, TimeitArgs, WhoArgs,
};

/// Which magic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Which {
    /// `%px`, `%%px`.
    Px,
    /// `%pxresult`.
    PxResult,
    /// `%pxconfig`.
    PxConfig,
    /// `%autopx`.
    AutoPx,
    /// `%%parallel`.
    Parallel,
    /// `%push`.
    Push,
    /// `%pull`.
    Pull,
    /// `%scatter`.
    Scatter,
    /// `%gather`.
    Gather,
    /// `%cluster`.
    Cluster,
    /// `%time`, `%%time`.
    Time,
    /// `%timeit`, `%%timeit`.
    Timeit,
    /// `%who`.
    Who,
    /// `%whos`.
    Whos,
    /// `%checkpoint`.
    Checkpoint,
    /// `%lsmagic`.
    LsMagic,
}

/// What follows the options.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    /// Nothing.
    Nothing,
    /// Rust for the notebook, or a `%px`.
    Notebook,
    /// Rust for the engines.
    Engines,
}

/// How a magic can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// With `%`.
    Line,
    /// With `%%`.
    Cell,
    /// With either.
    Both,
}

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Magic {
    /// For dispatch.
    pub which: Which,
    /// With its `%`; with `%%` if it is a cell magic only.
    pub name: &'static str,
    /// How it can be written.
    pub form: Form,
    /// One line.
    pub summary: &'static str,
    /// How it is called.
    pub usage: &'static str,
    /// What there is to say besides, or nothing.
    pub more: &'static str,
    /// What follows the options.
    pub follows: Follows,
    command: fn() -> Command,
}

impl Magic {
    /// Its options.
    pub fn command(&self) -> Command {
        (self.command)()
    }
}

/// All magics.
pub const MAGICS: &[Magic] = &[
    Magic {
        which: Which::Px,
        name: "%px",
        form: Form::Both,
        summary: "run Rust on the engines",
        usage: "%px [OPTIONS] CODE\n%%px [OPTIONS], and the code in the lines below",
        more: "The code is compiled once and run on every target; evcxr's commands (:dep ..) work in it. What engines print, show and\n\
               return appears with their ids: [stdout:0], [output:0], Out[0:1]. Without a cluster, one is started on this machine.\n\
               Code that begins with - and a letter follows -- .",
        follows: Follows::Engines,
        command: PxArgs::command,
    },
    Magic {
        which: Which::PxResult,
        name: "%pxresult",
        form: Form::Line,
        summary: "wait for the last %px and show what came of it",
        usage: "%pxresult [OPTIONS]",
        more: "With --out it binds the results and shows nothing.",
        follows: Follows::Nothing,
        command: PxResultArgs::command,
    },
    Magic {
        which: Which::PxConfig,
        name: "%pxconfig",
        form: Form::Line,
        summary: "set what later %px do unless told otherwise",
        usage: "%pxconfig [OPTIONS]",
        more: "Without options it says what holds now.",
        follows: Follows::Nothing,
        command: PxConfigArgs::command,
    },
    Magic {
        which: Which::AutoPx,
        name: "%autopx",
        form: Form::Line,
        summary: "switch: run all Rust on the engines, or here again",
        usage: "%autopx",
        more: "",
        follows: Follows::Nothing,
        command: NoArgs::command,
    },
    Magic {
        which: Which::Parallel,
        name: "%%parallel",
        form: Form::Cell,
        summary: "run a cell over the parts of a variable, and merge what comes back",
        usage: "%%parallel [OPTIONS], and the body in the lines below",
        more: "The body is a closure that runs once for each part. It sees the notebook's functions, types and constants; of its variables\n\
               only those that --over and --with name. Its last expression is the part's result. rustc checks it all, as any cell.\n\n\
               \x20   %%parallel --over lines --with stop_words --merge counts --into totals\n\
               \x20   let mut counts = HashMap::new();\n\
               \x20   for word in lines.iter().flat_map(|line| line.split(' ')).filter(|word| !stop_words.contains(*word)) {\n\
               \x20       *counts.entry(word.to_owned()).or_insert(0u64) += 1;\n\
               \x20   }\n\
               \x20   counts\n\n\
               What the parts gave is merged in the notebook, in their order. (`view.map_reduce` of the crate `chorus` calls a closure for each\n\
               item and merges on the engines first.) Types of your own travel if they derive serde::Serialize and\n\
               serde::Deserialize. Values of options that have spaces stand in quotes: --merge '|a, b| a.max(b)'. A name that the\n\
               notebook has as sum, concat or counts too is meant by crate::NAME.",
        follows: Follows::Notebook,
        command: ParallelArgs::command,
    },
    Magic {
        which: Which::Push,
        name: "%push",
        form: Form::Line,
        summary: "send variables of the notebook to the engines",
        usage: "%push NAME[=EXPR],.. [OPTIONS]",
        more: "Each engine gets a copy, a variable of that name and type. Engines know the types of std and those that were defined on them:\n\
               a cell that begins with `%%px --local` defines a type there and here.",
        follows: Follows::Nothing,
        command: PushArgs::command,
    },
    Magic {
        which: Which::Pull,
        name: "%pull",
        form: Form::Line,
        summary: "fetch variables of the engines",
        usage: "%pull NAME: TYPE,.. [OPTIONS]",
        more: "Binds, for each name, a Vec<TYPE> with one value an engine, in the order of the targets. TYPE is the type that the variable has on\n\
               the engines, whose compiler checks it: `%pull mean: f64` binds `mean`, a Vec<f64>.",
        follows: Follows::Nothing,
        command: GatherArgs::command,
    },
    Magic {
        which: Which::Scatter,
        name: "%scatter",
        form: Form::Line,
        summary: "cut a vector into parts, one for each engine",
        usage: "%scatter NAME[=EXPR],.. [OPTIONS]",
        more: "The variable on each engine is a Vec of its part. Parts are of equal size, and in the order of the targets.",
        follows: Follows::Nothing,
        command: PushArgs::command,
    },
    Magic {
        which: Which::Gather,
        name: "%gather",
        form: Form::Line,
        summary: "join the engines' vectors into one",
        usage: "%gather NAME: Vec<TYPE>,.. [OPTIONS]",
        more: "The vectors are joined in the order of the targets: what %scatter cut is whole again. The type is the one that the variable has\n\
               on the engines, and has here.",
        follows: Follows::Nothing,
        command: GatherArgs::command,
    },
    Magic {
        which: Which::Cluster,
        name: "%cluster",
        form: Form::Line,
        summary: "start, stop and resize the cluster",
        usage: "%cluster [start [-n N] | stop | status | scale N | restart]",
        more: "",
        follows: Follows::Nothing,
        command: ClusterArgs::command,
    },
    Magic {
        which: Which::Time,
        name: "%time",
        form: Form::Both,
        summary: "run Rust once and tell how long it took",
        usage: "%time CODE\n%%time, and the code in the lines below",
        more: "The compiler's time is told apart. `%time %px CODE` times the engines, `%%time` above a `%%parallel` all of it.",
        follows: Follows::Notebook,
        command: TimeArgs::command,
    },
    Magic {
        which: Which::Timeit,
        name: "%timeit",
        form: Form::Both,
        summary: "run Rust many times and tell how long it takes",
        usage: "%timeit [OPTIONS] CODE\n%%timeit [OPTIONS] [SETUP], and the code in the lines below",
        more: "SETUP is run before each run and is not timed; neither is the compiler. Variables made by the code are gone afterwards.\n\
               `%timeit %px CODE` times the engines, from the request to the last answer.",
        follows: Follows::Notebook,
        command: TimeitArgs::command,
    },
    Magic {
        which: Which::Who,
        name: "%who",
        form: Form::Line,
        summary: "list the variables",
        usage: "%who [TYPE..]",
        more: "",
        follows: Follows::Nothing,
        command: WhoArgs::command,
    },
    Magic {
        which: Which::Whos,
        name: "%whos",
        form: Form::Line,
        summary: "list the variables with their types",
        usage: "%whos [TYPE..]",
        more: "",
        follows: Follows::Nothing,
        command: WhoArgs::command,
    },
    Magic {
        which: Which::Checkpoint,
        name: "%checkpoint",
        form: Form::Line,
        summary: "keep variables when a cell dies",
        usage: "%checkpoint [on|off|status]",
        more: "Before a cell runs, its variables are set aside. When the cell dies by a signal, calls exit or is interrupted, they come back\n\
               as they were.",
        follows: Follows::Nothing,
        command: CheckpointArgs::command,
    },
    Magic {
        which: Which::LsMagic,
        name: "%lsmagic",
        form: Form::Line,
        summary: "list the magics",
        usage: "%lsmagic",
        more: "",
        follows: Follows::Nothing,
        command: NoArgs::command,
    },
];

/// The magic of that name, given as it is called: with `%`, or with `%%` if it is a cell magic.
pub fn find(name: &str) -> Option<&'static Magic> {
    MAGICS.iter().find(|magic| {
        magic.name == name
            || (magic.form == Form::Both
                && name
                    .strip_prefix('%')
                    .is_some_and(|line| line == magic.name))
    })
}

/// Every name that can be written, with its sign: `%px`, `%%px`, ...
pub fn names() -> impl Iterator<Item = (&'static str, &'static Magic)> {
    MAGICS.iter().flat_map(|magic| {
        let cell = match magic.which {
            Which::Px => Some("%%px"),
            Which::Time => Some("%%time"),
            Which::Timeit => Some("%%timeit"),
            _ => None,
        };
        std::iter::once((magic.name, magic)).chain(cell.map(|name| (name, magic)))
    })
}

/// A name without its sign.
fn bare(name: &str) -> &str {
    name.trim_start_matches('%')
}

/// The name most like `name`, if one is like it.
pub fn nearest(name: &str) -> Option<&'static str> {
    let wanted = bare(name);
    let near = options::nearest(wanted, MAGICS.iter().map(|magic| bare(magic.name)));
    // `%xp` is too short to be like anything by the measure.
    let near = near.or_else(|| {
        let mut letters: Vec<char> = wanted.chars().collect();
        letters.sort_unstable();
        (letters == ['p', 'x']).then_some("px")
    })?;
    let wants_cell = name.starts_with("%%");
    names()
        .filter(|(known, _)| bare(known) == near)
        .max_by_key(|(known, _)| known.starts_with("%%") == wants_cell)
        .map(|(known, _)| known)
}

/// The help for `%px?`; the name with or without its signs.
pub fn help(name: &str) -> Option<String> {
    let wanted = name.trim_matches(['%', '?']);
    if wanted.is_empty() || !name.contains('%') {
        return None;
    }
    let magic = MAGICS.iter().find(|magic| bare(magic.name) == wanted)?;
    let mut text = format!("{}\n\n{}", magic.usage, capital(magic.summary));
    if !magic.more.is_empty() {
        text.push_str("\n\n");
        text.push_str(magic.more);
    }
    let arguments = magic
        .command()
        .help_template("{all-args}")
        .term_width(120)
        .render_help()
        .to_string();
    if !arguments.trim().is_empty() {
        text.push_str("\n\n");
        text.push_str(arguments.trim_end());
    }
    text.push('\n');
    Some(text)
}

/// What `%lsmagic` prints.
pub fn list() -> String {
    let mut text = String::new();
    for magic in MAGICS {
        let cell = if magic.form == Form::Both {
            format!(", %{}", magic.name)
        } else {
            String::new()
        };
        text.push_str(&format!(
            "{:<18} {}\n",
            format!("{}{cell}", magic.name),
            magic.summary
        ));
    }
    text.push_str("\n`%name?` says more of each.\n");
    text
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).chain(['.']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_what_is_near_them() {
        assert_eq!(find("%px").map(|magic| magic.which), Some(Which::Px));
        assert_eq!(find("%%px").map(|magic| magic.which), Some(Which::Px));
        assert!(find("px").is_none() && find("%%who").is_none() && find("%%%px").is_none());
        for (name, expected) in [
            ("%chekpoint", Some("%checkpoint")),
            ("%tiemit", Some("%timeit")),
            ("%%timit", Some("%%timeit")),
            ("%%pxresult", Some("%pxresult")),
            ("%pxresults", Some("%pxresult")),
            ("%xp", Some("%px")),
            ("%%xp", Some("%%px")),
            ("%clutser", Some("%cluster")),
            ("%paralel", Some("%%parallel")),
            ("%%parallel_", Some("%%parallel")),
            ("%scater", Some("%scatter")),
            ("%matplotlib", None),
        ] {
            assert_eq!(nearest(name), expected, "{name}");
        }
    }

    #[test]
    fn the_table_is_whole() {
        for magic in MAGICS {
            magic.command().debug_assert();
            assert!(magic.usage.starts_with(magic.name), "{}", magic.name);
            let cells = names().filter(|(_, other)| other.which == magic.which);
            assert_eq!(
                cells.count(),
                1 + usize::from(magic.form == Form::Both),
                "{}",
                magic.name
            );
            assert!(list().contains(magic.name));
            assert!(help(magic.name).is_some());
        }
    }

    #[test]
    fn help_names_the_options() {
        // Where lines break does not matter here.
        let text = help("%px?").unwrap();
        let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in [
            "%px [OPTIONS] CODE",
            "-t, --targets <ENGINES>",
            "--group-outputs <HOW>",
            "[possible values: type, engine, order]",
            "--progress-after <SECONDS>",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(
            help("%cluster").unwrap().contains("scale"),
            "{}",
            help("%cluster").unwrap()
        );
        assert_eq!(help("%%timeit"), help("%timeit"));
        assert!(help("%nothing").is_none() && help("px").is_none() && help("%").is_none());
    }
}
