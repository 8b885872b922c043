//! The controller's one task: sockets and the clock on this side, the core on the other.

use std::pin::pin;
use std::time::Instant;

use bytes::Bytes;
use protocol::{Received, SendError, Session, Sockets, Subscription};
use tokio::sync::mpsc;

use super::core::{Channel, Core, Event, Moment, Outcome, Saying};

/// How engines made here mark the beats that they send back.
pub(crate) const OURS: &[u8] = b"chorus";

struct Driver {
    sockets: Sockets,
    session: Session,
    core: Core,
    start: Instant,
    probed: mpsc::UnboundedSender<(String, bool)>,
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
    };
    let mut stop = pin!(stop);
    let mut told = false;
    loop {
        let deadline = driver.start + driver.core.deadline();
        let event = tokio::select! {
            received = inbox.recv() => match received {
                Some(received) => driver.event(received),
                None => break,
            },
            Some((uuid, sent)) = probes.recv() => Some(Event::Probed { uuid, sent }),
            () = tokio::time::sleep_until(deadline.into()) => Some(Event::Time),
            () = &mut stop, if !told => {
                told = true;
                Some(Event::Stop)
            }
        };
        if let Some(event) = event
            && driver.handle(event)
        {
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
    fn handle(&mut self, event: Event) -> bool {
        let now = self.now();
        let mut end = false;
        for outcome in self.core.on_event(now, event) {
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
                    let event = Event::Received {
                        channel: Channel::TaskClient,
                        frames: self.session.encode(&message),
                        message,
                    };
                    end |= self.handle(event);
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
