use std::collections::BTreeMap;

use rand::{SeedableRng as _, rngs::StdRng};

use super::*;
use crate::origin::OriginId;

fn origin(name: &str) -> Arc<Origin> {
    Arc::new(Origin::bare(name, OriginId::new(name, "service", "1"), [10, 0, 0, 1].into()))
}

fn stream(n: usize) -> StreamKey {
    format!("__defaultVhost__/live/s{n}").parse().unwrap()
}

/// How many of `streams` streams each origin gets, each choice seeing those before it.
fn spread(policy: Policy, weights: &[(&str, u32)], streams: usize, seed: u64) -> BTreeMap<String, u64> {
    let origins: Vec<_> = weights.iter().map(|(name, weight)| (origin(name), *weight)).collect();
    let mut loads: BTreeMap<String, u64> = weights.iter().map(|(name, _)| ((*name).into(), 0)).collect();
    let mut random = StdRng::seed_from_u64(seed);
    for n in 0..streams {
        let candidates: Vec<_> = origins
            .iter()
            .map(|(origin, weight)| Candidate {
                origin,
                terms: Terms { weight: *weight, capacity: None },
                load: loads[&origin.server],
            })
            .collect();
        let chosen = policy.choose(&candidates, &stream(n), &mut random).unwrap();
        *loads.get_mut(&chosen.server).unwrap() += 1;
    }
    loads
}

const TEN: [(&str, u32); 10] =
    [("a", 1), ("b", 1), ("c", 1), ("d", 1), ("e", 1), ("f", 1), ("g", 1), ("h", 1), ("i", 1), ("j", 1)];

#[test]
fn no_origin_has_many_more_streams_than_the_mean_although_no_proxy_sees_the_others() {
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    for proxy in 0..8 {
        for (name, streams) in spread(Policy::LessOfTwo, &TEN, 1000, proxy) {
            *sums.entry(name).or_default() += streams;
        }
    }
    let most = *sums.values().max().unwrap();
    assert!(most as f64 / 800.0 <= 1.3, "{sums:?}");
}

#[test]
fn who_knows_every_load_has_no_origin_with_more_than_one_stream_above_another() {
    let loads = spread(Policy::LeastSessions, &TEN, 995, 3);
    assert!(loads.values().all(|streams| [99, 100].contains(streams)), "{loads:?}");
}

#[test]
fn every_policy_that_knows_weights_keeps_to_them() {
    for policy in [Policy::LeastSessions, Policy::LessOfTwo, Policy::Weighted, Policy::Rendezvous] {
        let loads = spread(policy, &[("small", 1), ("large", 3)], 4000, 1);
        let large = loads["large"] as f64 / 3000.0;
        assert!((0.9..1.1).contains(&large), "{}: {loads:?}", policy.as_str());
    }
    let loads = spread(Policy::Random, &[("small", 1), ("large", 3)], 4000, 1);
    assert!((0.9..1.1).contains(&(loads["large"] as f64 / 2000.0)), "{loads:?}");
}

#[test]
fn the_less_loaded_takes_the_stream_by_what_each_is_to_take() {
    let (small, large) = (origin("small"), origin("large"));
    let candidates = |large_load| {
        let (one, five) = (Terms::default(), Terms { weight: 5, capacity: None });
        [
            Candidate { origin: &small, terms: one, load: 10 },
            Candidate { origin: &large, terms: five, load: large_load },
        ]
    };
    let mut random = StdRng::seed_from_u64(1);
    for policy in [Policy::LeastSessions, Policy::LessOfTwo].repeat(16) {
        let chosen = |load, random: &mut StdRng| {
            let candidates = candidates(load);
            policy.choose(&candidates, &stream(1), random).unwrap().server.clone()
        };
        assert_eq!(chosen(49, &mut random), "large");
        assert_eq!(chosen(51, &mut random), "small");
    }
}

#[test]
fn rendezvous_agrees_everywhere_and_moves_only_the_streams_of_an_origin_that_goes() {
    let origins: Vec<_> = TEN.map(|(name, _)| origin(name)).into();
    let all: Vec<_> =
        origins.iter().map(|origin| Candidate { origin, terms: Terms::default(), load: 0 }).collect();
    let choose = |candidates: &[Candidate<'_>], n, seed| {
        let mut random = StdRng::seed_from_u64(seed);
        Policy::Rendezvous.choose(candidates, &stream(n), &mut random).unwrap().server.clone()
    };
    let backwards: Vec<_> = all.iter().rev().copied().collect();
    let without_first: Vec<_> = all[1..].to_vec();
    for n in 0..500 {
        let chosen = choose(&all, n, 1);
        assert_eq!(choose(&backwards, n, 2), chosen, "the order of origins and chance do not count");
        if chosen != "a" {
            assert_eq!(choose(&without_first, n, 1), chosen, "it stays");
        }
    }
}

#[test]
fn the_point_of_a_stream_and_an_origin_is_what_other_builds_compute() {
    assert_eq!(point(&stream(1), &origin("vid-1")), 8_710_688_626_957_289_930);
}

#[test]
fn a_choice_of_one_or_none() {
    let only = origin("only");
    let one = [Candidate { origin: &only, terms: Terms::default(), load: 9 }];
    let mut random = StdRng::seed_from_u64(1);
    for policy in
        [Policy::LeastSessions, Policy::LessOfTwo, Policy::Random, Policy::Weighted, Policy::Rendezvous]
    {
        assert_eq!(policy.choose(&one, &stream(1), &mut random), Some(&only));
        assert_eq!(policy.choose(&[], &stream(1), &mut random), None);
    }
}
