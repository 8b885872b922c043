//! Why a magic failed, and what the user reads then.

use crate::event::{EngineId, Failure};
use crate::options::OptionError;
use crate::targets::TargetError;

/// Why a cell with magics failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No magic has that name.
    #[error("there is no magic {name} (line {line}).{} %lsmagic lists those there are", nearest.map(|name| format!(" Did you mean {name}?")).unwrap_or_default())]
    UnknownMagic {
        /// With its sign.
        name: String,
        /// The line in the cell, from 1.
        line: usize,
        /// The most similar name there is.
        nearest: Option<&'static str>,
    },
    /// The magic's options were not understood.
    #[error(transparent)]
    Options(#[from] OptionError),
    /// The targets are not there.
    #[error("{magic}: {source}")]
    Targets {
        /// The magic, with its sign.
        magic: String,
        /// Which, and what there is.
        source: TargetError,
    },
    /// There is nothing after the magic.
    #[error("{magic} needs code to run: {}", if magic.starts_with("%%") { "write it in the lines below" } else { "write it in the same line" })]
    NoCode {
        /// The magic, with its sign.
        magic: String,
    },
    /// Code stands where none is read.
    #[error(
        "{magic} takes only options in its line, `{code}` is none of them: the code goes in the lines below"
    )]
    CodeInLine {
        /// The magic, with its sign.
        magic: String,
        /// What stands there.
        code: String,
    },
    /// The cluster has no engines.
    #[error("the cluster has no engines. `%cluster scale N` starts N; `%cluster status` says more")]
    NoEngines,
    /// There is no cluster where one is needed.
    #[error("there is no cluster. `%cluster start` starts one")]
    NoCluster,
    /// The controller did not answer in time.
    #[error(
        "the cluster's controller did not answer within {seconds} s. `%cluster restart` starts it anew, with new engines"
    )]
    Silent {
        /// How long was waited.
        seconds: u64,
    },
    /// `%pxresult` before any `%px`.
    #[error("%pxresult shows the result of the last %px, and there was none yet")]
    NoResult,
    /// The user interrupted, and these engines had not ended.
    #[error("interrupted{}", still(engines))]
    Interrupted {
        /// Those that still run; none if it had not got so far.
        engines: Vec<EngineId>,
    },
    /// What `%timeit` measured could not be read.
    #[error("failed to read the timings from the notebook, which said `{said}` in their place")]
    Timings {
        /// What came instead.
        said: String,
    },
    /// What the notebook, the engines or the cluster say.
    #[error("{}", .0.evalue)]
    Failed(Failure),
}

fn still(engines: &[EngineId]) -> String {
    match engines {
        [] => String::new(),
        engines => format!(
            ". Still running on {}: %pxresult waits for it, `%cluster restart` ends it",
            crate::targets::ranges(engines)
        ),
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Error {
        Error::Failed(failure)
    }
}

impl Error {
    /// As a notebook shows it.
    pub fn into_failure(self) -> Failure {
        let ename = match &self {
            Error::Failed(_) => "",
            Error::UnknownMagic { .. } => "unknown magic",
            Error::Interrupted { .. } => "interrupted",
            Error::NoEngines | Error::NoCluster | Error::Silent { .. } => "no engines",
            Error::Targets { .. } => "bad target",
            Error::Options(_) => "bad option",
            Error::NoCode { .. }
            | Error::CodeInLine { .. }
            | Error::NoResult
            | Error::Timings { .. } => "usage",
        };
        match self {
            Error::Failed(failure) => failure,
            other => Failure::new(ename, capital(&other.to_string())),
        }
    }
}

/// Errors complete a sentence; what users see begins one.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let mut sentence: String = chars
        .next()
        .map(|first| first.to_uppercase().collect())
        .unwrap_or_default();
    sentence.push_str(chars.as_str());
    if !sentence.ends_with(['.', '?', '!', ')']) {
        sentence.push('.');
    }
    sentence
}
