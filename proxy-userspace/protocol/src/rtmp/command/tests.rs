use proptest::{collection::vec, prelude::*};

use super::{status::*, *};
use crate::rtmp::{
    amf0::Properties,
    transcript::{BUSY, PLAYERS, PUBLISHERS, REDIRECT, messages},
};

#[test]
fn reads_and_writes_every_command_of_real_peers_as_it_was() {
    let transcripts = PUBLISHERS.iter().chain(PLAYERS).map(|(_, transcript)| *transcript);
    let mut count = 0;
    for (_, message) in transcripts.chain([BUSY, REDIRECT]).flat_map(messages) {
        if message.kind == kind::COMMAND_AMF0 {
            let command = Command::parse(&message).unwrap();
            assert_eq!(command.to_message_on(message.stream, message.chunk_stream).payload, message.payload);
            count += 1;
        }
    }
    assert!(count > 80, "{count} commands");
}

#[test]
fn both_envelopes_hold_the_same_command() {
    let message = Command::new("FCPublish", 3.0, vec!["s1".into()]).to_message();
    let amf3 = enveloped(&message.payload);
    assert_eq!(Command::parse(&amf3), Command::parse(&message));
    check_error(&Message { kind: kind::COMMAND_AMF3, payload: Vec::new(), ..message }, CommandError::Empty);
}

#[test]
fn amf3_values_of_a_command_stay_as_they_are() {
    let mut payload = Command::new("publish", 0.0, vec!["s1".into()]).to_message().payload;
    payload.extend([0x11, 0x06, 0x09, b'l', b'i', b'v', b'e']);
    let command = Command::parse(&enveloped(&payload)).unwrap();
    assert_eq!(command.text(0).map(Text::as_bytes), Some(&b"s1"[..]));
    assert_eq!(command.args[1], Value::Amf3(b"\x06\x09live".to_vec()));
    assert_eq!(command.to_message().payload, payload);
}

#[test]
fn every_truncation_of_a_command_is_refused_or_a_shorter_one() {
    let whole = Command::new("play", 4.0, vec!["s1?token=x".into(), (-2.0).into(), true.into()]).to_message();
    for end in 0..whole.payload.len() {
        let cut = Message { payload: whole.payload[..end].to_vec(), ..whole.clone() };
        let Ok(command) = Command::parse(&cut) else { continue };
        assert!(whole.payload.starts_with(&cut.payload));
        assert!(command.args.len() < 3, "cut at {end}");
    }
}

#[test]
fn names_what_is_wrong_with_a_command() {
    let with = |values: &[Value]| {
        let mut payload = Vec::new();
        amf0::encode(values, &mut payload);
        Message { payload, ..Command::new("", 0.0, Vec::new()).to_message() }
    };
    check_error(&with(&[]), CommandError::Name);
    check_error(&with(&[1.0.into()]), CommandError::Name);
    check_error(&with(&["connect".into()]), CommandError::Transaction);
    check_error(&with(&["connect".into(), "1".into()]), CommandError::Transaction);
    check_error(&with(&["connect".into(), "x".repeat(MAX_COMMAND).as_str().into()]), CommandError::TooLong);
    let cut = Message { payload: vec![2, 0, 7], ..with(&[]) };
    check_error(&cut, CommandError::Values(Amf0Error::Truncated));
    check_error(&Message { kind: kind::DATA_AMF0, ..with(&[]) }, CommandError::Kind(kind::DATA_AMF0));
}

#[test]
fn a_command_without_an_object_has_none() {
    let mut payload = Vec::new();
    amf0::encode(&["onBWDone".into(), 0.0.into()], &mut payload);
    let message = Message { payload, ..Command::new("", 0.0, Vec::new()).to_message() };
    assert_eq!(Command::parse(&message), Ok(Command::new("onBWDone", 0.0, Vec::new())));
}

#[test]
fn reads_what_a_status_says() {
    let command =
        on_status(Level::Error, "NetStream.Play.StreamNotFound", "no such stream", &[("details", "s1")]);
    let status = Status::of(&command).unwrap();
    assert!(status.is_error());
    assert_eq!(status.code().unwrap(), &"NetStream.Play.StreamNotFound");
    assert_eq!(status.description().unwrap(), &"no such stream");
    assert_eq!(status.redirect(), None);
    assert!(Status::of(&Command::new("onBWDone", 0.0, Vec::new())).is_none());
}

#[test]
fn a_redirection_is_one_with_its_number_only() {
    let with = |number: f64| {
        let mut command = on_status(Level::Error, code::CONNECT_REJECTED, "", &[]);
        let ex = Properties::from([("code", number.into()), ("redirect", "rtmp://h/live".into())]);
        if let Some(Value::Object(info)) = command.args.first_mut() {
            info.push("ex".into(), ex.into());
        }
        command
    };
    assert_eq!(Status::of(&with(302.0)).unwrap().redirect().unwrap(), &"rtmp://h/live");
    assert_eq!(Status::of(&with(403.0)).unwrap().redirect(), None);
}

proptest! {
    #[test]
    fn what_is_written_is_read(name in ".{1,20}", transaction in 0.0..1e6, args in vec(".{0,9}", 0..5)) {
        let args = args.iter().map(|arg| arg.as_str().into()).collect();
        let command = Command::new(&name, transaction, args);
        prop_assert_eq!(Command::parse(&command.to_message()), Ok(command));
    }
}

fn enveloped(payload: &[u8]) -> Message {
    let payload = [&[0], payload].concat();
    Message { chunk_stream: 3, timestamp: 0, kind: kind::COMMAND_AMF3, stream: 0, payload }
}

#[track_caller]
fn check_error(message: &Message, expected: CommandError) {
    assert_eq!(Command::parse(message), Err(expected));
}
