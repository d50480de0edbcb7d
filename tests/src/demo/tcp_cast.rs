//! Everyone who publishes and plays over TCP: FFmpeg sends a clip by RTMP, and plays it by each protocol.

use std::{process::Stdio, sync::Arc};

use anyhow::Result;

use super::{
    directory, files,
    stage::Stage,
    tcp_player::{Pictures, Protocol, TcpClient, TcpPlayer},
    timeline::Timeline,
};
use crate::live::{Clip, publish};

/// One for each origin.
pub(super) const STREAMS: [&str; 2] = ["live1", "live2"];

/// The clients over TCP of one run; dropped, they are ended one by one.
#[derive(Debug)]
pub(super) struct TcpCast {
    clip: Arc<Clip>,
    pub(super) pictures: Pictures,
    publishers: Vec<TcpClient>,
    players: Vec<TcpPlayer>,
}

impl TcpCast {
    pub(super) fn new() -> Result<Self> {
        let (publishers, players) = (Vec::new(), Vec::new());
        Ok(Self { clip: Clip::get()?, pictures: Pictures::default(), publishers, players })
    }

    pub(super) fn publish(&mut self, stage: &Stage<'_>) -> Result<()> {
        for stream in STREAMS {
            let mut command = publish(&self.clip, &["-f", "flv", &stage.rtmp(stream)]);
            command.stdout(Stdio::null());
            let log = files::create(&directory().join(format!("publisher-{stream}-rtmp.log")))?;
            let name = format!("the RTMP publisher of {stream}");
            self.publishers.push(TcpClient::start(&stage.network.client, name, command, log)?);
        }
        Ok(())
    }

    pub(super) fn play(&mut self, stage: &Stage<'_>) -> Result<()> {
        for stream in STREAMS {
            for protocol in Protocol::ALL {
                let url = match protocol.extension() {
                    Some(extension) => stage.http(&format!("{stream}.{extension}")),
                    None => stage.rtmp(stream),
                };
                let file = format!("viewer-{stream}-{}.log", protocol.name().to_lowercase());
                let log = files::create(&directory().join(file))?;
                let whom = (stream, url.as_str());
                let player = TcpPlayer::start(&stage.network.client, protocol, whom, &self.pictures, log)?;
                self.players.push(player);
            }
        }
        Ok(())
    }

    /// Everyone who plays has got something.
    pub(super) fn everyone_has_media(&self) -> bool {
        self.players.iter().all(|player| player.timeline().first.is_some())
    }

    /// How many publish.
    pub(super) fn publishers(&self) -> usize {
        self.publishers.len()
    }

    /// How many publishers have not ended by themselves.
    pub(super) fn publishing(&mut self) -> usize {
        self.publishers.iter_mut().filter_map(|publisher| publisher.runs().then_some(())).count()
    }

    /// What each player of a protocol got so far.
    pub(super) fn timelines(&self, protocol: Protocol) -> Vec<Timeline> {
        let players = self.players.iter().filter(|player| player.protocol == protocol);
        players.map(TcpPlayer::timeline).collect()
    }

    /// Ends the players, then the publishers, and tells who did not end well.
    pub(super) fn end(self) -> Vec<String> {
        let mut broken = end_all(self.players.into_iter().map(TcpPlayer::into_client).collect());
        broken.extend(end_all(self.publishers));
        broken
    }
}

fn end_all(clients: Vec<TcpClient>) -> Vec<String> {
    let asked: Vec<_> = clients.iter().filter_map(|client| client.ask().err()).collect();
    let ended = clients.into_iter().filter_map(|client| client.finish().err());
    asked.into_iter().chain(ended).map(|error| format!("{error:#}")).collect()
}
