//! The little HTTP/1.1 that WHIP, WHEP, registration and an origin's API need: one request per connection,
//! query bytes kept exactly as they came.

mod client;
mod server;

use std::io::{self, BufRead, Read};

pub use client::{Request, Url};
pub use server::{Arrived, Server, answer};

const LARGEST_BODY: usize = 1 << 20;

/// Header fields in the order of the wire.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

impl Headers {
    /// The first value of `name`, whatever its case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    /// Appends a field.
    pub fn push(&mut self, name: &str, value: impl Into<String>) {
        self.0.push((name.to_owned(), value.into()));
    }

    /// All fields.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

/// An answer, as sent by a [`Server`] or received by a [`Request`].
#[derive(Debug, Clone)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The header fields without `Content-Length`, which is derived from the body when sending.
    pub headers: Headers,
    /// The body.
    pub body: String,
}

impl Response {
    /// An answer with a body of the given type.
    #[must_use]
    pub fn new(status: u16, content_type: &str, body: impl Into<String>) -> Self {
        let mut headers = Headers::default();
        headers.push("Content-Type", content_type);
        Self { status, headers, body: body.into() }
    }

    /// A 200 with a JSON body.
    #[must_use]
    pub fn json(body: &serde_json::Value) -> Self {
        Self::new(200, "application/json", body.to_string())
    }

    /// Adds a header field.
    #[must_use]
    pub fn with_header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }
}

fn read_head(reader: &mut impl BufRead) -> io::Result<(String, Headers)> {
    let start = read_line(reader)?;
    let mut headers = Headers::default();
    loop {
        let line = read_line(reader)?;
        let Some((name, value)) = line.split_once(':') else {
            return Ok((start, headers));
        };
        headers.push(name.trim(), value.trim());
    }
}

fn read_line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.by_ref().take(8192).read_line(&mut line)?;
    line.truncate(line.trim_end_matches(['\r', '\n']).len());
    Ok(line)
}

fn read_sized_body(reader: &mut impl Read, headers: &Headers) -> io::Result<String> {
    let length = headers.get("content-length").and_then(|value| value.parse::<usize>().ok()).unwrap_or(0);
    read_exactly(reader, length)
}

fn read_exactly(reader: &mut impl Read, length: usize) -> io::Result<String> {
    let mut body = vec![0; length.min(LARGEST_BODY)];
    reader.read_exact(&mut body)?;
    Ok(String::from_utf8_lossy(&body).into_owned())
}
