//! Sessions of a relay that no signalling made.

use std::net::SocketAddr;

use anyhow::{Context as _, Result};
use proxy_protocol::ice::UfragPair;
use proxy_userspace::{
    datapath::userspace::Relay,
    session::{SessionId, Tuple},
};

/// The origin's password of every such session.
const PWD: &str = "0123456789abcdef0123456789abcdef";

/// Has `relay` forward between the client of `tuple` and `origin`, which knows us as `source`.
pub fn admit(relay: &Relay, flow: u16, tuple: Tuple, source: SocketAddr, origin: SocketAddr) -> Result<()> {
    let session = SessionId(u64::from(flow));
    let ufrags: UfragPair = format!("orig{flow:04}:clnt").parse().context("a valid name")?;
    let pwd = PWD.parse().context("a valid password")?;
    relay.admit(session, &ufrags, &pwd, origin, source)?;
    relay.bind(session, tuple);
    relay.activate(session, tuple);
    Ok(())
}
