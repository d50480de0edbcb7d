//! The kernel engine on a bench: one flow installed, one frame at a time, the same on the host, in XDP and in TC.

use std::net::{Ipv4Addr, SocketAddrV4};

use proxy_common::{
    checksum::non_zero,
    forward::{Egress as Way, Facts, Forward, decide},
    packet::Packet,
    rewrite::{Changes, rewrite_direct, write_fields},
    verdict::{Engine, Reason, Verdict},
    wire::Headers,
};
use proxy_userspace::datapath::{
    Datapath as _, Egress, FlowId, FlowSpec, NextHopId, NextHopSpec,
    kernel::{EngineChoice, KernelDatapath, KernelOptions},
};

/// The client of the bench's flow.
pub const CLIENT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 51, 100, 7), 40000);
/// Where it sends to.
pub const SERVICE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(203, 0, 113, 1), 8000);
/// The leased port.
pub const SOURCE: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 61000);
/// The origin.
pub const ORIGIN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 9000);

const IFINDEX: u32 = 1;

/// Loads the engine.
///
/// # Panics
/// Without the privilege to: kernel tests do not skip.
#[must_use]
pub fn load(max_flows: u32, choice: EngineChoice) -> KernelDatapath {
    KernelDatapath::load(&KernelOptions { max_flows, choice }).unwrap_or_else(|error| {
        panic!("kernel tests need root and a BPF-capable kernel, run them with `cargo xtask test`: {error:?}")
    })
}

/// A loaded engine with one flow.
#[derive(Debug)]
pub struct Bench {
    /// The engine.
    pub kernel: KernelDatapath,
    /// Its flow.
    pub flow: FlowId,
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
        let mut kernel = load(16, EngineChoice::Tc);
        let mut hop = |last| kernel.add_next_hop(&redirect(last)).expect("the table is empty");
        let (to_origin, to_client) = (hop(1), hop(2));
        let flow = FlowSpec {
            client: CLIENT,
            service: SERVICE,
            source: SOURCE,
            origin: ORIGIN,
            to_origin,
            to_client,
        };
        let flow = kernel.install(&flow).expect("the table is empty");
        Self { kernel, flow, to_origin, to_client }
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
        let (action, reason) = match decide(frame.as_mut_slice(), &facts, &self.kernel) {
            Verdict::Forward(forward) => apply(engine, &mut frame, &forward),
            Verdict::Pass(reason) => (Action::Pass, reason),
            Verdict::Drop(reason) => (Action::Drop, reason),
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
    Facts { engine, length, segment: 0, datagrams: 1, vlan: false, linear: true }
}

fn apply(engine: Engine, frame: &mut [u8], forward: &Forward) -> (Action, Reason) {
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
fn rewrite_like_helpers(frame: &mut [u8], forward: &Forward) {
    let headers = Packet::get_mut::<Headers>(frame, 0).expect("forwarded frames have headers");
    let changes = Changes::between(headers, forward);
    headers.ip.checksum = changes.network().update(headers.ip.checksum);
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
