//! What one run of a rule is about: which engine, over which IP version.

use crate::{netns::Family, proxy::Engine};

/// What one run of a rule is about: an engine, and the IP version of both legs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// How the proxy is told to forward.
    pub engine: Engine,
    /// The IP version.
    pub family: Family,
}

/// Runs each rule in every case, as `case::rule`: under every engine over IPv4, and where the kernel forwards over
/// IPv6 too.
#[macro_export]
macro_rules! in_every_case {
    ($($rule:ident),* $(,)?) => {
        $crate::in_cases!(xdp, tc, userspace, unprivileged, xdp_v6, tc_v6: { $($rule),* });
    };
}

/// Runs each rule in each of the cases, as `case::rule`.
#[macro_export]
macro_rules! in_cases {
    ($($case:ident),+: $rules:tt) => { $($crate::in_case!($case $rules);)+ };
}

/// Runs each rule in one case.
#[macro_export]
macro_rules! in_case {
    (xdp $rules:tt) => { $crate::in_case!(xdp Xdp V4 $rules); };
    (tc $rules:tt) => { $crate::in_case!(tc Tc V4 $rules); };
    (userspace $rules:tt) => { $crate::in_case!(userspace Userspace V4 $rules); };
    (unprivileged $rules:tt) => { $crate::in_case!(unprivileged Unprivileged V4 $rules); };
    (xdp_v6 $rules:tt) => { $crate::in_case!(xdp_v6 Xdp V6 $rules); };
    (tc_v6 $rules:tt) => { $crate::in_case!(tc_v6 Tc V6 $rules); };
    ($name:ident $engine:ident $family:ident { $($rule:ident),* $(,)? }) => {
        mod $name {
            $(#[test] fn $rule() {
                let engine = $crate::proxy::Engine::$engine;
                super::$rule($crate::case::Case { engine, family: $crate::netns::Family::$family });
            })*
        }
    };
}

impl Case {
    /// Whether the kernel is to forward.
    #[must_use]
    pub fn expects_kernel(self) -> bool {
        self.engine.is_kernel()
    }

    /// What is to forward in the end: the engine asked for, or userspace where the kernel path cannot.
    #[must_use]
    pub fn forwarder(self) -> Engine {
        if self.expects_kernel() { self.engine } else { Engine::Userspace }
    }

    /// The datapath whose counters are to grow.
    #[must_use]
    pub fn path(self) -> &'static str {
        if self.expects_kernel() { "kernel" } else { "userspace" }
    }
}
