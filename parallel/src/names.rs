//! Variables of an engine's namespace: the snippets that set and read them, and their types in words that rustc accepts.

use crate::error::Error;

/// Where types of std are that call themselves by private paths.
const HOMES: [(&str, &str); 13] = [
    ("std::collections::hash::map::", "std::collections::"),
    ("std::collections::hash::set::", "std::collections::"),
    ("alloc::collections::btree::map::", "std::collections::"),
    ("alloc::collections::btree::set::", "std::collections::"),
    ("alloc::collections::vec_deque::", "std::collections::"),
    ("alloc::collections::binary_heap::", "std::collections::"),
    ("alloc::collections::linked_list::", "std::collections::"),
    ("core::ops::range::", "std::ops::"),
    ("core::num::nonzero::", "std::num::"),
    ("core::num::wrapping::", "std::num::"),
    ("core::net::ip_addr::", "std::net::"),
    ("core::net::socket_addr::", "std::net::"),
    ("std::hash::random::", "std::hash::"),
];

/// The crate that a notebook's cells are: its types are named without it.
const NOTEBOOK: &str = "ctx::";

/// The type's name, as it can be written in a cell.
pub(crate) fn type_name<T: ?Sized>() -> String {
    writable(std::any::type_name::<T>())
}

fn writable(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    let mut rest = name;
    while !rest.is_empty() {
        let path = rest
            .find(|c: char| !(c.is_alphanumeric() || c == '_' || c == ':'))
            .unwrap_or(rest.len());
        let (word, after) = rest.split_at(path);
        out.push_str(&home(word));
        let mut characters = after.chars();
        out.extend(characters.next());
        rest = characters.as_str();
    }
    out
}

fn home(path: &str) -> String {
    if let Some(own) = path.strip_prefix(NOTEBOOK) {
        return own.to_owned();
    }
    for (private, public) in HOMES {
        if let Some(name) = path.strip_prefix(private) {
            return format!("::{public}{name}");
        }
    }
    for part in ["alloc::", "core::", "std::"] {
        if let Some(name) = path.strip_prefix(part) {
            return format!("::std::{name}");
        }
    }
    path.to_owned()
}

/// Refuses what is no name of a variable.
pub(crate) fn check(action: &'static str, name: &str) -> Result<(), Error> {
    let mut characters = name.chars();
    let is_name = characters
        .next()
        .is_some_and(|first| first.is_alphabetic() || first == '_')
        && characters.all(|c| c.is_alphanumeric() || c == '_')
        && name != "_";
    if is_name {
        Ok(())
    } else {
        Err(Error::Variable {
            action,
            name: name.to_owned(),
            reason: "it is no name: write one as in `let name = ..`".to_owned(),
        })
    }
}

/// The snippet that makes a variable of what was put under its name.
pub(crate) fn set<T>(name: &str) -> String {
    format!(
        "let mut {name}: {} = ::chorus::__private::take({name:?})?;",
        type_name::<T>()
    )
}

/// The snippet that puts a variable's value under its name. It doesn't begin with the colons, by which evcxr knows its commands.
pub(crate) fn read<T>(name: &str) -> String {
    format!(
        "let () = ::chorus::__private::give::<{}>({name:?}, &{name})?;",
        type_name::<T>()
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::*;

    #[test]
    fn names_that_rustc_accepts() {
        assert_eq!(type_name::<Vec<f64>>(), "::std::vec::Vec<f64>");
        assert_eq!(
            type_name::<HashMap<String, Vec<Option<u8>>>>(),
            "::std::collections::HashMap<::std::string::String, ::std::vec::Vec<::std::option::Option<u8>>>"
        );
        assert_eq!(
            type_name::<BTreeSet<(i32, [u8; 4])>>(),
            "::std::collections::BTreeSet<(i32, [u8; 4])>"
        );
        assert_eq!(type_name::<std::time::Duration>(), "::std::time::Duration");
        assert_eq!(
            writable("alloc::vec::Vec<ctx::shapes::Point<f64>>"),
            "::std::vec::Vec<shapes::Point<f64>>"
        );
        assert_eq!(writable("(ctx::A, other::B)"), "(A, other::B)");
    }

    /// The table is right as long as this compiles: each line is what `type_name` gives for the type on its left.
    #[test]
    fn public_homes_of_stds_types() {
        macro_rules! same {
            ($($kind:ty = $($path:ident)::+;)*) => {$({
                let _: Option<$kind> = None::<::$($path)::+<u8>>;
                let path = concat!($("::", stringify!($path)),+);
                assert_eq!(type_name::<$kind>(), format!("{path}<u8>"));
            })*};
        }
        same! {
            VecDeque<u8> = std::collections::VecDeque;
            BinaryHeap<u8> = std::collections::BinaryHeap;
            LinkedList<u8> = std::collections::LinkedList;
            HashSet<u8> = std::collections::HashSet;
            std::ops::Range<u8> = std::ops::Range;
            std::num::NonZero<u8> = std::num::NonZero;
            std::num::Wrapping<u8> = std::num::Wrapping;
        }
        assert_eq!(type_name::<std::net::IpAddr>(), "::std::net::IpAddr");
        assert_eq!(type_name::<std::path::PathBuf>(), "::std::path::PathBuf");
    }

    #[test]
    fn equal_names_and_types_give_equal_snippets() {
        assert_eq!(
            set::<Vec<u32>>("data"),
            "let mut data: ::std::vec::Vec<u32> = ::chorus::__private::take(\"data\")?;"
        );
        assert_eq!(
            read::<u8>("n"),
            "let () = ::chorus::__private::give::<u8>(\"n\", &n)?;"
        );
        assert!(check("push", "größe_2").is_ok());
        for bad in ["", "2x", "a b", "_", "x; y", "\"", "a.b"] {
            assert!(check("push", bad).is_err(), "{bad}");
        }
    }
}
