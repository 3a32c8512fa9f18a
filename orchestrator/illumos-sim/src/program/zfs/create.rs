//! `zfs create` and `zfs clone`.

use std::{collections::BTreeMap, io::ErrorKind};

use super::{io, name, parse_number, props, read, space, usage};
use crate::{
    files,
    host::Host,
    mount,
    out::{Options, Out, Ran},
    state::{Dataset, Kind},
    volume,
};

const BLOCK: u64 = 8 << 10;

fn refused(name: &str, reason: impl std::fmt::Display) -> Out {
    Out::error(format!("cannot create '{name}': {reason}"))
}

/// `-o property=value`, checked for this kind of dataset.
fn given(options: &Options, verb: &str, name: &str, kind: Kind) -> Result<BTreeMap<String, String>, Out> {
    let mut set = BTreeMap::new();
    for pair in options.values('o') {
        let (key, value) = pair
            .split_once('=')
            .ok_or_else(|| usage(verb, "missing '=' for -o option"))?;
        if set.contains_key(key) {
            return Err(Out::error(format!("property '{key}' specified multiple times")).code(2));
        }
        props::check(key, value, kind).map_err(|reason| refused(name, reason))?;
        set.insert(key.to_owned(), value.to_owned());
    }
    Ok(set)
}

/// Checks that a dataset of this name can be made; with `parents` makes what lies above.
fn place(host: &mut Host, name: &str, parents: bool) -> Result<(), Out> {
    name::check(name).map_err(|reason| refused(name, reason))?;
    if name.contains('@') {
        return Err(refused(name, "invalid character '@' in name"));
    }
    let pool = name.split('/').next().unwrap_or_default();
    let Some(parent) = name::parent(name) else {
        let exists = host.state.pools.contains_key(pool);
        let reason = if exists {
            "dataset already exists"
        } else {
            "missing dataset name"
        };
        return Err(refused(name, reason));
    };
    if !host.state.pools.contains_key(pool) {
        return Err(refused(name, format_args!("no such pool '{pool}'")));
    }
    if host.state.datasets.contains_key(name) {
        return Err(refused(name, "dataset already exists"));
    }
    match host.state.datasets.get(parent).map(|dataset| dataset.kind) {
        None if parents => {
            place(host, parent, true)?;
            insert(host, parent, Kind::Filesystem, BTreeMap::new()).map(|_| ())
        }
        None => Err(refused(name, format_args!("no such parent '{parent}'"))),
        Some(Kind::Filesystem) => Ok(()),
        Some(_) => Err(refused(name, format_args!("parent '{parent}' is not a filesystem"))),
    }
}

/// Adds a dataset, and mounts a file system.
fn insert(host: &mut Host, name: &str, kind: Kind, local: BTreeMap<String, String>) -> Ran {
    let guid = host.state.take_number();
    let wanted = kind == Kind::Filesystem && local.get("canmount").is_none_or(|value| value == "on");
    host.state.datasets.insert(
        name.to_owned(),
        Dataset {
            local,
            ..Dataset::new(kind, guid)
        },
    );
    if wanted && let Some(place) = mount::point(&host.state, name) {
        match mount::mount(host, name) {
            Err(error) if error.kind() == ErrorKind::DirectoryNotEmpty => {
                return Err(Out::error(format!(
                    "cannot mount '{place}': directory is not empty\nfilesystem successfully created, but not mounted"
                )));
            }
            other => other.map_err(io("mount", name))?,
        }
    }
    Ok(Out::silent())
}

/// Makes a file system for zoneadm, with these properties.
///
/// # Errors
/// As `zfs create`.
pub fn filesystem(host: &mut Host, name: &str, local: &[(&str, &str)]) -> Ran {
    place(host, name, false)?;
    let local = local.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    insert(host, name, Kind::Filesystem, local)
}

/// `zfs create`.
pub(super) fn create(host: &mut Host, args: &[String]) -> Ran {
    let options = read("create", args, "pV:sb:o:", 1, 1)?;
    let name = options.rest[0];
    let Some(size) = options.value('V') else {
        if options.has('s') || options.has('b') {
            return Err(usage("create", "'-s' and '-b' can only be used when creating a volume"));
        }
        let local = given(&options, "create", name, Kind::Filesystem)?;
        if options.has('p') && host.state.datasets.contains_key(name) {
            return Ok(Out::silent());
        }
        place(host, name, options.has('p'))?;
        return insert(host, name, Kind::Filesystem, local);
    };
    let size = parse_number(size)
        .filter(|size| *size > 0)
        .ok_or_else(|| Out::error(format!("bad volume size '{size}': not a valid number")).code(2))?;
    let mut local = given(&options, "create", name, Kind::Volume)?;
    let block = match options
        .value('b')
        .map(str::to_owned)
        .or_else(|| local.remove("volblocksize"))
    {
        None => BLOCK,
        Some(text) => parse_number(&text)
            .filter(|block| block.is_power_of_two() && (512..=128 << 10).contains(block))
            .ok_or_else(|| refused(name, "'volblocksize' must be power of 2 from 512B to 128KB"))?,
    };
    if size % block != 0 {
        return Err(refused(name, "volume size must be a multiple of volume block size"));
    }
    if options.has('p') && host.state.datasets.contains_key(name) {
        return Ok(Out::silent());
    }
    place(host, name, options.has('p'))?;
    if !options.has('s') {
        local.entry("refreservation".into()).or_insert_with(|| size.to_string());
    }
    let wanted = local
        .get("refreservation")
        .and_then(|value| parse_number(value))
        .unwrap_or(0);
    if wanted > space::available(host, name) {
        return Err(refused(name, "out of space"));
    }
    volume::create(host, name, size).map_err(io("create", name))?;
    insert(host, name, Kind::Volume, local)?;
    if let Some(dataset) = host.state.datasets.get_mut(name) {
        dataset.volsize = size;
        dataset.volblocksize = block;
    }
    Ok(Out::silent())
}

/// `zfs clone`.
pub(super) fn clone(host: &mut Host, args: &[String]) -> Ran {
    let options = read("clone", args, "po:", 2, 2)?;
    let (from, name) = (options.rest[0], options.rest[1]);
    if !from.contains('@') {
        return Err(Out::error(format!(
            "cannot open '{from}': operation not applicable to datasets of this type"
        )));
    }
    let source = super::open(host, from)?.clone();
    let kind = if source.volsize > 0 {
        Kind::Volume
    } else {
        Kind::Filesystem
    };
    let local = given(&options, "clone", name, kind)?;
    if options.has('p') && host.state.datasets.contains_key(name) {
        return Ok(Out::silent());
    }
    if from.split('/').next() != name.split('/').next() {
        name::check(name).map_err(|reason| refused(name, reason))?;
        return Err(refused(name, "source and target pools differ"));
    }
    place(host, name, options.has('p'))?;
    if space::available(host, name) == 0 {
        return Err(refused(name, "out of space"));
    }
    if kind == Kind::Volume {
        volume::thaw(host, source.guid, name).map_err(io("create", name))?;
    }
    let made = insert(host, name, kind, local)?;
    if kind == Kind::Filesystem
        && let Some(place) = mount::point(&host.state, name)
    {
        let (frozen, dir) = (volume::frozen(host, source.guid), host.path(&place));
        files::remove(&dir)
            .and_then(|()| mount::copy_tree(&frozen, &dir))
            .map_err(io("create", name))?;
    }
    if let Some(dataset) = host.state.datasets.get_mut(name) {
        dataset.origin = Some(from.to_owned());
        dataset.volsize = source.volsize;
        dataset.volblocksize = source.volblocksize;
    }
    Ok(made)
}
