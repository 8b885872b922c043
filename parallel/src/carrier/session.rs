//! The task of one session: the program's stream, the cluster's words and the host's wishes in, and all that the books say out.

use super::answer::{Asked, answer};
use super::books::{Books, Out, Shown, too_long};
use super::pipe::Pipe;
use super::{Found, Host, Inner, abort};
use crate::controller::{Connection, Output, Posted, Posts, State};
use crate::wire::{
    Answer, Down, MOST, News, Outcome, Piece, Place, Question, Resume, Submission, Up, VERSION,
    Welcome,
};
use protocol::message::iopub::StreamName;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

/// How long a copy of the program may take to go on with a session whose stream has ended.
const GRACE: Duration = Duration::from_secs(2);
/// So many of the cluster's words are taken in at a time.
const BURST: usize = 1024;
/// So many tasks are made to requests before the first of them leave.
const TASKS: usize = 256;
/// So many news are told in one frame: many tasks with large results would make it too long.
const NEWS: usize = 256;
/// And so many bytes of values, if it is more than one.
const FRAME: usize = 64 << 20;
/// How long the host may take to say what is at a place.
const PLACE: Duration = Duration::from_secs(2);
/// Shared values of more bytes than that go to engines in a file, which each maps once.
const SMALL: usize = 4096;

/// What a session's task is told by others.
pub(super) enum Order {
    /// A copy of the program is there.
    Resume(Box<(Pipe, Resume)>),
    /// The program's present cell.
    Epoch(u64),
    /// No copy of the program that was made before will go on.
    Settle,
    /// The program's present cell is interrupted.
    Interrupt,
    /// End.
    End(oneshot::Sender<()>),
    /// A question to the cluster is answered.
    Answered {
        /// Which of the session's streams asked.
        stream: u64,
        id: u64,
        answer: Answer,
    },
    /// What is at the place of panics.
    Place {
        file: String,
        line: u32,
        place: Option<Place>,
    },
}

/// See the module.
pub(super) struct Session<H> {
    inner: Arc<Inner<H>>,
    name: String,
    cluster: String,
    connection: Connection,
    posts: Arc<Posts>,
    posted: mpsc::UnboundedReceiver<Posted>,
    state: watch::Receiver<State>,
    orders: mpsc::UnboundedReceiver<Order>,
    /// For the answers to what is asked on the session's behalf.
    sender: mpsc::UnboundedSender<Order>,
    books: Books,
    pipe: Option<Pipe>,
    /// Counts streams.
    stream: u64,
    /// When the session ends, unless a copy of the program comes.
    until: Option<Instant>,
    /// Nobody will come any more.
    abandoned: bool,
    /// Places of panics, by what the artifact calls them.
    places: HashMap<(String, u32), At>,
    /// The program's question whether the cluster may be ended.
    shutdown: Option<u64>,
    /// Who waits for the end.
    enders: Vec<oneshot::Sender<()>>,
}

/// A place of panics.
enum At {
    /// The host is being asked; these tasks wait.
    Asked(Vec<u64>),
    /// What it said.
    Known(Option<Place>),
}

fn now() -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

fn identities(state: &State) -> BTreeMap<u32, String> {
    let engines = state.engines.iter();
    engines.map(|(id, uuid)| (id.0, uuid.to_string())).collect()
}

impl<H: Host> Session<H> {
    pub(super) async fn open(inner: Arc<Inner<H>>, found: Found) -> Result<Self, String> {
        let Found { connection, name } = found;
        let (posts, posted) = connection.posts().await.map_err(|error| error.chain())?;
        let posts = Arc::new(posts);
        let ids = Arc::clone(&posts);
        let random = Uuid::new_v4().as_u128();
        // Where no other client of the cluster will get to; engines don't know the number 0.
        let first = u64::from((random as u32).max(1)) << 32;
        let noise = format!("{:08x}", (random >> 32) as u32);
        let mut books = Books::new(first, move |task| ids.id(task), &noise);
        let state = connection.watch();
        books.on_engines(identities(&connection.state()), &mut Out::default());
        let session = Uuid::new_v4().to_string();
        let (sender, orders) = mpsc::unbounded_channel();
        {
            let mut sessions = inner.sessions();
            if sessions.closed {
                return Err("the kernel is shutting down".to_owned());
            }
            books.begin(sessions.epoch);
            sessions.open.insert(session.clone(), sender.clone());
        }
        Ok(Session {
            inner,
            name: session,
            cluster: name,
            connection,
            posts,
            posted,
            state,
            orders,
            sender,
            books,
            pipe: None,
            stream: 0,
            until: None,
            abandoned: false,
            places: HashMap::new(),
            shutdown: None,
            enders: Vec::new(),
        })
    }

    /// Serves the session to its end.
    pub(super) async fn run(mut self, pipe: Pipe, resume: Option<Resume>) {
        self.state.mark_changed();
        self.greet(pipe, resume);
        let mut burst = Vec::with_capacity(BURST);
        while !self.is_over() {
            let due = self.due();
            tokio::select! {
                _ = self.posted.recv_many(&mut burst, BURST) => self.on_posted(&mut burst),
                Some(order) = self.orders.recv() => self.on_order(order),
                ready = ready(self.pipe.as_mut()) => self.on_ready(ready),
                Ok(()) = self.state.changed() => self.on_state(&mut burst),
                () = due => self.on_time(),
            }
        }
        self.close();
    }

    fn is_over(&self) -> bool {
        !self.enders.is_empty() || (self.abandoned && self.books.is_idle())
    }

    fn close(mut self) {
        self.inner.sessions().open.remove(&self.name);
        let mut out = Out::default();
        self.books.close(&mut out);
        self.settle(out);
        if let Some(pipe) = &mut self.pipe {
            // Whoever doesn't read doesn't want to know.
            let _ = pipe.write();
        }
        self.inner.sweeper.sweep();
        for ender in std::mem::take(&mut self.enders) {
            let _ = ender.send(());
        }
    }

    fn greet(&mut self, pipe: Pipe, resume: Option<Resume>) {
        self.stream += 1;
        self.until = None;
        self.abandoned = false;
        // The stream before is nobody's.
        self.pipe = Some(pipe);
        let mut out = Out::default();
        let unknown = match &resume {
            Some(resume) => self.books.resume(resume, &mut out),
            None => Vec::new(),
        };
        let welcome = Welcome {
            version: VERSION,
            session: self.name.clone(),
            first: self.books.next(),
            cluster: self.cluster.clone(),
            engines: self.books.engines().collect(),
            spare: self.inner.sweeper.spare().map(Path::to_owned),
        };
        self.push(&Down::Welcome(welcome));
        self.settle(out);
        self.take_back(unknown, false);
    }

    /// Aborts tasks that nobody asks for; `running`: those that have begun as well.
    fn take_back(&self, tasks: Vec<(u64, Option<u32>)>, running: bool) {
        if tasks.is_empty() {
            return;
        }
        let (connection, posts) = (self.connection.clone(), Arc::clone(&self.posts));
        tokio::spawn(async move {
            if let Err(error) = abort::abort(&connection, &posts, &tasks, running).await {
                tracing::warn!("{}", error.chain());
            }
        });
    }

    /// Resolves when [`Self::on_time`] is to be called.
    fn due(&self) -> impl Future<Output = ()> + use<H> {
        let overdue = self.books.deadline().map(|until| {
            let left = Duration::try_from_secs_f64(until - now()).unwrap_or_default();
            Instant::now() + left
        });
        let first = [overdue, self.until].into_iter().flatten().min();
        async move {
            match first {
                Some(first) => sleep_until(first).await,
                None => std::future::pending().await,
            }
        }
    }

    fn on_time(&mut self) {
        let mut out = Out::default();
        self.books.on_time(now(), &mut out);
        if self.until.is_some_and(|until| until <= Instant::now()) {
            self.until = None;
            self.abandoned = true;
            let open = self.books.abandon(&mut out);
            self.take_back(open, false);
        }
        self.settle(out);
    }

    fn on_posted(&mut self, burst: &mut Vec<Posted>) {
        let mut out = Out::default();
        let now = now();
        for posted in burst.drain(..) {
            self.books.on_posted(now, posted, &mut out);
        }
        self.settle(out);
    }

    fn on_state(&mut self, burst: &mut Vec<Posted>) {
        let state = self.state.borrow_and_update().clone();
        // What an engine said before it went comes first.
        while let Ok(posted) = self.posted.try_recv() {
            burst.push(posted);
        }
        self.on_posted(burst);
        if let Some(lost) = state.lost {
            // The program has what it wanted, and is told so before the rest.
            if let Some(id) = self.shutdown.take() {
                let answer = Answer::Done;
                self.push(&Down::Reply { id, answer });
            }
            self.push(&Down::Gone {
                reason: lost.to_string(),
            });
            self.pipe_out();
            // Nobody is left who could be asked; files go at the end.
            let mut out = Out::default();
            self.books.close(&mut out);
            self.settle(out);
            self.pipe = None;
            self.abandoned = true;
            return;
        }
        let mut out = Out::default();
        let before: Vec<u32> = self.books.engines().collect();
        self.books.on_engines(identities(&state), &mut out);
        let engines: Vec<u32> = self.books.engines().collect();
        // The end of a task is told before that of its engine.
        self.settle(out);
        if engines != before {
            self.push(&Down::Engines(engines));
            self.pipe_out();
        }
    }

    fn on_order(&mut self, order: Order) {
        match order {
            Order::Resume(resumed) => {
                let (pipe, resume) = *resumed;
                self.greet(pipe, Some(resume));
            }
            Order::Epoch(epoch) => self.books.begin(epoch),
            Order::Settle => {
                if self.pipe.as_ref().is_some_and(Pipe::is_read) {
                    let mut out = Out::default();
                    self.books.settle(&mut out);
                    self.settle(out);
                }
            }
            Order::Interrupt => {
                let open = self.books.open_of_this_cell();
                self.take_back(open, true);
            }
            Order::End(ender) => {
                self.take_back(self.books.open_tasks(None), false);
                self.enders.push(ender);
            }
            Order::Answered { stream, id, answer } => {
                self.shutdown = self.shutdown.filter(|asked| *asked != id);
                if stream == self.stream {
                    self.push(&Down::Reply { id, answer });
                    self.pipe_out();
                }
            }
            Order::Place { file, line, place } => {
                let known = At::Known(place.clone());
                if let Some(At::Asked(tasks)) = self.places.insert((file, line), known) {
                    let mut out = Out::default();
                    for task in tasks {
                        self.books.on_place(task, place.clone(), &mut out);
                    }
                    self.settle(out);
                }
            }
        }
    }

    fn on_ready(&mut self, ready: std::io::Result<()>) {
        let read = match (&mut self.pipe, ready) {
            (Some(pipe), Ok(())) => pipe.write().and_then(|()| pipe.read()),
            (_, Err(error)) => Err(error),
            (None, Ok(())) => return,
        };
        // What was ordered before the program wrote this comes first: a cell's beginning before what the cell submits.
        let stream = self.stream;
        while let Ok(order) = self.orders.try_recv() {
            self.on_order(order);
        }
        if self.stream != stream {
            return;
        }
        loop {
            match self.pipe.as_mut().map(Pipe::next) {
                Some(Ok(Some(up))) => self.on_up(up),
                Some(Ok(None)) => break,
                Some(Err(error)) => {
                    tracing::warn!(%error, "a program's words can't be understood");
                    return self.hang_up();
                }
                None => return,
            }
        }
        match read {
            Ok(true) => {}
            Ok(false) => self.hang_up(),
            Err(error) => {
                tracing::debug!(%error, "a program's stream broke");
                self.hang_up();
            }
        }
    }

    /// The stream has ended. A copy of the program may come.
    fn hang_up(&mut self) {
        self.pipe = None;
        self.until = Some(Instant::now() + GRACE);
    }

    fn on_up(&mut self, up: Up) {
        let mut out = Out::default();
        match up {
            Up::Hello(_) => tracing::warn!("a program greets twice"),
            Up::Share { id, piece } => {
                let piece = match piece {
                    Piece::Inline(bytes) if bytes.len() <= SMALL => Piece::Inline(bytes),
                    piece => piece.in_file(),
                };
                self.books.share(id, piece, &mut out);
            }
            Up::Unshare { ids } => {
                for id in ids {
                    self.books.unshare(id, &mut out);
                }
            }
            Up::Submit(submission) => return self.submit(submission),
            Up::Ask { id, question } => {
                self.books.used(id);
                self.ask(id, question);
            }
        }
        self.settle(out);
    }

    fn submit(&mut self, submission: Submission) {
        let Submission {
            work,
            shared,
            route,
            label,
            mut tasks,
        } = submission;
        let group = self
            .books
            .open(now(), &work, shared, &route, label.as_deref());
        while !tasks.is_empty() {
            let mut out = Out::default();
            let rest = tasks.split_off(TASKS.min(tasks.len()));
            for task in std::mem::replace(&mut tasks, rest) {
                match &group {
                    Ok(group) => self.books.submit(group, task, &mut out),
                    Err(failure) => self.books.refuse(
                        task.id,
                        task.engine,
                        task.arguments,
                        (**failure).clone(),
                        &mut out,
                    ),
                }
            }
            self.settle(out);
        }
    }

    fn ask(&mut self, id: u64, question: Question) {
        let asked = match question {
            Question::QueueStatus { targets } => Asked::Queue(targets),
            Question::Abort { tasks } => Asked::Abort(self.books.open_tasks(tasks.as_deref())),
            Question::Purge { tasks } => Asked::Purge(self.books.ended_tasks(tasks.as_deref())),
            Question::Shutdown {
                targets,
                controller,
            } => {
                self.shutdown = controller.then_some(id).or(self.shutdown);
                Asked::Shutdown {
                    targets: targets.unwrap_or_else(|| self.books.engines().collect()),
                    controller,
                }
            }
            Question::Locate { file, line } => {
                let (inner, sender, stream) =
                    (Arc::clone(&self.inner), self.sender.clone(), self.stream);
                tokio::spawn(async move {
                    let place = inner.host.locate(&file, line);
                    let place = tokio::time::timeout(PLACE, place).await.ok().flatten();
                    let answer = Answer::Place(place);
                    // The session may have ended.
                    let _ = sender.send(Order::Answered { stream, id, answer });
                });
                return;
            }
        };
        let (connection, posts) = (self.connection.clone(), Arc::clone(&self.posts));
        let (sender, stream) = (self.sender.clone(), self.stream);
        tokio::spawn(async move {
            let answer = answer(connection, posts, asked).await;
            let _ = sender.send(Order::Answered { stream, id, answer });
        });
    }

    /// Does what the books say.
    fn settle(&mut self, out: Out) {
        let Out {
            files,
            posts,
            news,
            shown,
            places,
        } = out;
        for work in files {
            self.inner.sweeper.carry_out(work);
        }
        if !posts.is_empty() {
            self.posts.send(posts);
        }
        for shown in shown {
            self.show(shown);
        }
        if !news.is_empty() {
            self.tell(news);
        }
        for (task, file, line) in places {
            self.place(task, file, line);
        }
        self.pipe_out();
    }

    fn tell(&mut self, news: Vec<News>) {
        for news in frames(news) {
            let down = Down::Tasks(news);
            self.push(&down);
            if let Down::Tasks(told) = down {
                let mut out = Out::default();
                self.books.told(told, &mut out);
                for work in out.files {
                    self.inner.sweeper.carry_out(work);
                }
            }
        }
    }

    fn show(&mut self, shown: Shown) {
        let Shown {
            task,
            engine,
            output,
        } = shown;
        self.inner.host.show(engine, &output);
        // There is no way to pass on what isn't text.
        if let Output::Stream(stream) = output
            && let Some(pipe) = &mut self.pipe
        {
            pipe.offer(&Down::Output {
                task,
                engine,
                stderr: stream.name == StreamName::Stderr,
                text: stream.text,
            });
        }
    }

    /// Finds out what users know the place of a panic by. Many tasks panic at the same one.
    fn place(&mut self, task: u64, file: String, line: u32) {
        match self.places.get_mut(&(file.clone(), line)) {
            Some(At::Asked(tasks)) => return tasks.push(task),
            Some(At::Known(place)) => {
                let mut out = Out::default();
                self.books.on_place(task, place.clone(), &mut out);
                return self.settle(out);
            }
            None => {}
        }
        self.places
            .insert((file.clone(), line), At::Asked(vec![task]));
        let (inner, sender) = (Arc::clone(&self.inner), self.sender.clone());
        tokio::spawn(async move {
            let place = inner.host.locate(&file, line);
            let place = tokio::time::timeout(PLACE, place).await.ok().flatten();
            let _ = sender.send(Order::Place { file, line, place });
        });
    }

    fn push(&mut self, down: &Down) {
        if let Some(pipe) = &mut self.pipe {
            pipe.push(down);
        }
    }

    /// Sends what the program takes now.
    fn pipe_out(&mut self) {
        if let Some(pipe) = &mut self.pipe
            && let Err(error) = pipe.write()
        {
            // Its end is seen when it is read.
            tracing::debug!(%error, "a program doesn't listen any more");
        }
    }
}

/// Cuts news into what is told at once: so many, of so many bytes. An outcome that no frame can hold becomes a failure.
fn frames(news: Vec<News>) -> Vec<Vec<News>> {
    let mut frames: Vec<Vec<News>> = Vec::new();
    let mut bytes = 0;
    for mut news in news {
        let mut length = 0;
        if let News::Done(done) = &mut news {
            length = match &done.outcome {
                Outcome::Value(Piece::Inline(value)) => value.len(),
                Outcome::Value(_) => 0,
                Outcome::Failed(failure) => {
                    let frames: usize = failure.traceback.iter().map(String::len).sum();
                    failure.evalue.len() + frames
                }
            };
            if length > MOST - FRAME {
                done.outcome = Outcome::Failed(too_long(length));
                length = 0;
            }
        }
        bytes += length;
        match frames.last_mut() {
            Some(frame) if frame.len() < NEWS && bytes <= FRAME => frame.push(news),
            _ => {
                frames.push(vec![news]);
                bytes = length;
            }
        }
    }
    frames
}

/// Resolves when the stream wants to be attended to; never without one.
async fn ready(pipe: Option<&mut Pipe>) -> std::io::Result<()> {
    match pipe {
        Some(pipe) => pipe.ready().await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Done;

    #[test]
    fn news_are_cut_into_frames() {
        let done = |id, bytes: usize| {
            News::Done(Done {
                id,
                engine: None,
                submitted: 0.0,
                started: 0.0,
                completed: 0.0,
                outcome: Outcome::Value(Piece::Inline(vec![0; bytes])),
            })
        };
        let lengths = |news| frames(news).iter().map(Vec::len).collect::<Vec<_>>();
        assert_eq!(lengths(Vec::new()), [0; 0]);
        let small = (0..600).map(|id| done(id, 1)).collect();
        assert_eq!(lengths(small), [256, 256, 88]);
        let large = [1, FRAME / 2, FRAME / 2, 2 * FRAME, 1, 1];
        let large = (0..).zip(large).map(|(id, bytes)| done(id, bytes));
        assert_eq!(lengths(large.collect()), [2, 1, 1, 2]);
        // No frame can hold it.
        let [frame] = &frames(vec![done(1, MOST)])[..] else {
            panic!("several frames")
        };
        let News::Done(done) = &frame[0] else {
            panic!("{frame:?}")
        };
        assert!(
            matches!(&done.outcome, Outcome::Failed(failure) if failure.evalue.contains("--shm-size"))
        );
    }
}
