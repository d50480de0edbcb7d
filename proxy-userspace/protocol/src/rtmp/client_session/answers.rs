//! What clients are told, as SRS 7 tells it.

use super::STREAM;
use crate::rtmp::{
    amf0::{self, Properties, Text, Value},
    command::{
        Command,
        status::{Level, Status, code, on_status},
    },
    control::{BandwidthLimit, Control, Event},
    message::{Message, kind},
    request::{Connect, PublishOrder, Refusal, Role},
};

/// The window of both directions, in bytes.
pub const WINDOW: u32 = 2_500_000;
/// The size of the chunks that go to clients, until the origin says another one.
pub const CHUNK_SIZE: u32 = 60_000;

/// The version that SRS claims of Adobe's server.
const FMS_VERSION: &str = "3,5,3,888";
/// Of statuses about a stream.
const CLIENT_ID: (&str, &str) = ("clientid", "ASAICiss");
/// The chunk stream on which SRS speaks about a stream.
const STREAM_CHUNK_STREAM: u32 = 5;

/// How the proxy names itself to clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerName {
    /// The program.
    pub signature: String,
    /// Its version.
    pub version: String,
    /// What the log calls this connection.
    pub connection: String,
}

/// The answers to `connect`. The chunk size comes before the long one: OBS wants it so, says SRS.
pub(super) fn connected(connect: &Connect, server: &ServerName) -> Vec<Message> {
    let transaction = connect.command().transaction;
    vec![
        Control::WindowAcknowledgementSize(WINDOW).to_message(),
        Control::SetPeerBandwidth { window: WINDOW, limit: BandwidthLimit::Dynamic }.to_message(),
        Control::SetChunkSize(CHUNK_SIZE).to_message(),
        Command::result(transaction, capabilities(), success(connect, server)).to_message(),
        Command::new("onBWDone", 0.0, Vec::new()).to_message(),
    ]
}

fn capabilities() -> Value {
    let version = format!("FMS/{FMS_VERSION}");
    let capabilities =
        [("fmsVer", version.as_str().into()), ("capabilities", 127.0.into()), ("mode", 1.0.into())];
    Properties::from(capabilities).into()
}

fn success(connect: &Connect, server: &ServerName) -> Value {
    let data = Properties::from([
        ("version", FMS_VERSION.into()),
        ("srs_sig", server.signature.as_str().into()),
        ("srs_server", format!("{}/{}", server.signature, server.version).as_str().into()),
        ("srs_version", server.version.as_str().into()),
        ("srs_id", server.connection.as_str().into()),
    ]);
    let count = u32::try_from(data.len()).unwrap_or_default();
    let success = [
        ("level", Level::Status.as_str().into()),
        ("code", code::CONNECT_SUCCESS.into()),
        ("description", "Connection succeeded".into()),
        ("objectEncoding", connect.object_encoding().into()),
        ("data", Value::EcmaArray { count, properties: data }),
    ];
    Properties::from(success).into()
}

/// What the client is told when the origin has accepted: what the origin said, and what it left out.
pub(super) fn accepted(role: Role, origin_says: Vec<Message>) -> Vec<Message> {
    let mut said: Vec<_> = origin_says.into_iter().map(|message| (Answer::of(&message), message)).collect();
    let has_start = said.iter().any(|(answer, _)| *answer == Answer::Start);
    for answer in Answer::expected(role, has_start) {
        if !said.iter().any(|(other, _)| other == answer) {
            said.extend(answer.to_message(role).map(|message| (*answer, message)));
        }
    }
    said.sort_by_key(|(answer, _)| *answer);
    said.into_iter().map(|(_, message)| message).collect()
}

/// What the client is told when no origin accepts.
pub(super) fn refused(role: Role, refusal: &Refusal) -> Message {
    let (ours, prefix) = match role {
        Role::Publisher(_) => (code::PUBLISH_BAD_NAME, "NetStream.Publish."),
        Role::Player => (code::PLAY_FAILED, "NetStream.Play."),
    };
    let theirs = refusal.code.as_ref().map(Text::to_url_text);
    let description = refusal.description.to_url_text();
    let status = match theirs.as_deref() {
        Some(theirs) if theirs.starts_with(prefix) => on_status(Level::Error, theirs, &description, &[]),
        Some(theirs) => on_status(Level::Error, ours, &format!("{description} ({theirs})"), &[]),
        None => on_status(Level::Error, ours, &description, &[]),
    };
    status.to_message_on(STREAM, STREAM_CHUNK_STREAM)
}

/// What a message is among the answers to `publish` or `play`, in the order in which clients expect them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Answer {
    Begin,
    Reset,
    FcPublish,
    Start,
    Access,
    Other,
}

impl Answer {
    const fn expected(role: Role, has_start: bool) -> &'static [Self] {
        match role {
            Role::Publisher(PublishOrder::Fmle) => &[Self::FcPublish, Self::Start],
            Role::Publisher(PublishOrder::Flash) => &[Self::Start],
            Role::Player if has_start => &[Self::Begin, Self::Reset, Self::Start],
            // SRS says the access right after the start, so it belongs to a start that we say.
            Role::Player => &[Self::Begin, Self::Reset, Self::Start, Self::Access],
        }
    }

    fn of(message: &Message) -> Self {
        match message.kind {
            kind::USER_CONTROL => {
                let begins = Control::parse(message)
                    .is_ok_and(|control| matches!(control, Control::UserControl(Event::StreamBegin { .. })));
                if begins { Self::Begin } else { Self::Other }
            }
            kind::COMMAND_AMF0 | kind::COMMAND_AMF3 => {
                Command::parse(message).map_or(Self::Other, |command| Self::of_command(&command))
            }
            _ => Self::Other,
        }
    }

    fn of_command(command: &Command) -> Self {
        if command.name == "onFCPublish" {
            return Self::FcPublish;
        }
        let status = Status::of(command);
        match status.as_ref().and_then(Status::code) {
            Some(code) if *code == code::PLAY_RESET => Self::Reset,
            Some(code) if *code == code::PLAY_START || *code == code::PUBLISH_START => Self::Start,
            Some(_) | None => Self::Other,
        }
    }

    fn to_message(self, role: Role) -> Option<Message> {
        let command = match (self, role) {
            (Self::Begin, _) => {
                return Some(Control::UserControl(Event::StreamBegin { stream: STREAM }).to_message());
            }
            (Self::Reset, _) => play_status(code::PLAY_RESET, "Playing and resetting stream."),
            (Self::FcPublish, _) => fc_publish(),
            (Self::Start, Role::Publisher(_)) => {
                on_status(Level::Status, code::PUBLISH_START, "Started publishing stream.", &[CLIENT_ID])
            }
            (Self::Start, Role::Player) => play_status(code::PLAY_START, "Started playing stream."),
            (Self::Access, _) => return Some(sample_access()),
            (Self::Other, _) => return None,
        };
        Some(command.to_message_on(STREAM, STREAM_CHUNK_STREAM))
    }
}

fn play_status(code: &str, description: &str) -> Command {
    on_status(Level::Status, code, description, &[("details", "stream"), CLIENT_ID])
}

fn fc_publish() -> Command {
    let info = [("code", code::PUBLISH_START.into()), ("description", "Started publishing stream.".into())];
    Command::new("onFCPublish", 0.0, vec![Properties::from(info).into()])
}

/// Lets the client look into audio and video, which Flash players ask for before they draw.
fn sample_access() -> Message {
    let mut payload = Vec::new();
    amf0::encode(&["|RtmpSampleAccess".into(), true.into(), true.into()], &mut payload);
    Message {
        chunk_stream: STREAM_CHUNK_STREAM,
        timestamp: 0,
        kind: kind::DATA_AMF0,
        stream: STREAM,
        payload,
    }
}
