//! What `%%parallel`, `%push` and their like name: variables, expressions under a name, variables with their types.

use std::str::FromStr;

use crate::options::identifier;

/// `NAME`, or `NAME=EXPRESSION`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// The name on the other side.
    pub name: String,
    /// What is sent; without, the variable of that name.
    pub expression: Option<String>,
}

impl Named {
    /// The Rust that gives the value.
    pub fn value(&self) -> String {
        match &self.expression {
            // A place expression stays one in parentheses, so that a borrow of it moves nothing.
            Some(expression) => format!("({expression})"),
            None => self.name.clone(),
        }
    }
}

impl FromStr for Named {
    type Err = String;

    fn from_str(text: &str) -> Result<Named, String> {
        let (name, expression) = match text.split_once('=') {
            Some((name, expression)) => (name, Some(expression.trim())),
            None => (text, None),
        };
        if expression.is_some_and(|expression| !is_closed(expression)) {
            return Err(format!("`{text}` is not NAME=EXPRESSION"));
        }
        let name = named(name.trim()).map_err(|error| {
            // `NAME: TYPE` is what others take.
            let of_names = |c: char| c.is_alphanumeric() || c == '_' || c.is_whitespace();
            let is_typed = name.replace("::", "").contains(':');
            if name.chars().all(of_names) || is_typed || !is_closed(text) {
                return error;
            }
            let text = text.trim();
            format!("`{text}` is no name of a variable; an expression needs one: `n={text}`")
        })?;
        Ok(Named {
            name,
            expression: expression.map(str::to_owned),
        })
    }
}

/// `NAME: TYPE`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Typed {
    /// The variable on the engines.
    pub name: String,
    /// Its type there.
    pub type_name: Option<String>,
}

impl FromStr for Typed {
    type Err = String;

    fn from_str(text: &str) -> Result<Typed, String> {
        let (name, type_name) = match text.split_once(':') {
            Some((name, type_name)) => (name, Some(type_name.trim())),
            None => (text, None),
        };
        if type_name.is_some_and(|type_name| !is_closed(type_name)) {
            return Err(format!("`{text}` is not NAME: TYPE"));
        }
        Ok(Typed {
            name: named(name.trim())?,
            type_name: type_name.map(str::to_owned),
        })
    }
}

/// A name for a variable of the notebook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name(pub String);

impl FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Name, String> {
        named(text.trim()).map(Name)
    }
}

/// Some of these, with commas between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct List<T>(pub Vec<T>);

impl<T: FromStr<Err = String>> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<List<T>, String> {
        parts(text)
            .into_iter()
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map(List)
    }
}

fn named(name: &str) -> Result<String, String> {
    identifier(name).map_err(|_| match name.split_whitespace().count() {
        0 => "a name is missing".to_owned(),
        1 => format!("`{name}` is no name of a variable"),
        _ => format!("`{name}` is no name of a variable; names have commas between them"),
    })
}

/// The text cut at commas that are in no brackets and no quotes.
fn parts(text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut start = 0;
    scan(text, &mut |at, c, depth| {
        if c == ',' && depth == 0 {
            parts.extend(text.get(start..at));
            start = at + 1;
        }
    });
    parts.extend(text.get(start..));
    parts
}

/// Whether it is something, and brackets and strings in it are closed.
fn is_closed(text: &str) -> bool {
    !text.is_empty() && scan(text, &mut |_, _, _| ()) == Some(0)
}

/// Shows each character outside of strings, with the number of brackets around it. Gives the number at the end; nothing if a
/// bracket closes that was not open, or a string is open.
///
/// `<` counts where it follows a word at once, as in a type, and `>` as long as one is open.
fn scan(text: &str, look: &mut dyn FnMut(usize, char, usize)) -> Option<usize> {
    let mut open: Vec<char> = Vec::new();
    let mut balanced = true;
    let mut before = ' ';
    let mut chars = text.char_indices();
    let mut in_string = false;
    while let Some((at, c)) = chars.next() {
        if in_string {
            match c {
                '\\' => drop(chars.next()),
                '"' => in_string = false,
                _ => {}
            }
            continue;
        }
        match c {
            '"' => in_string = true,
            '(' | '[' | '{' => open.push(c),
            '<' if before.is_alphanumeric() || before == ':' => open.push(c),
            '>' if before != '-' && before != '=' && open.last() == Some(&'<') => drop(open.pop()),
            ')' | ']' | '}' => {
                // What looked like a type's bracket was a comparison.
                while open.last() == Some(&'<') {
                    open.pop();
                }
                let fits = matches!(
                    (open.pop(), c),
                    (Some('('), ')') | (Some('['), ']') | (Some('{'), '}')
                );
                balanced &= fits;
            }
            _ => {}
        }
        look(at, c, open.len());
        before = c;
    }
    open.retain(|bracket| *bracket != '<');
    (balanced && !in_string).then_some(open.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn named(text: &str) -> Result<Vec<(String, String)>, String> {
        let list: List<Named> = text.parse()?;
        Ok(list
            .0
            .into_iter()
            .map(|named| (named.name.clone(), named.value()))
            .collect())
    }

    #[test]
    fn names_and_expressions() {
        let pairs = |pairs: &[(&str, &str)]| {
            Ok(pairs
                .iter()
                .map(|(a, b)| ((*a).to_owned(), (*b).to_owned()))
                .collect())
        };
        assert_eq!(named("a"), pairs(&[("a", "a")]));
        assert_eq!(
            named("a, b,c"),
            pairs(&[("a", "a"), ("b", "b"), ("c", "c")])
        );
        assert_eq!(
            named("n = f(1, 2), s=\"a, (b\", v = [1, 2]"),
            pairs(&[("n", "(f(1, 2))"), ("s", "(\"a, (b\")"), ("v", "([1, 2])")])
        );
        assert_eq!(
            named("a=x < y, b = y > x"),
            pairs(&[("a", "(x < y)"), ("b", "(y > x)")])
        );
        for (bad, part) in [
            ("a b", "names have commas between them"),
            ("2a", "no name of a variable"),
            ("a, 0..10", "an expression needs one: `n=0..10`"),
            ("a.iter() ", "an expression needs one: `n=a.iter()`"),
            ("0..=10", "an expression needs one: `n=0..=10`"),
            ("f(1", "`f(1` is no name of a variable"),
            ("u64::MAX", "an expression needs one: `n=u64::MAX`"),
            ("x: u64", "names have commas between them"),
            ("a=", "not NAME=EXPRESSION"),
            ("a=f(", "not NAME=EXPRESSION"),
            ("a=f)", "not NAME=EXPRESSION"),
            ("a=\"x", "not NAME=EXPRESSION"),
            ("fn", "no name of a variable"),
        ] {
            let error = named(bad).unwrap_err();
            assert!(error.contains(part), "{bad}: {error}");
        }
    }

    #[test]
    fn names_and_types() {
        let list: List<Typed> = "a: u64, m: HashMap<String, Vec<(u8, u8)>>, f: fn(u8) -> u8, x"
            .parse()
            .unwrap();
        let types: Vec<Option<&str>> = list
            .0
            .iter()
            .map(|typed| typed.type_name.as_deref())
            .collect();
        assert_eq!(
            types,
            [
                Some("u64"),
                Some("HashMap<String, Vec<(u8, u8)>>"),
                Some("fn(u8) -> u8"),
                None
            ]
        );
        assert!("a:".parse::<List<Typed>>().is_err());
    }

    proptest! {
        #[test]
        fn never_panics(text in ".{0,40}") {
            let _ = text.parse::<List<Named>>();
            let _ = text.parse::<List<Typed>>();
        }
    }
}
