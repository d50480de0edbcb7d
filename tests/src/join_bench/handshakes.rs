//! How long a handshake takes, alone and among clients that never finish theirs.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};

use super::{
    origin::Origin,
    site::{HTTP, Site},
    trial,
};
use crate::{
    live::{RTMP_PORT, wait_for_connections},
    netns::Direct,
    samples::Samples,
};

/// Clients that never finish.
pub(super) const IDLE: usize = 300;
const TIMES: usize = 51;
const PATIENCE: Duration = Duration::from_secs(10);

/// Microseconds of a handshake.
#[derive(Clone, Debug)]
pub(super) struct Handshakes {
    pub(super) alone: Samples,
    pub(super) among: Samples,
}

pub(super) fn run(site: &Site) -> Result<Handshakes> {
    let _origin = Origin::start(&site.network.origin)?;
    let proxy = trial::proxy(site, [HTTP, HTTP], &[("PROXY_API_CLIENT_TIMEOUT", "120s")])?;
    let client = &site.network.client;
    let alone = client.enter(shake_hands)?;
    wait_for_connections(&proxy, PATIENCE, <[_]>::is_empty)?;
    let mut idle = client.enter(|| (0..IDLE).map(|_| connect()).collect::<Result<Vec<_>>>())?;
    // Half of them begin one.
    idle.iter_mut().step_by(2).try_for_each(|stream| stream.write_all(&[3; 100]))?;
    wait_for_connections(&proxy, PATIENCE, |listed| listed.len() == IDLE)?;
    let among = client.enter(shake_hands)?;
    ensure!(
        wait_for_connections(&proxy, PATIENCE, |listed| listed.len() >= IDLE).is_ok(),
        "some were closed"
    );
    Ok(Handshakes { alone, among })
}

/// One after another.
fn shake_hands() -> Result<Samples> {
    (0..TIMES).map(|_| handshake().map(|took| took.as_secs_f64() * 1e6)).collect()
}

/// A connection and the plain handshake on it: two round trips.
fn handshake() -> Result<Duration> {
    let begin = Instant::now();
    let mut stream = connect()?;
    let mut hello = [0; 1537];
    hello[0] = 3;
    stream.write_all(&hello)?;
    let mut answer = [0; 1 + 2 * 1536];
    stream.read_exact(&mut answer)?;
    ensure!(answer[0] == 3, "this is no handshake");
    Ok(begin.elapsed())
}

fn connect() -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&SocketAddr::from((Direct::PROXY, RTMP_PORT)), PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(stream)
}

impl Handshakes {
    /// How many times what one takes alone it takes among the others.
    pub(super) fn ratio(&self) -> f64 {
        self.among.median() / self.alone.median()
    }
}
