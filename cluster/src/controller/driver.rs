//! The controller's one task: sockets and the clock on this side, the core on the other.

use std::pin::pin;
use std::time::Instant;

use bytes::Bytes;
use protocol::{Received, SendError, Session, Sockets, Subscription};
use tokio::sync::mpsc;

use super::core::{Channel, Core, Event, Moment, Outcome, Saying};
use super::packet::Packet;

/// How many messages are taken at a time; the clock is looked at once for all of them.
const BATCH: usize = 256;

/// How engines made here mark the beats that they send back.
pub(crate) const OURS: &[u8] = b"chorus";

struct Driver {
    sockets: Sockets,
    session: Session,
    core: Core,
    start: Instant,
    probed: mpsc::UnboundedSender<(String, bool)>,
    /// Empty between events; kept for its memory.
    outcomes: Vec<Outcome>,
}

/// Runs the controller to its end.
pub(super) async fn drive(
    sockets: Sockets,
    mut inbox: mpsc::UnboundedReceiver<Received>,
    session: Session,
    core: Core,
    stop: impl Future<Output = ()>,
) {
    let (probed, mut probes) = mpsc::unbounded_channel();
    let mut driver = Driver {
        sockets,
        session,
        core,
        start: Instant::now(),
        probed,
        outcomes: Vec::new(),
    };
    let mut stop = pin!(stop);
    let mut told = false;
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let deadline = driver.start + driver.core.deadline();
        let event = tokio::select! {
            count = inbox.recv_many(&mut batch, BATCH) => match count {
                0 => break,
                _ => None,
            },
            Some((uuid, sent)) = probes.recv() => Some(Event::Probed { uuid, sent }),
            () = tokio::time::sleep_until(deadline.into()) => Some(Event::Time),
            () = &mut stop, if !told => {
                told = true;
                Some(Event::Stop)
            }
        };
        let now = driver.now();
        let mut end = event.is_some_and(|event| driver.handle(now, event));
        for received in batch.drain(..) {
            if let Some(event) = driver.event(received) {
                end |= driver.handle(now, event);
            }
        }
        if end {
            break;
        }
    }
    driver.sockets.close().await;
}

impl Driver {
    fn now(&self) -> Moment {
        Moment {
            elapsed: self.start.elapsed(),
            wall: jiff::Timestamp::now(),
        }
    }

    /// What arrived as an event; nothing if nobody should have sent it.
    fn event(&self, received: Received) -> Option<Event> {
        let channel = Channel::of(received.socket)?;
        match channel {
            Channel::Pong => match &received.frames[..] {
                [uuid, rest @ ..] => Some(Event::Beat {
                    uuid: uuid.clone(),
                    ours: rest.iter().any(|frame| frame == OURS),
                }),
                [] => None,
            },
            Channel::Notification => Subscription::from_frames(&received.frames)
                .filter(|subscription| subscription.subscribes)
                .map(|_| Event::Subscribed),
            Channel::IopubClient | Channel::Ping => None,
            Channel::TaskClient | Channel::TaskEngine => {
                match self.session.verify(&received.frames) {
                    Ok(()) => {
                        Packet::of(received.frames).map(|packet| Event::Passing { channel, packet })
                    }
                    Err(error) => {
                        tracing::warn!(?channel, %error, "a message is dropped");
                        None
                    }
                }
            }
            channel => match self.session.decode(received.frames.clone()) {
                Ok(message) => Some(Event::Received {
                    channel,
                    message: Box::new(message),
                    frames: received.frames,
                }),
                Err(error) => {
                    tracing::warn!(?channel, %error, "a message is dropped");
                    None
                }
            },
        }
    }

    /// Says whether this was the end.
    fn handle(&mut self, now: Moment, event: Event) -> bool {
        let mut end = false;
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.core.on_event(now, event, &mut outcomes);
        for outcome in outcomes.drain(..) {
            match outcome {
                Outcome::Forward { channel, frames } => {
                    self.sockets.send(channel.socket(), frames);
                }
                Outcome::Send { channel, message } => {
                    let frames = self.session.encode(&message);
                    self.sockets.send(channel.socket(), frames);
                }
                Outcome::Say(saying) => self.say(*saying),
                Outcome::Resubmit(message) => {
                    let channel = Channel::TaskClient;
                    if let Some(packet) = Packet::of(self.session.encode(&message)) {
                        end |= self.handle(now, Event::Passing { channel, packet });
                    }
                }
                Outcome::Beat => {
                    let beat = self.start.elapsed().as_secs_f64().to_string();
                    self.sockets
                        .send(Channel::Ping.socket(), vec![Bytes::from(beat)]);
                }
                Outcome::Heart { uuid, word } => {
                    let word = Bytes::from_static(word.as_str().as_bytes());
                    let frames = vec![Bytes::from(uuid.clone()), word];
                    let sent = self.sockets.deliver(Channel::Pong.socket(), frames);
                    let probed = self.probed.clone();
                    tokio::spawn(async move {
                        let reached = sent.await != Err(SendError::Unroutable);
                        // Nobody to tell is the controller's end.
                        let _ = probed.send((uuid, reached));
                    });
                }
                Outcome::Stop => end = true,
            }
        }
        self.outcomes = outcomes;
        end
    }

    fn say(&self, saying: Saying) {
        let message = self
            .session
            .raw_message(saying.msg_type, saying.content, saying.parent.as_ref())
            .with_identities(saying.identities)
            .with_metadata(saying.metadata)
            .with_buffers(saying.buffers);
        self.sockets
            .send(saying.channel.socket(), self.session.encode(&message));
    }
}
