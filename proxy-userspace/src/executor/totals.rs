//! What the kernel forwarded, of flows that are there and flows that are gone.

use crate::datapath::FlowCounters;

/// Packets and bytes the kernel forwarded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelTotals {
    /// Client to origin: packets, bytes from the IP header on.
    pub to_origin: (u64, u64),
    /// Origin to client: packets, bytes from the IP header on.
    pub to_client: (u64, u64),
}

impl KernelTotals {
    pub(super) fn add(&mut self, flow: &FlowCounters) {
        self.to_origin.0 += flow.to_origin.packets;
        self.to_origin.1 += flow.to_origin.bytes;
        self.to_client.0 += flow.to_client.packets;
        self.to_client.1 += flow.to_client.bytes;
    }
}
