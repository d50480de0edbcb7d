//! Messages from leg to leg, until the bytes themselves mean the same to both peers.

use bytes::Buf as _;
use proxy_protocol::rtmp::{
    join,
    message::kind,
    origin_session::{OriginEffect, OriginSession, OriginStep},
};

use super::{Failure, leg::Leg};
use crate::net::join::Traffic;

/// What comes of relaying.
#[derive(Debug)]
pub(super) enum Outcome {
    /// One of them has left.
    Ended,
    /// From here on bytes can be carried unread.
    Joinable(Box<Leg>),
    /// The origin says that the stream is elsewhere.
    Redirected(String),
}

enum Ready {
    ClientReads,
    ClientWrites,
    OriginReads,
    OriginWrites,
}

/// The two legs and what the origin is still waited for.
struct Relay<'a> {
    client: &'a mut Leg,
    origin: Leg,
    asking: OriginSession,
    redirection: Option<String>,
}

/// Relays until the connections can be joined. Of each peer no more is read than the other one takes.
pub(super) async fn until_joinable(
    client: &mut Leg,
    origin: Leg,
    asking: OriginSession,
    traffic: &Traffic,
) -> Result<Outcome, Failure> {
    let mut relay = Relay { client, origin, asking, redirection: None };
    loop {
        // What had come with the answer may be enough.
        match relay.pump() {
            Err(Failure::Left) => return Ok(Outcome::Ended),
            pumped => pumped?,
        }
        if let Some(url) = relay.redirection.take() {
            return Ok(Outcome::Redirected(url));
        }
        if relay.has_sent_all() && relay.is_joinable() {
            return Ok(Outcome::Joinable(Box::new(relay.origin)));
        }
        match relay.step(traffic).await {
            Err(Failure::Left) => return Ok(Outcome::Ended),
            moved => moved?,
        }
    }
}

impl Relay<'_> {
    async fn step(&mut self, traffic: &Traffic) -> Result<(), Failure> {
        let Self { client, origin, .. } = self;
        let ready = tokio::select! {
            ready = client.stream.writable(), if !client.output.is_empty() => ready.map(|()| Ready::ClientWrites),
            ready = origin.stream.writable(), if !origin.output.is_empty() => ready.map(|()| Ready::OriginWrites),
            ready = client.stream.readable(), if origin.output.is_empty() => ready.map(|()| Ready::ClientReads),
            ready = origin.stream.readable(), if client.output.is_empty() => ready.map(|()| Ready::OriginReads),
        };
        match ready? {
            Ready::ClientReads => traffic.count(client.receive()?, 0),
            Ready::OriginReads => traffic.count(0, origin.receive()?),
            Ready::ClientWrites => client.transmit()?,
            Ready::OriginWrites => origin.transmit()?,
        }
        Ok(())
    }

    fn has_sent_all(&self) -> bool {
        self.client.output.is_empty() && self.origin.output.is_empty()
    }

    /// A redirection may still come before media does.
    fn is_joinable(&self) -> bool {
        self.asking.step() == OriginStep::Flowing
            && join::check(&self.client.reader, &self.origin.writer).is_ok()
            && join::check(&self.origin.reader, &self.client.writer).is_ok()
    }

    /// Relays what was received, up to the end of a message after which the two can be joined.
    fn pump(&mut self) -> Result<(), Failure> {
        while !self.is_joinable() && (self.relay_from_client()? || self.relay_from_origin()?) {}
        Ok(())
    }

    /// Relays a piece of what the client sent, if there is one.
    fn relay_from_client(&mut self) -> Result<bool, Failure> {
        let Self { client, origin, .. } = self;
        let mut rest = &client.input[..];
        let piece = client.reader.read(&mut rest)?;
        let relayed = piece.map(|piece| origin.writer.relay(&piece, &mut origin.output));
        let taken = client.input.len() - rest.len();
        client.input.advance(taken);
        relayed.transpose()?;
        Ok(relayed.is_some())
    }

    /// Relays a piece of what the origin sent, if there is one. Before there is media, commands are looked at: they may say
    /// that the stream is elsewhere.
    fn relay_from_origin(&mut self) -> Result<bool, Failure> {
        let Self { client, origin, asking, redirection } = self;
        let mut rest = &origin.input[..];
        let Some(piece) = origin.reader.read(&mut rest)? else {
            let taken = origin.input.len() - rest.len();
            origin.input.advance(taken);
            return Ok(false);
        };
        let is_command = matches!(piece.header.state.kind, kind::COMMAND_AMF0 | kind::COMMAND_AMF3);
        if asking.step() == OriginStep::Started && is_command {
            if let Some(command) = origin.assembler.push(&piece)? {
                for effect in asking.apply(command)? {
                    match effect {
                        OriginEffect::Relay(message) => client.writer.write(&message, &mut client.output)?,
                        OriginEffect::Redirect { url } => *redirection = Some(url),
                        OriginEffect::Send(message) => origin.writer.write(&message, &mut origin.output)?,
                        OriginEffect::Started(_) | OriginEffect::Refused(_) => {}
                    }
                }
            }
        } else {
            asking.relayed(piece.header.state.kind);
            client.writer.relay(&piece, &mut client.output)?;
        }
        let taken = origin.input.len() - rest.len();
        origin.input.advance(taken);
        Ok(redirection.is_none())
    }
}
