//! Flows that an earlier process installed: they are forwarded as it left them, and followed from now on.

use super::{Ends, Installer, RelayReason};
use crate::{
    datapath::{Direction, FlowId, FlowSpec},
    session::SessionId,
};

impl Installer {
    /// Follows flows of an earlier process for the sessions they belong to, and names those that have no way through the
    /// network any more. Then takes away what is left of that process and nobody needs.
    pub async fn adopt(&mut self, flows: Vec<(SessionId, FlowId)>) -> Vec<SessionId> {
        let mut lost = Vec::new();
        for (session, flow) in flows {
            if let Err(reason) = self.adopt_one(session, flow).await {
                tracing::info!(
                    session = session.0,
                    reason = reason.as_str(),
                    "the flow leads nowhere any more"
                );
                lost.push(session);
            }
        }
        self.datapath.forget_unclaimed();
        for attachment in self.datapath.attachments() {
            if !self.ingress.is_attached(attachment.ifindex) {
                self.datapath.detach(attachment.ifindex);
            }
        }
        // Neighbours are managed until somebody gives them back.
        self.upkeep.done(&self.view.managed_by_us(), &self.hops, &self.view);
        lost
    }

    async fn adopt_one(&mut self, session: SessionId, flow: FlowId) -> Result<(), RelayReason> {
        let Some(FlowSpec { protocol, client, service, source, origin, .. }) = self.datapath.spec(flow)
        else {
            return Ok(());
        };
        let ends = Ends { protocol, client, service, source, origin };
        // A device with this number there is not.
        let came_by = self.datapath.arrival(client).map_or(0, |arrival| arrival.ifindex);
        let plan = self.plan_between(&ends, came_by).await?;
        self.hold_plan(session, &ends, plan, |datapath, (to_origin, to_client)| {
            datapath.set_flow_hop(flow, Direction::ToOrigin, to_origin);
            datapath.set_flow_hop(flow, Direction::ToClient, to_client);
            Ok(flow)
        })?;
        Ok(())
    }
}
