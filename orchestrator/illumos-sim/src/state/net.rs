//! Links, interfaces, addresses, filter rules.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The class of a datalink.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LinkClass {
    Phys,
    /// A switch without a wire.
    Etherstub,
    /// A virtual network card.
    Vnic,
}

impl LinkClass {
    /// As `show-link` prints it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Phys => "phys",
            Self::Etherstub => "etherstub",
            Self::Vnic => "vnic",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    pub class: LinkClass,
    /// The link below a VNIC.
    pub over: Option<String>,
    /// Padded lower-case MAC address; empty for an etherstub.
    pub mac: String,
    /// VLAN id, 0 for none.
    pub vid: u16,
    /// Active values of the properties that were set: a list each.
    pub props: BTreeMap<String, Vec<String>>,
    /// Persistent values of the same.
    pub stored: BTreeMap<String, Vec<String>>,
    /// Gone at the next power cycle.
    pub temporary: bool,
    /// The running zone that owns it.
    pub zone: Option<String>,
}

impl Link {
    /// A persistent link without properties.
    #[must_use]
    pub fn new(class: LinkClass, mac: &str) -> Self {
        Self {
            class,
            over: None,
            mac: mac.into(),
            vid: 0,
            props: BTreeMap::new(),
            stored: BTreeMap::new(),
            temporary: false,
            zone: None,
        }
    }

    /// The values of a property, none when it is unset.
    #[must_use]
    pub fn prop(&self, name: &str) -> &[String] {
        self.props.get(name).map_or(&[], Vec::as_slice)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interface {
    /// Gone at the next power cycle.
    pub temporary: bool,
    /// `forwarding` of IPv4.
    pub forwarding: bool,
    /// Addresses by object name (`hcih7/v4`).
    pub addresses: BTreeMap<String, Address>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// `10.77.0.1/30`.
    pub addr: String,
    /// `ok`, `tentative`, `duplicate`, `down`.
    pub state: String,
    /// Gone at the next power cycle.
    pub temporary: bool,
    /// So many queries still show it as `tentative`, whatever its state.
    #[serde(default)]
    pub tentative: u32,
}

impl Address {
    /// A persistent static address that is up.
    #[must_use]
    pub fn fixed(addr: &str) -> Self {
        Self {
            addr: addr.into(),
            state: "ok".into(),
            temporary: false,
            tentative: 0,
        }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// Active rules in their order, as `ipfstat` prints them.
    pub rules: Vec<String>,
    /// Switched off: rules are kept and do nothing.
    pub disabled: bool,
}
