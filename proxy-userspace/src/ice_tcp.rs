//! WebRTC media over TCP (RFC 6544, RFC 4571): a client connects, and its first frame, a STUN request, says which session the
//! connection is for.
//!
//! Nothing is done for a stranger: until the request has verified with the session's password, a connection is a descriptor
//! and a deadline. Then the session's origin is connected, gets the frame as it came, and from then on the two connections are
//! one. Frames end where both peers say, so nobody looks at them here.
//!
//! Clients come to a port of its own, or to that of the API, where the first bytes tell frames from requests.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use proxy_protocol::{
    rfc4571::{self, Beginning},
    stun::Message,
};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, timeout_at},
};
use tracing::{Instrument as _, debug};

pub use self::outcome::{Outcome, Outcomes};
use crate::{
    config::TcpJoin,
    connections::{Connection, Connections, Protocol},
    control::Control,
    datapath::userspace::{Gate, Stranger},
    executor::Carriage,
    live::Sorted,
    net::{
        join::{self, Carries, Unsent},
        tcp::{Acceptor, Dialer, Slot, Slots, receive, stopped},
    },
    roaming::Roaming,
    session::{
        SessionId,
        tcp::{ConnectionId, TcpPath},
    },
};

mod outcome;

/// Connections whose first frame is awaited, at once on the port; more wait in the backlog.
pub const MAX_STRANGERS: usize = 8192;
/// Connections of sessions at once.
const MAX_CARRIED: usize = 65_536;
/// The longest first frame. A request has about a hundred bytes beside its USERNAME, which has at most 513.
const FIRST_FRAME: usize = 2048;

/// How long peers may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// A client to send its first frame.
    pub first_frame: Duration,
    /// An origin to be connected to.
    pub dial: Duration,
}

/// What every connection needs.
#[derive(Clone, Debug)]
pub struct IceTcp {
    gate: Gate,
    roaming: Option<Arc<Roaming>>,
    control: Control,
    connections: Arc<Connections>,
    dialer: Arc<Dialer>,
    join: TcpJoin,
    deadlines: Deadlines,
    carried: Slots,
    outcomes: Arc<Outcomes>,
}

impl IceTcp {
    /// Carries connections of the sessions that `gate` knows and `control` has.
    pub fn new(
        gate: Gate,
        control: Control,
        connections: Arc<Connections>,
        dialer: Arc<Dialer>,
        join: TcpJoin,
        deadlines: Deadlines,
    ) -> Self {
        let (carried, outcomes) = (Slots::new(MAX_CARRIED), Arc::default());
        Self { gate, roaming: None, control, connections, dialer, join, deadlines, carried, outcomes }
    }

    /// Asks `roaming` about requests of unknown users.
    #[must_use]
    pub fn with_roaming(self, roaming: Option<Arc<Roaming>>) -> Self {
        Self { roaming, ..self }
    }

    /// What became of connections so far.
    pub fn outcomes(&self) -> Arc<Outcomes> {
        Arc::clone(&self.outcomes)
    }

    /// Serves what one listener accepts until accepting is to end; what was accepted goes on.
    pub async fn accept(self, mut acceptor: Acceptor) {
        while let Some((stream, slot)) = acceptor.next().await {
            self.begin(stream, BytesMut::new(), slot);
        }
    }

    /// Serves a connection if it begins with a frame; one to a port that HTTP has too.
    pub async fn sort(&self, stream: TcpStream, slot: Slot, stop: watch::Receiver<bool>) -> Sorted {
        let deadline = Instant::now() + self.deadlines.first_frame;
        let mut read = BytesMut::new();
        loop {
            match rfc4571::beginning(&read, FIRST_FRAME) {
                Beginning::Undecided => {}
                Beginning::Other => return Sorted::Other(stream, read.freeze(), slot),
                Beginning::Frames => {
                    self.begin(stream, read, slot);
                    return Sorted::Taken;
                }
            }
            tokio::select! {
                received = timeout_at(deadline, receive(&stream, &mut read)) => {
                    if !matches!(received, Ok(Ok(()))) {
                        return Sorted::Taken;
                    }
                }
                // The ordinary server knows how to end.
                () = stopped(stop.clone()) => return Sorted::Other(stream, read.freeze(), slot),
            }
        }
    }

    fn begin(&self, stream: TcpStream, read: BytesMut, stranger: Slot) {
        let Ok(peer) = stream.peer_addr() else { return };
        let ice = self.clone();
        self.connections.spawn(Protocol::Webrtc, peer, |connection| {
            let span = tracing::info_span!("webrtc_tcp", id = connection.id(), client = %peer);
            let serve = async move {
                let served = ice.serve(stream, peer, read, stranger, &connection).await;
                let outcome = served.unwrap_or_else(|why_not| why_not);
                ice.outcomes.count(outcome);
                debug!(outcome = outcome.as_str(), "connection ended");
            };
            serve.instrument(span)
        });
    }

    async fn serve(
        &self,
        client: TcpStream,
        peer: SocketAddr,
        mut read: BytesMut,
        stranger: Slot,
        connection: &Connection,
    ) -> Result<Outcome, Outcome> {
        let session = self.read_request(&client, peer, &mut read).await?;
        let _carried = self.carried.try_take().ok_or(Outcome::NoRoom)?;
        drop(stranger);
        let path = TcpPath { connection: ConnectionId(connection.id()), client: peer };
        let carriage = self.control.carry(session, path, Arc::clone(connection.traffic())).await?;
        connection.place(carriage.stream.as_ref(), &carriage.origin);
        let Carriage { endpoint, ended, .. } = carriage;
        tokio::select! {
            carried = self.carry(client, endpoint, read.freeze(), connection) => carried,
            _ = ended => Ok(Outcome::SessionEnded),
        }
    }

    /// The session whose request a connection begins with; the request stays in `read`.
    async fn read_request(
        &self,
        client: &TcpStream,
        peer: SocketAddr,
        read: &mut BytesMut,
    ) -> Result<SessionId, Outcome> {
        let deadline = Instant::now() + self.deadlines.first_frame;
        loop {
            if let Some((request, _)) = rfc4571::first_request(read, FIRST_FRAME)? {
                return Ok(self.session_of(peer, &request).await?);
            }
            let received = timeout_at(deadline, receive(client, read)).await;
            received.map_err(|_| Outcome::Late)?.map_err(|_| Outcome::Left)?;
        }
    }

    async fn session_of(&self, peer: SocketAddr, request: &Message<'_>) -> Result<SessionId, Stranger> {
        match (self.gate.session_of(request), &self.roaming) {
            (Err(Stranger::UnknownUser), Some(roaming)) => {
                roaming.resume(peer.ip(), request).await?;
                self.gate.session_of(request)
            }
            (session, _) => session,
        }
    }

    async fn carry(
        &self,
        client: TcpStream,
        endpoint: SocketAddr,
        first: Bytes,
        connection: &Connection,
    ) -> Result<Outcome, Outcome> {
        let origin = self.dialer.connect(endpoint, self.deadlines.dial).await.map_err(|error| {
            debug!(%error, %endpoint, "failed to connect");
            Outcome::Unreachable
        })?;
        let unsent = Unsent { to_origin: first, to_client: Bytes::new() };
        let prepared = join::prepare(&client).and_then(|()| join::prepare(&origin));
        let carried = match prepared {
            Ok(()) => {
                join::join(client, origin, unsent, Carries::Both, self.join, connection.traffic()).await
            }
            Err(error) => Err(error),
        };
        carried.map_or_else(
            |error| {
                debug!(%error, "connection broke");
                Err(Outcome::Broken)
            },
            |()| Ok(Outcome::Carried),
        )
    }
}
