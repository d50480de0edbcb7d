//! The paths of the WebRTC API.

use proxy_protocol::query::percent_decode;

/// What a path of the WebRTC API speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Endpoint {
    /// `/rtc/v1/whip/`: SDP both ways; a publisher, unless the query says `action=play`.
    Whip,
    /// `/rtc/v1/whep/` and `/rtc/v1/whip-play/`: SDP both ways, a player.
    Whep,
    /// `/rtc/v1/publish/`: JSON both ways, a publisher.
    Publish,
    /// `/rtc/v1/play/`: JSON both ways, a player.
    Play,
}

impl Endpoint {
    /// The endpoint of `path`, or of a path below it; a path that climbs up again has none.
    pub(super) fn of_path(path: &str) -> Option<Self> {
        if percent_decode(path).split('/').any(|segment| segment == "..") {
            return None;
        }
        let name = path.strip_prefix("/rtc/v1/")?;
        match name.split_once('/').map_or(name, |(name, _below)| name) {
            "whip" => Some(Self::Whip),
            "whep" | "whip-play" => Some(Self::Whep),
            "publish" => Some(Self::Publish),
            "play" => Some(Self::Play),
            _ => None,
        }
    }

    /// Whether offer and answer are members of JSON objects.
    pub(super) fn is_json(self) -> bool {
        match self {
            Self::Publish | Self::Play => true,
            Self::Whip | Self::Whep => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_paths_with_and_without_something_below() {
        for (path, endpoint) in [
            ("/rtc/v1/whip/", Some(Endpoint::Whip)),
            ("/rtc/v1/whip", Some(Endpoint::Whip)),
            ("/rtc/v1/whip/live/livestream", Some(Endpoint::Whip)),
            ("/rtc/v1/whip-play/", Some(Endpoint::Whep)),
            ("/rtc/v1/whep/", Some(Endpoint::Whep)),
            ("/rtc/v1/publish/", Some(Endpoint::Publish)),
            ("/rtc/v1/play/", Some(Endpoint::Play)),
            ("/rtc/v1/whipper/", None),
            ("/rtc/v1/", None),
            ("/rtc/v1/whip/../../../api/v1/raw", None),
            ("/rtc/v1/whip/%2e%2E/x", None),
            ("/api/v1/streams/", None),
            ("/api/v1/raw", None),
        ] {
            assert_eq!(Endpoint::of_path(path), endpoint, "{path}");
        }
    }
}
