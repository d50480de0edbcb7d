//! Two ends of a conversation in one process.

use std::{net::UdpSocket, os::fd::AsRawFd as _, thread};

use rustix::{
    net::socketpair,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

use super::*;

const PATIENCE: Duration = Duration::from_secs(10);

fn pair() -> (Channel, Channel) {
    let (a, b) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    let channel = |socket| Channel { socket, deadline: Instant::now() + PATIENCE };
    (channel(a), channel(b))
}

/// As many sockets as asked for, on one address that tells them apart from others.
fn parcel(sockets: usize, state: usize) -> (Parcel, std::net::SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap();
    let fd = OwnedFd::from(socket);
    let sockets = (0..sockets).map(|_| (Role::Source(address), fd.try_clone().unwrap())).collect();
    (Parcel { sockets, state: (0..state).map(|i| i as u8).collect() }, address)
}

fn allow_descriptors() {
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
}

#[test]
fn sockets_and_state_arrive_as_they_were_and_the_old_process_lets_go_last() {
    let (old, new) = pair();
    let (given, address) = parcel(3, 100_000);
    let state = given.state.clone();
    let giver = thread::spawn(move || {
        old.greet().unwrap();
        old.give(&given).unwrap();
        old.let_go().unwrap();
    });
    let (pid, taken) = new.take().unwrap();
    assert_eq!((pid, taken.state == state), (std::process::id(), true));
    new.claim().unwrap();
    giver.join().unwrap();
    for (role, fd) in taken.sockets {
        assert_eq!(role, Role::Source(address));
        assert_eq!(UdpSocket::from(fd).local_addr().unwrap(), address);
    }
}

#[test]
fn as_many_sockets_as_there_are_source_ports_change_hands_well_below_a_second() {
    const SOCKETS: usize = 4536;
    allow_descriptors();
    let (old, new) = pair();
    // Each with half a kilobyte of state.
    let (given, _) = parcel(SOCKETS, SOCKETS * 512);
    let start = Instant::now();
    let giver = thread::spawn(move || {
        old.greet().unwrap();
        old.give(&given).unwrap();
        old.let_go().unwrap();
    });
    let (_, taken) = new.take().unwrap();
    new.claim().unwrap();
    let took = start.elapsed();
    giver.join().unwrap();
    println!("{SOCKETS} sockets and {} bytes changed hands in {took:?}", taken.state.len());
    assert_eq!(taken.sockets.len(), SOCKETS);
    assert!(took < Duration::from_millis(500), "{took:?}");
    // Descriptors are distinct ones of this process.
    let mut numbers: Vec<_> = taken.sockets.iter().map(|(_, fd)| fd.as_raw_fd()).collect();
    numbers.dedup();
    assert_eq!(numbers.len(), SOCKETS);
}

#[test]
fn a_visitor_of_another_version_is_sent_away_with_the_reason() {
    let (old, new) = pair();
    new.send(&Message::Hello { version: VERSION + 1, pid: 1 }, &[]).unwrap();
    assert!(matches!(old.greet(), Err(HandoverError::Version(v)) if v == VERSION + 1));
    assert!(matches!(new.receive().unwrap().0, Message::Refused(reason) if reason.contains("version 1")));
}

#[test]
fn a_refusal_reaches_the_new_process() {
    let (old, new) = pair();
    let giver = thread::spawn(move || {
        old.greet().unwrap();
        old.refuse("it is stopping");
    });
    let error = new.take().unwrap_err();
    assert_eq!(error.to_string(), "it refused: it is stopping");
    giver.join().unwrap();
}

#[test]
fn a_new_process_that_dies_before_it_is_ready_leaves_the_old_one_with_an_error() {
    let (old, new) = pair();
    let (given, _) = parcel(3, 10);
    let giver = thread::spawn(move || {
        old.greet().unwrap();
        old.give(&given)
    });
    drop(new.take().unwrap());
    drop(new);
    assert!(matches!(giver.join().unwrap(), Err(HandoverError::Gone)));
}

#[test]
fn an_old_process_that_dies_before_it_lets_go_leaves_the_new_one_with_an_error() {
    let (old, new) = pair();
    let (given, _) = parcel(3, 10);
    let giver = thread::spawn(move || {
        old.greet().unwrap();
        old.give(&given).unwrap();
    });
    new.take().unwrap();
    assert!(matches!(new.claim(), Err(HandoverError::Gone)));
    giver.join().unwrap();
}

#[test]
fn garbage_and_messages_out_of_turn_end_the_conversation() {
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &Message::Ready.encode(), &[0; 100]] {
        let (old, new) = pair();
        rustix::net::send(&new.socket, bytes, SendFlags::NOSIGNAL).unwrap();
        assert!(old.greet().is_err(), "{bytes:?}");
    }
}

#[test]
fn a_message_above_the_limit_is_refused() {
    let (old, new) = pair();
    rustix::net::send(&new.socket, &[0; MAX_MESSAGE + 1], SendFlags::NOSIGNAL).unwrap();
    assert!(matches!(old.greet(), Err(HandoverError::Cut)));
}

#[test]
fn descriptors_that_nobody_named_are_refused_and_closed() {
    let (old, new) = pair();
    let (given, _) = parcel(2, 0);
    new.send(&Message::Hello { version: VERSION, pid: 1 }, &[]).unwrap();
    old.greet().unwrap();
    old.send(&Message::Manifest(Manifest { pid: 1, sockets: 1, state: 0 }), &[]).unwrap();
    let both: Vec<_> = given.sockets.iter().map(|(_, fd)| fd.as_fd()).collect();
    old.send(&Message::Sockets(vec![Role::Lock]), &both).unwrap();
    assert!(matches!(new.take(), Err(HandoverError::Cut)));
}

#[test]
fn a_manifest_that_promises_too_much_is_refused() {
    for (sockets, state) in [(MAX_SOCKETS + 1, 0), (0, MAX_STATE + 1)] {
        let (old, new) = pair();
        old.send(&Message::Manifest(Manifest { pid: 1, sockets, state }), &[]).unwrap();
        assert!(matches!(new.take(), Err(HandoverError::Cut)));
    }
}

#[test]
fn a_silent_visitor_does_not_hold_the_old_process() {
    let (mut old, _new) = pair();
    old.deadline = Instant::now() + Duration::from_millis(50);
    let HandoverError::Io(error) = old.greet().unwrap_err() else { panic!("no time limit") };
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
}

#[test]
fn a_visitor_rings_at_a_path_where_another_process_was_before() {
    let path = Path::new("/tmp").join(format!("srs-xproxy-doorbell-{}", std::process::id()));
    drop(Doorbell::bind(&path).unwrap());
    let doorbell = Doorbell::bind(&path).unwrap();
    assert_eq!(doorbell.answer(PATIENCE).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    let new = Channel::connect(&path, PATIENCE).unwrap();
    let old = doorbell.answer(PATIENCE).unwrap();
    new.send(&Message::Hello { version: VERSION, pid: 7 }, &[]).unwrap();
    assert_eq!(old.greet().unwrap(), 7);
    std::fs::remove_file(&path).unwrap();
}
