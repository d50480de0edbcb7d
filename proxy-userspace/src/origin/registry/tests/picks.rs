//! Which origin a stream is on.

use super::*;

#[test]
fn a_stream_keeps_its_origin_while_it_is_used() {
    let mut script = Script::with_up(&["one", "two"]);
    let first = script.pick("a").unwrap();
    for second in (0..TTL).step_by(100) {
        let now = script.at(second).now();
        script.origins.refresh(&key("a"), now);
        assert_eq!(script.pick("a").unwrap(), first);
    }
}

#[test]
fn a_pick_expires_without_use() {
    let mut script = Script::with_up(&["one"]);
    script.pick("a").unwrap();
    script.at(PICK_TTL - 1).sweep();
    assert_eq!(script.status("one"), Some(("up", None, 1)));
    script.at(PICK_TTL).sweep();
    assert_eq!(script.status("one"), Some(("up", None, 0)));
}

#[test]
fn looking_for_a_stream_picks_none_and_keeps_none() {
    let mut script = Script::with_up(&["one"]);
    assert_eq!(script.picked("a"), None);
    assert_eq!(script.status("one"), Some(("up", None, 0)));
    script.pick("a").unwrap();
    script.report("one");
    assert_eq!(script.picked("a"), Some("one".into()), "it serves what it has");
    script.at(PICK_TTL - 1);
    assert!(script.picked("a").is_some());
    assert_eq!(script.at(PICK_TTL).picked("a"), None);
}

#[test]
fn the_origin_with_the_fewest_streams_is_chosen() {
    let mut script = Script::with_up(&["one", "two", "three"]);
    for n in 0..300 {
        script.pick(&n.to_string()).unwrap();
    }
    for server in ["one", "two", "three"] {
        assert_eq!(script.status(server), Some(("up", None, 100)));
    }
}

#[test]
fn sessions_that_others_have_count_too() {
    let mut script = Script::with_up(&["one", "two"]);
    script.origins.carry(&HashMap::from([(id("one", "1"), 50)]));
    for n in 0..50 {
        assert_eq!(script.pick(&n.to_string()), Ok("two".into()));
    }
    let taken: Vec<_> = (50..60).map(|n| script.pick(&n.to_string()).unwrap()).collect();
    assert!(taken.contains(&"one".into()), "they are even");
    script.origins.carry(&HashMap::new());
    assert_eq!(script.pick("more"), Ok("one".into()), "they are gone");
}

#[test]
fn an_origin_at_its_capacity_gets_no_new_stream_and_keeps_those_it_has() {
    let balancing = Balancing { capacities: vec![("*".into(), 2)], ..Balancing::default() };
    let mut script = Script::new(SETTINGS);
    script.origins = Origins::new(SETTINGS, balancing);
    script.heartbeat(origin("one", "1"));
    script.succeed("one", "1");
    script.pick("a").unwrap();
    script.pick("b").unwrap();
    assert_eq!(script.pick("c"), Err(Refusal::NoRoom));
    assert_eq!(script.pick("a"), Ok("one".into()));
    script.at(PICK_TTL).sweep();
    assert_eq!(script.pick("c"), Ok("one".into()));
}

#[test]
fn what_is_configured_counts_more_than_what_an_origin_registers_with() {
    let (weights, capacities) = (vec![("one".into(), 5), ("*".into(), 2)], vec![("one".into(), 7)]);
    let balancing = Balancing { weights, capacities, ..Balancing::default() };
    let registered = Terms { weight: 9, capacity: Some(9) };
    let terms = |server| balancing.terms(&origin(server, "1"), registered);
    assert_eq!(terms("one"), Terms { weight: 5, capacity: Some(7) });
    assert_eq!(terms("two"), Terms { weight: 2, capacity: Some(9) });
    assert_eq!(Balancing::default().terms(&origin("one", "1"), registered), registered);
}

#[test]
fn an_origin_that_drains_keeps_its_streams_and_gets_no_new_ones() {
    let mut script = Script::with_up(&["one"]);
    script.pick("old").unwrap();
    assert!(script.origins.drain(&id("one", "1"), true));
    assert!(!script.origins.drain(&id("one", "1"), true), "it does already");
    assert_eq!(script.status("one").unwrap().0, "draining");
    assert_eq!(script.pick("new"), Err(Refusal::Draining));
    assert_eq!(script.pick("old"), Ok("one".into()));
    script.heartbeat(origin("two", "1"));
    assert_eq!(script.pick("new"), Err(Refusal::Undecided), "a probe tells");
    script.succeed("two", "1");
    assert_eq!(script.pick("new"), Ok("two".into()));
    script.origins.drain(&id("one", "1"), false);
    assert_eq!(script.status("one").unwrap().0, "up");
}

#[test]
fn a_new_run_of_an_origin_that_drained_takes_streams() {
    let mut script = Script::with_up(&["one"]);
    script.origins.drain(&id("one", "1"), true);
    script.heartbeat(origin("one", "2"));
    script.succeed("one", "2");
    assert_eq!(script.pick("a"), Ok("one".into()));
}

#[test]
fn one_refused_connection_does_not_move_a_stream_that_somebody_has() {
    let mut script = Script::with_up(&["one", "two"]);
    let first = script.pick("a").unwrap();
    let now = script.now();
    script.origins.refresh(&key("a"), now);
    script.report(&first);
    assert_eq!(script.pick("a"), Err(Refusal::Undecided));
    script.succeed(&first, "1");
    assert_eq!(script.pick("a"), Ok(first.clone()));
    script.report(&first);
    script.fail(&first, "1");
    assert_ne!(script.pick("a").unwrap(), first);
}

#[test]
fn a_stream_that_nobody_has_yet_is_tried_at_another_origin_at_once() {
    let mut script = Script::with_up(&["one", "two"]);
    let first = script.pick("a").unwrap();
    script.report(&first);
    assert_ne!(script.pick("a").unwrap(), first);
}

#[test]
fn a_stream_follows_its_publisher() {
    let mut script = Script::with_up(&["one", "two"]);
    let now = script.now();
    assert!(!script.origins.move_to(&key("new"), &id("one", "1"), now), "nobody waits for it elsewhere");
    assert!(script.origins.move_to(&key("new"), &id("two", "1"), now));
    assert!(!script.origins.move_to(&key("new"), &id("two", "1"), now));
    assert_eq!(script.pick("new"), Ok("two".into()));
    assert!(!script.origins.move_to(&key("new"), &id("gone", "1"), now), "nobody knows that origin");
    assert_eq!((script.status("one").unwrap().2, script.status("two").unwrap().2), (0, 1));
}

#[test]
fn what_others_decided_is_taken_over_once_the_origin_serves() {
    let mut script = Script::with_up(&["one"]);
    let settle = |script: &mut Script, run: &str| {
        let now = script.now();
        script.origins.settle(&key("a"), &id("one", run), now)
    };
    assert_eq!(settle(&mut script, "1"), Settled::There(Arc::new(origin("one", "1"))));
    assert_eq!(script.picked("a"), Some("one".into()));
    assert_eq!(settle(&mut script, "2"), Settled::Unknown);
    script.report("one");
    assert_eq!(settle(&mut script, "1"), Settled::Undecided);
    script.fail("one", "1");
    assert_eq!(settle(&mut script, "1"), Settled::Gone);
}

#[test]
fn proxies_that_cannot_ask_agree_whatever_loads_they_know_of() {
    let mut one = Script::with_up(&["a", "b", "c"]);
    let other = Script::with_up(&["c", "a", "b"]);
    one.origins.carry(&HashMap::from([(id("a", "1"), 900)]));
    let chosen = |script: &Script, n: u32| script.origins.agree(&key(&n.to_string())).unwrap().server.clone();
    let mut all: Vec<_> = (0..64).map(|n| chosen(&one, n)).collect();
    assert!((0..64).all(|n| chosen(&one, n) == chosen(&other, n)));
    all.sort();
    all.dedup();
    assert_eq!(all, ["a", "b", "c"]);
}

#[test]
fn ties_are_broken_at_random() {
    let mut script = Script::with_up(&["one", "two"]);
    let firsts: Vec<_> = (0..64)
        .map(|_| {
            let first = script.pick("a").unwrap();
            script.origins.unpick(&key("a"));
            first
        })
        .collect();
    assert!(firsts.contains(&"one".to_owned()) && firsts.contains(&"two".to_owned()));
}

#[test]
fn a_stream_of_a_dead_origin_is_picked_anew() {
    let mut script = Script::with_up(&["one", "two"]);
    let first = script.pick("a").unwrap();
    script.fail(&first, "1");
    script.fail(&first, "1");
    let second = script.pick("a").unwrap();
    assert_ne!(first, second);
    assert_eq!(script.status(&first).unwrap().2, 0);
    script.succeed(&first, "1");
    assert_eq!(script.pick("a").unwrap(), second, "it stays");
}

#[test]
fn streams_on_their_way_count_and_go_where_they_were_proposed() {
    let mut script = Script::with_up(&["one", "two"]);
    let mut propose = |stream: &str| {
        let Script { origins, random, .. } = &mut script;
        let origin = origins.propose(&key(stream), random).unwrap();
        origins.begin_proposal(&key(stream), &origin.id);
        origin.server.clone()
    };
    let streams: Vec<_> = (0..10).map(|n| n.to_string()).collect();
    let first: Vec<_> = streams.iter().map(|stream| propose(stream)).collect();
    assert_eq!(first.iter().filter(|server| *server == "one").count(), 5);
    let again: Vec<_> = streams.iter().map(|stream| propose(stream)).collect();
    assert_eq!(again, first);
    let [stream, server] = [&streams[0], &first[0]];
    script.fail(server, "1");
    script.fail(server, "1");
    let moved = script.origins.propose(&key(stream), &mut script.random).unwrap();
    assert_ne!(moved.server, *server, "that one is down");
}
