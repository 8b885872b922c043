//! JupyterLab, Python and pip are scripts here; a run with the real ones needs the network and is done by hand.

use std::os::unix::fs::PermissionsExt;
use std::sync::{MutexGuard, PoisonError};

use super::*;

/// A `python3` that knows its version, "makes" an environment whose python is a script too, and logs what it is asked.
const PYTHON: &str = r#"#!/bin/sh
here=$(dirname "$0")
case "$*" in
    -c*) echo "3.11 1 1" ;;
    "-m venv --clear "*)
        echo "venv" >> "$here/calls"
        mkdir -p "$4/bin"
        printf '#!/bin/sh\necho "pip $*" >> "%s/calls"\n. "%s/pip"\n' "$here" "$here" > "$4/bin/python"
        chmod +x "$4/bin/python" ;;
esac
"#;

/// Sourced by the environment's python: "installs" a jupyter-lab.
const PIP: &str = r#"
echo "Collecting jupyterlab"; echo "  noise"; echo "warned" >&2; echo "Installing collected packages"
printf '#!/bin/sh\necho 4.0\n' > "$(dirname "$0")/jupyter-lab"
chmod +x "$(dirname "$0")/jupyter-lab"
"#;

struct World {
    folder: tempfile::TempDir,
    finder: Finder,
    _guard: MutexGuard<'static, ()>,
}

impl World {
    /// A PATH with only the given programs.
    fn new(programs: &[(&str, &str)]) -> Self {
        let guard = crate::STARTING_PROGRAMS
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().unwrap();
        let finder = Finder {
            path: folder.path().as_os_str().to_owned(),
            data: folder.path().join("data"),
            jupyter_path: None,
        };
        let world = Self {
            folder,
            finder,
            _guard: guard,
        };
        for (name, text) in programs {
            world.program(name, text);
        }
        world
    }

    fn program(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.folder.path().join("calls")).unwrap_or_default();
        text.lines().map(String::from).collect()
    }
}

#[test]
fn a_working_jupyterlab_on_path_is_taken_as_it_is() {
    let world = World::new(&[("jupyter-lab", "#!/bin/sh\necho 4.2.5\n")]);
    let mut lines = Vec::new();
    let lab = world
        .finder
        .environment(|line| lines.push(line.to_owned()))
        .unwrap();
    assert_eq!(lab, world.folder.path().join("jupyter-lab"));
    assert_eq!(lines, [""; 0]);
    assert!(!world.finder.data.exists());
}

#[test]
fn a_broken_one_is_passed_over_and_a_private_one_is_made_once() {
    let broken = "#!/bin/sh\necho 'pyenv: jupyter-lab: command not found' >&2; exit 127\n";
    let world = World::new(&[("jupyter-lab", broken), ("python3", PYTHON), ("pip", PIP)]);
    let mut lines = Vec::new();
    let lab = world
        .finder
        .environment(|line| lines.push(line.to_owned()))
        .unwrap();
    assert_eq!(lab, world.finder.data.join("jupyter/bin/jupyter-lab"));
    let calls = world.calls();
    assert_eq!(calls.len(), 2, "{calls:?}");
    assert!(calls[1].contains(JUPYTERLAB), "{calls:?}");
    let steps: Vec<&str> = lines
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(
        steps,
        ["No", "Installing", "Collecting", "Installing", "JupyterLab"]
    );

    let again = world
        .finder
        .environment(|line| panic!("nothing to tell, but: {line}"));
    assert_eq!(again.unwrap(), lab);
    assert_eq!(world.calls().len(), 2);
}

#[test]
fn an_unfinished_or_older_environment_is_made_anew() {
    let world = World::new(&[("python3", PYTHON), ("pip", PIP)]);
    world.finder.environment(|_| ()).unwrap();
    let finished = world.finder.data.join("jupyter").join(FINISHED);
    fs::write(&finished, "jupyterlab==3.0.0").unwrap();
    world.finder.environment(|_| ()).unwrap();
    fs::remove_file(&finished).unwrap();
    world.finder.environment(|_| ()).unwrap();
    assert_eq!(world.calls().len(), 6);
}

#[test]
fn when_pip_fails_the_error_ends_with_what_it_said_and_the_next_call_tries_again() {
    let pip = "i=0; while [ $i -lt 99 ]; do i=$((i+1)); echo line $i; done; echo 'no network' >&2; exit 3\n";
    let world = World::new(&[("python3", PYTHON), ("pip", pip)]);
    let Err(LabError::Step { status, output, .. }) = world.finder.environment(|_| ()) else {
        panic!("a failing pip was not an error")
    };
    assert_eq!(status.code(), Some(3));
    assert!(output.ends_with("line 99\nno network"), "{output}");
    assert_eq!(output.lines().count(), TAIL);
    world.program("pip", PIP);
    world.finder.environment(|_| ()).unwrap();
}

#[test]
fn what_python_lacks_is_named() {
    let cases = [
        ("#!/bin/sh\necho 3.11 1 0\n", "python3-venv"),
        ("#!/bin/sh\necho 3.8 0 1\n", "3.8"),
        ("#!/bin/sh\nexit 1\n", "Python 3.10 or newer"),
    ];
    for (python, expected) in cases {
        let world = World::new(&[("python3", python)]);
        let error = world.finder.environment(|_| ()).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

#[test]
fn the_command_sees_a_kernelspec_that_the_user_does_not() {
    let mut world = World::new(&[]);
    let chorus = world.program("chorus", "");
    world.finder.jupyter_path = Some("/more".into());
    let command = world
        .finder
        .command(
            Path::new("/bin/jupyter-lab"),
            &chorus,
            Some(Path::new("-odd.ipynb")),
            &["--no-browser".into()],
        )
        .unwrap();
    let arguments: Vec<_> = command.get_args().collect();
    assert_eq!(arguments, ["--no-browser", "./-odd.ipynb"]);
    let data = world.finder.data.join("kernelspec/share/jupyter");
    assert!(data.join("kernels/chorus/kernel.json").is_file());
    let jupyter_path = command
        .get_envs()
        .find_map(|(name, value)| (name == "JUPYTER_PATH").then_some(value?));
    assert_eq!(
        jupyter_path,
        Some(OsStr::new(&format!("{}:/more", data.display())))
    );
}
