//! A carrier without a cluster: its engines are threads of this process, where the trampolines are as well.

#![allow(dead_code, reason = "each of the test programs uses a part of it")]
#![allow(clippy::unwrap_used, reason = "a test's carrier")]

use chorus::__private::{Answer as Called, Slice, Trampoline};
use chorus::codec::{self, Encoded};
use chorus::wire::*;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fs::File;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

/// Numbers of a client begin here.
pub(crate) const FIRST: u64 = 7 << 32;

#[derive(Clone)]
pub(crate) struct Carrier(Arc<Inside>);

struct Inside {
    state: Mutex<State>,
    changed: Condvar,
    writing: Mutex<()>,
}

#[derive(Default)]
struct State {
    stream: Option<Arc<UnixStream>>,
    engines: BTreeMap<u32, Engine>,
    balanced: VecDeque<Waiting>,
    shared: HashMap<u64, Arc<Bytes>>,
    /// Shared values that are written while they are used.
    files: HashMap<u64, File>,
    /// All submissions, without arguments.
    seen: Vec<Submission>,
    /// What has been sent to clients, for copies of them.
    ended: HashMap<u64, Done>,
    highest: u64,
    hellos: Vec<Hello>,
    purged: usize,
}

#[derive(Default)]
struct Engine {
    queue: VecDeque<Waiting>,
    variables: HashMap<String, Vec<u8>>,
    running: Option<u64>,
    completed: u64,
}

struct Waiting {
    id: u64,
    work: Work,
    shared: Vec<(u64, Arc<Bytes>)>,
    arguments: Arc<Bytes>,
    after: Option<Dependency>,
    submitted: f64,
}

fn now() -> f64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap()
        .as_secs_f64()
}

pub(crate) fn failure(kind: FailureKind, ename: &str, evalue: &str) -> Failure {
    Failure {
        kind,
        ename: ename.to_owned(),
        evalue: evalue.to_owned(),
        traceback: Vec::new(),
        place: None,
    }
}

impl Carrier {
    /// A carrier with so many engines.
    pub(crate) fn new(engines: u32) -> Carrier {
        let carrier = Carrier(Arc::new(Inside {
            state: Mutex::default(),
            changed: Condvar::new(),
            writing: Mutex::default(),
        }));
        for id in 0..engines {
            carrier.start(id);
        }
        carrier
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap()
    }

    /// The program's end of a new connection.
    pub(crate) fn stream(&self) -> UnixStream {
        let (here, there) = UnixStream::pair().unwrap();
        let carrier = self.clone();
        std::thread::spawn(move || carrier.serve(here));
        there
    }

    /// Serves one program after another at a path.
    pub(crate) fn listen(&self, path: &Path) {
        let listener = UnixListener::bind(path).unwrap();
        let carrier = self.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let carrier = carrier.clone();
                std::thread::spawn(move || carrier.serve(stream.unwrap()));
            }
        });
    }

    pub(crate) fn start(&self, id: u32) {
        self.lock().engines.insert(id, Engine::default());
        self.tell_engines();
        let carrier = self.clone();
        std::thread::spawn(move || carrier.work(id));
    }

    /// An engine dies with what it has.
    pub(crate) fn kill(&self, id: u32) {
        let engine = self.lock().engines.remove(&id).unwrap();
        self.0.changed.notify_all();
        for task in engine
            .running
            .into_iter()
            .chain(engine.queue.iter().map(|task| task.id))
        {
            let lost = failure(
                FailureKind::Engine,
                "EngineError",
                &format!("engine {id} died"),
            );
            self.end(task, Some(id), [1.0, 0.0, 0.0], Outcome::Failed(lost));
        }
        self.tell_engines();
    }

    fn tell_engines(&self) {
        let ids = self.lock().engines.keys().copied().collect();
        self.send(&Down::Engines(ids));
    }

    pub(crate) fn hang_up(&self) {
        let stream = self.lock().stream.take().unwrap();
        stream.shutdown(std::net::Shutdown::Both).unwrap();
    }

    pub(crate) fn seen(&self) -> Vec<Submission> {
        self.lock().seen.clone()
    }

    pub(crate) fn hellos(&self) -> Vec<Hello> {
        self.lock().hellos.clone()
    }

    pub(crate) fn shared(&self) -> usize {
        self.lock().shared.len()
    }

    pub(crate) fn purged(&self) -> usize {
        self.lock().purged
    }

    pub(crate) fn send(&self, down: &Down) {
        let _turn = self.0.writing.lock().unwrap();
        let stream = self.lock().stream.clone();
        if let Some(stream) = stream {
            // A program that is gone doesn't matter.
            let _ = write(&*stream, down);
        }
    }

    fn serve(&self, stream: UnixStream) {
        let stream = Arc::new(stream);
        while let Ok(Some(up)) = read::<Up>(&*stream) {
            match up {
                Up::Hello(hello) => {
                    let (welcome, known) = self.hello(hello);
                    // Nothing comes before the welcome.
                    let turn = self.0.writing.lock().unwrap();
                    self.lock().stream = Some(Arc::clone(&stream));
                    write(&*stream, &welcome).unwrap();
                    drop(turn);
                    self.send(&Down::Tasks(known));
                }
                Up::Share { id, piece } => {
                    if let Piece::File { path, length: 0 } = &piece {
                        self.lock().files.insert(id, File::open(path).unwrap());
                    }
                    let bytes = Arc::new(piece.take().unwrap());
                    self.lock().shared.insert(id, bytes);
                }
                Up::Unshare { ids } => {
                    let mut state = self.lock();
                    for id in ids {
                        state.shared.remove(&id);
                        state.files.remove(&id);
                    }
                }
                Up::Submit(submission) => self.submit(submission),
                Up::Ask { id, question } => {
                    let answer = self.answer(question);
                    self.send(&Down::Reply { id, answer });
                }
            }
        }
    }

    /// The greeting, and what a copy of a client is told again.
    fn hello(&self, hello: Hello) -> (Down, Vec<News>) {
        let mut state = self.lock();
        state.hellos.push(hello.clone());
        if hello.profile.as_deref() == Some("none") {
            let reason = "there is no profile `none`".to_owned();
            return (Down::Refused { reason }, Vec::new());
        }
        let open = hello.resume.iter().flat_map(|resume| &resume.open);
        let known = open
            .flat_map(|span| span.ids())
            .filter_map(|id| Some(News::Done(state.ended.get(&id)?.clone())))
            .collect();
        let welcome = Welcome {
            version: VERSION,
            session: "test".to_owned(),
            first: state.highest.max(FIRST),
            cluster: "test".to_owned(),
            engines: state.engines.keys().copied().collect(),
            spare: None,
        };
        (Down::Welcome(welcome), known)
    }

    fn submit(&self, submission: Submission) {
        let mut state = self.lock();
        let mut seen = submission.clone();
        seen.tasks
            .iter_mut()
            .for_each(|task| task.arguments = Piece::Inline(Vec::new()));
        state.seen.push(seen);
        let shared: Vec<(u64, Arc<Bytes>)> = submission
            .shared
            .iter()
            .map(|id| (*id, Arc::clone(&state.shared[id])))
            .collect();
        let after = match &submission.route {
            Route::Balanced { after, .. } => after.clone(),
            Route::Direct => None,
        };
        for task in submission.tasks {
            state.highest = state.highest.max(task.id + 1);
            let arguments = match task.arguments {
                Piece::Shared { id } => Arc::clone(&state.shared[&id]),
                Piece::Part { id, start, length } => {
                    let mut bytes = vec![0; usize::try_from(length).unwrap()];
                    state.files[&id].read_exact_at(&mut bytes, start).unwrap();
                    Arc::new(Bytes::Owned(bytes))
                }
                piece => Arc::new(piece.take().unwrap()),
            };
            let waiting = Waiting {
                id: task.id,
                work: submission.work.clone(),
                shared: shared.clone(),
                arguments,
                after: after.clone(),
                submitted: now(),
            };
            match task.engine {
                Some(engine) => state
                    .engines
                    .get_mut(&engine)
                    .unwrap()
                    .queue
                    .push_back(waiting),
                None => state.balanced.push_back(waiting),
            }
        }
        drop(state);
        self.0.changed.notify_all();
    }

    fn answer(&self, question: Question) -> Answer {
        match question {
            Question::QueueStatus { targets } => {
                let state = self.lock();
                let of = |(id, engine): (&u32, &Engine)| EngineQueue {
                    engine: *id,
                    queue: engine.queue.len() as u64,
                    tasks: 0,
                    completed: engine.completed,
                };
                let wanted = |id: &u32| targets.as_ref().is_none_or(|targets| targets.contains(id));
                Answer::Queue(QueueStatus {
                    engines: state
                        .engines
                        .iter()
                        .filter(|(id, _)| wanted(id))
                        .map(of)
                        .collect(),
                    unassigned: state.balanced.len() as u64,
                    bytes: 0,
                })
            }
            Question::Abort { tasks } => {
                let named = |id: u64| {
                    tasks
                        .as_ref()
                        .is_none_or(|spans| spans.iter().any(|span| span.ids().contains(&id)))
                };
                let mut state = self.lock();
                let mut dropped = Vec::new();
                let mut sift = |queue: &mut VecDeque<Waiting>| {
                    dropped.extend(queue.iter().map(|task| task.id).filter(|id| named(*id)));
                    queue.retain(|task| !named(task.id));
                };
                sift(&mut state.balanced);
                state
                    .engines
                    .values_mut()
                    .for_each(|engine| sift(&mut engine.queue));
                drop(state);
                for id in dropped {
                    let aborted = failure(
                        FailureKind::Aborted,
                        "TaskAborted",
                        "it was aborted before it began",
                    );
                    self.end(id, None, [1.0, 0.0, 0.0], Outcome::Failed(aborted));
                }
                Answer::Done
            }
            Question::Purge { .. } => {
                self.lock().purged += 1;
                Answer::Done
            }
            Question::Shutdown {
                targets,
                controller,
            } => {
                if controller {
                    return Answer::Refused {
                        reason: "others use this cluster".to_owned(),
                    };
                }
                targets.unwrap().into_iter().for_each(|id| self.kill(id));
                Answer::Done
            }
            Question::Locate { file, line } => {
                Answer::Place(file.ends_with("failures.rs").then(|| Place {
                    file: "In[1]".to_owned(),
                    line,
                    text: Some(" the line ".to_owned()),
                }))
            }
        }
    }

    fn end(
        &self,
        id: u64,
        engine: Option<u32>,
        [submitted, started, completed]: [f64; 3],
        outcome: Outcome,
    ) {
        // A file would be gone after the first time.
        let kept = match outcome.clone() {
            Outcome::Value(Piece::File { path, .. }) => {
                Outcome::Value(Piece::Inline(std::fs::read(path).unwrap()))
            }
            other => other,
        };
        let done = Done {
            id,
            engine,
            submitted,
            started,
            completed,
            outcome,
        };
        let again = Done {
            outcome: kept,
            ..done.clone()
        };
        if self.lock().ended.insert(id, again).is_none() {
            self.send(&Down::Tasks(vec![News::Done(done)]));
        }
        self.0.changed.notify_all();
    }

    /// An engine's life.
    fn work(&self, id: u32) {
        loop {
            let task = {
                let mut state = self.lock();
                loop {
                    let Some(engine) = state.engines.get_mut(&id) else {
                        return;
                    };
                    if let Some(task) = engine.queue.pop_front() {
                        break task;
                    }
                    if let Some(at) =
                        (0..state.balanced.len()).find(|at| ready(&state, &state.balanced[*at]))
                    {
                        break state.balanced.remove(at).unwrap();
                    }
                    state = self.0.changed.wait(state).unwrap();
                }
            };
            if let Some(engine) = self.lock().engines.get_mut(&id) {
                engine.running = Some(task.id);
            }
            let started = now();
            self.send(&Down::Tasks(vec![News::Started {
                id: task.id,
                engine: id,
                at: started,
            }]));
            let outcome = match &task.work {
                Work::Call {
                    artifact, offset, ..
                } => {
                    assert_eq!(*artifact, std::env::current_exe().unwrap());
                    call(*offset, &task)
                }
                Work::Snippet { code, takes, gives } => {
                    self.snippet(id, code, takes, gives, &task.arguments)
                }
            };
            if let Some(engine) = self.lock().engines.get_mut(&id) {
                engine.running = None;
                engine.completed += 1;
            }
            self.end(task.id, Some(id), [task.submitted, started, now()], outcome);
        }
    }

    fn snippet(
        &self,
        id: u32,
        code: &str,
        takes: &Option<String>,
        gives: &Option<String>,
        bytes: &[u8],
    ) -> Outcome {
        let mut state = self.lock();
        let variables = &mut state.engines.get_mut(&id).unwrap().variables;
        if let Some(name) = takes {
            assert!(code.starts_with(&format!("let mut {name}: ")), "{code}");
            variables.insert(name.clone(), bytes.to_vec());
        }
        let value = match gives {
            Some(name) => match variables.get(name) {
                Some(value) => value.clone(),
                None => {
                    return Outcome::Failed(failure(
                        FailureKind::Error,
                        "E0425",
                        &format!("no `{name}`"),
                    ));
                }
            },
            None => codec::encode(&Executed {
                data: vec![("text/plain".to_owned(), code.to_owned())],
            })
            .unwrap()
            .into_vec(),
        };
        drop(state);
        Outcome::Value(Piece::of(Encoded {
            head: value,
            bulk: &[],
        }))
    }
}

fn ready(state: &State, task: &Waiting) -> bool {
    let Some(after) = &task.after else {
        return true;
    };
    let counts = |id: u64| {
        state.ended.get(&id).is_some_and(|done| match done.outcome {
            Outcome::Value(_) => after.success,
            Outcome::Failed(_) => after.failure,
        })
    };
    let mut tasks = after.tasks.iter().flat_map(|span| span.ids());
    if after.all {
        tasks.all(counts)
    } else {
        tasks.any(counts)
    }
}

fn call(offset: u64, task: &Waiting) -> Outcome {
    // Where this program is loaded: the trampoline of anything, less its offset.
    let mut info = MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: any address of this program; the structure is written when it is known.
    let info = unsafe {
        assert_ne!(
            libc::dladdr(call as *const libc::c_void, info.as_mut_ptr()),
            0
        );
        info.assume_init()
    };
    let address = info.dli_fbase as usize + offset as usize;
    // SAFETY: the client found the offset in the same way.
    let trampoline = unsafe { std::mem::transmute::<usize, Trampoline>(address) };
    let slice = |bytes: &[u8], id| Slice {
        data: bytes.as_ptr(),
        len: bytes.len(),
        id,
    };
    let mut slices = vec![slice(&task.arguments, 0)];
    slices.extend(task.shared.iter().map(|(id, bytes)| slice(bytes, *id)));
    let mut called = MaybeUninit::<Called>::uninit();
    // SAFETY: as the runtime's worker does it.
    let (status, bytes) = unsafe {
        trampoline(slices.as_ptr(), slices.len(), called.as_mut_ptr());
        let called = called.assume_init();
        let bytes = std::slice::from_raw_parts(called.data, called.len).to_vec();
        (called.drop)(called.data, called.len, called.capacity);
        (called.status, bytes)
    };
    let text = || String::from_utf8_lossy(&bytes).into_owned();
    match status {
        0 | 3 => Outcome::Value(Piece::of(Encoded {
            head: bytes,
            bulk: &[],
        })),
        1 => Outcome::Failed(failure(FailureKind::Error, "CallError", &text())),
        _ => Outcome::Failed(failure(FailureKind::Panic, "panic", &text())),
    }
}
