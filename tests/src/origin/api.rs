//! SRS's HTTP API: WHIP, WHEP, the JSON calls before them, and the lists of what runs.

use std::io;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::console::{Console, Ids};
use super::media::{Answer, Command};
use super::session::{Asked, Offer, Role};
use super::{Candidate, OriginConfig, RtcTcp, SIGNATURE, tcp};
use crate::http::{Arrived, Headers, Response, Server, answer};
use crate::mailbox::Sender;

pub(super) fn serve(config: &Arc<OriginConfig>, media: Sender<Command>) -> io::Result<Server> {
    let with_media = config.rtc_tcp == RtcTcp::WithApi;
    let api = Arc::new(Api { config: Arc::clone(config), media, ids: Ids::default() });
    Server::accept(config.api, move |stream| {
        if with_media && tcp::is_framed(&stream).unwrap_or(false) {
            let _ = tcp::serve(stream, &api.media);
        } else {
            let _ = answer(stream, &|request| api.respond(request));
        }
    })
}

#[derive(Debug)]
struct Api {
    config: Arc<OriginConfig>,
    media: Sender<Command>,
    ids: Ids,
}

fn as_srs(response: Response) -> Response {
    response.with_header("Connection", "Close").with_header("Server", SIGNATURE)
}

/// Only pages of a browser say in `Origin` where they are from.
fn shared_with_pages(response: Response) -> Response {
    response
        .with_header("Access-Control-Allow-Origin", "*")
        .with_header("Access-Control-Allow-Headers", "*")
        .with_header("Access-Control-Allow-Methods", "*")
        .with_header("Access-Control-Expose-Headers", "*")
        .with_header("Access-Control-Allow-Credentials", "false")
        .with_header("Access-Control-Request-Private-Network", "true")
}

fn empty(status: u16) -> Response {
    Response { status, headers: Headers::default(), body: String::new() }
}

impl Api {
    fn respond(&self, request: &Arrived) -> Option<Response> {
        let response = self.handle(request).map(as_srs)?;
        Some(if request.headers.get("origin").is_some() { shared_with_pages(response) } else { response })
    }

    /// `None` closes the connection without an answer, as SRS does with PATCH and with an offer that it cannot use.
    fn handle(&self, request: &Arrived) -> Option<Response> {
        match (request.method.as_str(), request.path()) {
            ("OPTIONS", _) => Some(empty(200)),
            (_, path) if NEED_A_SLASH.contains(&path) => Some(to_the_slash(request)),
            ("PATCH", "/rtc/v1/whip/" | "/rtc/v1/whep/") => None,
            (_, "/rtc/v1/whip/" | "/rtc/v1/whep/") if is_delete(request) => Some(self.delete(request)),
            ("POST", "/rtc/v1/whip/") => self.exchange(request, whip_role(request)),
            ("POST", "/rtc/v1/whep/" | "/rtc/v1/whip-play/") => self.exchange(request, Role::Player),
            ("POST", "/rtc/v1/publish/") => Some(self.legacy(request, Role::Publisher)),
            ("POST", "/rtc/v1/play/") => Some(self.legacy(request, Role::Player)),
            ("GET", "/api/v1/versions") => Some(Response::json(&self.version())),
            (method, path) => match self.console(method, path, request) {
                Some(answer) => answer,
                None => Some(empty(404)),
            },
        }
    }

    fn exchange(&self, request: &Arrived, role: Role) -> Option<Response> {
        let app = request.query("app").unwrap_or("live");
        let stream = request.query("stream").unwrap_or("livestream");
        let host = request.headers.get("host").unwrap_or_default();
        let offer = offer(request, role, format!("{app}/{stream}"), host, request.body.clone()).ok()?;
        let offer = Offer { asked: asked_credentials(request).ok()?, ..offer };
        let Answer { sdp, username, token } = self.ask(offer).ok()?;
        let location =
            format!("/rtc/v1/whip/?action=delete&token={token}&app={app}&stream={stream}&session={username}");
        Some(Response::new(201, "application/sdp", sdp).with_header("Location", location))
    }

    /// The status is 200 whatever happens; `code` tells, and is all that a failure has.
    fn legacy(&self, request: &Arrived, role: Role) -> Response {
        let Ok(answer) = self.legacy_answer(request, role) else {
            return Response::json(&json!({"code": 400}));
        };
        let mut members = self.identity();
        members["sdp"] = answer.sdp.into();
        members["sessionid"] = answer.username.into();
        Response::json(&members)
    }

    fn legacy_answer(&self, request: &Arrived, role: Role) -> Result<Answer> {
        let body: Value = serde_json::from_str(&request.body).context("failed to parse the body")?;
        let member = |name: &str| body[name].as_str().with_context(|| format!("no member {name}"));
        let (host, stream) =
            host_and_stream(member("streamurl")?).context("no app and stream in streamurl")?;
        self.ask(offer(request, role, stream, &host, member("sdp")?.to_owned())?)
    }

    fn ask(&self, offer: Offer) -> Result<Answer> {
        self.media.ask(|reply| Command::Offer { offer, reply }).context("the origin is stopping")?
    }

    fn delete(&self, request: &Arrived) -> Response {
        let parameter = |name| request.query(name).unwrap_or_default().to_owned();
        self.media.send(Command::Delete { username: parameter("session"), token: parameter("token") });
        empty(200)
    }

    fn identity(&self) -> Value {
        let OriginConfig { server_id, service_id, .. } = self.config.as_ref();
        json!({"code": 0, "server": server_id, "service": service_id, "pid": std::process::id().to_string()})
    }

    fn version(&self) -> Value {
        let mut members = self.identity();
        members["data"] = json!({"major": 7, "minor": 0, "revision": 18, "version": "7.0.18"});
        members
    }

    /// What consoles ask for; the outer `None` is for another path.
    fn console(&self, method: &str, path: &str, request: &Arrived) -> Option<Option<Response>> {
        let console = Console { ids: &self.ids, identity: self.identity() };
        let path = path.strip_prefix("/api/v1/")?;
        if let ("DELETE", Some(client_id)) = (method, path.strip_prefix("clients/")) {
            let client_id = client_id.to_owned();
            let kicked = self.media.ask(|reply| Command::Kick { client_id, reply });
            return Some(kicked.map(|found| Response::json(&console.kicked(found))));
        }
        if method != "GET" || !Console::has(path) {
            return None;
        }
        let stats = self.media.ask(|reply| Command::Stats { reply });
        Some(stats.map(|stats| Response::json(&console.answer(path, request, &stats))))
    }
}

fn is_delete(request: &Arrived) -> bool {
    request.method == "DELETE" || (request.method == "POST" && request.query("action") == Some("delete"))
}

fn whip_role(request: &Arrived) -> Role {
    if request.query("action") == Some("play") { Role::Player } else { Role::Publisher }
}

/// SRS knows these paths by their slash at the end.
const NEED_A_SLASH: [&str; 8] = [
    "/rtc/v1/whip",
    "/rtc/v1/whep",
    "/rtc/v1/whip-play",
    "/rtc/v1/publish",
    "/rtc/v1/play",
    "/api/v1/clients",
    "/api/v1/streams",
    "/api/v1/vhosts",
];

fn to_the_slash(request: &Arrived) -> Response {
    let (path, query) = request.target.split_at(request.path().len());
    empty(302).with_header("Location", format!("{path}/{query}"))
}

/// `host` is what the client calls the server; if it is an address, media is taken there too.
fn offer(request: &Arrived, role: Role, stream: String, host: &str, sdp: String) -> Result<Offer> {
    let asked = request.query("eip").or_else(|| request.query("candidate"));
    let asked = asked.map(str::parse).transpose().context("failed to parse the candidate")?;
    let called = host.parse().ok().map(|Candidate { ip, .. }| Candidate::at(ip));
    Ok(Offer {
        role,
        stream,
        sdp,
        candidates: asked.into_iter().chain(called).collect(),
        asked: Asked::default(),
        client_ip: client_ip(request),
        host: request.headers.get("host").unwrap_or_default().to_owned(),
    })
}

/// By WHIP and WHEP alone, either by itself; SRS refuses the request if one has a wrong length.
fn asked_credentials(request: &Arrived) -> Result<Asked> {
    let asked = |name, lengths: RangeInclusive<usize>| {
        let value = request.query(name).filter(|value| !value.is_empty());
        let fits = value.is_none_or(|value| lengths.contains(&value.len()));
        ensure!(fits, "{name} has a wrong length");
        Ok(value.map(str::to_owned))
    };
    Ok(Asked { ufrag: asked("ice-ufrag", 4..=32)?, pwd: asked("ice-pwd", 22..=32)? })
}

fn client_ip(request: &Arrived) -> IpAddr {
    let forwarded = request.headers.get("x-forwarded-for").and_then(|list| list.split(',').next());
    let told = forwarded.or_else(|| request.headers.get("x-real-ip"));
    told.and_then(|ip| ip.trim().parse().ok()).unwrap_or_else(|| request.peer.ip())
}

/// `host` and `app/stream` of `webrtc://host/app/stream?query`.
fn host_and_stream(url: &str) -> Option<(String, String)> {
    let (_, rest) = url.split_once("://")?;
    let (host, path) = rest.split('?').next()?.split_once('/')?;
    path.contains('/').then(|| (host.to_owned(), path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_url_names_host_app_and_stream() {
        let named = Some(("h:1985".to_owned(), "live/s".to_owned()));
        assert_eq!(host_and_stream("webrtc://h:1985/live/s?x=1"), named);
        assert_eq!(host_and_stream("webrtc://h/s"), None);
    }
}
