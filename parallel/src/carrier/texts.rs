//! The JSON of requests, rendered once for all tasks of a submission as far as they have it in common.
//!
//! What engines make of it is told in `cluster/src/engine/call.rs` and `snippet.rs`.

use crate::wire::{Dependency, Route, Span, Work};
use bytes::Bytes;
use protocol::machine::shared_memory;
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Where a piece's bytes are, on their way to an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Data {
    /// In the message.
    Bytes(Bytes),
    /// In a file of the carrier's.
    File {
        path: PathBuf,
        start: u64,
        length: u64,
    },
}

/// The text of a value. Only strings, numbers and maps with string keys are rendered here, which all have one.
fn text<T: Serialize + ?Sized>(value: &T) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

/// A piece's text: the `buffer`th of the message, or a file. `keep` is its number if later calls share it.
fn piece(data: &Data, buffer: usize, keep: Option<u64>) -> String {
    let mut text = match data {
        Data::Bytes(_) => format!("\"buffer\":{buffer}"),
        Data::File {
            path,
            start: 0,
            length,
        } => {
            format!("\"file\":{},\"length\":{length}", text(path))
        }
        Data::File {
            path,
            start,
            length,
        } => {
            format!("\"file\":{},\"stretch\":[{start},{length}]", text(path))
        }
    };
    if let Some(keep) = keep {
        text.push_str(&format!(",\"keep\":{keep}"));
    }
    text
}

/// The content of a submission's requests.
#[derive(Debug)]
pub(super) struct Content {
    /// Before and behind the arguments.
    parts: [String; 2],
    /// The whole of it if the arguments are in the message, or if there are none.
    inline: Bytes,
    /// Whether tasks have arguments.
    takes: bool,
    /// Buffers that follow the arguments.
    buffers: Vec<Bytes>,
}

impl Content {
    /// For work with these shared values, by number.
    pub(super) fn of(work: &Work, shared: &[(u64, &Data)]) -> Content {
        let mut buffers = Vec::new();
        let mut takes = true;
        let parts = match work {
            Work::Call {
                artifact,
                executable,
                offset,
            } => {
                let mut pieces = String::new();
                for (number, data) in shared {
                    let piece = piece(data, buffers.len() + 1, Some(*number));
                    pieces.push_str(&format!(",{{{piece}}}"));
                    if let Data::Bytes(bytes) = data {
                        buffers.push(bytes.clone());
                    }
                }
                [
                    format!(
                        "{{\"chorus\":{{\"artifact\":{},\"executable\":{executable},\"offset\":{offset},\"shm\":{},\"pieces\":[{{",
                        text(artifact),
                        memory()
                    ),
                    format!("}}{pieces}]}}}}"),
                ]
            }
            Work::Snippet {
                code,
                takes: name,
                gives,
            } => {
                takes = name.is_some();
                let mut before = format!(
                    "{{\"code\":{},\"silent\":true,\"store_history\":false,\"user_expressions\":{{}},\"allow_stdin\":false,\
                     \"stop_on_error\":false,\"chorus\":{{\"shm\":{}",
                    text(code),
                    memory()
                );
                if let Some(name) = gives {
                    before.push_str(&format!(",\"gives\":{}", text(name)));
                }
                match name {
                    Some(name) => {
                        before.push_str(&format!(",\"takes\":{{\"name\":{},", text(name)));
                        [before, "}}}".to_owned()]
                    }
                    None => [before, "}}".to_owned()],
                }
            }
        };
        let [before, behind] = &parts;
        let inline = match takes {
            true => format!("{before}\"buffer\":0{behind}"),
            false => format!("{before}{behind}"),
        };
        Content {
            inline: Bytes::from(inline),
            parts,
            takes,
            buffers,
        }
    }

    /// Content and buffers of a task's request.
    pub(super) fn with(&self, arguments: &Data) -> (Bytes, Vec<Bytes>) {
        let [before, behind] = &self.parts;
        match arguments {
            _ if !self.takes => (self.inline.clone(), Vec::new()),
            Data::Bytes(bytes) => {
                let mut buffers = Vec::with_capacity(1 + self.buffers.len());
                buffers.push(bytes.clone());
                buffers.extend_from_slice(&self.buffers);
                (self.inline.clone(), buffers)
            }
            file @ Data::File { .. } => {
                // The numbers of the shared values' buffers stay as they are.
                let mut buffers = Vec::new();
                if !self.buffers.is_empty() {
                    buffers.push(Bytes::new());
                    buffers.extend_from_slice(&self.buffers);
                }
                let content = format!("{before}{}{behind}", piece(file, 0, None));
                (Bytes::from(content), buffers)
            }
        }
    }
}

/// The metadata of a submission's requests. `identity` knows engines by number, `id` tasks.
pub(super) fn metadata(
    route: &Route,
    label: Option<&str>,
    identity: impl Fn(u32) -> Option<String>,
    id: impl Fn(u64) -> String,
) -> Result<Bytes, u32> {
    let mut metadata = Map::new();
    if let Some(label) = label {
        metadata.insert("label".to_owned(), json!(label));
    }
    if let Route::Balanced {
        targets,
        retries,
        timeout,
        after,
        follow,
    } = route
    {
        if let Some(targets) = targets {
            let targets = targets
                .iter()
                .map(|engine| identity(*engine).ok_or(*engine))
                .collect::<Result<Vec<String>, u32>>()?;
            metadata.insert("targets".to_owned(), json!(targets));
        }
        if *retries > 0 {
            metadata.insert("retries".to_owned(), json!(retries));
        }
        if let Some(timeout) = timeout {
            metadata.insert("timeout".to_owned(), json!(timeout));
        }
        for (name, given) in [("after", after), ("follow", follow)] {
            if let Some(given) = given {
                metadata.insert(name.to_owned(), dependency(given, &id));
            }
        }
    }
    Ok(Bytes::from(text(&metadata)))
}

fn dependency(given: &Dependency, id: impl Fn(u64) -> String) -> Value {
    let ids: Vec<String> = given
        .tasks
        .iter()
        .flat_map(|span: &Span| span.ids())
        .map(id)
        .collect();
    json!({
        "dependencies": ids,
        "all": given.all,
        "success": given.success,
        "failure": given.failure,
    })
}

/// The memory that files of this machine are in, as JSON.
fn memory() -> String {
    shared_memory().map_or_else(|| "null".to_owned(), text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &Bytes) -> Value {
        serde_json::from_slice(text).unwrap()
    }

    #[test]
    fn calls() {
        let work = Work::Call {
            artifact: "/tmp/\"odd\".so".into(),
            executable: false,
            offset: 7,
        };
        let file = Data::File {
            path: "/dev/shm/x".into(),
            start: 0,
            length: 9,
        };
        let bytes = |text: &'static str| Data::Bytes(Bytes::from_static(text.as_bytes()));
        let (small, other) = (bytes("shared"), bytes("too"));
        let content = Content::of(&work, &[(5, &small), (6, &file), (8, &other)]);
        let shared = [
            json!({"buffer": 1, "keep": 5}),
            json!({"file": "/dev/shm/x", "length": 9, "keep": 6}),
            json!({"buffer": 2, "keep": 8}),
        ];
        let expected = |arguments: Value| {
            let [a, b, c] = shared.clone();
            json!({"chorus": {"artifact": "/tmp/\"odd\".so", "executable": false, "offset": 7, "shm": shared_memory(), "pieces": [arguments, a, b, c]}})
        };
        let (text, buffers) = content.with(&bytes("x"));
        assert_eq!(value(&text), expected(json!({"buffer": 0})));
        assert_eq!(buffers, ["x", "shared", "too"]);
        let (text, buffers) = content.with(&file);
        assert_eq!(
            value(&text),
            expected(json!({"file": "/dev/shm/x", "length": 9}))
        );
        assert_eq!(buffers, ["", "shared", "too"]);
        let stretch = Data::File {
            path: "/dev/shm/x".into(),
            start: 65536,
            length: 9,
        };
        assert_eq!(
            value(&content.with(&stretch).0),
            expected(json!({"file": "/dev/shm/x", "stretch": [65536, 9]}))
        );
    }

    #[test]
    fn snippets() {
        let snippet = |takes: Option<&str>, gives: Option<&str>| Work::Snippet {
            code: "let x = \"1\";".to_owned(),
            takes: takes.map(str::to_owned),
            gives: gives.map(str::to_owned),
        };
        let chorus = |work: &Work, arguments: &Data| {
            let (text, buffers) = Content::of(work, &[]).with(arguments);
            let content = value(&text);
            assert_eq!(content["code"], "let x = \"1\";");
            (content["chorus"].clone(), buffers.len())
        };
        let bytes = Data::Bytes(Bytes::from_static(b"x"));
        assert_eq!(
            chorus(&snippet(None, None), &bytes),
            (json!({"shm": shared_memory()}), 0)
        );
        assert_eq!(
            chorus(&snippet(Some("x"), None), &bytes),
            (
                json!({"shm": shared_memory(), "takes": {"name": "x", "buffer": 0}}),
                1
            )
        );
        assert_eq!(
            chorus(&snippet(None, Some("y")), &bytes),
            (json!({"shm": shared_memory(), "gives": "y"}), 0)
        );
    }

    #[test]
    fn what_schedulers_are_told() {
        let id = |task: u64| format!("t{task}");
        let identity = |engine: u32| (engine < 2).then(|| format!("e{engine}"));
        let balanced = |targets| Route::Balanced {
            targets,
            retries: 2,
            timeout: Some(1.5),
            after: Some(Dependency {
                tasks: vec![Span { first: 3, count: 2 }],
                all: true,
                success: true,
                failure: false,
            }),
            follow: None,
        };
        let text = metadata(&balanced(Some(vec![1])), Some("name"), identity, id).unwrap();
        assert_eq!(
            value(&text),
            json!({
                "label": "name", "targets": ["e1"], "retries": 2, "timeout": 1.5,
                "after": {"dependencies": ["t3", "t4"], "all": true, "success": true, "failure": false},
            })
        );
        assert_eq!(
            metadata(&balanced(Some(vec![7])), None, identity, id),
            Err(7)
        );
        assert_eq!(metadata(&Route::Direct, None, identity, id).unwrap(), "{}");
    }
}
