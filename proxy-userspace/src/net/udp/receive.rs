//! Receiving in batches.

use std::{
    mem::{size_of, zeroed},
    ops::Range,
};

use super::{
    BATCH, Meta,
    control::{self, CONTROL, Control},
};

/// The largest UDP payload, which is also the longest run that the kernel merges.
const DATAGRAM: usize = 65_535;
/// From the room of one message to the next: odd in cache lines, because short datagrams would else all compete for
/// the few lines of a cache that a power of two leads to.
const STRIDE: usize = 65_536 + 19 * 64;

/// Buffers for [`BATCH`] messages, made once and used again.
pub struct RecvBatch {
    payloads: Vec<u8>,
    names: Vec<libc::sockaddr_storage>,
    /// These two are read through the headers alone.
    _controls: Vec<Control>,
    _iovecs: Vec<libc::iovec>,
    headers: Vec<libc::mmsghdr>,
    filled: usize,
}

/// Datagrams of one sender, of equal length but for the last, that arrived as one message.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// What came with each of them; the length is that of all.
    pub meta: Meta,
    payload: &'a [u8],
    segment: usize,
    slot: usize,
}

/// Where neighbouring datagrams of an [`Arrival`] lie in their batch.
#[derive(Clone, Debug)]
pub struct Span {
    slot: usize,
    bytes: Range<usize>,
    /// The length of each but the last.
    pub segment: usize,
}

// SAFETY: the raw pointers in the headers point into what the vectors beside them own, which moves with them and never
// grows.
unsafe impl Send for RecvBatch {}

impl std::fmt::Debug for RecvBatch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvBatch").field("filled", &self.filled).finish_non_exhaustive()
    }
}

impl Default for RecvBatch {
    fn default() -> Self {
        Self::of(BATCH)
    }
}

impl RecvBatch {
    /// Room for a single message.
    pub fn one() -> Self {
        Self::of(1)
    }

    fn of(messages: usize) -> Self {
        // SAFETY: all three are plain data for which zeroes are valid.
        let (name, iovec, header): (libc::sockaddr_storage, _, _) = unsafe { (zeroed(), zeroed(), zeroed()) };
        let (mut payloads, mut names) = (vec![0; messages * STRIDE], vec![name; messages]);
        let mut controls = vec![Control::default(); messages];
        let (mut iovecs, mut headers): (Vec<libc::iovec>, Vec<libc::mmsghdr>) =
            (vec![iovec; messages], vec![header; messages]);
        for (slot, header) in headers.iter_mut().enumerate() {
            // SAFETY: every vector has `messages` elements, the first one of `STRIDE` bytes each.
            unsafe {
                let iovec = iovecs.as_mut_ptr().add(slot);
                let room = payloads.as_mut_ptr().add(slot * STRIDE).cast();
                iovec.write(libc::iovec { iov_base: room, iov_len: DATAGRAM });
                header.msg_hdr.msg_iov = iovec;
                header.msg_hdr.msg_iovlen = 1;
                header.msg_hdr.msg_name = names.as_mut_ptr().add(slot).cast();
                header.msg_hdr.msg_control = controls.as_mut_ptr().add(slot).cast();
            }
            reset(header);
        }
        Self { payloads, names, _controls: controls, _iovecs: iovecs, headers, filled: 0 }
    }

    /// Forgets what it holds.
    pub fn clear(&mut self) {
        // The kernel changed the headers it filled, no others.
        self.headers.iter_mut().take(self.filled).for_each(reset);
        self.filled = 0;
    }

    /// Whether there is no room left.
    pub fn is_full(&self) -> bool {
        self.filled == self.headers.len()
    }

    /// Messages it holds.
    pub fn filled(&self) -> usize {
        self.filled
    }

    /// The datagrams it holds.
    pub fn iter(&self) -> impl Iterator<Item = (Meta, &[u8])> {
        self.arrivals(0)
            .flat_map(|arrival| arrival.datagrams().map(move |(payload, _)| (arrival.meta, payload)))
    }

    /// The messages it holds, without the first `skipped`.
    pub fn arrivals(&self, skipped: usize) -> impl Iterator<Item = Arrival<'_>> {
        (skipped..self.filled).filter_map(|slot| self.arrival(slot))
    }

    /// The bytes of `span`.
    pub fn bytes(&self, span: &Span) -> &[u8] {
        let start = span.slot * STRIDE;
        self.payloads.get(start + span.bytes.start..start + span.bytes.end).unwrap_or_default()
    }

    pub(super) fn vacant(&mut self) -> (*mut libc::mmsghdr, libc::c_uint) {
        let vacant = self.headers.get_mut(self.filled..).unwrap_or_default();
        (vacant.as_mut_ptr(), vacant.len() as libc::c_uint)
    }

    pub(super) fn fill(&mut self, messages: usize) {
        self.filled = (self.filled + messages).min(self.headers.len());
    }

    fn arrival(&self, slot: usize) -> Option<Arrival<'_>> {
        let header = self.headers.get(slot)?;
        let peer = control::read_address(self.names.get(slot)?)?;
        let len = header.msg_len as usize;
        let mut meta = Meta { peer, local_ip: None, ifindex: 0, traffic_class: 0 };
        // SAFETY: slots below `filled` are those that the kernel filled.
        let segment = unsafe { control::read(&header.msg_hdr, &mut meta) };
        let segment = segment.filter(|segment| *segment > 0).unwrap_or(len.max(1));
        let payload = self.payloads.get(slot * STRIDE..)?.get(..len)?;
        Some(Arrival { meta, payload, segment, slot })
    }
}

impl<'a> Arrival<'a> {
    /// Each datagram, with its place.
    pub fn datagrams(self) -> impl Iterator<Item = (&'a [u8], Span)> {
        let Self { payload, segment, slot, .. } = self;
        // A datagram may be empty.
        (0..payload.len().max(1)).step_by(segment).map(move |start| {
            let bytes = start..payload.len().min(start + segment);
            (payload.get(bytes.clone()).unwrap_or_default(), Span { slot, bytes, segment })
        })
    }
}

impl Span {
    /// Whether `next` follows so that both can be one span; then they are.
    pub fn extend(&mut self, next: &Self) -> bool {
        let follows = self.slot == next.slot && self.bytes.end == next.bytes.start && !next.bytes.is_empty();
        if follows {
            self.bytes.end = next.bytes.end;
        }
        follows
    }
}

/// Undoes what the kernel changed, so that the header can be filled again.
fn reset(header: &mut libc::mmsghdr) {
    header.msg_hdr.msg_namelen = size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    header.msg_hdr.msg_controllen = CONTROL;
    header.msg_hdr.msg_flags = 0;
}
