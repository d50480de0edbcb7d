//! Records of sessions in a table of the kernel: they are there for as long as the flows are.

use std::{io, path::Path};

use aya::{
    Ebpf,
    maps::{HashMap, Map, MapData, MapError},
    sys::SyscallError,
};
use proxy_common::maps::SESSIONS;

use super::{LoadError, pins, table::typed};
use crate::session::{
    SessionId,
    record::{RECORD_SIZE, RecordStore, padded},
};

/// The table of records.
#[derive(Debug)]
pub struct SessionRecords(HashMap<MapData, u64, [u8; RECORD_SIZE]>);

impl SessionRecords {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        typed(ebpf, SESSIONS).map(Self)
    }

    /// What an earlier process pinned below `root`, if it did.
    pub fn pinned(root: &Path) -> Option<Self> {
        let map = MapData::from_pin(pins::map_of(root, SESSIONS)).ok()?;
        Map::HashMap(map).try_into().ok().map(Self)
    }
}

impl RecordStore for SessionRecords {
    fn put(&mut self, session: SessionId, record: &[u8]) -> io::Result<()> {
        self.0.insert(session.0, padded(record)?, 0).map_err(io_error)
    }

    fn delete(&mut self, session: SessionId) -> io::Result<()> {
        match self.0.remove(&session.0) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) => {
                let error = io_error(error);
                if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
            }
        }
    }

    fn load(&self) -> io::Result<Vec<(SessionId, Vec<u8>)>> {
        let records = self.0.iter().map(|found| found.map(|(id, record)| (SessionId(id), record.to_vec())));
        let mut records = records.collect::<Result<Vec<_>, _>>().map_err(io_error)?;
        records.sort_unstable();
        Ok(records)
    }
}

fn io_error(error: MapError) -> io::Error {
    if let MapError::SyscallError(SyscallError { io_error, .. }) = error {
        return io_error;
    }
    io::Error::other(error)
}
