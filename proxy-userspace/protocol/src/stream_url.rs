//! The one name of a stream, whatever protocol asks for it.
//!
//! A publisher and its players must meet on one origin, so `rtmp://1.2.3.4/live` with stream `s1?token=x`,
//! `http://cdn.example.com/live/s1.flv` and `#!::r=live/s1` have to give one [`StreamKey`]. SRS decides which of them
//! are the same stream, so [`StreamRules`] reads addresses as SRS does. The key chooses an origin and nothing more: what
//! the origin is asked for stays as the client wrote it.

mod go;
mod http;
mod srt;

use std::{borrow::Cow, fmt, str::FromStr, sync::Arc};

use thiserror::Error;

pub use self::{http::MediaRequest, srt::SrtMode};
use crate::query;

/// The vhost of every host that is not a virtual host of the origins.
pub const DEFAULT_VHOST: &str = "__defaultVhost__";

const DEFAULT_APP: &str = "live";
const DEFAULT_STREAM: &str = "livestream";
const MAX_KEY_LEN: usize = 1024;

/// Why an address names no stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum StreamUrlError {
    /// The address ends before the stream's name.
    #[error("stream name is empty")]
    EmptyStream,
    /// There is no `scheme://host`.
    #[error("stream address is not a url")]
    NotAUrl,
    /// A control character would forge log lines and registry keys.
    #[error("stream address holds a control character")]
    ControlCharacter,
    /// The key would exceed 1024 bytes.
    #[error("stream address is too long")]
    TooLong,
    /// The mode of an SRT stream id is neither `request` nor `publish`.
    #[error("srt mode is neither request nor publish")]
    SrtMode,
    /// The SRT stream id has no `r=`, which the Go proxy demands.
    #[error("srt stream id has no resource")]
    SrtResource,
    /// A `%` is not followed by two hexadecimal digits, which the Go proxy refuses.
    #[error("stream address has a malformed escape")]
    Escape,
}

/// The normal form `vhost/app/stream` of a stream's address. An app may hold slashes, a vhost and a stream do not.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamKey(Arc<str>);

impl StreamKey {
    /// The whole key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The virtual host, most often [`DEFAULT_VHOST`].
    #[must_use]
    pub fn vhost(&self) -> &str {
        self.vhost_and_path().0
    }

    /// The app.
    #[must_use]
    pub fn app(&self) -> &str {
        self.app_and_stream().0
    }

    /// The stream within the app.
    #[must_use]
    pub fn stream(&self) -> &str {
        self.app_and_stream().1
    }

    fn vhost_and_path(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or((&self.0, ""))
    }

    fn app_and_stream(&self) -> (&str, &str) {
        let path = self.vhost_and_path().1;
        path.rsplit_once('/').unwrap_or(("", path))
    }

    fn checked(text: String) -> Result<Self, StreamUrlError> {
        if text.len() > MAX_KEY_LEN {
            return Err(StreamUrlError::TooLong);
        }
        if text.chars().any(char::is_control) {
            return Err(StreamUrlError::ControlCharacter);
        }
        Ok(Self(text.into()))
    }
}

impl FromStr for StreamKey {
    type Err = StreamUrlError;

    /// Takes a key that is in normal form already, as the registry stores it.
    fn from_str(text: &str) -> Result<Self, StreamUrlError> {
        let key = Self::checked(text.to_owned())?;
        if key.stream().is_empty() { Err(StreamUrlError::EmptyStream) } else { Ok(key) }
    }
}

impl fmt::Display for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StreamKey({self})")
    }
}

/// How addresses become keys on this installation.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StreamRules {
    /// The virtual hosts that the origins configure. Every other host is the default one, as it is for SRS.
    pub vhosts: Vec<String>,
    /// Makes the keys of SRS's Go proxy, for a fleet that shares one Redis with it.
    pub go_compatible: bool,
}

impl StreamRules {
    /// The stream of an HTTP request: FLV, TS and HLS by path, WHIP and WHEP by query.
    ///
    /// # Errors
    ///
    /// Fails if the request names no stream.
    pub fn http(
        &self,
        host: Option<&str>,
        path: &str,
        query: Option<&str>,
    ) -> Result<StreamKey, StreamUrlError> {
        let query = query.unwrap_or_default();
        if self.go_compatible {
            return go::http(host.unwrap_or_default(), path, query);
        }
        let host = host.unwrap_or_default();
        if is_signalling(path) {
            let app = value_or(query, "app", DEFAULT_APP);
            let stream = value_or(query, "stream", DEFAULT_STREAM);
            return self.key(&Address { host, app, stream, queries: [query, ""] });
        }
        let (app, file) = path.rsplit_once('/').unwrap_or(("", path));
        let stream = file.rsplit_once('.').map_or(file, |(stream, _extension)| stream);
        self.key(&Address { host, app, stream, queries: [query, ""] })
    }

    /// The stream of a legacy WebRTC request: the `streamurl` of its JSON body.
    ///
    /// # Errors
    ///
    /// Fails if the address names no stream.
    pub fn rtc_url(&self, streamurl: &str) -> Result<StreamKey, StreamUrlError> {
        if self.go_compatible {
            return go::url(streamurl);
        }
        // As SRS does, by the last slash, even one in the query: FMLE appends the stream to a query.
        let (tc_url, stream) = streamurl.rsplit_once('/').ok_or(StreamUrlError::NotAUrl)?;
        self.rtmp(tc_url, stream)
    }

    /// The stream of an RTMP session: the `tcUrl` of its connect command, and the name it publishes or plays.
    ///
    /// # Errors
    ///
    /// Fails if the two name no stream.
    pub fn rtmp(&self, tc_url: &str, stream: &str) -> Result<StreamKey, StreamUrlError> {
        if self.go_compatible {
            return go::url(&format!("{tc_url}/{stream}"));
        }
        // SRS takes these out of names, so that a space that was pasted along makes no other stream.
        let is_blank = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
        let tc_url = tc_url.replace("...vhost...", "?vhost=").replace(is_blank, "");
        let stream = stream.replace(is_blank, "");
        let (address, connect_query) = split_query(&tc_url);
        let (stream, stream_query) = split_query(&stream);
        let (_scheme, address) = address.split_once("://").ok_or(StreamUrlError::NotAUrl)?;
        let (host, app) = address.split_once('/').unwrap_or((address, ""));
        let (app, stream) = if stream.is_empty() { unnamed(app, connect_query) } else { (app, stream) };
        self.key(&Address { host, app, stream, queries: [stream_query, connect_query] })
    }

    /// The stream of an SRT connection: its stream id.
    ///
    /// # Errors
    ///
    /// Fails if SRS would refuse the stream id.
    pub fn srt(&self, stream_id: &str) -> Result<StreamKey, StreamUrlError> {
        if self.go_compatible {
            return go::srt(stream_id);
        }
        let id = srt::StreamId::parse(stream_id)?;
        let (app, stream) = id.path.rsplit_once('/').unwrap_or(("", id.path));
        self.key(&Address { host: id.host, app, stream, queries: [id.query, ""] })
    }

    /// The same, and what is wanted of the stream.
    ///
    /// # Errors
    ///
    /// As for [`Self::srt`].
    pub fn srt_request(&self, stream_id: &str) -> Result<(StreamKey, SrtMode), StreamUrlError> {
        let mode = srt::StreamId::parse(stream_id).map(|id| id.mode);
        Ok((self.srt(stream_id)?, if self.go_compatible { mode.unwrap_or_default() } else { mode? }))
    }

    fn key(&self, address: &Address<'_>) -> Result<StreamKey, StreamUrlError> {
        let app = query::percent_decode(address.app);
        let stream = query::percent_decode(address.stream);
        let stream: Vec<_> = names(&stream).collect();
        let (stream, deeper) = stream.split_last().ok_or(StreamUrlError::EmptyStream)?;
        let app: Vec<_> = names(&app).chain(deeper.iter().copied()).collect();
        let app = if app.is_empty() { DEFAULT_APP.to_owned() } else { app.join("/") };
        StreamKey::checked(format!("{}/{app}/{stream}", self.vhost(address)))
    }

    fn vhost(&self, address: &Address<'_>) -> &str {
        let requested = address.queries.into_iter().find_map(requested_vhost);
        let host = requested.as_deref().unwrap_or(host_name(address.host));
        let listed = self.vhosts.iter().find(|vhost| vhost.eq_ignore_ascii_case(host));
        listed.map_or(DEFAULT_VHOST, String::as_str)
    }
}

/// What an address says, as it was written.
struct Address<'a> {
    host: &'a str,
    app: &'a str,
    stream: &'a str,
    /// Where a vhost may be asked for, in order of preference.
    queries: [&'a str; 2],
}

fn is_signalling(path: &str) -> bool {
    path.starts_with("/rtc/")
}

fn value_or<'a>(query: &'a str, name: &str, default: &'a str) -> &'a str {
    query::value(query, name).filter(|value| !value.is_empty()).unwrap_or(default)
}

/// App and stream of a connect URL that has it all: the stream is the last part of the app, says SRS, or else follows
/// the query.
fn unnamed<'a>(app: &'a str, query: &'a str) -> (&'a str, &'a str) {
    let in_query = || query.split_once('/').map(|(_query, stream)| (app, stream));
    app.trim_end_matches('/').rsplit_once('/').or_else(in_query).unwrap_or((app, ""))
}

/// Splits an address from its query or fragment.
fn split_query(address: &str) -> (&str, &str) {
    address.split_once(['?', '#']).unwrap_or((address, ""))
}

/// The names along a path, without its query, repeated slashes and the instance name of Flash servers.
fn names(path: &str) -> impl Iterator<Item = &str> {
    split_query(path).0.split('/').filter(|name| !name.is_empty() && *name != "_definst_")
}

fn requested_vhost(query: &str) -> Option<Cow<'_, str>> {
    let values = ["vhost", "domain"].into_iter().filter_map(|name| query::value(query, name));
    // What follows a slash is the stream of a connect URL that has it all.
    let mut values = values.map(|value| value.split_once('/').map_or(value, |(vhost, _stream)| vhost));
    let vhost = query::percent_decode(values.find(|value| !value.is_empty())?);
    (vhost != DEFAULT_VHOST).then_some(vhost)
}

/// The host of `user:password@host:port`; an IPv6 address comes without its brackets.
fn host_name(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_user, host)| host);
    if let Some(ipv6) = host.strip_prefix('[') {
        return ipv6.split_once(']').map_or(ipv6, |(address, _port)| address);
    }
    host.split_once(':').map_or(host, |(name, _port)| name)
}

#[cfg(test)]
mod tests;
