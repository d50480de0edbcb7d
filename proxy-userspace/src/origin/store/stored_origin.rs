//! An origin as it stands in Redis: the JSON of the Go proxy, members and omissions alike, with members of ours that it ignores.

use std::{
    net::{IpAddr, SocketAddr},
    time::SystemTime,
};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::json;

use super::{ValueError, rfc3339};
use crate::origin::{
    Origin, OriginId,
    balance::Terms,
    registration::{Registration, RegistrationError},
};

/// The longest origin that is read or written, in bytes.
pub(super) const MAX_ORIGIN: usize = 16 * 1024;

/// A registered origin, endpoints as text.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoredOrigin {
    /// The address or name that everybody connects to.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub ip: String,
    /// Operator's label.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub device_id: String,
    /// The server id, which survives restarts.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_id: String,
    /// The service id, new at every start.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service_id: String,
    /// The process id, new at every start.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub pid: String,
    /// RTMP endpoints; of each list the Go proxy dials the first.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub rtmp: Vec<String>,
    /// Endpoints of HTTP streams.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub http: Vec<String>,
    /// Endpoints of the HTTP API.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub api: Vec<String>,
    /// SRT endpoints.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub srt: Vec<String>,
    /// WebRTC endpoints: UDP, then TCP.
    #[serde(skip_serializing_if = "Vec::is_empty", deserialize_with = "null_as_empty")]
    pub rtc: Vec<String>,
    /// The last heartbeat (RFC 3339).
    pub update_at: String,
    /// How much of the streams it takes, beside others; ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
    /// How many sessions it takes at most; ours.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
}

impl StoredOrigin {
    /// What is stored of an origin whose heartbeat came at `time`.
    pub fn new(origin: &Origin, time: SystemTime) -> Self {
        let (service_id, pid) = run_of(origin);
        let list = |endpoint: Option<SocketAddr>, text: fn(IpAddr, SocketAddr) -> String| {
            endpoint.map(|endpoint| text(origin.ip, endpoint)).into_iter().collect::<Vec<_>>()
        };
        let tcp = origin.rtc_tcp.map(|endpoint| with_protocol("tcp", origin.ip, endpoint));
        Self {
            ip: origin.ip.to_string(),
            device_id: origin.device_id.clone(),
            server_id: origin.server.clone(),
            service_id,
            pid,
            rtmp: list(origin.rtmp, bare),
            http: list(origin.http, bare),
            api: list(origin.api, bare),
            srt: list(origin.srt, |ip, endpoint| with_protocol("udp", ip, endpoint)),
            rtc: list(origin.rtc, |ip, endpoint| with_protocol("udp", ip, endpoint))
                .into_iter()
                .chain(tcp)
                .collect(),
            update_at: rfc3339::format(time),
            weight: None,
            capacity: None,
        }
    }

    /// The same, with what it is to take.
    pub fn with_terms(self, terms: Terms) -> Self {
        let Terms { weight, capacity } = terms;
        Self { weight: (weight != Terms::default().weight).then_some(weight), capacity, ..self }
    }

    /// What it is to take.
    pub fn terms(&self) -> Terms {
        let bounded = |number: u32| number.clamp(1, Terms::MAX);
        let weight = self.weight.map_or(Terms::default().weight, bounded);
        Terms { weight, capacity: self.capacity.map(bounded) }
    }

    /// Which run of which server.
    pub fn id(&self) -> OriginId {
        OriginId::new(&self.server_id, &self.service_id, &self.pid)
    }

    /// The address everybody connects to, if it is no name.
    pub fn address(&self) -> Option<IpAddr> {
        self.ip.parse().ok()
    }

    /// The origin, once its host is known by address.
    pub fn origin(&self, ip: IpAddr) -> Result<Origin, RegistrationError> {
        let heartbeat = json!({
            "ip": self.ip, "device_id": self.device_id, "server": self.server_id, "service": self.service_id, "pid": self.pid,
            "rtmp": self.rtmp, "http": self.http, "api": self.api, "srt": self.srt, "rtc": self.rtc,
        });
        Ok(Registration::parse(heartbeat.to_string().as_bytes())?.into_origin(ip))
    }

    /// Reads the value of the key of `id`.
    pub(super) fn parse(id: &OriginId, value: &[u8]) -> Result<Self, ValueError> {
        let origin = Self::read(value)?;
        if origin.id() == *id { Ok(origin) } else { Err(ValueError::OtherOrigin) }
    }

    /// Reads the value of any origin's key.
    ///
    /// # Errors
    /// When it is too long, or not what it should be.
    pub fn read(value: &[u8]) -> Result<Self, ValueError> {
        if value.len() > MAX_ORIGIN {
            return Err(ValueError::TooLong(MAX_ORIGIN));
        }
        let origin: Self = serde_json::from_slice(value)?;
        // What a heartbeat could not say is not taken from Redis either.
        let anywhere = IpAddr::from([0, 0, 0, 0]);
        origin.origin(anywhere)?;
        Ok(origin)
    }

    /// The value.
    ///
    /// # Errors
    /// When it is longer than what is read.
    pub fn to_json(&self) -> Result<Vec<u8>, ValueError> {
        let value = serde_json::to_vec(self)?;
        if value.len() > MAX_ORIGIN { Err(ValueError::TooLong(MAX_ORIGIN)) } else { Ok(value) }
    }
}

/// Service id and process id, which an [`Origin`] has within its id alone.
fn run_of(origin: &Origin) -> (String, String) {
    let run = origin.id.0.strip_prefix(origin.server.as_str()).and_then(|rest| rest.strip_prefix('-'));
    let (service, pid) = run.and_then(|run| run.rsplit_once('-')).unwrap_or(("", ""));
    (service.to_owned(), pid.to_owned())
}

/// A port, which is all that the Go proxy reads of TCP endpoints; other text where the port alone would be wrong.
fn bare(ip: IpAddr, endpoint: SocketAddr) -> String {
    if endpoint.ip() == ip { endpoint.port().to_string() } else { endpoint.to_string() }
}

/// As SRS reports it. A wildcard means the registered address, and the Go proxy reads none but IPv4 here.
fn with_protocol(protocol: &str, ip: IpAddr, endpoint: SocketAddr) -> String {
    if endpoint.ip() == ip {
        format!("{protocol}://0.0.0.0:{}", endpoint.port())
    } else {
        format!("{protocol}://{endpoint}")
    }
}

fn null_as_empty<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests;
