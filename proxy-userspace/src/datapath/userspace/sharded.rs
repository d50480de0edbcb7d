//! A map that many threads read and one writes: locks of its parts, so that a look-up meets a writer hardly ever and
//! readers on other CPUs seldom share a cache line with it.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::{BuildHasher as _, Hash},
};

use foldhash::{SharedSeed, fast::SeedableRandomState};
use parking_lot::RwLock;

const SHARDS: usize = 64;

/// Keyed by the system's random source: whoever chooses ports and names cannot choose where they meet.
pub(super) type Hasher = SeedableRandomState;

/// A new key for a table.
pub(super) fn hasher() -> Hasher {
    Hasher::with_seed(rand::random(), SharedSeed::global_random())
}

#[derive(Debug)]
pub(super) struct Sharded<K, V> {
    /// Chooses the shard; its key is not that of the shards.
    hasher: Hasher,
    shards: Box<[Shard<K, V>]>,
}

/// On cache lines of its own, with the one that the prefetcher takes along.
#[derive(Debug)]
#[repr(align(128))]
struct Shard<K, V>(RwLock<HashMap<K, V, Hasher>>);

impl<K, V> Default for Sharded<K, V> {
    fn default() -> Self {
        let shard = || Shard(RwLock::new(HashMap::with_hasher(hasher())));
        Self { hasher: hasher(), shards: std::iter::repeat_with(shard).take(SHARDS).collect() }
    }
}

impl<K: Eq + Hash, V: Clone> Sharded<K, V> {
    pub(super) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.shard(key).read().get(key).cloned()
    }

    pub(super) fn insert(&self, key: K, value: V) {
        self.shard(&key).write().insert(key, value);
    }

    pub(super) fn remove<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<V>
    where
        K: Borrow<Q>,
    {
        self.shard(key).write().remove(key)
    }

    /// Removes what `key` leads to if `condition` holds for it.
    pub(super) fn remove_if<Q: Eq + Hash + ?Sized>(&self, key: &Q, condition: impl FnOnce(&V) -> bool)
    where
        K: Borrow<Q>,
    {
        let mut shard = self.shard(key).write();
        if shard.get(key).is_some_and(condition) {
            shard.remove(key);
        }
    }

    /// How many parts [`Sharded::visit`] knows.
    pub(super) fn shards(&self) -> usize {
        self.shards.len()
    }

    /// What `take` makes of every value of one part, which is locked for readers meanwhile.
    pub(super) fn visit<T>(&self, shard: usize, take: impl FnMut(&V) -> T) -> Vec<T> {
        self.shards.get(shard).map_or_else(Vec::new, |shard| shard.0.read().values().map(take).collect())
    }

    fn shard<Q: Hash + ?Sized>(&self, key: &Q) -> &RwLock<HashMap<K, V, Hasher>> {
        let at = self.hasher.hash_one(key) as usize % SHARDS;
        &self.shards.get(at).expect("a remainder is in range").0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_is_found_and_visited_once() {
        let map = Sharded::<u32, u32>::default();
        (0..10_000).for_each(|key| map.insert(key, key * 2));
        assert!((0..10_000).all(|key| map.get(&key) == Some(key * 2)));
        let mut seen: Vec<u32> =
            (0..map.shards()).flat_map(|shard| map.visit(shard, |value| value / 2)).collect();
        seen.sort_unstable();
        assert!(seen.into_iter().eq(0..10_000));
        map.remove_if(&7, |value| *value == 13);
        assert_eq!(map.get(&7), Some(14));
        map.remove_if(&7, |value| *value == 14);
        assert_eq!((map.get(&7), map.remove(&8)), (None, Some(16)));
    }

    #[test]
    fn two_tables_place_the_same_keys_differently() {
        let hashes = || {
            let hasher = hasher();
            [1u32, 2, 3].map(|key| hasher.hash_one(key))
        };
        assert_ne!(hashes(), hashes());
    }
}
