//! The folders in which Jupyter looks for kernelspecs. Reads environment variables and, for `--sys-prefix` without an
//! active environment, asks python3; writes nothing.
//!
//! The rules are `jupyter_core.paths`': <https://docs.jupyter.org/en/latest/use/jupyter-directories.html#data-files>.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::KernelspecError;

/// Where to install to, remove from or look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Target {
    /// The user's Jupyter folder: JUPYTER_DATA_DIR, else XDG_DATA_HOME/jupyter, else ~/.local/share/jupyter
    /// (~/Library/Jupyter on macOS).
    #[default]
    User,
    /// The active Python environment: VIRTUAL_ENV, else CONDA_PREFIX, else python3's `sys.prefix`.
    SysPrefix,
    /// `share/jupyter` in this folder.
    Prefix(PathBuf),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::User => f.write_str("--user"),
            Self::SysPrefix => f.write_str("--sys-prefix"),
            Self::Prefix(folder) => write!(f, "--prefix {}", folder.display()),
        }
    }
}

impl Target {
    /// The folder that holds one folder for each kernelspec. It need not exist.
    pub fn kernels_folder(&self) -> Result<PathBuf, KernelspecError> {
        self.kernels_folder_in(&Environment::of_process())
    }

    pub(crate) fn kernels_folder_in(
        &self,
        environment: &Environment<'_>,
    ) -> Result<PathBuf, KernelspecError> {
        let data = match self {
            Self::User => environment.user_data()?,
            Self::SysPrefix => shared(&environment.python_prefix()?),
            Self::Prefix(folder) => shared(folder),
        };
        Ok(data.join("kernels"))
    }

    /// What to say to someone who may not write there.
    pub(crate) fn permission_hint(&self) -> &'static str {
        match self {
            Self::User => {
                "see who owns the folder, or name a folder of your own with --prefix DIR or JUPYTER_DATA_DIR"
            }
            Self::SysPrefix | Self::Prefix(_) => {
                "install for yourself with --user, or choose a folder of your own with --prefix DIR"
            }
        }
    }
}

/// Every kernels folder that a Jupyter started here would search, in its order, each once.
pub fn searched_folders() -> Vec<PathBuf> {
    searched_folders_in(&Environment::of_process())
}

pub(crate) fn searched_folders_in(environment: &Environment<'_>) -> Vec<PathBuf> {
    let mut data: Vec<PathBuf> = environment
        .variable("JUPYTER_PATH")
        .map(|list| std::env::split_paths(&list).collect())
        .unwrap_or_default();
    data.retain(|folder| !folder.as_os_str().is_empty());
    // A missing home or Python is no reason to say nothing about the other folders.
    let user = environment.user_data().ok();
    let python = environment
        .python_prefix()
        .ok()
        .map(|prefix| shared(&prefix));
    // A Jupyter of an active environment looks there before it looks into the user's folder.
    if environment.active_prefix().is_some() {
        data.extend(python.into_iter().chain(user));
    } else {
        data.extend(user.into_iter().chain(python));
    }
    data.extend(["/usr/local/share/jupyter", "/usr/share/jupyter"].map(PathBuf::from));
    let mut folders: Vec<PathBuf> = Vec::new();
    for folder in data.into_iter().map(|data| data.join("kernels")) {
        if !folders.contains(&folder) {
            folders.push(folder);
        }
    }
    folders
}

fn shared(prefix: &Path) -> PathBuf {
    prefix.join("share").join("jupyter")
}

/// The outside facts that decide about folders, as a value so that tests can make one up.
pub(crate) struct Environment<'a> {
    variables: &'a dyn Fn(&str) -> Option<OsString>,
    home: Option<PathBuf>,
    macos: bool,
}

impl Environment<'static> {
    fn of_process() -> Self {
        Self {
            variables: &|name| std::env::var_os(name),
            home: dirs::home_dir(),
            macos: cfg!(target_os = "macos"),
        }
    }
}

impl Environment<'_> {
    /// A variable's value; an empty one counts as unset, as it does for Jupyter.
    fn variable(&self, name: &str) -> Option<OsString> {
        (self.variables)(name).filter(|value| !value.is_empty())
    }

    fn user_data(&self) -> Result<PathBuf, KernelspecError> {
        if let Some(folder) = self.variable("JUPYTER_DATA_DIR") {
            return Ok(folder.into());
        }
        if !self.macos
            && let Some(folder) = self.variable("XDG_DATA_HOME")
        {
            return Ok(PathBuf::from(folder).join("jupyter"));
        }
        let home = self.home.as_ref().ok_or(KernelspecError::NoHome)?;
        Ok(if self.macos {
            home.join("Library").join("Jupyter")
        } else {
            home.join(".local").join("share").join("jupyter")
        })
    }

    fn active_prefix(&self) -> Option<OsString> {
        ["VIRTUAL_ENV", "CONDA_PREFIX"]
            .iter()
            .find_map(|name| self.variable(name))
    }

    fn python_prefix(&self) -> Result<PathBuf, KernelspecError> {
        if let Some(prefix) = self.active_prefix() {
            return Ok(prefix.into());
        }
        let no_python = |reason: String| KernelspecError::NoPython { reason };
        let mut python = Command::new("python3");
        if let Some(path) = self.variable("PATH") {
            python.env("PATH", path);
        }
        let output = python
            .args(["-c", "import sys; print(sys.prefix)"])
            .output()
            .map_err(|error| no_python(format!("python3 cannot be started: {error}")))?;
        let prefix = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if !output.status.success() || prefix.is_empty() {
            let complaint = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return Err(no_python(format!(
                "python3 ended with {}: {complaint}",
                output.status
            )));
        }
        Ok(prefix.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(
        variables: &[(&str, &str)],
        home: Option<&str>,
        macos: bool,
        check: impl FnOnce(&Environment<'_>) -> T,
    ) -> T {
        let lookup = |name: &str| {
            variables
                .iter()
                .find(|(key, _)| *key == name)
                .map(|(_, value)| OsString::from(value))
        };
        check(&Environment {
            variables: &lookup,
            home: home.map(PathBuf::from),
            macos,
        })
    }

    type Case<'a> = (&'a [(&'a str, &'a str)], bool, &'a str);

    #[test]
    fn the_users_folder_follows_jupyters_rules() {
        let cases: &[Case<'_>] = &[
            (&[], false, "/h/.local/share/jupyter/kernels"),
            (&[], true, "/h/Library/Jupyter/kernels"),
            (&[("XDG_DATA_HOME", "/x")], false, "/x/jupyter/kernels"),
            (
                &[("XDG_DATA_HOME", "")],
                false,
                "/h/.local/share/jupyter/kernels",
            ),
            (
                &[("XDG_DATA_HOME", "/x")],
                true,
                "/h/Library/Jupyter/kernels",
            ),
            (
                &[("XDG_DATA_HOME", "/x"), ("JUPYTER_DATA_DIR", "/d")],
                false,
                "/d/kernels",
            ),
        ];
        for (variables, macos, expected) in cases {
            let folder = with(variables, Some("/h"), *macos, |e| {
                Target::User.kernels_folder_in(e)
            });
            assert_eq!(folder.unwrap(), Path::new(expected), "{variables:?}");
        }
    }

    #[test]
    fn without_a_home_the_error_says_what_to_set() {
        let error = with(&[], None, false, |e| Target::User.kernels_folder_in(e)).unwrap_err();
        assert!(matches!(error, KernelspecError::NoHome));
        assert!(error.to_string().contains("JUPYTER_DATA_DIR"));
    }

    #[test]
    fn an_active_environment_is_the_sys_prefix() {
        for (variables, expected) in [
            (
                [("VIRTUAL_ENV", "/v"), ("CONDA_PREFIX", "/c")],
                "/v/share/jupyter/kernels",
            ),
            (
                [("VIRTUAL_ENV", ""), ("CONDA_PREFIX", "/c")],
                "/c/share/jupyter/kernels",
            ),
        ] {
            let folder = with(&variables, None, false, |e| {
                Target::SysPrefix.kernels_folder_in(e)
            });
            assert_eq!(folder.unwrap(), Path::new(expected));
        }
    }

    #[test]
    fn without_python_the_error_names_the_alternatives() {
        let _guard = crate::STARTING_PROGRAMS.lock();
        let error = with(&[("PATH", "/nonexistent")], None, false, |e| {
            Target::SysPrefix.kernels_folder_in(e)
        })
        .unwrap_err();
        assert!(
            matches!(error, KernelspecError::NoPython { .. }),
            "{error:?}"
        );
        assert!(error.to_string().contains("--prefix DIR"), "{error}");
    }

    #[test]
    fn a_prefix_gets_share_jupyter_kernels() {
        let folder = Target::Prefix("/p".into()).kernels_folder().unwrap();
        assert_eq!(folder, Path::new("/p/share/jupyter/kernels"));
    }

    #[test]
    fn every_folder_is_searched_once_in_jupyters_order() {
        let variables = [
            ("JUPYTER_PATH", "/a:/b:/a"),
            ("JUPYTER_DATA_DIR", "/user"),
            ("VIRTUAL_ENV", "/usr/local"),
        ];
        let folders = with(&variables, Some("/h"), false, searched_folders_in);
        let expected = [
            "/a/kernels",
            "/b/kernels",
            "/usr/local/share/jupyter/kernels",
            "/user/kernels",
            "/usr/share/jupyter/kernels",
        ];
        assert_eq!(folders, expected.map(PathBuf::from));
    }
}
