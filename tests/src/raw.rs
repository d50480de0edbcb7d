//! An origin and a client without media stacks: every datagram is the test's own, on both sides of the proxy.

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use parking_lot::Mutex;
use proxy_protocol::sdp::{Candidate, Transport};
use proxy_protocol::stun::{Class, Message, MessageBuilder, Method, TransactionId};
use proxy_userspace::net::udp::{Burst, Meta, RecvBatch, SendBatch, Transmit, UdpSocket};
use rustix::net::sockopt::{
    Ipv4PathMtuDiscovery, Ipv6PathMtuDiscovery, set_ip_mtu_discover, set_ipv6_mtu_discover,
};
use serde_json::json;

use crate::http::{Arrived, Request, Response, Server, Url};

/// The password of every session.
pub const PWD: &str = "0123456789abcdef0123456789abcdef";
const SOCKET_BUFFER: usize = 8 << 20;
const PATIENCE: Duration = Duration::from_secs(3);
const AGAIN: Duration = Duration::from_millis(50);

/// An origin that answers every offer alike and leaves its datagrams to the test.
#[derive(Debug)]
pub struct RawOrigin {
    /// Its media socket.
    pub media: Endpoint,
    /// Where it takes media over TCP, if it does.
    pub frames: Option<TcpListener>,
    id: String,
    ip: IpAddr,
    api: Server,
    rtmp: Server,
}

/// A datagram socket with patience.
#[derive(Debug)]
pub struct Endpoint {
    socket: UdpSocket,
    /// What came in one run with a datagram that was taken.
    pending: Mutex<VecDeque<(Meta, Vec<u8>)>>,
}

/// A session that signalling made.
#[derive(Clone, Debug)]
pub struct RawSession {
    /// The USERNAME of the client's checks.
    pub username: String,
    /// Where to send media.
    pub proxy: SocketAddr,
    /// Where to connect for media over TCP.
    pub proxy_tcp: Option<SocketAddr>,
    /// The resource to delete.
    pub location: String,
}

impl RawSession {
    /// Deletes it, from the calling thread's network namespace; says how that was answered.
    ///
    /// # Errors
    /// When it was not.
    pub fn delete(&self, api: &str) -> Result<u16> {
        let url = Url::parse(&format!("{api}{}", self.location))?;
        Ok(Request::new("DELETE", url).send()?.status)
    }
}

impl Endpoint {
    /// Binds to `ip` in the calling thread's network namespace.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn bind(ip: impl Into<IpAddr>) -> Result<Self> {
        let socket = UdpSocket::bind(SocketAddr::new(ip.into(), 0), false)?;
        // As media stacks leave it, who forbid fragments.
        if socket.local_addr().is_ipv4() {
            set_ip_mtu_discover(&socket, Ipv4PathMtuDiscovery::WANT)?;
        } else {
            set_ipv6_mtu_discover(&socket, Ipv6PathMtuDiscovery::WANT)?;
        }
        Ok(Self { socket, pending: Mutex::default() })
    }

    /// Its address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr()
    }

    /// Sends datagrams of `segment` bytes each as one run, which the kernel cuts as late as it can.
    ///
    /// # Errors
    /// When the socket refuses.
    pub fn send_run(&self, run: &[u8], segment: usize, to: SocketAddr) -> Result<()> {
        let transmit = Transmit { payload: run, peer: to, local_ip: None, traffic_class: 0 };
        let (mut taken, burst) = (true, Burst { transmit, segment });
        self.socket.send_batch(&mut SendBatch::default(), std::iter::once(burst), |sent| taken &= sent.taken);
        ensure!(taken, "the socket refused a run");
        Ok(())
    }

    /// Sends a datagram.
    ///
    /// # Errors
    /// When the socket refuses.
    pub fn send(&self, payload: &[u8], to: SocketAddr, traffic_class: u8) -> Result<()> {
        Ok(self.socket.send(&Transmit { payload, peer: to, local_ip: None, traffic_class })?)
    }

    /// Sends a datagram again and again until one arrives at `receiver`, and says how long that took. Further ones may
    /// be under way.
    ///
    /// # Errors
    /// When the socket refuses, or nothing arrives within `limit`.
    pub fn send_until_it_arrives(
        &self,
        payload: &[u8],
        to: SocketAddr,
        receiver: &Self,
        limit: Duration,
    ) -> Result<Duration> {
        let start = Instant::now();
        while start.elapsed() < limit {
            self.send(payload, to, 0)?;
            if receiver.receive_within(AGAIN)?.is_some() {
                return Ok(start.elapsed());
            }
        }
        bail!("nothing arrived within {limit:?}")
    }

    /// The next datagram, if one comes in time.
    ///
    /// # Errors
    /// When none does.
    pub fn receive(&self) -> Result<(Meta, Vec<u8>)> {
        self.receive_within(PATIENCE)?.context("no datagram came in time")
    }

    /// The next datagram, or `None` when `limit` is over.
    ///
    /// # Errors
    /// When the socket fails.
    pub fn receive_within(&self, limit: Duration) -> Result<Option<(Meta, Vec<u8>)>> {
        let end = Instant::now() + limit;
        let mut pending = self.pending.lock();
        let mut batch = None;
        loop {
            // The proxy's probes of the origin are not part of any session.
            while let Some(datagram) = pending.pop_front() {
                if !datagram.1.starts_with(b"Healthcheck") {
                    return Ok(Some(datagram));
                }
            }
            let batch = batch.get_or_insert_with(RecvBatch::one);
            match self.socket.receive(batch) {
                Ok(_) => pending.extend(batch.iter().map(|(meta, payload)| (meta, payload.to_vec()))),
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => return Err(error.into()),
                Err(_) if Instant::now() >= end => return Ok(None),
                Err(_) => std::thread::sleep(Duration::from_millis(1)),
            }
        }
    }

    /// Answers the next check and returns who asked; other datagrams are skipped.
    ///
    /// # Errors
    /// When none comes in time.
    pub fn answer_check(&self) -> Result<SocketAddr> {
        loop {
            let (meta, payload) = self.receive()?;
            if self.answer(meta.peer, &payload)? {
                return Ok(meta.peer);
            }
        }
    }

    /// Answers `payload` to `peer` if it is a check, and says whether it was one.
    ///
    /// # Errors
    /// When a check lost its integrity on the way, or the socket refuses.
    pub fn answer(&self, peer: SocketAddr, payload: &[u8]) -> Result<bool> {
        let Ok(message) = Message::parse(payload) else { return Ok(false) };
        ensure!(message.verify_integrity(PWD.as_bytes()), "a check lost its integrity on the way");
        self.send(&answer(message.transaction_id(), peer), peer, 0)?;
        Ok(true)
    }
}

impl RawOrigin {
    /// Starts it on `ip` in the calling thread's network namespace.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub fn start(ip: impl Into<IpAddr>, id: &str) -> Result<Self> {
        Self::start_with(ip.into(), id, None)
    }

    /// As [`RawOrigin::start`], and takes media over TCP too.
    ///
    /// # Errors
    /// When an address cannot be bound.
    pub fn start_over_tcp(ip: impl Into<IpAddr>, id: &str) -> Result<Self> {
        let ip = ip.into();
        Self::start_with(ip, id, Some(TcpListener::bind((ip, 0))?))
    }

    fn start_with(ip: IpAddr, id: &str, frames: Option<TcpListener>) -> Result<Self> {
        let media = Endpoint::bind(ip)?;
        // Room for the checks of a crowd.
        rustix::net::sockopt::set_socket_recv_buffer_size_force(&media.socket, SOCKET_BUFFER)?;
        let any_port = SocketAddr::new(ip, 0);
        let ports = (media.address().port(), frames.as_ref().map(port_of).transpose()?);
        let sessions = Arc::new(AtomicU32::new(0));
        let name = id.to_owned();
        let api =
            Server::start(any_port, move |arrived| Some(respond(arrived, &name, ip, ports, &sessions)))?;
        let rtmp = Server::accept(any_port, drop)?;
        Ok(Self { media, frames, id: id.to_owned(), ip, api, rtmp })
    }

    /// What the user fragments of its sessions begin with.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    fn rtc(&self) -> Result<Vec<String>> {
        let tcp = self.frames.as_ref().map(port_of).transpose()?;
        let udp = format!("udp://0.0.0.0:{}", self.media.address().port());
        Ok(std::iter::once(udp).chain(tcp.map(|port| format!("tcp://0.0.0.0:{port}"))).collect())
    }

    /// Sends a heartbeat to `url` from the calling thread's network namespace.
    ///
    /// # Errors
    /// When it is refused.
    pub fn register(&self, url: &str) -> Result<()> {
        let body = json!({
            "device_id": self.id, "ip": self.ip.to_string(), "server": self.id, "service": "raw", "pid": "1",
            "rtmp": [self.rtmp.address().port().to_string()],
            "api": [self.api.address().port().to_string()],
            "rtc": self.rtc()?,
        });
        let request = Request::new("POST", Url::parse(url)?).body("application/json", body.to_string());
        let response = request.send()?;
        ensure!(response.status == 200, "the heartbeat was answered {}: {}", response.status, response.body);
        Ok(())
    }
}

/// Plays `stream` by WHEP from the calling thread's network namespace.
///
/// # Errors
/// When the proxy refuses.
pub fn play(api: &str, stream: &str, remote_ufrag: &str) -> Result<RawSession> {
    let url = Url::parse(&format!("{api}/rtc/v1/whep/?app=live&stream={stream}"))?;
    let response = Request::new("POST", url).body("application/sdp", offer(remote_ufrag)).send()?;
    ensure!(response.status == 201, "answered {}: {}", response.status, response.body);
    let answer = proxy_protocol::sdp::Answer::parse(&response.body)?;
    let candidate = |wanted| {
        let found = answer.candidates().iter().find(|candidate| candidate.transport == wanted);
        let address = |candidate: &Candidate<'_>| -> Result<SocketAddr> {
            Ok(SocketAddr::new(candidate.host.parse()?, candidate.port))
        };
        found.map(address).transpose()
    };
    Ok(RawSession {
        username: format!("{}:{remote_ufrag}", answer.ufrag().as_str()),
        proxy: candidate(Transport::Udp)?.context("the answer has no candidate")?,
        proxy_tcp: candidate(Transport::Tcp)?,
        location: response.headers.get("Location").context("no Location")?.to_owned(),
    })
}

/// A player's offer.
#[must_use]
pub fn offer(ufrag: &str) -> String {
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\nm=video 9 UDP/TLS/RTP/SAVPF 96\r\n\
         c=IN IP4 0.0.0.0\r\na=ice-ufrag:{ufrag}\r\na=ice-pwd:{PWD}\r\na=mid:0\r\na=recvonly\r\n"
    )
}

/// A client's check.
#[must_use]
pub fn check(username: &str, nominates: bool) -> Vec<u8> {
    check_signed(username, PWD, nominates)
}

/// A client's check signed with any password.
#[must_use]
pub fn check_signed(username: &str, pwd: &str, nominates: bool) -> Vec<u8> {
    let request = MessageBuilder::new(Class::Request, Method::BINDING, TransactionId(rand::random()));
    let request = request.username(username);
    let request = if nominates { request.use_candidate() } else { request };
    request.integrity(pwd.as_bytes()).fingerprint().build()
}

fn answer(id: TransactionId, seen: SocketAddr) -> Vec<u8> {
    MessageBuilder::new(Class::Success, Method::BINDING, id)
        .xor_mapped_address(seen)
        .integrity(PWD.as_bytes())
        .fingerprint()
        .build()
}

fn port_of(listener: &TcpListener) -> io::Result<u16> {
    Ok(listener.local_addr()?.port())
}

fn respond(
    arrived: &Arrived,
    id: &str,
    ip: IpAddr,
    (port, tcp): (u16, Option<u16>),
    sessions: &AtomicU32,
) -> Response {
    if arrived.method != "POST" {
        return Response::new(200, "text/plain", "");
    }
    let session = sessions.fetch_add(1, Relaxed);
    let tcp =
        tcp.map(|port| format!("a=candidate:1 1 tcp 2130706431 {ip} {port} typ host tcptype passive\r\n"));
    let tcp = tcp.unwrap_or_default();
    let sdp = format!(
        "v=0\r\no=SRS/7.0.18 1 2 IN IP4 0.0.0.0\r\ns=SRSPlaySession\r\nt=0 0\r\na=ice-lite\r\n\
         m=video 9 UDP/TLS/RTP/SAVPF 96\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:{id}{session:04}\r\na=ice-pwd:{PWD}\r\n\
         a=mid:0\r\na=sendonly\r\na=candidate:0 1 udp 2130706431 {ip} {port} typ host generation 0\r\n{tcp}"
    );
    let location =
        format!("/rtc/v1/whip/?action=delete&token=t&session={id}{session:04}:{}", remote_ufrag(arrived));
    Response::new(201, "application/sdp", sdp).with_header("Location", location)
}

fn remote_ufrag(arrived: &Arrived) -> String {
    proxy_protocol::sdp::offer_ufrag(&arrived.body)
        .map_or_else(|_| "none".to_owned(), |ufrag| ufrag.to_string())
}
