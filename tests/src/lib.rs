//! The harness of the kernel and end-to-end tests, and the media parts that the demo shares with them.
//!
//! [`origin`] and [`load`] are the two ends of every session, [`netns`] is the network between them, and
//! [`residue`] says what was left behind.

pub mod case;
pub mod cpu;
pub mod deadlines;
pub mod demo;
pub mod fault;
pub mod fleet;
pub mod frame;
pub mod frames;
pub mod http;
pub mod impaired;
mod interrupt;
pub mod join_bench;
pub mod kernel;
pub mod lacking;
pub mod layouts;
pub mod links;
pub mod live;
pub mod load;
pub mod mailbox;
pub mod netns;
pub mod origin;
pub mod pins;
pub mod proxy;
pub mod pulse;
pub mod raw;
pub mod redis;
pub mod relay;
pub mod relay_bench;
pub mod residue;
pub mod rtmp;
mod samples;
pub mod site;
pub mod srt;
pub mod veths;
pub mod wire;
