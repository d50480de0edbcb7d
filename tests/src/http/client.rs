//! A blocking request over a fresh connection, optionally from a chosen local address.

use std::io::{self, BufRead, BufReader, Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Socket, Type};

use super::{Headers, LARGEST_BODY, Response, read_exactly, read_head, read_line, read_sized_body};

const TIMEOUT: Duration = Duration::from_secs(10);

/// An `http://` address, its path and query kept byte for byte.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    authority: String,
    target: String,
    /// Where the authority is, if it is not to be resolved.
    address: Option<SocketAddr>,
}

impl Url {
    /// Parses `http://host[:port]/path?query`.
    ///
    /// # Errors
    /// When the scheme is not `http`.
    pub fn parse(text: &str) -> Result<Self> {
        let Some(rest) = text.strip_prefix("http://") else {
            bail!("{text} is not an http:// address");
        };
        let path = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, target) = rest.split_at(path);
        let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
        Ok(Self { authority: authority.to_owned(), target, address: None })
    }

    /// The address that a `Location` header of an answer from this address means.
    ///
    /// # Errors
    /// When the location is absolute with another scheme than `http`.
    pub fn resolve(&self, location: &str) -> Result<Self> {
        if location.starts_with('/') {
            return Ok(Self { target: location.to_owned(), ..self.clone() });
        }
        Self::parse(location)
    }

    /// The same address with `name=value` added to its query, unescaped.
    #[must_use]
    pub fn with_query(mut self, name: &str, value: &str) -> Self {
        let separator = if self.target.contains('?') { '&' } else { '?' };
        self.target = format!("{}{separator}{name}={value}", self.target);
        self
    }

    /// The same address, connected to at `address` whatever its name resolves to.
    #[must_use]
    pub fn at(mut self, address: SocketAddr) -> Self {
        self.address = Some(address);
        self
    }

    /// Host and port as written.
    #[must_use]
    pub fn authority(&self) -> &str {
        &self.authority
    }

    /// Path and query.
    #[must_use]
    pub fn target(&self) -> &str {
        &self.target
    }

    /// The socket address behind the authority.
    ///
    /// # Errors
    /// When the name does not resolve.
    pub fn address(&self) -> Result<SocketAddr> {
        if let Some(address) = self.address {
            return Ok(address);
        }
        let with_port =
            if self.has_port() { self.authority.clone() } else { format!("{}:80", self.authority) };
        with_port
            .to_socket_addrs()
            .with_context(|| format!("failed to resolve {with_port}"))?
            .next()
            .with_context(|| format!("{with_port} has no address"))
    }

    fn has_port(&self) -> bool {
        self.authority
            .rsplit_once(':')
            .is_some_and(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()))
    }
}

/// A request before it is sent.
#[derive(Debug)]
pub struct Request {
    method: &'static str,
    url: Url,
    headers: Headers,
    body: String,
    from: Option<IpAddr>,
}

impl Request {
    /// A request without a body.
    #[must_use]
    pub fn new(method: &'static str, url: Url) -> Self {
        Self { method, url, headers: Headers::default(), body: String::new(), from: None }
    }

    /// Gives the request a body.
    #[must_use]
    pub fn body(mut self, content_type: &str, body: impl Into<String>) -> Self {
        self.headers.push("Content-Type", content_type);
        self.body = body.into();
        self
    }

    /// Adds a header field.
    #[must_use]
    pub fn header(mut self, name: &str, value: impl Into<String>) -> Self {
        self.headers.push(name, value);
        self
    }

    /// Sends the request from this local address.
    #[must_use]
    pub fn from(mut self, address: Option<IpAddr>) -> Self {
        self.from = address;
        self
    }

    /// Sends the request and reads the whole answer.
    ///
    /// # Errors
    /// When the connection fails, or ends before a complete answer.
    pub fn send(&self) -> Result<Response> {
        let context =
            || format!("failed to {} http://{}{}", self.method, self.url.authority, self.url.target);
        let mut stream = connect(self.url.address()?, self.from).with_context(context)?;
        stream.write_all(self.encode().as_bytes()).with_context(context)?;
        read_response(&mut BufReader::new(stream)).with_context(context)
    }

    fn encode(&self) -> String {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n",
            self.method,
            self.url.target,
            self.url.authority,
            self.body.len()
        );
        for (name, value) in self.headers.iter() {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head + "\r\n" + &self.body
    }
}

fn connect(address: SocketAddr, from: Option<IpAddr>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    if let Some(from) = from {
        socket.bind(&SocketAddr::new(from, 0).into())?;
    }
    socket.connect_timeout(&address.into(), TIMEOUT)?;
    socket.set_read_timeout(Some(TIMEOUT))?;
    socket.set_tcp_nodelay(true)?;
    Ok(socket.into())
}

fn read_response(reader: &mut impl BufRead) -> Result<Response> {
    let (start, headers) = read_head(reader)?;
    let status = start.split(' ').nth(1).and_then(|code| code.parse().ok());
    let status = status.with_context(|| format!("no HTTP answer, only {start:?}"))?;
    let body = read_body(reader, &headers)?;
    Ok(Response { status, headers, body })
}

fn read_body(reader: &mut impl BufRead, headers: &Headers) -> io::Result<String> {
    if headers.get("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        return read_chunks(reader);
    }
    if headers.get("content-length").is_some() {
        return read_sized_body(reader, headers);
    }
    let mut body = String::new();
    reader.take(LARGEST_BODY as u64).read_to_string(&mut body)?;
    Ok(body)
}

fn read_chunks(reader: &mut impl BufRead) -> io::Result<String> {
    let mut body = String::new();
    loop {
        let size = usize::from_str_radix(read_line(reader)?.trim(), 16).map_err(io::Error::other)?;
        body.push_str(&read_exactly(reader, size)?);
        read_line(reader)?;
        if size == 0 {
            return Ok(body);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_bytes_of_a_location() {
        let url = Url::parse("http://10.0.0.1:1985/rtc/v1/whip/?app=live").unwrap();
        let location = "/rtc/v1/whip/?action=delete&token=t&session=a1b2:x+/y";
        assert_eq!(url.resolve(location).unwrap().target(), location);
    }

    #[test]
    fn appends_to_a_query_or_starts_one() {
        let whip = Url::parse("http://h/rtc/v1/whip/").unwrap().with_query("app", "live");
        assert_eq!(whip.with_query("stream", "s").target(), "/rtc/v1/whip/?app=live&stream=s");
    }

    #[test]
    fn reads_a_chunked_body() {
        let wire =
            "HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n";
        let response = read_response(&mut wire.as_bytes()).unwrap();
        assert_eq!((response.status, response.body.as_str()), (201, "abcde"));
    }

    #[test]
    fn an_empty_answer_is_an_error() {
        assert!(read_response(&mut &b""[..]).is_err());
    }
}
