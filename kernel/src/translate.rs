//! The compiler's types as those of the cluster, which knows no compiler.

use cluster::Lineage;
use cluster::compile::{Artifact, Diagnostic};
use cluster::connection::Libraries;
use compiler::lineages::ROOT;
use compiler::{Made, Support};
use serde_json::Value;

/// A lineage's name for the compiler.
pub(crate) fn name_of(lineage: &Lineage) -> &str {
    match *lineage == Lineage::root() {
        true => ROOT,
        false => &lineage.0,
    }
}

/// The lineage of a name.
pub(crate) fn lineage(name: String) -> Lineage {
    match name == ROOT {
        true => Lineage::root(),
        false => Lineage(name),
    }
}

pub(crate) fn libraries(support: &Support) -> Libraries {
    Libraries {
        support: support.library.clone(),
        preload: vec![support.std.clone()],
    }
}

pub(crate) fn artifact(made: Made) -> Artifact {
    let shown = made.shown.into_iter();
    let shown =
        shown.map(|(kind, text)| (kind, Value::String(text.trim_end_matches('\n').to_owned())));
    Artifact {
        loads: made.load.into_iter().collect(),
        entry: made.entry.to_owned(),
        lineage: lineage(made.next.completed),
        shown: shown.collect(),
        ends_in_expression: made.ends_in_expression,
        lost: made.lost,
        notes: made.notes,
        reads: made.reads,
    }
}

pub(crate) fn diagnostic(diagnostic: compiler::Diagnostic) -> Diagnostic {
    Diagnostic {
        code: diagnostic.code,
        message: diagnostic.message,
        rendered: diagnostic.rendered,
    }
}
