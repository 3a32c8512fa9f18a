//! `zfs rename`, `mount`, `unmount`.

use std::io::ErrorKind;

use super::{io, name, open, read, usage};
use crate::{
    host::Host,
    mount as mounts,
    out::{Out, Ran},
    state::Kind,
    volume,
};

/// `zfs rename`.
pub(super) fn rename(host: &mut Host, args: &[String]) -> Ran {
    let options = read("rename", args, "fp", 2, 2)?;
    let (from, to) = (options.rest[0], options.rest[1]);
    let kind = open(host, from)?.kind;
    let full;
    let to = match from.split_once('@') {
        Some((dataset, _)) if !to.contains('@') => {
            full = format!("{dataset}@{to}");
            &full
        }
        _ => to,
    };
    let create = |reason: &str| Out::error(format!("cannot create '{to}': {reason}"));
    let refused = |reason: &str| Out::error(format!("cannot rename '{from}': {reason}"));
    name::check(to).map_err(|reason| create(&reason))?;
    if from.split('/').next() != to.split('/').next() {
        return Err(refused("datasets must be within same pool"));
    }
    if from.contains('@') != to.contains('@') || from.contains('@') && name::parent(from) != name::parent(to) {
        return Err(refused("snapshots must be part of same dataset"));
    }
    if host.state.datasets.contains_key(to) {
        return Err(refused("dataset already exists"));
    }
    let parent = name::parent(to).unwrap_or_default();
    match host.state.datasets.get(parent).map(|dataset| dataset.kind) {
        _ if kind == Kind::Snapshot => {}
        None => return Err(create(&format!("no such parent '{parent}'"))),
        Some(Kind::Filesystem) => {}
        Some(_) => return Err(create(&format!("parent '{parent}' is not a filesystem"))),
    }
    if name::is_below(to, from) {
        return Err(refused(
            "New dataset name cannot be a descendant of current dataset name",
        ));
    }
    let mounted: Vec<String> = mounts::mounted(&host.state, from)
        .iter()
        .map(|old| format!("{to}{}", &old[from.len()..]))
        .collect();
    if kind == Kind::Filesystem {
        mounts::unmount(host, from).map_err(io("unmount", from))?;
    }
    let moved: Vec<String> = host
        .state
        .datasets
        .keys()
        .filter(|n| *n == from || name::is_below(n, from))
        .cloned()
        .collect();
    for old in &moved {
        let new = format!("{to}{}", &old[from.len()..]);
        let Some(dataset) = host.state.datasets.remove(old) else {
            continue;
        };
        if dataset.kind == Kind::Volume {
            volume::rename(host, old, &new).map_err(io("rename", old))?;
        }
        for other in host
            .state
            .datasets
            .values_mut()
            .filter(|other| other.origin.as_ref() == Some(old))
        {
            other.origin = Some(new.clone());
        }
        host.state.datasets.insert(new, dataset);
    }
    if kind == Kind::Filesystem {
        mounts::again(host, &mounted).map_err(io("mount", to))?;
    }
    Ok(Out::silent())
}

/// `zfs mount`.
pub(super) fn mount(host: &mut Host, args: &[String]) -> Ran {
    let options = read("mount", args, "aOvo:", 0, 1)?;
    if options.has('a') {
        return mounts::all(host).map(|()| Out::silent()).map_err(io("mount", "all"));
    }
    let Some(name) = options.rest.first() else {
        let mounted = host.state.datasets.iter().filter(|(_, dataset)| dataset.mounted);
        let line = |name: &String| format!("{name:<30}  {}\n", mounts::point(&host.state, name).unwrap_or_default());
        return Ok(Out::text(mounted.map(|(name, _)| line(name)).collect::<String>()));
    };
    let refused = |reason: &str| Out::error(format!("cannot mount '{name}': {reason}"));
    let dataset = open(host, name)?;
    if dataset.kind != Kind::Filesystem {
        return Err(Out::error(format!(
            "cannot open '{name}': operation not applicable to datasets of this type"
        )));
    }
    if dataset.mounted {
        return Err(refused("filesystem already mounted"));
    }
    if dataset.local.get("canmount").is_some_and(|value| value == "off") {
        return Err(refused("'canmount' property is set to 'off'"));
    }
    let Some(place) = mounts::point(&host.state, name) else {
        return Err(refused("no mountpoint set"));
    };
    match mounts::mount(host, name) {
        Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
            Err(Out::error(format!("cannot mount '{place}': directory is not empty")))
        }
        other => other.map(|()| Out::silent()).map_err(io("mount", name)),
    }
}

/// `zfs unmount`.
pub(super) fn unmount(host: &mut Host, args: &[String]) -> Ran {
    let options = read("unmount", args, "f", 1, 1)?;
    if args.iter().any(|word| word == "-a") {
        return Err(usage("unmount", "invalid option 'a'"));
    }
    let name = match options.rest[0] {
        path if path.starts_with('/') => mounts::dataset_at(&host.state, path)
            .ok_or_else(|| Out::error(format!("cannot unmount '{path}': not a mountpoint")))?,
        name => name.to_owned(),
    };
    if !open(host, &name)?.mounted {
        return Err(Out::error(format!("cannot unmount '{name}': not currently mounted")));
    }
    mounts::unmount(host, &name)
        .map(|()| Out::silent())
        .map_err(io("unmount", &name))
}
