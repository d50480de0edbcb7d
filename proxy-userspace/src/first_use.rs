//! What a first-time user needs to see: where the proxy listens, what to type, and how to make an origin known.
//!
//! Printed when the proxy runs and knows no origin.

use std::{
    fmt::{self, Display, Formatter, Write as _},
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
};

/// The ports the proxy listens on, as bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// RTMP.
    pub rtmp: u16,
    /// HTTP streams.
    pub http: u16,
    /// WHIP, WHEP and the JSON API.
    pub api: u16,
    /// WebRTC media, UDP.
    pub webrtc: u16,
    /// WebRTC media, TCP.
    pub webrtc_tcp: Option<u16>,
    /// SRT, UDP.
    pub srt: u16,
    /// Registration of origins.
    pub system: u16,
}

/// What to do with a proxy at `ip` that no origin has registered with.
pub fn text(ip: IpAddr, ports: Ports, needs_token: bool) -> String {
    let host = Host(ip);
    let Ports { rtmp, http, api, webrtc, webrtc_tcp, srt, system } = ports;
    let over_tcp = webrtc_tcp.map(|port| format!("  tcp://{host}:{port}")).unwrap_or_default();
    let mut text = format!(
        "No SRS origin is known yet.\n\
         \n\
         This proxy listens on:\n\
         \x20 RTMP           rtmp://{host}:{rtmp}/\n\
         \x20 WHIP, WHEP     http://{host}:{api}/rtc/v1/whip/  http://{host}:{api}/rtc/v1/whep/\n\
         \x20 WebRTC media   udp://{host}:{webrtc}{over_tcp}\n\
         \x20 SRT            srt://{host}:{srt}\n\
         \x20 HTTP           http://{host}:{http}/\n\
         \x20 system API     http://{host}:{system}/  (registration, /api/v1/origins, /metrics)\n\
         \n\
         Make an origin known: put this into the configuration of SRS (5.0.215, 6.0.156, 7.0.15 or newer), restart it\n\
         \n\
         {heartbeat}",
        heartbeat = heartbeat(ip, system),
    );
    if needs_token {
        text.push_str(TOKEN);
    }
    write!(text, "\n{}", clients(&host, ports)).expect("writing to a string cannot fail");
    text
}

/// The address other hosts most likely reach this one at: the one it has towards the default route.
pub fn own_address() -> IpAddr {
    // Connecting a datagram socket sends nothing; it only asks the routing table. The target is TEST-NET-1.
    let towards = SocketAddr::from(([192, 0, 2, 1], 9));
    let routed = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).and_then(|socket| {
        socket.connect(towards)?;
        socket.local_addr()
    });
    routed.map_or(Ipv4Addr::LOCALHOST.into(), |address| address.ip())
}

const TOKEN: &str = "\
    \n\
    Registration needs the token of PROXY_HTTP_API_AUTH_TOKEN; give it to the origin by its environment:\n\
    \n\
    \x20   SRS_HEARTBEAT_AUTH_ENABLED=on SRS_HEARTBEAT_AUTH_TYPE=bearer SRS_HEARTBEAT_AUTH_TOKEN=...\n";

/// The section of SRS's configuration that makes it register here.
fn heartbeat(ip: IpAddr, system: u16) -> String {
    format!(
        "\x20   heartbeat {{\n\
         \x20       enabled on;\n\
         \x20       interval 9;\n\
         \x20       url http://{}:{system}/api/v1/srs/register;\n\
         \x20       device_id origin1;\n\
         \x20       ports on;\n\
         \x20   }}\n\
         \n\
         and, if the origin has several addresses or runs in a container, set SRS_DEVICE_IP in its environment to the\n\
         one that this proxy reaches.\n",
        Host(ip)
    )
}

fn clients(host: &Host, Ports { rtmp, http, api, srt, .. }: Ports) -> String {
    format!(
        "Then publish and play:\n\
         \n\
         \x20 RTMP      rtmp://{host}:{rtmp}/live/livestream (OBS: Service Custom, Server rtmp://{host}:{rtmp}/live)\n\
         \x20 HTTP-FLV  http://{host}:{http}/live/livestream.flv\n\
         \x20 HLS       http://{host}:{http}/live/livestream.m3u8\n\
         \x20 SRT       'srt://{host}:{srt}?streamid=#!::r=live/livestream,m=publish' and m=request to play\n\
         \x20 OBS       Settings > Stream > Service WHIP, Server\n\
         \x20           http://{host}:{api}/rtc/v1/whip/?app=live&stream=livestream\n\
         \x20 ffmpeg 8  ffmpeg -re -f lavfi -i testsrc=size=1280x720:rate=30 -f lavfi -i sine \\\n\
         \x20             -c:v libx264 -profile:v baseline -pix_fmt yuv420p -g 60 -bf 0 -c:a libopus -ar 48000 -ac 2 \\\n\
         \x20             -f whip 'http://{host}:{api}/rtc/v1/whip/?app=live&stream=livestream'\n\
         \x20 WHEP      http://{host}:{api}/rtc/v1/whep/?app=live&stream=livestream\n"
    )
}

/// An address as it stands in a URL.
struct Host(IpAddr);

impl Display for Host {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(ip) => write!(f, "{ip}"),
            IpAddr::V6(ip) => write!(f, "[{ip}]"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PORTS: Ports = Ports {
        rtmp: 11935,
        http: 18080,
        api: 11985,
        webrtc: 18000,
        webrtc_tcp: Some(18443),
        srt: 20080,
        system: 12025,
    };

    fn shown(ip: &str, needs_token: bool) -> String {
        text(ip.parse().unwrap(), PORTS, needs_token)
    }

    #[test]
    fn the_heartbeat_can_be_copied_as_it_is() {
        let heartbeat = "    heartbeat {\n        enabled on;\n        interval 9;\n        url \
                         http://192.0.2.7:12025/api/v1/srs/register;\n        device_id origin1;\n        ports on;\n    \
                         }\n";
        assert!(shown("192.0.2.7", false).contains(heartbeat), "{}", shown("192.0.2.7", false));
    }

    #[test]
    fn every_listener_and_client_has_its_line() {
        let text = shown("192.0.2.7", false);
        for line in [
            "udp://192.0.2.7:18000  tcp://192.0.2.7:18443\n",
            "srt://192.0.2.7:20080\n",
            "'srt://192.0.2.7:20080?streamid=#!::r=live/livestream,m=publish'",
            "rtmp://192.0.2.7:11935/live/livestream",
            "http://192.0.2.7:18080/live/livestream.flv",
            "http://192.0.2.7:18080/live/livestream.m3u8",
            "http://192.0.2.7:18080/",
            "http://192.0.2.7:11985/rtc/v1/whip/?app=live&stream=livestream",
            "http://192.0.2.7:11985/rtc/v1/whep/?app=live&stream=livestream",
            "-f whip",
            "SRS_DEVICE_IP",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
    }

    #[test]
    fn the_token_is_spoken_of_only_when_one_is_needed() {
        assert!(shown("192.0.2.7", true).contains("SRS_HEARTBEAT_AUTH_TOKEN"));
        assert!(!shown("192.0.2.7", false).contains("SRS_HEARTBEAT_AUTH_TOKEN"));
    }

    #[test]
    fn an_ipv6_address_is_bracketed() {
        assert!(shown("2001:db8::7", false).contains("http://[2001:db8::7]:12025/api/v1/srs/register"));
    }

    #[test]
    fn the_own_address_is_one_of_this_host() {
        assert!(UdpSocket::bind((own_address(), 0)).is_ok());
    }
}
