//! Which names a snippet gives, for the completion of code for engines: a glance, not a parser.

/// The names after `let`, `fn`, `struct` and the like, outside of braces.
pub(super) fn introduced(code: &str) -> Vec<String> {
    const BEFORE_NAMES: [&str; 10] = [
        "let", "fn", "struct", "enum", "union", "trait", "type", "const", "static", "mod",
    ];
    let mut names = Vec::new();
    let mut depth = 0usize;
    let mut expected = false;
    let words = code.split_inclusive(|c: char| !(c.is_alphanumeric() || c == '_'));
    for part in words {
        let word = part.trim_end_matches(|c: char| !(c.is_alphanumeric() || c == '_'));
        if depth == 0 && !word.is_empty() {
            if BEFORE_NAMES.contains(&word) {
                expected = true;
            } else if expected && word != "mut" {
                names.push(word.to_owned());
                expected = false;
            }
        }
        match part.chars().last() {
            Some('{') => depth += 1,
            Some('}') => depth = depth.saturating_sub(1),
            Some('=' | ';') => expected = false,
            _ => {}
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (code, expected) in [
            ("let a = 1; let mut b: i32 = 2;", &["a", "b"][..]),
            ("fn f(x: i32) { let inner = x; }\nstruct S;", &["f", "S"]),
            ("let (a, b) = c;", &["a"]),
            ("1 + 1", &[]),
            ("", &[]),
        ] {
            assert_eq!(introduced(code), expected, "{code}");
        }
    }
}
