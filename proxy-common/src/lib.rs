//! What the kernel programs and userspace must agree on, and every decision about a frame.
//!
//! The same functions run in host tests, in the XDP program and in the TC program, so nothing here may know a map, a
//! socket or a clock: tables arrive as a [`forward::Tables`], frames as a [`packet::Packet`]. Multi-byte fields of
//! frames and keys have network-order types ([`wire`]); plain integers are the host's.
#![no_std]
#![deny(unsafe_code)]

pub mod checksum;
pub mod demux;
pub mod family;
pub mod flow;
pub mod forward;
pub mod maps;
pub mod packet;
pub mod rewrite;
pub mod verdict;
pub mod wire;
