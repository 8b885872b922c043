//! Round trips, forgeries, and messages that jupyter_client signed.

use proptest::collection::vec;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::json::JsonProblem;
use crate::message::execute::ExecuteRequest;
use crate::message::kernel_info::{KernelInfoReply, KernelInfoRequest};
use crate::message::{ErrorInfo, Reply};

const KEY: &str = "5a1c7d2e";

fn session() -> Session {
    Session::with_id(&Key::from(KEY), "the-session", "me")
}

/// Frames whose parts are these texts, signed.
fn signed(parts: [&str; 4]) -> Vec<Bytes> {
    let parts = parts.map(|part| Bytes::from(part.to_owned()));
    let signer = signer(&Key::from(KEY)).unwrap();
    let signature = hex::encode(mac(&signer, parts.each_ref()).finalize().into_bytes());
    [Bytes::from_static(DELIMITER), Bytes::from(signature)]
        .into_iter()
        .chain(parts)
        .collect()
}

const HEADER: &str = r#"{"msg_id": "1", "msg_type": "x"}"#;

#[test]
fn a_message_survives_the_wire() {
    let (sender, receiver) = (session(), session());
    let request = sender.message(&ExecuteRequest::new("1 + 1"), None);
    assert_eq!(
        request.header.date.len(),
        "2024-01-01T00:00:00.000000Z".len()
    );
    let request = request.with_identities(vec![Bytes::from_static(b"me")]);
    let received = receiver.decode(sender.encode(&request)).unwrap();
    assert_eq!(received.msg_type(), "execute_request");
    assert_eq!(
        received.parse::<ExecuteRequest>().unwrap(),
        ExecuteRequest::new("1 + 1")
    );
    assert_eq!(
        (&received.header.session[..], &received.header.version[..]),
        ("the-session", "5.5")
    );
    assert_eq!(received.parent, None);

    let reply = receiver.reply(
        &received,
        &Reply::<KernelInfoReply>::Error(ErrorInfo::default()),
    );
    assert_eq!(reply.msg_type(), "kernel_info_reply");
    let reply = sender.decode(receiver.encode(&reply)).unwrap();
    assert_eq!(reply.parent, Some(request.header));
    assert_eq!(reply.identities, request.identities);
    assert_ne!(reply.header.msg_id, received.header.msg_id);
}

#[test]
fn content_and_buffers_are_not_copied() {
    let (sender, receiver) = (session(), session());
    let message = sender.message(&ExecuteRequest::new("x".repeat(1000)), None);
    let message = message.with_buffers(vec![Bytes::from(vec![7; 1000])]);
    let frames = sender.encode(&message);
    let [.., content, buffer] = &frames[..] else {
        panic!("too few frames")
    };
    let addresses = [content.as_ptr(), buffer.as_ptr()];
    assert_eq!(
        addresses,
        [
            message.content.as_bytes().as_ptr(),
            message.buffers[0].as_ptr()
        ]
    );
    let received = receiver.decode(frames).unwrap();
    assert_eq!(
        addresses,
        [
            received.content.as_bytes().as_ptr(),
            received.buffers[0].as_ptr()
        ]
    );
}

#[test]
fn malformed_frames_are_errors() {
    let decode = |frames: Vec<Bytes>| session().decode(frames).unwrap_err();
    let good = signed([HEADER, "{}", "{}", "{}"]);
    session().decode(good.clone()).unwrap();

    assert_eq!(decode(vec![]), WireError::NoDelimiter { frames: 0 });
    assert_eq!(
        decode(good[1..].to_vec()),
        WireError::NoDelimiter { frames: 5 }
    );
    assert_eq!(
        decode(good[..5].to_vec()),
        WireError::MissingFrames { found: 4 }
    );
    assert_eq!(
        decode(good[..1].to_vec()),
        WireError::MissingFrames { found: 0 }
    );
    let with_signature = |signature: &str| {
        let mut frames = good.clone();
        frames[1] = Bytes::from(signature.to_owned());
        decode(frames)
    };
    let signature = std::str::from_utf8(&good[1]).unwrap();
    assert_eq!(with_signature(""), WireError::Unsigned);
    assert_eq!(with_signature(&signature[2..]), WireError::BadSignatureHex);
    assert_eq!(
        with_signature(&signature.to_uppercase()),
        WireError::BadSignatureHex
    );
    assert_eq!(
        with_signature(&format!("{signature}00")),
        WireError::BadSignatureHex
    );
    assert_eq!(with_signature(&"zz".repeat(32)), WireError::BadSignatureHex);
    assert_eq!(with_signature(&"00".repeat(32)), WireError::BadSignature);
    let other = Session::new(&Key::random());
    assert_eq!(
        other.decode(good.clone()).unwrap_err(),
        WireError::BadSignature
    );
}

#[test]
fn errors_tell_the_part_and_nothing_of_it() {
    for (part, parts) in [
        (
            Part::Header,
            [
                r#"{"msg_id": "hunter2", "msg_type": ["hunter2"]}"#,
                "{}",
                "{}",
                "{}",
            ],
        ),
        (Part::ParentHeader, [HEADER, r#""hunter2""#, "{}", "{}"]),
        (Part::Metadata, [HEADER, "{}", r#""hunter2""#, "{}"]),
        (
            Part::Content,
            [HEADER, "{}", "{}", r#"{"hunter2": hunter2}"#],
        ),
    ] {
        let error = session().decode(signed(parts)).unwrap_err();
        assert!(
            matches!(&error, WireError::Json { part: found, .. } if *found == part),
            "{error:?}"
        );
        let source = std::error::Error::source(&error).unwrap();
        assert!(
            !format!("{error} {error:?} {source}").contains("hunter2"),
            "{error:?}"
        );
    }
    let missing = session()
        .decode(signed(["{}", "{}", "{}", "{}"]))
        .unwrap_err();
    let WireError::Json { source, .. } = missing else {
        panic!("{missing:?}")
    };
    assert_eq!(source.problem, JsonProblem::MissingField("msg_id".into()));
}

#[test]
fn the_signature_is_checked_before_json() {
    let mut frames = signed(["no", "json", "at", "all"]);
    assert!(matches!(
        session().decode(frames.clone()),
        Err(WireError::Json {
            part: Part::Header,
            ..
        })
    ));
    frames[2] = Bytes::from_static(b"other");
    assert_eq!(
        session().decode(frames).unwrap_err(),
        WireError::BadSignature
    );
}

#[test]
fn what_is_passed_on_is_checked_and_not_parsed() {
    let receiver = session();
    let frames = signed(["no", "json", "at", "all"]);
    let mut forged = frames.clone();
    forged[2] = Bytes::from_static(b"other");
    assert_eq!(receiver.verify(&forged), Err(WireError::BadSignature));
    receiver.verify(&frames).unwrap();
    assert_eq!(receiver.verify(&frames), Err(WireError::Replayed));
    assert_eq!(receiver.decode(frames).unwrap_err(), WireError::Replayed);
    assert_eq!(
        receiver.verify(&[]),
        Err(WireError::NoDelimiter { frames: 0 })
    );
}

#[test]
fn the_same_message_is_refused_a_second_time() {
    let (sender, receiver) = (session(), session());
    let mut frames = sender.encode(&sender.message(&KernelInfoRequest {}, None));
    receiver.decode(frames.clone()).unwrap();
    assert_eq!(
        receiver.clone().decode(frames.clone()).unwrap_err(),
        WireError::Replayed
    );
    // Neither other routing nor other buffers make it new: both are outside the signature.
    frames.insert(0, Bytes::from_static(b"identity"));
    frames.push(Bytes::from_static(b"buffer"));
    assert_eq!(receiver.decode(frames).unwrap_err(), WireError::Replayed);
}

#[test]
fn a_forgery_does_not_block_the_message_it_imitates() {
    let (sender, receiver) = (session(), session());
    let good = sender.encode(&sender.message(&KernelInfoRequest {}, None));
    let mut forged = good.clone();
    forged[5] = Bytes::from_static(b"{ }");
    assert_eq!(
        receiver.decode(forged).unwrap_err(),
        WireError::BadSignature
    );
    receiver.decode(good).unwrap();
}

#[test]
fn without_a_key_nothing_is_signed_or_remembered() {
    let session = Session::new(&Key::none());
    let frames = session.encode(&session.message(&KernelInfoRequest {}, None));
    assert!(frames[1].is_empty());
    session.decode(frames.clone()).unwrap();
    session.decode(frames).unwrap();
}

#[test]
fn debug_hides_the_key() {
    let shown = format!("{:?}", session());
    assert!(
        shown.contains("the-session") && !shown.contains(KEY),
        "{shown}"
    );
}

#[test]
fn parents_may_be_missing_and_headers_may_hold_more() {
    for none in ["{}", "null", " { } "] {
        assert_eq!(
            session()
                .decode(signed([HEADER, none, "{}", "{}"]))
                .unwrap()
                .parent,
            None
        );
    }
    let header = json!({"msg_id": "1", "msg_type": "x", "session": "s", "username": null, "date": "d", "version": "5.3",
        "subshell_id": null, "later": {"a": [1]}});
    let request = session()
        .decode(signed([&header.to_string(), "{}", "{}", "{}"]))
        .unwrap();
    let frames = session().encode(&session().message(&KernelInfoRequest {}, Some(&request.header)));
    let echoed: Value = serde_json::from_slice(&frames[3]).unwrap();
    assert_eq!(echoed["later"], json!({"a": [1]}));
    assert_eq!(echoed["msg_id"], "1");
}

/// The file is what jupyter_client 8.10.0 made: `Session(key=b"5a1c7d2e").serialize(..)` of a request with a parent, metadata and
/// the identity `topic`, and a buffer after it.
#[test]
fn a_message_of_jupyter_client_is_genuine() {
    let frames: Vec<String> = serde_json::from_str(include_str!("jupyter_client.json")).unwrap();
    let message = session()
        .decode(frames.into_iter().map(Bytes::from).collect())
        .unwrap();
    assert_eq!(message.identities, [Bytes::from_static(b"topic")]);
    let request: ExecuteRequest = message.parse().unwrap();
    assert_eq!(request.code, "let \u{e9} = \"\u{1d41a}\";");
    assert_eq!(message.parent.unwrap().msg_type, "kernel_info_request");
    assert_eq!(message.metadata["cellId"], "abc");
    assert_eq!(message.buffers, [Bytes::from_static(b"buffer")]);
}

fn frame() -> impl Strategy<Value = Bytes> {
    vec(any::<u8>(), 0..40).prop_map(Bytes::from)
}

fn json_object() -> impl Strategy<Value = Map<String, Value>> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        ".*".prop_map(Value::from)
    ];
    let value = leaf.prop_recursive(3, 20, 4, |inner| vec(inner, 0..4).prop_map(Value::from));
    proptest::collection::btree_map(".*", value, 0..5).prop_map(|map| map.into_iter().collect())
}

proptest! {
    #[test]
    fn any_message_survives(
        identities in vec(frame(), 0..4),
        metadata in json_object(),
        content in json_object(),
        extra in json_object(),
        buffers in vec(frame(), 0..4),
        parent in any::<bool>(),
        msg_type in ".*",
    ) {
        // The first delimiter counts, so an identity cannot be one. ZeroMQ's own start with a zero byte.
        prop_assume!(!identities.iter().any(|identity| identity == DELIMITER));
        let sender = session();
        let mut first = sender.raw_message(msg_type, RawJson::from_value(&content).unwrap(), None);
        for (name, value) in extra {
            if !["msg_id", "msg_type", "session", "username", "date", "version", "subshell_id"].contains(&name.as_str()) {
                first.header.extra.insert(name, value);
            }
        }
        let parent = parent.then(|| first.header.clone());
        let message = Message { parent, ..first }.with_identities(identities).with_metadata(metadata).with_buffers(buffers);
        let received = session().decode(sender.encode(&message)).unwrap();
        prop_assert_eq!(&received.identities, &message.identities);
        prop_assert_eq!(&received.header, &message.header);
        prop_assert_eq!(&received.parent, &message.parent);
        prop_assert_eq!(&received.metadata, &message.metadata);
        prop_assert_eq!(&received.content, &message.content);
        prop_assert_eq!(&received.buffers, &message.buffers);
    }

    #[test]
    fn any_frames_are_a_message_or_an_error(mut frames in vec(frame(), 0..12), at in any::<prop::sample::Index>(), signed in any::<bool>()) {
        if !frames.is_empty() {
            let at = at.index(frames.len());
            frames[at] = Bytes::from_static(DELIMITER);
        }
        let key = if signed { Key::from(KEY) } else { Key::none() };
        prop_assert!(Session::new(&key).decode(frames).is_err());
    }

    #[test]
    fn no_key_and_any_parts_do_not_panic(parts in vec(prop_oneof![frame(), json_object().prop_map(|map| Bytes::from(serde_json::to_vec(&map).unwrap()))], 4)) {
        let frames = [Bytes::from_static(DELIMITER), Bytes::new()].into_iter().chain(parts).collect();
        let _ = Session::new(&Key::none()).decode(frames);
    }
}

/// Not a sample: each bit of each signed byte and of the signature, and each byte more or less.
#[test]
fn every_single_byte_mutation_is_refused() {
    let receiver = session();
    let good = signed([HEADER, HEADER, r#"{"a": 1}"#, r#"{"code": "1"}"#]);
    let mut refused = 0;
    let mut refuse = |frame: usize, bytes: Vec<u8>| {
        let mut frames = good.clone();
        frames[frame] = Bytes::from(bytes);
        let error = receiver.decode(frames).unwrap_err();
        assert!(
            matches!(error, WireError::BadSignature | WireError::BadSignatureHex),
            "{error:?}"
        );
        refused += 1;
    };
    for (frame, bytes) in good.iter().enumerate().skip(1) {
        for at in 0..bytes.len() {
            for value in (0..=255).filter(|value| *value != bytes[at]) {
                let mut changed = bytes.to_vec();
                changed[at] = value;
                refuse(frame, changed);
            }
            let mut shorter = bytes.to_vec();
            shorter.remove(at);
            refuse(frame, shorter);
            let mut longer = bytes.to_vec();
            longer.insert(at, b' ');
            refuse(frame, longer);
        }
    }
    assert!(refused > 10_000);
    receiver.decode(good).unwrap();
}

#[test]
fn headers_that_are_rendered_once_are_those_of_messages() {
    let session = session();
    let message = session.raw_message("apply_request", RawJson::empty_object(), None);
    let headers = session.headers("apply_request");
    let header = headers.header(&message.header.msg_id, &message.header.date);
    let frames = session.encode(&message);
    let parts = Parts::of(&frames).unwrap();
    assert_eq!(&header, parts.header);
    let none = Bytes::from_static(b"{}");
    let sealed = session.seal(&[], [header, none.clone(), none.clone(), none], &[]);
    assert_eq!(sealed, frames);
}
