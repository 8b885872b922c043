//! Help on what stands at the cursor.

use crate::cells::at_boundary;
use crate::kernel::Kernel;
use crate::outlet::SHELL;
use crate::shell::{COLD, WITHOUT_ELSE};
use cluster::Lineage;
use cluster::output::text_bundle;
use magics::complete::{Known, Place, place};
use magics::table;
use protocol::Message;
use protocol::message::inspect::{InspectReply, InspectRequest};
use protocol::message::{MimeBundle, Reply};

pub(crate) async fn serve(kernel: &Kernel, request: &Message) {
    kernel
        .answer(SHELL, request, async |content: InspectRequest| {
            let found = describe(kernel, &content.code, content.cursor_byte()).await;
            Reply::Ok(InspectReply {
                found: found.is_some(),
                data: found.unwrap_or_default(),
                ..InspectReply::default()
            })
        })
        .await;
}

/// What is known of the word at the byte `cursor` of `code`.
pub(crate) async fn describe(kernel: &Kernel, code: &str, cursor: usize) -> Option<MimeBundle> {
    let end = word_end(code, cursor);
    match place(code, end, &at_boundary, Known::default()) {
        Place::Engines { code: snippet } => {
            let lineage = kernel.cells.engine_lineage();
            let found = rust(kernel, &lineage, snippet, end).await;
            found.or_else(|| magic(code, cursor))
        }
        Place::Notebook { code: cell } => match magic(code, cursor) {
            Some(help) => Some(help),
            None => rust(kernel, &kernel.evaluator.lineage(), cell, end).await,
        },
        Place::Words { .. } => magic(code, cursor),
    }
}

/// Help on the magic that begins the cursor's line.
fn magic(code: &str, cursor: usize) -> Option<MimeBundle> {
    let line_start = code[..cursor].rfind('\n').map_or(0, |at| at + 1);
    let name = code[line_start..].split_whitespace().next()?;
    let help = table::help(name.strip_prefix('%').map(|_| name.trim_end_matches('?'))?)?;
    Some(text_bundle(help))
}

/// What the compiler knows of the name that ends at the byte `end`.
async fn rust(kernel: &Kernel, lineage: &Lineage, code: String, end: usize) -> Option<MimeBundle> {
    let asked = kernel.evaluator.inspect(lineage, code, end);
    let patience = match kernel.evaluator.completes() {
        true => WITHOUT_ELSE,
        false => COLD,
    };
    let found = tokio::time::timeout(patience, asked).await.ok()??;
    let mut data = text_bundle(found.text);
    data.insert("text/html".to_owned(), found.html.into());
    Some(data)
}

/// Where the word that the cursor is in or behind ends.
fn word_end(code: &str, cursor: usize) -> usize {
    code[cursor..]
        .find(|c: char| !(c.is_alphanumeric() || c == '_'))
        .map_or(code.len(), |length| cursor + length)
}
