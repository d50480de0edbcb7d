//! Keeps neighbours resolved that only XDP sends to: the kernel does not see that traffic, so by itself it would neither
//! ask for them nor notice that they moved.
//!
//! An entry is made managed (`NTF_EXT_MANAGED`, 5.16 and later): the kernel does not collect it and resolves it again
//! when it failed. A managed entry is believed for up to 45 s after its last answer, so the owner of this task also has
//! it asked (`NUD_PROBE`) every few seconds. Older kernels ignore the flag, and `NTF_USE` beside it makes them resolve.

use std::time::Duration;

use rtnetlink::{
    Handle,
    packet_route::{
        neighbour::{NeighbourAttribute, NeighbourExtFlags, NeighbourFlags, NeighbourState},
        route::RouteProtocol,
    },
};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{Hop, Routes};

/// Marks entries as ours (`NDA_PROTOCOL`), so that what an operator manages is told from what we do.
pub(super) const OURS: RouteProtocol = RouteProtocol::Other(0xd5);
/// Batches the task may be behind by; what does not fit comes again with the next round.
const QUEUE: usize = 4;
const CLOSE: Duration = Duration::from_secs(1);

/// What to do for a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Care {
    /// Its address is not known: resolve it.
    Resolve(Hop),
    /// Its address is known: ask whether it still answers there.
    Ask(Hop),
    /// Nobody sends to it any more: leave the entry, known or not, to the kernel's ageing.
    Release {
        /// The neighbour.
        hop: Hop,
        /// Its address is known.
        is_known: bool,
    },
}

/// A handle on the task.
#[derive(Debug)]
pub struct Keeper {
    queue: mpsc::Sender<Vec<Care>>,
    task: JoinHandle<()>,
}

impl Keeper {
    /// Starts the task.
    pub fn start(routes: &Routes) -> Self {
        let (queue, mut batches) = mpsc::channel::<Vec<Care>>(QUEUE);
        let handle = routes.handle.clone();
        let task = tokio::spawn(async move {
            while let Some(batch) = batches.recv().await {
                for care in batch {
                    take(&handle, care).await;
                }
            }
        });
        Self { queue, task }
    }

    /// Hands a batch over; gives it back if the task is behind.
    pub fn take(&self, batch: Vec<Care>) -> Result<(), Vec<Care>> {
        self.queue.try_send(batch).map_err(mpsc::error::TrySendError::into_inner)
    }

    /// Ends the task once it has done everything, or after a second.
    pub async fn close(self, last: Vec<Care>) {
        // The task ends when its queue is closed; what it could not do by then the kernel ages.
        let _full = self.queue.send(last).await;
        drop(self.queue);
        let _late = tokio::time::timeout(CLOSE, self.task).await;
    }
}

async fn take(handle: &Handle, care: Care) {
    match care {
        Care::Resolve(hop) => manage(handle, hop).await,
        Care::Ask(hop) => {
            // A change of state clears the flag, and a message with the flag changes no state: it takes two.
            set_state(handle, hop, NeighbourState::Probe).await;
            manage(handle, hop).await;
        }
        Care::Release { hop, is_known } => {
            let state = if is_known { NeighbourState::Probe } else { NeighbourState::Failed };
            set_state(handle, hop, state).await;
        }
    }
}

async fn manage(handle: &Handle, hop: Hop) {
    let mut request = handle.neighbours().add(hop.ifindex, hop.neighbour).replace();
    request = request.state(NeighbourState::None).flags(NeighbourFlags::Use);
    let attributes = &mut request.message_mut().attributes;
    attributes.push(NeighbourAttribute::ExtFlags(NeighbourExtFlags::Managed));
    attributes.push(NeighbourAttribute::Protocol(OURS));
    log(hop, request.execute().await);
}

async fn set_state(handle: &Handle, hop: Hop, state: NeighbourState) {
    let request = handle.neighbours().add(hop.ifindex, hop.neighbour).replace().state(state);
    log(hop, request.execute().await);
}

fn log(hop: Hop, result: Result<(), rtnetlink::Error>) {
    if let Err(error) = result {
        // The entry changed since we saw it, or its device is gone; the next round sees what is there.
        tracing::debug!(ifindex = hop.ifindex, neighbour = %hop.neighbour, %error, "neighbour not updated");
    }
}
