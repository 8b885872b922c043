//! The way out: replies on a socket, broadcasts on iopub.

use protocol::message::iopub::{ExecutionState, IopubWelcome, Status};
use protocol::{Content, Header, Message, Session, SocketId, Sockets};

/// The kernel's sockets.
pub(crate) const SHELL: SocketId = SocketId(0);
pub(crate) const CONTROL: SocketId = SocketId(1);
pub(crate) const IOPUB: SocketId = SocketId(2);
pub(crate) const STDIN: SocketId = SocketId(3);

/// Signs and sends. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Outlet {
    session: Session,
    sockets: Sockets,
}

impl Outlet {
    pub(crate) fn new(session: Session, sockets: Sockets) -> Outlet {
        Outlet { session, sockets }
    }

    /// Broadcasts on iopub. `parent` is the request that caused it.
    pub(crate) fn publish<C: Content>(&self, parent: Option<&Header>, content: &C) {
        let message = self
            .session
            .message(content, parent)
            .with_identities(vec![C::TYPE.as_bytes().into()]);
        self.sockets.send(IOPUB, self.session.encode(&message));
    }

    pub(crate) fn status(&self, parent: Option<&Header>, execution_state: ExecutionState) {
        self.publish(parent, &Status { execution_state });
    }

    /// Tells a new subscriber that its subscription has arrived, under the topic that it subscribed to.
    pub(crate) fn welcome(&self, content: &IopubWelcome) {
        let message = self
            .session
            .message(content, None)
            .with_identities(vec![content.subscription.clone().into()]);
        self.sockets.send(IOPUB, self.session.encode(&message));
    }

    /// Answers `request` on the socket it came from.
    pub(crate) fn reply<C: Content>(&self, socket: SocketId, request: &Message, content: &C) {
        self.reply_as(C::TYPE, socket, request, content);
    }

    /// Answers with a content of another type than its own: an error in place of what was asked for.
    pub(crate) fn reply_as<C: Content>(
        &self,
        msg_type: &str,
        socket: SocketId,
        request: &Message,
        content: &C,
    ) {
        let mut message = self
            .session
            .message(content, Some(&request.header))
            .with_identities(request.identities.clone());
        message.header.msg_type = msg_type.to_owned();
        self.sockets.send(socket, self.session.encode(&message));
    }

    /// Asks a client something on stdin; gives the message's id, which is the parent of the answer.
    pub(crate) fn ask<C: Content>(&self, request: &Message, content: &C) -> String {
        let message = self
            .session
            .message(content, Some(&request.header))
            .with_identities(request.identities.clone());
        let id = message.header.msg_id.clone();
        self.sockets.send(STDIN, self.session.encode(&message));
        id
    }
}
