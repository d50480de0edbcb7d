//! TCP streams that are carried now: who, which stream, from which origin, how much.
//!
//! Each is a task of its own. The table knows them all: to tell people, to keep their streams' picks from expiring, and to end
//! them with the process.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::Future,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use proxy_protocol::stream_url::StreamKey;
use serde::Serialize;
use tokio::{
    sync::Notify,
    task::AbortHandle,
    time::{interval, timeout},
};
use tracing::info;

use crate::{
    net::join::{Joined, Traffic},
    origin::{OriginId, Registry},
};

/// How often picks of streams in use are renewed; the least time they last is longer.
const REFRESH: Duration = Duration::from_secs(20);

/// What the task of a connection may take, which is as long as that lasts: most of them are viewers, thousands, for hours.
const TASK: usize = 2048;

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RTMP.
    Rtmp,
    /// HTTP, an answer that does not end.
    Http,
    /// WebRTC media in frames (RFC 4571).
    Webrtc,
}

impl Protocol {
    const ALL: [Self; 3] = [Self::Rtmp, Self::Http, Self::Webrtc];

    /// As it stands in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rtmp => "rtmp",
            Self::Http => "http",
            Self::Webrtc => "webrtc",
        }
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct Connections {
    table: Mutex<Table>,
    /// Told whenever one has ended.
    ended: Notify,
}

#[derive(Debug, Default)]
struct Table {
    next: u64,
    open: BTreeMap<u64, Entry>,
    /// Of those that have ended, by protocol.
    ended: [Ended; Protocol::ALL.len()],
}

#[derive(Clone, Copy, Debug, Default)]
struct Ended {
    connections: u64,
    to_origin: u64,
    to_client: u64,
}

#[derive(Debug)]
struct Entry {
    protocol: Protocol,
    client: SocketAddr,
    place: Option<(Option<StreamKey>, OriginId)>,
    since: Instant,
    traffic: Arc<Traffic>,
    task: Option<AbortHandle>,
}

/// A connection's place in the table, which it leaves when this is dropped.
#[derive(Debug)]
pub struct Connection {
    connections: Arc<Connections>,
    id: u64,
    traffic: Arc<Traffic>,
}

/// A connection as people see it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ConnectionView {
    /// Its number.
    pub id: u64,
    /// What it speaks.
    pub protocol: Protocol,
    /// Who opened it.
    pub client: SocketAddr,
    /// The stream, once it is known.
    pub stream: Option<String>,
    /// The origin that has it.
    pub origin: Option<String>,
    /// How its bytes are carried, once they are not read any more.
    pub joined: Option<Joined>,
    /// Seconds it has been open.
    pub age: f64,
    /// Bytes carried towards the origin.
    pub to_origin: u64,
    /// Bytes carried towards the client.
    pub to_client: u64,
}

/// Sums of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProtocolTotals {
    /// The protocol.
    pub protocol: Protocol,
    /// Connections now.
    pub open: u64,
    /// Connections that there have been.
    pub accepted: u64,
    /// Bytes carried towards origins.
    pub to_origin: u64,
    /// Bytes carried towards clients.
    pub to_client: u64,
}

impl Connections {
    /// Runs `serve` as a task that the table knows as long as it lasts.
    pub fn spawn<F>(
        self: &Arc<Self>,
        protocol: Protocol,
        client: SocketAddr,
        serve: impl FnOnce(Connection) -> F,
    ) where
        F: Future<Output = ()> + Send + 'static,
    {
        const { assert!(size_of::<F>() <= TASK, "box what is needed only until streams are joined") };
        let connection = self.enter(protocol, client);
        let id = connection.id;
        let task = tokio::spawn(serve(connection)).abort_handle();
        if let Some(entry) = self.table.lock().open.get_mut(&id) {
            entry.task = Some(task);
        }
    }

    fn enter(self: &Arc<Self>, protocol: Protocol, client: SocketAddr) -> Connection {
        let traffic = Arc::new(Traffic::default());
        let mut table = self.table.lock();
        let id = table.next;
        table.next += 1;
        let entry = Entry {
            protocol,
            client,
            place: None,
            since: Instant::now(),
            traffic: Arc::clone(&traffic),
            task: None,
        };
        table.open.insert(id, entry);
        Connection { connections: Arc::clone(self), id, traffic }
    }

    /// Every connection, the oldest first.
    pub fn list(&self) -> Vec<ConnectionView> {
        self.table.lock().open.iter().map(|(id, entry)| entry.view(*id)).collect()
    }

    /// Sums by protocol.
    pub fn totals(&self) -> Vec<ProtocolTotals> {
        let table = self.table.lock();
        Protocol::ALL.iter().map(|protocol| table.totals(*protocol)).collect()
    }

    /// Renews the picks of streams in use for as long as the future is polled.
    pub async fn keep_picks(self: Arc<Self>, registry: Arc<dyn Registry>) {
        let mut ticks = interval(REFRESH);
        loop {
            ticks.tick().await;
            registry.refresh(self.streams().into_iter().collect()).await;
        }
    }

    fn streams(&self) -> HashSet<StreamKey> {
        let table = self.table.lock();
        table
            .open
            .values()
            .filter_map(|entry| entry.place.as_ref())
            .filter_map(|(stream, _)| stream.clone())
            .collect()
    }

    /// Closes the connections to an origin that is down: it may have gone without a word, and players come again only once
    /// they know.
    pub fn end_at(&self, origin: &OriginId) {
        let ended = self.end_where(|_, place| place == origin);
        if ended > 0 {
            info!(%origin, ended, "origin is down: its TCP streams end");
        }
    }

    /// Closes the connections for a stream that are at other origins than the one where its publisher is.
    pub fn end_elsewhere(&self, stream: &StreamKey, origin: &OriginId) {
        let ended = self.end_where(|its, place| its == Some(stream) && place != origin);
        if ended > 0 {
            info!(%stream, %origin, ended, "stream is at another origin: its TCP streams end");
        }
    }

    fn end_where(&self, ends: impl Fn(Option<&StreamKey>, &OriginId) -> bool) -> usize {
        let table = self.table.lock();
        let is_meant =
            |entry: &&Entry| entry.place.as_ref().is_some_and(|(stream, at)| ends(stream.as_ref(), at));
        let tasks = table.open.values().filter(is_meant).filter_map(|entry| entry.task.as_ref());
        tasks.map(AbortHandle::abort).count()
    }

    /// How many there are at each origin.
    pub fn at_origins(&self) -> HashMap<OriginId, u64> {
        let mut counts = HashMap::new();
        for (_, origin) in self.table.lock().open.values().filter_map(|entry| entry.place.as_ref()) {
            *counts.entry(origin.clone()).or_default() += 1;
        }
        counts
    }

    /// Waits at most `grace` for connections to end by themselves, then closes those that are left and tells how many.
    pub async fn close(&self, grace: Duration) -> usize {
        let _ = timeout(grace, self.none_left()).await;
        let tasks: Vec<_> = self.table.lock().open.values().filter_map(|entry| entry.task.clone()).collect();
        tasks.iter().for_each(AbortHandle::abort);
        tasks.len()
    }

    /// Waits until there are none.
    pub async fn none_left(&self) {
        loop {
            let ended = self.ended.notified();
            if self.table.lock().open.is_empty() {
                return;
            }
            ended.await;
        }
    }
}

impl Table {
    fn totals(&self, protocol: Protocol) -> ProtocolTotals {
        let ended = self.ended.get(protocol as usize).copied().unwrap_or_default();
        let Ended { connections, to_origin, to_client } = ended;
        let mut totals = ProtocolTotals { protocol, open: 0, accepted: connections, to_origin, to_client };
        for entry in self.open.values().filter(|entry| entry.protocol == protocol) {
            totals.open += 1;
            totals.accepted += 1;
            totals.to_origin += entry.traffic.to_origin();
            totals.to_client += entry.traffic.to_client();
        }
        totals
    }

    fn leave(&mut self, id: u64) {
        let Some(entry) = self.open.remove(&id) else { return };
        if let Some(ended) = self.ended.get_mut(entry.protocol as usize) {
            ended.connections += 1;
            ended.to_origin += entry.traffic.to_origin();
            ended.to_client += entry.traffic.to_client();
        }
    }
}

impl Entry {
    fn view(&self, id: u64) -> ConnectionView {
        let (stream, origin) = match &self.place {
            Some((stream, origin)) => (stream.as_ref().map(ToString::to_string), Some(origin.to_string())),
            None => (None, None),
        };
        ConnectionView {
            id,
            protocol: self.protocol,
            client: self.client,
            stream,
            origin,
            joined: self.traffic.joined(),
            age: self.since.elapsed().as_secs_f64(),
            to_origin: self.traffic.to_origin(),
            to_client: self.traffic.to_client(),
        }
    }
}

impl Connection {
    /// Its number, which logs and clients see.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// What it carries.
    pub fn traffic(&self) -> &Arc<Traffic> {
        &self.traffic
    }

    /// The origin it is at, once that is known.
    pub fn origin(&self) -> Option<OriginId> {
        let table = self.connections.table.lock();
        table.open.get(&self.id)?.place.as_ref().map(|(_, origin)| origin.clone())
    }

    /// It is for this stream, if that is known, on this origin.
    pub fn place(&self, stream: Option<&StreamKey>, origin: &OriginId) {
        if let Some(entry) = self.connections.table.lock().open.get_mut(&self.id) {
            entry.place = Some((stream.cloned(), origin.clone()));
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.connections.table.lock().leave(self.id);
        self.connections.ended.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: SocketAddr =
        SocketAddr::V4(std::net::SocketAddrV4::new(std::net::Ipv4Addr::LOCALHOST, 5000));

    fn stream() -> StreamKey {
        proxy_protocol::stream_url::StreamRules::default().rtc_url("webrtc://host/live/a").unwrap()
    }

    #[tokio::test]
    async fn a_connection_is_listed_as_long_as_it_lasts_and_counted_for_ever() {
        let connections = Arc::new(Connections::default());
        let (end, ending) = tokio::sync::oneshot::channel::<()>();
        connections.spawn(Protocol::Rtmp, CLIENT, |connection| async move {
            connection.place(Some(&stream()), &OriginId::new("a", "b", "c"));
            connection.traffic().count(3, 4);
            let _ = ending.await;
        });
        tokio::task::yield_now().await;
        let listed = connections.list();
        assert_eq!((listed.len(), listed[0].origin.as_deref()), (1, Some("a-b-c")));
        assert_eq!(connections.streams(), HashSet::from([stream()]));
        end.send(()).unwrap();
        assert_eq!(connections.close(Duration::from_secs(5)).await, 0);
        assert_eq!(connections.list(), []);
        let rtmp =
            ProtocolTotals { protocol: Protocol::Rtmp, open: 0, accepted: 1, to_origin: 3, to_client: 4 };
        assert_eq!(connections.totals()[0], rtmp);
    }

    #[tokio::test]
    async fn connections_end_with_their_origin_and_no_others_do() {
        let connections = Arc::new(Connections::default());
        for origin in ["one", "other"] {
            connections.spawn(Protocol::Rtmp, CLIENT, move |connection| async move {
                connection.place(Some(&stream()), &OriginId::new(origin, "b", "c"));
                std::future::pending().await
            });
        }
        tokio::task::yield_now().await;
        connections.end_at(&OriginId::new("one", "b", "c"));
        timeout(Duration::from_secs(5), async {
            while connections.list().len() > 1 {
                tokio::task::yield_now().await;
            }
        })
        .await
        .expect("it is gone");
        assert_eq!(connections.list()[0].origin.as_deref(), Some("other-b-c"));
    }

    #[tokio::test]
    async fn what_does_not_end_in_time_is_closed() {
        let connections = Arc::new(Connections::default());
        connections.spawn(Protocol::Http, CLIENT, |connection| async move {
            let _connection = connection;
            std::future::pending().await
        });
        assert_eq!(connections.close(Duration::from_millis(20)).await, 1);
        timeout(Duration::from_secs(5), connections.none_left()).await.expect("it is gone");
    }
}
