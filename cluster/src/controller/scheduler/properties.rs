//! Whatever happens in whatever order: every task is in one state, loads are right, and each ends once.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use proptest::collection::vec;
use proptest::prelude::*;

use super::tests::{World, task};
use super::*;

const ENGINES: [&str; 4] = ["w", "x", "y", "z"];

#[derive(Clone, Debug)]
enum Step {
    Submit {
        client: u8,
        retries: u32,
        targets: Vec<usize>,
        after: Option<Names>,
        follow: Option<Names>,
        timeout: Option<u64>,
    },
    Join(usize),
    Leave(usize),
    /// One of the running tasks ends.
    Answer(usize, Answer, Option<u64>),
    Abort(prop::sample::Index),
    AbortAllOf(u8),
    AbortAt(usize),
    Pass(u64),
}

/// A dependency on tasks that came so many before; one of none is unknown.
#[derive(Clone, Debug)]
struct Names {
    back: Vec<usize>,
    all: bool,
    success: bool,
    failure: bool,
}

fn names() -> impl Strategy<Value = Names> {
    let kinds = prop::sample::select(vec![(true, false), (false, true), (true, true)]);
    (vec(0..12_usize, 1..4), any::<bool>(), kinds).prop_map(|(back, all, (success, failure))| {
        Names {
            back,
            all,
            success,
            failure,
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    use prop::option::weighted;
    let submit = (
        0..3_u8,
        prop_oneof![3 => Just(0), 1 => 1..3_u32],
        prop_oneof![3 => Just(Vec::new()), 1 => vec(0..4_usize, 1..3)],
        weighted(0.3, names()),
        weighted(0.2, names()),
        weighted(0.2, 1..50_u64),
    );
    let submit =
        submit.prop_map(
            |(client, retries, targets, after, follow, timeout)| Step::Submit {
                client,
                retries,
                targets,
                after,
                follow,
                timeout,
            },
        );
    let answer = prop_oneof![
        6 => Just(Answer::Succeeded),
        2 => Just(Answer::Failed),
        1 => Just(Answer::Unmet),
        1 => Just(Answer::Aborted),
    ];
    let took = weighted(0.9, prop_oneof![20 => Just(3_u64), 1 => Just(5000)]);
    prop_oneof![
        10 => submit,
        1 => (0..4_usize).prop_map(Step::Join),
        1 => (0..4_usize).prop_map(Step::Leave),
        12 => (any::<usize>(), answer, took)
            .prop_map(|(index, answer, took)| Step::Answer(index, answer, took)),
        1 => any::<prop::sample::Index>().prop_map(Step::Abort),
        1 => (0..3_u8).prop_map(Step::AbortAllOf),
        1 => (0..4_usize).prop_map(Step::AbortAt),
        2 => (0..20_u64).prop_map(Step::Pass),
    ]
}

/// So many short tasks, one after the other: after these a task is given in advance.
fn short_tasks() -> Vec<Step> {
    let submit = Step::Submit {
        client: 0,
        retries: 0,
        targets: Vec::new(),
        after: None,
        follow: None,
        timeout: None,
    };
    let mut steps = vec![Step::Join(0), Step::Join(1)];
    for _ in 0..40 {
        steps.push(submit.clone());
        steps.push(Step::Answer(0, Answer::Succeeded, Some(3)));
    }
    steps
}

/// What is known from outside.
#[derive(Default)]
struct Ledger {
    submitted: Vec<MessageId>,
    /// How often each may still be given out.
    chances: BTreeMap<MessageId, u32>,
    targets: BTreeMap<MessageId, BTreeSet<Bytes>>,
    running: BTreeMap<MessageId, Bytes>,
    ended: BTreeSet<MessageId>,
}

impl Ledger {
    fn end(&mut self, id: &MessageId) {
        assert!(self.ended.insert(id.clone()), "{id} ended twice");
    }

    fn note(&mut self, out: &[Decision<()>]) {
        for decision in out {
            match decision {
                Decision::Run { engine, id, .. } => {
                    let before = self.running.insert(id.clone(), engine.clone());
                    assert_eq!(before, None, "{id} runs twice at a time");
                    let chances = self.chances.get_mut(id).unwrap();
                    *chances = chances.checked_sub(1).expect("a retry too many");
                    let targets = &self.targets[id];
                    assert!(targets.is_empty() || targets.contains(engine));
                    assert!(!self.ended.contains(id));
                }
                Decision::Fail { id, .. } => {
                    self.running.remove(id);
                    self.end(id);
                }
            }
        }
    }
}

fn schemes() -> impl Strategy<Value = Scheme> {
    prop::sample::select(vec![
        Scheme::Leastload,
        Scheme::Lru,
        Scheme::Weighted,
        Scheme::Twobin,
        Scheme::Plainrandom,
    ])
}

fn marks() -> impl Strategy<Value = HighWater> {
    prop::sample::select(vec![
        HighWater::Auto,
        HighWater::Unlimited,
        HighWater::Fixed(1),
        HighWater::Fixed(3),
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn every_task_ends_once(scheme in schemes(), high_water in marks(), warm in any::<bool>(), steps in vec(step(), 1..120)) {
        let limit = 2000;
        let mut world = World::with(Config { scheme, high_water, limit });
        let mut ledger = Ledger::default();
        let client = |number: u8| Bytes::from(vec![b'a' + number]);
        let before = if warm { short_tasks() } else { Vec::new() };
        for step in before.into_iter().chain(steps) {
            let mut out = Vec::new();
            let now = world.now;
            let scheduler = &mut world.scheduler;
            match step {
                Step::Submit { client: by, retries, targets, after, follow, timeout } => {
                    let id = MessageId::from(ledger.submitted.len().to_string());
                    let dependency = |names: Option<Names>| names.map_or_else(Dependency::default, |names| Dependency {
                        ids: names.back.iter().map(|back| match ledger.submitted.len().checked_sub(*back) {
                            Some(at) => MessageId::from(at.to_string()),
                            None => MessageId::from("unknown"),
                        }).collect(),
                        all: names.all,
                        success: names.success,
                        failure: names.failure,
                    });
                    let conditions = Conditions {
                        targets: targets.iter().map(|at| Bytes::from(ENGINES[*at])).collect(),
                        after: dependency(after),
                        follow: dependency(follow),
                        timeout: timeout.map(Duration::from_millis),
                    };
                    ledger.submitted.push(id.clone());
                    ledger.chances.insert(id.clone(), 1 + retries);
                    ledger.targets.insert(id.clone(), conditions.targets.iter().cloned().collect());
                    let plain = conditions == Conditions::default();
                    let submission = Submission {
                        id,
                        client: client(by),
                        retries,
                        conditions: (!plain).then(|| Box::new(conditions)),
                        ..task("")
                    };
                    prop_assert!(scheduler.submit(now, submission, &mut out));
                }
                Step::Join(at) => scheduler.join(now, Bytes::from(ENGINES[at]), &mut out),
                Step::Leave(at) => {
                    // Those that are tried again do not run any more, and the others fail.
                    ledger.running.retain(|_, engine| *engine != ENGINES[at]);
                    scheduler.leave(now, ENGINES[at].as_bytes(), &mut out);
                }
                Step::Answer(index, answer, took) => {
                    let running: Vec<_> = ledger.running.iter().map(|(id, engine)| (id.clone(), engine.clone())).collect();
                    if running.is_empty() {
                        continue;
                    }
                    let (id, engine) = &running[index % running.len()];
                    ledger.running.remove(id);
                    let took = took.map(Duration::from_micros);
                    match scheduler.finish(now, engine, &id.0, answer, took, &mut out) {
                        Verdict::Deliver => ledger.end(id),
                        Verdict::Again => {
                            prop_assert!(answer != Answer::Succeeded);
                            // Not having run costs no retry.
                            if matches!(answer, Answer::Unmet | Answer::Aborted) {
                                *ledger.chances.get_mut(id).unwrap() += 1;
                            }
                        }
                        Verdict::Unknown => prop_assert!(false, "{id} was running"),
                    }
                }
                Step::Abort(index) => {
                    if !ledger.submitted.is_empty() {
                        let id = index.get(&ledger.submitted);
                        scheduler.abort(now, [&*id.0], &mut out);
                    }
                }
                Step::AbortAllOf(by) => drop(scheduler.abort_all_of(now, &client(by), &mut out)),
                Step::AbortAt(at) => scheduler.abort_at(ENGINES[at].as_bytes()),
                Step::Pass(millis) => {
                    world.now += Duration::from_millis(millis);
                    scheduler.on_time(world.now, &mut out);
                    prop_assert!(scheduler.deadline().is_none_or(|due| due > world.now));
                }
            }
            ledger.note(&out);
            world.scheduler.sanity_check();
            prop_assert_eq!(world.scheduler.running, ledger.running.len());
            let open = ledger.submitted.len() - ledger.ended.len();
            prop_assert_eq!(world.scheduler.unassigned_count() + ledger.running.len(), open);
        }
        // With an engine that does everything, and when all have waited long enough, nothing is left.
        let mut out = Vec::new();
        world.scheduler.join(world.now, Bytes::from_static(b"last"), &mut out);
        loop {
            ledger.note(&out);
            out.clear();
            world.scheduler.sanity_check();
            let Some((id, engine)) = ledger.running.pop_first() else { break };
            let verdict = world.scheduler.finish(world.now, &engine, &id.0, Answer::Succeeded, None, &mut out);
            prop_assert_eq!(verdict, Verdict::Deliver);
            ledger.end(&id);
        }
        prop_assert_eq!(world.scheduler.unassigned_count(), 0);
        prop_assert_eq!(world.scheduler.bytes(), 0);
        prop_assert_eq!(ledger.ended.len(), ledger.submitted.len());
    }
}
