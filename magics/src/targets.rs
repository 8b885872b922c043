//! Which engines: what users write after `-t`, against the ids there are.

use std::fmt;

use crate::event::EngineId;

/// The engines that an expression names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets {
    /// In the order in which outputs are shown; at least one, none twice.
    pub ids: Vec<EngineId>,
    /// Whether the expression is a bare number: then grouped output has no labels, as in ipyparallel.
    pub single: bool,
    /// As messages name them: `all`, `2`, `[0, 1]`.
    pub name: String,
}

/// Why an expression names no engines.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// It is none of the forms.
    #[error(
        "`{text}` names no engines: write an id (`0`), a list (`0,3` or `[0,3]`), a slice of the ids (`0:4`, `::2`) or `all` ({})",
        there_are(ids)
    )]
    Malformed {
        /// What the user wrote.
        text: String,
        /// The ids there are.
        ids: Vec<EngineId>,
    },
    /// There is no such engine.
    #[error("there is no engine {id} ({})", there_are(ids))]
    Missing {
        /// The number the user wrote.
        id: i64,
        /// The ids there are.
        ids: Vec<EngineId>,
    },
    /// A slice holds none of the ids, or a list is empty.
    #[error("`{text}` holds no engine ({})", there_are(ids))]
    Empty {
        /// What the user wrote.
        text: String,
        /// The ids there are.
        ids: Vec<EngineId>,
    },
}

fn there_are(ids: &[EngineId]) -> String {
    match ids {
        [] => "there are none".to_owned(),
        [id] => format!("there is engine {id} only"),
        _ => format!("there are engines {}", ranges(ids)),
    }
}

/// Resolves `text` against `ids`, which are in ascending order.
///
/// A number is an id. A negative number counts from the end of the ids, and a slice (`start:stop:step`, each of them optional, as in
/// Python) is taken of the ids, not of their values.
///
/// # Errors
/// When an engine is not there or the text makes no sense; the error tells the ids there are.
pub fn resolve(text: &str, ids: &[EngineId]) -> Result<Targets, TargetError> {
    let text = text.trim();
    if text == "all" {
        return if ids.is_empty() {
            Err(TargetError::Empty {
                text: text.to_owned(),
                ids: Vec::new(),
            })
        } else {
            Ok(Targets {
                ids: ids.to_vec(),
                single: false,
                name: "all".to_owned(),
            })
        };
    }
    let bare = text.parse::<i64>().is_ok();
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let mut found: Vec<EngineId> = Vec::new();
    let parts: Vec<&str> = inner.split(',').map(str::trim).collect();
    // Python lets a list end in a comma.
    let parts = match parts.as_slice() {
        [others @ .., ""] => others,
        all => all,
    };
    for part in parts {
        let named = if part.contains(':') {
            slice(part, ids).ok_or_else(|| malformed(text, ids))?
        } else {
            let number: i64 = part.parse().map_err(|_| malformed(text, ids))?;
            vec![one(number, ids).ok_or_else(|| TargetError::Missing {
                id: number,
                ids: ids.to_vec(),
            })?]
        };
        for id in named {
            if !found.contains(&id) {
                found.push(id);
            }
        }
    }
    if found.is_empty() {
        return Err(TargetError::Empty {
            text: text.to_owned(),
            ids: ids.to_vec(),
        });
    }
    let name = if bare {
        found.iter().map(EngineId::to_string).collect()
    } else {
        listed(&found)
    };
    Ok(Targets {
        ids: found,
        single: bare,
        name,
    })
}

fn malformed(text: &str, ids: &[EngineId]) -> TargetError {
    TargetError::Malformed {
        text: text.to_owned(),
        ids: ids.to_vec(),
    }
}

fn one(number: i64, ids: &[EngineId]) -> Option<EngineId> {
    if number >= 0 {
        return ids.iter().copied().find(|id| i64::from(id.0) == number);
    }
    let from_end = usize::try_from(number.checked_neg()?).ok()?;
    ids.get(ids.len().checked_sub(from_end)?).copied()
}

/// A Python slice of `ids`; `None` if it is none.
fn slice(text: &str, ids: &[EngineId]) -> Option<Vec<EngineId>> {
    let mut fields = Vec::new();
    for field in text.split(':') {
        let field = field.trim();
        fields.push(if field.is_empty() {
            None
        } else {
            Some(field.parse::<i64>().ok()?)
        });
    }
    let (start, stop, step) = match *fields.as_slice() {
        [start, stop] => (start, stop, 1),
        [start, stop, step] => (start, stop, step.unwrap_or(1)),
        _ => return None,
    };
    if step == 0 {
        return None;
    }
    let length = i64::try_from(ids.len()).ok()?;
    // Where a slice going down begins and ends is one lower.
    let (least, most) = if step > 0 {
        (0, length)
    } else {
        (-1, length - 1)
    };
    let clamp = |bound: i64| {
        let bound = if bound < 0 {
            bound.saturating_add(length)
        } else {
            bound
        };
        bound.clamp(least, most)
    };
    let (first, last) = if step > 0 {
        (least, most)
    } else {
        (most, least)
    };
    let mut at = start.map_or(first, clamp);
    let stop = stop.map_or(last, clamp);
    let mut found = Vec::new();
    while (step > 0 && at < stop) || (step < 0 && at > stop) {
        found.extend(usize::try_from(at).ok().and_then(|at| ids.get(at)).copied());
        at = at.saturating_add(step);
    }
    Some(found)
}

/// As ipyparallel names a list of targets: all of up to ten, else the first and last four.
fn listed(ids: &[EngineId]) -> String {
    let join = |ids: &[EngineId]| {
        ids.iter()
            .map(EngineId::to_string)
            .collect::<Vec<_>>()
            .join(", ")
    };
    match ids {
        [first @ .., a, b, c, d] if ids.len() > 10 => {
            let first = first.get(..4).unwrap_or(first);
            format!("[{}, ..., {}]", join(first), join(&[*a, *b, *c, *d]))
        }
        _ => format!("[{}]", join(ids)),
    }
}

/// Ids in few characters: `0-3,7`.
pub fn ranges(ids: &[EngineId]) -> String {
    let mut text = String::new();
    let mut rest = ids;
    while let Some((first, _)) = rest.split_first() {
        let run = rest
            .iter()
            .zip(u64::from(first.0)..)
            .take_while(|(id, expected)| u64::from(id.0) == *expected)
            .count()
            .max(1);
        let (these, others) = rest.split_at(run.min(rest.len()));
        if !text.is_empty() {
            text.push(',');
        }
        let words = match these {
            [.., last] if these.len() > 2 => format!("{first}-{last}"),
            [first, second] => format!("{first},{second}"),
            _ => first.to_string(),
        };
        text.push_str(&words);
        rest = others;
    }
    text
}

impl fmt::Display for Targets {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn ids(numbers: &[u32]) -> Vec<EngineId> {
        numbers.iter().copied().map(EngineId).collect()
    }

    #[test]
    fn expressions() {
        let there = ids(&[0, 1, 2, 5, 7]);
        for (text, expected) in [
            ("0", Ok((&[0][..], "0"))),
            ("5", Ok((&[5], "5"))),
            ("-1", Ok((&[7], "7"))),
            ("all", Ok((&[0, 1, 2, 5, 7], "all"))),
            ("::2", Ok((&[0, 2, 7], "[0, 2, 7]"))),
            ("::-1", Ok((&[7, 5, 2, 1, 0], "[7, 5, 2, 1, 0]"))),
            ("-2:", Ok((&[5, 7], "[5, 7]"))),
            ("0:4", Ok((&[0, 1, 2, 5], "[0, 1, 2, 5]"))),
            ("1:99", Ok((&[1, 2, 5, 7], "[1, 2, 5, 7]"))),
            ("3:0:-1", Ok((&[5, 2, 1], "[5, 2, 1]"))),
            ("0,5", Ok((&[0, 5], "[0, 5]"))),
            ("[0, 1]", Ok((&[0, 1], "[0, 1]"))),
            ("[7]", Ok((&[7], "[7]"))),
            ("5,0,5,", Ok((&[5, 0], "[5, 0]"))),
            ("9", Err("there is no engine 9 (there are engines 0-2,5,7)")),
            (
                "-6",
                Err("there is no engine -6 (there are engines 0-2,5,7)"),
            ),
            (
                "0,3",
                Err("there is no engine 3 (there are engines 0-2,5,7)"),
            ),
            (
                "9:",
                Err("`9:` holds no engine (there are engines 0-2,5,7)"),
            ),
            (
                "[]",
                Err("`[]` holds no engine (there are engines 0-2,5,7)"),
            ),
            (
                "foo",
                Err(
                    "`foo` names no engines: write an id (`0`), a list (`0,3` or `[0,3]`), a slice of the ids (`0:4`, `::2`) or `all` (there are engines 0-2,5,7)",
                ),
            ),
            (
                "::0",
                Err(
                    "`::0` names no engines: write an id (`0`), a list (`0,3` or `[0,3]`), a slice of the ids (`0:4`, `::2`) or `all` (there are engines 0-2,5,7)",
                ),
            ),
        ] {
            match (resolve(text, &there), expected) {
                (Ok(found), Ok((numbers, name))) => {
                    assert_eq!(found.ids, ids(numbers), "{text}");
                    assert_eq!(found.name, name, "{text}");
                    assert_eq!(found.single, text.parse::<i64>().is_ok(), "{text}");
                }
                (Err(error), Err(message)) => assert_eq!(error.to_string(), message),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
        assert_eq!(
            resolve("3", &ids(&[2])).unwrap_err().to_string(),
            "there is no engine 3 (there is engine 2 only)"
        );
        assert_eq!(
            resolve("all", &[]).unwrap_err().to_string(),
            "`all` holds no engine (there are none)"
        );
        let many: Vec<EngineId> = (0..12).map(EngineId).collect();
        assert_eq!(
            resolve(":", &many).unwrap().name,
            "[0, 1, 2, 3, ..., 8, 9, 10, 11]"
        );
    }

    proptest! {
        #[test]
        fn names_only_engines_there_are(text in "[-0-9:,\\[\\] al]{0,12}|.{0,8}", count in 0u32..6) {
            let there: Vec<EngineId> = (0..count).map(EngineId).collect();
            if let Ok(found) = resolve(&text, &there) {
                prop_assert!(!found.ids.is_empty());
                prop_assert!(found.ids.iter().all(|id| there.contains(id)));
            }
        }
    }
}
