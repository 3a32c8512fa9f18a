//! Creating and deleting etherstubs and VNICs.

use super::{is_link_name, no, parse_mac, props, read};
use crate::{
    host::Host,
    out::{Out, Ran},
    state::{Link, LinkClass},
};

fn new_name(name: &str) -> Result<(), Out> {
    if name.len() >= 32 {
        return Err(no(format!("link name too long '{name}'")));
    }
    if is_link_name(name) {
        Ok(())
    } else {
        Err(no(format!("invalid link name '{name}'")))
    }
}

pub(super) fn create_etherstub(host: &mut Host, args: &[String]) -> Ran {
    let options = read(args, "tR:", 1, 1)?;
    let name = options.rest[0];
    new_name(name)?;
    if host.state.links.contains_key(name) {
        return Err(no("etherstub creation failed: object already exists"));
    }
    let link = Link {
        temporary: options.has('t'),
        ..Link::new(LinkClass::Etherstub, "")
    };
    host.state.links.insert(name.to_owned(), link);
    Ok(Out::silent())
}

pub(super) fn create_vnic(host: &mut Host, args: &[String]) -> Ran {
    let options = read(args, "tfR:l:m:n:r:v:p:H", 1, 1)?;
    let name = options.rest[0];
    let Some(over) = options.value('l') else {
        return Err(no("option '-l' is required"));
    };
    new_name(name)?;
    let failed = |reason: &str| no(format!("vnic creation over {over} failed: {reason}"));
    let Some(below) = host.state.links.get(over) else {
        return Err(no(format!("invalid link name '{over}'")));
    };
    if below.class == LinkClass::Vnic {
        return Err(failed("operation not supported"));
    }
    let temporary = options.has('t');
    if below.temporary && !temporary {
        return Err(failed("can't create persistent object on top of temporary object"));
    }
    if host.state.links.contains_key(name) {
        return Err(failed("object already exists"));
    }
    let vid = match options.value('v').map(str::parse::<u16>) {
        None => 0,
        Some(Ok(vid)) if (1..4095).contains(&vid) => vid,
        Some(_) => {
            return Err(no(format!(
                "invalid VLAN ID '{}'",
                options.value('v').unwrap_or_default()
            )));
        }
    };
    let mac = match options.value('m') {
        None | Some("auto" | "random") => {
            let number = host.state.take_number();
            format!(
                "02:08:20:{:02x}:{:02x}:{:02x}",
                (number >> 16) & 0xff,
                (number >> 8) & 0xff,
                number & 0xff
            )
        }
        Some(text) => parse_mac(text).ok_or_else(|| no(format!("invalid MAC address '{text}'")))?,
    };
    let twin = |link: &Link| link.over.as_deref() == Some(over) && link.mac == mac && link.vid == vid;
    if host.state.links.values().any(twin) {
        return Err(failed("MAC address reserved for use by underlying data-link"));
    }
    let link = Link {
        over: Some(over.to_owned()),
        vid,
        temporary,
        ..Link::new(LinkClass::Vnic, &mac)
    };
    host.state.links.insert(name.to_owned(), link);
    let mut given = options.values('p');
    given.retain(|pair| !(host.faults.create_vnic_ignores_mtu && pair.starts_with("mtu=")));
    let refused = match props::assign(host, name, &given, !temporary) {
        Ok(assigned) if assigned.said.is_empty() => return Ok(Out::silent()),
        Ok(assigned) => Out {
            stderr: assigned.said,
            code: 1,
            ..Out::default()
        },
        Err(out) => out,
    };
    host.state.links.remove(name);
    Err(refused)
}

fn delete(host: &mut Host, args: &[String], class: LinkClass, what: &str) -> Ran {
    let options = read(args, "tR:", 1, 1)?;
    let name = options.rest[0];
    let Some(link) = host.state.links.get(name) else {
        return Err(no(format!("invalid link name '{name}'")));
    };
    if link.class != class {
        let article = if class == LinkClass::Vnic { "a" } else { "an" };
        return Err(no(format!("'{name}' is not {article} {}", class.as_str())));
    }
    let carries = host
        .state
        .links
        .values()
        .any(|other| other.over.as_deref() == Some(name));
    if carries || link.zone.is_some() || host.state.interfaces.contains_key(name) {
        return Err(no(format!("{what} deletion failed: link busy")));
    }
    host.state.links.remove(name);
    Ok(Out::silent())
}

pub(super) fn delete_etherstub(host: &mut Host, args: &[String]) -> Ran {
    delete(host, args, LinkClass::Etherstub, "etherstub")
}

pub(super) fn delete_vnic(host: &mut Host, args: &[String]) -> Ran {
    delete(host, args, LinkClass::Vnic, "vnic")
}
