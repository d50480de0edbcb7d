//! Sessions whose media goes over TCP: the kernel has no part in them, and bytes are joined elsewhere; what is decided here is
//! whether a connection is for a session, and how long a session lives by its connections.

use std::{net::SocketAddr, time::Instant};

use super::{Action, Carried, Proxy};
use crate::session::{
    Session, SessionId, State,
    tcp::{ConnectionId, TcpPath, TcpRefusal},
};

impl Proxy {
    pub(super) fn connected(&mut self, id: SessionId, path: TcpPath, now: Instant, out: &mut Vec<Action>) {
        let connection = path.connection;
        match self.take_path(id, path, now, out) {
            Ok(origin) => out.push(Action::Carry { session: id, connection, origin }),
            Err(reason) => out.push(Action::RefuseConnection { connection, reason }),
        }
    }

    fn take_path(
        &mut self,
        id: SessionId,
        path: TcpPath,
        now: Instant,
        out: &mut Vec<Action>,
    ) -> Result<SocketAddr, TcpRefusal> {
        let admitted = |session: &&mut Session| !matches!(session.state, State::Admitting(_));
        let session = self.sessions.get_mut(&id).filter(admitted).ok_or(TcpRefusal::Ended)?;
        let origin = session.offer.webrtc().and_then(|webrtc| webrtc.tcp).ok_or(TcpRefusal::NotOffered)?;
        let (was_awaited, was_used) = (session.is_awaited(), session.tcp.were_used());
        if !session.tcp.add(path, now) {
            return Err(TcpRefusal::TooMany);
        }
        let client_ip = session.offer.client_ip;
        tracing::info!(session = id.0, stream = session.offer.stream_name(), client = %path.client, "media over TCP");
        if was_awaited {
            self.client_heard(client_ip, out);
        }
        if !was_used {
            self.touched.push(id);
        }
        Ok(origin)
    }

    pub(super) fn carried(
        &mut self,
        looks: Vec<(SessionId, ConnectionId, Carried)>,
        now: Instant,
        out: &mut Vec<Action>,
    ) {
        for (id, connection, look) in looks {
            let Some(session) = self.sessions.get_mut(&id) else { continue };
            match look {
                Carried::Bytes => session.tcp.hear(now),
                Carried::Ended => {
                    // It may come by UDP, or anew.
                    if session.tcp.remove(connection) && session.is_awaited() {
                        let client_ip = session.offer.client_ip;
                        self.await_client(client_ip, out);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
