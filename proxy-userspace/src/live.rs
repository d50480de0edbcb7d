//! Answers of HTTP that do not end: HTTP-FLV, HTTP-TS, AAC, MP3, and FLV by WebSocket.
//!
//! The head of a request says whether it is for such a stream. If so the origin gets the head, with what belongs to the
//! client's connection left out and who the client is put in, and from then on the two connections are one: status, head and
//! body come as the origin sends them. Everything else on this port is for the ordinary server of HTTP, which gets the
//! connection as it was, and gives it back when a later request is for a stream.
//!
//! Nothing of a client goes to the origin behind its head unless it is a WebSocket: it would be a request that nobody has
//! looked at.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use http::request::Parts;
use ipnet::IpNet;
use proxy_protocol::{
    http_head::{AnswerUse, ClientAddress, HeadError, HeadLimits, Hop, Method, RequestHead},
    stream_url::{MediaRequest, StreamKey, StreamRules},
};
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tracing::{Instrument as _, debug, info};

use crate::{
    config::TcpJoin,
    connections::{Connection, Connections, Protocol},
    net::{
        join::{self, Carries, Unsent},
        tcp::{Slot, receive},
    },
    origin::{
        Registry,
        connector::{ConnectError, Connector, Service},
    },
};

/// Clients at once on the port; more wait in the backlog.
pub const MAX_CONNECTIONS: usize = 65_536;

/// What every connection needs.
#[derive(Clone)]
pub struct Live {
    /// How the origins of streams are connected.
    pub origins: Connector,
    /// How streams are named.
    pub rules: Arc<StreamRules>,
    /// Peers whose word on the client counts.
    pub trusted_proxies: Arc<[IpNet]>,
    /// Where connections are listed.
    pub connections: Arc<Connections>,
    /// How bytes are carried.
    pub join: TcpJoin,
    /// How long a client may take to send the head of its request.
    pub head_deadline: Duration,
}

/// What to do with a connection.
#[derive(Debug)]
pub enum Sorted {
    /// It is for the ordinary server, with what was read of it.
    Other(TcpStream, Bytes, Slot),
    /// It is taken care of.
    Taken,
}

/// A request for a stream, as far as it is kept.
#[derive(Debug)]
pub struct Wish {
    stream: StreamKey,
    /// The head as the origin gets it.
    head: Vec<u8>,
    is_websocket: bool,
}

/// An answer of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Refusal {
    status: u16,
    text: &'static str,
}

impl Live {
    /// Reads the first head of a connection, and serves the stream if it asks for one.
    pub async fn sort(&self, stream: TcpStream, slot: Slot) -> Sorted {
        let Ok(peer) = stream.peer_addr() else { return Sorted::Taken };
        let mut read = BytesMut::new();
        match self.read_wish(&stream, peer, &mut read).await {
            Ok(Some(wish)) => self.begin(stream, peer, wish, slot),
            Ok(None) => return Sorted::Other(stream, read.freeze(), slot),
            Err(Some(refusal)) => refuse(stream, refusal).await,
            Err(None) => {}
        }
        Sorted::Taken
    }

    /// What the client wants, if it is a stream; an error without a refusal where there is nobody to tell.
    async fn read_wish(
        &self,
        stream: &TcpStream,
        peer: SocketAddr,
        read: &mut BytesMut,
    ) -> Result<Option<Wish>, Option<Refusal>> {
        let deadline = Instant::now() + self.head_deadline;
        loop {
            let head = RequestHead::parse(read, &HeadLimits::default());
            if let Some(head) = head.map_err(|error| Some(Refusal::of_head(error)))? {
                return Ok(self.wish(&head, peer).await);
            }
            timeout_at(deadline, receive(stream, read)).await.map_err(|_| None)?.map_err(|_| None)?;
        }
    }

    async fn wish(&self, head: &RequestHead<'_>, peer: SocketAddr) -> Option<Wish> {
        if ![Method::Get, Method::Head].contains(&head.method()) {
            return None;
        }
        let target = head.target();
        let media = self.rules.media(head.host(), target.path(), target.query()).ok()??;
        let stream = self.live_stream(media).await?;
        Some(self.wish_for(stream, head, peer))
    }

    /// What a later request of a connection wants, if it is a stream.
    pub async fn later_wish(&self, request: &Parts, peer: SocketAddr) -> Option<Wish> {
        let uri = &request.uri;
        // Most are for something else, and need no head.
        self.rules.media(None, uri.path(), uri.query()).ok()??;
        let head = head_of(request);
        self.wish(&RequestHead::parse(&head, &HeadLimits::default()).ok()??, peer).await
    }

    fn wish_for(&self, stream: StreamKey, head: &RequestHead<'_>, peer: SocketAddr) -> Wish {
        let trusted = |ip| self.trusted_proxies.iter().any(|network| network.contains(&ip));
        let client = ClientAddress::new(peer.ip(), head.headers(), trusted);
        let hop = Hop { client: &client, is_https: false };
        let head_of_ours = head.to_origin(head.target().as_str(), hop, AnswerUse::Passed);
        Wish { stream, head: head_of_ours, is_websocket: head.is_websocket() }
    }

    /// The stream that is asked for, if it is one that does not end.
    async fn live_stream(&self, media: MediaRequest) -> Option<StreamKey> {
        match media {
            MediaRequest::Live(stream) => Some(stream),
            MediaRequest::LiveOrSegment { live, segment_of } => {
                (!is_segment(self.origins.registry.as_ref(), &live, &segment_of).await).then_some(live)
            }
            MediaRequest::Playlist(_) | MediaRequest::Manifest(_) | MediaRequest::Segment(_) => None,
        }
    }

    /// Serves the stream on a connection of which nothing more is to be read than what the request was.
    pub fn begin(&self, stream: TcpStream, peer: SocketAddr, wish: Wish, slot: Slot) {
        let live = self.clone();
        self.connections.spawn(Protocol::Http, peer, |connection| {
            let span = tracing::info_span!("http", id = connection.id(), client = %peer);
            let serve = async move {
                live.serve(stream, wish, connection).await;
                drop(slot);
            };
            serve.instrument(span)
        });
    }

    async fn serve(self, client: TcpStream, wish: Wish, connection: Connection) {
        // What asking takes, and the request, are given back then: streams last longer than their beginnings.
        let origin = match Box::pin(self.ask(&wish, &connection)).await {
            Ok(origin) => origin,
            Err(refusal) => return refuse(client, refusal).await,
        };
        info!(stream = %wish.stream, "stream started");
        let carries = if wish.is_websocket { Carries::Both } else { Carries::ToClient };
        drop(wish);
        let carried = match join::prepare(&client) {
            Ok(()) => {
                let unsent = Unsent::default();
                join::join(client, origin, unsent, carries, self.join, connection.traffic()).await
            }
            Err(error) => Err(error),
        };
        if let Err(error) = carried {
            debug!(%error, "connection ended");
        }
    }

    /// An origin that has the request. SRS answers once there is a publisher, however long that takes.
    async fn ask(&self, wish: &Wish, connection: &Connection) -> Result<TcpStream, Refusal> {
        let reached = self.origins.to_stream(&wish.stream, Service::Http).await;
        let (origin, dialed) = reached.map_err(|error| Refusal::of_connecting(&error))?;
        connection.place(Some(&wish.stream), &origin.id);
        self.request(dialed, &wish.head).await
    }

    async fn request(&self, mut origin: TcpStream, head: &[u8]) -> Result<TcpStream, Refusal> {
        let sent = async {
            join::prepare(&origin)?;
            origin.write_all(head).await
        };
        match timeout(self.origins.deadline, sent).await {
            Ok(Ok(())) => Ok(origin),
            Ok(Err(_)) | Err(_) => Err(Refusal { status: 502, text: "the origin of this stream failed" }),
        }
    }
}

impl Refusal {
    fn of_connecting(error: &ConnectError) -> Self {
        let status = match error {
            ConnectError::NoOrigin(_) => 503,
            ConnectError::NotServed(_) | ConnectError::Unreachable => 502,
        };
        Self { status, text: error.tell() }
    }

    fn of_head(error: HeadError) -> Self {
        let text = match error.status() {
            414 | 431 => "the head of the request is too long",
            501 => "the request asks for something that is not supported",
            505 => "the version of HTTP is not supported",
            _ => "the head of the request is malformed",
        };
        Self { status: error.status(), text }
    }

    fn answer(self) -> String {
        let reason =
            http::StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let Self { status, text } = self;
        // Pages may see it: players tell their users why.
        format!(
            "HTTP/1.1 {status} {}\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nConnection: close\r\n\
             Access-Control-Allow-Origin: *\r\n\r\n{text}\n",
            reason.unwrap_or("Error"),
            text.len() + 1
        )
    }
}

fn head_of(request: &Parts) -> Vec<u8> {
    let mut head = format!("{} {} {:?}\r\n", request.method, request.uri, request.version).into_bytes();
    for (name, value) in &request.headers {
        head.extend([name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    head.extend(b"\r\n");
    head
}

/// Whether a name that may be a stream's or a segment's is a segment's: only the stream of the segment is known.
pub async fn is_segment(registry: &dyn Registry, live: &StreamKey, segment_of: &StreamKey) -> bool {
    registry.picked(live).await.is_none() && registry.picked(segment_of).await.is_some()
}

/// A refused request may be longer than what was read of it: closing at once would reset the connection and lose the answer.
async fn refuse(mut stream: TcpStream, refusal: Refusal) {
    const LINGER: Duration = Duration::from_secs(1);
    debug!(status = refusal.status, text = refusal.text, "request refused");
    let answered = async {
        stream.write_all(refusal.answer().as_bytes()).await?;
        stream.shutdown().await?;
        let mut rest = BytesMut::new();
        while receive(&stream, &mut rest).await.is_ok() {
            rest.clear();
        }
        io::Result::Ok(())
    };
    // A client that is gone needs no answer.
    let _ = timeout(LINGER, answered).await;
}

impl std::fmt::Debug for Live {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Live").field("rules", &self.rules).field("join", &self.join).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
