//! Records of sessions as files of the runtime directory: they outlive the process, and with `/run` not the host.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::PathBuf,
};

use crate::session::{
    SessionId,
    record::{RecordStore, padded},
};

/// A directory with one file per session.
///
/// Files have one size and are written over in place by one call, which no death of the process can cut. A truncation or
/// a rename would make some file systems write to the disk at once, two milliseconds each time.
#[derive(Debug)]
pub struct RecordFiles(PathBuf);

impl RecordFiles {
    /// Keeps records in `directory`, which is made if it is not there; nobody else may read it.
    pub fn open(directory: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&directory)?;
        Ok(Self(directory))
    }

    fn path(&self, session: SessionId) -> PathBuf {
        self.0.join(session.0.to_string())
    }
}

impl RecordStore for RecordFiles {
    fn put(&mut self, session: SessionId, record: &[u8]) -> io::Result<()> {
        let record = padded(record)?;
        let mut open = OpenOptions::new();
        open.write(true).create(true).truncate(false).mode(0o600);
        open.open(self.path(session))?.write_all(&record)
    }

    fn delete(&mut self, session: SessionId) -> io::Result<()> {
        match fs::remove_file(self.path(session)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    fn load(&self) -> io::Result<Vec<(SessionId, Vec<u8>)>> {
        let mut records = Vec::new();
        for entry in fs::read_dir(&self.0)? {
            let entry = entry?;
            if let Some(Ok(id)) = entry.file_name().to_str().map(str::parse) {
                records.push((SessionId(id), fs::read(entry.path())?));
            }
        }
        records.sort_unstable();
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{lifecycle::owner::tests::TestDir, session::record::RECORD_SIZE};

    #[test]
    fn what_was_put_and_not_deleted_is_loaded_by_the_next_process() {
        let dir = TestDir::new("records");
        let mut files = RecordFiles::open(dir.0.records()).unwrap();
        for (id, text) in [(1, &b"one"[..]), (2, b"two"), (3, b"three"), (2, b"second")] {
            files.put(SessionId(id), text).unwrap();
        }
        files.delete(SessionId(3)).unwrap();
        files.delete(SessionId(4)).unwrap();
        drop(files);
        let files = RecordFiles::open(dir.0.records()).unwrap();
        let padded = |text: &[u8]| {
            let mut bytes = text.to_vec();
            bytes.resize(RECORD_SIZE, 0);
            bytes
        };
        let expected = [(SessionId(1), padded(b"one")), (SessionId(2), padded(b"second"))];
        assert_eq!(files.load().unwrap(), expected);
    }

    #[test]
    fn what_is_not_named_by_a_number_is_no_record() {
        let dir = TestDir::new("stranger");
        let files = RecordFiles::open(dir.0.records()).unwrap();
        fs::write(dir.0.records().join("README"), b"?").unwrap();
        assert_eq!(files.load().unwrap(), []);
    }

    #[test]
    fn a_record_longer_than_its_room_is_refused() {
        let dir = TestDir::new("long");
        let mut files = RecordFiles::open(dir.0.records()).unwrap();
        let error = files.put(SessionId(1), &[1; RECORD_SIZE + 1]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn nobody_else_may_read_records() {
        use std::os::unix::fs::MetadataExt as _;
        let dir = TestDir::new("private");
        let mut files = RecordFiles::open(dir.0.records()).unwrap();
        files.put(SessionId(1), b"secret").unwrap();
        assert_eq!(fs::metadata(dir.0.records()).unwrap().mode() & 0o777, 0o700);
        assert_eq!(fs::metadata(dir.0.records().join("1")).unwrap().mode() & 0o777, 0o600);
    }
}
