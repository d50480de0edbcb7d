//! Frames as fast as a CPU makes them: one live test run that lasts until a signal ends it, because each call costs
//! some 20 ms to set up and take down.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    programs::{ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
    sys::SyscallError,
};
use bench_tables::{Template, Tuple};
use rustix::io::Errno;

use super::{
    flows,
    mapping::Mapping,
    object,
    site::{Device, Site, link},
    thread as threads,
};
use crate::netns::Direct;

const BATCH: u32 = 64;
/// More frames than a measurement has time for.
const ENDLESS: u32 = 1 << 30;
const PATIENCE: Duration = Duration::from_millis(1);

/// Which end makes the frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Client,
    Origin,
}

/// A program that sends each of its tuples in turn.
#[derive(Debug)]
pub(super) struct Generator {
    end: End,
    device: Device,
    frame: Arc<[u8]>,
    tuples: u64,
    sent: object::Counter,
    ebpf: Arc<Ebpf>,
    _templates: Mapping<Template>,
}

impl Generator {
    pub(super) fn new(site: &Site, end: End, tuples: &[Tuple]) -> Result<Self> {
        let ends = match end {
            End::Client => (site.client, site.left),
            End::Origin => (site.origin, site.right),
        };
        let frame = flows::frame(&flows::template(&Tuple::default()));
        Self::between(end, ends, frame, tuples.iter().map(flows::template).collect())
    }

    /// Sends `frame` by a device to its peer, with each of the templates in it in turn.
    pub(super) fn between(
        end: End,
        (device, peer): (Device, Device),
        frame: Vec<u8>,
        templates: Vec<Template>,
    ) -> Result<Self> {
        let count = u32::try_from(templates.len())?;
        let addresses = link(device, peer);
        let mut ebpf = object::load(object::GENERATOR, |loader: &mut EbpfLoader<'_>| {
            loader.override_global("COUNT", &count, true).override_global("LINK", &addresses, true);
            loader.map_max_entries("TEMPLATES", count);
        })?;
        let mut rows = Mapping::of(&mut ebpf, "TEMPLATES")?;
        rows.rows().iter_mut().zip(templates).for_each(|(row, template)| *row = template);
        let sent = object::Counter::of(&mut ebpf, "SENT")?;
        let (ebpf, frame) = (Arc::new(ebpf), frame.into());
        Ok(Self { end, device, frame, tuples: u64::from(count), sent, ebpf, _templates: rows })
    }

    /// Starts making frames on a CPU.
    pub(super) fn start(&self, network: &Direct, cpu: usize) -> Running {
        let namespace = match self.end {
            End::Client => &network.client,
            End::Origin => &network.origin,
        };
        let (ebpf, device, frame) = (Arc::clone(&self.ebpf), self.device, Arc::clone(&self.frame));
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let make = move || {
            threads::pin_this_one(cpu)?;
            make(&ebpf, &frame, device, &stopped)
        };
        let thread = namespace.enter(|| thread::spawn(make));
        Running { stop, thread: Some(thread) }
    }

    /// How many tuples it sends in turn.
    pub(super) fn tuples(&self) -> u64 {
        self.tuples
    }

    /// How many frames it has made.
    pub(super) fn sent(&self) -> Result<u64> {
        self.sent.total()
    }
}

fn make(ebpf: &Ebpf, frame: &[u8], device: Device, stop: &AtomicBool) -> Result<()> {
    let program: &Xdp = ebpf.program("generate").context("the object has no generator")?.try_into()?;
    let context = context(frame, device)?;
    while !stop.load(Ordering::Relaxed) {
        let attrs = TestRunAttrs::new().xdp_live_frames(BATCH);
        let run = program.test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&context),
            repeat: ENDLESS,
            attrs,
            ..TestRunOptions::new()
        });
        match run {
            Err(ProgramError::SyscallError(SyscallError { io_error, .. })) if is_interruption(&io_error) => {}
            Err(error) => return Err(error).context("failed to make frames"),
            Ok(_) => {}
        }
    }
    Ok(())
}

fn is_interruption(error: &std::io::Error) -> bool {
    Errno::from_io_error(error) == Some(Errno::INTR)
}

/// An `xdp_md`: where the data begins and ends, where metadata would begin, the device, and its receive queue.
fn context(frame: &[u8], device: Device) -> Result<Vec<u8>> {
    let words = [0, u32::try_from(frame.len())?, 0, device.ifindex, 0];
    Ok(words.iter().flat_map(|word| word.to_ne_bytes()).collect())
}

/// A generator at work; it stops when dropped.
#[derive(Debug)]
pub(super) struct Running {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Result<()>>>,
}

impl Running {
    /// Processor time it has used, for everything that became of its frames.
    pub(super) fn time(&self) -> Result<Duration> {
        threads::processor_time(self.thread.as_ref().context("a stopped generator has no time")?)
    }

    /// Stops it.
    pub(super) fn stop(mut self) -> Result<()> {
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        let Some(thread) = self.thread.take() else { return Ok(()) };
        self.stop.store(true, Ordering::Relaxed);
        // A signal that comes before the call interrupts nothing, hence more than one.
        while !thread.is_finished() {
            threads::interrupt(&thread);
            thread::sleep(PATIENCE);
        }
        match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a generator panicked"),
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Whoever wants to know whether it worked stops it.
        let _ = self.end();
    }
}
