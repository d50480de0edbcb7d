//! The origin's side of the proxy: a client of RTMP that asks for what the proxy's client asked for.
//!
//! ```text
//! Connect ──_result──► CreateStream ──_result──► Start ──onStatus──► Started ──media──► Flowing
//!    │                      │                      │                    │
//!    └──────────────────────┴──── refused ─────────┘                    │
//!    └──────────────────────┴──── redirected ──────┴────────────────────┘
//! ```
//!
//! The client's own connect command goes to the origin whole, with its arguments and every property, and its `publish`
//! or `play` as it came. What is in between is ours; [`Asked::fillers`] hide that from the client's later chunks, and
//! fillers in [`OriginEffect::Started`] hide from the origin's what the client did not get.
//!
//! What the origin says to its client is kept until it has accepted, so that a client of which the origin thinks better
//! has been told nothing: SRS says `onFCPublish` before it finds that the stream is busy, and then closes. From
//! [`OriginEffect::Started`] on everything is the client's. SRS redirects players only after it has told them that the
//! stream starts, in an `onStatus` about the connection, and before any media: so a connection is not to be joined to
//! its client before [`OriginStep::Flowing`].

mod verdict;

use thiserror::Error;

use self::verdict::Verdict;
use super::{
    chunk::INITIAL_CHUNK_SIZE,
    client_session::{CHUNK_SIZE, MAX_HELD_BYTES, MAX_HELD_MESSAGES, STREAM, WINDOW},
    command::{Command, CommandError},
    control::{BandwidthLimit, Control, Event},
    filler::Heads,
    message::{CONTROL_STREAM, Message, kind},
    request::{Asked, Connect, Publish, PublishOrder, Refusal, Request, Role},
};

/// How many messages an origin may send before it accepts.
const MAX_MESSAGES: usize = 1024;

/// Transaction ids of our commands.
mod transaction {
    pub(super) const CONNECT: f64 = 1.0;
    pub(super) const RELEASE_STREAM: f64 = 2.0;
    pub(super) const FC_PUBLISH: f64 = 3.0;
    pub(super) const CREATE_STREAM: f64 = 4.0;
}

/// Why an origin is not talked to further. It is to be replaced, not blamed on the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum OriginFault {
    /// A command is malformed.
    #[error("origin sent a malformed command: {0}")]
    Command(#[from] CommandError),
    /// `createStream` was answered with something else than the number of the client's stream.
    #[error("origin hands out another message stream than the client has")]
    Stream,
    /// It says more than is kept before it accepts.
    #[error("origin sent too much before it accepted the stream")]
    TooMuch,
}

/// What a session waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OriginStep {
    /// The answer to `connect`.
    Connect,
    /// The answer to `createStream`.
    CreateStream,
    /// The answer to `publish` or `play`, for which SRS may ask a web hook.
    Start,
    /// The first media of a player, which may take as long as there is no publisher; until then it may be sent
    /// elsewhere. Publishers do not stay here.
    Started,
    /// Nothing: the messages are the client's and may be joined to it.
    Flowing,
    /// Nothing: the origin has refused or redirected.
    Ended,
}

/// What to do about a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OriginEffect {
    /// Write this to the origin.
    Send(Message),
    /// The origin has accepted and said these, which [`ClientSession::accepted`](super::ClientSession::accepted)
    /// completes. If the client has been told before, by another origin, they are to be dropped.
    Started(Vec<Message>),
    /// Write this to the client.
    Relay(Message),
    /// The stream is at another server, says the origin. Whether that is an origin of ours is not known here.
    ///
    /// A session with that one starts from the same [`Asked`]. If the client was told of a start before, what it said
    /// since has to be said again.
    Redirect {
        /// The address to connect to, as `rtmp://host:port/app`.
        url: String,
    },
    /// The origin has refused.
    Refused(Refusal),
}

/// An origin while it is asked for a stream.
#[derive(Debug)]
pub struct OriginSession {
    asked: Asked,
    step: OriginStep,
    /// Of what the client does not get.
    heads: Heads,
    /// Before the stream has started.
    messages: usize,
    held: Vec<Message>,
    held_bytes: usize,
    /// What the client believes of the chunks it gets.
    chunk_size: u32,
}

impl OriginSession {
    /// Begins to ask; the messages are to be written once hands are shaken.
    ///
    /// `chunk_size` is that of the chunks which the client sends at present.
    #[must_use]
    pub fn start(connect: &Connect, asked: Asked, chunk_size: u32) -> (Self, Vec<Message>) {
        let command = Command { transaction: transaction::CONNECT, ..connect.command().clone() };
        let window = asked.window.unwrap_or(WINDOW);
        let mut messages =
            vec![command.to_message(), Control::WindowAcknowledgementSize(window).to_message()];
        if chunk_size != INITIAL_CHUNK_SIZE {
            messages.push(Control::SetChunkSize(chunk_size).to_message());
        }
        let session = Self {
            asked,
            step: OriginStep::Connect,
            heads: Heads::default(),
            messages: 0,
            held: Vec::new(),
            held_bytes: 0,
            chunk_size: CHUNK_SIZE,
        };
        (session, messages)
    }

    /// What it waits for.
    #[must_use]
    pub const fn step(&self) -> OriginStep {
        self.step
    }

    /// Takes the origin's next message.
    ///
    /// # Errors
    ///
    /// Fails if the origin cannot be talked to; the connection is to be closed.
    pub fn apply(&mut self, message: Message) -> Result<Vec<OriginEffect>, OriginFault> {
        match self.step {
            OriginStep::Connect | OriginStep::CreateStream | OriginStep::Start => self.ask(message),
            OriginStep::Started => Ok(self.wait_for_media(message)),
            OriginStep::Flowing => Ok(vec![OriginEffect::Relay(message)]),
            OriginStep::Ended => Ok(Vec::new()),
        }
    }

    /// A message of this kind goes to the client piece by piece; commands before there is media are for [`Self::apply`].
    pub const fn relayed(&mut self, kind: u8) {
        if matches!(self.step, OriginStep::Started)
            && matches!(kind, kind::AUDIO | kind::VIDEO | kind::AGGREGATE)
        {
            self.step = OriginStep::Flowing;
        }
    }

    /// The origin has closed the connection before it accepted: why, as far as one can tell.
    #[must_use]
    pub fn closed(&self) -> Refusal {
        let description = match (self.step, self.asked.request.role()) {
            (OriginStep::Connect, _) => "origin closed the connection",
            (OriginStep::CreateStream, _) => "origin refused the connection",
            // SRS closes without a word when the stream is busy, and when a hook, a referer or an address is refused.
            (OriginStep::Start, Role::Publisher(_)) => "origin refused the stream: it is busy or not allowed",
            (OriginStep::Start, Role::Player) => "origin refused the stream: it is not allowed",
            (OriginStep::Started | OriginStep::Flowing | OriginStep::Ended, _) => "origin ended the stream",
        };
        Refusal { code: None, description: description.into() }
    }

    fn ask(&mut self, message: Message) -> Result<Vec<OriginEffect>, OriginFault> {
        self.messages += 1;
        if self.messages > MAX_MESSAGES {
            return Err(OriginFault::TooMuch);
        }
        match message.kind {
            kind::COMMAND_AMF0 | kind::COMMAND_AMF3 => {
                let command = Command::parse(&message)?;
                self.command(&command, message)
            }
            kind::AUDIO | kind::VIDEO | kind::AGGREGATE => self.media(message),
            _ => self.control(message),
        }
    }

    fn command(&mut self, command: &Command, message: Message) -> Result<Vec<OriginEffect>, OriginFault> {
        if let Some(verdict) = Verdict::of(command, self.step) {
            return Ok(vec![self.ended(verdict)]);
        }
        if command.name == "_result" {
            self.heads.note(&message);
            return self.result(command);
        }
        let is_early = message.stream == CONTROL_STREAM && self.step != OriginStep::Start;
        if is_early || command.name == "onBWDone" {
            // It is about this connection; the client has had its own.
            return Ok(self.keep_from_client(&message));
        }
        let starts = verdict::starts(command, self.asked.request.role());
        self.hold(message)?;
        Ok(if starts { vec![self.started()] } else { Vec::new() })
    }

    fn result(&mut self, command: &Command) -> Result<Vec<OriginEffect>, OriginFault> {
        if self.step == OriginStep::Connect && command.transaction == transaction::CONNECT {
            self.step = OriginStep::CreateStream;
            return Ok(self.create_stream().into_iter().map(OriginEffect::Send).collect());
        }
        if self.step == OriginStep::CreateStream && command.transaction == transaction::CREATE_STREAM {
            if command.number(0) != Some(f64::from(STREAM)) {
                return Err(OriginFault::Stream);
            }
            self.step = OriginStep::Start;
            return Ok(self.start_stream().into_iter().map(OriginEffect::Send).collect());
        }
        Ok(Vec::new())
    }

    /// SRS answers `releaseStream` and `FCPublish`, others do not; so nobody waits for these.
    fn create_stream(&self) -> Vec<Message> {
        let create = Command::new("createStream", transaction::CREATE_STREAM, Vec::new());
        let Request::Publish(Publish { name, order: PublishOrder::Fmle, .. }) = &self.asked.request else {
            return vec![create.to_message()];
        };
        let release = Command::new("releaseStream", transaction::RELEASE_STREAM, vec![name.clone().into()]);
        let publish = Command::new("FCPublish", transaction::FC_PUBLISH, vec![name.clone().into()]);
        vec![release.to_message(), publish.to_message(), create.to_message()]
    }

    /// The fillers go first, since a Flash publisher's stream would end at a command after its `publish`.
    fn start_stream(&self) -> Vec<Message> {
        let buffer = match &self.asked.request {
            Request::Play(play) => play.buffer,
            Request::Publish(_) => None,
        };
        let buffer = buffer.map(|milliseconds| Event::SetBufferLength { stream: STREAM, milliseconds });
        let buffer = buffer.map(|event| Control::UserControl(event).to_message());
        let fillers = self.asked.fillers.iter().cloned();
        buffer.into_iter().chain(fillers).chain([self.asked.message.clone()]).collect()
    }

    /// Media before a start is a start; a publisher's origin sends none.
    fn media(&mut self, message: Message) -> Result<Vec<OriginEffect>, OriginFault> {
        if self.step != OriginStep::Start || self.asked.request.role() != Role::Player {
            return Ok(self.keep_from_client(&message));
        }
        self.hold(message)?;
        let started = self.started();
        self.step = OriginStep::Flowing;
        Ok(vec![started])
    }

    fn control(&mut self, message: Message) -> Result<Vec<OriginEffect>, OriginFault> {
        let is_news = match Control::parse(&message) {
            Ok(Control::UserControl(Event::PingRequest { timestamp })) => {
                self.heads.note(&message);
                let answer = Control::UserControl(Event::PingResponse { timestamp });
                return Ok(vec![OriginEffect::Send(answer.to_message())]);
            }
            Ok(control) => self.is_news(&control),
            // Data, shared objects and what nobody knows come with a stream or not at all.
            Err(_) => self.step == OriginStep::Start,
        };
        if !is_news {
            return Ok(self.keep_from_client(&message));
        }
        self.hold(message)?;
        Ok(Vec::new())
    }

    fn keep_from_client(&mut self, message: &Message) -> Vec<OriginEffect> {
        self.heads.note(message);
        Vec::new()
    }

    /// Whether the client must be told. What it was told in the name of the origin is no news.
    fn is_news(&mut self, control: &Control) -> bool {
        match control {
            Control::SetChunkSize(size) => {
                let before = std::mem::replace(&mut self.chunk_size, *size);
                *size != before
            }
            Control::WindowAcknowledgementSize(window) => *window != WINDOW,
            Control::SetPeerBandwidth { window, limit } => {
                (*window, *limit) != (WINDOW, BandwidthLimit::Dynamic)
            }
            Control::Abort { .. } | Control::Acknowledgement(_) => false,
            Control::UserControl(_) => self.step == OriginStep::Start,
        }
    }

    fn hold(&mut self, message: Message) -> Result<(), OriginFault> {
        self.held_bytes = self.held_bytes.saturating_add(message.payload.len());
        if self.held.len() >= MAX_HELD_MESSAGES || self.held_bytes > MAX_HELD_BYTES {
            return Err(OriginFault::TooMuch);
        }
        self.held.push(message);
        Ok(())
    }

    fn started(&mut self) -> OriginEffect {
        self.step = match self.asked.request.role() {
            Role::Publisher(_) => OriginStep::Flowing,
            Role::Player => OriginStep::Started,
        };
        let mut said = std::mem::take(&mut self.held);
        said.extend(self.heads.fillers(&said));
        OriginEffect::Started(said)
    }

    fn wait_for_media(&mut self, message: Message) -> Vec<OriginEffect> {
        match message.kind {
            kind::COMMAND_AMF0 | kind::COMMAND_AMF3 => {
                let command = Command::parse(&message).ok();
                if let Some(verdict) = command.and_then(|command| Verdict::of(&command, self.step)) {
                    return vec![self.ended(verdict)];
                }
            }
            kind => self.relayed(kind),
        }
        vec![OriginEffect::Relay(message)]
    }

    fn ended(&mut self, verdict: Verdict) -> OriginEffect {
        self.step = OriginStep::Ended;
        self.held = Vec::new();
        match verdict {
            Verdict::Redirect { url } => OriginEffect::Redirect { url },
            Verdict::Refused(refusal) => OriginEffect::Refused(refusal),
        }
    }
}

#[cfg(test)]
mod tests;
