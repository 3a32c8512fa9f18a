//! Link properties: `set-linkprop` (which may succeed in part), `reset-linkprop`, `show-linkprop`.

use std::net::IpAddr;

use super::{no, read, show::print};
use crate::{
    host::Host,
    out::{Out, Ran},
    state::LinkClass,
    table::Row,
};

const PROTECTION: &[&str] = &["mac-nospoof", "restricted", "ip-nospoof", "dhcp-nospoof"];
const PRIORITY: &[&str] = &["low", "medium", "high"];
const KNOWN: &[&str] = &[
    "autopush",
    "zone",
    "mtu",
    "state",
    "maxbw",
    "cpus",
    "rxfanout",
    "pool",
    "priority",
    "tagmode",
    "protection",
    "promisc-filtered",
    "allowed-ips",
    "allowed-dhcp-cids",
    "rxrings",
    "txrings",
];

/// `-p a=1,2,b=3`: a word with `=` begins a property, any other is one more value.
fn parse(text: &str) -> Result<Vec<(String, Vec<String>)>, Out> {
    let mut props: Vec<(String, Vec<String>)> = Vec::new();
    for word in text.split(',') {
        match (word.split_once('='), props.last_mut()) {
            (Some((name, value)), _) if !name.is_empty() => props.push((name.into(), vec![value.into()])),
            (None, Some((_, values))) => values.push(word.into()),
            _ => return Err(no("invalid link properties specified")),
        }
    }
    Ok(props)
}

/// Why a value was not taken.
enum Bad {
    Value(String),
    Other(&'static str),
}

/// Checks the values of a property and brings them into the form they read back in.
fn values(host: &Host, link: &str, property: &str, given: &[String]) -> Result<Vec<String>, Bad> {
    let one_of = |words: &[&str]| match given.iter().find(|value| !words.contains(&value.as_str())) {
        Some(_) => Err(Bad::Value(words.join(","))),
        None => Ok(given.to_vec()),
    };
    let entry = host.state.links.get(link);
    match property {
        "state" | "rxrings" | "txrings" => Err(Bad::Other("read-only property")),
        "protection" => one_of(PROTECTION),
        "priority" => one_of(PRIORITY),
        "promisc-filtered" => one_of(&["on", "off"]),
        "mtu" => {
            let most = entry
                .and_then(|entry| entry.over.as_deref())
                .map_or(9000, |over| host.mtu(over));
            let fits = |mtu: &u32| (576..=most).contains(mtu);
            match given {
                [one] if one.parse().is_ok_and(|mtu| fits(&mtu)) => {}
                _ => return Err(Bad::Value(format!("576-{most}"))),
            }
            let busy = entry.is_some_and(|entry| entry.zone.is_some()) || host.state.interfaces.contains_key(link);
            if busy {
                Err(Bad::Other("link busy"))
            } else {
                Ok(given.to_vec())
            }
        }
        "maxbw" => match given {
            [one] => bandwidth(one).map(|text| vec![text]).map_err(Bad::Other),
            _ => Err(Bad::Other("invalid number of values")),
        },
        "allowed-ips" => {
            if given.len() > 32 {
                return Err(Bad::Other("invalid value"));
            }
            given
                .iter()
                .map(|text| network(text).ok_or(Bad::Other("invalid IP address")))
                .collect()
        }
        _ => Ok(given.to_vec()),
    }
}

/// A bandwidth in megabits, from a number with K, M (the default) or G. Less than one large packet a clock tick cannot
/// be kept to.
fn bandwidth(text: &str) -> Result<String, &'static str> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor = match &text[digits.len()..] {
        "k" | "K" => 1,
        "" | "m" | "M" => 1000,
        "g" | "G" => 1_000_000,
        "%" => return Err("operation not supported"),
        unit if unit.chars().count() > 1 => return Err("invalid argument"),
        _ => return Err("invalid value"),
    };
    let number: u64 = digits.parse().map_err(|_| "invalid argument")?;
    let kilo = number.checked_mul(factor).ok_or("invalid argument")?;
    if (1..1200).contains(&kilo) {
        return Err("minimum value for maxbw is 1200K");
    }
    Ok(match kilo % 1000 {
        0 => (kilo / 1000).to_string(),
        rest => format!("{}.{rest:03}", kilo / 1000),
    })
}

/// An address, or a network without host bits; a single address reads back with its full prefix.
fn network(text: &str) -> Option<String> {
    let (addr, prefix) = match text.split_once('/') {
        Some((addr, prefix)) => (addr.parse::<IpAddr>().ok()?, Some(prefix.parse::<u32>().ok()?)),
        None => (text.parse::<IpAddr>().ok()?, None),
    };
    let (bits, value) = match addr {
        IpAddr::V4(v4) => (32, u128::from(u32::from(v4))),
        IpAddr::V6(v6) => (128, u128::from(v6)),
    };
    let prefix = prefix.unwrap_or(bits);
    let host = 1u128
        .checked_shl(bits.checked_sub(prefix)?)
        .unwrap_or(0)
        .wrapping_sub(1);
    (prefix > 0 && value & host == 0).then(|| format!("{addr}/{prefix}"))
}

/// What came of several properties.
#[derive(Debug, Default)]
pub(super) struct Assigned {
    /// A warning for each that was refused.
    pub said: String,
    /// Whether the last one was refused.
    pub last_failed: bool,
}

/// Sets properties one after the other, and goes on after one that is refused.
pub(super) fn assign(host: &mut Host, link: &str, given: &[&str], store: bool) -> Result<Assigned, Out> {
    // All options are one list.
    let props = if given.is_empty() {
        Vec::new()
    } else {
        parse(&given.join(","))?
    };
    let mut assigned = Assigned::default();
    for (property, list) in props {
        let warning = if KNOWN.contains(&property.as_str()) {
            match values(host, link, &property, &list) {
                Ok(values) => {
                    if let Some(entry) = host.state.links.get_mut(link) {
                        if store {
                            entry.stored.insert(property.clone(), values.clone());
                        }
                        entry.props.insert(property, values);
                    }
                    None
                }
                Err(Bad::Value(words)) => Some(format!("link property '{property}' must be one of: {words}")),
                Err(Bad::Other(reason)) => Some(format!("cannot set link property '{property}' on '{link}': {reason}")),
            }
        } else {
            Some(format!("invalid link property '{property}'"))
        };
        assigned.last_failed = warning.is_some();
        assigned
            .said
            .extend(warning.map(|warning| format!("dladm: warning: {warning}\n")));
    }
    Ok(assigned)
}

/// A bandwidth as it is printed, even for programs: its megabits have a width.
fn padded(megabits: &str) -> String {
    let whole = megabits.split('.').next().unwrap_or_default();
    format!("{}{megabits}", " ".repeat(5usize.saturating_sub(whole.len())))
}

fn missing(name: &str) -> Out {
    no(format!("link {name} is not valid: object not found"))
}

pub(super) fn set(host: &mut Host, args: &[String]) -> Ran {
    let options = read(args, "tR:p:", 1, 1)?;
    let name = options.rest[0];
    if options.values('p').is_empty() {
        return Err(no("link property must be specified"));
    }
    let Some(link) = host.state.links.get(name) else {
        return Err(missing(name));
    };
    let store = !options.has('t') && !link.temporary;
    let assigned = assign(host, name, &options.values('p'), store)?;
    // What became of the others is in its words alone.
    Ok(Out {
        code: i32::from(assigned.last_failed),
        stderr: assigned.said,
        ..Out::default()
    })
}

pub(super) fn reset(host: &mut Host, args: &[String]) -> Ran {
    let options = read(args, "tR:p:", 1, 1)?;
    let name = options.rest[0];
    let names: Vec<&str> = options.values('p').iter().flat_map(|list| list.split(',')).collect();
    if let Some(bad) = names.iter().find(|name| !KNOWN.contains(name)) {
        return Err(no(format!("warning: invalid link property '{bad}'")));
    }
    let Some(link) = host.state.links.get_mut(name) else {
        return Err(missing(name));
    };
    let doomed = |property: &String| names.is_empty() || names.contains(&property.as_str());
    link.props.retain(|property, _| !doomed(property));
    if !options.has('t') {
        link.stored.retain(|property, _| !doomed(property));
    }
    Ok(Out::silent())
}

pub(super) fn show(host: &Host, args: &[String]) -> Ran {
    let options = read(args, "cPo:p:", 0, 1)?;
    let columns = ["link", "property", "perm", "value", "default", "possible"];
    let asked: Vec<&str> = options.values('p').iter().flat_map(|list| list.split(',')).collect();
    if let Some(bad) = asked.iter().find(|name| !KNOWN.contains(name)) {
        return Err(no(format!("warning: invalid link property '{bad}'")));
    }
    let links: Vec<&String> = match options.rest.first() {
        Some(name) => vec![host.state.links.get_key_value(*name).ok_or_else(|| missing(name))?.0],
        None => host.state.links.keys().collect(),
    };
    let mut rows: Vec<Row> = Vec::new();
    for name in links {
        let Some(link) = host.state.links.get(name) else {
            continue;
        };
        for property in if asked.is_empty() { KNOWN } else { &asked } {
            let set = if options.has('P') {
                link.stored.get(*property)
            } else {
                link.props.get(*property)
            };
            let below = link.over.as_deref().map_or(9000, |over| host.mtu(over));
            let (default, possible) = match *property {
                "mtu" if link.class == LinkClass::Phys => ("1500".to_owned(), "1500-9000".to_owned()),
                "mtu" => (below.to_string(), format!("576-{below}")),
                "priority" => ("medium".into(), PRIORITY.join(",")),
                "protection" => ("--".into(), PROTECTION.join(",")),
                "state" => ("up".into(), "up,down".into()),
                _ => ("--".into(), "--".into()),
            };
            let value = match (set, *property) {
                (Some(values), "maxbw") if !values.is_empty() => padded(&values.join(",")),
                (Some(values), _) if !values.is_empty() => values.join(","),
                (_, "mtu") => host.mtu(name).to_string(),
                (_, "state") => "up".into(),
                (_, "priority") => "medium".into(),
                (_, "zone") => link.zone.clone().unwrap_or_else(|| "--".into()),
                _ => "--".into(),
            };
            let value = match value.as_str() {
                "--" if options.has('c') && host.faults.unset_linkprop_is_empty => String::new(),
                _ => value,
            };
            rows.push(vec![
                ("link", name.clone()),
                ("property", (*property).to_owned()),
                (
                    "perm",
                    if matches!(*property, "state" | "rxrings" | "txrings") {
                        "r-"
                    } else {
                        "rw"
                    }
                    .into(),
                ),
                ("value", value),
                ("default", default),
                ("possible", possible),
            ]);
        }
    }
    print(&options, options.has('c'), &columns, &rows)
}
