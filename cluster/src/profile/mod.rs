//! Profiles: a folder each, with the settings that people edit and the files that belong to the clusters run with them.
//!
//! ```text
//! <data>/chorus/profiles/NAME/profile.toml      settings
//!                            security/          0700: connection files
//!                            log/               what the processes have to say
//!                            cluster[-ID].json  the processes of a cluster that runs in the background
//! ```

mod settings;

use std::fs;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub use settings::{
    Engines, HeartbeatSettings, HighWaterMark, Limits, Network, SchedulerSettings, Scheme,
    Settings, TEMPLATE, TransportSetting,
};

use crate::Error;
use crate::connection::Paths;

pub use protocol::cluster::DEFAULT_PROFILE as DEFAULT;

/// A profile's folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Profile {
    name: String,
    folder: PathBuf,
}

impl Profile {
    /// The profile `name` under the user's data folder, whether or not it exists.
    ///
    /// # Errors
    /// When the name cannot be a folder's, or the user has no data folder.
    pub fn named(name: &str) -> Result<Self, Error> {
        Self::under(&root()?, name)
    }

    /// The profile `name` in the folder `root`.
    ///
    /// # Errors
    /// When the name cannot be a folder's.
    pub fn under(root: &Path, name: &str) -> Result<Self, Error> {
        check_name(name)?;
        Ok(Self {
            name: name.to_owned(),
            folder: root.join(name),
        })
    }

    /// The profile in this folder, wherever that is.
    pub fn at(folder: &Path) -> Self {
        let name = folder.file_name().unwrap_or_default();
        Self {
            name: name.to_string_lossy().into_owned(),
            folder: folder.to_owned(),
        }
    }

    /// Creates the profile, with a settings file that explains itself; gives that file's path.
    ///
    /// # Errors
    /// When it exists, or the folder cannot be written.
    pub fn create(&self) -> Result<PathBuf, Error> {
        let path = self.settings_path();
        if path.exists() {
            return Err(Error::ProfileExists {
                name: self.name.clone(),
                path,
            });
        }
        self.make_folders()?;
        fs::write(&path, TEMPLATE).map_err(Error::file("write", &path))?;
        Ok(path)
    }

    /// Makes the folders that a cluster needs, those with keys in them for their owner only.
    ///
    /// # Errors
    /// When they cannot be made.
    pub fn make_folders(&self) -> Result<(), Error> {
        private_folder(&self.folder)?;
        private_folder(&self.security())?;
        private_folder(&self.log())
    }

    /// Its settings. The default profile has settings even if it was not created.
    ///
    /// # Errors
    /// When it does not exist, or its file has a mistake.
    pub fn settings(&self) -> Result<Settings, Error> {
        let path = self.settings_path();
        match fs::read_to_string(&path) {
            Ok(text) => Settings::parse(&text).map_err(|reason| Error::Settings { path, reason }),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                if self.name == DEFAULT {
                    return Ok(Settings::default());
                }
                Err(Error::NoProfile {
                    name: self.name.clone(),
                    path: self.folder.clone(),
                })
            }
            Err(error) => Err(Error::file("read", path)(error)),
        }
    }

    /// What `profile show` prints: the file as it is, or the template when there is none.
    ///
    /// # Errors
    /// As [`Self::settings`].
    pub fn show(&self) -> Result<String, Error> {
        self.settings()?;
        Ok(fs::read_to_string(self.settings_path()).unwrap_or_else(|_| TEMPLATE.to_owned()))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file that people edit.
    pub fn settings_path(&self) -> PathBuf {
        self.folder.join("profile.toml")
    }

    /// Where connection files are.
    pub fn security(&self) -> PathBuf {
        protocol::cluster::security(&self.folder)
    }

    /// Where processes log to.
    pub fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// The connection files of one of its clusters; the id is empty for its only one.
    ///
    /// # Errors
    /// When the id cannot be part of a file's name.
    pub fn connection_files(&self, cluster_id: &str) -> Result<Paths, Error> {
        if !cluster_id.is_empty() {
            check_name(cluster_id)?;
        }
        Ok(Paths::new(&self.security(), cluster_id))
    }
}

/// The folder with all profiles.
///
/// # Errors
/// When the user has no data folder.
pub fn root() -> Result<PathBuf, Error> {
    protocol::cluster::profiles().ok_or_else(|| Error::System {
        doing: "find a folder for profiles: set HOME or XDG_DATA_HOME",
        source: std::io::ErrorKind::NotFound.into(),
    })
}

/// All profiles in `root` that have a folder, and the default one, by name.
///
/// # Errors
/// When the folder cannot be read.
pub fn list(root: &Path) -> Result<Vec<Profile>, Error> {
    let mut profiles = vec![Profile::under(root, DEFAULT)?];
    let entries = match fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(profiles),
        Err(error) => return Err(Error::file("read", root)(error)),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        if entry.path().is_dir()
            && let Some(name) = name.to_str()
            && name != DEFAULT
            && let Ok(profile) = Profile::under(root, name)
        {
            profiles.push(profile);
        }
    }
    profiles.sort_by(|one, two| one.name.cmp(&two.name));
    Ok(profiles)
}

/// Whether a name can be part of a file's name and of a command line without surprises.
pub(crate) fn check_name(name: &str) -> Result<(), Error> {
    let good = !name.is_empty()
        && name.len() <= 64
        && !name.starts_with(['.', '-'])
        && name
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'));
    if good {
        Ok(())
    } else {
        Err(Error::Name {
            name: name.to_owned(),
        })
    }
}

/// Makes sure that a folder is there, for its owner only.
pub(crate) fn private_folder(path: &Path) -> Result<(), Error> {
    let make = || -> std::io::Result<()> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
    };
    make().map_err(Error::file("make the folder", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_created_listed_and_read() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path().join("profiles");
        let profile = Profile::under(&root, "big").unwrap();
        assert!(matches!(profile.settings(), Err(Error::NoProfile { .. })));
        let path = profile.create().unwrap();
        assert!(matches!(profile.create(), Err(Error::ProfileExists { .. })));
        assert_eq!(profile.settings().unwrap(), Settings::default());
        assert_eq!(
            fs::metadata(profile.security())
                .unwrap()
                .permissions()
                .mode()
                & 0o777,
            0o700
        );
        let names: Vec<_> = list(&root).unwrap();
        let names: Vec<_> = names.iter().map(Profile::name).collect();
        assert_eq!(names, ["big", "default"]);

        fs::write(&path, "[engines]\ncount = 3\ncuont = 4\n").unwrap();
        let error = profile.settings().unwrap_err().to_string();
        assert!(
            error.contains("cuont") && error.contains("line 3"),
            "{error}"
        );
    }

    #[test]
    fn the_default_profile_needs_no_file() {
        let root = tempfile::tempdir().unwrap();
        let profile = Profile::under(root.path(), DEFAULT).unwrap();
        assert_eq!(profile.settings().unwrap(), Settings::default());
        assert_eq!(profile.show().unwrap(), TEMPLATE);
    }

    #[test]
    fn names_that_would_be_paths_or_options_are_refused() {
        for name in ["", "..", "a/b", "-n", "a b", ".hidden", "\u{e4}"] {
            assert!(Profile::under(Path::new("/p"), name).is_err(), "{name:?}");
        }
        let profile = Profile::under(Path::new("/p"), "a").unwrap();
        assert!(profile.connection_files("").is_ok());
        assert!(profile.connection_files("../x").is_err());
    }
}
