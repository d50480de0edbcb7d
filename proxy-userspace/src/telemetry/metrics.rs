//! Every metric: name, unit, help text, labels. The kernel and the relay share families and differ by `datapath`.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::text::encode as encode_text,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};

use crate::{
    connections::ProtocolTotals,
    control::snapshot::{Totals, Words},
    origin::{OriginStatus, RegistryCounts},
};

type Labels = Vec<(&'static str, &'static str)>;
type Counters = Family<Labels, Counter<u64, AtomicU64>>;

/// One for each origin, by names of its own.
type ByOrigin = Family<Vec<(&'static str, String)>, Gauge<u64, AtomicU64>>;

/// The registry of origins.
#[derive(Clone, Copy, Debug, Default)]
pub struct RegistryView<'a> {
    /// Whether it can do everything.
    pub is_up: bool,
    /// What it did.
    pub counts: RegistryCounts,
    /// The origins it knows.
    pub origins: &'a [OriginStatus],
}

/// Writes `totals` in the OpenMetrics text format.
pub fn encode(
    totals: &Totals,
    connections: &[ProtocolTotals],
    ice_tcp: &[(&'static str, u64)],
    view: &RegistryView<'_>,
) -> String {
    let mut registry = Registry::with_prefix("xproxy");
    sessions(&mut registry, totals);
    packets(&mut registry, totals);
    resources(&mut registry, totals);
    streams(&mut registry, connections);
    media_over_tcp(&mut registry, ice_tcp);
    picks(&mut registry, view);
    origins(&mut registry, view.origins);
    let mut text = String::new();
    encode_text(&mut text, &registry).expect("writing to a string cannot fail");
    text
}

fn sessions(registry: &mut Registry, totals: &Totals) {
    gauge(registry, "sessions", "Sessions now", totals.sessions as u64);
    gauge(registry, "srt_sessions", "SRT sessions now", totals.srt_sessions as u64);
    let family = Counters::default();
    for (outcome, count) in &totals.srt_calls {
        family.get_or_create(&vec![("outcome", *outcome)]).inc_by(*count);
    }
    registry.register("srt_calls", "SRT handshakes with a valid cookie, by what became of them", family);
    gauge(registry, "sessions_offloaded", "Sessions forwarded in the kernel now", totals.offloaded as u64);
    counter(registry, "sessions_admitted", "Sessions whose client got an answer", totals.admitted);
    let help = "Sessions taken over from an earlier process";
    counter(registry, "sessions_adopted", help, totals.adopted);
    let help = "Sessions taken over from another proxy of the fleet, by how they were found";
    by_word(registry, "sessions_resumed", help, "how", &totals.resumed);
    let help = "Flows in the kernel that were taken over without the record of their session";
    gauge(registry, "flows_without_session", help, totals.orphans as u64);
    let help = "Records of sessions that could not be written: these sessions do not survive the process";
    counter(registry, "records_refused", help, totals.records_refused);
    by_reason(registry, "sessions_refused", "Sessions that were refused, by reason", &totals.refused);
    by_reason(registry, "sessions_ended", "Sessions that ended, by reason", &totals.ended);
    counter(registry, "flow_installs", "Flows installed in the kernel", totals.offloads);
    by_reason(registry, "flows_relayed", "Flows not installed or removed again, by reason", &totals.relayed);
    counter(registry, "migrations", "Return paths moved to another client address", totals.migrations);
}

fn picks(registry: &mut Registry, view: &RegistryView<'_>) {
    let RegistryView { is_up, counts, .. } = view;
    let help = "Whether what the proxies of a fleet share can be asked; 1 for a proxy that stands alone";
    gauge(registry, "registry_up", help, u64::from(*is_up));
    let hows = [("known", counts.known), ("asked", counts.asked), ("agreed", counts.agreed)];
    let picks = Counters::default();
    for (how, count) in hows {
        picks.get_or_create(&vec![("how", how)]).inc_by(count);
    }
    let help = "Times that a stream's origin was looked for in a fleet: known here, asked for, or worked out without asking";
    registry.register("picks", help, picks);
    let help = "Streams written down once the fleet could be asked again";
    counter(registry, "picks_written_back", help, counts.written_back);
    let help = "Calls to what the fleet shares that failed";
    counter(registry, "registry_failures", help, counts.failures);
}

fn origins(registry: &mut Registry, origins: &[OriginStatus]) {
    let [up, draining, streams, sessions] = [(); 4].map(|()| ByOrigin::default());
    for origin in origins {
        let labels = vec![
            ("origin", escaped(&origin.id.0)),
            ("device_id", escaped(&origin.device_id)),
            ("ip", origin.ip.to_string()),
        ];
        let takes_media = ["up", "draining"].contains(&origin.state);
        up.get_or_create(&labels).set(u64::from(takes_media));
        draining.get_or_create(&labels).set(u64::from(origin.state == "draining"));
        streams.get_or_create(&labels).set(origin.streams as u64);
        sessions.get_or_create(&labels).set(origin.sessions);
    }
    registry.register("origin_up", "Whether an origin answers, draining ones included", up);
    registry.register(
        "origin_draining",
        "Whether an origin gets no new streams because it was asked for",
        draining,
    );
    registry.register("origin_streams", "Streams placed on an origin, as this proxy knows", streams);
    let help = "Sessions and TCP streams that all proxies of the fleet have at an origin";
    registry.register("origin_sessions", help, sessions);
}

/// A label's value as the text format has it, of which the encoder is not aware: names come from heartbeats.
fn escaped(name: &str) -> String {
    name.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n")
}

fn streams(registry: &mut Registry, connections: &[ProtocolTotals]) {
    let (accepted, bytes) = (Counters::default(), Counters::default());
    let open: Family<Labels, Gauge<u64, AtomicU64>> = Family::default();
    for totals in connections {
        let protocol = ("protocol", totals.protocol.name());
        open.get_or_create(&vec![protocol]).set(totals.open);
        accepted.get_or_create(&vec![protocol]).inc_by(totals.accepted);
        for (direction, carried) in [("to_origin", totals.to_origin), ("to_client", totals.to_client)] {
            bytes.get_or_create(&vec![protocol, ("direction", direction)]).inc_by(carried);
        }
    }
    registry.register("connections", "TCP streams carried now", open);
    registry.register("connections_accepted", "TCP streams accepted", accepted);
    registry.register_with_unit("carried", "Bytes of TCP streams carried", Unit::Bytes, bytes);
}

fn media_over_tcp(registry: &mut Registry, outcomes: &[(&'static str, u64)]) {
    let family = Counters::default();
    for (outcome, count) in outcomes {
        family.get_or_create(&vec![("outcome", *outcome)]).inc_by(*count);
    }
    let help = "TCP connections of WebRTC media that ended, by what became of them";
    registry.register("webrtc_tcp_connections", help, family);
}

fn packets(registry: &mut Registry, totals: &Totals) {
    let (packets, bytes, reasons) = (Counters::default(), Counters::default(), Counters::default());
    for path in &totals.packets {
        let labels = vec![("datapath", path.datapath), ("direction", path.direction)];
        packets.get_or_create(&labels).inc_by(path.packets);
        bytes.get_or_create(&labels).inc_by(path.bytes);
    }
    for row in &totals.reasons {
        let labels = vec![("datapath", row.datapath), ("reason", row.reason)];
        reasons.get_or_create(&labels).inc_by(row.packets);
    }
    registry.register("packets", "Media packets forwarded", packets);
    let help = "Media bytes forwarded: from the IP header on in the kernel, payload in userspace";
    registry.register_with_unit("forwarded", help, Unit::Bytes, bytes);
    registry.register("frames", "Frames and datagrams seen, by what became of them", reasons);
}

fn resources(registry: &mut Registry, totals: &Totals) {
    gauge(registry, "source_ports_leased", "Source ports leased", totals.ports_leased as u64);
    gauge(registry, "source_ports_resting", "Source ports resting after use", totals.ports_resting as u64);
    let help = "Source ports leased or resting towards the fullest origin";
    gauge(registry, "source_ports_fullest", help, totals.ports_fullest as u64);
    let help = "Source ports per origin and source address";
    gauge(registry, "source_ports_capacity", help, totals.ports_capacity as u64);
    let help = "Programs of ours that somebody else detached";
    counter(registry, "programs_detached", help, totals.detachments);
    gauge(registry, "source_sockets", "Source sockets open", totals.source_sockets as u64);
    let help = "Next hops that TC sends to because what XDP redirects does not arrive there";
    gauge(registry, "undelivered_next_hops", help, totals.undelivered_next_hops as u64);
    let table: Gauge<u64, AtomicU64> = Gauge::default();
    table.set(totals.table_bytes);
    registry.register_with_unit("flow_table", "Kernel memory of the flow tables", Unit::Bytes, table);
}

fn gauge(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let gauge: Gauge<u64, AtomicU64> = Gauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn counter(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter: Counter = Counter::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
}

fn by_reason(registry: &mut Registry, name: &str, help: &str, counts: &Words) {
    by_word(registry, name, help, "reason", counts);
}

fn by_word(registry: &mut Registry, name: &str, help: &str, label: &'static str, counts: &Words) {
    let family = Counters::default();
    for (word, count) in counts {
        family.get_or_create(&vec![(label, *word)]).inc_by(*count);
    }
    registry.register(name, help, family);
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        connections::Protocol,
        control::snapshot::{PathTotals, ReasonTotals},
        origin::{Endpoints, OriginId},
    };

    #[test]
    fn both_datapaths_are_rows_of_one_family() {
        let path = |datapath, packets| PathTotals { datapath, direction: "to_client", packets, bytes: 0 };
        let totals = Totals {
            packets: vec![path("kernel", 99), path("userspace", 1)],
            reasons: vec![ReasonTotals { datapath: "tc", reason: "no_flow", packets: 3 }],
            ended: BTreeMap::from([("idle", 2)]),
            resumed: BTreeMap::from([("ufrag", 6)]),
            srt_calls: BTreeMap::from([("answered", 6)]),
            ..Totals::default()
        };
        let rtmp =
            ProtocolTotals { protocol: Protocol::Rtmp, open: 2, accepted: 5, to_origin: 7, to_client: 8 };
        let counts = RegistryCounts { agreed: 6, ..RegistryCounts::default() };
        let view = RegistryView { is_up: true, counts, origins: &[] };
        let text = encode(&totals, &[rtmp], &[("late", 4)], &view);
        for row in [
            r#"xproxy_connections{protocol="rtmp"} 2"#,
            r#"xproxy_connections_accepted_total{protocol="rtmp"} 5"#,
            r#"xproxy_carried_bytes_total{protocol="rtmp",direction="to_client"} 8"#,
            r#"xproxy_webrtc_tcp_connections_total{outcome="late"} 4"#,
            r#"xproxy_packets_total{datapath="kernel",direction="to_client"} 99"#,
            r#"xproxy_packets_total{datapath="userspace",direction="to_client"} 1"#,
            r#"xproxy_frames_total{datapath="tc",reason="no_flow"} 3"#,
            r#"xproxy_srt_calls_total{outcome="answered"} 6"#,
            r#"xproxy_sessions_ended_total{reason="idle"} 2"#,
            "xproxy_registry_up 1",
            r#"xproxy_picks_total{how="agreed"} 6"#,
            r#"xproxy_sessions_resumed_total{how="ufrag"} 6"#,
            "# EOF",
        ] {
            assert!(text.contains(row), "{row} in {text}");
        }
    }

    #[test]
    fn origins_are_rows_by_their_names() {
        let origin = |server: &str, state, sessions| OriginStatus {
            id: OriginId::new(server, "service", "1"),
            device_id: "rack \"7\"".into(),
            ip: [10, 0, 0, 9].into(),
            endpoints: Endpoints { rtmp: None, http: None, api: None, srt: None, rtc: None },
            state,
            reason: None,
            heartbeat_age: 1.0,
            streams: 3,
            sessions,
            weight: 1,
            capacity: None,
        };
        let origins = [origin("a", "up", 40), origin("b", "draining", 2), origin("c", "down", 0)];
        let view = RegistryView { origins: &origins, ..RegistryView::default() };
        let text = encode(&Totals::default(), &[], &[], &view);
        let labels =
            |server| format!(r#"{{origin="{server}-service-1",device_id="rack \"7\"",ip="10.0.0.9"}}"#);
        for (name, server, value) in [
            ("up", "a", 1),
            ("up", "b", 1),
            ("up", "c", 0),
            ("draining", "a", 0),
            ("draining", "b", 1),
            ("sessions", "a", 40),
            ("streams", "b", 3),
        ] {
            let row = format!("xproxy_origin_{name}{} {value}\n", labels(server));
            assert!(text.contains(&row), "{row} in {text}");
        }
    }
}
