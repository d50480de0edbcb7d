//! Directories and locks: which of them a process touches.

use super::*;
use crate::lifecycle::owner::tests::TestDir;

/// A directory in which another layout keeps a table.
fn with_another_layout(name: &str) -> (TestDir, PathBuf, PathBuf) {
    let dir = TestDir::new(name);
    let root = dir.0.path().join("all").join("net-1");
    let other = root.join("v0-0123456789abcdef");
    fs::create_dir_all(&other).unwrap();
    fs::write(other.join("SESSIONS"), "").unwrap();
    (dir, root, other.join("SESSIONS"))
}

fn adopt(root: &Path) -> Pinning {
    Pinning::Adopt(root.to_owned())
}

#[test]
fn a_process_that_did_not_begin_leaves_what_other_layouts_keep() {
    let (_dir, root, other) = with_another_layout("not-begun");
    let pins = Pins::open(&adopt(&root), false).unwrap().unwrap();
    fs::write(pins.map("SESSIONS"), "").unwrap();
    drop(pins);
    assert!(other.exists() && !version_of(&root).exists());
}

#[test]
fn a_process_that_did_not_begin_leaves_no_empty_directory() {
    let (_dir, root, other) = with_another_layout("not-begun-alone");
    let pins = Pins::open(&adopt(&root), false).unwrap().unwrap();
    fs::remove_dir_all(other.parent().unwrap()).unwrap();
    drop(pins);
    assert!(!root.parent().unwrap().exists());
}

#[test]
fn what_another_process_holds_stays_as_it_is() {
    let (_dir, root, other) = with_another_layout("held");
    let holder = File::open(&root).unwrap();
    flock(&holder, FlockOperation::NonBlockingLockExclusive).unwrap();
    assert!(matches!(Pins::open(&adopt(&root), false), Err(PinError::Held(_))));
    assert!(other.exists() && !version_of(&root).exists());
}

#[test]
fn what_was_there_before_a_process_that_did_not_begin_stays() {
    let (_dir, root, _) = with_another_layout("was-there");
    let mine = map_of(&root, "SESSIONS");
    fs::create_dir_all(mine.parent().unwrap()).unwrap();
    fs::write(&mine, "").unwrap();
    drop(Pins::open(&adopt(&root), false).unwrap().unwrap());
    assert!(mine.exists());
}

#[test]
fn a_process_that_keeps_nothing_takes_away_what_other_layouts_left() {
    let (_dir, root, other) = with_another_layout("drains");
    let mut pins = Pins::open(&adopt(&root), false).unwrap().unwrap();
    pins.own().unwrap();
    assert!(!other.exists() && version_of(&root).exists());
    pins.release();
    assert!(!root.exists());
}

#[test]
fn what_any_layout_left_is_abandoned() {
    let (_dir, root, _) = with_another_layout("abandoned");
    assert!(abandon(&root).unwrap());
    assert!(!root.exists());
    assert!(!abandon(&root).unwrap(), "a second time there is nothing");
}
