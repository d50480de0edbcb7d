//! Connections to the origins of streams.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use proxy_protocol::stream_url::StreamKey;
use tokio::net::TcpStream;
use tracing::debug;

use super::{Origin, PickError, Registry};
use crate::net::tcp::Dialer;

/// How many origins are tried if one cannot be reached.
const ATTEMPTS: u32 = 2;

/// What an origin is asked for over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    /// RTMP.
    Rtmp,
    /// Streams over HTTP.
    Http,
}

/// Why no origin is connected.
#[derive(Debug)]
pub enum ConnectError {
    /// There is none for the stream.
    NoOrigin(PickError),
    /// It does not serve that.
    NotServed(Service),
    /// It does not answer, and neither did the one that was chosen in its place.
    Unreachable,
}

/// Finds the origins of streams and connects to them.
#[derive(Clone)]
pub struct Connector {
    /// Where streams are.
    pub registry: Arc<dyn Registry>,
    /// How origins are connected.
    pub dialer: Arc<Dialer>,
    /// How long connecting to one may take.
    pub deadline: Duration,
}

impl Connector {
    /// Connects to the stream's origin. One that cannot be reached is reported, and the next pick is tried, once.
    ///
    /// # Errors
    /// When there is no origin, or it is not to be had.
    pub async fn to_stream(
        &self,
        stream: &StreamKey,
        service: Service,
    ) -> Result<(Arc<Origin>, TcpStream), ConnectError> {
        for _ in 0..ATTEMPTS {
            let origin = self.registry.pick(stream).await.map_err(ConnectError::NoOrigin)?;
            match self.to_origin(&origin, service).await {
                Ok(dialed) => return Ok((origin, dialed)),
                Err(ConnectError::Unreachable) => {}
                Err(error) => return Err(error),
            }
        }
        Err(ConnectError::Unreachable)
    }

    /// Connects to this origin, or reports it.
    ///
    /// # Errors
    /// When it does not serve that, or cannot be reached.
    pub async fn to_origin(&self, origin: &Origin, service: Service) -> Result<TcpStream, ConnectError> {
        let address = service.of(origin).ok_or(ConnectError::NotServed(service))?;
        match self.dialer.connect(address, self.deadline).await {
            Ok(dialed) => Ok(dialed),
            Err(error) => {
                debug!(%error, origin = %origin.id, "failed to connect");
                self.registry.report_failure(&origin.id).await;
                Err(ConnectError::Unreachable)
            }
        }
    }
}

impl ConnectError {
    /// What a client is told.
    pub fn tell(&self) -> &'static str {
        match self {
            Self::NoOrigin(error) => error.tell(),
            Self::NotServed(Service::Rtmp) => "the origin of this stream has no RTMP",
            Self::NotServed(Service::Http) => "the origin of this stream has no HTTP streams",
            Self::Unreachable => "the origin of this stream cannot be reached",
        }
    }
}

impl Service {
    fn of(self, origin: &Origin) -> Option<SocketAddr> {
        match self {
            Self::Rtmp => origin.rtmp,
            Self::Http => origin.http,
        }
    }
}

impl std::fmt::Debug for Connector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connector").field("dialer", &self.dialer).finish_non_exhaustive()
    }
}
