//! Files of a test, which go with it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc, Weak,
        atomic::{AtomicU32, Ordering},
    },
};

use anyhow::Result;
use parking_lot::Mutex;

use super::programs::{ffmpeg, finish_here};
use crate::netns::PREFIX;

/// A directory that is removed when dropped.
#[derive(Debug)]
pub struct Scratch(PathBuf);

impl Scratch {
    /// A new directory.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn new(role: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{PREFIX}{}-{number}-{role}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self(path))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // What is left over lies in the directory for temporary files.
        let _gone = fs::remove_dir_all(&self.0);
    }
}

/// Four seconds of a test picture, 25 frames each, with a tone that is a little shorter: sent over and over, the pictures go
/// on at their pace.
#[derive(Debug)]
pub struct Clip(Scratch);

impl Clip {
    /// The clip; it is made if no other test has it at this time.
    ///
    /// # Errors
    /// When FFmpeg cannot make it.
    pub fn get() -> Result<Arc<Self>> {
        static SHARED: Mutex<Weak<Clip>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock();
        if let Some(clip) = shared.upgrade() {
            return Ok(clip);
        }
        let clip = Arc::new(Self(Scratch::new("clip")?));
        finish_here(record(&clip.path()))?.success()?;
        *shared = Arc::downgrade(&clip);
        Ok(clip)
    }

    /// Where it is, as FLV.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.0.path().join("clip.flv")
    }
}

fn record(to: &Path) -> Command {
    let mut command = ffmpeg();
    command.args(["-f", "lavfi", "-t", "4", "-i", "testsrc2=size=320x180:rate=25"]);
    command.args(["-f", "lavfi", "-t", "3.9", "-i", "sine=frequency=440:sample_rate=44100"]);
    command.args(["-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-pix_fmt", "yuv420p"]);
    command.args(["-c:a", "aac", "-f", "flv"]).arg(to);
    command
}
