//! What a session's packets go over: datagrams, or frames on a connection (RFC 4571).

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::Duration;

use anyhow::{Context as _, Result};
use proxy_protocol::rfc4571;
use proxy_protocol::sdp::{Answer, HostCandidate, OurCandidates, Transport};
use socket2::{Domain, Socket, Type};
use str0m::net::Protocol;

const LIMIT: usize = u16::MAX as usize;
const CONNECT: Duration = Duration::from_secs(10);

/// Which candidates of an answer a client uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Over {
    /// Those of UDP.
    #[default]
    Udp,
    /// The first one of TCP.
    Tcp,
    /// TCP, at this address whatever the answer says.
    TcpAt(SocketAddr),
}

#[derive(Debug)]
pub(super) enum Path {
    /// There is none yet, or none any more.
    None,
    Udp(UdpSocket),
    Tcp(Framed),
}

#[derive(Debug)]
pub(super) struct Framed {
    stream: TcpStream,
    peer: SocketAddr,
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Path {
    pub(super) fn protocol(&self) -> Protocol {
        match self {
            Self::Tcp(_) => Protocol::Tcp,
            Self::None | Self::Udp(_) => Protocol::Udp,
        }
    }

    pub(super) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Self::None => None,
            Self::Udp(socket) => Some(socket.as_fd()),
            Self::Tcp(framed) => Some(framed.stream.as_fd()),
        }
    }

    /// Sends a packet, or keeps it until the connection takes it.
    pub(super) fn send(&mut self, packet: &[u8], to: SocketAddr) -> io::Result<()> {
        match self {
            Self::None => Err(io::ErrorKind::NotConnected.into()),
            Self::Udp(socket) => socket.send_to(packet, to).map(drop),
            Self::Tcp(framed) => {
                rfc4571::write(packet, &mut framed.output).map_err(io::Error::other)?;
                framed.flush()
            }
        }
    }

    /// Sends what was kept.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        if let Self::Tcp(framed) = self { framed.flush() } else { Ok(()) }
    }

    /// The next packet and who sent it.
    pub(super) fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        match self {
            Self::None => Err(io::ErrorKind::WouldBlock.into()),
            Self::Udp(socket) => socket.recv_from(buffer),
            Self::Tcp(framed) => framed.receive(buffer),
        }
    }
}

impl Framed {
    /// Connects from `from`, if it is given, in the calling thread's network namespace.
    pub(super) fn connect(to: SocketAddr, from: Option<IpAddr>) -> Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        if let Some(ip) = from {
            socket.bind(&SocketAddr::new(ip, 0).into())?;
        }
        socket.connect_timeout(&to.into(), CONNECT).with_context(|| format!("failed to connect to {to}"))?;
        socket.set_nonblocking(true)?;
        socket.set_tcp_nodelay(true)?;
        Ok(Self { stream: socket.into(), peer: to, input: Vec::new(), output: Vec::new() })
    }

    pub(super) fn local_addr(&self) -> io::Result<SocketAddr> {
        self.stream.local_addr()
    }

    fn flush(&mut self) -> io::Result<()> {
        while !self.output.is_empty() {
            match self.stream.write(&self.output) {
                Ok(length) => drop(self.output.drain(..length)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn receive(&mut self, buffer: &mut [u8]) -> io::Result<(usize, SocketAddr)> {
        loop {
            if let Some(frame) = rfc4571::Frame::parse(&self.input, LIMIT).map_err(io::Error::other)? {
                let packet = frame.packet();
                let length = packet.len().min(buffer.len());
                buffer[..length].copy_from_slice(&packet[..length]);
                let taken = frame.length();
                self.input.drain(..taken);
                if length > 0 {
                    return Ok((length, self.peer));
                }
                continue;
            }
            let mut more = [0; 16 << 10];
            match self.stream.read(&mut more)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                length => self.input.extend_from_slice(&more[..length]),
            }
        }
    }
}

/// The answer with one TCP candidate alone, and that candidate.
pub(super) fn tcp_alone(answer: &str, at: Option<SocketAddr>) -> Result<(String, SocketAddr)> {
    let parsed = Answer::parse(answer)?;
    let mut listed = parsed.candidates().iter().filter(|candidate| candidate.transport == Transport::Tcp);
    let at = match (at, listed.next()) {
        (Some(at), _) => at,
        (None, Some(candidate)) => SocketAddr::new(candidate.host.parse()?, candidate.port),
        (None, None) => anyhow::bail!("the answer has no TCP candidate: {answer}"),
    };
    let ours = [HostCandidate { ip: at.ip(), port: at.port() }];
    Ok((parsed.with_candidates_by_transport(&OurCandidates { udp: &[], tcp: &ours }), at))
}
