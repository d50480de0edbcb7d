//! An origin until it has accepted the stream.

use std::net::SocketAddr;

use proxy_protocol::{
    rtmp::{
        Message,
        origin_session::{OriginEffect, OriginSession, OriginStep},
        request::Refusal,
    },
    stream_url::StreamKey,
};
use tokio::{
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tracing::{debug, warn};

use super::{Failure, Rtmp, client::Wish, leg::Leg};
use crate::{connections::Connection, net::join, origin::connector::Service};

/// How often a stream may be said to be elsewhere.
const MAX_REDIRECTIONS: u32 = 3;

/// An origin that has accepted.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) origin: Leg,
    pub(super) session: OriginSession,
    /// What it said to its client by then.
    pub(super) said: Vec<Message>,
}

/// What an origin's words come to.
enum Answer {
    Accepted(Box<Answered>),
    Redirected(String),
    Refused(Refusal),
}

impl Rtmp {
    /// Asks the stream's origin; if it cannot be reached, the next one, once.
    pub(super) async fn ask(
        &self,
        stream: &StreamKey,
        wish: &Wish,
        connection: &Connection,
    ) -> Result<Answered, Refusal> {
        let reached = self.origins.to_stream(stream, Service::Rtmp).await;
        let (origin, dialed) = reached.map_err(|error| because(error.tell()))?;
        connection.place(Some(stream), &origin.id);
        self.talk(dialed, stream, wish, connection).await
    }

    /// Asks where another origin said that the stream is: at an origin of ours, or nowhere.
    pub(super) async fn ask_at(
        &self,
        url: &str,
        stream: &StreamKey,
        wish: &Wish,
        connection: &Connection,
    ) -> Result<Answered, Refusal> {
        let dialed = self.follow(url, stream, connection).await?;
        self.talk(dialed, stream, wish, connection).await
    }

    async fn talk(
        &self,
        mut dialed: TcpStream,
        stream: &StreamKey,
        wish: &Wish,
        connection: &Connection,
    ) -> Result<Answered, Refusal> {
        for _ in 0..=MAX_REDIRECTIONS {
            let answer = self.converse(dialed, wish).await.unwrap_or_else(|failure| {
                debug!(%failure, "origin failed");
                Answer::Refused(because("the origin of this stream failed"))
            });
            match answer {
                Answer::Accepted(answered) => return Ok(*answered),
                Answer::Refused(refusal) => return Err(refusal),
                Answer::Redirected(url) => dialed = self.follow(&url, stream, connection).await?,
            }
        }
        Err(because("origins redirect to each other"))
    }

    async fn converse(&self, dialed: TcpStream, wish: &Wish) -> Result<Answer, Failure> {
        join::prepare(&dialed)?;
        let shaken = timeout(self.deadlines.origin, Leg::of_origin(dialed, wish.real_ip)).await;
        let mut origin = shaken.map_err(|_| Failure::OriginTimeout)??;
        let (mut session, first) = OriginSession::start(&wish.connect, wish.asked.clone(), wish.chunk_size);
        first.iter().try_for_each(|message| origin.send(message))?;
        let mut deadline = Instant::now() + self.deadlines.origin;
        loop {
            let step = session.step();
            let message = match timeout_at(deadline, origin.message()).await {
                Ok(Err(Failure::Left)) => return Ok(Answer::Refused(session.closed())),
                Ok(received) => received?,
                Err(_) => return Err(Failure::OriginTimeout),
            };
            let mut said = None;
            for effect in session.apply(message)? {
                match effect {
                    OriginEffect::Send(message) => origin.send(&message)?,
                    OriginEffect::Started(messages) => said = Some(messages),
                    OriginEffect::Relay(message) => said.get_or_insert_default().push(message),
                    OriginEffect::Redirect { url } => return Ok(Answer::Redirected(url)),
                    OriginEffect::Refused(refusal) => return Ok(Answer::Refused(refusal)),
                }
            }
            if let Some(said) = said {
                origin.flush().await?;
                return Ok(Answer::Accepted(Box::new(Answered { origin, session, said })));
            }
            if session.step() != step {
                let start = session.step() == OriginStep::Start;
                deadline = Instant::now() + if start { self.deadlines.start } else { self.deadlines.origin };
            }
        }
    }

    async fn follow(
        &self,
        url: &str,
        stream: &StreamKey,
        connection: &Connection,
    ) -> Result<TcpStream, Refusal> {
        let origin = match address(url) {
            Some(address) => self.origins.registry.at_rtmp(address).await,
            None => None,
        };
        let Some(origin) = origin else {
            warn!(url, "an origin redirects to a server that is none of ours");
            return Err(because("the stream is at a server that is none of ours"));
        };
        let dialed = self.origins.to_origin(&origin, Service::Rtmp).await;
        let dialed = dialed.map_err(|error| because(error.tell()))?;
        connection.place(Some(stream), &origin.id);
        Ok(dialed)
    }
}

/// The address in `rtmp://host:port/app`, if the host is an address.
fn address(url: &str) -> Option<SocketAddr> {
    const PORT: u16 = 1935;
    let (_, rest) = url.split_once("://")?;
    let authority = rest.split('/').next()?;
    let with_port = || authority.parse().ok();
    with_port().or_else(|| {
        let host = authority.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(authority);
        Some(SocketAddr::new(host.parse().ok()?, PORT))
    })
}

fn because(description: &str) -> Refusal {
    Refusal { code: None, description: description.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_redirection_is_read() {
        for (url, expected) in [
            ("rtmp://10.0.0.1:1936/live/s", Some("10.0.0.1:1936")),
            ("rtmp://10.0.0.1/live", Some("10.0.0.1:1935")),
            ("rtmp://[::1]:1936/live", Some("[::1]:1936")),
            ("rtmp://[::1]/live", Some("[::1]:1935")),
            ("rtmp://origin.example/live", None),
            ("10.0.0.1:1935", None),
            ("", None),
        ] {
            assert_eq!(address(url), expected.map(|text| text.parse().unwrap()), "{url}");
        }
    }
}
