use super::*;
use crate::rtmp::amf0::Properties;

#[test]
fn connect_keeps_the_whole_command() {
    let command = connect_command("rtmp://cdn.example.com/live?vhost=a", &[true.into(), "x".into()]);
    let connect = Connect::new(command.clone()).unwrap();
    assert_eq!(connect.command(), &command);
    assert_eq!(connect.tc_url(), &"rtmp://cdn.example.com/live?vhost=a");
    assert_eq!(connect.text("app").unwrap(), &"live");
    assert_eq!(connect.text("pageUrl"), None);
    assert_eq!(connect.object_encoding(), 3.0);
}

#[test]
fn connect_needs_an_address() {
    assert_eq!(Connect::new(Command::new("connect", 1.0, Vec::new())), Err(RequestError::NoTcUrl));
    let numeric = Command {
        object: Properties::from([("tcUrl", 1.0.into())]).into(),
        ..Command::new("connect", 1.0, Vec::new())
    };
    assert_eq!(Connect::new(numeric), Err(RequestError::NoTcUrl));
    let long = connect_command(&"r".repeat(MAX_NAME + 1), &[]);
    assert_eq!(Connect::new(long), Err(RequestError::TooLong));
}

#[test]
fn reads_a_publish_command() {
    for (args, publish_type) in [
        (vec!["s1?token=x".into(), "record".into()], Some("record".into())),
        (vec!["s1?token=x".into()], None),
    ] {
        let command = Command::new("publish", 5.0, args);
        let publish = Publish::new(&command, PublishOrder::Fmle).unwrap();
        assert_eq!(publish.name, "s1?token=x");
        assert_eq!(publish.publish_type, publish_type);
    }
}

#[test]
fn reads_a_play_command() {
    let name = || Value::from("s1");
    for (args, start, duration, reset) in [
        (vec![name()], None, None, None),
        (vec![name(), (-2000.0).into()], Some(-2000.0), None, None),
        (vec![name(), (-1.0).into(), 9.0.into()], Some(-1.0), Some(9.0), None),
        (vec![name(), 0.0.into(), (-1.0).into(), false.into()], Some(0.0), Some(-1.0), Some(false)),
    ] {
        let command = Command::new("play", 4.0, args);
        let play = Play::new(&command, Some(3000)).unwrap();
        assert_eq!(
            (play.start, play.duration, play.reset, play.buffer),
            (start, duration, reset, Some(3000))
        );
    }
}

#[test]
fn a_reset_may_be_a_number_and_arguments_may_be_left_out() {
    let args = vec!["s1".into(), Value::Null, Value::Undefined, 1.0.into()];
    let play = Play::new(&Command::new("play", 0.0, args), None).unwrap();
    assert_eq!((play.start, play.duration, play.reset), (None, None, Some(true)));
}

#[test]
fn arguments_of_wrong_types_are_refused() {
    let play = |args: &[Value]| Play::new(&Command::new("play", 0.0, args.to_vec()), None).err();
    let publish =
        |args: &[Value]| Publish::new(&Command::new("publish", 0.0, args.to_vec()), PublishOrder::Flash);
    assert_eq!(play(&[]), Some(RequestError::NoStream));
    assert_eq!(play(&[1.0.into()]), Some(RequestError::NoStream));
    assert_eq!(play(&["s1".into(), "0".into()]), Some(RequestError::Argument));
    assert_eq!(play(&["s1".into(), 0.0.into(), 0.0.into(), "".into()]), Some(RequestError::Argument));
    assert_eq!(play(&["s".repeat(MAX_NAME + 1).as_str().into()]), Some(RequestError::TooLong));
    assert_eq!(publish(&["s1".into(), 1.0.into()]), Err(RequestError::Argument));
    assert_eq!(publish(&[Value::Null]), Err(RequestError::NoStream));
}

#[test]
fn the_key_comes_from_both_commands() {
    let rules = StreamRules { vhosts: vec!["cdn.example.com".to_owned()], go_compatible: false };
    for (tc_url, name, key) in [
        ("rtmp://1.2.3.4:11935/live", "s1?token=x", "__defaultVhost__/live/s1"),
        ("rtmp://cdn.example.com/live", "s1", "cdn.example.com/live/s1"),
        ("rtmp://1.2.3.4/live...vhost...cdn.example.com", "s1", "cdn.example.com/live/s1"),
        ("rtmp://1.2.3.4/live/_definst_?vhost=cdn.example.com", "s1", "cdn.example.com/live/s1"),
        ("rtmp://1.2.3.4/live?token=x/s1", "", "__defaultVhost__/live/s1"),
        ("rtmp://1.2.3.4/live/s1", "", "__defaultVhost__/live/s1"),
    ] {
        let connect = Connect::new(connect_command(tc_url, &[])).unwrap();
        let found = connect.stream_key(&rules, &name.into());
        assert_eq!(found.as_ref().map(StreamKey::as_str), Ok(key), "{tc_url} and {name}");
    }
}

#[test]
fn a_name_that_is_not_utf8_has_the_key_that_its_url_has() {
    let rules = StreamRules::default();
    let connect = Connect::new(connect_command("rtmp://h/live", &[])).unwrap();
    let key = connect.stream_key(&rules, &Text::from(&b"\xB2\xE2"[..]));
    assert_eq!(key, rules.http(None, "/live/%B2%E2.flv", None));
}

fn connect_command(tc_url: &str, args: &[Value]) -> Command {
    let object =
        Properties::from([("app", "live".into()), ("tcUrl", tc_url.into()), ("objectEncoding", 3.0.into())]);
    Command { object: object.into(), ..Command::new("connect", 1.0, args.to_vec()) }
}
