//! The crates that every cell may use without asking for them: `chorus` and `serde`.
//!
//! They are compiled once for each version of Chorus and of rustc, into the cache ([`build`]); after that nothing needs the network. rustc is
//! told of them by the wrapper, and only for sources that name them ([`Externs`]): cargo has nothing to resolve, and cells that don't
//! use them are compiled as ever. rust-analyzer, from which evcxr has the types of variables, is shown signposts ([`files`]) once a
//! notebook has named one of them.
//!
//! A notebook with dependencies of its own is another case. They may use serde as well, and there must be one serde for all. There both
//! crates are ordinary dependencies, which cargo resolves together with the others. cargo finds them compiled ([`Crates::seed`]), by the
//! same profile, so that their types stay what they were. Features that they add to serde or libc later would have all that use these compiled
//! again, and their types would be others. So an empty crate with the same dependencies is added with the first dependency.

mod build;
mod files;
mod mention;
mod versions;

use crate::toolchain;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

pub use build::CratesError;
pub(crate) use files::{PROFILE, SIGNPOST};
pub(crate) use mention::{Mentioned, mentioned, words};

/// The crate `chorus` as it goes with this program.
#[derive(Clone, Copy, Debug)]
pub struct Sources {
    /// The files of its folder `src`: path and text.
    pub files: &'static [(&'static str, &'static str)],
    /// The versions of what it depends on, as a lock file.
    pub lock: &'static str,
}

/// Where rustc finds the compiled crates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Externs {
    pub(crate) chorus: PathBuf,
    pub(crate) serde: PathBuf,
    /// What they depend on.
    pub(crate) folder: PathBuf,
}

/// The crates of this program for one rustc; cheap to make.
#[derive(Clone, Debug)]
pub struct Crates {
    sources: Sources,
    rustc: PathBuf,
}

impl Crates {
    /// The crates for `rustc`.
    pub fn new(sources: Sources, rustc: PathBuf) -> Crates {
        Crates { sources, rustc }
    }

    /// Returns where they are, if they have been compiled.
    pub fn find(&self) -> Result<Option<Externs>, CratesError> {
        Ok(build::find(&self.home(&self.version()?)))
    }

    /// Returns where they are, compiling them if that has not been done.
    pub fn ensure(&self) -> Result<Externs, CratesError> {
        let version = self.version()?;
        let home = self.home(&version);
        match build::find(&home) {
            Some(externs) => Ok(externs),
            None => build::build(&self.sources, &self.rustc, &version, &home),
        }
    }

    /// What `rustc -vV` says.
    fn version(&self) -> Result<String, CratesError> {
        toolchain::version(&self.rustc).map_err(|source| CratesError::Run {
            program: self.rustc.clone(),
            source,
        })
    }

    fn home(&self, version: &str) -> PathBuf {
        let name = &self.identity(version)[..16];
        crate::folder::cache().join("crates").join(name)
    }

    /// All that decides what they are compiled to.
    pub(crate) fn identity(&self, version: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(version);
        for (path, text) in files::all(&self.sources) {
            for part in [path.as_os_str().as_encoded_bytes(), text.as_bytes()] {
                hash.update(part.len().to_le_bytes());
                hash.update(part);
            }
        }
        hex::encode(hash.finalize())
    }

    /// What evcxr's crate is to depend on so that `mentioned` crates are known to rust-analyzer, and to cargo if need be: name and
    /// configuration of each that is not among `present` already. Those that are the user's own stay as they are.
    pub(crate) fn wanted(
        &self,
        mentioned: Mentioned,
        present: &Dependencies,
    ) -> Result<Vec<(&'static str, String)>, CratesError> {
        let own = |name: &str| present.own.contains_key(name);
        let is_named =
            present.are_ours(mentioned) || present.ours.iter().any(|(name, _)| name == "chorus");
        let mut all = Vec::new();
        if present.own.is_empty() {
            if is_named {
                all.extend(files::signposts(&self.files()?));
            }
        } else {
            if is_named {
                all.push(files::chorus(&self.files()?));
            }
            if is_named || !present.has_another_serde() {
                all.push(files::features(&self.files()?));
                all.push(files::serde());
            }
        }
        let wanted = all.into_iter().filter(|(name, config)| {
            !own(name) && !present.ours.contains(&(name.to_string(), config.clone()))
        });
        Ok(wanted.collect())
    }

    /// Gives a session's folder what cargo has made of the crates, and the versions that it has made it of, so that it finds its work done. Those
    /// that were chosen for a user's own dependencies stay. cargo compiles again what depends on anything that was compiled later: so the first time is
    /// to be before it compiles others.
    pub(crate) fn seed(&self, folder: &Path) -> Result<(), CratesError> {
        let home = self.home(&self.version()?);
        build::seed(&home, folder, &self.sources).map_err(|source| CratesError::Folder {
            folder: folder.to_owned(),
            source,
        })
    }

    /// The folder of the crates' files, written if need be. It takes no network.
    fn files(&self) -> Result<PathBuf, CratesError> {
        let folder = self.home(&self.version()?).join("files");
        files::write(&self.sources, &folder).map_err(|source| CratesError::Folder {
            folder: folder.clone(),
            source,
        })?;
        Ok(folder)
    }
}

/// What evcxr's crate depends on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dependencies {
    /// Those that a user has asked for: name, as rustc knows it, and configuration.
    pub(crate) own: BTreeMap<String, String>,
    /// Ours: name and configuration.
    pub(crate) ours: BTreeSet<(String, String)>,
}

impl Dependencies {
    /// Whether a crate that is mentioned is not one of the user's own.
    pub(crate) fn are_ours(&self, mentioned: Mentioned) -> bool {
        mentioned.any_but(|name| self.own.contains_key(name))
    }

    /// Whether the user has another crate of the name `serde`.
    fn has_another_serde(&self) -> bool {
        let config = self.own.get("serde");
        config.is_some_and(|config| config.contains("path") || config.contains("git"))
    }

    /// Takes in a dependency as a manifest has it: `name = configuration`.
    pub(crate) fn add(&mut self, name: &str, config: &str) {
        let config = config.trim();
        let is_ours = ["chorus", "serde", files::FEATURES].contains(&name)
            && (config.contains(SIGNPOST) || is_in(config, &crate::folder::cache().join("crates")));
        if is_ours || name == "serde" && config == files::SERDE_ITSELF {
            self.ours.retain(|(other, _)| other != name);
            self.ours.insert((name.to_owned(), config.to_owned()));
        } else {
            self.own.insert(name.replace('-', "_"), config.to_owned());
        }
    }
}

fn is_in(config: &str, folder: &Path) -> bool {
    config.contains(&*folder.to_string_lossy())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_users_own_dependencies_are_told_from_ours() {
        let mut found = Dependencies::default();
        for (name, config) in files::signposts(Path::new("/cache")) {
            found.add(name, &config);
        }
        assert!(found.own.is_empty());
        found.add("serde", files::SERDE_ITSELF);
        assert!(found.own.is_empty());
        found.add("serde-json", "\"1\"");
        found.add("serde", "\"1\"");
        let own: Vec<(&str, &str)> = found
            .own
            .iter()
            .map(|(name, config)| (&**name, &**config))
            .collect();
        assert_eq!(own, [("serde", "\"1\""), ("serde_json", "\"1\"")]);
        assert!(!found.has_another_serde());
        found.add("serde", "{ path = \"/mine\" }");
        assert!(found.has_another_serde());
    }
}
