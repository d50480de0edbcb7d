//! A client until it has named its stream, and its end if it gets none.

use std::net::{IpAddr, Ipv4Addr};

use proxy_protocol::rtmp::{
    client_session::{ClientEffect, ClientSession, ServerName},
    request::{Asked, Connect, Refusal},
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{Failure, Rtmp, leg::Leg};

/// What a client wants, as it is passed on.
#[derive(Clone, Debug)]
pub(super) struct Wish {
    pub(super) connect: Connect,
    pub(super) asked: Asked,
    /// The size of the chunks that the client sends.
    pub(super) chunk_size: u32,
    /// The client's address, if the origin is to be told.
    pub(super) real_ip: Option<Ipv4Addr>,
}

impl Rtmp {
    /// Answers a client until it says what it wants. Each of its steps has its deadline, however many messages it takes.
    pub(super) async fn read_wish(
        &self,
        client: &mut Leg,
        id: u64,
    ) -> Result<(Wish, ClientSession), Failure> {
        let mut session = ClientSession::new(server_name(id));
        let mut connect = None;
        let mut deadline = Instant::now() + self.deadlines.client;
        loop {
            let step = session.step();
            let message =
                timeout_at(deadline, client.message()).await.map_err(|_| Failure::ClientTimeout)??;
            for effect in session.apply(message)? {
                match (effect, &connect) {
                    (ClientEffect::Send(message), _) => client.send(&message)?,
                    (ClientEffect::Connected(connected), _) => connect = Some(connected),
                    (ClientEffect::Requested(asked), Some(connect)) => {
                        let (connect, chunk_size) = (connect.clone(), client.reader.chunk_size());
                        let real_ip = self.tells_real_ip.then(|| address_of(client)).flatten();
                        return Ok((Wish { connect, asked, chunk_size, real_ip }, session));
                    }
                    // A session asks for nothing before it has connected.
                    (ClientEffect::Requested(_), None) => return Err(Failure::Left),
                }
            }
            if session.step() != step {
                deadline = Instant::now() + self.deadlines.client;
            }
        }
    }

    /// Tells a client why it gets no stream, and closes.
    pub(super) async fn refuse<T>(
        &self,
        mut client: Leg,
        session: ClientSession,
        refusal: Refusal,
    ) -> Result<T, Failure> {
        session.refused(&refusal).iter().try_for_each(|message| client.send(message))?;
        timeout(self.deadlines.client, client.flush()).await.map_err(|_| Failure::ClientTimeout)??;
        Err(Failure::Refused(refusal))
    }
}

fn address_of(client: &Leg) -> Option<Ipv4Addr> {
    match client.stream.peer_addr().ok()?.ip().to_canonical() {
        IpAddr::V4(ip) => Some(ip),
        IpAddr::V6(_) => None,
    }
}

fn server_name(id: u64) -> ServerName {
    ServerName {
        signature: env!("CARGO_PKG_NAME").to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        connection: id.to_string(),
    }
}
