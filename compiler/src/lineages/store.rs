//! Compiled snippets on disk, for this compiler and for others that run now or later.
//!
//! In one folder: `artifacts/` has shared objects named by the SHA-256 of their bytes; `snippets/` has a record for each (lineage,
//! source), and the source that was generated for it; `states/` has the step that led to each lineage, so that its state can be
//! restored. Toolchain, support library and this program are the *identity*, which is part of every name. Files appear complete, by renaming, and are never changed.

use crate::inputs::Inputs;
use crate::sources::{Cell, Label};
use crate::statements::has_commands;
use crate::summary::{Found, ROOT, Variable};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// What was used by anybody this recently stays.
const IN_USE: Duration = Duration::from_secs(600);
/// How long the way to a state is kept after it was last gone.
const STATES_KEPT: Duration = Duration::from_secs(90 * 24 * 3600);

/// A snippet that was compiled.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) lineage: String,
    /// Without blank lines around it.
    pub(crate) source: String,
    /// Whose it is, since some commands are not for engines.
    pub(crate) owner: Owner,
    /// The artifact to run, by name.
    pub(crate) artifact: Option<String>,
    pub(crate) next: Next,
    #[serde(default)]
    pub(crate) shown: BTreeMap<String, String>,
    pub(crate) ends_in_expression: bool,
    #[serde(default)]
    pub(crate) lost: Vec<String>,
    /// What a person is told of how it was compiled.
    #[serde(default)]
    pub(crate) notes: Vec<String>,
    /// Whether the runtime has to begin anew before it.
    #[serde(default)]
    pub(crate) restarts: bool,
    /// Whether the compile read something of the user's that may change.
    pub(crate) reads: bool,
    /// The files and variables that must be unchanged for this record to be used.
    pub(crate) inputs: Inputs,
}

impl Record {
    /// Of an empty snippet.
    pub(crate) fn of_nothing(lineage: &str) -> Record {
        Record {
            lineage: lineage.to_owned(),
            source: String::new(),
            owner: Owner::Engine,
            artifact: None,
            next: [lineage; 3].map(str::to_owned).into(),
            shown: BTreeMap::new(),
            ends_in_expression: false,
            lost: Vec::new(),
            notes: Vec::new(),
            restarts: false,
            reads: false,
            inputs: Inputs::default(),
        }
    }
}

/// Whose namespace a snippet is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Owner {
    /// A notebook's, which has all of evcxr's commands.
    Notebook,
    /// An engine's.
    Engine,
}

impl Owner {
    /// Whose a snippet is to the store: without commands it is the same for all.
    pub(crate) fn of(self, source: &str) -> Owner {
        match has_commands(source) {
            true => self,
            false => Owner::Engine,
        }
    }
}

/// The lineages that a snippet can lead to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// When it has run to its end.
    pub completed: String,
    /// When it has ended early, by a panic or a `?`.
    pub early: String,
    /// When its run was undone: its items and settings with the variables that there were before.
    pub undone: String,
}

impl From<[String; 3]> for Next {
    fn from([completed, early, undone]: [String; 3]) -> Next {
        Next {
            completed,
            early,
            undone,
        }
    }
}

impl Next {
    /// All three.
    pub(crate) fn all(&self) -> [&String; 3] {
        [&self.completed, &self.early, &self.undone]
    }
}

/// How a state was come by.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) lineage: String,
    pub(crate) parent: String,
    pub(crate) source: String,
    pub(crate) owner: Owner,
    /// Where paths of local crates begin.
    pub(crate) folder: PathBuf,
    pub(crate) variables: BTreeMap<String, Variable>,
    pub(crate) found: Found,
    pub(crate) local_crates: BTreeMap<String, String>,
}

/// A handle; clones share it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Store {
    folder: PathBuf,
    identity: String,
    /// In bytes.
    limit: u64,
}

impl Store {
    /// Opens or makes the store in `folder`.
    pub(crate) fn open(folder: PathBuf, identity: &str, limit: u64) -> io::Result<Store> {
        for name in ["artifacts", "snippets", "states"] {
            fs::create_dir_all(folder.join(name))?;
        }
        Ok(Store {
            folder,
            identity: identity.into(),
            limit,
        })
    }

    /// The number of a snippet, which is its name here and in the locations of its panics.
    pub(crate) fn number(&self, lineage: &str, source: &str, owner: Owner) -> u64 {
        let hash = self.hash(&[lineage, source, &format!("{owner:?}")]);
        let (number, _) = hash.split_at(8);
        number
            .iter()
            .fold(0, |all, byte| all << 8 | u64::from(*byte))
    }

    fn hash(&self, parts: &[&str]) -> Vec<u8> {
        let mut hash = Sha256::new();
        hash.update(&*self.identity);
        for part in parts {
            hash.update([0]);
            hash.update(part);
        }
        hash.finalize().to_vec()
    }

    fn snippet(&self, number: u64, extension: &str) -> PathBuf {
        self.folder
            .join("snippets")
            .join(format!("{number:016x}.{extension}"))
    }

    /// Where an artifact is.
    pub(crate) fn artifact(&self, name: &str) -> PathBuf {
        self.folder.join("artifacts").join(format!("{name}.so"))
    }

    fn step_path(&self, lineage: &str) -> PathBuf {
        let name = hex::encode(self.hash(&[lineage]));
        self.folder.join("states").join(format!("{name}.json"))
    }

    /// A snippet's record, if all that belongs to it is there and is as it was; that counts as a use of it. The environment is this process's, but
    /// for some variables.
    pub(crate) fn record(
        &self,
        lineage: &str,
        source: &str,
        owner: Owner,
        variables: &BTreeMap<String, String>,
    ) -> Option<Record> {
        let path = self.snippet(self.number(lineage, source, owner), "json");
        let record: Record = read(&path)?;
        let same = record.lineage == lineage
            && record.source == source
            && record.owner == owner
            && record.inputs.hold(variables);
        let mut artifact = record.artifact.iter();
        (same && artifact.all(|name| touch(&self.artifact(name)).is_ok())).then(|| {
            let next = record.next.all();
            let steps = next.map(|next| self.step_path(next));
            for path in [path.clone(), path.with_extension("rs")]
                .iter()
                .chain(&steps)
            {
                // What is not there was never needed.
                let _ = touch(path);
            }
            record
        })
    }

    /// Keeps a shared object; gives its name.
    pub(crate) fn keep_artifact(&self, file: &Path) -> io::Result<String> {
        let bytes = fs::read(file)?;
        let name = hex::encode(Sha256::digest(&bytes));
        let path = self.artifact(&name);
        if touch(&path).is_err() {
            write(&path, &bytes)?;
        }
        Ok(name)
    }

    /// Keeps a record.
    pub(crate) fn keep(&self, record: &Record) -> io::Result<()> {
        let number = self.number(&record.lineage, &record.source, record.owner);
        write(&self.snippet(number, "json"), &serde_json::to_vec(record)?)
    }

    /// Keeps the source that was generated for a snippet.
    pub(crate) fn keep_generated(&self, number: u64, generated: &str) -> io::Result<()> {
        write(&self.snippet(number, "rs"), generated.as_bytes())
    }

    /// The source that was generated for a snippet.
    pub(crate) fn generated(&self, number: u64) -> Option<String> {
        fs::read_to_string(self.snippet(number, "rs")).ok()
    }

    /// How a state was come by.
    pub(crate) fn step(&self, lineage: &str) -> Option<Step> {
        let path = self.step_path(lineage);
        let step: Step = read(&path)?;
        let _ = touch(&path);
        (step.lineage == lineage).then_some(step)
    }

    /// Keeps how a state was come by, if that is not known: the first way stays, so that ways don't run in circles.
    pub(crate) fn keep_step(&self, step: &Step) -> io::Result<()> {
        let path = self.step_path(&step.lineage);
        if path.exists() {
            return Ok(());
        }
        write(&path, &serde_json::to_vec(step)?)
    }

    /// The steps from the root (or from the first state that `known` says so) to a state; `None` if some are not known.
    pub(crate) fn way(&self, lineage: &str, known: impl Fn(&str) -> bool) -> Option<Vec<Step>> {
        let mut steps: Vec<Step> = Vec::new();
        let mut seen = HashSet::new();
        let mut at = lineage.to_owned();
        while at != ROOT && !known(&at) {
            let step = self.step(&at)?;
            if !seen.insert(std::mem::replace(&mut at, step.parent.clone())) {
                return None;
            }
            steps.push(step);
        }
        steps.reverse();
        Some(steps)
    }

    /// The snippets that led to a state, the latest first; what is not known of them is left out.
    pub(crate) fn earlier(&self, lineage: &str) -> Vec<Cell> {
        let mut cells = Vec::new();
        let mut seen = HashSet::new();
        let mut at = lineage.to_owned();
        while let Some(step) = self.step(&at)
            && seen.insert(at)
        {
            cells.push(Cell {
                number: self.number(&step.parent, &step.source, step.owner),
                label: Label::EarlierSnippet,
                source: step.source,
                shown: None,
            });
            at = step.parent;
        }
        cells
    }

    /// Brings the store under its limit: what was not used for the longest time goes first, but never what was used in the last minutes: a client may be
    /// about to link it into its own folder. One process at a time does it.
    pub(crate) fn sweep(&self) -> io::Result<Swept> {
        let lock = File::create(self.folder.join("lock"))?;
        if lock.try_lock().is_err() {
            return Ok(Swept::default());
        }
        self.sweep_at(SystemTime::now())
    }

    fn sweep_at(&self, now: SystemTime) -> io::Result<Swept> {
        let age = |used: SystemTime| now.duration_since(used).unwrap_or_default();
        for (path, used, _) in files(&self.folder.join("states"))? {
            if age(used) > STATES_KEPT {
                remove(&path);
            }
        }
        let mut files = files(&self.folder.join("artifacts"))?
            .into_iter()
            .chain(files(&self.folder.join("snippets"))?)
            .collect::<Vec<_>>();
        let mut swept = Swept {
            left: files.iter().map(|(_, _, size)| size).sum(),
            removed: 0,
        };
        files.sort_by_key(|(_, used, _)| *used);
        for (path, used, size) in files {
            if swept.left <= self.limit || age(used) < IN_USE {
                break;
            }
            remove(&path);
            swept.left -= size;
            swept.removed += 1;
        }
        Ok(swept)
    }
}

/// What became of the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Swept {
    /// Bytes in it now.
    pub(crate) left: u64,
    /// Files that went.
    pub(crate) removed: usize,
}

fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    serde_json::from_slice(&fs::read(path).ok()?).ok()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(bytes)?;
    file.persist(path)?;
    Ok(())
}

/// Says that a file is used now; fails if it isn't there.
fn touch(path: &Path) -> io::Result<()> {
    File::open(path)?.set_modified(SystemTime::now())
}

fn remove(path: &Path) {
    if let Err(error) = fs::remove_file(path) {
        tracing::debug!(%error, file = %path.display(), "it stays in the cache");
    }
}

/// The files of a folder, when each was used last, and its size.
fn files(folder: &Path) -> io::Result<Vec<(PathBuf, SystemTime, u64)>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)?.flatten() {
        // Another process may just have removed it.
        if let Ok(metadata) = entry.metadata()
            && let Ok(used) = metadata.modified()
        {
            files.push((entry.path(), used, metadata.len()));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: BTreeMap<String, String> = BTreeMap::new();

    fn store(folder: &Path, identity: &str, limit: u64) -> Store {
        Store::open(folder.to_owned(), identity, limit).unwrap()
    }

    fn record(store: &Store, source: &str, size: usize) -> Record {
        let file = store.folder.join("made");
        fs::write(&file, source.repeat(size)).unwrap();
        let record = Record {
            source: source.to_owned(),
            artifact: Some(store.keep_artifact(&file).unwrap()),
            next: ["next"; 3].map(str::to_owned).into(),
            ..Record::of_nothing(ROOT)
        };
        store.keep(&record).unwrap();
        let number = store.number(ROOT, source, Owner::Engine);
        store.keep_generated(number, "generated").unwrap();
        record
    }

    #[test]
    fn a_record_is_found_by_what_it_depends_on() {
        let folder = tempfile::tempdir().unwrap();
        let one = store(folder.path(), "rustc 1", 1 << 20);
        let kept = record(&one, "1", 1);
        let same = store(folder.path(), "rustc 1", 1 << 20);
        assert_eq!(
            same.record(ROOT, "1", Owner::Engine, &NONE),
            Some(kept.clone())
        );
        assert_eq!(same.record(ROOT, "1", Owner::Notebook, &NONE), None);
        assert_eq!(same.record("other", "1", Owner::Engine, &NONE), None);
        assert_eq!(same.record(ROOT, "2", Owner::Engine, &NONE), None);
        let other = store(folder.path(), "rustc 2", 1 << 20);
        assert_eq!(other.record(ROOT, "1", Owner::Engine, &NONE), None);
        let number = one.number(ROOT, "1", Owner::Engine);
        assert_eq!(one.generated(number).as_deref(), Some("generated"));
        // Without its artifact it is as if it had never been.
        fs::remove_file(one.artifact(kept.artifact.as_ref().unwrap())).unwrap();
        assert_eq!(same.record(ROOT, "1", Owner::Engine, &NONE), None);
    }

    #[test]
    fn the_least_used_goes() {
        let folder = tempfile::tempdir().unwrap();
        let first = store(folder.path(), "", 3000);
        let records: Vec<Record> = ["a", "b", "c"]
            .map(|source| record(&first, source, 1000))
            .into();
        let path = |record: &Record| first.artifact(record.artifact.as_ref().unwrap());
        let long_ago = SystemTime::now() - 4 * IN_USE;
        for (file, age) in [(0, 3), (1, 1), (2, 2)] {
            let file = File::open(path(&records[file])).unwrap();
            file.set_modified(long_ago - age * IN_USE).unwrap();
        }
        let swept = first.sweep().unwrap();
        let there: Vec<bool> = records.iter().map(|record| path(record).exists()).collect();
        assert_eq!((swept.removed, there), (1, vec![false, true, true]));
        // The use of a record counts.
        assert!(first.record(ROOT, "c", Owner::Engine, &NONE).is_some());
        let third = store(folder.path(), "", 0);
        third.sweep().unwrap();
        assert!(!path(&records[1]).exists());
        assert!(path(&records[2]).exists(), "it was used a moment ago");
        third.sweep_at(SystemTime::now() + 2 * IN_USE).unwrap();
        assert!(!path(&records[2]).exists());
    }

    #[test]
    fn a_way_leads_from_the_root_and_not_in_circles() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), "", 0);
        let keep = |parent: &str, lineage: &str| {
            let step = Step {
                lineage: lineage.to_owned(),
                parent: parent.to_owned(),
                source: format!("to {lineage}"),
                owner: Owner::Engine,
                folder: PathBuf::new(),
                variables: BTreeMap::new(),
                found: Found::default(),
                local_crates: BTreeMap::new(),
            };
            store.keep_step(&step).unwrap();
        };
        keep(ROOT, "a");
        keep("a", "b");
        keep("b", "a");
        let way = |lineage: &str, known: &str| {
            let steps = store.way(lineage, |lineage| lineage == known)?;
            Some(
                steps
                    .into_iter()
                    .map(|step| step.lineage)
                    .collect::<Vec<_>>(),
            )
        };
        assert_eq!(way("b", ""), Some(vec!["a".to_owned(), "b".to_owned()]));
        assert_eq!(way("b", "a"), Some(vec!["b".to_owned()]));
        assert_eq!(way(ROOT, ""), Some(vec![]));
        assert_eq!(way("c", ""), None);
        keep("y", "x");
        keep("x", "y");
        assert_eq!(way("y", ""), None);
        let earlier: Vec<String> = store
            .earlier("b")
            .into_iter()
            .map(|cell| cell.source)
            .collect();
        assert_eq!(earlier, ["to b", "to a"]);
    }

    #[test]
    fn an_old_state_goes() {
        let folder = tempfile::tempdir().unwrap();
        let store = store(folder.path(), "", u64::MAX);
        let step = Step {
            lineage: "a".to_owned(),
            parent: ROOT.to_owned(),
            source: String::new(),
            owner: Owner::Engine,
            folder: PathBuf::new(),
            variables: BTreeMap::new(),
            found: Found::default(),
            local_crates: BTreeMap::new(),
        };
        store.keep_step(&step).unwrap();
        store.sweep_at(SystemTime::now() + STATES_KEPT / 2).unwrap();
        assert_eq!(store.step("a"), Some(step));
        store.sweep_at(SystemTime::now() + 2 * STATES_KEPT).unwrap();
        assert_eq!(store.step("a"), None);
    }
}
