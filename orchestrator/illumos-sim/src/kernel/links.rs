//! Links: an etherstub is a bridge, a VNIC of the host one end of a pair in it, a VNIC of a zone a tap in it,
//! a network card a bridge without ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
};

use crate::state::{LinkClass, State};

/// What a link is in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Bridge,
    Card,
    Pair,
    Tap,
}

/// One link as the kernel has it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Device {
    kind: Kind,
    mac: String,
    over: Option<String>,
    mtu: u32,
    up: bool,
    addresses: BTreeSet<String>,
    forwarding: bool,
}

impl Device {
    /// Whether it can become the other without being made anew.
    fn same(&self, other: &Self) -> bool {
        (self.kind, &self.mac, &self.over) == (other.kind, &other.mac, &other.over)
    }
}

/// What `ip -batch` is to do, and which links forward from now on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Change {
    /// Commands, one a line.
    pub lines: String,
    /// Links whose forwarding of IPv4 is set.
    pub forwarding: Vec<(String, bool)>,
}

/// The other end of a pair, which is in the bridge.
fn peer(name: &str) -> String {
    format!("p.{name}")
}

fn devices(state: &State) -> Result<BTreeMap<String, Device>, String> {
    let mut devices = BTreeMap::new();
    for (name, link) in &state.links {
        if name.len() > 13 || !name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            return Err(format!("link {name}: this kernel takes no such name"));
        }
        let stub = |over: &String| {
            let below = state.links.get(over);
            below.is_some_and(|below| below.class == LinkClass::Etherstub)
        };
        if link.class == LinkClass::Vnic && (link.vid != 0 || !link.over.as_ref().is_some_and(stub)) {
            return Err(format!(
                "link {name}: only VNICs over etherstubs, without VLAN, can be real"
            ));
        }
        let interface = state.interfaces.get(name);
        let kind = match (link.class, &link.zone) {
            (LinkClass::Etherstub, _) => Kind::Bridge,
            (LinkClass::Phys, _) => Kind::Card,
            (LinkClass::Vnic, None) => Kind::Pair,
            (LinkClass::Vnic, Some(_)) => Kind::Tap,
        };
        let addresses = interface.into_iter().flat_map(|interface| interface.addresses.values());
        let device = Device {
            kind,
            mac: link.mac.clone(),
            over: link.over.clone(),
            mtu: state.mtu(name),
            up: matches!(kind, Kind::Bridge | Kind::Tap) || interface.is_some(),
            addresses: addresses
                .filter(|address| address.state == "ok")
                .map(|address| address.addr.clone())
                .collect(),
            forwarding: interface.is_some_and(|interface| interface.forwarding),
        };
        devices.insert(name.clone(), device);
    }
    Ok(devices)
}

/// What leads from one model to the next; all of it where there was none before.
///
/// # Errors
/// A link that the kernel cannot have.
pub fn change(before: Option<&State>, after: &State) -> Result<Change, String> {
    let old = before.map_or_else(|| Ok(BTreeMap::new()), devices)?;
    let new = devices(after)?;
    let mut lines = String::new();
    // What is written to a string cannot fail.
    let mut say = |line: std::fmt::Arguments<'_>| {
        let _written = writeln!(lines, "{line}");
    };
    let kept = |name: &String| new.get(name).is_some_and(|device| device.same(&old[name]));
    let mut doomed: Vec<_> = old.iter().filter(|(name, _)| !kept(name)).collect();
    doomed.sort_by_key(|(_, device)| std::cmp::Reverse(device.kind));
    for (name, _) in doomed {
        say(format_args!("link del {name}"));
    }
    let mut ordered: Vec<_> = new.iter().collect();
    ordered.sort_by_key(|(_, device)| device.kind);
    let mut forwarding = Vec::new();
    for (name, device) in ordered {
        let was = old.get(name).filter(|was| was.same(device));
        if was.is_none() {
            let (mac, over) = (&device.mac, device.over.as_deref().unwrap_or_default());
            match device.kind {
                Kind::Bridge => {
                    say(format_args!(
                        "link add name {name} type bridge stp_state 0 forward_delay 0 mcast_snooping 0"
                    ));
                    // A stub is no end of a wire, and this kernel would answer there for the host's addresses.
                    say(format_args!("link set {name} arp off"));
                }
                Kind::Card => say(format_args!("link add name {name} address {mac} type bridge")),
                Kind::Pair => {
                    let peer = peer(name);
                    say(format_args!(
                        "link add name {name} address {mac} type veth peer name {peer}"
                    ));
                    say(format_args!("link set {peer} master {over} up"));
                }
                Kind::Tap => {
                    say(format_args!("tuntap add dev {name} mode tap"));
                    say(format_args!("link set {name} master {over}"));
                }
            }
        }
        // A bridge takes the smallest of its ports.
        if device.kind != Kind::Bridge && was.is_none_or(|was| was.mtu != device.mtu) {
            say(format_args!("link set {name} mtu {}", device.mtu));
            if device.kind == Kind::Pair {
                say(format_args!("link set {} mtu {}", peer(name), device.mtu));
            }
        }
        if was.map_or(device.up, |was| was.up != device.up) {
            say(format_args!(
                "link set {name} {}",
                if device.up { "up" } else { "down" }
            ));
        }
        let none = BTreeSet::new();
        let had = was.map_or(&none, |was| &was.addresses);
        for gone in had.difference(&device.addresses) {
            say(format_args!("addr del {gone} dev {name}"));
        }
        for fresh in device.addresses.difference(had) {
            say(format_args!("addr add {fresh} dev {name}"));
        }
        if was.is_none_or(|was| was.forwarding != device.forwarding) {
            forwarding.push((name.clone(), device.forwarding));
        }
    }
    Ok(Change { lines, forwarding })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::testing::TestHost;

    fn slot() -> TestHost {
        let fixture = TestHost::new();
        fixture.ok("dladm create-etherstub -t hcis7");
        fixture.ok("dladm create-vnic -t -l hcis7 -m 2:8:20:0:2a:1 hcih7");
        fixture.ok("dladm create-vnic -t -l hcis7 -m 2:8:20:0:2a:2 hciv7");
        fixture.ok("dladm set-linkprop -t -p mtu=1500 hcih7");
        fixture.ok("ipadm create-addr -t -T static -a 10.77.0.29/30 hcih7/v4");
        fixture
    }

    #[test]
    fn a_slot_becomes_a_bridge_and_its_ports() {
        let fixture = slot();
        let state = fixture.sim.state().unwrap();
        let made = change(None, &state).unwrap();
        assert_eq!(
            made.lines,
            "link add name hcis7 type bridge stp_state 0 forward_delay 0 mcast_snooping 0\n\
             link set hcis7 arp off\n\
             link set hcis7 up\n\
             link add name ixgbe0 address 90:e2:ba:11:22:33 type bridge\n\
             link set ixgbe0 mtu 1500\n\
             link add name hcih7 address 02:08:20:00:2a:01 type veth peer name p.hcih7\n\
             link set p.hcih7 master hcis7 up\n\
             link set hcih7 mtu 1500\n\
             link set p.hcih7 mtu 1500\n\
             link set hcih7 up\n\
             addr add 10.77.0.29/30 dev hcih7\n\
             link add name hciv7 address 02:08:20:00:2a:02 type veth peer name p.hciv7\n\
             link set p.hciv7 master hcis7 up\n\
             link set hciv7 mtu 9000\n\
             link set p.hciv7 mtu 9000\n"
        );
        assert_eq!(change(Some(&state), &state).unwrap(), Change::default());
    }

    #[test]
    fn what_changed_is_changed_and_what_went_goes() {
        let fixture = slot();
        let before = fixture.sim.state().unwrap();
        fixture
            .sim
            .mutate(|host| host.state.links.get_mut("hciv7").unwrap().zone = Some("z".into()))
            .unwrap();
        fixture.ok("ipadm set-ifprop -t -p forwarding=on -m ipv4 hcih7");
        let running = fixture.sim.state().unwrap();
        let made = change(Some(&before), &running).unwrap();
        assert_eq!(
            made.lines,
            "link del hciv7\ntuntap add dev hciv7 mode tap\nlink set hciv7 master hcis7\n\
             link set hciv7 mtu 9000\nlink set hciv7 up\n"
        );
        assert_eq!(
            made.forwarding,
            [("hcih7".to_owned(), true), ("hciv7".to_owned(), false)]
        );
        fixture
            .sim
            .mutate(|host| host.state.links.get_mut("hciv7").unwrap().zone = None)
            .unwrap();
        for command in [
            "ipadm delete-addr hcih7/v4",
            "ipadm delete-if hcih7",
            "dladm delete-vnic -t hciv7",
            "dladm delete-vnic -t hcih7",
            "dladm delete-etherstub -t hcis7",
        ] {
            fixture.ok(command);
        }
        let gone = change(Some(&running), &fixture.sim.state().unwrap()).unwrap();
        assert_eq!(gone.lines, "link del hciv7\nlink del hcih7\nlink del hcis7\n");
    }

    #[test]
    fn what_the_kernel_cannot_have_is_said() {
        let fixture = slot();
        fixture.ok("dladm create-vnic -l ixgbe0 lan0");
        assert!(
            change(None, &fixture.sim.state().unwrap())
                .unwrap_err()
                .contains("over etherstubs")
        );
    }
}
