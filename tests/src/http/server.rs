//! A listener that answers each connection's one request in a thread of its own, and ends when it is dropped.

use std::fmt;
use std::io::{self, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};

use super::{Headers, Response, read_head, read_sized_body};
use crate::mailbox::{Mailbox, Sender, mailbox};

const TIMEOUT: Duration = Duration::from_secs(10);

/// A request as it arrived.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// The method.
    pub method: String,
    /// Path and query, undecoded.
    pub target: String,
    /// The header fields.
    pub headers: Headers,
    /// The body.
    pub body: String,
    /// The peer's address.
    pub peer: SocketAddr,
}

impl Arrived {
    /// The path without its query.
    #[must_use]
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or_default()
    }

    /// The undecoded value of a query parameter.
    #[must_use]
    pub fn query(&self, name: &str) -> Option<&str> {
        let (_, query) = self.target.split_once('?')?;
        query.split('&').filter_map(|pair| pair.split_once('=')).find(|(key, _)| *key == name).map(|(_, v)| v)
    }
}

/// A running listener.
pub struct Server {
    address: SocketAddr,
    stop: Sender<()>,
    accept: Option<JoinHandle<()>>,
}

impl fmt::Debug for Server {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Server").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Server {
    /// Listens on `address` in the calling thread's network namespace. A handler that returns `None` closes
    /// the connection without an answer.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn start<H>(address: SocketAddr, handler: H) -> io::Result<Self>
    where
        H: Fn(&Arrived) -> Option<Response> + Send + Sync + 'static,
    {
        let handler = Arc::new(handler);
        Self::accept(address, move |stream| {
            let _ = answer(stream, handler.as_ref());
        })
    }

    /// Listens on `address` and hands every raw connection to `serve`, each in its own thread.
    ///
    /// # Errors
    /// When the address cannot be bound.
    pub fn accept<S>(address: SocketAddr, serve: S) -> io::Result<Self>
    where
        S: Fn(TcpStream) + Clone + Send + 'static,
    {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (stop, stopped) = mailbox()?;
        let accept = thread::spawn(move || accept_until_stopped(&listener, &stopped, &serve));
        Ok(Self { address, stop, accept: Some(accept) })
    }

    /// The bound address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.send(());
        if let Some(accept) = self.accept.take() {
            let _ = accept.join();
        }
    }
}

fn accept_until_stopped<S>(listener: &TcpListener, stopped: &Mailbox<()>, serve: &S)
where
    S: Fn(TcpStream) + Clone + Send + 'static,
{
    while stopped.take().is_none() {
        let mut fds = [PollFd::new(listener, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        let _ = poll(&mut fds, None);
        if let Ok((stream, _)) = listener.accept() {
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    }
}

/// Answers a connection's one request.
///
/// # Errors
/// When the request does not come, or the answer does not get through.
pub fn answer(stream: TcpStream, handler: &dyn Fn(&Arrived) -> Option<Response>) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    let request = read_request(&stream)?;
    if let Some(response) = handler(&request) {
        write_response(&stream, &response)?;
    }
    Ok(())
}

fn read_request(stream: &TcpStream) -> io::Result<Arrived> {
    let mut reader = BufReader::new(stream);
    let (start, headers) = read_head(&mut reader)?;
    if headers.get("expect").is_some() {
        (&mut &*stream).write_all(b"HTTP/1.1 100 Continue\r\n\r\n")?;
    }
    let body = read_sized_body(&mut reader, &headers)?;
    let mut words = start.split(' ').map(str::to_owned);
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    Ok(Arrived { method, target, headers, body, peer: stream.peer_addr()? })
}

fn write_response(mut stream: &TcpStream, response: &Response) -> io::Result<()> {
    let mut wire = format!("HTTP/1.1 {} {}\r\n", response.status, reason(response.status));
    for (name, value) in response.headers.iter() {
        wire.push_str(&format!("{name}: {value}\r\n"));
    }
    wire.push_str(&format!("Content-Length: {}\r\n\r\n{}", response.body.len(), response.body));
    stream.write_all(wire.as_bytes())
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        302 => "Found",
        401 => "Unauthorized",
        404 => "Not Found",
        _ => "Status",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::{Request, Url};

    fn loopback() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    #[test]
    fn serves_path_query_and_body_as_sent() {
        let server = Server::start(loopback(), |request| {
            let text =
                format!("{} {} {:?} {}", request.method, request.path(), request.query("s"), request.body);
            Some(Response::new(201, "text/plain", text))
        })
        .unwrap();
        let url = Url::parse(&format!("http://{}/a/?x=1&s=a+/b", server.address())).unwrap();
        let answer = Request::new("POST", url).body("text/plain", "hello").send().unwrap();
        assert_eq!((answer.status, answer.body.as_str()), (201, r#"POST /a/ Some("a+/b") hello"#));
    }

    #[test]
    fn closes_without_an_answer_when_the_handler_declines() {
        let server = Server::start(loopback(), |_| None).unwrap();
        let url = Url::parse(&format!("http://{}/", server.address())).unwrap();
        assert!(Request::new("GET", url).send().is_err());
    }
}
