//! A message that is passed on as it came: frames whose signature is good, of which only what routing needs is read.

use std::borrow::Cow;
use std::time::Duration;

use bytes::Bytes;
use protocol::Header;
use protocol::wire::DELIMITER;
use serde::Deserialize;
use serde_json::{Map, Value};

static NONE: Bytes = Bytes::new();

/// The frames of one message, identities first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    frames: Vec<Bytes>,
    /// Where the delimiter is.
    delimiter: usize,
}

/// What is read of a header.
#[derive(Debug, Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow)]
    pub(super) msg_id: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) msg_type: Cow<'a, str>,
    #[serde(borrow, default)]
    pub(super) date: Option<Cow<'a, str>>,
}

/// What is read of a reply's metadata.
#[derive(Debug, Default, Deserialize)]
pub(super) struct ReplyMetadata<'a> {
    #[serde(borrow, default)]
    pub(super) status: Option<Cow<'a, str>>,
    #[serde(default)]
    pub(super) dependencies_met: Option<bool>,
    #[serde(borrow, default)]
    pub(super) started: Option<Cow<'a, str>>,
    /// Where the engine tells it of closures; the header's date is later, the more so the busier the engine is.
    #[serde(borrow, default)]
    pub(super) completed: Option<Cow<'a, str>>,
}

impl Packet {
    /// Nothing when the frames are too few for a message.
    pub fn of(frames: Vec<Bytes>) -> Option<Self> {
        let delimiter = frames.iter().position(|frame| frame == DELIMITER)?;
        // Signature, header, parent, metadata, content.
        (frames.len() >= delimiter + 6).then_some(Self { frames, delimiter })
    }

    fn part(&self, at: usize) -> &Bytes {
        self.frames.get(self.delimiter + at).unwrap_or(&NONE)
    }

    /// What precedes the delimiter.
    pub fn identities(&self) -> &[Bytes] {
        self.frames.get(..self.delimiter).unwrap_or_default()
    }

    /// JSON.
    pub fn header(&self) -> &Bytes {
        self.part(2)
    }

    /// JSON, `{}` if there is none.
    pub fn parent(&self) -> &Bytes {
        self.part(3)
    }

    /// JSON.
    pub fn metadata(&self) -> &Bytes {
        self.part(4)
    }

    /// JSON.
    pub fn content(&self) -> &Bytes {
        self.part(5)
    }

    /// Binary data.
    pub fn buffers(&self) -> &[Bytes] {
        self.frames.get(self.delimiter + 6..).unwrap_or_default()
    }

    /// All of it.
    pub fn frames(&self) -> &[Bytes] {
        &self.frames
    }

    /// All of it, with the first two identities exchanged: from whoever sent it to whoever is to have it.
    pub fn turned(mut self) -> Vec<Bytes> {
        if self.delimiter >= 2 {
            self.frames.swap(0, 1);
        }
        self.frames
    }

    /// What it takes of memory, in bytes, roughly.
    pub fn size(&self) -> u64 {
        // A frame's handle, its allocation and its reference count take about as much again as a small frame.
        let sizes = self.frames.iter().map(|frame| frame.len() + 96);
        u64::try_from(sizes.sum::<usize>()).unwrap_or(u64::MAX)
    }

    /// What routing needs of the header; nothing if it is no header.
    pub(super) fn head(&self) -> Option<Head<'_>> {
        serde_json::from_slice(self.header()).ok()
    }

    /// The same of the header of the message that this one answers.
    pub(super) fn parent_head(&self) -> Option<Head<'_>> {
        serde_json::from_slice(self.parent()).ok()
    }

    /// The header, whole.
    pub(super) fn full_header(&self) -> Option<Header> {
        serde_json::from_slice(self.header()).ok()
    }

    /// The header of the message that this one answers, whole.
    pub(super) fn full_parent(&self) -> Option<Header> {
        serde_json::from_slice(self.parent()).ok()
    }

    /// The metadata as they are.
    pub(super) fn metadata_map(&self) -> Map<String, Value> {
        serde_json::from_slice(self.metadata()).unwrap_or_default()
    }

    /// What is read of a reply's metadata.
    pub(super) fn reply_metadata(&self) -> ReplyMetadata<'_> {
        serde_json::from_slice(self.metadata()).unwrap_or_default()
    }
}

/// The time between two dates, such as a reply's `started` and its header's `date`.
pub(super) fn between(started: &str, ended: &str) -> Option<Duration> {
    let started: jiff::Timestamp = started.parse().ok()?;
    let ended: jiff::Timestamp = ended.parse().ok()?;
    ended.duration_since(started).try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(texts: &[&'static str]) -> Vec<Bytes> {
        texts.iter().map(|text| Bytes::from(*text)).collect()
    }

    #[test]
    fn parts_are_found_and_identities_turned() {
        let header = r#"{"msg_id": "a\"b", "msg_type": "apply_request", "more": [1]}"#;
        let all = [
            "one",
            "two",
            "<IDS|MSG>",
            "signature",
            header,
            "{}",
            r#"{"status": "ok", "x": {}}"#,
            "content",
            "buffer",
        ];
        let packet = Packet::of(frames(&all)).unwrap();
        assert_eq!(packet.identities(), frames(&["one", "two"]));
        assert_eq!(packet.head().unwrap().msg_id, "a\"b");
        assert_eq!(packet.parent_head().map(|head| head.msg_id), None);
        assert_eq!(packet.reply_metadata().status.unwrap(), "ok");
        assert_eq!(packet.content(), "content");
        assert_eq!(packet.buffers(), frames(&["buffer"]));
        assert!(packet.size() > 100);
        assert_eq!(packet.turned()[..2], frames(&["two", "one"]));
        assert_eq!(Packet::of(frames(&all[..6])), None);
        assert_eq!(Packet::of(frames(&all[3..])), None);
    }

    #[test]
    fn dates_of_both_kinds_are_read() {
        let took = between(
            "2026-01-01T00:00:00.000100Z",
            "2026-01-01T01:00:00.000350+01:00",
        );
        assert_eq!(took, Some(Duration::from_micros(250)));
        assert_eq!(
            between("2026-01-01T00:00:01Z", "2026-01-01T00:00:00Z"),
            None
        );
        assert_eq!(between("", "2026-01-01T00:00:00Z"), None);
    }
}
