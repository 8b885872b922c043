//! What the compiler is doing, in a line for people who wait for it.

use crate::statements::adds_dependencies;
use crate::toolchain::{Process, own_cargos, processes, with_descendants};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The package of evcxr's crate, and of the one that has our crates compiled.
const SNIPPET: &str = "ctx";

/// A compiler's present activity. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Activity(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    /// `None` while the compiler has nothing to do.
    phase: Option<Phase>,
    /// Whether rust-analyzer has read the standard library.
    is_warm: bool,
    /// Whether it has none to read yet.
    has_hidden_std: bool,
    /// Whether evcxr was brought to other dependencies.
    has_moved: bool,
    /// What the build that was seen last consists of.
    build: Option<Build>,
}

/// What the compiler's own thread is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// evcxr starts.
    Start,
    /// rust-analyzer reads the standard library.
    StandardLibrary,
    /// A snippet is compiled.
    Snippet,
    /// A snippet is compiled that changes the dependencies, which rust-analyzer then reads.
    Dependencies,
}

impl Phase {
    /// The phase in which a snippet is compiled.
    pub(crate) fn of(snippet: &str) -> Phase {
        match adds_dependencies(snippet) {
            true => Phase::Dependencies,
            false => Phase::Snippet,
        }
    }
}

/// Goes back to the phase before when it is dropped.
#[derive(Debug)]
pub(crate) struct During {
    activity: Activity,
    before: Option<Phase>,
}

impl Drop for During {
    fn drop(&mut self) {
        self.activity.state().phase = self.before;
    }
}

impl Activity {
    /// The compiler is at this phase until the guard is dropped.
    #[must_use]
    pub(crate) fn enter(&self, phase: Phase) -> During {
        During {
            before: self.state().phase.replace(phase),
            activity: self.clone(),
        }
    }

    /// What is compiled now changes the dependencies.
    pub(crate) fn note_dependencies(&self) {
        self.state().phase = Some(Phase::Dependencies);
    }

    /// evcxr is brought from one namespace's dependencies to another's.
    pub(crate) fn note_move(&self) {
        self.state().has_moved = true;
    }

    /// Whether that was so since this was asked last.
    pub(crate) fn take_move(&self) -> bool {
        std::mem::take(&mut self.state().has_moved)
    }

    /// rust-analyzer has been asked for types.
    pub(crate) fn note_types(&self) {
        self.state().is_warm = true;
    }

    /// rust-analyzer has no standard library to read, or has it from now on.
    pub(crate) fn note_hidden_std(&self, is_hidden: bool) {
        self.state().has_hidden_std = is_hidden;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the compiler is doing now, such as `compiling plotters (12 of 40)`; `None` if nothing. Reads `/proc`, which takes some
    /// milliseconds.
    pub(crate) fn line(&self) -> Option<String> {
        let phase = self.state().phase?;
        let fixed = match phase {
            Phase::Start => "starting the compiler",
            Phase::StandardLibrary => "reading the standard library",
            Phase::Snippet | Phase::Dependencies => {
                let build = self.build(phase);
                return Some(build.unwrap_or_else(|| self.in_process(phase).to_owned()));
            }
        };
        Some(fixed.to_owned())
    }

    /// What the cargo that this process has started is doing.
    fn build(&self, phase: Phase) -> Option<String> {
        let processes = processes();
        let (cargo, arguments) = own_cargos(&processes).find_map(|cargo| {
            let arguments = arguments(cargo);
            let builds = ["build", "check", "metadata"]
                .iter()
                .any(|name| arguments.iter().any(|argument| argument == name));
            builds.then_some((cargo, arguments))
        })?;
        let packages = packages(&processes, cargo);
        let is_ours = |package: &str| package == SNIPPET || package.starts_with("chorus_");
        let Some(package) = packages.iter().find(|package| !is_ours(package)) else {
            let resolves = phase == Phase::Dependencies && packages.is_empty();
            return Some(match resolves {
                true => "resolving dependencies".to_owned(),
                false => "compiling the cell".to_owned(),
            });
        };
        let count = self.count(cargo, &arguments);
        Some(format!("compiling {package}{}", count.unwrap_or_default()))
    }

    /// What happens in this process while no cargo runs.
    fn in_process(&self, phase: Phase) -> &'static str {
        let (is_warm, has_hidden_std) = {
            let state = self.state();
            (state.is_warm, state.has_hidden_std)
        };
        match phase {
            Phase::Dependencies if has_hidden_std => "reading the dependencies",
            _ if has_hidden_std => "compiling the cell",
            _ if !is_warm => "reading the standard library",
            Phase::Dependencies => "reading the dependencies",
            _ => "inferring types",
        }
    }

    /// How far a build has come, as ` (12 of 40)`; `None` as long as it isn't known.
    fn count(&self, cargo: u32, arguments: &[OsString]) -> Option<String> {
        let mut state = self.state();
        if state
            .build
            .as_ref()
            .is_none_or(|build| build.cargo != cargo)
        {
            state.build = Build::of(cargo, arguments);
            if let Some(build) = state.build.clone() {
                drop(state);
                let activity = self.clone();
                std::thread::spawn(move || activity.list(build));
            }
            return None;
        }
        let build = state.build.as_mut()?;
        let libraries = build.libraries.as_ref()?;
        let total: usize = libraries.values().sum();
        // rustc removes a library that it compiles again.
        build.done = build.done.max(done(libraries, &build.compiled()));
        Some(format!(" ({} of {total})", (build.done + 1).min(total)))
    }

    /// Finds out which libraries a build consists of.
    fn list(&self, mut build: Build) {
        build.libraries = build.tree();
        let mut state = self.state();
        if state
            .build
            .as_ref()
            .is_some_and(|now| now.cargo == build.cargo)
        {
            state.build = Some(build);
        }
    }
}

/// A run of cargo.
#[derive(Clone, Debug)]
struct Build {
    /// Its process.
    cargo: u32,
    program: PathBuf,
    folder: PathBuf,
    environment: HashMap<OsString, OsString>,
    target: Option<OsString>,
    /// How many versions of each library are compiled; `None` as long as it isn't known.
    libraries: Option<BTreeMap<String, usize>>,
    /// How many of them have been seen to be there.
    done: usize,
}

impl Build {
    fn of(cargo: u32, arguments: &[OsString]) -> Option<Build> {
        let process = PathBuf::from(format!("/proc/{cargo}"));
        let mut after_target = arguments.iter().skip_while(|it| *it != "--target").skip(1);
        Some(Build {
            cargo,
            program: fs::read_link(process.join("exe")).ok()?,
            folder: fs::read_link(process.join("cwd")).ok()?,
            environment: environment(cargo),
            target: after_target.next().cloned(),
            libraries: None,
            done: 0,
        })
    }

    /// Asks cargo for the libraries.
    fn tree(&self) -> Option<BTreeMap<String, usize>> {
        let mut command = Command::new(&self.program);
        command
            .args(["tree", "--frozen", "--edges", "normal,build"])
            .args(["--prefix", "none", "--format", "{lib} {p}"])
            .current_dir(&self.folder)
            .env_clear()
            .envs(&self.environment)
            .stdin(Stdio::null());
        if let Some(target) = &self.target {
            command.arg("--target").arg(target);
        }
        let output = command.output().ok()?;
        let listed = String::from_utf8(output.stdout).ok()?;
        output.status.success().then(|| libraries(&listed))
    }

    /// The compiled libraries there are.
    fn compiled(&self) -> Vec<String> {
        let target = self.environment.get(OsStr::new("CARGO_TARGET_DIR"));
        let target = self
            .folder
            .join(target.map_or(Path::new("target"), Path::new));
        let of_target = self.target.iter().map(|name| target.join(name));
        let mut found = Vec::new();
        for folder in of_target.chain([target.clone()]) {
            let entries = fs::read_dir(folder.join("debug").join("deps"));
            let names = entries.into_iter().flatten().flatten();
            found.extend(names.filter_map(|entry| entry.file_name().into_string().ok()));
        }
        found
    }
}

/// The libraries in what `cargo tree` prints, each with the number of its versions. A package is listed once for each use.
fn libraries(listed: &str) -> BTreeMap<String, usize> {
    let lines: BTreeSet<&str> = listed
        .lines()
        .map(|line| line.trim_end_matches(" (*)"))
        .collect();
    let mut libraries = BTreeMap::new();
    for name in lines.iter().filter_map(|line| line.split(' ').next()) {
        if !name.is_empty() && name != SNIPPET {
            *libraries.entry(name.to_owned()).or_default() += 1;
        }
    }
    libraries
}

/// How many libraries of a build are among these files.
fn done(libraries: &BTreeMap<String, usize>, files: &[String]) -> usize {
    let mut found: BTreeMap<&str, usize> = BTreeMap::new();
    for file in files {
        let stem = file.strip_suffix(".rlib").or(file.strip_suffix(".so"));
        let name = stem.and_then(|stem| stem.strip_prefix("lib")?.rsplit_once('-'));
        if let Some((name, _)) = name {
            *found.entry(name).or_default() += 1;
        }
    }
    libraries
        .iter()
        .map(|(name, versions)| {
            found
                .get(name.as_str())
                .map_or(0, |count| *count.min(versions))
        })
        .sum()
}

/// The packages that processes below `cargo` are compiling, the one that began first at the head.
fn packages(processes: &[Process], cargo: u32) -> Vec<String> {
    let mut found = Vec::new();
    for id in with_descendants(processes, vec![cargo]).into_iter().skip(1) {
        let package = environment(id).remove(OsStr::new("CARGO_PKG_NAME"));
        if let Some(package) = package.and_then(|name| name.into_string().ok())
            && !found.contains(&package)
        {
            found.push(package);
        }
    }
    found
}

/// A process's arguments.
fn arguments(id: u32) -> Vec<OsString> {
    parts(id, "cmdline")
}

/// A process's environment.
fn environment(id: u32) -> HashMap<OsString, OsString> {
    let variables = parts(id, "environ").into_iter().filter_map(|variable| {
        let bytes = variable.into_vec();
        let at = bytes.iter().position(|byte| *byte == b'=')?;
        let (name, value) = bytes.split_at(at);
        Some((
            OsString::from_vec(name.to_vec()),
            OsString::from_vec(value[1..].to_vec()),
        ))
    });
    variables.collect()
}

/// The texts in one of a process's files in `/proc`; none when it has ended.
fn parts(id: u32, file: &str) -> Vec<OsString> {
    let bytes = fs::read(format!("/proc/{id}/{file}")).unwrap_or_default();
    let parts = bytes
        .split(|byte| *byte == 0)
        .filter(|part| !part.is_empty());
    parts
        .map(|part| OsString::from_vec(part.to_vec()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_is_at_the_innermost_phase() {
        let activity = Activity::default();
        let line = || activity.line();
        assert_eq!(line(), None);
        let outer = activity.enter(Phase::Dependencies);
        assert_eq!(line().as_deref(), Some("reading the standard library"));
        let inner = activity.clone().enter(Phase::StandardLibrary);
        assert_eq!(line().as_deref(), Some("reading the standard library"));
        drop(inner);
        activity.note_types();
        assert_eq!(line().as_deref(), Some("reading the dependencies"));
        drop(outer);
        assert_eq!(line(), None);
    }

    #[test]
    fn a_library_counts_once_for_each_version() {
        let listed = "ctx ctx v1.0.0 (/tmp/x)\nserde serde v1.0.2\nserde_derive serde_derive v1.0.2 (proc-macro)\n\
                      syn syn v2.0.1\nsyn syn v1.0.9\nsyn syn v2.0.1 (*)\n";
        let libraries = libraries(listed);
        assert_eq!(
            libraries,
            [("serde", 1), ("serde_derive", 1), ("syn", 2)]
                .map(|(name, versions)| (name.to_owned(), versions))
                .into()
        );
        for (files, expected) in [
            (&[][..], 0),
            (&["libserde-0a.rmeta", "serde-0a.d"], 0),
            (&["libserde-0a.rlib", "libserde-0b.rlib"], 1),
            (&["libserde_derive-0c.so", "libsyn-0d.rlib"], 2),
            (&["libsyn-0d.rlib", "libsyn-0e.rlib", "libother-0f.rlib"], 2),
        ] {
            let files: Vec<String> = files.iter().map(|file| (*file).to_owned()).collect();
            assert_eq!(done(&libraries, &files), expected, "{files:?}");
        }
    }
}
