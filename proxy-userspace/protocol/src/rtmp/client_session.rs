//! The client's side of the proxy: a server of RTMP until the origin is known.
//!
//! ```text
//!            connect                publish, play                accepted
//! Connect ──────────────► Request ─────────────────► Origin ───────────────► relayed, no session any more
//!                                                      │ refused
//!                                                      └───────► told why, to be closed
//! ```
//!
//! A client waits for the success of `connect` before it names its stream, and the stream names the origin, so
//! [`ClientSession`] answers everything up to `publish` or `play` by itself. It answers as SRS 7 does, with its figures
//! and in its order, and knows the three orders of publishers that SRS knows (FMLE, Flash and Haivision). What
//! SRS leaves unanswered although the client waits (`_checkbw` and `FCSubscribe` after `createStream`) gets an empty
//! result. What is of no concern is ignored: acknowledgements, events, media that comes too early, kinds that nobody
//! knows.
//!
//! It reads no clock. [`ClientSession::step`] says what it waits for, and whoever feeds it sets the deadline.

mod answers;

use thiserror::Error;

pub use self::answers::{CHUNK_SIZE, ServerName, WINDOW};
use super::{
    amf0::Value,
    command::{Command, CommandError},
    control::{Control, Event},
    filler::Heads,
    message::{Message, kind},
    request::{Asked, Connect, Play, Publish, PublishOrder, Refusal, Request, RequestError, Role},
};

/// The message stream that every `createStream` is answered with. SRS hands out no other one.
pub const STREAM: u32 = 1;
/// How many messages a client may send before it names its stream.
pub const MAX_MESSAGES: usize = 1024;
/// How many messages are kept for the origin while it is asked.
pub const MAX_HELD_MESSAGES: usize = 256;
/// How many bytes these may have.
pub const MAX_HELD_BYTES: usize = 4 << 20;

/// Why a client is not served further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum ClientFault {
    /// A command is malformed.
    #[error("client sent a malformed command: {0}")]
    Command(#[from] CommandError),
    /// A command asks for nothing that can be passed on.
    #[error("client's request cannot be passed on: {0}")]
    Request(#[from] RequestError),
    /// More than [`MAX_MESSAGES`] came.
    #[error("client sent too many messages before it named its stream")]
    TooMany,
    /// More came than is kept while the origin is asked.
    #[error("client sent too much before its stream was accepted")]
    TooEager,
}

/// What a session waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientStep {
    /// The client's `connect`.
    Connect,
    /// Its `publish` or `play`.
    Request,
    /// The origin's answer.
    Origin,
}

/// What to do about a message.
#[derive(Debug, Clone, PartialEq)]
pub enum ClientEffect {
    /// Write this to the client.
    Send(Message),
    /// The client has connected, and knows it.
    Connected(Connect),
    /// The client has named its stream: ask an origin.
    Requested(Asked),
}

/// What both ends get once the origin has accepted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Accepted {
    /// To be written to the client.
    pub to_client: Vec<Message>,
    /// To be written to the origin: what came from the client in the meantime. Another origin that this one redirects to
    /// needs it too.
    pub to_origin: Vec<Message>,
}

/// A client until its stream is accepted.
#[derive(Debug)]
pub struct ClientSession {
    server: ServerName,
    window: Option<u32>,
    /// Of what the origin does not get.
    heads: Heads,
    state: State,
}

#[derive(Debug)]
enum State {
    Connect { messages: usize },
    Request { messages: usize, order: PublishOrder, buffer: Option<u32> },
    Origin { role: Role, held: Vec<Message>, held_bytes: usize },
}

impl ClientSession {
    /// A client that has shaken hands.
    #[must_use]
    pub fn new(server: ServerName) -> Self {
        Self { server, window: None, heads: Heads::default(), state: State::Connect { messages: 0 } }
    }

    /// What it waits for.
    #[must_use]
    pub const fn step(&self) -> ClientStep {
        match self.state {
            State::Connect { .. } => ClientStep::Connect,
            State::Request { .. } => ClientStep::Request,
            State::Origin { .. } => ClientStep::Origin,
        }
    }

    /// Takes the client's next message.
    ///
    /// After [`ClientEffect::Requested`] it is best not to read on until the origin has answered; what was read already
    /// is kept for it, within limits.
    ///
    /// # Errors
    ///
    /// Fails if the client cannot be served; the connection is to be closed.
    pub fn apply(&mut self, message: Message) -> Result<Vec<ClientEffect>, ClientFault> {
        match &mut self.state {
            State::Connect { messages } | State::Request { messages, .. } => {
                *messages += 1;
                if *messages > MAX_MESSAGES { Err(ClientFault::TooMany) } else { self.serve(message) }
            }
            State::Origin { held, held_bytes, .. } => {
                hold(message, held, held_bytes)?;
                Ok(Vec::new())
            }
        }
    }

    /// The origin has accepted; `origin_says` is what it said, in its order.
    ///
    /// What a client expects and the origin has not said is said in its place.
    #[must_use]
    pub fn accepted(self, origin_says: Vec<Message>) -> Accepted {
        match self.state {
            State::Connect { .. } | State::Request { .. } => {
                Accepted { to_client: origin_says, to_origin: Vec::new() }
            }
            State::Origin { role, held, .. } => {
                Accepted { to_client: answers::accepted(role, origin_says), to_origin: held }
            }
        }
    }

    /// No origin accepts: what the client is told before the connection is closed.
    #[must_use]
    pub fn refused(self, refusal: &Refusal) -> Vec<Message> {
        match self.state {
            State::Connect { .. } | State::Request { .. } => Vec::new(),
            State::Origin { role, .. } => vec![answers::refused(role, refusal)],
        }
    }

    fn serve(&mut self, message: Message) -> Result<Vec<ClientEffect>, ClientFault> {
        if let Ok(control) = Control::parse(&message) {
            self.heads.note(&message);
            return Ok(self.control(&control));
        }
        let command = match message.kind {
            kind::COMMAND_AMF0 | kind::COMMAND_AMF3 => Some(Command::parse(&message)?),
            _ => None,
        };
        if let (Some(command), State::Request { order, buffer, .. }) = (&command, &self.state)
            && let Some(request) = request(command, *order, *buffer)?
        {
            return Ok(vec![self.requested(request, message)]);
        }
        self.heads.note(&message);
        match (command, &mut self.state) {
            (Some(command), State::Connect { .. }) => self.connect(command),
            (Some(command), State::Request { order, .. }) => Ok(answer(&command, order)),
            (_, State::Connect { .. } | State::Request { .. } | State::Origin { .. }) => Ok(Vec::new()),
        }
    }

    /// Events of a stream and the like are of no concern before there is one.
    fn control(&mut self, control: &Control) -> Vec<ClientEffect> {
        match control {
            Control::WindowAcknowledgementSize(window) => self.window = Some(*window),
            Control::UserControl(Event::SetBufferLength { milliseconds, .. }) => self.buffer(*milliseconds),
            Control::UserControl(Event::PingRequest { timestamp }) => {
                let answer = Control::UserControl(Event::PingResponse { timestamp: *timestamp });
                return vec![ClientEffect::Send(answer.to_message())];
            }
            Control::SetChunkSize(_)
            | Control::Abort { .. }
            | Control::Acknowledgement(_)
            | Control::SetPeerBandwidth { .. }
            | Control::UserControl(_) => {}
        }
        Vec::new()
    }

    const fn buffer(&mut self, milliseconds: u32) {
        if let State::Request { buffer, .. } = &mut self.state {
            *buffer = Some(milliseconds);
        }
    }

    fn connect(&mut self, command: Command) -> Result<Vec<ClientEffect>, ClientFault> {
        if command.name != "connect" {
            return Ok(Vec::new());
        }
        let connect = Connect::new(command)?;
        let answers = answers::connected(&connect, &self.server);
        self.state = State::Request { messages: 0, order: PublishOrder::Flash, buffer: None };
        let answers = answers.into_iter().map(ClientEffect::Send);
        Ok(answers.chain([ClientEffect::Connected(connect)]).collect())
    }

    fn requested(&mut self, request: Request, message: Message) -> ClientEffect {
        self.state = State::Origin { role: request.role(), held: Vec::new(), held_bytes: 0 };
        let fillers = self.heads.fillers(std::slice::from_ref(&message));
        ClientEffect::Requested(Asked { request, message, fillers, window: self.window })
    }
}

/// The request that a command is, if it is one.
fn request(
    command: &Command,
    order: PublishOrder,
    buffer: Option<u32>,
) -> Result<Option<Request>, RequestError> {
    match command.name.as_bytes() {
        b"publish" => Publish::new(command, order).map(|publish| Some(Request::Publish(publish))),
        b"play" => Play::new(command, buffer).map(|play| Some(Request::Play(play))),
        _ => Ok(None),
    }
}

/// The answer to any other command, and what it tells about the request to come.
fn answer(command: &Command, order: &mut PublishOrder) -> Vec<ClientEffect> {
    let answer = match command.name.as_bytes() {
        b"releaseStream" | b"FCPublish" | b"FCUnpublish" => {
            *order = PublishOrder::Fmle;
            // GStreamer's have transaction 0 and are answered all the same.
            Value::Undefined
        }
        b"createStream" => f64::from(STREAM).into(),
        // A live stream has no length; ffmpeg takes anything else than a number for a mistake.
        b"getStreamLength" => 0.0.into(),
        b"connect" | b"_result" | b"_error" => return Vec::new(),
        _ if command.expects_answer() => Value::Null,
        _ => return Vec::new(),
    };
    vec![ClientEffect::Send(Command::result(command.transaction, Value::Null, answer).to_message())]
}

/// Keeps what the origin is to get once it has accepted, which is everything: so it will be from then on.
fn hold(message: Message, held: &mut Vec<Message>, bytes: &mut usize) -> Result<(), ClientFault> {
    *bytes = bytes.saturating_add(message.payload.len());
    if held.len() >= MAX_HELD_MESSAGES || *bytes > MAX_HELD_BYTES {
        return Err(ClientFault::TooEager);
    }
    held.push(message);
    Ok(())
}

#[cfg(test)]
mod tests;
