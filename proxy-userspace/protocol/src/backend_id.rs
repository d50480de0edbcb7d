//! Names an origin to players of HLS and DASH, without telling them which it is.
//!
//! A segment lives on the origin that wrote it, and the proxy that is asked for it may have written down nothing: it was
//! restarted, or another proxy rewrote the playlist. So the parameter that the proxy adds to every URI of a playlist holds
//! a MAC of the origin's server id under a key that all proxies share. It reveals no address, cannot be made by a
//! client, and is the same in every refresh, so that caches hold. What goes with an unknown id is found by the stream's name.

use std::fmt;

use hmac::{Hmac, Mac as _};
use sha1::Sha1;

use crate::{query, uri};

/// The query parameter, as SRS's Go proxy calls it.
pub const PARAMETER: &str = "spbhid";

/// 96 bits: a forger who may try a billion times a second needs a trillion years.
const MAC_LEN: usize = 12;

/// Keeps the key's other uses apart.
const PURPOSE: &[u8] = b"srs-xproxy backend id\0";

/// The key that the proxies of a fleet share. It is never printed.
#[derive(Clone)]
pub struct BackendKey(Hmac<Sha1>);

impl BackendKey {
    /// Takes a secret of any length.
    #[must_use]
    pub fn new(secret: &[u8]) -> Self {
        let mut mac = Hmac::new_from_slice(secret).expect("hmac takes keys of any length");
        mac.update(PURPOSE);
        Self(mac)
    }

    /// The id of the origin with this server id: 24 hexadecimal digits.
    #[must_use]
    pub fn id_of(&self, server_id: &str) -> String {
        let mac = self.mac(server_id).finalize().into_bytes();
        mac.iter().take(MAC_LEN).map(|byte| format!("{byte:02x}")).collect()
    }

    /// The one of `servers` whose id `text` is, if any is.
    pub fn find<'a>(&self, text: &str, servers: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
        let tag = tag(text)?;
        servers.into_iter().find(|server_id| self.mac(server_id).verify_truncated_left(&tag).is_ok())
    }

    fn mac(&self, server_id: &str) -> Hmac<Sha1> {
        self.0.clone().chain_update(server_id)
    }
}

impl fmt::Debug for BackendKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BackendKey(..)")
    }
}

/// `uri` with the id of its origin, for a playlist.
#[must_use]
pub fn tagged(uri: &str, id: &str) -> String {
    uri::with_parameter(uri, PARAMETER, id)
}

/// The target of a request as its origin gets it, without an id. SRS would copy it into its master playlist.
#[must_use]
pub fn untagged(target: &str) -> String {
    uri::without_parameter(target, PARAMETER)
}

/// The id in the query of a request.
#[must_use]
pub fn of_query(query: &str) -> Option<&str> {
    query::value(query, PARAMETER)
}

/// The bytes of an id: of ours alone, which are longer than those of the Go proxy.
fn tag(text: &str) -> Option<[u8; MAC_LEN]> {
    if text.len() != 2 * MAC_LEN || !text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
        return None;
    }
    let mut tag = [0; MAC_LEN];
    for (byte, digits) in tag.iter_mut().zip(text.as_bytes().chunks(2)) {
        *byte = u8::from_str_radix(str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(tag)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SERVERS: [&str; 3] = ["vid-1m3n6a0", "vid-t4pl2x9", "vid-9"];

    fn key() -> BackendKey {
        BackendKey::new(b"one of a fleet")
    }

    #[test]
    fn an_id_finds_its_origin_and_no_other() {
        for server_id in SERVERS {
            assert_eq!(key().find(&key().id_of(server_id), SERVERS), Some(server_id));
        }
        assert_eq!(key().find(&key().id_of("vid-gone"), SERVERS), None);
    }

    #[test]
    fn an_id_is_the_same_in_every_refresh_and_on_every_proxy() {
        assert_eq!(key().id_of("vid-1m3n6a0"), "0600f4571080a82b7a18b264");
    }

    #[test]
    fn an_id_of_another_key_is_refused() {
        let id = BackendKey::new(b"another fleet").id_of(SERVERS[0]);
        assert_eq!(key().find(&id, SERVERS), None);
    }

    #[test]
    fn every_forgery_is_refused() {
        let id = key().id_of(SERVERS[0]);
        for at in 0..id.len() {
            let digit = if &id[at..=at] == "0" { "1" } else { "0" };
            let forged = [&id[..at], digit, &id[at + 1..]].concat();
            assert_eq!(key().find(&forged, SERVERS), None, "{forged}");
            assert_eq!(key().find(&id[..at], SERVERS), None, "{at}");
        }
        let plain = SERVERS[0].to_owned();
        for odd in
            [format!("{id}00"), id.to_uppercase(), format!("+{}", &id[1..]), "10.0.0.1:8080".into(), plain]
        {
            assert_eq!(key().find(&odd, SERVERS), None, "{odd}");
        }
    }

    #[test]
    fn an_id_of_the_go_proxy_is_not_ours() {
        assert_eq!(key().find("7a8b9c0", SERVERS), None);
    }

    #[test]
    fn an_id_is_safe_in_a_url_and_tells_nothing() {
        let id = key().id_of("10.0.0.1:8080");
        assert!(id.bytes().all(|byte| byte.is_ascii_hexdigit()) && !id.contains("10.0.0.1"));
        assert_eq!(format!("{:?}", key()), "BackendKey(..)");
    }

    #[test]
    fn the_parameter_is_added_read_and_removed() {
        let tagged = tagged("cam-1-7.ts?hls_ctx=336vqi2o&token=a%2Fb+c", "abc");
        assert_eq!(tagged, "cam-1-7.ts?spbhid=abc&hls_ctx=336vqi2o&token=a%2Fb+c");
        assert_eq!(of_query("spbhid=abc&hls_ctx=336vqi2o"), Some("abc"));
        assert_eq!(untagged(&tagged), "cam-1-7.ts?hls_ctx=336vqi2o&token=a%2Fb+c");
        assert_eq!(untagged("/live/cam.m3u8?spbhid=abc&&token=1"), "/live/cam.m3u8?&token=1");
    }

    proptest! {
        #[test]
        fn any_text_names_one_of_the_servers_or_none(text in "[0-9a-f]{24}|.*", server in ".*") {
            let found = key().find(&text, [server.as_str()]);
            prop_assert_eq!(found.is_some(), text == key().id_of(&server));
        }
    }
}
