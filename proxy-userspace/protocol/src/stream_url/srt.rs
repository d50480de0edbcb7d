//! SRT stream ids as SRS reads them: a bare path, or the `#!::key=value,...` form of the SRT access control guideline.

use super::{StreamUrlError, split_query};

/// What an SRT caller wants, as its stream id says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SrtMode {
    /// To play, which is what SRS takes a stream id for that does not say.
    #[default]
    Request,
    /// To publish.
    Publish,
}

/// What SRS publishes or plays if the caller sends no stream id.
const DEFAULT_PATH: &str = "live/livestream";

#[derive(Default)]
pub(super) struct StreamId<'a> {
    pub(super) host: &'a str,
    /// App and stream.
    pub(super) path: &'a str,
    pub(super) query: &'a str,
    pub(super) mode: SrtMode,
    /// The path is that of `r=`, which counts more than one in `h=`, wherever they stand.
    has_resource: bool,
}

impl<'a> StreamId<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, StreamUrlError> {
        if text.is_empty() {
            return Ok(Self { path: DEFAULT_PATH, mode: SrtMode::Publish, ..Self::default() });
        }
        let Some(pairs) = text.strip_prefix("#!::") else {
            let (path, query) = split_query(text);
            return Ok(Self { path, query, ..Self::default() });
        };
        let mut id = Self::default();
        for pair in pairs.split([',', '&', ';', '?']) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            id.take(key, value)?;
        }
        Ok(id)
    }

    fn take(&mut self, key: &str, value: &'a str) -> Result<(), StreamUrlError> {
        match key {
            "h" => self.take_host(value),
            "r" => (self.path, self.has_resource) = (value, true),
            "m" => self.mode = mode(value)?,
            "vhost" | "domain" if self.host.is_empty() => self.host = value,
            _ => {}
        }
        Ok(())
    }

    /// Old callers put `app/stream` or `vhost/app/stream` into the host.
    fn take_host(&mut self, value: &'a str) {
        match value.split_once('/') {
            None => self.host = value,
            Some((vhost, path)) if path.contains('/') => {
                self.host = vhost;
                self.take_path(path);
            }
            Some(_) => self.take_path(value),
        }
    }

    fn take_path(&mut self, path: &'a str) {
        if !self.has_resource {
            self.path = path;
        }
    }
}

fn mode(word: &str) -> Result<SrtMode, StreamUrlError> {
    let modes = [("request", SrtMode::Request), ("publish", SrtMode::Publish)];
    let known = modes.into_iter().find(|(known, _)| known.eq_ignore_ascii_case(word));
    known.map(|(_, mode)| mode).ok_or(StreamUrlError::SrtMode)
}
