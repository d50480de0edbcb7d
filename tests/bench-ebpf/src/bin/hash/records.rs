//! Records as everybody would keep them: a hash from the endpoints of a datagram, in either direction, to all that is known
//! of them. 16 bytes to 72 for IPv4.

use aya_ebpf::{macros::map, maps::HashMap};
use bench_ebpf::{FlowEntry, FlowKey};
use proxy_common::{
    family::{Family, V4, V6},
    flow::{Counters, Direction, Endpoints, FlowV4, FlowV6, Idle, RouteRecord, RouteV4, RouteV6, Stamp},
    forward::{Count, Place, Record, Records},
};

use crate::maps::KernelTables;

#[map]
static FLOWS_V4: HashMap<FlowKey<<V4 as Family>::Addr>, FlowEntry<FlowV4>> = HashMap::with_max_entries(1, 0);

#[map]
static FLOWS_V6: HashMap<FlowKey<<V6 as Family>::Addr>, FlowEntry<FlowV6>> = HashMap::with_max_entries(1, 0);

/// A family's own table.
pub(crate) trait Maps: Family {
    /// The entry of a key.
    fn entry(key: &Endpoints<Self::Addr>) -> Option<*mut Self::Route>;
}

macro_rules! maps {
    ($family:ident, $route:ident, $flows:ident) => {
        impl Maps for $family {
            #[inline(always)]
            fn entry(key: &Endpoints<Self::Addr>) -> Option<*mut $route> {
                Some($flows.get_ptr_mut(FlowKey::udp(*key))?.cast())
            }
        }
    };
}

maps!(V4, RouteV4, FLOWS_V4);
maps!(V6, RouteV6, FLOWS_V6);

impl<F: Maps> Records<F> for KernelTables {
    #[inline(always)]
    fn find(&self, _: Direction, key: &Endpoints<F::Addr>) -> Option<Place> {
        Some(Place(F::entry(key)? as u64))
    }

    #[inline(always)]
    fn route(&self, (_, Place(entry)): Record) -> F::Route {
        let words = entry as *const <F::Route as RouteRecord>::Words;
        // SAFETY: an address that `find` got: an entry, which starts with its route and is never unmapped.
        F::Route::from_words(unsafe { words.read_volatile() })
    }

    #[inline(always)]
    fn idle(&self, record: Record) -> Idle {
        // SAFETY: as above; the counters start with one aligned word.
        Idle::from_word(unsafe { counters::<F>(record).cast::<u64>().read_volatile() })
    }
}

#[inline(always)]
fn counters<F: Maps>((_, Place(entry)): Record) -> *mut Counters {
    // In an entry the counters follow the route.
    (entry as *mut F::Route).wrapping_add(1).cast()
}

/// Adds a forwarded frame to its direction.
#[inline(always)]
pub(crate) fn count_flow<F: Maps>(record: Record, count: &Count, now: Stamp) {
    // SAFETY: the entry is never unmapped, and only the kernel writes its counters.
    unsafe { (*counters::<F>(record)).add(count, now) };
}
