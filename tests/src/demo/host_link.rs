//! A way from the host into the demo's network, so that its browser and tools reach the proxy.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};

use super::cast::stream_names;
use super::performer::PYTHON;
use super::tcp_cast::STREAMS;
use super::tcp_player::Protocol;
use super::{Plan, say};
use crate::live::{HTTP_PORT, rtmp_url};
use crate::netns::{PREFIX, Routed};

const HOST: &str = "10.71.6.1";
const ROUTER: &str = "10.71.6.2";
const NETWORK: &str = "10.71.6.0/24";

/// A veth pair between the host and the router on the clients' side; dropped, it is gone.
#[derive(Debug)]
pub(super) struct HostLink {
    name: String,
}

impl HostLink {
    pub(super) fn to(network: &Routed) -> Result<Self> {
        let name = format!("{PREFIX}{}", std::process::id());
        let router = &network.router1;
        ip(&["link", "add", &name, "type", "veth", "peer", "name", "host", "netns", router.name()])?;
        let link = Self { name };
        let name = &link.name;
        router.ip(&["address", "add", &format!("{ROUTER}/24"), "dev", "host"])?;
        router.ip(&["link", "set", "host", "up"])?;
        ip(&["address", "add", &format!("{HOST}/24"), "dev", name])?;
        ip(&["link", "set", name, "up"])?;
        ip(&["route", "add", &format!("{}/32", Routed::PROXY), "via", ROUTER])?;
        network.proxy.route(NETWORK, Routed::ROUTER1_RIGHT)?;
        Ok(link)
    }

    /// Prints how to look around.
    pub(super) fn explain(&self, network: &Routed, plan: &Plan) {
        let proxy = Routed::PROXY;
        let stream = stream_names(plan).next().unwrap_or_default();
        let whep = format!("http://{proxy}:11985/rtc/v1/whep/?app=live&stream={stream}");
        say(format!("everything goes on until Ctrl-C; from this host, through {}:", self.name));
        say(format!("  sessions   curl http://{proxy}:12025/api/v1/proxy/status"));
        say(format!("  origins    curl http://{proxy}:12025/api/v1/origins"));
        say(format!("  metrics    curl http://{proxy}:12025/metrics"));
        say(format!("  play       {PYTHON} tests/clients/whep_play.py '{whep}'"));
        say(format!("  publish    http://{proxy}:11985/rtc/v1/whip/?app=live&stream=NAME"));
        let [first, _] = STREAMS;
        say(format!("  or         ffmpeg -re -i FILE -c copy -f flv {}", rtmp_url(proxy, "NAME")));
        for protocol in Protocol::ALL {
            let url = match protocol.extension() {
                Some(extension) => format!("http://{proxy}:{HTTP_PORT}/live/{first}.{extension}"),
                None => rtmp_url(proxy, first),
            };
            say(format!("  {:<10} ffplay {url}", protocol.name()));
        }
        say(format!("  streams    curl http://{proxy}:12025/api/v1/proxy/connections"));
        say(format!("  inside     sudo ip netns exec {} ip address\n", network.proxy.name()));
    }
}

impl Drop for HostLink {
    fn drop(&mut self) {
        // A link that is left over is found and named at the end.
        let _ = ip(&["link", "del", &self.name]);
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("failed to start ip")?;
    let error = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {} failed: {}", arguments.join(" "), error.trim());
    Ok(())
}
