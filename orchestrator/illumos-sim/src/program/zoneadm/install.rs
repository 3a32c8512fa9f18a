//! `install`, `uninstall`, `mark`, and the checks of the zonepath.

use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
};

use super::{Zone, broken, no, nothing, store};
use crate::{
    files,
    host::Host,
    mount,
    out::{Out, Ran, options},
    program::zfs,
    state::ZoneState,
    zonecfg::index,
};

/// The checks of install, boot and verify.
pub(super) fn verify(host: &Host, zone: &Zone) -> Result<(), Out> {
    let name = &zone.config.name;
    let failed = |text: String| Out::error(format!("{text}\nzoneadm: zone {name} failed to verify"));
    let path = &zone.config.zonepath;
    if zone.config.brand != "bhyve" {
        return Err(failed(format!("brand {} is not simulated", zone.config.brand)));
    }
    for other in index::read(host).map_err(broken)? {
        let inside = |a: &str, b: &str| a.starts_with(&format!("{b}/")) || a == b;
        if other.name != *name
            && other.state >= ZoneState::Incomplete
            && (inside(path, &other.zonepath) || inside(&other.zonepath, path))
        {
            return Err(failed(format!(
                "{name} zonepath ({path}) and {} zonepath ({}) overlap.",
                other.name, other.zonepath
            )));
        }
    }
    let mut here = host.root();
    for part in path.trim_start_matches('/').split('/') {
        here.push(part);
        if fs::symlink_metadata(&here).is_ok_and(|meta| meta.is_symlink()) || matches!(part, "." | ".." | "") {
            return Err(failed(format!("{path}: Resolved path mismatch")));
        }
    }
    if let Some(meta) = here.parent().and_then(|parent| fs::metadata(parent).ok())
        && meta.mode() & 0o022 != 0
    {
        let parent = Path::new(path).parent().unwrap_or(Path::new("/")).display();
        return Err(failed(format!(
            "{parent} must not be group writable or world writable."
        )));
    }
    Ok(())
}

/// The dataset that is, or becomes, the zonepath. True when it had to be made.
fn dataset(host: &mut Host, zone: &Zone) -> Result<bool, Out> {
    let path = &zone.config.zonepath;
    if mount::dataset_at(&host.state, path).is_some() {
        return Ok(false);
    }
    let (parent, base) = path.rsplit_once('/').unwrap_or(("", path));
    let parent = if parent.is_empty() { "/" } else { parent };
    let Some(above) = mount::dataset_at(&host.state, parent) else {
        return Err(Out::error(format!(
            "Could not find parent dataset for {path}\nMake sure that {parent} is a ZFS dataset"
        )));
    };
    zfs::filesystem(
        host,
        &format!("{above}/{base}"),
        &[("sharenfs", "off"), ("sharesmb", "off")],
    )?;
    Ok(true)
}

/// The small root that the brand makes.
fn small_root(host: &Host, path: &str, uuid: &str) -> std::io::Result<()> {
    let zonepath = host.path(path);
    for dir in ["dev", "etc", "usr", "sbin", "lib", "var/run", "var/tmp", "tmp"] {
        fs::create_dir_all(zonepath.join("root").join(dir))?;
    }
    files::replace(&zonepath.join("root/etc/uuid"), format!("{uuid}\n").as_bytes())?;
    files::replace(&zonepath.join("root/etc/passwd"), b"root:x:0:0:::\n")?;
    files::replace(&zonepath.join("log/zone.log"), b"")?;
    fs::set_permissions(zonepath.join("log/zone.log"), fs::Permissions::from_mode(0o600))
}

pub(super) fn install(host: &mut Host, zone: &Zone, args: &[String]) -> Ran {
    let name = &zone.config.name;
    match zone.state {
        ZoneState::Configured => {}
        ZoneState::Incomplete => return Err(no(name, "zone is incomplete; uninstall required.")),
        _ => return Err(no(name, "is already installed.")),
    }
    if let Some(option) = args.iter().find(|word| ["-x", "-n"].contains(&word.as_str())) {
        return Err(Out::usage(format!("zoneadm: install: invalid option {option}")));
    }
    verify(host, zone)?;
    store(host, zone, ZoneState::Incomplete, "")?;
    let path = &zone.config.zonepath;
    let made = match dataset(host, zone) {
        Ok(made) => made,
        Err(out) => {
            return Err(Out {
                stderr: format!("{}zoneadm: zone '{name}': installation failed\n", out.stderr),
                code: 1,
                ..Out::default()
            });
        }
    };
    let mut out = Out::silent();
    if made {
        out.stdout += "A ZFS file system has been created for this zone.\n";
    }
    let dir = host.path(path);
    let mode = fs::metadata(&dir).map_err(broken)?.mode() & 0o7777;
    if mode != 0o700 {
        if !made {
            out.stderr += &format!("{path}: changing permissions to 0700.\n");
        }
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).map_err(broken)?;
    }
    if host.stops_here() {
        return Ok(out);
    }
    match host.faults.quirks(name).install_hook {
        None | Some(0) => {}
        Some(code) => {
            if code == 254 {
                store(host, zone, ZoneState::Configured, "")?;
            }
            return Err(no(name, &format!("brand install hook ended with {code}")));
        }
    }
    let number = host.state.take_number();
    let uuid = format!("00000000-0000-4000-8000-{number:012x}");
    small_root(host, path, &uuid).map_err(broken)?;
    host.state.debug_ids.insert(name.clone(), number);
    store(host, zone, ZoneState::Installed, &uuid)?;
    Ok(out)
}

pub(super) fn uninstall(host: &mut Host, zone: &Zone, args: &[String]) -> Ran {
    let name = &zone.config.name;
    let options = options(args, "F").map_err(|text| Out::usage(format!("zoneadm: uninstall: {text}")))?;
    nothing(
        "uninstall [-F]",
        &options.rest.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(),
    )?;
    match zone.state {
        ZoneState::Configured => return Err(no(name, "is already in state 'configured'.")),
        ZoneState::Incomplete | ZoneState::Installed => {}
        _ => return Err(no(name, "uninstall operation is invalid for running zones.")),
    }
    if !options.has('F') {
        return Err(Out::error(
            "Input not from terminal and -F not specified: uninstall not done.",
        ));
    }
    let path = &zone.entry.zonepath;
    let inside = format!("{path}/root/");
    let mounted: Vec<String> = host
        .state
        .datasets
        .iter()
        .filter(|(_, dataset)| dataset.mounted)
        .filter_map(|(name, _)| mount::point(&host.state, name))
        .filter(|place| place.starts_with(&inside))
        .collect();
    if !mounted.is_empty() {
        let list = mounted.iter().map(|place| format!("\t{place}\n")).collect::<String>();
        return Err(no(
            name,
            &format!("These file systems are mounted on subdirectories of {path}/root:\n{list}"),
        ));
    }
    store(host, zone, ZoneState::Incomplete, &zone.entry.uuid)?;
    if host.stops_here() {
        return Ok(Out::silent());
    }
    if !host.path(path).is_dir() {
        return Err(no(name, &format!("{path} is not a directory")));
    }
    match mount::dataset_at(&host.state, path) {
        Some(dataset) => {
            zfs::recursively(host, &dataset)
                .map_err(|out| Out::error(format!("{}zoneadm: zone '{name}': uninstall failed", out.stderr)))?;
        }
        None => files::remove(&host.path(path)).map_err(broken)?,
    }
    host.state.debug_ids.remove(name);
    store(host, zone, ZoneState::Configured, "")?;
    Ok(Out::silent())
}

pub(super) fn mark(host: &mut Host, zone: &Zone, args: &[String]) -> Ran {
    let name = &zone.config.name;
    let usage = || Out::usage("zoneadm: usage: mark incomplete | -F configured");
    let options = options(args, "F").map_err(|_| usage())?;
    if zone.state > ZoneState::Installed {
        return Err(no(name, "mark operation is invalid for running zones."));
    }
    match (options.rest.as_slice(), zone.state) {
        (["incomplete"], ZoneState::Configured) => Err(no(name, "must be installed before mark.")),
        (["incomplete"], _) => {
            store(host, zone, ZoneState::Incomplete, &zone.entry.uuid)?;
            Ok(Out::silent())
        }
        (["configured"], _) if options.has('F') => {
            host.state.debug_ids.remove(name);
            store(host, zone, ZoneState::Configured, "")?;
            Ok(Out::silent())
        }
        _ => Err(usage()),
    }
}
