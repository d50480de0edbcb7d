//! Which program an interface gets: native XDP where it works and was asked for or cannot hurt, TC everywhere.
//! Generic XDP is never chosen: it is no faster than TC and loses segmentation offload.

use std::fs;

use super::{EngineChoice, XdpRefusal, features::XdpFeatures};

/// What the choice of a program depends on.
pub(super) struct Device<'a> {
    pub(super) features: Option<XdpFeatures>,
    pub(super) has_default_route: bool,
    pub(super) veto: Option<String>,
    pub(super) refusal: Option<&'a XdpRefusal>,
}

/// The program of an interface.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Preference {
    /// Native XDP, with TC behind it.
    Xdp,
    /// With what would make it faster, or why nothing would.
    Tc(String),
}

/// Which program an interface is to have.
pub(super) fn choose(choice: EngineChoice, device: &Device<'_>) -> Preference {
    let because = |note: &str| Preference::Tc(note.into());
    if let Some(XdpRefusal(why)) = device.refusal {
        return Preference::Tc(format!("the kernel refuses the XDP program: {why}"));
    }
    if let Some(veto) = &device.veto {
        return because(veto);
    }
    match (choice, device.features) {
        (_, Some(features)) if !features.has_basic() => because("the driver has no native XDP"),
        (EngineChoice::Tc, Some(_)) => {
            because("tc was asked for: native XDP is possible if asked for (PROXY_DATAPATH=xdp)")
        }
        (EngineChoice::Tc, None) => because("tc was asked for: native XDP may work (PROXY_DATAPATH=xdp)"),
        (EngineChoice::Xdp, _) => Preference::Xdp,
        (EngineChoice::Auto, None) => {
            because("the kernel does not tell whether native XDP works: ask for xdp to try")
        }
        // Native attachment resets the link on some drivers, and this link is how one reaches the machine.
        (EngineChoice::Auto, Some(_)) if device.has_default_route => {
            because("it carries the default route: native XDP is possible if asked for (PROXY_DATAPATH=xdp)")
        }
        (EngineChoice::Auto, Some(_)) => Preference::Xdp,
    }
}

/// Whether a default route of either family leaves by this interface.
pub(super) fn has_default_route(name: &str) -> bool {
    // Of the thread: a thread may be in another network namespace than its process.
    let routes = |file| fs::read_to_string(format!("/proc/thread-self/net/{file}")).unwrap_or_default();
    routes("route").lines().any(|line| is_default_route(line, name))
        || routes("ipv6_route").lines().any(|line| is_default_route_v6(line, name))
}

fn is_default_route(line: &str, name: &str) -> bool {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let field = |index: usize| fields.get(index).copied();
    field(0) == Some(name) && field(1) == Some("00000000") && field(7) == Some("00000000")
}

fn is_default_route_v6(line: &str, name: &str) -> bool {
    let fields: Vec<_> = line.split_ascii_whitespace().collect();
    let field = |index: usize| fields.get(index).copied();
    let is_any = field(0).is_some_and(|destination| destination.bytes().all(|digit| digit == b'0'));
    is_any && field(1) == Some("00") && field(9) == Some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NATIVE: Option<XdpFeatures> = Some(XdpFeatures::new(0b111));
    const NO_NATIVE: Option<XdpFeatures> = Some(XdpFeatures::new(0));

    #[test]
    fn chooses_xdp_only_where_it_works_and_is_safe_or_wanted() {
        use EngineChoice::{Auto, Tc, Xdp};
        let rows = [
            ("auto takes a native device", Auto, NATIVE, false, true),
            ("auto spares the default route", Auto, NATIVE, true, false),
            ("auto needs the driver", Auto, NO_NATIVE, false, false),
            ("auto does not try blindly", Auto, None, false, false),
            ("xdp takes the default route", Xdp, NATIVE, true, true),
            ("xdp needs the driver", Xdp, NO_NATIVE, false, false),
            ("xdp tries where the kernel does not tell", Xdp, None, false, true),
            ("tc is tc", Tc, NATIVE, false, false),
        ];
        for (name, choice, features, has_default_route, xdp) in rows {
            let chosen = choose(choice, &Device { features, has_default_route, veto: None, refusal: None });
            assert_eq!(chosen == Preference::Xdp, xdp, "{name}");
        }
    }

    #[test]
    fn a10_a_kernel_that_refuses_the_xdp_program_gets_tc_everywhere_and_the_note_says_why() {
        let refusal = XdpRefusal("invalid func unknown#189 (Invalid argument)".into());
        for choice in [EngineChoice::Auto, EngineChoice::Xdp, EngineChoice::Tc] {
            for features in [NATIVE, NO_NATIVE, None] {
                for (has_default_route, veto) in [(false, None), (true, Some("lost".into()))] {
                    let device = Device { features, has_default_route, veto, refusal: Some(&refusal) };
                    let Preference::Tc(note) = choose(choice, &device) else {
                        panic!("{choice:?} {features:?}")
                    };
                    assert!(note.contains("invalid func unknown#189"), "{note}");
                }
            }
        }
    }

    #[test]
    fn tells_the_default_route_from_others() {
        let line = "eth0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0";
        assert!(is_default_route(line, "eth0"));
        assert!(!is_default_route(line, "eth1"));
        assert!(!is_default_route("eth0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0", "eth0"));
    }

    #[test]
    fn tells_the_ipv6_default_route_from_others() {
        let zero = "00000000000000000000000000000000";
        let line = |prefix: &str, length: &str, name: &str| {
            format!(
                "{prefix} {length} {zero} 00 fe80{} 00000400 00000001 00000000 00450003 {name}",
                &zero[4..]
            )
        };
        assert!(is_default_route_v6(&line(zero, "00", "eth0"), "eth0"));
        assert!(!is_default_route_v6(&line(zero, "00", "eth0"), "eth1"));
        assert!(!is_default_route_v6(&line("fd000000000000000000000000000000", "40", "eth0"), "eth0"));
        assert!(!is_default_route_v6("", "eth0"));
    }

    #[test]
    fn a_veto_outweighs_what_was_asked_for_and_is_the_note() {
        let veto = Some("lost".into());
        let device = Device { features: NATIVE, has_default_route: true, veto, refusal: None };
        assert_eq!(choose(EngineChoice::Xdp, &device), Preference::Tc("lost".into()));
    }
}
