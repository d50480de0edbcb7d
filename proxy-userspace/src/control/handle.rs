//! What other tasks hold of the control loop.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use proxy_protocol::ice::UfragPair;
use tokio::sync::{mpsc, oneshot, watch};

use super::{
    COMMAND_QUEUE, Command, ControlLoop, Frozen, Snapshot, Totals,
    snapshot::{Tallies, count},
};
use crate::{
    api::signalling::{OfferError, SessionSink},
    directory::Directory,
    executor::{Carriage, CarriageRequest, Executor},
    net::{join::Traffic, route::preferred_source},
    origin::Origin,
    proxy::{Event, Proxy, Refusal},
    roaming::Resumed,
    session::{
        EndReason, SessionId, SessionOffer,
        tcp::{TcpPath, TcpRefusal},
    },
};

/// A handle on the control loop.
#[derive(Clone, Debug)]
pub struct Control {
    commands: mpsc::Sender<Command>,
    directory: Arc<Directory>,
    source_addresses: Arc<[IpAddr]>,
    totals: watch::Receiver<Totals>,
    tallies: Tallies,
}

impl Control {
    /// Makes the loop and a handle on it; `source_addresses` empty means the one each route prefers.
    pub fn new(
        proxy: Proxy,
        executor: Executor,
        directory: Arc<Directory>,
        source_addresses: &[IpAddr],
    ) -> (Self, ControlLoop) {
        let (sender, commands) = mpsc::channel(COMMAND_QUEUE);
        let (totals, latest) = watch::channel(Totals::default());
        let (source_addresses, tallies) = (source_addresses.into(), Tallies::default());
        let control_loop =
            ControlLoop { proxy, executor, commands, totals, grace: None, tallies: tallies.clone() };
        let control = Self { commands: sender, directory, source_addresses, totals: latest, tallies };
        (control, control_loop)
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

    /// Has no session begin any more.
    pub async fn drain(&self) {
        self.tell(Event::Drain).await;
    }

    /// Waits until there are no sessions.
    pub async fn none_left(&self) {
        let mut totals = self.totals.clone();
        // What the last look saw may be old by now.
        totals.mark_unchanged();
        // A loop that ended has none.
        while totals.changed().await.is_ok() && totals.borrow_and_update().sessions > 0 {}
    }

    /// Takes a session over that another proxy has or had.
    ///
    /// # Errors
    /// When it cannot be had here.
    pub async fn resume(&self, offer: SessionOffer, how: Resumed) -> Result<(), OfferError> {
        self.offered(offer).await.inspect(|()| count(&self.tallies.resumed, how.as_str()))
    }

    /// Whether a session was over a moment ago, though its client may still send.
    pub fn has_ended(&self, ufrags: &UfragPair) -> bool {
        self.directory.has_ended(ufrags)
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

    /// Takes a session whose media goes to this endpoint of its origin.
    ///
    /// # Errors
    /// When it cannot be taken.
    pub async fn admit(&self, offer: SessionOffer, media: SocketAddr) -> Result<SessionId, OfferError> {
        self.offer(offer, media).await.inspect_err(|why| self.refused(*why))
    }

    /// Counts what became of an SRT call.
    pub fn count_call(&self, outcome: &'static str) {
        count(&self.tallies.calls, outcome);
    }

    /// The origin of an SRT call has answered, and the caller was told.
    pub async fn established(&self, session: SessionId, answer: Bytes) {
        self.tell(Event::Established { session, answer }).await;
    }

    /// An SRT call came to nothing.
    pub async fn hung_up(&self, session: SessionId, reason: EndReason) {
        self.tell(Event::HungUp { session, reason }).await;
    }

    async fn tell(&self, event: Event) {
        // A loop that ended has no sessions, and begins none.
        let _stopped = self.commands.send(Command::Tell(event)).await;
    }

    async fn offer(&self, offer: SessionOffer, media: SocketAddr) -> Result<SessionId, OfferError> {
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
        let media = offer.origin.rtc.ok_or(OfferError::Unreachable).inspect_err(|why| self.refused(*why))?;
        self.admit(offer, media).await.map(drop)
    }

    fn refused(&self, why: OfferError) {
        count(&self.tallies.refused, why.as_str());
    }

    async fn deleted(&self, ufrags: &UfragPair) {
        self.directory.end(ufrags);
        self.tell(Event::Deleted(ufrags.clone())).await;
    }

    fn origin_of(&self, ufrags: &UfragPair) -> Option<Arc<Origin>> {
        self.directory.origin_of(ufrags)
    }
}

impl From<Refusal> for OfferError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Full => Self::Full,
            Refusal::PortsExhausted => Self::PortsExhausted,
            Refusal::DuplicateUfrag => Self::DuplicateUfrag,
            Refusal::Stopping => Self::Stopping,
        }
    }
}
