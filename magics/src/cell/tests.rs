//! Cells and their pieces.

use super::*;
use proptest::prelude::*;

/// Counts brackets and quotes; enough of a judge for these cells.
fn judge(text: &str) -> bool {
    let count = |wanted: &[char]| text.matches(wanted).count();
    count(&['{', '(', '[']) == count(&['}', ')', ']']) && count(&['"']).is_multiple_of(2)
}

/// A piece in short: what it is, its line, its text.
fn short(piece: &Piece) -> String {
    match piece {
        Piece::Code(code) => format!("{}: {}", code.line, code.text),
        Piece::Line(magic) => format!(
            "{}: <{}|{}>",
            magic.arguments.line, magic.name, magic.arguments.text
        ),
        Piece::Cell(magic) => format!(
            "{}: <<{}|{}|{}:{}>>",
            magic.arguments.line,
            magic.name,
            magic.arguments.text,
            magic.body.line,
            magic.body.text
        ),
    }
}

#[test]
fn a_magic_stands_where_a_statement_could() {
    for (cell, expected) in [
        ("", &[][..]),
        ("1 + 1", &["1: 1 + 1"]),
        ("%checkpoint off", &["1: <%checkpoint|off>"]),
        ("  %who  \n", &["1: <%who|>"]),
        ("%px  let a = 1; \r\n", &["1: <%px|let a = 1;>"]),
        ("let a = 7\n  % b;", &["1: let a = 7\n  % b;"]),
        ("let a = 7\n%b;", &["1: let a = 7\n%b;"]),
        ("a;\n% b", &["1: a;\n% b"]),
        ("f(a;\n%b)", &["1: f(a;\n%b)"]),
        (
            "let a = 1;\n%who\na",
            &["1: let a = 1;\n", "2: <%who|>", "3: a"],
        ),
        (
            "let a = 1; // one\n%who",
            &["1: let a = 1; // one\n", "2: <%who|>"],
        ),
        ("a; /* b */\n%who", &["1: a; /* b */\n", "2: <%who|>"]),
        ("fn f() {\na;\n%who\n}", &["1: fn f() {\na;\n%who\n}"]),
        (
            "// note\n\n%who\n%px 1\n",
            &["1: // note\n\n", "3: <%who|>", "4: <%px|1>"],
        ),
        (":dep x\n%who\n", &["1: :dep x\n", "2: <%who|>"]),
        ("let s = \";\n%who\n\";", &["1: let s = \";\n%who\n\";"]),
        (
            "let s = \"\n:vars\n%who\n\"; s",
            &["1: let s = \"\n:vars\n%who\n\"; s"],
        ),
        (
            "let s = \"\n!ls\n%%px\n\"; s",
            &["1: let s = \"\n!ls\n%%px\n\"; s"],
        ),
        ("%%px -t 0\n1\n%who", &["1: <<%%px|-t 0|2:1\n%who>>"]),
        ("%%px", &["1: <<%%px||1:>>"]),
        ("a;\n%%px\n1", &["1: a;\n", "2: <<%%px||3:1>>"]),
        ("%px?", &["1: <%px?|>"]),
        ("%%%px", &["1: %%%px"]),
        ("%1", &["1: %1"]),
    ] {
        let pieces = parse(cell, &judge);
        let found: Vec<String> = pieces.iter().map(short).collect();
        assert_eq!(found, expected, "{cell:?}");
    }
}

#[test]
fn source_keeps_lines_and_columns() {
    let pieces = parse("let a = 1;\n  %px  b\n%who\nlet c = 2;", &judge);
    let sources: Vec<String> = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Code(code) => code.source(),
            Piece::Line(magic) => magic.arguments.source(),
            Piece::Cell(magic) => magic.body.source(),
        })
        .collect();
    assert_eq!(
        sources,
        ["let a = 1;\n", "\n       b", "\n\n    ", "\n\n\nlet c = 2;"]
    );
    let mut code = parse("%timeit f()", &judge)
        .pop()
        .map(|piece| match piece {
            Piece::Line(magic) => magic.arguments,
            _ => Code::default(),
        })
        .unwrap();
    code.before = "{".to_owned();
    code.after = "}".to_owned();
    assert_eq!(code.source(), "{ f()}");
    code.line = 3;
    assert_eq!(code.source(), "\n{\n        f()}");
    code.text = ":vars".to_owned();
    code.before.clear();
    code.after.clear();
    assert_eq!(code.source(), "\n\n:vars");
}

#[test]
fn the_body_of_a_cell_magic_is_a_cell_again() {
    let pieces = parse("%%time\n%%px -t 0\nf()", &judge);
    let [Piece::Cell(outer)] = pieces.as_slice() else {
        panic!("{pieces:?}");
    };
    let inner = parse_code(&outer.body, &judge);
    let found: Vec<String> = inner.iter().map(short).collect();
    assert_eq!(found, ["2: <<%%px|-t 0|3:f()>>"]);
    assert_eq!(inner[0].range(), 7..20);
}

proptest! {
    #[test]
    fn pieces_cover_the_text(cell in "([%a-z{}();/ \"é]{0,6}\r?\n){0,8}[% a-zé;]{0,6}") {
        let mut end = 0;
        for piece in parse(&cell, &judge) {
            prop_assert_eq!(piece.range().start, end);
            end = piece.range().end;
            if let Piece::Code(code) = &piece {
                prop_assert_eq!(&cell[code.range.clone()], &code.text);
                prop_assert_eq!(cell[..code.range.start].matches('\n').count() + 1, code.line);
            }
        }
        prop_assert_eq!(end, cell.len());
    }

    #[test]
    fn never_panics(cell in "\\PC{0,60}", answer: bool) {
        let pieces = parse(&cell, &|_| answer);
        let end = pieces.last().map_or(0, |piece| piece.range().end);
        prop_assert_eq!(end, cell.len());
    }
}
