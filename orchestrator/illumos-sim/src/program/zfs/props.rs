//! Properties: which there are, what they may be, where a value comes from; `zfs set` and `zfs inherit`.

use std::collections::BTreeSet;

use super::{io, name, number, open, parse_number, read, space, usage};
use crate::{
    host::Host,
    mount,
    out::{Out, Ran},
    state::Kind,
    volume,
};

/// What a native property takes.
#[derive(Clone, Copy)]
enum Takes {
    /// Only zfs sets it.
    Nothing,
    /// One of these words; the first is the default.
    Words(&'static [&'static str]),
    /// A number of bytes, or `none`; the default is 0.
    Bytes,
    /// Any text; the default.
    Text(&'static str),
}

struct Native {
    name: &'static str,
    takes: Takes,
    inherits: bool,
    kinds: &'static [Kind],
}

const ALL: &[Kind] = &[Kind::Filesystem, Kind::Volume, Kind::Snapshot];
const FS: &[Kind] = &[Kind::Filesystem];
const VOL: &[Kind] = &[Kind::Volume];
const DATA: &[Kind] = &[Kind::Filesystem, Kind::Volume];
const ON_OFF: Takes = Takes::Words(&["on", "off"]);
const OFF_ON: Takes = Takes::Words(&["off", "on"]);

macro_rules! natives {
    ($($name:literal $takes:expr, $inherits:literal, $kinds:expr;)*) => {
        &[$(Native { name: $name, takes: $takes, inherits: $inherits, kinds: $kinds },)*]
    };
}

const NATIVES: &[Native] = natives! {
    "type" Takes::Nothing, false, ALL;
    "creation" Takes::Nothing, false, ALL;
    "used" Takes::Nothing, false, ALL;
    "available" Takes::Nothing, false, DATA;
    "referenced" Takes::Nothing, false, ALL;
    "compressratio" Takes::Nothing, false, ALL;
    "mounted" Takes::Nothing, false, FS;
    "origin" Takes::Nothing, false, DATA;
    "quota" Takes::Bytes, false, FS;
    "reservation" Takes::Bytes, false, DATA;
    "volsize" Takes::Bytes, false, &[Kind::Volume, Kind::Snapshot];
    "volblocksize" Takes::Nothing, false, VOL;
    "recordsize" Takes::Text("131072"), true, FS;
    "mountpoint" Takes::Text(""), true, FS;
    "sharenfs" Takes::Text("off"), true, FS;
    "checksum" Takes::Words(&["on", "off", "fletcher2", "fletcher4", "sha256", "sha512", "skein", "edonr", "noparity"]), true, DATA;
    "compression" Takes::Words(&["off", "on", "lz4", "lzjb", "gzip", "gzip-1", "gzip-9", "zle"]), true, DATA;
    "atime" ON_OFF, true, FS;
    "devices" ON_OFF, true, FS;
    "exec" ON_OFF, true, FS;
    "setuid" ON_OFF, true, FS;
    "readonly" OFF_ON, true, DATA;
    "zoned" OFF_ON, true, FS;
    "snapdir" Takes::Words(&["hidden", "visible"]), true, FS;
    "aclinherit" Takes::Words(&["restricted", "discard", "noallow", "passthrough", "passthrough-x"]), true, FS;
    "canmount" Takes::Words(&["on", "off", "noauto"]), false, FS;
    "copies" Takes::Words(&["1", "2", "3"]), true, DATA;
    "sharesmb" Takes::Text("off"), true, FS;
    "refquota" Takes::Bytes, false, FS;
    "refreservation" Takes::Bytes, false, DATA;
    "guid" Takes::Nothing, false, ALL;
    "primarycache" Takes::Words(&["all", "none", "metadata"]), true, ALL;
    "secondarycache" Takes::Words(&["all", "none", "metadata"]), true, ALL;
    "logbias" Takes::Words(&["latency", "throughput"]), true, DATA;
    "dedup" Takes::Words(&["off", "on", "verify", "sha256"]), true, DATA;
    "sync" Takes::Words(&["standard", "always", "disabled"]), true, DATA;
    "userrefs" Takes::Nothing, false, &[Kind::Snapshot];
    "defer_destroy" Takes::Nothing, false, &[Kind::Snapshot];
};

fn native(name: &str) -> Option<&'static Native> {
    NATIVES.iter().find(|native| native.name == full(name))
}

/// Short names of columns.
fn full(name: &str) -> &str {
    match name {
        "avail" => "available",
        "refer" => "referenced",
        "ratio" => "compressratio",
        "volblock" => "volblocksize",
        "refreserv" => "refreservation",
        "reserv" => "reservation",
        "compress" => "compression",
        "rdonly" => "readonly",
        "recsize" => "recordsize",
        name => name,
    }
}

fn is_user(name: &str) -> bool {
    name.contains(':')
        && name.len() <= 255
        && !name.starts_with('-')
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b":_.-".contains(&b))
}

/// Whether there is such a property at all.
#[must_use]
pub fn exists(property: &str) -> bool {
    property == "name" || native(property).is_some() || is_user(property)
}

/// The native properties that a kind of dataset has, in their order.
pub fn natives(kind: Kind) -> impl Iterator<Item = &'static str> {
    NATIVES
        .iter()
        .filter(move |native| native.kinds.contains(&kind))
        .map(|native| native.name)
}

/// The users' properties that a dataset has, its own and inherited ones.
#[must_use]
pub fn users(host: &Host, name: &str) -> BTreeSet<String> {
    let chain = std::iter::successors(Some(name), |at| name::parent(at));
    let local = chain
        .filter_map(|at| host.state.datasets.get(at))
        .flat_map(|dataset| dataset.local.keys());
    local.filter(|key| key.contains(':')).cloned().collect()
}

/// Checks a value that someone wants to give; the error is the reason.
pub(super) fn check(property: &str, value: &str, kind: Kind) -> Result<(), String> {
    if is_user(property) {
        let fits = value.len() < 8192;
        return if fits {
            Ok(())
        } else {
            Err(format!("property value for '{property}' is too long"))
        };
    }
    let Some(native) = native(property) else {
        return Err(format!("invalid property '{property}'"));
    };
    let creates = native.name == "volblocksize" && kind == Kind::Volume;
    match native.takes {
        _ if !native.kinds.contains(&kind) => Err(format!("'{}' does not apply to datasets of this type", native.name)),
        Takes::Nothing if creates => Ok(()),
        Takes::Nothing => Err(format!("'{}' is readonly", native.name)),
        Takes::Words(words) if !words.contains(&value) => {
            Err(format!("'{}' must be one of '{}'", native.name, words.join(" | ")))
        }
        Takes::Bytes if value != "none" && parse_number(value).is_none() => Err(format!("bad numeric value '{value}'")),
        Takes::Text(_) if native.name == "mountpoint" => match value {
            "none" | "legacy" => Ok(()),
            path if path.starts_with('/') && !path.contains("//") => Ok(()),
            _ => Err("'mountpoint' must be an absolute path, 'none', or 'legacy'".into()),
        },
        _ => Ok(()),
    }
}

/// The value of a property and its source; none when the dataset has no such property.
#[must_use]
pub fn value(host: &Host, name: &str, property: &str, exact: bool) -> Option<(String, String)> {
    let dataset = host.state.datasets.get(name)?;
    let of_zfs = |text: String| Some((text, "-".to_owned()));
    let Some(native) = native(property) else {
        return if property == "name" {
            of_zfs(name.to_owned())
        } else {
            inherited(host, name, property)
        };
    };
    if !native.kinds.contains(&dataset.kind)
        || dataset.kind == Kind::Snapshot && native.name == "volsize" && dataset.volsize == 0
    {
        return None;
    }
    let bytes = |value: u64| number(value, exact);
    match native.name {
        "type" => of_zfs(dataset.kind.as_str().into()),
        "creation" if exact => of_zfs(dataset.creation.to_string()),
        "creation" => of_zfs(format!("@{}", dataset.creation)),
        "used" => of_zfs(bytes(space::used(host, name))),
        "available" => of_zfs(bytes(space::available(host, name))),
        "referenced" => of_zfs(bytes(space::refer(host, name))),
        "compressratio" => of_zfs(if exact { "1.00" } else { "1.00x" }.into()),
        "mounted" => of_zfs(if dataset.mounted { "yes" } else { "no" }.into()),
        "origin" => of_zfs(dataset.origin.clone().unwrap_or_else(|| "-".into())),
        "guid" => of_zfs(dataset.guid.to_string()),
        "userrefs" => of_zfs(dataset.holds.len().to_string()),
        "defer_destroy" => of_zfs(if dataset.defer { "on" } else { "off" }.into()),
        "volblocksize" => of_zfs(bytes(dataset.volblocksize)),
        "volsize" if dataset.kind == Kind::Snapshot => of_zfs(bytes(dataset.volsize)),
        "volsize" => Some((bytes(dataset.volsize), "local".into())),
        "mountpoint" => Some(mountpoint(host, name)),
        _ => {
            let found = if native.inherits {
                inherited(host, name, native.name)
            } else {
                dataset
                    .local
                    .get(native.name)
                    .map(|value| (value.clone(), "local".to_owned()))
            };
            Some(match (found, native.takes) {
                (Some((value, source)), Takes::Bytes) => match parse_number(&value) {
                    Some(0) | None => (if exact { "0" } else { "none" }.into(), source),
                    Some(value) => (bytes(value), source),
                },
                (Some(found), _) => found,
                (None, Takes::Words(words)) => (words[0].into(), "default".into()),
                (None, Takes::Text("131072")) => (bytes(131_072), "default".into()),
                (None, Takes::Text(text)) => (text.into(), "default".into()),
                (None, _) => (if exact { "0" } else { "none" }.into(), "default".into()),
            })
        }
    }
}

fn inherited(host: &Host, name: &str, property: &str) -> Option<(String, String)> {
    let mut at = name;
    loop {
        if let Some(value) = host.state.datasets.get(at)?.local.get(property) {
            let source = if at == name {
                "local".into()
            } else {
                format!("inherited from {at}")
            };
            return Some((value.clone(), source));
        }
        at = name::parent(at)?;
    }
}

fn mountpoint(host: &Host, name: &str) -> (String, String) {
    let source = match inherited(host, name, "mountpoint") {
        Some((value, source)) if source == "local" || !value.starts_with('/') => return (value, source),
        Some((_, source)) => source,
        None => "default".into(),
    };
    (mount::point(&host.state, name).unwrap_or_else(|| "none".into()), source)
}

/// `zfs set`.
pub(super) fn set(host: &mut Host, args: &[String]) -> Ran {
    let options = read("set", args, "", 2, usize::MAX)?;
    let pairs: Vec<(&str, &str)> = options.rest.iter().map_while(|word| word.split_once('=')).collect();
    let names = &options.rest[pairs.len()..];
    if pairs.is_empty() || names.is_empty() {
        let text = if pairs.is_empty() {
            "missing property=value argument(s)"
        } else {
            "missing dataset name(s)"
        };
        return Err(usage("set", text));
    }
    for name in names {
        let dataset = open(host, name)?.clone();
        let refused = |reason: String| Out::error(format!("cannot set property for '{name}': {reason}"));
        for (property, value) in &pairs {
            check(property, value, dataset.kind).map_err(refused)?;
            let property = full(property);
            match property {
                "volblocksize" => return Err(refused("'volblocksize' is readonly".into())),
                "volsize" if dataset.kind == Kind::Snapshot => {
                    return Err(refused("'volsize' does not apply to datasets of this type".into()));
                }
                "volsize" => {
                    let size = parse_number(value).filter(|size| *size > 0);
                    let size = size.ok_or_else(|| refused("volume size cannot be zero".into()))?;
                    if size % dataset.volblocksize != 0 {
                        return Err(refused("volume size must be a multiple of volume block size".into()));
                    }
                    volume::resize(host, name, size).map_err(io("set property for", name))?;
                    if let Some(dataset) = host.state.datasets.get_mut(*name) {
                        dataset.volsize = size;
                        if dataset.local.contains_key("refreservation") {
                            dataset.local.insert("refreservation".into(), size.to_string());
                        }
                    }
                }
                "mountpoint" | "canmount" => remount(host, name, property, Some(value))?,
                _ => {
                    if matches!(property, "reservation" | "refreservation")
                        && parse_number(value).unwrap_or(0) > space::available(host, name)
                    {
                        return Err(refused("size is greater than available space".into()));
                    }
                    put(host, name, property, Some(value));
                }
            }
        }
    }
    Ok(Out::silent())
}

fn put(host: &mut Host, name: &str, property: &str, value: Option<&str>) {
    if let Some(dataset) = host.state.datasets.get_mut(name) {
        match value {
            Some(value) => dataset.local.insert(property.to_owned(), value.to_owned()),
            None => dataset.local.remove(property),
        };
    }
}

/// Changes where or whether a file system is mounted: everything below moves with it.
fn remount(host: &mut Host, name: &str, property: &str, value: Option<&str>) -> Result<(), Out> {
    let mut names = mount::mounted(&host.state, name);
    let appears = property == "mountpoint" && mount::point(&host.state, name).is_none() || value == Some("on");
    if appears && !names.iter().any(|n| n == name) {
        names.insert(0, name.to_owned());
    }
    mount::unmount(host, name).map_err(io("unmount", name))?;
    put(host, name, property, value);
    mount::again(host, &names).map_err(io("mount", name))
}

/// `zfs inherit`.
pub(super) fn inherit(host: &mut Host, args: &[String]) -> Ran {
    let options = read("inherit", args, "rS", 2, usize::MAX)?;
    let property = full(options.rest[0]);
    if !exists(property) {
        return Err(usage("inherit", &format!("invalid property '{property}'")));
    }
    if native(property).is_some_and(|native| !native.inherits) {
        return Err(Out::error(format!("'{property}' property cannot be inherited")).code(2));
    }
    for name in &options.rest[1..] {
        open(host, name)?;
        let mut names = vec![(*name).to_owned()];
        if options.has('r') {
            names.extend(host.state.datasets.keys().filter(|n| name::is_below(n, name)).cloned());
        }
        for name in names {
            if property == "mountpoint" {
                remount(host, &name, property, None)?;
            } else {
                put(host, &name, property, None);
            }
        }
    }
    Ok(Out::silent())
}
