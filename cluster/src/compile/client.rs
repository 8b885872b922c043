//! An engine's connection to its cluster's compiler. A question is not left waiting for a process that has ended.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use protocol::{
    Contact, Key, RawJson, Received, Session, SocketId, SocketOptions, SocketType, Sockets,
    SocketsBuilder,
};
use serde::Serialize;
use serde_json::Value;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::Instant;

use super::{Aftermath, Artifact, Diagnostic, Ended, Request};
use crate::Error;
use crate::connection::Libraries;

const SERVICE: SocketId = SocketId(0);
/// What becomes of the connection to it.
const NEWS: SocketId = SocketId(1);
/// How often the service is asked whether it still knows what it was asked.
const ASK: Duration = Duration::from_secs(1);
/// How long it may say nothing at all: it answers such questions while it compiles.
const SILENCE: Duration = Duration::from_secs(20);
/// How long another service may take to come in the place of one that has ended.
const VACANCY: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// The snippet has errors.
    Diagnostics(Vec<Diagnostic>),
    /// The service is not there, or says what nobody understands.
    Gone(String),
}

/// A connection to the cluster's compiler. Clones share it; it closes with the last of them.
#[derive(Clone, Debug)]
pub struct Client {
    orders: mpsc::UnboundedSender<Order>,
    /// Told when somebody doesn't wait for an answer any more.
    withdrawn: Arc<Notify>,
}

/// Tells the connection when dropped.
struct Withdraw(Option<Arc<Notify>>);

impl Drop for Withdraw {
    fn drop(&mut self) {
        if let Some(withdrawn) = &self.0 {
            withdrawn.notify_one();
        }
    }
}

#[derive(Debug)]
struct Order {
    msg_type: &'static str,
    content: RawJson,
    answer: oneshot::Sender<Result<Value, Trouble>>,
    /// Takes what the service does until it answers.
    activity: mpsc::UnboundedSender<String>,
}

impl Client {
    /// Connects. That the service is not there yet is no error: questions wait for it a while.
    ///
    /// # Errors
    /// When there is no socket to be had.
    pub fn connect(endpoint: &str, key: &Key) -> Result<Self, Error> {
        let options = SocketOptions {
            // Whoever ends doesn't want an answer.
            linger: Duration::ZERO,
            ..SocketOptions::default()
        };
        let (sockets, inbox) = SocketsBuilder::new()
            .connect(SERVICE, SocketType::DEALER, endpoint)
            .options(SERVICE, options)
            .monitor(SERVICE, NEWS)
            .start()?;
        let (orders, received) = mpsc::unbounded_channel();
        let withdrawn = Arc::new(Notify::new());
        let task = Task {
            sockets,
            session: Session::new(key),
            pending: HashMap::new(),
            heard: Instant::now(),
            lost: None,
        };
        tokio::spawn(task.run(received, Arc::clone(&withdrawn), inbox));
        Ok(Self { orders, withdrawn })
    }

    /// Compiles a snippet; dropping the future cancels it. From the first second on, `tell` gets what the service is doing.
    ///
    /// # Errors
    /// Compile errors, or that nobody compiles.
    pub async fn compile(
        &self,
        request: &Request,
        tell: impl FnMut(String),
    ) -> Result<Artifact, Trouble> {
        let answer = self.ask("compile_request", request, tell).await?;
        understood(answer, "artifact")
    }

    /// What is true after a snippet that ended early.
    ///
    /// # Errors
    /// When nobody can tell.
    pub async fn after_early_end(&self, ended: &Ended) -> Result<Aftermath, Trouble> {
        let answer = self.ask("aftermath_request", ended, drop).await?;
        understood(answer, "aftermath")
    }

    /// What runtimes load first.
    ///
    /// # Errors
    /// When nobody can tell.
    pub async fn libraries(&self) -> Result<Libraries, Trouble> {
        let answer = self.ask("libraries_request", &Value::Null, drop).await?;
        understood(answer, "libraries")
    }

    async fn ask<T: Serialize>(
        &self,
        msg_type: &'static str,
        content: &T,
        mut tell: impl FnMut(String),
    ) -> Result<Value, Trouble> {
        let gone = |reason: &str| Trouble::Gone(reason.to_owned());
        let content = RawJson::from_value(content).map_err(|error| gone(&error.to_string()))?;
        // Dropped after the channel, so that it is seen to be closed.
        let mut withdraw = Withdraw(Some(Arc::clone(&self.withdrawn)));
        let (answer, mut answered) = oneshot::channel();
        let (activity, mut activities) = mpsc::unbounded_channel();
        let order = Order {
            msg_type,
            content,
            answer,
            activity,
        };
        self.orders
            .send(order)
            .map_err(|_| gone("the connection to it is closed"))?;
        loop {
            tokio::select! {
                answer = &mut answered => {
                    withdraw.0 = None;
                    return answer.unwrap_or_else(|_| Err(gone("the connection to it is closed")));
                }
                Some(activity) = activities.recv() => tell(activity),
            }
        }
    }
}

fn understood<T: serde::de::DeserializeOwned>(mut answer: Value, name: &str) -> Result<T, Trouble> {
    serde_json::from_value(answer[name].take())
        .map_err(|_| Trouble::Gone("its answer cannot be understood".to_owned()))
}

struct Task {
    sockets: Sockets,
    session: Session,
    /// Questions by the id of the message that asks them.
    pending: HashMap<String, Order>,
    heard: Instant,
    /// Since when there is no connection to a service that was there.
    lost: Option<Instant>,
}

impl Task {
    async fn run(
        mut self,
        mut orders: mpsc::UnboundedReceiver<Order>,
        withdrawn: Arc<Notify>,
        mut inbox: mpsc::UnboundedReceiver<Received>,
    ) {
        let mut ask = tokio::time::interval(ASK);
        ask.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                order = orders.recv() => match order {
                    Some(order) => {
                        if self.pending.is_empty() {
                            self.heard = Instant::now();
                            ask.reset();
                        }
                        self.send(order);
                    }
                    None => break,
                },
                Some(received) = inbox.recv() => match received.socket {
                    NEWS => self.on_news(&received),
                    _ => self.on_reply(received),
                },
                () = withdrawn.notified() => self.cancel_withdrawn(),
                _ = ask.tick(), if !self.pending.is_empty() => self.ask_again(),
            }
        }
    }

    fn on_news(&mut self, news: &Received) {
        match Contact::from_frames(&news.frames) {
            Some(Contact::Made) => self.lost = None,
            Some(Contact::Lost) => self.lost = self.lost.or(Some(Instant::now())),
            Some(Contact::Refused) | None => {}
        }
    }

    fn is_vacant(&self) -> bool {
        self.lost.is_some_and(|lost| lost.elapsed() >= VACANCY)
    }

    fn send(&mut self, order: Order) {
        if order.answer.is_closed() {
            return;
        }
        if self.is_vacant() {
            return give_up(order, "its process has ended".to_owned());
        }
        let message = self
            .session
            .raw_message(order.msg_type, order.content.clone(), None);
        let frames = self.session.encode(&message);
        self.pending.insert(message.header.msg_id, order);
        self.sockets.send(SERVICE, frames);
    }

    fn on_reply(&mut self, received: Received) {
        let message = match self.session.decode(received.frames) {
            Ok(message) => message,
            Err(error) => return tracing::warn!(%error, "a message is dropped"),
        };
        self.heard = Instant::now();
        let content: Value = message.parse().unwrap_or_default();
        if message.msg_type() == "known_reply" {
            let id = content["msg_id"].as_str().unwrap_or_default();
            // Another service has taken the place of the one that was asked.
            if content["known"] == false
                && let Some(order) = self.pending.remove(id)
            {
                self.send(order);
            } else if let Some(order) = self.pending.get(id)
                && let Some(activity) = content["activity"].as_str()
            {
                // Who asked may have been interrupted.
                let _ = order.activity.send(activity.to_owned());
            }
            return;
        }
        let Some(order) = message
            .parent
            .and_then(|parent| self.pending.remove(&parent.msg_id))
        else {
            return;
        };
        let answer = if content["status"] == "ok" {
            Ok(content)
        } else {
            understood(content, "diagnostics").and_then(|list| Err(Trouble::Diagnostics(list)))
        };
        // Who asked may have been interrupted.
        let _ = order.answer.send(answer);
    }

    fn cancel_withdrawn(&mut self) {
        let gone = self.pending.extract_if(|_, order| order.answer.is_closed());
        let gone: Vec<String> = gone.map(|(id, _)| id).collect();
        for id in gone {
            self.send_about("cancel_request", &id);
        }
    }

    fn send_about(&self, msg_type: &str, id: &str) {
        let content = serde_json::json!({ "msg_id": id });
        if let Ok(content) = RawJson::from_value(&content) {
            let message = self.session.raw_message(msg_type, content, None);
            self.sockets.send(SERVICE, self.session.encode(&message));
        }
    }

    fn ask_again(&mut self) {
        let reason = if self.is_vacant() {
            Some("its process has ended".to_owned())
        } else if self.heard.elapsed() > SILENCE {
            Some(format!("it has not answered for {} s", SILENCE.as_secs()))
        } else {
            None
        };
        if let Some(reason) = reason {
            for (_, order) in self.pending.drain() {
                give_up(order, reason.clone());
            }
            return;
        }
        for id in self.pending.keys() {
            self.send_about("known_request", id);
        }
    }
}

fn give_up(order: Order, reason: String) {
    // Who asked may have been interrupted.
    let _ = order.answer.send(Err(Trouble::Gone(reason)));
}
