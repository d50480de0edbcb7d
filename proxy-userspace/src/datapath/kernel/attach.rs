//! Attaching programs to an interface, and what holds them there.

use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd as _, BorrowedFd},
    path::Path,
    sync::Arc,
};

use aya::{
    Ebpf,
    programs::{Program, ProgramError, SchedClassifier, Xdp},
};
use parking_lot::Mutex;
use proxy_common::maps;
use rustix::net::{AddressFamily, SocketType, netdevice::index_to_name, socket};

use super::{
    EngineChoice, LoadError, TcHook, XdpRefusal,
    choice::{Device, Preference, choose, has_default_route},
    features::xdp_features,
    filter::Filter,
    link::{Hook, Link},
    pins::{Kind, Pins},
};
use crate::datapath::{AttachError, Attachment, Engine};

/// Programs on an interface; dropping it detaches them, unless they are pinned.
#[derive(Debug)]
pub(super) struct Attached {
    pub(super) attachment: Attachment,
    links: Links,
    is_whole: bool,
}

/// What holds the programs of an interface.
#[derive(Debug, Default)]
pub(super) struct Links {
    xdp: Option<Link>,
    tc: Option<TcLink>,
}

#[derive(Debug)]
enum TcLink {
    Tcx(Link),
    Clsact(Filter),
}

impl TcLink {
    fn mode(&self) -> &'static str {
        match self {
            Self::Tcx(_) => "tcx",
            Self::Clsact(_) => "clsact",
        }
    }

    fn unpin(&mut self) {
        match self {
            Self::Tcx(link) => link.unpin(),
            Self::Clsact(filter) => filter.unpin(),
        }
    }

    fn is_attached(&self) -> bool {
        match self {
            Self::Tcx(link) => link.is_attached(),
            Self::Clsact(filter) => filter.is_attached(),
        }
    }
}

impl Attached {
    /// Gives up links that somebody else detached, and says whether there were any.
    pub(super) fn has_lost(&mut self) -> bool {
        let Links { xdp, tc } = &mut self.links;
        let lost_xdp = xdp.take_if(|link| !link.is_attached()).map(|mut link| link.unpin()).is_some();
        let lost_tc = tc.take_if(|link| !link.is_attached()).map(|mut link| link.unpin()).is_some();
        if lost_xdp || lost_tc {
            let what = if lost_xdp { "XDP" } else { "TC" };
            self.attachment.note = Some(format!("somebody else detached its {what} program"));
            (self.attachment.engine, self.attachment.mode) = self.links.engine();
            self.is_whole = false;
        }
        lost_xdp || lost_tc
    }

    /// Whether nobody detached a part of it.
    pub(super) fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// Whether anything is left.
    pub(super) fn is_empty(&self) -> bool {
        self.links.xdp.is_none() && self.links.tc.is_none()
    }

    /// Nothing, to be completed.
    pub(super) fn nothing(ifindex: u32) -> Self {
        Self::inherited(ifindex, Links::default())
    }

    /// What an earlier process attached. It is to be completed: this process may want more, or less.
    pub(super) fn inherited(ifindex: u32, links: Links) -> Self {
        let (engine, mode) = links.engine();
        let name = interface_name(ifindex).unwrap_or_else(|_| format!("#{ifindex}"));
        Self { attachment: Attachment { ifindex, name, engine, mode, note: None }, links, is_whole: false }
    }

    /// Attaches what is missing: TC always, native XDP in front of it if that is the choice. What is there stays if that
    /// fails.
    pub(super) fn complete(&mut self, ebpf: &mut Ebpf, terms: Terms<'_>) -> Result<(), AttachError> {
        let ifindex = self.attachment.ifindex;
        let name = interface_name(ifindex).map_err(|error| failure(&format!("#{ifindex}"), &error))?;
        if self.links.tc.is_none() {
            self.links.tc = Some(attach_tc(ebpf, (ifindex, &name), terms.hook, terms.pins)?);
        }
        let device = Device {
            features: xdp_features(ifindex),
            has_default_route: has_default_route(&name),
            veto: terms.vetoes.of(ifindex),
            refusal: terms.refusal,
        };
        let note = match choose(terms.choice, &device) {
            Preference::Tc(note) => {
                self.links.xdp.take().into_iter().for_each(|mut link| link.unpin());
                Some(note)
            }
            Preference::Xdp if self.links.xdp.is_some() => None,
            Preference::Xdp => {
                let attached = attach_xdp(ebpf, ifindex, terms.pins).map(|link| self.links.xdp = Some(link));
                attached.err().map(|error| format!("native XDP was refused: {}", chain(&error)))
            }
        };
        let (engine, mode) = self.links.engine();
        self.attachment = Attachment { ifindex, name, engine, mode, note };
        self.is_whole = true;
        Ok(())
    }

    /// Has the programs go with the process, or when this is dropped.
    pub(super) fn unpin(&mut self) {
        self.links.unpin();
    }
}

impl Links {
    /// Opens a pinned link and has it run the program of this process, from one frame to the next.
    pub(super) fn inherit(
        &mut self,
        ebpf: &mut Ebpf,
        (ifindex, kind): (u32, Kind),
        pin: &Path,
    ) -> anyhow::Result<()> {
        match kind {
            Kind::Xdp => self.xdp = Some(inherit_link(xdp(ebpf)?.fd()?.as_fd(), ifindex, pin)?),
            Kind::Tcx => {
                self.tc = Some(TcLink::Tcx(inherit_link(tc(ebpf)?.fd()?.as_fd(), ifindex, pin)?));
            }
            Kind::Clsact => {
                let name = interface_name(ifindex)?;
                self.tc = Some(TcLink::Clsact(Filter::replace(tc(ebpf)?, (ifindex, &name), pin)?));
            }
        }
        Ok(())
    }

    fn unpin(&mut self) {
        self.xdp.iter_mut().for_each(Link::unpin);
        self.tc.iter_mut().for_each(TcLink::unpin);
    }

    fn engine(&self) -> (Engine, &'static str) {
        match (&self.xdp, &self.tc) {
            (Some(_), _) => (Engine::Xdp, "native"),
            (None, tc) => (Engine::Tc, tc.as_ref().map_or("none", TcLink::mode)),
        }
    }
}

/// Interfaces that are to have no native XDP although it was asked for, and why.
#[derive(Clone, Debug, Default)]
pub struct XdpVetoes(Arc<Mutex<HashMap<u32, String>>>);

impl XdpVetoes {
    /// The next attachment to this interface is TC, with this note.
    pub fn add(&self, ifindex: u32, why: String) {
        self.0.lock().insert(ifindex, why);
    }

    /// The interface is gone; its index may be another's soon.
    pub fn lift(&self, ifindex: u32) {
        self.0.lock().remove(&ifindex);
    }

    fn of(&self, ifindex: u32) -> Option<String> {
        self.0.lock().get(&ifindex).cloned()
    }
}

/// What an attachment depends on beside the interface.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) choice: EngineChoice,
    pub(super) hook: TcHook,
    pub(super) vetoes: &'a XdpVetoes,
    pub(super) refusal: Option<&'a XdpRefusal>,
    pub(super) pins: Option<&'a Pins>,
}

/// Loads the programs into the kernel. TC is needed, XDP is not: kernels before 5.18 lack helpers that it calls.
pub(super) fn load_programs(ebpf: &mut Ebpf) -> Result<Option<XdpRefusal>, LoadError> {
    let refused = |name| move |source| LoadError::Program { name, source };
    program::<SchedClassifier>(ebpf, maps::FORWARD_TC)?.load().map_err(refused(maps::FORWARD_TC))?;
    for name in [maps::FORWARD_XDP, maps::SEND_BY_XDP] {
        if let Err(error) = program::<Xdp>(ebpf, name)?.load() {
            let refusal = XdpRefusal(said(&error));
            tracing::warn!(program = name, reason = refusal.0, "the kernel refuses XDP: TC forwards alone");
            return Ok(Some(refusal));
        }
    }
    Ok(None)
}

/// Why a program was refused, in one line.
fn said(error: &ProgramError) -> String {
    let ProgramError::LoadError { io_error, verifier_log } = error else { return chain(error) };
    match verdict(&verifier_log.to_string()) {
        Some(verdict) => format!("{verdict} ({io_error})"),
        None => io_error.to_string(),
    }
}

/// What the verifier ends with before its figures.
fn verdict(log: &str) -> Option<&str> {
    const FIGURES: [&str; 3] = ["processed ", "verification time ", "stack depth "];
    let mut lines = log.lines().map(str::trim).rev();
    lines.find(|line| !line.is_empty() && !FIGURES.iter().any(|figures| line.starts_with(figures)))
}

pub(super) fn xdp(ebpf: &mut Ebpf) -> Result<&mut Xdp, ProgramError> {
    program(ebpf, maps::FORWARD_XDP).map_err(|_| ProgramError::NotLoaded)
}

pub(super) fn tc(ebpf: &mut Ebpf) -> Result<&mut SchedClassifier, ProgramError> {
    program(ebpf, maps::FORWARD_TC).map_err(|_| ProgramError::NotLoaded)
}

fn inherit_link(program: BorrowedFd<'_>, ifindex: u32, pin: &Path) -> io::Result<Link> {
    let link = Link::open(pin)?;
    // The device may be gone, and its number another's.
    if link.ifindex()? != ifindex {
        return Err(io::ErrorKind::NotFound.into());
    }
    link.update(program)?;
    Ok(link)
}

pub(super) fn program<'a, P>(ebpf: &'a mut Ebpf, name: &'static str) -> Result<&'a mut P, LoadError>
where
    &'a mut P: TryFrom<&'a mut Program, Error = ProgramError>,
{
    let program = ebpf.program_mut(name).ok_or(LoadError::Missing(name))?;
    program.try_into().map_err(|source| LoadError::Program { name, source })
}

fn attach_xdp(ebpf: &mut Ebpf, ifindex: u32, pins: Option<&Pins>) -> Result<Link, ProgramError> {
    let program = xdp(ebpf)?.fd()?.as_fd();
    let link = Link::create(program, ifindex, Hook::NativeXdp);
    link.and_then(|link| pinned(link, ifindex, Kind::Xdp, pins)).map_err(ProgramError::IOError)
}

/// A link that dies with the process until here, and is whole from here on.
fn pinned(mut link: Link, ifindex: u32, kind: Kind, pins: Option<&Pins>) -> io::Result<Link> {
    if let Some(pins) = pins.filter(|pins| pins.keeps()) {
        link.pin(pins.free_link(ifindex, kind)?)?;
    }
    Ok(link)
}

/// Attaches by tcx in front of other programs, or by clsact where the kernel has no tcx (before 6.6).
fn attach_tc(
    ebpf: &mut Ebpf,
    (ifindex, name): (u32, &str),
    hook: TcHook,
    pins: Option<&Pins>,
) -> Result<TcLink, AttachError> {
    let tc = tc(ebpf).map_err(|error| failure(name, &error))?;
    let program = tc.fd().map_err(|error| failure(name, &error))?;
    if hook == TcHook::Best {
        match Link::create(program.as_fd(), ifindex, Hook::TcxFirst) {
            Ok(link) => {
                let link = pinned(link, ifindex, Kind::Tcx, pins);
                return link.map(TcLink::Tcx).map_err(|error| failure(name, &error));
            }
            Err(error) => tracing::debug!(interface = name, %error, "no tcx, trying clsact"),
        }
    }
    let kept = pins.filter(|pins| pins.keeps());
    let pin = kept.map(|pins| pins.free_link(ifindex, Kind::Clsact)).transpose();
    let pin = pin.map_err(|error| failure(name, &error))?;
    Filter::attach(tc, (ifindex, name), pin).map(TcLink::Clsact).map_err(|error| failure(name, &error))
}

pub(super) fn interface_name(ifindex: u32) -> io::Result<String> {
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None)?;
    Ok(index_to_name(&any, ifindex)?)
}

fn failure(interface: &str, error: &(impl std::error::Error + 'static)) -> AttachError {
    AttachError { interface: interface.into(), reason: chain(error) }
}

/// The whole chain of an error in one line.
fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a10_the_verdict_of_the_verifier_is_the_line_before_its_figures() {
        let log = "12: (85) call unknown#189\ninvalid func unknown#189\nverification time 9 usec\nstack depth 0+0\n\
                   processed 13 insns (limit 1000000) max_states_per_insn 0 total_states 1\n\n";
        assert_eq!(verdict(log), Some("invalid func unknown#189"));
        assert_eq!(verdict("\n"), None);
    }
}
