//! The ICE credentials that a fleet chooses.

use proxy_protocol::{ice::IcePwd, routed_ufrag::FleetKey};

use super::*;

const KEY: &str = "one key for all of a fleet";

/// Signalling of a proxy whose fleet has a key.
fn fleet_of(origins: &[&TestOrigin]) -> Rig {
    Rig::with(origins.iter().map(|origin| origin.origin.clone()).collect(), None, &config())
}

fn config() -> Config {
    Config { fleet_key: Some(config::Secret::new(KEY)), ..Config::default() }
}

fn fleet() -> Fleet {
    Fleet::new(FleetKey::new(KEY.as_bytes()))
}

/// What another proxy of the fleet reads in a ufrag.
fn read(ufrag: &str, origins: &[&TestOrigin]) -> Option<(Arc<Origin>, IcePwd)> {
    fleet().find(ufrag, origins.iter().map(|origin| origin.origin.clone()).collect())
}

#[tokio::test]
async fn whip_and_whep_sessions_have_credentials_that_lead_to_their_origin() {
    let (srs, other) =
        (TestOrigin::start("one", Manner::TakesCredentials), TestOrigin::start("two", Manner::Srs));
    let rig = fleet_of(&[&srs]);
    for target in [PUBLISH, "/rtc/v1/whep/?app=live&stream=s", "/rtc/v1/whip-play/?app=live&stream=s"] {
        assert_eq!(rig.post(target, OFFER).await.status, 201);
    }
    let offered = rig.sessions.offered.lock();
    let mut ufrags = HashSet::new();
    for (session, seen) in offered.iter().zip(srs.requests()) {
        let (origin, pwd) = read(session.ufrags().unwrap().local(), &[&other, &srs]).unwrap();
        assert_eq!((origin, pwd), (srs.origin.clone(), session.webrtc().unwrap().pwd.clone()));
        assert_eq!(seen.query("ice-ufrag"), Some(session.ufrags().unwrap().local()));
        assert_eq!(seen.query("ice-pwd"), Some(session.webrtc().unwrap().pwd.expose()));
        ufrags.insert(session.ufrags().unwrap().local().to_owned());
    }
    assert_eq!(ufrags.len(), 3, "each session has its own");
    let (added, rest) =
        srs.requests()[0].target.split_once("&app=").map(|(a, b)| (a.len(), b.to_owned())).unwrap();
    assert_eq!(added, "/rtc/v1/whip/?ice-ufrag=&ice-pwd=".len() + 64);
    assert_eq!(format!("/rtc/v1/whip/?app={rest}"), PUBLISH, "everything else is as it came");
}

#[tokio::test]
async fn the_next_origin_that_is_tried_gets_credentials_of_its_own() {
    let gone = TestOrigin::start("gone", Manner::Srs);
    let srs = TestOrigin::start("one", Manner::TakesCredentials);
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let dead = Arc::new(Origin { api: Some(closed), ..Origin::clone(&gone.origin) });
    let rig = Rig::with(vec![dead, srs.origin.clone()], None, &config());
    assert_eq!(rig.post(PUBLISH, OFFER).await.status, 201);
    let offered = rig.sessions.offered.lock();
    let (origin, _) = read(offered[0].ufrags().unwrap().local(), &[&gone, &srs]).unwrap();
    assert_eq!(origin.id, srs.origin.id);
}

#[tokio::test]
async fn what_the_origin_answers_counts_whatever_it_was_asked_for() {
    for (manner, ufrag) in [(Manner::Srs, "ab12cd34"), (Manner::Clashes, "ab12cd34")] {
        let srs = TestOrigin::start("one", manner);
        let rig = fleet_of(&[&srs]);
        assert_eq!(rig.post(PUBLISH, OFFER).await.status, 201);
        let offered = rig.sessions.offered.lock();
        assert_eq!(offered[0].ufrags().unwrap().local(), ufrag);
        assert!(read(ufrag, &[&srs]).is_none());
        let asked = srs.requests()[0].query("ice-pwd").unwrap().to_owned();
        let pwd = if matches!(manner, Manner::Clashes) { asked } else { "o".repeat(32) };
        assert_eq!(offered[0].webrtc().unwrap().pwd.expose(), pwd);
    }
}

#[tokio::test]
async fn who_chooses_credentials_and_who_speaks_json_is_left_alone() {
    let srs = TestOrigin::start("one", Manner::Srs);
    let rig = fleet_of(&[&srs]);
    let pwd = "p".repeat(32);
    for given in ["ice-ufrag=mine".to_owned(), format!("ice-pwd={pwd}")] {
        let target = format!("/rtc/v1/whip/?app=live&stream=s&{given}");
        assert_eq!(rig.post(&target, OFFER).await.status, 201);
        assert_eq!(srs.requests().pop().unwrap().target, target);
    }
    assert_eq!(rig.post("/rtc/v1/play/", &json_offer()).await.status, 200);
    assert_eq!(srs.requests().pop().unwrap().target, "/rtc/v1/play/");
}

#[tokio::test]
async fn a_delete_of_another_proxys_session_goes_to_the_origin_that_its_ufrag_names() {
    let (picked, srs) = (TestOrigin::start("picked", Manner::Srs), TestOrigin::start("one", Manner::Srs));
    let rig = fleet_of(&[&picked, &srs]);
    let session = format!("{}:cl+/", fleet().credentials(&srs.origin).ufrag);
    let location = format!("/rtc/v1/whip/?action=delete&token=t+/&app=live&stream=s&session={session}");
    assert_eq!(rig.send("DELETE", &location, "", "").await.status, 200);
    assert_eq!(srs.requests()[0].target, location, "without credentials, and as it came");
    assert!(picked.requests().is_empty());
    assert_eq!(rig.sessions.deleted.lock()[0].as_str(), session);
}
