//! Completion: magics by their table, Rust by rust-analyzer, names of the cell itself while it is busy.

use crate::cells::at_boundary;
use crate::kernel::Kernel;
use crate::outlet::SHELL;
use crate::shell::{COLD, PATIENCE, WITHOUT_ELSE};
use cluster::Lineage;
use compiler::{Completion, Completions};
use magics::complete::{Item, Known, Place, place};
use protocol::Message;
use protocol::message::Reply;
use protocol::message::complete::{CompleteReply, CompleteRequest};
use protocol::message::cursor::code_points;
use serde_json::{Value, json};
use std::collections::BTreeSet;

pub(crate) async fn serve(kernel: &Kernel, request: &Message) {
    kernel
        .answer(SHELL, request, async |content: CompleteRequest| {
            let cursor = content.cursor_byte();
            let found = find(kernel, &content.code, cursor).await;
            Reply::Ok(reply(&content.code, found))
        })
        .await;
}

async fn find(kernel: &Kernel, cell: &str, cursor: usize) -> Completions {
    let ids = kernel.cells.engine_ids();
    let engine_names = kernel.cells.engine_names();
    let variables = variables(kernel, cell, cursor).await;
    let known = Known {
        ids: &ids,
        variables: &variables,
        engine_names: &engine_names,
    };
    match place(cell, cursor, &at_boundary, known) {
        Place::Words { start, items } => Completions {
            items: items.into_iter().map(magic_word).collect(),
            start,
            end: cursor,
        },
        Place::Notebook { code } => {
            let lineage = kernel.evaluator.lineage();
            rust(kernel, &lineage, code, cursor).await
        }
        Place::Engines { code } => {
            let lineage = kernel.cells.engine_lineage();
            let mut found = rust(kernel, &lineage, code, cursor).await;
            let begun = cell.get(found.start..cursor).unwrap_or_default();
            let after_dot = cell
                .get(..found.start)
                .is_some_and(|text| text.ends_with(['.', ':']));
            let missing = |name: &String| {
                name.starts_with(begun) && !found.items.iter().any(|item| item.text == *name)
            };
            if !after_dot {
                let names: Vec<Completion> = engine_names
                    .into_iter()
                    .filter(missing)
                    .map(|name| Completion {
                        label: format!("{name} (on engines)"),
                        text: name,
                        kind: "instance".to_owned(),
                    })
                    .collect();
                found.items.splice(0..0, names);
            }
            found
        }
    }
}

/// The notebook's variables and their types, if the cursor's line could be a magic's.
async fn variables(kernel: &Kernel, cell: &str, cursor: usize) -> Vec<(String, String)> {
    let before = cell.get(..cursor).unwrap_or_default();
    let line = before.rsplit('\n').next().unwrap_or_default();
    if !line.trim_start().starts_with('%') {
        return Vec::new();
    }
    match tokio::time::timeout(PATIENCE, kernel.evaluator.variables()).await {
        Ok(variables) => variables.into_iter().collect(),
        Err(_) => Vec::new(),
    }
}

fn magic_word(item: Item) -> Completion {
    Completion {
        text: item.text,
        label: item.about,
        kind: "magic".to_owned(),
    }
}

async fn rust(kernel: &Kernel, lineage: &Lineage, code: String, cursor: usize) -> Completions {
    let words = words(&code, cursor);
    let patience = match (words.items.is_empty(), kernel.evaluator.completes()) {
        (true, false) => COLD,
        (true, true) | (false, false) => WITHOUT_ELSE,
        (false, true) => PATIENCE,
    };
    let asked = kernel.evaluator.complete(lineage, code, cursor);
    match tokio::time::timeout(patience, asked).await {
        Ok(Some(found)) => found,
        Ok(None) | Err(_) => words,
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
                kind: String::new(),
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
