//! The errors of all engines as one: `CompositeError`, as ipyparallel names and words it.
//!
//! An error of the compiler that several engines got is said once, with the engines it concerns.

use super::{End, Voice};
use crate::event::{EngineId, Failure};
use crate::targets::ranges;

/// So many errors are shown in full, the others in a line each.
const IN_FULL: usize = 4;

/// One error and the engines it concerns.
struct Group {
    engines: Vec<EngineId>,
    failure: Failure,
    rejected: bool,
}

impl Group {
    fn label(&self) -> String {
        format!("[{}:execute]", ranges(&self.engines))
    }

    fn line(&self) -> String {
        format!(
            "{}{}: {}",
            self.label(),
            self.failure.ename,
            self.failure.evalue
        )
    }
}

pub(super) fn failure(voices: &[Voice]) -> Option<Failure> {
    let groups = groups(voices);
    let (first, others) = groups.split_first()?;
    if others.is_empty() && voices.len() == 1 {
        let mut failure = first.failure.clone();
        failure.traceback.insert(0, format!("{}:", first.label()));
        return Some(failure);
    }
    let mut traceback = Vec::new();
    for group in groups.iter().take(IN_FULL) {
        traceback.push(format!("{}:", group.label()));
        traceback.extend(group.failure.traceback.iter().cloned());
        traceback.push(String::new());
    }
    traceback.extend(groups.iter().skip(IN_FULL).map(Group::line));
    let mut evalue = "one or more exceptions raised in: %px".to_owned();
    for group in groups.iter().take(IN_FULL) {
        evalue.push('\n');
        evalue.push_str(&group.line());
    }
    if let Some(more @ 1..) = groups.len().checked_sub(IN_FULL) {
        evalue.push_str(&format!("\n.... {more} more exceptions ..."));
    }
    Some(Failure {
        ename: "CompositeError".to_owned(),
        evalue,
        traceback,
    })
}

/// In the order of the first engine that each concerns.
fn groups(voices: &[Voice]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for voice in voices {
        let (failure, rejected) = match &voice.end {
            None | Some(End::Done) => continue,
            Some(End::Rejected(failure)) => (failure.clone(), true),
            Some(End::Failed(failure)) => (failure.clone(), false),
            Some(End::Lost(reason)) => (
                Failure::new(
                    "engine lost",
                    format!(
                        "engine {} is gone: {reason}. What it ran has no result; `%cluster status` lists the engines there are",
                        voice.id
                    ),
                ),
                false,
            ),
        };
        let equal = groups
            .iter_mut()
            .find(|group| rejected && group.rejected && group.failure == failure);
        match equal {
            Some(group) => group.engines.push(voice.id),
            None => groups.push(Group {
                engines: vec![voice.id],
                failure,
                rejected,
            }),
        }
    }
    groups
}
