//! The keys of SRS's Go proxy, faults included, for a fleet that shares one Redis with it.
//!
//! Its rule: join host, app and stream to a URL, parse that as Go does, and keep the host if it is a domain name. It
//! ignores `?vhost=`, knows no legacy addresses, and keeps repeated slashes.

use std::net::IpAddr;

use super::{DEFAULT_VHOST, StreamKey, StreamUrlError, host_name, split_query};
use crate::query::{pairs, percent_decode};

pub(super) fn http(host: &str, path: &str, query: &str) -> Result<StreamKey, StreamUrlError> {
    // A Host header without a port, as every client of port 80 sends, is overlooked.
    let host = if host.contains(':') { host_name(host) } else { DEFAULT_VHOST };
    let mut app_stream = String::new();
    for name in ["app", "stream"] {
        if let Some(value) = form_value(query, name) {
            app_stream.push('/');
            app_stream.push_str(&value);
        }
    }
    if app_stream.is_empty() {
        app_stream = without_extension(&decode(path)?).to_owned();
    }
    key(host, &app_stream)
}

pub(super) fn srt(stream_id: &str) -> Result<StreamKey, StreamUrlError> {
    let host = srt_value(stream_id, "h=").unwrap_or("localhost");
    let resource = srt_value(stream_id, "r=").ok_or(StreamUrlError::SrtResource)?;
    url(&format!("srt://{host}/{resource}"))
}

pub(super) fn url(text: &str) -> Result<StreamKey, StreamUrlError> {
    let (_scheme, address) = text.split_once("://").ok_or(StreamUrlError::NotAUrl)?;
    let authority_len = address.find(['/', '?', '#']).unwrap_or(address.len());
    let (authority, path) = address.split_at(authority_len);
    key(host_name(authority), path)
}

fn key(host: &str, path: &str) -> Result<StreamKey, StreamUrlError> {
    let path = decode(split_query(path).0)?;
    let vhost = if is_domain(host) { host } else { DEFAULT_VHOST };
    StreamKey::checked(format!("{vhost}{path}"))
}

fn is_domain(host: &str) -> bool {
    host.contains('.') && !host.parse().is_ok_and(is_ipv4)
}

fn is_ipv4(address: IpAddr) -> bool {
    matches!(address.to_canonical(), IpAddr::V4(_))
}

/// The first non-empty value of a form field, where `+` is a space and a malformed pair is overlooked.
fn form_value(query: &str, name: &str) -> Option<String> {
    let mut values = pairs(query).filter(|(key, value)| *key == name && !value.contains(';'));
    let value = values.find_map(|(_, value)| decode(&value.replace('+', " ")).ok())?;
    (!value.is_empty()).then_some(value)
}

fn without_extension(path: &str) -> &str {
    let file_start = path.rfind('/').unwrap_or_default();
    path.rfind('.').filter(|dot| *dot > file_start).map_or(path, |dot| path.split_at(dot).0)
}

/// What follows `name`, anywhere in the text, up to a comma.
fn srt_value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let mut values = text.split(name).skip(1).map(|rest| rest.split(',').next().unwrap_or_default());
    values.find(|value| !value.is_empty())
}

/// Decodes strictly, as Go's `net/url` does.
fn decode(text: &str) -> Result<String, StreamUrlError> {
    if text.split('%').skip(1).all(starts_with_hex) {
        Ok(percent_decode(text).into_owned())
    } else {
        Err(StreamUrlError::Escape)
    }
}

fn starts_with_hex(after_percent: &str) -> bool {
    after_percent.as_bytes().first_chunk::<2>().is_some_and(|digits| digits.iter().all(u8::is_ascii_hexdigit))
}
