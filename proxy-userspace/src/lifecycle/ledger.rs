//! Records of sessions that move: an earlier process may have kept them elsewhere than this one does.

use std::{collections::HashSet, io};

use crate::session::{SessionId, record::RecordStore};

/// Where records are kept, and where some may still be.
#[derive(Debug)]
pub struct Ledger {
    store: Box<dyn RecordStore>,
    before: Option<Box<dyn RecordStore>>,
    /// Where nothing is any more.
    spare: Option<Box<dyn RecordStore>>,
}

impl Ledger {
    /// Keeps records in `store`; an earlier process may have kept them in `before`.
    pub fn new(store: Box<dyn RecordStore>, before: Option<Box<dyn RecordStore>>) -> Self {
        Self { store, before, spare: None }
    }

    /// Moves every record to where this process keeps them.
    pub fn move_in(&mut self) -> io::Result<()> {
        let Some(mut before) = self.before.take() else { return Ok(()) };
        let found = before.load()?;
        // As a rule there is nothing: then what is in the store need not be read for this.
        let known = if found.is_empty() { HashSet::new() } else { ids(&self.store.load()?) };
        for (session, record) in found {
            if !known.contains(&session) {
                self.store.put(session, &record)?;
            }
            before.delete(session)?;
        }
        self.spare = Some(before);
        Ok(())
    }

    /// Moves every record back to where an earlier process may have kept them, and keeps them there.
    pub fn move_back(&mut self) -> io::Result<()> {
        let Some(spare) = self.spare.take() else { return Ok(()) };
        self.before = Some(std::mem::replace(&mut self.store, spare));
        self.move_in()
    }
}

fn ids(records: &[(SessionId, Vec<u8>)]) -> HashSet<SessionId> {
    records.iter().map(|(id, _)| *id).collect()
}

impl RecordStore for Ledger {
    fn put(&mut self, session: SessionId, record: &[u8]) -> io::Result<()> {
        self.store.put(session, record)
    }

    fn delete(&mut self, session: SessionId) -> io::Result<()> {
        if let Some(before) = &mut self.before {
            before.delete(session)?;
        }
        self.store.delete(session)
    }

    /// A record that is in both places is the one where this process keeps them.
    fn load(&self) -> io::Result<Vec<(SessionId, Vec<u8>)>> {
        let mut records = self.store.load()?;
        let Some(before) = &self.before else { return Ok(records) };
        let known = ids(&records);
        records.extend(before.load()?.into_iter().filter(|(id, _)| !known.contains(id)));
        Ok(records)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::lifecycle::{RecordFiles, owner::tests::TestDir};

    #[test]
    fn records_of_an_earlier_process_are_found_and_moved() {
        let dir = TestDir::new("ledger");
        fs::create_dir_all(dir.0.path()).unwrap();
        let open = |name: &str| Box::new(RecordFiles::open(dir.0.path().join(name)).unwrap());
        let (mut store, mut before) = (open("store"), open("before"));
        store.put(SessionId(1), b"mine").unwrap();
        before.put(SessionId(1), b"old").unwrap();
        before.put(SessionId(2), b"two").unwrap();
        let mut ledger = Ledger::new(store, Some(before));
        let found = |ledger: &Ledger| {
            let records = ledger.load().unwrap().into_iter();
            records.map(|(id, bytes)| (id.0, bytes[..3].to_vec())).collect::<Vec<_>>()
        };
        let expected = [(1, b"min".to_vec()), (2, b"two".to_vec())];
        assert_eq!(found(&ledger), expected);
        ledger.move_in().unwrap();
        assert_eq!(found(&ledger), expected);
        assert_eq!(open("before").load().unwrap(), []);
        ledger.move_back().unwrap();
        assert_eq!(found(&ledger), expected);
        assert_eq!((open("before").load().unwrap().len(), open("store").load().unwrap().len()), (2, 0));
    }
}
