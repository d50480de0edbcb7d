//! How many sessions fit, and that those which share ports, or have had them before, are told apart.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use integration_tests::{
    case::Case,
    in_cases,
    netns::Direct,
    proxy::Status,
    raw::{self, Endpoint, RawOrigin, RawSession},
    wire::{Wire, registered_as},
};

in_cases!(xdp, tc, xdp_v6, tc_v6: {
    a1_origins_that_share_source_ports_are_told_apart_in_both_directions,
    a2_sessions_that_come_and_go_leave_room_and_are_never_mixed_up,
    a15_more_sessions_than_source_ports_are_refused_and_counted,
});

const PATIENCE: Duration = Duration::from_secs(15);
const TWO_PORTS: [(&str, &str); 1] = [("PROXY_SOURCE_PORTS", "61000-61001")];

/// A client with a session, and the origin it is at.
struct Party<'a> {
    origin: &'a RawOrigin,
    client: Endpoint,
    session: RawSession,
    source: SocketAddr,
}

impl<'a> Party<'a> {
    fn join(wire: &Wire<'_>, origins: &[&'a RawOrigin], stream: &str, ufrag: &str) -> anyhow::Result<Self> {
        let api = wire.proxy.api();
        let session = wire.network.client.enter(|| raw::play(&api, stream, ufrag))?;
        let client = wire.other_client()?;
        let origin = origins.iter().find(|origin| session.username.starts_with(origin.id())).unwrap();
        client.send(&raw::check(&session.username, true), session.proxy, 0)?;
        let source = origin.media.answer_check()?;
        client.receive()?;
        Ok(Self { origin, client, session, source })
    }

    /// Sends a datagram of its own each way.
    fn exchange(&self) {
        let payload = [&[0x80, 96][..], self.session.username.as_bytes()].concat();
        self.client.send(&payload, self.session.proxy, 0).unwrap();
        let (meta, got) = self.origin.media.receive().unwrap();
        assert_eq!((meta.peer, &got), (self.source, &payload));
        self.origin.media.send(&payload, self.source, 0).unwrap();
        let (meta, got) = self.client.receive().unwrap();
        assert_eq!((meta.peer, got), (self.session.proxy, payload));
    }

    fn leave(self, wire: &Wire<'_>) -> Endpoint {
        let api = wire.proxy.api();
        assert_eq!(wire.network.client.enter(|| self.session.delete(&api)).unwrap(), 200);
        self.client
    }
}

fn everybody_is_forwarded(wire: &Wire<'_>, parties: &[Party<'_>]) {
    wire.proxy.wait(PATIENCE, |status| status.totals.offloaded == parties.len()).unwrap();
    let before = wire.proxy.status().unwrap();
    parties.iter().for_each(Party::exchange);
    let after = wire.proxy.status().unwrap();
    let forwarded = after.packets("kernel") - before.packets("kernel");
    assert_eq!(forwarded, 2 * parties.len() as u64, "{after:#?}");
}

fn a1_origins_that_share_source_ports_are_told_apart_in_both_directions(case: Case) {
    let network = Direct::new().unwrap();
    let wire = Wire::start(&network, case, &TWO_PORTS).unwrap();
    let [second, third] = [2, 3].map(|n| registered_as(&network, case.family, &wire.proxy, n).unwrap());
    let origins = [&wire.origin, &second, &third];
    let streams = ["a", "a", "b", "b", "c", "c"].into_iter().enumerate();
    let parties: Vec<_> = streams
        .map(|(number, stream)| Party::join(&wire, &origins, stream, &format!("p{number:03}")).unwrap())
        .collect();
    let sources: HashSet<_> = parties.iter().map(|party| party.source).collect();
    let ids: HashSet<_> = parties.iter().map(|party| party.origin.id()).collect();
    assert_eq!((sources.len(), ids.len()), (2, 3), "three origins, and both ports at each");
    everybody_is_forwarded(&wire, &parties);
    wire.proxy.stop().unwrap();
}

/// Ports are used again as soon as they may be, eight times over, while clients of before go on sending.
fn a2_sessions_that_come_and_go_leave_room_and_are_never_mixed_up(case: Case) {
    const ROUNDS: usize = 8;
    let network = Direct::new().unwrap();
    let settings = [TWO_PORTS[0], ("PROXY_SOURCE_PORT_REST", "1s"), ("PROXY_MAX_FLOWS", "2")];
    let settings = [&settings[..], &[("PROXY_MAX_FLOWS_V6", "2")]].concat();
    let wire = Wire::start(&network, case, &settings).unwrap();
    let mut gone: Vec<(Endpoint, SocketAddr)> = Vec::new();
    for round in 0..ROUNDS {
        let join = |player| Party::join(&wire, &[&wire.origin], "a", &format!("r{round}p{player}"));
        let parties = [0, 1].map(|player| join(player).unwrap());
        for (client, proxy) in &gone {
            client.send(&[0x80, 96, 0xff], *proxy, 0).unwrap();
        }
        everybody_is_forwarded(&wire, &parties);
        for party in parties {
            let proxy = party.session.proxy;
            gone.push((party.leave(&wire), proxy));
        }
        let rested = |status: &Status| status.totals.ports_leased + status.totals.ports_resting == 0;
        wire.proxy.wait(PATIENCE, rested).unwrap();
    }
    let status = wire.proxy.status().unwrap();
    assert_eq!((status.totals.sessions, status.relayed("table_full")), (0, 0), "{status:#?}");
    for (client, _) in &gone {
        assert_eq!(client.receive_within(Duration::ZERO).unwrap(), None);
    }
    wire.proxy.stop().unwrap();
}

fn a15_more_sessions_than_source_ports_are_refused_and_counted(case: Case) {
    let network = Direct::new().unwrap();
    let wire = Wire::start(&network, case, &TWO_PORTS).unwrap();
    let second = registered_as(&network, case.family, &wire.proxy, 2).unwrap();
    let origins = [&wire.origin, &second];
    let join = |stream, ufrag| Party::join(&wire, &origins, stream, ufrag);
    let mut parties = vec![join("a", "p001").unwrap(), join("a", "p002").unwrap()];
    let refused = join("a", "p003").err().unwrap().to_string();
    assert!(refused.contains("503") && refused.contains("source port"), "{refused}");
    // Another origin has the same ports to itself.
    parties.push(join("b", "p004").unwrap());
    everybody_is_forwarded(&wire, &parties);
    let totals = wire.proxy.status().unwrap().totals;
    assert_eq!((totals.refused["ports_exhausted"], totals.ports_leased), (1, 3), "{totals:#?}");
    wire.proxy.stop().unwrap();
}
