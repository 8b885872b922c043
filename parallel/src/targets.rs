//! Which engines a view works with.

use crate::error::Error;
use std::fmt;
use std::ops::{Range, RangeFrom, RangeFull, RangeInclusive, RangeTo};

/// Engines, named once and looked up anew with every call, since engines come and go.
///
/// | written | means |
/// |---|---|
/// | `..`, `"all"` | all there are |
/// | `2` | the engine with id 2; negative numbers count from the end of the ids |
/// | `[0, 3]`, `&ids` | those |
/// | `0..2`, `2..`, `"::2"` | a slice of the sorted ids, as in Python; it may hold fewer than it asks for |
/// | `"0,3"`, `"0:4"` | what the magics' `-t` takes |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Targets(Which);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Which {
    All,
    Some(Vec<Part>),
    Malformed(String),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Id(i64),
    Slice {
        start: Option<i64>,
        stop: Option<i64>,
        step: i64,
    },
}

impl Targets {
    /// All engines there are.
    pub fn all() -> Targets {
        Targets(Which::All)
    }

    /// The ids, each once.
    pub(crate) fn resolve(&self, ids: &[u32]) -> Result<Vec<u32>, Error> {
        let refuse = |reason: String| Error::Targets { reason };
        let mut found = Vec::new();
        match &self.0 {
            Which::All => found.extend_from_slice(ids),
            Which::Malformed(text) => {
                return Err(refuse(format!(
                    "`{text}` names no engines: write an id (`0`), a list (`0,3`), a slice of the ids (`0:4`, `::2`) or `all` ({})",
                    there_are(ids)
                )));
            }
            Which::Some(parts) => {
                for part in parts {
                    let named = match part {
                        Part::Id(number) => vec![one(*number, ids).ok_or_else(|| {
                            refuse(format!("there is no engine {number} ({})", there_are(ids)))
                        })?],
                        Part::Slice { start, stop, step } => slice(*start, *stop, *step, ids),
                    };
                    for id in named {
                        if !found.contains(&id) {
                            found.push(id);
                        }
                    }
                }
            }
        }
        if found.is_empty() {
            return Err(refuse(if ids.is_empty() {
                "there are no engines: start some (`%cluster start -n 2`), or wait for them (`client.wait_for_engines(2, ..)`)".to_owned()
            } else {
                format!("`{self}` names no engine ({})", there_are(ids))
            }));
        }
        Ok(found)
    }
}

fn one(number: i64, ids: &[u32]) -> Option<u32> {
    match u32::try_from(number) {
        Ok(id) => ids.contains(&id).then_some(id),
        Err(_) => {
            let back = usize::try_from(number.checked_neg()?).ok()?;
            ids.get(ids.len().checked_sub(back)?).copied()
        }
    }
}

/// As Python cuts a list.
fn slice(start: Option<i64>, stop: Option<i64>, step: i64, ids: &[u32]) -> Vec<u32> {
    let length = i64::try_from(ids.len()).unwrap_or(i64::MAX);
    let place = |at: i64| {
        if at < 0 {
            at.saturating_add(length)
        } else {
            at
        }
    };
    let (low, high) = if step > 0 {
        (0, length)
    } else {
        (-1, length - 1)
    };
    let from = start.map_or(if step > 0 { low } else { high }, |at| {
        place(at).clamp(low, high)
    });
    let to = stop.map_or(if step > 0 { high } else { low }, |at| {
        place(at).clamp(low, high)
    });
    let mut found = Vec::new();
    let mut at = from;
    while if step > 0 { at < to } else { at > to } {
        found.extend(usize::try_from(at).ok().and_then(|at| ids.get(at)));
        at = at.saturating_add(step);
    }
    found
}

fn there_are(ids: &[u32]) -> String {
    match ids {
        [] => "there are none".to_owned(),
        [id] => format!("there is engine {id} only"),
        _ => format!("there are {ids:?}"),
    }
}

impl fmt::Display for Targets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Which::All => f.write_str("all"),
            Which::Malformed(text) => f.write_str(text),
            Which::Some(parts) => {
                for (index, part) in parts.iter().enumerate() {
                    if index > 0 {
                        f.write_str(",")?;
                    }
                    part.fmt(f)?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Part::Id(id) => write!(f, "{id}"),
            Part::Slice { start, stop, step } => {
                if let Some(start) = start {
                    write!(f, "{start}")?;
                }
                f.write_str(":")?;
                if let Some(stop) = stop {
                    write!(f, "{stop}")?;
                }
                if *step != 1 {
                    write!(f, ":{step}")?;
                }
                Ok(())
            }
        }
    }
}

fn parse(text: &str) -> Option<Which> {
    let text = text.trim();
    if text == "all" {
        return Some(Which::All);
    }
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'))
        .unwrap_or(text);
    let inner = inner.trim().trim_end_matches(',');
    inner
        .split(',')
        .map(|part| part_of(part.trim()))
        .collect::<Option<_>>()
        .map(Which::Some)
}

fn part_of(text: &str) -> Option<Part> {
    if !text.contains(':') {
        return text.parse().ok().map(Part::Id);
    }
    let number = |text: &str| match text.trim() {
        "" => Some(None),
        text => text.parse::<i64>().ok().map(Some),
    };
    let parts: Vec<&str> = text.split(':').collect();
    let (start, stop, step) = match parts.as_slice() {
        [start, stop] => (start, stop, &""),
        [start, stop, step] => (start, stop, step),
        _ => return None,
    };
    let step = number(step)?.unwrap_or(1);
    (step != 0).then_some(Part::Slice {
        start: number(start)?,
        stop: number(stop)?,
        step,
    })
}

impl From<&str> for Targets {
    fn from(text: &str) -> Targets {
        Targets(parse(text).unwrap_or_else(|| Which::Malformed(text.to_owned())))
    }
}

impl From<String> for Targets {
    fn from(text: String) -> Targets {
        text.as_str().into()
    }
}

impl From<RangeFull> for Targets {
    fn from(_: RangeFull) -> Targets {
        Targets::all()
    }
}

macro_rules! numbers {
    ($($number:ty),*) => {$(
        impl From<$number> for Targets {
            fn from(id: $number) -> Targets {
                [id].as_slice().into()
            }
        }

        impl From<&[$number]> for Targets {
            fn from(ids: &[$number]) -> Targets {
                // A number that fits nowhere is no engine's.
                let id = |id: &$number| Part::Id(i64::try_from(*id).unwrap_or(i64::MAX));
                Targets(Which::Some(ids.iter().map(id).collect()))
            }
        }

        impl From<Vec<$number>> for Targets {
            fn from(ids: Vec<$number>) -> Targets {
                ids.as_slice().into()
            }
        }

        impl From<&Vec<$number>> for Targets {
            fn from(ids: &Vec<$number>) -> Targets {
                ids.as_slice().into()
            }
        }

        impl<const N: usize> From<[$number; N]> for Targets {
            fn from(ids: [$number; N]) -> Targets {
                ids.as_slice().into()
            }
        }

        impl<const N: usize> From<&[$number; N]> for Targets {
            fn from(ids: &[$number; N]) -> Targets {
                ids.as_slice().into()
            }
        }

        impl From<Range<$number>> for Targets {
            fn from(range: Range<$number>) -> Targets {
                cut(i64::try_from(range.start).ok(), i64::try_from(range.end).ok())
            }
        }

        impl From<RangeInclusive<$number>> for Targets {
            fn from(range: RangeInclusive<$number>) -> Targets {
                let stop = i64::try_from(*range.end()).ok().and_then(|end| end.checked_add(1));
                // In Python, too, a slice up to and with the last one has no end.
                cut(i64::try_from(*range.start()).ok(), stop.filter(|stop| *stop != 0))
            }
        }

        impl From<RangeFrom<$number>> for Targets {
            fn from(range: RangeFrom<$number>) -> Targets {
                cut(i64::try_from(range.start).ok(), None)
            }
        }

        impl From<RangeTo<$number>> for Targets {
            fn from(range: RangeTo<$number>) -> Targets {
                cut(None, i64::try_from(range.end).ok())
            }
        }
    )*};
}

numbers!(i32, u32, i64, usize);

fn cut(start: Option<i64>, stop: Option<i64>) -> Targets {
    Targets(Which::Some(vec![Part::Slice {
        start,
        stop,
        step: 1,
    }]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IDS: [u32; 4] = [0, 1, 3, 7];

    fn resolved(targets: impl Into<Targets>) -> Result<Vec<u32>, String> {
        targets
            .into()
            .resolve(&IDS)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_written_and_what_it_means() {
        assert_eq!(resolved(..), Ok(vec![0, 1, 3, 7]));
        assert_eq!(resolved("all"), Ok(vec![0, 1, 3, 7]));
        assert_eq!(resolved(3), Ok(vec![3]));
        assert_eq!(resolved(-1), Ok(vec![7]));
        assert_eq!(resolved(7u32), Ok(vec![7]));
        assert_eq!(resolved([7, 0, 7]), Ok(vec![7, 0]));
        assert_eq!(resolved(&[0u32, 3][..]), Ok(vec![0, 3]));
        assert_eq!(resolved(vec![1usize]), Ok(vec![1]));
        assert_eq!(resolved(0..2), Ok(vec![0, 1]));
        assert_eq!(resolved(0..=2), Ok(vec![0, 1, 3]));
        assert_eq!(resolved(2..), Ok(vec![3, 7]));
        assert_eq!(resolved(..-1), Ok(vec![0, 1, 3]));
        assert_eq!(resolved("::2"), Ok(vec![0, 3]));
        assert_eq!(resolved("::-1"), Ok(vec![7, 3, 1, 0]));
        assert_eq!(resolved("[0, 3]"), Ok(vec![0, 3]));
        assert_eq!(resolved("0,2:"), Ok(vec![0, 3, 7]));
        assert_eq!(resolved("1:99"), Ok(vec![1, 3, 7]));
    }

    #[test]
    fn what_is_not_there_is_told() {
        assert_eq!(
            resolved(2).unwrap_err(),
            "there is no engine 2 (there are [0, 1, 3, 7])"
        );
        assert_eq!(
            resolved(9..).unwrap_err(),
            "`9:` names no engine (there are [0, 1, 3, 7])"
        );
        assert!(
            resolved("first")
                .unwrap_err()
                .starts_with("`first` names no engines: write")
        );
        assert!(resolved("::0").is_err() && resolved("1:2:3:4").is_err() && resolved(-5).is_err());
        let none = Targets::all().resolve(&[]).unwrap_err().to_string();
        assert!(
            none.starts_with("there are no engines: start some"),
            "{none}"
        );
    }
}
