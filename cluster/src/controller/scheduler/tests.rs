//! The scheduler step by step. `a>x` is task a given to engine x, `a!Why` a task that fails.

use std::time::Duration;

use bytes::Bytes;

use super::*;

pub(super) struct World {
    pub(super) scheduler: Scheduler<()>,
    pub(super) now: Duration,
}

impl World {
    pub(super) fn with(config: Config) -> Self {
        Self {
            scheduler: Scheduler::new(config, fastrand::Rng::with_seed(7)),
            now: Duration::ZERO,
        }
    }

    fn new(high_water: HighWater) -> Self {
        Self::with(Config {
            scheme: Scheme::Leastload,
            high_water,
            limit: 1 << 20,
        })
    }

    /// Of engines that hold one task, with these names.
    fn of(engines: &[&'static str]) -> Self {
        let mut world = Self::new(HighWater::Fixed(1));
        for engine in engines {
            assert_eq!(world.join(engine), "");
        }
        world
    }

    fn shown(&self, out: &[Decision<()>]) -> String {
        self.scheduler.sanity_check();
        let text = |engine: &Bytes| String::from_utf8(engine.to_vec()).unwrap();
        let shown = out.iter().map(|decision| match decision {
            Decision::Run { engine, id, .. } => format!("{id}>{}", text(engine)),
            Decision::Fail { id, why, .. } => {
                let why = format!("{why:?}");
                let name: String = why.chars().take_while(|c| c.is_alphabetic()).collect();
                format!("{id}!{name}")
            }
        });
        shown.collect::<Vec<_>>().join(" ")
    }

    fn join(&mut self, engine: &'static str) -> String {
        let mut out = Vec::new();
        self.scheduler.join(self.now, Bytes::from(engine), &mut out);
        self.shown(&out)
    }

    fn leave(&mut self, engine: &str) -> String {
        let mut out = Vec::new();
        self.scheduler.leave(self.now, engine.as_bytes(), &mut out);
        self.shown(&out)
    }

    fn submit(&mut self, submission: Submission<()>) -> String {
        let mut out = Vec::new();
        assert!(self.scheduler.submit(self.now, submission, &mut out));
        self.shown(&out)
    }

    fn task(&mut self, id: &str) -> String {
        self.submit(task(id))
    }

    fn answer(&mut self, engine: &str, id: &str, answer: Answer) -> (Verdict, String) {
        let mut out = Vec::new();
        let engine = engine.as_bytes();
        let verdict = self
            .scheduler
            .finish(self.now, engine, id, answer, None, &mut out);
        (verdict, self.shown(&out))
    }

    /// It succeeds.
    fn done(&mut self, engine: &str, id: &str) -> String {
        let (verdict, shown) = self.answer(engine, id, Answer::Succeeded);
        assert_eq!(verdict, Verdict::Deliver);
        shown
    }

    fn failed(&mut self, engine: &str, id: &str) -> String {
        let (verdict, shown) = self.answer(engine, id, Answer::Failed);
        assert_eq!(verdict, Verdict::Deliver);
        shown
    }

    fn abort(&mut self, ids: &[&str]) -> String {
        let mut out = Vec::new();
        self.scheduler
            .abort(self.now, ids.iter().copied(), &mut out);
        self.shown(&out)
    }

    /// Time passes; whatever is due happens.
    fn pass(&mut self, duration: Duration) -> String {
        self.now += duration;
        let mut out = Vec::new();
        self.scheduler.on_time(self.now, &mut out);
        self.shown(&out)
    }
}

pub(super) fn task(id: &str) -> Submission<()> {
    Submission {
        id: MessageId::from(id),
        client: Bytes::from_static(b"client"),
        bytes: 100,
        retries: 0,
        conditions: None,
        payload: (),
    }
}

fn retried(id: &str, retries: u32) -> Submission<()> {
    Submission {
        retries,
        ..task(id)
    }
}

fn by(client: &'static str, id: &str) -> Submission<()> {
    Submission {
        client: Bytes::from(client),
        ..task(id)
    }
}

fn with(id: &str, conditions: Conditions) -> Submission<()> {
    Submission {
        conditions: Some(Box::new(conditions)),
        ..task(id)
    }
}

fn at(id: &str, targets: &[&'static str]) -> Submission<()> {
    let targets = targets.iter().map(|it| Bytes::from(*it)).collect();
    with(
        id,
        Conditions {
            targets,
            ..Conditions::default()
        },
    )
}

/// `all a b`, `any a b`, and in place of success: `failed`, `ended`.
pub(super) fn on(text: &str) -> Dependency {
    let mut words: Vec<_> = text.split(' ').collect();
    let mut has = |word: &str| {
        let before = words.len();
        words.retain(|it| *it != word);
        words.len() < before
    };
    let (any, failed, ended) = (has("any"), has("failed"), has("ended"));
    has("all");
    Dependency {
        ids: words.into_iter().map(MessageId::from).collect(),
        all: !any,
        success: !failed,
        failure: failed || ended,
    }
}

fn after(id: &str, dependency: &str) -> Submission<()> {
    with(
        id,
        Conditions {
            after: on(dependency),
            ..Conditions::default()
        },
    )
}

fn follow(id: &str, dependency: &str) -> Submission<()> {
    with(
        id,
        Conditions {
            follow: on(dependency),
            ..Conditions::default()
        },
    )
}

#[test]
fn tasks_wait_for_engines_and_go_where_there_is_least_to_do() {
    let mut world = World::new(HighWater::Fixed(1));
    assert_eq!(world.task("a"), "");
    assert_eq!(world.join("x"), "a>x");
    assert_eq!(world.join("y"), "");
    assert_eq!(world.task("b"), "b>y");
    assert_eq!(world.task("c"), "");
    assert_eq!(world.task("d"), "");
    assert_eq!(world.scheduler.unassigned_count(), 2);
    assert_eq!(world.scheduler.bytes(), 400);
    assert_eq!(world.done("y", "b"), "c>y");
    let running: Vec<_> = world.scheduler.running(b"y").collect();
    assert_eq!(running, [&MessageId::from("c")]);
    assert_eq!(world.failed("x", "a"), "d>x");
    assert_eq!(
        world.answer("x", "a", Answer::Succeeded).0,
        Verdict::Unknown,
        "answered twice"
    );
    assert_eq!(
        world.answer("x", "c", Answer::Succeeded).0,
        Verdict::Unknown,
        "another engine's"
    );
}

#[test]
fn an_id_counts_once_until_it_has_ended() {
    let mut world = World::of(&["x"]);
    assert_eq!(world.task("a"), "a>x");
    let mut out = Vec::new();
    assert!(!world.scheduler.submit(world.now, task("a"), &mut out));
    assert!(out.is_empty());
    world.done("x", "a");
    assert_eq!(world.task("a"), "a>x");
}

#[test]
fn equal_loads_take_turns() {
    let mut world = World::new(HighWater::Fixed(2));
    world.join("x");
    world.join("y");
    let placed = ["a", "b", "c", "d", "e"].map(|name| world.task(name));
    assert_eq!(placed, ["a>x", "b>y", "c>x", "d>y", ""]);
}

#[test]
fn without_a_limit_nothing_waits_but_for_an_engine() {
    let mut world = World::new(HighWater::Unlimited);
    assert_eq!(world.task("a"), "");
    assert_eq!(world.join("x"), "a>x");
    for name in ["b", "c", "d"] {
        assert_eq!(world.task(name), format!("{name}>x"));
    }
    assert_eq!(world.scheduler.load(b"x"), 4);
}

#[test]
fn clients_take_turns() {
    let mut world = World::of(&["x"]);
    for name in ["a1", "a2", "a3", "a4"] {
        world.submit(by("a", name));
    }
    for name in ["b1", "b2"] {
        world.submit(by("b", name));
    }
    assert_eq!(world.done("x", "a1"), "a2>x");
    assert_eq!(world.done("x", "a2"), "b1>x");
    // A third joins the round, and does not go first whenever it comes back.
    world.submit(by("c", "c1"));
    assert_eq!(world.done("x", "b1"), "a3>x");
    assert_eq!(world.done("x", "a3"), "b2>x");
    assert_eq!(world.done("x", "b2"), "c1>x");
    world.submit(by("c", "c2"));
    assert_eq!(world.done("x", "c1"), "a4>x");
    assert_eq!(world.done("x", "a4"), "c2>x");
    assert_eq!(world.done("x", "c2"), "");
}

#[test]
fn clients_with_targets_take_turns_with_those_without() {
    let mut world = World::of(&["x", "y"]);
    world.submit(by("a", "a1"));
    world.submit(by("a", "a2"));
    world.submit(by("a", "a3"));
    world.submit(by("a", "a4"));
    let targeted = |name| Submission {
        client: Bytes::from_static(b"b"),
        ..at(name, &["x"])
    };
    world.submit(targeted("b1"));
    world.submit(targeted("b2"));
    assert_eq!(world.done("y", "a2"), "a3>y");
    assert_eq!(world.done("x", "a1"), "b1>x");
    assert_eq!(world.done("x", "b1"), "a4>x");
    assert_eq!(world.done("x", "a4"), "b2>x");
}

#[test]
fn failed_tasks_are_tried_elsewhere_and_then_anywhere() {
    let mut world = World::of(&["x", "y"]);
    assert_eq!(world.submit(retried("a", 2)), "a>x");
    let (verdict, shown) = world.answer("x", "a", Answer::Failed);
    assert_eq!((verdict, shown.as_str()), (Verdict::Again, "a>y"));
    assert_eq!(world.task("b"), "b>x");
    // Both have failed it, so the first of them may try again.
    let (verdict, shown) = world.answer("y", "a", Answer::Failed);
    assert_eq!((verdict, shown.as_str()), (Verdict::Again, "a>y"));
    assert_eq!(world.failed("y", "a"), "");
    // The only engine there is does it, too.
    assert_eq!(world.leave("y"), "");
    assert_eq!(world.done("x", "b"), "");
    world.submit(retried("c", 1));
    assert_eq!(
        world.answer("x", "c", Answer::Failed),
        (Verdict::Again, "c>x".to_owned())
    );
    assert_eq!(world.failed("x", "c"), "");
}

#[test]
fn a_task_that_failed_waits_for_another_engine_or_takes_one_that_comes() {
    let mut world = World::of(&["x", "y"]);
    assert_eq!(world.submit(retried("a", 1)), "a>x");
    assert_eq!(world.task("b"), "b>y");
    assert_eq!(
        world.answer("x", "a", Answer::Failed),
        (Verdict::Again, String::new())
    );
    assert_eq!(world.join("z"), "a>z");
    assert_eq!(world.failed("z", "a"), "");
}

#[test]
fn refused_tasks_go_on_until_nobody_is_left() {
    let mut world = World::of(&["x", "y"]);
    assert_eq!(world.task("a"), "a>x");
    assert_eq!(
        world.answer("x", "a", Answer::Unmet),
        (Verdict::Again, "a>y".to_owned())
    );
    assert_eq!(
        world.answer("y", "a", Answer::Unmet),
        (Verdict::Again, "a!Refused".to_owned())
    );
    // The last engine leaves with it: it waits for the next one.
    world.submit(retried("b", 1));
    assert_eq!(
        world.answer("x", "b", Answer::Unmet),
        (Verdict::Again, "b>y".to_owned())
    );
    assert_eq!(world.leave("x"), "");
    assert_eq!(world.leave("y"), "");
    assert_eq!(world.join("z"), "b>z");
}

#[test]
fn what_an_engine_drops_unasked_is_given_out_again() {
    let mut world = World::new(HighWater::Fixed(2));
    world.join("x");
    world.task("a");
    world.task("b");
    assert_eq!(
        world.answer("x", "b", Answer::Aborted),
        (Verdict::Again, "b>x".to_owned())
    );
    assert_eq!(world.abort(&["b"]), "");
    assert_eq!(world.answer("x", "b", Answer::Aborted).0, Verdict::Deliver);
    world.scheduler.abort_at(b"x");
    assert_eq!(world.answer("x", "a", Answer::Aborted).0, Verdict::Deliver);
}

#[test]
fn a_dead_engines_tasks_fail_or_move() {
    let mut world = World::new(HighWater::Fixed(2));
    world.join("x");
    world.submit(retried("a", 1));
    world.task("b");
    assert_eq!(world.leave("x"), "b!EngineDied");
    assert_eq!(world.join("y"), "a>y");
    assert_eq!(world.leave("unknown"), "");
    assert_eq!(
        world.leave("y"),
        "a!EngineDied",
        "its only retry is used up"
    );
    assert_eq!(
        world.answer("y", "a", Answer::Succeeded).0,
        Verdict::Unknown,
        "too late"
    );
}

#[test]
fn targets_are_kept_to() {
    let mut world = World::of(&["x", "y"]);
    assert_eq!(world.submit(at("a", &["y"])), "a>y");
    assert_eq!(world.submit(at("b", &["y", "z"])), "");
    assert_eq!(world.submit(at("c", &["z"])), "c!NoTarget");
    // It waits behind nobody whom another engine could serve.
    assert_eq!(world.submit(at("d", &["x"])), "d>x");
    assert_eq!(world.task("e"), "");
    assert_eq!(world.done("x", "d"), "e>x");
    assert_eq!(world.leave("y"), "a!EngineDied b!NoTarget");
}

#[test]
fn one_with_several_targets_runs_once() {
    let mut world = World::of(&["x", "y", "z"]);
    for name in ["a", "b", "c"] {
        world.task(name);
    }
    assert_eq!(world.submit(at("d", &["x", "y"])), "");
    assert_eq!(world.done("z", "c"), "");
    assert_eq!(world.done("y", "b"), "d>y");
    assert_eq!(world.done("x", "a"), "");
}

/// Tasks a and b end as told, then the task c that depends on them is looked at.
fn depending(
    make: fn(&str, &str) -> Submission<()>,
    dependency: &str,
    ends: [Answer; 2],
    early: bool,
) -> String {
    let mut world = World::of(&["x", "y"]);
    assert_eq!(world.task("a"), "a>x");
    assert_eq!(world.task("b"), "b>y");
    let mut shown = Vec::new();
    if early {
        shown.push(world.submit(make("c", dependency)));
    }
    shown.push(world.answer("x", "a", ends[0]).1);
    shown.push(world.answer("y", "b", ends[1]).1);
    if !early {
        shown.push(world.submit(make("c", dependency)));
    }
    shown.retain(|text| !text.is_empty());
    shown.join(" ")
}

#[test]
fn after_and_follow_are_met_or_impossible_as_ipyparallel_says() {
    use Answer::{Failed, Succeeded};
    for (make, dependency, ends, wanted) in [
        (
            after as fn(&str, &str) -> Submission<()>,
            "all a b",
            [Succeeded, Succeeded],
            "c>",
        ),
        (after, "all a b", [Succeeded, Failed], "c!After"),
        (after, "all a b", [Failed, Succeeded], "c!After"),
        (after, "any a b", [Failed, Succeeded], "c>"),
        (after, "any a b", [Succeeded, Failed], "c>"),
        (after, "any a b", [Failed, Failed], "c!After"),
        (after, "all failed a b", [Failed, Failed], "c>"),
        (after, "all failed a b", [Succeeded, Failed], "c!After"),
        (after, "any failed a b", [Succeeded, Failed], "c>"),
        (after, "any failed a b", [Succeeded, Succeeded], "c!After"),
        (after, "all ended a b", [Succeeded, Failed], "c>"),
        (after, "any ended a b", [Failed, Failed], "c>"),
        (follow, "all a", [Succeeded, Succeeded], "c>x"),
        (follow, "all b", [Succeeded, Succeeded], "c>y"),
        (follow, "all a b", [Succeeded, Succeeded], "c!Follow"),
        (follow, "all a", [Failed, Succeeded], "c!Follow"),
        (follow, "any a b", [Failed, Succeeded], "c>y"),
        (follow, "any a b", [Failed, Failed], "c!Follow"),
        (follow, "any failed a b", [Succeeded, Failed], "c>y"),
        (follow, "all ended b", [Succeeded, Failed], "c>y"),
    ] {
        for early in [false, true] {
            let shown = depending(make, dependency, ends, early);
            assert!(
                shown.starts_with(wanted) && !shown.contains(' '),
                "{dependency} {ends:?} {early}: {shown}"
            );
        }
    }
}

#[test]
fn dependencies_that_cannot_be_are_told_at_once() {
    let mut world = World::of(&["x"]);
    assert_eq!(world.submit(after("a", "all a")), "a!UnknownDependency");
    assert_eq!(world.submit(after("b", "any q")), "b!UnknownDependency");
    // What failed so is known, as a failure.
    assert_eq!(world.submit(after("c", "all a")), "c!After");
    assert_eq!(world.submit(after("d", "all failed a")), "d>x");
    // It ended nowhere, so nobody can follow it.
    assert_eq!(world.submit(follow("e", "all failed a")), "e!Follow");
    assert_eq!(world.submit(follow("f", "any failed a")), "f!Follow");
    assert_eq!(world.submit(after("g", "all d a")), "g!After");
}

#[test]
fn impossible_tasks_take_those_with_them_that_wait_for_them() {
    let mut world = World::of(&["x"]);
    world.task("a");
    assert_eq!(world.submit(after("b", "all a")), "");
    assert_eq!(world.submit(after("c", "all b")), "");
    assert_eq!(world.submit(after("d", "all failed c")), "");
    assert_eq!(world.submit(follow("e", "any a b c")), "");
    assert_eq!(
        world.failed("x", "a"),
        "b!After c!After d>x e!Follow",
        "and one runs because of it"
    );
}

#[test]
fn whoever_follows_any_takes_the_first_that_has_room() {
    let mut world = World::of(&["x", "y"]);
    world.task("a");
    world.task("b");
    world.task("next");
    assert_eq!(world.submit(follow("c", "any a b")), "");
    assert_eq!(world.done("x", "a"), "next>x");
    assert_eq!(world.done("y", "b"), "c>y");
    // Where it could follow is gone.
    assert_eq!(world.submit(follow("d", "all b")), "");
    assert_eq!(world.leave("y"), "c!EngineDied d!Follow");
}

#[test]
fn a_task_may_wait_again_after_it_ran() {
    let mut world = World::of(&["x", "y"]);
    world.task("a");
    world.task("b");
    let waits = Submission {
        retries: 1,
        ..follow("c", "any a b")
    };
    world.submit(waits);
    assert_eq!(world.done("x", "a"), "c>x");
    assert_eq!(world.leave("x"), "", "b may still end well");
    assert_eq!(world.done("y", "b"), "c>y");
}

#[test]
fn waiting_has_its_time() {
    let second = Duration::from_secs(1);
    let mut world = World::of(&["x"]);
    let timed = |id: &str, seconds: u64, after: &str| {
        let timeout = Some(second * u32::try_from(seconds).unwrap());
        let after = match after {
            "" => Dependency::default(),
            after => on(after),
        };
        with(
            id,
            Conditions {
                timeout,
                after,
                ..Conditions::default()
            },
        )
    };
    assert_eq!(world.submit(timed("a", 1, "")), "a>x");
    assert_eq!(world.scheduler.deadline(), None, "it runs");
    assert_eq!(world.submit(timed("b", 2, "")), "");
    assert_eq!(world.submit(timed("c", 3, "all a")), "");
    assert_eq!(world.submit(timed("d", 9, "all failed b")), "");
    assert_eq!(world.pass(second), "");
    assert_eq!(world.scheduler.deadline(), Some(second * 2));
    assert_eq!(world.pass(second), "b!Timeout");
    assert_eq!(world.pass(second), "c!Timeout");
    assert_eq!(world.done("x", "a"), "d>x");
    assert_eq!(world.pass(second * 60), "", "it runs as long as it likes");
}

#[test]
fn aborted_tasks_do_not_run_or_not_again() {
    let mut world = World::of(&["x"]);
    world.submit(retried("a", 5));
    world.task("b");
    world.submit(by("other", "c"));
    world.submit(after("d", "all a"));
    world.submit(after("e", "all d"));
    assert_eq!(world.abort(&["b", "a", "unknown"]), "b!Aborted");
    assert_eq!(world.failed("x", "a"), "c>x d!After e!After");
    for id in ["f", "g"] {
        world.task(id);
    }
    world.submit(after("h", "all failed g"));
    world.submit(by("other", "i"));
    let mut out = Vec::new();
    let count = world.scheduler.abort_all_of(world.now, b"client", &mut out);
    assert_eq!(count, 3);
    assert_eq!(world.shown(&out), "f!Aborted g!Aborted h!Aborted");
    assert_eq!(world.done("x", "c"), "i>x");
    world.submit(retried("j", 1));
    assert_eq!(world.abort(&["i"]), "");
    assert_eq!(world.leave("x"), "i!Aborted");
    assert_eq!(world.join("y"), "j>y");
}

#[test]
fn a_client_may_hold_so_much_and_no_more() {
    let mut world = World::with(Config {
        scheme: Scheme::Leastload,
        high_water: HighWater::Fixed(1),
        limit: 250,
    });
    world.join("x");
    let large = Submission {
        bytes: 1000,
        ..task("large")
    };
    assert_eq!(world.submit(large), "large>x", "alone it may be any size");
    assert_eq!(world.task("a"), "a!QueueFull");
    assert_eq!(world.done("x", "large"), "");
    world.task("b");
    world.task("c");
    assert_eq!(world.task("d"), "d!QueueFull");
    assert_eq!(world.submit(by("other", "e")), "", "each has his own");
    world.done("x", "b");
    assert_eq!(world.task("f"), "");
    assert_eq!(world.scheduler.bytes(), 300);
}

#[test]
fn short_tasks_are_given_in_advance_and_long_ones_are_not() {
    let mut world = World::new(HighWater::Auto);
    world.join("x");
    world.join("y");
    let finish = |world: &mut World, engine: &str, took| {
        let running = world.scheduler.running(engine.as_bytes()).next().unwrap();
        let id = running.to_string();
        let mut out = Vec::new();
        let took = Some(took);
        let engine = engine.as_bytes();
        world
            .scheduler
            .finish(world.now, engine, &id, Answer::Succeeded, took, &mut out);
        world.shown(&out);
    };
    for number in 0..1000 {
        world.task(&number.to_string());
    }
    assert_eq!(world.scheduler.load(b"x"), 1);
    for _ in 0..200 {
        finish(&mut world, "x", Duration::from_micros(5));
        finish(&mut world, "y", Duration::from_micros(5));
    }
    assert_eq!(
        [world.scheduler.load(b"x"), world.scheduler.load(b"y")],
        [16, 16]
    );
    finish(&mut world, "x", Duration::from_millis(5));
    for _ in 0..15 {
        finish(&mut world, "y", Duration::from_millis(5));
    }
    assert_eq!(world.scheduler.load(b"y"), 1, "what it has it keeps");
    finish(&mut world, "y", Duration::from_millis(5));
    assert_eq!(world.scheduler.load(b"y"), 1);
}

/// Two engines, each of which may hold eight tasks.
fn warm() -> World {
    let mut world = World::new(HighWater::Auto);
    assert_eq!(world.join("y"), "");
    for number in 0..200 {
        let id = number.to_string();
        assert_eq!(world.task(&id), format!("{id}>y"));
        assert_eq!(world.done("y", &id), "");
    }
    assert_eq!(world.join("x"), "");
    world
}

#[test]
fn nothing_is_given_to_an_engine_that_is_at_a_long_task() {
    let mut world = warm();
    let loads = |world: &World| ["x", "y"].map(|engine| world.scheduler.load(engine.as_bytes()));
    assert_eq!(world.task("long"), "long>x");
    assert_eq!(world.task("a") + " " + &world.task("b"), "a>y b>x");
    world.pass(Duration::from_millis(3));
    assert_eq!(world.done("y", "a"), "");
    assert_eq!(world.task("c") + " " + &world.task("d"), "c>y d>y");
    world.pass(Duration::from_millis(1));
    for id in ["e", "f", "g"] {
        world.task(id);
    }
    assert_eq!(
        loads(&world),
        [2, 5],
        "all that came later went to the other"
    );
    let to_x = Submission {
        conditions: Some(Box::new(Conditions {
            targets: vec![Bytes::from("x")],
            ..Conditions::default()
        })),
        ..task("only x")
    };
    assert_eq!(world.submit(to_x), "", "it waits here and not there");
    let (verdict, shown) = world.answer("x", "b", Answer::Aborted);
    assert_eq!(
        (verdict, shown.as_str()),
        (Verdict::Again, "b>y"),
        "dropped, and x is at the long one still"
    );
    assert_eq!(world.done("x", "long"), "only x>x", "which is told now");
}

#[test]
fn an_engine_is_slow_for_as_long_as_its_task_takes() {
    let mut world = warm();
    // To be idle is not to be at a long task.
    world.pass(Duration::from_millis(10));
    for id in ["a", "b", "c", "d"] {
        world.task(id);
    }
    assert_eq!(
        ["x", "y"].map(|engine| world.scheduler.load(engine.as_bytes())),
        [2, 2]
    );
    world.pass(Duration::from_millis(5));
    assert_eq!(world.task("e"), "", "both are at one for long");
    // The engine says that it was a short one, which waited for something else.
    let mut out = Vec::new();
    let took = Some(Duration::from_micros(3));
    let verdict = world
        .scheduler
        .finish(world.now, b"x", "a", Answer::Succeeded, took, &mut out);
    assert_eq!(verdict, Verdict::Deliver);
    assert_eq!(world.shown(&out), "e>x");
    assert_eq!(world.task("f"), "f>x");
}

#[test]
fn schemes_choose_as_ipyparallel_does() {
    // Of four engines, the first has two tasks, the second one, the others none, and the last was used longest ago.
    let chosen = |scheme| {
        let mut counts = [0_u32; 4];
        for number in 0..1000 {
            let mut world = World {
                scheduler: Scheduler::new(
                    Config {
                        scheme,
                        high_water: HighWater::Unlimited,
                        limit: 1 << 30,
                    },
                    fastrand::Rng::with_seed(number),
                ),
                now: Duration::ZERO,
            };
            for engine in ["d", "c", "b", "a"] {
                world.join(engine);
            }
            for (id, to) in [("1", "d"), ("2", "c"), ("3", "b"), ("4", "a"), ("5", "a")] {
                world.submit(at(id, &[to]));
            }
            world.done("d", "1");
            world.done("c", "2");
            let shown = world.task("t");
            let at = ["t>a", "t>b", "t>c", "t>d"]
                .iter()
                .position(|it| *it == shown);
            counts[at.unwrap()] += 1;
        }
        counts
    };
    assert_eq!(chosen(Scheme::Leastload), [0, 0, 0, 1000]);
    assert_eq!(chosen(Scheme::Lru), [0, 0, 0, 1000]);
    let near = |counts: [u32; 4], wanted: [u32; 4]| {
        let pairs = counts.iter().zip(wanted);
        assert!(
            pairs.clone().all(|(is, wanted)| is.abs_diff(wanted) < 60),
            "{counts:?}"
        );
    };
    near(chosen(Scheme::Plainrandom), [250; 4]);
    // Of two at random, the one used longer ago: 7, 5, 3 and 1 of 16.
    near(chosen(Scheme::Twobin), [62, 187, 312, 437]);
    // Never one that has a task while others have none.
    near(chosen(Scheme::Weighted), [0, 0, 500, 500]);
}

#[test]
fn a_hundred_thousand_tasks_slow_nothing_down() {
    let time = |count: u64| {
        let mut world = World::with(Config {
            scheme: Scheme::Leastload,
            high_water: HighWater::Fixed(1),
            limit: u64::MAX,
        });
        let mut out = Vec::new();
        for engine in ["x", "y"] {
            world
                .scheduler
                .join(world.now, Bytes::from(engine), &mut out);
        }
        for number in 0..count {
            // Every tenth cannot run at once, for one reason or another.
            let id = number.to_string();
            let submission = match number % 10 {
                1 => at(&id, &["y"]),
                2 => after(&id, &format!("all {}", number - 1)),
                _ => task(&id),
            };
            world.scheduler.submit(world.now, submission, &mut out);
        }
        let began = std::time::Instant::now();
        let mut steps = 0;
        let mut at = 0;
        while let Some(Decision::Run { engine, id, .. }) = out.get(at).cloned() {
            at += 1;
            steps += 1;
            world
                .scheduler
                .finish(world.now, &engine, &id.0, Answer::Succeeded, None, &mut out);
            if steps == 2000 {
                break;
            }
        }
        assert_eq!(steps, 2000);
        began.elapsed()
    };
    // The best of some runs, since the machine is busy with other things, too.
    let best = |count| (0..7).map(|_| time(count)).min().unwrap();
    let (few, many) = (best(2100), best(100_000));
    assert!(many < few * 6, "{few:?} with few tasks, {many:?} with many");
}
