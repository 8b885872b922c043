//! The cells format, and that the notebooks are what the cells files say.

use std::fs;
use std::path::Path;

use serde::Serialize;

use super::*;

/// Compare a notebook with its cells file, or write it if the environment says so.
fn check(file: &str, name: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let expected = notebook(file);
    if std::env::var_os("CHORUS_UPDATE_NOTEBOOKS").is_some() {
        let mut text = Vec::new();
        // One space a level, as Jupyter writes notebooks.
        let formatter = serde_json::ser::PrettyFormatter::with_indent(b" ");
        expected
            .serialize(&mut serde_json::Serializer::with_formatter(
                &mut text, formatter,
            ))
            .unwrap();
        text.push(b'\n');
        fs::write(&path, text).unwrap();
    }
    let found: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    assert!(
        found == expected,
        "{name} differs from its cells file: edit that, then run `CHORUS_UPDATE_NOTEBOOKS=1 cargo test --release -p examples`"
    );
}

#[test]
fn wordcount_ipynb_is_its_cells_file_and_the_demo_evaluates_its_code() {
    check(WORDCOUNT, "wordcount.ipynb");
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("wordcount.ipynb");
    let notebook: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let code: Vec<String> = notebook["cells"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|cell| cell["cell_type"] == "code")
        .map(|cell| {
            let lines = cell["source"].as_array().unwrap();
            lines.iter().map(|line| line.as_str().unwrap()).collect()
        })
        .collect();
    assert_eq!(wordcount_cells(), code);
    assert!(code.len() >= 5, "{} cells", code.len());
}

#[test]
fn tour_ipynb_is_its_cells_file() {
    check(TOUR, "tour.ipynb");
}

#[test]
fn forestfire_ipynb_is_its_cells_file() {
    check(FORESTFIRE, "forestfire.ipynb");
}

#[test]
fn the_cells_format() {
    let file = "//! preamble\n\n// %% [markdown]\n// # Title\n//\n//   indented\n\n// %%\n\nlet a = 1;\n\nlet b = \"// %% not a line start\";\n\n\
                // %% tags=[\"x\", \"y\"]\na\n// %%\n";
    let found = cells(file);
    let expected = [
        (Kind::Markdown, vec![], "# Title\n\n  indented"),
        (
            Kind::Code,
            vec![],
            "let a = 1;\n\nlet b = \"// %% not a line start\";",
        ),
        (Kind::Code, vec!["x", "y"], "a"),
        (Kind::Code, vec![], ""),
    ];
    assert_eq!(found.len(), expected.len());
    for (cell, (kind, tags, source)) in found.iter().zip(expected) {
        assert_eq!(
            (cell.kind, &cell.tags, cell.source().as_str()),
            (kind, &tags, source)
        );
    }
    assert_eq!(cells(""), []);
}
