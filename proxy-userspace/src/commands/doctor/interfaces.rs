//! What each interface can do.

use std::{collections::HashSet, fs, num::NonZero, path::Path, thread};

use super::{Findings, Level};
use crate::{
    config::{Config, DatapathMode},
    datapath::kernel::features::{XdpFeatures, strips_vlan_tags, xdp_features},
    net::route::{Link, Routes},
};

/// What is known of an interface.
#[derive(Debug, Default)]
struct Interface {
    link: Option<Link>,
    driver: Option<String>,
    queues: usize,
    xdp: Option<XdpFeatures>,
    /// The device takes VLAN tags out of frames before a program sees them.
    strips_tags: Option<bool>,
    /// VLAN interfaces on top of it.
    vlans: Vec<String>,
    is_default: bool,
}

pub(super) async fn examine(config: &Config, findings: &mut Findings) {
    if config.datapath.mode == DatapathMode::Userspace {
        return;
    }
    match interfaces(config).await {
        Ok(interfaces) => {
            interfaces.iter().for_each(|interface| interface.judge(config.datapath.mode, findings))
        }
        Err(error) => findings.add(Level::Warning, "interfaces", format!("cannot be listed: {error}")),
    }
    for name in &config.datapath.interfaces {
        if !Path::new("/sys/class/net").join(name).exists() {
            findings.add(Level::Error, name, "PROXY_INTERFACES names it, and there is none");
        }
    }
}

/// The configured interfaces, or all that are up, but for `lo`.
async fn interfaces(config: &Config) -> anyhow::Result<Vec<Interface>> {
    let routes = Routes::connect()?;
    let defaults: HashSet<u32> = routes.default_hops().await?.iter().map(|hop| hop.ifindex).collect();
    let wanted = &config.datapath.interfaces;
    let links = routes.table().await?.links;
    let chosen = links.into_iter().filter(|link| match wanted[..] {
        [] => link.is_up && !link.is_loopback,
        _ => wanted.contains(&link.name),
    });
    Ok(chosen.map(|link| Interface::of(link, &defaults)).collect())
}

impl Interface {
    fn of(link: Link, defaults: &HashSet<u32>) -> Self {
        let sys = Path::new("/sys/class/net").join(&link.name);
        let driver = fs::read_link(sys.join("device/driver")).ok();
        let queues = fs::read_dir(sys.join("queues")).into_iter().flatten().flatten();
        Self {
            driver: driver.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned())),
            queues: queues.filter(|queue| queue.file_name().to_string_lossy().starts_with("rx-")).count(),
            xdp: xdp_features(link.ifindex),
            strips_tags: strips_vlan_tags(link.ifindex),
            vlans: vlans_on(&link),
            is_default: defaults.contains(&link.ifindex),
            link: Some(link),
        }
    }

    fn judge(&self, mode: DatapathMode, findings: &mut Findings) {
        let Some(Link { name, mtu, .. }) = &self.link else { return };
        let has_xdp = self.xdp.is_some_and(|xdp| xdp.has_basic() && xdp.has_redirect());
        let driver = self.driver.as_deref().unwrap_or("no driver");
        let queues = self.queues;
        let hook = match (self.xdp, has_xdp) {
            (None, _) => "the kernel does not tell whether it has native XDP",
            (Some(_), true) => "native XDP",
            (Some(_), false) => "no native XDP, TC",
        };
        findings.add(Level::Ok, name, format!("{hook}; {driver}, MTU {mtu}, receive queues {queues}"));
        if mode == DatapathMode::Auto && has_xdp && self.is_default {
            let text =
                "has the default route: TC, unless PROXY_DATAPATH=xdp, because some drivers reset their link";
            findings.add(Level::Note, name, text);
        }
        self.judge_queues(name, findings);
        self.judge_tags(name, has_xdp && mode != DatapathMode::Tc, findings);
    }

    fn judge_queues(&self, name: &str, findings: &mut Findings) {
        let cpus = thread::available_parallelism().map_or(1, NonZero::get);
        if self.driver.is_some() && self.queues == 1 && cpus > 1 {
            findings.add(
                Level::Note,
                name,
                format!("one queue: one of {cpus} CPUs forwards all that it receives"),
            );
        }
    }

    /// A frame of a VLAN whose tag the device took looks to XDP like one of the device's own network.
    fn judge_tags(&self, name: &str, runs_xdp: bool, findings: &mut Findings) {
        match (self.strips_tags, self.vlans.is_empty()) {
            (Some(true), false) if runs_xdp => {
                let vlans = self.vlans.join(", ");
                let text = format!(
                    "takes the tags of {vlans} before XDP sees them: ethtool -K {name} rxvlan off, or PROXY_DATAPATH=tc"
                );
                findings.add(Level::Error, name, text);
            }
            (Some(true), _) => findings.add(Level::Ok, name, "rxvlan is on, and no VLAN needs it off"),
            (Some(false), _) => findings.add(Level::Ok, name, "rxvlan is off"),
            (None, _) => {}
        }
    }
}

/// VLAN interfaces whose frames come in by this one.
fn vlans_on(link: &Link) -> Vec<String> {
    let is_on_it = |sys: &Path| {
        let read = |name: &str| fs::read_to_string(sys.join(name)).unwrap_or_default();
        read("uevent").lines().any(|line| line == "DEVTYPE=vlan")
            && read("iflink").trim() == link.ifindex.to_string()
    };
    let all = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
    all.filter(|entry| is_on_it(&entry.path()))
        .map(|entry| entry.file_name().to_string_lossy().into())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(interface: &Interface, mode: DatapathMode) -> (Level, String) {
        let mut findings = Findings::default();
        interface.judge(mode, &mut findings);
        (findings.worst(), findings.to_string())
    }

    fn eth0() -> Interface {
        let link = Link {
            ifindex: 2,
            name: "eth0".into(),
            mac: None,
            mtu: 1500,
            is_up: true,
            is_loopback: false,
            resolves: true,
        };
        Interface {
            link: Some(link),
            driver: Some("ixgbe".into()),
            queues: 8,
            xdp: Some(XdpFeatures::new(0b111)),
            strips_tags: Some(true),
            ..Interface::default()
        }
    }

    #[test]
    fn a7_tags_that_are_taken_before_xdp_sees_them_are_an_error() {
        let interface = Interface { vlans: vec!["eth0.7".into()], ..eth0() };
        let (level, text) = judged(&interface, DatapathMode::Xdp);
        assert_eq!(level, Level::Error);
        assert!(text.contains("ethtool -K eth0 rxvlan off"), "{text}");
        assert_eq!(judged(&interface, DatapathMode::Tc).0, Level::Ok);
        assert_eq!(
            judged(&Interface { strips_tags: Some(false), ..interface }, DatapathMode::Xdp).0,
            Level::Ok
        );
        assert_eq!(judged(&eth0(), DatapathMode::Xdp).0, Level::Ok);
    }

    #[test]
    fn the_line_of_an_interface_says_what_it_can() {
        let (_, text) = judged(&eth0(), DatapathMode::Auto);
        assert!(text.contains("native XDP; ixgbe, MTU 1500, receive queues 8"), "{text}");
        let plain = Interface { xdp: Some(XdpFeatures::new(0)), driver: None, ..eth0() };
        assert!(judged(&plain, DatapathMode::Auto).1.contains("no native XDP, TC; no driver"));
        let default = Interface { is_default: true, ..eth0() };
        assert_eq!(judged(&default, DatapathMode::Auto).0, Level::Note);
    }
}
