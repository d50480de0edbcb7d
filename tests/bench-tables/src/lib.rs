//! What the layouts in comparison keep in their tables, for their programs and for userspace, which fills them.
#![no_std]

mod entry;
mod layout;

pub use entry::{FlowEntry, FlowKey};
pub use layout::{Hop, Key, Link, PROBES, Slot, Template, Tuple, Value64, Value72, slot_home};
