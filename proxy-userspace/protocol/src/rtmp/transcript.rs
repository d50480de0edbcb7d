//! Conversations of real clients with a real SRS, as whole messages.

use super::Message;

/// Who sent a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Client,
    Server,
}

/// Publishers.
pub(super) const PUBLISHERS: &[(&str, &str)] = &[
    ("ffmpeg", include_str!("../../tests/data/rtmp/ffmpeg_publish.txt")),
    ("gstreamer", include_str!("../../tests/data/rtmp/gstreamer_publish.txt")),
];

/// Players.
pub(super) const PLAYERS: &[(&str, &str)] = &[
    ("ffmpeg", include_str!("../../tests/data/rtmp/ffmpeg_play.txt")),
    ("ffmpeg with a subscription", include_str!("../../tests/data/rtmp/ffmpeg_subscribe.txt")),
    ("rtmpdump", include_str!("../../tests/data/rtmp/rtmpdump_play.txt")),
    ("gstreamer", include_str!("../../tests/data/rtmp/gstreamer_play.txt")),
];

/// A publisher of a stream that has one already.
pub(super) const BUSY: &str = include_str!("../../tests/data/rtmp/srs_busy.txt");
/// A player whose stream is at another origin.
pub(super) const REDIRECT: &str = include_str!("../../tests/data/rtmp/srs_redirect.txt");

/// All messages in their order.
pub(super) fn messages(transcript: &str) -> Vec<(From, Message)> {
    transcript.lines().filter(|line| !line.starts_with('#')).map(message).collect()
}

/// The messages of one side.
pub(super) fn of(side: From, transcript: &str) -> Vec<Message> {
    let messages = messages(transcript).into_iter();
    messages.filter_map(|(from, message)| (from == side).then_some(message)).collect()
}

fn message(line: &str) -> (From, Message) {
    let fields: Vec<_> = line.split(' ').collect();
    let [direction, chunk_stream, timestamp, kind, stream, payload] = fields[..] else { panic!("{line}") };
    let from = if direction == ">" { From::Client } else { From::Server };
    let message = Message {
        chunk_stream: chunk_stream.parse().unwrap(),
        timestamp: timestamp.parse().unwrap(),
        kind: kind.parse().unwrap(),
        stream: stream.parse().unwrap(),
        payload: (0..payload.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&payload[at..at + 2], 16).unwrap())
            .collect(),
    };
    (from, message)
}
