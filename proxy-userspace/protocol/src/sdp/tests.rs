use proptest::prelude::*;

use super::*;

/// The answer of SRS 7.0.18 to a browser that publishes audio and video by WHIP.
const ANSWER: &str = include_str!("../../tests/data/srs_whip_answer.sdp");

/// Its answer to a browser that plays by the JSON API, with two addresses.
const PLAY_ANSWER: &str = include_str!("../../tests/data/srs_play_answer.sdp");

/// Its answer by WHIP, sound alone, with `protocol all` and TCP on a port of its own.
const TCP_ANSWER: &str = include_str!("../../tests/data/srs_whip_tcp_answer.sdp");

const ORIGIN_LINE: &str = "a=candidate:0 1 udp 2130706431 10.80.2.2 8000 typ host generation 0\r\n";

#[test]
fn reads_what_srs_answers() {
    let answer = Answer::parse(ANSWER).unwrap();
    assert_eq!(answer.ufrag().as_str(), "24yx1n3l");
    assert_eq!(answer.pwd().expose(), "kd2s5hp0932067x22634149eot9368m6");
    assert_eq!(answer.media_count(), 2);
    let origin = Candidate { transport: Transport::Udp, host: "10.80.2.2", port: 8000 };
    assert_eq!(answer.candidates(), [origin, origin]);
}

#[test]
fn reads_what_srs_answers_a_player() {
    let answer = Answer::parse(PLAY_ANSWER).unwrap();
    assert_eq!(answer.ufrag().as_str(), "78ks43b9");
    assert_eq!(answer.pwd().expose(), "94720c2j815t6s55sw05zip1n1669348");
    assert_eq!(answer.media_count(), 2);
    let [named, own] =
        ["10.80.1.1", "10.80.2.2"].map(|host| Candidate { transport: Transport::Udp, host, port: 8000 });
    assert_eq!(answer.candidates(), [named, own, named, own]);
}

#[test]
fn one_candidate_of_ours_replaces_two_of_a_play_answer() {
    let named = "a=candidate:0 1 udp 2130706431 10.80.1.1 8000 typ host generation 0\r\n";
    let own = "a=candidate:1 1 udp 2130706431 10.80.2.2 8000 typ host generation 0\r\n";
    let ours = "a=candidate:0 1 udp 2130706431 203.0.113.5 8000 typ host generation 0\r\n";
    let expected = PLAY_ANSWER.replace(&[named, own].concat(), ours);
    check_rewrite(PLAY_ANSWER, &[candidate("203.0.113.5", 8000)], &expected);
}

#[test]
fn first_of_our_candidates_is_preferred() {
    let ours = [candidate("203.0.113.5", 8000), candidate("2001:db8::5", 8001)];
    let expected = "a=candidate:0 1 udp 2130706431 203.0.113.5 8000 typ host generation 0\r\n\
                    a=candidate:1 1 udp 2130706430 2001:db8::5 8001 typ host generation 0\r\n";
    check_rewrite(ANSWER, &ours, &ANSWER.replace(ORIGIN_LINE, expected));
}

#[test]
fn every_other_byte_stays() {
    let rewritten = Answer::parse(ANSWER).unwrap().with_candidates(&[candidate("203.0.113.5", 18000)]);
    assert_eq!(rewritten.replace("203.0.113.5 18000", "10.80.2.2 8000"), ANSWER);
}

#[test]
fn bare_line_feeds_stay() {
    let unix = ANSWER.replace("\r\n", "\n");
    check_rewrite(&unix, &[candidate("203.0.113.5", 8000)], &unix.replace("10.80.2.2", "203.0.113.5"));
}

#[test]
fn many_candidates_of_the_origin_give_way_to_ours() {
    let tcp = "a=candidate:1 1 tcp 2130706431 10.80.2.2 8000 typ host tcptype passive\r\n";
    let private = "a=candidate:2 1 udp 2130706431 172.17.0.2 8000 typ host generation 0\r\n";
    let crowded = ANSWER.replace(ORIGIN_LINE, &[ORIGIN_LINE, tcp, private].concat());
    check_rewrite(&crowded, &[candidate("203.0.113.5", 8000)], &ANSWER.replace("10.80.2.2", "203.0.113.5"));
}

#[test]
fn candidates_of_srs_keep_their_transport() {
    let ours =
        OurCandidates { udp: &[candidate("203.0.113.5", 18000)], tcp: &[candidate("203.0.113.5", 18443)] };
    let answer = Answer::parse(TCP_ANSWER).unwrap();
    let [udp, tcp] = answer.candidates() else { panic!("{answer:?}") };
    assert_eq!(
        (udp.transport, udp.port, tcp.transport, tcp.port),
        (Transport::Udp, 8000, Transport::Tcp, 8443)
    );
    let expected = TCP_ANSWER
        .replace("10.80.2.2 8000", "203.0.113.5 18000")
        .replace("2130706431 10.80.2.2 8443", "2130706430 203.0.113.5 18443");
    assert_eq!(answer.with_candidates_by_transport(&ours), expected);
}

#[test]
fn tcp_candidates_of_the_origin_give_way_to_ours() {
    let tcp = "a=candidate:1 1 tcp 2130706431 10.80.2.2 8443 typ host tcptype passive\r\n";
    let ours =
        OurCandidates { udp: &[candidate("203.0.113.5", 18000)], tcp: &[candidate("203.0.113.5", 18443)] };
    let our_udp = "a=candidate:0 1 udp 2130706431 203.0.113.5 18000 typ host generation 0\r\n";
    let our_tcp = |number: u32| {
        let priority = 2_130_706_431 - number;
        format!("a=candidate:{number} 1 tcp {priority} 203.0.113.5 18443 typ host tcptype passive\r\n")
    };
    for (name, theirs, expected) in [
        ("both", [ORIGIN_LINE, tcp].concat(), [our_udp, &our_tcp(1)].concat()),
        ("TCP first", [tcp, tcp, ORIGIN_LINE].concat(), [our_udp, &our_tcp(1)].concat()),
        ("TCP alone", tcp.to_owned(), our_tcp(0)),
        ("UDP alone", ORIGIN_LINE.to_owned(), our_udp.to_owned()),
    ] {
        let text = ANSWER.replace(ORIGIN_LINE, &theirs);
        let rewritten = Answer::parse(&text).unwrap().with_candidates_by_transport(&ours);
        assert_eq!(rewritten, ANSWER.replace(ORIGIN_LINE, &expected), "{name}");
        let again = Answer::parse(&rewritten).unwrap();
        assert_eq!(again.with_candidates_by_transport(&ours), rewritten, "{name}");
    }
    let none = ANSWER.replace(ORIGIN_LINE, "");
    let rewritten = Answer::parse(&none).unwrap().with_candidates_by_transport(&ours);
    assert!(rewritten.contains(our_udp) && !rewritten.contains(" tcp "));
}

#[test]
fn only_sections_that_had_candidates_get_ours() {
    let (audio, video) = ANSWER.rsplit_once(ORIGIN_LINE).unwrap();
    let bundled = [audio, video].concat();
    check_rewrite(&bundled, &[candidate("203.0.113.5", 8000)], &bundled.replace("10.80.2.2", "203.0.113.5"));
}

#[test]
fn every_section_gets_ours_if_none_had_any() {
    let credentials = "a=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901";
    let bare = format!("v=0\r\n{credentials}\r\nm=audio 9\r\na=mid:0\r\nm=video 9\r\na=mid:1");
    let ours = "a=candidate:0 1 udp 2130706431 203.0.113.5 8000 typ host generation 0\r\n";
    let expected =
        format!("v=0\r\n{credentials}\r\nm=audio 9\r\na=mid:0\r\n{ours}m=video 9\r\na=mid:1\r\n{ours}");
    check_rewrite(&bare, &[candidate("203.0.113.5", 8000)], &expected);
}

#[test]
fn no_candidate_of_the_origin_stays_at_session_level() {
    let (session, media) = ANSWER.split_once("m=audio").unwrap();
    let odd = [session, ORIGIN_LINE, "m=audio", media].concat();
    check_rewrite(&odd, &[candidate("203.0.113.5", 8000)], &ANSWER.replace("10.80.2.2", "203.0.113.5"));
}

#[test]
fn reads_a_name_and_an_unknown_tail_of_a_candidate() {
    let mdns = ANSWER.replace("10.80.2.2 8000 typ host generation 0", "f00d.local 9 typ host ufrag 24yx1n3l");
    assert_eq!(Answer::parse(&mdns).unwrap().candidates().first().unwrap().host, "f00d.local");
}

#[test]
fn names_what_is_wrong_with_an_answer() {
    check_error("", SdpError::Version);
    check_error(r#"{"code":400}"#, SdpError::Version);
    check_error("v=0\r\ns=-\r\n", SdpError::NoMedia);
    check_error("v=0\r\nm=audio\r\n", SdpError::NoUfrag);
    check_error("v=0\r\nm=audio\r\na=ice-ufrag:abcd\r\n", SdpError::NoPwd);
    check_error("v=0\r\nm=audio\r\na=ice-ufrag:a\r\n", SdpError::Credential(IceError::Length));
    for malformed in
        ["", "0", "0 1 sctp 1 10.80.2.2 8000", "0 1 udp 1 10.80.2.2", "0 1 udp 1 10.80.2.2 65536"]
    {
        let line = format!("a=candidate:{malformed}\r\n");
        check_error(&ANSWER.replace(ORIGIN_LINE, &line), SdpError::Candidate);
    }
}

#[test]
fn offers_ufrag_is_the_first_one() {
    let offer = "v=0\r\nm=audio 9\r\na=ice-ufrag:k+/Z\r\nm=video 9\r\na=ice-ufrag:other\r\n";
    assert_eq!(offer_ufrag(offer).unwrap().as_str(), "k+/Z");
    assert_eq!(offer_ufrag("v=0\r\nm=audio 9\r\n"), Err(SdpError::NoUfrag));
}

#[test]
fn a_line_of_a_megabyte_is_kept() {
    let long = format!("a=x:{}\r\n", "y".repeat(1 << 20));
    let answer = ANSWER.replacen("a=ice-lite\r\n", &long, 1);
    check_rewrite(&answer, &[candidate("203.0.113.5", 8000)], &answer.replace("10.80.2.2", "203.0.113.5"));
}

#[test]
fn every_truncation_is_read_or_refused() {
    for answer in [ANSWER, PLAY_ANSWER] {
        (0..answer.len()).for_each(|end| touch(&answer[..end]));
    }
}

proptest! {
    #[test]
    fn our_candidates_are_read_back(ours in proptest::collection::vec(any::<(IpAddr, u16)>(), 1..6)) {
        let ours: Vec<_> = ours.into_iter().map(|(ip, port)| HostCandidate { ip, port }).collect();
        let rewritten = Answer::parse(ANSWER).unwrap().with_candidates(&ours);
        let answer = Answer::parse(&rewritten).unwrap();
        let section: Vec<_> = ours.iter().map(|ours| (ours.ip.to_string(), ours.port)).collect();
        let listed: Vec<_> = answer.candidates().iter().map(|listed| (listed.host.to_owned(), listed.port)).collect();
        prop_assert_eq!(listed, [section.clone(), section].concat());
        prop_assert_eq!(answer.with_candidates(&ours), rewritten);
    }

    #[test]
    fn mutations_are_read_or_refused(
        changes in proptest::collection::vec((0..ANSWER.len(), " |\\r|\\n|:|[a-z]"), 1..9),
    ) {
        let mut characters: Vec<String> = ANSWER.chars().map(String::from).collect();
        for (position, character) in changes {
            characters[position] = character;
        }
        touch(&characters.concat());
    }

    #[test]
    fn any_text_is_read_or_refused(text in "(v=0\\r?\\n)?((m=|a=candidate:|a=ice-ufrag:|a=ice-pwd:)?.*\\r?\\n){0,9}") {
        touch(&text);
    }
}

#[track_caller]
fn check_rewrite(answer: &str, ours: &[HostCandidate], expected: &str) {
    assert_eq!(Answer::parse(answer).unwrap().with_candidates(ours), expected);
}

#[track_caller]
fn check_error(answer: &str, expected: SdpError) {
    assert_eq!(Answer::parse(answer).unwrap_err(), expected, "{answer}");
}

fn touch(text: &str) {
    let _ = offer_ufrag(text);
    if let Ok(answer) = Answer::parse(text) {
        assert!(answer.with_candidates(&[]).len() <= text.len() + 2 * answer.media_count());
    }
}

fn candidate(ip: &str, port: u16) -> HostCandidate {
    HostCandidate { ip: ip.parse().unwrap(), port }
}
