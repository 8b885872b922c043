//! A closure's call as it comes over the wire, and its answer.
//!
//! An `apply_request` whose content has `chorus` is a call; any other is a Python function, which an engine cannot apply.
//!
//! ```json
//! {"chorus": {
//!     "artifact": "/path/of/the/shared/object.so",
//!     "executable": false,
//!     "offset": 4711,
//!     "pieces": [
//!         {"buffer": 0},
//!         {"buffer": 1, "keep": 17},
//!         {"file": "/dev/shm/name", "length": 1000000},
//!         {"file": "/dev/shm/name", "stretch": [65536, 1000000]},
//!         {"file": "/dev/shm/other", "length": 1000000, "keep": 18},
//!         {"kept": 19}
//!     ],
//!     "shm": "2f1c..-1a"
//! }}
//! ```
//!
//! `pieces` are what the trampoline gets, in this order: one of the message's buffers, by index; a file's first `length` bytes, or
//! a stretch of it (where it begins, a multiple of the page size, and its length), which the sender may remove or write over once the reply is there; or what an earlier call kept. `keep` and `kept` are numbers other than 0 that their sender
//! takes at random from 64 bits: clients share an engine. `executable` says that the artifact is a program, which runs its own
//! closures (see `programs`). `shm` names the memory that the sender sees, see
//! [`protocol::machine::shared_memory`]: an engine that sees another one gives no files, and refuses what it can't get.
//! What is not given: no pieces, false.
//!
//! The reply's content is, beside `status`:
//! - `ok`: nothing, and the result is the one buffer; or, only with `shm`, `"file": {"path": .., "length": ..}`, which the receiver removes;
//! - `aborted`: nothing;
//! - `error`: `ename`, `evalue`, `traceback` and `engine_info` as ever. `ename` is `panic` for a panic, with `"location": {"file", "line",
//!   "column"}` as the artifact has it (null when it is not known), or with `"partly": true` and a result as above, which has what went well, if the
//!   call was one over several items of which some panicked (in a file only without `retries`: the reply may end at the scheduler); `MissingShared` with `"missing": [19]` for pieces that are not
//!   kept (any more): send the call again with these; `not run` when the closure or a piece could not be had; `error` when the
//!   closure returned one; otherwise what the process died of.
//!
//! Metadata is as in every reply, with `started` and `completed` by the clock of the runtime, and `printed`: whether output, and an `idle`
//! behind it, went out for this call. Other calls have no status messages, but those that failed have their `idle`, and those that take
//! longer than a tenth of a second a `busy`, late, and an `idle`.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use protocol::Message;
use protocol::message::ErrorInfo;
use runtime::{Call, CallOutcome, Data, Piece, RunId, Value as Answer};
use serde::Deserialize;
use serde_json::{Value, json};

use super::memory::Memory;

/// What is of interest in an `apply_request`'s content.
#[derive(Debug, Deserialize)]
struct Content {
    chorus: Option<Request>,
}

#[derive(Debug, Deserialize)]
struct Request {
    artifact: PathBuf,
    #[serde(default)]
    executable: bool,
    offset: u64,
    #[serde(default)]
    pieces: Vec<PieceRequest>,
    #[serde(default)]
    shm: Memory,
}

/// One of `buffer`, `file` and `kept`; serde's own enums read such a map twice.
#[derive(Debug, Deserialize)]
struct PieceRequest {
    buffer: Option<usize>,
    file: Option<PathBuf>,
    length: Option<u64>,
    stretch: Option<[u64; 2]>,
    keep: Option<NonZeroU64>,
    kept: Option<NonZeroU64>,
}

/// The call that a request asks for, whether its artifact is a program, and what its sender sees; `None` when it asks for something
/// else. `file` is where a long result may go.
///
/// # Errors
/// With what is wrong with the request, in words for its sender.
pub(super) fn parse(
    message: &Message,
    id: RunId,
    file: impl FnOnce() -> PathBuf,
) -> Result<Option<(Call, bool, Memory)>, String> {
    let content: Content = message
        .parse()
        .map_err(|error| format!("the call's content has {error}"))?;
    let Some(request) = content.chorus else {
        return Ok(None);
    };
    let pieces = request
        .pieces
        .into_iter()
        .enumerate()
        .map(|(index, piece)| {
            let wrong = |what: &str| format!("piece {index} of the call {what}");
            let data = match piece {
                PieceRequest {
                    buffer: None,
                    file: None,
                    kept: Some(id),
                    ..
                } => return Ok(Piece::Kept { id }),
                PieceRequest {
                    buffer: Some(at),
                    file: None,
                    kept: None,
                    ..
                } => {
                    let buffer = message.buffers.get(at);
                    let buffer = buffer.ok_or_else(|| wrong("names a buffer that did not come"));
                    Data::Bytes(buffer?.clone())
                }
                PieceRequest {
                    buffer: None,
                    file: Some(path),
                    length: Some(length),
                    stretch: None,
                    kept: None,
                    ..
                } => Data::File {
                    path,
                    start: 0,
                    length,
                },
                PieceRequest {
                    buffer: None,
                    file: Some(path),
                    length: None,
                    stretch: Some([start, length]),
                    kept: None,
                    ..
                } => Data::File {
                    path,
                    start,
                    length,
                },
                _ => {
                    return Err(wrong(
                        "is neither a buffer, nor a file with its length or a stretch of it, nor a kept one",
                    ));
                }
            };
            Ok(match piece.keep {
                Some(id) => Piece::Keep { id, data },
                None => Piece::Once(data),
            })
        })
        .collect::<Result<_, String>>()?;
    let call = Call {
        id,
        artifact: request.artifact,
        offset: request.offset,
        pieces,
        answer_file: request.shm.is_here().then(file),
    };
    Ok(Some((call, request.executable, request.shm)))
}

/// A reply's content, but for what tells the engine, and its buffers. `error` is the outcome's, if it is one.
pub(super) fn reply(
    outcome: CallOutcome,
    error: Option<ErrorInfo>,
    file: Option<&Path>,
) -> (Value, Vec<Bytes>) {
    if let Some(error) = error {
        let mut content = json!({
            "status": "error",
            "ename": error.ename,
            "evalue": error.evalue,
            "traceback": error.traceback,
        });
        match outcome {
            CallOutcome::Partly(value) => {
                content["partly"] = json!(true);
                return with_result(content, value, file);
            }
            CallOutcome::Panicked(panic) => {
                content["location"] = panic.location.map_or(
                    Value::Null,
                    |at| json!({"file": at.file, "line": at.line, "column": at.column}),
                );
            }
            CallOutcome::MissingShared { ids } => content["missing"] = json!(ids),
            _ => {}
        }
        return (content, Vec::new());
    }
    let content = json!({"status": "ok"});
    match outcome {
        CallOutcome::Returned(value) => with_result(content, value, file),
        _ => (content, Vec::new()),
    }
}

/// A result, in the content or beside it.
fn with_result(mut content: Value, result: Answer, file: Option<&Path>) -> (Value, Vec<Bytes>) {
    match result {
        Answer::Bytes(bytes) => (content, vec![bytes]),
        Answer::File { length } => {
            content["file"] = json!({"path": file, "length": length});
            (content, Vec::new())
        }
    }
}

/// Takes a result out of its file: this reply may end at the scheduler, which has the task run again and knows nothing of files.
pub(super) fn out_of_file(outcome: CallOutcome, file: Option<&Path>) -> CallOutcome {
    match (outcome, file) {
        (CallOutcome::Partly(Answer::File { length }), Some(file)) => {
            let bytes = std::fs::read(file);
            let _ = std::fs::remove_file(file);
            match bytes {
                Ok(bytes) => CallOutcome::Partly(Answer::Bytes(bytes.into())),
                Err(error) => CallOutcome::Failed {
                    error: format!("its result of {length} bytes cannot be read: {error}"),
                },
            }
        }
        (outcome, _) => outcome,
    }
}

#[cfg(test)]
mod tests {
    use protocol::connection::Key;
    use protocol::machine::shared_memory;
    use protocol::{RawJson, Session};
    use runtime::{Location, Panic};

    use super::*;

    fn parsed(content: &Value) -> Result<Option<(Call, bool)>, String> {
        let content = RawJson::from_value(content).unwrap();
        let message = Session::new(&Key::none())
            .raw_message("apply_request", content, None)
            .with_buffers(vec![Bytes::from_static(b"a"), Bytes::from_static(b"bc")]);
        let parsed = parse(&message, RunId(5), || "/dev/shm/answer".into());
        parsed.map(|call| call.map(|(call, executable, _)| (call, executable)))
    }

    #[test]
    fn pieces_of_every_kind() {
        let content = json!({"chorus": {"artifact": "/a.so", "offset": 7, "shm": shared_memory(), "pieces": [
            {"buffer": 1},
            {"buffer": 0, "keep": u64::MAX},
            {"file": "/dev/shm/x", "length": 3},
            {"file": "/dev/shm/x", "stretch": [65536, 3]},
            {"file": "/dev/shm/y", "length": 4, "keep": 2},
            {"kept": 9},
        ]}});
        let (call, executable) = parsed(&content).unwrap().unwrap();
        assert_eq!((call.id, call.offset, executable), (RunId(5), 7, false));
        assert_eq!(
            call.answer_file.as_deref(),
            Some(Path::new("/dev/shm/answer"))
        );
        assert!(matches!(
            &call.pieces[..],
            [
                Piece::Once(Data::Bytes(second)),
                Piece::Keep { id: first, data: Data::Bytes(_) },
                Piece::Once(Data::File { start: 0, length: 3, .. }),
                Piece::Once(Data::File { start: 65536, length: 3, .. }),
                Piece::Keep { data: Data::File { length: 4, .. }, .. },
                Piece::Kept { .. },
            ] if &second[..] == b"bc" && first.get() == u64::MAX
        ));
        let bare = json!({"chorus": {"artifact": "/a", "executable": true, "offset": 7}});
        let (call, executable) = parsed(&bare).unwrap().unwrap();
        assert!(call.pieces.is_empty() && call.answer_file.is_none() && executable);
    }

    #[test]
    fn what_is_no_call_is_told_from_what_is_a_bad_one() {
        assert!(parsed(&json!({})).unwrap().is_none());
        for piece in [
            json!({}),
            json!({"buffer": 2}),
            json!({"file": "/dev/shm/x"}),
            json!({"file": "/dev/shm/x", "length": 3, "stretch": [0, 3]}),
            json!({"kept": 0}),
            json!({"buffer": 0, "kept": 1}),
            json!(5),
        ] {
            let content = json!({"chorus": {"artifact": "/a", "offset": 1, "pieces": [piece]}});
            assert!(parsed(&content).is_err(), "{content}");
        }
        assert!(parsed(&json!({"chorus": {"artifact": "/a"}})).is_err());
    }

    #[test]
    fn errors_carry_what_their_sender_needs() {
        let panic = CallOutcome::Panicked(Panic {
            message: "boom".to_owned(),
            location: Some(Location {
                file: "chorus-3/lib.rs".to_owned(),
                line: 12,
                column: 5,
            }),
            frames: Vec::new(),
        });
        let error = crate::failure::call(&panic);
        let (content, _) = reply(panic, error, None);
        assert_eq!(
            (&content["ename"], &content["evalue"]),
            (&json!("panic"), &json!("boom"))
        );
        assert_eq!(content["location"]["line"], 12);
        let ids = vec![NonZeroU64::new(7).unwrap()];
        let missing = CallOutcome::MissingShared { ids };
        let error = crate::failure::call(&missing);
        let (content, _) = reply(missing, error, None);
        assert_eq!(
            (&content["ename"], &content["missing"]),
            (&json!("MissingShared"), &json!([7]))
        );
        let file = Some(Path::new("/dev/shm/x"));
        let partly = || CallOutcome::Partly(Answer::File { length: 3 });
        let (content, _) = reply(partly(), crate::failure::call(&partly()), file);
        assert_eq!(
            (
                &content["status"],
                &content["partly"],
                &content["file"]["length"]
            ),
            (&json!("error"), &json!(true), &json!(3))
        );
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result");
        std::fs::write(&path, "abc").unwrap();
        let taken = out_of_file(partly(), Some(&path));
        assert_eq!(taken, CallOutcome::Partly(Answer::Bytes("abc".into())));
        let gone = out_of_file(partly(), Some(&path));
        assert!(!path.exists() && matches!(gone, CallOutcome::Failed { .. }));
        let (content, buffers) = reply(
            CallOutcome::Returned(Answer::File { length: 3 }),
            None,
            file,
        );
        assert_eq!(content["file"], json!({"path": "/dev/shm/x", "length": 3}));
        assert!(buffers.is_empty());
    }
}
