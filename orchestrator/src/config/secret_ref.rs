//! Secrets stand outside the configuration: it holds `file:/path`, or in development `env:NAME`.

use std::{
    fs::File,
    io::Read as _,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use crate::{
    secret::Secret,
    yaml::{Node, Value},
};

/// No key or token is longer.
const MAX_BYTES: u64 = 64 << 10;

/// Where a secret is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reference {
    File(PathBuf),
    Env(String),
}

/// Recognises a reference; anything else may be the secret itself and must not be repeated.
pub(super) fn parse(text: &str) -> Option<Reference> {
    if let Some(path) = text.strip_prefix("file:") {
        let fits = path.starts_with('/') && !path.chars().any(char::is_control);
        return fits.then(|| Reference::File(path.into()));
    }
    let name = text.strip_prefix("env:")?;
    let word = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    (!name.is_empty() && name.bytes().all(word)).then(|| Reference::Env(name.to_owned()))
}

/// A problem with a secret, and what to do.
pub(super) struct Unusable {
    pub(super) message: String,
    pub(super) help: Option<String>,
}

fn unusable(message: String, help: &str) -> Unusable {
    Unusable {
        message,
        help: Some(help.to_owned()),
    }
}

/// Fetches the secret.
pub(super) fn fetch(reference: &Reference, env_allowed: bool) -> Result<Secret, Unusable> {
    let text = match reference {
        Reference::File(path) => read_file(path)?,
        Reference::Env(name) if env_allowed => std::env::var(name).map_err(|_| {
            unusable(
                format!("the variable {name} is not set or not text"),
                "export it, or use `file:/path`",
            )
        })?,
        Reference::Env(name) => {
            return Err(unusable(
                format!("`env:{name}` is only for development: other processes can read an environment"),
                "write `file:/path`, or start with --dev-env-secrets",
            ));
        }
    };
    let trimmed = text.trim_end_matches(['\n', '\r']);
    if trimmed.trim().is_empty() {
        return Err(unusable("the secret is empty".to_owned(), "put the secret into it"));
    }
    Ok(Secret::new(trimmed))
}

/// The checks are made on the open file, so that it cannot be exchanged between check and use.
fn read_file(path: &Path) -> Result<String, Unusable> {
    let shown = path.display();
    let failed = |error: std::io::Error| Unusable {
        message: format!("cannot read the secret {shown}: {error}"),
        help: Some("the daemon's user must own it, with mode 0600".to_owned()),
    };
    // A named pipe would wait for a writer, so its kind is checked before it is opened.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(unusable(
            format!("{shown} is not a regular file"),
            "put the secret into a regular file",
        ));
    }
    let file = File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(unusable(
            format!("{shown} is open to others: its mode is {mode:04o}"),
            &format!("chmod 600 {shown}"),
        ));
    }
    let me = nix::unistd::geteuid().as_raw();
    // Root reads the secrets of the daemon's user, whoever that is: machined and the administrator's commands share
    // its configuration.
    if metadata.uid() != me && metadata.uid() != 0 && me != 0 {
        return Err(unusable(
            format!(
                "{shown} belongs to user {}, not to root or this user ({me})",
                metadata.uid()
            ),
            &format!("chown {me} {shown}"),
        ));
    }
    let mut text = String::new();
    let read = file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(failed)?;
    if read as u64 > MAX_BYTES {
        return Err(unusable(
            format!("{shown} is larger than {MAX_BYTES} bytes"),
            "is it the right file?",
        ));
    }
    Ok(text)
}

/// The text with everything that could be a secret written in the wrong place replaced by asterisks:
/// it is shown around messages.
pub(super) fn redact(text: &str, root: &Node) -> String {
    let mut bytes = text.as_bytes().to_vec();
    hide(&mut bytes, root, false);
    // Only whole scalars were replaced, by ASCII; were that ever wrong, nothing is shown.
    String::from_utf8(bytes).unwrap_or_default()
}

fn hide(bytes: &mut [u8], node: &Node, suspect: bool) {
    match &node.value {
        _ if node.is_null() => {}
        Value::Sequence(items) => items.iter().for_each(|item| hide(bytes, item, suspect)),
        Value::Mapping(entries) => {
            for (key, value) in entries {
                hide(bytes, value, suspect || suspicious(&key.text));
            }
        }
        Value::Scalar(scalar) => {
            let text = scalar.written.as_str();
            let url_with_password = text.contains("://") && text.contains('@');
            let secret = (suspect && !text.starts_with('/') || url_with_password) && parse(text).is_none();
            let end = (node.span.offset + node.span.length).min(bytes.len());
            if let (true, Some(range)) = (secret, bytes.get_mut(node.span.offset..end)) {
                range.iter_mut().filter(|b| **b != b'\n').for_each(|b| *b = b'*');
            }
        }
    }
}

/// Keys that hold secrets, and keys somebody may have meant to be one.
fn suspicious(key: &str) -> bool {
    let key = key.to_lowercase();
    ["token", "secret", "key", "pass", "postgres", "database", "credential"]
        .iter()
        .any(|word| {
            key.contains(word)
                || key
                    .split(['_', '-', ' '])
                    .any(|part| strsim::damerau_levenshtein(part, word) <= 2)
        })
}
