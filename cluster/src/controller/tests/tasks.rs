//! Load-balanced tasks as clients and engines see them.

use super::*;

impl World {
    fn task(&mut self, id: &str, metadata: Value) -> Vec<Outcome> {
        self.task_of("client", id, metadata)
    }

    fn task_of(&mut self, client: &'static str, id: &str, metadata: Value) -> Vec<Outcome> {
        let mut message = self.message(&[client], "apply_request", json!({}));
        message.header.msg_id = id.to_owned();
        message.metadata = metadata.as_object().unwrap().clone();
        self.receive(Channel::TaskClient, message)
    }

    fn answer(&mut self, engine: &'static str, id: &str, metadata: Value) -> Vec<Outcome> {
        let mut parent = self.message(&[], "apply_request", json!({}));
        parent.header.msg_id = id.to_owned();
        let mut message = self.message(&[engine, "client"], "apply_reply", json!({}));
        message.parent = Some(parent.header);
        message.metadata = metadata.as_object().unwrap().clone();
        self.receive(Channel::TaskEngine, message)
    }
}

/// The engine that is given the only task, with a 2 behind it when that is given out for the second time.
fn runs(out: &[Outcome]) -> String {
    let first = forwarded(out, Channel::TaskEngine).into_iter();
    let mut all: Vec<String> = first.filter_map(|to| to.first().cloned()).collect();
    for outcome in out {
        if let Outcome::Send { channel, message } = outcome {
            assert_eq!(*channel, Channel::TaskEngine);
            let [engine, client] = &message.identities[..] else {
                panic!("{message:?}")
            };
            assert_eq!(client, "client");
            let attempt = message.metadata["attempt"].as_u64().unwrap() + 1;
            all.push(format!("{}{attempt}", String::from_utf8_lossy(engine)));
        }
    }
    let [one] = &all[..] else { panic!("{out:?}") };
    one.clone()
}

/// The only error told to a client.
fn failure(out: &[Outcome]) -> Value {
    let said = said(out, Channel::TaskClient);
    let [(msg_type, content)] = &said[..] else {
        panic!("{out:?}")
    };
    assert_eq!(msg_type, "apply_reply");
    content.clone()
}

#[test]
fn dependencies_in_all_their_spellings() {
    let mut world = World::new();
    world.engine("a");
    world.engine("b");
    assert_eq!(
        runs(&world.task("1", json!({"after": [], "follow": null}))),
        "a"
    );
    let whole = json!({"dependencies": ["1"], "all": true, "success": true, "failure": false});
    assert!(world.task("2", json!({"after": whole})).is_empty());
    assert!(world.task("3", json!({"follow": ["1"]})).is_empty());
    assert!(world.task("4", json!({"after": "3"})).is_empty());
    let failed = json!({"dependencies": ["3"], "success": false, "failure": true});
    assert!(world.task("5", json!({"after": failed})).is_empty());
    let queue = json!({"targets": null, "verbose": true});
    assert_eq!(
        world.ask("queue_request", queue)["unassigned"],
        json!(["2", "3", "4", "5"])
    );
    let out = world.answer("a", "1", json!({"status": "ok"}));
    assert_eq!(
        forwarded(&out, Channel::TaskEngine),
        [["b", "client"], ["a", "client"]]
    );
    let out = world.answer("a", "3", json!({"status": "ok"}));
    assert_eq!(failure(&out)["ename"], "ImpossibleDependency");
    assert_eq!(runs(&out), "a");
    for unknown in [json!({"after": ["unknown"]}), json!({"follow": "6"})] {
        let out = world.task("6", unknown);
        assert_eq!(failure(&out)["ename"], "InvalidDependency");
    }
    let result = world.ask("result_request", json!({"msg_ids": ["5"]}));
    assert_eq!(
        result["5"]["result_content"]["ename"],
        "ImpossibleDependency"
    );
}

#[test]
fn wishes_that_make_no_sense_are_refused_and_those_of_none_are_none() {
    let mut world = World::new();
    world.engine("a");
    let none = json!({"targets": null, "after": null, "retries": -1, "timeout": 0.0, "label": 7});
    assert_eq!(runs(&world.task("1", none)), "a");
    let out = world.task("2", json!({"targets": {"not": "a list"}}));
    assert_eq!(failure(&out)["ename"], "ValueError");
    let result = world.ask("result_request", json!({"msg_ids": ["2"]}));
    assert_eq!(result["completed"], json!(["2"]));
}

#[test]
fn failed_and_refused_tasks_are_tried_elsewhere() {
    let mut world = World::new();
    world.engine("a");
    world.engine("b");
    assert_eq!(runs(&world.task("1", json!({"retries": 1}))), "a");
    assert_eq!(
        runs(&world.answer("a", "1", json!({"status": "error"}))),
        "b2"
    );
    let out = world.answer("b", "1", json!({"status": "error"}));
    assert_eq!(forwarded(&out, Channel::TaskClient), [["client", "b"]]);
    assert_eq!(runs(&world.task("2", json!({}))), "a");
    let unmet = json!({"status": "error", "dependencies_met": false});
    assert_eq!(runs(&world.answer("a", "2", unmet.clone())), "b2");
    let out = world.answer("b", "2", unmet);
    assert_eq!(failure(&out)["ename"], "ImpossibleDependency");
}

#[test]
fn tasks_that_wait_too_long_fail() {
    let mut world = World::new();
    assert!(
        world
            .task("1", json!({"timeout": 0.05, "label": "mine"}))
            .is_empty()
    );
    assert!(world.core.deadline() <= Duration::from_millis(50));
    let out = world.pass(Duration::from_millis(60));
    assert_eq!(failure(&out)["ename"], "TaskTimeout");
    let Some(Outcome::Say(saying)) = out.iter().find(|it| matches!(it, Outcome::Say(_))) else {
        panic!("{out:?}")
    };
    assert_eq!(saying.metadata["label"], "mine");
    assert_eq!(saying.metadata["status"], "error");
    let records = world.ask("db_request", json!({"query": {"label": "mine"}}));
    assert_eq!(records["records"][0]["msg_id"], "1");
}

/// Asks the scheduler, as tasks are sent to it.
fn abort_tasks(world: &mut World, content: Value) -> Value {
    let message = world.message(&["client"], "abort_request", content);
    let out = world.receive(Channel::TaskClient, message);
    let mut said = said(&out, Channel::TaskClient);
    said.retain(|(msg_type, _)| msg_type == "abort_reply");
    said.pop().unwrap().1
}

#[test]
fn tasks_are_aborted_by_whoever_asks_an_engine_or_the_scheduler() {
    let mut world = World::new();
    world.engine("a");
    assert_eq!(runs(&world.task("1", json!({}))), "a");
    for id in ["2", "3", "4"] {
        assert!(world.task(id, json!({})).is_empty());
    }
    world.task_of("other", "5", json!({}));
    let abort = world.message(
        &["client", "a"],
        "abort_request",
        json!({"msg_ids": ["2", "1"]}),
    );
    let out = world.receive(Channel::ControlClient, abort);
    assert_eq!(failure(&out), json!({"status": "aborted"}));
    // The engine hears of it, too: it may have some that it has not begun.
    assert_eq!(forwarded(&out, Channel::ControlEngine), [["a", "client"]]);
    assert_eq!(
        abort_tasks(&mut world, json!({"msg_ids": ["3", "1", "unknown"]})),
        json!({"status": "ok", "aborted": 1, "engines": {"0": ["1"]}})
    );
    let status = world.ask("queue_request", json!({"targets": null}));
    assert_eq!(status["unassigned"], 2);
    assert!(status["task_bytes"].as_u64().unwrap() > 1000);
    assert_eq!(abort_tasks(&mut world, json!({}))["aborted"], 1, "its own");
    let out = world.answer("a", "1", json!({"status": "aborted"}));
    assert_eq!(forwarded(&out, Channel::TaskClient), [["client", "a"]]);
    assert_eq!(forwarded(&out, Channel::TaskEngine), [["a", "other"]]);
}

#[test]
fn a_queue_has_its_limit_and_says_so() {
    let mut settings = Settings::default();
    settings.limits.queue_mb = 1;
    let mut world = World::new();
    world.core = Core::new(&settings, fastrand::Rng::with_seed(7));
    let taken = (0..).find(|number| !world.task(&number.to_string(), json!({})).is_empty());
    assert!((300..3000).contains(&taken.unwrap()), "{taken:?}");
    let out = world.task("more", json!({}));
    let content = failure(&out);
    assert_eq!(content["ename"], "QueueFull");
    let text = content["evalue"].as_str().unwrap();
    assert!(
        text.contains("1048576 bytes") && text.contains("queue_mb"),
        "{text}"
    );
    assert!(world.task_of("other", "other", json!({})).is_empty());
}

#[test]
fn a_late_reply_of_an_engine_thought_dead_is_nobodys() {
    let mut world = World::new();
    world.engine("a");
    world.task("1", json!({}));
    let gone = world.message(
        &["a"],
        "unregistration_request",
        json!({"id": 0, "uuid": "a"}),
    );
    let out = world.receive(Channel::Query, gone);
    let content = failure(&out);
    assert_eq!(content["ename"], "EngineError");
    assert!(content["evalue"].as_str().unwrap().contains("\"a\""));
    assert!(world.answer("a", "1", json!({"status": "ok"})).is_empty());
}
