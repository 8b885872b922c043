//! Who this kernel is.

use protocol::message::PROTOCOL_VERSION;
use protocol::message::kernel_info::{HelpLink, KernelInfoReply, LanguageInfo};

/// The answer to `kernel_info_request`.
pub(crate) fn kernel_info() -> KernelInfoReply {
    let version = env!("CARGO_PKG_VERSION");
    KernelInfoReply {
        protocol_version: PROTOCOL_VERSION.to_owned(),
        implementation: "chorus".to_owned(),
        implementation_version: version.to_owned(),
        language_info: LanguageInfo {
            name: "rust".to_owned(),
            version: env!("CARGO_PKG_RUST_VERSION").to_owned(),
            mimetype: "text/x-rust".to_owned(),
            file_extension: ".rs".to_owned(),
            pygments_lexer: Some("rust".to_owned()),
            codemirror_mode: Some("rust".into()),
            nbconvert_exporter: None,
        },
        banner: format!(
            "Chorus {version}: Rust, evaluated with evcxr. `:help` lists evcxr's commands, `%lsmagic` the magics, \
             `name?` shows help."
        ),
        debugger: false,
        help_links: [
            (
                "The Rust Programming Language",
                "https://doc.rust-lang.org/book/",
            ),
            ("The standard library", "https://doc.rust-lang.org/std/"),
            ("Crates", "https://docs.rs/"),
        ]
        .map(|(text, url)| HelpLink {
            text: text.to_owned(),
            url: url.to_owned(),
        })
        .into(),
        supported_features: vec!["kernel subshells".to_owned()],
    }
}
