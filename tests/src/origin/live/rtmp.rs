//! RTMP as SRS answers it: a client names its stream and then sends it or gets it.

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use proxy_protocol::{
    rtmp::{
        ClientSession, Message,
        amf0::{Properties, Value},
        client_session::{ClientEffect, ClientStep, ServerName},
        command::{
            Command,
            status::{Level, on_status},
        },
        message::{COMMAND_CHUNK_STREAM, kind},
        request::{Connect, Request, Role},
    },
    stream_url::StreamRules,
};
use tokio::{net::TcpStream, time::timeout};

use super::{
    frame::{Frame, Kind},
    hub::{By, Hub, Publication},
    peer::Peer,
    queue::Queue,
};
use crate::origin::random_id;

/// What a client may take for its next step.
const STEP: Duration = Duration::from_secs(30);
/// What is put together before it is sent.
const BATCH: usize = 64 << 10;

/// Where SRS puts what it sends to players of FFmpeg's streams.
const VIDEO_CHUNK_STREAM: u32 = 6;
const OTHER_CHUNK_STREAM: u32 = 4;
/// The chunk stream and the message stream of statuses.
const STATUS: (u32, u32) = (5, 1);

/// What a client wants, and what it sent before it was told that it may.
struct Wish {
    stream: String,
    role: Role,
    /// After how many bytes it wants to be told that they have come.
    window: Option<u32>,
    session: ClientSession,
}

/// Serves one connection to its end.
pub(super) async fn serve(socket: TcpStream, hub: Hub) -> Result<()> {
    let mut peer = timeout(STEP, Peer::accept(socket)).await.context("no handshake")??;
    let wish = wish(&mut peer).await?;
    peer.acknowledge_every(wish.window);
    match wish.role {
        Role::Publisher(_) => publish(&mut peer, wish, &hub).await,
        Role::Player => play(&mut peer, wish, &hub).await,
    }
}

/// Answers a client until it has named its stream.
async fn wish(peer: &mut Peer) -> Result<Wish> {
    let (mut session, mut connect) = (ClientSession::new(server_name()), None);
    while session.step() != ClientStep::Origin {
        let message = timeout(STEP, peer.message()).await.context("no next step")??;
        for effect in session.apply(message)? {
            match effect {
                ClientEffect::Send(message) => peer.send(&message)?,
                ClientEffect::Connected(connected) => connect = Some(connected),
                ClientEffect::Requested(asked) => {
                    let connect = connect.context("a request before connect")?;
                    let stream = stream_name(&connect, &asked.request)?;
                    return Ok(Wish { stream, role: asked.request.role(), window: asked.window, session });
                }
            }
        }
        peer.flush().await?;
    }
    bail!("a session waits for an origin and has not asked for one")
}

fn server_name() -> ServerName {
    ServerName { signature: "SRS".into(), version: "7.0.18(Hang)".into(), connection: random_id(8) }
}

/// `app/stream`, whatever the host and the queries are.
fn stream_name(connect: &Connect, request: &Request) -> Result<String> {
    let key = connect.stream_key(&StreamRules::default(), request.name())?;
    Ok(format!("{}/{}", key.app(), key.stream()))
}

async fn publish(peer: &mut Peer, wish: Wish, hub: &Hub) -> Result<()> {
    let publication = hub.publish(&wish.stream);
    let mut answers = wish.session.accepted(Vec::new());
    if publication.is_none() {
        // To a second publisher SRS says everything but that it may start, and closes.
        answers.to_client.pop();
    }
    answers.to_client.iter().try_for_each(|message| peer.send(message))?;
    peer.flush().await?;
    let Some(publication) = publication else { return Ok(()) };
    for message in answers.to_origin {
        publication.push(message);
    }
    take_from(peer, &publication).await
}

/// Takes media until the publisher says that this is all.
async fn take_from(peer: &mut Peer, publication: &Publication) -> Result<()> {
    loop {
        let message = timeout(STEP, peer.message()).await.context("the publisher is silent")??;
        if message.kind != kind::COMMAND_AMF0 {
            publication.push(message);
            continue;
        }
        let command = Command::parse(&message)?;
        match command.name.as_bytes() {
            b"FCUnpublish" => {
                unpublished(&command).iter().try_for_each(|message| peer.send(message))?;
                return peer.flush().await;
            }
            b"deleteStream" | b"closeStream" => return Ok(()),
            _ => {}
        }
    }
}

/// What SRS tells a publisher that has ended its stream.
fn unpublished(command: &Command) -> [Message; 3] {
    let description = "Stop publishing stream.";
    let info = [("code", "NetStream.Unpublish.Success".into()), ("description", description.into())];
    let (chunk_stream, stream) = STATUS;
    [
        Command::new("onFCUnpublish", 0.0, vec![Properties::from(info).into()])
            .to_message_on(stream, chunk_stream),
        Command::result(command.transaction, Value::Null, Value::Undefined)
            .to_message_on(stream, COMMAND_CHUNK_STREAM),
        on_status(
            Level::Status,
            "NetStream.Unpublish.Success",
            "Stream is now unpublished",
            &[("clientid", "ASAICiss")],
        )
        .to_message_on(stream, chunk_stream),
    ]
}

async fn play(peer: &mut Peer, wish: Wish, hub: &Hub) -> Result<()> {
    let mut queue = hub.play(&wish.stream, By::Rtmp).context("there are too many streams")?;
    let answers = wish.session.accepted(Vec::new());
    answers.to_client.iter().try_for_each(|message| peer.send(message))?;
    peer.flush().await?;
    loop {
        tokio::select! {
            frame = queue.next() => {
                let frame = frame.context("the player is too slow")?;
                give(peer, frame, &mut queue).await?;
            }
            message = peer.message() => {
                if is_farewell(&message?) {
                    return Ok(());
                }
            }
        }
    }
}

/// Sends a frame and those behind it.
async fn give(peer: &mut Peer, first: Frame, queue: &mut Queue) -> Result<()> {
    let mut next = Some(first);
    while let Some(frame) = next.take() {
        peer.send(&message(&frame))?;
        if peer.unsent() < BATCH {
            next = queue.try_next();
        }
    }
    peer.flush().await
}

fn message(frame: &Frame) -> Message {
    let (chunk_stream, kind) = match frame.kind {
        Kind::Video => (VIDEO_CHUNK_STREAM, kind::VIDEO),
        Kind::Audio => (OTHER_CHUNK_STREAM, kind::AUDIO),
        Kind::Data => (OTHER_CHUNK_STREAM, kind::DATA_AMF0),
    };
    Message {
        chunk_stream,
        timestamp: frame.timestamp,
        kind,
        stream: STATUS.1,
        payload: frame.payload.to_vec(),
    }
}

/// Whether a player says that it wants no more; a question about the time is answered by the connection itself.
fn is_farewell(message: &Message) -> bool {
    let farewells: [&[u8]; 2] = [b"deleteStream", b"closeStream"];
    Command::parse(message).is_ok_and(|command| farewells.contains(&command.name.as_bytes()))
}

#[cfg(test)]
mod tests {
    use proxy_protocol::rtmp::control::Control;

    use super::*;

    #[test]
    fn frames_go_where_srs_puts_them() {
        let frame = |kind| Frame { kind, timestamp: 5, payload: vec![1].into() };
        let streams = [Kind::Video, Kind::Audio, Kind::Data].map(|kind| message(&frame(kind)).chunk_stream);
        assert_eq!(streams, [6, 4, 4]);
    }

    #[test]
    fn a_player_that_deletes_its_stream_wants_no_more() {
        assert!(is_farewell(&Command::new("deleteStream", 0.0, vec![1.0.into()]).to_message()));
        assert!(!is_farewell(&Command::new("pause", 0.0, vec![true.into()]).to_message()));
        assert!(!is_farewell(&Control::Acknowledgement(1).to_message()));
    }
}
