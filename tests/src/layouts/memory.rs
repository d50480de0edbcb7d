//! What this machine takes to read one line of a big table, so that the figures of layouts can be understood: the kernel
//! maps arrays in pages of 4 KiB, and a table that the translation buffers do not cover costs a walk of the page tables
//! beside the read itself.

use std::{fmt, hint::black_box, time::Instant};

use anyhow::Result;
use rand::{SeedableRng as _, rngs::StdRng, seq::SliceRandom as _};
use rustix::mm::{Advice, madvise};

/// A record.
const LINE: usize = 64;
const HUGE: usize = 2 << 20;
/// As much as the records of a million flows in one direction.
const BYTES: usize = LINE << 20;
const READS: usize = 1 << 21;
const TURNS: usize = 5;

/// Nanoseconds of a read that the next one waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Latency {
    small_pages: f64,
    huge_pages: f64,
}

/// A line, whose number of the next one the reader follows.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line {
    next: usize,
    rest: [usize; 7],
}

impl Latency {
    pub(super) fn measure() -> Result<Self> {
        Ok(Self { small_pages: read(Advice::LinuxNoHugepage)?, huge_pages: read(Advice::LinuxHugepage)? })
    }
}

fn read(advice: Advice) -> Result<f64> {
    let mut memory: Vec<Line> = Vec::with_capacity((BYTES + HUGE) / LINE);
    let spare = memory.spare_capacity_mut();
    // SAFETY: advice on pages of an allocation that nobody has written yet changes nothing but how they are mapped.
    unsafe {
        madvise(spare.as_mut_ptr().map_addr(|address| address.next_multiple_of(4096)).cast(), BYTES, advice)?
    };
    memory.resize(BYTES / LINE, Line { next: 0, rest: [0; 7] });
    let mut order: Vec<usize> = (0..memory.len()).collect();
    order.shuffle(&mut StdRng::seed_from_u64(0x5eed));
    for (from, to) in order.iter().zip(order.iter().cycle().skip(1)) {
        memory[*from].next = *to;
    }
    let turns = (0..TURNS).map(|_| follow(&memory));
    Ok(turns.fold(f64::INFINITY, f64::min))
}

fn follow(lines: &[Line]) -> f64 {
    let (start, mut at) = (Instant::now(), 0);
    for _ in 0..READS {
        at = black_box(&lines[at]).next;
    }
    black_box(at);
    start.elapsed().as_secs_f64() * 1e9 / READS as f64
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { small_pages, huge_pages } = self;
        write!(f, "a read of a random line among {} MiB, alone: ", BYTES >> 20)?;
        write!(
            f,
            "{small_pages:.0} ns in pages of 4 KiB, as tables are; {huge_pages:.0} ns in pages of 2 MiB"
        )
    }
}
