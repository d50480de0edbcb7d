//! `origins` and `drain`.

use anyhow::Context as _;
use http::Method;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;

use super::{ask_running, print, table::aligned};
use crate::config::Config;

#[derive(Debug, Deserialize)]
struct Origins {
    origins: Vec<Origin>,
}

/// The part of an origin that is shown.
#[derive(Debug, Deserialize)]
struct Origin {
    id: String,
    device_id: String,
    ip: String,
    state: String,
    reason: Option<String>,
    heartbeat_age: f64,
    streams: usize,
    sessions: u64,
    weight: u32,
    capacity: Option<u32>,
}

#[derive(Debug, Deserialize)]
struct Drained {
    origins: Vec<String>,
}

/// Prints the origins that the process that runs knows.
pub async fn origins(config: &Config, json: bool) -> anyhow::Result<()> {
    let mut answer = ask_running(config, Method::GET, "/api/v1/origins").await?;
    if json {
        answer.push('\n');
        return print(&answer);
    }
    let Origins { origins } =
        serde_json::from_str(&answer).context("its origins are unknown to this version")?;
    print(&table(&origins))
}

/// Has the origins that `name` names get no new streams, or get them again.
pub async fn drain(config: &Config, name: &str, on: bool) -> anyhow::Result<()> {
    let method = if on { Method::POST } else { Method::DELETE };
    let name = utf8_percent_encode(name, NON_ALPHANUMERIC);
    let answer = ask_running(config, method, &format!("/api/v1/origins/drain?origin={name}")).await?;
    let Drained { origins } =
        serde_json::from_str(&answer).context("its answer is unknown to this version")?;
    let what = if on { "gets no new streams" } else { "gets new streams" };
    print(&origins.iter().map(|id| format!("{id} {what}\n")).collect::<String>())
}

fn table(origins: &[Origin]) -> String {
    let head = ["ID", "DEVICE", "ADDRESS", "STATE", "HEARTBEAT", "STREAMS", "SESSIONS", "WEIGHT", "CAPACITY"];
    match origins {
        [] => "no origins\n".to_owned(),
        origins => aligned(&head, origins.iter().map(Origin::row)),
    }
}

impl Origin {
    fn row(&self) -> Vec<String> {
        let state = match &self.reason {
            Some(reason) => format!("{} ({reason})", self.state),
            None => self.state.clone(),
        };
        vec![
            self.id.clone(),
            self.device_id.clone(),
            self.ip.clone(),
            state,
            format!("{:.0} s", self.heartbeat_age),
            self.streams.to_string(),
            self.sessions.to_string(),
            self.weight.to_string(),
            self.capacity.map(|capacity| capacity.to_string()).unwrap_or_default(),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::origin::{Endpoints, OriginId, OriginStatus};

    #[test]
    fn the_api_tells_everything_the_table_of_origins_shows() {
        let status = OriginStatus {
            id: OriginId::new("vid-1", "s", "7"),
            device_id: "origin1".into(),
            ip: [10, 0, 0, 1].into(),
            endpoints: Endpoints { rtmp: None, http: None, api: None, srt: None, rtc: None },
            state: "draining",
            reason: Some("it takes no new streams".into()),
            heartbeat_age: 2.4,
            streams: 3,
            sessions: 40,
            weight: 2,
            capacity: Some(500),
        };
        let json = serde_json::json!({ "code": 0, "origins": [status] }).to_string();
        let read: Origins = serde_json::from_str(&json).unwrap();
        let text = table(&read.origins);
        let row = "vid-1-s-7  origin1  10.0.0.1  draining (it takes no new streams)  2 s        3        40        2       500";
        assert!(text.contains(row), "{text}");
        assert_eq!(table(&[]), "no origins\n");
    }
}
