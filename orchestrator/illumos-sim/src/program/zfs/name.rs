//! Names of datasets and snapshots.

/// Checks a name; the error is the reason as zfs words it.
///
/// # Errors
/// The reason.
pub fn check(name: &str) -> Result<(), String> {
    if name.len() > 255 {
        return Err("name is too long".into());
    }
    if name.is_empty() || name.starts_with('/') {
        return Err(if name.is_empty() {
            "empty component in name"
        } else {
            "leading slash in name"
        }
        .into());
    }
    let (dataset, snapshot) = match name.split_once('@') {
        Some((dataset, snapshot)) => (dataset, Some(snapshot)),
        None => (name, None),
    };
    if dataset.ends_with('/') {
        return Err("trailing slash in name".into());
    }
    if snapshot.is_some_and(|snapshot| snapshot.contains('@')) {
        return Err("multiple '@' and/or '#' delimiters in name".into());
    }
    for part in dataset.split('/').chain(snapshot) {
        if part.is_empty() {
            return Err("empty component in name".into());
        }
        if let Some(bad) = part
            .chars()
            .find(|c| !(c.is_ascii_alphanumeric() || "_.:- ".contains(*c)))
        {
            return Err(format!("invalid character '{bad}' in name"));
        }
    }
    if !dataset.starts_with(|c: char| c.is_ascii_alphabetic()) {
        return Err("name must begin with a letter".into());
    }
    if dataset.split('/').count() > 50 {
        return Err("name is too deep".into());
    }
    Ok(())
}

/// The dataset a name lies in: of a snapshot its dataset, of a dataset its parent, none of a pool.
#[must_use]
pub fn parent(name: &str) -> Option<&str> {
    name.split_once('@')
        .map(|(dataset, _)| dataset)
        .or_else(|| name.rsplit_once('/').map(|(parent, _)| parent))
}

/// Whether a dataset or snapshot lies below another, or is its snapshot.
#[must_use]
pub fn is_below(name: &str, top: &str) -> bool {
    name.strip_prefix(top).is_some_and(|rest| rest.starts_with(['/', '@']))
}

/// The order of `zfs list`: datasets by name, each followed by its snapshots in the order of their making.
#[must_use]
pub fn key(name: &str, guid: u64) -> (String, u64) {
    match name.split_once('@') {
        Some((dataset, _)) => (dataset.to_owned(), guid),
        None => (name.to_owned(), 0),
    }
}
