//! Completion: magics by their table, Rust by rust-analyzer, names of the cell itself while it is busy.

use crate::kernel::Kernel;
use crate::magic;
use crate::outlet::SHELL;
use compiler::{Completion, Completions};
use protocol::Message;
use protocol::message::Reply;
use protocol::message::complete::{CompleteReply, CompleteRequest};
use protocol::message::cursor::code_points;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::Duration;

/// How long a user waits for rust-analyzer, which may be behind the compile of a cell.
const PATIENCE: Duration = Duration::from_millis(250);

pub(crate) async fn serve(kernel: &Kernel, request: &Message) {
    kernel
        .answer(SHELL, request, async |content: CompleteRequest| {
            let cursor = content.cursor_byte();
            let found = find(kernel, &content.code, cursor).await;
            Reply::Ok(reply(&content.code, found))
        })
        .await;
}

async fn find(kernel: &Kernel, code: &str, cursor: usize) -> Completions {
    let line_start = code[..cursor].rfind('\n').map_or(0, |at| at + 1);
    if let Some((start, words)) = magic::complete(&code[line_start..cursor]) {
        return Completions {
            items: words
                .into_iter()
                .map(|word| Completion {
                    text: word.to_owned(),
                    label: word.to_owned(),
                    kind: "magic",
                })
                .collect(),
            start: line_start + start,
            end: cursor,
        };
    }
    let (_, rust) = magic::split(code);
    if rust.len() != code.len() {
        // A magic was taken out: offsets before the cursor have moved.
        return words(code, cursor);
    }
    let question = {
        let code = code.to_owned();
        move |notebook: &mut compiler::Notebook| notebook.complete(&code, cursor)
    };
    match tokio::time::timeout(PATIENCE, kernel.evaluator.ask(question)).await {
        Ok(Some(found)) => found,
        Ok(None) | Err(_) => words(code, cursor),
    }
}

/// The words of the cell that begin like the one at the cursor.
fn words(code: &str, cursor: usize) -> Completions {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let start = code[..cursor]
        .char_indices()
        .rev()
        .take_while(|(_, c)| is_word(*c))
        .last()
        .map_or(cursor, |(at, _)| at);
    let begun = &code[start..cursor];
    let found: BTreeSet<&str> = if begun.is_empty() {
        BTreeSet::new()
    } else {
        code.split(|c| !is_word(c))
            .filter(|word| word.starts_with(begun) && *word != begun)
            .collect()
    };
    Completions {
        items: found
            .into_iter()
            .map(|word| Completion {
                text: word.to_owned(),
                label: word.to_owned(),
                kind: "",
            })
            .collect(),
        start,
        end: cursor,
    }
}

fn reply(code: &str, found: Completions) -> CompleteReply {
    let (start, end) = (code_points(code, found.start), code_points(code, found.end));
    let types: Vec<Value> = found
        .items
        .iter()
        .map(|item| {
            json!({"start": start, "end": end, "text": item.text, "type": item.kind, "signature": item.label})
        })
        .collect();
    CompleteReply {
        matches: found.items.into_iter().map(|item| item.text).collect(),
        cursor_start: start,
        cursor_end: end,
        metadata: serde_json::Map::from_iter([(
            "_jupyter_types_experimental".to_owned(),
            Value::Array(types),
        )]),
    }
}
