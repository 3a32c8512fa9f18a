//! `zoneadm list`, with its oddities.

use crate::{
    faults::Listed,
    host::Host,
    out::{Out, Ran, options},
    state::ZoneState,
    zonecfg::{
        self,
        index::{self, Entry},
    },
};

/// The header and the rows of `-v`.
macro_rules! columns {
    ($id:expr, $name:expr, $state:expr, $path:expr, $brand:expr, $ip:expr) => {
        format!(
            "{:>4} {:<16} {:<11} {:<30} {:<8} {}\n",
            $id, $name, $state, $path, $brand, $ip
        )
    };
}

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

impl Row {
    fn global() -> Self {
        Self {
            id: "0".into(),
            name: "global".into(),
            state: "running".into(),
            path: "/".into(),
            uuid: String::new(),
            brand: "ipkg".into(),
            ip: "shared",
            debug: "0".into(),
        }
    }

    /// The row of a zone; `None` when its configuration is not read.
    fn of(host: &Host, entry: Entry, state: ZoneState) -> Option<Self> {
        let listed = host.faults.quirks(&entry.name).listed;
        let config = zonecfg::load(host, &entry.name)
            .ok()
            .flatten()
            .filter(|_| listed != Some(Listed::Skipped))?;
        let kernel = host.state.zones.get(&entry.name);
        Some(Self {
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
        })
    }

    /// The line of `-p`.
    fn parsable(&self, seven_fields: bool) -> String {
        let path = self.path.replace(':', "\\:");
        let last = if seven_fields {
            String::new()
        } else {
            format!(":{}", self.debug)
        };
        format!(
            "{}:{}:{}:{path}:{}:{}:{}{last}\n",
            self.id, self.name, self.state, self.uuid, self.brand, self.ip
        )
    }
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
        rows.push(Row::global());
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
        let name = entry.name.clone();
        match Row::of(host, entry, state) {
            Some(row) => rows.push(row),
            None => {
                out.stderr += &format!("zoneadm: {name}: could not get zone state: No such zone configured\n");
            }
        }
    }
    if let Some(name) = only.filter(|_| !known) {
        return Err(Out::error(format!("zoneadm: {name}: No such zone configured")));
    }
    if options.has('v') {
        out.stdout = columns!("ID", "NAME", "STATUS", "PATH", "BRAND", "IP");
    }
    for row in rows {
        out.stdout += &if options.has('p') {
            row.parsable(host.faults.seven_list_fields)
        } else if options.has('v') {
            columns!(row.id, row.name, row.state, row.path, row.brand, row.ip)
        } else {
            format!("{}\n", row.name)
        };
    }
    Ok(out)
}
