//! Putting a kernelspec where Jupyter finds it, taking it away, and telling what is there.

use std::fmt;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::place::searched_folders;
use crate::spec::{LOGOS, folder_name};
use crate::{DEFAULT_DISPLAY_NAME, DEFAULT_NAME, KernelspecError, Spec, Target};

/// What to install and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstallOptions {
    /// Where it goes.
    pub target: Target,
    /// The kernelspec's name, which notebooks record.
    pub name: String,
    /// The name that the launcher shows.
    pub display_name: String,
    /// The `chorus` program; a relative path is taken from the current directory.
    pub executable: PathBuf,
}

impl InstallOptions {
    /// The user's folder and the default names for this `executable`.
    pub fn new(executable: impl Into<PathBuf>) -> Self {
        Self {
            target: Target::default(),
            name: DEFAULT_NAME.to_owned(),
            display_name: DEFAULT_DISPLAY_NAME.to_owned(),
            executable: executable.into(),
        }
    }
}

/// A kernelspec that [`show`] found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Installed {
    /// The kernelspec's folder.
    pub folder: PathBuf,
    /// Its kernel.json.
    pub spec: Spec,
    /// Whether the program that it starts exists.
    pub program_exists: bool,
}

impl fmt::Display for Installed {
    /// The folder, the specification as JSON, and a warning if its program is gone.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.folder.display())?;
        let json = serde_json::to_string_pretty(&self.spec).map_err(|_| fmt::Error)?;
        write!(f, "{json}")?;
        if !self.program_exists {
            write!(
                f,
                "\nwarning: {} does not exist; run `chorus kernelspec install` again",
                self.spec.program().unwrap_or("its program")
            )?;
        }
        Ok(())
    }
}

/// Install a kernelspec and return its folder. An older one of ours with the same name is replaced as a whole.
///
/// The files are written to a folder beside the destination, which then takes its place by a rename: no Jupyter that
/// looks meanwhile sees half of it. Errs if the name or the program will not do, if the name is another kernel's, or if a file
/// cannot be written; then nothing has changed.
pub fn install(options: &InstallOptions) -> Result<PathBuf, KernelspecError> {
    let name = folder_name(&options.name)?;
    let program = absolute_program(&options.executable)?;
    let spec = Spec::new(&program, &options.display_name);
    let kernels = options.target.kernels_folder()?;
    let folder = kernels.join(&name);
    let hint = options.target.permission_hint();
    let io = |action, path: &Path| {
        let path = path.to_owned();
        move |source| KernelspecError::from_io(action, path, hint, source)
    };

    refuse_others(&folder, &name)?;
    fs::create_dir_all(&kernels).map_err(io("create", &kernels))?;
    // `~` is not allowed in a kernelspec's name, so Jupyter does not list this folder.
    let staging = tempfile::Builder::new()
        .prefix("~chorus-")
        .tempdir_in(&kernels)
        .map_err(io("create a folder in", &kernels))?;
    let fresh = staging.path().join("new");
    fs::create_dir(&fresh).map_err(io("create", &fresh))?;
    let json = serde_json::to_vec_pretty(&spec).map_err(|error| KernelspecError::Io {
        action: "write",
        path: fresh.join("kernel.json"),
        source: error.into(),
    })?;
    let files = LOGOS
        .iter()
        .map(|&(file, bytes)| (file, bytes))
        .chain([("kernel.json", json.as_slice())]);
    for (file, bytes) in files {
        let path = fresh.join(file);
        fs::write(&path, bytes).map_err(io("write", &path))?;
    }

    let old = staging.path().join("old");
    let replaced = match fs::rename(&folder, &old) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(io("replace", &folder)(error)),
    };
    if let Err(error) = fs::rename(&fresh, &folder) {
        if replaced {
            // The first error is the one to tell; if this fails too, the old files go with `staging`.
            let _ = fs::rename(&old, &folder);
        }
        return Err(io("create", &folder)(error));
    }
    Ok(folder)
}

/// Remove a kernelspec of ours and return the folder it had.
///
/// Errs with [`KernelspecError::NotInstalled`] if there is none and with [`KernelspecError::NotOurs`] if the name belongs to another kernel.
pub fn uninstall(target: &Target, name: &str) -> Result<PathBuf, KernelspecError> {
    let name = folder_name(name)?;
    let folder = target.kernels_folder()?.join(&name);
    refuse_others(&folder, &name)?;
    match fs::remove_dir_all(&folder) {
        Ok(()) => Ok(folder),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            Err(KernelspecError::NotInstalled { folder })
        }
        Err(error) => Err(KernelspecError::from_io(
            "remove",
            folder,
            target.permission_hint(),
            error,
        )),
    }
}

/// The kernelspecs called `name`: at `target`, or with `None` in every folder that Jupyter searches, the one it would
/// use first. Empty if there are none.
pub fn show(target: Option<&Target>, name: &str) -> Result<Vec<Installed>, KernelspecError> {
    let name = folder_name(name)?;
    let kernels = match target {
        Some(target) => vec![target.kernels_folder()?],
        None => searched_folders(),
    };
    let mut found = Vec::new();
    for folder in kernels.into_iter().map(|kernels| kernels.join(&name)) {
        if let Some(spec) = read(&folder)? {
            let program_exists = spec
                .program()
                .is_some_and(|program| Path::new(program).is_file());
            found.push(Installed {
                folder,
                spec,
                program_exists,
            });
        }
    }
    Ok(found)
}

/// The specification in a kernelspec's folder; `None` if there is no kernel.json.
fn read(folder: &Path) -> Result<Option<Spec>, KernelspecError> {
    let path = folder.join("kernel.json");
    match fs::read(&path) {
        Ok(bytes) => serde_json::from_slice(&bytes)
            .map(Some)
            .map_err(|source| KernelspecError::Unreadable { path, source }),
        Err(error)
            if matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory
            ) =>
        {
            Ok(None)
        }
        Err(error) => Err(KernelspecError::from_io(
            "read",
            path,
            "see who owns the file",
            error,
        )),
    }
}

/// Err if `folder` holds another kernel's specification. A broken one may be replaced.
fn refuse_others(folder: &Path, name: &str) -> Result<(), KernelspecError> {
    match read(folder) {
        Ok(Some(spec)) if !spec.is_ours() => Err(KernelspecError::NotOurs {
            folder: folder.to_owned(),
            name: name.to_owned(),
        }),
        Ok(_) | Err(KernelspecError::Unreadable { .. }) => Ok(()),
        Err(error) => Err(error),
    }
}

/// The program as kernel.json names it: absolute (a kernel starts in any directory), symbolic links kept (they outlive
/// an upgrade of what they point to).
fn absolute_program(path: &Path) -> Result<String, KernelspecError> {
    if !path.is_file() {
        return Err(KernelspecError::ProgramMissing {
            path: path.to_owned(),
        });
    }
    let absolute = std::path::absolute(path).map_err(|source| KernelspecError::Io {
        action: "resolve",
        path: path.to_owned(),
        source,
    })?;
    absolute
        .into_os_string()
        .into_string()
        .map_err(|path| KernelspecError::ProgramNotUnicode { path: path.into() })
}

#[cfg(test)]
mod tests;
