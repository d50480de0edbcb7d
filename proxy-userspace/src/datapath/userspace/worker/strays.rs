//! Requests of users that are not known here.

use bytes::Bytes;
use proxy_common::verdict::Reason;
use proxy_protocol::stun::Message;

use super::Worker;
use crate::{datapath::userspace::Stray, net::udp::Meta, session::Tuple};

impl Worker {
    /// Whose session is not here may have one at another proxy, which takes longer to find out than a worker may wait.
    pub(super) fn set_aside(&self, request: &Message<'_>, tuple: Tuple, meta: Meta, payload: &[u8]) {
        let strays = self.shared.strays.get().filter(|strays| strays.want(request, payload));
        let Some(strays) = strays else { return self.counters.count(Reason::UnknownUser) };
        let datagram = Bytes::copy_from_slice(payload);
        let stray = Stray { tuple, ifindex: meta.ifindex, traffic_class: meta.traffic_class, datagram };
        if strays.queue.try_send(stray).is_err() {
            self.counters.count(Reason::ControlBusy);
        }
    }
}
