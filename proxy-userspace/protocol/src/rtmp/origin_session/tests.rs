use super::*;
use crate::rtmp::{
    amf0::{Properties, Value},
    client_session::{ClientEffect, ClientSession, ClientStep, ServerName},
    command::status::{Level, code, on_status},
    request::Play,
    transcript::{self, BUSY, From, PLAYERS, PUBLISHERS, REDIRECT},
};

#[test]
fn real_publishers_are_published_at_srs() {
    for (name, transcript) in PUBLISHERS {
        let outcome = replay(transcript);
        let names: Vec<_> = outcome.to_origin.iter().map(name_of).collect();
        let asked = ["connect", "", "releaseStream", "FCPublish", "createStream"];
        assert_eq!(names[..5], asked, "{name}");
        assert_eq!(names.last().unwrap(), "publish", "{name}");
        assert_eq!(outcome.session.step(), OriginStep::Flowing, "{name}");
        assert_eq!(outcome.told(), after_result(transcript), "{name}");
    }
}

#[test]
fn real_players_play_from_srs() {
    for (name, transcript) in PLAYERS {
        let outcome = replay(transcript);
        let names: Vec<_> = outcome.to_origin.iter().map(name_of).collect();
        assert_eq!(names[..3], ["connect", "", "createStream"], "{name}");
        assert_eq!(names.last().unwrap(), "play", "{name}");
        assert_eq!(outcome.told(), after_result(transcript), "{name}");
        let has_media =
            transcript::of(From::Server, transcript).iter().any(|message| message.kind == kind::AUDIO);
        let step = if has_media { OriginStep::Flowing } else { OriginStep::Started };
        assert_eq!(outcome.session.step(), step, "{name}");
    }
}

#[test]
fn the_origin_gets_what_the_client_said() {
    for (name, transcript) in PUBLISHERS.iter().chain(PLAYERS).chain(&[("busy", BUSY)]) {
        let said = transcript::of(From::Client, transcript);
        let outcome = replay(transcript);
        assert_eq!(outcome.to_origin[0].payload, said[0].payload, "{name}: connect");
        assert_eq!(outcome.to_origin[0].stream, CONTROL_STREAM, "{name}: connect");
        for asked in ["releaseStream", "FCPublish"] {
            let args = |messages: &[Message]| {
                let named = messages.iter().filter_map(|message| Command::parse(message).ok());
                named.filter(|command| command.name == asked).map(|command| command.args).collect::<Vec<_>>()
            };
            assert_eq!(args(&outcome.to_origin), args(&said), "{name}: {asked}");
        }
        let after =
            said.iter().position(|message| ["publish", "play"].contains(&&*name_of(message))).unwrap();
        assert_eq!(outcome.to_origin.last(), Some(&said[after]), "{name}: request");
        if outcome.session.step() == OriginStep::Flowing {
            assert_eq!(outcome.held, said[after + 1..], "{name}: what followed");
        }
    }
}

#[test]
fn every_chunk_stream_looks_as_if_nothing_had_been_left_out() {
    for (name, transcript) in PUBLISHERS.iter().chain(PLAYERS) {
        let outcome = replay(transcript);
        if outcome.session.step() == OriginStep::Flowing {
            let got = [outcome.to_origin, outcome.held].concat();
            check_heads(&transcript::of(From::Client, transcript), &got, name);
        }
        let got = [outcome.answers, outcome.to_client].concat();
        check_heads(&transcript::of(From::Server, transcript), &got, name);
    }
}

/// What a later chunk may refer to is the same on each chunk stream that was used; others count from zero.
#[track_caller]
fn check_heads(said: &[Message], got: &[Message], name: &str) {
    let last = |messages: &[Message], chunk_stream| {
        let mut messages = messages.iter().filter(|message| message.chunk_stream == chunk_stream);
        let head =
            |message: &Message| (message.timestamp, message.stream, message.kind, message.payload.len());
        messages.next_back().map(head)
    };
    for message in got.iter().chain(said) {
        let chunk_stream = message.chunk_stream;
        match (last(said, chunk_stream), last(got, chunk_stream)) {
            (None, got) => assert!(matches!(got, Some((0, 0, ..))), "{name}: {chunk_stream} is ours alone"),
            (said, got) => assert_eq!(said, got, "{name}: chunk stream {chunk_stream}"),
        }
    }
}

#[test]
fn the_chunk_size_and_the_window_are_those_of_the_client() {
    let controls = |window, chunk_size| {
        let (_, messages) = OriginSession::start(&connect(), Asked { window, ..play() }, chunk_size);
        let controls = messages.iter().skip(1).map(|message| Control::parse(message).unwrap());
        controls.collect::<Vec<_>>()
    };
    let own = [Control::WindowAcknowledgementSize(5_000_000), Control::SetChunkSize(4096)];
    assert_eq!(controls(Some(5_000_000), 4096), own);
    assert_eq!(controls(None, 128), [Control::WindowAcknowledgementSize(WINDOW)]);
}

#[test]
fn the_buffer_of_a_player_is_told_before_its_request() {
    let Request::Play(without) = play().request else { panic!("a player plays") };
    let request = Request::Play(Play { buffer: Some(3000), ..without });
    let (session, _) = OriginSession::start(&connect(), Asked { request, ..play() }, 128);
    let mut session = advance(session, OriginStep::CreateStream);
    let created = Command::result(transaction::CREATE_STREAM, Value::Null, f64::from(STREAM).into());
    let told = sent(session.apply(created.to_message()).unwrap());
    let buffer = Event::SetBufferLength { stream: STREAM, milliseconds: 3000 };
    assert_eq!(told.first(), Some(&Control::UserControl(buffer).to_message()));
    assert_eq!(told.last(), Some(&play().message));
}

#[test]
fn a_busy_stream_is_refused_before_the_client_is_told_anything() {
    let outcome = replay(BUSY);
    assert_eq!(outcome.session.step(), OriginStep::Start);
    assert_eq!(outcome.to_client, []);
    let refusal = outcome.session.closed();
    assert_eq!(refusal.description, "origin refused the stream: it is busy or not allowed");
}

#[test]
fn a_player_that_srs_redirects_is_redirected_after_its_start() {
    let outcome = replay(REDIRECT);
    assert_eq!(outcome.redirect.as_deref(), Some("rtmp://127.0.0.1:21937/live"));
    assert_eq!(outcome.session.step(), OriginStep::Ended);
    let told: Vec<_> = outcome.told().iter().map(name_of).collect();
    assert_eq!(told, ["", "onStatus", "onStatus", ""]);
}

#[test]
fn a_redirection_of_the_connection_is_followed_in_either_form() {
    for name in ["_error", "onStatus"] {
        for transaction in [0.0, 1.0] {
            let (mut session, _) = OriginSession::start(&connect(), play(), 128);
            let answer = Command { transaction, ..redirection(name, "rtmp://1.2.3.4:1935/live") };
            let url = "rtmp://1.2.3.4:1935/live".to_owned();
            assert_eq!(
                session.apply(answer.to_message()),
                Ok(vec![OriginEffect::Redirect { url }]),
                "{name}"
            );
            assert_eq!(session.step(), OriginStep::Ended);
            assert_eq!(session.apply(answer.to_message()), Ok(Vec::new()));
        }
    }
}

#[test]
fn an_address_that_cannot_stand_in_a_log_is_no_redirection() {
    for url in ["", "rtmp://h/\n", &"r".repeat(1025)] {
        let mut session = started_at(OriginStep::Connect);
        let effects = session.apply(redirection("_error", url).to_message()).unwrap();
        let [OriginEffect::Refused(refusal)] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(refusal.code.as_ref().unwrap(), &code::CONNECT_REJECTED);
    }
}

#[test]
fn an_error_at_any_step_is_a_refusal_with_the_origins_words() {
    let error = on_status(Level::Error, "NetStream.Play.StreamNotFound", "no such stream", &[]);
    let words =
        Refusal { code: Some("NetStream.Play.StreamNotFound".into()), description: "no such stream".into() };
    for step in [OriginStep::Connect, OriginStep::CreateStream, OriginStep::Start] {
        for name in ["_error", "onStatus"] {
            let mut session = started_at(step);
            let error = Command { name: name.into(), transaction: 4.0, ..error.clone() };
            let effects = session.apply(error.to_message_on(STREAM, 5));
            assert_eq!(effects, Ok(vec![OriginEffect::Refused(words.clone())]), "{name} at {step:?}");
        }
    }
}

#[test]
fn an_error_without_words_is_a_refusal() {
    let error = Command::new("_error", 1.0, Vec::new()).to_message();
    let effects = started_at(OriginStep::Connect).apply(error).unwrap();
    let refusal = Refusal { code: None, description: "origin refused".into() };
    assert_eq!(effects, [OriginEffect::Refused(refusal)]);
}

#[test]
fn an_origin_that_releases_nothing_refuses_nothing() {
    for transaction in [transaction::RELEASE_STREAM, transaction::FC_PUBLISH] {
        let mut session = started_at(OriginStep::CreateStream);
        let error = Command::new("_error", transaction, Vec::new()).to_message();
        assert_eq!(session.apply(error), Ok(Vec::new()));
        assert_eq!(session.step(), OriginStep::CreateStream);
    }
}

#[test]
fn an_error_after_the_start_is_for_the_client() {
    let mut session = started_at(OriginStep::Started);
    let error = on_status(Level::Error, "NetStream.Play.Failed", "later", &[]).to_message_on(STREAM, 5);
    assert_eq!(session.apply(error.clone()), Ok(vec![OriginEffect::Relay(error)]));
}

#[test]
fn pings_are_answered_until_the_stream_starts() {
    let ping = Control::UserControl(Event::PingRequest { timestamp: 7 }).to_message();
    let pong = Control::UserControl(Event::PingResponse { timestamp: 7 }).to_message();
    for step in [OriginStep::Connect, OriginStep::CreateStream, OriginStep::Start] {
        assert_eq!(started_at(step).apply(ping.clone()), Ok(vec![OriginEffect::Send(pong.clone())]));
    }
    assert_eq!(started_at(OriginStep::Started).apply(ping.clone()), Ok(vec![OriginEffect::Relay(ping)]));
}

#[test]
fn a_client_is_not_told_twice_that_its_bandwidth_was_measured() {
    let done = Command::new("onBWDone", 0.0, Vec::new()).to_message();
    for step in [OriginStep::Connect, OriginStep::CreateStream, OriginStep::Start] {
        let mut session = started_at(step);
        assert_eq!(session.apply(done.clone()), Ok(Vec::new()));
        let said = start(&mut advance(session, OriginStep::Start));
        assert!(!said.contains(&done), "said at {step:?}");
    }
}

#[test]
fn sizes_that_the_client_does_not_know_reach_it() {
    let news = [
        Control::SetChunkSize(4096),
        Control::WindowAcknowledgementSize(1_000_000),
        Control::SetPeerBandwidth { window: 1_000_000, limit: BandwidthLimit::Hard },
    ];
    let known = [
        Control::SetChunkSize(4096),
        Control::WindowAcknowledgementSize(WINDOW),
        Control::SetPeerBandwidth { window: WINDOW, limit: BandwidthLimit::Dynamic },
        Control::Acknowledgement(9),
        Control::Abort { chunk_stream: 3 },
    ];
    let mut session = started_at(OriginStep::Connect);
    for control in news.iter().chain(&known) {
        assert_eq!(session.apply(control.to_message()), Ok(Vec::new()));
    }
    let said = start(&mut advance(session, OriginStep::Start));
    assert_eq!(said[..3], news.map(|control| control.to_message()));
    assert_eq!(without_fillers(&said).len(), 4);
}

#[test]
fn the_chunk_size_of_srs_is_the_one_that_clients_were_told() {
    let mut session = started_at(OriginStep::Connect);
    session.apply(Control::SetChunkSize(CHUNK_SIZE).to_message()).unwrap();
    let said = start(&mut advance(session, OriginStep::Start));
    assert_eq!(without_fillers(&said).len(), 1);
}

#[test]
fn media_without_a_start_is_one() {
    let media = Message { chunk_stream: 6, timestamp: 0, kind: kind::VIDEO, stream: 1, payload: vec![0x17] };
    let mut session = started_at(OriginStep::Start);
    let effects = session.apply(media.clone()).unwrap();
    let [OriginEffect::Started(said)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(said.first(), Some(&media));
    assert_eq!(session.step(), OriginStep::Flowing);
    assert_eq!(session.apply(media.clone()), Ok(vec![OriginEffect::Relay(media.clone())]));
    assert_eq!(started_at(OriginStep::CreateStream).apply(media), Ok(Vec::new()));
}

#[test]
fn a_player_is_joined_no_earlier_than_its_first_media() {
    let mut session = started_at(OriginStep::Started);
    let message = |kind| Message { chunk_stream: 6, timestamp: 0, kind, stream: 1, payload: vec![0x17] };
    for (kind, step) in [(kind::DATA_AMF0, OriginStep::Started), (kind::AUDIO, OriginStep::Flowing)] {
        assert_eq!(session.apply(message(kind)), Ok(vec![OriginEffect::Relay(message(kind))]));
        assert_eq!(session.step(), step);
    }
}

#[test]
fn another_message_stream_than_the_clients_cannot_be_joined() {
    for answer in [Value::from(2.0), Value::Null] {
        let mut session = started_at(OriginStep::CreateStream);
        let result = Command::result(transaction::CREATE_STREAM, Value::Null, answer).to_message();
        assert_eq!(session.apply(result), Err(OriginFault::Stream));
    }
}

#[test]
fn an_origin_that_talks_without_end_is_left() {
    let event = Control::UserControl(Event::StreamDry { stream: 1 }).to_message();
    let mut session = started_at(OriginStep::Connect);
    for _ in 0..MAX_MESSAGES {
        assert_eq!(session.apply(event.clone()), Ok(Vec::new()));
    }
    assert_eq!(session.apply(event.clone()), Err(OriginFault::TooMuch));

    let mut session = started_at(OriginStep::Start);
    for _ in 0..MAX_HELD_MESSAGES {
        assert_eq!(session.apply(event.clone()), Ok(Vec::new()));
    }
    assert_eq!(session.apply(event), Err(OriginFault::TooMuch));

    let data = Message {
        chunk_stream: 5,
        timestamp: 0,
        kind: kind::DATA_AMF0,
        stream: 1,
        payload: vec![0; 1 << 20],
    };
    let mut session = started_at(OriginStep::Start);
    for _ in 0..MAX_HELD_BYTES >> 20 {
        assert_eq!(session.apply(data.clone()), Ok(Vec::new()));
    }
    assert_eq!(session.apply(data), Err(OriginFault::TooMuch));
}

#[test]
fn a_malformed_command_of_an_origin_is_its_fault() {
    let malformed = Message { payload: vec![2, 0], ..Command::new("", 0.0, Vec::new()).to_message() };
    assert!(matches!(started_at(OriginStep::Connect).apply(malformed), Err(OriginFault::Command(_))));
}

#[test]
fn both_sides_of_the_proxy_understand_each_other() {
    for (name, transcript) in PUBLISHERS.iter().chain(PLAYERS) {
        let (connect, wanted) = asked_by(transcript);
        let mut origin = ClientSession::new(server());
        let (mut session, mut to_origin) = OriginSession::start(&connect, wanted.clone(), 128);
        let mut asked = None;
        while !to_origin.is_empty() {
            let effects: Vec<_> = to_origin.drain(..).flat_map(|m| origin.apply(m).unwrap()).collect();
            for effect in effects {
                match effect {
                    ClientEffect::Send(message) => to_origin.extend(sent(session.apply(message).unwrap())),
                    ClientEffect::Connected(kept) => assert_eq!(kept, connect, "{name}"),
                    ClientEffect::Requested(same) => asked = Some(same),
                }
            }
        }
        assert_eq!(origin.step(), ClientStep::Origin, "{name}");
        let asked = asked.expect("the origin is asked");
        assert_eq!((asked.request, asked.message), (wanted.request, wanted.message), "{name}");
        let said = origin.accepted(Vec::new()).to_client;
        let effects: Vec<_> = said.iter().flat_map(|m| session.apply(m.clone()).unwrap()).collect();
        assert!(matches!(effects[0], OriginEffect::Started(_)), "{name}: {effects:?}");
    }
}

/// A conversation as it would have been with the proxy in between.
struct Outcome {
    session: OriginSession,
    answers: Vec<Message>,
    to_origin: Vec<Message>,
    held: Vec<Message>,
    to_client: Vec<Message>,
    redirect: Option<String>,
}

impl Outcome {
    /// What the client was told but for fillers.
    fn told(&self) -> Vec<Message> {
        without_fillers(&self.to_client)
    }
}

fn without_fillers(messages: &[Message]) -> Vec<Message> {
    let is_filler = |message: &&Message| {
        let is_known = Control::parse(message) == Ok(Control::SetChunkSize(CHUNK_SIZE));
        is_known || name_of(message).starts_with("_fill")
    };
    messages.iter().filter(|message| !is_filler(message)).cloned().collect()
}

/// Plays both peers of a transcript: the client up to the request, and SRS, whose results get our transaction ids.
fn replay(transcript: &str) -> Outcome {
    let mut client = ClientSession::new(server());
    let said = transcript::of(From::Client, transcript).into_iter();
    let (answers, connect, asked) = asked(said.flat_map(|message| client.apply(message).unwrap()));
    let (session, to_origin) = OriginSession::start(&connect, asked, 128);
    let (held, to_client, redirect) = (Vec::new(), Vec::new(), None);
    let mut outcome = Outcome { session, answers, to_origin, held, to_client, redirect };
    let mut client = Some(client);
    let mut results = 0;
    for message in transcript::of(From::Server, transcript) {
        let message = with_our_transaction(message, &mut results, &outcome);
        for effect in outcome.session.apply(message).unwrap() {
            match effect {
                OriginEffect::Send(message) => outcome.to_origin.push(message),
                OriginEffect::Started(said) => {
                    let accepted = client.take().expect("a stream starts once").accepted(said);
                    outcome.to_client.extend(accepted.to_client);
                    outcome.held = accepted.to_origin;
                }
                OriginEffect::Relay(message) => outcome.to_client.push(message),
                OriginEffect::Redirect { url } => outcome.redirect = Some(url),
                OriginEffect::Refused(refusal) => panic!("{refusal:?}"),
            }
        }
    }
    outcome
}

/// The results of `connect`, then of what was sent next, in order: SRS answers in order too.
fn with_our_transaction(message: Message, results: &mut usize, outcome: &Outcome) -> Message {
    let Ok(mut command) = Command::parse(&message) else { return message };
    if command.name != "_result" {
        return message;
    }
    let sent = outcome.to_origin.iter().filter_map(|message| Command::parse(message).ok());
    command.transaction = sent.map(|command| command.transaction).nth(*results).expect("SRS was asked");
    *results += 1;
    command.to_message_on(message.stream, message.chunk_stream)
}

fn asked_by(transcript: &str) -> (Connect, Asked) {
    let mut client = ClientSession::new(server());
    let said = transcript::of(From::Client, transcript).into_iter();
    let (_, connect, asked) = asked(said.flat_map(|message| client.apply(message).unwrap()));
    (connect, asked)
}

fn asked(effects: impl Iterator<Item = ClientEffect>) -> (Vec<Message>, Connect, Asked) {
    let (mut answers, mut connect, mut asked) = (Vec::new(), None, None);
    for effect in effects {
        match effect {
            ClientEffect::Connected(kept) => connect = Some(kept),
            ClientEffect::Requested(named) => asked = Some(named),
            ClientEffect::Send(message) => answers.push(message),
        }
    }
    (answers, connect.expect("the client connects"), asked.expect("the client names a stream"))
}

/// What SRS said to the client after the last result, but for a redirection.
fn after_result(transcript: &str) -> Vec<Message> {
    let theirs = transcript::of(From::Server, transcript);
    let last = theirs.iter().rposition(|message| name_of(message) == "_result").unwrap();
    theirs[last + 1..].to_vec()
}

fn name_of(message: &Message) -> String {
    Command::parse(message).map(|command| command.name.to_string()).unwrap_or_default()
}

fn sent(effects: Vec<OriginEffect>) -> Vec<Message> {
    let messages = effects.into_iter().map(|effect| match effect {
        OriginEffect::Send(message) => message,
        OriginEffect::Started(_)
        | OriginEffect::Relay(_)
        | OriginEffect::Redirect { .. }
        | OriginEffect::Refused(_) => panic!("{effect:?}"),
    });
    messages.collect()
}

fn redirection(name: &str, url: &str) -> Command {
    let ex = Properties::from([("code", 302.0.into()), ("redirect", url.into())]);
    let mut command = on_status(Level::Error, code::CONNECT_REJECTED, "RTMP 302 Redirect", &[]);
    if let Some(Value::Object(info)) = command.args.first_mut() {
        info.push("ex".into(), ex.into());
    }
    Command { name: name.into(), ..command }
}

/// A player's session that has come to `step`.
fn started_at(step: OriginStep) -> OriginSession {
    let (session, _) = OriginSession::start(&connect(), play(), 128);
    advance(session, step)
}

fn advance(mut session: OriginSession, step: OriginStep) -> OriginSession {
    let answers = [
        Command::result(transaction::CONNECT, Value::Null, Value::Null),
        Command::result(transaction::CREATE_STREAM, Value::Null, f64::from(STREAM).into()),
        on_status(Level::Status, code::PLAY_START, "", &[]),
    ];
    for answer in answers {
        if session.step() != step {
            session.apply(answer.to_message_on(STREAM, 5)).unwrap();
        }
    }
    assert_eq!(session.step(), step);
    session
}

/// What a player's origin is found to have said when it says that the stream starts.
fn start(session: &mut OriginSession) -> Vec<Message> {
    let answer = on_status(Level::Status, code::PLAY_START, "", &[]).to_message_on(STREAM, 5);
    let effect = session.apply(answer).unwrap().swap_remove(0);
    let OriginEffect::Started(said) = effect else { panic!("{effect:?}") };
    said
}

fn connect() -> Connect {
    asked_by(PLAYERS[0].1).0
}

fn play() -> Asked {
    let message = Command::new("play", 4.0, vec!["s1".into()]).to_message_on(STREAM, 8);
    let play = Play { name: "s1".into(), start: None, duration: None, reset: None, buffer: None };
    Asked { request: Request::Play(play), message, fillers: Vec::new(), window: None }
}

fn server() -> ServerName {
    ServerName {
        signature: "srs-xproxy".to_owned(),
        version: "1.0.0".to_owned(),
        connection: "abc".to_owned(),
    }
}
