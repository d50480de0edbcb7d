//! What the members of a fleet tell each other at once, by publish and subscribe.

use std::{collections::BTreeMap, fmt, sync::Arc};

use proxy_protocol::{ice::UfragPair, stream_url::StreamKey};
use serde::{Deserialize, Serialize};

use super::{StoredOrigin, ValueError, keys::MAX_ID};
use crate::origin::OriginId;

/// The longest notice and load that are read or written, in bytes.
pub(super) const MAX_NOTICE: usize = 512 * 1024;
/// The longest name of a member.
const MAX_MEMBER: usize = 128;

/// Names a proxy within its fleet, from its start to its end.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct MemberId(Arc<str>);

impl MemberId {
    /// A name that no other member has.
    pub fn random() -> Self {
        Self(format!("{:016x}", rand::random::<u64>()).into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes a name of at most 128 printable ASCII characters without spaces.
    pub fn parse(name: &str) -> Option<Self> {
        let is_fit =
            !name.is_empty() && name.len() <= MAX_MEMBER && name.bytes().all(|b| b.is_ascii_graphic());
        is_fit.then(|| Self(name.into()))
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How many sessions a member has with each origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberLoad {
    /// The member.
    pub member: MemberId,
    /// Its sessions.
    pub sessions: BTreeMap<OriginId, u32>,
}

impl MemberLoad {
    /// The value.
    ///
    /// # Errors
    /// When it is longer than what is read.
    pub fn to_json(&self) -> Result<Vec<u8>, ValueError> {
        bounded(serde_json::to_vec(self)?)
    }

    /// Reads the value.
    ///
    /// # Errors
    /// When it is too long, or not what it should be.
    pub fn parse(value: &[u8]) -> Result<Self, ValueError> {
        if value.len() > MAX_NOTICE {
            return Err(ValueError::TooLong(MAX_NOTICE));
        }
        serde_json::from_slice::<Self>(value)?.checked()
    }

    /// Itself, if everything in it is a name that somebody may have.
    fn checked(self) -> Result<Self, ValueError> {
        MemberId::parse(self.member.as_str()).ok_or(ValueError::Name)?;
        self.sessions.keys().try_for_each(fit_id)?;
        Ok(self)
    }
}

/// What a member learns of the fleet without asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// Redis answers, again or for the first time, or notices were lost: anything may have changed.
    Connected,
    /// Redis does not answer.
    Lost,
    /// A stream is on an origin.
    Picked {
        /// The stream.
        stream: StreamKey,
        /// The origin.
        origin: OriginId,
    },
    /// An origin told that it is there.
    Origin(Box<StoredOrigin>),
    /// An origin takes no new streams, or takes them again.
    Draining {
        /// The origin.
        origin: OriginId,
        /// Whether it drains.
        on: bool,
    },
    /// A member told its load.
    Load(MemberLoad),
    /// A session ended.
    SessionEnded(UfragPair),
}

/// What is published; kinds that a later version adds are ignored by this one.
#[derive(Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Told {
    Picked {
        stream: String,
        origin: OriginId,
    },
    Origin {
        origin: Box<StoredOrigin>,
    },
    Draining {
        origin: OriginId,
        on: bool,
    },
    Load {
        load: MemberLoad,
    },
    SessionEnded {
        ufrags: String,
    },
    #[serde(other, skip_serializing)]
    Unknown,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    from: MemberId,
    #[serde(flatten)]
    told: T,
}

impl Told {
    /// As `from` publishes it.
    pub(super) fn to_json(&self, from: &MemberId) -> Result<Vec<u8>, ValueError> {
        bounded(serde_json::to_vec(&Envelope { from: from.clone(), told: self })?)
    }

    fn into_notice(self) -> Result<Option<Notice>, ValueError> {
        Ok(Some(match self {
            Self::Picked { stream, origin } => {
                fit_id(&origin)?;
                Notice::Picked { stream: stream.parse()?, origin }
            }
            Self::Origin { origin } => Notice::Origin(StoredOrigin::read(&origin.to_json()?)?.into()),
            Self::Draining { origin, on } => {
                fit_id(&origin)?;
                Notice::Draining { origin, on }
            }
            Self::Load { load } => Notice::Load(load.checked()?),
            Self::SessionEnded { ufrags } => Notice::SessionEnded(ufrags.parse()?),
            Self::Unknown => return Ok(None),
        }))
    }
}

impl Notice {
    /// Reads what was published; `None` is `own`'s, or of a kind this version does not know.
    ///
    /// # Errors
    /// When it is too long, or not what it should be.
    pub fn read(message: &[u8], own: &MemberId) -> Result<Option<Self>, ValueError> {
        if message.len() > MAX_NOTICE {
            return Err(ValueError::TooLong(MAX_NOTICE));
        }
        let Envelope { from, told } = serde_json::from_slice::<Envelope<Told>>(message)?;
        if from == *own { Ok(None) } else { told.into_notice() }
    }
}

pub(super) fn fit_id(id: &OriginId) -> Result<(), ValueError> {
    let is_fit = !id.0.is_empty() && id.0.len() <= MAX_ID && !id.0.contains(|c: char| c.is_ascii_control());
    if is_fit { Ok(()) } else { Err(ValueError::Name) }
}

fn bounded(value: Vec<u8>) -> Result<Vec<u8>, ValueError> {
    if value.len() > MAX_NOTICE { Err(ValueError::TooLong(MAX_NOTICE)) } else { Ok(value) }
}

#[cfg(test)]
mod tests;
