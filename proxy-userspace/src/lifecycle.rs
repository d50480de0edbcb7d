//! What a process finds of the one before it, and what it leaves to the next.
//!
//! ```text
//!  start                                               end
//!  1 runtime directory                                 SIGTERM, keep:  requests finish, nothing else is touched
//!  2 its lock, or everything from the process          SIGTERM, drain: sessions end, what is in the kernel goes
//!    that holds it (`PROXY_TAKE_OVER`)                 SIGINT:         as drain
//!  3 note of the start                                 take-over:      requests finish, sockets and state go over
//!  4 sockets bound or inherited, none is read          SIGKILL:        as keep; sockets are lost
//!  5 kernel engine opened
//!  6 the other process lets go
//!  7 sessions adopted
//!  8 sockets read, requests served
//! ```
//!
//! Nothing before 6 changes what another process owns, and a start that fails there changes nothing at all. A process
//! adopts before it listens, so that no packet meets a table that is half full.

pub mod estate;
pub mod ledger;
pub mod owner;
pub mod record_files;
pub mod remains;
pub mod starts;
pub mod startup;

pub use estate::Estate;
pub use ledger::Ledger;
pub use owner::{Owner, OwnerError, RuntimeDir};
pub use record_files::RecordFiles;
pub use startup::{Home, Inherited, Startup};
