//! Two processes in one: the second takes over from the first, or finds what it left.

use std::path::Path;

use super::*;
use crate::{
    config::{Lifecycle, OnStop},
    lifecycle::owner::tests::TestDir,
    session::{SessionId, SessionOffer, record::Record},
};

fn settings(dir: &Path, take_over: bool) -> Lifecycle {
    Lifecycle {
        on_stop: OnStop::Keep,
        orphan_timeout: Duration::from_secs(600),
        runtime_dir: Some(dir.to_owned()),
        take_over,
    }
}

fn record() -> Record {
    Record {
        offer: SessionOffer::example("v/live/a", "ab12cd34:cl+/"),
        media: "10.0.1.1:8000".parse().unwrap(),
        source: "10.0.1.254:61007".parse().unwrap(),
        born: SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000),
        path: None,
        used_tcp: false,
    }
}

fn ledger(startup: &Startup) -> Ledger {
    Ledger::new(Box::new(startup.record_files().unwrap().unwrap()), None)
}

/// Gives what `home` has and `estate` to the next visitor.
async fn hand_over(home: &Home, estate: &Estate) -> Result<(), HandoverError> {
    let mut channel = home.visitor().await;
    channel.extend(TAKE);
    let parcel = Parcel { sockets: home.share().unwrap(), state: estate.encode() };
    let given = tokio::task::spawn_blocking(move || {
        channel.give(&parcel)?;
        channel.let_go()
    });
    given.await.unwrap()
}

#[tokio::test]
async fn a_process_takes_over_state_lock_and_doorbell() {
    let dir = TestDir::new("take-over");
    let first = Startup::begin(&settings(dir.0.path(), false)).unwrap();
    let (first, nothing) = first.commit(None).await.unwrap();
    assert_eq!(nothing, Estate::default());
    let first = first.unwrap();
    let estate = Estate { sessions: vec![(SessionId(7), record())], next_session: 8, ..Estate::default() };
    let path = dir.0.path().to_owned();
    let second = tokio::task::spawn_blocking(move || Startup::begin(&settings(&path, true)).unwrap());
    let giving = hand_over(&first, &estate);
    let taking = async { second.await.unwrap().commit(None).await.unwrap() };
    let (given, (second, taken)) = tokio::join!(giving, taking);
    given.unwrap();
    assert_eq!(taken, estate);
    drop(first);
    assert!(dir.0.holder().unwrap().is_some(), "the lock went over");
    // The doorbell too: a third process reaches the second one.
    let path = dir.0.path().to_owned();
    let third = tokio::task::spawn_blocking(move || Startup::begin(&settings(&path, true)).unwrap());
    let second = second.unwrap();
    let taking = async { third.await.unwrap().commit(None).await.unwrap() };
    let (given, (_, taken)) = tokio::join!(hand_over(&second, &estate), taking);
    given.unwrap();
    assert_eq!(taken, estate);
}

#[tokio::test]
async fn a_take_over_that_fails_before_the_old_process_let_go_changes_nothing() {
    let dir = TestDir::new("failed-take-over");
    let first = Startup::begin(&settings(dir.0.path(), false)).unwrap();
    let first = first.commit(None).await.unwrap().0.unwrap();
    let path = dir.0.path().to_owned();
    // It gets everything and dies.
    let second = tokio::task::spawn_blocking(move || drop(Startup::begin(&settings(&path, true)).unwrap()));
    let estate = Estate::default();
    let (given, _) = tokio::join!(hand_over(&first, &estate), second);
    assert!(matches!(given, Err(HandoverError::Gone)), "{given:?}");
    assert!(dir.0.holder().unwrap().is_some());
    let path = dir.0.path().to_owned();
    let third = tokio::task::spawn_blocking(move || Startup::begin(&settings(&path, true)).unwrap());
    let taking = async { third.await.unwrap().commit(None).await.unwrap() };
    tokio::join!(hand_over(&first, &estate), taking).0.unwrap();
}

#[tokio::test]
async fn a_second_process_that_does_not_take_over_is_told_who_owns_the_directory() {
    let dir = TestDir::new("owned");
    let _first = Startup::begin(&settings(dir.0.path(), false)).unwrap();
    let error = Startup::begin(&settings(dir.0.path(), false)).unwrap_err();
    assert!(error.to_string().contains(&format!("process {}", std::process::id())), "{error}");
}

#[tokio::test]
async fn where_nobody_runs_there_is_nobody_to_take_over_from() {
    let dir = TestDir::new("alone");
    let startup = Startup::begin(&settings(dir.0.path(), true)).unwrap();
    assert!(startup.home.is_some() && startup.before.is_none());
}

#[tokio::test]
async fn records_are_found_by_the_next_process_and_illegible_ones_are_deleted() {
    let dir = TestDir::new("found");
    let first = Startup::begin(&settings(dir.0.path(), false)).unwrap();
    let mut records = first.record_files().unwrap().unwrap();
    records.put(SessionId(7), &record().encode().unwrap()).unwrap();
    records.put(SessionId(9), b"?").unwrap();
    drop((first, records));
    let second = Startup::begin(&settings(dir.0.path(), false)).unwrap();
    let mut records = ledger(&second);
    let (_home, estate) = second.commit(Some(&mut records)).await.unwrap();
    assert_eq!((estate.sessions, estate.next_session), (vec![(SessionId(7), record())], 10));
    assert_eq!(records.load().unwrap().len(), 1);
}

#[tokio::test]
async fn in_a_crash_loop_no_session_is_taken_over_and_its_record_goes() {
    for deaths in [0, 2, 3] {
        let dir = TestDir::new("crash-loop");
        dir.0.create().unwrap();
        for _ in 0..deaths {
            Starts::new(dir.0.starts()).note(SystemTime::now()).unwrap();
        }
        let startup = Startup::begin(&settings(dir.0.path(), false)).unwrap();
        assert_eq!(startup.is_crash_loop(), deaths == 3);
        let mut records = ledger(&startup);
        records.put(SessionId(7), &record().encode().unwrap()).unwrap();
        let (_home, estate) = startup.commit(Some(&mut records)).await.unwrap();
        let expected = usize::from(deaths < 3);
        assert_eq!((estate.sessions.len(), records.load().unwrap().len()), (expected, expected));
    }
}

#[tokio::test]
async fn a_start_that_fails_in_order_is_no_death() {
    let dir = TestDir::new("fails-in-order");
    for _ in 0..5 {
        let startup = Startup::begin(&settings(dir.0.path(), false)).unwrap();
        assert_eq!(startup.deaths, 0);
    }
}

#[tokio::test]
async fn an_end_in_order_leaves_records_and_no_doorbell() {
    let dir = TestDir::new("in-order");
    let first = Startup::begin(&settings(dir.0.path(), false)).unwrap();
    let mut records = first.record_files().unwrap().unwrap();
    records.put(SessionId(7), &record().encode().unwrap()).unwrap();
    first.commit(None).await.unwrap().0.unwrap().leave();
    assert!(!dir.0.doorbell().exists() && dir.0.records().exists());
    let second = Startup::begin(&settings(dir.0.path(), false)).unwrap();
    assert_eq!(second.deaths, 0);
}
