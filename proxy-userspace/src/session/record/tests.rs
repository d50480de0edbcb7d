//! Every record that is written is read as it was; whatever else there is, is refused.

use std::net::IpAddr;

use proptest::prelude::*;

use super::*;

fn tuple(port: u16) -> Tuple {
    Tuple {
        client: SocketAddr::from(([192, 0, 2, 1], port)),
        local: SocketAddr::from(([198, 51, 100, 1], 8000)),
    }
}

fn example() -> Record {
    Record {
        offer: SessionOffer::example("__defaultVhost__/live/show", "ab12cd34:cl+/"),
        media: "10.0.1.1:8000".parse().unwrap(),
        source: "10.0.1.254:61007".parse().unwrap(),
        born: SystemTime::UNIX_EPOCH + Duration::from_millis(1_790_000_000_123),
        path: Some(Path { active: tuple(5000), ifindex: 3, backups: vec![tuple(5001)] }),
        used_tcp: true,
    }
}

#[test]
fn a_record_is_read_as_it_was_written_also_from_a_place_of_fixed_size() {
    let mut bytes = example().encode().unwrap();
    assert_eq!(Record::decode(&bytes), Ok(example()));
    assert!(bytes.len() < 350, "{} bytes", bytes.len());
    bytes.resize(RECORD_SIZE, 0);
    assert_eq!(Record::decode(&bytes), Ok(example()));
}

#[test]
fn every_truncation_of_a_record_is_refused() {
    let bytes = example().encode().unwrap();
    for end in 0..bytes.len() {
        assert_eq!(Record::decode(&bytes[..end]), Err(DecodeError::Truncated), "{end}");
    }
}

#[test]
fn a_record_of_another_version_is_refused_by_its_version() {
    let mut bytes = example().encode().unwrap();
    bytes[0] = VERSION + 1;
    assert_eq!(Record::decode(&bytes), Err(DecodeError::Version(VERSION + 1)));
}

#[test]
fn an_empty_place_is_no_record() {
    assert_eq!(Record::decode(&[0; RECORD_SIZE]), Err(DecodeError::Version(0)));
}

#[test]
fn a_record_that_is_too_long_gives_up_its_spare_tuples_first() {
    let mut record = example();
    record.path.as_mut().unwrap().backups = (0..100).map(tuple).collect();
    let read = Record::decode(&record.encode().unwrap()).unwrap();
    assert_eq!(read.path.unwrap().backups, []);
}

#[test]
fn a_record_that_cannot_fit_is_refused_with_its_size() {
    let stream = format!("__defaultVhost__/live/{}", "s".repeat(900));
    let record = Record { offer: SessionOffer::example(&stream, "ab12cd34:cl+/"), ..example() };
    let Err(Oversize(size)) = record.encode() else { panic!("it fits") };
    assert!(size > RECORD_SIZE);
}

#[test]
fn the_password_is_in_no_debug_text() {
    let text = format!("{:?}", example());
    assert!(!text.contains("0123456789abcdef"), "{text}");
}

#[test]
fn every_truncation_of_the_record_of_a_call_is_refused() {
    let mut offer = SessionOffer::example_call("v/live/show", tuple(5000).client, 77);
    if let Kind::Srt(srt) = &mut offer.kind {
        srt.answer = Some(Bytes::from_static(&[7; 116]));
    }
    let record = Record { offer, used_tcp: false, ..example() };
    let bytes = record.encode().unwrap();
    assert_eq!(Record::decode(&bytes), Ok(record));
    for end in 0..bytes.len() {
        assert_eq!(Record::decode(&bytes[..end]), Err(DecodeError::Truncated), "{end}");
    }
}

prop_compose! {
    fn any_address()(v4 in any::<Option<[u8; 4]>>(), v6 in any::<[u8; 16]>(), port in any::<u16>()) -> SocketAddr {
        SocketAddr::new(v4.map_or(IpAddr::from(v6), IpAddr::from), port)
    }
}

prop_compose! {
    fn any_tuple()(client in any_address(), local in any_address()) -> Tuple {
        Tuple { client, local }
    }
}

prop_compose! {
    fn any_record()(
        stream in "[a-z]{1,20}/[a-z]{1,20}/[a-z0-9_.-]{1,40}",
        ufrags in "[a-zA-Z0-9+/]{4,32}:[a-zA-Z0-9+/]{4,32}",
        endpoints in proptest::collection::vec(proptest::option::of(any_address()), 7),
        (media, source, client) in (any_address(), any_address(), any_address()),
        millis in 0..u64::MAX / 4,
        device in ".{0,40}",
        (used_tcp, tells) in any::<(bool, bool)>(),
        call in proptest::option::of((
            any_tuple(),
            any::<[u32; 3]>(),
            proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200)),
        )),
        path in proptest::option::of((any_tuple(), any::<u32>(), proptest::collection::vec(any_tuple(), 0..8))),
    ) -> Record {
        let mut offer = SessionOffer::example(&stream, &ufrags);
        let origin = Arc::make_mut(&mut offer.origin);
        (origin.rtmp, origin.http, origin.api) = (endpoints[0], endpoints[1], endpoints[2]);
        (origin.srt, origin.rtc, origin.ip) = (endpoints[3], endpoints[4], media.ip());
        origin.device_id = device;
        origin.rtc_tcp = endpoints[5];
        (offer.stream, offer.role) = (offer.stream.filter(|_| tells), offer.role.filter(|_| tells));
        offer.client_ip = client.ip();
        match (&mut offer.kind, call) {
            (Kind::WebRtc(webrtc), None) => webrtc.tcp = endpoints[6],
            (kind, Some((tuple, [ifindex, caller, cookie], answer))) => {
                let (caller, answer) = (SocketId(caller), answer.map(Bytes::from));
                *kind = Kind::Srt(Srt { tuple, ifindex, caller, cookie, answer });
            }
            (Kind::Srt(_), None) => {}
        }
        Record {
            offer,
            media,
            source,
            born: SystemTime::UNIX_EPOCH + Duration::from_millis(millis),
            path: path.map(|(active, ifindex, backups)| Path { active, ifindex, backups }),
            used_tcp,
        }
    }
}

proptest! {
    #[test]
    fn any_record_is_read_as_it_was_written(record in any_record()) {
        prop_assert_eq!(Record::decode(&record.encode_unbounded()), Ok(record));
    }

    #[test]
    fn any_bytes_are_a_record_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..RECORD_SIZE)) {
        let mut bytes = bytes;
        if let Some(first) = bytes.first_mut() {
            *first = VERSION;
        }
        if let Ok(record) = Record::decode(&bytes) {
            prop_assert_eq!(Record::decode(&record.encode_unbounded()), Ok(record));
        }
    }
}
