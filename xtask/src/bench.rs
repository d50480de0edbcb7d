//! `cargo xtask bench`: measurements, as programs of the test package that are built in release mode and run as root.

use anyhow::Result;

use crate::{privilege, setup, shell};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// What is measured
    #[arg(value_enum, default_value = "layout")]
    subject: Subject,
    /// Measure less, for a first impression
    #[arg(long)]
    quick: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    /// The kernel tables, against other layouts and against a bare redirect
    Layout,
    /// The relay in userspace, against a plain one
    Relay,
    /// Joined TCP streams, against a router and tokio's copying
    Join,
}

impl Subject {
    fn program(self) -> &'static str {
        match self {
            Self::Layout => "bench-layout",
            Self::Relay => "bench-relay",
            Self::Join => "bench-join",
        }
    }

    /// What of the package is built for it alone.
    fn features(self) -> &'static [&'static str] {
        match self {
            Self::Layout => &["layouts"],
            Self::Relay | Self::Join => &[],
        }
    }

    /// Whether the proxy itself is measured, and not a part of it.
    fn needs_proxy(self) -> bool {
        match self {
            Self::Layout | Self::Relay => false,
            Self::Join => true,
        }
    }
}

/// Runs the command; fails if what was measured is not good enough.
pub(crate) fn run(args: &Args) -> Result<()> {
    setup::install(&[setup::Part::Build, setup::Part::Bench])?;
    let program = args.subject.program();
    shell::announce(format!("building {program} in release mode"));
    let path = shell::release_binary("integration-tests", program, args.subject.features())?;
    if args.subject.needs_proxy() {
        // It is found where the program is.
        shell::release_binary("proxy-userspace", "srs-xproxy", &[])?;
    }
    shell::announce(format!("running {program}: on a machine that does nothing else the figures mean more"));
    let mut command = privilege::as_root(&path, "loading kernel programs and making network namespaces")?;
    shell::check(command.args(args.quick.then_some("--quick")))
}
