//! The names and secrets by which ICE agents know each other (RFC 8839, section 5.4).

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
    str::FromStr,
    sync::Arc,
};

use thiserror::Error;

/// Why a text is not an ICE credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum IceError {
    /// A ufrag has 4 to 256 characters, a password 22 to 256.
    #[error("ice credential has a wrong length")]
    Length,
    /// Only letters, digits, `+` and `/` are allowed.
    #[error("ice credential holds a character other than letters, digits, + and /")]
    Character,
    /// A USERNAME is two ufrags joined by a colon.
    #[error("ice username has no colon")]
    NoColon,
}

/// The user name fragment of one ICE agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ufrag(Arc<str>);

impl Ufrag {
    /// The text of the `a=ice-ufrag` attribute.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Ufrag {
    type Err = IceError;

    fn from_str(text: &str) -> Result<Self, IceError> {
        check_ufrag(text)?;
        Ok(Self(text.into()))
    }
}

impl fmt::Display for Ufrag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The password of one ICE agent: the key of MESSAGE-INTEGRITY. It is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct IcePwd(Arc<str>);

impl IcePwd {
    /// The key that signs and checks STUN messages sent to the agent that owns this password.
    #[must_use]
    pub fn as_key(&self) -> &[u8] {
        self.0.as_bytes()
    }

    /// The text of the `a=ice-pwd` attribute, for storing it where other proxies find it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl FromStr for IcePwd {
    type Err = IceError;

    fn from_str(text: &str) -> Result<Self, IceError> {
        check(text, 22)?;
        Ok(Self(text.into()))
    }
}

impl fmt::Debug for IcePwd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IcePwd(..)")
    }
}

/// Both ufrags of a session, in the order of the USERNAME in the client's requests: `local:remote`.
///
/// Local is the side that answered, the origin; remote is the client. The pair borrows as its text, so a map keyed
/// by it can be searched with the USERNAME of a packet as it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct UfragPair(Arc<str>);

impl UfragPair {
    /// Joins the ufrag of the answer with that of the offer.
    #[must_use]
    pub fn new(local: &Ufrag, remote: &Ufrag) -> Self {
        Self(format!("{local}:{remote}").into())
    }

    /// The USERNAME of the client's requests.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The origin's ufrag.
    #[must_use]
    pub fn local(&self) -> &str {
        self.halves().0
    }

    /// The client's ufrag.
    #[must_use]
    pub fn remote(&self) -> &str {
        self.halves().1
    }

    fn halves(&self) -> (&str, &str) {
        self.0.split_once(':').expect("a pair is only built with a colon between its ufrags")
    }
}

impl FromStr for UfragPair {
    type Err = IceError;

    fn from_str(username: &str) -> Result<Self, IceError> {
        let (local, remote) = username.split_once(':').ok_or(IceError::NoColon)?;
        check_ufrag(local)?;
        check_ufrag(remote)?;
        Ok(Self(username.into()))
    }
}

impl Borrow<str> for UfragPair {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// As its text, which [`Borrow`] demands.
impl Hash for UfragPair {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_str().hash(state);
    }
}

impl fmt::Display for UfragPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for UfragPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UfragPair({self})")
    }
}

fn check_ufrag(text: &str) -> Result<(), IceError> {
    check(text, 4)
}

fn check(text: &str, shortest: usize) -> Result<(), IceError> {
    if !(shortest..=256).contains(&text.len()) {
        return Err(IceError::Length);
    }
    if !text.bytes().all(is_ice_char) {
        return Err(IceError::Character);
    }
    Ok(())
}

const fn is_ice_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pair_reads_as_the_username_of_the_clients_requests() {
        let pair: UfragPair = "9b22ga66:k+/Z".parse().unwrap();
        assert_eq!((pair.local(), pair.remote()), ("9b22ga66", "k+/Z"));
        assert_eq!(pair, UfragPair::new(&"9b22ga66".parse().unwrap(), &"k+/Z".parse().unwrap()));
    }

    #[test]
    fn sessions_are_found_by_the_text_of_a_packet() {
        let pair: UfragPair = "9b22ga66:k+/Z".parse().unwrap();
        let sessions = HashMap::from([(pair, 7)]);
        assert_eq!(sessions.get("9b22ga66:k+/Z"), Some(&7));
    }

    #[test]
    fn rejects_what_rfc_8839_does_not_allow() {
        assert_eq!("abc".parse::<Ufrag>(), Err(IceError::Length));
        assert_eq!("a".repeat(257).parse::<Ufrag>(), Err(IceError::Length));
        assert_eq!("ab c".parse::<Ufrag>(), Err(IceError::Character));
        assert_eq!("a".repeat(21).parse::<IcePwd>(), Err(IceError::Length));
        assert_eq!("abcdefgh".parse::<UfragPair>(), Err(IceError::NoColon));
        assert_eq!("abcd:efgh:ijkl".parse::<UfragPair>(), Err(IceError::Character));
        assert_eq!("abcd:".parse::<UfragPair>(), Err(IceError::Length));
    }

    #[test]
    fn password_is_never_printed() {
        let password: IcePwd = "0123456789abcdefghijklmn".parse().unwrap();
        assert_eq!(format!("{password:?}"), "IcePwd(..)");
    }

    proptest! {
        #[test]
        fn pair_survives_display_and_parse(username in "[a-zA-Z0-9+/]{4,256}:[a-zA-Z0-9+/]{4,256}") {
            let pair: UfragPair = username.parse().unwrap();
            prop_assert_eq!(pair.to_string(), username);
        }

        #[test]
        fn any_text_is_a_pair_or_an_error(text in ".*") {
            if let Ok(pair) = text.parse::<UfragPair>() {
                prop_assert_eq!(format!("{}:{}", pair.local(), pair.remote()), text);
            }
        }
    }
}
