//! Compile errors of cells in words.

use crate::translate;
use cluster::failure::{Subject, plain};
use compiler::Failure;
use protocol::message::ErrorInfo;

/// A cell that did not compile.
pub(crate) fn compile(failure: Failure) -> ErrorInfo {
    match failure {
        Failure::Errors(diagnostics) => {
            let diagnostics = diagnostics.into_iter().map(translate::diagnostic);
            let diagnostics: Vec<_> = diagnostics.collect();
            cluster::failure::compile(Subject::Cell, &diagnostics)
        }
        Failure::Refused(message) => plain("compile error", message),
        Failure::Panicked(message) => plain(
            "compile error",
            format!(
                "evcxr could not deal with this cell ({message}). Nothing has changed; try to write it another way, \
                 or in smaller cells."
            ),
        ),
        Failure::Unavailable(reason) => plain(
            "no compiler",
            format!("This cell could not be compiled: {reason}. Nothing has changed; what was compiled before still runs."),
        ),
        Failure::UnknownLineage(_) => plain(
            "compile error",
            "What earlier cells have defined was kept in Chorus's cache, and is gone from there. `:clear` begins anew.".to_owned(),
        ),
        Failure::LostLineage { why, .. } => plain(
            "compile error",
            format!(
                "What earlier cells have defined can't be restored ({}). `:clear` begins anew.",
                why.as_deref().unwrap_or("it comes to something else now")
            ),
        ),
    }
}
