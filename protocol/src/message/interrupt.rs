//! `interrupt`: stopping what runs, for kernels whose kernelspec says `interrupt_mode: message`.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#kernel-interrupt>.

use serde::{Deserialize, Serialize};

use super::content::{contents, replies};

/// Asks to stop what runs; has no fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterruptRequest {}

/// Says that the interrupt was taken; has no fields.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterruptReply {}

contents! {
    InterruptRequest => "interrupt_request",
}

replies! {
    InterruptReply => "interrupt_reply",
}
