//! Names of keys: those of the Go proxy, so that both can share a Redis, and our own.

use proxy_protocol::{ice::UfragPair, stream_url::StreamKey};

use crate::origin::OriginId;

/// The longest id of an origin that is taken from Redis; what registers is shorter.
pub(super) const MAX_ID: usize = 1024;

/// Keys under one prefix.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    prefix: String,
}

impl Keys {
    /// `prefix` and a colon stand before every key, also where a value names one.
    pub(super) fn new(prefix: &str) -> Self {
        Self { prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}:") } }
    }

    pub(super) fn server(&self, id: &OriginId) -> String {
        format!("{}{id}", self.server_prefix())
    }

    /// What every server key begins with.
    pub(super) fn server_prefix(&self) -> String {
        self.key("srs-proxy-server:")
    }

    /// The Go proxy's list of server keys.
    pub(super) fn servers(&self) -> String {
        self.key("srs-proxy-all-servers")
    }

    pub(super) fn pick(&self, stream: &StreamKey) -> String {
        self.key(&format!("srs-proxy-url:{stream}"))
    }

    pub(super) fn hls(&self, stream: &StreamKey) -> String {
        self.key(&format!("srs-proxy-hls:{stream}"))
    }

    pub(super) fn spbhid(&self, spbhid: &str) -> String {
        self.key(&format!("srs-proxy-spbhid:{spbhid}"))
    }

    pub(super) fn rtc(&self, stream: &StreamKey) -> String {
        self.key(&format!("srs-proxy-rtc:{stream}"))
    }

    pub(super) fn ufrag(&self, ufrags: &UfragPair) -> String {
        self.key(&format!("srs-proxy-ufrag:{}", ufrags.as_str()))
    }

    /// Our own list of origins, by the time their registrations expire.
    pub(super) fn origins(&self) -> String {
        self.key("srs-xproxy-origins")
    }

    /// Origins that take no new streams.
    pub(super) fn draining(&self) -> String {
        self.key("srs-xproxy-draining")
    }

    /// Members of the fleet.
    pub(super) fn members(&self) -> String {
        self.key("srs-xproxy-members")
    }

    /// What a member tells of its load.
    pub(super) fn load(&self, member: &str) -> String {
        self.key(&format!("srs-xproxy-load:{member}"))
    }

    /// Written and expired to learn whether writes are taken again.
    pub(super) fn probe(&self) -> String {
        self.key("srs-xproxy-probe")
    }

    /// The channel of notices.
    pub(super) fn channel(&self) -> String {
        self.key("srs-xproxy-notices")
    }

    /// The origin that a server key names.
    pub(super) fn origin_of(&self, key: &[u8]) -> Option<OriginId> {
        let id = str::from_utf8(key).ok()?.strip_prefix(&self.server_prefix())?;
        let is_fit = !id.is_empty() && id.len() <= MAX_ID && !id.contains(|c: char| c.is_ascii_control());
        is_fit.then(|| OriginId(id.into()))
    }

    fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_those_of_the_go_proxy() {
        let (plain, prefixed) = (Keys::new(""), Keys::new("fleet"));
        let stream: StreamKey = "__defaultVhost__/live/s1".parse().unwrap();
        let id = OriginId::new("vid-46p14mm", "z2s3w865", "42583");
        let ufrags: UfragPair = "5r3x0k72:aB+/".parse().unwrap();
        assert_eq!(plain.server(&id), "srs-proxy-server:vid-46p14mm-z2s3w865-42583");
        assert_eq!(plain.servers(), "srs-proxy-all-servers");
        assert_eq!(plain.pick(&stream), "srs-proxy-url:__defaultVhost__/live/s1");
        assert_eq!(plain.hls(&stream), "srs-proxy-hls:__defaultVhost__/live/s1");
        assert_eq!(plain.spbhid("067270c"), "srs-proxy-spbhid:067270c");
        assert_eq!(plain.rtc(&stream), "srs-proxy-rtc:__defaultVhost__/live/s1");
        assert_eq!(plain.ufrag(&ufrags), "srs-proxy-ufrag:5r3x0k72:aB+/");
        assert_eq!(prefixed.server(&id), format!("fleet:{}", plain.server(&id)));
        assert_eq!(prefixed.pick(&stream), format!("fleet:{}", plain.pick(&stream)));
    }

    #[test]
    fn a_server_key_names_an_origin_and_nothing_else_does() {
        let keys = Keys::new("fleet");
        let id = OriginId::new("s", "v", "1");
        assert_eq!(keys.origin_of(keys.server(&id).as_bytes()), Some(id));
        for key in
            ["", "s-v-1", "srs-proxy-server:s-v-1", "fleet:srs-proxy-server:", "fleet:srs-proxy-server:a\nb"]
        {
            assert_eq!(keys.origin_of(key.as_bytes()), None, "{key:?}");
        }
        assert_eq!(keys.origin_of(b"fleet:srs-proxy-server:\xff"), None);
        assert_eq!(keys.origin_of(format!("fleet:srs-proxy-server:{}", "a".repeat(1025)).as_bytes()), None);
    }
}
