//! A proxy between one raw client and one raw origin, under any engine and over either IP version.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Result, ensure};

use crate::{
    case::Case,
    netns::{Direct, Family},
    proxy::{Proxy, Status},
    pulse::{self, Ends, Rhythm, Tally},
    raw::{self, Endpoint, RawOrigin, RawSession},
};

const PATIENCE: Duration = Duration::from_secs(15);

/// Starts an origin and waits until the proxy knows it.
///
/// # Errors
/// When it does not start, or is not known in time.
pub fn registered(network: &Direct, family: Family, proxy: &Proxy<'_>) -> Result<RawOrigin> {
    registered_as(network, family, proxy, 1)
}

/// Starts the origin of this number, from 1 on, and waits until the proxy knows it.
///
/// # Errors
/// When it does not start, or is not known in time.
pub fn registered_as(
    network: &Direct,
    family: Family,
    proxy: &Proxy<'_>,
    number: usize,
) -> Result<RawOrigin> {
    let url = Proxy::register_url(family.of(Direct::PROXY_INSIDE));
    let origin = network.origin.enter(|| {
        let origin = RawOrigin::start(family.of(Direct::ORIGIN), &format!("raw{number}"))?;
        origin.register(&url).map(|()| origin)
    })?;
    proxy.wait_for_origins(number)?;
    Ok(origin)
}

/// Everything that runs in a [`Direct`] network.
#[derive(Debug)]
pub struct Wire<'a> {
    /// The network.
    pub network: &'a Direct,
    /// The proxy under test.
    pub proxy: Proxy<'a>,
    /// The origin.
    pub origin: RawOrigin,
    /// The client.
    pub client: Endpoint,
    case: Case,
}

impl<'a> Wire<'a> {
    /// Starts the proxy and the origin and waits until they know each other.
    ///
    /// # Errors
    /// When a part does not start.
    pub fn start(network: &'a Direct, case: Case, settings: &[(&str, &str)]) -> Result<Self> {
        let Case { engine, family } = case;
        let proxy = Proxy::start(&network.proxy, family.of(Direct::PROXY), engine, settings)?;
        Self::around(network, case, proxy)
    }

    /// The same with a proxy that runs.
    ///
    /// # Errors
    /// When another part does not start.
    pub fn around(network: &'a Direct, case: Case, proxy: Proxy<'a>) -> Result<Self> {
        let family = case.family;
        let origin = registered(network, family, &proxy)?;
        let client = network.client.enter(|| Endpoint::bind(family.of(Direct::CLIENT)))?;
        Ok(Self { network, proxy, origin, client, case })
    }

    /// A session whose client was not heard yet.
    ///
    /// # Errors
    /// When the proxy refuses.
    pub fn offered(&self) -> Result<RawSession> {
        self.offered_as("clnt")
    }

    /// The same with a user fragment of the client's own.
    ///
    /// # Errors
    /// When the proxy refuses.
    pub fn offered_as(&self, ufrag: &str) -> Result<RawSession> {
        let api = self.proxy.api();
        self.network.client.enter(|| raw::play(&api, "s", ufrag))
    }

    /// A session whose client was heard and answered; says where the origin sees it.
    ///
    /// # Errors
    /// When one of the two does not come through.
    pub fn connected(&self) -> Result<(RawSession, SocketAddr)> {
        self.connected_as("clnt")
    }

    /// The same with a user fragment of the client's own.
    ///
    /// # Errors
    /// When one of the two does not come through.
    pub fn connected_as(&self, ufrag: &str) -> Result<(RawSession, SocketAddr)> {
        let session = self.offered_as(ufrag)?;
        let source = self.check(&self.client, &session, true)?;
        Ok((session, source))
    }

    /// Has `client` check `session` and the origin answer; says where the origin sees it.
    ///
    /// # Errors
    /// When one of the two does not come through, or the answer comes from elsewhere than the check went to.
    pub fn check(&self, client: &Endpoint, session: &RawSession, nominates: bool) -> Result<SocketAddr> {
        client.send(&raw::check(&session.username, nominates), session.proxy, 0)?;
        let source = self.origin.media.answer_check()?;
        let (meta, _) = client.receive()?;
        ensure!(meta.peer == session.proxy, "the check went to {}, {} answered", session.proxy, meta.peer);
        Ok(source)
    }

    /// Waits until the one session is where the case puts it.
    ///
    /// # Errors
    /// When it is not in time.
    pub fn settled(&self) -> Result<Status> {
        let offloaded = usize::from(self.case.expects_kernel());
        self.proxy.wait(PATIENCE, |status| status.totals.offloaded == offloaded)
    }

    /// Another socket of the client.
    ///
    /// # Errors
    /// When it cannot be bound.
    pub fn other_client(&self) -> Result<Endpoint> {
        self.network.client.enter(|| Endpoint::bind(self.case.family.of(Direct::CLIENT)))
    }

    /// Runs `work` while datagrams go both ways through `session`, and says what became of them.
    ///
    /// # Panics
    /// When `work` does.
    pub fn beat<R>(
        &self,
        (session, source): &(RawSession, SocketAddr),
        rhythm: Rhythm,
        work: impl FnOnce() -> R,
    ) -> (R, Tally) {
        let ends = Ends { client: &self.client, origin: &self.origin.media, session, source: *source };
        pulse::beat(ends, rhythm, work)
    }
}
