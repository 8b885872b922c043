//! The one table of magics: their names, what they do, their options; help and `%lsmagic` are made of it.

use clap::{Command, CommandFactory};

use crate::options::{
    self, CheckpointArgs, ClusterArgs, NoArgs, PxArgs, PxConfigArgs, PxResultArgs, TimeArgs,
    TimeitArgs, WhoArgs,
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

/// A row of the table.
#[derive(Clone, Copy, Debug)]
pub struct Magic {
    /// For dispatch.
    pub which: Which,
    /// As a line magic, with its `%`.
    pub name: &'static str,
    /// Whether it is a cell magic too, with `%%`.
    pub cell: bool,
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
        cell: true,
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
        cell: false,
        summary: "wait for the last %px and show what came of it",
        usage: "%pxresult [OPTIONS]",
        more: "With --out it binds the results and shows nothing.",
        follows: Follows::Nothing,
        command: PxResultArgs::command,
    },
    Magic {
        which: Which::PxConfig,
        name: "%pxconfig",
        cell: false,
        summary: "set what later %px do unless told otherwise",
        usage: "%pxconfig [OPTIONS]",
        more: "Without options it says what holds now.",
        follows: Follows::Nothing,
        command: PxConfigArgs::command,
    },
    Magic {
        which: Which::AutoPx,
        name: "%autopx",
        cell: false,
        summary: "switch: run all Rust on the engines, or here again",
        usage: "%autopx",
        more: "",
        follows: Follows::Nothing,
        command: NoArgs::command,
    },
    Magic {
        which: Which::Cluster,
        name: "%cluster",
        cell: false,
        summary: "start, stop and resize the cluster",
        usage: "%cluster [start [-n N] | stop | status | scale N | restart]",
        more: "",
        follows: Follows::Nothing,
        command: ClusterArgs::command,
    },
    Magic {
        which: Which::Time,
        name: "%time",
        cell: true,
        summary: "run Rust once and tell how long it took",
        usage: "%time CODE\n%%time, and the code in the lines below",
        more: "The compiler's time is told apart. `%time %px CODE` times the engines.",
        follows: Follows::Notebook,
        command: TimeArgs::command,
    },
    Magic {
        which: Which::Timeit,
        name: "%timeit",
        cell: true,
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
        cell: false,
        summary: "list the variables",
        usage: "%who [TYPE..]",
        more: "",
        follows: Follows::Nothing,
        command: WhoArgs::command,
    },
    Magic {
        which: Which::Whos,
        name: "%whos",
        cell: false,
        summary: "list the variables with their types",
        usage: "%whos [TYPE..]",
        more: "",
        follows: Follows::Nothing,
        command: WhoArgs::command,
    },
    Magic {
        which: Which::Checkpoint,
        name: "%checkpoint",
        cell: false,
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
        cell: false,
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
            || (magic.cell
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

/// The name most like `name`, if one is like it.
pub fn nearest(name: &str) -> Option<&'static str> {
    let bare = name.trim_start_matches('%');
    let near = options::nearest(
        bare,
        MAGICS
            .iter()
            .map(|magic| magic.name.trim_start_matches('%')),
    );
    // `%xp` is too short to be like anything by the measure.
    let near = near.or_else(|| {
        let mut letters: Vec<char> = bare.chars().collect();
        letters.sort_unstable();
        (letters == ['p', 'x']).then_some("px")
    })?;
    let wants_cell = name.starts_with("%%");
    let line = MAGICS
        .iter()
        .find(|magic| magic.name.trim_start_matches('%') == near)?;
    names()
        .filter(|(_, magic)| magic.which == line.which)
        .max_by_key(|(name, _)| name.starts_with("%%") == wants_cell)
        .map(|(name, _)| name)
}

/// The help for `%px?`; the name with or without its signs.
pub fn help(name: &str) -> Option<String> {
    let bare = name.trim_matches(['%', '?']);
    if bare.is_empty() || !name.contains('%') {
        return None;
    }
    let magic = MAGICS
        .iter()
        .find(|magic| magic.name.strip_prefix('%') == Some(bare))?;
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
        let cell = if magic.cell {
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
            assert_eq!(cells.count(), 1 + usize::from(magic.cell), "{}", magic.name);
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
