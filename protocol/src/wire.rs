//! Messages to frames and frames to messages: the one place that signs and checks. No I/O.
//!
//! Source: <https://jupyter-client.readthedocs.io/en/stable/messaging.html#the-wire-protocol>.

mod replay;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use hmac::{Hmac, Mac};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Map;
use sha2::Sha256;
use uuid::Uuid;

use crate::connection::Key;
use crate::json::{JsonError, RawJson};
use crate::message::{Content, Header, Message, PROTOCOL_VERSION};
use replay::{Digest, Replays};

/// The frame between a message's identities and its signature.
pub const DELIMITER: &[u8] = b"<IDS|MSG>";

/// How many signatures are remembered to recognise one that comes again.
pub const REPLAYS_REMEMBERED: usize = 65_536;

/// One process's side of a conversation: its id, its key, and the signatures it has seen.
///
/// Clones are the same session. One session may serve any number of sockets and threads.
#[derive(Clone)]
pub struct Session(Arc<Inner>);

struct Inner {
    id: String,
    username: String,
    /// Primed with the key; none when messages are not signed.
    signer: Option<Hmac<Sha256>>,
    replays: Mutex<Replays>,
    /// Counts messages, from a random number: others may go by the same id.
    messages: AtomicU64,
}

/// The headers of messages of one type, rendered but for id and date: for messages in great numbers.
#[derive(Clone, Debug)]
pub struct Headers([String; 3]);

impl Headers {
    /// The header of one of them. `id` is text that JSON takes as it is, and unique; `date` as in RFC 3339.
    pub fn header(&self, id: &str, date: &str) -> Bytes {
        let Headers([before, between, behind]) = self;
        let length = before.len() + between.len() + behind.len() + id.len() + date.len() + 4;
        let mut text = String::with_capacity(length);
        for (piece, value) in [(before, id), (between, date)] {
            text.push_str(piece);
            text.push('"');
            text.push_str(value);
            text.push('"');
        }
        text.push_str(behind);
        Bytes::from(text)
    }

    /// The date of now, as headers have it.
    pub fn now() -> String {
        // jupyter_client takes at most six digits of a second for a date.
        format!("{:.6}", jiff::Timestamp::now())
    }
}

/// One of the four signed frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The message's own header.
    Header,
    /// The header of the message that caused it.
    ParentHeader,
    /// What is said about the message.
    Metadata,
    /// The body.
    Content,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Header => "header",
            Self::ParentHeader => "parent header",
            Self::Metadata => "metadata",
            Self::Content => "content",
        })
    }
}

/// Failed to decode a message. No text of it repeats what the peer sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// No frame is the delimiter.
    #[error("find the delimiter among {frames} frames")]
    NoDelimiter {
        /// How many frames there are.
        frames: usize,
    },
    /// Fewer than a signature and four frames follow the delimiter.
    #[error("find a signature and four parts: {found} frames follow the delimiter")]
    MissingFrames {
        /// How many frames there are after the delimiter.
        found: usize,
    },
    /// The message is not signed, but must be.
    #[error("check the signature: there is none")]
    Unsigned,
    /// The signature is not 64 lower-case hexadecimal digits.
    #[error("read the signature: it is not 64 lower-case hexadecimal digits")]
    BadSignatureHex,
    /// The signature is not that of these frames with this key.
    #[error("check the signature: it does not match, the sender may have another key")]
    BadSignature,
    /// A message with this signature has been received before.
    #[error("accept the message: it has been received before")]
    Replayed,
    /// A part is not the JSON it must be.
    #[error("parse the {part}")]
    Json {
        /// Which part.
        part: Part,
        /// What is wrong with it.
        source: JsonError,
    },
}

impl Session {
    /// A new session with an id of its own. Its user name is the environment's `USER`, if there is one.
    pub fn new(key: &Key) -> Self {
        let username = std::env::var("USER").unwrap_or_default();
        Self::with_id(key, Uuid::new_v4().to_string(), username)
    }

    /// A session that goes by a given id, which must be unique among those that talk to one kernel.
    pub fn with_id(key: &Key, id: impl Into<String>, username: impl Into<String>) -> Self {
        Self(Arc::new(Inner {
            id: id.into(),
            username: username.into(),
            signer: signer(key),
            replays: Mutex::new(Replays::new(REPLAYS_REMEMBERED)),
            messages: AtomicU64::new(Uuid::new_v4().as_u64_pair().0 >> 16),
        }))
    }

    /// What headers made here carry as `session`.
    pub fn id(&self) -> &str {
        &self.0.id
    }

    /// What headers made here carry as `username`.
    pub fn username(&self) -> &str {
        &self.0.username
    }

    /// A new message: a fresh id, the time of now, no identities, no metadata, no buffers.
    pub fn message<C: Content + ?Sized>(&self, content: &C, parent: Option<&Header>) -> Message {
        let content = RawJson::from_value(content).unwrap_or_else(|error| {
            // Content forbids it, so this is a mistake in a content's Serialize. A reply that is empty beats none.
            tracing::error!(msg_type = C::TYPE, %error, "failed to render a message's content");
            RawJson::empty_object()
        });
        self.raw_message(C::TYPE, content, parent)
    }

    /// The same for a content whose type is known only now, such as one that is relayed.
    pub fn raw_message(
        &self,
        msg_type: impl Into<String>,
        content: RawJson,
        parent: Option<&Header>,
    ) -> Message {
        Message {
            identities: Vec::new(),
            header: self.header(msg_type.into()),
            parent: parent.cloned(),
            metadata: Map::new(),
            content,
            buffers: Vec::new(),
        }
    }

    /// A message that answers `request`: caused by it, and for its sender.
    pub fn reply<C: Content + ?Sized>(&self, request: &Message, content: &C) -> Message {
        self.message(content, Some(&request.header))
            .with_identities(request.identities.clone())
    }

    /// As jupyter_client makes them: the session's id and a number. Asking the system for randomness would cost more than the rest of a
    /// header.
    fn new_id(&self) -> String {
        let number = self.0.messages.fetch_add(1, Ordering::Relaxed);
        format!("{}-{number:x}", self.0.id)
    }

    fn header(&self, msg_type: String) -> Header {
        Header {
            msg_id: self.new_id(),
            session: self.0.id.clone(),
            username: self.0.username.clone(),
            date: Headers::now(),
            msg_type,
            version: PROTOCOL_VERSION.to_owned(),
            subshell_id: None,
            extra: Map::new(),
        }
    }

    /// The frames of `message`: identities, delimiter, signature, the four parts, buffers. Content and buffers are shared,
    /// not copied.
    pub fn encode(&self, message: &Message) -> Vec<Bytes> {
        let parts = [
            rendered(&message.header),
            message
                .parent
                .as_ref()
                .map_or(Bytes::from_static(b"{}"), rendered),
            rendered(&message.metadata),
            message.content.as_bytes().clone(),
        ];
        self.seal(&message.identities, parts, &message.buffers)
    }

    /// The frames of a message whose parts are rendered already: header, parent header, metadata and content.
    pub fn seal(&self, identities: &[Bytes], parts: [Bytes; 4], buffers: &[Bytes]) -> Vec<Bytes> {
        let signature = match &self.0.signer {
            Some(signer) => Bytes::from(hex::encode(
                mac(signer, parts.each_ref()).finalize().into_bytes(),
            )),
            None => Bytes::new(),
        };
        let mut frames = Vec::with_capacity(identities.len() + 6 + buffers.len());
        frames.extend_from_slice(identities);
        frames.push(Bytes::from_static(DELIMITER));
        frames.push(signature);
        frames.extend(parts);
        frames.extend_from_slice(buffers);
        frames
    }

    /// What the headers of all messages of one type have in common.
    pub fn headers(&self, msg_type: &str) -> Headers {
        let mut header = self.header(msg_type.to_owned());
        // Stands where an id and a date will; nothing else is called so. The id precedes the date.
        header.date.clone_from(&header.msg_id);
        let text = String::from_utf8_lossy(&rendered(&header)).into_owned();
        let hole = format!("\"{}\"", header.msg_id);
        let mut pieces = text.split(&*hole).map(str::to_owned);
        let mut next = || pieces.next().unwrap_or_default();
        Headers([next(), next(), next()])
    }

    /// The message that `frames` are. The signature is checked before anything is parsed, and remembered: the same frames
    /// are refused a second time. Content and buffers share the frames' bytes.
    ///
    /// Without a key nothing is checked and nothing remembered.
    ///
    /// # Errors
    /// When the frames are malformed, not signed with this session's key, or have been decoded before.
    pub fn decode(&self, frames: Vec<Bytes>) -> Result<Message, WireError> {
        let parts = Parts::of(&frames)?;
        self.check(&parts)?;
        Message::of(&parts)
    }

    /// As [`Self::decode`], for a message that is passed on as it is: its signature is checked and remembered, and nothing of it
    /// is parsed.
    ///
    /// # Errors
    /// As [`Self::decode`], but for JSON.
    pub fn verify(&self, frames: &[Bytes]) -> Result<(), WireError> {
        self.check(&Parts::of(frames)?)
    }

    fn check(&self, parts: &Parts<'_>) -> Result<(), WireError> {
        let Some(signer) = &self.0.signer else {
            return Ok(());
        };
        let digest = match &parts.signature[..] {
            [] => return Err(WireError::Unsigned),
            signature => digest(signature).ok_or(WireError::BadSignatureHex)?,
        };
        mac(signer, parts.signed())
            .verify_slice(&digest)
            .map_err(|_| WireError::BadSignature)?;
        // Only what is genuine is remembered, or anyone could push real signatures out.
        let mut replays = self
            .0
            .replays
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if replays.is_new(digest) {
            Ok(())
        } else {
            Err(WireError::Replayed)
        }
    }
}

impl Message {
    /// The message that these frames are. Its signature must have been checked, see [`Session::verify`].
    ///
    /// # Errors
    /// When a part is malformed.
    pub fn of(parts: &Parts<'_>) -> Result<Self, WireError> {
        Ok(Self {
            identities: parts.identities.to_vec(),
            header: parsed(Part::Header, parts.header)?,
            parent: parent_header(parts.parent)?,
            metadata: parsed(Part::Metadata, parts.metadata)?,
            content: RawJson::from_bytes(parts.content.clone()).map_err(|source| {
                WireError::Json {
                    part: Part::Content,
                    source,
                }
            })?,
            buffers: parts.buffers.to_vec(),
        })
    }
}

/// A message's frames by their meaning. Nothing is checked but their number.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// What precedes the delimiter.
    pub identities: &'a [Bytes],
    /// Hexadecimal digits.
    pub signature: &'a Bytes,
    /// JSON.
    pub header: &'a Bytes,
    /// JSON, `{}` if there is none.
    pub parent: &'a Bytes,
    /// JSON.
    pub metadata: &'a Bytes,
    /// JSON.
    pub content: &'a Bytes,
    /// Binary data.
    pub buffers: &'a [Bytes],
}

impl<'a> Parts<'a> {
    /// Takes a message apart.
    ///
    /// # Errors
    /// When the frames are too few.
    pub fn of(frames: &'a [Bytes]) -> Result<Self, WireError> {
        let delimiter = frames.iter().position(|frame| frame == DELIMITER);
        let delimiter = delimiter.ok_or(WireError::NoDelimiter {
            frames: frames.len(),
        })?;
        let (identities, rest) = frames.split_at(delimiter);
        let [
            _,
            signature,
            header,
            parent,
            metadata,
            content,
            buffers @ ..,
        ] = rest
        else {
            return Err(WireError::MissingFrames {
                found: rest.len() - 1,
            });
        };
        Ok(Self {
            identities,
            signature,
            header,
            parent,
            metadata,
            content,
            buffers,
        })
    }

    fn signed(&self) -> [&'a Bytes; 4] {
        [self.header, self.parent, self.metadata, self.content]
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("id", &self.0.id)
            .field("username", &self.0.username)
            .field("signs", &self.0.signer.is_some())
            .finish_non_exhaustive()
    }
}

fn signer(key: &Key) -> Option<Hmac<Sha256>> {
    if key.is_empty() {
        return None;
    }
    #[expect(
        clippy::expect_used,
        reason = "HMAC takes a key of any length, RFC 2104 section 2"
    )]
    Some(Hmac::new_from_slice(key.expose().as_bytes()).expect("HMAC takes a key of any length"))
}

fn mac(signer: &Hmac<Sha256>, parts: [&Bytes; 4]) -> Hmac<Sha256> {
    let mut mac = signer.clone();
    for part in parts {
        mac.update(part);
    }
    mac
}

/// The bytes of a signature. Upper case is refused, as jupyter_client does, so that a message has one signature only.
fn digest(signature: &[u8]) -> Option<Digest> {
    let mut digest = Digest::default();
    hex::decode_to_slice(signature, &mut digest).ok()?;
    (!signature.iter().any(u8::is_ascii_uppercase)).then_some(digest)
}

/// The JSON of a header or of metadata.
fn rendered<T: Serialize>(value: &T) -> Bytes {
    #[expect(
        clippy::expect_used,
        reason = "headers and metadata are structs and maps with string keys, which all have a JSON form"
    )]
    Bytes::from(serde_json::to_vec(value).expect("string keys only"))
}

fn parsed<T: DeserializeOwned>(part: Part, frame: &[u8]) -> Result<T, WireError> {
    serde_json::from_slice(frame).map_err(|error| WireError::Json {
        part,
        source: error.into(),
    })
}

/// A message without a parent has `{}` there.
fn parent_header(frame: &[u8]) -> Result<Option<Header>, WireError> {
    match frame {
        b"{}" | b"null" => Ok(None),
        frame => match parsed(Part::ParentHeader, frame) {
            Ok(header) => Ok(Some(header)),
            Err(error) => match parsed::<Map<String, serde_json::Value>>(Part::ParentHeader, frame)
            {
                Ok(map) if map.is_empty() => Ok(None),
                _ => Err(error),
            },
        },
    }
}
