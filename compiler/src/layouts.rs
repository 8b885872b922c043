//! Which variables a cell makes unusable by redefining what their values are made of.
//!
//! To rustc a type that is defined anew in a later cell is the same type: same crate, same name. A value of the old one
//! would be read as one of the new. So the definitions that values depend on are remembered, and a variable is given up
//! when one that its type depends on changes.

use crate::statements::Statement;
use std::collections::{BTreeMap, HashMap, HashSet};

/// The definitions of a notebook that values depend on, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layouts {
    definitions: HashMap<String, String>,
}

impl Layouts {
    /// The definitions after a cell with these statements.
    pub(crate) fn after(&self, statements: &[Statement]) -> Layouts {
        let mut definitions = self.definitions.clone();
        for statement in statements {
            if let Some(name) = statement.layout_name() {
                definitions.insert(name, statement.text());
            }
        }
        Layouts { definitions }
    }

    /// Those of the variables (name to type) whose values can't be used under the definitions `new`.
    pub(crate) fn lost(&self, new: &Layouts, variables: &BTreeMap<String, String>) -> Vec<String> {
        let mut changed: HashSet<&str> = self
            .definitions
            .iter()
            .filter(|(name, text)| new.definitions.get(*name) != Some(text))
            .map(|(name, _)| name.as_str())
            .collect();
        if changed.is_empty() {
            return Vec::new();
        }
        // What is made of something that changed has changed as well.
        loop {
            let more: Vec<&str> = self
                .definitions
                .iter()
                .filter(|(name, text)| !changed.contains(name.as_str()) && mentions(text, &changed))
                .map(|(name, _)| name.as_str())
                .collect();
            if more.is_empty() {
                break;
            }
            changed.extend(more);
        }
        variables
            .iter()
            .filter(|(_, kind)| mentions(kind, &changed))
            .map(|(name, _)| name.clone())
            .collect()
    }
}

fn mentions(text: &str, names: &HashSet<&str>) -> bool {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .any(|word| names.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statements::statements;

    #[test]
    fn what_depends_on_a_redefinition_is_lost() {
        let variables: BTreeMap<String, String> = [
            ("p", "P"),
            ("all", "Vec<Line>"),
            ("n", "i32"),
            ("f", "Box<dyn Fn() -> Q>"),
            ("a", "Array"),
        ]
        .map(|(name, kind)| (name.to_owned(), kind.to_owned()))
        .into();
        let first = Layouts::default().after(&statements(
            "struct P { x: i32 }\nstruct Line(P, P);\nstruct Q;\nconst N: usize = 3;\ntype Array = [u8; N];",
        ));
        let lost = |cell: &str| first.lost(&first.after(&statements(cell)), &variables);
        assert_eq!(lost("struct P { x: i32 }"), Vec::<String>::new());
        assert_eq!(lost("struct P { x: i64 }"), ["all", "p"]);
        assert_eq!(lost("struct Q(u8);"), ["f"]);
        assert_eq!(lost("const N: usize = 4;"), ["a"]);
        assert_eq!(lost("struct New;\nfn f() {}"), Vec::<String>::new());
    }
}
