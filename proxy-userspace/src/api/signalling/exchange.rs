//! Passes a client's request to an origin, and the answer back.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use http::{HeaderValue, Method, Request, StatusCode, header, request::Parts};
use proxy_common::family::prefix;
use proxy_protocol::{
    ice::UfragPair,
    query,
    routed_ufrag::{PWD_PARAMETER, UFRAG_PARAMETER},
    sdp::{Answer, OurCandidates},
    stream_url::StreamKey,
};
use tracing::{debug, info, warn};

use super::{
    ApiError, OfferError, Signalling,
    answer::OriginAnswer,
    candidate::tcp_endpoint,
    endpoint::Endpoint,
    forward::{ForwardError, Outgoing},
    offer::{self, Offer},
};
use crate::{
    api::{Connection, body::read_request, client_address::ClientAddress},
    fleet::Fleet,
    origin::Origin,
    rate_limit::Exceeded,
    session::{Kind, Role, SessionOffer, WebRtc},
};

/// A client's request, body read.
pub(super) struct ClientRequest {
    pub(super) endpoint: Endpoint,
    pub(super) parts: Parts,
    pub(super) body: Bytes,
    pub(super) ends: Connection,
    pub(super) client: ClientAddress,
}

impl ClientRequest {
    pub(super) fn query(&self) -> &str {
        self.parts.uri.query().unwrap_or_default()
    }

    fn host(&self) -> Option<&str> {
        self.parts.headers.get(header::HOST)?.to_str().ok()
    }

    /// The session that a DELETE or PATCH is about, named as SRS does in its `Location`.
    fn session(&self) -> Option<UfragPair> {
        query::percent_decode(query::value(self.query(), "session")?).parse().ok()
    }

    /// Whether the proxy may choose the credentials: SRS takes them from queries of WHIP and WHEP alone, and who gives some
    /// knows why.
    fn leaves_credentials_to_us(&self) -> bool {
        let gives = |name| query::value(self.query(), name).is_some();
        !self.endpoint.is_json() && !gives(UFRAG_PARAMETER) && !gives(PWD_PARAMETER)
    }

    fn outgoing(&self) -> Outgoing {
        Outgoing::new(&self.parts, self.body.clone(), &self.client)
    }
}

impl Signalling {
    pub(super) async fn read(
        &self,
        endpoint: Endpoint,
        request: Request<Body>,
    ) -> Result<ClientRequest, ApiError> {
        let (parts, body) = request.into_parts();
        let ends =
            *parts.extensions.get::<Connection>().expect("the server gives every request its connection");
        let client = ClientAddress::new(ends.peer.ip(), &parts.headers, &self.trusted_proxies);
        let body = read_request(body, self.limits).await?;
        Ok(ClientRequest { endpoint, parts, body, ends, client })
    }

    /// An offer goes to the stream's origin; its answer comes back with our candidates.
    pub(super) async fn negotiate(&self, request: &ClientRequest) -> Result<Response, ApiError> {
        let offer = Offer::read(request, &self.rules)?;
        self.admit(request.client.ip).inspect_err(|why| self.sink.refused(*why))?;
        let (origin, response) =
            self.send_to_stream(&offer.stream, |origin| self.offer_to(origin, request)).await?;
        if ![StatusCode::OK, StatusCode::CREATED].contains(&response.status()) {
            return Ok(response.map(Body::from));
        }
        let location = response.headers().get(header::LOCATION).cloned();
        let accepted = self.accept(request, &offer, &origin, response).await;
        if accepted.is_err() {
            self.release(request, &origin, location).await;
        }
        accepted
    }

    /// The offer as `origin` gets it: with credentials that name it, if the proxies of a fleet share a key.
    fn offer_to(&self, origin: &Origin, request: &ClientRequest) -> Outgoing {
        let outgoing = request.outgoing();
        match self.chooses(request) {
            Some(fleet) => outgoing.with_credentials(&fleet.credentials(origin)),
            None => outgoing,
        }
    }

    fn chooses(&self, request: &ClientRequest) -> Option<&Fleet> {
        self.fleet.as_deref().filter(|_| request.leaves_credentials_to_us())
    }

    /// Before an origin is asked, which would keep a session of its own for each request.
    fn admit(&self, client: IpAddr) -> Result<(), OfferError> {
        self.beginners.lock().take(prefix(client), Instant::now()).map_err(|exceeded| match exceeded {
            Exceeded::Own => OfferError::TooManyOfSource,
            Exceeded::All => OfferError::TooManyInAll,
        })
    }

    async fn accept(
        &self,
        request: &ClientRequest,
        offer: &Offer,
        origin: &Arc<Origin>,
        response: Response<Bytes>,
    ) -> Result<Response, ApiError> {
        const UNUSABLE: ApiError = ApiError::BadGateway("the origin's answer holds no usable SDP");
        let (head, body) = response.into_parts();
        let Some(answer) = OriginAnswer::read(request.endpoint, &body).map_err(|_| UNUSABLE)? else {
            return Ok(Response::from_parts(head, body.into()));
        };
        let sdp = Answer::parse(&answer.sdp).map_err(|error| {
            warn!(%error, origin = %origin.id, "origin's SDP answer cannot be used");
            UNUSABLE
        })?;
        if self.chooses(request).is_some_and(|fleet| !fleet.has_made(origin, sdp.ufrag().as_str(), sdp.pwd()))
        {
            info!(origin = %origin.id, "origin chose the ufrag or password itself: its ufrag leads no other proxy to it");
        }
        let (ours, tcp) = self.with_our_candidates(request, origin, &sdp).await;
        let session = SessionOffer {
            stream: Some(offer.stream.clone()),
            origin: origin.clone(),
            client_ip: request.client.ip,
            role: Some(offer.role),
            kind: Kind::WebRtc(WebRtc {
                ufrags: UfragPair::new(sdp.ufrag(), &offer.ufrag),
                pwd: sdp.pwd().clone(),
                tcp,
            }),
        };
        let is_publisher = session.role == Some(Role::Publisher);
        self.sink.offered(session).await?;
        if is_publisher {
            self.registry.published(&offer.stream, &origin.id).await;
        }
        Ok(Response::from_parts(head, answer.replace_sdp(&body, &ours).into()))
    }

    /// The origin's answer with our candidates, and where the origin takes media over TCP if such candidates are among them.
    async fn with_our_candidates(
        &self,
        request: &ClientRequest,
        origin: &Origin,
        answer: &Answer<'_>,
    ) -> (String, Option<SocketAddr>) {
        let asked = (request.query(), request.host(), request.ends.local.ip().to_canonical());
        let udp = self.candidates.choose(self.candidates.udp, asked).await;
        let endpoint = tcp_endpoint(origin, answer, request.query());
        let Some((receiver, endpoint)) = self.candidates.tcp.zip(endpoint) else {
            return (answer.with_candidates(&udp), None);
        };
        let tcp = self.candidates.choose(receiver, asked).await;
        let ours = OurCandidates { udp: &udp, tcp: &tcp };
        (answer.with_candidates_by_transport(&ours), Some(endpoint))
    }

    /// Deletes a session at its origin that no client will use.
    async fn release(&self, request: &ClientRequest, origin: &Origin, location: Option<HeaderValue>) {
        let (Some(api), Some(location)) = (origin.api, location) else { return };
        let Some(outgoing) = request.outgoing().delete_of(&location) else { return };
        if let Err(error) = self.forwarder.send(api, outgoing).await {
            debug!(%error, origin = %origin.id, "session is left to the origin's time-out");
        }
    }

    /// DELETE and PATCH concern a session, so they go where it is, which need not be where its stream would be picked.
    pub(super) async fn change_session(&self, request: &ClientRequest) -> Result<Response, ApiError> {
        let session = request.session();
        let response = match self.send_to_session(session.as_ref(), request).await {
            // SRS has no trickle ICE and closes the connection; RFC 9725 §4.3 has an answer for that.
            Err(ApiError::NoAnswer) if request.parts.method == Method::PATCH => {
                return Err(ApiError::MethodNotAllowed);
            }
            answered => answered?,
        };
        if let Some(session) = session
            && request.parts.method == Method::DELETE
            && response.status().is_success()
        {
            self.sink.deleted(&session).await;
        }
        Ok(response.map(Body::from))
    }

    /// The origin of a session that lives here, or that another proxy of the fleet has: its ufrag may tell, and costs nothing.
    async fn origin_of(&self, ufrags: &UfragPair) -> Option<Arc<Origin>> {
        if let Some(origin) = self.sink.origin_of(ufrags) {
            return Some(origin);
        }
        if let Some(fleet) = &self.fleet
            && let Some((origin, _pwd)) = fleet.find(ufrags.local(), self.registry.serving().await)
        {
            return Some(origin);
        }
        self.sink.origin_elsewhere(ufrags).await
    }

    /// Sends to the origin of a session, else to that of the stream in the query.
    async fn send_to_session(
        &self,
        session: Option<&UfragPair>,
        request: &ClientRequest,
    ) -> Result<Response<Bytes>, ApiError> {
        if let Some(ufrags) = session
            && let Some(origin) = self.origin_of(ufrags).await
        {
            return self.send_to_origin(&origin, request.outgoing()).await;
        }
        let stream = offer::stream_of_url(&request.parts, &self.rules)?;
        Ok(self.send_to_stream(&stream, |_| request.outgoing()).await?.1)
    }

    /// Sends to the origin of `stream` what it is to get; if it cannot be connected, to the next one, once.
    async fn send_to_stream(
        &self,
        stream: &StreamKey,
        outgoing: impl Fn(&Origin) -> Outgoing,
    ) -> Result<(Arc<Origin>, Response<Bytes>), ApiError> {
        let origin = self.pick(stream).await?;
        match self.forwarder.send(api_of(&origin)?, outgoing(&origin)).await {
            Ok(response) => return Ok((origin, response)),
            Err(ForwardError::Connect) => self.registry.report_failure(&origin.id).await,
            Err(error) => return Err(error.into()),
        }
        let next = self.pick(stream).await?;
        let response = self.send_to_origin(&next, outgoing(&next)).await?;
        Ok((next, response))
    }

    async fn send_to_origin(&self, origin: &Origin, outgoing: Outgoing) -> Result<Response<Bytes>, ApiError> {
        let sent = self.forwarder.send(api_of(origin)?, outgoing).await;
        if matches!(sent, Err(ForwardError::Connect)) {
            self.registry.report_failure(&origin.id).await;
        }
        Ok(sent?)
    }

    async fn pick(&self, stream: &StreamKey) -> Result<Arc<Origin>, ApiError> {
        self.registry.pick(stream).await.map_err(|error| ApiError::Unavailable(error.tell()))
    }
}

fn api_of(origin: &Origin) -> Result<SocketAddr, ApiError> {
    if origin.rtc.is_none() {
        return Err(ApiError::BadGateway("the origin of this stream has no WebRTC endpoint over UDP"));
    }
    origin.api.ok_or(ApiError::BadGateway("the origin of this stream has no HTTP API"))
}
