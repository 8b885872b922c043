//! The core step by step: engines come, work and die, and clients are told the truth.

mod tasks;

use std::time::Duration;

use bytes::Bytes;
use protocol::{Key, Message, RawJson, Session};
use serde_json::{Value, json};

use super::core::{Channel, Core, Event, HeartWord, Moment, Outcome};
use super::packet::Packet;
use super::traffic::HELLO;
use crate::profile::Settings;

struct World {
    core: Core,
    session: Session,
    elapsed: Duration,
}

impl World {
    fn new() -> Self {
        Self {
            core: Core::new(&Settings::default(), fastrand::Rng::with_seed(7)),
            session: Session::new(&Key::none()),
            elapsed: Duration::ZERO,
        }
    }

    fn on(&mut self, event: Event) -> Vec<Outcome> {
        let now = Moment {
            elapsed: self.elapsed,
            wall: jiff::Timestamp::UNIX_EPOCH,
        };
        let mut out = Vec::new();
        self.core.on_event(now, event, &mut out);
        out
    }

    fn message(&self, identities: &[&'static str], msg_type: &str, content: Value) -> Message {
        let content = RawJson::from_value(&content).unwrap();
        self.session
            .raw_message(msg_type, content, None)
            .with_identities(identities.iter().map(|it| Bytes::from(*it)).collect())
    }

    fn receive(&mut self, channel: Channel, message: Message) -> Vec<Outcome> {
        let frames = self.session.encode(&message);
        self.on(match channel {
            Channel::TaskClient | Channel::TaskEngine => Event::Passing {
                channel,
                packet: Packet::of(frames).unwrap(),
            },
            channel => Event::Received {
                channel,
                message: Box::new(message),
                frames,
            },
        })
    }

    fn ask(&mut self, msg_type: &str, content: Value) -> Value {
        let message = self.message(&["client"], msg_type, content);
        let out = self.receive(Channel::Query, message);
        said(&out, Channel::Query).pop().unwrap().1
    }

    /// An engine made here registers.
    fn engine(&mut self, uuid: &'static str) -> Vec<Outcome> {
        let register = json!({"uuid": uuid, "hello": true});
        let message = self.message(&[uuid], "registration_request", register);
        let out = self.receive(Channel::Query, message);
        let [(msg_type, content)] = &said(&out, Channel::Query)[..] else {
            panic!("{out:?}")
        };
        assert_eq!(
            (msg_type.as_str(), &content["status"]),
            ("registration_reply", &json!("ok"))
        );
        for channel in [
            Channel::MuxEngine,
            Channel::TaskEngine,
            Channel::ControlEngine,
        ] {
            let hello = self.message(&[uuid], HELLO, json!({}));
            assert!(self.receive(channel, hello).is_empty());
        }
        let hello = self.message(&[uuid], HELLO, json!({}));
        assert!(self.receive(Channel::BroadcastEngine, hello).is_empty());
        self.beat(uuid, true)
    }

    fn beat(&mut self, uuid: &'static str, ours: bool) -> Vec<Outcome> {
        let uuid = Bytes::from(uuid);
        self.on(Event::Beat { uuid, ours })
    }

    fn request(&mut self, channel: Channel, to: &[&'static str], id: &str) -> Vec<Outcome> {
        let mut message = self.message(to, "execute_request", json!({"code": "1"}));
        message.header.msg_id = id.to_owned();
        self.receive(channel, message)
    }

    fn reply(&mut self, channel: Channel, from: &[&'static str], id: &str) -> Vec<Outcome> {
        let mut parent = self.message(&[], "execute_request", json!({}));
        parent.header.msg_id = id.to_owned();
        let mut message = self.message(from, "execute_reply", json!({"status": "ok"}));
        message.parent = Some(parent.header);
        message.metadata = json!({"status": "ok"}).as_object().unwrap().clone();
        self.receive(channel, message)
    }

    /// Lets time pass until nothing is due in it; gives what happened.
    fn pass(&mut self, duration: Duration) -> Vec<Outcome> {
        let end = self.elapsed + duration;
        let mut out = Vec::new();
        while self.core.deadline() <= end {
            self.elapsed = self.core.deadline().max(self.elapsed);
            out.extend(self.on(Event::Time));
        }
        self.elapsed = end;
        out
    }
}

/// Types and contents of what is said on a channel.
fn said(out: &[Outcome], channel: Channel) -> Vec<(String, Value)> {
    let said = out.iter().filter_map(|outcome| match outcome {
        Outcome::Say(saying) if saying.channel == channel => {
            Some((saying.msg_type.clone(), saying.content.parse().unwrap()))
        }
        _ => None,
    });
    said.collect()
}

/// The identities of what is passed on to a channel.
fn forwarded(out: &[Outcome], channel: Channel) -> Vec<Vec<String>> {
    let text = |frame: &Bytes| String::from_utf8_lossy(frame).into_owned();
    let forwarded = out.iter().filter_map(|outcome| match outcome {
        Outcome::Forward {
            channel: to,
            frames,
        } if *to == channel => {
            let identities = frames.iter().take_while(|frame| *frame != "<IDS|MSG>");
            Some(identities.map(text).collect())
        }
        _ => None,
    });
    forwarded.collect()
}

#[test]
fn an_engine_is_announced_when_requests_can_reach_it() {
    let mut world = World::new();
    let out = world.engine("a");
    let told = said(&out, Channel::Notification);
    assert_eq!(
        told,
        [(
            "registration_notification".to_owned(),
            json!({"id": 0, "uuid": "a"})
        )]
    );
    assert!(out.iter().any(|outcome| matches!(
        outcome,
        Outcome::Heart {
            word: HeartWord::Registered,
            ..
        }
    )));
    world.engine("b");
    let engines = world.ask("connection_request", json!({}));
    assert_eq!(engines["engines"], json!({"0": "a", "1": "b"}));
    // Clients that subscribe a moment later are told again.
    assert_eq!(
        said(&world.on(Event::Subscribed), Channel::Notification).len(),
        2
    );
    world.pass(Duration::from_secs(6));
    assert!(world.on(Event::Subscribed).is_empty());
}

#[test]
fn another_projects_engine_is_registered_by_its_first_beat() {
    let mut world = World::new();
    let message = world.message(
        &["p"],
        "registration_request",
        json!({"uuid": "p", "id": 7}),
    );
    world.receive(Channel::Query, message);
    assert!(
        world.core.deadline() <= Duration::from_millis(100),
        "beats do not hurry"
    );
    let out = world.beat("p", false);
    assert_eq!(said(&out, Channel::Notification).len(), 1);
    assert!(world.beat("p", false).is_empty());
    let message = world.message(&["q"], "registration_request", json!({"uuid": "p"}));
    let out = world.receive(Channel::Query, message);
    assert_eq!(
        said(&out, Channel::Query).pop().unwrap().1["ename"],
        "KeyError"
    );
    assert_eq!(
        world.ask("connection_request", json!({}))["engines"],
        json!({"7": "p"})
    );
}

#[test]
fn an_engine_that_is_not_known_is_told_to_register() {
    let mut world = World::new();
    let out = world.beat("lost", true);
    assert!(matches!(
        &out[..],
        [Outcome::Heart {
            word: HeartWord::Register,
            ..
        }]
    ));
    assert!(world.beat("other", false).is_empty());
    // One that lost its connections only keeps its number, and is not announced twice.
    world.engine("a");
    assert!(said(&world.engine("a"), Channel::Notification).is_empty());
}

#[test]
fn requests_and_replies_find_their_way_and_are_remembered() {
    let mut world = World::new();
    world.engine("a");
    let out = world.request(Channel::MuxClient, &["client", "a"], "m");
    assert_eq!(forwarded(&out, Channel::MuxEngine), [["a", "client"]]);
    assert_eq!(
        world.ask("queue_request", json!({"targets": null}))["0"]["queue"],
        1
    );
    assert_eq!(
        world.ask("result_request", json!({"msg_ids": ["m"]}))["pending"],
        json!(["m"])
    );
    let purge = world.ask("purge_request", json!({"msg_ids": ["m"]}));
    assert_eq!(purge["ename"], "IndexError");

    let out = world.reply(Channel::MuxEngine, &["a", "client"], "m");
    assert_eq!(forwarded(&out, Channel::MuxClient), [["client", "a"]]);
    assert!(
        world
            .reply(Channel::MuxEngine, &["a", "client"], "m")
            .is_empty(),
        "answered twice"
    );
    let queue = world.ask("queue_request", json!({"targets": [0], "verbose": true}));
    assert_eq!(
        queue["0"],
        json!({"queue": [], "completed": ["m"], "tasks": []})
    );
    let result = world.ask("result_request", json!({"msg_ids": ["m"]}));
    assert_eq!(result["m"]["result_content"]["status"], "ok");
    assert_eq!(
        world.ask("history_request", json!({}))["history"],
        json!(["m"])
    );
    assert_eq!(world.ask("load_request", json!({"targets": "a"}))["0"], 0);
    assert_eq!(
        world.ask("queue_request", json!({"targets": [9]}))["ename"],
        "IndexError"
    );
    world.ask("purge_request", json!({"msg_ids": "all"}));
    assert_eq!(
        world.ask("result_request", json!({"msg_ids": ["m"]}))["ename"],
        "KeyError"
    );
    assert_eq!(
        world.ask("nonsense_request", json!({}))["ename"],
        "KeyError"
    );
}

#[test]
fn who_waits_for_a_dead_engine_is_answered_before_the_death_is_announced() {
    let mut world = World::new();
    world.engine("a");
    world.request(Channel::MuxClient, &["client", "a"], "m");
    world.request(Channel::ControlClient, &["client", "a"], "c");
    world.request(Channel::TaskClient, &["client"], "t");
    let probed = |sent| Event::Probed {
        uuid: "a".to_owned(),
        sent,
    };
    assert!(world.on(probed(false)).is_empty());
    let out = world.on(probed(false));
    for channel in [
        Channel::MuxClient,
        Channel::ControlClient,
        Channel::TaskClient,
    ] {
        let [(msg_type, content)] = &said(&out, channel)[..] else {
            panic!("{channel:?}: {out:?}")
        };
        assert_eq!(msg_type, "execute_reply");
        assert_eq!(content["ename"], "EngineError");
    }
    assert!(said(&out, Channel::Notification).is_empty());
    let later = world.pass(Duration::from_secs(1));
    let told = said(&later, Channel::Notification);
    assert_eq!(
        told,
        [(
            "unregistration_notification".to_owned(),
            json!({"id": 0, "uuid": "a"})
        )]
    );
    let result = world.ask("result_request", json!({"msg_ids": ["m"]}));
    assert_eq!(result["m"]["result_content"]["ename"], "EngineError");
    // And who asks for it later.
    let out = world.request(Channel::MuxClient, &["client", "a"], "n");
    assert_eq!(
        said(&out, Channel::MuxClient).pop().unwrap().1["ename"],
        "EngineError"
    );
}

#[test]
fn who_asked_an_engine_to_end_has_what_he_wanted() {
    let mut world = World::new();
    world.engine("a");
    let shutdown = world.message(&["client", "a"], "shutdown_request", json!({}));
    world.receive(Channel::ControlClient, shutdown);
    // Its last words on iopub may be faster than its reply.
    let mut last = world.message(&["engine.0.shutdown_reply"], "shutdown_reply", json!({}));
    last.metadata = json!({"engine": "a"}).as_object().unwrap().clone();
    let out = world.receive(Channel::IopubEngine, last);
    let (msg_type, content) = said(&out, Channel::ControlClient).pop().unwrap();
    assert_eq!(
        (msg_type.as_str(), &content["status"]),
        ("shutdown_reply", &json!("ok"))
    );
}

#[test]
fn silence_is_found_and_answered_too() {
    let mut world = World::new();
    world.engine("a");
    let out = world.pass(Duration::from_secs(20));
    assert_eq!(said(&out, Channel::Notification).len(), 1);
    assert!(out.iter().any(|outcome| matches!(outcome, Outcome::Beat)));
}

#[test]
fn tasks_wait_for_an_engine() {
    let mut world = World::new();
    let out = world.request(Channel::TaskClient, &["client"], "t");
    assert!(out.is_empty());
    assert_eq!(
        world.ask("queue_request", json!({"targets": null}))["unassigned"],
        1
    );
    let out = world.engine("a");
    assert_eq!(forwarded(&out, Channel::TaskEngine), [["a", "client"]]);
    let out = world.reply(Channel::TaskEngine, &["a", "client"], "t");
    assert_eq!(forwarded(&out, Channel::TaskClient), [["client", "a"]]);
    let again = world.message(&["client"], "resubmit_request", json!({"msg_ids": ["t"]}));
    let out = world.receive(Channel::Query, again);
    assert!(
        out.iter()
            .any(|outcome| matches!(outcome, Outcome::Resubmit(_)))
    );
}

#[test]
fn the_end_is_announced_to_clients_and_engines() {
    let mut world = World::new();
    world.engine("a");
    let message = world.message(&["client"], "shutdown_request", json!({}));
    let out = world.receive(Channel::Query, message);
    assert_eq!(said(&out, Channel::Query).len(), 1);
    assert_eq!(
        said(&out, Channel::Notification).pop().unwrap().0,
        "shutdown_notification"
    );
    assert_eq!(
        said(&out, Channel::ControlEngine).pop().unwrap().0,
        "shutdown_request"
    );
    let out = world.pass(Duration::from_secs(1));
    assert!(out.iter().any(|outcome| matches!(outcome, Outcome::Stop)));
}
