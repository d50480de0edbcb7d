//! A relay from its sockets to its threads and back: what it binds or inherits, who serves it, and what the next process gets.

use std::{
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, OnceLock},
    thread::JoinHandle,
    time::Instant,
};

use parking_lot::Mutex;
use tokio::sync::mpsc;

use super::{
    Clock, Errors, Listener, Placement, Relay, Shared, Sockets, Worker, calls::Calls, counters::Counters,
    long::LongDatagrams, table::Table,
};
use crate::{
    datapath::Protocol,
    net::{handover::Role, udp::UdpSocket},
    proxy::Event,
};

impl Relay {
    /// Binds every address of `listen` once per worker and starts the threads, placed as told.
    ///
    /// A host without IPv6 serves IPv4 alone.
    pub fn start(
        listen: &[SocketAddr],
        workers: usize,
        placement: &Placement,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        let mut relay = Self::placed(Sockets::bind(listen, workers)?, placement.clone(), events)?;
        relay.resume()?;
        Ok(relay)
    }

    /// Makes a relay, placed as suits the host, that reads nothing and takes nothing from another process that reads the
    /// same sockets before [`Self::resume`].
    pub fn new(sockets: Sockets, events: mpsc::Sender<Event>) -> io::Result<Self> {
        let placement = Placement::of_host(sockets.webrtc.by_worker.len());
        Self::placed(sockets, placement, events)
    }

    pub(super) fn placed(
        sockets: Sockets,
        placement: Placement,
        events: mpsc::Sender<Event>,
    ) -> io::Result<Self> {
        let Sockets { webrtc, srt, sources } = sockets;
        let of = |protocol| move |address| (address, protocol);
        let local = webrtc.local.into_iter().map(of(Protocol::WebRtc));
        let local = local.chain(srt.local.into_iter().map(of(Protocol::Srt))).collect();
        let shared = Arc::new(Shared {
            table: Table::default(),
            counters: Counters::default(),
            clock: Clock(Instant::now()),
            events,
            long: LongDatagrams::new()?,
            strays: OnceLock::new(),
            calls: Calls::new(srt.by_worker.iter().flatten())?,
            sources: Mutex::default(),
        });
        let on = |protocol| move |socket| Listener { socket, protocol };
        let listeners = webrtc.by_worker.into_iter().zip(srt.by_worker).map(|(media, calls)| {
            let media = media.into_iter().map(on(Protocol::WebRtc));
            media.chain(calls.into_iter().map(on(Protocol::Srt))).collect()
        });
        let workers = listeners
            .map(|listeners| Worker::new(listeners, Arc::clone(&shared)).map(Arc::new))
            .collect::<io::Result<Vec<_>>>()?;
        let threads = Vec::new();
        let errors = open_errors(&shared);
        let relay = Self { shared, workers, errors, threads, placement, local };
        sources.into_iter().try_for_each(|socket| relay.keep_source(socket).map(drop))?;
        Ok(relay)
    }

    /// Binds what is missing, says who gets what, and starts the threads, unless they run.
    pub fn resume(&mut self) -> io::Result<()> {
        if !self.threads.is_empty() {
            return Ok(());
        }
        self.complete()?;
        let placement = self.steer();
        let started = self.start_threads(&placement);
        if started.is_err() {
            self.pause();
        }
        started
    }

    /// Binds for every worker that has no socket on one of the service addresses: from then on it gets its share.
    fn complete(&mut self) -> io::Result<()> {
        for (address, protocol) in &self.local {
            let lacks = |worker: &Worker| {
                worker.listeners().iter().all(|listener| listener.socket.local_addr() != *address)
            };
            for worker in self.workers.iter_mut().filter(|worker| lacks(worker)) {
                let worker = Arc::get_mut(worker).expect("no thread has it while none runs");
                let socket = UdpSocket::bind(*address, true)?;
                worker.listen(Listener { socket, protocol: *protocol })?;
            }
        }
        Ok(())
    }

    /// Steers every address as placed, or by the hash for all, which is never wrong. Sockets of an earlier process may
    /// be steered otherwise.
    fn steer(&self) -> Placement {
        let listeners = self.workers.first().map(|worker| worker.listeners()).unwrap_or_default();
        if let Placement::ByCpu(sets) = &self.placement
            && sets.len() == self.workers.len()
        {
            let workers = u32::try_from(sets.len()).unwrap_or(u32::MAX);
            match listeners.iter().try_for_each(|listener| listener.socket.steer_by_cpu(workers)) {
                Ok(()) => return self.placement.clone(),
                Err(error) => tracing::info!(%error, "the kernel steers by hash alone"),
            }
        }
        if let Err(error) = listeners.iter().try_for_each(|listener| listener.socket.steer_by_hash()) {
            tracing::info!(%error, "datagrams stay with the workers that an earlier process chose");
        }
        Placement::ByHash
    }

    fn start_threads(&mut self, placement: &Placement) -> io::Result<()> {
        for (index, worker) in self.workers.iter().enumerate() {
            worker.rearm();
            self.threads.push(spawn(index, worker, placement.clone())?);
        }
        if let Some(errors) = self.errors.clone() {
            errors.rearm();
            let thread = std::thread::Builder::new().name("relay-icmp".into());
            self.threads.push(thread.spawn(move || errors.run())?);
        }
        Ok(())
    }

    /// Ends the threads; what arrives waits in the sockets.
    pub fn pause(&mut self) {
        for worker in &self.workers {
            worker.stop();
        }
        if let Some(errors) = &self.errors {
            errors.stop();
        }
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a relay worker panicked");
            }
        }
    }

    /// Second descriptors of every socket, for the next process.
    pub fn share(&self) -> io::Result<Vec<(Role, OwnedFd)>> {
        let mut shared = Vec::new();
        for (worker, sockets) in self.workers.iter().enumerate() {
            for Listener { socket, protocol } in sockets.listeners() {
                let worker = u16::try_from(worker).map_err(|_| io::ErrorKind::InvalidInput)?;
                let address = socket.local_addr();
                let role = match protocol {
                    Protocol::WebRtc => Role::Media { worker, address },
                    Protocol::Srt => Role::Srt { worker, address },
                };
                shared.push((role, socket.share()?));
            }
        }
        for (address, source) in self.shared.sources.lock().iter() {
            shared.push((Role::Source(*address), source.socket.share()?));
        }
        Ok(shared)
    }
}

fn spawn(index: usize, worker: &Arc<Worker>, placement: Placement) -> io::Result<JoinHandle<()>> {
    let worker = Arc::clone(worker);
    std::thread::Builder::new().name(format!("relay-{index}")).spawn(move || {
        if let Err(error) = placement.settle(index) {
            tracing::warn!(%error, index, "a relay worker runs on any CPU");
        }
        worker.run();
    })
}

fn open_errors(shared: &Arc<Shared>) -> Option<Arc<Errors>> {
    match Errors::open(Arc::clone(shared)) {
        Ok(errors) => Some(Arc::new(errors)),
        Err(error) => {
            tracing::warn!(%error, "ICMP errors are not passed on between clients and origins (needs CAP_NET_RAW)");
            None
        }
    }
}
