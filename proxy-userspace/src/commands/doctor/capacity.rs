//! How many sessions there can be: source ports are what runs out first.

use std::{fs, ops::RangeInclusive};

use super::{Findings, Level};
use crate::{commands::status::Status, config::Config};

const SUBJECT: &str = "source ports";

pub(super) fn examine(config: &Config, findings: &mut Findings) {
    arithmetic(config, findings);
    let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}")).unwrap_or_default();
    let reserved = ranges(&read("ip_local_reserved_ports"));
    let ephemeral = ephemeral(&read("ip_local_port_range"));
    for ports in [&config.sources.ports, &config.sources.tcp_ports] {
        overlap(ports, ephemeral.clone(), &reserved, findings);
    }
}

/// What the range comes to.
fn arithmetic(config: &Config, findings: &mut Findings) {
    let ports = config.sources.ports.len();
    let addresses = config.sources.addresses.len().max(1);
    let (first, last) = (config.sources.ports.start(), config.sources.ports.end());
    let rest = config.sources.rest.as_secs_f64();
    let mut text = format!("{first}-{last}: {ports} sessions an origin's media address and source address");
    if rest > 0.0 {
        text.push_str(&format!(", {:.0} new ones a second", ports as f64 / rest));
    }
    findings.add(Level::Ok, SUBJECT, text);
    let sessions = config.webrtc.max_sessions;
    let origins = sessions.div_ceil(ports * addresses);
    if origins > 1 {
        let text = format!(
            "PROXY_MAX_SESSIONS={sessions} takes {origins} media addresses of origins with {addresses} source \
             {}; more of either, or more ports, allow more",
            if addresses == 1 { "address" } else { "addresses" }
        );
        findings.add(Level::Note, SUBJECT, text);
    }
}

/// Ports that the kernel gives to whoever asks for any would be taken from us.
fn overlap(
    ours: &RangeInclusive<u16>,
    ephemeral: Option<RangeInclusive<u16>>,
    reserved: &[RangeInclusive<u16>],
    findings: &mut Findings,
) {
    let Some(ephemeral) = ephemeral else { return };
    let is_reserved = |port: &u16| reserved.iter().any(|range| range.contains(port));
    let shared = ours.clone().filter(|port| ephemeral.contains(port) && !is_reserved(port)).count();
    if shared > 0 {
        let text = format!(
            "{shared} of {first}-{last} are in net.ipv4.ip_local_port_range: \
             sysctl net.ipv4.ip_local_reserved_ports={first}-{last}",
            first = ours.start(),
            last = ours.end()
        );
        findings.add(Level::Warning, SUBJECT, text);
    }
}

/// Two numbers with space between them.
fn ephemeral(text: &str) -> Option<RangeInclusive<u16>> {
    let mut numbers = text.split_whitespace().map_while(|number| number.parse().ok());
    Some(numbers.next()?..=numbers.next()?)
}

/// `1,5-7`.
fn ranges(text: &str) -> Vec<RangeInclusive<u16>> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.parse().ok()?..=last.parse().ok()?)
    };
    text.trim().split(',').filter_map(range).collect()
}

/// How much of it the process that runs has used up.
pub(super) fn of_the_running(status: Option<&Status>, findings: &mut Findings) {
    let Some(status) = status else {
        return findings.add(Level::Note, "process", "no srs-xproxy runs here");
    };
    let (used, all) = (status.totals.ports_fullest, status.totals.ports_capacity);
    let level = match used {
        used if used >= all => Level::Error,
        used if used * 5 >= all * 4 => Level::Warning,
        _ => Level::Ok,
    };
    let what = if level == Level::Error { "new sessions are refused with 503" } else { "in use or at rest" };
    let text = format!("{used} of {all} of the fullest media address: {what}");
    findings.add(level, SUBJECT, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(examine: impl Fn(&mut Findings)) -> (Level, String) {
        let mut findings = Findings::default();
        examine(&mut findings);
        (findings.worst(), findings.to_string())
    }

    #[test]
    fn a15_the_range_says_how_many_sessions_an_origin_can_have() {
        let (level, text) = found(|findings| arithmetic(&Config::default(), findings));
        assert!(text.contains("4536 sessions an origin's media address"), "{text}");
        assert!(text.contains("101 new ones a second"), "{text}");
        assert!(text.contains("PROXY_MAX_SESSIONS=100000 takes 23 media addresses"), "{text}");
        assert_eq!(level, Level::Note);
        let variables = [("PROXY_MAX_SESSIONS", "9000"), ("PROXY_SOURCE_ADDRESSES", "192.0.2.1,192.0.2.2")];
        let config = Config::from_variables(variables).unwrap();
        assert_eq!(found(|findings| arithmetic(&config, findings)).0, Level::Ok);
    }

    #[test]
    fn a15_exhaustion_has_a_line() {
        for (used, level) in [(0, Level::Ok), (3628, Level::Ok), (3629, Level::Warning), (4536, Level::Error)]
        {
            let status = Status::with_ports(used, 4536);
            let (found, text) = found(|findings| of_the_running(Some(&status), findings));
            assert_eq!(found, level, "{text}");
            assert!(text.contains(&format!("{used} of 4536")), "{text}");
        }
        assert_eq!(found(|findings| of_the_running(None, findings)).0, Level::Note);
    }

    #[test]
    fn ports_that_the_kernel_gives_away_are_told() {
        let ours = 61_000..=65_535;
        let level = |range: &str, reserved: &str| {
            found(|findings| overlap(&ours, ephemeral(range), &ranges(reserved), findings)).0
        };
        assert_eq!(level("32768\t60999\n", "\n"), Level::Ok);
        assert_eq!(level("1024 65535", ""), Level::Warning);
        assert_eq!(level("1024 65535", "8080,61000-65535"), Level::Ok);
        assert_eq!(level("1024 65535", "61000-65534"), Level::Warning);
        assert_eq!(level("garbage", ""), Level::Ok);
    }
}
