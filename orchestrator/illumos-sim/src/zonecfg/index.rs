//! `/etc/zones/index`: one line for each zone, `name:state:zonepath:uuid`.

use std::io;

use crate::{files, host::Host, state::ZoneState};

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub name: String,
    /// Configured, incomplete or installed.
    pub state: ZoneState,
    pub zonepath: String,
    /// Empty until it is installed.
    pub uuid: String,
}

fn parse(line: &str) -> Option<Entry> {
    let (name, rest) = line.split_once(':')?;
    let (state, rest) = rest.split_once(':')?;
    let (zonepath, uuid) = match rest.strip_prefix('"') {
        Some(quoted) => {
            let (path, rest) = quoted.split_once('"')?;
            (path, rest.trim_start_matches(':'))
        }
        None => rest.split_once(':').unwrap_or((rest, "")),
    };
    Some(Entry {
        name: name.into(),
        state: ZoneState::parse(state)?,
        zonepath: zonepath.into(),
        uuid: uuid.into(),
    })
}

/// All zones but the global one, in the order of the file.
///
/// # Errors
/// The file cannot be read.
pub fn read(host: &Host) -> io::Result<Vec<Entry>> {
    let text = files::text(&host.path("/etc/zones/index"))?.unwrap_or_default();
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    Ok(lines.filter_map(parse).filter(|entry| entry.name != "global").collect())
}

/// One zone.
///
/// # Errors
/// The file cannot be read.
pub fn find(host: &Host, name: &str) -> io::Result<Option<Entry>> {
    Ok(read(host)?.into_iter().find(|entry| entry.name == name))
}

/// Adds or replaces a zone.
///
/// # Errors
/// The file cannot be written.
pub fn put(host: &Host, entry: Entry) -> io::Result<()> {
    let mut entries = read(host)?;
    match entries.iter_mut().find(|other| other.name == entry.name) {
        Some(other) => *other = entry,
        None => entries.push(entry),
    }
    write(host, &entries)
}

/// Removes a zone.
///
/// # Errors
/// The file cannot be written.
pub fn remove(host: &Host, name: &str) -> io::Result<()> {
    let mut entries = read(host)?;
    entries.retain(|entry| entry.name != name);
    write(host, &entries)
}

fn write(host: &Host, entries: &[Entry]) -> io::Result<()> {
    let mut text = "global:installed:/\n".to_owned();
    for Entry {
        name,
        state,
        zonepath,
        uuid,
    } in entries
    {
        let path = if zonepath.contains(':') {
            format!("\"{zonepath}\"")
        } else {
            zonepath.clone()
        };
        text += &format!("{name}:{}:{path}:{uuid}\n", state.as_str());
    }
    files::replace(&host.path("/etc/zones/index"), text.as_bytes())
}
