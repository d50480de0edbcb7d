//! More programs that are not ours: GStreamer publishes and plays, node-media-server is an origin, pages in Chromium play what
//! it has.

#![expect(clippy::unwrap_used, reason = "a test ends at its first failure")]

use std::{fs, process::Command, time::Duration};

use integration_tests::{
    live::{
        Clip, HTTP_PORT, NodeMediaServer, PATIENCE, Scratch, Stage, finish, frames_in, publish, register,
        rtmp_url, start, until, wait_for_connections, watch,
    },
    netns::{Direct, Namespace, Process},
    proxy::{Engine, Proxy},
};

const SOON: Duration = Duration::from_secs(10);
const THREE_SECONDS: std::ops::RangeInclusive<u32> = 60..=100;

fn gstreamer(pipeline: &str) -> Command {
    let mut command = Command::new("gst-launch-1.0");
    command.args(["--quiet", "--eos-on-shutdown"]).args(pipeline.split_whitespace());
    command
}

/// The picture of the clip, made anew.
fn published_by_gstreamer(namespace: &Namespace, url: &str) -> Process {
    let pipeline = format!(
        "videotestsrc is-live=true ! video/x-raw,width=320,height=180,framerate=25/1 \
         ! openh264enc ! h264parse ! flvmux streamable=true ! rtmp2sink location={url}"
    );
    start(namespace, gstreamer(&pipeline)).unwrap()
}

#[test]
fn what_gstreamer_publishes_is_played() {
    let network = Direct::new().unwrap();
    let stage = Stage::start(&network, &[]).unwrap();
    let _publisher = published_by_gstreamer(&network.client, &stage.rtmp("gst"));
    wait_for_connections(&stage.proxy, PATIENCE, |listed| listed.iter().any(|one| one.to_origin > 10_000))
        .unwrap();
    let frames = frames_in(&network.client, stage.rtmp("gst")).unwrap();
    assert!(THREE_SECONDS.contains(&frames), "{frames} frames");
}

#[test]
fn gstreamer_plays_what_ffmpeg_publishes() {
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let stage = Stage::start(&network, &[]).unwrap();
    let url = stage.rtmp("played");
    let _publisher = start(&network.client, publish(&clip, &["-f", "flv", &url])).unwrap();
    wait_for_connections(&stage.proxy, PATIENCE, |listed| listed.iter().any(|one| one.to_origin > 10_000))
        .unwrap();
    let directory = Scratch::new("gst").unwrap();
    let file = directory.path().join("played.flv");
    let pipeline = format!("rtmp2src location={url} ! filesink location={}", file.display());
    let mut player = start(&network.client, gstreamer(&pipeline)).unwrap();
    let enough = fs::metadata(clip.path()).unwrap().len();
    until("a whole clip is received", PATIENCE, || {
        Ok(fs::metadata(&file).is_ok_and(|metadata| metadata.len() > enough))
    })
    .unwrap();
    player.stop().unwrap();
    let frames = frames_in(&network.client, &file).unwrap();
    assert!(THREE_SECONDS.contains(&frames), "{frames} frames");
}

/// A proxy in front of node-media-server, and what FFmpeg publishes through it.
struct Node<'a> {
    proxy: Proxy<'a>,
    _server: NodeMediaServer,
    publisher: Process,
}

impl<'a> Node<'a> {
    fn start(network: &'a Direct, clip: &Clip) -> Self {
        let server = NodeMediaServer::start(&network.origin).unwrap();
        let proxy = Proxy::start(&network.proxy, Direct::PROXY, Engine::Userspace, &[]).unwrap();
        register(&network.proxy, Direct::ORIGIN, NodeMediaServer::RTMP_PORT, NodeMediaServer::HTTP_PORT)
            .unwrap();
        proxy.wait_for_origins(1).unwrap();
        let url = rtmp_url(Direct::PROXY, "node");
        let publisher = start(&network.client, publish(clip, &["-f", "flv", &url])).unwrap();
        wait_for_connections(&proxy, PATIENCE, |listed| listed.iter().any(|one| one.to_origin > 10_000))
            .unwrap();
        Self { proxy, _server: server, publisher }
    }

    fn url(scheme: &str, file: &str) -> String {
        format!("{scheme}://{}:{HTTP_PORT}/live/{file}", Direct::PROXY)
    }

    /// Waits until there is a playlist.
    fn has_playlist(&self, network: &Direct) -> String {
        let playlist = Self::url("http", &NodeMediaServer::playlist("node"));
        until("there is a playlist", PATIENCE, || {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--fail", &playlist]);
            Ok(finish(&network.client, curl)?.output.matches(".ts").count() >= 2)
        })
        .unwrap();
        playlist
    }
}

#[test]
fn a_stream_of_node_media_server_is_played_by_rtmp_flv_and_hls() {
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let mut node = Node::start(&network, &clip);
    for url in [rtmp_url(Direct::PROXY, "node"), Node::url("http", "node.flv")] {
        let frames = frames_in(&network.client, &url).unwrap();
        assert!(THREE_SECONDS.contains(&frames), "{url}: {frames} frames");
    }
    let playlist = node.has_playlist(&network);
    let frames = frames_in(&network.client, &playlist).unwrap();
    assert!((50..=150).contains(&frames), "{playlist}: {frames} frames");
    node.publisher.stop().unwrap();
    wait_for_connections(&node.proxy, SOON, <[_]>::is_empty).unwrap();
}

/// The page is of another origin than the streams: it plays only what says that it may.
#[test]
fn pages_in_a_browser_play_flv_by_fetch_and_websocket_and_hls() {
    const FRAMES: u32 = 50;
    let (clip, network) = (Clip::get().unwrap(), Direct::new().unwrap());
    let node = Node::start(&network, &clip);
    let playlist = node.has_playlist(&network);
    let streams = [
        format!("flv={}", Node::url("http", "node.flv")),
        format!("flv={}", Node::url("ws", "node.flv")),
        format!("hls={playlist}"),
    ];
    let watched = watch(&network.client, FRAMES, &streams).unwrap();
    assert_eq!(watched.len(), streams.len());
    for (url, played) in &watched {
        assert!(
            played.frames >= FRAMES && played.width == 320 && played.error.is_none(),
            "{url}: {played:?}"
        );
    }
    wait_for_connections(&node.proxy, SOON, |listed| listed.len() == 1).unwrap();
}
