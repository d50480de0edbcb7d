//! The kernel engine on a bench: one flow installed, one frame at a time, the same on the host, in XDP and in TC.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

use proxy_common::{
    checksum::non_zero,
    family::{Family, IpHeader as _, V4, V6},
    flow::Stamp,
    forward::{Egress as Way, Facts, Forward, Kind, Records, decide, kind},
    packet::Packet,
    rewrite::{Changes, rewrite_direct, write_fields},
    verdict::{Engine, Reason, Verdict},
    wire::Headers,
};
use proxy_userspace::datapath::{
    Datapath as _, Egress, FlowId, FlowSpec, NextHopId, NextHopSpec, Protocol,
    kernel::{EngineChoice, KernelDatapath, KernelOptions, OBJECT},
};

/// The client of the bench's flow.
pub const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 40000);
/// Where it sends to.
pub const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 8000);
/// The leased port.
pub const SOURCE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 61000);
/// The origin.
pub const ORIGIN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 9000);

/// The four ends of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Ends {
    /// The client.
    pub client: SocketAddr,
    /// Where it sends to.
    pub service: SocketAddr,
    /// The leased port.
    pub source: SocketAddr,
    /// The origin.
    pub origin: SocketAddr,
}

impl Ends {
    /// The flow between them, by these next hops.
    #[must_use]
    pub fn flow(self, protocol: Protocol, [to_origin, to_client]: [NextHopId; 2]) -> FlowSpec {
        let Self { client, service, source, origin } = self;
        FlowSpec { protocol, client, service, source, origin, to_origin, to_client }
    }
}

/// The ends of the bench's IPv4 flow.
pub const V4_ENDS: Ends = Ends {
    client: SocketAddr::V4(CLIENT),
    service: SocketAddr::V4(SERVICE),
    source: SocketAddr::V4(SOURCE),
    origin: SocketAddr::V4(ORIGIN),
};

/// The ends of the bench's IPv6 flow.
pub const V6_ENDS: Ends =
    Ends { client: v6(7, 40000), service: v6(1, 8000), source: v6(0x101, 61000), origin: v6(0x102, 9000) };

const fn v6(last: u16, port: u16) -> SocketAddr {
    SocketAddr::V6(SocketAddrV6::new(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last), port, 0, 0))
}

const IFINDEX: u32 = 1;

/// Loads the engine.
///
/// # Panics
/// Without the privilege to: kernel tests do not skip.
#[must_use]
pub fn load(max_flows: u32, choice: EngineChoice) -> KernelDatapath {
    loaded(&KernelOptions { max_flows, max_flows_v6: max_flows, choice, ..KernelOptions::default() })
}

/// Loads the engine with other options.
///
/// # Panics
/// As [`load`] does.
#[must_use]
pub fn loaded(options: &KernelOptions) -> KernelDatapath {
    loaded_object(OBJECT, options)
}

/// Loads an object that is not this build's own.
///
/// # Panics
/// As [`load`] does.
#[must_use]
pub fn loaded_object(object: &[u8], options: &KernelOptions) -> KernelDatapath {
    KernelDatapath::load_object(object, options).unwrap_or_else(|error| {
        panic!("kernel tests need root and a BPF-capable kernel, run them with `cargo xtask test`: {error:?}")
    })
}

/// A loaded engine with one flow of each family.
#[derive(Debug)]
pub struct Bench {
    /// The engine.
    pub kernel: KernelDatapath,
    /// Its IPv4 flow.
    pub flow: FlowId,
    /// Its IPv6 flow.
    pub flow_v6: FlowId,
    to_origin: NextHopId,
    to_client: NextHopId,
}

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Forwarded, passed up or dropped.
    pub action: Action,
    /// Why.
    pub reason: Reason,
    /// The bytes after it.
    pub frame: Vec<u8>,
}

/// What a program does with a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Sent by a device.
    Redirect,
    /// Left to whoever comes next.
    Pass,
    /// Discarded.
    Drop,
}

impl Default for Bench {
    fn default() -> Self {
        Self::new()
    }
}

impl Bench {
    /// With a flow whose next hops every engine can use.
    #[must_use]
    pub fn new() -> Self {
        Self::with(KernelOptions::default())
    }

    /// With other options, but of few flows.
    ///
    /// # Panics
    /// Without the privilege to load programs.
    #[must_use]
    pub fn with(options: KernelOptions) -> Self {
        Self::of(Protocol::WebRtc, options)
    }

    /// With a flow that carries SRT.
    ///
    /// # Panics
    /// Without the privilege to load programs.
    #[must_use]
    pub fn of_srt() -> Self {
        Self::of(Protocol::Srt, KernelOptions::default())
    }

    fn of(protocol: Protocol, options: KernelOptions) -> Self {
        let options = KernelOptions { max_flows: 16, max_flows_v6: 16, choice: EngineChoice::Tc, ..options };
        let mut kernel = loaded(&options);
        let mut hop = |last| kernel.add_next_hop(&redirect(last)).expect("the table is empty");
        let (to_origin, to_client) = (hop(1), hop(2));
        let mut install = |ends: Ends| {
            kernel.install(&ends.flow(protocol, [to_origin, to_client])).expect("the table is empty")
        };
        let (flow, flow_v6) = (install(V4_ENDS), install(V6_ENDS));
        kernel.settle();
        Self { kernel, flow, flow_v6, to_origin, to_client }
    }

    /// Changes how frames leave, in both directions.
    pub fn set_hops(&mut self, change: impl Fn(&mut NextHopSpec)) {
        for (id, last) in [(self.to_origin, 1), (self.to_client, 2)] {
            let mut hop = redirect(last);
            change(&mut hop);
            self.kernel.update_next_hop(id, &hop);
        }
    }

    /// What the shared code makes of a frame on the host, as `engine`.
    #[must_use]
    pub fn on_host(&self, engine: Engine, frame: &[u8]) -> Outcome {
        let mut frame = frame.to_vec();
        let facts = facts(engine, &frame);
        let (action, reason) = match kind(frame.as_mut_slice(), &facts) {
            Ok(Kind::V4) => family_on_host::<V4>(&self.kernel, &facts, &mut frame),
            Ok(Kind::V6) => family_on_host::<V6>(&self.kernel, &facts, &mut frame),
            Err(reason) => (Action::Pass, reason),
        };
        Outcome { action, reason, frame }
    }

    /// What the program makes of it, or `None` if the kernel has no test run for such a frame.
    pub fn in_kernel(&mut self, engine: Engine, frame: &[u8]) -> Option<Outcome> {
        let before = self.counts(engine);
        let run = self.kernel.dry_run(engine, frame).ok()?;
        let after = self.counts(engine);
        let counted: Vec<_> =
            Reason::ALL.into_iter().filter(|&r| after[r as usize] != before[r as usize]).collect();
        let [reason] = counted[..] else { panic!("one frame was counted under {counted:?}") };
        Some(Outcome { action: action(engine, run.action), reason, frame: run.frame })
    }

    fn counts(&self, engine: Engine) -> Vec<u64> {
        self.kernel
            .reasons()
            .into_iter()
            .filter(|&(of, ..)| of == engine)
            .map(|(.., frames)| frames)
            .collect()
    }
}

/// A next hop by `lo`, whose neighbour's address ends in `last`.
#[must_use]
pub fn redirect(last: u8) -> NextHopSpec {
    let (dst_mac, src_mac) = ([2, 0, 0, 0, 1, last], [2, 0, 0, 0, 2, last]);
    NextHopSpec { ifindex: IFINDEX, mtu: 1500, egress: Egress::Redirect { dst_mac, src_mac, xdp: true } }
}

fn facts(engine: Engine, frame: &[u8]) -> Facts {
    let length = u32::try_from(frame.len()).expect("frames of tests are short");
    let now = rustix::time::clock_gettime(rustix::time::ClockId::MonotonicCoarse);
    let nanos = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
    Facts {
        engine,
        now: Stamp::from_nanos(nanos),
        length,
        segment: 0,
        datagrams: 1,
        vlan: false,
        linear: true,
    }
}

fn family_on_host<F: Family>(kernel: &impl Records<F>, facts: &Facts, frame: &mut [u8]) -> (Action, Reason) {
    match decide::<F, _>(frame, facts, kernel) {
        Verdict::Forward(forward) => apply(facts.engine, frame, &forward),
        Verdict::Pass(reason) => (Action::Pass, reason),
        Verdict::Drop(reason) => (Action::Drop, reason),
    }
}

fn apply<F: Family>(engine: Engine, frame: &mut [u8], forward: &Forward<F>) -> (Action, Reason) {
    match engine {
        Engine::Xdp => match rewrite_direct(frame, forward) {
            Ok(()) => (Action::Redirect, Reason::Forwarded),
            Err(reason) => (Action::Pass, reason),
        },
        Engine::Tc => {
            rewrite_like_helpers(frame, forward);
            let stays = matches!(forward.egress, Way::Stack);
            (if stays { Action::Pass } else { Action::Redirect }, Reason::Forwarded)
        }
    }
}

/// What the kernel's helpers do to a frame whose checksum is finished.
fn rewrite_like_helpers<F: Family>(frame: &mut [u8], forward: &Forward<F>) {
    let headers = Packet::get_mut::<Headers<F::Ip>>(frame, 0).expect("forwarded frames have headers");
    let changes = Changes::between(headers, forward);
    headers.ip.update_checksum(changes.network());
    if headers.udp.checksum.get() != 0 {
        let checksum = changes.transport().update(headers.udp.checksum);
        headers.udp.checksum = non_zero(checksum);
    }
    write_fields(headers, forward);
}

fn action(engine: Engine, code: u32) -> Action {
    const TCX_NEXT: u32 = u32::MAX;
    match (engine, code) {
        (Engine::Xdp, 4) | (Engine::Tc, 7) => Action::Redirect,
        (Engine::Xdp, 2) | (Engine::Tc, TCX_NEXT) => Action::Pass,
        (Engine::Xdp, 1) | (Engine::Tc, 2) => Action::Drop,
        (engine, code) => panic!("{engine:?} returned {code}"),
    }
}
