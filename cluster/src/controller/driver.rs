//! The controller at work, in the task that owns its sockets: they and the clock on this side, the core on the other.

use std::ops::ControlFlow;
use std::time::Instant;

use bytes::Bytes;
use protocol::{OpenSockets, Outlet, Received, SendError, Service, Session, Sockets, Subscription};

use super::core::{Channel, Core, Event, Moment, Outcome, Saying};
use super::packet::Packet;
use crate::Error;

/// How engines made here mark the beats that they send back.
pub(crate) const OURS: &[u8] = b"chorus";

struct Driver {
    session: Session,
    core: Core,
    start: Instant,
    told: bool,
    /// Empty between events; kept for its memory.
    outcomes: Vec<Outcome>,
}

/// Runs the controller to its end. `started` is given its sockets when they are served.
///
/// # Errors
/// The system does not watch the sockets.
pub(super) async fn drive(
    sockets: OpenSockets,
    session: Session,
    core: Core,
    started: impl FnOnce(&Sockets),
    stop: impl Future<Output = ()>,
) -> Result<(), Error> {
    let sockets = sockets.serve(Driver {
        session,
        core,
        start: Instant::now(),
        told: false,
        outcomes: Vec::new(),
    })?;
    started(&sockets);
    tokio::select! {
        () = sockets.ended() => {}
        () = stop => {}
    }
    sockets.close().await;
    Ok(())
}

impl Service for Driver {
    fn on_message(&mut self, received: Received, outlet: &mut Outlet<'_>) -> ControlFlow<()> {
        match self.event(received) {
            Some(event) => self.handle(self.now(), event, outlet),
            None => ControlFlow::Continue(()),
        }
    }

    fn deadline(&self) -> Option<Instant> {
        Some(self.start + self.core.deadline())
    }

    fn on_time(&mut self, outlet: &mut Outlet<'_>) -> ControlFlow<()> {
        self.handle(self.now(), Event::Time, outlet)
    }

    fn on_close(&mut self, outlet: &mut Outlet<'_>) -> ControlFlow<()> {
        if std::mem::replace(&mut self.told, true) {
            return ControlFlow::Continue(());
        }
        self.handle(self.now(), Event::Stop, outlet)
    }
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

    /// Breaks at the end.
    fn handle(&mut self, now: Moment, event: Event, outlet: &mut Outlet<'_>) -> ControlFlow<()> {
        let mut end = false;
        let mut outcomes = std::mem::take(&mut self.outcomes);
        self.core.on_event(now, event, &mut outcomes);
        for outcome in outcomes.drain(..) {
            match outcome {
                Outcome::Forward { channel, frames } => outlet.send(channel.socket(), frames),
                Outcome::Send { channel, message } => {
                    outlet.send(channel.socket(), self.session.encode(&message));
                }
                Outcome::Say(saying) => self.say(*saying, outlet),
                Outcome::Resubmit(message) => {
                    let channel = Channel::TaskClient;
                    if let Some(packet) = Packet::of(self.session.encode(&message)) {
                        let event = Event::Passing { channel, packet };
                        end |= self.handle(now, event, outlet).is_break();
                    }
                }
                Outcome::Beat => {
                    let beat = self.start.elapsed().as_secs_f64().to_string();
                    outlet.send(Channel::Ping.socket(), vec![Bytes::from(beat)]);
                }
                Outcome::Heart { uuid, word } => {
                    let word = Bytes::from_static(word.as_str().as_bytes());
                    let frames = vec![Bytes::from(uuid.clone()), word];
                    let sent = outlet.deliver(Channel::Pong.socket(), frames);
                    let sent = sent != Err(SendError::Unroutable);
                    let event = Event::Probed { uuid, sent };
                    end |= self.handle(now, event, outlet).is_break();
                }
                Outcome::Stop => end = true,
            }
        }
        self.outcomes = outcomes;
        match end {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        }
    }

    fn say(&self, saying: Saying, outlet: &mut Outlet<'_>) {
        let message = self
            .session
            .raw_message(saying.msg_type, saying.content, saying.parent.as_ref())
            .with_identities(saying.identities)
            .with_metadata(saying.metadata)
            .with_buffers(saying.buffers);
        outlet.send(saying.channel.socket(), self.session.encode(&message));
    }
}
