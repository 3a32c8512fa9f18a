//! `zfs snapshot`, `hold`, `release`, `holds`.

use super::{destroy, io, name, open, read};
use crate::{
    host::Host,
    mount,
    out::{Options, Out, Ran},
    state::{Dataset, Kind, now},
    volume,
};

/// `zfs snapshot`.
pub(super) fn snapshot(host: &mut Host, args: &[String]) -> Ran {
    let options = read("snapshot", args, "ro:", 1, usize::MAX)?;
    let mut local = std::collections::BTreeMap::new();
    for pair in options.values('o') {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| super::usage("snapshot", "missing '=' for -o option"))?;
        if !key.contains(':') {
            return Err(Out::error(format!("cannot create snapshot: '{key}' cannot be set on a snapshot")).code(2));
        }
        local.insert(key.to_owned(), value.to_owned());
    }
    let mut names = Vec::new();
    for full in &options.rest {
        let refused = |reason: String| Out::error(format!("cannot create snapshot '{full}': {reason}"));
        let Some((dataset, tail)) = full.split_once('@') else {
            return Err(refused("missing '@' delimiter in snapshot name".into()));
        };
        name::check(full).map_err(refused)?;
        open(host, dataset)?;
        names.push((dataset.to_owned(), (*full).to_owned()));
        if options.has('r') {
            let below = host
                .state
                .datasets
                .keys()
                .filter(|n| !n.contains('@') && name::is_below(n, dataset));
            names.extend(below.map(|n| (n.clone(), format!("{n}@{tail}"))));
        }
    }
    if let Some((_, full)) = names.iter().find(|(_, full)| host.state.datasets.contains_key(full)) {
        return Err(Out::error(format!(
            "cannot create snapshot '{full}': dataset already exists"
        )));
    }
    for (dataset, full) in names {
        let guid = host.state.take_number();
        let Some(of) = host.state.datasets.get(&dataset).cloned() else {
            continue;
        };
        match (of.kind, mount::point(&host.state, &dataset)) {
            (Kind::Volume, _) => volume::freeze(host, &dataset, guid),
            (_, Some(place)) if of.mounted => mount::copy_tree(&host.path(&place), &volume::frozen(host, guid)),
            _ => std::fs::create_dir_all(volume::frozen(host, guid)),
        }
        .map_err(io("create snapshot", &full))?;
        let made = Dataset {
            local: local.clone(),
            volsize: of.volsize,
            volblocksize: of.volblocksize,
            ..Dataset::new(Kind::Snapshot, guid)
        };
        host.state.datasets.insert(full, made);
    }
    Ok(Out::silent())
}

/// The snapshots that a hold or release is about.
fn targets(host: &Host, options: &Options, words: &[&str], verb: &str) -> Result<Vec<String>, Out> {
    let mut names = Vec::new();
    for full in words {
        let Some((dataset, tail)) = full.split_once('@') else {
            return Err(Out::error(format!("'{full}' is not a snapshot")));
        };
        let same = |n: &&String| {
            n.split_once('@')
                .is_some_and(|(d, t)| t == tail && name::is_below(d, dataset))
        };
        if host.state.datasets.contains_key(*full) {
            names.push((*full).to_owned());
        } else if !options.has('r') {
            return Err(Out::error(format!("cannot {verb} '{full}': dataset does not exist")));
        }
        if options.has('r') {
            names.extend(host.state.datasets.keys().filter(same).cloned());
        }
    }
    Ok(names)
}

/// `zfs hold`.
pub(super) fn hold(host: &mut Host, args: &[String]) -> Ran {
    let options = read("hold", args, "r", 2, usize::MAX)?;
    let tag = options.rest[0];
    if tag.len() > 255 {
        return Err(Out::error(format!(
            "cannot hold snapshot '{}': tag too long",
            options.rest[1]
        )));
    }
    if tag.starts_with('.') {
        return Err(Out::error("tag may not start with '.'"));
    }
    let names = targets(host, &options, &options.rest[1..], "hold snapshot")?;
    if let Some(name) = names
        .iter()
        .find(|n| host.state.datasets.get(*n).is_some_and(|d| d.holds.contains_key(tag)))
    {
        return Err(Out::error(format!(
            "cannot hold snapshot '{name}': tag already exists on this dataset"
        )));
    }
    for name in names {
        if let Some(dataset) = host.state.datasets.get_mut(&name) {
            dataset.holds.insert(tag.to_owned(), now());
        }
    }
    Ok(Out::silent())
}

/// `zfs release`.
pub(super) fn release(host: &mut Host, args: &[String]) -> Ran {
    let options = read("release", args, "r", 2, usize::MAX)?;
    let tag = options.rest[0];
    let names = targets(host, &options, &options.rest[1..], "release hold from snapshot")?;
    if let Some(name) = names
        .iter()
        .find(|n| host.state.datasets.get(*n).is_some_and(|d| !d.holds.contains_key(tag)))
    {
        return Err(Out::error(format!(
            "cannot release hold from snapshot '{name}': no such tag on this dataset"
        )));
    }
    for name in names {
        if let Some(dataset) = host.state.datasets.get_mut(&name) {
            dataset.holds.remove(tag);
        }
        destroy::settle(host, &name)?;
    }
    Ok(Out::silent())
}

/// `zfs holds`.
pub(super) fn holds(host: &Host, args: &[String]) -> Ran {
    let options = read("holds", args, "rH", 1, usize::MAX)?;
    let names = targets(host, &options, &options.rest, "open")?;
    let mut text = String::new();
    for name in &names {
        let Some(dataset) = host.state.datasets.get(name) else {
            continue;
        };
        for (tag, at) in &dataset.holds {
            if options.has('H') {
                text += &format!("{name}\t{tag}\t@{at}\n");
            } else {
                text += &format!("{name}  {tag}  @{at}\n");
            }
        }
    }
    if !options.has('H') && !text.is_empty() {
        text.insert_str(0, "NAME  TAG  TIMESTAMP\n");
    }
    Ok(Out::text(text))
}
