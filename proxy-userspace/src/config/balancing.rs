//! How new streams get their origins, as it is configured.

use crate::origin::{
    Origin,
    balance::{Policy, Terms},
};

/// How new streams get their origins.
#[derive(Clone, Debug, Default)]
pub struct Balancing {
    /// `PROXY_BALANCING`.
    pub policy: Policy,
    /// `PROXY_ORIGIN_WEIGHTS`: server ids, device ids or `*`, and what they weigh.
    pub weights: Vec<(String, u32)>,
    /// `PROXY_ORIGIN_CAPACITIES`: the same, and how many sessions they are to have at most.
    pub capacities: Vec<(String, u32)>,
}

impl Balancing {
    /// What `origin` is to take: what is configured counts more than what it `registered` with.
    pub fn terms(&self, origin: &Origin, registered: Terms) -> Terms {
        let find = |list: &[(String, u32)]| {
            let value = |named: &dyn Fn(&str) -> bool| {
                list.iter().find(|(name, _)| named(name)).map(|(_, value)| *value)
            };
            value(&|name| [&origin.server, &origin.device_id].iter().any(|known| *known == name))
                .or_else(|| value(&|name| name == "*"))
        };
        Terms {
            weight: find(&self.weights).unwrap_or(registered.weight),
            capacity: find(&self.capacities).or(registered.capacity),
        }
    }
}
