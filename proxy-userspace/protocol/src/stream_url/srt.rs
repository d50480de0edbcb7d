//! SRT stream ids as SRS reads them: a bare path, or the `#!::key=value,...` form of the SRT access control guideline.

use super::{StreamUrlError, split_query};

/// What SRS publishes or plays if the caller sends no stream id.
const DEFAULT_PATH: &str = "live/livestream";

#[derive(Default)]
pub(super) struct StreamId<'a> {
    pub(super) host: &'a str,
    /// App and stream.
    pub(super) path: &'a str,
    pub(super) query: &'a str,
}

impl<'a> StreamId<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, StreamUrlError> {
        if text.is_empty() {
            return Ok(Self { path: DEFAULT_PATH, ..Self::default() });
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
            "r" => self.path = value,
            "m" => check_mode(value)?,
            "vhost" | "domain" if self.host.is_empty() => self.host = value,
            _ => {}
        }
        Ok(())
    }

    /// Old callers put `app/stream` or `vhost/app/stream` into the host.
    fn take_host(&mut self, value: &'a str) {
        match value.split_once('/') {
            None => self.host = value,
            Some((vhost, path)) if path.contains('/') => (self.host, self.path) = (vhost, path),
            Some(_) => self.path = value,
        }
    }
}

fn check_mode(mode: &str) -> Result<(), StreamUrlError> {
    if ["request", "publish"].iter().any(|known| known.eq_ignore_ascii_case(mode)) {
        Ok(())
    } else {
        Err(StreamUrlError::SrtMode)
    }
}
