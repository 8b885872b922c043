//! `comm`: messages between objects in the kernel and in the front end, in both directions.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#custom-messages>.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::content::{contents, replies};
use super::lenient;

/// Opens a comm on the other side.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommOpen {
    /// Names the comm on both sides.
    pub comm_id: String,
    /// What makes its counterpart.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub target_name: String,
    /// A module that has the target, which IPython's clients may send.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_module: Option<String>,
    /// For the counterpart's constructor.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub data: Map<String, Value>,
}

/// Says something to the comm's counterpart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommMsg {
    /// The comm.
    pub comm_id: String,
    /// What is said.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub data: Map<String, Value>,
}

/// Ends a comm; also the answer to a [`CommOpen`] whose target is unknown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CommClose {
    /// The comm.
    pub comm_id: String,
    /// Last words.
    #[serde(default, deserialize_with = "lenient::or_default")]
    pub data: Map<String, Value>,
}

/// Asks which comms are open.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommInfoRequest {
    /// Only those of this target.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target_name: Option<String>,
}

/// The open comms by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommInfoReply {
    /// Id to what is known of the comm.
    #[serde(default)]
    pub comms: BTreeMap<String, CommInfo>,
}

/// One open comm.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommInfo {
    /// The target it was opened with.
    pub target_name: String,
}

contents! {
    CommOpen => "comm_open",
    CommMsg => "comm_msg",
    CommClose => "comm_close",
    CommInfoRequest => "comm_info_request",
}

replies! {
    CommInfoReply => "comm_info_reply",
}
