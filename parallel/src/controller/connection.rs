//! The handle to a connection: what users and the kernel call.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use protocol::cluster::{ClientFile, EngineId};
use protocol::message::Reply;
use protocol::message::execute::{ExecuteOutcome, ExecuteReply, ExecuteRequest};
use protocol::{Content, Message, RawJson, Session, Sockets};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot, watch};

use super::core::Entry;
use super::driver::{self, Command};
use super::post::{Posted, Posts};
use super::request::{Ending, Event, Request, Said, To};
use super::{Error, Lost};

/// What is known of a cluster.
#[derive(Clone, Debug)]
pub struct State {
    /// The engines there are, by number, with their identities. None after a loss.
    pub engines: Arc<BTreeMap<EngineId, Arc<str>>>,
    /// Why there is no connection any more.
    pub lost: Option<Lost>,
}

/// A connection to a controller. Clones are handles to the same connection, which closes when the last of them is dropped.
#[derive(Clone)]
pub struct Connection {
    file: Arc<ClientFile>,
    session: Session,
    commands: mpsc::UnboundedSender<Command>,
    state: watch::Receiver<State>,
}

impl Connection {
    /// Connects by a client's connection file, within a tokio runtime.
    ///
    /// A stale file is recognised at once, since nobody listens where it says; `patience` is for controllers that do not answer.
    ///
    /// # Errors
    /// When the file cannot be used, nobody is there, or there is no answer in time.
    pub async fn open(path: &Path, patience: Duration) -> Result<Self, Error> {
        Self::with_file(ClientFile::read(path)?, patience).await
    }

    /// As [`Self::open`], to a controller whose sockets are this process's own: what is said between both goes from memory to memory.
    /// Where the file is another controller's this is an ordinary connection.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub async fn visit(path: &Path, host: &Sockets, patience: Duration) -> Result<Self, Error> {
        Self::make(ClientFile::read(path)?, Some(host), patience).await
    }

    /// As [`Self::open`], with the file's content.
    ///
    /// # Errors
    /// When nobody is there, or there is no answer in time.
    pub async fn with_file(file: ClientFile, patience: Duration) -> Result<Self, Error> {
        Self::make(file, None, patience).await
    }

    async fn make(
        file: ClientFile,
        host: Option<&Sockets>,
        patience: Duration,
    ) -> Result<Self, Error> {
        let session = Session::new(&file.common.key);
        let (commands, state) = driver::open(&file, &session, host, patience).await?;
        Ok(Self {
            file: Arc::new(file),
            session,
            commands,
            state,
        })
    }

    /// The connection file that it was made by.
    pub fn file(&self) -> &ClientFile {
        &self.file
    }

    /// What is known now.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// What is known, and its changes.
    pub fn watch(&self) -> watch::Receiver<State> {
        self.state.clone()
    }

    /// The engines there are, ascending.
    pub fn ids(&self) -> Vec<EngineId> {
        self.state.borrow().engines.keys().copied().collect()
    }

    /// Why this connection is over, if it is.
    pub fn lost(&self) -> Option<Lost> {
        self.state.borrow().lost.clone()
    }

    /// Resolves when this connection is over.
    pub async fn ended(&self) -> Lost {
        let mut state = self.state.clone();
        let ended = state.wait_for(|state| state.lost.is_some()).await;
        let lost = ended.ok().and_then(|state| state.lost.clone());
        lost.unwrap_or(Lost::Closed)
    }

    /// Resolves when there are at least `count` engines.
    ///
    /// # Errors
    /// When the connection ends before.
    pub async fn wait_for_engines(&self, count: usize) -> Result<Vec<EngineId>, Lost> {
        let mut state = self.state.clone();
        let enough = |state: &State| state.lost.is_some() || state.engines.len() >= count;
        match state.wait_for(enough).await {
            Ok(state) => match &state.lost {
                Some(lost) => Err(lost.clone()),
                None => Ok(state.engines.keys().copied().collect()),
            },
            Err(_) => Err(Lost::Closed),
        }
    }

    /// Sends requests, all or none; gives their message ids. `listener` is told what comes of them until each has ended, see
    /// [`super::Listener`].
    ///
    /// # Errors
    /// When an engine is not there, or the connection is over.
    pub fn submit(
        &self,
        requests: Vec<Request>,
        listener: impl FnMut(usize, Event) + Send + 'static,
    ) -> Result<Vec<String>, Error> {
        let (mut entries, mut frames, mut ids) = (Vec::new(), Vec::new(), Vec::new());
        let engines = {
            let state = self.state.borrow();
            if let Some(lost) = &state.lost {
                return Err(lost.clone().into());
            }
            Arc::clone(&state.engines)
        };
        for request in requests {
            let engine = match request.to.engine() {
                None => None,
                Some(id) => match engines.get(&id) {
                    Some(uuid) => Some((id, Arc::clone(uuid))),
                    None => return Err(no_engine(id, &engines)),
                },
            };
            let message = self
                .session
                .raw_message(request.msg_type, request.content, None)
                .with_identities(
                    engine
                        .iter()
                        .map(|(_, uuid)| Bytes::copy_from_slice(uuid.as_bytes()))
                        .collect(),
                )
                .with_metadata(request.metadata)
                .with_buffers(request.buffers);
            frames.push((request.to.socket(), self.session.encode(&message)));
            ids.push(message.header.msg_id.clone());
            entries.push(Entry {
                id: message.header.msg_id,
                engine,
                output: request.output,
            });
        }
        let command = Command::Submit {
            entries,
            frames,
            listener: Box::new(listener),
        };
        match self.commands.send(command) {
            Ok(()) => Ok(ids),
            Err(_) => Err(self.lost().unwrap_or(Lost::Closed).into()),
        }
    }

    /// A way to send requests in great numbers, whose outcomes come by the channel; see [`Posts`].
    ///
    /// # Errors
    /// When the connection is over.
    pub async fn posts(&self) -> Result<(Posts, mpsc::UnboundedReceiver<Posted>), Error> {
        let (to, heard) = mpsc::unbounded_channel();
        let (answer, made) = oneshot::channel();
        // Answered when replies would be heard.
        let _ = self
            .commands
            .send(Command::Posts(to, answer, self.commands.clone()));
        match made.await {
            Ok(posts) => Ok((posts, heard)),
            Err(_) => Err(self.lost().unwrap_or(Lost::Closed).into()),
        }
    }

    /// Sends one request and waits for its reply, which may tell of an error. Whoever drops the future is not waiting any more.
    ///
    /// # Errors
    /// When the engine is not there, or there will be no reply.
    pub async fn ask(&self, request: Request) -> Result<Message, Error> {
        let (sender, answer) = oneshot::channel();
        let mut sender = Some(sender);
        let ids = self.submit(vec![request], move |_, event| {
            let outcome = match event {
                Event::Output(_) => return,
                Event::Reply(reply) => Ok(*reply),
                Event::Lost(lost) => Err(lost),
            };
            if let Some(sender) = sender.take() {
                // Who has stopped waiting is no failure.
                let _ = sender.send(outcome);
            }
        })?;
        let _waiting = Waiting {
            ids,
            commands: &self.commands,
        };
        Ok(answer.await.unwrap_or(Err(Lost::Closed))?)
    }

    /// Has engines run code. `listener` hears what each says; the last is a [`Said::Ended`]. Gives the message ids, one a target.
    ///
    /// A failure does not keep engines from running what they are given later.
    ///
    /// # Errors
    /// When an engine is not there, or the connection is over; then none runs it.
    pub fn execute(
        &self,
        targets: &[EngineId],
        code: &str,
        silent: bool,
        mut listener: impl FnMut(EngineId, Said) + Send + 'static,
    ) -> Result<Vec<String>, Error> {
        let content = rendered(&ExecuteRequest {
            silent,
            store_history: !silent,
            // Nobody is asked, and each snippet stands for itself.
            allow_stdin: false,
            stop_on_error: false,
            ..ExecuteRequest::new(code)
        });
        let requests = targets
            .iter()
            .map(|id| Request {
                output: true,
                ..Request::new(To::Engine(*id), ExecuteRequest::TYPE, content.clone())
            })
            .collect();
        let engines = targets.to_vec();
        self.submit(requests, move |index, event| {
            let Some(engine) = engines.get(index) else {
                return;
            };
            if let Event::Reply(reply) = &event
                && let Some(lineage) = reply.metadata.get("lineage").and_then(Value::as_str)
            {
                listener(*engine, Said::Lineage(lineage.to_owned()));
            }
            listener(*engine, said(event));
        })
    }

    /// As [`Self::execute`], with a channel for what engines say. It closes when all have ended.
    ///
    /// # Errors
    /// As [`Self::execute`].
    #[expect(
        clippy::type_complexity,
        reason = "ids, and a channel of pairs: a name would hide more than it tells"
    )]
    pub fn run(
        &self,
        targets: &[EngineId],
        code: &str,
        silent: bool,
    ) -> Result<(Vec<String>, mpsc::UnboundedReceiver<(EngineId, Said)>), Error> {
        let (sender, receiver) = mpsc::unbounded_channel();
        let ids = self.execute(targets, code, silent, move |engine, said| {
            // Who does not listen does not want to know.
            let _ = sender.send((engine, said));
        })?;
        Ok((ids, receiver))
    }

    /// Sends engines a request past everything that waits there, and gives the content of each one's reply.
    ///
    /// # Errors
    /// The first error, once all have answered; at once when an engine is not there.
    pub async fn control<C: Serialize + ?Sized>(
        &self,
        targets: &[EngineId],
        msg_type: &str,
        content: &C,
    ) -> Result<Vec<Value>, Error> {
        let content = rendered(content);
        let requests = targets
            .iter()
            .map(|id| Request::new(To::Control(*id), msg_type, content.clone()))
            .collect();
        let (sender, mut answers) = mpsc::unbounded_channel();
        let ids = self.submit(requests, move |index, event| {
            let _ = sender.send((index, event));
        })?;
        let _waiting = Waiting {
            ids,
            commands: &self.commands,
        };
        let mut contents = vec![Value::Null; targets.len()];
        let mut failed = None;
        while let Some((index, event)) = answers.recv().await {
            let outcome = match event {
                Event::Output(_) => continue,
                Event::Reply(reply) => content_of(&reply, msg_type),
                Event::Lost(lost) => Err(lost.into()),
            };
            match (outcome, contents.get_mut(index)) {
                (Ok(content), Some(place)) => *place = content,
                (Err(error), _) => failed = failed.or(Some(error)),
                _ => {}
            }
        }
        match failed {
            Some(error) => Err(error),
            None => Ok(contents),
        }
    }

    /// Sends what runs on engines a signal. Engines of Rust take SIGINT only, which is 2.
    ///
    /// # Errors
    /// As [`Self::control`].
    pub async fn signal(&self, targets: &[EngineId], signal: i32) -> Result<(), Error> {
        let content = json!({"sig": signal});
        self.control(targets, "signal_request", &content).await?;
        Ok(())
    }

    /// Takes requests out of engines' queues; what runs already is left alone.
    ///
    /// # Errors
    /// As [`Self::control`].
    pub async fn abort(&self, targets: &[EngineId], msg_ids: &[String]) -> Result<(), Error> {
        let content = json!({"msg_ids": msg_ids});
        self.control(targets, "abort_request", &content).await?;
        Ok(())
    }

    /// Asks the hub. Gives its reply, with buffers where there are some.
    ///
    /// # Errors
    /// When it refuses, or the connection ends before it answers.
    pub async fn hub<C: Serialize + ?Sized>(
        &self,
        msg_type: &str,
        content: &C,
    ) -> Result<Message, Error> {
        self.answer(To::Hub, msg_type, content).await
    }

    /// Asks the scheduler of load-balanced tasks, after all tasks that were sent before. Gives its reply.
    ///
    /// # Errors
    /// As [`Self::hub`].
    pub async fn scheduler<C: Serialize + ?Sized>(
        &self,
        msg_type: &str,
        content: &C,
    ) -> Result<Message, Error> {
        self.answer(To::AnyEngine, msg_type, content).await
    }

    /// The reply to a question, unless it is a refusal.
    async fn answer<C: Serialize + ?Sized>(
        &self,
        to: To,
        msg_type: &str,
        content: &C,
    ) -> Result<Message, Error> {
        let request = Request::new(to, msg_type, rendered(content));
        let reply = self.ask(request).await?;
        content_of(&reply, msg_type)?;
        Ok(reply)
    }

    /// How much engines have to do: by number an object with `queue`, `tasks` and `completed`, and `unassigned`. All engines if `targets`
    /// is empty; ids of messages in place of their numbers if `verbose`.
    ///
    /// # Errors
    /// As [`Self::hub`].
    pub async fn queue_status(&self, targets: &[EngineId], verbose: bool) -> Result<Value, Error> {
        let targets = (!targets.is_empty()).then_some(targets);
        let content = json!({"targets": targets, "verbose": verbose});
        let reply = self.hub("queue_request", &content).await?;
        content_of(&reply, "queue_request")
    }

    /// The results that the hub keeps of these requests: `pending` and `completed`, and what is known of each that is completed, unless
    /// only the status is wanted. The results' buffers are the reply's, in the order of the sorted ids.
    ///
    /// # Errors
    /// As [`Self::hub`].
    pub async fn results(&self, msg_ids: &[String], status_only: bool) -> Result<Message, Error> {
        let content = json!({"msg_ids": msg_ids, "status_only": status_only});
        self.hub("result_request", &content).await
    }

    /// Has the hub forget the results of these requests; all that are finished if `msg_ids` is `None`.
    ///
    /// # Errors
    /// As [`Self::hub`].
    pub async fn purge(&self, msg_ids: Option<&[String]>) -> Result<(), Error> {
        let content = match msg_ids {
            Some(ids) => json!({"msg_ids": ids, "engine_ids": []}),
            None => json!({"msg_ids": "all", "engine_ids": []}),
        };
        self.hub("purge_request", &content).await?;
        Ok(())
    }

    /// Ends the cluster: the engines and the controller. Resolves when the controller has said that it does.
    ///
    /// # Errors
    /// As [`Self::hub`].
    pub async fn shutdown(&self) -> Result<(), Error> {
        match self.hub("shutdown_request", &json!({})).await {
            // Its last words may be lost, but it has gone.
            Ok(_) | Err(Error::Lost(Lost::Controller { .. })) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Closes the connection for all handles, once what was to be sent is sent.
    pub async fn close(self) {
        let (done, closed) = oneshot::channel();
        if self.commands.send(Command::Close(done)).is_ok() {
            let _ = closed.await;
        }
    }
}

/// Requests whose replies are of no interest once this is dropped.
struct Waiting<'a> {
    ids: Vec<String>,
    commands: &'a mpsc::UnboundedSender<Command>,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // The task that ended has forgotten everything.
        let _ = self
            .commands
            .send(Command::Forget(std::mem::take(&mut self.ids)));
    }
}

fn rendered<C: Serialize + ?Sized>(content: &C) -> RawJson {
    RawJson::from_value(content).unwrap_or_else(|error| {
        tracing::error!(%error, "failed to render a request's content");
        RawJson::empty_object()
    })
}

fn no_engine(id: EngineId, engines: &BTreeMap<EngineId, Arc<str>>) -> Error {
    let known: Vec<String> = engines.keys().map(ToString::to_string).collect();
    Error::NoEngine {
        id,
        known: match known.is_empty() {
            true => "none".to_owned(),
            false => known.join(", "),
        },
    }
}

/// A reply's content; an error if it tells of one.
fn content_of(reply: &Message, msg_type: &str) -> Result<Value, Error> {
    let content: Value = reply.parse().map_err(|source| Error::Answer {
        msg_type: msg_type.to_owned(),
        source,
    })?;
    if content["status"] == "error" {
        let text = |name: &str| content[name].as_str().unwrap_or_default().to_owned();
        return Err(Error::Refused {
            ename: text("ename"),
            evalue: text("evalue"),
        });
    }
    Ok(content)
}

fn said(event: Event) -> Said {
    Said::Ended(match event {
        Event::Output(output) => return Said::Output(output),
        Event::Lost(lost) => Ending::Lost(lost),
        Event::Reply(reply) => match reply.parse() {
            Ok(ExecuteReply { outcome, .. }) => ending(outcome),
            // Python's replies of aborted requests have less than the protocol asks for.
            Err(error) => {
                tracing::debug!(%error, "a reply is read by its status only");
                let status: Value = reply.parse().unwrap_or_default();
                match status["status"].as_str() {
                    Some("ok") => Ending::Done,
                    Some("aborted") => Ending::Aborted,
                    _ => Ending::Failed(reply.parse().unwrap_or_default()),
                }
            }
        },
    })
}

fn ending(outcome: Reply<ExecuteOutcome>) -> Ending {
    match outcome {
        Reply::Ok(_) => Ending::Done,
        Reply::Error(error) => Ending::Failed(error),
        Reply::Aborted => Ending::Aborted,
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("file", &self.file)
            .field("state", &*self.state.borrow())
            .finish_non_exhaustive()
    }
}
