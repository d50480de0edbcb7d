//! Media over TCP: frames of RFC 4571 on connections that begin with a STUN request, as SRS demands.

use std::collections::HashMap;
use std::io::{self, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use proxy_protocol::rfc4571::{self, Beginning};

use super::media::Command;
use super::session::SessionId;
use crate::http::Server;
use crate::mailbox::Sender;

/// Frames that wait for a slow peer; beyond they are lost.
const QUEUE: usize = 4096;
const LIMIT: usize = u16::MAX as usize;
const FIRST: Duration = Duration::from_secs(10);

/// The way to a peer; it is closed when this is dropped.
#[derive(Debug)]
pub(super) struct Link {
    frames: mpsc::SyncSender<Vec<u8>>,
    /// Whose request came by it.
    session: Option<SessionId>,
}

/// The open connections, by peer.
#[derive(Debug, Default)]
pub(super) struct Links(HashMap<SocketAddr, Link>);

impl Links {
    pub(super) fn add(&mut self, peer: SocketAddr, link: Link) {
        self.0.insert(peer, link);
    }

    pub(super) fn remove(&mut self, peer: SocketAddr) {
        self.0.remove(&peer);
    }

    pub(super) fn session(&self, peer: SocketAddr) -> Option<SessionId> {
        self.0.get(&peer)?.session
    }

    pub(super) fn bind(&mut self, peer: SocketAddr, session: SessionId) {
        if let Some(link) = self.0.get_mut(&peer) {
            link.session = Some(session);
        }
    }

    /// Closes what a session had.
    pub(super) fn end(&mut self, session: SessionId) {
        self.0.retain(|_, link| link.session != Some(session));
    }

    pub(super) fn send(&self, peer: SocketAddr, packet: &[u8]) -> bool {
        let mut frame = Vec::new();
        let is_short = rfc4571::write(packet, &mut frame).is_ok();
        is_short && self.0.get(&peer).is_some_and(|link| link.frames.try_send(frame).is_ok())
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }
}

/// Listens for media alone.
pub(super) fn listen(address: SocketAddr, media: &Sender<Command>) -> io::Result<Server> {
    let media = media.clone();
    Server::accept(address, move |stream| {
        let _ = serve(stream, &media);
    })
}

/// Whether a connection begins with a frame, as far as its first bytes tell; they stay unread.
pub(super) fn is_framed(stream: &TcpStream) -> io::Result<bool> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(FIRST))?;
    let mut buffer = [0; 32];
    loop {
        let length = match stream.peek(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            peeked => peeked?,
        };
        match rfc4571::beginning(&buffer[..length], LIMIT) {
            Beginning::Frames => return Ok(true),
            Beginning::Other => return Ok(false),
            Beginning::Undecided if length == 0 => return Ok(false),
            Beginning::Undecided => thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Takes frames until the peer, or the media thread, has had enough.
pub(super) fn serve(stream: TcpStream, media: &Sender<Command>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(FIRST))?;
    let peer = stream.peer_addr()?;
    let stream = Arc::new(stream);
    let mut buffer = Vec::new();
    read_first(&stream, &mut buffer)?;
    stream.set_read_timeout(None)?;
    let (frames, queue) = mpsc::sync_channel(QUEUE);
    let writer = Arc::clone(&stream);
    thread::spawn(move || write_all(&writer, &queue));
    media.send(Command::Linked { peer, link: Link { frames, session: None } });
    let read = read_frames(&stream, buffer, |packet| media.send(Command::Frame { peer, packet }));
    media.send(Command::Unlinked { peer });
    read
}

/// Reads until the first frame is a request, or fails.
fn read_first(mut stream: &TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    loop {
        let first = rfc4571::first_request(buffer, LIMIT).map_err(io::Error::other)?;
        if first.is_some_and(|(request, _)| request.username().is_some()) {
            return Ok(());
        }
        read_more(&mut stream, buffer)?;
    }
}

fn read_frames(
    mut stream: &TcpStream,
    mut buffer: Vec<u8>,
    mut take: impl FnMut(Vec<u8>) -> bool,
) -> io::Result<()> {
    loop {
        let (frames, length) = rfc4571::frames(&buffer, LIMIT).map_err(io::Error::other)?;
        for frame in &frames {
            if !take(frame.packet().to_vec()) {
                return Ok(());
            }
        }
        buffer.drain(..length);
        read_more(&mut stream, &mut buffer)?;
    }
}

fn read_more(stream: &mut &TcpStream, buffer: &mut Vec<u8>) -> io::Result<()> {
    let mut more = [0; 16 << 10];
    let length = loop {
        match stream.read(&mut more) {
            // A signal ends a read that has a time limit.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            read => break read?,
        }
    };
    if length == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    buffer.extend_from_slice(&more[..length]);
    Ok(())
}

fn write_all(mut stream: &TcpStream, frames: &mpsc::Receiver<Vec<u8>>) {
    while let Ok(frame) = frames.recv() {
        if stream.write_all(&frame).is_err() {
            break;
        }
    }
    // The reader wakes up by this.
    let _ = stream.shutdown(Shutdown::Both);
}

/// What a peer is reached by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Remote {
    /// Datagrams.
    Udp(SocketAddr),
    /// Frames on the connection from there.
    Tcp(SocketAddr),
}

impl Remote {
    pub(super) fn address(self) -> SocketAddr {
        match self {
            Self::Udp(address) | Self::Tcp(address) => address,
        }
    }

    pub(super) fn is_tcp(self) -> bool {
        matches!(self, Self::Tcp(_))
    }
}
