//! An SRS-shaped origin for tests and the demo.

use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use clap::Parser;
use integration_tests::origin::{
    Candidate, Endpoints, Heartbeat, HeartbeatFormat, HlsSettings, Origin, OriginConfig, RtcTcp,
};

/// An origin in the shape of SRS: WebRTC over one UDP port; RTMP, HTTP-FLV, HTTP-TS and HLS; SRT
#[derive(Debug, Parser)]
struct Arguments {
    /// Address of the HTTP API
    #[arg(long, default_value = "0.0.0.0:1985")]
    api: SocketAddr,
    /// Address of the media port
    #[arg(long, default_value = "0.0.0.0:8000")]
    rtc: SocketAddr,
    /// Address of media over TCP, which is not taken if this is not given; that of the HTTP API if they are equal
    #[arg(long)]
    rtc_tcp: Option<SocketAddr>,
    /// Address of RTMP
    #[arg(long, default_value = "0.0.0.0:1935")]
    rtmp: SocketAddr,
    /// Address of HTTP-FLV, HTTP-TS and HLS
    #[arg(long, default_value = "0.0.0.0:8080")]
    http: SocketAddr,
    /// Address of SRT
    #[arg(long, default_value = "0.0.0.0:10080")]
    srt: SocketAddr,
    /// Milliseconds of an HLS segment, at least
    #[arg(long, default_value_t = 2000)]
    hls_fragment: u64,
    /// Give HLS players no contexts, as SRS with `hls_ctx off`
    #[arg(long)]
    without_hls_contexts: bool,
    /// Addresses in answers, each `IP` or `IP:port`
    #[arg(long = "candidate", value_delimiter = ',', default_value = "127.0.0.1")]
    candidates: Vec<Candidate>,
    /// The proxy's registration address, such as http://10.0.0.1:12025/api/v1/srs/register
    #[arg(long)]
    heartbeat: Option<String>,
    /// Milliseconds between two heartbeats
    #[arg(long, default_value_t = 9000)]
    heartbeat_interval: u64,
    /// Bearer token of the heartbeat
    #[arg(long)]
    heartbeat_token: Option<String>,
    /// Send the heartbeat of SRS before 5.0.215, which has no ports
    #[arg(long)]
    old_heartbeat: bool,
    /// Label of this origin
    #[arg(long, default_value = "origin1")]
    device_id: String,
    /// Address in the heartbeat; the first candidate if not given
    #[arg(long)]
    ip: Option<IpAddr>,
    /// Seconds of silence that end a session
    #[arg(long, default_value_t = 30)]
    session_timeout: u64,
    /// Send every datagram to the session that its source address is bound to
    #[arg(long)]
    address_first: bool,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let origin = Origin::start(config(arguments))?;
    announce(&origin);
    loop {
        thread::park();
    }
}

fn config(arguments: Arguments) -> OriginConfig {
    let ip = arguments.ip.or_else(|| arguments.candidates.first().map(|candidate| candidate.ip));
    let ip = ip.unwrap_or_else(|| arguments.rtc.ip());
    let format = if arguments.old_heartbeat { HeartbeatFormat::Old } else { HeartbeatFormat::New };
    let heartbeat = arguments.heartbeat.map(|url| Heartbeat {
        copies: Vec::new(),
        url,
        interval: Duration::from_millis(arguments.heartbeat_interval),
        device_id: arguments.device_id,
        ip,
        bearer: arguments.heartbeat_token,
        format,
    });
    OriginConfig {
        api: arguments.api,
        rtc: arguments.rtc,
        rtc_tcp: match arguments.rtc_tcp {
            None => RtcTcp::Off,
            Some(address) if address == arguments.api => RtcTcp::WithApi,
            Some(address) => RtcTcp::At(address),
        },
        rtmp: Some(arguments.rtmp),
        http: Some(arguments.http),
        srt: Some(arguments.srt),
        hls: HlsSettings {
            fragment: Duration::from_millis(arguments.hls_fragment),
            contexts: !arguments.without_hls_contexts,
            ..HlsSettings::default()
        },
        candidates: arguments.candidates,
        heartbeat,
        session_timeout: Duration::from_secs(arguments.session_timeout),
        address_first: arguments.address_first,
        ..OriginConfig::on([0, 0, 0, 0])
    }
}

#[expect(clippy::print_stdout, reason = "scripts wait for this line")]
fn announce(origin: &Origin) {
    let Endpoints { api, rtc, rtc_tcp, rtmp, http, srt } = origin.endpoints();
    let shown =
        |address: Option<SocketAddr>| address.map_or_else(|| "-".to_owned(), |address| address.to_string());
    let [rtc_tcp, rtmp, http, srt] = [rtc_tcp, rtmp, http, srt].map(shown);
    println!("test-origin: api={api} rtc={rtc} rtc-tcp={rtc_tcp} rtmp={rtmp} http={http} srt={srt}");
}
