//! SRT as others speak it: an origin and callers on libsrt, and callers of bare datagrams that a test says every byte of.
//!
//! The origin has the shape of SRS's: one UDP port, a stream for each name in a stream id, one publisher and any number of
//! players. Sockets belong to the network namespace of the thread that makes them.

mod bare;
mod caller;
mod library;
mod origin;

pub use self::{
    bare::BareCaller,
    caller::{Caller, CallerOptions, Player, Publisher, Received, Refused},
    origin::{FORBIDDEN, SrtOrigin, SrtSession},
};

/// The proxy's port for SRT.
pub const SRT_PORT: u16 = 20080;
/// Bytes of a packet of MPEG-TS over SRT.
pub const PACKET: usize = 1316;
