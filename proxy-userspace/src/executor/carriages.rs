//! TCP connections whose bytes other tasks carry: who asked for one, and what became of those that were begun.
//!
//! A task holds the one end of a channel and this the other: whoever lets go of theirs has the other know.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use proxy_protocol::stream_url::StreamKey;
use tokio::sync::oneshot;

use crate::{
    net::join::Traffic,
    origin::OriginId,
    proxy::Carried,
    session::{
        SessionId, SessionOffer,
        tcp::{ConnectionId, TcpRefusal},
    },
};

/// A task's leave to carry a connection.
#[derive(Debug)]
pub struct Carriage {
    /// Where to connect to.
    pub endpoint: SocketAddr,
    /// Whose that is.
    pub origin: OriginId,
    /// The stream, if it is known.
    pub stream: Option<StreamKey>,
    /// Resolves when the session ends; the connection is to be closed then.
    pub ended: oneshot::Receiver<()>,
}

/// Who waits for leave.
#[derive(Debug)]
pub struct CarriageRequest {
    /// What the connection carries.
    pub traffic: Arc<Traffic>,
    /// Where the answer goes.
    pub reply: oneshot::Sender<Result<Carriage, TcpRefusal>>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Carriages {
    asked: HashMap<ConnectionId, CarriageRequest>,
    begun: HashMap<ConnectionId, Begun>,
}

#[derive(Debug)]
struct Begun {
    session: SessionId,
    traffic: Arc<Traffic>,
    /// Bytes of the client at the last look.
    seen: u64,
    /// The task has it end when this is dropped.
    held: oneshot::Sender<()>,
}

impl Carriages {
    pub(super) fn ask(&mut self, connection: ConnectionId, request: CarriageRequest) {
        self.asked.insert(connection, request);
    }

    pub(super) fn begin(
        &mut self,
        session: SessionId,
        connection: ConnectionId,
        endpoint: SocketAddr,
        offer: &SessionOffer,
    ) {
        let Some(CarriageRequest { traffic, reply }) = self.asked.remove(&connection) else { return };
        let (held, ended) = oneshot::channel();
        let (origin, stream) = (offer.origin.id.clone(), offer.stream.clone());
        // A task that is gone is noticed at the next look.
        let _gone = reply.send(Ok(Carriage { endpoint, origin, stream, ended }));
        self.begun.insert(connection, Begun { session, traffic, seen: 0, held });
    }

    pub(super) fn refuse(&mut self, connection: ConnectionId, reason: TcpRefusal) {
        if let Some(request) = self.asked.remove(&connection) {
            // A task that is gone need not be told.
            let _gone = request.reply.send(Err(reason));
        }
    }

    pub(super) fn end(&mut self, connection: ConnectionId) {
        self.begun.remove(&connection);
    }

    /// What happened since the last look; what ended is forgotten.
    pub(super) fn look(&mut self) -> Vec<(SessionId, ConnectionId, Carried)> {
        let mut looks = Vec::new();
        self.begun.retain(|connection, begun| {
            let sent = begun.traffic.to_origin();
            if begun.held.is_closed() {
                looks.push((begun.session, *connection, Carried::Ended));
                return false;
            }
            if sent != begun.seen {
                begun.seen = sent;
                looks.push((begun.session, *connection, Carried::Bytes));
            }
            true
        });
        looks
    }
}
