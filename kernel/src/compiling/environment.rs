//! The environment of a compile. A compile worker has that of the clients it serves, but for variables that tell one terminal or notebook from another:
//! they would have each notebook need a worker of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;

/// Variables that no build depends on, in most cases.
const PERSONAL: &[&str] = &[
    "_",
    "COLORTERM",
    "COLUMNS",
    "DISPLAY",
    "GPG_TTY",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LINES",
    "OLDPWD",
    "PWD",
    "SHELL_SESSION_ID",
    "SHLVL",
    "STY",
    "VIRTUAL_ENV_PROMPT",
    "WAYLAND_DISPLAY",
    "WINDOWID",
    "XAUTHORITY",
    "XDG_DATA_HOME",
    "XDG_RUNTIME_DIR",
    "XDG_STATE_HOME",
    chorus::wire::CARRIER,
    super::service::IDLE,
];
/// What such variables begin with: batch systems, desktop sessions, Jupyter's servers and gateways, terminals, tests of notebooks.
const PERSONAL_PREFIXES: &[&str] = &[
    "DBUS_",
    "GNOME_TERMINAL_",
    "JPY_",
    "JUPYTERHUB_",
    "JUPYTER_SERVER_",
    "KERNEL_",
    "KITTY_",
    "KONSOLE_",
    "PYTEST_",
    "SLURM_",
    "SSH_",
    "TERM",
    "TMUX",
    "VSCODE_",
    "XDG_SESSION_",
];

fn is_personal(name: &str) -> bool {
    PERSONAL.contains(&name)
        || PERSONAL_PREFIXES
            .iter()
            .any(|prefix| name.starts_with(prefix))
}

/// Variables whose names or values are not UTF-8 are not passed on.
fn own() -> impl Iterator<Item = (String, String)> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
}

/// This process's variables, as a worker is to have them.
pub(super) fn shared() -> BTreeMap<String, String> {
    own().filter(|(name, _)| !is_personal(name)).collect()
}

/// This process's other variables, as far as `code` mentions them.
pub(crate) fn personal(code: &str) -> BTreeMap<String, String> {
    own()
        .filter(|(name, _)| name.len() > 1 && is_personal(name) && code.contains(name.as_str()))
        .collect()
}

/// The names of this process's other variables.
pub(super) fn personal_names() -> impl Iterator<Item = OsString> {
    std::env::vars_os()
        .map(|(name, _)| name)
        .filter(|name| name.to_str().is_none_or(is_personal))
}

/// Gives this process these variables, and no others.
///
/// # Safety
/// No other thread may have been started.
pub(super) unsafe fn replace(environment: &BTreeMap<String, String>) {
    let present: Vec<_> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in present {
        // SAFETY: as this function asks of its caller.
        unsafe { std::env::remove_var(name) };
    }
    for (name, value) in environment {
        // SAFETY: as this function asks of its caller.
        unsafe { std::env::set_var(name, value) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notebooks_own_variables_need_no_worker_of_their_own() {
        for name in ["JPY_PARENT_PID", "KERNEL_ID", "PWD", "_"] {
            assert!(is_personal(name), "{name}");
        }
        for name in [
            "PATH",
            "HOME",
            "RUSTFLAGS",
            "CARGO_HOME",
            "MY_SETTING",
            "XDG_CACHE_HOME",
        ] {
            assert!(!is_personal(name), "{name}");
        }
    }

    #[test]
    fn a_mentioned_variable_is_passed_on_with_the_code() {
        let Ok(folder) = std::env::var("PWD") else {
            return;
        };
        let found = personal("env!(\"PWD\")");
        assert_eq!(found.get("PWD"), Some(&folder));
        assert!(personal("1 + 1").is_empty());
        assert!(!shared().contains_key("PWD"));
    }
}
