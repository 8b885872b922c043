//! Collects the identifiers of a piece of Rust, by the role they play in its syntax.

use ra_ap_syntax::ast::{self, AstNode, HasName};
use ra_ap_syntax::{NodeOrToken, SyntaxKind, SyntaxNode, SyntaxToken};
use std::collections::HashSet;

/// The identifiers of an item or statement. Names are without the `r#` of raw identifiers.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// Identifiers that may name a definition or a variable, including words in strings (`"{x}"`). Excludes `members` and the
    /// declared names of fields and functions.
    pub(crate) names: HashSet<String>,
    /// Identifiers after a dot or a `::`.
    pub(crate) members: HashSet<String>,
    /// The names in the headers of `impl` blocks.
    pub(crate) implements: HashSet<String>,
    /// The names of traits' items.
    pub(crate) trait_items: HashSet<String>,
    /// Whether it is another name for a type.
    pub(crate) is_alias: bool,
    /// Jupyter's word for what it defines: `function`, `class`, `module`, `instance`, `magic`.
    pub(crate) kind: &'static str,
    /// The text that users depend on: a function's header if its body can't affect them, otherwise everything.
    pub(crate) interface: String,
}

impl Facts {
    pub(crate) fn of(node: &SyntaxNode) -> Facts {
        let mut facts = Facts {
            interface: interface(node),
            is_alias: ast::TypeAlias::can_cast(node.kind()),
            kind: kind(node),
            ..Facts::default()
        };
        for token in tokens(node) {
            match token.kind() {
                // Only a macro finds names in it.
                SyntaxKind::STRING | SyntaxKind::C_STRING if is_macros(&token) => {
                    facts.names.extend(words(token.text()).map(str::to_owned));
                }
                SyntaxKind::IDENT => {
                    let name = bare(token.text()).to_owned();
                    match role(&token) {
                        Role::Name => facts.names.insert(name),
                        Role::Member => facts.members.insert(name),
                        Role::Declared => false,
                    };
                }
                _ => {}
            }
        }
        for block in node.descendants().filter_map(ast::Impl::cast) {
            let header = block
                .syntax()
                .children()
                .filter(|child| !ast::AssocItemList::can_cast(child.kind()));
            for token in header.flat_map(|node| tokens(&node).collect::<Vec<_>>()) {
                if token.kind() == SyntaxKind::IDENT {
                    facts.implements.insert(bare(token.text()).to_owned());
                }
            }
        }
        for list in node
            .descendants()
            .filter_map(ast::Trait::cast)
            .filter_map(|item| item.assoc_item_list())
        {
            let names = list.assoc_items().filter_map(|item| associated(&item));
            facts
                .trait_items
                .extend(names.map(|name| bare(name.text()).to_owned()));
        }
        facts
    }

    /// The facts about some text of items.
    pub(crate) fn of_items(text: &str) -> Facts {
        let parsed = ra_ap_syntax::SourceFile::parse(text, crate::statements::EDITION);
        Facts::of(&parsed.syntax_node())
    }
}

/// Whether a token is an argument of a macro, or part of one.
fn is_macros(token: &SyntaxToken) -> bool {
    token
        .parent()
        .is_some_and(|parent| ast::TokenTree::can_cast(parent.kind()))
}

/// The name of a trait's or an implementation's item.
pub(crate) fn associated(item: &ast::AssocItem) -> Option<ast::Name> {
    match item {
        ast::AssocItem::Const(item) => item.name(),
        ast::AssocItem::Fn(item) => item.name(),
        ast::AssocItem::TypeAlias(item) => item.name(),
        ast::AssocItem::MacroCall(_) => None,
    }
}

/// An identifier without the `r#` that makes a keyword one.
pub(crate) fn bare(name: &str) -> &str {
    name.strip_prefix("r#").unwrap_or(name)
}

enum Role {
    Name,
    Member,
    Declared,
}

fn role(token: &SyntaxToken) -> Role {
    let before = neighbour(token, SyntaxToken::prev_token);
    let kind_before = before.as_ref().map(SyntaxToken::kind);
    match kind_before {
        Some(SyntaxKind::FN_KW) => return Role::Declared,
        // In a macro's arguments `..` is two tokens.
        Some(SyntaxKind::DOT) if !follows_directly(&before, SyntaxKind::DOT) => {
            return Role::Member;
        }
        Some(SyntaxKind::COLON2) => return after_path(before),
        Some(SyntaxKind::COLON) if follows_directly(&before, SyntaxKind::COLON) => {
            return after_path(before.and_then(|colon| colon.prev_token()));
        }
        _ => {}
    }
    let owner = token.parent().and_then(|name| name.parent());
    match owner.map(|owner| owner.kind()) {
        Some(SyntaxKind::RECORD_FIELD) if is_name(token) => Role::Declared,
        // `P { x: 1 }` mentions no `x`, `P { x }` does.
        Some(SyntaxKind::RECORD_EXPR_FIELD | SyntaxKind::RECORD_PAT_FIELD)
            if neighbour(token, SyntaxToken::next_token)
                .is_some_and(|next| next.kind() == SyntaxKind::COLON) =>
        {
            Role::Declared
        }
        _ => Role::Name,
    }
}

/// What follows `::`. After `crate::`, `self::` and `super::` it is a definition's name.
fn after_path(colons: Option<SyntaxToken>) -> Role {
    let before = colons.and_then(|colons| neighbour(&colons, SyntaxToken::prev_token));
    match before.map(|before| before.kind()) {
        Some(SyntaxKind::CRATE_KW | SyntaxKind::SELF_KW | SyntaxKind::SUPER_KW) => Role::Name,
        _ => Role::Member,
    }
}

fn is_name(token: &SyntaxToken) -> bool {
    token
        .parent()
        .is_some_and(|parent| parent.kind() == SyntaxKind::NAME)
}

fn follows_directly(token: &Option<SyntaxToken>, kind: SyntaxKind) -> bool {
    let before = token.as_ref().and_then(SyntaxToken::prev_token);
    before.is_some_and(|before| before.kind() == kind)
}

/// The next token that is no white space and no comment.
fn neighbour(
    token: &SyntaxToken,
    step: fn(&SyntaxToken) -> Option<SyntaxToken>,
) -> Option<SyntaxToken> {
    let mut token = step(token)?;
    while token.kind().is_trivia() {
        token = step(&token)?;
    }
    Some(token)
}

fn tokens(node: &SyntaxNode) -> impl Iterator<Item = SyntaxToken> + use<> {
    node.descendants_with_tokens()
        .filter_map(NodeOrToken::into_token)
}

/// The words of a text that may be names.
pub(crate) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_alphanumeric() || c == '_'))
        .filter(|word| word.starts_with(|c: char| c.is_alphabetic() || c == '_'))
}

fn kind(node: &SyntaxNode) -> &'static str {
    match node.kind() {
        SyntaxKind::FN => "function",
        SyntaxKind::STRUCT
        | SyntaxKind::ENUM
        | SyntaxKind::UNION
        | SyntaxKind::TRAIT
        | SyntaxKind::TYPE_ALIAS => "class",
        SyntaxKind::MODULE => "module",
        SyntaxKind::MACRO_RULES => "magic",
        _ => "instance",
    }
}

fn interface(node: &SyntaxNode) -> String {
    let text = node.text().to_string();
    let Some(function) = ast::Fn::cast(node.clone()) else {
        return text;
    };
    // Users depend on the body of a function that returns an `impl` type.
    let hides_a_type = |header: &str| words(header).any(|word| word == "impl");
    match function.body() {
        Some(body) if function.const_token().is_none() && function.async_token().is_none() => {
            let end = body.syntax().text_range().start() - node.text_range().start();
            let header = &text[..usize::from(end)];
            match hides_a_type(header) {
                true => text,
                false => header.to_owned(),
            }
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sorted(names: &HashSet<String>) -> Vec<&str> {
        let mut names: Vec<&str> = names.iter().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn names_and_members() {
        for (text, names, members) in [
            ("fn f(p: P) -> Q { p.x.go() }", "P Q p", "go x"),
            ("fn f() { crate::g(self::h, a::b::<C>()) }", "C a g h", "b"),
            ("struct P { x: f64, y: r#type }", "P f64 type", ""),
            ("fn f() { P { x: a, y } }", "P a y", ""),
            ("fn f() { let P { x: a, y } = p; }", "P a p y", ""),
            ("fn f() { println!(\"{a:?} {}\", b.c) }", "a b println", "c"),
            ("fn f() { m!(0..n, x.y, q::r) }", "m n q x", "r y"),
            (
                "fn f() { 0..n; \"a\"; g!(\"it's 3 o'clock\"); /* z */ }",
                "clock g it n o s",
                "",
            ),
            (
                "impl fmt::Display for P { fn fmt(&self) { Self::N } }",
                "P fmt",
                "Display N",
            ),
            ("fn f() { async { r#x.await } }", "x", ""),
        ] {
            let facts = Facts::of_items(text);
            assert_eq!(sorted(&facts.names).join(" "), names, "{text}");
            assert_eq!(sorted(&facts.members).join(" "), members, "{text}");
        }
    }

    #[test]
    fn impls_and_traits() {
        let facts = Facts::of_items(
            "mod m { impl<T: A> super::B<T> for C where D: E { fn f() { G } } } trait H { fn i(); const J: u8; type K; }",
        );
        assert_eq!(sorted(&facts.implements), ["A", "B", "C", "D", "E", "T"]);
        assert_eq!(sorted(&facts.trait_items), ["J", "K", "i"]);
    }

    #[test]
    fn what_users_depend_on() {
        let interface = |text: &str| {
            let parsed = ra_ap_syntax::SourceFile::parse(text, crate::statements::EDITION);
            let item = parsed.syntax_node().first_child().unwrap();
            Facts::of(&item).interface
        };
        assert_eq!(interface("fn f(a: u8) { 1 }"), "fn f(a: u8) ");
        for whole in [
            "const fn f() -> u8 { 1 }",
            "fn f() -> impl Copy { 1 }",
            "async fn f() { 1 }",
            "struct P { x: u8 }",
        ] {
            assert_eq!(interface(whole), whole);
        }
    }
}
