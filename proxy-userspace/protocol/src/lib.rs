//! Sans-io protocol code: bytes in, values out.
//!
//! Nothing here opens a socket, reads a clock, draws a random number or logs. Whatever a parser needs besides the
//! bytes is an argument, so that every test is a table and every parser can be fuzzed as it is. Input comes from
//! the network: it may be cut anywhere, and the answer is an error, never a panic. Only [`reader`] looks at raw
//! offsets.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), warn(clippy::indexing_slicing, clippy::cast_possible_truncation))]

pub mod backend_id;
mod checksum;
pub mod dash;
pub mod hls;
pub mod http_head;
pub mod ice;
pub mod icmp;
pub mod neighbour;
pub mod query;
pub mod reader;
pub mod rfc4571;
pub mod routed_ufrag;
pub mod rtmp;
pub mod sdp;
pub mod srs_api;
pub mod srt;
pub mod stream_url;
pub mod stun;
pub mod uri;
