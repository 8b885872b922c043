//! Subshells: further threads of execution in one kernel, for kernels that list `kernel subshells` as a feature.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#kernel-subshells>.

use serde::{Deserialize, Serialize};

use super::content::{contents, replies};

/// Asks for a new subshell; has no fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateSubshellRequest {}

/// Names the new subshell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreateSubshellReply {
    /// Unique within the kernel; goes into the headers of requests meant for it.
    pub subshell_id: String,
}

/// Asks to end a subshell.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteSubshellRequest {
    /// The subshell.
    pub subshell_id: String,
}

/// Says that it has ended; has no fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeleteSubshellReply {}

/// Asks which subshells there are; has no fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSubshellRequest {}

/// The subshells, without the main shell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSubshellReply {
    /// Their ids; the protocol has the field's name in the singular.
    pub subshell_id: Vec<String>,
}

contents! {
    CreateSubshellRequest => "create_subshell_request",
    DeleteSubshellRequest => "delete_subshell_request",
    ListSubshellRequest => "list_subshell_request",
}

replies! {
    CreateSubshellReply => "create_subshell_reply",
    DeleteSubshellReply => "delete_subshell_reply",
    ListSubshellReply => "list_subshell_reply",
}
