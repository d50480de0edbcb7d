//! A WebRTC load client: any number of publishers and players with real ICE, DTLS and SRTP in one thread.
//!
//! [`Client`] is one session for end-to-end tests; [`run`] starts many, lets them run and reports.

mod client;
mod path;
mod peer;
mod report;
mod run;
mod sequence;
mod signalling;
mod stats;
mod swarm;
mod synthetic;

pub use client::{Client, ClientOptions};
pub use path::Over;
pub use report::{Report, SessionReport};
pub use run::{ApiKind, End, LoadOptions, run};
pub use sequence::Sequence;
pub use signalling::{Api, Exchange};
pub use stats::{ClientStats, Migration, Role, Track};
pub use swarm::Swarm;
