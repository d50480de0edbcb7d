//! SRS's HTTP API of several origins as if it were of one.
//!
//! Every SRS numbers its vhosts, streams and clients for itself, so an id means something only together with the origin
//! that made it: `sn53zq98` of one origin becomes `sn53zq98@vid-1m3n6a0-0a1b2c3d-77`, in the items and wherever they refer to
//! each other. Whoever reads such an id knows where to ask, without having kept anything.
//!
//! Whatever else an origin says of an item passes byte for byte: numbers keep their digits, members their order, and
//! members that SRS will have one day are passed too.

mod answer;
mod item;
mod members;
mod merge;
mod page;
mod path;

pub use self::{
    answer::{Answer, AnswerError, List, list, one, plain},
    item::{Kind, qualified_id},
    merge::{Combined, Failure, Identity, MergedList},
    page::{MOST_ITEMS, Page},
    path::{ItemId, PathError, Target},
};

#[cfg(test)]
mod tests;
