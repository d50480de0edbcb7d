//! One HTTP exchange with an origin: the client's request as it is, except for what belongs to its connection.

use std::{net::SocketAddr, time::Duration};

use axum::{body::Bytes, response::Response};
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri, header,
    request::Parts,
    uri::{PathAndQuery, Scheme},
};
use http_body_util::Full;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use proxy_protocol::{
    routed_ufrag::{Credentials, PWD_PARAMETER, UFRAG_PARAMETER},
    uri::with_parameter,
};
use tokio::time::timeout;

use super::ApiError;
use crate::api::{body, client_address::ClientAddress, hop::remove_connection_headers};

/// Sends requests to origins, each over a connection of its own: SRS closes it after every answer of this API.
#[derive(Debug)]
pub(super) struct Forwarder {
    client: Client<HttpConnector, Full<Bytes>>,
    deadline: Duration,
    answer_limit: usize,
}

/// A request as an origin gets it.
#[derive(Clone, Debug)]
pub(super) struct Outgoing {
    method: Method,
    target: PathAndQuery,
    headers: HeaderMap,
    body: Bytes,
}

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ForwardError {
    #[error("failed to connect to the origin")]
    Connect,
    #[error("the origin closed the connection without an answer")]
    NoAnswer,
    #[error("the origin did not answer in time")]
    Timeout,
    #[error("the origin's answer is too large")]
    TooLarge,
}

impl From<ForwardError> for ApiError {
    fn from(error: ForwardError) -> Self {
        match error {
            ForwardError::Connect => Self::BadGateway("the origin of this stream cannot be reached"),
            ForwardError::NoAnswer => Self::NoAnswer,
            ForwardError::Timeout => Self::GatewayTimeout,
            ForwardError::TooLarge => Self::BadGateway("the origin's answer is too large"),
        }
    }
}

impl Outgoing {
    /// The request of `client` with these parts.
    pub(super) fn new(parts: &Parts, body: Bytes, client: &ClientAddress) -> Self {
        let mut headers = parts.headers.clone();
        remove_connection_headers(&mut headers);
        headers.remove(header::CONTENT_LENGTH);
        // The answer is read here, so it must not be compressed.
        headers.remove(header::ACCEPT_ENCODING);
        headers.remove(header::EXPECT);
        client.write_to(&mut headers);
        let target = target_of(&parts.uri);
        Self { method: parts.method.clone(), target, headers, body }
    }

    /// The same with the ICE credentials that the session is to have. They come first in the query: SRS cuts queries at `,` and
    /// `;` too and counts the pieces, so that it might miss them behind others.
    pub(super) fn with_credentials(mut self, credentials: &Credentials) -> Self {
        let target = with_parameter(self.target.as_str(), PWD_PARAMETER, credentials.pwd.expose());
        let target = with_parameter(&target, UFRAG_PARAMETER, credentials.ufrag.as_str());
        // One that became too long stays as it is, and the origin chooses.
        self.target = PathAndQuery::try_from(target).unwrap_or(self.target);
        self
    }

    /// The DELETE of the resource at `location`, by the same client.
    pub(super) fn delete_of(mut self, location: &HeaderValue) -> Option<Self> {
        let location = Uri::try_from(location.as_bytes()).ok()?;
        self.target = location.path_and_query()?.clone();
        self.method = Method::DELETE;
        self.body = Bytes::new();
        self.headers.remove(header::CONTENT_TYPE);
        Some(self)
    }

    fn into_request(self, origin: SocketAddr) -> Request<Full<Bytes>> {
        let uri =
            Uri::builder().scheme(Scheme::HTTP).authority(origin.to_string()).path_and_query(self.target);
        let mut request = Request::new(Full::new(self.body));
        *request.method_mut() = self.method;
        *request.uri_mut() = uri.build().expect("a socket address is an authority");
        *request.headers_mut() = self.headers;
        request
    }
}

/// Path and query as they came. SRS answers `/rtc/v1/whip` with a redirect to `/rtc/v1/whip/`, which makes a GET of a
/// browser's POST; such a path gets its slash here.
fn target_of(uri: &Uri) -> PathAndQuery {
    let target = uri.path_and_query().cloned().unwrap_or(PathAndQuery::from_static("/"));
    let name = uri.path().strip_prefix("/rtc/v1/");
    if name.is_none_or(|name| name.contains('/')) {
        return target;
    }
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    PathAndQuery::try_from(format!("{}/{query}", uri.path())).unwrap_or(target)
}

impl Forwarder {
    /// Gives each exchange `deadline`, half of it for connecting, and takes answers up to `answer_limit` bytes.
    pub(super) fn new(deadline: Duration, answer_limit: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_connect_timeout(Some(deadline / 2));
        connector.set_nodelay(true);
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
        Self { client, deadline, answer_limit }
    }

    /// Sends `outgoing` to `origin` and reads the whole answer.
    pub(super) async fn send(
        &self,
        origin: SocketAddr,
        outgoing: Outgoing,
    ) -> Result<Response<Bytes>, ForwardError> {
        let exchange = timeout(self.deadline, self.exchange(outgoing.into_request(origin))).await;
        exchange.unwrap_or(Err(ForwardError::Timeout))
    }

    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response<Bytes>, ForwardError> {
        let answered = self.client.request(request).await;
        let response = answered.map_err(|error| {
            if error.is_connect() { ForwardError::Connect } else { ForwardError::NoAnswer }
        })?;
        let (mut head, body) = response.into_parts();
        let body = body::read(body, self.answer_limit).await.map_err(|error| match error {
            body::ReadError::TooLarge => ForwardError::TooLarge,
            body::ReadError::Broken => ForwardError::NoAnswer,
        })?;
        remove_connection_headers(&mut head.headers);
        head.headers.remove(header::CONTENT_LENGTH);
        Ok(Response::from_parts(head, body))
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;
    use crate::api::client_address::X_FORWARDED_FOR;

    fn outgoing(uri: &str, headers: &[(&'static str, &'static str)]) -> Outgoing {
        let mut request = Request::post(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (parts, ()) = request.body(()).unwrap().into_parts();
        let client = ClientAddress { ip: [192, 0, 2, 1].into(), path: "192.0.2.1".into() };
        Outgoing::new(&parts, Bytes::from_static(b"offer"), &client)
    }

    #[test]
    fn headers_of_the_connection_stay_behind() {
        let sent = outgoing(
            "/rtc/v1/whip/",
            &[
                ("host", "edge.example"),
                ("authorization", "Bearer t"),
                ("content-length", "5"),
                ("connection", "keep-alive, X-Private, Host"),
                ("keep-alive", "timeout=5"),
                ("x-private", "1"),
                ("te", "trailers"),
                ("accept-encoding", "gzip"),
                ("x-forwarded-for", "10.9.9.9"),
            ],
        );
        let mut names: Vec<_> = sent.headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["authorization", "host", "x-forwarded-for", "x-real-ip"]);
        assert_eq!(sent.headers[X_FORWARDED_FOR], "192.0.2.1");
    }

    #[test]
    fn path_and_query_keep_their_bytes() {
        let target = "/rtc/v1/whip//x%2F/?app=a+b&session=q/+%2B:z&&stream=%e6";
        let request = outgoing(target, &[]).into_request("[::1]:1985".parse().unwrap());
        assert_eq!(request.uri().to_string(), format!("http://[::1]:1985{target}"));
    }

    #[test]
    fn credentials_come_before_what_the_client_asked_for_and_change_none_of_it() {
        let key = proxy_protocol::routed_ufrag::FleetKey::new(b"one key for all of a fleet");
        let credentials = key.credentials("vid-1-s-1", 1);
        let (ufrag, pwd) = (&credentials.ufrag, credentials.pwd.expose());
        for (asked, rest) in [
            ("/rtc/v1/whip/?app=a+b&token=q/+%2B==,;z&&x", "&app=a+b&token=q/+%2B==,;z&&x"),
            ("/rtc/v1/whip?app=live", "&app=live"),
            ("/rtc/v1/whip/", ""),
            ("/rtc/v1/whip/?", ""),
        ] {
            let sent = outgoing(asked, &[])
                .with_credentials(&credentials)
                .into_request("[::1]:1985".parse().unwrap());
            let target = format!("/rtc/v1/whip/?ice-ufrag={ufrag}&ice-pwd={pwd}{rest}");
            assert_eq!(sent.uri().path_and_query().unwrap().as_str(), target);
        }
    }

    #[test]
    fn a_session_is_deleted_where_its_location_says() {
        for location in ["/rtc/v1/whip/?session=a+b:c/d", "http://edge.example/rtc/v1/whip/?session=a+b:c/d"]
        {
            let sent = outgoing("/rtc/v1/whip/?app=live", &[]).delete_of(&location.parse().unwrap()).unwrap();
            assert_eq!(
                (sent.method, sent.target.as_str()),
                (Method::DELETE, "/rtc/v1/whip/?session=a+b:c/d")
            );
            assert!(sent.body.is_empty());
        }
    }
}
