//! What a player asks for over HTTP, and of which stream.
//!
//! A segment is a stream's file, and its name is the stream's with something behind it. SRS writes
//! `[app]/[stream]-[seq].ts`, `.m4s` and `.key` for HLS, and `[app]/[stream]/video-[seq].m4s` for DASH; the RTMP module of
//! NGINX writes `[stream]-[time].m4v`. Other templates can be configured, so a name is a guess. It is made for a segment
//! that comes without the id of its origin, and a guess finds an origin that has the stream, it never chooses one.

use super::{Address, StreamKey, StreamRules, StreamUrlError, go, names};
use crate::{backend_id, query};

/// SRS compares extensions as they are: it knows no stream `s1.FLV`.
const LIVE: [&str; 4] = ["flv", "ts", "aac", "mp3"];
const SEGMENTS: [&str; 6] = ["m4s", "mp4", "m4v", "m4a", "key", "vtt"];

/// The parameter by which SRS counts viewers of HLS, and puts on each segment.
const HLS_CONTEXT: &str = "hls_ctx";

/// A request of a player.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MediaRequest {
    /// A stream that goes on until somebody ends it.
    Live(StreamKey),
    /// A playlist of HLS.
    Playlist(StreamKey),
    /// A manifest of DASH.
    Manifest(StreamKey),
    /// A file of a stream: a segment, what starts segments, a key, subtitles. The streams it may be of, the likeliest first.
    Segment(Vec<StreamKey>),
    /// `s1-2.ts` without an id: the stream `s1-2`, or a segment of `s1`.
    ///
    /// SRS has no vhost with both HTTP-TS and HLS. What is asked for without an id is seldom a segment, so a known stream of
    /// that very name comes first, then one that it may be a segment of.
    LiveOrSegment {
        /// The stream of that name.
        live: StreamKey,
        /// The stream of a segment of that name.
        segment_of: StreamKey,
    },
}

impl MediaRequest {
    /// The streams that an origin may be looked up by, in this order.
    #[must_use]
    pub fn streams(&self) -> Vec<&StreamKey> {
        match self {
            Self::Live(stream) | Self::Playlist(stream) | Self::Manifest(stream) => vec![stream],
            Self::Segment(streams) => streams.iter().collect(),
            Self::LiveOrSegment { live, segment_of } => vec![live, segment_of],
        }
    }

    /// The stream that an origin may be chosen for if none has it: not by a segment, which exists on one origin or nowhere.
    #[must_use]
    pub const fn stream_to_pick(&self) -> Option<&StreamKey> {
        match self {
            Self::Live(stream) | Self::Playlist(stream) | Self::Manifest(stream) => Some(stream),
            Self::Segment(_) | Self::LiveOrSegment { .. } => None,
        }
    }
}

impl StreamRules {
    /// What a player asks for with this `Host`, path and query; `None` if the path is of no media.
    ///
    /// # Errors
    ///
    /// Fails if the path is of media and names no stream.
    pub fn media(
        &self,
        host: Option<&str>,
        path: &str,
        query: Option<&str>,
    ) -> Result<Option<MediaRequest>, StreamUrlError> {
        let (directory, file) = path.rsplit_once('/').unwrap_or(("", path));
        let Some((name, extension)) = file.rsplit_once('.') else { return Ok(None) };
        let request =
            Request { rules: self, host: host.unwrap_or_default(), query: query.unwrap_or_default() };
        let stream = |name| request.stream(directory, name);
        Ok(Some(match extension {
            "m3u8" => MediaRequest::Playlist(stream(name)?),
            "mpd" => MediaRequest::Manifest(stream(name)?),
            _ if LIVE.contains(&extension) && !request.is_of_playlist() => {
                match without_sequence(name).filter(|_| extension == "ts") {
                    Some(of) => MediaRequest::LiveOrSegment { live: stream(name)?, segment_of: stream(of)? },
                    None => MediaRequest::Live(stream(name)?),
                }
            }
            _ if LIVE.contains(&extension) || SEGMENTS.contains(&extension) => {
                MediaRequest::Segment(request.streams_of_segment(directory, name)?)
            }
            _ => return Ok(None),
        }))
    }
}

struct Request<'a> {
    rules: &'a StreamRules,
    host: &'a str,
    query: &'a str,
}

impl Request<'_> {
    /// Whether the URI was found in a playlist, by what the proxy or SRS put there.
    fn is_of_playlist(&self) -> bool {
        [backend_id::PARAMETER, HLS_CONTEXT].iter().any(|name| query::value(self.query, name).is_some())
    }

    fn streams_of_segment(&self, directory: &str, name: &str) -> Result<Vec<StreamKey>, StreamUrlError> {
        let mut streams = Vec::new();
        if let Some((parent, stream)) = directory_of_stream(directory).filter(|_| is_of_directory(name)) {
            streams.push(self.stream(parent, stream)?);
        }
        if let Some(stream) = without_sequence(name) {
            streams.push(self.stream(directory, stream)?);
        }
        streams.push(self.stream(directory, name)?);
        streams.dedup();
        Ok(streams)
    }

    fn stream(&self, directory: &str, name: &str) -> Result<StreamKey, StreamUrlError> {
        if self.rules.go_compatible {
            return go::http(self.host, &format!("{directory}/{name}.ts"), self.query);
        }
        let Self { host, query, .. } = *self;
        self.rules.key(&Address { host, app: directory, stream: name, queries: [query, ""] })
    }
}

/// `[stream]` of `[stream]-[number]` and of `[stream]-init`.
fn without_sequence(name: &str) -> Option<&str> {
    let (stream, sequence) = name.rsplit_once('-')?;
    let is_number = !sequence.is_empty() && sequence.bytes().all(|digit| digit.is_ascii_digit());
    (!stream.is_empty() && (is_number || sequence == "init")).then_some(stream)
}

/// Whether SRS writes such a file into a directory that has the name of the stream.
fn is_of_directory(name: &str) -> bool {
    name == "init" || without_sequence(name).is_some_and(|track| track == "audio" || track == "video")
}

/// A path of an app and a stream at least.
fn directory_of_stream(directory: &str) -> Option<(&str, &str)> {
    let directory = directory.trim_end_matches('/');
    directory.rsplit_once('/').filter(|(parent, _)| names(parent).next().is_some())
}

#[cfg(test)]
mod tests;
