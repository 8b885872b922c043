//! Implementations that take the place of earlier ones: a cell with a lone `impl` can be changed and run again.
//!
//! rustc refuses two implementations of one trait for one type (E0119), and two items of one name for it (E0592).

use crate::facts::associated;
use crate::statements::{EDITION, Statement};
use ra_ap_syntax::SourceFile;
use ra_ap_syntax::ast::{self, AstNode, HasModuleItem};
use std::collections::HashSet;
use std::ops::Range;

/// What an `impl` implements.
#[derive(Debug)]
struct Implementation {
    /// The trait, if it is of one, without white space.
    of_trait: Option<String>,
    /// The type, without white space.
    of_type: String,
    /// Its items' names, and where each is in the text.
    items: Vec<(String, Range<usize>)>,
}

impl Implementation {
    fn read(text: &str) -> Option<Implementation> {
        let parsed = SourceFile::parse(text, EDITION).tree();
        let mut items = parsed.items();
        let Some(ast::Item::Impl(it)) = items.next() else {
            return None;
        };
        let compact = |node: ast::Type| {
            let text = node.syntax().text().to_string();
            text.split_whitespace().collect::<String>()
        };
        let list = it.assoc_item_list();
        let found = list.iter().flat_map(ast::AssocItemList::assoc_items);
        let found = found.filter_map(|item| {
            let range = item.syntax().text_range();
            let name = associated(&item)?.text().to_string();
            Some((name, range.start().into()..range.end().into()))
        });
        Some(Implementation {
            of_trait: it.trait_().map(compact),
            of_type: compact(it.self_ty()?),
            items: found.collect(),
        })
    }
}

/// Whether two paths may be one: one of them ends in the other, as `fmt::Display` in `Display`.
fn may_be_same(a: &str, b: &str) -> bool {
    let ends = |long: &str, short: &str| {
        long.strip_suffix(short)
            .is_some_and(|head| head.is_empty() || head.ends_with("::"))
    };
    ends(a, b) || ends(b, a)
}

/// The implementations among a snippet's statements.
#[derive(Debug)]
pub(crate) struct New(Vec<Implementation>);

impl New {
    pub(crate) fn among(statements: &[Statement]) -> New {
        let texts = statements.iter().map(Statement::text);
        New(texts
            .filter_map(|text| Implementation::read(&text))
            .collect())
    }

    /// What is left of an earlier item beside these: `None` if it is as it was, an empty text if nothing is.
    pub(crate) fn left_of(&self, earlier: &str) -> Option<String> {
        if self.0.is_empty() || !earlier.contains("impl") {
            return None;
        }
        let old = Implementation::read(earlier)?;
        let same_type = |new: &&Implementation| may_be_same(&new.of_type, &old.of_type);
        let mut gone = HashSet::new();
        for new in self.0.iter().filter(same_type) {
            match (&new.of_trait, &old.of_trait) {
                (Some(new), Some(old)) if may_be_same(new, old) => return Some(String::new()),
                (None, None) => gone.extend(new.items.iter().map(|(name, _)| name.as_str())),
                _ => {}
            }
        }
        let (gone, left): (Vec<_>, Vec<_>) = old
            .items
            .iter()
            .partition(|(name, _)| gone.contains(name.as_str()));
        if gone.is_empty() {
            return None;
        }
        if left.is_empty() {
            return Some(String::new());
        }
        let mut text = earlier.to_owned();
        for (_, range) in gone {
            // Lines and columns stay as they are.
            let blank = |c: char| if c == '\n' { "\n" } else { " " }.repeat(c.len_utf8());
            let blanks: String = earlier[range.clone()].chars().map(blank).collect();
            text.replace_range(range.clone(), &blanks);
        }
        Some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statements::statements;

    #[test]
    fn what_an_implementation_leaves_of_earlier_ones() {
        for (earlier, new, left) in [
            (
                "impl P { fn a(&self) {} }",
                "impl P { fn a(&self) -> u8 { 1 } }",
                Some(""),
            ),
            ("impl P { fn a() {} }", "impl P { fn b() {} }", None),
            (
                "impl P { fn a() {\n} fn b() {} }",
                "impl P { fn a() {} }",
                Some("impl P {         \n  fn b() {} }"),
            ),
            (
                "impl P { const A: u8 = 1; }",
                "impl P { const A: u8 = 2; }",
                Some(""),
            ),
            ("impl P { fn a() {} }", "impl Q { fn a() {} }", None),
            (
                "impl P<u8> { fn a() {} }",
                "impl P< u8 > { fn a() {} }",
                Some(""),
            ),
            (
                "impl P<u8> { fn a() {} }",
                "impl P<u16> { fn a() {} }",
                None,
            ),
            (
                "impl T for P { fn a() {} fn b() {} }",
                "impl T for P { fn a() {} }",
                Some(""),
            ),
            ("impl T for P {}", "impl U for P {}", None),
            ("impl T for P {}", "impl T for Q {}", None),
            ("impl T for P { fn a() {} }", "impl P { fn a() {} }", None),
            (
                "impl fmt::Display for P {}",
                "impl std::fmt::Display for P {}",
                Some(""),
            ),
            ("impl a::T for P {}", "impl b::T for P {}", None),
            ("impl From<u8> for P {}", "impl From<u16> for P {}", None),
            (
                "#[cfg(all())]\nimpl<X: Copy> T for V<X> {}",
                "impl<X: Clone> T for V<X> {}",
                Some(""),
            ),
            ("fn impl_a() {}", "impl P { fn impl_a() {} }", None),
            (
                "impl P { fn é() {} fn b() {} }",
                "impl P { fn é() {} }",
                Some("impl P {           fn b() {} }"),
            ),
        ] {
            let found = New::among(&statements(new)).left_of(earlier);
            let found = found
                .as_deref()
                .map(|text| if text.trim().is_empty() { "" } else { text });
            let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(found.map(squeezed), left.map(squeezed), "{earlier} | {new}");
        }
    }
}
