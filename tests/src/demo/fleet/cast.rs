//! Connections of each kind: str0m for WebRTC, FFmpeg for RTMP and HTTP-FLV, libsrt for SRT.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
    sync::Arc,
};

use anyhow::Result;

use super::{
    super::{
        directory, files,
        tcp_player::{Pictures, Protocol, TcpClient, TcpPlayer},
    },
    part::{Kind, Media, Part},
};
use crate::{
    fleet::Gates,
    live::{Clip, HTTP_PORT, publish, rtmp_url},
    load::{Client, ClientOptions, Swarm},
    netns::Namespace,
    proxy::Proxy,
    srt::{Caller, CallerOptions, Player, Publisher, SRT_PORT},
};

/// Packets of an SRT stream in a second, about 1 Mbit/s.
const SRT_RATE: u32 = 100;

/// What connections need.
#[derive(Debug)]
pub(super) struct Cast<'a> {
    client: &'a Namespace,
    swarm: Arc<Swarm>,
    clip: Arc<Clip>,
}

impl<'a> Cast<'a> {
    pub(super) fn new(client: &'a Namespace) -> Result<Self> {
        Ok(Self { client, swarm: Arc::new(Swarm::start()?), clip: Clip::get()? })
    }

    /// Where the programs of a part complain.
    pub(super) fn log(&self, part: &Part) -> Result<File> {
        let role = if part.is_publisher { "publisher" } else { "viewer" };
        let kind = part.kind.name().to_lowercase();
        let file = format!("fleet-{role}-{}-{kind}-at-{}.log", name(part), part.gate);
        files::create(&directory().join(file))
    }

    pub(super) fn connect(&self, part: &Part, log: &File) -> Result<Box<dyn Media>> {
        let at = Gates::address(part.gate);
        match part.kind {
            Kind::WebRtc => self.exchange(part, at),
            Kind::Srt => self.call(part, at),
            Kind::Rtmp if part.is_publisher => {
                let mut command = publish(&self.clip, &["-f", "flv", &rtmp_url(at, &name(part))]);
                command.stdout(Stdio::null());
                let title = format!("the RTMP publisher of {}", name(part));
                let client = TcpClient::start(self.client, title, command, log.try_clone()?)?;
                Ok(Box::new(Sending { client, looks: 0 }))
            }
            Kind::Rtmp => self.watch(part, Protocol::Rtmp, &rtmp_url(at, &name(part)), log),
            Kind::HttpFlv => {
                let url = format!("http://{}/live/{}.flv", SocketAddr::from((at, HTTP_PORT)), name(part));
                self.watch(part, Protocol::HttpFlv, &url, log)
            }
        }
    }

    fn exchange(&self, part: &Part, at: Ipv4Addr) -> Result<Box<dyn Media>> {
        let options = if part.is_publisher {
            ClientOptions::publish(&Proxy::whip_at(at, &name(part)))?
        } else {
            ClientOptions::play(&Proxy::whep_at(at, &name(part)))?
        };
        let client = self.client.enter(|| Client::connect(&self.swarm, options))?;
        Ok(Box::new(Session { client, is_publisher: part.is_publisher }))
    }

    fn call(&self, part: &Part, at: Ipv4Addr) -> Result<Box<dyn Media>> {
        let mode = if part.is_publisher { "publish" } else { "request" };
        let options =
            CallerOptions::new((at, SRT_PORT).into(), format!("#!::r=live/{},m={mode}", name(part)));
        let caller = self.client.enter(|| Caller::taken(&options))?;
        Ok(if part.is_publisher { Box::new(caller.publish(SRT_RATE)) } else { Box::new(caller.play()?) })
    }

    fn watch(&self, part: &Part, protocol: Protocol, url: &str, log: &File) -> Result<Box<dyn Media>> {
        let (stream, pictures) = (name(part), Pictures::default());
        let player = TcpPlayer::start(self.client, protocol, (&stream, url), &pictures, log.try_clone()?)?;
        Ok(Box::new(player))
    }
}

/// The name of the stream.
fn name(part: &Part) -> String {
    let kind = match part.kind {
        Kind::WebRtc => "rtc",
        Kind::Rtmp | Kind::HttpFlv => "live",
        Kind::Srt => "srt",
    };
    format!("{kind}{}", part.stream + 1)
}

/// WebRTC.
struct Session {
    client: Client,
    is_publisher: bool,
}

impl Media for Session {
    fn count(&mut self) -> Option<(u64, u64)> {
        let stats = self.client.stats();
        let count = if self.is_publisher { stats.feedback } else { stats.received() };
        (!stats.closed_by_peer).then(|| (count, stats.missing()))
    }
}

/// Somebody who publishes by RTMP, as long as the connection is there.
struct Sending {
    client: TcpClient,
    looks: u64,
}

impl Media for Sending {
    fn count(&mut self) -> Option<(u64, u64)> {
        self.looks += 1;
        self.client.runs().then_some((self.looks, 0))
    }
}

impl Media for TcpPlayer {
    fn count(&mut self) -> Option<(u64, u64)> {
        let timeline = self.timeline();
        self.runs().then_some((timeline.pictures, timeline.missing))
    }
}

impl Media for Publisher {
    fn count(&mut self) -> Option<(u64, u64)> {
        (!self.is_over()).then(|| (self.counts().acknowledgements.unsigned_abs().into(), 0))
    }
}

impl Media for Player {
    fn count(&mut self) -> Option<(u64, u64)> {
        let received = self.received();
        (!self.is_over()).then_some((received.packets, received.gaps))
    }
}
