//! Whether a cell is finished, for consoles that run it at the Enter key when it is.

use crate::statements::{EDITION, code_start, is_command};
use ra_ap_syntax::{Parse, SourceFile, SyntaxKind, SyntaxNode};

/// The answer to an `is_complete_request`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Completeness {
    /// It can be run.
    Complete,
    /// More is needed; the next line would begin with `indent`.
    Incomplete {
        /// White space to begin the next line with.
        indent: String,
    },
    /// No further text makes it right.
    Invalid,
}

/// Judges `cell`: Rust by rust-analyzer's parser, evcxr's commands line by line.
pub fn completeness(cell: &str) -> Completeness {
    let code = &cell[code_start(cell)..];
    if code.trim().is_empty() {
        return Completeness::Complete;
    }
    if code.lines().next().is_some_and(is_command) {
        return Completeness::Complete;
    }
    let (parsed, tokens) = parse(code, "");
    if tokens.unterminated {
        return incomplete(code, 0);
    }
    let (errors, levels) = match tokens.balance {
        Balance::Wrong => return Completeness::Invalid,
        Balance::Closed => (parsed.errors(), 0),
        // What is open now will be closed; what is wrong even then is wrong.
        Balance::Open(closing) => (parse(code, &closing).0.errors(), 1),
    };
    let end = BEFORE.len() + code.trim_end().len();
    if errors
        .iter()
        .any(|error| usize::from(error.range().start()) < end.min(tokens.last_end))
    {
        Completeness::Invalid
    } else if levels > 0 || !errors.is_empty() || tokens.ends_in_attribute {
        incomplete(code, levels)
    } else {
        Completeness::Complete
    }
}

const BEFORE: &str = "fn f(){";

/// Parses the code as a function's body, with `closing` after it.
fn parse(code: &str, closing: &str) -> (Parse<SourceFile>, Tokens) {
    // What closes stands on a line of its own: it ends a comment, and not a string or a block comment.
    let text = format!("{BEFORE}{code}\n{closing}}}");
    let parsed = SourceFile::parse(&text, EDITION);
    let tokens = Tokens::of(
        &parsed.syntax_node(),
        BEFORE.len(),
        BEFORE.len() + code.len(),
    );
    (parsed, tokens)
}

/// As deep as the last line, and `levels` more when that line opens something.
fn incomplete(code: &str, levels: usize) -> Completeness {
    let last = code.lines().last().unwrap_or_default();
    let mut indent: String = last
        .chars()
        .take_while(|c| *c == ' ' || *c == '\t')
        .collect();
    if levels > 0 && last.trim_end().ends_with(['{', '(', '[']) {
        indent.push_str("    ");
    }
    Completeness::Incomplete { indent }
}

enum Balance {
    Closed,
    /// Brackets are open; this closes them.
    Open(String),
    Wrong,
}

/// What the tokens of the cell's own text tell.
struct Tokens {
    balance: Balance,
    /// A string or comment has no end.
    unterminated: bool,
    ends_in_attribute: bool,
    /// Where the last token that isn't white space or a comment ends.
    last_end: usize,
}

impl Tokens {
    fn of(file: &SyntaxNode, from: usize, to: usize) -> Tokens {
        let mut open: Vec<SyntaxKind> = Vec::new();
        let mut wrong = false;
        let mut unterminated = false;
        let mut last_end = from;
        let mut last = None;
        for token in file
            .descendants_with_tokens()
            .filter_map(|element| element.into_token())
        {
            let range = token.text_range();
            let (start, end) = (usize::from(range.start()), usize::from(range.end()));
            if start < from || start >= to {
                continue;
            }
            // The brace that was added belongs to no token of the cell's.
            unterminated |= end > to + 1;
            match token.kind() {
                SyntaxKind::WHITESPACE | SyntaxKind::COMMENT => continue,
                kind @ (SyntaxKind::L_CURLY | SyntaxKind::L_PAREN | SyntaxKind::L_BRACK) => {
                    open.push(kind);
                }
                SyntaxKind::R_CURLY => wrong |= open.pop() != Some(SyntaxKind::L_CURLY),
                SyntaxKind::R_PAREN => wrong |= open.pop() != Some(SyntaxKind::L_PAREN),
                SyntaxKind::R_BRACK => wrong |= open.pop() != Some(SyntaxKind::L_BRACK),
                _ => {}
            }
            last_end = end;
            last = Some(token);
        }
        let ends_in_attribute = last.is_some_and(|token| {
            token
                .parent_ancestors()
                .any(|node| node.kind() == SyntaxKind::ATTR)
        });
        Tokens {
            balance: match open.len() {
                _ if wrong => Balance::Wrong,
                0 => Balance::Closed,
                _ => Balance::Open(
                    open.iter()
                        .rev()
                        .map(|kind| match kind {
                            SyntaxKind::L_CURLY => '}',
                            SyntaxKind::L_PAREN => ')',
                            _ => ']',
                        })
                        .collect(),
                ),
            },
            unterminated,
            ends_in_attribute,
            last_end,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table() {
        let more = |indent: &str| Completeness::Incomplete {
            indent: indent.into(),
        };
        for (cell, expected) in [
            ("", Completeness::Complete),
            ("1 + 1", Completeness::Complete),
            ("let a = 1;", Completeness::Complete),
            ("fn f() -> i32 { 1 }", Completeness::Complete),
            (":vars", Completeness::Complete),
            (":dep itoa = \"1\"\nlet a = 1;", Completeness::Complete),
            ("println!(\"{\")", Completeness::Complete),
            ("let s = \"a // b\"; // c", Completeness::Complete),
            ("use std::fmt;\nfmt::Error", Completeness::Complete),
            ("fn f() {", more("    ")),
            ("fn f() {\n    if true {", more("        ")),
            ("fn f() {\n    g();", more("    ")),
            ("vec![1,", more("")),
            ("foo(", more("    ")),
            ("let s = \"abc", more("")),
            ("/* comment", more("")),
            ("let r = r#\"x\"", more("")),
            ("let a =", more("")),
            ("1 +", more("")),
            ("fn f()", more("")),
            ("#[derive(Debug)]", more("")),
            ("let a = 1", more("")),
            ("if a { 1 } else", more("")),
            ("x.iter()\n    .map(|y|", more("    ")),
            (")", Completeness::Invalid),
            ("fn f() { ] }", Completeness::Invalid),
            ("let = 5;", Completeness::Invalid),
            ("fn 1() {}", Completeness::Invalid),
            ("fn f( { }", Completeness::Invalid),
        ] {
            assert_eq!(completeness(cell), expected, "{cell:?}");
        }
    }

    #[test]
    fn never_panics() {
        let characters: Vec<char> = "abcrxyz019 ;{}()[]\"'/*#!:=+\n\\é".chars().collect();
        for seed in 0..2000 {
            let mut random = fastrand::Rng::with_seed(seed);
            let length = random.usize(..60);
            let cell: String = (0..length)
                .filter_map(|_| random.choice(&characters))
                .collect();
            let outcome = std::panic::catch_unwind(|| completeness(&cell));
            assert!(outcome.is_ok(), "{cell:?}");
        }
    }
}
