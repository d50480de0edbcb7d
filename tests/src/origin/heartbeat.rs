//! How SRS registers: the same JSON posted to the proxy at an interval, whatever the proxy answers.

use std::net::IpAddr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::{Endpoints, OriginConfig, SIGNATURE};
use crate::http::{Request, Url};

/// Where, how often and as whom an origin registers.
#[derive(Debug, Clone)]
pub struct Heartbeat {
    /// The proxy's registration address.
    pub url: String,
    /// Those of other proxies, which SRS has no setting for: proxies that share no registry get a copy of its heartbeat.
    pub copies: Vec<String>,
    /// The time between two posts.
    pub interval: Duration,
    /// The operator's label of the origin.
    pub device_id: String,
    /// The address at which the proxy finds the origin.
    pub ip: IpAddr,
    /// Sent as `Authorization: Bearer`.
    pub bearer: Option<String>,
    /// What the post holds.
    pub format: HeartbeatFormat,
}

/// The two generations of SRS's heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeartbeatFormat {
    /// `device_id` and `ip` only.
    Old,
    /// With identity and the listen ports of what is served (`ports on`).
    New,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Body<'a> {
    Old {
        device_id: &'a str,
        ip: IpAddr,
    },
    New {
        device_id: &'a str,
        ip: IpAddr,
        server: &'a str,
        service: &'a str,
        pid: String,
        #[serde(skip_serializing_if = "Option::is_none")]
        rtmp: Option<[String; 1]>,
        #[serde(skip_serializing_if = "Option::is_none")]
        http: Option<[String; 1]>,
        api: [String; 1],
        #[serde(skip_serializing_if = "Option::is_none")]
        srt: Option<[String; 1]>,
        rtc: Vec<String>,
    },
}

/// A running heartbeat; it ends when dropped.
/// Nobody waits for its thread: the last post may hang for seconds when the proxy is gone.
#[derive(Debug)]
pub(super) struct Beating {
    _stop: mpsc::Sender<()>,
}

impl Heartbeat {
    /// A heartbeat in the new format, once a second.
    #[must_use]
    pub fn every_second(url: impl Into<String>, device_id: impl Into<String>, ip: impl Into<IpAddr>) -> Self {
        Self {
            url: url.into(),
            copies: Vec::new(),
            interval: Duration::from_secs(1),
            device_id: device_id.into(),
            ip: ip.into(),
            bearer: None,
            format: HeartbeatFormat::New,
        }
    }

    pub(super) fn start(self, config: &OriginConfig, endpoints: Endpoints) -> Result<Beating> {
        let urls = std::iter::once(&self.url).chain(&self.copies).map(|url| Url::parse(url));
        let urls = urls.collect::<Result<Vec<_>>>()?;
        let body = serde_json::to_string(&self.body(config, endpoints))?;
        let (stop, stopped) = mpsc::channel();
        thread::spawn(move || {
            loop {
                for url in &urls {
                    // An origin does not care whether a proxy listens; it tries again at the next beat.
                    let _ = self.request(url, &body).send();
                }
                if stopped.recv_timeout(self.interval) != Err(mpsc::RecvTimeoutError::Timeout) {
                    return;
                }
            }
        });
        Ok(Beating { _stop: stop })
    }

    fn request(&self, url: &Url, body: &str) -> Request {
        let request = Request::new("POST", url.clone()).body("application/json", body);
        let request = request.header("User-Agent", SIGNATURE);
        match &self.bearer {
            Some(token) => request.header("Authorization", format!("Bearer {token}")),
            None => request,
        }
    }

    fn body<'a>(&'a self, config: &'a OriginConfig, endpoints: Endpoints) -> Body<'a> {
        let (device_id, ip) = (self.device_id.as_str(), self.ip);
        match self.format {
            HeartbeatFormat::Old => Body::Old { device_id, ip },
            HeartbeatFormat::New => Body::New {
                device_id,
                ip,
                server: &config.server_id,
                service: &config.service_id,
                pid: std::process::id().to_string(),
                rtmp: endpoints.rtmp.map(|address| [address.port().to_string()]),
                http: endpoints.http.map(|address| [address.port().to_string()]),
                api: [endpoints.api.port().to_string()],
                srt: endpoints.srt.map(|address| [format!("udp://0.0.0.0:{}", address.port())]),
                rtc: rtc(endpoints),
            },
        }
    }
}

/// UDP first, as in SRS.
fn rtc(endpoints: Endpoints) -> Vec<String> {
    let udp = format!("udp://0.0.0.0:{}", endpoints.rtc.port());
    let tcp = endpoints.rtc_tcp.map(|address| format!("tcp://0.0.0.0:{}", address.port()));
    std::iter::once(udp).chain(tcp).collect()
}
