//! The envelope and contents against JSON as real clients and kernels write it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;

use serde_json::{Value, json};

use super::comm::*;
use super::complete::*;
use super::execute::*;
use super::history::*;
use super::inspect::*;
use super::interrupt::*;
use super::iopub::*;
use super::is_complete::*;
use super::kernel_info::*;
use super::shutdown::*;
use super::stdin::*;
use super::subshell::*;
use super::*;

/// `value` is written as `json` and read back from it.
#[track_caller]
fn check<T: Content + DeserializeOwned + PartialEq + Debug>(msg_type: &str, value: T, json: Value) {
    assert_eq!(T::TYPE, msg_type);
    assert_eq!(serde_json::to_value(&value).unwrap(), json);
    assert_eq!(serde_json::from_value::<T>(json).unwrap(), value);
}

/// `json` is read as `value`, although it is not how we would write it.
#[track_caller]
fn check_read<T: DeserializeOwned + PartialEq + Debug>(json: Value, value: T) {
    assert_eq!(serde_json::from_value::<T>(json).unwrap(), value);
}

fn object(value: Value) -> Map<String, Value> {
    serde_json::from_value(value).unwrap()
}

#[test]
fn requests() {
    let code = || "1 + 1".to_owned();
    check(
        "execute_request",
        ExecuteRequest::new("1 + 1"),
        json!({"code": "1 + 1", "silent": false, "store_history": true, "user_expressions": {}, "allow_stdin": true, "stop_on_error": true}),
    );
    check("kernel_info_request", KernelInfoRequest {}, json!({}));
    let complete = CompleteRequest {
        code: code(),
        cursor_pos: Some(2),
    };
    check(
        "complete_request",
        complete,
        json!({"code": "1 + 1", "cursor_pos": 2}),
    );
    let inspect = InspectRequest {
        code: code(),
        cursor_pos: Some(2),
        detail_level: 1,
    };
    check(
        "inspect_request",
        inspect,
        json!({"code": "1 + 1", "cursor_pos": 2, "detail_level": 1}),
    );
    check(
        "is_complete_request",
        IsCompleteRequest { code: code() },
        json!({"code": "1 + 1"}),
    );
    check(
        "comm_info_request",
        CommInfoRequest {
            target_name: Some("t".into()),
        },
        json!({"target_name": "t"}),
    );
    check(
        "shutdown_request",
        ShutdownRequest { restart: true },
        json!({"restart": true}),
    );
    check("interrupt_request", InterruptRequest {}, json!({}));
    check(
        "create_subshell_request",
        CreateSubshellRequest {},
        json!({}),
    );
    check(
        "delete_subshell_request",
        DeleteSubshellRequest {
            subshell_id: "s".into(),
        },
        json!({"subshell_id": "s"}),
    );
    check("list_subshell_request", ListSubshellRequest {}, json!({}));
    check(
        "input_request",
        InputRequest {
            prompt: "> ".into(),
            password: true,
        },
        json!({"prompt": "> ", "password": true}),
    );
    check(
        "history_request",
        HistoryRequest {
            hist_access_type: HistoryAccess::Search,
            n: Some(5),
            pattern: Some("let*".into()),
            ..HistoryRequest::default()
        },
        json!({"output": false, "raw": false, "hist_access_type": "search", "session": 0, "n": 5, "pattern": "let*", "unique": false}),
    );
}

#[test]
fn what_clients_leave_out_has_the_protocols_defaults() {
    check_read(json!({"code": "x"}), ExecuteRequest::new("x"));
    let nulls = json!({"code": "x", "silent": null, "store_history": null, "user_expressions": null, "allow_stdin": null,
        "stop_on_error": null, "later": 1});
    check_read(nulls, ExecuteRequest::new("x"));
    check_read(
        json!({"code": "x"}),
        CompleteRequest {
            code: "x".into(),
            cursor_pos: None,
        },
    );
    check_read(
        json!({"code": "x", "cursor_pos": null}),
        InspectRequest {
            code: "x".into(),
            cursor_pos: None,
            detail_level: 0,
        },
    );
    check_read(json!({}), ShutdownRequest { restart: false });
    check_read(
        json!({"target_name": null}),
        CommInfoRequest { target_name: None },
    );
    check_read(json!({"any": "thing"}), KernelInfoRequest {});
    check_read(
        json!({"comm_id": "c"}),
        CommClose {
            comm_id: "c".into(),
            data: Map::new(),
        },
    );
    // As JupyterLab's console and jupyter_client ask.
    let tail = json!({"output": false, "raw": true, "hist_access_type": "tail", "n": 500});
    check_read(
        tail,
        HistoryRequest {
            raw: true,
            n: Some(500),
            ..HistoryRequest::default()
        },
    );
    let range = json!({"raw": true, "output": false, "hist_access_type": "range", "session": 0, "start": 0, "stop": null});
    let expected = HistoryRequest {
        raw: true,
        hist_access_type: HistoryAccess::Range,
        start: Some(0),
        ..HistoryRequest::default()
    };
    check_read(range, expected);
    let unknown = json!({"hist_access_type": "backwards"});
    check_read(
        unknown,
        HistoryRequest {
            hist_access_type: HistoryAccess::Unknown,
            ..HistoryRequest::default()
        },
    );
}

#[test]
fn silence_rules_history() {
    let mut request = ExecuteRequest::new("");
    assert!(request.enters_history());
    request.silent = true;
    assert!(!request.enters_history());
    (request.silent, request.store_history) = (false, false);
    assert!(!request.enters_history());
}

#[test]
fn cursors_are_bytes_for_rust() {
    let request: CompleteRequest =
        serde_json::from_value(json!({"code": "\u{1d41a}.l", "cursor_pos": 2})).unwrap();
    assert_eq!(request.cursor_byte(), 5);
    let request: InspectRequest = serde_json::from_value(json!({"code": "\u{e9}"})).unwrap();
    assert_eq!(request.cursor_byte(), 2);
}

#[test]
fn replies() {
    let info = KernelInfoReply {
        protocol_version: PROTOCOL_VERSION.into(),
        implementation: "chorus".into(),
        implementation_version: "1".into(),
        language_info: LanguageInfo {
            name: "rust".into(),
            version: "1.95".into(),
            mimetype: "text/rust".into(),
            file_extension: ".rs".into(),
            codemirror_mode: Some("rust".into()),
            ..LanguageInfo::default()
        },
        banner: "hello".into(),
        debugger: false,
        help_links: vec![HelpLink {
            text: "t".into(),
            url: "u".into(),
        }],
        supported_features: vec![],
    };
    check(
        "kernel_info_reply",
        Reply::Ok(info),
        json!({"status": "ok", "protocol_version": "5.5", "implementation": "chorus", "implementation_version": "1",
            "language_info": {"name": "rust", "version": "1.95", "mimetype": "text/rust", "file_extension": ".rs", "codemirror_mode": "rust"},
            "banner": "hello", "debugger": false, "help_links": [{"text": "t", "url": "u"}], "supported_features": []}),
    );
    let complete = CompleteReply {
        matches: vec!["len".into()],
        cursor_start: 2,
        cursor_end: 3,
        metadata: Map::new(),
    };
    check(
        "complete_reply",
        Reply::Ok(complete),
        json!({"status": "ok", "matches": ["len"], "cursor_start": 2, "cursor_end": 3, "metadata": {}}),
    );
    let inspect = InspectReply {
        found: true,
        data: object(json!({"text/plain": "x"})),
        metadata: Map::new(),
    };
    check(
        "inspect_reply",
        Reply::Ok(inspect),
        json!({"status": "ok", "found": true, "data": {"text/plain": "x"}, "metadata": {}}),
    );
    let history = HistoryReply {
        history: vec![
            HistoryEntry::Input(1, 2, "a".into()),
            HistoryEntry::WithOutput(1, 3, ("b".into(), None)),
            HistoryEntry::WithOutput(1, 4, ("c".into(), Some("d".into()))),
        ],
    };
    check(
        "history_reply",
        Reply::Ok(history),
        json!({"status": "ok", "history": [[1, 2, "a"], [1, 3, ["b", null]], [1, 4, ["c", "d"]]]}),
    );
    let comms = BTreeMap::from([(
        "c".to_owned(),
        CommInfo {
            target_name: "t".into(),
        },
    )]);
    check(
        "comm_info_reply",
        Reply::Ok(CommInfoReply { comms }),
        json!({"status": "ok", "comms": {"c": {"target_name": "t"}}}),
    );
    check(
        "shutdown_reply",
        Reply::Ok(ShutdownReply { restart: true }),
        json!({"status": "ok", "restart": true}),
    );
    check(
        "interrupt_reply",
        Reply::Ok(InterruptReply {}),
        json!({"status": "ok"}),
    );
    check(
        "create_subshell_reply",
        Reply::Ok(CreateSubshellReply {
            subshell_id: "s".into(),
        }),
        json!({"status": "ok", "subshell_id": "s"}),
    );
    check(
        "delete_subshell_reply",
        Reply::Ok(DeleteSubshellReply {}),
        json!({"status": "ok"}),
    );
    check(
        "list_subshell_reply",
        Reply::Ok(ListSubshellReply {
            subshell_id: vec!["s".into()],
        }),
        json!({"status": "ok", "subshell_id": ["s"]}),
    );
}

#[test]
fn failures() {
    let error = || ErrorInfo {
        ename: "panic".into(),
        evalue: "boom".into(),
        traceback: vec!["at 1".into()],
    };
    let json =
        json!({"status": "error", "ename": "panic", "evalue": "boom", "traceback": ["at 1"]});
    check("inspect_reply", Reply::<InspectReply>::Error(error()), json);
    check(
        "inspect_reply",
        Reply::<InspectReply>::Aborted,
        json!({"status": "aborted"}),
    );
    check(
        "error",
        error(),
        json!({"ename": "panic", "evalue": "boom", "traceback": ["at 1"]}),
    );
    // A cluster's Python engines say more.
    check_read(
        json!({"ename": "panic", "evalue": "boom", "traceback": ["at 1"], "engine_info": {"engine_id": 3}}),
        error(),
    );
}

#[test]
fn execute_replies() {
    let displayed = Displayed {
        data: object(json!({"text/plain": "2"})),
        metadata: Map::new(),
    };
    let error = ErrorInfo {
        ename: "E".into(),
        ..ErrorInfo::default()
    };
    let next = Payload::SetNextInput {
        text: "t".into(),
        replace: false,
    };
    let outcome = ExecuteOutcome {
        payload: vec![serde_json::to_value(next).unwrap()],
        user_expressions: BTreeMap::from([
            ("a".into(), Reply::Ok(displayed)),
            ("b".into(), Reply::Error(error.clone())),
        ]),
    };
    check(
        "execute_reply",
        ExecuteReply::ok(3, outcome),
        json!({"status": "ok", "execution_count": 3,
        "payload": [{"source": "set_next_input", "text": "t", "replace": false}],
        "user_expressions": {
            "a": {"status": "ok", "data": {"text/plain": "2"}, "metadata": {}},
            "b": {"status": "error", "ename": "E", "evalue": "", "traceback": []},
        }}),
    );
    let json = json!({"status": "error", "execution_count": 3, "ename": "E", "evalue": "", "traceback": []});
    check("execute_reply", ExecuteReply::error(3, error), json);
    check(
        "execute_reply",
        ExecuteReply::aborted(3),
        json!({"status": "aborted", "execution_count": 3}),
    );
    check_read(json!({"status": "aborted"}), ExecuteReply::aborted(0));
    check_read(
        json!({"status": "ok", "execution_count": 1}),
        ExecuteReply::ok(1, ExecuteOutcome::default()),
    );
}

#[test]
fn completeness() {
    check(
        "is_complete_reply",
        IsCompleteReply::Complete,
        json!({"status": "complete"}),
    );
    check(
        "is_complete_reply",
        IsCompleteReply::Invalid,
        json!({"status": "invalid"}),
    );
    check(
        "is_complete_reply",
        IsCompleteReply::Unknown,
        json!({"status": "unknown"}),
    );
    let incomplete = IsCompleteReply::Incomplete {
        indent: "    ".into(),
    };
    check(
        "is_complete_reply",
        incomplete,
        json!({"status": "incomplete", "indent": "    "}),
    );
}

#[test]
fn broadcasts() {
    for (execution_state, name) in [
        (ExecutionState::Starting, "starting"),
        (ExecutionState::Busy, "busy"),
        (ExecutionState::Idle, "idle"),
    ] {
        check(
            "status",
            Status { execution_state },
            json!({"execution_state": name}),
        );
    }
    check(
        "stream",
        Stream {
            name: StreamName::Stdout,
            text: "a".into(),
        },
        json!({"name": "stdout", "text": "a"}),
    );
    check(
        "stream",
        Stream {
            name: StreamName::Stderr,
            text: "a".into(),
        },
        json!({"name": "stderr", "text": "a"}),
    );
    check(
        "execute_input",
        ExecuteInput {
            code: "x".into(),
            execution_count: 2,
        },
        json!({"code": "x", "execution_count": 2}),
    );
    check(
        "clear_output",
        ClearOutput { wait: true },
        json!({"wait": true}),
    );
    check(
        "compile_status",
        CompileStatus {
            activity: Some("inferring types".into()),
        },
        json!({"activity": "inferring types"}),
    );
    check(
        "iopub_welcome",
        IopubWelcome {
            subscription: String::new(),
        },
        json!({"subscription": ""}),
    );

    let data = object(json!({"text/plain": "2"}));
    check(
        "display_data",
        DisplayData {
            data: data.clone(),
            ..DisplayData::default()
        },
        json!({"data": {"text/plain": "2"}, "metadata": {}, "transient": {}}),
    );
    let update = UpdateDisplayData {
        data: data.clone(),
        metadata: Map::new(),
        transient: Transient::named("d"),
    };
    check(
        "update_display_data",
        update,
        json!({"data": {"text/plain": "2"}, "metadata": {}, "transient": {"display_id": "d"}}),
    );
    let mut result = ExecuteResult {
        execution_count: 2,
        data,
        ..ExecuteResult::default()
    };
    check(
        "execute_result",
        result.clone(),
        json!({"execution_count": 2, "data": {"text/plain": "2"}, "metadata": {}}),
    );
    result.transient = Transient::named("d");
    let json = json!({"execution_count": 2, "data": {"text/plain": "2"}, "metadata": {}, "transient": {"display_id": "d"}});
    check("execute_result", result, json);
}

#[test]
fn comms() {
    let data = object(json!({"a": 1}));
    let open = CommOpen {
        comm_id: "c".into(),
        target_name: "t".into(),
        target_module: None,
        data: data.clone(),
    };
    check(
        "comm_open",
        open,
        json!({"comm_id": "c", "target_name": "t", "data": {"a": 1}}),
    );
    check(
        "comm_msg",
        CommMsg {
            comm_id: "c".into(),
            data: data.clone(),
        },
        json!({"comm_id": "c", "data": {"a": 1}}),
    );
    check(
        "comm_close",
        CommClose {
            comm_id: "c".into(),
            data,
        },
        json!({"comm_id": "c", "data": {"a": 1}}),
    );
}

#[test]
fn what_is_typed_stays_hidden() {
    let reply = InputReply {
        value: "hunter2".into(),
    };
    assert!(!format!("{reply:?}").contains("hunter2"));
    check("input_reply", reply, json!({"value": "hunter2"}));
}

#[test]
fn headers_are_echoed_as_they_came() {
    // The fields that jupyter_client, JupyterLab and ipyparallel write between them.
    let full = json!({"msg_id": "1", "session": "s", "username": "", "date": "2024-01-01T00:00:00.000000Z", "msg_type": "m",
        "version": "5.2", "subshell_id": "shell", "later": [1, {"a": null}]});
    let header: Header = serde_json::from_value(full.clone()).unwrap();
    assert_eq!(header.subshell_id.as_deref(), Some("shell"));
    assert_eq!(serde_json::to_value(&header).unwrap(), full);
    let names: BTreeSet<_> = header.extra.keys().map(String::as_str).collect();
    assert_eq!(names, BTreeSet::from(["later"]));
    let least: Header = serde_json::from_value(json!({"msg_id": "1", "msg_type": "m"})).unwrap();
    assert_eq!((least.session.as_str(), least.subshell_id), ("", None));
}
