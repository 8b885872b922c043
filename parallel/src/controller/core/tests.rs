//! Messages in their possible orders, and what listeners hear.

use std::sync::Mutex;

use protocol::{Key, RawJson, Session};
use serde_json::json;

use super::*;
use crate::controller::request::Output;

/// What listeners heard: a request's place and words for the event.
type Heard = Arc<Mutex<Vec<String>>>;

struct Bench {
    core: Core,
    session: Session,
    heard: Heard,
    now: Instant,
}

fn in_words(index: usize, event: &Event) -> String {
    let what = match event {
        Event::Output(Output::Stream(stream)) => format!("says {}", stream.text),
        Event::Output(output) => format!("shows {output:?}"),
        Event::Reply(reply) => {
            let content: Value = reply.parse().unwrap();
            format!("replies {}", content["status"].as_str().unwrap())
        }
        Event::Lost(lost) => format!("lost: {lost}"),
    };
    format!("{index} {what}")
}

impl Bench {
    fn new() -> Self {
        let mut core = Core::default();
        core.set_engines(
            [0, 1]
                .map(|id| (EngineId(id), Arc::from(format!("e{id}"))))
                .into(),
        );
        Self {
            core,
            session: Session::new(&Key::none()),
            heard: Heard::default(),
            now: Instant::now(),
        }
    }

    fn submit(&mut self, ids: &[(&str, u32)], output: bool) -> Vec<bool> {
        let entries = ids.iter().map(|(id, engine)| Entry {
            id: (*id).to_owned(),
            engine: Some((EngineId(*engine), format!("e{engine}").into())),
            output,
        });
        let heard = Arc::clone(&self.heard);
        let listener = Box::new(move |index, event: Event| {
            heard.lock().unwrap().push(in_words(index, &event));
        });
        self.core.on_submit(entries.collect(), listener)
    }

    fn message(&self, id: &str, msg_type: &str, content: Value, status: Option<&str>) -> Message {
        let mut parent = self
            .session
            .raw_message("execute_request", RawJson::empty_object(), None)
            .header;
        parent.msg_id = id.to_owned();
        let mut message = self.session.raw_message(
            msg_type,
            RawJson::from_value(&content).unwrap(),
            Some(&parent),
        );
        if let Some(status) = status {
            message.metadata.insert("status".to_owned(), json!(status));
        }
        message
    }

    fn reply(&mut self, id: &str, content: Value) {
        let status = content["status"].as_str().map(str::to_owned);
        let message = self.message(id, "execute_reply", content, status.as_deref());
        self.core.on_reply(self.now, message);
        self.check();
    }

    fn ok(&mut self, id: &str) {
        self.reply(id, json!({"status": "ok"}));
    }

    fn died(&mut self, id: &str) {
        let content = json!({"status": "error", "ename": "EngineError", "engine_info": {}});
        self.reply(id, content);
    }

    fn iopub(&mut self, id: &str, msg_type: &str, content: Value) {
        let message = self.message(id, msg_type, content, None);
        self.core.on_iopub(self.now, &message);
        self.check();
    }

    fn say(&mut self, id: &str, text: &str) {
        self.iopub(id, "stream", json!({"name": "stdout", "text": text}));
    }

    fn state(&mut self, id: &str, state: &str) {
        self.iopub(id, "status", json!({"execution_state": state}));
    }

    fn news(&mut self, msg_type: &str, id: u32) -> bool {
        let content = RawJson::from_value(&json!({"id": id, "uuid": format!("e{id}")})).unwrap();
        let message = self.session.raw_message(msg_type, content, None);
        let changed = self.core.on_news(&message);
        self.check();
        changed
    }

    /// What was heard since the last time.
    fn heard(&self) -> Vec<String> {
        std::mem::take(&mut self.heard.lock().unwrap())
    }

    /// The books agree with each other.
    fn check(&self) {
        let open: usize = self.core.groups.values().map(|group| group.open).sum();
        assert_eq!(open, self.core.pending.len());
        for id in self.core.closing.keys() {
            assert!(self.core.pending[id].answer.is_some());
        }
        for pending in self.core.pending.values() {
            assert!(self.core.groups.contains_key(&pending.group));
        }
    }

    fn is_empty(&self) -> bool {
        let Core {
            pending,
            groups,
            closing,
            ..
        } = &self.core;
        pending.is_empty() && groups.is_empty() && closing.is_empty()
    }
}

#[test]
fn all_output_comes_before_the_end_in_whatever_order_messages_come() {
    // r: the reply, s: text, b and i: busy and idle.
    for order in ["bsir", "bsri", "rbsi", "brsi"] {
        let mut bench = Bench::new();
        assert_eq!(bench.submit(&[("a", 0)], true), [true]);
        for step in order.chars() {
            match step {
                'r' => bench.ok("a"),
                's' => bench.say("a", "x"),
                'b' => bench.state("a", "busy"),
                _ => bench.state("a", "idle"),
            }
        }
        assert_eq!(bench.heard(), ["0 says x", "0 replies ok"], "{order}");
        assert!(bench.is_empty(), "{order}");
        // Nothing is heard of what is over.
        bench.say("a", "late");
        bench.ok("a");
        assert!(bench.heard().is_empty());
    }
}

#[test]
fn requests_are_told_apart_and_others_are_ignored() {
    let mut bench = Bench::new();
    bench.submit(&[("a", 0), ("b", 1)], true);
    bench.submit(&[("c", 0)], false);
    bench.say("b", "1");
    bench.say("somebody's", "?");
    bench.say("c", "output that is not wanted");
    bench.say("a", "0");
    bench.ok("c");
    bench.state("b", "idle");
    bench.ok("b");
    assert_eq!(
        bench.heard(),
        ["1 says 1", "0 says 0", "0 replies ok", "1 replies ok"]
    );
    bench.iopub("a", "stream", json!({"name": "nowhere"}));
    bench.iopub("a", "execute_input", json!({}));
    bench.iopub(
        "a",
        "execute_result",
        json!({"execution_count": 3, "data": {}}),
    );
    assert_eq!(bench.heard().len(), 1, "malformed output is dropped");
    assert!(!bench.is_empty());
}

#[test]
fn an_engine_that_dies_ends_its_requests_after_its_last_output() {
    let mut bench = Bench::new();
    bench.submit(&[("a", 0), ("b", 1)], true);
    bench.submit(&[("c", 0)], false);
    // The controller says so by a reply first.
    bench.died("c");
    assert_eq!(bench.heard().len(), 1);
    bench.died("a");
    bench.say("a", "last words");
    assert_eq!(bench.heard(), ["0 says last words"]);
    assert!(bench.news("unregistration_notification", 0));
    let heard = bench.heard();
    assert_eq!(heard.len(), 1);
    assert!(
        heard[0].starts_with("0 lost: engine 0 has gone"),
        "{heard:?}"
    );
    // ipyparallel's says so by its news only.
    assert!(bench.news("unregistration_notification", 1));
    assert!(bench.heard()[0].starts_with("1 lost: engine 1"));
    assert!(bench.is_empty());
    assert!(!bench.news("unregistration_notification", 1), "old news");
    // A request that was made before the news is not sent after it.
    assert_eq!(bench.submit(&[("d", 0)], true), [false]);
    assert!(bench.heard()[0].starts_with("0 lost: engine 0"));
    assert!(bench.is_empty());
}

#[test]
fn a_reply_that_came_is_not_lost_with_its_engine() {
    let mut bench = Bench::new();
    bench.submit(&[("a", 0)], true);
    bench.ok("a");
    bench.news("unregistration_notification", 0);
    assert_eq!(bench.heard(), ["0 replies ok"]);
    // An error of the user's that has the name of the controller's is an engine's all the same.
    bench.news("registration_notification", 0);
    bench.submit(&[("b", 0)], false);
    bench.reply(
        "b",
        json!({"status": "error", "ename": "EngineError", "engine_info": {"engine_id": 0}}),
    );
    assert_eq!(bench.heard(), ["0 replies error"]);
}

#[test]
fn an_engine_without_an_end_to_its_output_is_not_awaited_for_ever() {
    let mut bench = Bench::new();
    bench.submit(&[("a", 0)], true);
    assert_eq!(bench.core.deadline(), None);
    bench.ok("a");
    let first = bench.core.deadline().unwrap();
    bench.now += Duration::from_secs(3);
    bench.say("a", "still there");
    assert!(bench.core.deadline().unwrap() > first);
    bench.core.on_time(first);
    assert_eq!(bench.heard(), ["0 says still there"]);
    bench.core.on_time(bench.core.deadline().unwrap());
    assert_eq!(bench.heard(), ["0 replies ok"]);
    assert!(bench.is_empty());
}

#[test]
fn requests_taken_out_of_a_queue_have_no_output_to_wait_for() {
    let mut bench = Bench::new();
    bench.submit(&[("a", 0)], true);
    bench.reply("a", json!({"status": "aborted"}));
    assert_eq!(bench.heard(), ["0 replies aborted"]);
    assert!(bench.is_empty());
}

#[test]
fn a_controller_that_goes_ends_everything_once() {
    let mut bench = Bench::new();
    bench.submit(&[("a", 0), ("b", 1)], true);
    bench.submit(&[("c", 0)], false);
    bench.submit(&[("d", 1)], false);
    bench.ok("b");
    bench.core.forget(&["d".to_owned(), "unknown".to_owned()]);
    bench.check();
    assert!(!bench.core.told());
    bench.news("shutdown_notification", 0);
    assert!(bench.core.told());
    bench.core.on_lost(&Lost::Closed);
    let mut heard = bench.heard();
    heard.sort();
    let closed = "0 lost: the connection to the controller was closed";
    assert_eq!(heard, [closed, closed, "1 replies ok"]);
    assert!(bench.is_empty() && bench.core.engines().is_empty());
}

#[test]
fn engines_come() {
    let mut bench = Bench::new();
    assert!(bench.news("registration_notification", 2));
    assert!(!bench.news("registration_notification", 2), "told again");
    assert!(!bench.news("some_notification", 3));
    assert_eq!(bench.core.engines().len(), 3);
    let empty =
        bench
            .session
            .raw_message("registration_notification", RawJson::empty_object(), None);
    assert!(!bench.core.on_news(&empty));
}
