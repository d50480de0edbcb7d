//! Reads a heartbeat: the JSON by which an SRS origin registers itself.
//!
//! Members are taken one by one instead of by a derived struct, so that an operator reads which member is wrong and
//! what to change in the origin's configuration, rather than a line and column of the body.

use std::net::IpAddr;

use serde_json::{Map, Value};

use super::{
    Origin, OriginId,
    balance::Terms,
    endpoint::{Endpoint, EndpointError, Transport},
};
use crate::config;

/// A heartbeat, read and checked; its address may still be a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The `ip` member: an address or a host name.
    pub host: String,
    /// The members `weight` and `capacity`, which SRS does not send: whoever registers in its place may.
    pub terms: Terms,
    id: OriginId,
    server: String,
    device_id: String,
    rtmp: Option<Endpoint>,
    http: Option<Endpoint>,
    api: Option<Endpoint>,
    srt: Option<Endpoint>,
    rtc: Option<Endpoint>,
    rtc_tcp: Option<Endpoint>,
}

/// Why a heartbeat is refused.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    /// The body is not JSON.
    #[error("heartbeat is not JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// The body is JSON, but no object.
    #[error("heartbeat is not a JSON object")]
    NotAnObject,
    /// A member has another type.
    #[error("`{member}` of the heartbeat is not {expected}")]
    WrongType {
        /// The member.
        member: &'static str,
        /// What it should be.
        expected: &'static str,
    },
    /// A member is missing or empty.
    #[error("empty {0}")]
    Empty(&'static str),
    /// The heartbeat has the format from before origin clusters.
    #[error(
        "empty server: this SRS is too old or `ports on` is missing; use SRS 5.0.215, 6.0.156, 7.0.15 or newer, and \
         set `ports on;` in the heartbeat section of its configuration"
    )]
    OldFormat,
    /// The heartbeat tells who the origin is, but not where it listens.
    #[error(
        "empty rtmp: `ports on` is missing; set `ports on;` in the heartbeat section of the origin's configuration"
    )]
    NoPorts,
    /// An endpoint cannot be read.
    #[error("`{member}` of the heartbeat holds {text:?}, which is no endpoint: {source}")]
    Endpoint {
        /// The list it stands in.
        member: &'static str,
        /// The endpoint as written.
        text: String,
        /// What is wrong with it.
        source: EndpointError,
    },
}

impl Registration {
    /// Reads the body of a heartbeat.
    pub fn parse(body: &[u8]) -> Result<Self, RegistrationError> {
        // The Go proxy takes an empty body for an empty object.
        let value = if body.is_empty() { Value::Object(Map::new()) } else { serde_json::from_slice(body)? };
        let Value::Object(members) = value else { return Err(RegistrationError::NotAnObject) };
        Self::from_members(&members)
    }

    /// The origin of `PROXY_DEFAULT_BACKEND_*`. What it is named by is what every process says that is configured alike: sessions
    /// know it by that name, and so do streams in Redis.
    pub fn from_default_backend(backend: &config::DefaultBackend) -> Result<Self, RegistrationError> {
        let read =
            |member, text: &Option<String>| text.as_deref().map(|text| endpoint(member, text)).transpose();
        Ok(Self {
            host: backend.ip.clone(),
            terms: Terms::default(),
            id: OriginId::new(DEFAULT_BACKEND, &backend.ip, &backend.rtmp),
            server: DEFAULT_BACKEND.into(),
            device_id: DEFAULT_BACKEND.into(),
            rtmp: Some(endpoint("rtmp", &backend.rtmp)?),
            http: read("http", &backend.http)?,
            api: read("api", &backend.api)?,
            srt: read("srt", &backend.srt)?,
            rtc: read("rtc", &backend.rtc)?,
            rtc_tcp: None,
        })
    }

    /// The origin, once its host is known by address.
    pub fn into_origin(self, ip: IpAddr) -> Origin {
        let at = |endpoint: Option<Endpoint>| endpoint.map(|endpoint| endpoint.at(ip));
        Origin {
            id: self.id,
            server: self.server,
            device_id: self.device_id,
            ip,
            rtmp: at(self.rtmp),
            http: at(self.http),
            api: at(self.api),
            srt: at(self.srt),
            rtc: at(self.rtc),
            rtc_tcp: at(self.rtc_tcp),
        }
    }

    fn from_members(members: &Map<String, Value>) -> Result<Self, RegistrationError> {
        let host = required(members, "ip")?;
        if !["server", "service", "pid"].iter().any(|member| members.contains_key(*member)) {
            return Err(RegistrationError::OldFormat);
        }
        let server = required(members, "server")?;
        let service = required(members, "service")?;
        let pid = required(members, "pid")?;
        Ok(Self {
            host: host.into(),
            terms: terms(members)?,
            id: OriginId::new(server, service, pid),
            server: server.into(),
            device_id: text(members, "device_id")?.into(),
            rtmp: Some(first(members, "rtmp", TCP)?.ok_or(RegistrationError::NoPorts)?),
            http: first(members, "http", TCP)?,
            api: first(members, "api", TCP)?,
            srt: first(members, "srt", UDP)?,
            rtc: first(members, "rtc", UDP)?,
            rtc_tcp: first(members, "rtc", &[Transport::Tcp])?,
        })
    }
}

/// What to tell the operator when an origin that registered with `ip` cannot be reached.
pub fn address_hint(ip: IpAddr) -> Option<&'static str> {
    match ip {
        IpAddr::V4(v4) if v4.octets()[..2] == [172, 17] => Some(
            "172.17.x.x is the address of a container on Docker's own bridge: set SRS_DEVICE_IP in the origin's \
             environment to an address that the proxy reaches",
        ),
        IpAddr::V4(_) | IpAddr::V6(_) => None,
    }
}

const DEFAULT_BACKEND: &str = "default";
const MAX_TEXT: usize = 256;

fn required<'a>(members: &'a Map<String, Value>, member: &'static str) -> Result<&'a str, RegistrationError> {
    match text(members, member)? {
        "" => Err(RegistrationError::Empty(member)),
        text => Ok(text),
    }
}

fn terms(members: &Map<String, Value>) -> Result<Terms, RegistrationError> {
    let number = |member| match members.get(member) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => {
            let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
            let read = number.filter(|number| (1..=Terms::MAX).contains(number));
            let expected = "a whole number within 1 and 1000000";
            read.map(Some).ok_or(RegistrationError::WrongType { member, expected })
        }
    };
    Ok(Terms { weight: number("weight")?.unwrap_or(1), capacity: number("capacity")? })
}

fn text<'a>(members: &'a Map<String, Value>, member: &'static str) -> Result<&'a str, RegistrationError> {
    let wrong =
        RegistrationError::WrongType { member, expected: "a string of at most 256 printable characters" };
    match members.get(member) {
        None | Some(Value::Null) => Ok(""),
        Some(value) => value.as_str().filter(|text| is_short_line(text)).ok_or(wrong),
    }
}

/// These texts go into logs and registry keys, and many are kept.
fn is_short_line(text: &str) -> bool {
    text.len() <= MAX_TEXT && !text.contains(char::is_control)
}

/// What an endpoint may say that is reached by TCP.
const TCP: &[Transport] = &[Transport::Tcp, Transport::Implied];
/// What an endpoint may say that is reached by UDP.
const UDP: &[Transport] = &[Transport::Udp, Transport::Implied];

/// The first endpoint of a list whose transport is one of `wanted`; later ones are never dialled.
fn first(
    members: &Map<String, Value>,
    member: &'static str,
    wanted: &[Transport],
) -> Result<Option<Endpoint>, RegistrationError> {
    const WRONG: &str = "an array of strings";
    let list = match members.get(member) {
        None | Some(Value::Null) => return Ok(None),
        Some(value) => value.as_array().ok_or(RegistrationError::WrongType { member, expected: WRONG })?,
    };
    for item in list {
        let text = item.as_str().ok_or(RegistrationError::WrongType { member, expected: WRONG })?;
        let endpoint = endpoint(member, text)?;
        if wanted.contains(&endpoint.transport) {
            return Ok(Some(endpoint));
        }
    }
    Ok(None)
}

fn endpoint(member: &'static str, text: &str) -> Result<Endpoint, RegistrationError> {
    text.parse().map_err(|source| RegistrationError::Endpoint { member, text: text.into(), source })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn heartbeat() -> Value {
        json!({
            "ip": "10.78.122.184", "server": "vid-46p14mm", "service": "z2s3w865", "pid": "42583",
            "device_id": "origin2", "rtmp": ["19352"], "http": ["8082"], "api": ["19853"], "srt": ["10082"],
            "rtc": ["udp://0.0.0.0:8001", "tcp://0.0.0.0:8001"], "summaries": {"code": 0}, "rtsp": ["554"]
        })
    }

    fn with(member: &str, value: Value) -> Value {
        let mut heartbeat = heartbeat();
        heartbeat[member] = value;
        heartbeat
    }

    fn parse(value: &Value) -> Result<Registration, RegistrationError> {
        Registration::parse(value.to_string().as_bytes())
    }

    #[track_caller]
    fn refuses(value: &Value, reason: &str) {
        let error = parse(value).expect_err(reason).to_string();
        assert!(error.starts_with(reason), "{error}");
    }

    #[test]
    fn reads_the_documented_heartbeat_and_ignores_unknown_members() {
        let registration = parse(&heartbeat()).unwrap();
        assert_eq!(registration.host, "10.78.122.184");
        let origin = registration.into_origin("10.78.122.184".parse().unwrap());
        assert_eq!(origin.id.to_string(), "vid-46p14mm-z2s3w865-42583");
        assert_eq!((origin.server.as_str(), origin.device_id.as_str()), ("vid-46p14mm", "origin2"));
        assert_eq!(origin.rtmp, Some("10.78.122.184:19352".parse().unwrap()));
        assert_eq!(origin.http, Some("10.78.122.184:8082".parse().unwrap()));
        assert_eq!(origin.api, Some("10.78.122.184:19853".parse().unwrap()));
        assert_eq!(origin.srt, Some("10.78.122.184:10082".parse().unwrap()));
        assert_eq!(origin.rtc, Some("10.78.122.184:8001".parse().unwrap()));
        assert_eq!(origin.rtc_tcp, Some("10.78.122.184:8001".parse().unwrap()));
    }

    #[test]
    fn reads_what_an_origin_is_to_take() {
        let terms = |value: &Value| parse(value).unwrap().terms;
        assert_eq!(terms(&heartbeat()), Terms::default());
        assert_eq!(terms(&with("weight", json!(3))), Terms { weight: 3, capacity: None });
        assert_eq!(terms(&with("capacity", json!(300))), Terms { weight: 1, capacity: Some(300) });
        for wrong in [json!(0), json!(-1), json!(1.5), json!("3"), json!(1_000_001)] {
            refuses(&with("weight", wrong.clone()), "`weight` of the heartbeat is not a whole number");
            refuses(&with("capacity", wrong), "`capacity` of the heartbeat is not a whole number");
        }
    }

    #[test]
    fn only_rtmp_is_needed_of_the_lists() {
        let bare = json!({"ip": "origin.local", "server": "s", "service": "v", "pid": "1", "rtmp": ["1935"]});
        let origin = parse(&bare).unwrap().into_origin("::1".parse().unwrap());
        assert_eq!((origin.rtmp, origin.rtc), (Some("[::1]:1935".parse().unwrap()), None));
    }

    #[test]
    fn takes_the_endpoints_of_rtc_wherever_they_stand() {
        let endpoints = |rtc: &Value| {
            let origin = parse(&with("rtc", rtc.clone())).unwrap().into_origin("10.0.0.1".parse().unwrap());
            [origin.rtc, origin.rtc_tcp].map(|endpoint| endpoint.map(|endpoint| endpoint.to_string()))
        };
        let at = |text: &str| Some(text.to_owned());
        let (udp, tcp) = (at("10.0.0.1:8001"), at("10.0.0.1:8000"));
        assert_eq!(endpoints(&json!(["tcp://8000", "udp://[::]:8001"])), [udp.clone(), tcp.clone()]);
        assert_eq!(endpoints(&json!(["8001", "tcp://0.0.0.0:8000"])), [udp.clone(), tcp.clone()]);
        assert_eq!(endpoints(&json!(["tcp://8000"])), [None, tcp]);
        // Without a transport it is UDP, as it always was.
        assert_eq!(endpoints(&json!(["8001"])), [udp, None]);
    }

    #[test]
    fn tells_which_member_is_missing_or_empty() {
        for member in ["ip", "server", "service", "pid"] {
            for nothing in [json!(""), Value::Null] {
                refuses(&with(member, nothing), &format!("empty {member}"));
            }
        }
        refuses(&json!({}), "empty ip");
        assert_eq!(Registration::parse(b"").unwrap_err().to_string(), "empty ip");
    }

    #[test]
    fn explains_the_old_format_and_missing_ports() {
        let old = json!({"device_id": "my-srs-device", "ip": "192.168.1.100", "summaries": {}});
        refuses(&old, "empty server: this SRS is too old or `ports on` is missing");
        for nothing in [json!([]), Value::Null] {
            refuses(&with("rtmp", nothing), "empty rtmp: `ports on` is missing");
        }
    }

    #[test]
    fn tells_which_member_has_a_wrong_type() {
        refuses(&with("pid", json!(42583)), "`pid` of the heartbeat is not a string");
        refuses(&with("device_id", json!([])), "`device_id` of the heartbeat is not a string");
        refuses(&with("device_id", json!("a\nb")), "`device_id` of the heartbeat is not a string of");
        refuses(&with("server", json!("x".repeat(257))), "`server` of the heartbeat is not a string of");
        refuses(&with("http", json!("8080")), "`http` of the heartbeat is not an array of strings");
        refuses(&with("rtmp", json!([1935])), "`rtmp` of the heartbeat is not an array of strings");
        refuses(&json!([]), "heartbeat is not a JSON object");
        assert!(Registration::parse(b"{").unwrap_err().to_string().starts_with("heartbeat is not JSON"));
    }

    #[test]
    fn names_an_endpoint_it_cannot_read() {
        refuses(&with("api", json!(["unix:/tmp/x"])), "`api` of the heartbeat holds \"unix:/tmp/x\"");
    }

    #[test]
    fn reads_the_default_backend() {
        let backend = config::DefaultBackend {
            ip: "127.0.0.1".into(),
            rtmp: "1935".into(),
            http: None,
            api: Some("1985".into()),
            rtc: Some("udp://8000".into()),
            srt: Some("10080".into()),
        };
        let origin =
            Registration::from_default_backend(&backend).unwrap().into_origin("127.0.0.1".parse().unwrap());
        assert_eq!(origin.rtc, Some("127.0.0.1:8000".parse().unwrap()));
        assert_eq!(origin.http, None);
        assert_eq!(origin.id.to_string(), "default-127.0.0.1-1935", "to every process");
    }

    #[test]
    fn hints_at_the_address_of_dockers_bridge() {
        assert!(address_hint("172.17.0.2".parse().unwrap()).unwrap().contains("SRS_DEVICE_IP"));
        assert_eq!(address_hint("172.18.0.2".parse().unwrap()), None);
    }
}
