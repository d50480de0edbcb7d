//! Where programs are attached: where packets of clients and origins come in.

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use super::{
    super::{Datapath, Engine, kernel::XdpVetoes, next_hops::View},
    absences::Absences,
};
use crate::{
    net::route::{Hop, Link},
    session::RelayReason,
};

/// A gateway has this long to answer after native XDP was attached: some drivers reset the link.
const TRIAL: Duration = Duration::from_secs(5);

/// What is attached, and why.
#[derive(Debug, Default)]
pub(super) struct Ingress {
    /// The operator's choice of interfaces; `None` means the ones clients and origins are found on.
    selected: Option<HashSet<String>>,
    attached: HashMap<u32, Engine>,
    /// What could not be attached is not tried for every session again.
    failed: HashSet<u32>,
    /// Devices of clients, default routes and `lo`: they stay as long as they exist.
    kept: HashSet<u32>,
    /// Flows whose packets come in by a device.
    flows: HashMap<u32, usize>,
    careful: Option<Careful>,
    absences: Absences,
    /// The operator wants no programs.
    is_closed: bool,
}

/// Takes native XDP back from interfaces whose gateway is lost by it.
#[derive(Debug)]
struct Careful {
    vetoes: XdpVetoes,
    trials: HashMap<u32, Trial>,
}

#[derive(Debug)]
struct Trial {
    since: Instant,
    gateways: Vec<Hop>,
}

impl Ingress {
    /// Attaches to `selected` alone, if it is given.
    pub(super) fn new(selected: &[String], vetoes: Option<XdpVetoes>) -> Self {
        let careful = vetoes.map(|vetoes| Careful { vetoes, trials: HashMap::new() });
        let selected = (!selected.is_empty()).then(|| selected.iter().cloned().collect());
        Self { selected, careful, ..Self::default() }
    }

    /// The devices to attach at the start: the selected ones, or `lo` and those of `gateways`.
    pub(super) fn first(&self, view: &View, gateways: &[Hop]) -> anyhow::Result<Vec<u32>> {
        let Some(selected) = &self.selected else {
            let loopback = view.links().filter(|link| link.is_loopback).map(|link| link.ifindex);
            let devices: HashSet<u32> = loopback.chain(gateways.iter().map(|hop| hop.ifindex)).collect();
            return Ok(devices.into_iter().collect());
        };
        let named = |name: &String| {
            let link = view.named(name).ok_or_else(|| anyhow::anyhow!("no interface named {name}"))?;
            Ok(link.ifindex)
        };
        selected.iter().map(named).collect()
    }

    /// Whether the operator chose this interface by its name.
    pub(super) fn is_selected(&self, link: &Link) -> bool {
        self.selected.as_ref().is_some_and(|selected| selected.contains(&link.name))
    }

    /// Whether interfaces are found rather than chosen.
    pub(super) fn is_automatic(&self) -> bool {
        self.selected.is_none()
    }

    /// Whether native XDP is being tried on interfaces that may not stand it.
    pub(super) fn is_careful(&self) -> bool {
        self.careful.is_some()
    }

    /// Attaches to a device, or says what is there. `gateways` are the ones behind it that answer now.
    pub(super) fn attach(
        &mut self,
        ifindex: u32,
        view: &View,
        gateways: &[Hop],
        datapath: &mut dyn Datapath,
    ) -> Result<Engine, RelayReason> {
        if let Some(engine) = self.attached.get(&ifindex) {
            return Ok(*engine);
        }
        if self.is_closed {
            return Err(RelayReason::SwitchedOff);
        }
        let is_chosen = view.link(ifindex).is_some_and(|link| self.is_selected(link));
        if self.selected.is_some() && !is_chosen {
            return Err(RelayReason::InterfaceNotSelected);
        }
        if self.absences.is_left_alone(ifindex) {
            return Err(RelayReason::ProgramDetached);
        }
        if self.failed.contains(&ifindex) {
            return Err(RelayReason::AttachFailed);
        }
        let engine = self.attach_new(ifindex, datapath)?;
        if let Some(careful) = self.careful.as_mut().filter(|_| engine == Engine::Xdp && !gateways.is_empty())
        {
            let trial = Trial { since: Instant::now(), gateways: gateways.to_vec() };
            careful.trials.insert(ifindex, trial);
        }
        Ok(engine)
    }

    /// Detaches from every device and attaches to none any more.
    pub(super) fn close(&mut self, datapath: &mut dyn Datapath) {
        self.is_closed = true;
        self.attached.drain().for_each(|(ifindex, _)| datapath.detach(ifindex));
        if let Some(careful) = &mut self.careful {
            careful.trials.clear();
        }
    }

    /// Lets devices be attached again; names those that are to be kept, if none could be before.
    pub(super) fn open(&mut self) -> Option<HashSet<u32>> {
        std::mem::take(&mut self.is_closed).then(|| self.kept.clone())
    }

    /// Whether a device has programs that this process wants.
    pub(super) fn is_attached(&self, ifindex: u32) -> bool {
        self.attached.contains_key(&ifindex)
    }

    /// Keeps a device's programs as long as the device exists.
    pub(super) fn keep(&mut self, ifindex: u32) {
        self.kept.insert(ifindex);
    }

    /// Notes that packets of a flow come in by a device.
    pub(super) fn hold(&mut self, ifindex: u32) {
        *self.flows.entry(ifindex).or_default() += 1;
    }

    /// Notes that those of one flow less do.
    pub(super) fn let_go(&mut self, ifindex: u32) {
        if let Some(flows) = self.flows.get_mut(&ifindex) {
            *flows -= 1;
            if *flows == 0 {
                self.flows.remove(&ifindex);
            }
        }
    }

    /// Detaches from a device that served an origin which is gone, unless something else needs it.
    pub(super) fn leave(&mut self, ifindex: u32, datapath: &mut dyn Datapath) {
        let is_needed = self.kept.contains(&ifindex) || self.flows.contains_key(&ifindex);
        if !self.is_automatic() || is_needed {
            return;
        }
        // What somebody else detached from it stays away.
        self.absences.forget(ifindex);
        if self.attached.remove(&ifindex).is_some() {
            tracing::info!(ifindex, "no origin is behind this interface any more: detached");
            datapath.detach(ifindex);
        }
    }

    /// Forgets everything about a device that is gone.
    pub(super) fn gone(&mut self, ifindex: u32, datapath: &mut dyn Datapath) {
        self.failed.remove(&ifindex);
        self.kept.remove(&ifindex);
        self.absences.forget(ifindex);
        if let Some(careful) = &mut self.careful {
            careful.trials.remove(&ifindex);
            careful.vetoes.lift(ifindex);
        }
        if self.attached.remove(&ifindex).is_some() {
            tracing::info!(ifindex, "an interface with programs is gone");
            datapath.detach(ifindex);
        }
    }

    /// Notices programs that somebody else detached, and attaches them again when their time has come; says whether it
    /// attached any.
    pub(super) fn mend(&mut self, datapath: &mut dyn Datapath, now: Instant) -> bool {
        if self.is_closed {
            return false;
        }
        for (ifindex, left) in datapath.lost() {
            let wait = self.absences.begin(ifindex, now);
            tracing::warn!(
                ifindex,
                left = left.map(Engine::as_str),
                ?wait,
                "somebody else detached a program"
            );
            match left {
                Some(engine) => drop(self.attached.insert(ifindex, engine)),
                None => drop(self.attached.remove(&ifindex)),
            }
        }
        let mut has_attached = false;
        for ifindex in self.absences.due(now) {
            if self.attach_new(ifindex, datapath).is_ok() {
                self.absences.end(ifindex, now);
                has_attached = true;
            } else {
                self.absences.defer(ifindex, now);
            }
        }
        has_attached
    }

    /// Programs that somebody else detached, so far.
    pub(super) fn detachments(&self) -> u64 {
        self.absences.count()
    }

    /// What was refused may be tried again: the device is not what it was.
    pub(super) fn changed(&mut self, ifindex: u32) {
        self.failed.remove(&ifindex);
    }

    /// Gateways on trial, and interfaces whose time is over.
    pub(super) fn trials(&self, now: Instant) -> (Vec<Hop>, Vec<u32>) {
        let trials = || self.careful.iter().flat_map(|careful| &careful.trials);
        let is_over = |trial: &Trial| now.saturating_duration_since(trial.since) >= TRIAL;
        let waiting = trials().filter(|(_, trial)| !is_over(trial));
        let over = trials().filter(|(_, trial)| is_over(trial)).map(|(ifindex, _)| *ifindex);
        (waiting.flat_map(|(_, trial)| trial.gateways.clone()).collect(), over.collect())
    }

    /// Ends a trial and returns its gateways: if none of them answers, the interface goes back to TC.
    pub(super) fn judge(
        &mut self,
        ifindex: u32,
        answers: impl Fn(Hop) -> bool,
        datapath: &mut dyn Datapath,
    ) -> Vec<Hop> {
        let Some(careful) = &mut self.careful else { return Vec::new() };
        let Some(trial) = careful.trials.remove(&ifindex) else { return Vec::new() };
        if !trial.gateways.iter().any(|gateway| answers(*gateway)) {
            let lost: Vec<String> = trial.gateways.iter().map(|hop| hop.neighbour.to_string()).collect();
            let why = format!("native XDP was taken back: the gateway {} was lost by it", lost.join(", "));
            careful.vetoes.add(ifindex, why);
            datapath.detach(ifindex);
            self.attached.remove(&ifindex);
            // A refusal is logged; the sessions it concerns carry the reason.
            let _refused = self.attach_new(ifindex, datapath);
        }
        trial.gateways
    }

    fn attach_new(&mut self, ifindex: u32, datapath: &mut dyn Datapath) -> Result<Engine, RelayReason> {
        match datapath.attach(ifindex) {
            Ok(attachment) => {
                tracing::info!(
                    interface = attachment.name,
                    engine = attachment.engine.as_str(),
                    mode = attachment.mode,
                    note = attachment.note.as_deref().unwrap_or_default(),
                    "attached"
                );
                self.attached.insert(ifindex, attachment.engine);
                self.failed.remove(&ifindex);
                Ok(attachment.engine)
            }
            Err(error) => {
                tracing::warn!(%error, "sessions on this interface stay in userspace");
                self.failed.insert(ifindex);
                Err(RelayReason::AttachFailed)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::{
        datapath::next_hops::tests::Rows,
        net::route::{Table, Update},
    };

    const GATEWAY: Hop = Hop { ifindex: 2, neighbour: std::net::IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)) };

    fn view(name: &str) -> View {
        let link = Link {
            ifindex: 2,
            name: name.into(),
            mac: Some([2; 6]),
            mtu: 1500,
            is_up: true,
            is_loopback: false,
            resolves: true,
        };
        let table = Some(Table { links: vec![link], neighbours: vec![] });
        let mut view = View::default();
        view.apply(Update { table, ..Update::default() });
        view
    }

    fn taking(engine: Engine) -> Rows {
        let mut rows = Rows::default();
        rows.engines.insert(2, engine);
        rows
    }

    #[test]
    fn a_refused_device_is_tried_again_when_it_changes_and_not_before() {
        let (mut ingress, mut rows) = (Ingress::new(&[], None), Rows::default());
        let refused = Err(RelayReason::AttachFailed);
        assert_eq!(ingress.attach(2, &view("eth0"), &[], &mut rows), refused);
        rows.engines.insert(2, Engine::Tc);
        assert_eq!(ingress.attach(2, &view("eth0"), &[], &mut rows), refused);
        ingress.changed(2);
        assert_eq!(ingress.attach(2, &view("eth0"), &[], &mut rows), Ok(Engine::Tc));
    }

    #[test]
    fn the_operators_choice_is_by_name_whatever_the_index() {
        let (ingress, mut rows) = (&mut Ingress::new(&["eth0".into()], None), taking(Engine::Tc));
        let not_chosen = Err(RelayReason::InterfaceNotSelected);
        assert_eq!(ingress.attach(2, &view("eth1"), &[], &mut rows), not_chosen);
        assert_eq!(ingress.attach(2, &view("eth0"), &[], &mut rows), Ok(Engine::Tc));
        assert!(ingress.first(&view("eth1"), &[]).is_err(), "a name that is not there is a mistake");
    }

    #[test]
    fn a_device_is_left_when_neither_flows_nor_clients_need_it() {
        let (mut ingress, mut rows) = (Ingress::new(&[], None), taking(Engine::Tc));
        ingress.attach(2, &view("eth0"), &[], &mut rows).unwrap();
        ingress.hold(2);
        ingress.leave(2, &mut rows);
        ingress.let_go(2);
        ingress.keep(2);
        ingress.leave(2, &mut rows);
        assert!(rows.detached.is_empty());
        ingress.kept.clear();
        ingress.leave(2, &mut rows);
        assert_eq!(rows.detached, [2]);
    }

    #[test]
    fn a_program_that_somebody_detached_is_attached_again_and_later_each_time() {
        let (mut ingress, mut rows) = (Ingress::new(&[], None), taking(Engine::Tc));
        ingress.attach(2, &view("eth0"), &[], &mut rows).unwrap();
        let now = Instant::now();
        assert!(!ingress.mend(&mut rows, now));
        rows.lost = vec![(2, None)];
        assert!(ingress.mend(&mut rows, now), "at once");
        rows.lost = vec![(2, None)];
        assert!(!ingress.mend(&mut rows, now), "again means that it was meant");
        let detached = Err(RelayReason::ProgramDetached);
        assert_eq!(ingress.attach(2, &view("eth0"), &[], &mut rows), detached);
        assert!(ingress.mend(&mut rows, now + Duration::from_secs(2)));
        assert_eq!(ingress.attach(2, &view("eth0"), &[], &mut rows), Ok(Engine::Tc));
        assert_eq!(ingress.detachments(), 2);
    }

    #[test]
    fn what_could_not_be_attached_again_once_is_not_refused_for_ever() {
        let (mut ingress, mut rows) = (Ingress::new(&[], None), taking(Engine::Tc));
        ingress.attach(2, &view("eth0"), &[], &mut rows).unwrap();
        let now = Instant::now();
        (rows.lost, rows.engines) = (vec![(2, None)], HashMap::new());
        assert!(!ingress.mend(&mut rows, now), "nothing was attached");
        rows.engines.insert(2, Engine::Tc);
        assert!(ingress.mend(&mut rows, now + Duration::from_secs(2)));
        ingress.leave(2, &mut rows);
        assert_eq!(ingress.attach(2, &view("eth0"), &[], &mut rows), Ok(Engine::Tc));
    }

    #[test]
    fn a_program_that_somebody_detached_stays_away_where_nobody_wants_it_any_more() {
        type GiveUp = fn(&mut Ingress, &mut Rows);
        let causes: [(&str, GiveUp); 2] = [
            ("the device is left", |ingress, rows| ingress.leave(2, rows)),
            ("the operator wants no programs", |ingress, rows| ingress.close(rows)),
        ];
        for (name, give_up) in causes {
            let (mut ingress, mut rows) = (Ingress::new(&[], None), taking(Engine::Tc));
            ingress.attach(2, &view("eth0"), &[], &mut rows).unwrap();
            let now = Instant::now();
            for _ in 0..2 {
                rows.lost = vec![(2, None)];
                ingress.mend(&mut rows, now);
            }
            give_up(&mut ingress, &mut rows);
            assert!(!ingress.mend(&mut rows, now + Duration::from_secs(2)), "{name}");
            assert!(!ingress.is_attached(2), "{name}");
        }
    }

    #[test]
    fn what_is_left_when_xdp_was_detached_forwards_on() {
        let (mut ingress, mut rows) = (Ingress::new(&[], None), taking(Engine::Xdp));
        ingress.attach(2, &view("eth0"), &[], &mut rows).unwrap();
        let now = Instant::now();
        for _ in 0..2 {
            rows.lost = vec![(2, Some(Engine::Tc))];
            ingress.mend(&mut rows, now);
        }
        assert_eq!(ingress.attach(2, &view("eth0"), &[], &mut rows), Ok(Engine::Tc));
        assert!(rows.detached.is_empty());
    }

    #[test]
    fn nothing_is_attached_while_the_operator_wants_no_programs() {
        let (mut ingress, mut rows) = (Ingress::new(&[], None), taking(Engine::Tc));
        ingress.attach(2, &view("eth0"), &[], &mut rows).unwrap();
        ingress.keep(2);
        ingress.close(&mut rows);
        assert_eq!(rows.detached, [2]);
        assert_eq!(ingress.attach(2, &view("eth0"), &[], &mut rows), Err(RelayReason::SwitchedOff));
        assert_eq!(ingress.open(), Some(HashSet::from([2])));
        assert_eq!(ingress.open(), None, "nothing was taken away");
        assert_eq!(ingress.attach(2, &view("eth0"), &[], &mut rows), Ok(Engine::Tc));
    }

    #[test]
    fn native_xdp_is_on_trial_where_a_gateway_answered_before() {
        for (answers, detached) in [(true, vec![]), (false, vec![2])] {
            let vetoes = Some(XdpVetoes::default());
            let (mut ingress, mut rows) = (Ingress::new(&[], vetoes), taking(Engine::Xdp));
            ingress.attach(2, &view("eth0"), &[GATEWAY], &mut rows).unwrap();
            let now = Instant::now();
            assert_eq!(ingress.trials(now), (vec![GATEWAY], vec![]));
            assert_eq!(ingress.trials(now + TRIAL), (vec![], vec![2]));
            assert_eq!(ingress.judge(2, |_| answers, &mut rows), [GATEWAY]);
            assert_eq!(rows.detached, detached);
            assert_eq!(ingress.trials(now), (vec![], vec![]));
        }
    }

    #[test]
    fn a_gateway_that_never_answered_is_not_missed() {
        let vetoes = Some(XdpVetoes::default());
        let (mut ingress, mut rows) = (Ingress::new(&[], vetoes), taking(Engine::Xdp));
        ingress.attach(2, &view("eth0"), &[], &mut rows).unwrap();
        assert_eq!(ingress.trials(Instant::now() + TRIAL), (vec![], vec![]));
    }
}
