//! The content of a kernelspec: kernel.json as a value, its name's rule, and the logos. No I/O.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::KernelspecError;

/// The folder name of the kernelspec when the user chooses none.
pub const DEFAULT_NAME: &str = "chorus";

/// What JupyterLab's launcher shows when the user chooses nothing else.
pub const DEFAULT_DISPLAY_NAME: &str = "Rust (Chorus)";

/// The version of the message protocol that the kernel speaks.
const PROTOCOL_VERSION: &str = "5.5";

/// What Jupyter replaces by the path of the connection file.
const CONNECTION_FILE: &str = "{connection_file}";

/// The files beside kernel.json: name and bytes. Jupyter serves them to front ends, which pick the size they want.
pub(crate) const LOGOS: [(&str, &[u8]); 3] = [
    ("logo-svg.svg", include_bytes!("../logos/logo-svg.svg")),
    ("logo-32x32.png", include_bytes!("../logos/logo-32x32.png")),
    ("logo-64x64.png", include_bytes!("../logos/logo-64x64.png")),
];

/// kernel.json, with the fields of
/// <https://jupyter-client.readthedocs.io/en/stable/kernels.html#kernel-specs>. Unknown fields of a file that is read are kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The command: program, `kernel`, `-f`, `{connection_file}`.
    pub argv: Vec<String>,
    /// The name in the launcher.
    pub display_name: String,
    /// The language of a notebook's cells, `rust`.
    pub language: String,
    /// `message`: an interrupt is a request on the control channel, not a signal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interrupt_mode: Option<String>,
    /// The version of the message protocol, `5.5`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kernel_protocol_version: Option<String>,
    /// What front ends may want to know; `debugger: false` for us.
    #[serde(default)]
    pub metadata: Map<String, Value>,
    /// Fields that this program does not write itself.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl Spec {
    /// The specification of a kernel that is started by `program` (a path or a name on PATH).
    pub fn new(program: &str, display_name: &str) -> Self {
        Self {
            argv: [program, "kernel", "-f", CONNECTION_FILE]
                .map(String::from)
                .to_vec(),
            display_name: display_name.to_owned(),
            language: "rust".to_owned(),
            interrupt_mode: Some("message".to_owned()),
            kernel_protocol_version: Some(PROTOCOL_VERSION.to_owned()),
            metadata: Map::from_iter([("debugger".to_owned(), json!(false))]),
            other: Map::new(),
        }
    }

    /// The program that starts the kernel; `None` if argv is empty.
    pub fn program(&self) -> Option<&str> {
        self.argv.first().map(String::as_str)
    }

    /// Whether this is a specification as [`Spec::new`] makes it, whatever its program and display name.
    pub fn is_ours(&self) -> bool {
        self.language == "rust"
            && matches!(self.argv.as_slice(), [_, command, flag, file] if command == "kernel" && flag == "-f" && file == CONNECTION_FILE)
    }
}

/// The folder name that Jupyter uses for a kernelspec called `name`: the name in lower case.
///
/// Errs with [`KernelspecError::Name`] unless the name is made of ASCII letters, digits, `.`, `_` and `-` (Jupyter's own rule) and does not begin
/// with a dot (ours: `.` and `..` are folders, and a hidden one would not be found again).
pub fn folder_name(name: &str) -> Result<String, KernelspecError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() || name.starts_with('.') || !name.chars().all(allowed) {
        return Err(KernelspecError::Name {
            name: name.to_owned(),
        });
    }
    Ok(name.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_jupyters_rule() {
        for (name, folder) in [
            ("chorus", "chorus"),
            ("Rust-1.95_x", "rust-1.95_x"),
            ("7", "7"),
        ] {
            assert_eq!(folder_name(name).unwrap(), folder, "{name}");
        }
        for name in [
            "", ".", "..", ".hidden", "a b", "a/b", "a\\b", "ü", "a\n", "{x}",
        ] {
            let error = folder_name(name).unwrap_err();
            assert!(
                matches!(error, KernelspecError::Name { .. }),
                "{name:?}: {error}"
            );
        }
    }

    #[test]
    fn kernel_json_has_the_agreed_fields_and_no_others() {
        let spec = serde_json::to_value(Spec::new("/bin/chorus", DEFAULT_DISPLAY_NAME)).unwrap();
        let expected = json!({
            "argv": ["/bin/chorus", "kernel", "-f", "{connection_file}"],
            "display_name": "Rust (Chorus)",
            "language": "rust",
            "interrupt_mode": "message",
            "kernel_protocol_version": "5.5",
            "metadata": {"debugger": false},
        });
        assert_eq!(spec, expected);
    }

    #[test]
    fn ours_is_told_from_others() {
        let ours = Spec::new("/elsewhere/chorus", "Anything");
        assert!(ours.is_ours());
        let evcxr = json!({"argv": ["evcxr_jupyter", "--control_file", "{connection_file}"], "display_name": "Rust", "language": "rust"});
        assert!(!serde_json::from_value::<Spec>(evcxr).unwrap().is_ours());
    }

    #[test]
    fn unknown_fields_survive_reading() {
        let text = json!({"argv": [], "display_name": "x", "language": "rust", "metadata": {}, "env": {"A": "1"}});
        let spec: Spec = serde_json::from_value(text.clone()).unwrap();
        assert_eq!(serde_json::to_value(&spec).unwrap(), text);
    }

    #[test]
    fn png_logos_have_the_size_their_names_say() {
        for (name, bytes) in LOGOS {
            let Some(size) = name
                .strip_prefix("logo-")
                .and_then(|rest| rest.strip_suffix(".png"))
            else {
                assert!(bytes.starts_with(b"<svg"), "{name}");
                continue;
            };
            assert!(bytes.starts_with(b"\x89PNG\r\n\x1a\n"), "{name}");
            // PNG, section 11.2.1: width and height are the first two big-endian words of IHDR, at byte 16.
            let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
            assert_eq!(format!("{}x{}", word(16), word(20)), size);
        }
    }
}
