//! What peers say.

use std::net::SocketAddr;

use proxy_protocol::rtmp::{
    Message,
    amf0::{Properties, Value},
    client_session::STREAM,
    command::{
        Command,
        status::{Level, code, on_status},
    },
    message::kind,
};

const CHUNK_STREAM: u32 = 8;

/// `connect` to the app `live` of a server.
#[must_use]
pub fn connect(server: SocketAddr) -> Message {
    let url = format!("rtmp://{server}/live");
    let object = Properties::from([("app", "live".into()), ("tcUrl", url.as_str().into())]);
    Command { object: object.into(), ..Command::new("connect", 1.0, Vec::new()) }.to_message()
}

/// `createStream`.
#[must_use]
pub fn create_stream() -> Message {
    Command::new("createStream", 2.0, Vec::new()).to_message()
}

/// `publish` of a stream.
#[must_use]
pub fn publish(name: &str) -> Message {
    Command::new("publish", 3.0, vec![name.into(), "live".into()]).to_message_on(STREAM, CHUNK_STREAM)
}

/// `play` of a stream.
#[must_use]
pub fn play(name: &str) -> Message {
    Command::new("play", 3.0, vec![name.into()]).to_message_on(STREAM, CHUNK_STREAM)
}

/// A message of video.
#[must_use]
pub fn media(chunk_stream: u32, timestamp: u32, payload: Vec<u8>) -> Message {
    Message { chunk_stream, timestamp, kind: kind::VIDEO, stream: STREAM, payload }
}

/// `onStatus` about the stream.
#[must_use]
pub fn status(code: &str) -> Message {
    on_status(Level::Status, code, "", &[]).to_message_on(STREAM, CHUNK_STREAM)
}

/// What SRS says about the connection of a client whose stream is at another server.
#[must_use]
pub fn redirection(to: &str) -> Command {
    let ex = Properties::from([("code", Value::Number(302.0)), ("redirect", to.into())]);
    let info = Properties::from([
        ("level", Level::Error.as_str().into()),
        ("code", code::CONNECT_REJECTED.into()),
        ("description", "RTMP 302 Redirect".into()),
        ("ex", ex.into()),
    ]);
    Command::new("onStatus", 0.0, vec![info.into()])
}
