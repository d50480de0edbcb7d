//! A layout that is measured: its programs, its tables, and what its generators send.

use anyhow::{Context as _, Result};
use aya::{
    Ebpf,
    programs::{TestRun as _, TestRunOptions, Xdp, XdpMode, xdp::XdpLink},
};
use bench_tables::Tuple;

use super::{
    fill, flows,
    generator::{End, Generator},
    measure::Direction,
    object,
    product::Product,
    site::Site,
};

/// What a candidate was filled with: both directions, each as it arrives and as it must leave.
#[derive(Debug, Default)]
pub(super) struct Installed {
    pub(super) to_origin: Vec<(Tuple, Tuple)>,
    pub(super) to_client: Vec<(Tuple, Tuple)>,
}

/// A layout, loaded and filled.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) name: &'static str,
    pub(super) flows: usize,
    pub(super) bytes: u64,
    pub(super) engine: Engine,
    pub(super) from_client: Generator,
    pub(super) from_origin: Generator,
}

/// What forwards.
#[derive(Debug)]
pub(super) enum Engine {
    Layout(Box<Layout>),
    Product(Box<Product>),
}

/// Two programs over one set of tables.
#[derive(Debug)]
pub(super) struct Layout {
    links: Vec<XdpLink>,
    programs: [&'static str; 2],
    pub(super) ebpf: Ebpf,
    /// What its owner keeps open: mappings of tables that were taken out of the object.
    _tables: fill::Tables,
}

/// Candidates with the same flows, the shipped program last.
pub(super) fn all(site: &Site, flows: u32) -> Result<Vec<Candidate>> {
    let layouts = fill::ALL.iter().map(|fill| {
        let filled = fill(site, flows)?;
        Candidate::new(site, filled)
    });
    layouts.chain([Product::candidate(site, flows)]).collect()
}

impl Candidate {
    /// A layout, once its programs were seen to do what they must.
    pub(super) fn new(site: &Site, filled: fill::Filled) -> Result<Self> {
        let fill::Filled { name, programs, ebpf, tables, installed } = filled;
        if ![fill::FLOOR, fill::LIMIT].contains(&name) {
            check(&ebpf, programs[0], &installed.to_origin)?;
            check(&ebpf, programs[1], &installed.to_client)?;
        }
        let bytes = object::bytes(&ebpf) + tables.bytes();
        let layout = Layout { links: Vec::new(), programs, ebpf, _tables: tables };
        Self::with_engine(site, name, Engine::Layout(Box::new(layout)), bytes, &installed)
    }

    pub(super) fn with_engine(
        site: &Site,
        name: &'static str,
        engine: Engine,
        bytes: u64,
        installed: &Installed,
    ) -> Result<Self> {
        let arriving =
            |pairs: &[(Tuple, Tuple)]| flows::shuffled(pairs.iter().map(|(tuple, _)| *tuple).collect());
        Ok(Self {
            name,
            flows: installed.to_origin.len(),
            bytes,
            engine,
            from_client: Generator::new(site, End::Client, &arriving(&installed.to_origin))?,
            from_origin: Generator::new(site, End::Origin, &arriving(&installed.to_client))?,
        })
    }

    /// Puts the programs on the proxy's devices.
    pub(super) fn attach(&mut self, site: &Site) -> Result<()> {
        let (left, right) = (site.left.ifindex, site.right.ifindex);
        site.network.proxy.enter(|| match &mut self.engine {
            Engine::Layout(layout) => {
                let [to_origin, to_client] = layout.programs;
                layout.attach(to_origin, left)?;
                layout.attach(to_client, right)
            }
            Engine::Product(product) => product.attach([left, right]),
        })
    }

    pub(super) fn detach(&mut self) {
        match &mut self.engine {
            Engine::Layout(layout) => layout.links.clear(),
            Engine::Product(product) => product.detach(),
        }
    }

    pub(super) fn generators(&self, direction: Direction) -> Vec<&Generator> {
        match direction {
            Direction::ToOrigin => vec![&self.from_client],
            Direction::ToClient => vec![&self.from_origin],
            Direction::Both => vec![&self.from_client, &self.from_origin],
        }
    }
}

impl Layout {
    fn attach(&mut self, name: &str, ifindex: u32) -> Result<()> {
        let program: &mut Xdp = object::program(&mut self.ebpf, name)?;
        let link = program.attach_to_if_index(ifindex, XdpMode::Driver)?;
        self.links.push(program.take_link(link)?);
        Ok(())
    }
}

/// Whether the program makes of some frames what it must.
fn check(ebpf: &Ebpf, name: &str, pairs: &[(Tuple, Tuple)]) -> Result<()> {
    let program: &Xdp = ebpf.program(name).context("the object lacks a program")?.try_into()?;
    flows::check(name, pairs, |frame| {
        let mut left = vec![0; frame.len()];
        let options =
            TestRunOptions { data_in: Some(frame), data_out: Some(&mut left), ..TestRunOptions::new() };
        let action = program.test_run(options)?.return_value;
        Ok((action, left))
    })
}
