//! Places of a cursor, written `|`.

use super::*;
use proptest::prelude::*;

fn at(marked: &str) -> Place {
    let cursor = marked.find('|').unwrap();
    let cell = marked.replacen('|', "", 1);
    let variables =
        ["lines", "stop", "size"].map(|name| (name.to_owned(), "Vec<String>".to_owned()));
    let engine_names = ["total".to_owned()];
    let known = Known {
        ids: &[EngineId(0), EngineId(1)],
        variables: &variables,
        engine_names: &engine_names,
    };
    place(&cell, cursor, &|_| true, known)
}

fn words(marked: &str) -> (usize, Vec<String>) {
    match at(marked) {
        Place::Words { start, items } => (start, items.into_iter().map(|item| item.text).collect()),
        other => panic!("{marked:?}: {other:?}"),
    }
}

#[test]
fn names_of_magics() {
    for (marked, start, expected) in [
        ("%ch|", 0, &["%checkpoint"][..]),
        ("  %pxr|", 2, &["%pxresult"]),
        ("%%|", 0, &["%%px", "%%parallel", "%%time", "%%timeit"]),
        ("%pu|", 0, &["%push", "%pull"]),
        ("%%par|", 0, &["%%parallel"]),
        ("%%ti|", 0, &["%%time", "%%timeit"]),
        ("a;\n%who|", 3, &["%who", "%whos"]),
        ("%%time\n%pxr|", 7, &["%pxresult"]),
        ("%timeit %px|", 8, &["%px", "%pxresult", "%pxconfig"]),
        ("%nothing|", 0, &[]),
    ] {
        let (found, items) = words(marked);
        assert_eq!(
            (found, items.as_slice()),
            (
                start,
                &expected
                    .iter()
                    .map(|word| (*word).to_owned())
                    .collect::<Vec<_>>()[..]
            ),
            "{marked}"
        );
    }
    assert_eq!(words("%|").1.len(), table::names().count());
    assert_eq!(words("a;\n%|").0, 3);
}

#[test]
fn options_and_their_values() {
    for (marked, start, expected) in [
        ("%px --ta|", 4, &["--targets"][..]),
        ("%%px -t |", 8, &["all", "::2", "0", "1"]),
        ("%px --targets |", 14, &["all", "::2", "0", "1"]),
        ("%px --targets=a|", 14, &["all"]),
        ("%px -t 0,|", 9, &["1"]),
        ("%px --targets=1,|", 16, &["0"]),
        ("%px -t a|", 7, &["all"]),
        ("%%px --group-outputs |", 21, &["type", "engine", "order"]),
        ("%%px --signal-on-interrupt SIGK|", 27, &["SIGKILL"]),
        ("%cluster s|", 9, &["start", "stop", "status", "scale"]),
        ("%cluster start -|", 15, &["-n"]),
        ("%checkpoint o|", 12, &["on", "off"]),
        ("%checkpoint |", 12, &["on", "off", "status"]),
        ("%who |", 5, &[]),
        ("%%parallel --ov|", 11, &["--over"]),
        ("%%parallel --over l|", 18, &["lines"]),
        ("%%parallel --over lines --with s|", 31, &["stop", "size"]),
        ("%%parallel --with stop,si|", 23, &["size"]),
        ("%%parallel --with=stop,si|", 23, &["size"]),
        ("%%parallel --merge |", 19, &["sum", "concat", "counts"]),
        ("%%parallel -o l|", 14, &["lines"]),
        ("%%parallel -t |", 14, &["all", "::2", "0", "1"]),
        ("%push lines,st|", 12, &["stop"]),
        ("%push lines, st|", 13, &["stop"]),
        ("%scatter li|", 9, &["lines"]),
        ("%pull to|", 6, &["total"]),
        ("%gather --a|", 8, &["--as"]),
    ] {
        let (found, items) = words(marked);
        assert_eq!(items, expected, "{marked}");
        assert_eq!(found, start, "{marked}");
    }
    let (_, all) = words("%%px -|");
    assert!(all.contains(&"--noblock".to_owned()) && all.contains(&"-r".to_owned()));
}

#[test]
fn code() {
    for (marked, code) in [
        ("le|t a = 1;\n%who\na", "let a = 1;\n    \na"),
        ("%who\na.|", "    \na."),
        ("%time a.|", "      a."),
        ("%%time\na.|;\n%px 1", "      \na.;\n     "),
        ("%%parallel --over a\na.|", "                   \na."),
        ("%timeit -n 1 a.|", "             a."),
        ("a\n% |b", "a\n% b"),
        ("|", ""),
    ] {
        let expected = Place::Notebook {
            code: code.to_owned(),
        };
        assert_eq!(at(marked), expected, "{marked}");
    }
    for (marked, code) in [
        ("a;\n%px b.|\nc", "  \n    b.\n "),
        ("%px -t 0 b|", "         b"),
        ("%%px -a\nlet é = 1;\nb|", "       \nlet é = 1;\nb"),
        ("%%time\n%px b|", "      \n    b"),
        ("%timeit %px b|", "            b"),
    ] {
        let expected = Place::Engines {
            code: code.to_owned(),
        };
        assert_eq!(at(marked), expected, "{marked}");
    }
}

proptest! {
    #[test]
    fn never_panics_and_keeps_length(cell in "([%pxtime -a-cé;]{0,12}\n?){0,4}", cursor in 0usize..60) {
        match place(&cell, cursor, &|_| true, Known::default()) {
            Place::Notebook { code } | Place::Engines { code } => prop_assert_eq!(code.len(), cell.len()),
            Place::Words { start, .. } => prop_assert!(start <= cell.len()),
        }
    }
}
