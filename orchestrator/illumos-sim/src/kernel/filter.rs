//! Filters: the protection of links, which holds what a zone sends, and ipfilter's rules, which hold what the
//! host's stack takes in and gives out.

use std::fmt::Write;

use crate::state::{Link, State};

/// All of it as a text for `nft -f`, which replaces what was there at once.
///
/// # Errors
/// A rule that has no counterpart.
pub fn rules(state: &State) -> Result<String, String> {
    let mut text = String::new();
    for family in ["bridge", "ip"] {
        let _written = writeln!(text, "table {family} host\ndelete table {family} host");
    }
    text += "table bridge host {\nchain sent {\ntype filter hook prerouting priority -300; policy accept;\n";
    for (name, link) in state.links.iter().filter(|(_, link)| link.zone.is_some()) {
        protection(&mut text, name, link)?;
    }
    text += "}\n}\ntable ip host {\n";
    let active = state.filter.rules.iter().filter(|_| !state.filter.disabled);
    let active: Vec<Vec<&str>> = active.map(|rule| rule.split_whitespace().collect()).collect();
    for (direction, hook, link) in [("in", "prerouting", "iifname"), ("out", "postrouting", "oifname")] {
        // What a process says to another one of this host never meets ipfilter; neither does what belongs to a
        // connection that a rule keeps the state of.
        let _written = writeln!(
            text,
            "chain {direction} {{\ntype filter hook {hook} priority 0; policy accept;\n{link} \"lo\" accept\nct mark 1 accept"
        );
        for rule in active.iter().filter(|rule| rule.get(1) == Some(&direction)) {
            text += &translated(rule, link)?;
            text.push('\n');
        }
        // The last rule that fits decides, unless one said `quick`.
        text += "meta mark 1 drop\n}\n";
    }
    text += "}\n";
    Ok(text)
}

/// The link-local address that follows from a MAC address.
fn link_local(mac: &str) -> Option<std::net::Ipv6Addr> {
    let bytes: Vec<u16> = mac
        .split(':')
        .map(|byte| u16::from_str_radix(byte, 16).ok())
        .collect::<Option<_>>()?;
    let [a, b, c, d, e, f] = bytes.try_into().ok()?;
    Some(std::net::Ipv6Addr::new(
        0xfe80,
        0,
        0,
        0,
        (a ^ 2) << 8 | b,
        c << 8 | 0xff,
        0xfe00 | d,
        e << 8 | f,
    ))
}

/// mac_protect.c over nftables.
fn protection(text: &mut String, name: &str, link: &Link) -> Result<(), String> {
    let mac = &link.mac;
    let mut drop = |what: String| {
        let _written = writeln!(text, "iifname \"{name}\" {what} drop");
    };
    for kind in link.prop("protection") {
        match kind.as_str() {
            "mac-nospoof" => drop(format!("ether saddr != {mac}")),
            // A VLAN tag is another type too.
            "restricted" => drop("ether type != { ip, ip6, arp }".into()),
            "ip-nospoof" => {
                // Without any, addresses would be learned from DHCP, and there is no DHCP server on a stub.
                let (v6, v4): (Vec<&str>, Vec<&str>) = link
                    .prop("allowed-ips")
                    .iter()
                    .map(String::as_str)
                    .partition(|network| network.contains(':'));
                let v4 = [vec!["0.0.0.0/32"], v4].concat().join(", ");
                let local = link_local(mac).ok_or_else(|| format!("link {name}: no MAC address"))?;
                let local = format!("{local}/128");
                let v6 = [vec!["::/128", local.as_str()], v6].concat().join(", ");
                drop(format!("ip saddr != {{ {v4} }}"));
                drop(format!("arp saddr ip != {{ {v4} }}"));
                drop(format!("ip6 saddr != {{ {v6} }}"));
            }
            // The client's hardware address, 28 bytes into the message, behind the UDP header.
            "dhcp-nospoof" => drop(format!("udp dport 67 @th,288,48 != 0x{}", mac.replace(':', ""))),
            other => return Err(format!("link {name}: protection {other} has no counterpart")),
        }
    }
    Ok(())
}

/// One rule, in the form that ipfstat prints.
fn translated(rule: &[&str], link: &str) -> Result<String, String> {
    let no = |why: &str| format!("rule `{}`: {why}", rule.join(" "));
    let (mut out, mut words) = (Vec::new(), rule.iter().copied().skip(2).peekable());
    let mut quick = false;
    while let Some(word) = words.next_if(|word| ["log", "quick"].contains(word)) {
        quick |= word == "quick";
    }
    if words.next_if_eq(&"on").is_some() {
        let name = words.next().ok_or_else(|| no("no link"))?;
        out.push(format!("{link} \"{name}\""));
    }
    if words.next_if_eq(&"proto").is_some() {
        out.push(match words.next().ok_or_else(|| no("no protocol"))? {
            "tcp/udp" => "meta l4proto { tcp, udp }".into(),
            proto => format!("meta l4proto {proto}"),
        });
    }
    if words.next_if_eq(&"all").is_none() {
        for (side, port) in [("saddr", "sport"), ("daddr", "dport")] {
            let (_, network) = (words.next(), words.next().ok_or_else(|| no("no address"))?);
            if network != "any" {
                out.push(format!("ip {side} {network}"));
            }
            if words.next_if_eq(&"port").is_some() {
                let (operator, number) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
                let operator = if operator == "=" { "==" } else { operator };
                out.push(format!("th {port} {operator} {number}"));
            }
        }
    }
    if words.next_if_eq(&"flags").is_some() {
        let (set, of) = words
            .next()
            .and_then(|flags| flags.split_once('/'))
            .ok_or_else(|| no("no flags"))?;
        out.push(format!("tcp flags & ({}) == ({})", flags(of), flags(set)));
    }
    let mut keeps = false;
    while words.next_if_eq(&"keep").is_some() {
        keeps |= words.next() == Some("state");
    }
    if words.next().is_some() {
        return Err(no("has more than can be translated"));
    }
    if keeps {
        out.push("ct mark set 1".into());
    }
    out.push(
        match (rule.first(), quick) {
            (Some(&"pass"), true) => "accept",
            (Some(&"block"), true) => "drop",
            (Some(&"pass"), false) => "meta mark set 0",
            (Some(&"block"), false) => "meta mark set 1",
            _ => return Err(no("neither passes nor blocks")),
        }
        .into(),
    );
    Ok(out.join(" "))
}

/// TCP's flags by their letters.
fn flags(letters: &str) -> String {
    const NAMES: [(char, &str); 6] = [
        ('F', "fin"),
        ('S', "syn"),
        ('R', "rst"),
        ('P', "psh"),
        ('A', "ack"),
        ('U', "urg"),
    ];
    let named: Vec<&str> = NAMES
        .iter()
        .filter(|(letter, _)| letters.contains(*letter))
        .map(|(_, name)| *name)
        .collect();
    named.join("|")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::program::testing::TestHost;

    #[test]
    fn properties_and_rules_become_what_the_kernel_enforces() {
        let fixture = TestHost::new();
        fixture.ok("dladm create-etherstub -t hcis7");
        fixture.ok("dladm create-vnic -t -l hcis7 -m 2:8:20:0:2a:2 hciv7");
        fixture.ok("dladm set-linkprop -t -p protection=mac-nospoof,restricted,ip-nospoof,dhcp-nospoof -p allowed-ips=10.77.0.30/32 hciv7");
        let file = fixture.file(
            "rules",
            "pass in quick proto tcp from 10.77.0.0/16 to 10.77.0.0/16 port = 9417 flags S keep state\n\
             block in quick from 10.77.0.0/16 to any\nblock out proto tcp/udp from any to any port > 1024\npass out all\n",
        );
        fixture.ok(&format!("ipf -f {file}"));
        // Nothing holds a link that no zone has.
        assert!(!rules(&fixture.sim.state().unwrap()).unwrap().contains("hciv7"));
        fixture
            .sim
            .mutate(|host| host.state.links.get_mut("hciv7").unwrap().zone = Some("z".into()))
            .unwrap();
        let text = rules(&fixture.sim.state().unwrap()).unwrap();
        for line in [
            "iifname \"hciv7\" ether saddr != 02:08:20:00:2a:02 drop",
            "iifname \"hciv7\" ether type != { ip, ip6, arp } drop",
            "iifname \"hciv7\" ip saddr != { 0.0.0.0/32, 10.77.0.30/32 } drop",
            "iifname \"hciv7\" arp saddr ip != { 0.0.0.0/32, 10.77.0.30/32 } drop",
            "iifname \"hciv7\" ip6 saddr != { ::/128, fe80::8:20ff:fe00:2a02/128 } drop",
            "iifname \"hciv7\" udp dport 67 @th,288,48 != 0x020820002a02 drop",
            "meta l4proto tcp ip saddr 10.77.0.0/16 ip daddr 10.77.0.0/16 th dport == 9417 \
             tcp flags & (fin|syn|rst|psh|ack|urg) == (syn) ct mark set 1 accept",
            "ip saddr 10.77.0.0/16 drop",
            "meta l4proto { tcp, udp } th dport > 1024 meta mark set 1",
            "meta mark set 0",
        ] {
            assert!(text.lines().any(|said| said == line), "{line} is not in\n{text}");
        }
        fixture.ok("ipf -D");
        assert!(!rules(&fixture.sim.state().unwrap()).unwrap().contains("10.77.0.0/16"));
    }
}
