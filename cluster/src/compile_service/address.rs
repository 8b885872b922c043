//! Where a user's compile service is found: a folder of the user's with a socket, a lock and a log.

use std::fs::{self, DirBuilder};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::ServiceError;

/// The longest path of a Unix socket, in bytes; `sun_path` of unix(7) without the zero at its end.
const SOCKET_PATH_LIMIT_BYTES: usize = 107;
const ID_LIMIT_BYTES: usize = 64;
const PREFIX: &str = "compiler-";

/// The place of one service. The folder exists and is the user's alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    folder: PathBuf,
    id: String,
}

impl Address {
    /// The service's place for this user: in `$XDG_RUNTIME_DIR/chorus`, or else in the folder `chorus-<uid>` for temporary
    /// files. Makes the folder.
    ///
    /// # Errors
    /// When neither folder can be used, or `id` is none.
    pub fn find(id: &str) -> Result<Self, ServiceError> {
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Self::find_in(runtime_dir.as_deref(), &std::env::temp_dir(), id)
    }

    /// As [`Address::find`], with other folders than those of the environment.
    ///
    /// # Errors
    /// As [`Address::find`].
    pub fn find_in(
        runtime_dir: Option<&Path>,
        temp_dir: &Path,
        id: &str,
    ) -> Result<Self, ServiceError> {
        check_id(id)?;
        let mut refused = Vec::new();
        for (parent, folder) in candidates(runtime_dir, temp_dir) {
            let address = Self {
                folder,
                id: id.to_owned(),
            };
            match address.prepare(parent.as_deref()) {
                Ok(()) => return Ok(address),
                Err(reason) => refused.push((address.folder, reason)),
            }
        }
        Err(ServiceError::NoFolder { refused })
    }

    /// The places of all services of this user that have a socket, running or killed. Makes no folder.
    pub fn all() -> Vec<Self> {
        let runtime_dir = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        Self::all_in(runtime_dir.as_deref(), &std::env::temp_dir())
    }

    /// As [`Address::all`], with other folders than those of the environment.
    pub fn all_in(runtime_dir: Option<&Path>, temp_dir: &Path) -> Vec<Self> {
        let mut all = Vec::new();
        for (_, folder) in candidates(runtime_dir, temp_dir) {
            if check_folder(&folder).is_err() {
                continue;
            }
            let entries = fs::read_dir(&folder).into_iter().flatten().flatten();
            all.extend(entries.filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let id = name.strip_prefix(PREFIX)?.strip_suffix(".sock")?;
                check_id(id).ok()?;
                Some(Self {
                    folder: folder.clone(),
                    id: id.to_owned(),
                })
            }));
        }
        all.sort_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// The service's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The socket that the service listens on.
    pub fn socket(&self) -> PathBuf {
        self.file("sock")
    }

    /// The file that a client locks while it starts the service.
    pub fn lock(&self) -> PathBuf {
        self.file("lock")
    }

    /// What the service and its workers write to standard output and standard error, since the service's last start.
    pub fn log(&self) -> PathBuf {
        self.file("log")
    }

    fn file(&self, extension: &str) -> PathBuf {
        self.folder.join(format!("{PREFIX}{}.{extension}", self.id))
    }

    fn prepare(&self, parent: Option<&Path>) -> Result<(), String> {
        let bytes = self.socket().as_os_str().as_bytes().len();
        if bytes > SOCKET_PATH_LIMIT_BYTES {
            return Err(format!(
                "is too long for a socket's path ({bytes} bytes of {SOCKET_PATH_LIMIT_BYTES})"
            ));
        }
        if let Some(parent) = parent {
            check_owner(parent)?;
        }
        match DirBuilder::new().mode(0o700).create(&self.folder) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(format!("cannot be made: {error}")),
        }
        check_folder(&self.folder)
    }
}

/// The folders to try, in order; where given, with the folder above, which has to be the user's too.
fn candidates(
    runtime_dir: Option<&Path>,
    temp_dir: &Path,
) -> impl Iterator<Item = (Option<PathBuf>, PathBuf)> {
    let runtime = runtime_dir
        .filter(|path| path.is_absolute())
        .map(|path| (Some(path.to_owned()), path.join("chorus")));
    let temporary = (None, temp_dir.join(format!("chorus-{}", own_uid())));
    runtime.into_iter().chain([temporary])
}

/// The user that this process acts as.
pub(super) fn own_uid() -> u32 {
    // SAFETY: asks for a number.
    unsafe { libc::geteuid() }
}

fn check_id(id: &str) -> Result<(), ServiceError> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    if id.is_empty() || id.len() > ID_LIMIT_BYTES || !id.bytes().all(allowed) {
        return Err(ServiceError::Id { id: id.to_owned() });
    }
    Ok(())
}

fn check_owner(folder: &Path) -> Result<(), String> {
    let metadata = fs::metadata(folder)
        .map_err(|error| format!("cannot be used, since {} cannot: {error}", folder.display()))?;
    if !metadata.is_dir() || metadata.uid() != own_uid() {
        return Err(format!(
            "cannot be used, since {} is not a folder of this user's",
            folder.display()
        ));
    }
    Ok(())
}

/// Says what is wrong with a folder that others could change or read. A symbolic link is no folder here.
fn check_folder(folder: &Path) -> Result<(), String> {
    let metadata =
        fs::symlink_metadata(folder).map_err(|error| format!("cannot be used: {error}"))?;
    if !metadata.is_dir() {
        return Err("is not a folder".to_owned());
    }
    if metadata.uid() != own_uid() {
        return Err("belongs to another user".to_owned());
    }
    if metadata.mode() & 0o077 != 0 {
        return Err(format!(
            "can be accessed by others (its mode is {:o}, not 700)",
            metadata.mode() & 0o777
        ));
    }
    // SAFETY: takes a path with a zero at its end, and gives a number.
    let writable = std::ffi::CString::new(folder.as_os_str().as_bytes())
        .is_ok_and(|path| unsafe { libc::access(path.as_ptr(), libc::W_OK | libc::X_OK) } == 0);
    if !writable {
        return Err("cannot be written to".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    struct Folders {
        _root: tempfile::TempDir,
        runtime: PathBuf,
        temp: PathBuf,
    }

    impl Folders {
        fn new() -> Self {
            let root = tempfile::tempdir().unwrap();
            let (runtime, temp) = (root.path().join("run"), root.path().join("tmp"));
            fs::create_dir(&runtime).unwrap();
            fs::create_dir(&temp).unwrap();
            Self {
                _root: root,
                runtime,
                temp,
            }
        }

        fn find(&self) -> Result<Address, ServiceError> {
            Address::find_in(Some(&self.runtime), &self.temp, "0a1b")
        }

        fn in_temp(&self) -> PathBuf {
            let name = format!("chorus-{}/compiler-0a1b.sock", own_uid());
            self.temp.join(name)
        }
    }

    #[test]
    fn the_runtime_folder_comes_first() {
        let folders = Folders::new();
        let address = folders.find().unwrap();
        let folder = folders.runtime.join("chorus");
        assert_eq!(address.socket(), folder.join("compiler-0a1b.sock"));
        assert_eq!(address.lock(), folder.join("compiler-0a1b.lock"));
        assert_eq!(address.log(), folder.join("compiler-0a1b.log"));
        assert_eq!(fs::metadata(&folder).unwrap().mode() & 0o777, 0o700);
        assert_eq!(folders.find().unwrap(), address, "it exists now");
        fs::write(address.socket(), "").unwrap();
        fs::write(address.log(), "").unwrap();
        let all = Address::all_in(Some(&folders.runtime), &folders.temp);
        assert_eq!(all, [address]);
    }

    #[test]
    fn a_folder_for_temporary_files_replaces_an_unusable_one() {
        type Spoil = fn(&mut Folders);
        let spoils: [(&str, Spoil); 6] = [
            ("absent", |it| fs::remove_dir(&it.runtime).unwrap()),
            ("relative", |it| it.runtime = "run".into()),
            ("a file", |it| {
                fs::remove_dir(&it.runtime).unwrap();
                fs::write(&it.runtime, "").unwrap();
            }),
            ("open to others", |it| {
                let folder = it.runtime.join("chorus");
                fs::create_dir(&folder).unwrap();
                fs::set_permissions(&folder, Permissions::from_mode(0o750)).unwrap();
            }),
            ("a link", |it| {
                let target = it.temp.join("target");
                DirBuilder::new().mode(0o700).create(&target).unwrap();
                symlink(target, it.runtime.join("chorus")).unwrap();
            }),
            ("too long", |it| {
                it.runtime = it.runtime.join("x".repeat(90));
                fs::create_dir(&it.runtime).unwrap();
            }),
        ];
        for (what, spoil) in spoils {
            let mut folders = Folders::new();
            spoil(&mut folders);
            let address = folders.find().expect(what);
            assert_eq!(address.socket(), folders.in_temp(), "{what}");
        }
        let folders = Folders::new();
        let none = Address::find_in(None, &folders.temp, "0a1b").unwrap();
        assert_eq!(none.socket(), folders.in_temp());
    }

    #[test]
    fn a_folder_of_another_user_is_refused() {
        let folders = Folders::new();
        if own_uid() == 0 {
            std::os::unix::fs::chown(&folders.runtime, Some(1), None).unwrap();
        } else {
            // What another user may write to, this one may not: root can do both.
            fs::set_permissions(&folders.runtime, Permissions::from_mode(0o500)).unwrap();
        }
        assert_eq!(folders.find().unwrap().socket(), folders.in_temp());
    }

    #[test]
    fn without_a_folder_the_error_says_what_is_wrong_with_each() {
        let folders = Folders::new();
        let folder = folders.runtime.join("chorus");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o755)).unwrap();
        fs::write(folders.temp.join(format!("chorus-{}", own_uid())), "").unwrap();
        let error = folders.find().unwrap_err().to_string();
        assert!(error.contains("its mode is 755"), "{error}");
        assert!(error.contains("is not a folder"), "{error}");
        assert!(error.contains("XDG_RUNTIME_DIR"), "{error}");
        for id in ["", "../x", "a b", &"x".repeat(65)] {
            assert!(matches!(
                Address::find_in(None, &folders.temp, id),
                Err(ServiceError::Id { .. })
            ));
        }
    }
}
