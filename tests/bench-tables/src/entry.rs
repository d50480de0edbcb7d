//! What `hash` keeps, in the shipped types.

use proxy_common::{
    family::{Family, V4, V6},
    flow::{Endpoints, FlowV4, FlowV6},
};

/// The key of a direction.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FlowKey<A> {
    endpoints: Endpoints<A>,
    protocol: u32,
}

impl<A> FlowKey<A> {
    /// For UDP.
    #[inline(always)]
    #[must_use]
    pub fn udp(endpoints: Endpoints<A>) -> Self {
        Self { endpoints, protocol: 17 }
    }
}

/// The value of a direction.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct FlowEntry<T> {
    /// The shipped record, key included: what forwards checks it.
    pub record: T,
    /// When the flow was installed.
    pub created: u64,
}

type V4Key = FlowKey<<V4 as Family>::Addr>;
type V6Key = FlowKey<<V6 as Family>::Addr>;

const _: () = assert!(size_of::<V4Key>() == 16 && size_of::<FlowEntry<FlowV4>>() == 72);
const _: () = assert!(size_of::<V6Key>() == 40 && size_of::<FlowEntry<FlowV6>>() == 136);

#[cfg(feature = "user")]
// SAFETY: integers and bytes without padding, as the sizes asserted above say.
unsafe impl aya::Pod for V4Key {}

#[cfg(feature = "user")]
// SAFETY: as above.
unsafe impl aya::Pod for FlowEntry<FlowV4> {}
