//! `srs-xproxy detach`: nothing of ours stays in the kernel. For a preStop hook, for an uninstallation, or by hand.

use anyhow::Context as _;
use http::Method;
use serde::Deserialize;

use super::{ask, configured_address, print, running};
use crate::{
    config::Config,
    lifecycle::remains::{pins_root, remove_pins, remove_records},
};

#[derive(Deserialize)]
struct Detached {
    interfaces: Vec<String>,
}

/// Removes everything and tells what there was. A process that runs goes on and relays in userspace.
pub async fn detach(config: &Config) -> anyhow::Result<()> {
    let (dir, holder) = running(config)?;
    let mut removed = Vec::new();
    // First of all the sessions of a process that runs go back to userspace, so that nothing is lost.
    if let Some(holder) = &holder {
        let address = holder.system_api.unwrap_or_else(|| configured_address(config));
        let answer = ask(config, address, Method::POST, "/api/v1/proxy/detach").await;
        let answer = answer.with_context(|| format!("{holder} runs and cannot be told to let go"))?;
        let Detached { interfaces } = serde_json::from_str(&answer).context("its answer is unknown")?;
        removed.extend(interfaces.iter().map(|name| format!("programs on {name}")));
    }
    if let Some(root) = pins_root() {
        removed.extend(remove_pins(&root)?);
    }
    if holder.is_none() {
        removed.extend(remove_records(&dir)?);
    }
    print(&report(&removed))
}

fn report(removed: &[String]) -> String {
    match removed {
        [] => "there was nothing to remove\n".to_owned(),
        removed => removed.iter().map(|line| format!("removed {line}\n")).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_names_everything_or_says_that_there_was_nothing() {
        assert_eq!(report(&[]), "there was nothing to remove\n");
        let removed = ["programs on eth0".to_owned(), "pin /x".to_owned()];
        assert_eq!(report(&removed), "removed programs on eth0\nremoved pin /x\n");
    }
}
