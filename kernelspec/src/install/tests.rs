//! Installing into temporary prefixes.

use std::os::unix::fs::PermissionsExt;

use super::*;

struct World {
    folder: tempfile::TempDir,
    options: InstallOptions,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("chorus");
        fs::write(&program, "").unwrap();
        let mut options = InstallOptions::new(&program);
        options.target = Target::Prefix(folder.path().join("prefix"));
        Self { folder, options }
    }

    fn show(&self) -> Vec<Installed> {
        show(Some(&self.options.target), &self.options.name).unwrap()
    }

    fn uninstall(&self) -> Result<PathBuf, KernelspecError> {
        uninstall(&self.options.target, &self.options.name)
    }

    fn kernels(&self) -> PathBuf {
        self.options.target.kernels_folder().unwrap()
    }
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn install_show_uninstall() {
    let world = World::new();
    assert_eq!(world.show(), []);
    let folder = install(&world.options).unwrap();
    assert_eq!(folder, world.kernels().join("chorus"));
    assert_eq!(
        names_in(&folder),
        [
            "kernel.json",
            "logo-32x32.png",
            "logo-64x64.png",
            "logo-svg.svg"
        ]
    );

    let found = world.show();
    let program = world.options.executable.to_str().unwrap();
    assert_eq!(
        found,
        [Installed {
            folder: folder.clone(),
            spec: Spec::new(program, "Rust (Chorus)"),
            program_exists: true
        }]
    );

    assert_eq!(world.uninstall().unwrap(), folder);
    assert_eq!(names_in(&world.kernels()), [""; 0]);
    assert!(matches!(
        world.uninstall(),
        Err(KernelspecError::NotInstalled { .. })
    ));
}

#[test]
fn installing_again_replaces_the_whole_folder_and_leaves_nothing_beside_it() {
    let mut world = World::new();
    let folder = install(&world.options).unwrap();
    fs::write(folder.join("stale.js"), "").unwrap();
    world.options.display_name = "Other".to_owned();
    install(&world.options).unwrap();
    assert_eq!(names_in(&world.kernels()), ["chorus"]);
    assert!(!folder.join("stale.js").exists());
    assert_eq!(world.show()[0].spec.display_name, "Other");
}

#[test]
fn a_broken_kernel_json_is_told_and_can_be_replaced() {
    let world = World::new();
    let folder = install(&world.options).unwrap();
    fs::write(folder.join("kernel.json"), "{").unwrap();
    let error = show(Some(&world.options.target), "chorus").unwrap_err();
    assert!(
        matches!(error, KernelspecError::Unreadable { .. }),
        "{error:?}"
    );
    install(&world.options).unwrap();
    assert_eq!(world.show().len(), 1);
}

#[test]
fn another_kernels_folder_is_neither_replaced_nor_removed() {
    let world = World::new();
    let folder = world.kernels().join("chorus");
    fs::create_dir_all(&folder).unwrap();
    let other = r#"{"argv": ["evcxr_jupyter"], "display_name": "Rust", "language": "rust"}"#;
    fs::write(folder.join("kernel.json"), other).unwrap();
    for result in [install(&world.options), world.uninstall()] {
        assert!(
            matches!(result, Err(KernelspecError::NotOurs { .. })),
            "{result:?}"
        );
    }
    assert_eq!(
        fs::read_to_string(folder.join("kernel.json")).unwrap(),
        other
    );
}

#[test]
fn a_missing_program_is_refused_and_a_vanished_one_is_told() {
    let mut world = World::new();
    install(&world.options).unwrap();
    fs::remove_file(&world.options.executable).unwrap();
    let [installed] = <[Installed; 1]>::try_from(world.show()).unwrap();
    assert!(!installed.program_exists);
    assert!(installed.to_string().contains("does not exist"));
    world.options.name = "second".to_owned();
    assert!(matches!(
        install(&world.options),
        Err(KernelspecError::ProgramMissing { .. })
    ));
    assert_eq!(names_in(&world.kernels()), ["chorus"]);
}

#[test]
fn a_bad_name_touches_nothing() {
    let mut world = World::new();
    world.options.name = "../escape".to_owned();
    assert!(matches!(
        install(&world.options),
        Err(KernelspecError::Name { .. })
    ));
    assert!(!world.kernels().exists());
}

#[test]
fn a_file_in_the_way_is_an_error_with_its_path() {
    let world = World::new();
    let Target::Prefix(prefix) = &world.options.target else {
        unreachable!()
    };
    fs::write(prefix, "").unwrap();
    let error = install(&world.options).unwrap_err();
    assert!(matches!(error, KernelspecError::Io { .. }), "{error:?}");
    assert!(
        error.to_string().contains(prefix.to_str().unwrap()),
        "{error}"
    );
}

#[test]
fn a_refused_folder_is_a_permission_error_with_advice() {
    let world = World::new();
    let locked = world.folder.path().join("prefix");
    fs::create_dir(&locked).unwrap();
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o500)).unwrap();
    // Root may write anywhere; there the mapping alone is tested.
    let error = match fs::write(locked.join("probe"), "") {
        Ok(()) => KernelspecError::from_io(
            "create",
            &locked,
            world.options.target.permission_hint(),
            io::ErrorKind::PermissionDenied.into(),
        ),
        Err(_) => install(&world.options).unwrap_err(),
    };
    assert!(
        matches!(error, KernelspecError::Permission { .. }),
        "{error:?}"
    );
    assert!(error.to_string().contains("--user"), "{error}");
}
