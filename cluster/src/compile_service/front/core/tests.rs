//! The front's rules, step by step, and under random events.

use serde_json::value::to_raw_value;

use super::*;

const LIMITS: Limits = Limits {
    max_workers: 3,
    start_delay: Duration::from_millis(300),
    abandon_delay: Duration::from_millis(100),
    cancel_timeout: Duration::from_secs(10),
    worker_idle: Duration::from_secs(60),
    idle: Duration::from_secs(600),
};

/// Drives a core, and renders what it does: `start w1 a`, `w1 <- x` (a request with that payload), `w1 <- cancel x`,
/// `w1 <- activity? x`, `1.7 = x` (connection 1 gets this answer to its request 7), `1.7: doing` (activity), `end w1`, `close 1`,
/// `status 1`, `exit`.
struct Front {
    core: Core,
    now: Duration,
    /// In the order of their start; w1 is the first.
    workers: Vec<WorkerId>,
    payloads: HashMap<u64, String>,
    /// What each worker was given last.
    given: HashMap<WorkerId, u64>,
}

impl Front {
    fn new() -> Self {
        Self::with(LIMITS)
    }

    fn with(limits: Limits) -> Self {
        let mut front = Self {
            core: Core::new(limits),
            now: Duration::ZERO,
            workers: Vec::new(),
            payloads: HashMap::new(),
            given: HashMap::new(),
        };
        front.event(Event::Connected(ConnectionId(1)));
        front
    }

    fn event(&mut self, event: Event) -> Vec<String> {
        let effects = self.core.on_event(self.now, event);
        self.core.check();
        effects.into_iter().map(|it| self.render(it)).collect()
    }

    fn render(&mut self, effect: Effect) -> String {
        match effect {
            Effect::Send(connection, ServiceMessage::Reply { id, result }) => {
                let text = match result {
                    Ok(value) => value.get().trim_matches('"').to_owned(),
                    Err(error) => format!("{error:?}"),
                };
                format!("{}.{id} = {text}", connection.0)
            }
            Effect::Send(connection, ServiceMessage::Activity { id, activity }) => {
                format!("{}.{id}: {}", connection.0, activity.unwrap_or_default())
            }
            Effect::Send(_, message) => format!("{message:?}"),
            Effect::Close(connection) => format!("close {}", connection.0),
            Effect::SendStatus(connection) => format!("status {}", connection.0),
            Effect::StartWorker { worker, key } => {
                self.workers.push(worker);
                format!("start {} {key}", self.name(worker))
            }
            Effect::ToWorker(worker, request) => {
                let text = match request {
                    WorkerRequest::Request { id, payload } => {
                        let payload = payload.get().trim_matches('"').to_owned();
                        self.payloads.insert(id, payload.clone());
                        self.given.insert(worker, id);
                        payload
                    }
                    WorkerRequest::Cancel { id } => format!("cancel {}", self.payloads[&id]),
                    WorkerRequest::Activity { id } => format!("activity? {}", self.payloads[&id]),
                    WorkerRequest::Open { key } => format!("open {key}"),
                };
                format!("{} <- {text}", self.name(worker))
            }
            Effect::EndWorker(worker) => format!("end {}", self.name(worker)),
            Effect::Exit => "exit".to_owned(),
        }
    }

    fn name(&self, worker: WorkerId) -> String {
        let at = self.workers.iter().position(|it| *it == worker).unwrap();
        format!("w{}", at + 1)
    }

    /// Connection 1 sends a request, whose payload is `key`, `affinity` and its id: `a/x/1`.
    fn request(&mut self, id: u64, key: &str, affinity: &str) -> Vec<String> {
        self.request_of(1, id, key, affinity)
    }

    fn request_of(&mut self, connection: u64, id: u64, key: &str, affinity: &str) -> Vec<String> {
        let payload = to_raw_value(&format!("{key}/{affinity}/{id}")).unwrap();
        let message = ClientMessage::Request {
            id,
            key: key.to_owned(),
            affinity: affinity.to_owned(),
            is_minor: affinity.starts_with("minor"),
            payload,
        };
        self.event(Event::Received(ConnectionId(connection), message))
    }

    fn message(&mut self, message: ClientMessage) -> Vec<String> {
        self.event(Event::Received(ConnectionId(1), message))
    }

    fn worker(&self, number: usize) -> WorkerId {
        self.workers[number - 1]
    }

    fn ready(&mut self, number: usize) -> Vec<String> {
        self.event(Event::FromWorker(self.worker(number), WorkerReply::Ready))
    }

    /// A worker answers what it was given last.
    fn done(&mut self, number: usize) -> Vec<String> {
        self.answers(number, false)
    }

    fn answers(&mut self, number: usize, has_moved: bool) -> Vec<String> {
        let worker = self.worker(number);
        let reply = WorkerReply::Reply {
            id: self.given[&worker],
            result: Ok(to_raw_value("ok").unwrap()),
            has_moved,
        };
        self.event(Event::FromWorker(worker, reply))
    }

    fn dies(&mut self, number: usize) -> Vec<String> {
        let worker = self.worker(number);
        self.event(Event::WorkerEnded {
            worker,
            status: "signal: 9".to_owned(),
            stderr: format!("w{number}"),
        })
    }

    /// Time passes until `to`, with an event at each deadline.
    fn at_ms(&mut self, to: u64) -> Vec<String> {
        let to = Duration::from_millis(to);
        let mut effects = Vec::new();
        while let Some(deadline) = self.core.deadline().filter(|at| *at <= to) {
            assert!(deadline >= self.now, "a deadline has passed already");
            self.now = deadline;
            effects.extend(self.event(Event::Time));
            assert_ne!(
                self.core.deadline(),
                Some(deadline),
                "a deadline has to be dealt with, or the driver spins"
            );
        }
        self.now = to;
        effects
    }
}

impl Core {
    /// What is true between events.
    fn check(&self) {
        assert!(self.workers.len() <= self.limits.max_workers);
        let mut seen = BTreeSet::new();
        for id in &self.queue {
            let request = self.requests.get(id).expect("a queued request exists");
            assert!(request.client.is_some(), "somebody waits for it");
            assert!(seen.insert(*id), "it is queued once");
        }
        for worker in self.workers.values() {
            if let State::Busy(id) = worker.state {
                assert!(self.requests.contains_key(&id), "its request exists");
                assert!(seen.insert(id), "a request is at one place");
            }
        }
        assert_eq!(seen.len(), self.requests.len(), "no request is lost");
        for request in self.requests.values() {
            if let Some((connection, _)) = request.client {
                assert!(self.connections.contains_key(&connection));
            }
        }
        if self.has_exited {
            return;
        }
        for id in &self.queue {
            let request = &self.requests[id];
            let has_room = self.workers.len() < self.limits.max_workers;
            assert!(
                !has_room || self.has_live(&request.key),
                "a request without a worker waits although there is room"
            );
            assert!(self.idle_worker(request).is_none(), "nobody is idle");
        }
    }
}

#[test]
fn the_first_request_of_a_key_starts_a_worker() {
    let mut front = Front::new();
    assert_eq!(front.request(1, "a", "x"), ["start w1 a"]);
    // It starts once, and nobody is waited for longer than it takes.
    assert!(front.request(2, "a", "y").is_empty());
    assert!(front.at_ms(5000).is_empty());
    assert_eq!(front.ready(1), ["w1 <- a/x/1"]);
    assert_eq!(front.done(1), ["1.1 = ok", "w1 <- a/y/2"]);
    assert_eq!(front.done(1), ["1.2 = ok"]);
    assert_eq!(front.request(3, "a", "z"), ["w1 <- a/z/3"]);
    // Another key has a worker of its own, at once.
    assert_eq!(front.request(4, "b", "z"), ["start w2 b"]);
    assert_eq!(front.ready(2), ["w2 <- b/z/4"]);
}

#[test]
fn a_second_worker_starts_after_a_delay() {
    let mut front = Front::new();
    front.request(1, "a", "x");
    front.at_ms(1000);
    front.ready(1);
    front.at_ms(2000);
    assert!(front.request(2, "a", "y").is_empty());
    assert!(front.at_ms(2299).is_empty());
    assert_eq!(front.at_ms(2300), ["start w2 a"]);
    // While it starts, no third one does.
    assert!(front.request(3, "a", "z").is_empty());
    assert!(front.at_ms(4000).is_empty());
    // The first that is free takes the first request.
    assert_eq!(front.done(1), ["1.1 = ok", "w1 <- a/y/2"]);
    assert_eq!(front.ready(2), ["w2 <- a/z/3"]);
    // From its start on, the next one has time again.
    front.request(4, "a", "u");
    assert!(front.at_ms(4299).is_empty());
    assert_eq!(front.at_ms(4300), ["start w3 a"]);
    front.ready(3);
    // Three are the limit.
    front.request(5, "a", "v");
    assert!(front.at_ms(30_000).is_empty());
    assert_eq!(front.done(2), ["1.3 = ok", "w2 <- a/v/5"]);
}

#[test]
fn a_minor_request_starts_no_second_worker() {
    let mut front = Front::new();
    front.request(1, "a", "x");
    front.ready(1);
    assert!(front.request(2, "a", "minor").is_empty());
    assert!(front.at_ms(60_000).is_empty());
    assert_eq!(front.done(1), ["1.1 = ok", "w1 <- a/minor/2"]);
    front.message(ClientMessage::Cancel { id: 2 });
    assert!(front.request(3, "a", "minor").is_empty());
    assert_eq!(
        front.at_ms(70_000),
        ["end w1", "start w2 a"],
        "but the first"
    );
}

#[test]
fn namespaces_that_take_turns_at_a_cost_get_workers_of_their_own() {
    let mut front = Front::new();
    front.request(1, "a", "x");
    front.ready(1);
    front.done(1);
    assert_eq!(front.request(2, "a", "y"), ["w1 <- a/y/2"]);
    front.answers(1, true);
    // What is asked beside starts nothing, and the one that it had moved for stays where it is.
    assert_eq!(front.request(3, "a", "minor"), ["w1 <- a/minor/3"]);
    front.done(1);
    assert_eq!(front.request(4, "a", "x"), ["start w2 a"]);
    assert_eq!(front.ready(2), ["w2 <- a/x/4"]);
    front.answers(2, true);
    for id in 5..9 {
        let (affinity, worker) = [("y", 1), ("x", 2)][id as usize % 2];
        front.request(id, "a", affinity);
        front.done(worker);
    }
    // The move is forgotten, and one of them has been idle for long.
    assert_eq!(front.at_ms(61_000).len(), 1);
    assert!(front.request(9, "a", "z")[0].ends_with("<- a/z/9"));
}

#[test]
fn a_worker_that_no_client_can_use_ends() {
    let mut front = Front::new();
    front.event(Event::Connected(ConnectionId(2)));
    front.request_of(2, 1, "b", "y");
    front.ready(1);
    front.done(1);
    front.event(Event::Disconnected(ConnectionId(2)));
    // It may be of use to the next client, while nobody has shown to need another.
    assert!(front.at_ms(300_000).is_empty());
    assert_eq!(front.request(1, "a", "x"), ["start w2 a", "end w1"]);
    front.dies(1);
    front.ready(2);
    front.done(2);
    assert!(front.at_ms(900_000).is_empty(), "its client is still there");
}

#[test]
fn a_worker_that_ignores_a_cancel_is_abandoned_and_then_ended() {
    let mut front = Front::new();
    front.request(1, "a", "x");
    front.ready(1);
    front.at_ms(1000);
    assert_eq!(
        front.message(ClientMessage::Cancel { id: 1 }),
        ["w1 <- cancel a/x/1"]
    );
    assert!(front.request(2, "a", "x").is_empty());
    assert_eq!(front.at_ms(1100), ["start w2 a"]);
    assert_eq!(front.ready(2), ["w2 <- a/x/2"]);
    assert_eq!(front.at_ms(11_000), ["end w1"]);
    assert_eq!(front.done(2), ["1.2 = ok"]);
    assert!(front.dies(1).is_empty());
    assert_eq!(front.request(3, "a", "x"), ["w2 <- a/x/3"]);
}

#[test]
fn an_abandoned_worker_makes_room() {
    let mut front = Front::with(Limits {
        max_workers: 1,
        ..LIMITS
    });
    front.request(1, "a", "x");
    front.ready(1);
    front.message(ClientMessage::Cancel { id: 1 });
    assert!(front.request(2, "a", "x").is_empty());
    assert_eq!(front.at_ms(100), ["end w1"]);
    assert_eq!(front.dies(1), ["start w2 a"]);
    assert_eq!(front.ready(2), ["w2 <- a/x/2"]);
}

#[test]
fn a_worker_that_gets_free_in_time_spares_another() {
    let mut front = Front::new();
    front.request(1, "a", "x");
    front.ready(1);
    front.request(2, "a", "y");
    front.at_ms(299);
    assert_eq!(front.done(1), ["1.1 = ok", "w1 <- a/y/2"]);
    assert!(front.at_ms(50_000).is_empty());
}

/// Two idle workers of key `a`: w1 has served `x` last, w2 `y`, and w2 was busy last.
fn two_idle() -> Front {
    let mut front = Front::new();
    front.request(1, "a", "x");
    front.ready(1);
    front.request(2, "a", "y");
    assert_eq!(front.at_ms(300), ["start w2 a"]);
    front.ready(2);
    front.at_ms(400);
    front.done(1);
    front.at_ms(500);
    front.done(2);
    front
}

#[test]
fn a_request_goes_to_the_worker_of_its_affinity() {
    let mut front = two_idle();
    assert_eq!(front.request(3, "a", "x"), ["w1 <- a/x/3"]);
    // Its own one is busy: rather another one than to wait.
    assert_eq!(front.request(4, "a", "x"), ["w2 <- a/x/4"]);
    let mut front = two_idle();
    assert_eq!(front.request(3, "a", "z"), ["w2 <- a/z/3"], "the warm one");
}

#[test]
fn an_idle_worker_makes_room_for_another_key() {
    let mut front = two_idle();
    assert_eq!(front.request(3, "b", "x"), ["start w3 b"]);
    front.ready(3);
    front.done(3);
    // An extra one of `a`, not the only one of `b`.
    assert_eq!(front.request(4, "c", "x"), ["end w1"]);
    assert!(front.request(5, "c", "x").is_empty(), "one is enough");
    assert_eq!(front.dies(1), ["start w4 c"]);
    front.ready(4);
    front.done(4);
    // The last one of a key, if it must be: that which was not used for long.
    assert_eq!(front.request(6, "d", "x"), ["end w2"]);
    assert_eq!(front.dies(2), ["start w5 d"]);
    front.ready(5);
    front.done(5);
    front.done(4);
    // For a key that has one, only after the delay.
    front.request(7, "d", "x");
    front.request(8, "d", "y");
    let began = u64::try_from(front.now.as_millis()).unwrap();
    assert!(front.at_ms(began + 299).is_empty());
    assert_eq!(front.at_ms(began + 300), ["end w3"]);
    assert_eq!(front.dies(3), ["start w6 d"]);
}

#[test]
fn when_all_are_busy_the_oldest_request_gets_the_room() {
    let mut front = Front::with(Limits {
        max_workers: 1,
        ..LIMITS
    });
    front.request(1, "a", "x");
    front.ready(1);
    front.request(2, "b", "x");
    front.request(3, "a", "x");
    assert!(front.at_ms(10_000).is_empty());
    assert_eq!(front.done(1), ["1.1 = ok", "end w1"]);
    assert_eq!(front.dies(1), ["start w2 b"]);
    assert_eq!(front.ready(2), ["w2 <- b/x/2"]);
    assert_eq!(front.done(2), ["1.2 = ok", "end w2"]);
    assert_eq!(front.dies(2), ["start w3 a"]);
}

#[test]
fn a_queued_request_that_is_cancelled_is_dropped() {
    let mut front = Front::new();
    front.request(1, "a", "x");
    front.ready(1);
    front.request(2, "a", "y");
    assert!(front.message(ClientMessage::Cancel { id: 2 }).is_empty());
    assert!(front.at_ms(5000).is_empty(), "nobody waits any more");
    assert_eq!(front.done(1), ["1.1 = ok"]);
    assert!(front.message(ClientMessage::Cancel { id: 2 }).is_empty());
}

#[test]
fn a_running_request_that_is_cancelled_keeps_its_worker_busy() {
    let mut front = Front::new();
    front.request(1, "a", "x");
    front.ready(1);
    let effects = front.message(ClientMessage::Cancel { id: 1 });
    assert_eq!(effects, ["w1 <- cancel a/x/1"]);
    assert!(front.message(ClientMessage::Cancel { id: 1 }).is_empty());
    front.request(2, "a", "x");
    assert_eq!(front.at_ms(300), ["start w2 a"], "it still works");
    assert_eq!(front.done(1), ["w1 <- a/x/2"], "nobody gets the answer");
    // One that dies of it is not asked again.
    front.message(ClientMessage::Cancel { id: 2 });
    assert!(front.dies(1).is_empty());
}

#[test]
fn a_client_that_leaves_cancels_its_requests_only() {
    let mut front = Front::new();
    front.event(Event::Connected(ConnectionId(2)));
    front.request_of(2, 1, "a", "x");
    front.ready(1);
    front.request_of(2, 2, "a", "x");
    front.request(1, "a", "y");
    let effects = front.event(Event::Disconnected(ConnectionId(2)));
    assert_eq!(effects, ["w1 <- cancel a/x/1"]);
    assert_eq!(front.done(1), ["w1 <- a/y/1"]);
    assert_eq!(front.done(1), ["1.1 = ok"]);
    let late = front.request_of(2, 3, "a", "x");
    assert!(late.is_empty(), "what it sent before is nobody's");
    assert_eq!((front.core.queued(), front.core.connections()), (0, 1));
}

#[test]
fn an_id_in_use_costs_the_connection() {
    let mut front = Front::new();
    front.request(1, "a", "x");
    assert_eq!(front.request(1, "a", "x"), ["close 1"]);
    assert_eq!(front.core.connections(), 0);
}

#[test]
fn a_request_is_repeated_once_on_a_new_worker() {
    let mut front = two_idle();
    assert_eq!(front.request(3, "a", "x"), ["w1 <- a/x/3"]);
    front.request(4, "a", "y");
    front.request(5, "a", "y");
    front.done(2);
    front.done(2);
    // w2 is idle, but has served before; what comes meanwhile takes it.
    assert_eq!(front.dies(1), ["start w3 a"]);
    assert_eq!(front.request(6, "a", "x"), ["w2 <- a/x/6"]);
    assert_eq!(front.ready(3), ["w3 <- a/x/3"]);
    let effects = front.dies(3);
    let [reply] = effects.as_slice() else {
        panic!("{effects:?}")
    };
    assert!(reply.starts_with("1.3 = WorkerDied"), "{reply}");
    assert!(
        reply.contains("signal: 9") && reply.contains("w3"),
        "{reply}"
    );
    assert_eq!(front.done(2), ["1.6 = ok"], "others only wait");
}

#[test]
fn a_repeated_request_comes_before_others_and_has_room_made() {
    let mut front = Front::with(Limits {
        max_workers: 2,
        ..LIMITS
    });
    front.request(1, "a", "x");
    front.ready(1);
    front.request(2, "b", "x");
    front.ready(2);
    front.request(3, "c", "x");
    assert_eq!(front.dies(1), ["start w3 a"]);
    assert_eq!(front.ready(3), ["w3 <- a/x/1"]);
    assert_eq!(front.done(3), ["1.1 = ok", "end w3"]);
    assert_eq!(front.dies(3), ["start w4 c"]);
    // Both workers die, and each request gets a new one.
    front.ready(4);
    assert_eq!(front.dies(4), ["start w5 c"]);
    assert_eq!(front.dies(2), ["start w6 b"]);
}

#[test]
fn an_idle_worker_that_dies_is_replaced_when_it_is_needed() {
    let mut front = Front::new();
    front.request(1, "a", "x");
    front.ready(1);
    front.done(1);
    assert!(front.dies(1).is_empty());
    assert_eq!(front.request(2, "a", "x"), ["start w2 a"]);
}

#[test]
fn workers_that_die_at_the_start_end_in_an_error() {
    let mut front = Front::new();
    front.request(1, "a", "x");
    front.request(2, "a", "y");
    for number in 1..5 {
        assert_eq!(front.dies(number), [format!("start w{} a", number + 1)]);
    }
    let effects = front.dies(5);
    assert_eq!(effects.len(), 2, "{effects:?}");
    for (reply, id) in effects.iter().zip([1, 2]) {
        assert!(reply.starts_with(&format!("1.{id} = WorkerStart")));
        assert!(
            reply.contains("attempts: 5") && reply.contains("w5"),
            "{reply}"
        );
    }
    // A later request gets as many attempts. A worker that gets ready resets their count.
    front.request(3, "a", "x");
    for number in 6..10 {
        assert_eq!(front.dies(number), [format!("start w{} a", number + 1)]);
    }
    assert_eq!(front.ready(10), ["w10 <- a/x/3"]);
    assert_eq!(front.dies(10), ["start w11 a"], "a repetition");
    assert_eq!(front.dies(11), ["start w12 a"]);
}

#[test]
fn extra_workers_that_do_not_start_fail_nobody() {
    let mut front = Front::new();
    front.request(1, "a", "x");
    front.ready(1);
    front.request(2, "a", "y");
    assert_eq!(front.at_ms(300), ["start w2 a"]);
    for number in 2..6 {
        assert_eq!(front.dies(number), [format!("start w{} a", number + 1)]);
    }
    assert!(front.dies(6).is_empty());
    assert!(front.at_ms(100_000).is_empty(), "it is left at that");
    assert_eq!(front.done(1), ["1.1 = ok", "w1 <- a/y/2"]);
}

#[test]
fn extra_workers_end_when_they_are_idle() {
    let mut front = two_idle();
    assert!(front.at_ms(60_399).is_empty());
    assert_eq!(front.at_ms(60_400), ["end w1"], "idle since 400 ms");
    front.dies(1);
    assert!(front.at_ms(500_000).is_empty(), "the last one stays");
}

#[test]
fn the_front_ends_without_connections() {
    let mut front = Front::new();
    front.request(1, "a", "x");
    assert!(front.at_ms(1_000_000).is_empty(), "a connection keeps it");
    front.event(Event::Disconnected(ConnectionId(1)));
    front.at_ms(1_599_999);
    front.event(Event::Connected(ConnectionId(2)));
    assert!(front.at_ms(2_000_000).is_empty());
    front.event(Event::Disconnected(ConnectionId(2)));
    assert!(front.at_ms(2_599_999).is_empty());
    assert_eq!(front.at_ms(2_600_000), ["exit"]);
    // Nobody ever connects.
    let mut core = Core::new(LIMITS);
    assert_eq!(core.deadline(), Some(LIMITS.idle));
    let effects = core.on_event(LIMITS.idle, Event::Time);
    assert!(matches!(effects.as_slice(), [Effect::Exit]), "{effects:?}");
}

#[test]
fn a_stop_answers_everybody() {
    for by_signal in [false, true] {
        let mut front = Front::new();
        front.request(1, "a", "x");
        front.ready(1);
        front.request(2, "a", "y");
        let effects = match by_signal {
            true => front.event(Event::Stop),
            false => front.message(ClientMessage::Stop),
        };
        assert_eq!(effects, ["1.1 = Stopped", "1.2 = Stopped", "exit"]);
        assert!(front.done(1).is_empty(), "it has ended");
        assert_eq!(front.core.deadline(), None);
    }
}

#[test]
fn activity_is_asked_of_the_worker() {
    let mut front = Front::new();
    let ask = |id| ClientMessage::Activity { id };
    front.request(1, "a", "x");
    let starting = "1.1: starting a compile worker";
    assert_eq!(front.message(ask(1)), [starting]);
    front.ready(1);
    assert_eq!(front.message(ask(1)), ["w1 <- activity? a/x/1"]);
    let answer = |front: &Front| {
        let worker = front.worker(1);
        let reply = WorkerReply::Activity {
            id: front.given[&worker],
            activity: Some("compiling".to_owned()),
        };
        Event::FromWorker(worker, reply)
    };
    let event = answer(&front);
    assert_eq!(front.event(event), ["1.1: compiling"]);
    let event = answer(&front);
    assert!(front.event(event).is_empty(), "nobody asked");
    front.request(2, "a", "y");
    let waiting = "1.2: waiting for a compile worker";
    assert_eq!(front.message(ask(2)), [waiting]);
    assert_eq!(front.message(ask(7)), ["1.7: "]);
    // A worker that dies answers no question.
    front.message(ask(1));
    assert_eq!(front.dies(1), [starting, "start w2 a"]);
}

#[test]
fn the_status_has_all_workers() {
    let mut front = two_idle();
    assert_eq!(front.message(ClientMessage::Status), ["status 1"]);
    front.request(3, "a", "x");
    front.request(4, "b", "z");
    let of =
        |number: usize, key: &str, affinity: Option<&str>, state, since, served| WorkerSummary {
            worker: front.worker(number),
            key: key.to_owned(),
            affinity: affinity.map(str::to_owned),
            state,
            since: Duration::from_millis(since),
            served,
        };
    let workers: Vec<_> = front.core.workers().collect();
    assert_eq!(
        workers,
        [
            of(1, "a", Some("x"), WorkerState::Busy, 500, 1),
            of(2, "a", Some("y"), WorkerState::Idle, 500, 1),
            of(3, "b", None, WorkerState::Starting, 500, 0),
        ]
    );
    assert_eq!((front.core.queued(), front.core.connections()), (1, 1));
}

/// Each request that is not cancelled gets exactly one answer, whatever happens.
#[test]
fn random_events_lose_no_request() {
    for seed in 0..300 {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut front = Front::with(Limits {
            max_workers: random.usize(1..4),
            ..LIMITS
        });
        let mut open = BTreeSet::new();
        let mut alive: BTreeSet<usize> = BTreeSet::new();
        for id in 0..120 {
            let busy: Vec<usize> = alive.iter().copied().collect();
            let some = (!busy.is_empty()).then(|| busy[random.usize(..busy.len())]);
            let effects = match (random.u8(..12), some) {
                (0..4, _) => {
                    open.insert(id);
                    let key = ["a", "b", "c"][random.usize(..3)];
                    front.request(id, key, ["x", "y"][random.usize(..2)])
                }
                (4..8, Some(worker)) => progress(&mut front, worker),
                (8, Some(worker)) => {
                    alive.remove(&worker);
                    front.dies(worker)
                }
                (9, _) if !open.is_empty() => {
                    let at = random.usize(..open.len());
                    let id = *open.iter().nth(at).unwrap();
                    open.remove(&id);
                    front.message(ClientMessage::Cancel { id })
                }
                _ => {
                    let now = u64::try_from(front.now.as_millis()).unwrap();
                    front.at_ms(now + random.u64(..400))
                }
            };
            account(&effects, &mut open, &mut alive);
        }
        // Workers that live do their work, and those that were told to end do.
        for _ in 0..2000 {
            if front.core.requests.is_empty() {
                break;
            }
            for worker in alive.clone() {
                let id = front.worker(worker);
                let is_ending = front
                    .core
                    .workers
                    .get(&id)
                    .is_some_and(|it| it.state == State::Ending);
                let effects = match is_ending {
                    true => {
                        alive.remove(&worker);
                        front.dies(worker)
                    }
                    false => progress(&mut front, worker),
                };
                account(&effects, &mut open, &mut alive);
            }
            let now = u64::try_from(front.now.as_millis()).unwrap();
            let effects = front.at_ms(now + 100);
            account(&effects, &mut open, &mut alive);
        }
        assert!(front.core.requests.is_empty(), "seed {seed}: {front:?}");
        assert_eq!(open, BTreeSet::new(), "seed {seed}");
    }
}

impl std::fmt::Debug for Front {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.core.fmt(f)
    }
}

/// A worker does what it does next.
fn progress(front: &mut Front, worker: usize) -> Vec<String> {
    let id = front.worker(worker);
    match front.core.workers.get(&id).map(|it| it.state) {
        Some(State::Starting) => front.ready(worker),
        Some(State::Busy(_)) => front.done(worker),
        _ => Vec::new(),
    }
}

/// Notes which requests were answered, and which workers were started.
fn account(effects: &[String], open: &mut BTreeSet<u64>, alive: &mut BTreeSet<usize>) {
    for effect in effects {
        if let Some((request, _)) = effect.split_once(" = ") {
            let id: u64 = request.strip_prefix("1.").unwrap().parse().unwrap();
            assert!(open.remove(&id), "{effect}: answered twice or cancelled");
        } else if let Some(started) = effect.strip_prefix("start w") {
            let (number, _) = started.split_once(' ').unwrap();
            alive.insert(number.parse().unwrap());
        }
    }
}
