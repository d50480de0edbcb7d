//! What older kernels lack is done without: tcx (before 6.6), and what the XDP program calls (before 5.18). Needs root,
//! `ip`, `tc` and `ethtool`.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use integration_tests::{
    case::Case,
    kernel::{loaded, loaded_object},
    lacking::Lacking,
    netns::{Direct, Family, MTU, Namespace},
    pins::Pins,
    proxy::{self, Proxy},
    residue,
    veths::{Veths, device},
    wire::Wire,
};
use proxy_userspace::datapath::{
    Datapath as _, Engine,
    kernel::{EngineChoice, KernelDatapath, KernelOptions, OBJECT, Pinning, TcHook, pins},
};

fn options(choice: EngineChoice, hook: TcHook) -> KernelOptions {
    KernelOptions { max_flows: 16, max_flows_v6: 16, choice, hook, ..KernelOptions::default() }
}

fn by_clsact() -> Veths {
    Veths::with(MTU, |_| loaded(&options(EngineChoice::Tc, TcHook::Clsact)))
}

/// What `tc` says of our filter.
fn filters(namespace: &Namespace, interface: &str) -> String {
    namespace.run("tc", &["filter", "show", "dev", interface, "ingress"]).unwrap()
}

fn has_clsact(namespace: &Namespace, interface: &str) -> bool {
    namespace.run("tc", &["qdisc", "show", "dev", interface]).unwrap().contains("clsact")
}

fn delete_filter(namespace: &Namespace, interface: &str) {
    let place = ["dev", interface, "ingress", "pref", "1", "handle", "0x1", "protocol", "all", "bpf"];
    namespace.run("tc", &[&["filter", "delete"][..], &place].concat()).unwrap();
}

/// Puts somebody else's filter where ours was.
fn take_place(namespace: &Namespace, interface: &str) {
    delete_filter(namespace, interface);
    let bytecode = ["handle", "0x1", "bpf", "bytecode", "1,6 0 0 4294967295,", "flowid", "1:1"];
    let place = ["filter", "add", "dev", interface, "ingress", "pref", "1", "protocol", "all"];
    namespace.run("tc", &[&place[..], &bytecode].concat()).unwrap();
}

#[test]
fn a10_clsact_forwards_from_one_priority_and_handle() {
    let network = by_clsact();
    for interface in ["eth0", "eth1"] {
        let filters = filters(&network.namespaces.proxy, interface);
        assert!(filters.contains("pref 1 bpf chain 0 handle 0x1 forward_tc direct-action"), "{filters}");
    }
    let modes: Vec<_> = network.kernel.attachments().iter().map(|attachment| attachment.mode).collect();
    assert_eq!(modes, ["clsact"; 2]);
    let counters = network.echo_every_size();
    assert_eq!(network.forwarded(Engine::Tc), counters.to_origin.packets + counters.to_client.packets);
    network.finish();
}

#[test]
fn a10_a_clsact_filter_that_somebody_deletes_is_noticed_and_attached_again() {
    let mut network = by_clsact();
    let Veths { kernel, namespaces, .. } = &mut network;
    let proxy = &namespaces.proxy;
    let eth0 = proxy.ifindex("eth0").unwrap();
    assert_eq!(proxy.enter(|| kernel.lost()), []);
    delete_filter(proxy, "eth0");
    assert_eq!(proxy.enter(|| kernel.lost()), [(eth0, None)]);
    assert_eq!(proxy.enter(|| kernel.lost()), [], "it is told once");
    assert_eq!(proxy.enter(|| kernel.attach(eth0)).unwrap().mode, "clsact");
    assert_eq!(proxy.enter(|| kernel.lost()), []);
    network.echo_every_size();
    network.finish();
}

#[test]
fn a10_a_clsact_qdisc_that_somebody_deletes_is_noticed_and_added_again() {
    let mut network = by_clsact();
    let Veths { kernel, namespaces, .. } = &mut network;
    let proxy = &namespaces.proxy;
    let eth1 = proxy.ifindex("eth1").unwrap();
    proxy.run("tc", &["qdisc", "delete", "dev", "eth1", "clsact"]).unwrap();
    assert_eq!(proxy.enter(|| kernel.lost()), [(eth1, None)]);
    assert_eq!(proxy.enter(|| kernel.attach(eth1)).unwrap().mode, "clsact");
    network.echo_every_size();
    network.finish();
}

#[test]
fn a10_a_filter_that_took_the_place_of_ours_is_noticed_and_left_alone() {
    let mut network = by_clsact();
    let Veths { kernel, namespaces, .. } = &mut network;
    let proxy = &namespaces.proxy;
    let eth0 = proxy.ifindex("eth0").unwrap();
    take_place(proxy, "eth0");
    assert_eq!(proxy.enter(|| kernel.lost()), [(eth0, None)]);
    assert!(filters(proxy, "eth0").contains("bytecode"), "{}", filters(proxy, "eth0"));
    assert!(proxy.enter(|| kernel.attach(eth0)).is_err(), "its place is taken");
    proxy.enter(|| kernel.detach(eth0));
    assert!(has_clsact(proxy, "eth0") && filters(proxy, "eth0").contains("bytecode"));
}

#[test]
fn a10_what_is_left_stays_and_is_known_when_it_cannot_be_completed() {
    let mut network = Veths::with(MTU, |_| loaded(&options(EngineChoice::Xdp, TcHook::Clsact)));
    let Veths { kernel, namespaces, .. } = &mut network;
    let proxy = &namespaces.proxy;
    let eth0 = proxy.ifindex("eth0").unwrap();
    take_place(proxy, "eth0");
    assert_eq!(proxy.enter(|| kernel.lost()), [(eth0, Some(Engine::Xdp))]);
    assert!(proxy.enter(|| kernel.attach(eth0)).is_err(), "its place is taken");
    let has_xdp = || residue::attached(proxy).unwrap().contains(&"XDP on eth0".into());
    assert!(has_xdp() && kernel.attachments().iter().any(|attachment| attachment.ifindex == eth0));
    proxy.enter(|| kernel.detach(eth0));
    assert!(!has_xdp());
}

#[test]
fn a10_a_clsact_qdisc_that_was_there_before_stays_and_any_other_goes() {
    let mut network = Veths::with(MTU, |Direct { proxy, .. }| {
        proxy.run("tc", &["qdisc", "add", "dev", "eth1", "clsact"]).unwrap();
        loaded(&options(EngineChoice::Tc, TcHook::Clsact))
    });
    let Veths { kernel, namespaces, .. } = &mut network;
    let proxy = &namespaces.proxy;
    assert_eq!(["eth0", "eth1"].map(|interface| has_clsact(proxy, interface)), [true, true]);
    proxy.enter(|| ["eth0", "eth1"].map(|interface| kernel.detach(device(interface))));
    assert_eq!(["eth0", "eth1"].map(|interface| has_clsact(proxy, interface)), [false, true]);
    assert_eq!(residue::attached(proxy).unwrap(), [""; 0]);
}

/// The engine of one process after the other, with filters that outlive it.
fn owner(pins: &Pins) -> KernelDatapath {
    let options = options(EngineChoice::Tc, TcHook::Clsact);
    let mut kernel = loaded(&KernelOptions { pinning: Pinning::Keep(pins.path().to_owned()), ..options });
    kernel.begin().unwrap();
    kernel
}

/// A namespace in which a process has left a filter on `eth0`.
fn with_filter_left() -> (Direct, Pins, u32) {
    let network = Direct::new().unwrap();
    let pins = Pins::of(&network.proxy).unwrap();
    let eth0 = network.proxy.ifindex("eth0").unwrap();
    network.proxy.enter(|| owner(&pins).attach(eth0).map(drop)).unwrap();
    (network, pins, eth0)
}

#[test]
fn a10_a_clsact_filter_goes_from_process_to_process_and_ends_with_the_last() {
    let (network, pins, eth0) = with_filter_left();
    let proxy = &network.proxy;
    let program = || filters(proxy, "eth0").split_once("direct-action").unwrap().1.to_owned();
    let mut before = program();
    for _ in 0..3 {
        proxy.enter(|| drop(owner(&pins)));
        let after = program();
        assert_ne!(before, after, "every process runs its own program");
        before = after;
    }
    let mut last = proxy.enter(|| owner(&pins));
    assert_eq!(proxy.enter(|| last.attach(eth0)).unwrap().mode, "clsact");
    proxy.enter(|| last.detach(eth0));
    assert_eq!(residue::attached(proxy).unwrap(), [""; 0]);
    last.unpin();
    assert!(pins.is_empty());
}

#[test]
fn a10_a_filter_that_took_the_place_of_ours_while_nobody_ran_is_left_alone() {
    for is_cleared in [false, true] {
        let (network, pins, eth0) = with_filter_left();
        let proxy = &network.proxy;
        take_place(proxy, "eth0");
        if is_cleared {
            proxy.enter(|| pins::clear(pins.path())).unwrap();
        } else {
            let mut kernel = proxy.enter(|| owner(&pins));
            assert_eq!(kernel.attachments(), []);
            assert!(proxy.enter(|| kernel.attach(eth0)).is_err(), "its place is taken");
            kernel.unpin();
        }
        assert!(filters(proxy, "eth0").contains("bytecode"), "{}", filters(proxy, "eth0"));
        assert!(pins.is_empty());
    }
}

#[test]
fn a10_a_filter_that_cannot_be_kept_leaves_no_qdisc() {
    let network = Direct::new().unwrap();
    let (proxy, pins) = (&network.proxy, Pins::of(&network.proxy).unwrap());
    let mut kernel = proxy.enter(|| owner(&pins));
    let version = std::fs::read_dir(pins.path()).unwrap().next().unwrap().unwrap();
    std::fs::remove_dir(version.path().join("links")).unwrap();
    assert!(proxy.enter(|| kernel.attach(proxy.ifindex("eth0").unwrap())).is_err());
    assert!(!has_clsact(proxy, "eth0"));
    kernel.unpin();
}

#[test]
fn a10_where_the_kernel_refuses_the_xdp_program_tc_forwards_alone_and_says_why() {
    let object = calling_a_helper_that_this_kernel_lacks();
    let wanted = options(EngineChoice::Xdp, TcHook::Best);
    let mut network = Veths::with(MTU, |_| loaded_object(&object, &wanted));
    assert_eq!(network.engines(), [Engine::Tc, Engine::Tc]);
    for attachment in network.kernel.attachments() {
        let note = attachment.note.unwrap();
        assert!(note.contains("the kernel refuses the XDP program: ") && note.contains("unknown#"), "{note}");
        assert!(!note.contains('\n'), "{note}");
    }
    let counters = network.echo_every_size();
    assert_eq!(network.forwarded(Engine::Tc), counters.to_origin.packets + counters.to_client.packets);
    let Veths { kernel, namespaces, .. } = &mut network;
    let eth0 = namespaces.proxy.ifindex("eth0").unwrap();
    assert!(kernel.send_by_xdp(eth0, &[0; 64]).is_err());
    assert!(kernel.dry_run(Engine::Xdp, &[0; 64]).is_err());
    network.finish();
}

#[test]
fn where_namespaces_have_no_number_every_engine_runs_and_nothing_outlives_the_process() {
    for engine in [proxy::Engine::Tc, proxy::Engine::Userspace] {
        let network = Direct::new().unwrap();
        let pins = Pins::of(&network.proxy).unwrap();
        let mut command = Proxy::command(engine).unwrap();
        command.env("PROXY_ON_STOP", "keep");
        Lacking::NAMESPACE_NUMBERS.apply(&mut command);
        let proxy = Proxy::spawn(&network.proxy, Direct::PROXY, command).unwrap();
        let wire = Wire::around(&network, Case { engine, family: Family::V4 }, proxy).unwrap();
        wire.connected().unwrap();
        wire.settled().unwrap();
        assert!(pins.is_empty(), "{} is there", pins.path().display());
        wire.proxy.kill().unwrap();
        assert_eq!(residue::attached(&network.proxy).unwrap(), [""; 0]);
    }
}

/// The object as a kernel sees it that has no `bpf_xdp_load_bytes`.
fn calling_a_helper_that_this_kernel_lacks() -> Vec<u8> {
    const LOAD_BYTES: [u8; 8] = [0x85, 0, 0, 0, 189, 0, 0, 0];
    const NO_HELPER: [u8; 8] = [0x85, 0, 0, 0, 0xff, 0x7f, 0, 0];
    let (mut object, mut calls) = (OBJECT.to_vec(), 0);
    for instruction in object.as_chunks_mut().0 {
        if *instruction == LOAD_BYTES {
            (*instruction, calls) = (NO_HELPER, calls + 1);
        }
    }
    assert!(calls > 0, "the XDP program calls the helper");
    object
}
