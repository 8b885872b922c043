//! Records what a compile read in addition to its source, to decide whether its result can be used again.
//!
//! rustc's dep-info (`--emit=dep-info`) lists the files that it read (`include_str!`, `include!`, ..) and the environment variables
//! (`env!`, `option_env!`). Results that are kept for other sessions also depend on the toolchain and cargo's configuration.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Resolution of a file system's clock. A file changed within one tick may change again without its times changing.
const CLOCK_TICK: Duration = Duration::from_millis(50);

/// The inputs of a compile and their states.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Inputs {
    /// The state of each file; `None` for a missing one.
    pub(crate) files: BTreeMap<PathBuf, Option<FileState>>,
    /// The value of each environment variable; `None` if it was not set.
    pub(crate) environment: BTreeMap<String, Option<String>>,
}

/// The state of a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FileState {
    /// When it was looked at.
    seen: SystemTime,
    identity: Identity,
    /// SHA-256, in hexadecimal.
    digest: String,
}

/// Metadata that changes with every edit, except for one within a tick of the clock.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Identity {
    device: u64,
    inode: u64,
    length: u64,
    /// Seconds and nanoseconds.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Identity {
    fn of(metadata: &fs::Metadata) -> Identity {
        Identity {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the file may have changed after `time`, or within a clock tick before it.
    fn is_newer_than(&self, time: SystemTime) -> bool {
        let (seconds, nanoseconds) = self.changed;
        let since_epoch = Duration::new(seconds.max(0) as u64, nanoseconds.max(0) as u32);
        UNIX_EPOCH + since_epoch + CLOCK_TICK >= time
    }
}

impl FileState {
    /// Reads the present state of a file; `None` if it is missing.
    pub(crate) fn of(path: &Path) -> io::Result<Option<FileState>> {
        let seen = SystemTime::now();
        let read = || Ok((fs::metadata(path)?, fs::read(path)?));
        match read() {
            Ok((metadata, contents)) => Ok(Some(FileState {
                seen,
                identity: Identity::of(&metadata),
                digest: hex::encode(Sha256::digest(&contents)),
            })),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn holds(&self, path: &Path) -> bool {
        let Ok(metadata) = fs::metadata(path) else {
            return false;
        };
        if Identity::of(&metadata) == self.identity && !self.identity.is_newer_than(self.seen) {
            return true;
        }
        let now = FileState::of(path);
        now.is_ok_and(|now| now.is_some_and(|now| now.digest == self.digest))
    }
}

fn is_missing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
    )
}

impl Inputs {
    /// Reads the dep-info of a compile that began at `began` and ran in `folder`; `own` is its source. `None` if a file has changed since
    /// then, so that its state during the compile is unknown.
    pub(crate) fn of_dep_info(
        dep_info: &str,
        folder: &Path,
        own: &Path,
        began: SystemTime,
    ) -> io::Result<Option<Inputs>> {
        let mut inputs = Inputs::default();
        for line in dep_info.lines() {
            if let Some(variable) = line.strip_prefix("# env-dep:") {
                let (name, value) = match variable.split_once('=') {
                    Some((name, value)) => (name, Some(unescaped(value))),
                    None => (variable, None),
                };
                inputs.environment.insert(unescaped(name), value);
            } else if let Some(file) = line.strip_suffix(':') {
                let path = folder.join(file.replace("\\ ", " "));
                if path == folder.join(own) {
                    continue;
                }
                let state = FileState::of(&path)?;
                match &state {
                    Some(state) if !state.identity.is_newer_than(began) => {}
                    _ => return Ok(None),
                }
                inputs.files.insert(path, state);
            }
        }
        Ok(Some(inputs))
    }

    /// Whether all inputs are unchanged; variables are those of this process, but for these.
    pub(crate) fn hold(&self, variables: &BTreeMap<String, String>) -> bool {
        let variable = |name: &String| match variables.get(name) {
            Some(value) => Some(value.clone()),
            None => std::env::var(name).ok(),
        };
        let same_variables = || {
            let mut environment = self.environment.iter();
            environment.all(|(name, value)| variable(name) == *value)
        };
        let same_file = |(path, state): (&PathBuf, &Option<FileState>)| match state {
            Some(state) => state.holds(path),
            None => matches!(fs::metadata(path), Err(error) if is_missing(&error)),
        };
        same_variables() && self.files.iter().all(same_file)
    }

    /// Adds the inputs of every compile: rustc, and cargo's configuration for a package in `folder`.
    ///
    /// See "Hierarchical structure" in the chapter "Configuration" of the Cargo Book.
    pub(crate) fn add_toolchain(&mut self, rustc: &Path, folder: &Path) -> io::Result<()> {
        let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
        let home = home.or_else(|| Some(dirs::home_dir()?.join(".cargo")));
        // evcxr writes the package's own file, and `folder::Folder` the one above it.
        let above = folder
            .ancestors()
            .skip(2)
            .map(|folder| folder.join(".cargo"));
        let configurations = above
            .chain(home)
            .flat_map(|folder| ["config.toml", "config"].map(|name| folder.join(name)));
        for path in configurations.chain([rustc.to_owned()]) {
            let state = FileState::of(&path)?;
            self.files.entry(path).or_insert(state);
        }
        Ok(())
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Inputs::default()
    }
}

/// The environment variables that configure cargo.
pub(crate) fn cargo_environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .filter(|(name, _)| decides_for_cargo(name))
        .collect()
}

/// Excludes what cargo sets for the programs that it runs.
fn decides_for_cargo(name: &str) -> bool {
    [
        "CARGO_BUILD_",
        "CARGO_PROFILE_",
        "CARGO_TARGET_",
        "CARGO_UNSTABLE_",
    ]
    .iter()
    .any(|prefix| name.starts_with(prefix))
        && name != "CARGO_TARGET_DIR"
        && name != "CARGO_TARGET_TMPDIR"
        || ["CARGO_ENCODED_RUSTFLAGS", "CARGO_INCREMENTAL"].contains(&name)
}

/// Reverses rustc's escapes of line ends and backslashes in dep-info.
fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        plain.push(match c {
            '\\' => match rest.next() {
                Some('n') => '\n',
                Some('r') => '\r',
                Some(other) => other,
                None => '\\',
            },
            c => c,
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dep_info_tells_files_and_variables() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("my data.txt");
        fs::write(&data, "1").unwrap();
        std::thread::sleep(2 * CLOCK_TICK);
        let dep_info = format!(
            "/out/ctx.d: src/lib.rs {0}\n\nsrc/lib.rs:\n{0}:\n\n# env-dep:HOME_OF_NOBODY\n# env-dep:LINES=a\\nb\\\\n\n",
            data.to_string_lossy().replace(' ', "\\ ")
        );
        let read = |began| {
            let own = Path::new("src/lib.rs");
            Inputs::of_dep_info(&dep_info, folder.path(), own, began).unwrap()
        };
        let inputs = read(SystemTime::now()).unwrap();
        assert_eq!(inputs.files.keys().collect::<Vec<_>>(), [&data]);
        assert_eq!(inputs.environment["HOME_OF_NOBODY"], None);
        assert_eq!(inputs.environment["LINES"].as_deref(), Some("a\nb\\n"));
        assert!(!inputs.hold(&BTreeMap::new()), "LINES is not set");
        // What was changed since the compile began it may have read or not.
        fs::write(&data, "2").unwrap();
        assert_eq!(read(SystemTime::now() - Duration::from_secs(1)), None);
        fs::remove_file(&data).unwrap();
        assert_eq!(read(SystemTime::now()), None);
    }

    /// Inputs hold exactly when the files' contents are unchanged, however the files were edited.
    #[test]
    fn no_edit_goes_unseen() {
        let folder = tempfile::tempdir().unwrap();
        let mut random = fastrand::Rng::with_seed(27);
        for round in 0..300 {
            let path = folder.path().join(format!("file {round}"));
            let contents = |random: &mut fastrand::Rng| match random.u8(..3) {
                0 => None,
                _ => Some(random.u8(..3).to_string().repeat(random.usize(1..4))),
            };
            let put = |contents: &Option<String>, random: &mut fastrand::Rng| match contents {
                None => drop(fs::remove_file(&path)),
                Some(text) if random.bool() => fs::write(&path, text).unwrap(),
                // Written elsewhere and renamed, with the times of long ago.
                Some(text) => {
                    let other = path.with_extension("new");
                    fs::write(&other, text).unwrap();
                    let file = fs::File::options().write(true).open(&other).unwrap();
                    file.set_modified(UNIX_EPOCH + Duration::from_secs(1))
                        .unwrap();
                    fs::rename(other, &path).unwrap();
                }
            };
            let before = contents(&mut random);
            put(&before, &mut random);
            if random.u8(..10) == 0 {
                std::thread::sleep(2 * CLOCK_TICK);
            }
            let files = BTreeMap::from([(path.clone(), FileState::of(&path).unwrap())]);
            let inputs = Inputs {
                files,
                ..Inputs::default()
            };
            assert!(inputs.hold(&BTreeMap::new()));
            let after = contents(&mut random);
            put(&after, &mut random);
            assert_eq!(
                inputs.hold(&BTreeMap::new()),
                before == after,
                "{before:?} {after:?}"
            );
        }
    }
}
