//! ipadm(8): addresses, interfaces and their forwarding.

use std::net::Ipv4Addr;

use crate::{
    host::Host,
    out::{Options, Out, Ran, options},
    state::{Address, Interface},
    table::{self, Row},
};

const USAGE: &str = "usage: ipadm <subcommand> <args> ...";

/// Runs ipadm.
///
/// # Errors
/// Whatever the verb refuses.
pub fn run(host: &mut Host, args: &[String]) -> Ran {
    let Some((verb, rest)) = args.split_first() else {
        return Err(Out::error(USAGE));
    };
    match verb.as_str() {
        "create-if" => create_if(host, rest),
        "delete-if" => delete_if(host, rest),
        "create-addr" => create_addr(host, rest),
        "delete-addr" => delete_addr(host, rest),
        "show-addr" => show_addr(host, rest),
        "show-if" => show_if(host, rest),
        "set-ifprop" => set_ifprop(host, rest),
        "show-ifprop" => show_ifprop(host, rest),
        "set-prop" => set_prop(host, rest),
        "show-prop" => show_prop(host, rest),
        other => Err(no(format!("unknown subcommand '{other}'\n{USAGE}"))),
    }
}

fn no(text: impl std::fmt::Display) -> Out {
    Out::error(format!("ipadm: {text}"))
}

fn read<'a>(args: &'a [String], spec: &str, least: usize, most: usize) -> Result<Options<'a>, Out> {
    let options = options(args, spec).map_err(|text| no(format!("unrecognized option: {text}")))?;
    if (least..=most).contains(&options.rest.len()) {
        Ok(options)
    } else {
        Err(Out::error(USAGE))
    }
}

/// Whether the global zone can use the link for IP.
fn usable(host: &Host, name: &str) -> bool {
    host.state
        .links
        .get(name)
        .is_some_and(|link| link.zone.is_none() && link.class != crate::state::LinkClass::Etherstub)
}

fn create_if(host: &mut Host, args: &[String]) -> Ran {
    let options = read(args, "tI:", 1, 1)?;
    let name = options.rest[0];
    if host.state.interfaces.contains_key(name) {
        return Err(no(format!("Could not create {name} : Interface already exists")));
    }
    if !usable(host, name) {
        return Err(no(format!("Could not create {name} : Interface does not exist")));
    }
    let made = Interface {
        temporary: options.has('t'),
        ..Interface::default()
    };
    host.state.interfaces.insert(name.to_owned(), made);
    Ok(Out::silent())
}

fn delete_if(host: &mut Host, args: &[String]) -> Ran {
    let options = read(args, "", 1, 1)?;
    let name = options.rest[0];
    match host.state.interfaces.remove(name) {
        Some(_) => Ok(Out::silent()),
        None => Err(no(format!("Could not delete {name}: Interface does not exist"))),
    }
}

fn create_addr(host: &mut Host, args: &[String]) -> Ran {
    let options = read(args, "tT:a:dw:", 1, 1)?;
    let object = options.rest[0];
    let failed = |reason: &str| no(format!("Could not create address: {reason}"));
    let Some((name, tail)) = object.split_once('/').filter(|(_, tail)| !tail.is_empty()) else {
        return Err(no(format!("Invalid address object name '{object}'")));
    };
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if object.len() > 32 || !tail.chars().all(plain) || !tail.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err(no(format!("Invalid address object name '{object}'")));
    }
    match options.value('T') {
        Some("static") => {}
        Some("dhcp" | "addrconf") => return Err(failed("Operation not supported")),
        _ => return Err(no("Invalid address type")),
    }
    let given = options.values('a');
    let [given] = given.as_slice() else {
        return Err(no("Static address requires -a"));
    };
    let given = given.strip_prefix("local=").unwrap_or(given);
    let (addr, prefix) = parse(given).ok_or_else(|| failed("Invalid address"))?;
    if host
        .state
        .interfaces
        .values()
        .any(|interface| interface.addresses.contains_key(object))
    {
        return Err(failed("Address object already exists"));
    }
    if !host.state.interfaces.contains_key(name) && !usable(host, name) {
        return Err(failed("Interface does not exist"));
    }
    let wanted = format!("{addr}/{prefix}");
    let same = |address: &Address| address.addr.split('/').next() == Some(&addr.to_string());
    if host
        .state
        .interfaces
        .values()
        .flat_map(|interface| interface.addresses.values())
        .any(same)
    {
        return Err(failed("Address already in use"));
    }
    let temporary = options.has('t');
    let forwarding = host.state.forwarding;
    let interface = host
        .state
        .interfaces
        .entry(name.to_owned())
        .or_insert_with(|| Interface {
            temporary,
            forwarding,
            ..Interface::default()
        });
    let state = if options.has('d') { "down" } else { "ok" };
    interface.addresses.insert(
        object.to_owned(),
        Address {
            addr: wanted,
            state: state.into(),
            temporary,
            tentative: host.faults.tentative_looks,
        },
    );
    Ok(Out::silent())
}

fn parse(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (addr, prefix) = text.split_once('/')?;
    Some((
        addr.parse().ok()?,
        prefix.parse().ok().filter(|prefix| (1..=32).contains(prefix))?,
    ))
}

fn delete_addr(host: &mut Host, args: &[String]) -> Ran {
    let options = read(args, "r", 1, 1)?;
    let removed = host
        .state
        .interfaces
        .values_mut()
        .find_map(|i| i.addresses.remove(options.rest[0]));
    match removed {
        Some(_) => Ok(Out::silent()),
        None => Err(no("could not delete address: Object not found")),
    }
}

fn print(options: &Options, parsable: char, known: &[&'static str], rows: &[Row]) -> Ran {
    let parsable = options.has(parsable);
    if parsable && options.value('o').is_none() {
        return Err(no("output field list (-o) required in parsable output mode"));
    }
    match table::print(rows, known, options.value('o'), parsable) {
        Ok(text) => Ok(Out::text(text)),
        Err(field) => Err(no(format!("unknown output field '{field}'"))),
    }
}

fn show_addr(host: &mut Host, args: &[String]) -> Ran {
    let options = read(args, "po:", 0, 1)?;
    let wanted = options.rest.first().copied();
    let fits = |object: &str| match wanted {
        None => true,
        Some(name) if name.trim_end_matches('/').contains('/') => object == name,
        Some(name) => object.split('/').next() == Some(name.trim_end_matches('/')),
    };
    let rows: Vec<Row> = host
        .state
        .interfaces
        .values_mut()
        .flat_map(|interface| &mut interface.addresses)
        .filter(|(object, _)| fits(object))
        .map(|(object, address)| {
            let state = match address.tentative {
                0 => address.state.clone(),
                _ => "tentative".to_owned(),
            };
            address.tentative = address.tentative.saturating_sub(1);
            vec![
                ("addrobj", object.clone()),
                ("type", "static".into()),
                ("state", state),
                ("addr", address.addr.clone()),
                ("current", "U--".into()),
                ("persistent", if address.temporary { "---" } else { "U--" }.into()),
            ]
        })
        .collect();
    match wanted.filter(|_| rows.is_empty()) {
        Some(name) if name.contains('/') => Err(no("could not get address: Object not found")),
        Some(_) => Err(no("could not get address: Interface does not exist")),
        None => print(
            &options,
            'p',
            &["addrobj", "type", "state", "current", "persistent", "addr"],
            &rows,
        ),
    }
}

fn show_if(host: &Host, args: &[String]) -> Ran {
    let options = read(args, "po:", 0, 1)?;
    let wanted = options.rest.first().copied();
    if let Some(name) = wanted.filter(|name| !host.state.interfaces.contains_key(*name)) {
        return Err(no(format!("Could not get interface {name}: Interface does not exist")));
    }
    let rows: Vec<Row> = host
        .state
        .interfaces
        .iter()
        .filter(|(name, _)| wanted.is_none_or(|wanted| wanted == name.as_str()))
        .map(|(name, interface)| {
            let state = if interface.addresses.is_empty() { "down" } else { "ok" };
            let stored = if interface.temporary { "---" } else { "-46" };
            vec![
                ("ifname", name.clone()),
                ("state", state.into()),
                ("current", "bm--------46".into()),
                ("persistent", stored.into()),
            ]
        })
        .collect();
    print(&options, 'p', &["ifname", "state", "current", "persistent"], &rows)
}

fn on_off(text: &str) -> Option<bool> {
    match text {
        "on" => Some(true),
        "off" => Some(false),
        _ => None,
    }
}

fn word(on: bool) -> String {
    if on { "on" } else { "off" }.into()
}

fn set_ifprop(host: &mut Host, args: &[String]) -> Ran {
    let options = read(args, "tm:p:", 1, 1)?;
    let name = options.rest[0];
    let refused = |reason: &str| no(format!("Could not set property: {reason}"));
    let Some((property, value)) = options.value('p').and_then(|pair| pair.split_once('=')) else {
        return Err(no("Invalid property=value"));
    };
    if !matches!(options.value('m'), Some("ip" | "ipv4" | "ipv6")) {
        return Err(no("Protocol (-m) must be one of ip, ipv4, ipv6"));
    }
    if property != "forwarding" {
        return Err(refused("Unknown property"));
    }
    let on = on_off(value).ok_or_else(|| refused("Invalid argument"))?;
    let Some(interface) = host.state.interfaces.get_mut(name) else {
        return Err(refused("Interface does not exist"));
    };
    if options.value('m') != Some("ipv6") {
        interface.forwarding = on;
    }
    Ok(Out::silent())
}

fn show_ifprop(host: &Host, args: &[String]) -> Ran {
    let options = read(args, "co:p:m:", 0, 1)?;
    if options.value('p').is_some_and(|property| property != "forwarding") {
        return Err(no("Could not get property: Unknown property"));
    }
    let wanted = options.rest.first().copied();
    if let Some(name) = wanted.filter(|name| !host.state.interfaces.contains_key(*name)) {
        return Err(no(format!(
            "Could not get property on {name}: Interface does not exist"
        )));
    }
    let rows: Vec<Row> = host
        .state
        .interfaces
        .iter()
        .filter(|(name, _)| wanted.is_none_or(|wanted| wanted == name.as_str()))
        .map(|(name, interface)| {
            let current = if options.value('m') == Some("ipv6") {
                false
            } else {
                interface.forwarding
            };
            vec![
                ("ifname", name.clone()),
                ("property", "forwarding".into()),
                ("proto", options.value('m').unwrap_or("ipv4").to_owned()),
                ("perm", "rw".into()),
                ("current", word(current)),
                ("persistent", "--".into()),
                ("default", "off".into()),
                ("possible", "on,off".into()),
            ]
        })
        .collect();
    let known = [
        "ifname",
        "property",
        "proto",
        "perm",
        "current",
        "persistent",
        "default",
        "possible",
    ];
    print(&options, 'c', &known, &rows)
}

fn set_prop(host: &mut Host, args: &[String]) -> Ran {
    let options = read(args, "tp:", 1, 1)?;
    let (Some(("forwarding", value)), "ipv4") = (options.value('p').and_then(|p| p.split_once('=')), options.rest[0])
    else {
        return Err(no("Could not set property: Unknown property"));
    };
    let on = on_off(value).ok_or_else(|| no("Could not set property: Invalid argument"))?;
    host.state.forwarding = on;
    host.state
        .interfaces
        .values_mut()
        .for_each(|interface| interface.forwarding = on);
    Ok(Out::silent())
}

fn show_prop(host: &Host, args: &[String]) -> Ran {
    let options = read(args, "co:p:", 0, 1)?;
    let proto = options.rest.first().copied().unwrap_or("ipv4");
    if options.value('p').is_some_and(|property| property != "forwarding") || !matches!(proto, "ipv4" | "ipv6") {
        return Err(no("Could not get property: Unknown property"));
    }
    let current = proto == "ipv4" && host.state.forwarding;
    let row = vec![
        ("proto", proto.to_owned()),
        ("property", "forwarding".into()),
        ("perm", "rw".into()),
        ("current", word(current)),
        ("persistent", "--".into()),
        ("default", "off".into()),
        ("possible", "on,off".into()),
    ];
    let known = [
        "proto",
        "property",
        "perm",
        "current",
        "persistent",
        "default",
        "possible",
    ];
    print(&options, 'c', &known, &[row])
}

#[cfg(test)]
mod tests {
    use crate::program::testing::TestHost;

    #[test]
    fn an_address_makes_its_interface() {
        let fixture = TestHost::new();
        fixture.ok("dladm create-etherstub -t hcis7");
        fixture.ok("dladm create-vnic -t -l hcis7 hcih7");
        fixture.ok("ipadm create-addr -t -T static -a 10.77.0.29/30 hcih7/v4");
        assert_eq!(
            fixture.ok("ipadm show-addr -p -o addrobj,type,state,addr hcih7/v4"),
            "hcih7/v4:static:ok:10.77.0.29/30\n"
        );
        assert_eq!(fixture.ok("ipadm show-addr -p -o addrobj"), "hcih7/v4\nlo0/v4\n");
        fixture.ok("ipadm set-prop -t -p forwarding=on ipv4");
        assert_eq!(fixture.ok("ipadm show-prop -c -o current -p forwarding ipv4"), "on\n");
        fixture.ok("ipadm set-ifprop -t -p forwarding=off -m ipv4 hcih7");
        assert_eq!(
            fixture.ok("ipadm show-ifprop -c -o current -p forwarding -m ipv4 hcih7"),
            "off\n"
        );
        for (command, text) in [
            (
                "create-addr -t -T static -a 10.77.0.29/30 hcih7/v4",
                "Could not create address: Address object already exists",
            ),
            (
                "create-addr -t -T static -a 10.77.0.29/30 hcih7/b",
                "Could not create address: Address already in use",
            ),
            (
                "create-addr -t -T static -a 10.77.0.33/30 hcih8/v4",
                "Could not create address: Interface does not exist",
            ),
            (
                "create-if -t hcih7",
                "Could not create hcih7 : Interface already exists",
            ),
            ("delete-addr hcih8/v4", "could not delete address: Object not found"),
            ("delete-if hcih8", "Could not delete hcih8: Interface does not exist"),
        ] {
            assert_eq!(fixture.no(&format!("ipadm {command}"), 1), format!("ipadm: {text}\n"));
        }
        fixture.ok("ipadm delete-addr hcih7/v4");
        fixture.sim.mutate(|host| host.faults.tentative_looks = 2).unwrap();
        fixture.ok("ipadm create-addr -t -T static -a 10.77.0.29/30 hcih7/v4");
        for state in ["tentative", "tentative", "ok", "ok"] {
            assert_eq!(fixture.ok("ipadm show-addr -p -o state hcih7/v4"), format!("{state}\n"));
        }
        fixture.ok("ipadm delete-addr hcih7/v4");
        fixture.ok("ipadm delete-if hcih7");
        assert_eq!(fixture.ok("ipadm show-if -p -o ifname"), "lo0\n");
    }
}
