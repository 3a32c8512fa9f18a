//! The network of one slot: a stub of its own, one VNIC for the host and one for the guest, two addresses.
//! All of it follows from the node's name and the slot's number, so that a crash leaves nothing whose name
//! is not known.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use ipnet::Ipv4Net;
use sha2::{Digest, Sha256};

use super::names::{LinkName, Unfit};
use crate::model::names::NodeName;

/// A node's slots are numbered from 0; a MAC address has 15 bits for them.
pub const SLOTS: u32 = 1 << 15;

/// What the names of a slot's links begin with; its number follows.
const STUB: &str = "hcis";
const HOST: &str = "hcih";
const GUEST: &str = "hciv";

/// The number of a machine among those that exist at one time on a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(u16);

/// Which end of the stub a VNIC is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The VNIC of the host.
    Host,
    /// The VNIC of the guest.
    Guest,
}

/// A MAC address, written with leading zeroes; dladm(8) prints it without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MacAddress([u8; 6]);

/// The addresses that machines may have: `/30` networks one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range(Ipv4Net);

/// A network that cannot be a node's range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot be the machines' network: it must be private, without host bits, and between /16 and /30; write \
     10.77.0.0/16"
)]
pub struct NoRange(String);

/// Everything about one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SlotNetwork {
    /// The etherstub: `hcis7`.
    pub stub: LinkName,
    /// The host's VNIC: `hcih7`.
    pub host: LinkName,
    /// The guest's VNIC: `hciv7`.
    pub guest: LinkName,
    /// Of the host's VNIC.
    pub host_mac: MacAddress,
    /// Of the guest's VNIC.
    pub guest_mac: MacAddress,
    /// The host's address, base + 4N + 1.
    pub host_address: Ipv4Addr,
    /// The guest's, the next one.
    pub guest_address: Ipv4Addr,
}

impl Slot {
    /// The slot of this number.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        (number < SLOTS).then(|| u16::try_from(number).ok().map(Self))?
    }

    /// The slot whose host's or guest's VNIC has this name, which proves nothing of whose it is.
    #[must_use]
    pub fn of_vnic(link: &str) -> Option<Self> {
        let number = link.strip_prefix(HOST).or_else(|| link.strip_prefix(GUEST))?;
        Self::new(number.parse().ok()?)
    }

    /// The slot of which some link has this name, which proves nothing of whose it is.
    #[must_use]
    pub fn of_link(link: &str) -> Option<Self> {
        Self::of_vnic(link).or_else(|| Self::new(link.strip_prefix(STUB)?.parse().ok()?))
    }

    /// Its number.
    #[must_use]
    pub fn number(self) -> u32 {
        self.0.into()
    }
}

impl MacAddress {
    /// `02:` (locally administered, one station), 24 bits of the node's name, 15 of the slot, one of the role.
    #[must_use]
    pub fn of(node: &NodeName, slot: Slot, role: Role) -> Self {
        let hash = Sha256::digest(node.as_str());
        let [high, low] = (slot.0 << 1 | u16::from(role == Role::Guest)).to_be_bytes();
        Self([0x02, hash[0], hash[1], hash[2], high, low])
    }

    /// Reads what dladm(8) prints: bytes without leading zeroes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut bytes {
            let part = parts.next().filter(|part| (1..=2).contains(&part.len()))?;
            *byte = u8::from_str_radix(part, 16).ok().filter(|_| !part.starts_with('+'))?;
        }
        parts.next().is_none().then_some(Self(bytes))
    }
}

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            &hex::encode(self.0)
                .as_bytes()
                .chunks(2)
                .map(String::from_utf8_lossy)
                .collect::<Vec<_>>()
                .join(":"),
        )
    }
}

impl Default for Range {
    /// 10.77.0.0/16: 16384 slots in a corner of the private addresses that few use.
    fn default() -> Self {
        Self(Ipv4Net::new_assert(Ipv4Addr::new(10, 77, 0, 0), 16))
    }
}

impl Range {
    fn new(network: Ipv4Net) -> Result<Self, NoRange> {
        let fits = (16..=30).contains(&network.prefix_len())
            && network.trunc() == network
            && (network.network().is_private() && network.broadcast().is_private());
        if fits {
            Ok(Self(network))
        } else {
            Err(NoRange(network.to_string()))
        }
    }

    /// How many slots it has room for.
    #[must_use]
    pub fn slots(self) -> u32 {
        1 << (30 - self.0.prefix_len())
    }

    /// The slot that is used last, after all others.
    #[must_use]
    pub fn last_slot(self) -> Slot {
        // A /16 has room for all slots there are, and it is the largest range.
        Slot(u16::try_from(self.slots() - 1).unwrap_or_default())
    }

    /// Whether some address is in both.
    #[must_use]
    pub fn overlaps(self, other: Ipv4Net) -> bool {
        self.0.contains(&other.addr()) || other.contains(&self.0.network())
    }

    /// The `/30` of a slot: the host's address and the guest's.
    #[must_use]
    pub fn addresses(self, slot: Slot) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let base = u32::from(self.0.network()) + 4 * slot.number();
        (slot.number() < self.slots()).then(|| (Ipv4Addr::from(base + 1), Ipv4Addr::from(base + 2)))
    }

    /// The rules of ipfilter that keep guests from every address of the host but the two ports of the
    /// agent and of git. Without them a guest reaches all: illumos answers on any link for any of its
    /// addresses.
    #[must_use]
    pub fn filter_rules(self, port: u16) -> Vec<String> {
        let range = self.0;
        let pass =
            |port: u16| format!("pass in quick proto tcp from {range} to {range} port = {port} flags S keep state");
        vec![
            pass(port),
            pass(port.saturating_add(1)),
            format!("block in quick from {range} to any"),
        ]
    }
}

impl FromStr for Range {
    type Err = NoRange;
    fn from_str(text: &str) -> Result<Self, NoRange> {
        let no = || NoRange(text.chars().take(60).collect());
        let network: Ipv4Net = text.parse().map_err(|_| no())?;
        // ipnet reads `010.77.0.0/16`, where others see octal digits: only what it would write itself is taken.
        match network.to_string() == text {
            true => Self::new(network),
            false => Err(no()),
        }
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl SlotNetwork {
    /// Its three links: the stub, the host's and the guest's.
    #[must_use]
    pub fn links(&self) -> [&LinkName; 3] {
        [&self.stub, &self.host, &self.guest]
    }

    /// The names and addresses of a slot. `None` when the range has no room for it.
    ///
    /// # Errors
    /// Never for a valid slot: a link's name with a number has the form that dladm(8) asks for.
    pub fn of(node: &NodeName, range: Range, slot: Slot) -> Result<Option<Self>, Unfit> {
        let Some((host_address, guest_address)) = range.addresses(slot) else {
            return Ok(None);
        };
        let link = |kind: &str| format!("{kind}{}", slot.number()).parse();
        Ok(Some(Self {
            stub: link(STUB)?,
            host: link(HOST)?,
            guest: link(GUEST)?,
            host_mac: MacAddress::of(node, slot, Role::Host),
            guest_mac: MacAddress::of(node, slot, Role::Guest),
            host_address,
            guest_address,
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> Range {
        text.parse().unwrap()
    }

    #[test]
    fn a_vnic_names_its_slot() {
        for (link, slot) in [
            ("hcih0", Slot::new(0)),
            ("hciv32767", Slot::new(32767)),
            ("hciv32768", None),
            ("hcis0", None),
            ("hcih", None),
            ("hcihx", None),
            ("net0", None),
        ] {
            assert_eq!(Slot::of_vnic(link), slot, "{link}");
        }
    }

    #[test]
    fn a_slot_is_a_network_of_two_addresses() {
        let node = "n1".parse().unwrap();
        let slot = SlotNetwork::of(&node, range("10.77.0.0/16"), Slot::new(42).unwrap())
            .unwrap()
            .unwrap();
        assert_eq!(
            (slot.stub.to_string(), slot.host.to_string(), slot.guest.to_string()),
            ("hcis42".into(), "hcih42".into(), "hciv42".into())
        );
        assert_eq!(slot.host_address.to_string(), "10.77.0.169");
        assert_eq!(slot.guest_address.to_string(), "10.77.0.170");
        assert!(slot.host_mac.to_string().ends_with(":00:54"), "{}", slot.host_mac);
        assert!(slot.guest_mac.to_string().ends_with(":00:55"), "{}", slot.guest_mac);
        assert!(Slot::new(SLOTS).is_none() && Slot::new(SLOTS - 1).is_some());
        assert_eq!(range("10.77.0.0/30").slots(), 1);
        assert!(range("10.77.0.0/30").addresses(Slot::new(1).unwrap()).is_none());
    }

    #[test]
    fn a_range_is_private_and_has_room() {
        for bad in [
            "10.77.0.1/16",
            "8.8.8.0/24",
            "10.0.0.0/8",
            "10.0.0.0/31",
            "172.31.0.0/15",
            "010.77.0.0/16",
            "10.077.0.0/16",
            "10.77.0.0/016",
            "10.77.0.0",
            "",
        ] {
            bad.parse::<Range>().unwrap_err();
        }
        "10.77.0.0/16".parse::<Range>().unwrap();
    }

    #[test]
    fn guests_reach_two_ports_and_nothing_else() {
        assert_eq!(
            range("10.77.0.0/16").filter_rules(9417),
            [
                "pass in quick proto tcp from 10.77.0.0/16 to 10.77.0.0/16 port = 9417 flags S keep state",
                "pass in quick proto tcp from 10.77.0.0/16 to 10.77.0.0/16 port = 9418 flags S keep state",
                "block in quick from 10.77.0.0/16 to any",
            ]
        );
    }

    proptest! {
        #[test]
        fn what_dladm_prints_is_read_back(number in 0..SLOTS, guest: bool, node in "[a-z][a-z0-9]{0,20}") {
            let role = if guest { Role::Guest } else { Role::Host };
            let mac = MacAddress::of(&node.parse().unwrap(), Slot::new(number).unwrap(), role);
            let printed: Vec<String> = mac.0.iter().map(|byte| format!("{byte:x}")).collect();
            prop_assert_eq!(MacAddress::parse(&printed.join(":")), Some(mac));
            prop_assert_eq!(MacAddress::parse(&mac.to_string()), Some(mac));
        }

        #[test]
        fn no_text_breaks_the_reader(text in "\\PC{0,40}") {
            let _ = MacAddress::parse(&text);
        }

        #[test]
        fn slots_never_overlap(a in 0u32..16384, b in 0u32..16384) {
            let of = |n| range("10.77.0.0/16").addresses(Slot::new(n).unwrap()).unwrap();
            prop_assert_eq!(a == b, of(a).0 == of(b).0 || of(a).0 == of(b).1 || of(a).1 == of(b).0);
        }
    }
}
