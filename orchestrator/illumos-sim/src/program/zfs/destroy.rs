//! `zfs destroy`, and everything that stands in its way.

use std::fmt::Write as _;

use super::{io, name, number, open, read, space, usage};
use crate::{
    files,
    host::Host,
    mount,
    out::{Out, Ran},
    state::Kind,
    volume,
};

fn refused(name: &str, reason: &str) -> Out {
    Out::error(format!("cannot destroy '{name}': {reason}"))
}

/// Everything below a dataset, deepest first.
fn below(host: &Host, top: &str) -> Vec<String> {
    let mut names: Vec<String> = host
        .state
        .datasets
        .keys()
        .filter(|n| name::is_below(n, top))
        .cloned()
        .collect();
    names.sort_by_key(|n| std::cmp::Reverse((n.matches('/').count(), n.contains('@'), n.clone())));
    names
}

/// Clones made of any of these snapshots, that are not themselves among these.
fn clones(host: &Host, of: &[String]) -> Vec<String> {
    host.state
        .datasets
        .iter()
        .filter(|(n, d)| d.origin.as_ref().is_some_and(|origin| of.contains(origin)) && !of.contains(n))
        .map(|(n, _)| n.clone())
        .collect()
}

/// Why a dataset cannot go now, as zfs words it.
fn held(host: &mut Host, name: &str) -> Option<Out> {
    let busy = || Some(refused(name, "dataset is busy"));
    let dataset = host.state.datasets.get(name)?;
    match dataset.kind {
        Kind::Snapshot if !dataset.holds.is_empty() => busy(),
        Kind::Snapshot => None,
        Kind::Volume => {
            if host
                .state
                .zones
                .values()
                .any(|zone| zone.guest && zone.volumes.iter().any(|v| v == name))
                || volume::open_elsewhere(&volume::node(host, name))
            {
                return busy();
            }
            let dataset = host.state.datasets.get_mut(name)?;
            if dataset.busy > 0 {
                dataset.busy -= 1;
                return Some(refused(name, "dataset is busy"));
            }
            None
        }
        Kind::Filesystem => {
            let place = mount::point(&host.state, name).filter(|_| dataset.mounted)?;
            let used = crate::zonecfg::index::read(host).ok()?.iter().any(|entry| {
                host.state.zones.contains_key(&entry.name)
                    && (entry.zonepath == place || entry.zonepath.starts_with(&format!("{place}/")))
            });
            used.then(|| Out::error(format!("cannot unmount '{place}': Device busy")))
        }
    }
}

/// Removes one dataset that nothing depends on.
fn remove(host: &mut Host, name: &str) -> Result<(), Out> {
    if let Some(out) = held(host, name) {
        return Err(out);
    }
    let Some(dataset) = host.state.datasets.get(name).cloned() else {
        return Ok(());
    };
    match dataset.kind {
        Kind::Filesystem => mount::discard(host, name),
        // Its nodes go when the model has it no more.
        Kind::Volume => Ok(()),
        Kind::Snapshot => files::remove(&volume::frozen(host, dataset.guid)),
    }
    .map_err(io("destroy", name))?;
    host.state.datasets.remove(name);
    if let Some(origin) = dataset.origin {
        settle(host, &origin)?;
    }
    Ok(())
}

/// Destroys a snapshot that only waited for its last hold or clone.
pub(super) fn settle(host: &mut Host, snapshot: &str) -> Result<(), Out> {
    let waits = host
        .state
        .datasets
        .get(snapshot)
        .is_some_and(|d| d.defer && d.holds.is_empty());
    if waits && clones(host, &[snapshot.to_owned()]).is_empty() {
        remove(host, snapshot)?;
    }
    Ok(())
}

/// `zfs destroy -r`, as uninstall does it.
///
/// # Errors
/// As `zfs destroy`.
pub fn recursively(host: &mut Host, name: &str) -> Ran {
    destroy(host, &["-r".to_owned(), name.to_owned()])
}

/// `zfs destroy`.
pub(super) fn destroy(host: &mut Host, args: &[String]) -> Ran {
    let options = read("destroy", args, "fnpRrvd", 1, 1)?;
    let name = options.rest[0];
    if name.contains('#') {
        return Err(refused(name, "bookmarks are not simulated"));
    }
    let all = options.has('R');
    let children = all || options.has('r');
    let mut doomed = if name.contains('@') {
        snapshots(host, name, children)?
    } else {
        if options.has('d') {
            return Err(usage("destroy", "-d may only be used for snapshots"));
        }
        open(host, name)?;
        if !name.contains('/') {
            return Err(Out::error(format!(
                "cannot destroy '{name}': operation does not apply to pools\nuse 'zfs destroy -r {name}' to destroy all datasets in the pool\nuse 'zpool destroy {name}' to destroy the pool itself"
            )));
        }
        let mut names = below(host, name);
        if !children && !names.is_empty() {
            names.reverse();
            return Err(depends(host, name, "children", "-r", &names));
        }
        names.push(name.to_owned());
        names
    };
    let mut others = clones(host, &doomed);
    if all {
        while !others.is_empty() {
            let mut more: Vec<String> = others.iter().flat_map(|clone| below(host, clone)).collect();
            more.extend(others);
            more.retain(|n| !doomed.contains(n));
            doomed.splice(0..0, more);
            others = clones(host, &doomed);
        }
    } else if !others.is_empty() && !options.has('d') {
        if name.contains('@') {
            return Err(Out::error(format!(
                "cannot destroy snapshot {name}: snapshot is cloned"
            )));
        }
        return Err(depends(host, name, "dependent clones", "-R", &others));
    }
    let mut said = String::new();
    if options.has('v') || options.has('n') {
        let freed: u64 = doomed.iter().map(|n| space::refer(host, n)).sum();
        let word = if options.has('n') { "would" } else { "will" };
        if options.has('v') && options.has('p') {
            doomed.iter().for_each(|n| _ = writeln!(said, "destroy\t{n}"));
            let _ = writeln!(said, "reclaim\t{freed}");
        } else if options.has('v') {
            doomed.iter().for_each(|n| _ = writeln!(said, "{word} destroy {n}"));
            let _ = writeln!(said, "{word} reclaim {}", number(freed, false));
        }
        if options.has('n') {
            return Ok(Out::text(said));
        }
    }
    for one in &doomed {
        let waits = options.has('d') && one.contains('@') && {
            let holds = host.state.datasets.get(one).is_some_and(|d| !d.holds.is_empty());
            holds || !clones(host, std::slice::from_ref(one)).is_empty()
        };
        match host.state.datasets.get_mut(one).filter(|_| waits) {
            Some(dataset) => dataset.defer = true,
            None => remove(host, one)?,
        }
    }
    Ok(Out::text(said))
}

/// The snapshots that `ds@a`, with `-r` below every child too, stands for.
fn snapshots(host: &Host, name: &str, children: bool) -> Result<Vec<String>, Out> {
    name::check(name).map_err(|reason| refused(name, &reason))?;
    let (dataset, snapshot) = name.split_once('@').unwrap_or((name, ""));
    open(host, dataset)?;
    let names: Vec<String> = host
        .state
        .datasets
        .keys()
        .filter(|n| {
            n.split_once('@')
                .is_some_and(|(d, s)| s == snapshot && (d == dataset || children && name::is_below(d, dataset)))
        })
        .cloned()
        .collect();
    if names.is_empty() {
        return Err(Out::error(
            "could not find any snapshots to destroy; check snapshot names.",
        ));
    }
    Ok(names)
}

fn depends(host: &Host, name: &str, what: &str, option: &str, names: &[String]) -> Out {
    let kind = host
        .state
        .datasets
        .get(name)
        .map_or("dataset", |dataset| dataset.kind.as_str());
    Out::error(format!(
        "cannot destroy '{name}': {kind} has {what}\nuse '{option}' to destroy the following datasets:\n{}",
        names.join("\n")
    ))
}
