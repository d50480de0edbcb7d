//! ICE credentials that tell every proxy of a fleet where a session is.
//!
//! SRS lets who asks for a session choose the origin's ufrag and password (the parameters `ice-ufrag` and `ice-pwd` of WHIP
//! and WHEP). The ufrag stands in every STUN request of the client, so what it says reaches whichever proxy the client's
//! packets come to. Under a key that all proxies share it names the origin, by a tag that only they can read, and a MAC
//! refuses what others make up; the password follows from the ufrag and the key. Nobody has to write anything down.
//!
//! ```text
//! 1  tttttttt… 5 digits  nnnnnnnn… 13 digits   mmmmmmmm… 13 digits
//! │  └ tag of the origin └ nonce of the session └ MAC of version, tag, nonce and the origin's name
//! └ version
//! ```
//!
//! Digits are `0`-`9` and `a`-`v`, which SRS's own ufrags are made of too. Of the 32 characters that SRS takes none is left.

use std::fmt;

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::{
    ice::{IcePwd, Ufrag},
    reader::Reader,
};

/// The query parameter of WHIP and WHEP that chooses the origin's ufrag, in SRS of 4 to 32 characters.
pub const UFRAG_PARAMETER: &str = "ice-ufrag";
/// The one that chooses its password, of 22 to 32 characters.
pub const PWD_PARAMETER: &str = "ice-pwd";

const VERSION: u8 = b'1';
const TAG_DIGITS: u32 = 5;
/// Of 64 bits.
const WORD_DIGITS: u32 = 13;
/// What the MAC is of: version, tag and nonce.
const PREFIX_LEN: usize = 19;
const PWD_LEN: usize = 32;

/// Base 32: digits of five bits.
const DIGITS: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
const DIGIT_BITS: u32 = 5;

type HmacSha256 = Hmac<Sha256>;

/// The key that the proxies of a fleet share. It is never printed.
#[derive(Clone)]
pub struct FleetKey {
    secret: HmacSha256,
    tags: HmacSha256,
    macs: HmacSha256,
    passwords: HmacSha256,
}

/// What finds the origin of a ufrag among many, so that the MAC is computed for one alone. Two origins may have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct OriginTag(u32);

/// What an origin is to take for a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The origin's ufrag.
    pub ufrag: Ufrag,
    /// The key of the client's requests.
    pub pwd: IcePwd,
}

/// A text of the form of our ufrags, whoever made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RoutedUfrag<'a> {
    text: &'a str,
    tag: OriginTag,
    nonce: u64,
    mac: u64,
}

impl FleetKey {
    /// Takes a secret of any length.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        let secret = HmacSha256::new_from_slice(secret).expect("hmac takes keys of any length");
        let keyed = |purpose| {
            let derived = derive(&secret, purpose);
            HmacSha256::new_from_slice(&derived).expect("hmac takes keys of any length")
        };
        Self { tags: keyed("origin tag"), macs: keyed("ufrag mac"), passwords: keyed("ice password"), secret }
    }

    /// A key for another purpose, which tells nothing of this one.
    #[must_use]
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        derive(&self.secret, purpose)
    }

    /// The tag of the origin with this name.
    #[must_use]
    pub fn tag_of(&self, origin: &str) -> OriginTag {
        let mac = self.tags.clone().chain_update(origin).finalize().into_bytes();
        let bytes: [u8; 4] = mac.first_chunk().copied().expect("a digest has 32 bytes");
        OriginTag(u32::from_be_bytes(bytes) >> (u32::BITS - TAG_DIGITS * DIGIT_BITS))
    }

    /// What a session at the origin with this name is to have; `nonce` is to be new for each session.
    #[must_use]
    pub fn credentials(&self, origin: &str, nonce: u64) -> Credentials {
        let mut text = String::from(char::from(VERSION));
        write_digits(&mut text, self.tag_of(origin).0.into(), TAG_DIGITS);
        write_digits(&mut text, nonce, WORD_DIGITS);
        let mac = self.mac(&text, origin).finalize().into_bytes();
        let mac: [u8; 8] = mac.first_chunk().copied().expect("a digest has 32 bytes");
        write_digits(&mut text, u64::from_be_bytes(mac), WORD_DIGITS);
        let pwd = self.pwd(&text);
        Credentials { ufrag: text.parse().expect("digits are characters of a ufrag"), pwd }
    }

    /// The password of a session at the origin with this name, if the ufrag was made for that origin with this key.
    #[must_use]
    pub fn pwd_of(&self, ufrag: &RoutedUfrag<'_>, origin: &str) -> Option<IcePwd> {
        let made = self.mac(ufrag.prefix(), origin).verify_truncated_left(&ufrag.mac.to_be_bytes());
        made.ok().map(|()| self.pwd(ufrag.text))
    }

    fn mac(&self, prefix: &str, origin: &str) -> HmacSha256 {
        self.macs.clone().chain_update(prefix).chain_update(origin)
    }

    fn pwd(&self, ufrag: &str) -> IcePwd {
        let mac = self.passwords.clone().chain_update(ufrag).finalize().into_bytes();
        // A digit of each byte: 160 bits.
        let pwd: String = mac.iter().take(PWD_LEN).map(|byte| digit(*byte)).collect();
        pwd.parse().expect("digits are characters of a password")
    }
}

impl fmt::Debug for FleetKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FleetKey(..)")
    }
}

impl<'a> RoutedUfrag<'a> {
    /// Reads a ufrag; `None` if it is of another form, as those that origins draw are.
    #[must_use]
    pub fn parse(text: &'a str) -> Option<Self> {
        let mut reader = Reader::new(text.as_bytes());
        if reader.u8().ok()? != VERSION {
            return None;
        }
        let tag = OriginTag(u32::try_from(read_digits(&mut reader, TAG_DIGITS)?).ok()?);
        let nonce = read_digits(&mut reader, WORD_DIGITS)?;
        let mac = read_digits(&mut reader, WORD_DIGITS)?;
        reader.is_empty().then_some(Self { text, tag, nonce, mac })
    }

    /// The tag of its origin.
    #[must_use]
    pub const fn tag(&self) -> OriginTag {
        self.tag
    }

    /// What was new for its session.
    #[must_use]
    pub const fn nonce(&self) -> u64 {
        self.nonce
    }

    fn prefix(&self) -> &'a str {
        self.text.split_at(PREFIX_LEN).0
    }
}

fn derive(secret: &HmacSha256, purpose: &str) -> [u8; 32] {
    secret.clone().chain_update("srs-xproxy fleet\0").chain_update(purpose).finalize().into_bytes().into()
}

fn write_digits(text: &mut String, value: u64, count: u32) {
    for place in (0..count).rev() {
        let [low, ..] = value.unbounded_shr(place * DIGIT_BITS).to_le_bytes();
        text.push(digit(low));
    }
}

/// The digit of the lowest bits.
fn digit(byte: u8) -> char {
    char::from(DIGITS.get(usize::from(byte & 31)).copied().expect("five bits are an index of 32 digits"))
}

/// A number of so many digits, if it has no more than 64 bits.
fn read_digits(reader: &mut Reader<'_>, count: u32) -> Option<u64> {
    (0..count).try_fold(0_u64, |value, _| {
        let byte = reader.u8().ok()?;
        let digit = DIGITS.iter().position(|digit| *digit == byte)?;
        value.checked_mul(DIGITS.len() as u64)?.checked_add(digit as u64)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;

    use super::*;

    const ORIGIN: &str = "vid-1m3n6a0-0a1b2c3d-77";

    fn key() -> FleetKey {
        FleetKey::new(b"one key for all of a fleet")
    }

    fn example() -> String {
        key().credentials(ORIGIN, 0x0123_4567_89ab_cdef).ufrag.to_string()
    }

    fn pwd(key: &FleetKey, ufrag: &str, origin: &str) -> Option<IcePwd> {
        key.pwd_of(&RoutedUfrag::parse(ufrag)?, origin)
    }

    #[test]
    fn credentials_are_the_same_on_every_proxy_and_after_every_restart() {
        for (origin, nonce, ufrag, pwd) in VECTORS {
            let made = key().credentials(origin, nonce);
            assert_eq!((made.ufrag.as_str(), made.pwd.expose()), (ufrag, pwd), "{origin}");
        }
    }

    /// Of the key above.
    const VECTORS: [(&str, u64, &str, &str); 3] = [
        (
            ORIGIN,
            0x0123_4567_89ab_cdef,
            "1f72tk028q5cu4qnjffeut483e7lf5sp",
            "mv6ttlpdt810orgn4bk5dm03h6acj790",
        ),
        (ORIGIN, u64::MAX, "1f72tkfvvvvvvvvvvvvftp30amk5eacl", "0lva8cit3f0m3bo7rv6ub1uqp5gr145e"),
        ("vid-t4pl2x9-q-1", 0, "1d0rra0000000000000edq8b6tgirjk6", "tr3vfrr1qlmi1ie6cgp5b0nva22uusva"),
    ];

    #[test]
    fn credentials_are_what_srs_takes() {
        let Credentials { ufrag, pwd } = key().credentials(ORIGIN, 7);
        assert_eq!((ufrag.as_str().len(), pwd.expose().len()), (32, 32));
        let of_srs = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'));
        assert!(of_srs(ufrag.as_str()) && of_srs(pwd.expose()));
    }

    #[test]
    fn every_truncation_and_every_extension_is_refused() {
        let whole = example();
        for end in 0..whole.len() {
            assert_eq!(RoutedUfrag::parse(&whole[..end]), None, "{end}");
        }
        assert_eq!(RoutedUfrag::parse(&format!("{whole}0")), None);
    }

    #[test]
    fn every_flip_of_a_bit_is_refused() {
        let whole = example();
        for bit in 0..whole.len() * 8 {
            let mut flipped = whole.clone().into_bytes();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let Ok(flipped) = String::from_utf8(flipped) else { continue };
            assert_eq!(pwd(&key(), &flipped, ORIGIN), None, "{flipped}");
        }
    }

    #[test]
    fn another_key_and_another_origin_are_refused() {
        assert!(pwd(&key(), &example(), ORIGIN).is_some());
        assert_eq!(pwd(&FleetKey::new(b"another fleet's key"), &example(), ORIGIN), None);
        // Another run of the same server does not know the session.
        assert_eq!(pwd(&key(), &example(), "vid-1m3n6a0-0a1b2c3d-78"), None);
    }

    #[test]
    fn what_origins_draw_is_not_of_ours() {
        for text in [
            "9b22ga66",
            "",
            "1",
            &"1".repeat(31),
            &example().to_uppercase(),
            &example().replacen('1', "2", 1),
        ] {
            assert_eq!(RoutedUfrag::parse(text), None, "{text}");
        }
        // Thirteen digits hold 65 bits.
        let tail = &example()[PREFIX_LEN..];
        assert_eq!(RoutedUfrag::parse(&format!("100000g000000000000{tail}")), None);
    }

    #[test]
    fn one_secret_makes_keys_that_tell_nothing_of_each_other() {
        let key = key();
        let macs = [&key.secret, &key.tags, &key.macs, &key.passwords];
        let seen: HashSet<_> = macs.map(|mac| mac.clone().finalize().into_bytes()).into_iter().collect();
        assert_eq!(seen.len(), macs.len());
        assert_ne!(key.derive("hls"), key.derive("origin tag"));
        assert_eq!(key.derive("hls"), FleetKey::new(b"one key for all of a fleet").derive("hls"));
        assert_eq!(format!("{key:?}"), "FleetKey(..)");
    }

    #[test]
    fn origins_have_tags_of_their_own() {
        let tags: HashSet<_> = (0..1000).map(|pid| key().tag_of(&format!("vid-1-s-{pid}"))).collect();
        assert!(tags.len() > 990, "{}", tags.len());
    }

    proptest! {
        #[test]
        fn a_ufrag_leads_to_its_origin_and_its_password(origin in ".*", nonce: u64, other in ".*") {
            let Credentials { ufrag, pwd } = key().credentials(&origin, nonce);
            let routed = RoutedUfrag::parse(ufrag.as_str()).unwrap();
            prop_assert_eq!((routed.tag(), routed.nonce()), (key().tag_of(&origin), nonce));
            prop_assert_eq!(key().pwd_of(&routed, &origin), Some(pwd));
            prop_assert_eq!(key().pwd_of(&routed, &other).is_some(), other == origin);
        }

        #[test]
        fn any_text_is_one_of_ours_or_none(text in "1[0-9a-v]{31}|.*") {
            if let Some(routed) = RoutedUfrag::parse(&text) {
                prop_assert_eq!(text.len(), 32);
                prop_assert_eq!(key().pwd_of(&routed, ORIGIN), None);
            }
        }
    }
}
