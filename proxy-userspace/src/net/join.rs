//! Two TCP connections become one: what comes in by either leaves by the other, unread.
//!
//! Bytes move by copying, through a buffer that is borrowed only while there is something in it, or by splice(2), through a
//! pipe that is borrowed so. An idle connection holds neither. What the receiver does not take stays with the sender:
//! nothing is read before the last of what was read before is written, so TCP's own flow control reaches from end to end.
//!
//! A FIN is passed on when everything before it is, and closes its direction alone. A reset is passed on as a reset.

use std::{
    future::poll_fn,
    io,
    sync::atomic::{AtomicU8, AtomicU64, Ordering},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use serde::Serialize;
use socket2::SockRef;
use tokio::net::TcpStream;

use self::direction::Direction;
use super::tcp::STUCK;
use crate::config::TcpJoin as Means;

mod buffer;
mod direction;
mod held;
mod pace;
mod pipe;

/// What a joined connection has carried, in bytes; it may be read at any time and wakes nobody.
#[derive(Debug, Default)]
pub struct Traffic {
    to_origin: AtomicU64,
    to_client: AtomicU64,
    joined: AtomicU8,
}

/// How the bytes of a joined connection are carried at the moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum Joined {
    /// Through buffers of the process, both ways.
    Copy = 1,
    /// By splice(2), at least one way.
    Splice = 2,
}

impl Traffic {
    /// Bytes written towards the origin.
    pub fn to_origin(&self) -> u64 {
        self.to_origin.load(Ordering::Relaxed)
    }

    /// Bytes written towards the client.
    pub fn to_client(&self) -> u64 {
        self.to_client.load(Ordering::Relaxed)
    }

    /// How they are carried; `None` before the connections are joined.
    pub fn joined(&self) -> Option<Joined> {
        let joined = self.joined.load(Ordering::Relaxed);
        [Joined::Copy, Joined::Splice].into_iter().find(|means| *means as u8 == joined)
    }

    fn note(&self, joined: Joined) {
        self.joined.store(joined as u8, Ordering::Relaxed);
    }

    /// Adds what was carried before the connections were joined.
    pub fn count(&self, to_origin: usize, to_client: usize) {
        self.to_origin.fetch_add(to_origin as u64, Ordering::Relaxed);
        self.to_client.fetch_add(to_client as u64, Ordering::Relaxed);
    }
}

/// Whose bytes go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carries {
    /// Both peers'.
    Both,
    /// The origin's alone; what the client sends is read and forgotten, but for its end.
    ToClient,
}

/// What was read of either peer and belongs before everything that is still to come.
#[derive(Clone, Debug, Default)]
pub struct Unsent {
    /// Read from the client.
    pub to_origin: Bytes,
    /// Read from the origin.
    pub to_client: Bytes,
}

/// Time without data after which a peer is asked whether it is still there, the time between questions, and how many may
/// stay unanswered.
const KEEPALIVE: (Duration, Duration, u32) = (Duration::from_secs(60), Duration::from_secs(15), 4);
/// What may wait in a send buffer beside what is on its way: more would only be memory that a slow receiver holds.
const UNSENT: u32 = 256 << 10;

/// Sets what both connections need: small frames leave at once, a peer that is gone or takes nothing is noticed, and a slow
/// receiver holds little memory.
pub fn prepare(stream: &TcpStream) -> io::Result<()> {
    let (idle, interval, retries) = KEEPALIVE;
    let keepalive =
        socket2::TcpKeepalive::new().with_time(idle).with_interval(interval).with_retries(retries);
    let socket = SockRef::from(stream);
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive)?;
    socket.set_tcp_user_timeout(Some(STUCK))?;
    socket.set_tcp_notsent_lowat(UNSENT)
}

/// Carries bytes both ways until both directions have ended. Whoever stops waiting closes both connections.
///
/// # Errors
/// When one of the connections fails; the other is reset then, so that nobody takes what it got for everything.
pub async fn join(
    client: TcpStream,
    origin: TcpStream,
    unsent: Unsent,
    carries: Carries,
    means: Means,
    traffic: &Traffic,
) -> io::Result<()> {
    let mut there = match carries {
        Carries::Both => Direction::new(unsent.to_origin, means),
        Carries::ToClient => Direction::to_nobody(),
    };
    let mut back = Direction::new(unsent.to_client, means);
    let ended = poll_fn(|cx| both(cx, [&client, &origin], [&mut there, &mut back], traffic)).await;
    if ended.is_err() {
        // What fails here is a connection that is gone already.
        for stream in [&client, &origin] {
            let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
        }
    }
    ended
}

fn both(
    cx: &mut Context<'_>,
    [client, origin]: [&TcpStream; 2],
    [there, back]: [&mut Direction; 2],
    traffic: &Traffic,
) -> Poll<io::Result<()>> {
    let joined = if there.splices() || back.splices() { Joined::Splice } else { Joined::Copy };
    traffic.note(joined);
    let there = there.poll(cx, client, origin, &traffic.to_origin)?;
    let back = back.poll(cx, origin, client, &traffic.to_client)?;
    match (there, back) {
        (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
        _ => Poll::Pending,
    }
}

#[cfg(test)]
mod tests;
