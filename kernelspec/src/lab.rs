//! A JupyterLab with this kernel in it: found on PATH or made in a private environment, started with a kernelspec that
//! only it sees. The user's own Jupyter folders stay as they are.

use std::convert::Infallible;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

use crate::{InstallOptions, KernelspecError, Target, install};

/// The JupyterLab that is installed where none is found.
pub const JUPYTERLAB: &str = "jupyterlab==4.6.6";

/// Written last into the private environment, with [`JUPYTERLAB`] in it: without it the environment is unfinished.
const FINISHED: &str = "chorus-finished";

/// Lines of pip's output kept for its error message.
const TAIL: usize = 15;

/// Why JupyterLab could not be made ready or started. Messages complete "failed to open JupyterLab: ".
#[derive(Debug, thiserror::Error)]
pub enum LabError {
    /// No folder to keep the private environment in.
    #[error("this user has no data folder: set HOME or XDG_DATA_HOME")]
    NoDataFolder,

    /// No JupyterLab and no Python to install one with.
    #[error(
        "there is no JupyterLab on PATH and no python3 to install one with: install JupyterLab, or Python 3.10 or newer"
    )]
    NoPython,

    /// Python is too old for [`JUPYTERLAB`].
    #[error(
        "python3 is version {version}, and JupyterLab needs 3.10 or newer: install a newer Python, or JupyterLab yourself"
    )]
    OldPython {
        /// Its version, for example `3.8`.
        version: String,
    },

    /// Debian's python3 comes without what makes environments.
    #[error(
        "python3 {version} cannot make virtual environments (it has no ensurepip): install it, on Debian or Ubuntu with \
         `sudo apt install python3-venv`, or install JupyterLab yourself (`pipx install jupyterlab`)"
    )]
    NoEnsurepip {
        /// Python's version, for example `3.11`.
        version: String,
    },

    /// A step of making the environment failed.
    #[error("{step} failed ({status}):\n{output}")]
    Step {
        /// The command, in words.
        step: &'static str,
        /// How it ended.
        status: ExitStatus,
        /// The end of what it said.
        output: String,
    },

    /// A program could not be started.
    #[error("cannot start {}: {source}", .program.display())]
    Start {
        /// The program.
        program: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },

    /// A file or folder of the private environment could not be used.
    #[error("cannot use {}: {source}", .path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's word.
        #[source]
        source: io::Error,
    },

    /// The kernelspec could not be put into the private folder.
    #[error("cannot install the kernelspec: {0}")]
    Kernelspec(#[from] KernelspecError),
}

/// The path of a `jupyter-lab` program that works: one on PATH, else one in a private environment, which is made at
/// the first call (network, some 200 MB, a minute) and kept in the user's data folder under `chorus/jupyter`.
///
/// `progress` gets one line a step, without a newline. Two processes may call this at once; the second waits.
pub fn environment(progress: impl FnMut(&str)) -> Result<PathBuf, LabError> {
    Finder::of_process()?.environment(progress)
}

/// Install the kernelspec for `kernel_exe` into a private folder and become JupyterLab, with `notebook` open (a notebook
/// that JupyterLab should open, relative to the current directory) and `extra_args` passed on. Returns only on failure.
pub fn open(
    jupyter: &Path,
    kernel_exe: &Path,
    notebook: Option<&Path>,
    extra_args: &[OsString],
) -> Result<Infallible, LabError> {
    let mut command = Finder::of_process()?.command(jupyter, kernel_exe, notebook, extra_args)?;
    Err(LabError::Start {
        program: jupyter.to_owned(),
        source: command.exec(),
    })
}

/// The outside facts that this module depends on, as a value so that tests can make one up.
struct Finder {
    /// PATH: where `jupyter-lab` and `python3` are looked for.
    path: OsString,
    /// The folder for everything private, `<user data>/chorus`.
    data: PathBuf,
    /// JUPYTER_PATH as the user set it; kept behind ours.
    jupyter_path: Option<OsString>,
}

impl Finder {
    fn of_process() -> Result<Self, LabError> {
        Ok(Self {
            path: std::env::var_os("PATH").unwrap_or_default(),
            data: dirs::data_dir()
                .ok_or(LabError::NoDataFolder)?
                .join("chorus"),
            jupyter_path: std::env::var_os("JUPYTER_PATH").filter(|value| !value.is_empty()),
        })
    }

    fn environment(&self, mut progress: impl FnMut(&str)) -> Result<PathBuf, LabError> {
        if let Some(lab) = self.programs("jupyter-lab").find(|lab| works(lab)) {
            return Ok(lab);
        }
        let venv = self.data.join("jupyter");
        let lab = venv.join("bin").join("jupyter-lab");
        if is_finished(&venv) && works(&lab) {
            return Ok(lab);
        }
        let at = |path: &Path| {
            let path = path.to_owned();
            move |source| LabError::Io { path, source }
        };
        fs::create_dir_all(&self.data).map_err(at(&self.data))?;
        let lock_path = self.data.join("jupyter.lock");
        let lock = File::create(&lock_path).map_err(at(&lock_path))?;
        lock.lock().map_err(at(&lock_path))?;
        // Whoever held the lock may have made it meanwhile.
        if is_finished(&venv) && works(&lab) {
            return Ok(lab);
        }
        let python = self.python()?;
        progress(&format!(
            "No JupyterLab found; making a private one in {} (once)",
            venv.display()
        ));
        let mut make = Command::new(&python);
        make.args(["-m", "venv", "--clear"]).arg(&venv);
        run("making a Python environment", make, |_| ())?;
        progress(&format!("Installing {JUPYTERLAB} (about 200 MB)"));
        let mut pip = Command::new(venv.join("bin").join("python"));
        pip.args(["-m", "pip", "install", "--disable-pip-version-check"])
            .args(["--no-input", "--progress-bar", "off", JUPYTERLAB]);
        run("installing JupyterLab with pip", pip, |line| {
            if ["Collecting ", "Installing "]
                .iter()
                .any(|start| line.starts_with(start))
            {
                progress(line);
            }
        })?;
        let finished = venv.join(FINISHED);
        fs::write(&finished, JUPYTERLAB).map_err(at(&finished))?;
        progress("JupyterLab is ready");
        Ok(lab)
    }

    /// A python3 that can make an environment for [`JUPYTERLAB`], or the error that says what is missing.
    fn python(&self) -> Result<PathBuf, LabError> {
        let mut refusal = LabError::NoPython;
        for python in self.programs("python3") {
            let question = "import sys, importlib.util as u; print('%d.%d' % sys.version_info[:2], int(sys.version_info >= (3, 10)), \
                 int(all(map(u.find_spec, ('venv', 'ensurepip')))))";
            let Ok(output) = Command::new(&python).args(["-c", question]).output() else {
                continue;
            };
            let answer = String::from_utf8_lossy(&output.stdout);
            match answer.split_whitespace().collect::<Vec<_>>()[..] {
                [_, "1", "1"] => return Ok(python),
                [version, "1", _] => {
                    refusal = LabError::NoEnsurepip {
                        version: version.to_owned(),
                    };
                }
                [version, "0", _] => {
                    refusal = LabError::OldPython {
                        version: version.to_owned(),
                    };
                }
                _ => {}
            }
        }
        Err(refusal)
    }

    /// Every file called `name` in the folders of PATH, in order.
    fn programs<'a>(&'a self, name: &'a str) -> impl Iterator<Item = PathBuf> + 'a {
        std::env::split_paths(&self.path)
            .map(move |folder| folder.join(name))
            .filter(|program| program.is_absolute() && program.is_file())
    }

    /// The command that [`open`] becomes; installs the kernelspec that it refers to.
    fn command(
        &self,
        jupyter: &Path,
        kernel_exe: &Path,
        notebook: Option<&Path>,
        extra_args: &[OsString],
    ) -> Result<Command, LabError> {
        let prefix = self.data.join("kernelspec");
        let mut options = InstallOptions::new(kernel_exe);
        options.target = Target::Prefix(prefix.clone());
        install(&options)?;
        // First in the search, so that it is this kernel that answers to the name even if another is installed.
        let mut jupyter_path = prefix.join("share").join("jupyter").into_os_string();
        if let Some(more) = &self.jupyter_path {
            jupyter_path.push(":");
            jupyter_path.push(more);
        }
        let mut command = Command::new(jupyter);
        command.env("JUPYTER_PATH", jupyter_path).args(extra_args);
        if let Some(notebook) = notebook {
            command.arg(not_an_option(notebook));
        }
        Ok(command)
    }
}

/// A path that no program takes for an option, whatever its first letter.
fn not_an_option(path: &Path) -> OsString {
    if path.as_os_str().as_encoded_bytes().starts_with(b"-") {
        Path::new(".").join(path).into_os_string()
    } else {
        path.as_os_str().to_owned()
    }
}

/// Whether the private environment was made to its end, and for this version.
fn is_finished(venv: &Path) -> bool {
    fs::read_to_string(venv.join(FINISHED)).is_ok_and(|text| text == JUPYTERLAB)
}

/// Whether `program --version` answers with a version. A shim of pyenv's for a program that is not installed, or a script of a
/// Python that is gone, does not.
fn works(program: &Path) -> bool {
    let output = Command::new(program)
        .arg(OsStr::new("--version"))
        .stdin(Stdio::null())
        .output();
    output.is_ok_and(|output| {
        output.status.success() && output.stdout.first().is_some_and(u8::is_ascii_digit)
    })
}

/// Run a step to its end; `line` gets its standard output as it comes, an error the end of all it said.
fn run(
    step: &'static str,
    mut command: Command,
    mut line: impl FnMut(&str),
) -> Result<(), LabError> {
    let program = PathBuf::from(command.get_program());
    let start = |source| LabError::Start { program, source };
    // One pipe for both streams, so that neither can fill up while the other is read.
    let (reader, writer) = io::pipe().map_err(|source| LabError::Io {
        path: PathBuf::from(step),
        source,
    })?;
    let clone = writer.try_clone().map_err(|source| LabError::Io {
        path: PathBuf::from(step),
        source,
    })?;
    command.stdin(Stdio::null()).stdout(clone).stderr(writer);
    let mut child = command.spawn().map_err(start)?;
    // The command holds the pipe's other end; the reader would never see it close.
    drop(command);
    let mut tail: Vec<String> = Vec::new();
    for text in lossy_lines(reader) {
        line(&text);
        if tail.len() == TAIL {
            tail.remove(0);
        }
        tail.push(text);
    }
    let status = child.wait().map_err(|source| LabError::Io {
        path: PathBuf::from(step),
        source,
    })?;
    if status.success() {
        return Ok(());
    }
    Err(LabError::Step {
        step,
        status,
        output: tail.join("\n"),
    })
}

/// The lines of `reader` until it ends or fails, invalid UTF-8 replaced.
fn lossy_lines(reader: impl Read) -> impl Iterator<Item = String> {
    BufReader::new(reader)
        .split(b'\n')
        .map_while(Result::ok)
        .map(|bytes| String::from_utf8_lossy(&bytes).trim_end().to_owned())
}

#[cfg(test)]
mod tests;
