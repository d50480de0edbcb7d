//! `srs-xproxy status`: what the process that runs is doing, as a table or as JSON.

use anyhow::Context as _;
use http::Method;
use serde::Deserialize;

use super::{ask_running, print, table::aligned};
use crate::config::Config;

/// The part of the status that is shown.
#[derive(Debug, Deserialize)]
pub(super) struct Status {
    pub(super) totals: Totals,
    interfaces: Vec<Interface>,
    sessions: Vec<Session>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Totals {
    sessions: usize,
    offloaded: usize,
    adopted: u64,
    orphans: usize,
    ports_leased: usize,
    ports_resting: usize,
    pub(super) ports_fullest: usize,
    pub(super) ports_capacity: usize,
}

/// The TCP streams.
#[derive(Debug, Deserialize)]
struct Streams {
    connections: Vec<Stream>,
}

#[derive(Debug, Deserialize)]
struct Stream {
    id: u64,
    protocol: String,
    client: String,
    stream: Option<String>,
    origin: Option<String>,
    joined: Option<String>,
    age: f64,
    to_origin: u64,
    to_client: u64,
}

#[derive(Debug, Deserialize)]
struct Interface {
    name: String,
    engine: String,
    mode: String,
    note: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Session {
    id: u64,
    protocol: String,
    stream: Option<String>,
    role: Option<String>,
    origin: String,
    state: String,
    reason: Option<String>,
    client: Option<String>,
    age: f64,
    idle: f64,
    userspace: Directions,
    kernel: Option<Directions>,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Directions {
    to_origin: u64,
    to_client: u64,
}

/// Prints the status of the process that runs.
pub async fn status(config: &Config, json: bool) -> anyhow::Result<()> {
    let mut answer = answer(config).await?;
    if json {
        answer.push('\n');
        return print(&answer);
    }
    let streams = ask_running(config, Method::GET, "/api/v1/proxy/connections").await?;
    let Streams { connections } =
        serde_json::from_str(&streams).context("its streams are unknown to this version")?;
    print(&format!("{}{}", table(&parsed(&answer)?), streams_table(&connections)))
}

/// The status of the process that runs.
pub(super) async fn read(config: &Config) -> anyhow::Result<Status> {
    parsed(&answer(config).await?)
}

fn parsed(answer: &str) -> anyhow::Result<Status> {
    serde_json::from_str(answer).context("its status is unknown to this version")
}

async fn answer(config: &Config) -> anyhow::Result<String> {
    ask_running(config, Method::GET, "/api/v1/proxy/status").await
}

fn table(status: &Status) -> String {
    let Status { totals, interfaces, sessions } = status;
    let mut text = format!(
        "sessions {}, in the kernel {}, taken over {}, flows without a session {}; source ports {}, resting {}\n",
        totals.sessions,
        totals.offloaded,
        totals.adopted,
        totals.orphans,
        totals.ports_leased,
        totals.ports_resting
    );
    if !interfaces.is_empty() {
        let rows = interfaces.iter().map(Interface::row);
        text.push_str(&aligned(&["INTERFACE", "ENGINE", "MODE", "NOTE"], rows));
    }
    if !sessions.is_empty() {
        let head = [
            "ID",
            "PROTOCOL",
            "STREAM",
            "ROLE",
            "STATE",
            "CLIENT",
            "ORIGIN",
            "AGE",
            "IDLE",
            "USERSPACE",
            "KERNEL",
        ];
        text.push_str(&aligned(&head, sessions.iter().map(Session::row)));
    }
    text
}

fn streams_table(streams: &[Stream]) -> String {
    let head =
        ["ID", "PROTOCOL", "STREAM", "CLIENT", "ORIGIN", "JOINED", "AGE", "KIB TO ORIGIN", "KIB TO CLIENT"];
    if streams.is_empty() { String::new() } else { aligned(&head, streams.iter().map(Stream::row)) }
}

impl Stream {
    fn row(&self) -> Vec<String> {
        vec![
            self.id.to_string(),
            self.protocol.clone(),
            self.stream.clone().unwrap_or_default(),
            self.client.clone(),
            self.origin.clone().unwrap_or_default(),
            self.joined.clone().unwrap_or_default(),
            format!("{:.0} s", self.age),
            (self.to_origin >> 10).to_string(),
            (self.to_client >> 10).to_string(),
        ]
    }
}

impl Interface {
    fn row(&self) -> Vec<String> {
        let note = self.note.clone().unwrap_or_default();
        vec![self.name.clone(), self.engine.clone(), self.mode.clone(), note]
    }
}

impl Session {
    fn row(&self) -> Vec<String> {
        let state = match &self.reason {
            Some(reason) => format!("{} ({reason})", self.state),
            None => self.state.clone(),
        };
        let packets = |d: Directions| format!("{}/{}", d.to_origin, d.to_client);
        vec![
            self.id.to_string(),
            self.protocol.clone(),
            self.stream.clone().unwrap_or_else(unknown),
            self.role.clone().unwrap_or_else(unknown),
            state,
            self.client.clone().unwrap_or_default(),
            self.origin.clone(),
            format!("{:.0} s", self.age),
            format!("{:.1} s", self.idle),
            packets(self.userspace),
            self.kernel.map(packets).unwrap_or_default(),
        ]
    }
}

/// Of a session that another proxy signalled.
fn unknown() -> String {
    "-".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::snapshot;

    impl Status {
        /// Of a process that has used so many source ports.
        pub(in crate::commands) fn with_ports(ports_fullest: usize, ports_capacity: usize) -> Self {
            let totals = snapshot::Totals { ports_fullest, ports_capacity, ..snapshot::Totals::default() };
            let whole = snapshot::Snapshot { totals, interfaces: Vec::new(), sessions: Vec::new() };
            parsed(&serde_json::to_string(&whole).unwrap()).unwrap()
        }
    }

    #[test]
    fn the_api_tells_everything_the_table_of_streams_shows() {
        let view = crate::connections::ConnectionView {
            id: 3,
            protocol: crate::connections::Protocol::Rtmp,
            client: "192.0.2.1:5000".parse().unwrap(),
            stream: Some("v/live/a".into()),
            origin: None,
            joined: Some(crate::net::join::Joined::Copy),
            age: 9.7,
            to_origin: 2048,
            to_client: 10_000,
        };
        let json = serde_json::json!({ "connections": [view] }).to_string();
        let streams: Streams = serde_json::from_str(&json).unwrap();
        let text = streams_table(&streams.connections);
        assert!(
            text.contains("3   rtmp      v/live/a  192.0.2.1:5000          copy    10 s  2              9"),
            "{text}"
        );
        assert_eq!(streams_table(&[]), "");
    }

    #[test]
    fn the_status_api_tells_everything_the_table_shows() {
        let directions = snapshot::Directions { to_origin: 3, to_client: 4 };
        let session = snapshot::SessionView {
            id: 7,
            protocol: "srt",
            stream: Some("v/live/a".into()),
            role: Some("player"),
            origin: "vid-1".into(),
            media: "10.0.0.1:8000".into(),
            source: "10.0.0.9:61000".into(),
            state: "userspace",
            reason: Some("settling"),
            client: Some("192.0.2.1:5000".into()),
            tcp: vec![],
            age: 12.3,
            idle: 0.04,
            userspace: directions,
            kernel: Some(directions),
        };
        let interface = snapshot::InterfaceView {
            name: "eth0".into(),
            ifindex: 2,
            engine: "tc",
            mode: "tcx",
            note: None,
        };
        let whole = snapshot::Snapshot {
            totals: snapshot::Totals { sessions: 1, adopted: 1, ..snapshot::Totals::default() },
            interfaces: vec![interface],
            sessions: vec![
                session.clone(),
                snapshot::SessionView { id: 8, stream: None, role: None, ..session },
            ],
        };
        let read: Status = serde_json::from_str(&serde_json::to_string(&whole).unwrap()).unwrap();
        let text = table(&read);
        for part in [
            "sessions 1, in the kernel 0, taken over 1",
            "eth0       tc      tcx",
            "7   srt       v/live/a  player  userspace (settling)  192.0.2.1:5000  vid-1   12 s  0.0 s  3/4        3/4",
            "8   srt       -         -       userspace (settling)  192.0.2.1:5000  vid-1   12 s  0.0 s  3/4        3/4",
        ] {
            assert!(text.contains(part), "{part} in\n{text}");
        }
    }
}
