//! What only userspace knows, as it goes from one process to the next.

use std::{
    collections::HashSet,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use proxy_protocol::srt::CookieKey;

use crate::{
    codec::{DecodeError, Decoder, Encoder},
    origin::{Known, OriginId},
    proxy::{Inheritance, InheritedFlow},
    session::{
        SessionId,
        record::{Record, decode_origin, encode_origin},
        source_port::Rest,
    },
};

const VERSION: u8 = 3;

/// Everything that is in no kernel table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Estate {
    /// Every session, whether the kernel forwards it or not.
    pub sessions: Vec<(SessionId, Record)>,
    /// Ports that rest.
    pub rests: Vec<Rest>,
    /// The number of the next session.
    pub next_session: u64,
    /// Origins and picks.
    pub known: Known,
    /// The key of the cookies that SRT callers have.
    pub cookies: Option<CookieKey>,
}

impl Estate {
    /// What the records of a process tell that ended without handing over. Illegible ones are left out.
    pub fn from_records(records: Vec<(SessionId, Vec<u8>)>) -> Self {
        let mut estate = Self::default();
        for (session, bytes) in records {
            // Also a number that was not legible has been used.
            estate.next_session = estate.next_session.max(session.0 + 1);
            match Record::decode(&bytes) {
                Ok(record) => estate.sessions.push((session, record)),
                Err(error) => {
                    tracing::warn!(session = session.0, %error, "record of a session is illegible");
                }
            }
        }
        estate.known = known_from(&estate.sessions);
        estate
    }

    /// Its bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::default();
        out.u8(VERSION);
        out.u64(self.next_session);
        out.list(&self.sessions, |out, (session, record)| {
            out.u64(session.0);
            out.bytes(&record.encode_unbounded());
        });
        out.list(&self.rests, |out, rest| {
            out.address(rest.source);
            out.address(rest.origin);
            out.u64(u64::try_from(rest.left.as_millis()).unwrap_or(u64::MAX));
        });
        encode_known(&mut out, &self.known);
        out.option(self.cookies.as_ref(), |out, key| out.bytes(key.expose()));
        out.into_bytes()
    }

    /// Reads an estate that is all of `bytes`.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut from = Decoder::new(bytes);
        from.version(VERSION)?;
        let estate = Self {
            next_session: from.u64()?,
            sessions: from.list(|from| Ok((SessionId(from.u64()?), Record::decode(from.bytes()?)?)))?,
            rests: from.list(|from| {
                Ok(Rest {
                    source: from.address()?,
                    origin: from.address()?,
                    left: Duration::from_millis(from.u64()?),
                })
            })?,
            known: decode_known(&mut from)?,
            cookies: from.option(decode_key)?,
        };
        from.finish()?;
        Ok(estate)
    }

    /// What the control plane takes over, together with what was found in the kernel: flows, and source ports with the
    /// origins they were used towards. Ports that no session has rest, because their origin may still send.
    pub fn inheritance(
        mut self,
        flows: Vec<InheritedFlow>,
        ports: Vec<(SocketAddr, SocketAddr)>,
    ) -> Inheritance {
        let mut used: HashSet<_> = flows.iter().map(|flow| (flow.source, flow.origin)).collect();
        used.extend(self.sessions.iter().map(|(_, record)| (record.source, record.media)));
        used.extend(self.rests.iter().map(|rest| (rest.source, rest.origin)));
        let others = ports.into_iter().filter(|port| !used.contains(port));
        self.rests.extend(others.map(|(source, origin)| Rest { source, origin, left: Duration::MAX }));
        Inheritance {
            sessions: self.sessions,
            flows,
            rests: self.rests,
            next_session: self.next_session.max(1),
            today: SystemTime::now(),
        }
    }
}

/// Streams stay where their sessions are.
fn known_from(sessions: &[(SessionId, Record)]) -> Known {
    let mut known = Known::default();
    for (_, record) in sessions {
        let origin = &record.offer.origin;
        if !known.origins.iter().any(|other| other.id == origin.id) {
            known.origins.push(Arc::clone(origin));
        }
        if let Some(stream) = &record.offer.stream {
            known.picks.push((stream.clone(), origin.id.clone()));
        }
    }
    known
}

fn encode_known(out: &mut Encoder, known: &Known) {
    out.list(&known.origins, |out, origin| encode_origin(out, origin));
    out.list(&known.picks, |out, (stream, origin)| {
        out.text(stream.as_str());
        out.text(&origin.0);
    });
}

fn decode_known(from: &mut Decoder<'_>) -> Result<Known, DecodeError> {
    Ok(Known {
        origins: from.list(|from| decode_origin(from).map(Arc::new))?,
        picks: from.list(|from| Ok((from.parsed("stream")?, OriginId(from.text()?.into()))))?,
    })
}

fn decode_key(from: &mut Decoder<'_>) -> Result<CookieKey, DecodeError> {
    let secret = from.bytes()?.try_into().map_err(|_| DecodeError::Invalid("key of cookies"))?;
    Ok(CookieKey::new(secret))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::SessionOffer;

    fn record(stream: &str, ufrags: &str) -> Record {
        Record {
            offer: SessionOffer::example(stream, ufrags),
            media: "10.0.1.1:8000".parse().unwrap(),
            source: "10.0.1.254:61007".parse().unwrap(),
            born: SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000),
            path: None,
            used_tcp: false,
        }
    }

    fn example() -> Estate {
        let sessions = vec![
            (SessionId(7), record("v/live/a", "ab12cd34:cl+/")),
            (SessionId(9), record("v/live/b", "ab12cd35:cl+/")),
        ];
        let rest = Rest {
            source: "10.0.1.254:61008".parse().unwrap(),
            origin: "10.0.1.1:8000".parse().unwrap(),
            left: Duration::from_secs(12),
        };
        let known = known_from(&sessions);
        Estate {
            sessions,
            rests: vec![rest],
            next_session: 12,
            known,
            cookies: Some(CookieKey::new([7; 32])),
        }
    }

    #[test]
    fn an_estate_is_read_as_it_was_written() {
        assert_eq!(Estate::decode(&example().encode()), Ok(example()));
        assert_eq!(Estate::decode(&Estate::default().encode()), Ok(Estate::default()));
    }

    #[test]
    fn every_truncation_and_every_extension_of_an_estate_is_refused() {
        let mut bytes = example().encode();
        for end in 0..bytes.len() {
            assert!(Estate::decode(&bytes[..end]).is_err(), "{end}");
        }
        bytes.push(0);
        assert_eq!(Estate::decode(&bytes), Err(DecodeError::Trailing));
    }

    #[test]
    fn records_alone_tell_sessions_origins_and_picks() {
        let records = example().sessions.iter().map(|(id, r)| (*id, r.encode().unwrap())).collect();
        let estate = Estate::from_records(records);
        assert_eq!(estate, Estate { rests: vec![], next_session: 10, cookies: None, ..example() });
        assert_eq!((estate.known.origins.len(), estate.known.picks.len()), (1, 2));
    }

    #[test]
    fn an_illegible_record_is_left_out_and_its_number_is_not_used_again() {
        let estate = Estate::from_records(vec![(SessionId(40), b"?".to_vec())]);
        assert_eq!((estate.sessions.len(), estate.next_session), (0, 41));
    }
}
