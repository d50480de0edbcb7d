//! Filters of clsact, for kernels without tcx (before 6.6). A filter is no link: it stays until somebody removes it.
//!
//! Ours has a fixed place on each device, so that the next process replaces its program in one step. If it is to outlive
//! the process, the program is pinned too: the pin says that there is a filter, and whose program it runs.

use std::{
    fs, io, mem,
    os::fd::{AsFd as _, AsRawFd as _},
    path::{Path, PathBuf},
};

use aya::programs::{
    ProgramError, ProgramInfo, SchedClassifier, TcAttachType,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions, TcHandle},
};

use super::{
    clsact::{HANDLE, PRIORITY, Place},
    link::pin_object,
};

/// A filter; dropping it removes it, unless it is pinned.
#[derive(Debug)]
pub(super) struct Filter {
    link: Option<SchedClassifierLink>,
    place: Place,
    pin: Option<PathBuf>,
}

impl Filter {
    /// Puts `program` on a device.
    pub(super) fn attach(
        program: &mut SchedClassifier,
        (ifindex, name): (u32, &str),
        pin: Option<PathBuf>,
    ) -> Result<Self, ProgramError> {
        let id = program.info()?.id();
        if let Some(pin) = &pin {
            // First: a filter that nobody knows of would stay for ever.
            pin_program(program, pin)?;
        }
        // Fails if the qdisc is there; if it is missing, so does the attachment below, and says why.
        let added_qdisc = tc::qdisc_add_clsact(name).is_ok();
        let options =
            NlOptions { priority: PRIORITY, handle: TcHandle::new(0, HANDLE), ..NlOptions::default() };
        let link =
            program.attach_with_options(name, TcAttachType::Ingress, TcAttachOptions::Netlink(options));
        match link.and_then(|link| program.take_link(link)) {
            Ok(link) => Ok(Self { link: Some(link), place: Place::new(ifindex, id, added_qdisc), pin }),
            Err(error) => {
                pin.iter().for_each(|pin| unpin(pin));
                Place::new(ifindex, id, added_qdisc).tidy();
                Err(error)
            }
        }
    }

    /// Has the filter of an earlier process run `program`; attaches it if that process died before it did.
    pub(super) fn replace(
        program: &mut SchedClassifier,
        (ifindex, name): (u32, &str),
        pin: &Path,
    ) -> Result<Self, ProgramError> {
        let (id, heir) = (program.info()?.id(), heir_of(pin));
        if is_there(ifindex, pin) {
            pin_program(program, &heir)?;
            match place(name).map_err(ProgramError::IOError).and_then(|before| put(program, before)) {
                Ok(link) => {
                    fs::rename(&heir, pin).map_err(ProgramError::IOError)?;
                    // Whose the qdisc is, that process knew: it stays.
                    let place = Place::new(ifindex, id, false);
                    return Ok(Self { link: Some(link), place, pin: Some(pin.to_owned()) });
                }
                Err(error) => {
                    tracing::debug!(interface = name, %error, "the filter was not replaced");
                    unpin(&heir);
                }
            }
        }
        unpin(pin);
        Self::attach(program, (ifindex, name), Some(pin.to_owned()))
    }

    /// Whether our program is still there; a kernel that does not tell has not removed it.
    pub(super) fn is_attached(&self) -> bool {
        self.place.is_ours()
    }

    /// Has it go when it is dropped.
    pub(super) fn unpin(&mut self) {
        self.pin.take().iter().for_each(|pin| unpin(pin));
    }
}

impl Drop for Filter {
    fn drop(&mut self) {
        let link = self.link.take();
        if self.pin.is_some() {
            return mem::forget(link);
        }
        if self.is_attached() {
            drop(link);
        } else {
            // Nothing to remove, or the filter of somebody else.
            mem::forget(link);
        }
        self.place.tidy();
    }
}

/// Removes the filter of an earlier process, unless another one is in its place.
pub(super) fn detach((ifindex, name): (u32, &str), pin: &Path) {
    if is_there(ifindex, pin) {
        // Without the device it is gone already; dropping it removes it.
        drop(place(name));
    }
}

fn place(name: &str) -> io::Result<SchedClassifierLink> {
    SchedClassifierLink::attached(name, TcAttachType::Ingress, PRIORITY, TcHandle::new(0, HANDLE), None)
}

fn put(
    program: &mut SchedClassifier,
    place: SchedClassifierLink,
) -> Result<SchedClassifierLink, ProgramError> {
    program.attach_to_link(place).and_then(|link| program.take_link(link))
}

/// Whether the filter that a pin is about is still there.
fn is_there(ifindex: u32, pin: &Path) -> bool {
    let runs = |pin: &Path| {
        let program = ProgramInfo::from_pin(pin);
        program.is_ok_and(|program| Place::inherited(ifindex, program.id()).is_ours())
    };
    let heir = heir_of(pin);
    if runs(&heir) {
        // Its process died right after it had replaced the program.
        return fs::rename(&heir, pin).is_ok();
    }
    // Its process died right before.
    let _absent = fs::remove_file(&heir);
    runs(pin)
}

/// Where a program is pinned that is about to replace the pinned one, so that at any moment one of both pins is right. The
/// bpf file system allows no dots.
fn heir_of(pin: &Path) -> PathBuf {
    let mut heir = pin.to_owned().into_os_string();
    heir.push("-heir");
    heir.into()
}

fn pin_program(program: &SchedClassifier, pin: &Path) -> Result<(), ProgramError> {
    pin_object(program.fd()?.as_fd().as_raw_fd(), pin).map_err(ProgramError::IOError)
}

fn unpin(pin: &Path) {
    if let Err(error) = fs::remove_file(pin) {
        tracing::warn!(pin = %pin.display(), %error, "failed to unpin a filter");
    }
}
