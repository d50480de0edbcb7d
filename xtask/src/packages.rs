//! Debian packages: installed only when asked for, with one `apt-get update` a run at most.

use std::process::Command;

use anyhow::{Result, bail};

use crate::{privilege, shell};

/// Runs apt-get with the arguments, and has no service of a package start by its being installed: the tests start what they
/// need. A machine that has a policy on this already keeps it.
const WITHOUT_SERVICES: &str = "
policy=/usr/sbin/policy-rc.d
if ! [ -e $policy ]; then
    trap 'rm -f $policy' EXIT
    printf '#!/bin/sh\\nexit 101\\n' >$policy && chmod 755 $policy || exit
fi
apt-get \"$@\"
";

/// Whether packages can be installed here at all.
pub(crate) fn can_install() -> bool {
    privilege::can_be_root() && shell::succeeds(Command::new("apt-get").arg("--version"))
}

/// Installs packages without what they merely recommend.
pub(crate) fn install(packages: &[&str]) -> Result<()> {
    if is_known(packages) && apt_get(&install_arguments(packages)).is_ok() {
        return Ok(());
    }
    shell::announce("the list of packages is missing or old: updating it (about 10 MB)");
    apt_get(&["update"])?;
    if !is_known(packages) {
        bail!("this distribution lacks one of the packages {}", packages.join(" "));
    }
    apt_get(&install_arguments(packages))
}

fn is_known(packages: &[&str]) -> bool {
    packages.iter().all(|package| shell::succeeds(Command::new("apt-cache").args(["show", package])))
}

fn install_arguments<'a>(packages: &[&'a str]) -> Vec<&'a str> {
    let options = ["install", "--yes", "--no-install-recommends", "--option=Dpkg::Use-Pty=0"];
    options.into_iter().chain(packages.iter().copied()).collect()
}

fn apt_get(arguments: &[&str]) -> Result<()> {
    let mut command = privilege::as_root("env", "installing packages")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "sh", "-c", WITHOUT_SERVICES, "apt-get"]);
    shell::check(command.args(arguments))
}
