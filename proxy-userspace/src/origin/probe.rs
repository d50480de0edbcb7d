//! Asks an origin whether it is there: the checks behind the state `up`.
//!
//! An origin is alive when every endpoint it registered answers: RTMP accepts a connection, the API answers a request,
//! and nothing says that nobody listens on the WebRTC port.

use std::{io, net::SocketAddr, time::Duration};

use axum::body::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::Origin;

/// How long silence of a UDP port is waited for: a closed one refuses within a round trip.
const UDP_SILENCE: Duration = Duration::from_millis(250);

/// SRS drops this datagram, the health check of a load balancer, without a word in its log; a STUN request without a
/// session would be logged each time.
const UDP_HEALTH_CHECK: &[u8; 21] = b"Healthcheck udp check";

/// What failed, and where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{endpoint} {address}: {cause}")]
pub struct ProbeError {
    /// Which endpoint.
    pub endpoint: &'static str,
    /// Its address.
    pub address: SocketAddr,
    /// What happened.
    pub cause: ProbeFailure,
}

/// How an endpoint failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProbeFailure {
    /// No answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The network or the host said no.
    #[error("{0}")]
    Io(io::ErrorKind),
    /// The connection was accepted, but no HTTP answer came.
    #[error("accepts connections but does not answer")]
    NoHttpAnswer,
    /// The API answered that it is broken.
    #[error("answers with status {0}")]
    Status(StatusCode),
}

/// Checks origins.
#[async_trait::async_trait]
pub trait Probe: Send + Sync + 'static {
    /// Whether every endpoint of `origin` answers.
    async fn probe(&self, origin: &Origin) -> Result<(), ProbeError>;
}

/// Checks origins over the network.
#[derive(Clone, Copy, Debug)]
pub struct NetworkProbe {
    /// The deadline of one endpoint; all are asked at once.
    pub timeout: Duration,
}

#[async_trait::async_trait]
impl Probe for NetworkProbe {
    async fn probe(&self, origin: &Origin) -> Result<(), ProbeError> {
        tokio::try_join!(
            self.check("rtmp", origin.rtmp, check_tcp),
            self.check("api", origin.api, check_http),
            self.check("rtc", origin.rtc, check_udp),
        )?;
        Ok(())
    }
}

impl NetworkProbe {
    async fn check<F>(
        &self,
        endpoint: &'static str,
        address: Option<SocketAddr>,
        check: impl FnOnce(SocketAddr) -> F,
    ) -> Result<(), ProbeError>
    where
        F: Future<Output = Result<(), ProbeFailure>>,
    {
        let Some(address) = address else { return Ok(()) };
        let checked = timeout(self.timeout, check(address)).await;
        checked.unwrap_or(Err(ProbeFailure::Timeout)).map_err(|cause| ProbeError { endpoint, address, cause })
    }
}

impl From<io::Error> for ProbeFailure {
    fn from(error: io::Error) -> Self {
        Self::Io(error.kind())
    }
}

async fn check_tcp(address: SocketAddr) -> Result<(), ProbeFailure> {
    TcpStream::connect(address).await?;
    Ok(())
}

async fn check_http(address: SocketAddr) -> Result<(), ProbeFailure> {
    let stream = TcpStream::connect(address).await?;
    let status = request_versions(stream, address).await.map_err(|_| ProbeFailure::NoHttpAnswer)?;
    // An API that wants credentials is alive.
    if status.is_server_error() { Err(ProbeFailure::Status(status)) } else { Ok(()) }
}

async fn request_versions(stream: TcpStream, address: SocketAddr) -> hyper::Result<StatusCode> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let request = Request::get("/api/v1/versions")
        .header(header::HOST, address.to_string())
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .expect("all parts are valid");
    let answered = async { sender.send_request(request).await.map(|answer| answer.status()) };
    tokio::pin!(answered);
    tokio::select! {
        status = &mut answered => status,
        // The connection has ended: the answer it brought, or the error, is there.
        _ = connection => answered.await,
    }
}

/// Only a refusal counts: nobody answers a health check, and a filtered error message proves nothing.
async fn check_udp(address: SocketAddr) -> Result<(), ProbeFailure> {
    let any =
        if address.is_ipv4() { SocketAddr::from(([0; 4], 0)) } else { SocketAddr::from(([0u16; 8], 0)) };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    socket.send(UDP_HEALTH_CHECK).await?;
    match timeout(UDP_SILENCE, socket.recv(&mut [0; 64])).await {
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Err(error.into()),
        Ok(_) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
        task::JoinHandle,
    };

    use super::*;
    use crate::origin::OriginId;

    const PROBE: NetworkProbe = NetworkProbe { timeout: Duration::from_millis(500) };

    fn origin() -> Origin {
        Origin::bare("s", OriginId::new("s", "v", "1"), [127, 0, 0, 1].into())
    }

    async fn api_answering(answer: &'static str) -> (SocketAddr, JoinHandle<()>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let read = stream.read(&mut [0; 1024]).await.unwrap();
            assert_ne!(read, 0);
            stream.write_all(answer.as_bytes()).await.unwrap();
        });
        (address, task)
    }

    async fn closed_tcp_port() -> SocketAddr {
        TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
    }

    #[tokio::test]
    async fn an_origin_whose_endpoints_answer_is_alive() {
        let rtmp = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let rtc = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let (api, task) = api_answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await;
        let origin = Origin {
            rtmp: Some(rtmp.local_addr().unwrap()),
            api: Some(api),
            rtc: Some(rtc.local_addr().unwrap()),
            ..origin()
        };
        assert_eq!(PROBE.probe(&origin).await, Ok(()));
        task.await.unwrap();
    }

    #[tokio::test]
    async fn a_closed_port_is_named() {
        let closed = closed_tcp_port().await;
        let refused = ProbeFailure::Io(io::ErrorKind::ConnectionRefused);
        let error = PROBE.probe(&Origin { rtmp: Some(closed), ..origin() }).await.unwrap_err();
        assert_eq!((error.endpoint, error.address, error.cause), ("rtmp", closed, refused));
        let error = PROBE.probe(&Origin { rtc: Some(closed), ..origin() }).await.unwrap_err();
        assert_eq!((error.endpoint, error.address, error.cause), ("rtc", closed, refused));
        assert_eq!(error.to_string(), format!("rtc {closed}: connection refused"));
    }

    #[tokio::test]
    async fn an_api_that_only_accepts_is_not_alive() {
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = Origin { api: Some(silent.local_addr().unwrap()), ..origin() };
        assert_eq!(PROBE.probe(&origin).await.unwrap_err().cause, ProbeFailure::Timeout);
    }

    #[tokio::test]
    async fn an_api_that_closes_or_fails_is_not_alive() {
        for (answer, cause) in [
            ("", ProbeFailure::NoHttpAnswer),
            ("SRS", ProbeFailure::NoHttpAnswer),
            ("HTTP/1.1 503 Busy\r\n\r\n", ProbeFailure::Status(StatusCode::SERVICE_UNAVAILABLE)),
        ] {
            let (api, task) = api_answering(answer).await;
            let error = PROBE.probe(&Origin { api: Some(api), ..origin() }).await.unwrap_err();
            assert_eq!(error.cause, cause, "{answer:?}");
            task.await.unwrap();
        }
    }

    #[tokio::test]
    async fn an_api_that_wants_credentials_is_alive() {
        let (api, task) = api_answering("HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n").await;
        assert_eq!(PROBE.probe(&Origin { api: Some(api), ..origin() }).await, Ok(()));
        task.await.unwrap();
    }
}
