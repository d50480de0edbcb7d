//! The side record of a session: what another process needs to take the session over.
//!
//! The kernel's tables hold addresses alone. Names, the ICE password and the stream stand in one record per session,
//! which outlives the process: a process that finds the flow and the record can list the session, follow its client and
//! end it. A session without a legible record goes on in the kernel until it falls silent.

use std::{
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use bytes::Bytes;
use proxy_protocol::{
    ice::{IcePwd, UfragPair},
    srt::SocketId,
    stream_url::StreamKey,
};

use super::{Kind, Role, Session, SessionId, SessionOffer, Srt, State, Tuple, WebRtc};
use crate::{
    codec::{DecodeError, Decoder, Encoder},
    origin::Origin,
};

/// The room for a record where it is kept.
pub const RECORD_SIZE: usize = proxy_common::maps::SESSION_BYTES;
/// The layout of records; readers refuse others.
const VERSION: u8 = 3;

/// A record as it is kept: followed by zeroes.
pub fn padded(record: &[u8]) -> io::Result<[u8; RECORD_SIZE]> {
    let mut padded = [0; RECORD_SIZE];
    padded.get_mut(..record.len()).ok_or(io::ErrorKind::InvalidInput)?.copy_from_slice(record);
    Ok(padded)
}

/// Where records outlive the process.
pub trait RecordStore: Send + Sync + std::fmt::Debug {
    /// Writes the record of a session, over the one it may have.
    fn put(&mut self, session: SessionId, record: &[u8]) -> io::Result<()>;
    /// Removes the record of a session that ended.
    fn delete(&mut self, session: SessionId) -> io::Result<()>;
    /// Every record, as it was written.
    fn load(&self) -> io::Result<Vec<(SessionId, Vec<u8>)>>;
}

/// A session as the next process needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What signalling learnt.
    pub offer: SessionOffer,
    /// The origin's media endpoint.
    pub media: SocketAddr,
    /// Our address towards the origin.
    pub source: SocketAddr,
    /// When it was offered.
    pub born: SystemTime,
    /// Where its client is, once it was heard.
    pub path: Option<Path>,
    /// Its client came by TCP, so it may do so again.
    pub used_tcp: bool,
}

/// Where a session's client is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Path {
    /// Where the origin's packets go.
    pub active: Tuple,
    /// The device the client's packets come in by.
    pub ifindex: u32,
    /// Other authenticated tuples.
    pub backups: Vec<Tuple>,
}

/// The record would not fit where records are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the record of the session has {0} bytes, more than the {RECORD_SIZE} there is room for")]
pub struct Oversize(pub usize);

impl Record {
    /// The record of `session`; `None` while its source socket is being opened, or its origin is being called: who calls
    /// has to call again.
    pub fn of(session: &Session, now: (Instant, SystemTime)) -> Option<Self> {
        let path = match &session.state {
            State::Admitting(_) => return None,
            State::Waiting if session.offer.srt().is_some() => return None,
            State::Waiting => None,
            State::Live(live) => {
                Some(Path { active: live.active, ifindex: live.ifindex, backups: live.backups.clone() })
            }
        };
        Some(Self {
            offer: session.offer.clone(),
            media: session.media,
            source: session.source,
            born: now.1.checked_sub(now.0.saturating_duration_since(session.born)).unwrap_or(now.1),
            path,
            used_tcp: session.tcp.were_used(),
        })
    }

    /// Its bytes, if there is room for them; spare tuples are given up first.
    pub fn encode(&self) -> Result<Vec<u8>, Oversize> {
        let whole = self.encode_unbounded();
        if whole.len() <= RECORD_SIZE {
            return Ok(whole);
        }
        let path = self.path.as_ref().map(|path| Path { backups: Vec::new(), ..path.clone() });
        let lean = Self { path, ..self.clone() }.encode_unbounded();
        if lean.len() <= RECORD_SIZE { Ok(lean) } else { Err(Oversize(lean.len())) }
    }

    /// Its bytes, however many.
    pub fn encode_unbounded(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u8(VERSION);
        encode_offer(&mut out, &self.offer);
        out.address(self.media);
        out.address(self.source);
        out.u64(unix_millis(self.born));
        out.option(self.path.as_ref(), |out, path| {
            encode_tuple(out, &path.active);
            out.u32(path.ifindex);
            out.list(&path.backups, encode_tuple);
        });
        out.u8(u8::from(self.used_tcp));
        out.into_bytes()
    }

    /// Reads a record; one that was kept in a place of fixed size may be followed by zeroes.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(bytes);
        let record = Self::take(&mut from)?;
        while let Ok(byte) = from.u8() {
            if byte != 0 {
                return Err(DecodeError::Trailing);
            }
        }
        Ok(record)
    }

    fn take(from: &mut Decoder<'_>) -> Result<Self, DecodeError> {
        from.version(VERSION)?;
        Ok(Self {
            offer: decode_offer(from)?,
            media: from.address()?,
            source: from.address()?,
            born: SystemTime::UNIX_EPOCH
                .checked_add(Duration::from_millis(from.u64()?))
                .ok_or(DecodeError::Invalid("time"))?,
            path: from.option(|from| {
                Ok(Path {
                    active: decode_tuple(from)?,
                    ifindex: from.u32()?,
                    backups: from.list(decode_tuple)?,
                })
            })?,
            used_tcp: decode_flag(from.u8()?)?,
        })
    }

    /// How long ago the session was offered.
    pub fn age(&self, now: SystemTime) -> Duration {
        // A clock that was set back makes the session young, which harms nobody.
        now.duration_since(self.born).unwrap_or_default()
    }
}

/// Appends an origin.
pub fn encode_origin(out: &mut Encoder, origin: &Origin) {
    out.text(&origin.id.0);
    out.text(&origin.server);
    out.text(&origin.device_id);
    out.ip(origin.ip);
    for endpoint in [origin.rtmp, origin.http, origin.api, origin.srt, origin.rtc, origin.rtc_tcp] {
        out.option(endpoint, Encoder::address);
    }
}

/// Reads an origin.
pub fn decode_origin(from: &mut Decoder<'_>) -> Result<Origin, DecodeError> {
    Ok(Origin {
        id: crate::origin::OriginId(from.text()?.into()),
        server: from.text()?.to_owned(),
        device_id: from.text()?.to_owned(),
        ip: from.ip()?,
        rtmp: from.option(Decoder::address)?,
        http: from.option(Decoder::address)?,
        api: from.option(Decoder::address)?,
        srt: from.option(Decoder::address)?,
        rtc: from.option(Decoder::address)?,
        rtc_tcp: from.option(Decoder::address)?,
    })
}

fn encode_offer(out: &mut Encoder, offer: &SessionOffer) {
    // No stream has an empty name.
    out.text(offer.stream.as_ref().map_or("", StreamKey::as_str));
    encode_origin(out, &offer.origin);
    out.ip(offer.client_ip);
    out.u8(match offer.role {
        Some(Role::Publisher) => 0,
        Some(Role::Player) => 1,
        None => 2,
    });
    match &offer.kind {
        Kind::WebRtc(WebRtc { ufrags, pwd, tcp }) => {
            out.u8(0);
            out.text(ufrags.as_str());
            out.text(pwd.expose());
            out.option(*tcp, Encoder::address);
        }
        Kind::Srt(Srt { tuple, ifindex, caller, cookie, answer }) => {
            out.u8(1);
            encode_tuple(out, tuple);
            out.u32(*ifindex);
            out.u32(caller.0);
            out.u32(*cookie);
            out.option(answer.as_ref(), |out, answer| out.bytes(answer));
        }
    }
}

fn decode_offer(from: &mut Decoder<'_>) -> Result<SessionOffer, DecodeError> {
    Ok(SessionOffer {
        stream: decode_stream(from.text()?)?,
        origin: Arc::new(decode_origin(from)?),
        client_ip: from.ip()?,
        role: decode_role(from.u8()?)?,
        kind: decode_kind(from)?,
    })
}

fn decode_kind(from: &mut Decoder<'_>) -> Result<Kind, DecodeError> {
    match from.u8()? {
        0 => Ok(Kind::WebRtc(WebRtc {
            ufrags: from.parsed::<UfragPair>("ufrag pair")?,
            pwd: from.parsed::<IcePwd>("password")?,
            tcp: from.option(Decoder::address)?,
        })),
        1 => Ok(Kind::Srt(Srt {
            tuple: decode_tuple(from)?,
            ifindex: from.u32()?,
            caller: SocketId(from.u32()?),
            cookie: from.u32()?,
            answer: from.option(|from| Ok(Bytes::copy_from_slice(from.bytes()?)))?,
        })),
        _ => Err(DecodeError::Invalid("protocol")),
    }
}

fn decode_flag(byte: u8) -> Result<bool, DecodeError> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(DecodeError::Invalid("flag")),
    }
}

fn decode_stream(text: &str) -> Result<Option<StreamKey>, DecodeError> {
    let parsed = (!text.is_empty()).then(|| text.parse()).transpose();
    parsed.map_err(|_| DecodeError::Invalid("stream"))
}

fn decode_role(byte: u8) -> Result<Option<Role>, DecodeError> {
    match byte {
        0 => Ok(Some(Role::Publisher)),
        1 => Ok(Some(Role::Player)),
        2 => Ok(None),
        _ => Err(DecodeError::Invalid("role")),
    }
}

fn encode_tuple(out: &mut Encoder, tuple: &Tuple) {
    out.address(tuple.client);
    out.address(tuple.local);
}

fn decode_tuple(from: &mut Decoder<'_>) -> Result<Tuple, DecodeError> {
    Ok(Tuple { client: from.address()?, local: from.address()? })
}

fn unix_millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
impl SessionOffer {
    /// An offer whose other fields are plausible constants.
    pub(crate) fn example(stream: &str, ufrags: &str) -> Self {
        let at = |text: &str| Some(text.parse().expect("an address"));
        Self {
            stream: Some(stream.parse().expect("a stream key")),
            origin: Arc::new(Origin {
                id: crate::origin::OriginId::new("vid-0a1b2c3", "x9y8z7", "4711"),
                server: "vid-0a1b2c3".into(),
                device_id: "origin1".into(),
                ip: [10, 0, 1, 1].into(),
                rtmp: at("10.0.1.1:1935"),
                http: None,
                api: at("10.0.1.1:1985"),
                srt: None,
                rtc: at("10.0.1.1:8000"),
                rtc_tcp: None,
            }),
            client_ip: [192, 0, 2, 1].into(),
            role: Some(Role::Player),
            kind: Kind::WebRtc(WebRtc {
                ufrags: ufrags.parse().expect("a pair of ufrags"),
                pwd: "0123456789abcdef0123456789abcdef".parse().expect("a password"),
                tcp: at("10.0.1.1:8443"),
            }),
        }
    }

    /// A call whose other fields are plausible constants.
    pub(crate) fn example_call(stream: &str, client: SocketAddr, caller: u32) -> Self {
        let local = SocketAddr::from(([198, 51, 100, 1], 10080));
        let kind = Kind::Srt(Srt {
            tuple: Tuple { client, local },
            ifindex: 2,
            caller: SocketId(caller),
            cookie: 0x0102_0304,
            answer: None,
        });
        Self { client_ip: client.ip(), kind, ..Self::example(stream, "orig:clnt") }
    }
}

#[cfg(test)]
mod tests;
