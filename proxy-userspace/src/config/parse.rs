//! Values as typed become typed values, or the reason why not.

use std::{fmt::Display, net::IpAddr, ops::RangeInclusive, str::FromStr, time::Duration};

use ipnet::IpNet;

use super::{DatapathMode, Listen, LoadBalancer, LogFormat, OnStop, Secret, TcpJoin};
use crate::origin::balance::{Policy, Terms};

/// Why a value was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    /// Not `port`, `:port`, `host:port` or `[v6]:port`.
    #[error("is not a port or an address with a port (`1935`, `:1935`, `10.0.0.1:1935`, `[::1]:1935`)")]
    NotListen,
    /// A name where an address is needed.
    #[error("names a host; a listener needs an IP address")]
    ListenName,
    /// Port missing or above 65535.
    #[error("is not a port")]
    NotPort,
    /// Not a Go duration.
    #[error("is not a duration (`300ms`, `1.5s`, `20s`, `1h30m`)")]
    NotDuration,
    /// A number without a unit.
    #[error("lacks a unit (`20s`, `300ms`)")]
    NoUnit,
    /// Below zero.
    #[error("is a negative duration")]
    Negative,
    /// Above the longest duration.
    #[error("is too long a duration")]
    TooLong,
    /// Zero where that makes no sense.
    #[error("must be positive")]
    NotPositive,
    /// Neither `on` nor `off`.
    #[error("is neither `on` nor `off`")]
    NotSwitch,
    /// Not a whole number within its bounds.
    #[error("is not a whole number from {min} to {max}")]
    NotNumber {
        /// The smallest that is accepted.
        min: u64,
        /// The largest that is accepted.
        max: u64,
    },
    /// Not `first-last`.
    #[error("is not a range of ports (`61000-65535`)")]
    NotRange,
    /// The first is above the last.
    #[error("ends before it starts")]
    ReversedRange,
    /// Reaches below 1024.
    #[error("reaches below port 1024")]
    PrivilegedRange,
    /// Not an IP address.
    #[error("is not an IP address")]
    NotIp,
    /// Neither an address nor a network.
    #[error("is not an IP address or network (`10.0.0.1`, `10.0.0.0/8`)")]
    NotNet,
    /// Neither an address nor a host name.
    #[error("is not an IP address or host name")]
    NotHost,
    /// Nothing between two commas.
    #[error("has an empty item")]
    EmptyItem,
    /// An item of a list.
    #[error("has the item {item:?}, which {reason}")]
    Item {
        /// The item.
        item: String,
        /// What is wrong with it.
        reason: Box<ValueError>,
    },
    /// No device can have this name.
    #[error("is not an interface name")]
    NotInterface,
    /// Not an endpoint as a registration may hold.
    #[error("is not an endpoint (`1935`, `:1935`, `10.0.0.1:1935`, `udp://10.0.0.1:8000`)")]
    NotEndpoint,
    /// Not one of a few words.
    #[error("is not one of {0}")]
    NotOneOf(&'static str),
    /// Not what a header can carry as a token.
    #[error("holds a token with other characters than printable ASCII without spaces")]
    NotToken,
    /// Not `name=number`.
    #[error("is not a name and a number (`origin1=3`)")]
    NotShare,
    /// No `user:password`.
    #[error("is not `user:password`")]
    NotCredentials,
    /// Not a URL of a Redis server.
    #[error(
        "is not a URL of a Redis server (`redis://[[user]:password@]host[:port][/db]`, `rediss://` with TLS)"
    )]
    NotRedisUrl,
    /// Not what keys can begin with.
    #[error("is not at most 128 printable characters")]
    NotKeyPrefix,
    /// Short enough to be guessed.
    #[error("has fewer than {0} characters")]
    TooShort(usize),
    /// The log filter could not be read.
    #[error("is not a log filter")]
    NotLogFilter,
}

type Parsed<T> = Result<T, ValueError>;

/// `port`, `:port`, `host:port` or `[v6]:port`; without a host every address is meant.
pub(super) fn listen(value: &str) -> Parsed<Listen> {
    let Some((host, port)) = value.rsplit_once(':') else {
        return Ok(Listen { ip: None, port: port(value).map_err(|_| ValueError::NotListen)? });
    };
    let port = self::port(port).map_err(|_| ValueError::NotListen)?;
    Ok(Listen { ip: listen_host(host)?, port })
}

/// As [`listen`], or `off` for none.
pub(super) fn listen_or_off(value: &str) -> Parsed<Option<Listen>> {
    if value == "off" { Ok(None) } else { listen(value).map(Some) }
}

fn listen_host(host: &str) -> Parsed<Option<IpAddr>> {
    if host.is_empty() {
        return Ok(None);
    }
    if host == "localhost" {
        return Ok(Some(IpAddr::from([127, 0, 0, 1])));
    }
    if let Some(v6) = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        return v6.parse().map(|ip| Some(IpAddr::V6(ip))).map_err(|_| ValueError::NotListen);
    }
    match host.parse() {
        Ok(v4) => Ok(Some(IpAddr::V4(v4))),
        Err(_) if self::host(host).is_ok() => Err(ValueError::ListenName),
        Err(_) => Err(ValueError::NotListen),
    }
}

/// A decimal port; unlike [`u16::from_str`] a sign is refused.
pub(super) fn port(value: &str) -> Parsed<u16> {
    if value.bytes().all(|b| b.is_ascii_digit()) {
        value.parse().map_err(|_| ValueError::NotPort)
    } else {
        Err(ValueError::NotPort)
    }
}

const SECOND: u128 = 1_000_000_000;
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("µs", 1_000),
    ("μs", 1_000),
    ("ms", 1_000_000),
    ("s", SECOND),
    ("m", 60 * SECOND),
    ("h", 3600 * SECOND),
];

/// A duration as Go's `time.ParseDuration` reads it: decimal numbers, each with a unit, `0` alone without.
pub(super) fn duration(value: &str) -> Parsed<Duration> {
    let (negative, digits) = match value.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, value.strip_prefix('+').unwrap_or(value)),
    };
    let nanoseconds = nanoseconds(digits)?;
    if negative && nanoseconds > 0 {
        return Err(ValueError::Negative);
    }
    // The range of Go's type: 63 bits of nanoseconds.
    match u64::try_from(nanoseconds) {
        Ok(nanoseconds) if i64::try_from(nanoseconds).is_ok() => Ok(Duration::from_nanos(nanoseconds)),
        Ok(_) | Err(_) => Err(ValueError::TooLong),
    }
}

fn nanoseconds(mut text: &str) -> Parsed<u128> {
    if text == "0" {
        return Ok(0);
    }
    if text.is_empty() {
        return Err(ValueError::NotDuration);
    }
    let mut total = 0_u128;
    while !text.is_empty() {
        let (part, rest) = duration_part(text)?;
        total = total.checked_add(part).ok_or(ValueError::TooLong)?;
        text = rest;
    }
    Ok(total)
}

/// Splits `1.5s` off the front.
fn duration_part(text: &str) -> Parsed<(u128, &str)> {
    let (whole, rest) = split_digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), split_digits);
    if whole.is_empty() && fraction.is_empty() {
        return Err(ValueError::NotDuration);
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (name, rest) = rest.split_at(end);
    if name.is_empty() {
        return Err(ValueError::NoUnit);
    }
    let (_, unit) = UNITS.iter().find(|(unit, _)| *unit == name).ok_or(ValueError::NotDuration)?;
    let part =
        scaled(whole, *unit)?.checked_add(scaled_fraction(fraction, *unit)).ok_or(ValueError::TooLong)?;
    Ok((part, rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

fn scaled(digits: &str, unit: u128) -> Parsed<u128> {
    if digits.is_empty() {
        return Ok(0);
    }
    digits.parse::<u64>().map(|n| u128::from(n) * unit).map_err(|_| ValueError::TooLong)
}

/// What is finer than a nanosecond is cut off, as Go does.
fn scaled_fraction(digits: &str, unit: u128) -> u128 {
    let digits = &digits[..digits.len().min(18)];
    let places = digits.bytes().fold(1, |places, _| places * 10);
    digits.parse().unwrap_or(0) * unit / places
}

/// A duration that is not zero.
pub(super) fn positive(value: &str) -> Parsed<Duration> {
    match duration(value)? {
        Duration::ZERO => Err(ValueError::NotPositive),
        positive => Ok(positive),
    }
}

/// `on` or `off`. The Go proxy takes every word but `on` as off; the ones that mean off are accepted, the ones that
/// mean on to most readers are refused, because guessing would open or close something.
pub(super) fn switch(value: &str) -> Parsed<bool> {
    match value {
        "on" => Ok(true),
        "off" | "false" | "no" | "0" => Ok(false),
        _ => Err(ValueError::NotSwitch),
    }
}

/// `name=number`, of an origin.
pub(super) fn share(value: &str) -> Parsed<(String, u32)> {
    let (name, share) = value.split_once('=').ok_or(ValueError::NotShare)?;
    if name.is_empty() {
        return Err(ValueError::NotShare);
    }
    Ok((name.to_owned(), number(1..=Terms::MAX)(share)?))
}

/// A policy of balancing.
pub(super) fn policy(value: &str) -> Parsed<Policy> {
    match value {
        "least-sessions" => Ok(Policy::LeastSessions),
        "random" => Ok(Policy::Random),
        "weighted" => Ok(Policy::Weighted),
        "rendezvous" => Ok(Policy::Rendezvous),
        _ => Err(ValueError::NotOneOf("`least-sessions`, `random`, `weighted`, `rendezvous`")),
    }
}

/// A parser of whole numbers within `bounds`.
pub(super) fn number<T>(bounds: RangeInclusive<T>) -> impl Fn(&str) -> Parsed<T>
where
    T: Copy + PartialOrd + FromStr + Display + TryInto<u64>,
{
    move |value| {
        let number = value.parse().ok().filter(|number| bounds.contains(number));
        number.ok_or_else(|| ValueError::NotNumber {
            min: (*bounds.start()).try_into().unwrap_or(u64::MIN),
            max: (*bounds.end()).try_into().unwrap_or(u64::MAX),
        })
    }
}

/// `first-last`, neither below 1024.
pub(super) fn source_ports(value: &str) -> Parsed<RangeInclusive<u16>> {
    let (first, last) = value.split_once('-').ok_or(ValueError::NotRange)?;
    let parse = |text: &str| port(text.trim()).map_err(|_| ValueError::NotRange);
    let (first, last) = (parse(first)?, parse(last)?);
    if first > last {
        return Err(ValueError::ReversedRange);
    }
    if first < 1024 {
        return Err(ValueError::PrivilegedRange);
    }
    Ok(first..=last)
}

/// An IP address.
pub(super) fn ip(value: &str) -> Parsed<IpAddr> {
    value.parse().map_err(|_| ValueError::NotIp)
}

/// A network, or an address as a network of one.
pub(super) fn net(value: &str) -> Parsed<IpNet> {
    value.parse().or_else(|_| value.parse().map(|ip: IpAddr| ip.into())).map_err(|_| ValueError::NotNet)
}

/// An IP address or a host name, kept as typed.
pub(super) fn host(value: &str) -> Parsed<String> {
    let is_label = |label: &str| {
        let inside = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
        !label.is_empty() && label.len() <= 63 && label.bytes().all(inside)
    };
    let is_name = || value.len() <= 253 && value.trim_end_matches('.').split('.').all(is_label);
    if value.parse::<IpAddr>().is_ok() || is_name() { Ok(value.to_owned()) } else { Err(ValueError::NotHost) }
}

/// A device name as the kernel accepts it.
pub(super) fn interface(value: &str) -> Parsed<String> {
    let refused = |b: u8| b == b'/' || b == b':' || b.is_ascii_whitespace();
    if value.len() > 15 || value == "." || value == ".." || value.bytes().any(refused) {
        return Err(ValueError::NotInterface);
    }
    Ok(value.to_owned())
}

/// Something that ends in a port, in the forms a registration may use; kept as typed.
pub(super) fn endpoint(value: &str) -> Parsed<String> {
    let port = value.rsplit(':').next().unwrap_or(value);
    match self::port(port.trim_start_matches('/')) {
        Ok(port) if port > 0 => Ok(value.to_owned()),
        Ok(_) | Err(_) => Err(ValueError::NotEndpoint),
    }
}

/// Items between commas.
pub(super) fn list<T>(value: &str, item: impl Fn(&str) -> Parsed<T>) -> Parsed<Vec<T>> {
    value.split(',').map(|text| list_item(text.trim(), &item)).collect()
}

fn list_item<T>(text: &str, item: impl Fn(&str) -> Parsed<T>) -> Parsed<T> {
    if text.is_empty() {
        return Err(ValueError::EmptyItem);
    }
    item(text).map_err(|reason| ValueError::Item { item: text.to_owned(), reason: Box::new(reason) })
}

/// Any text.
pub(super) fn text(value: &str) -> Parsed<String> {
    Ok(value.to_owned())
}

/// Tokens with commas between them. What is wrong is said without the token.
pub(super) fn tokens(value: &str) -> Parsed<Vec<Secret>> {
    let token = |token: &str| match token.trim() {
        "" => Err(ValueError::EmptyItem),
        token if token.bytes().all(|byte| byte.is_ascii_graphic()) => Ok(Secret::new(token)),
        _ => Err(ValueError::NotToken),
    };
    value.split(',').map(token).collect()
}

/// A secret that nobody finds by trying.
pub(super) fn fleet_key(value: &str) -> Parsed<Secret> {
    const SHORTEST: usize = 16;
    if value.chars().count() < SHORTEST {
        return Err(ValueError::TooShort(SHORTEST));
    }
    Ok(Secret::new(value))
}

/// `user:password` (RFC 7617: a user has no colon).
pub(super) fn credentials(value: &str) -> Parsed<Secret> {
    let is_pair = value.split_once(':').is_some_and(|(user, _password)| !user.is_empty());
    if is_pair { Ok(Secret::new(value)) } else { Err(ValueError::NotCredentials) }
}

/// `auto`, `copy` or `splice`.
pub(super) fn tcp_join(value: &str) -> Parsed<TcpJoin> {
    match value {
        "auto" => Ok(TcpJoin::Auto),
        "copy" => Ok(TcpJoin::Copy),
        "splice" => Ok(TcpJoin::Splice),
        _ => Err(ValueError::NotOneOf("`auto`, `copy`, `splice`")),
    }
}

/// `memory` or `redis`.
pub(super) fn load_balancer(value: &str) -> Parsed<LoadBalancer> {
    match value {
        "memory" => Ok(LoadBalancer::Memory),
        "redis" => Ok(LoadBalancer::Redis),
        _ => Err(ValueError::NotOneOf("`memory`, `redis`")),
    }
}

/// `go`, or nothing.
pub(super) fn key_compat(value: &str) -> Parsed<bool> {
    if value == "go" { Ok(true) } else { Err(ValueError::NotOneOf("`go`")) }
}

/// `auto`, `xdp`, `tc` or `userspace`.
pub(super) fn datapath_mode(value: &str) -> Parsed<DatapathMode> {
    match value {
        "auto" => Ok(DatapathMode::Auto),
        "xdp" => Ok(DatapathMode::Xdp),
        "tc" => Ok(DatapathMode::Tc),
        "userspace" => Ok(DatapathMode::Userspace),
        _ => Err(ValueError::NotOneOf("`auto`, `xdp`, `tc`, `userspace`")),
    }
}

/// `keep` or `drain`.
pub(super) fn on_stop(value: &str) -> Parsed<OnStop> {
    match value {
        "keep" => Ok(OnStop::Keep),
        "drain" => Ok(OnStop::Drain),
        _ => Err(ValueError::NotOneOf("`keep`, `drain`")),
    }
}

/// `text` or `json`.
pub(super) fn log_format(value: &str) -> Parsed<LogFormat> {
    match value {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(ValueError::NotOneOf("`text`, `json`")),
    }
}

/// A `tracing` filter, kept as typed.
pub(super) fn log_filter(value: &str) -> Parsed<String> {
    // Targets are crate names; tracing-subscriber 0.3.23 slices other text between character boundaries and panics.
    if !value.is_ascii() {
        return Err(ValueError::NotLogFilter);
    }
    let filter = tracing_subscriber::EnvFilter::builder().parse(value);
    filter.map(|_| value.to_owned()).map_err(|_| ValueError::NotLogFilter)
}

#[cfg(test)]
mod tests;
