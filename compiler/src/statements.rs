//! A cell's text seen as evcxr sees it: commands first, then statements, items and perhaps a last expression.

use ra_ap_syntax::ast::{self, AstNode, HasName};
use ra_ap_syntax::{Edition, SourceFile, SyntaxNode};
use std::ops::Range;

/// The edition evcxr compiles cells in.
pub(crate) const EDITION: Edition = Edition::Edition2024;

const BEFORE: &str = "fn f(){";

/// One statement, item or expression at the top level of a cell.
#[derive(Debug)]
pub(crate) struct Statement {
    /// Where it stands in the cell, in bytes, with the white space after it.
    pub(crate) range: Range<usize>,
    node: SyntaxNode,
}

impl Statement {
    /// The variables that it introduces.
    pub(crate) fn variables(&self) -> Vec<String> {
        let Some(pattern) = ast::LetStmt::cast(self.node.clone()).and_then(|this| this.pat())
        else {
            return Vec::new();
        };
        pattern
            .syntax()
            .descendants()
            .filter_map(ast::IdentPat::cast)
            .filter_map(|pattern| Some(pattern.name()?.text().to_string()))
            .collect()
    }

    /// The name that it defines, if values can depend on how it is defined: a type's layout, a trait's table of methods, a
    /// constant's part in either.
    pub(crate) fn layout_name(&self) -> Option<String> {
        let name = match ast::Item::cast(self.node.clone())? {
            ast::Item::Struct(item) => item.name(),
            ast::Item::Enum(item) => item.name(),
            ast::Item::Union(item) => item.name(),
            ast::Item::TypeAlias(item) => item.name(),
            ast::Item::Trait(item) => item.name(),
            ast::Item::Const(item) => item.name(),
            _ => None,
        };
        Some(name?.text().to_string())
    }

    /// Whether it is a `use` declaration.
    pub(crate) fn is_import(&self) -> bool {
        ast::Use::can_cast(self.node.kind())
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
            node,
        });
        from = to;
    }
    statements
}

/// A line that evcxr takes as a command of its own, `:name args`, or as one for the shell, `!command`.
pub(crate) fn is_command(line: &str) -> bool {
    line.starts_with('!') || line.trim_start_matches(' ').starts_with(':')
}

/// The commands of a cell: the words after the colon, with the rest of the line.
pub(crate) fn commands(cell: &str) -> impl Iterator<Item = (&str, &str)> {
    cell[..code_start(cell)].lines().filter_map(|line| {
        let command = line.trim_start_matches(' ').strip_prefix(':')?;
        Some(command.split_once(' ').unwrap_or((command, "")))
    })
}

/// Where the Rust begins: after commands, blank lines and comment lines at the top.
pub(crate) fn code_start(cell: &str) -> usize {
    let mut start = 0;
    for line in cell.split_inclusive('\n') {
        let bare = line.trim_end_matches(['\n', '\r']);
        if !is_command(bare) && !bare.starts_with("//") && !bare.trim().is_empty() {
            break;
        }
        start += line.len();
    }
    start
}

/// Whether the cell's last word is an expression whose value it shows.
pub fn ends_in_expression(cell: &str) -> bool {
    statements(cell)
        .last()
        .is_some_and(Statement::is_expression)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(found[1].layout_name().as_deref(), Some("S"));
        assert!(found[2].is_expression());
        assert_eq!(commands(cell).collect::<Vec<_>>(), [("dep", "itoa")]);
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
            assert_eq!(ends_in_expression(cell), expected, "{cell}");
        }
    }
}
