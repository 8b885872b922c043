//! Whether a text names one of the crates, as rustc would read it.

use crate::statements::{EDITION, code_start};
use ra_ap_syntax::{NodeOrToken, SourceFile, SyntaxKind, SyntaxToken};

/// The crates that are named.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mentioned {
    pub(crate) chorus: bool,
    pub(crate) serde: bool,
}

impl Mentioned {
    pub(crate) fn any(self) -> bool {
        self.chorus || self.serde
    }

    /// Whether one of them is not there already.
    pub(crate) fn any_but(self, is_there: impl Fn(&str) -> bool) -> bool {
        (self.chorus && !is_there("chorus")) || (self.serde && !is_there("serde"))
    }
}

/// The crates that a cell's code names: at the head of a path, or in a `use` or `extern crate`. A variable or a field of such a name, a
/// comment or a string is no mention.
pub(crate) fn mentioned(cell: &str) -> Mentioned {
    let mut mentioned = Mentioned::default();
    // Most cells don't have the words at all.
    if !words(cell).any() {
        return mentioned;
    }
    let code = cell.get(code_start(cell)..).unwrap_or_default();
    let parsed = SourceFile::parse(&format!("fn f(){{{code}\n}}"), EDITION);
    for token in parsed
        .syntax_node()
        .descendants_with_tokens()
        .filter_map(NodeOrToken::into_token)
    {
        let which = match token.text() {
            "chorus" => &mut mentioned.chorus,
            "serde" => &mut mentioned.serde,
            _ => continue,
        };
        *which |= is_crate(&token);
    }
    mentioned
}

fn is_crate(token: &SyntaxToken) -> bool {
    let after = |token: &SyntaxToken| next(token).map(|next| (next.text().to_owned(), next));
    let heads_a_path = match after(token) {
        Some((text, _)) if text == "::" => true,
        // In a macro's arguments the colons are single ones.
        Some((text, colon)) if text == ":" => {
            colon.next_token().is_some_and(|next| next.text() == ":")
        }
        _ => false,
    };
    if heads_a_path {
        return true;
    }
    let before = previous(token);
    let before = match &before {
        Some(colons) if colons.text() == "::" => previous(colons),
        _ => before,
    };
    before.is_some_and(|before| matches!(before.kind(), SyntaxKind::USE_KW | SyntaxKind::CRATE_KW))
}

fn next(token: &SyntaxToken) -> Option<SyntaxToken> {
    let mut token = token.next_token()?;
    while token.kind().is_trivia() {
        token = token.next_token()?;
    }
    Some(token)
}

fn previous(token: &SyntaxToken) -> Option<SyntaxToken> {
    let mut token = token.prev_token()?;
    while token.kind().is_trivia() {
        token = token.prev_token()?;
    }
    Some(token)
}

/// The crates whose names are words of a text: all that may be needed to compile it, earlier cells' definitions included, and at times
/// more.
pub(crate) fn words(text: &str) -> Mentioned {
    let has = |name: &str| {
        text.match_indices(name).any(|(at, _)| {
            let inside = |c: char| c.is_alphanumeric() || c == '_';
            let before = text[..at].chars().next_back();
            let after = text[at + name.len()..].chars().next();
            !before.is_some_and(inside) && !after.is_some_and(inside)
        })
    };
    Mentioned {
        chorus: has("chorus"),
        serde: has("serde"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_names_a_crate() {
        for (cell, chorus, serde) in [
            ("use chorus::Client;", true, false),
            ("use serde;", false, true),
            ("use ::chorus as c;", true, false),
            ("extern crate serde;", false, true),
            ("let c = chorus::Client::connect()?;", true, false),
            (
                "let n: u8 = ::chorus::__private::take(\"n\")?;",
                true,
                false,
            ),
            ("#[derive(serde::Serialize, Clone)]\nstruct P;", false, true),
            ("println!(\"{}\", chorus :: VERSION);", true, false),
            ("use chorus::serde::Serialize;", true, true),
            (":dep serde = \"1\"\n1 + 1", false, false),
            ("// chorus::Client\n1", false, false),
            ("\"chorus::Client and serde::x\"", false, false),
            ("let chorus = 1; chorus + 1", false, false),
            ("struct S { serde: u8 }", false, false),
            ("let serde: u8 = 1;", false, false),
            ("chorus_support::x(); my_serde::y()", false, false),
            ("self.chorus()", false, false),
        ] {
            assert_eq!(mentioned(cell), Mentioned { chorus, serde }, "{cell}");
        }
    }

    #[test]
    fn words_that_may_name_one() {
        assert!(!words("::chorus_support::x").chorus);
        assert!(words("use ::chorus;").chorus);
        assert!(words("\"serde\"").serde);
    }
}
