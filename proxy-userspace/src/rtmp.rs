//! RTMP: a client is answered until it names its stream, the stream's origin is asked for it, and the two connections become
//! one.
//!
//! ```text
//!  client                         proxy                                   origin
//!    │  handshake, connect,          │                                       │
//!    │  publish or play       ─────► │ pick                                  │
//!    │                               │ handshake, connect, publish or play ─►│
//!    │         statuses of the start │◄────────────────────────── has started│
//!    │◄───────────────────────────── │                                       │
//!    │◄── messages ─────────────────►│◄── messages, until chunks mean ──────►│
//!    │                               │    the same on both sides             │
//!    │◄═══════════════════════ bytes, unread ═══════════════════════════════►│
//! ```
//!
//! What is said is in `proxy_protocol::rtmp`; here it is carried. Every step has its deadline, and no connection waits for
//! another one.

use std::{io, sync::Arc, time::Duration};

use proxy_protocol::{
    rtmp::{
        chunk::{ReadError, RelayError},
        client_session::{Accepted, ClientFault, ClientSession},
        handshake::HandshakeError,
        origin_session::OriginFault,
        request::{Refusal, Role},
    },
    stream_url::{StreamKey, StreamRules, StreamUrlError},
};
use tokio::{net::TcpStream, time::timeout};
use tracing::{Instrument as _, debug, info};

use self::{ask::Answered, client::Wish, leg::Leg, relay::Outcome};
use crate::{
    config::TcpJoin,
    connections::{Connection, Connections, Protocol},
    net::{
        join::{self, Carries, Unsent},
        tcp::Acceptor,
    },
    origin::connector::Connector,
};

mod ask;
mod client;
mod leg;
mod relay;

/// Clients at once on one port; more wait in the backlog.
pub const MAX_CONNECTIONS: usize = 65_536;

/// How long a peer may take.
#[derive(Clone, Copy, Debug)]
pub struct Deadlines {
    /// A client's next step: the handshake, `connect`, `publish` or `play`.
    pub client: Duration,
    /// An origin's next step, but for the last one.
    pub origin: Duration,
    /// An origin's answer to `publish` or `play`, for which it may ask somebody else.
    pub start: Duration,
}

/// What every connection needs.
#[derive(Clone)]
pub struct Rtmp {
    /// How the origins of streams are connected.
    pub origins: Connector,
    /// How streams are named.
    pub rules: Arc<StreamRules>,
    /// Where connections are listed.
    pub connections: Arc<Connections>,
    /// Whether origins are told the addresses of clients, as only SRS understands it.
    pub tells_real_ip: bool,
    /// How bytes are carried.
    pub join: TcpJoin,
    /// How long peers may take.
    pub deadlines: Deadlines,
}

/// Two connections of which bytes mean the same.
struct Joinable {
    client: TcpStream,
    origin: TcpStream,
    unsent: Unsent,
}

/// Why a connection ended before its stream did.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("the client took too long")]
    ClientTimeout,
    #[error("the origin took too long")]
    OriginTimeout,
    #[error("the peer left")]
    Left,
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    #[error(transparent)]
    Chunks(#[from] ReadError),
    #[error(transparent)]
    Messages(#[from] RelayError),
    #[error(transparent)]
    Client(#[from] ClientFault),
    #[error(transparent)]
    Origin(#[from] OriginFault),
    #[error("the stream has no name: {0}")]
    Name(#[from] StreamUrlError),
    #[error("{}", .0.description.to_url_text())]
    Refused(Refusal),
}

impl Rtmp {
    /// Serves what one listener accepts until accepting is to end; what was accepted goes on.
    pub async fn accept(self, mut acceptor: Acceptor) {
        while let Some((stream, slot)) = acceptor.next().await {
            let Ok(peer) = stream.peer_addr() else { continue };
            let rtmp = self.clone();
            self.connections.spawn(Protocol::Rtmp, peer, |connection| {
                let span = tracing::info_span!("rtmp", id = connection.id(), client = %peer);
                let serve = async move {
                    if let Err(failure) = rtmp.serve(stream, connection).await {
                        debug!(%failure, "connection ended");
                    }
                    drop(slot);
                };
                serve.instrument(span)
            });
        }
    }

    async fn serve(self, stream: TcpStream, connection: Connection) -> Result<(), Failure> {
        // All that it takes to come so far is given back then: streams last longer than their beginnings.
        let Some(joinable) = Box::pin(self.begin(stream, &connection)).await? else { return Ok(()) };
        debug!("joined");
        let Joinable { client, origin, unsent } = joinable;
        Ok(join::join(client, origin, unsent, Carries::Both, self.join, connection.traffic()).await?)
    }

    /// Talks to both until they can be joined, unless one of them leaves.
    async fn begin(&self, stream: TcpStream, connection: &Connection) -> Result<Option<Joinable>, Failure> {
        join::prepare(&stream)?;
        let shaken = timeout(self.deadlines.client, Leg::of_client(stream)).await;
        let mut client = shaken.map_err(|_| Failure::ClientTimeout)??;
        let (wish, session) = self.read_wish(&mut client, connection.id()).await?;
        let stream = wish.connect.stream_key(&self.rules, wish.asked.request.name())?;
        match self.ask(&stream, &wish, connection).await {
            Ok(asked) => self.relay(client, session, asked, &wish, &stream, connection).await,
            Err(refusal) => self.refuse(client, session, refusal).await,
        }
    }

    async fn relay(
        &self,
        mut client: Leg,
        session: ClientSession,
        mut asked: Answered,
        wish: &Wish,
        stream: &StreamKey,
        connection: &Connection,
    ) -> Result<Option<Joinable>, Failure> {
        let Accepted { to_client, to_origin } = session.accepted(std::mem::take(&mut asked.said));
        to_client.iter().try_for_each(|message| client.send(message))?;
        let role = wish.asked.request.role();
        info!(%stream, ?role, "stream started");
        if let (Role::Publisher(_), Some(origin)) = (role, connection.origin()) {
            self.origins.registry.published(stream, &origin).await;
        }
        let origin = loop {
            let Answered { mut origin, session, .. } = asked;
            to_origin.iter().try_for_each(|message| origin.send(message))?;
            match relay::until_joinable(&mut client, origin, session, connection.traffic()).await? {
                Outcome::Ended => return Ok(None),
                Outcome::Joinable(origin) => break origin,
                // The client was told that the stream starts, and need not be told again.
                Outcome::Redirected(url) => {
                    let again = self.ask_at(&url, stream, wish, connection).await;
                    asked = again.map_err(Failure::Refused)?;
                }
            }
        };
        let ((client, to_origin), (origin, to_client)) = (client.into_parts(), origin.into_parts());
        Ok(Some(Joinable { client, origin, unsent: Unsent { to_origin, to_client } }))
    }
}

impl std::fmt::Debug for Rtmp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Rtmp").field("rules", &self.rules).field("join", &self.join).finish_non_exhaustive()
    }
}
