//! `zoneadm list`, with its oddities.

use crate::{
    faults::Listed,
    host::Host,
    out::{Out, Ran, options},
    state::ZoneState,
    zonecfg::{self, index},
};

struct Row {
    id: String,
    name: String,
    state: String,
    path: String,
    uuid: String,
    brand: String,
    ip: &'static str,
    debug: String,
}

pub(super) fn list(host: &Host, only: Option<&str>, args: &[String]) -> Ran {
    let usage = |text: &str| Out::usage(format!("zoneadm: list: {text}\nusage:\tlist [-cinpv]"));
    let options = options(args, "cinpvR:").map_err(|text| usage(&text))?;
    if !options.rest.is_empty() || options.has('p') && options.has('v') {
        return Err(usage("wrong arguments"));
    }
    let least = if options.has('c') || only.is_some() {
        ZoneState::Configured
    } else if options.has('i') {
        ZoneState::Installed
    } else {
        ZoneState::Running
    };
    let mut out = Out::silent();
    let mut rows = Vec::new();
    if !options.has('n') && only.is_none_or(|name| name == "global") {
        rows.push(Row {
            id: "0".into(),
            name: "global".into(),
            state: "running".into(),
            path: "/".into(),
            uuid: String::new(),
            brand: "ipkg".into(),
            ip: "shared",
            debug: "0".into(),
        });
    }
    let mut entries = index::read(host).map_err(super::broken)?;
    // Zones of the kernel come first, by their number.
    entries.sort_by_key(|entry| host.state.zones.get(&entry.name).map_or(u64::MAX, |zone| zone.id));
    let mut known = only == Some("global");
    for entry in entries {
        if only.is_some_and(|name| name != entry.name) {
            continue;
        }
        known = true;
        let kernel = host.state.zones.get(&entry.name);
        let state = kernel.map_or(entry.state, |zone| zone.state);
        if state < least {
            continue;
        }
        let listed = host.faults.quirks(&entry.name).listed;
        let config = zonecfg::load(host, &entry.name)
            .ok()
            .flatten()
            .filter(|_| listed != Some(Listed::Skipped));
        let Some(config) = config else {
            out.stderr += &format!(
                "zoneadm: {}: could not get zone state: No such zone configured\n",
                entry.name
            );
            continue;
        };
        rows.push(Row {
            id: kernel
                .filter(|_| listed != Some(Listed::WithoutId))
                .map_or("-".into(), |zone| zone.id.to_string()),
            state: match listed {
                Some(Listed::As(text)) => text,
                _ => state.as_str().into(),
            },
            debug: host
                .state
                .debug_ids
                .get(&entry.name)
                .map_or_else(String::new, u64::to_string),
            name: entry.name,
            path: entry.zonepath,
            uuid: entry.uuid,
            brand: config.brand,
            ip: if config.ip_type == "exclusive" {
                "excl"
            } else {
                "shared"
            },
        });
    }
    if let Some(name) = only.filter(|_| !known) {
        return Err(Out::error(format!("zoneadm: {name}: No such zone configured")));
    }
    if options.has('v') {
        out.stdout = format!(
            "{:>4} {:<16} {:<11} {:<30} {:<8} {}\n",
            "ID", "NAME", "STATUS", "PATH", "BRAND", "IP"
        );
    }
    for row in rows {
        out.stdout += &if options.has('p') {
            let path = row.path.replace(':', "\\:");
            let last = if host.faults.seven_list_fields {
                String::new()
            } else {
                format!(":{}", row.debug)
            };
            format!(
                "{}:{}:{}:{path}:{}:{}:{}{last}\n",
                row.id, row.name, row.state, row.uuid, row.brand, row.ip
            )
        } else if options.has('v') {
            format!(
                "{:>4} {:<16} {:<11} {:<30} {:<8} {}\n",
                row.id, row.name, row.state, row.path, row.brand, row.ip
            )
        } else {
            format!("{}\n", row.name)
        };
    }
    Ok(out)
}
