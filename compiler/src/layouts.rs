//! Which variables a cell makes unusable by redefining what their values are made of.
//!
//! To rustc a type that is defined anew in a later cell is the same type: same crate, same path. A value of the old one
//! would be read as one of the new. So the definitions that layouts, tables of methods and the sizes of arrays depend on are
//! remembered, wherever they stand, and a variable is given up when one that its type depends on changes.

use crate::facts::{bare, words};
use crate::statements::{Definition, Statement};
use ra_ap_syntax::ast::{self, AstNode, HasName};
use ra_ap_syntax::{SyntaxKind, SyntaxNode};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// The definitions of a namespace that values depend on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Layouts {
    /// By the name of the item at the top that they are in, or the header of the `impl`.
    definitions: BTreeMap<String, Inner>,
}

/// The definitions in an item, by name. Several may have the same name.
type Inner = BTreeMap<String, BTreeSet<String>>;

impl Layouts {
    /// The definitions after a cell with these statements.
    pub(crate) fn after(&self, statements: &[Statement]) -> Layouts {
        let mut definitions = self.definitions.clone();
        for statement in statements {
            match statement.definition() {
                Definition::Item(name) | Definition::Macro(name) => {
                    definitions.insert(name, inner(statement.node()));
                }
                Definition::Imports(imports) => {
                    for import in imports {
                        let Some(name) = import.name else { continue };
                        let text = BTreeSet::from([import.code]);
                        let inner = Inner::from([(bare(&name).to_owned(), text)]);
                        definitions.insert(name, inner);
                    }
                }
                // What evcxr has no name for can be there more than once.
                Definition::Unnamed | Definition::None | Definition::Attribute => {
                    let found = inner(statement.node());
                    if !found.is_empty() {
                        definitions
                            .entry(header(statement.node()))
                            .or_default()
                            .extend(found);
                    }
                }
            }
        }
        Layouts { definitions }
    }

    /// Those of the variables (name to type) whose values can't be used under the definitions `new`.
    pub(crate) fn lost(&self, new: &Layouts, variables: &BTreeMap<String, String>) -> Vec<String> {
        let mut changed: HashSet<&str> = HashSet::new();
        for (owner, inner) in &self.definitions {
            let now = new.definitions.get(owner);
            let names = inner
                .iter()
                .filter(|(name, texts)| now.is_none_or(|now| now.get(*name) != Some(*texts)));
            changed.extend(names.map(|(name, _)| name.as_str()));
        }
        self.made_of(&changed, variables)
    }

    /// Those of the variables (name to type) that are made of what these names stand for.
    pub(crate) fn made_of(
        &self,
        changed: &HashSet<&str>,
        variables: &BTreeMap<String, String>,
    ) -> Vec<String> {
        if changed.is_empty() {
            return Vec::new();
        }
        let definitions = self.words();
        let depends = |kind: &str| {
            let found = reached(kind, &definitions);
            let has_any = |names: &[&str]| names.iter().any(|name| found.contains(name));
            // A value that can be asked for any type may be of one that has changed.
            let is_dynamic = has_any(&["dyn"]) && has_any(&["Any", "Error"]);
            is_dynamic || has_any(&["anyhow", "eyre"]) || !found.is_disjoint(changed)
        };
        variables
            .iter()
            .filter(|(_, kind)| depends(kind))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// What the definitions of each name mention.
    fn words(&self) -> HashMap<&str, Vec<&str>> {
        let mut found: HashMap<&str, Vec<&str>> = HashMap::new();
        for (name, texts) in self.definitions.values().flatten() {
            let mentioned = texts.iter().flat_map(|text| words(text));
            found.entry(name).or_default().extend(mentioned);
        }
        found
    }
}

/// The words of a type, and of all that it is made of.
fn reached<'a>(kind: &'a str, definitions: &HashMap<&'a str, Vec<&'a str>>) -> HashSet<&'a str> {
    let mut found = HashSet::new();
    let mut pending: Vec<&str> = words(kind).collect();
    while let Some(word) = pending.pop() {
        if found.insert(word)
            && let Some(more) = definitions.get(word)
        {
            pending.extend(more);
        }
    }
    found
}

/// The definitions in an item or statement, itself included, that values may depend on.
fn inner(node: &SyntaxNode) -> Inner {
    let mut found = Inner::new();
    for node in node.descendants() {
        let name = match ast::Item::cast(node.clone()) {
            Some(ast::Item::Struct(item)) => item.name(),
            Some(ast::Item::Enum(item)) => item.name(),
            Some(ast::Item::Union(item)) => item.name(),
            Some(ast::Item::TypeAlias(item)) => item.name(),
            Some(ast::Item::Trait(item)) => item.name(),
            Some(ast::Item::Const(item)) => item.name(),
            Some(ast::Item::Static(item)) => item.name(),
            Some(ast::Item::MacroRules(item)) => item.name(),
            Some(ast::Item::Fn(item)) if item.const_token().is_some() => item.name(),
            Some(ast::Item::Use(item)) => {
                for import in crate::statements::imports_of(&item) {
                    let Some(name) = import.name else { continue };
                    let texts = found.entry(bare(&name).to_owned()).or_default();
                    texts.insert(import.code);
                }
                None
            }
            _ => None,
        };
        if let Some(name) = name {
            let texts = found.entry(bare(name.text()).to_owned()).or_default();
            texts.insert(essence(&node));
        }
    }
    found
}

/// An `impl` up to its items; otherwise nothing.
fn header(node: &SyntaxNode) -> String {
    let parts = node
        .children_with_tokens()
        .filter(|part| !ast::AssocItemList::can_cast(part.kind()) && !part.kind().is_trivia());
    match ast::Impl::can_cast(node.kind()) {
        true => parts
            .map(|part| part.to_string())
            .collect::<Vec<_>>()
            .join(" "),
        false => String::new(),
    }
}

/// A definition's tokens without what changes no value: comments, derives, the bodies of a trait's functions.
fn essence(node: &SyntaxNode) -> String {
    let is_trait = ast::Trait::can_cast(node.kind());
    let mut text = String::new();
    let mut events = node.preorder_with_tokens();
    while let Some(event) = events.next() {
        let ra_ap_syntax::WalkEvent::Enter(element) = event else {
            continue;
        };
        let is_left_out = match element.as_node() {
            Some(node) => {
                let attribute = ast::Attr::cast(node.clone());
                let is_body = is_trait
                    && ast::BlockExpr::can_cast(node.kind())
                    && node
                        .parent()
                        .is_some_and(|parent| ast::Fn::can_cast(parent.kind()));
                is_body || attribute.is_some_and(|attribute| is_inert(&attribute))
            }
            None => false,
        };
        if is_left_out {
            events.skip_subtree();
        } else if let Some(token) = element.as_token()
            && !matches!(token.kind(), SyntaxKind::WHITESPACE | SyntaxKind::COMMENT)
        {
            text.push_str(token.text());
            text.push(' ');
        }
    }
    text
}

/// An attribute that changes nothing of its item.
fn is_inert(attribute: &ast::Attr) -> bool {
    let name = attribute.simple_name();
    name.is_some_and(|name| {
        ["derive", "doc", "allow", "warn", "expect", "must_use"].contains(&&*name)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::statements::statements;

    fn lost(first: &str, second: &str, kind: &str) -> bool {
        let first = Layouts::default().after(&statements(first));
        let second = first.after(&statements(second));
        let variables = BTreeMap::from([("v".to_owned(), kind.to_owned())]);
        !first.lost(&second, &variables).is_empty()
    }

    #[test]
    fn what_depends_on_a_redefinition_is_lost() {
        let first = "struct P { x: i32 }\nstruct Line(P, P);\nstruct Q;\nconst N: usize = 3;\ntype Array = [u8; N];";
        for (second, kinds) in [
            ("struct P { x: i32 }", ""),
            (
                "/// Words.\n#[derive(Clone)] struct P { /* a */ x: i32 }",
                "",
            ),
            ("struct P { x: i64 }", "P, Vec<Line>"),
            ("#[repr(C)] struct P { x: i32 }", "P, Vec<Line>"),
            ("struct Q(u8);", "Box<dyn Fn() -> Q>"),
            ("const N: usize = 4;", "Array, [u8; N]"),
            ("struct New;\nfn f() {}", ""),
        ] {
            for kind in [
                "P",
                "Vec<Line>",
                "i32",
                "Box<dyn Fn() -> Q>",
                "Array",
                "[u8; N]",
            ] {
                let expected = kinds.split(", ").any(|lost| lost == kind);
                assert_eq!(lost(first, second, kind), expected, "{second}: {kind}");
            }
        }
    }

    #[test]
    fn definitions_count_wherever_they_stand() {
        for (first, second, kind, expected) in [
            (
                "mod g { pub struct P(u8); }",
                "mod g { pub struct P(String); }",
                "g::P",
                true,
            ),
            (
                "mod g { pub struct P(u8); }",
                "mod g { pub struct P(u8); pub fn f() {} }",
                "g::P",
                false,
            ),
            (
                "mod g { pub mod h { pub enum E { A } } }",
                "mod g { pub mod h { pub enum E { A, B(u8) } } }",
                "g::h::E",
                true,
            ),
            (
                "mod g { pub struct P(u8); }\nuse g::P as Num;",
                "struct B(String);\nuse B as Num;",
                "Vec<Num>",
                true,
            ),
            (
                "mod g { pub struct P(u8); }\nuse g::P as Num;",
                "mod g { pub struct P(String); }",
                "Vec<Num>",
                true,
            ),
            (
                "mod g { mod i { pub struct P(u8); } pub use i::P as Q; }",
                "mod g { mod i { pub struct P(u16); } pub use i::P as Q; }",
                "g::Q",
                true,
            ),
            (
                "mod g { pub struct A(u8); pub struct B(u16); pub use A as Q; }",
                "mod g { pub struct A(u8); pub struct B(u16); pub use B as Q; }",
                "g::Q",
                true,
            ),
            (
                "mod t { pub trait T { fn a(&self); } }",
                "mod t { pub trait T { fn b(&self); fn a(&self); } }",
                "Box<dyn t::T>",
                true,
            ),
            (
                "trait T { fn a(&self) -> u8 { 1 } }",
                "trait T { fn a(&self) -> u8 { 2 } }",
                "Box<dyn T>",
                false,
            ),
            (
                "trait S { fn a(&self); }\ntrait T: S {}",
                "trait S { fn b(&self); fn a(&self); }",
                "Box<dyn T>",
                true,
            ),
            (
                "struct M;\nimpl M { const N: usize = 1; }\nstruct A([u8; M::N]);",
                "impl M { const N: usize = 2; }",
                "A",
                true,
            ),
            (
                "trait T { type O; }\nimpl T for u8 { type O = u8; }\nstruct A(<u8 as T>::O);",
                "impl T for u8 { type O = u16; }",
                "A",
                true,
            ),
            (
                "const fn n() -> usize { 1 }",
                "const fn n() -> usize { 2 }",
                "[u8; n()]",
                true,
            ),
            (
                "fn n() -> usize { 1 }\nstruct A;",
                "fn n() -> usize { 2 }",
                "A",
                false,
            ),
            (
                "macro_rules! t { () => { u8 } }\nstruct A(t!());",
                "macro_rules! t { () => { u16 } }",
                "A",
                true,
            ),
            (
                "struct A(u8);",
                "struct A(u16);",
                "Box<dyn std::any::Any>",
                true,
            ),
            (
                "struct A(u8);",
                "struct A(u16);",
                "Result<i32, Box<dyn std::error::Error + Send>>",
                true,
            ),
            ("struct A(u8);", "struct A(u16);", "anyhow::Error", true),
            (
                "fn f() { struct A(u8); }",
                "fn f() { struct A(u16); }",
                "std::rc::Rc<dyn std::any::Any>",
                true,
            ),
            (
                "trait T: std::any::Any {}\nstruct A(u8);",
                "struct A(u16);",
                "Box<dyn T>",
                true,
            ),
            (
                "trait T {}\nstruct A(u8);",
                "struct A(u16);",
                "Box<dyn T>",
                false,
            ),
            (
                "struct A(u8);",
                "struct B;",
                "Box<dyn std::any::Any>",
                false,
            ),
        ] {
            assert_eq!(
                lost(first, second, kind),
                expected,
                "{first} then {second}: {kind}"
            );
        }
    }

    #[test]
    fn a_changed_crate_takes_its_values() {
        let layouts = Layouts::default().after(&statements("use mine::P;"));
        let variables = ["P", "mine::Q", "u8"].map(|kind| (kind.to_owned(), kind.to_owned()));
        let lost = layouts.made_of(&HashSet::from(["mine"]), &variables.into());
        assert_eq!(lost, ["P", "mine::Q"]);
    }
}
