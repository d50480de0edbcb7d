use proptest::prelude::*;

use super::*;

const GO: &str = include_str!("../go_proxy.tsv");

fn of_go(key: &str) -> &'static [u8] {
    let mut lines = GO.lines().filter(|line| !line.starts_with('#')).map(|line| line.splitn(3, '\t'));
    lines.find_map(|mut parts| (parts.next() == Some(key)).then(|| parts.nth(1).unwrap().as_bytes())).unwrap()
}

fn origin() -> Origin {
    let at = |port: u16| Some(SocketAddr::from(([10, 0, 0, 9], port)));
    Origin {
        id: OriginId::new("vid-46p14mm", "z2s3w865", "42583"),
        server: "vid-46p14mm".into(),
        device_id: "origin2".into(),
        ip: [10, 0, 0, 9].into(),
        rtmp: at(1935),
        http: at(8080),
        api: at(1985),
        srt: at(10080),
        rtc: at(8000),
        rtc_tcp: at(8000),
    }
}

#[test]
fn reads_what_the_go_proxy_wrote_and_writes_the_same() {
    for (key, id) in [
        ("srs-proxy-server:vid-46p14mm-z2s3w865-42583", OriginId::new("vid-46p14mm", "z2s3w865", "42583")),
        ("srs-proxy-server:vid-bare-s-7", OriginId::new("vid-bare", "s", "7")),
    ] {
        let value = of_go(key);
        let stored = StoredOrigin::parse(&id, value).unwrap();
        assert_eq!(String::from_utf8(stored.to_json().unwrap()).unwrap(), str::from_utf8(value).unwrap());
    }
}

#[test]
fn an_origin_of_the_go_proxy_serves_where_it_registered() {
    let id = OriginId::new("vid-46p14mm", "z2s3w865", "42583");
    let stored = StoredOrigin::parse(&id, of_go("srs-proxy-server:vid-46p14mm-z2s3w865-42583")).unwrap();
    let origin = stored.origin(stored.address().unwrap()).unwrap();
    assert_eq!((origin.id, origin.device_id.as_str()), (id, "origin2"));
    let at = |port: u16| Some(SocketAddr::from(([127, 0, 0, 1], port)));
    assert_eq!([origin.rtmp, origin.http, origin.api], [at(19352), at(18999), at(18999)]);
    assert_eq!([origin.srt, origin.rtc, origin.rtc_tcp], [at(10082), at(8001), at(8001)]);
}

#[test]
fn an_origin_is_written_as_the_go_proxy_would() {
    let time = SystemTime::UNIX_EPOCH;
    let json = StoredOrigin::new(&origin(), time).to_json().unwrap();
    assert_eq!(
        String::from_utf8(json).unwrap(),
        "{\"ip\":\"10.0.0.9\",\"device_id\":\"origin2\",\"server_id\":\"vid-46p14mm\",\"service_id\":\"z2s3w865\",\
         \"pid\":\"42583\",\"rtmp\":[\"1935\"],\"http\":[\"8080\"],\"api\":[\"1985\"],\"srt\":[\"udp://0.0.0.0:10080\"],\
         \"rtc\":[\"udp://0.0.0.0:8000\",\"tcp://0.0.0.0:8000\"],\"update_at\":\"1970-01-01T00:00:00.000000000Z\"}"
    );
    let bare = Origin {
        http: None,
        api: None,
        srt: None,
        rtc: None,
        rtc_tcp: None,
        device_id: String::new(),
        ..origin()
    };
    let json = String::from_utf8(StoredOrigin::new(&bare, time).to_json().unwrap()).unwrap();
    assert!(!json.contains("http") && !json.contains("device_id") && !json.contains("weight"), "{json}");
}

#[test]
fn weight_and_capacity_come_after_what_go_reads() {
    let stored = StoredOrigin {
        weight: Some(3),
        capacity: Some(500),
        ..StoredOrigin::new(&origin(), SystemTime::UNIX_EPOCH)
    };
    let json = stored.to_json().unwrap();
    assert!(json.ends_with(b",\"weight\":3,\"capacity\":500}"), "{}", String::from_utf8_lossy(&json));
    assert_eq!(StoredOrigin::parse(&stored.id(), &json).unwrap(), stored);
}

#[test]
fn endpoints_elsewhere_and_of_ipv6_survive() {
    let at = |text: &str| Some(text.parse().unwrap());
    let v6 = Origin {
        ip: "fd00::9".parse().unwrap(),
        rtmp: at("[fd00::9]:1935"),
        http: at("[fd00::a]:8080"),
        api: None,
        srt: at("[fd00::9]:10080"),
        rtc: at("10.0.0.3:8000"),
        rtc_tcp: None,
        ..origin()
    };
    let stored = StoredOrigin::new(&v6, SystemTime::UNIX_EPOCH);
    assert_eq!((stored.rtmp[0].as_str(), stored.srt[0].as_str()), ("1935", "udp://0.0.0.0:10080"));
    assert_eq!(stored.origin(v6.ip).unwrap(), v6);
}

#[test]
fn what_is_no_origin_of_its_key_is_refused() {
    let id = origin().id;
    let json = StoredOrigin::new(&origin(), SystemTime::UNIX_EPOCH).to_json().unwrap();
    assert!(matches!(
        StoredOrigin::parse(&OriginId::new("a", "b", "c"), &json),
        Err(ValueError::OtherOrigin)
    ));
    for cut in 0..json.len() {
        assert!(StoredOrigin::parse(&id, &json[..cut]).is_err(), "{cut}");
    }
    let text = String::from_utf8(json.clone()).unwrap();
    for (from, to) in
        [("\"1935\"", "\"port\""), ("[\"1935\"]", "1935"), ("z2s3w865", "a\\nb"), ("\"10.0.0.9\"", "\"\"")]
    {
        assert!(StoredOrigin::parse(&id, text.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
    }
    let long = text.replacen("origin2", &"a".repeat(MAX_ORIGIN), 1);
    assert!(matches!(StoredOrigin::parse(&id, long.as_bytes()), Err(ValueError::TooLong(_))));
    assert!(StoredOrigin::parse(&id, "[".repeat(10_000).as_bytes()).is_err());
}

proptest! {
    #[test]
    fn every_origin_comes_back(
        server in "[a-z-]{1,9}", service in "[a-z0-9]{1,9}", pid in "[0-9]{1,6}", device in "[ -~]{0,9}",
        ip: IpAddr, ports: [Option<u16>; 5], elsewhere: IpAddr,
    ) {
        let at = |ip, port: Option<u16>| port.filter(|port| *port > 0).map(|port| SocketAddr::new(ip, port));
        prop_assume!(!ip.is_unspecified() && !elsewhere.is_unspecified());
        let id = OriginId::new(&server, &service, &pid);
        let origin = Origin {
            id: id.clone(), server, device_id: device, ip, rtmp: at(ip, Some(1935)), http: at(ip, ports[0]),
            api: at(elsewhere, ports[1]), srt: at(ip, ports[2]), rtc: at(elsewhere, ports[3]), rtc_tcp: at(ip, ports[4]),
        };
        let json = StoredOrigin::new(&origin, SystemTime::now()).to_json().unwrap();
        let stored = StoredOrigin::parse(&id, &json).unwrap();
        prop_assert_eq!(stored.origin(stored.address().unwrap()).unwrap(), origin);
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let _ = StoredOrigin::parse(&origin().id, &bytes);
    }
}
