use super::*;
use crate::rtmp::{
    amf0::{Properties, Text},
    command::status::{Status, code},
    message::CONTROL_STREAM,
    transcript::{self, BUSY, From, PLAYERS, PUBLISHERS},
};

#[test]
fn connect_is_answered_as_srs_answers_it() {
    for (name, transcript) in PUBLISHERS.iter().chain(PLAYERS) {
        let mut session = session();
        let ours = sent(session.apply(first(transcript)).unwrap());
        let theirs = &transcript::of(From::Server, transcript)[..ours.len()];
        let shape = |messages: &[Message]| messages.iter().map(connect_answer_shape).collect::<Vec<_>>();
        assert_eq!(shape(&ours), shape(theirs), "{name}");
        assert_eq!(session.step(), ClientStep::Request, "{name}");
    }
}

#[test]
fn every_command_that_srs_answers_is_answered_alike() {
    for (name, transcript) in PUBLISHERS.iter().chain(PLAYERS) {
        let mut session = session();
        let ours: Vec<_> = sent_to(transcript, &mut session);
        for theirs in transcript::of(From::Server, transcript).iter().skip(5) {
            let is_result = Command::parse(theirs).is_ok_and(|command| command.name == "_result");
            assert!(!is_result || ours.contains(theirs), "{name}: {theirs:?}");
        }
        assert_eq!(session.step(), ClientStep::Origin, "{name}");
    }
}

#[test]
fn real_publishers_ask_for_their_stream() {
    for (name, transcript, stream) in [
        ("ffmpeg", PUBLISHERS[0].1, "one?token=x"),
        ("gstreamer", PUBLISHERS[1].1, "three"),
        ("busy", BUSY, "two"),
    ] {
        let publish =
            Publish { name: stream.into(), publish_type: Some("live".into()), order: PublishOrder::Fmle };
        assert_eq!(requested(transcript), Request::Publish(publish), "{name}");
    }
}

#[test]
fn real_players_ask_for_their_stream() {
    for ((name, transcript), (stream, start, duration, buffer)) in PLAYERS.iter().zip([
        ("two?token=x", -2000.0, None, None),
        ("two", -1000.0, None, None),
        ("two?token=x", -1000.0, Some(1000.0), Some(300)),
        ("two", -2.0, None, Some(300)),
    ]) {
        let play = Play { name: stream.into(), start: Some(start), duration, reset: None, buffer };
        assert_eq!(requested(transcript), Request::Play(play), "{name}");
    }
}

#[test]
fn what_a_client_connected_with_is_kept_whole() {
    for (name, transcript) in PUBLISHERS.iter().chain(PLAYERS) {
        let connect = first(transcript);
        let effects = session().apply(connect.clone()).unwrap();
        let Some(ClientEffect::Connected(kept)) = effects.last() else { panic!("{name} is not connected") };
        assert_eq!(kept.command().to_message().payload, connect.payload, "{name}");
    }
}

#[test]
fn flash_publishes_without_releasing_a_stream() {
    let mut session = connected();
    let created = sent(apply(&mut session, command("createStream", 2.0, &[])));
    assert_eq!(created, [Command::result(2.0, Value::Null, 1.0.into()).to_message()]);
    let request = request(apply(&mut session, command("publish", 3.0, &["s1", "live"])));
    assert_eq!(request.role(), Role::Publisher(PublishOrder::Flash));
}

#[test]
fn haivision_publishes_after_a_check_and_a_stream_of_its_own() {
    let mut session = connected();
    for (name, transaction, args, answer) in [
        ("_checkbw", 2.0, &[][..], Value::Null),
        ("createStream", 3.0, &[], 1.0.into()),
        ("FCPublish", 4.0, &["s1"], Value::Undefined),
    ] {
        let answers = sent(apply(&mut session, command(name, transaction, args)));
        assert_eq!(answers, [Command::result(transaction, Value::Null, answer).to_message()], "{name}");
    }
    let request = request(apply(&mut session, command("publish", 0.0, &["s1"])));
    let order = PublishOrder::Fmle;
    assert_eq!(request, Request::Publish(Publish { name: "s1".into(), publish_type: None, order }));
}

#[test]
fn commands_in_amf3_envelopes_are_answered_in_amf0() {
    let mut session = connected();
    let plain = command("createStream", 2.0, &[]);
    let payload = [&[0], plain.payload.as_slice()].concat();
    let answers = sent(apply(&mut session, Message { kind: kind::COMMAND_AMF3, payload, ..plain }));
    assert_eq!(answers, [Command::result(2.0, Value::Null, 1.0.into()).to_message()]);
}

#[test]
fn object_encoding_and_transaction_are_echoed() {
    let object = Properties::from([("tcUrl", "rtmp://h/live".into()), ("objectEncoding", 3.0.into())]);
    let connect = Command { object: object.into(), ..Command::new("connect", 7.0, Vec::new()) };
    let answers = sent(session().apply(connect.to_message()).unwrap());
    let result = Command::parse(&answers[3]).unwrap();
    assert_eq!(result.transaction, 7.0);
    assert_eq!(result.args[0].property("objectEncoding"), Some(&Value::Number(3.0)));
}

#[test]
fn a_command_that_nobody_knows_is_answered_if_it_waits() {
    let mut session = connected();
    let answers = sent(apply(&mut session, command("FCSubscribe", 3.0, &["s1"])));
    assert_eq!(answers, [Command::result(3.0, Value::Null, Value::Null).to_message()]);
    for quiet in ["unheardOf", "deleteStream", "_result"] {
        assert_eq!(apply(&mut session, command(quiet, 0.0, &[])), [], "{quiet}");
    }
    assert_eq!(apply(&mut session, command("_result", 3.0, &[])), []);
}

#[test]
fn what_is_of_no_concern_is_ignored() {
    let mut session = connected();
    for kind in (0..=255).filter(|kind| ![kind::COMMAND_AMF0, kind::COMMAND_AMF3].contains(kind)) {
        assert_eq!(apply(&mut session, of_kind(kind)), [], "kind {kind}");
    }
    assert_eq!(session.step(), ClientStep::Request);
}

#[test]
fn nothing_but_connect_counts_before_it() {
    let mut session = session();
    assert_eq!(apply(&mut session, of_kind(kind::VIDEO)), []);
    assert_eq!(apply(&mut session, command("createStream", 1.0, &[])), []);
    assert_eq!(session.step(), ClientStep::Connect);
}

#[test]
fn pings_are_answered() {
    let mut session = connected();
    let event = |event| Control::UserControl(event).to_message();
    let answers = sent(apply(&mut session, event(Event::PingRequest { timestamp: 77 })));
    assert_eq!(answers, [event(Event::PingResponse { timestamp: 77 })]);
}

#[test]
fn the_origin_gets_the_request_as_it_came_and_what_stands_for_the_rest() {
    let mut session = connected();
    apply(&mut session, Control::WindowAcknowledgementSize(5000).to_message());
    apply(&mut session, command("createStream", 2.0, &[]));
    let play = Message { chunk_stream: 8, ..command("play", 4.0, &["s1"]) };
    let effects = apply(&mut session, play.clone());
    let [ClientEffect::Requested(asked)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!((&asked.message, asked.window), (&play, Some(5000)));
    let heads: Vec<_> = asked.fillers.iter().map(|m| (m.chunk_stream, m.kind, m.payload.len())).collect();
    assert_eq!(heads, [(2, kind::WINDOW_ACKNOWLEDGEMENT_SIZE, 4), (3, kind::COMMAND_AMF0, 25)]);
}

#[test]
fn what_comes_while_the_origin_is_asked_is_for_the_origin() {
    let mut session = connected();
    apply(&mut session, command("play", 4.0, &["s1"]));
    let event = Event::SetBufferLength { stream: 1, milliseconds: 3000 };
    let held = [
        Control::Acknowledgement(1).to_message(),
        Control::UserControl(event).to_message(),
        Control::SetChunkSize(4096).to_message(),
        command("pause", 5.0, &[]),
    ];
    for message in &held {
        assert_eq!(apply(&mut session, message.clone()), []);
    }
    assert_eq!(session.accepted(Vec::new()).to_origin, held);
}

#[test]
fn a_client_is_told_what_srs_tells_where_the_origin_is_silent() {
    for (name, transcript) in PUBLISHERS.iter().chain(PLAYERS) {
        let theirs: Vec<_> = after_result(transcript);
        let mut session = session();
        sent_to(transcript, &mut session);
        let told = session.accepted(Vec::new()).to_client;
        assert_eq!(told, theirs[..told.len()], "{name}");
        assert!(told.len() >= 2, "{name}");
    }
}

#[test]
fn a_client_is_told_what_the_origin_said_and_only_that_is_added_which_lacks() {
    for (name, transcript) in PUBLISHERS.iter().chain(PLAYERS) {
        let theirs: Vec<_> = after_result(transcript);
        let start = theirs.iter().position(|message| status_code(message).ends_with(".Start\"")).unwrap();
        let start = start.max(1);
        let said = theirs[..=start].to_vec();
        for left_out in 0..said.len() {
            let mut session = session();
            sent_to(transcript, &mut session);
            let mut partly = said.clone();
            partly.remove(left_out);
            let told = session.accepted(partly).to_client;
            assert_eq!(told[..said.len()], said, "{name} without {left_out}");
        }
    }
}

#[test]
fn media_of_an_origin_that_never_says_start_comes_after_a_start() {
    let mut session = connected();
    apply(&mut session, command("play", 4.0, &["s1"]));
    let media = Message { chunk_stream: 6, timestamp: 0, kind: kind::VIDEO, stream: 1, payload: vec![0x17] };
    let told = session.accepted(vec![media.clone()]).to_client;
    assert_eq!(told.last(), Some(&media));
    assert_eq!(told.len(), 5);
}

#[test]
fn flash_is_not_told_what_it_did_not_ask() {
    let mut session = connected();
    apply(&mut session, command("publish", 3.0, &["s1", "live"]));
    let told = session.accepted(Vec::new()).to_client;
    assert_eq!(told.iter().map(status_code).collect::<Vec<_>>(), [format!("{:?}", code::PUBLISH_START)]);
}

#[test]
fn a_refusal_is_an_error_of_the_stream_with_the_origins_words() {
    check_refusal("publish", None, "origin is busy", code::PUBLISH_BAD_NAME, "origin is busy");
    check_refusal("play", None, "nobody is there", code::PLAY_FAILED, "nobody is there");
    check_refusal(
        "play",
        Some("NetStream.Play.StreamNotFound"),
        "none",
        "NetStream.Play.StreamNotFound",
        "none",
    );
    check_refusal(
        "publish",
        Some("NetConnection.Connect.Rejected"),
        "no",
        code::PUBLISH_BAD_NAME,
        "no (NetConnection.Connect.Rejected)",
    );
}

#[test]
fn nobody_is_refused_before_a_request() {
    assert_eq!(connected().refused(&Refusal::default()), []);
}

#[test]
fn names_what_is_wrong_with_a_client() {
    let no_url = Command::new("connect", 1.0, Vec::new()).to_message();
    assert_eq!(session().apply(no_url), Err(ClientFault::Request(RequestError::NoTcUrl)));
    let nameless = command("publish", 0.0, &[]);
    assert_eq!(connected().apply(nameless), Err(ClientFault::Request(RequestError::NoStream)));
    let malformed = Message { payload: vec![2, 0], ..command("", 0.0, &[]) };
    assert!(matches!(connected().apply(malformed.clone()), Err(ClientFault::Command(_))));
    assert!(matches!(session().apply(malformed), Err(ClientFault::Command(_))));
}

#[test]
fn a_client_that_never_names_its_stream_is_not_heard_for_ever() {
    let ack = Control::Acknowledgement(1).to_message();
    for mut session in [session(), connected()] {
        for _ in 0..MAX_MESSAGES {
            assert_eq!(session.apply(ack.clone()), Ok(Vec::new()));
        }
        assert_eq!(session.apply(ack.clone()), Err(ClientFault::TooMany));
    }
}

#[test]
fn a_client_that_does_not_wait_is_kept_within_limits() {
    let media = |length| Message { payload: vec![0; length], ..command("", 0.0, &[]) };
    let mut session = connected();
    apply(&mut session, command("publish", 3.0, &["s1"]));
    assert_eq!(session.apply(media(MAX_HELD_BYTES)), Ok(Vec::new()));
    assert_eq!(session.apply(media(1)), Err(ClientFault::TooEager));
    let mut session = connected();
    apply(&mut session, command("publish", 3.0, &["s1"]));
    for _ in 0..MAX_HELD_MESSAGES {
        assert_eq!(session.apply(media(1)), Ok(Vec::new()));
    }
    assert_eq!(session.apply(media(1)), Err(ClientFault::TooEager));
}

fn of_kind(kind: u8) -> Message {
    Message { chunk_stream: 4, timestamp: 9, kind, stream: 1, payload: vec![0; 5] }
}

/// A message with the values that only SRS can say left out.
fn connect_answer_shape(message: &Message) -> String {
    let Ok(mut command) = Command::parse(message) else { return format!("{message:?}") };
    if let Some(Value::Object(info)) = command.args.first_mut() {
        let data = info.get("data").and_then(Value::properties).unwrap();
        assert!(data.get("srs_version").is_some() && data.get("srs_id").is_some());
        let kept = info.iter().filter(|(name, _)| **name != "data");
        let mut shape = Properties::default();
        kept.for_each(|(name, value)| shape.push(name.clone(), value.clone()));
        *info = shape;
    }
    format!("{command:?} {} {} {}", message.chunk_stream, message.stream, message.kind)
}

/// What a server said after its last `_result`, up to media.
fn after_result(transcript: &str) -> Vec<Message> {
    let theirs = transcript::of(From::Server, transcript);
    let is_result =
        |message: &Message| Command::parse(message).is_ok_and(|command| command.name == "_result");
    let last = theirs.iter().rposition(is_result).unwrap();
    theirs[last + 1..].to_vec()
}

fn status_code(message: &Message) -> String {
    let command = Command::parse(message).ok();
    let status = command.as_ref().and_then(Status::of);
    status.and_then(|status| status.code().map(|code| format!("{code:?}"))).unwrap_or_default()
}

#[track_caller]
fn check_refusal(asked: &str, code: Option<&str>, description: &str, told: &str, explained: &str) {
    let mut session = connected();
    apply(&mut session, command(asked, 3.0, &["s1"]));
    let refusal = Refusal { code: code.map(Text::from), description: description.into() };
    let messages = session.refused(&refusal);
    assert_eq!((messages.len(), messages[0].stream), (1, STREAM));
    let command = Command::parse(&messages[0]).unwrap();
    let status = Status::of(&command).unwrap();
    assert!(status.is_error());
    assert_eq!(status.code().unwrap(), &told);
    assert_eq!(status.description().unwrap(), &explained);
}

/// The answers that a client gets until it has named its stream.
fn sent_to(transcript: &str, session: &mut ClientSession) -> Vec<Message> {
    let mut answers = Vec::new();
    for message in transcript::of(From::Client, transcript) {
        if session.step() != ClientStep::Origin {
            answers.extend(sent(session.apply(message).unwrap()));
        }
    }
    answers
}

fn requested(transcript: &str) -> Request {
    let mut session = session();
    let effects =
        transcript::of(From::Client, transcript).into_iter().flat_map(|m| session.apply(m).unwrap());
    request(effects.collect())
}

fn request(effects: Vec<ClientEffect>) -> Request {
    let mut requests = effects.into_iter().filter_map(|effect| match effect {
        ClientEffect::Requested(asked) => Some(asked.request),
        ClientEffect::Send(_) | ClientEffect::Connected(_) => None,
    });
    let request = requests.next().expect("a stream is asked for");
    assert_eq!(requests.next(), None);
    request
}

fn sent(effects: Vec<ClientEffect>) -> Vec<Message> {
    let messages = effects.into_iter().filter_map(|effect| match effect {
        ClientEffect::Send(message) => Some(message),
        ClientEffect::Connected(_) | ClientEffect::Requested(_) => None,
    });
    messages.collect()
}

#[track_caller]
fn apply(session: &mut ClientSession, message: Message) -> Vec<ClientEffect> {
    session.apply(message).unwrap()
}

fn first(transcript: &str) -> Message {
    transcript::of(From::Client, transcript).swap_remove(0)
}

fn command(name: &str, transaction: f64, args: &[&str]) -> Message {
    let args = args.iter().map(|arg| Value::from(*arg)).collect();
    Command::new(name, transaction, args).to_message_on(CONTROL_STREAM, 3)
}

fn connected() -> ClientSession {
    let mut session = session();
    session.apply(first(PLAYERS[0].1)).unwrap();
    session
}

fn session() -> ClientSession {
    ClientSession::new(ServerName {
        signature: "srs-xproxy".to_owned(),
        version: "1.0.0".to_owned(),
        connection: "abc".to_owned(),
    })
}
