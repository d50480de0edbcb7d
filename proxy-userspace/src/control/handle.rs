//! What other tasks hold of the control loop.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use proxy_protocol::ice::UfragPair;
use tokio::sync::{mpsc, oneshot, watch};

use super::{COMMAND_QUEUE, Command, ControlLoop, Frozen, Refusals, Snapshot, Totals};
use crate::{
    api::signalling::{OfferError, SessionSink},
    executor::{Carriage, CarriageRequest, Executor, OriginsByUfrags},
    net::{join::Traffic, route::preferred_source},
    origin::Origin,
    proxy::{Proxy, Refusal},
    session::{
        SessionId, SessionOffer,
        tcp::{TcpPath, TcpRefusal},
    },
};

/// A handle on the control loop.
#[derive(Clone, Debug)]
pub struct Control {
    commands: mpsc::Sender<Command>,
    origins: OriginsByUfrags,
    source_addresses: Arc<[IpAddr]>,
    totals: watch::Receiver<Totals>,
    refusals: Refusals,
}

impl Control {
    /// Makes the loop and a handle on it; `source_addresses` empty means the one each route prefers.
    pub fn new(
        proxy: Proxy,
        executor: Executor,
        origins: OriginsByUfrags,
        source_addresses: &[IpAddr],
    ) -> (Self, ControlLoop) {
        let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let (totals, latest) = watch::channel(Totals::default());
        let (source_addresses, refusals) = (source_addresses.into(), Refusals::default());
        let control_loop =
            ControlLoop { proxy, executor, commands, totals, grace: None, refusals: refusals.clone() };
        (Self { commands: sender, origins, source_addresses, totals: latest, refusals }, control_loop)
    }

    /// The totals, renewed every second.
    pub fn totals(&self) -> watch::Receiver<Totals> {
        self.totals.clone()
    }

    /// Everything, for people.
    pub async fn snapshot(&self) -> Option<Snapshot> {
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::Snapshot(reply)).await.ok()?;
        answer.await.ok()
    }

    /// Allows or forbids flows in the kernel; forbidding returns every session to userspace at once.
    pub async fn switch_offload(&self, on: bool) {
        // A loop that ended has no sessions.
        let _stopped = self.commands.send(Command::SwitchOffload(on)).await;
    }

    /// Returns every session to userspace and takes the programs off every interface, which are named.
    pub async fn detach(&self) -> Vec<String> {
        let (reply, answer) = oneshot::channel();
        // A loop that ended has nothing attached.
        let _stopped = self.commands.send(Command::Detach(reply)).await;
        answer.await.unwrap_or_default()
    }

    /// Asks whether a TCP connection is for a session, whose request verified; its bytes are counted by `traffic`.
    ///
    /// # Errors
    /// When it is not.
    pub async fn carry(
        &self,
        session: SessionId,
        path: TcpPath,
        traffic: Arc<Traffic>,
    ) -> Result<Carriage, TcpRefusal> {
        let (reply, answer) = oneshot::channel();
        let request = CarriageRequest { traffic, reply };
        // A loop that ended has no sessions.
        let _stopped = self.commands.send(Command::Carry { session, path, request }).await;
        answer.await.unwrap_or(Err(TcpRefusal::Ended))
    }

    /// Freezes the loop so that another process can take over.
    pub async fn freeze(&self) -> io::Result<Frozen> {
        let stopped = || io::Error::other("the control loop has ended");
        let (reply, answer) = oneshot::channel();
        self.commands.send(Command::HandOver(reply)).await.map_err(|_| stopped())?;
        answer.await.map_err(|_| stopped())?
    }

    /// Ends the loop and no session: another process goes on with them.
    pub async fn leave(&self) {
        self.ask_for_the_end(Command::Leave).await;
    }

    /// Ends every session and the loop.
    pub async fn stop(&self) {
        self.ask_for_the_end(Command::Stop).await;
    }

    async fn ask_for_the_end(&self, command: impl FnOnce(oneshot::Sender<()>) -> Command) {
        let (reply, answer) = oneshot::channel();
        if self.commands.send(command(reply)).await.is_ok() {
            // An error means that the loop ended by itself.
            let _ended = answer.await;
        }
    }

    async fn offer(&self, offer: SessionOffer) -> Result<(), OfferError> {
        let media = offer.origin.rtc.ok_or(OfferError::Unreachable)?;
        let sources = self.sources(media).map_err(|_| OfferError::Unreachable)?;
        let (reply, answer) = oneshot::channel();
        let command = Command::Offer { offer: Box::new(offer), media, sources, reply };
        self.commands.send(command).await.map_err(|_| OfferError::Stopping)?;
        Ok(answer.await.map_err(|_| OfferError::Stopping)??)
    }

    fn sources(&self, media: SocketAddr) -> io::Result<Arc<[IpAddr]>> {
        let same_family: Vec<IpAddr> =
            self.source_addresses.iter().copied().filter(|ip| ip.is_ipv4() == media.is_ipv4()).collect();
        if same_family.is_empty() { Ok([preferred_source(media)?].into()) } else { Ok(same_family.into()) }
    }
}

#[async_trait::async_trait]
impl SessionSink for Control {
    async fn offered(&self, offer: SessionOffer) -> Result<(), OfferError> {
        self.offer(offer).await.inspect_err(|why| self.refused(*why))
    }

    fn refused(&self, why: OfferError) {
        *self.refusals.lock().entry(why.as_str()).or_default() += 1;
    }

    async fn deleted(&self, ufrags: &UfragPair) {
        // A loop that ended has no sessions.
        let _stopped = self.commands.send(Command::Deleted(ufrags.clone())).await;
    }

    fn origin_of(&self, ufrags: &UfragPair) -> Option<Arc<Origin>> {
        self.origins.read().get(ufrags).cloned()
    }
}

impl From<Refusal> for OfferError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::Full,
            Refusal::PortsExhausted => Self::PortsExhausted,
            Refusal::DuplicateUfrag => Self::DuplicateUfrag,
        }
    }
}
