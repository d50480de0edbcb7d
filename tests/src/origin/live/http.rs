//! The HTTP server of SRS: streams as FLV and MPEG-TS that do not end, and HLS.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::{Buf as _, Bytes, BytesMut};
use mpeg2ts::ts::TsPacket;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    flv,
    frame::Frame,
    hub::{By, Hub, Playlist},
    queue::Queue,
    request::{self, Head, Wanted},
    ts::Remuxer,
};
use crate::origin::SIGNATURE;

const LARGEST_HEAD: usize = 16 << 10;
/// SRS waits so long for the next request of a connection.
const IDLE: Duration = Duration::from_secs(15);
/// What a client may take for what it is sent.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is put together before it is sent.
const BATCH: usize = 64 << 10;

/// What pages are told, between the first field and the others.
const FOR_PAGES: &str = "Access-Control-Allow-Origin: *\r\nAccess-Control-Allow-Headers: *\r\n\
                         Access-Control-Allow-Methods: *\r\nAccess-Control-Expose-Headers: *\r\n\
                         Access-Control-Allow-Credentials: false\r\nAccess-Control-Request-Private-Network: true\r\n";

/// Serves the requests of a connection. SRS says that it closes, and leaves that to the client unless that says so too.
pub(super) async fn serve(mut socket: TcpStream, hub: Hub) -> Result<()> {
    socket.set_nodelay(true)?;
    let mut read = BytesMut::new();
    loop {
        let asked = timeout(IDLE, read_head(&mut socket, &mut read)).await.context("no request")??;
        match asked.wanted(|stream, number| hub.segment(stream, number).is_some()) {
            // Whatever the method: SRS sends the stream to HEAD too.
            Some(Wanted::Flv(stream)) if !asked.is_preflight() => {
                return live(socket, &hub, (&asked, &stream), By::HttpFlv).await;
            }
            Some(Wanted::Ts(stream)) if !asked.is_preflight() => {
                return live(socket, &hub, (&asked, &stream), By::HttpTs).await;
            }
            wanted => send(&mut socket, &answer(&hub, &asked, wanted)).await?,
        }
        if asked.closes {
            return Ok(socket.shutdown().await?);
        }
    }
}

/// An answer that has an end.
fn answer(hub: &Hub, asked: &Head, wanted: Option<Wanted>) -> Vec<u8> {
    if asked.is_preflight() {
        return head("200 OK", asked, "Content-Length: 0\r\n", "");
    }
    let mut is_of_player = false;
    let found = match wanted {
        Some(Wanted::Playlist(stream)) => {
            let playlist = hub.playlist(&stream, asked.context());
            is_of_player = matches!(playlist, Some(Playlist::Media(_))) && asked.context().is_some();
            playlist.map(|playlist| ("application/vnd.apple.mpegurl", Bytes::from(text(&playlist, asked))))
        }
        Some(Wanted::Segment(stream, number)) => {
            hub.segment(&stream, number).map(|segment| ("video/MP2T", segment))
        }
        Some(Wanted::Flv(_) | Wanted::Ts(_)) | None => None,
    };
    let absent = || ("text/plain; charset=utf-8", Bytes::from_static(b"Not Found"));
    let status = if found.is_some() { "200 OK" } else { "404 Not Found" };
    let (kind, body) = found.unwrap_or_else(absent);
    let (length, kind) = (format!("Content-Length: {}\r\n", body.len()), format!("Content-Type: {kind}\r\n"));
    // Of a playlist that is written for one player, the type comes first.
    let fields = if is_of_player { [kind, length] } else { [length, kind] };
    // HEAD gets the body too.
    [head(status, asked, &fields.concat(), ""), body.to_vec()].concat()
}

/// The fields are in the order of SRS, which is that of their names but for those that pages need.
fn head(status: &str, asked: &Head, before: &str, after: &str) -> Vec<u8> {
    let for_pages = if asked.is_of_page { FOR_PAGES } else { "" };
    format!("HTTP/1.1 {status}\r\nConnection: Close\r\n{for_pages}{before}Server: {SIGNATURE}\r\n{after}\r\n")
        .into_bytes()
}

/// The next head; what is behind it stays.
async fn read_head(socket: &mut TcpStream, read: &mut BytesMut) -> Result<Head> {
    loop {
        if let Some((head, length)) = request::head(read)? {
            read.advance(length);
            return Ok(head);
        }
        ensure!(read.len() < LARGEST_HEAD, "the head is too long");
        ensure!(socket.read_buf(read).await? > 0, "the client has left");
    }
}

/// What a player gets that asked for a playlist.
fn text(playlist: &Playlist, asked: &Head) -> String {
    match playlist {
        Playlist::Media(text) => text.clone(),
        Playlist::Context(context) => {
            let others =
                asked.query.split('&').filter(|pair| !pair.is_empty() && !pair.starts_with("hls_ctx="));
            let more: String = others.map(|pair| format!("&{pair}")).collect();
            let path = &asked.path;
            format!(
                "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1,AVERAGE-BANDWIDTH=1\n{path}?hls_ctx={context}{more}\n"
            )
        }
    }
}

/// A stream that does not end before its publisher does. SRS answers once there is something to send.
async fn live(socket: TcpStream, hub: &Hub, (asked, stream): (&Head, &str), by: By) -> Result<()> {
    let mut queue = hub.play(stream, by).context("there are too many streams")?;
    let (mut from_client, mut to_client) = socket.into_split();
    let mut written = Written::new(by, asked);
    let mut leaving = [0; 512];
    let mut body = Vec::new();
    loop {
        tokio::select! {
            frame = queue.next() => match frame {
                Some(frame) => {
                    written.take(frame, &mut queue, &mut body)?;
                    let chunk = written.chunk(&mut body);
                    timeout(PATIENCE, to_client.write_all(&chunk)).await.context("the client takes nothing")??;
                }
                None => break,
            },
            // Whatever a client says meanwhile is of no concern, but for its end.
            read = from_client.read(&mut leaving) => ensure!(read? > 0, "the client has left"),
        }
    }
    // Without a last chunk, as SRS ends it.
    Ok(to_client.shutdown().await?)
}

/// What a player has got so far.
#[derive(Debug)]
struct Written<'a> {
    by: By,
    asked: &'a Head,
    remuxer: Remuxer,
    has_begun: bool,
}

impl<'a> Written<'a> {
    fn new(by: By, asked: &'a Head) -> Self {
        Self { by, asked, remuxer: Remuxer::default(), has_begun: false }
    }

    /// Appends a frame and those behind it.
    fn take(&mut self, first: Frame, queue: &mut Queue, out: &mut Vec<u8>) -> Result<()> {
        let mut frames = vec![first];
        let mut bytes = 0;
        while let Some(frame) = queue.try_next().filter(|_| bytes < BATCH) {
            bytes += frame.payload.len();
            frames.push(frame);
        }
        for frame in &frames {
            match self.by {
                By::HttpTs => self.remuxer.push(frame, out)?,
                By::HttpFlv | By::Rtmp => flv::tag(frame, out),
            }
        }
        Ok(())
    }

    /// The body so far as a chunk, behind the head if it is the first.
    fn chunk(&mut self, body: &mut Vec<u8>) -> Vec<u8> {
        let mut chunk = Vec::new();
        if body.is_empty() {
            return chunk;
        }
        if !std::mem::replace(&mut self.has_begun, true) {
            let kind = if self.by == By::HttpTs { "video/MP2T" } else { "video/x-flv" };
            let fields = format!("Content-Type: {kind}\r\n");
            chunk.extend(head("200 OK", self.asked, &fields, "Transfer-Encoding: chunked\r\n"));
            if self.by == By::HttpFlv {
                append_chunk(&flv::HEADER, &mut chunk);
                append_chunk(&flv::NO_TAG, &mut chunk);
            }
        }
        // Of MPEG-TS each packet is a chunk.
        let length = if self.by == By::HttpTs { TsPacket::SIZE } else { body.len() };
        body.chunks(length).for_each(|part| append_chunk(part, &mut chunk));
        body.clear();
        chunk
    }
}

fn append_chunk(bytes: &[u8], out: &mut Vec<u8>) {
    out.extend(format!("{:x}\r\n", bytes.len()).into_bytes());
    out.extend_from_slice(bytes);
    out.extend(b"\r\n");
}

async fn send(socket: &mut TcpStream, bytes: &[u8]) -> Result<()> {
    for part in bytes.chunks(BATCH) {
        timeout(PATIENCE, socket.write_all(part)).await.context("the client takes nothing")??;
    }
    Ok(())
}
