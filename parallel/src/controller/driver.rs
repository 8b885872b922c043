//! The task that owns a connection's sockets and its books.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use protocol::cluster::{ClientFile, EngineId};
use protocol::wire::Parts;
use protocol::{
    Contact, Message, RawJson, Received, Session, SocketId, SocketOptions, SocketType, Sockets,
    SocketsBuilder,
};
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout_at;

use super::connection::State;
use super::core::{Core, Entry};
use super::post::{Postbox, Posted, Posts};
use super::request::{Event, Listener, To};
use super::{Error, Lost};

const QUERY: SocketId = SocketId(0);
pub(super) const MUX: SocketId = SocketId(1);
pub(super) const TASK: SocketId = SocketId(2);
const CONTROL: SocketId = SocketId(3);
const BROADCAST: SocketId = SocketId(4);
const IOPUB: SocketId = SocketId(5);
const NEWS: SocketId = SocketId(6);
/// A socket's monitor has its number plus this.
const MONITOR: u16 = 16;
/// After how long a controller elsewhere counts as gone that says nothing, its machine perhaps with it. On this machine the system
/// tells at once.
const SILENCE: Duration = Duration::from_secs(6);
/// So many messages are handled before others have their turn.
const BURST: usize = 64;

impl To {
    /// The socket that leads there.
    pub(super) fn socket(self) -> SocketId {
        match self {
            Self::Hub => QUERY,
            Self::Engine(_) => MUX,
            Self::Control(_) => CONTROL,
            Self::AnyEngine => TASK,
        }
    }
}

/// What the owner of the sockets is asked to do.
pub(super) enum Command {
    /// Send requests.
    Submit {
        /// One each, in their order.
        entries: Vec<Entry>,
        /// One each.
        frames: Vec<(SocketId, Vec<Bytes>)>,
        listener: Listener,
    },
    /// Nobody waits for these any more.
    Forget(Vec<String>),
    /// Answers with a sender of requests in great numbers; what comes of them goes to the channel.
    Posts(
        mpsc::UnboundedSender<Posted>,
        oneshot::Sender<Posts>,
        mpsc::UnboundedSender<Command>,
    ),
    /// Such a sender is gone.
    EndPosts(String),
    /// End; answered when all that was to be sent is sent.
    Close(oneshot::Sender<()>),
}

/// Opens the sockets and shakes hands. Gives the parts of a connection whose task runs.
///
/// `host`: the controller's own sockets, if it is in this process. What is sent then doesn't go through ZeroMQ.
pub(super) async fn open(
    file: &ClientFile,
    session: &Session,
    host: Option<&Sockets>,
    patience: Duration,
) -> Result<(mpsc::UnboundedSender<Command>, watch::Receiver<State>), Error> {
    let deadline = tokio::time::Instant::now() + patience;
    let endpoint = file.endpoint(file.registration);
    let visit = host.and_then(|host| visit(file, session, host));
    let visits = visit.is_some();
    let (sockets, mut inbox, missing) = match visit {
        Some((sockets, inbox)) => (sockets, inbox, Vec::new()),
        None => {
            let (sockets, inbox) = connect(file, session)?;
            (sockets, inbox, doors(file).map(|(id, ..)| id).to_vec())
        }
    };
    let no_answer = || Error::NoAnswer {
        endpoint: endpoint.clone(),
        waited: patience,
    };
    let hands = shake_hands(&sockets, &mut inbox, missing, session, &endpoint);
    let core = timeout_at(deadline, hands)
        .await
        .map_err(|_| no_answer())?
        .and_then(|core| core.ok_or_else(no_answer))?;
    let state = watch::Sender::new(State {
        engines: Arc::new(core.engines().clone()),
        lost: None,
    });
    let (commands, receiver) = mpsc::unbounded_channel();
    let watched = state.subscribe();
    let driver = Driver {
        sockets,
        visits,
        session: session.clone(),
        core,
        postbox: Postbox::default(),
        state,
        endpoint,
    };
    tokio::spawn(driver.run(inbox, receiver));
    Ok((commands, watched))
}

type Line = (Sockets, mpsc::UnboundedReceiver<Received>);

/// The controller's sockets for clients.
fn doors(file: &ClientFile) -> [(SocketId, SocketType, String); 7] {
    [
        (QUERY, SocketType::DEALER, file.registration),
        (MUX, SocketType::DEALER, file.mux),
        (TASK, SocketType::DEALER, file.task),
        (CONTROL, SocketType::DEALER, file.control),
        (BROADCAST, SocketType::DEALER, file.broadcast),
        (IOPUB, SocketType::SUB, file.iopub),
        (NEWS, SocketType::SUB, file.notification),
    ]
    .map(|(socket, socket_type, port)| (socket, socket_type, file.endpoint(port)))
}

/// ipyparallel's hub knows a client by it.
fn identity(session: &Session) -> Bytes {
    Bytes::copy_from_slice(session.id().as_bytes())
}

/// Becomes a peer of a controller in this process. `None` if it is another one's file.
fn visit(file: &ClientFile, session: &Session, host: &Sockets) -> Option<Line> {
    let doors = doors(file).map(|(socket, _, endpoint)| (socket, endpoint));
    host.visit(identity(session), doors)
}

fn connect(file: &ClientFile, session: &Session) -> Result<Line, Error> {
    let options = || SocketOptions {
        identity: Some(identity(session)),
        heartbeat: file.interface.starts_with("tcp:").then_some(SILENCE),
        ..SocketOptions::default()
    };
    let mut builder = SocketsBuilder::new();
    for (socket, socket_type, endpoint) in doors(file) {
        builder = builder
            .monitor(socket, SocketId(socket.0 + MONITOR))
            .options(socket, options())
            .connect(socket, socket_type, endpoint);
    }
    Ok(builder.start()?)
}

/// Waits until the `missing` sockets are connected, and with that hear what will be said from then on; then asks which engines there are.
///
/// Gives nothing if the answer is that of an error, or the sockets have closed.
async fn shake_hands(
    sockets: &Sockets,
    inbox: &mut mpsc::UnboundedReceiver<Received>,
    mut missing: Vec<SocketId>,
    session: &Session,
    endpoint: &str,
) -> Result<Option<Core>, Error> {
    #[derive(Deserialize)]
    struct Reply {
        engines: BTreeMap<EngineId, String>,
    }

    let ask = || {
        let content = RawJson::empty_object();
        let request = session.raw_message("connection_request", content, None);
        sockets.send(QUERY, session.encode(&request));
    };
    let mut core = Core::default();
    let mut news = Vec::new();
    if missing.is_empty() {
        ask();
    }
    while let Some(Received { socket, frames }) = inbox.recv().await {
        if let Some(of) = socket.0.checked_sub(MONITOR) {
            match Contact::from_frames(&frames) {
                Some(Contact::Made) => {
                    let before = missing.len();
                    missing.retain(|socket| socket.0 != of);
                    if missing.is_empty() && before > 0 {
                        ask();
                    }
                }
                // The hub listens before the file is there; ipcontroller's schedulers may be later.
                Some(Contact::Refused | Contact::Lost) if of == QUERY.0 => {
                    return Err(Error::Nobody {
                        endpoint: endpoint.to_owned(),
                    });
                }
                _ => {}
            }
            continue;
        }
        match (socket, decode(session, frames)) {
            (QUERY, Some(reply)) => {
                let Reply { engines } = reply.parse().map_err(|source| Error::Answer {
                    msg_type: "connection_request".to_owned(),
                    source,
                })?;
                let engines = engines.into_iter();
                core.set_engines(engines.map(|(id, uuid)| (id, uuid.into())).collect());
                // What was said before the answer may be newer than it, or be in it.
                for message in &news {
                    core.on_news(message);
                }
                return Ok(Some(core));
            }
            (NEWS, Some(message)) => news.push(message),
            _ => {}
        }
    }
    Ok(None)
}

/// The message that `frames` are; what is none is dropped, and traced without what it says.
fn decode(session: &Session, frames: Vec<Bytes>) -> Option<Message> {
    session
        .decode(frames)
        .inspect_err(|error| tracing::warn!(%error, "a message is dropped"))
        .ok()
}

struct Driver {
    sockets: Sockets,
    /// Whether the controller is in this process. It has verified what engines said.
    visits: bool,
    session: Session,
    core: Core,
    postbox: Postbox,
    state: watch::Sender<State>,
    endpoint: String,
}

impl Driver {
    async fn run(
        mut self,
        mut inbox: mpsc::UnboundedReceiver<Received>,
        mut commands: mpsc::UnboundedReceiver<Command>,
    ) {
        let mut burst = Vec::with_capacity(BURST);
        let lost = loop {
            let deadline = self.core.deadline();
            let due = async {
                match deadline {
                    Some(deadline) => tokio::time::sleep_until(deadline.into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                count = inbox.recv_many(&mut burst, BURST) => {
                    let mut gone = count == 0;
                    for received in burst.drain(..) {
                        gone |= self.receive(received);
                    }
                    if gone {
                        break self.controller_gone();
                    }
                }
                command = commands.recv() => match command {
                    Some(Command::Submit { entries, frames, listener }) => {
                        let send = self.core.on_submit(entries, listener);
                        for ((socket, frames), send) in frames.into_iter().zip(send) {
                            if send {
                                self.sockets.send(socket, frames);
                            }
                        }
                    }
                    Some(Command::Forget(ids)) => self.core.forget(&ids),
                    Some(Command::Posts(to, answer, commands)) => {
                        let posts = Posts::new(self.session.clone(), self.sockets.clone(), commands);
                        self.postbox.add(posts.prefix().to_owned(), to);
                        // Whoever has stopped waiting has dropped it.
                        let _ = answer.send(posts);
                    }
                    Some(Command::EndPosts(prefix)) => self.postbox.remove(&prefix),
                    Some(Command::Close(done)) => {
                        self.end(&Lost::Closed, &mut commands);
                        self.sockets.close().await;
                        let _ = done.send(());
                        return;
                    }
                    None => break Lost::Closed,
                },
                () = due => self.core.on_time(Instant::now()),
            }
        };
        self.end(&lost, &mut commands);
    }

    fn controller_gone(&self) -> Lost {
        Lost::Controller {
            endpoint: self.endpoint.clone(),
            told: self.core.told(),
        }
    }

    /// Says whether the controller has gone.
    fn receive(&mut self, Received { socket, frames }: Received) -> bool {
        if socket.0 >= MONITOR {
            return Contact::from_frames(&frames) == Some(Contact::Lost);
        }
        if matches!(socket, MUX | TASK | IOPUB) && self.post(socket, &frames) {
            return false;
        }
        let Some(message) = decode(&self.session, frames) else {
            return false;
        };
        match socket {
            IOPUB => self.core.on_iopub(Instant::now(), &message),
            NEWS => {
                if self.core.on_news(&message) {
                    self.state.send_replace(State {
                        engines: Arc::new(self.core.engines().clone()),
                        lost: None,
                    });
                }
            }
            _ => self.core.on_reply(Instant::now(), message),
        }
        false
    }

    /// Passes on what belongs to a request of [`Posts`]; says whether it does.
    fn post(&self, socket: SocketId, frames: &[Bytes]) -> bool {
        let Ok(parts) = Parts::of(frames) else {
            return false;
        };
        let Some(addressed) = self.postbox.find(&parts) else {
            return false;
        };
        let verified = match self.visits {
            true => Ok(()),
            false => self.session.verify(frames),
        };
        match verified {
            Ok(()) if socket == IOPUB => addressed.broadcast(&parts, || Message::of(&parts).ok()),
            Ok(()) => addressed.reply(&parts),
            Err(error) => tracing::warn!(%error, "a message is dropped"),
        }
        true
    }

    /// Tells everyone who waits, also those whose requests have not been seen yet.
    fn end(&mut self, lost: &Lost, commands: &mut mpsc::UnboundedReceiver<Command>) {
        // Whoever hears of it finds the connection lost when he looks.
        self.state.send_replace(State {
            engines: Arc::default(),
            lost: Some(lost.clone()),
        });
        self.core.on_lost(lost);
        commands.close();
        while let Ok(command) = commands.try_recv() {
            if let Command::Submit {
                entries,
                mut listener,
                ..
            } = command
            {
                for index in 0..entries.len() {
                    listener(index, Event::Lost(lost.clone()));
                }
            }
        }
    }
}
