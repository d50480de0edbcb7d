//! `srs-xproxy`: makes many SRS origins look like one.
//!
//! Userspace handles the first packets of a session and hands it to the kernel; see ARCHITECTURE.md.

pub mod api;
pub mod app;
pub mod codec;
pub mod commands;
pub mod config;
pub mod connections;
pub mod control;
pub mod datapath;
pub mod directory;
pub mod executor;
pub mod first_use;
pub mod fleet;
pub mod ice_tcp;
pub mod lifecycle;
pub mod live;
pub mod net;
pub mod origin;
pub mod proxy;
pub mod rate_limit;
pub mod recent;
pub mod roaming;
pub mod rtmp;
pub mod session;
pub mod srt;
pub mod telemetry;
