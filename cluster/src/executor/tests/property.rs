//! Whatever happens in whatever order: each work ends once, nothing runs beside a snippet, and no snippet is compiled for another state than
//! the namespace has.

use std::collections::{BTreeSet, VecDeque};

use proptest::prelude::*;
use runtime::Call;

use super::*;

/// A runtime and a compiler that answer when the test says so.
#[derive(Debug)]
struct World {
    executor: Executor,
    now: Instant,
    works: u64,
    unfinished: BTreeSet<WorkId>,
    /// The snippet whose turn it is.
    current: Option<WorkId>,
    snippets: BTreeSet<WorkId>,
    starting: bool,
    clearing: bool,
    /// The last ones may have been cancelled, and are answered all the same.
    compiles: VecDeque<Ticket>,
    live_compile: Option<Ticket>,
    settles: VecDeque<Ticket>,
    /// What the runtime was given: runs (true) and calls.
    given: VecDeque<(RunId, bool)>,
    /// The artifact that runs, and how many of its loads have.
    artifact: (Lineage, usize, usize),
    /// Whether the variables went while a run was on its way to the runtime.
    outdated: bool,
    /// The state of the namespace; unknown while the compiler is to tell.
    truth: Result<Lineage, Ticket>,
}

impl World {
    fn new() -> Self {
        Self {
            executor: Executor::new(Config::engine()),
            now: Instant::now(),
            works: 0,
            unfinished: BTreeSet::new(),
            current: None,
            snippets: BTreeSet::new(),
            starting: false,
            clearing: false,
            compiles: VecDeque::new(),
            live_compile: None,
            settles: VecDeque::new(),
            given: VecDeque::new(),
            artifact: (Lineage::root(), 0, 0),
            outdated: false,
            truth: Ok(Lineage::root()),
        }
    }

    fn on(&mut self, event: Event) {
        self.now += Duration::from_millis(1);
        let effects = self.executor.on_event(self.now, event);
        for effect in effects {
            self.apply(effect);
        }
    }

    fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::StartRuntime(_) => {
                assert!(!std::mem::replace(&mut self.starting, true));
            }
            Effect::ClearRuntime => {
                self.clearing = true;
                self.truth = Ok(Lineage::root());
            }
            Effect::Run(snippet) => {
                assert!(self.given.is_empty(), "a snippet runs alone");
                self.given.push_back((snippet.id, true));
            }
            Effect::Call { call, .. } => {
                assert!(self.given.iter().all(|(_, is_run)| !is_run));
                self.given.push_back((call.id, false));
                assert!(self.given.len() <= AHEAD);
            }
            Effect::InterruptRun { run, .. } => {
                assert!(self.given.iter().any(|(id, _)| *id == run));
            }
            Effect::Compile {
                ticket, request, ..
            } => {
                assert_eq!(Ok(request.request.lineage), self.truth);
                self.compiles.push_back(ticket);
                self.live_compile = Some(ticket);
                self.outdated = false;
            }
            Effect::CancelCompile(ticket) => {
                assert_eq!(self.live_compile.take(), Some(ticket));
            }
            Effect::Settle { ticket, .. } => {
                self.settles.push_back(ticket);
                if !self.outdated {
                    self.truth = Err(ticket);
                }
            }
            Effect::Started(id) => {
                assert!(self.unfinished.contains(&id));
                if self.snippets.contains(&id) {
                    assert_eq!(self.current.replace(id), None, "one at a time");
                }
            }
            Effect::Output { id: Some(id), .. } => assert!(self.unfinished.contains(&id)),
            Effect::Finished { id, outcome } => {
                assert!(self.unfinished.remove(&id), "{id:?} has ended before");
                let was_current = self.current.take_if(|current| *current == id).is_some();
                assert!(
                    was_current || !matches!(outcome, Outcome::Evaluated { .. }),
                    "nothing is evaluated before its turn"
                );
            }
            _ => {}
        }
    }

    fn submit(&mut self, kinds: Vec<WorkKind>) {
        let mut works = Vec::new();
        for kind in kinds {
            self.works += 1;
            let id = WorkId(self.works);
            self.unfinished.insert(id);
            if matches!(kind, WorkKind::Snippet { .. }) {
                self.snippets.insert(id);
            }
            works.push(Work {
                group: Some("a".into()),
                stop_on_error: self.works.is_multiple_of(5),
                ..work(id.0, kind)
            });
        }
        self.on(Event::Submit(works));
    }

    fn lose(&mut self, variables: bool) {
        if !variables {
            self.truth = Ok(Lineage::root());
        }
    }

    fn reports(&mut self, event: runtime::Event) {
        let runtime = RuntimeId::Namespace;
        self.on(Event::Runtime { runtime, event });
    }

    /// The runtime or the compiler does something that it was asked for; false if it was asked for nothing.
    fn progress(&mut self, how: u8) -> bool {
        if self.starting {
            self.starting = false;
            let result = match how % 8 {
                0 => Err(not_there()),
                _ => Ok(()),
            };
            let runtime = RuntimeId::Namespace;
            self.on(Event::RuntimeStarted { runtime, result });
        } else if std::mem::take(&mut self.clearing) {
            self.on(Event::Cleared);
        } else if let Some(ticket) = self.settles.pop_front_if(|_| !how.is_multiple_of(3)) {
            let lineage = named(&format!("settled {ticket:?}"));
            if self.truth == Err(ticket) {
                self.truth = Ok(lineage.clone());
            }
            let settlement = Some(Settlement {
                lineage,
                locations: PanicLocations::default(),
            });
            self.on(Event::Settled { ticket, settlement });
        } else if let Some(ticket) = self.compiles.pop_front() {
            self.answer_compile(ticket, how);
        } else if let Some((id, is_run)) = self.given.pop_front() {
            match is_run {
                true => self.finish_run(id, how),
                false => self.finish_call(id, how),
            }
        } else {
            return !self.settles.is_empty();
        }
        true
    }

    fn answer_compile(&mut self, ticket: Ticket, how: u8) {
        let result = match how % 6 {
            0 => Err(plain("compile error", "no")),
            loads => {
                let loads = usize::from(loads) % 4;
                let lineage = named(&format!("compiled {ticket:?}"));
                if self.live_compile.take_if(|live| *live == ticket).is_some() {
                    self.artifact = (lineage.clone(), loads, 0);
                    if loads == 0 {
                        self.truth = Ok(lineage.clone());
                    }
                }
                Ok(compiled(&["a"; 4][..loads], &lineage.0))
            }
        };
        self.live_compile.take_if(|live| *live == ticket);
        self.on(Event::Compiled { ticket, result });
    }

    fn finish_run(&mut self, id: RunId, how: u8) {
        let outcome = match how % 8 {
            0 => panic(),
            1 => died(true),
            2 => died(false),
            3 => interrupted(true),
            4 => interrupted(false),
            _ => RunOutcome::Completed,
        };
        match how % 8 {
            2 | 4 => self.lose(false),
            0 | 1 | 3 => {}
            _ => {
                self.artifact.2 += 1;
                if self.artifact.1 == self.artifact.2 && !self.outdated {
                    self.truth = Ok(self.artifact.0.clone());
                }
            }
        }
        self.reports(printed("text"));
        self.reports(runtime::Event::Finished { id, outcome });
    }

    fn finish_call(&mut self, id: RunId, how: u8) {
        let restored = restored(!how.is_multiple_of(8));
        let outcome = match how % 8 {
            0 | 1 => {
                self.lose(restored.variables);
                CallOutcome::Interrupted { restored }
            }
            _ => CallOutcome::Returned(runtime::Value::Bytes("x".into())),
        };
        self.reports(printed("text"));
        let span = None;
        self.reports(runtime::Event::Called { id, outcome, span });
    }

    fn step(&mut self, what: u8, how: u8) {
        let snippet = || WorkKind::Snippet {
            source: "x".to_owned(),
            exchanges: false,
        };
        let call = || {
            let call = Call {
                id: RunId(0),
                artifact: "a".into(),
                offset: 0,
                pieces: Vec::new(),
                answer_file: None,
            };
            let runtime = RuntimeId::Namespace;
            WorkKind::Call(Ok(CallWork { call, runtime }))
        };
        match what {
            0 => self.submit(vec![snippet(), call(), snippet()]),
            1 => self.submit(vec![snippet()]),
            2 => self.submit((0..how).map(|_| call()).collect()),
            3 => self.submit(vec![WorkKind::Turn(Ok(())), WorkKind::Clear]),
            4 => self.on(Event::Interrupt {
                waiting: how.is_multiple_of(4),
            }),
            5 => self.on(Event::Abort {
                id: WorkId(u64::from(how) % (self.works + 2) + 1),
                running: how.is_multiple_of(2),
            }),
            6 if !self.starting && !self.clearing && self.given.len() < 2 => {
                let variables = how.is_multiple_of(2);
                // A run that is on its way to the runtime is for what was there before.
                self.outdated |= !variables && self.given.iter().any(|(_, is_run)| *is_run);
                self.lose(variables);
                self.reports(lost(variables));
            }
            7 => {
                self.now += Duration::from_millis(100);
                self.on(Event::Tick);
            }
            _ => {
                self.progress(how);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn every_work_ends_once_and_the_lineage_is_true(
        steps in prop::collection::vec((0..20_u8, any::<u8>()), 0..200),
        shuts_down: bool,
    ) {
        let mut world = World::new();
        for (what, how) in steps {
            world.step(what, how);
        }
        if shuts_down {
            world.on(Event::Shutdown);
        } else {
            // `5`: goes well.
            while world.progress(5) {}
        }
        prop_assert!(world.unfinished.is_empty(), "{:?}", world);
    }
}
