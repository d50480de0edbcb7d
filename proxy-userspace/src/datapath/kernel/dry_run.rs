//! Running the programs on frames of our own: on a copy, for what they would do with it, or for real, to send it. A
//! decision on the host sees the tables as they do.

use std::io;

use aya::{
    Ebpf,
    programs::{ProgramError, TestRun, TestRunAttrs, TestRunOptions, TestRunResult, Xdp},
};
use proxy_common::{
    family::{Family, V4, V6},
    flow::{Direction, Endpoints, Hashing, Idle, NextHop, Ownership, Policing, ServiceKey},
    forward::{self, Budget, Place, Record},
    maps,
};

use super::{KernelDatapath, attach};
use crate::datapath::Engine;

/// Has a program redirect a frame for real (`BPF_F_TEST_XDP_LIVE_FRAMES`, 5.18).
pub(super) fn send_by_xdp(ebpf: &mut Ebpf, ifindex: u32, frame: &[u8]) -> io::Result<()> {
    let program: &mut Xdp =
        attach::program(ebpf, maps::SEND_BY_XDP).map_err(|_| io::ErrorKind::Unsupported)?;
    let frame = [&ifindex.to_ne_bytes(), frame].concat();
    let attrs = TestRunAttrs::new().xdp_live_frames(1);
    let options = TestRunOptions { data_in: Some(&frame), attrs, ..TestRunOptions::default() };
    match program.test_run(options) {
        Ok(_) => Ok(()),
        Err(ProgramError::SyscallError(error)) => Err(error.io_error),
        // It was not loaded.
        Err(error) => Err(io::Error::new(io::ErrorKind::Unsupported, error)),
    }
}

/// What a program made of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DryRun {
    /// The action code it returned.
    pub action: u32,
    /// The frame it left.
    pub frame: Vec<u8>,
}

/// How big a loaded program is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProgramSize {
    /// Its name.
    pub name: &'static str,
    /// Instructions the verifier walked.
    pub verified_instructions: Option<u32>,
    /// Bytes after the verifier's rewriting.
    pub translated: Option<u32>,
    /// Bytes of machine code.
    pub jited: u32,
}

impl KernelDatapath {
    /// Runs a program on a frame that goes nowhere; it is counted like any other.
    pub fn dry_run(&mut self, engine: Engine, frame: &[u8]) -> Result<DryRun, ProgramError> {
        match engine {
            Engine::Xdp => test_run(attach::xdp(&mut self.ebpf)?, frame),
            Engine::Tc => test_run(attach::tc(&mut self.ebpf)?, frame),
        }
    }

    /// The sizes of the loaded programs.
    pub fn program_sizes(&self) -> Result<Vec<ProgramSize>, ProgramError> {
        [maps::FORWARD_XDP, maps::FORWARD_TC].into_iter().map(|name| self.program_size(name)).collect()
    }

    fn program_size(&self, name: &'static str) -> Result<ProgramSize, ProgramError> {
        let info = self.ebpf.program(name).ok_or(ProgramError::NotLoaded)?.info()?;
        Ok(ProgramSize {
            name,
            verified_instructions: info.verified_instruction_count(),
            translated: info.size_translated(),
            jited: info.size_jitted(),
        })
    }
}

/// The tables as the programs see them, so that a decision can be taken on the host. Budgets are the programs' own.
impl forward::Tables for KernelDatapath {
    fn hashing(&self) -> Option<Hashing> {
        Some(self.settings().hashing)
    }

    fn ownership(&self) -> Option<Ownership> {
        Some(self.settings().ownership)
    }

    fn policing(&self) -> Option<Policing> {
        Some(self.settings().policing)
    }

    fn next_hop(&self, index: u16) -> Option<NextHop> {
        (u32::from(index) < maps::NEXT_HOP_ROWS).then(|| self.tables.next_hop(index))
    }

    fn service(&self, key: &ServiceKey) -> Option<u32> {
        self.tables.service(key)
    }

    fn spend(&self, _: Budget, _: u32, _: u32) -> Option<bool> {
        None
    }
}

macro_rules! records {
    ($family:ident, $flows:ident) => {
        impl forward::Records<$family> for KernelDatapath {
            fn find(
                &self,
                direction: Direction,
                key: &Endpoints<<$family as Family>::Addr>,
            ) -> Option<Place> {
                let row = self.tables.$flows.find(direction, key)?;
                Some(Place(u64::from(row)))
            }

            fn route(&self, (direction, place): Record) -> <$family as Family>::Route {
                self.tables.$flows.route(direction, row(place))
            }

            fn idle(&self, (direction, place): Record) -> Idle {
                self.tables.$flows.idle(direction, row(place))
            }
        }
    };
}

fn row(Place(row): Place) -> u32 {
    u32::try_from(row).expect("`find` found a row")
}

records!(V4, v4);
records!(V6, v6);

fn test_run<P>(program: &P, frame: &[u8]) -> Result<DryRun, ProgramError>
where
    P: for<'a> TestRun<Opts<'a> = TestRunOptions<'a>, Result = TestRunResult>,
{
    let mut left = vec![0; frame.len()];
    let options =
        TestRunOptions { data_in: Some(frame), data_out: Some(&mut left), ..TestRunOptions::default() };
    let result = program.test_run(options)?;
    Ok(DryRun { action: result.return_value, frame: left })
}
