//! A cell's text seen as evcxr sees it: commands first, then statements, items and perhaps a last expression.

use crate::facts::{Facts, bare, words};
use crate::sources::newlines;
use ra_ap_syntax::ast::{self, AstNode, HasName, LiteralKind};
use ra_ap_syntax::{Edition, NodeOrToken, SourceFile, SyntaxKind, SyntaxNode, SyntaxToken};
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

/// The edition evcxr compiles cells in.
pub(crate) const EDITION: Edition = Edition::Edition2024;

const BEFORE: &str = "fn f(){";

/// One statement, item or expression at the top level of a cell.
#[derive(Debug)]
pub(crate) struct Statement {
    /// Where it stands in the cell, in bytes, with the white space after it.
    pub(crate) range: Range<usize>,
    /// Where it begins, in bytes.
    pub(crate) start: usize,
    node: SyntaxNode,
}

impl Statement {
    /// The variables that it introduces.
    pub(crate) fn variables(&self) -> Vec<String> {
        self.bindings().into_iter().map(|(name, _)| name).collect()
    }

    /// The variables that it introduces, and which of them are `mut`.
    pub(crate) fn bindings(&self) -> Vec<(String, bool)> {
        let Some(pattern) = ast::LetStmt::cast(self.node.clone()).and_then(|this| this.pat())
        else {
            return Vec::new();
        };
        pattern
            .syntax()
            .descendants()
            .filter_map(ast::IdentPat::cast)
            .filter_map(|pattern| {
                let name = pattern.name()?.text().to_string();
                Some((name, pattern.mut_token().is_some()))
            })
            .collect()
    }

    /// Whether the type of a variable that it introduces, in a cell of these statements, has to be inferred from more than a literal.
    fn needs_inference(&self, all: &[Statement]) -> bool {
        let Some(this) = ast::LetStmt::cast(self.node.clone()) else {
            return false;
        };
        let is_plain = matches!(this.pat(), Some(ast::Pat::IdentPat(pattern)) if pattern.pat().is_none() && pattern.ref_token().is_none());
        let is_told = match (this.ty(), this.initializer()) {
            (Some(kind), _) => !kind.syntax().descendants().any(|node| {
                ast::InferType::can_cast(node.kind()) || ast::ImplTraitType::can_cast(node.kind())
            }),
            (None, Some(ast::Expr::Literal(literal))) => match literal.kind() {
                LiteralKind::IntNumber(number) if number.suffix().is_none() => !self.is_used(all),
                LiteralKind::FloatNumber(number) if number.suffix().is_none() => !self.is_used(all),
                // Its type is the standard library's.
                LiteralKind::CString(_) => false,
                _ => true,
            },
            _ => false,
        };
        let is_known = self.bindings().is_empty() || is_plain && is_told;
        !is_known
    }

    /// Whether another of these statements mentions a variable that it introduces.
    fn is_used(&self, all: &[Statement]) -> bool {
        let names = self.variables();
        all.iter()
            .filter(|other| other.range != self.range)
            .any(|other| {
                words(&other.text()).any(|word| names.iter().any(|name| bare(name) == word))
            })
    }

    /// What it adds to the definitions that later cells see.
    pub(crate) fn definition(&self) -> Definition {
        let name = |named: Option<ast::Name>| {
            named.map_or(Definition::Unnamed, |name| {
                Definition::Item(name.text().to_string())
            })
        };
        if ast::Attr::can_cast(self.node.kind()) {
            return Definition::Attribute;
        }
        match ast::Item::cast(self.node.clone()) {
            None => Definition::None,
            Some(ast::Item::Use(item)) => match item.use_tree() {
                Some(_) => Definition::Imports(imports_of(&item)),
                None => Definition::Unnamed,
            },
            Some(ast::Item::ExternCrate(_)) => Definition::Attribute,
            Some(ast::Item::Const(item)) => name(item.name()),
            Some(ast::Item::Enum(item)) => name(item.name()),
            Some(ast::Item::Fn(item)) => name(item.name()),
            Some(ast::Item::MacroRules(item)) => item.name().map_or(Definition::Unnamed, |name| {
                Definition::Macro(name.text().to_string())
            }),
            Some(ast::Item::Module(item)) => name(item.name()),
            Some(ast::Item::Static(item)) => name(item.name()),
            Some(ast::Item::Struct(item)) => name(item.name()),
            Some(ast::Item::Trait(item)) => name(item.name()),
            Some(ast::Item::TypeAlias(item)) => name(item.name()),
            Some(ast::Item::Union(item)) => name(item.name()),
            Some(_) => Definition::Unnamed,
        }
    }

    /// Whether it is code that runs, rather than an item or an attribute.
    pub(crate) fn runs(&self) -> bool {
        let is_call = ast::MacroCall::can_cast(self.node.kind());
        is_call || matches!(self.definition(), Definition::None)
    }

    /// Whether it is a `use` declaration.
    pub(crate) fn is_import(&self) -> bool {
        ast::Use::can_cast(self.node.kind())
    }

    /// Its syntax.
    pub(crate) fn node(&self) -> &SyntaxNode {
        &self.node
    }

    /// Where its text ends, in bytes.
    pub(crate) fn end(&self) -> usize {
        self.start + usize::from(self.node.text_range().len())
    }

    /// The closures in it.
    pub(crate) fn closures(&self) -> impl Iterator<Item = Closure> + '_ {
        let closures = self.node.descendants().filter_map(ast::ClosureExpr::cast);
        closures.map(|closure| {
            let range = closure.syntax().text_range();
            let start = self.start + usize::from(range.start() - self.node.text_range().start());
            Closure {
                range: start..start + usize::from(range.len()),
                captured: captured(&closure),
            }
        })
    }

    /// The names that it mentions before those that it introduces are there.
    pub(crate) fn mentions(&self) -> HashSet<String> {
        let Some(this) = ast::LetStmt::cast(self.node.clone()) else {
            return self.facts().names;
        };
        let pattern = this.pat().map(|pattern| pattern.syntax().clone());
        let others = self
            .node
            .children()
            .filter(|child| Some(child) != pattern.as_ref());
        others.flat_map(|child| Facts::of(&child).names).collect()
    }

    /// Where in the cell a macro of this name is called without arguments, in macros' arguments as well.
    pub(crate) fn calls_of<'a>(&'a self, name: &'a str) -> impl Iterator<Item = usize> + 'a {
        let tokens = self
            .node
            .descendants_with_tokens()
            .filter_map(NodeOrToken::into_token);
        let is_call = move |token: &SyntaxToken| {
            let next = token.next_token();
            token.text() == name && next.is_some_and(|next| next.kind() == SyntaxKind::BANG)
        };
        tokens.filter(is_call).map(|token| {
            let within = token.text_range().start() - self.node.text_range().start();
            self.start + usize::from(within)
        })
    }

    /// What it mentions.
    pub(crate) fn facts(&self) -> Facts {
        Facts::of(&self.node)
    }

    /// Its text without the white space around it.
    pub(crate) fn text(&self) -> String {
        self.node.text().to_string()
    }

    /// Whether it is an expression without a semicolon.
    pub(crate) fn is_expression(&self) -> bool {
        ast::Expr::can_cast(self.node.kind())
    }
}

/// The names in a closure that may be of variables from outside of it.
fn captured(closure: &ast::ClosureExpr) -> BTreeSet<String> {
    let patterns = closure
        .syntax()
        .descendants()
        .filter_map(ast::IdentPat::cast);
    let bound: HashSet<String> = patterns
        .filter_map(|pattern| Some(pattern.name()?.text().to_string()))
        .collect();
    let is_called = |path: &ast::PathExpr| {
        let call = path.syntax().parent().and_then(ast::CallExpr::cast);
        let callee = call.and_then(|call| call.expr());
        callee.is_some_and(|callee| callee.syntax() == path.syntax())
    };
    let paths = closure
        .syntax()
        .descendants()
        .filter_map(ast::PathExpr::cast);
    paths
        .filter(|path| !is_called(path))
        .map(|path| path.syntax().text().to_string())
        .filter(|name| name.starts_with(|c: char| c.is_lowercase() || c == '_'))
        .filter(|name| !name.contains(':') && !bound.contains(name))
        .collect()
}

/// A closure in a cell.
pub(crate) struct Closure {
    /// Where it is, in bytes.
    pub(crate) range: Range<usize>,
    /// The names that may be of variables from outside of it.
    pub(crate) captured: BTreeSet<String>,
}

/// Whether the types of a cell's variables have to be inferred from more than literals.
pub(crate) fn need_inference(cell: &[Statement]) -> bool {
    cell.iter().any(|statement| statement.needs_inference(cell))
}

/// What a statement adds to the definitions that later cells see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Definition {
    /// Nothing: it runs.
    None,
    /// An item of this name, which takes the place of one of the same name.
    Item(String),
    /// A macro of this name.
    Macro(String),
    /// What it imports, each by a declaration of its own.
    Imports(Vec<Import>),
    /// Something known by its own text: an attribute of the crate, an `extern crate`.
    Attribute,
    /// An item without a name: an `impl`.
    Unnamed,
}

/// One name that a `use` declaration brings in, or all names of a module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Import {
    /// `None` for `use a::*` and `use a::B as _`.
    pub(crate) name: Option<String>,
    /// The declaration of this import alone, as evcxr keeps it.
    pub(crate) code: String,
}

/// What a `use` declaration brings in.
pub(crate) fn imports_of(item: &ast::Use) -> Vec<Import> {
    let mut found = Vec::new();
    if let Some(tree) = item.use_tree() {
        imports(&tree, &[], &mut found);
    }
    found
}

/// Takes a `use` tree apart. `outer` are the segments around it.
fn imports(tree: &ast::UseTree, outer: &[String], found: &mut Vec<Import>) {
    let mut path = outer.to_vec();
    let mut ends_in_self = false;
    for segment in tree.path().iter().flat_map(ast::Path::segments) {
        // Within a list it is the module itself.
        ends_in_self = segment.self_token().is_some() && !path.is_empty();
        if !ends_in_self {
            path.push(segment.syntax().text().to_string());
        }
    }
    if let Some(list) = tree.use_tree_list() {
        for tree in list.use_trees() {
            imports(&tree, &path, found);
        }
        return;
    }
    let joined = path.join("::");
    if tree.star_token().is_some() {
        let code = format!("use {joined}::*;");
        found.push(Import { name: None, code });
        return;
    }
    let Some(last) = path.last() else { return };
    // evcxr forgets a new name for `self`.
    let rename = tree.rename().filter(|_| !ends_in_self);
    let (name, code) = match rename.map(|rename| rename.name()) {
        None => (Some(last.clone()), format!("use {joined};")),
        Some(None) => (None, format!("use {joined} as _;")),
        Some(Some(name)) => {
            let name = name.text().to_string();
            let code = format!("use {joined} as {name};");
            (Some(name), code)
        }
    };
    found.push(Import { name, code });
}

/// A cell's statements, in order.
pub(crate) fn statements(cell: &str) -> Vec<Statement> {
    let start = code_start(cell);
    let code = &cell[start..];
    let parsed = SourceFile::parse(&format!("{BEFORE}{code}\n}}"), EDITION);
    let Some(list) = parsed
        .syntax_node()
        .children()
        .find_map(ast::Fn::cast)
        .and_then(|function| function.body()?.stmt_list())
    else {
        return Vec::new();
    };
    let mut statements: Vec<Statement> = Vec::new();
    let mut from = 0;
    let mut nodes = list.syntax().children().peekable();
    while let Some(node) = nodes.next() {
        // White space belongs to what it follows, as in evcxr.
        let to = nodes.peek().map_or(code.len(), |next| {
            (usize::from(next.text_range().start()) - BEFORE.len()).min(code.len())
        });
        if from == to {
            break;
        }
        statements.push(Statement {
            range: start + from..start + to,
            start: start + (usize::from(node.text_range().start()) - BEFORE.len()).min(code.len()),
            node,
        });
        from = to;
    }
    statements
}

/// A line that is a command of evcxr's, `:name args`, or one for the shell, `!command`. A path may begin with `::`.
pub(crate) fn is_command(line: &str) -> bool {
    let words = line.trim_start_matches([' ', '\t']);
    line.starts_with('!') || words.starts_with(':') && !words.starts_with("::")
}

/// The commands of a cell: the words after the colon, with the rest of the line.
pub(crate) fn commands(cell: &str) -> impl Iterator<Item = (&str, &str)> {
    head(cell)
        .filter(|line| line.is_command)
        .filter_map(|line| {
            let words = line
                .text
                .trim_start_matches([' ', '\t'])
                .strip_prefix(':')?;
            let words = words.trim_end_matches(['\n', '\r']);
            Some(words.split_once(' ').unwrap_or((words, "")))
        })
}

/// Whether a cell has commands.
pub(crate) fn has_commands(cell: &str) -> bool {
    head(cell).any(|line| line.is_command)
}

/// Whether a cell's commands add dependencies.
pub(crate) fn adds_dependencies(cell: &str) -> bool {
    commands(cell).any(|(command, _)| command == "dep")
}

/// A line before the Rust.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct HeadLine<'a> {
    /// With its end.
    pub(crate) text: &'a str,
    /// Otherwise it is blank, or of a comment.
    pub(crate) is_command: bool,
}

/// The lines before the Rust: commands, blank lines, and comments but for an item's documentation.
pub(crate) fn head(cell: &str) -> impl Iterator<Item = HeadLine<'_>> {
    let text = &cell[..code_start(cell)];
    let (mut at, mut comment_end) = (0, 0);
    text.split_inclusive('\n').map(move |line| {
        if at >= comment_end
            && let Some(length) = block_comment(&text[at..])
        {
            comment_end = at + length;
        }
        let is_command = at >= comment_end && is_command(line);
        at += line.len();
        HeadLine {
            text: line,
            is_command,
        }
    })
}

/// Where the Rust begins.
pub(crate) fn code_start(cell: &str) -> usize {
    let mut start = 0;
    while let Some(line) = cell[start..].split_inclusive('\n').next() {
        let text = line.trim();
        let is_head = is_command(line) || text.starts_with("//") || text.is_empty();
        match is_head
            .then_some(line.len())
            .or_else(|| block_comment(&cell[start..]))
        {
            Some(length) => start += length,
            None => break,
        }
    }
    if begins_item(&cell[start..]) {
        let head = cell[..start].trim_end_matches('\n');
        let is_documentation = |line: &&str| line.starts_with("///") && !line.starts_with("////");
        let lines = head.rsplit('\n').take_while(is_documentation);
        if let Some(first) = lines.last() {
            start = first.as_ptr() as usize - cell.as_ptr() as usize;
        }
    }
    start
}

/// The bytes of the lines of a block comment that a text begins with; `None` if it is documentation, or something follows it in its last line.
fn block_comment(text: &str) -> Option<usize> {
    let at = text.len() - text.trim_start().len();
    let inner = text[at..].strip_prefix("/*")?;
    if inner.starts_with('!') || inner.starts_with('*') && !inner.starts_with("*/") {
        return None;
    }
    let (mut from, mut depth) = (at + 2, 1);
    while depth > 0 {
        let rest = &text[from..];
        let next = rest.find(['/', '*'])?;
        let step = match rest.get(next..next + 2) {
            Some("/*") => 1,
            Some("*/") => -1,
            _ => 0,
        };
        depth += step;
        from += next + if step == 0 { 1 } else { 2 };
    }
    let line = text[from..]
        .split_inclusive('\n')
        .next()
        .unwrap_or_default();
    line.trim().is_empty().then_some(from + line.len())
}

/// Whether code begins with an item, or an attribute.
fn begins_item(code: &str) -> bool {
    let word = code
        .trim_start()
        .split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '#'))
        .next();
    matches!(
        word,
        Some(
            "#" | "async"
                | "const"
                | "enum"
                | "extern"
                | "fn"
                | "impl"
                | "macro_rules"
                | "mod"
                | "pub"
                | "static"
                | "struct"
                | "trait"
                | "type"
                | "union"
                | "unsafe"
        )
    )
}

/// A cell without its commands, on the same lines.
pub fn without_commands(cell: &str) -> String {
    let start = code_start(cell);
    "\n".repeat(newlines(&cell[..start])) + &cell[start..]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_rust_begins() {
        for (head, code) in [
            ("", "1 + 1"),
            (":vars\n", "x"),
            ("  // a comment\n:vars\n", "x"),
            ("\t// a comment\n\t:vars\n", "x"),
            ("/* one */\n:vars\n", "x"),
            ("/* one\n/* two */ :dep three\n*/ \n:vars\n\n", "x"),
            ("/**/\n", "x"),
            ("", "/* one */ x"),
            ("", "/** of f */\nfn f() {}"),
            ("", "/* not closed\n:vars"),
            ("", "::std::mem::drop(1)"),
            (":vars\n", "::std::mem::drop(1)"),
            ("!ls\n", "x\n:vars"),
            ("// é\n/* é * / é */\n", "é"),
        ] {
            assert_eq!(
                code_start(&format!("{head}{code}")),
                head.len(),
                "{head}{code}"
            );
        }
    }

    #[test]
    fn commands_stand_before_the_rust_and_outside_of_comments() {
        let cell = "// :a\n:dep b = \"1\"\n/*\n:c\n*/\n  :d\n!e\n\nx\n:f";
        let found: Vec<_> = commands(cell).collect();
        assert_eq!(found, [("dep", "b = \"1\""), ("d", "")]);
        assert!(has_commands(cell) && !has_commands("/*\n:c\n*/\n1"));
    }

    #[test]
    fn whose_types_have_to_be_inferred() {
        for (cell, needs) in [
            ("1 + 1", false),
            ("println!(\"x\");", false),
            (
                "fn f() -> i32 { let x = Vec::new(); x.len() as i32 }",
                false,
            ),
            ("let x = 5;", false),
            ("let mut x = \"text\";", false),
            ("let x = b\"bytes\";", false),
            ("let x: Vec<String> = Vec::new();", false),
            (
                "let mut x: Box<dyn Fn(i32) -> i32> = Box::new(|x| x);",
                false,
            ),
            ("let _ = f();", false),
            ("let x = 5; let y = 2.5; let z = 7u8; z + 1", false),
            // The number takes the type of what it is added to.
            ("let x = 5; all.len() + x", true),
            ("let x = 2.5; take(&[x])", true),
            ("let x = 5; println!(\"{x}\")", true),
            ("let r#type = 5; all.len() + r#type", true),
            ("let x = c\"text\";", true),
            ("let x = -5;", true),
            ("let x = vec![1];", true),
            ("let x;", true),
            ("let x: Vec<_> = Vec::new();", true),
            ("let x: impl Fn() = || ();", true),
            ("let (x, y) = (1, 2);", true),
            ("let (x, y): (i32, i32) = (1, 2);", true),
            ("let x @ y = 1;", true),
            ("let ref x = 5;", true),
            ("let Some(x) = Some(1) else { panic!() };", true),
        ] {
            assert_eq!(need_inference(&statements(cell)), needs, "{cell}");
        }
    }

    #[test]
    fn statements_cover_the_code() {
        let cell = ":dep itoa\n// note\nlet (mut a, P { b, c: [d, ..] }) = x;\nstruct S;\n  a + 1 // end\n";
        let found = statements(cell);
        let text: Vec<&str> = found.iter().map(|one| &cell[one.range.clone()]).collect();
        assert_eq!(
            text,
            [
                "let (mut a, P { b, c: [d, ..] }) = x;\n",
                "struct S;\n  ",
                "a + 1 // end\n"
            ]
        );
        assert_eq!(found[0].variables(), ["a", "b", "d"]);
        assert!(found[2].is_expression());
        assert_eq!(commands(cell).collect::<Vec<_>>(), [("dep", "itoa")]);
    }

    #[test]
    fn what_a_cell_defines() {
        use Definition::{Attribute, Imports, Item, Macro, None, Unnamed};
        let imports = |found: &[(&str, &str)]| {
            let import = |(name, code): &(&str, &str)| super::Import {
                name: (!name.is_empty()).then(|| name.to_string()),
                code: code.to_string(),
            };
            Imports(found.iter().map(import).collect())
        };
        for (cell, expected, runs) in [
            (
                "use std::io::{self, Read, fmt::{Debug as D}};",
                imports(&[
                    ("io", "use std::io;"),
                    ("Read", "use std::io::Read;"),
                    ("D", "use std::io::fmt::Debug as D;"),
                ]),
                false,
            ),
            ("use a::*;", imports(&[("", "use a::*;")]), false),
            ("use a::B as _;", imports(&[("", "use a::B as _;")]), false),
            ("impl A for B {}", Unnamed, false),
            ("struct A;", Item("A".into()), false),
            ("macro_rules! m { () => {} }", Macro("m".into()), false),
            ("#![feature(x)]", Attribute, false),
            ("extern crate foo;", Attribute, false),
            ("println!(\"a\");", None, true),
            ("println!(\"a\")", None, true),
            ("let a = 1;", None, true),
        ] {
            let found = statements(cell);
            assert_eq!(found[0].definition(), expected, "{cell}");
            assert_eq!(found[0].runs(), runs, "{cell}");
        }
        assert_eq!(
            statements("let (a, mut b) = c;")[0].bindings(),
            [("a".to_owned(), false), ("b".to_owned(), true)]
        );
    }

    #[test]
    fn an_items_documentation_is_code() {
        for (cell, start) in [
            ("/// Doubles.\nfn f() {}", 0),
            ("// note\n/// One.\n/// Two.\n#[inline]\nfn f() {}", 8),
            (":dep a\n/// One.\n\npub struct P;", 7),
            ("/// One.\n:dep a\nfn f() {}", 16),
            ("//// no documentation\nfn f() {}", 22),
            ("/// of nothing\nlet x = 1;", 15),
            ("/// of nothing\nx", 15),
            ("// note\nfn f() {}", 8),
        ] {
            assert_eq!(code_start(cell), start, "{cell}");
        }
    }

    #[test]
    fn what_a_cell_ends_in() {
        for (cell, expected) in [
            ("1 + 1", true),
            ("1 + 1;", false),
            ("let a = 1;", false),
            ("let a = 1;\na\n// done", true),
            ("for i in 0..3 {}", true),
            ("", false),
            (":vars", false),
            ("fn f() {}", false),
        ] {
            let last = statements(cell).pop();
            let found = last.is_some_and(|last| last.is_expression());
            assert_eq!(found, expected, "{cell}");
        }
    }
}
