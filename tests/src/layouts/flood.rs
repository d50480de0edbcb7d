//! Strangers, as many as a CPU can pretend to be.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use bench_tables::{Template, Tuple};

use super::{
    flows,
    generator::{End, Generator},
    site::device,
};
use crate::netns::Direct;

/// Tuples that take turns.
const TUPLES: usize = 1 << 18;
/// The first bytes of where strangers come from.
const STRANGERS: [u8; 2] = [10, 77];

/// What was sent, and how fast.
#[derive(Clone, Copy, Debug)]
pub struct Flood {
    /// Datagrams.
    pub sent: u64,
    /// In this time.
    pub time: Duration,
}

impl Flood {
    /// Datagrams a second.
    #[must_use]
    pub fn rate(&self) -> f64 {
        self.sent as f64 / self.time.as_secs_f64()
    }
}

/// Sends datagrams that begin with `payload` from random addresses and ports to the proxy, while `work` runs.
///
/// # Errors
/// When frames cannot be made.
pub fn flood<R>(
    network: &Direct,
    to: SocketAddrV4,
    payload: &[u8],
    work: impl FnOnce() -> R,
) -> Result<(Flood, R)> {
    let ends = (device(&network.client, "eth0")?, device(&network.proxy, "eth0")?);
    let templates = (0..TUPLES).map(|_| template(to)).collect();
    let mut frame = flows::frame(&template(to));
    let room = frame.len() - flows::HEADERS;
    ensure!(payload.len() <= room, "{} bytes do not fit", payload.len());
    frame[flows::HEADERS..][..payload.len()].copy_from_slice(payload);
    let generator = Generator::between(End::Client, ends, frame, templates)?;
    let began = Instant::now();
    let running = generator.start(network, 0);
    let result = work();
    running.stop()?;
    Ok((Flood { sent: generator.sent()?, time: began.elapsed() }, result))
}

/// Without a UDP checksum, which IPv4 allows: the payload is not known here.
fn template(to: SocketAddrV4) -> Template {
    let [a, b] = STRANGERS;
    let [c, d] = rand::random::<[u8; 2]>();
    let from = SocketAddrV4::new(Ipv4Addr::new(a, b, c, d.clamp(1, 254)), rand::random::<u16>() | 1);
    let word = |address: SocketAddrV4| u32::from(*address.ip()).to_be();
    let tuple =
        Tuple { src: word(from), dst: word(to), src_port: from.port().to_be(), dst_port: to.port().to_be() };
    Template { udp_checksum: 0, ..flows::template(&tuple) }
}
