use proptest::{collection::vec, prelude::*};

use super::*;

/// What SRS 7, ffmpeg, rtmpdump and GStreamer send, and the other events of RTMP 1.0.
const SAMPLES: &[(&str, u8, &str)] = &[
    ("chunk size", kind::SET_CHUNK_SIZE, "0000ea60"),
    ("abort", kind::ABORT, "00000006"),
    ("acknowledgement", kind::ACKNOWLEDGEMENT, "fffffffe"),
    ("window", kind::WINDOW_ACKNOWLEDGEMENT_SIZE, "002625a0"),
    ("bandwidth", kind::SET_PEER_BANDWIDTH, "002625a002"),
    ("begin", kind::USER_CONTROL, "000000000001"),
    ("end", kind::USER_CONTROL, "000100000001"),
    ("dry", kind::USER_CONTROL, "000200000001"),
    ("buffer", kind::USER_CONTROL, "00030000000100000bb8"),
    ("recorded", kind::USER_CONTROL, "000400000001"),
    ("ping", kind::USER_CONTROL, "000612345678"),
    ("pong", kind::USER_CONTROL, "000712345678"),
    ("check of the player", kind::USER_CONTROL, "001a01"),
];

#[test]
fn reads_and_writes_what_peers_send() {
    use Event::{
        PingRequest, PingResponse, SetBufferLength, StreamBegin, StreamDry, StreamEof, StreamIsRecorded,
    };
    let timestamp = 0x1234_5678;
    let events = [
        StreamBegin { stream: 1 },
        StreamEof { stream: 1 },
        StreamDry { stream: 1 },
        SetBufferLength { stream: 1, milliseconds: 3000 },
        StreamIsRecorded { stream: 1 },
        PingRequest { timestamp },
        PingResponse { timestamp },
        Event::Other { event_type: 26, body: vec![1] },
    ];
    let controls = [
        Control::SetChunkSize(60_000),
        Control::Abort { chunk_stream: 6 },
        Control::Acknowledgement(0xFFFF_FFFE),
        Control::WindowAcknowledgementSize(2_500_000),
        Control::SetPeerBandwidth { window: 2_500_000, limit: BandwidthLimit::Dynamic },
    ];
    let expected = controls.into_iter().chain(events.map(Control::UserControl));
    for ((name, kind, payload), expected) in SAMPLES.iter().zip(expected) {
        let message = message(*kind, &hex(payload));
        assert_eq!(Control::parse(&message), Ok(expected.clone()), "{name}");
        assert_eq!(expected.to_message(), message, "{name}");
    }
}

#[test]
fn every_truncation_is_refused() {
    for (name, kind, payload) in SAMPLES.iter().filter(|(name, ..)| *name != "check of the player") {
        let payload = hex(payload);
        for end in 0..payload.len() {
            let cut = Control::parse(&message(*kind, &payload[..end]));
            assert_eq!(cut, Err(ControlError::Truncated), "{name} cut at {end}");
        }
    }
}

#[test]
fn chunk_sizes_that_no_chunk_has_are_refused() {
    for size in [0, 1 << 31, u32::MAX] {
        let read = Control::parse(&message(kind::SET_CHUNK_SIZE, &u32::to_be_bytes(size)));
        assert_eq!(read, Err(ControlError::ChunkSize(size)));
    }
    let largest = Control::SetChunkSize((1 << 31) - 1);
    assert_eq!(Control::parse(&largest.to_message()), Ok(largest));
}

#[test]
fn other_kinds_are_none_of_control() {
    for kind in [0, 7, kind::AUDIO, kind::COMMAND_AMF0, 255] {
        assert_eq!(Control::parse(&message(kind, &[0; 8])), Err(ControlError::Kind(kind)));
    }
}

proptest! {
    #[test]
    fn what_is_read_is_written_but_for_what_follows(kind in 0_u8..8, payload in vec(0_u8..8, 0..14)) {
        let message = message(kind, &payload);
        if let Ok(control) = Control::parse(&message) {
            prop_assert!(payload.starts_with(&control.to_message().payload));
            prop_assert_eq!(Control::parse(&control.to_message()), Ok(control));
        }
    }
}

fn message(kind: u8, payload: &[u8]) -> Message {
    Message { chunk_stream: 2, timestamp: 0, kind, stream: 0, payload: payload.to_vec() }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
