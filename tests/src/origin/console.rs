//! What SRS's HTTP API tells consoles: its vhost, streams and clients.

use std::collections::{BTreeMap, HashMap};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::random_id;
use super::stats::{OriginStats, SessionStats};
use crate::http::Arrived;

/// Ids that SRS gives once and keeps: of the vhost (the empty name) and of every stream that was ever asked for.
#[derive(Debug, Default)]
pub(super) struct Ids(Mutex<HashMap<String, String>>);

impl Ids {
    fn of(&self, name: &str) -> String {
        let mut ids = self.0.lock();
        ids.entry(name.to_owned()).or_insert_with(|| format!("vid-{}", random_id(7))).clone()
    }
}

/// One request.
#[derive(Debug)]
pub(super) struct Console<'a> {
    pub(super) ids: &'a Ids,
    /// What every answer begins with.
    pub(super) identity: Value,
}

/// Codes of SRS.
const VHOST_NOT_FOUND: i32 = 2014;
const STREAM_NOT_FOUND: i32 = 2048;
const CLIENT_NOT_FOUND: i32 = 2049;

impl Console<'_> {
    /// Whether SRS has something below `/api/v1/` here.
    pub(super) fn has(path: &str) -> bool {
        let lists = ["vhosts/", "streams/", "clients/"];
        path == "summaries" || lists.iter().any(|list| path.starts_with(list))
    }

    pub(super) fn answer(&self, path: &str, request: &Arrived, stats: &OriginStats) -> Value {
        match path.split_once('/') {
            Some(("vhosts", "")) => self.with("vhosts", json!([self.vhost(stats)])),
            Some(("streams", "")) => self.with("streams", page(self.streams(stats), request)),
            Some(("clients", "")) => self.with("clients", page(self.clients(stats), request)),
            Some(("streams", id)) => self.one("stream", &self.streams(stats), id, STREAM_NOT_FOUND),
            Some(("clients", id)) => self.one("client", &self.clients(stats), id, CLIENT_NOT_FOUND),
            Some(("vhosts", id)) => self.one("vhost", &[self.vhost(stats)], id, VHOST_NOT_FOUND),
            _ => self.with("data", summary()),
        }
    }

    /// The answer to the DELETE of a client.
    pub(super) fn kicked(&self, found: bool) -> Value {
        if found { self.identity.clone() } else { json!({ "code": CLIENT_NOT_FOUND }) }
    }

    fn with(&self, member: &str, value: impl Into<Value>) -> Value {
        let mut answer = self.identity.clone();
        answer[member] = value.into();
        answer
    }

    fn one(&self, member: &str, items: &[Value], id: &str, code: i32) -> Value {
        match items.iter().find(|item| item["id"] == id) {
            Some(item) => self.with(member, item.clone()),
            None => json!({ "code": code }),
        }
    }

    fn vhost(&self, stats: &OriginStats) -> Value {
        let streams: std::collections::HashSet<_> =
            stats.sessions.iter().map(|session| &session.stream).collect();
        let (send, recv) = bytes(stats.sessions.iter());
        json!({
            "id": self.ids.of(""), "name": "__defaultVhost__", "enabled": true, "clients": stats.sessions.len(),
            "streams": streams.len(), "send_bytes": send, "recv_bytes": recv,
            "kbps": {"recv_30s": 0, "send_30s": 0}, "hls": {"enabled": false},
        })
    }

    fn streams(&self, stats: &OriginStats) -> Vec<Value> {
        let mut by_stream: BTreeMap<&str, Vec<&SessionStats>> = BTreeMap::new();
        for session in &stats.sessions {
            by_stream.entry(&session.stream).or_default().push(session);
        }
        by_stream.into_iter().map(|(stream, sessions)| self.stream(stream, &sessions)).collect()
    }

    fn stream(&self, stream: &str, sessions: &[&SessionStats]) -> Value {
        let (app, name) = stream.split_once('/').unwrap_or(("", stream));
        let (send, recv) = bytes(sessions.iter().copied());
        let publisher = sessions.iter().find(|session| session.publish);
        let mut publish = json!({ "active": publisher.is_some() });
        if let Some(publisher) = publisher {
            publish["cid"] = publisher.client_id.as_str().into();
        }
        json!({
            "id": self.ids.of(stream), "name": name, "vhost": self.ids.of(""), "app": app,
            "tcUrl": "", "url": format!("/{stream}"),
            "live_ms": 0, "clients": sessions.len(), "frames": 0, "send_bytes": send, "recv_bytes": recv,
            "kbps": {"recv_30s": 0, "send_30s": 0}, "publish": publish, "video": null, "audio": null,
        })
    }

    /// SRS has them in the order of their ids.
    fn clients(&self, stats: &OriginStats) -> Vec<Value> {
        let mut sessions: Vec<_> = stats.sessions.iter().collect();
        sessions.sort_by(|a, b| a.client_id.cmp(&b.client_id));
        sessions.into_iter().map(|session| self.client(session)).collect()
    }

    fn client(&self, session: &SessionStats) -> Value {
        let (_app, name) = session.stream.split_once('/').unwrap_or(("", &session.stream));
        json!({
            "id": session.client_id, "vhost": self.ids.of(""), "stream": self.ids.of(&session.stream),
            "ip": session.client_ip, "pageUrl": "", "swfUrl": "",
            "tcUrl": "", "url": format!("/{}", session.stream), "name": name,
            "type": if session.publish { "rtc-publish" } else { "rtc-play" }, "publish": session.publish,
            "alive": session.alive_ms as f64 / 1000.0, "send_bytes": session.bytes_out,
            "recv_bytes": session.bytes_in, "kbps": {"recv_30s": 0, "send_30s": 0},
        })
    }
}

fn summary() -> Value {
    json!({
        "ok": true, "now_ms": 0,
        "self": {"version": "7.0.18", "pid": std::process::id(), "ppid": 1, "argv": "srs", "cwd": "/", "mem_kbyte": 0,
                 "mem_percent": 0, "cpu_percent": 0, "srs_uptime": 0},
        "system": {"cpu_percent": 0, "disk_read_KBps": 0, "disk_write_KBps": 0, "mem_ram_kbyte": 0, "cpus": 1,
                   "conn_sys": 0, "conn_srs": 0},
    })
}

/// Bytes sent and received.
fn bytes<'a>(sessions: impl Iterator<Item = &'a SessionStats>) -> (u64, u64) {
    sessions.fold((0, 0), |(send, recv), session| (send + session.bytes_out, recv + session.bytes_in))
}

/// SRS 7.0.18 has no pages of less than 10 items.
fn page(items: Vec<Value>, request: &Arrived) -> Vec<Value> {
    let number = |name| request.query(name).and_then(|value| value.parse::<usize>().ok());
    let (start, count) = (number("start").unwrap_or(0), number("count").unwrap_or(10).max(10));
    items.into_iter().skip(start).take(count).collect()
}
