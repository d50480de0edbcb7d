//! Network namespaces for tests: each is a lease that removes its namespace when dropped, also on panic.
//!
//! Sockets, threads and processes created inside [`Namespace::enter`] stay in the namespace; the calling
//! thread never changes its own. Names carry the process id, so that test binaries run side by side.

mod cluster;
mod family;
mod fleet;
mod process;
mod topology;

use std::ffi::OsStr;
use std::fs::File;
use std::net::Ipv4Addr;
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::process::{self as std_process, Command};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Context as _, Result, bail};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

pub use cluster::{Cluster, Peer, Pod};
pub use family::Family;
pub use fleet::Fleet;
pub use process::Process;
pub use topology::{Bridged, Direct, Routed};

/// What every namespace, link and pin of the tests is called first.
pub const PREFIX: &str = "xp-";

/// A named network namespace with its loopback up.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Creates `xp-<process>-<number>-<role>`.
    ///
    /// # Errors
    /// When `ip` fails, usually for want of privilege.
    pub fn new(role: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{role}", std_process::id());
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        // While link-local addresses are examined, neighbours are not looked for.
        namespace.sysctl("net.ipv6.conf.all.accept_dad", "0")?;
        namespace.sysctl("net.ipv6.conf.default.accept_dad", "0")?;
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// The name that `ip netns` shows.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that `setns` takes.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// Runs `work` in a thread inside the namespace; threads and processes that it starts are inside too.
    ///
    /// # Panics
    /// When the namespace cannot be entered, and when `work` panics.
    pub fn enter<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let entered = thread::scope(|scope| {
            scope
                .spawn(|| {
                    let file = File::open(self.path()).expect("a namespace exists as long as its guard");
                    move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                        .expect("whoever created the namespace may enter it");
                    work()
                })
                .join()
        });
        entered.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Starts a process inside the namespace.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn spawn(&self, command: Command) -> Result<Process> {
        self.enter(move || Process::spawn(command))
    }

    /// Runs a program inside the namespace and returns its standard output.
    ///
    /// # Errors
    /// When the program cannot be started or fails.
    pub fn run<A: AsRef<OsStr> + Sync>(&self, program: &str, arguments: &[A]) -> Result<String> {
        self.enter(|| run(program, arguments))
    }

    /// Runs `ip` inside the namespace.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn ip(&self, arguments: &[&str]) -> Result<String> {
        self.run("ip", arguments)
    }

    /// Adds a route, in either family.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn route(&self, destination: &str, via: Ipv4Addr) -> Result<()> {
        self.lead("add", destination, via)
    }

    /// The same where there may be a route already, which gives way.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn reroute(&self, destination: &str, via: Ipv4Addr) -> Result<()> {
        self.lead("replace", destination, via)
    }

    fn lead(&self, verb: &str, destination: &str, via: Ipv4Addr) -> Result<()> {
        for family in Family::ALL {
            let (destination, via) = (family.destination(destination)?, family.of(via).to_string());
            self.ip(&[family.flag(), "route", verb, &destination, "via", &via])?;
        }
        Ok(())
    }

    /// Gives an interface an address, in either family.
    ///
    /// # Errors
    /// When `ip` fails.
    pub fn address(&self, interface: &str, address: Ipv4Addr, length: u8) -> Result<()> {
        for family in Family::ALL {
            let address = family.network(address, length);
            // Nobody else has it, and an address under examination cannot be bound.
            let unexamined: &[&str] = if family == Family::V6 { &["nodad"] } else { &[] };
            self.ip(&[&["address", "add", &address, "dev", interface], unexamined].concat())?;
        }
        Ok(())
    }

    /// Takes an address from an interface, in either family.
    ///
    /// # Errors
    /// When it does not have it.
    pub fn take_address(&self, interface: &str, address: Ipv4Addr, length: u8) -> Result<()> {
        for family in Family::ALL {
            self.ip(&["address", "delete", &family.network(address, length), "dev", interface])?;
        }
        Ok(())
    }

    /// The index of an interface.
    ///
    /// # Errors
    /// When there is no such interface.
    pub fn ifindex(&self, interface: &str) -> Result<u32> {
        let line = self.ip(&["-oneline", "link", "show", "dev", interface])?;
        let index = line.split(':').next().and_then(|index| index.parse().ok());
        index.with_context(|| format!("no index in {line:?}"))
    }

    /// Has the namespace forward packets, as a router does.
    ///
    /// # Errors
    /// When the kernel lacks a setting.
    pub fn forwards(&self) -> Result<()> {
        self.sysctl("net.ipv4.ip_forward", "1")?;
        self.sysctl("net.ipv6.conf.all.forwarding", "1")
    }

    /// Writes `value` to a `sysctl` such as `net.ipv4.ip_forward`.
    ///
    /// # Errors
    /// When there is no such setting in the namespace.
    pub fn sysctl(&self, key: &str, value: &str) -> Result<()> {
        let file = PathBuf::from("/proc/sys").join(key.replace('.', "/"));
        self.enter(|| std::fs::write(&file, value)).with_context(|| format!("failed to set {key}"))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // A namespace that is left over is found and named by the residue check.
        let _ = ip(&["netns", "del", &self.name]);
    }
}

/// One end of a veth pair, which has its address in either family.
#[derive(Debug, Clone, Copy)]
pub struct End<'a> {
    /// Where the interface lives.
    pub namespace: &'a Namespace,
    /// Its name there.
    pub interface: &'a str,
    /// Its address, none for a bridge port.
    pub address: Option<Ipv4Addr>,
}

/// The MTU of links that do not say otherwise.
pub const MTU: u16 = 1500;

const PREFIX_LENGTH: u8 = 24;

/// Joins two namespaces by a veth pair with fixed MACs; the pair goes away with either namespace.
///
/// # Errors
/// When `ip` or `ethtool` fails.
pub fn join(a: End<'_>, b: End<'_>, mtu: u16) -> Result<()> {
    let [name_a, name_b] = [a, b].map(|end| end.namespace.name.as_str());
    ip(&[
        "link",
        "add",
        a.interface,
        "netns",
        name_a,
        "type",
        "veth",
        "peer",
        "name",
        b.interface,
        "netns",
        name_b,
    ])?;
    a.configure(mtu)?;
    b.configure(mtu)
}

impl End<'_> {
    /// The MAC of the interface: locally administered, and derived from what names it within a topology.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        let tail = self.address.map_or_else(|| name_hash(self.interface), |address| address.octets());
        [0x02, 0x78, tail[0], tail[1], tail[2], tail[3]]
    }

    /// The same as `ip` writes it.
    #[must_use]
    pub fn lladdr(&self) -> String {
        self.mac().map(|byte| format!("{byte:02x}")).join(":")
    }

    fn configure(&self, mtu: u16) -> Result<()> {
        let (namespace, interface) = (self.namespace, self.interface);
        namespace.ip(&["link", "set", interface, "address", &self.lladdr(), "mtu", &mtu.to_string()])?;
        namespace.ip(&["link", "set", interface, "up"])?;
        if let Some(address) = self.address {
            namespace.address(interface, address, PREFIX_LENGTH)?;
        }
        // GRO gives a veth the NAPI context without which frames that XDP redirects to its peer are lost.
        namespace.run("ethtool", &["-K", interface, "gro", "on"]).map(drop)
    }
}

fn name_hash(name: &str) -> [u8; 4] {
    name.bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
        .to_be_bytes()
}

fn ip(arguments: &[&str]) -> Result<String> {
    run("ip", arguments)
}

fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("failed to start {program}"))?;
    let shown =
        || arguments.iter().map(|argument| argument.as_ref().to_string_lossy()).collect::<Vec<_>>().join(" ");
    if !output.status.success() {
        bail!("{program} {} failed: {}", shown(), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Whether this process may create namespaces; if not, says so on standard error, so that a skipped test shows.
#[must_use]
#[expect(clippy::print_stderr, reason = "a skipped test must be visible in the test's output")]
pub fn available() -> bool {
    let probe = Namespace::new("probe");
    if let Err(error) = &probe {
        eprintln!("SKIP: no network namespaces here: {error:#}");
    }
    probe.is_ok()
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, UdpSocket};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_dropped_namespace_is_gone() {
        if !available() {
            return;
        }
        let namespace = Namespace::new("gone").unwrap();
        let path = namespace.path();
        assert!(path.exists());
        drop(namespace);
        assert!(!path.exists());
    }

    #[test]
    fn datagrams_cross_the_routers_on_both_sides_of_the_proxy() {
        if !available() {
            return;
        }
        let network = Routed::new().unwrap();
        check_delivery((&network.client, Routed::CLIENT), (&network.proxy, Routed::PROXY));
        check_delivery((&network.proxy, Routed::PROXY_INSIDE), (&network.origin_a, Routed::ORIGIN_A));
        check_delivery((&network.proxy, Routed::PROXY_INSIDE), (&network.origin_b, Routed::ORIGIN_B));
    }

    #[test]
    fn a_datagram_crosses_the_bridge_to_the_container() {
        if !available() {
            return;
        }
        let network = Bridged::new().unwrap();
        check_delivery((&network.client, Bridged::CLIENT), (&network.host, Bridged::HOST));
        check_delivery((&network.host, Bridged::BRIDGE), (&network.container, Bridged::CONTAINER));
    }

    #[track_caller]
    fn check_delivery(from: (&Namespace, Ipv4Addr), to: (&Namespace, Ipv4Addr)) {
        for family in Family::ALL {
            check_delivery_over((from.0, family.of(from.1)), (to.0, family.of(to.1)));
        }
    }

    #[track_caller]
    fn check_delivery_over(from: (&Namespace, IpAddr), to: (&Namespace, IpAddr)) {
        let sender = from.0.enter(|| UdpSocket::bind((from.1, 0))).unwrap();
        let receiver = to.0.enter(|| UdpSocket::bind((to.1, 0))).unwrap();
        receiver.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
        sender.send_to(b"hello", receiver.local_addr().unwrap()).unwrap();
        let mut bytes = [0; 8];
        let (length, source) = receiver.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..length], source), (&b"hello"[..], sender.local_addr().unwrap()));
    }
}
